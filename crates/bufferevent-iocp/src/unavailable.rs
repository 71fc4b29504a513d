//! Why a system completes no operations for us.
//!
//! # Invariants
//! - Every answer names what was refused, and what to do about it; what the system said is its source.

use std::error::Error;
use std::fmt;
use std::io;

/// Why there is no completion backend here.
#[derive(Debug)]
pub struct Unavailable {
    what: &'static str,
    hint: &'static str,
    source: Option<io::Error>,
}

impl Unavailable {
    pub(crate) fn new(what: &'static str, hint: &'static str, source: Option<io::Error>) -> Self {
        Self { what, hint, source }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.hint)
    }
}

impl Error for Unavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<Unavailable> for io::Error {
    fn from(unavailable: Unavailable) -> Self {
        let kind = match &unavailable.source {
            Some(source) if source.kind() == io::ErrorKind::PermissionDenied => source.kind(),
            Some(_) | None => io::ErrorKind::Unsupported,
        };
        Self::new(kind, unavailable)
    }
}
