//! The PROXY protocol, versions 1 and 2: who a connection is really from, told by the proxy in front.
//!
//! A proxy that passes a TCP stream on hides its client. So it sends one header first, before anything else, with the addresses of
//! the connection that it accepted. [`ProxyReceive`] takes the header off and hands up what comes behind; [`ProxySend`] emits one.
//!
//! ```
//! use bufferevent_core::{Options, READ};
//! use bufferevent_filter::FilterExt;
//! use bufferevent_filter::proxy::{Header, ProxyReceive, ProxySend, Version};
//! # use bufferevent_pair::pair;
//!
//! # let events = bufferevent_testkit::Loop::new();
//! # let (front, back) = pair(&events)?;
//! let client = "192.0.2.7:4711".parse().unwrap();
//! let accepted_at = "198.51.100.1:443".parse().unwrap();
//! let header = Header::of_addresses(Version::V2, client, accepted_at);
//! let front = front.filter(Options::CLOSE_ON_FREE, ProxySend::new(&header))?;
//! let back = back.filter(Options::CLOSE_ON_FREE, ProxyReceive::new())?;
//! back.enable(READ)?;
//! front.write(b"hello")?;
//! # events.run();
//! let proxy = back.filter_of::<ProxyReceive>().unwrap();
//! let told = proxy.with(|proxy| proxy.header().cloned())?.expect("it has come");
//! assert_eq!(told.source(), Some(client));
//! assert_eq!(back.input().len(), 5, "nothing of the header");
//! # Ok::<(), bufferevent_core::Error>(())
//! ```
//!
//! # Whom to believe
//! Anybody can write such a header. It is read only where [`ProxyReceive`] was put on, and there it is required: a connection without
//! one is refused, and a stream without the filter passes untouched, whatever it begins with. Nothing is guessed from the bytes.
//! **Put it on only where the proxy alone can connect;** elsewhere every client says who it is.
//!
//! # Invariants
//! - Not a byte behind the header is lost or taken for a part of it; not a byte goes up before it is whole and right.
//! - A header has at most [`MAX_HEADER`] bytes, or fewer where so asked. One that cannot become right is refused as soon as that is seen.
//! - Until it has come the bufferevent is connecting, so the connect and handshake deadlines bound a client that says nothing.
//!
//! Source: HAProxy `doc/proxy-protocol.txt`, sections 2.1 to 2.2.7.

mod header;
mod wire;

use bufferevent_core::{Error, Kind, Mode};
use evbuffer::EvBuffer;

pub use header::{Addresses, BadHeader, Extension, Header, Version};
pub use wire::{CRC32C, MAX_HEADER, Parsed, parse};

use crate::filter::{Filter, Verdict, Wants};
use crate::simple::pass;
use crate::sink::Sink;

/// The layer's name in errors and statistics.
const NAME: &str = "proxy";

/// The receiving side: takes a header off the front of a stream.
///
/// CONNECTED is told when the header has come. An error before that is a failed connection: [`Kind::Peer`] for bytes that are no header, with a
/// [`BadHeader`] as source, [`Kind::Limit`] for one that is too long, [`Kind::Truncated`] where the stream ended in it. What the
/// user writes waits for the header.
#[derive(Debug)]
pub struct ProxyReceive {
    state: Receiving,
    limit: usize,
    accepted: Option<Version>,
}

/// Waiting --a whole header--> Passing
/// `------- what is none ----> Refused
#[derive(Debug)]
enum Receiving {
    Waiting,
    Passing(Header),
    Refused(Error),
}

impl Default for ProxyReceive {
    fn default() -> Self {
        Self::new()
    }
}

impl ProxyReceive {
    /// Takes either version, up to [`MAX_HEADER`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Receiving::Waiting,
            limit: MAX_HEADER,
            accepted: None,
        }
    }

    /// Takes this version alone.
    #[must_use]
    pub fn only(mut self, version: Version) -> Self {
        self.accepted = Some(version);
        self
    }

    /// Takes headers of at most so many bytes; no more than [`MAX_HEADER`] in any case. 536 fits every header without extensions.
    #[must_use]
    pub fn max_header(mut self, bytes: usize) -> Self {
        self.limit = bytes.min(MAX_HEADER);
        self
    }

    /// What the proxy has told; `None` before it has.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        match &self.state {
            Receiving::Passing(header) => Some(header),
            Receiving::Waiting | Receiving::Refused(_) => None,
        }
    }

    /// Looks for the header at the front of `source`, and takes it off if it is whole.
    fn receive(&self, source: &mut EvBuffer) -> Result<Option<Header>, Error> {
        let mut front = vec![0; source.len().min(self.limit.max(wire::SHORTEST))];
        source.copy_out(&mut front);
        match wire::parse_limited(&front, self.limit, self.accepted) {
            Ok(Parsed::Whole { header, length }) => {
                source.drain(length);
                Ok(Some(header))
            }
            Ok(Parsed::Partial) => Ok(None),
            Err(cause) => {
                let kind = match cause {
                    BadHeader::TooLong { .. } => Kind::Limit,
                    _ => Kind::Peer,
                };
                Err(Error::new(kind, NAME, "header").with_source(cause))
            }
        }
    }
}

impl Filter for ProxyReceive {
    fn name(&self) -> &'static str {
        NAME
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        if let Receiving::Waiting = self.state {
            match self.receive(source) {
                // At the end of the stream this is a truncated handshake.
                Ok(None) => return Ok(Verdict::NeedInput),
                Ok(Some(header)) => self.state = Receiving::Passing(header),
                Err(error) => self.state = Receiving::Refused(error),
            }
        }
        match &self.state {
            Receiving::Waiting => Ok(Verdict::NeedInput),
            Receiving::Passing(_) => Ok(pass(source, sink)),
            Receiving::Refused(error) => Err(error.clone()),
        }
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        match self.state {
            // Not asked with the user's bytes before the header has come.
            Receiving::Waiting => Ok(Verdict::NeedInput),
            Receiving::Passing(_) | Receiving::Refused(_) => Ok(pass(source, sink)),
        }
    }

    fn wants(&self) -> Wants {
        Wants {
            read: matches!(self.state, Receiving::Waiting),
            write: false,
        }
    }

    fn handshaking(&self) -> bool {
        // What was refused was never connected.
        !matches!(self.state, Receiving::Passing(_))
    }
}

/// The sending side: emits a header before anything else, whether or not the user writes.
#[derive(Debug)]
pub struct ProxySend {
    /// What is still to be emitted of the header.
    header: EvBuffer,
}

impl ProxySend {
    /// Emits `header`.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self {
            header: EvBuffer::from(&header.to_bytes()[..]),
        }
    }
}

impl Filter for ProxySend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(pass(source, sink))
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        sink.append_from(&mut self.header);
        if !self.header.is_empty() {
            return Ok(Verdict::Full);
        }
        Ok(pass(source, sink))
    }

    fn wants(&self) -> Wants {
        Wants {
            read: false,
            write: !self.header.is_empty(),
        }
    }
}
