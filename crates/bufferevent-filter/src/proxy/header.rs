//! What a header says, and why bytes are none.
//!
//! # Invariants
//! - Both addresses of a [`Header`] are of one family.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::wire;

/// Which form a header has.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Bytes behind a signature.
    V2,
}

/// What the proxy says of the connection that it accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    pub(super) version: Version,
    pub(super) addresses: Addresses,
    pub(super) extensions: Vec<Extension>,
}

/// The two ends of the connection that the proxy accepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Addresses {
    /// The proxy does not say (`UNKNOWN`, UNSPEC, datagrams), or speaks for itself (LOCAL: a health check). The connection's own
    /// addresses are the right ones.
    #[default]
    Unknown,
    /// IPv4 or IPv6, both the same.
    Inet {
        /// Who connected to the proxy.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
    /// Unix-domain paths, as the proxy wrote them, up to the first NUL; empty for an unnamed socket.
    Unix {
        /// Who connected to the proxy.
        source: Vec<u8>,
        /// Where it connected to.
        destination: Vec<u8>,
    },
}

/// A further field of a version 2 header (a TLV).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Extension {
    /// Which field, by the specification's numbers: 1 for ALPN, 2 for the server name, …
    pub kind: u8,
    /// Its bytes.
    pub value: Vec<u8>,
}

impl Header {
    /// A header with these addresses. Where they are of two families, both become IPv6.
    #[must_use]
    pub fn of_addresses(version: Version, source: SocketAddr, destination: SocketAddr) -> Self {
        let mapped = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            IpAddr::V6(_) => address,
        };
        // A header has neither flow nor scope.
        let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
        let (source, destination) = if source.is_ipv4() == destination.is_ipv4() {
            (plain(source), plain(destination))
        } else {
            (mapped(source), mapped(destination))
        };
        Self {
            version,
            addresses: Addresses::Inet {
                source,
                destination,
            },
            extensions: Vec::new(),
        }
    }

    /// A header that says nothing of the addresses: for clients that have none, such as those at Unix-domain sockets.
    #[must_use]
    pub fn unknown(version: Version) -> Self {
        Self {
            version,
            addresses: Addresses::Unknown,
            extensions: Vec::new(),
        }
    }

    /// Which form it has.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The two ends.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Who connected to the proxy, if that is an IP address.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match &self.addresses {
            Addresses::Inet { source, .. } => Some(*source),
            Addresses::Unknown | Addresses::Unix { .. } => None,
        }
    }

    /// Where the client connected to, if that is an IP address.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match &self.addresses {
            Addresses::Inet { destination, .. } => Some(*destination),
            Addresses::Unknown | Addresses::Unix { .. } => None,
        }
    }

    /// The further fields of version 2, in their order.
    #[must_use]
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// The header as it stands in the stream. Extensions are not emitted.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::emit(self)
    }
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BadHeader {
    /// The stream begins with something else.
    NotProxy,
    /// The other version was asked for.
    WrongVersion(Version),
    /// Version 1: a line that is not as it has to be; the text says which part.
    Line(&'static str),
    /// Version 2: neither version 2, nor LOCAL or PROXY.
    Command(u8),
    /// Version 2: no such family or transport.
    Family(u8),
    /// Version 2: shorter than the addresses of its family, or a field that is longer than what is left.
    Short,
    /// Version 2: the checksum does not fit the bytes.
    Checksum,
    /// More bytes than are taken.
    TooLong {
        /// Bytes that the header has, as far as that is known.
        length: usize,
        /// Bytes that it may have.
        limit: usize,
    },
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProxy => f.write_str("the stream does not begin with a PROXY header"),
            Self::WrongVersion(Version::V1) => {
                f.write_str("a PROXY header of version 1, where version 2 is taken")
            }
            Self::WrongVersion(Version::V2) => {
                f.write_str("a PROXY header of version 2, where version 1 is taken")
            }
            Self::Line(part) => write!(f, "the PROXY line is wrong: {part}"),
            Self::Command(byte) => write!(f, "0x{byte:02x} is no PROXY version and command"),
            Self::Family(byte) => write!(f, "0x{byte:02x} is no PROXY family and transport"),
            Self::Short => f.write_str("the PROXY header is shorter than what it says it holds"),
            Self::Checksum => f.write_str("the PROXY header's checksum does not fit"),
            Self::TooLong { length, limit } => write!(
                f,
                "the PROXY header has {length} bytes or more; {limit} are taken"
            ),
        }
    }
}

impl Error for BadHeader {}
