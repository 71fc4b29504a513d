//! Why a pool of loops did not start, or did not end well.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::builder::BuildError;
use crate::event_loop::RunError;

/// What went wrong with the loops of a pool: one failure at least.
#[derive(Debug)]
pub struct PoolError {
    failures: Vec<LoopFailure>,
}

impl PoolError {
    pub(super) fn new(failures: Vec<LoopFailure>) -> Self {
        debug_assert!(!failures.is_empty(), "an error needs a failure");
        Self { failures }
    }

    /// The failures, by the index of the loop.
    #[must_use]
    pub fn failures(&self) -> &[LoopFailure] {
        &self.failures
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, failure) in self.failures.iter().enumerate() {
            if nth > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{failure}")?;
        }
        Ok(())
    }
}

/// The causes are in the text, since there may be several.
impl Error for PoolError {}

/// What went wrong with one loop of a pool.
#[derive(Debug)]
pub struct LoopFailure {
    index: usize,
    reason: Reason,
}

impl LoopFailure {
    pub(super) fn new(index: usize, reason: Reason) -> Self {
        Self { index, reason }
    }

    /// Which loop it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// What happened.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

impl fmt::Display for LoopFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loop {}: {}", self.index, self.reason)
    }
}

/// Why a loop of a pool failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The system gave no thread.
    Spawn(io::Error),
    /// The loop could not be made.
    Build(BuildError),
    /// The setup returned this error.
    Setup(Box<dyn Error + Send + Sync>),
    /// The setup was not done in this time.
    NotStarted(Duration),
    /// The setup panicked, or the drop of what it had made; with what the panic said. Panics of callbacks do not come to this.
    Panicked(String),
    /// The loop could not go on.
    Run(RunError),
    /// The loop was still in a call after this time.
    NotEnded(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, mut cause): (_, Option<&dyn Error>) = match self {
            Self::Spawn(source) => ("no thread could be made", Some(source)),
            Self::Build(source) => ("no loop could be made", Some(source)),
            Self::Setup(source) => ("the setup failed", Some(&**source)),
            Self::Run(source) => ("the loop failed", Some(source)),
            Self::Panicked(said) => return write!(f, "panicked: {said}"),
            Self::NotStarted(limit) => return write!(f, "not set up after {limit:?}"),
            Self::NotEnded(limit) => return write!(f, "still busy after {limit:?}"),
        };
        f.write_str(what)?;
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
