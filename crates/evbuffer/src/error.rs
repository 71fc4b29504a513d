//! What can go wrong in a buffer, and on whose account.
//!
//! # Invariants
//! - An operation that answers an error has changed nothing, unless its documentation names what it did.
//! - Bytes from a peer can cause [`ErrorKind::LineTooLong`] and nothing else.

use std::collections::TryReserveError;
use std::fmt;
use std::io;

/// Why an operation on an [`EvBuffer`](crate::EvBuffer) was refused.
///
/// Opaque on purpose: match on [`kind`](Self::kind), print with `Display`, walk `source()`.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    during: &'static str,
    source: Option<io::Error>,
}

/// What a program can act on. New kinds may be added in a minor release.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The buffer would hold more than [`MAX_LEN`](crate::MAX_LEN) bytes.
    TooLong,
    /// Memory for a segment was refused.
    OutOfMemory,
    /// That end of the buffer is frozen.
    Frozen,
    /// An offset or a length lies outside of what there is. Fix the call; never caused by input.
    BadRange,
    /// A line is longer than the caller allows. The only kind that a peer can cause.
    LineTooLong,
    /// A file region could not be read; `source()` is the [`io::Error`].
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, during: &'static str) -> Self {
        Self {
            kind,
            during,
            source: None,
        }
    }

    pub(crate) fn io(during: &'static str, source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            during,
            source: Some(source),
        }
    }

    /// For storage of one segment: lengths were checked before, so only memory can lack.
    pub(crate) fn out_of_memory(during: &'static str) -> impl FnOnce(TryReserveError) -> Self {
        move |_| Self::new(ErrorKind::OutOfMemory, during)
    }

    /// What happened, for a program to act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that was refused.
    #[must_use]
    pub fn during(&self) -> &'static str {
        self.during
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ErrorKind::TooLong => "the buffer would exceed the greatest length",
            ErrorKind::OutOfMemory => "no memory for a segment",
            ErrorKind::Frozen => "that end of the buffer is frozen",
            ErrorKind::BadRange => "outside of the bytes there are",
            ErrorKind::LineTooLong => "the line is longer than allowed",
            ErrorKind::Io => "the file region cannot be read",
        };
        write!(f, "{}: {what}", self.during)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

impl From<Error> for io::Error {
    /// For the `std::io` traits: an I/O error of a file keeps its kind.
    fn from(error: Error) -> Self {
        let kind = match (&error.kind, &error.source) {
            (ErrorKind::OutOfMemory, _) => io::ErrorKind::OutOfMemory,
            (ErrorKind::Frozen, _) => io::ErrorKind::PermissionDenied,
            (ErrorKind::LineTooLong, _) => io::ErrorKind::InvalidData,
            (ErrorKind::TooLong | ErrorKind::BadRange, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::Io, Some(source)) => source.kind(),
            (ErrorKind::Io, None) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
