//! The filter: a TLS connection as two functions of buffers.
//!
//! ```text
//!               handshake over                close_notify came
//!   Open ------------------------> Open --------------------------> Closed     the input side
//!     `--------------- error, from either side ------------------> Failed      both sides
//! ```
//!
//! # Invariants
//! - No byte of the user's is encrypted before the handshake is over, and none is delivered behind a record that does not decrypt.
//! - On a failure the alert is still sent; after it nothing is.
//! - What the peer can make this side do is counted: [`MAX_HANDSHAKE`], [`MAX_IDLE_RECORDS`], and rustls' own limits on alerts, key
//!   updates, renegotiation and the length of messages.
//!
//! Source: libevent `bufferevent_ssl.c`; RFC 8446; RFC 5246.

use bufferevent_core::{Error, Kind, Mode};
use bufferevent_filter::{Filter, Sink, Verdict, Wants};
use evbuffer::{ErrorKind, EvBuffer};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, Connection, HandshakeKind, ProtocolVersion};

use crate::failure::{Failure, Reason};
use crate::record::Records;
use crate::session::{Fed, Session};

/// What a handshake may take, in bytes from the peer. The longest message that rustls takes has 64 KiB, so every handshake that it
/// would finish is far below; one that comes in records of one byte is not.
pub const MAX_HANDSHAKE: u64 = 256 * 1024;

/// Records in a row, after the handshake, that bring nothing to the user. Servers send a few tickets; key updates and empty records
/// rustls counts itself, and stops sooner.
pub const MAX_IDLE_RECORDS: u32 = 128;

/// Bytes of a file region that are read at a time.
const LOAD: usize = 64 * 1024;

/// What the end of the stream below means when no close_notify came before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub(crate) enum Shutdown {
    /// An error: somebody may have cut the stream.
    #[default]
    Clean,
    /// An end like any other, between two records.
    Dirty,
}

#[derive(Debug)]
enum Inward {
    Open,
    Closed,
    Failed(Error),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outward {
    Open,
    /// The close_notify has been made.
    Closed,
}

/// TLS over a bufferevent, as a filter.
///
/// Made by a [`TlsClient`](crate::TlsClient) or a [`TlsServer`](crate::TlsServer), put on by
/// [`FilterExt::filter`](bufferevent_filter::FilterExt::filter), found from the top of a stack by
/// [`FilterExt::filter_of`](bufferevent_filter::FilterExt::filter_of).
///
/// ```
/// use bufferevent_core::Bev;
/// use bufferevent_filter::FilterExt;
/// use bufferevent_tls::Tls;
///
/// /// Whether the two ends agreed upon HTTP/2.
/// fn speaks_h2(bev: &Bev) -> bool {
///     bev.filter_of::<Tls>()
///         .and_then(|tls| tls.with(|tls| tls.alpn() == Some(b"h2")).ok())
///         .unwrap_or(false)
/// }
/// ```
#[derive(Debug)]
#[doc(alias = "bufferevent_openssl_get_ssl")]
#[doc(alias = "bufferevent_ssl_get_ssl")]
pub struct Tls {
    session: Session,
    records: Records,
    inward: Inward,
    outward: Outward,
    shutdown: Shutdown,
    /// Bytes that came before the handshake was over.
    shaken: u64,
    /// Records that passed up to the last one that brought the user something.
    useful: u64,
}

impl Tls {
    pub(crate) fn new(connection: Connection, shutdown: Shutdown) -> Self {
        Self {
            session: Session::new(connection),
            records: Records::default(),
            inward: Inward::Open,
            outward: Outward::Open,
            shutdown,
            shaken: 0,
            useful: 0,
        }
    }

    fn fails(&mut self, failure: Failure, operation: &'static str) -> Error {
        let error = failure.during(operation);
        self.inward = Inward::Failed(error.clone());
        error
    }

    /// What an operation of this moment is called in an error.
    fn operation(&self, otherwise: &'static str) -> &'static str {
        if self.session.is_handshaking() {
            "handshake"
        } else {
            otherwise
        }
    }

    /// Feeds the next piece of `source`, which holds some bytes.
    fn feed(&mut self, source: &mut EvBuffer) -> Result<(), Failure> {
        let shaking = self.session.is_handshaking();
        let length = self.records.next(source);
        let fed = self.session.feed(source, length)?;
        match fed {
            Ok(Fed::Closed) => self.inward = Inward::Closed,
            Ok(Fed::Open) => {}
            Err(error) => {
                return Err(Failure::from_rustls(error, self.records.spoken_instead()));
            }
        }
        self.count(length, shaking)
    }

    /// Counts what a peer could do without end.
    fn count(&mut self, length: usize, shaking: bool) -> Result<(), Failure> {
        if shaking {
            self.shaken += length as u64;
            self.useful = self.records.passed();
            if self.shaken > MAX_HANDSHAKE && self.session.is_handshaking() {
                return Err(Failure::new(Reason::HandshakeTooLong));
            }
        } else if self.session.has_plaintext() {
            self.useful = self.records.passed();
        } else if self.records.passed() - self.useful > u64::from(MAX_IDLE_RECORDS) {
            return Err(Failure::new(Reason::IdleRecords));
        }
        Ok(())
    }

    /// The stream below has ended, and all of it was fed.
    fn ended_below(&mut self) -> Result<Verdict, Error> {
        if self.session.is_handshaking() {
            let reason = self
                .records
                .spoken_instead()
                .map_or(Reason::EndInHandshake, Reason::NotTls);
            return Err(self.fails(Failure::new(reason), "handshake"));
        }
        match self.shutdown {
            Shutdown::Dirty if self.records.is_between() => Ok(Verdict::NeedInput),
            Shutdown::Clean | Shutdown::Dirty => {
                Err(self.fails(Failure::new(Reason::NoCloseNotify), "read"))
            }
        }
    }
}

/// What the two ends have agreed upon, and who the other one is.
impl Tls {
    /// The protocol version; `None` before the handshake has chosen one.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.session.connection().protocol_version()
    }

    /// The cipher suite; `None` before the handshake has chosen one.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        let suite = self.session.connection().negotiated_cipher_suite();
        suite.map(|suite| suite.suite())
    }

    /// The application protocol; `None` if none was agreed upon.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.connection().alpn_protocol()
    }

    /// The name that the client asked for (SNI); `None` at a client, and where none was sent.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match self.session.connection() {
            Connection::Client(_) => None,
            Connection::Server(server) => server.server_name(),
        }
    }

    /// The peer's certificates, its own first; `None` where it has shown none. They were verified, unless the client was
    /// told not to.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.connection().peer_certificates()
    }

    /// Whether an earlier session was resumed, instead of a whole handshake.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.session.connection().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The rustls connection, for all else that it knows.
    #[must_use]
    pub fn rustls(&self) -> &Connection {
        self.session.connection()
    }

    /// Has both ends use new keys from here on (TLS 1.3). The request goes out at once, whatever the user has enabled.
    ///
    /// # Errors
    /// [`Kind::Misuse`] before the handshake is over, and with TLS 1.2. [`Kind::Ended`] once this side has finished, or the stream has
    /// failed: nothing is sent behind a close_notify or a fatal alert.
    ///
    /// Source: RFC 8446, section 4.6.3. libevent's counterpart is renegotiation.
    #[doc(alias = "bufferevent_ssl_renegotiate")]
    pub fn refresh_traffic_keys(&mut self) -> Result<(), Error> {
        match (&self.inward, self.outward) {
            (Inward::Open | Inward::Closed, Outward::Open) => {}
            (Inward::Failed(_), _) | (_, Outward::Closed) => {
                return Err(Error::new(Kind::Ended, crate::NAME, "refresh_traffic_keys"));
            }
        }
        let refreshed = self.session.connection_mut().refresh_traffic_keys();
        refreshed.map_err(|error| {
            Error::new(Kind::Misuse, crate::NAME, "refresh_traffic_keys").with_source(error)
        })
    }
}

/// Makes the first bytes of `source` bytes in memory: the front of a file region is read.
fn load(source: &mut EvBuffer, operation: &'static str) -> Result<(), Error> {
    let Some(length) = source.front_file().map(|region| region.len().min(LOAD)) else {
        return Ok(());
    };
    source
        .pull_up(length)
        .map(drop)
        .map_err(|error| buffer_error(error, operation))
}

fn buffer_error(error: evbuffer::Error, operation: &'static str) -> Error {
    let kind = match error.kind() {
        ErrorKind::OutOfMemory => Kind::OutOfMemory,
        _ => Kind::System,
    };
    Error::new(kind, crate::NAME, operation).with_source(error)
}

impl Filter for Tls {
    fn name(&self) -> &'static str {
        crate::NAME
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        loop {
            self.session.take_plaintext(sink);
            if self.session.has_plaintext() {
                return Ok(Verdict::Full);
            }
            match &self.inward {
                Inward::Open => {}
                Inward::Closed => return Ok(Verdict::End),
                Inward::Failed(error) => return Err(error.clone()),
            }
            if source.is_empty() {
                break;
            }
            load(source, "read")?;
            let operation = self.operation("read");
            self.feed(source)
                .map_err(|failure| self.fails(failure, operation))?;
        }
        match mode {
            Mode::Finished => self.ended_below(),
            Mode::Normal | Mode::Flush => Ok(Verdict::NeedInput),
        }
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        loop {
            self.session.take_records(sink);
            if self.session.has_records() {
                return Ok(Verdict::Full);
            }
            if let Inward::Failed(error) = &self.inward {
                return Err(error.clone());
            }
            if self.session.is_handshaking() || self.outward == Outward::Closed {
                break;
            }
            if !source.is_empty() {
                load(source, "write")?;
                let written = self.session.encrypt(source);
                if written.map_err(|error| buffer_error(error, "write"))? == 0 {
                    return Err(self.fails(Failure::new(Reason::Local), "write"));
                }
            } else if mode == Mode::Finished {
                self.session.close();
                self.outward = Outward::Closed;
            } else {
                break;
            }
        }
        match self.outward {
            Outward::Closed => Ok(Verdict::End),
            Outward::Open => Ok(Verdict::NeedInput),
        }
    }

    fn wants(&self) -> Wants {
        Wants {
            read: self.session.is_handshaking() && matches!(self.inward, Inward::Open),
            write: self.session.has_records(),
        }
    }

    fn handshaking(&self) -> bool {
        self.session.is_handshaking()
    }
}
