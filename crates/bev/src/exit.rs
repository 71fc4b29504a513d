//! How the program ends: its exit codes, and the one line that goes with each failure.
//!
//! # Invariants
//! - Every way to fail has a [`Code`]; the table in the manual ([`TABLE`]) lists them all, and a test holds it to that.
//! - A failure is told in one line on standard error, causes included, never with a backtrace.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit codes as the manual shows them.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done; everything that was to be delivered was
  1  failed while running: an I/O error, a broken stream
  2  wrong usage: flags, addresses, numbers, certificates and keys
  3  cannot listen or connect: the port is in use, nobody answers, no such path, a handshake failed
  4  the demo got other bytes back than it sent
  5  ended by a signal with connections cut: the drain deadline passed, or a second signal came";

/// What an exit code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Failed while running.
    Runtime = 1,
    /// Wrong flags or addresses.
    Usage = 2,
    /// Cannot listen or connect.
    Unreachable = 3,
    /// Bytes came back changed.
    Mismatch = 4,
    /// Connections were cut at the end.
    Cut = 5,
}

/// Why the program ends without having done what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A failure during `what`, with the error and all its causes.
    pub(crate) fn because(code: Code, what: impl fmt::Display, error: &dyn Error) -> Self {
        Self::new(code, format!("{what}: {}", Chain(error)))
    }

    /// For `map_err`: a failure of the running program during `what`.
    pub(crate) fn during<E: Error>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::because(Code::Runtime, what, &error)
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code() as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the causes wrote.
        for (nth, line) in self
            .message
            .lines()
            .filter(|line| !line.is_empty())
            .enumerate()
        {
            if nth > 0 {
                f.write_str(" ")?;
            }
            f.write_str(line.trim())?;
        }
        Ok(())
    }
}

/// An error followed by its causes, as one text.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code() {
        for code in [
            Code::Runtime,
            Code::Usage,
            Code::Unreachable,
            Code::Mismatch,
            Code::Cut,
        ] {
            let row = format!("\n  {}  ", code as u8);
            assert!(TABLE.contains(&row), "{code:?} is not in the table");
        }
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::new(Code::Usage, "several\n  lines\n\nof text");
        assert_eq!(failure.to_string(), "several lines of text");
    }
}
