//! Why a TLS stream could not go on: what rustls says, put into what a program can act on.
//!
//! # Invariants
//! - Every error of a running stream has a [`Failure`] as its source, and the failure has the `rustls::Error` as its own where
//!   there is one.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use bufferevent_core::{Error, Kind};
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

use crate::record::Spoken;
use crate::verify::SelfSigned;

/// What [`Error::source`](StdError::source) of a stream's error holds.
///
/// ```
/// use bufferevent_core::Error;
/// use bufferevent_tls::{Failure, Reason};
///
/// fn worth_a_retry_over_plain_text(error: &Error) -> bool {
///     Failure::of(error).is_some_and(|failure| matches!(failure.reason(), Reason::NotTls(_)))
/// }
/// # assert!(!worth_a_retry_over_plain_text(&Error::new(bufferevent_core::Kind::Peer, "tls", "read")));
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "bufferevent_get_openssl_error")]
#[doc(alias = "bufferevent_get_ssl_error")]
pub struct Failure {
    reason: Reason,
    error: Option<rustls::Error>,
}

/// What stopped a TLS stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The peer does not speak TLS.
    NotTls(Spoken),
    /// The certificate is not for the name that was asked for.
    WrongName,
    /// The certificate is no longer valid.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate was issued by nobody that is trusted.
    UnknownIssuer,
    /// The certificate was issued by itself, and is not trusted.
    SelfSigned,
    /// The certificate was revoked.
    Revoked,
    /// The certificate has another fault.
    BadCertificate,
    /// The peer has to show a certificate and has not.
    NoCertificate,
    /// The two have no protocol version in common.
    NoCommonVersion,
    /// The two have no cipher suite, or no group for the key exchange, in common.
    NoCommonSuite,
    /// The two have no application protocol in common.
    NoCommonProtocol,
    /// There is no certificate for the name that the client asked for.
    UnknownName,
    /// The peer gave up, with this code of an alert (RFC 8446, section 6).
    Alert(u8),
    /// A record does not decrypt: it was damaged, or forged.
    BadRecord,
    /// A record, or a message in it, has no meaning, or comes at the wrong time.
    Protocol,
    /// The stream below ended without a close_notify: bytes may be missing.
    NoCloseNotify,
    /// The stream below ended before the handshake did.
    EndInHandshake,
    /// The handshake went on past [`MAX_HANDSHAKE`](crate::MAX_HANDSHAKE) bytes, or one of its messages past 64 KiB.
    HandshakeTooLong,
    /// More than [`MAX_IDLE_RECORDS`](crate::MAX_IDLE_RECORDS) records followed each other with nothing for the user.
    IdleRecords,
    /// This side could not go on, through no fault of the peer's.
    Local,
}

impl Failure {
    /// The failure that `error` tells of, if it is one of TLS.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        StdError::source(error)?.downcast_ref()
    }

    /// What stopped the stream.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What rustls says, where it was rustls that stopped it.
    #[must_use]
    pub fn rustls(&self) -> Option<&rustls::Error> {
        self.error.as_ref()
    }

    pub(crate) fn new(reason: Reason) -> Self {
        Self {
            reason,
            error: None,
        }
    }

    /// What came of feeding bytes to the session: `spoken` instead of TLS, if the first ones were none.
    pub(crate) fn from_rustls(error: rustls::Error, spoken: Option<Spoken>) -> Self {
        let reason = spoken.map_or_else(|| Reason::of(&error), Reason::NotTls);
        Self {
            reason,
            error: Some(error),
        }
    }

    /// The error of a bufferevent that this is the source of.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let kind = match self.reason {
            Reason::NoCloseNotify | Reason::EndInHandshake => Kind::Truncated,
            Reason::HandshakeTooLong | Reason::IdleRecords => Kind::Limit,
            Reason::Local => Kind::Misuse,
            _ => Kind::Peer,
        };
        Error::new(kind, crate::NAME, operation).with_source(self)
    }
}

impl Reason {
    fn of(error: &rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(error) => Self::of_certificate(error),
            E::NoCertificatesPresented => Self::NoCertificate,
            E::PeerIncompatible(error) => Self::of_incompatible(error),
            E::NoApplicationProtocol => Self::NoCommonProtocol,
            E::AlertReceived(alert) => Self::of_alert(*alert),
            E::DecryptError => Self::BadRecord,
            E::InvalidMessage(
                InvalidMessage::CertificatePayloadTooLarge
                | InvalidMessage::HandshakePayloadTooLarge,
            ) => Self::HandshakeTooLong,
            // rustls has no other word for it.
            E::General(text) if text == "no server certificate chain resolved" => Self::UnknownName,
            E::FailedToGetCurrentTime
            | E::FailedToGetRandomBytes
            | E::HandshakeNotComplete
            | E::EncryptError
            | E::InconsistentKeys(_)
            | E::BadMaxFragmentSize
            | E::InvalidCertRevocationList(_) => Self::Local,
            _ => Self::Protocol,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as C;
        match error {
            C::NotValidForName | C::NotValidForNameContext { .. } => Self::WrongName,
            C::Expired | C::ExpiredContext { .. } => Self::Expired,
            C::NotValidYet | C::NotValidYetContext { .. } => Self::NotYetValid,
            C::UnknownIssuer => Self::UnknownIssuer,
            C::Revoked => Self::Revoked,
            C::Other(other) if other.0.is::<SelfSigned>() => Self::SelfSigned,
            _ => Self::BadCertificate,
        }
    }

    fn of_incompatible(error: &PeerIncompatible) -> Self {
        use PeerIncompatible as P;
        match error {
            P::ServerDoesNotSupportTls12Or13
            | P::ServerTlsVersionIsDisabledByOurConfig
            | P::SupportedVersionsExtensionRequired
            | P::Tls12NotOffered
            | P::Tls12NotOfferedOrEnabled => Self::NoCommonVersion,
            P::NoCipherSuitesInCommon
            | P::NoKxGroupsInCommon
            | P::NoEcPointFormatsInCommon
            | P::NoSignatureSchemesInCommon
            | P::NoCertificateRequestSignatureSchemesInCommon => Self::NoCommonSuite,
            _ => Self::Protocol,
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::ProtocolVersion => Self::NoCommonVersion,
            AlertDescription::NoApplicationProtocol => Self::NoCommonProtocol,
            other => Self::Alert(other.into()),
        }
    }
}

impl From<io::Error> for Failure {
    /// The session's own buffer is full: a message that is longer than it takes.
    fn from(_: io::Error) -> Self {
        Self::new(Reason::HandshakeTooLong)
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "it speaks HTTP as plain text",
            Self::Ssh => "it speaks SSH",
            Self::Ssl2 => "it speaks SSL 2",
            Self::Greeting => "it sent the greeting of a mail or file server",
            Self::Unknown => "its first bytes are no record",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTls(spoken) => return write!(f, "the peer does not speak TLS: {spoken}"),
            Self::Alert(code) => {
                let alert = AlertDescription::from(*code);
                return write!(f, "the peer gave up with the alert {alert:?} ({code})");
            }
            Self::WrongName => "the certificate is not for the name that was asked for",
            Self::Expired => "the certificate has expired",
            Self::NotYetValid => "the certificate is not valid yet",
            Self::UnknownIssuer => "the certificate was issued by nobody that is trusted",
            Self::SelfSigned => "the certificate is self-signed and not trusted",
            Self::Revoked => "the certificate was revoked",
            Self::BadCertificate => "the certificate is not valid",
            Self::NoCertificate => "the peer showed no certificate",
            Self::NoCommonVersion => "no protocol version in common",
            Self::NoCommonSuite => "no cipher suite in common",
            Self::NoCommonProtocol => "no application protocol in common",
            Self::UnknownName => "there is no certificate for the name that the client asked for",
            Self::BadRecord => "a record does not decrypt",
            Self::Protocol => "the peer violated the protocol",
            Self::NoCloseNotify => "the stream ended without a close_notify",
            Self::EndInHandshake => "the stream ended in the handshake",
            Self::HandshakeTooLong => "the handshake is longer than allowed",
            Self::IdleRecords => "too many records with nothing in them",
            Self::Local => "this side cannot go on",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}
