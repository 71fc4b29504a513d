//! Headers as bytes: reading and writing them.
//!
//! Both directions are functions of bytes, so every truncation and every wrong byte is a unit test and a fuzz target.
//!
//! # Invariants
//! - [`parse`] reads nothing behind the header, and its answer to a longer input is the same once it is not `Partial`.
//! - What `emit` writes, `parse` reads.
//! - What does not begin like a header, or is too long, is refused at that byte. What a line of version 1 says is looked at when the
//!   line is whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{Addresses, BadHeader, Extension, Header, Version};

/// The most bytes that a header may have: addresses, and extensions such as a client's certificate name. A header has to fit into the
/// 64 KiB that a covered bufferevent reads ahead.
pub const MAX_HEADER: usize = 4096;

/// Bytes of which every right header has more: what is always looked at.
pub(super) const SHORTEST: usize = 16;

/// The extension that holds a CRC-32C of the header. It is checked.
pub const CRC32C: u8 = 0x03;

/// The longest line of version 1, with its CRLF.
const LONGEST_LINE: usize = 107;

const PREFIX: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of version 2 before the addresses.
const FIXED: usize = SHORTEST;

/// The length of a path in version 2.
const PATH: usize = 108;

/// How far a header is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// What is there may become one.
    Partial,
    /// It is whole.
    Whole {
        /// What it says.
        header: Header,
        /// Its bytes; what is behind them is the stream.
        length: usize,
    },
}

/// Reads the header at the front of `bytes`, of either version and at most [`MAX_HEADER`] bytes.
///
/// # Errors
/// The bytes are no header, and no more of them would make them one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    parse_limited(bytes, MAX_HEADER, None)
}

/// As [`parse`], with a limit and one version.
pub(super) fn parse_limited(
    bytes: &[u8],
    limit: usize,
    only: Option<Version>,
) -> Result<Parsed, BadHeader> {
    let version = if begins(bytes, PREFIX) {
        Version::V1
    } else if begins(bytes, SIGNATURE) {
        Version::V2
    } else {
        return Err(BadHeader::NotProxy);
    };
    if bytes.is_empty() {
        return Ok(Parsed::Partial);
    }
    match (version, only) {
        (found, Some(wanted)) if found != wanted => Err(BadHeader::WrongVersion(found)),
        (Version::V1, _) => line(bytes, limit.min(LONGEST_LINE)),
        (Version::V2, _) => block(bytes, limit),
    }
}

/// Whether `bytes` and `start` are the same, as far as both go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, start)| byte == start)
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n`
fn line(bytes: &[u8], limit: usize) -> Result<Parsed, BadHeader> {
    let seen = &bytes[..bytes.len().min(limit)];
    let Some(end) = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        if seen.len() == limit {
            let length = limit + 1;
            return Err(BadHeader::TooLong { length, limit });
        }
        return Ok(Parsed::Partial);
    };
    match (seen[end], seen.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if end + 1 == limit => {
            let length = limit + 1;
            return Err(BadHeader::TooLong { length, limit });
        }
        (b'\r', None) => return Ok(Parsed::Partial),
        _ => return Err(BadHeader::Line("it ends in CR LF")),
    }
    let text = std::str::from_utf8(&seen[PREFIX.len().min(end)..end])
        .map_err(|_| BadHeader::Line("it is no text"))?;
    Ok(Parsed::Whole {
        header: Header {
            version: Version::V1,
            addresses: line_addresses(text)?,
            extensions: Vec::new(),
        },
        length: end + 2,
    })
}

/// What stands behind `PROXY `.
fn line_addresses(text: &str) -> Result<Addresses, BadHeader> {
    let mut words = text.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever is behind it, up to the end of the line, is to be ignored.
        return Ok(Addresses::Unknown);
    }
    let ip = |word: Option<&str>| -> Result<IpAddr, BadHeader> {
        let word = word.ok_or(BadHeader::Line("an address is missing"))?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().map(IpAddr::from).ok(),
            "TCP6" => word.parse::<Ipv6Addr>().map(IpAddr::from).ok(),
            _ => return Err(BadHeader::Line("neither TCP4, TCP6 nor UNKNOWN")),
        }
        .ok_or(BadHeader::Line("an address is not of its family"))
    };
    let port = |word: Option<&str>| -> Result<u16, BadHeader> {
        let word = word.ok_or(BadHeader::Line("a port is missing"))?;
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        let plain = word == "0" || !word.starts_with('0');
        match word.parse() {
            Ok(port) if digits && plain => Ok(port),
            _ => Err(BadHeader::Line("a port is no number from 0 to 65535")),
        }
    };
    let (source, destination) = (ip(words.next())?, ip(words.next())?);
    let (source_port, destination_port) = (port(words.next())?, port(words.next())?);
    if words.next().is_some() {
        return Err(BadHeader::Line("something stands behind the ports"));
    }
    Ok(Addresses::Inet {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// What a version 2 header is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    /// To be ignored: LOCAL, UNSPEC, datagrams.
    None,
    Inet4,
    Inet6,
    Unix,
}

impl Family {
    /// From the two bytes behind the signature.
    fn of(command: u8, family: Option<u8>) -> Result<Option<Self>, BadHeader> {
        let local = match command {
            0x20 => true,
            0x21 => false,
            other => return Err(BadHeader::Command(other)),
        };
        let Some(family) = family else {
            return Ok(None);
        };
        let known = match (family >> 4, family & 0x0f) {
            (1, 1) => Self::Inet4,
            (2, 1) => Self::Inet6,
            (3, 1) => Self::Unix,
            (0..=3, 0..=2) => Self::None,
            _ => return Err(BadHeader::Family(family)),
        };
        Ok(Some(if local { Self::None } else { known }))
    }

    /// The length of its two addresses.
    fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::Inet4 => 12,
            Self::Inet6 => 36,
            Self::Unix => 2 * PATH,
        }
    }
}

/// The signature, command, family, length, addresses, extensions.
fn block(bytes: &[u8], limit: usize) -> Result<Parsed, BadHeader> {
    let Some(&command) = bytes.get(SIGNATURE.len()) else {
        return Ok(Parsed::Partial);
    };
    let family = Family::of(command, bytes.get(SIGNATURE.len() + 1).copied())?;
    let (Some(family), Some(&[high, low])) = (
        family,
        bytes
            .get(FIXED - 2..FIXED)
            .and_then(|two| two.first_chunk()),
    ) else {
        return Ok(Parsed::Partial);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > limit {
        return Err(BadHeader::TooLong { length, limit });
    }
    if length < FIXED + family.length() {
        return Err(BadHeader::Short);
    }
    let Some(whole) = bytes.get(..length) else {
        return Ok(Parsed::Partial);
    };
    let (addresses, behind) = whole[FIXED..].split_at(family.length());
    let extensions = match family {
        Family::None => Vec::new(),
        Family::Inet4 | Family::Inet6 | Family::Unix => extensions(whole, length - behind.len())?,
    };
    Ok(Parsed::Whole {
        header: Header {
            version: Version::V2,
            addresses: block_addresses(family, addresses),
            extensions,
        },
        length,
    })
}

fn block_addresses(family: Family, bytes: &[u8]) -> Addresses {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let v4 = |at: usize| {
        let mut octets = [0; 4];
        octets.copy_from_slice(&bytes[at..at + 4]);
        IpAddr::from(octets)
    };
    let v6 = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        IpAddr::from(octets)
    };
    let path = |bytes: &[u8]| {
        bytes
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default()
            .to_vec()
    };
    match family {
        Family::None => Addresses::Unknown,
        Family::Inet4 => Addresses::Inet {
            source: SocketAddr::new(v4(0), port(8)),
            destination: SocketAddr::new(v4(4), port(10)),
        },
        Family::Inet6 => Addresses::Inet {
            source: SocketAddr::new(v6(0), port(32)),
            destination: SocketAddr::new(v6(16), port(34)),
        },
        Family::Unix => Addresses::Unix {
            source: path(&bytes[..PATH]),
            destination: path(&bytes[PATH..]),
        },
    }
}

/// The fields behind the addresses of a whole header, which begin at `at`.
fn extensions(whole: &[u8], at: usize) -> Result<Vec<Extension>, BadHeader> {
    let mut found = Vec::new();
    let mut at = at;
    while at < whole.len() {
        let Some(&[kind, high, low]) = whole[at..].first_chunk() else {
            return Err(BadHeader::Short);
        };
        let begin = at + 3;
        let end = begin + usize::from(u16::from_be_bytes([high, low]));
        let value = whole.get(begin..end).ok_or(BadHeader::Short)?;
        if kind == CRC32C {
            let sum = value.try_into().map_err(|_| BadHeader::Checksum)?;
            let zeroed = crc32c(&[&whole[..begin], &[0; 4], &whole[end..]]);
            if u32::from_be_bytes(sum) != zeroed {
                return Err(BadHeader::Checksum);
            }
        }
        found.push(Extension {
            kind,
            value: value.to_vec(),
        });
        at = end;
    }
    Ok(found)
}

/// The CRC-32C of the pieces, bit by bit: it is computed over a few hundred bytes, once in a connection.
fn crc32c(pieces: &[&[u8]]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut sum = u32::MAX;
    for byte in pieces.iter().flat_map(|piece| piece.iter()) {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// The bytes of a header, without extensions.
pub(super) fn emit(header: &Header) -> Vec<u8> {
    match header.version {
        Version::V1 => emit_line(&header.addresses),
        Version::V2 => emit_block(&header.addresses),
    }
}

fn emit_line(addresses: &Addresses) -> Vec<u8> {
    let line = match addresses {
        Addresses::Inet {
            source,
            destination,
        } => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n")
        }
        // Version 1 has no paths.
        Addresses::Unknown | Addresses::Unix { .. } => "PROXY UNKNOWN\r\n".into(),
    };
    line.into_bytes()
}

fn emit_block(addresses: &Addresses) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    let (family, block) = match addresses {
        Addresses::Unknown => (0x00, Vec::new()),
        Addresses::Inet {
            source,
            destination,
        } => {
            let mut block = Vec::new();
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => block.extend(ip.octets()),
                    IpAddr::V6(ip) => block.extend(ip.octets()),
                }
            }
            block.extend(source.port().to_be_bytes());
            block.extend(destination.port().to_be_bytes());
            (if source.is_ipv4() { 0x11 } else { 0x21 }, block)
        }
        Addresses::Unix {
            source,
            destination,
        } => {
            let mut block = vec![0; 2 * PATH];
            for (path, at) in [(source, 0), (destination, PATH)] {
                let length = path.len().min(PATH);
                block[at..at + length].copy_from_slice(&path[..length]);
            }
            (0x31, block)
        }
    };
    bytes.extend([0x21, family]);
    // At most 216.
    bytes.extend((block.len() as u16).to_be_bytes());
    bytes.extend(block);
    bytes
}
