//! Errors of setting up: what was given, and what is wrong with it.
//!
//! # Invariants
//! - A builder that answers with one has made nothing and changed nothing.
//! - A private key is never part of an error.

use std::error::Error as StdError;
use std::fmt;

/// Why a client or a server could not be made.
///
/// ```
/// use bufferevent_tls::{Part, TlsServer};
///
/// let error = TlsServer::new(b"no certificate", b"no key").unwrap_err();
/// assert_eq!(error.part(), Part::CertificateChain);
/// assert_eq!(error.to_string(), "certificate chain: there is no certificate in it");
/// ```
#[derive(Debug)]
pub struct SetupError {
    part: Part,
    /// Which one of several, if there are.
    of: Option<String>,
    problem: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Which part of a setup an error is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The server's name that a client asks for, or that a certificate is for.
    Name,
    /// The certificates that this side shows.
    CertificateChain,
    /// The private key of a certificate.
    PrivateKey,
    /// The certificates that are trusted.
    Roots,
    /// The lists of revoked certificates.
    RevocationLists,
    /// The protocol versions and the cryptography.
    Protocol,
    /// The application protocols.
    ApplicationProtocols,
}

impl SetupError {
    pub(crate) fn new(part: Part, problem: impl Into<String>) -> Self {
        Self {
            part,
            of: None,
            problem: problem.into(),
            source: None,
        }
    }

    /// The same, for the certificate that is shown to who asks for `name`.
    pub(crate) fn of(mut self, name: &str) -> Self {
        self.of = Some(name.to_owned());
        self
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What it is about.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "server name",
            Self::CertificateChain => "certificate chain",
            Self::PrivateKey => "private key",
            Self::Roots => "trusted certificates",
            Self::RevocationLists => "revocation lists",
            Self::Protocol => "protocol",
            Self::ApplicationProtocols => "application protocols",
        })
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.part)?;
        if let Some(name) = &self.of {
            write!(f, " for {name:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl StdError for SetupError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
