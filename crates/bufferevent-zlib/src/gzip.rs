//! What gzip puts around deflate: a header that may be long, and a trailer that is checked.
//!
//! Written out here, and not left to the codec, for two reasons: a header has a limit, and the next member of many needs a reset
//! and not a new codec.
//!
//! # Invariants
//! - Both parsers take bytes as they come, one at a time if need be, and never one that is not theirs.
//! - Names and comments are skipped, not stored.
//!
//! Source: RFC 1952, section 2.3.

use flate2::Crc;

use crate::cause::Cause;

/// The longest header of a gzip member that is accepted, in bytes: the longest extra field (64 KiB), and as much again for name and comment.
pub const MAX_GZIP_HEADER: usize = 128 * 1024;

/// The bytes that a member begins with.
pub(crate) const MAGIC: [u8; 2] = [0x1f, 0x8b];

const DEFLATE: u8 = 8;

/// Bytes before the optional fields.
const FIXED: u8 = 10;

const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Which field the next byte belongs to. Fields come in this order; those whose flag is not set are left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Field {
    Fixed { at: u8 },
    ExtraLength { low: Option<u8> },
    Extra { left: u16 },
    Name,
    Comment,
    Checksum { low: Option<u8> },
    Done,
}

/// The header of one member, as far as it has come.
#[derive(Debug)]
pub(crate) struct Header {
    field: Field,
    flags: u8,
    crc: Crc,
    taken: usize,
}

impl Header {
    pub(crate) fn new() -> Self {
        Self {
            field: Field::Fixed { at: 0 },
            flags: 0,
            crc: Crc::new(),
            taken: 0,
        }
    }

    /// Whether the last byte of the header was taken.
    pub(crate) fn is_complete(&self) -> bool {
        self.field == Field::Done
    }

    /// Takes what belongs to the header from the front of `bytes`; returns how many bytes that was.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Cause> {
        let mut count = 0;
        while let Some(&byte) = bytes.get(count)
            && !self.is_complete()
        {
            if self.taken == MAX_GZIP_HEADER {
                return Err(Cause::GzipHeaderLength {
                    limit: MAX_GZIP_HEADER,
                });
            }
            self.field = self.step(byte)?;
            self.taken += 1;
            count += 1;
        }
        Ok(count)
    }

    fn step(&mut self, byte: u8) -> Result<Field, Cause> {
        if !matches!(self.field, Field::Checksum { .. }) {
            self.crc.update(&[byte]);
        }
        Ok(match self.field {
            Field::Fixed { at } => {
                self.fixed(at, byte)?;
                match at + 1 {
                    FIXED => self.after(FEXTRA, Field::ExtraLength { low: None }),
                    at => Field::Fixed { at },
                }
            }
            Field::ExtraLength { low: None } => Field::ExtraLength { low: Some(byte) },
            Field::ExtraLength { low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => self.name(),
                left => Field::Extra { left },
            },
            Field::Extra { left: 0 | 1 } => self.name(),
            Field::Extra { left } => Field::Extra { left: left - 1 },
            Field::Name if byte == 0 => self.comment(),
            Field::Comment if byte == 0 => self.checksum(),
            Field::Name | Field::Comment => self.field,
            Field::Checksum { low: None } => Field::Checksum { low: Some(byte) },
            Field::Checksum { low: Some(low) } => {
                // The two least significant bytes of the CRC-32 of all before.
                if u16::from_le_bytes([low, byte]) != self.crc.sum() as u16 {
                    return Err(Cause::GzipHeaderChecksum);
                }
                Field::Done
            }
            Field::Done => Field::Done,
        })
    }

    fn fixed(&mut self, at: u8, byte: u8) -> Result<(), Cause> {
        match at {
            0 | 1 if byte != MAGIC[usize::from(at)] => return Err(Cause::GzipMagic),
            2 if byte != DEFLATE => return Err(Cause::GzipMethod(byte)),
            3 if byte & RESERVED != 0 => return Err(Cause::GzipFlags(byte)),
            3 => self.flags = byte,
            _ => {} // Time, extra flags and system say nothing about the bytes.
        }
        Ok(())
    }

    /// `field` if `flag` is set, else the one after it.
    fn after(&self, flag: u8, field: Field) -> Field {
        if self.flags & flag != 0 {
            return field;
        }
        match flag {
            FEXTRA => self.name(),
            FNAME => self.comment(),
            FCOMMENT => self.checksum(),
            _ => Field::Done,
        }
    }

    fn name(&self) -> Field {
        self.after(FNAME, Field::Name)
    }

    fn comment(&self) -> Field {
        self.after(FCOMMENT, Field::Comment)
    }

    fn checksum(&self) -> Field {
        self.after(FHCRC, Field::Checksum { low: None })
    }
}

/// The trailer of one member, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Trailer {
    bytes: [u8; 8],
    taken: usize,
}

impl Trailer {
    /// Whether the last byte of the trailer was taken.
    pub(crate) fn is_complete(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Takes what belongs to the trailer from the front of `bytes`; returns how many bytes that was.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let rest = &mut self.bytes[self.taken..];
        let count = rest.len().min(bytes.len());
        rest[..count].copy_from_slice(&bytes[..count]);
        self.taken += count;
        count
    }

    /// Compares a complete trailer with what was read.
    pub(crate) fn check(&self, crc: &Crc) -> Result<(), Cause> {
        let [a, b, c, d, e, f, g, h] = self.bytes;
        let (told, found) = (u32::from_le_bytes([a, b, c, d]), crc.sum());
        if told != found {
            return Err(Cause::GzipChecksum { told, found });
        }
        // The CRC's count is modulo 2^32, as the trailer's is.
        let (told, found) = (u32::from_le_bytes([e, f, g, h]), crc.amount());
        if told != found {
            return Err(Cause::GzipLength { told, found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, fields: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255];
        bytes.extend_from_slice(fields);
        bytes
    }

    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(&bytes);
        bytes.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
        bytes
    }

    /// Feeds `bytes` one at a time, with something else behind them, and tells how many the header took.
    fn taken(bytes: &[u8]) -> Result<usize, Cause> {
        let mut parser = Header::new();
        let mut count = 0;
        for &byte in bytes.iter().chain(b"body") {
            let took = parser.take(&[byte])?;
            count += took;
            assert_eq!(
                took == 0,
                count < bytes.len() + 4 && parser.is_complete() && took == 0
            );
        }
        assert!(parser.is_complete());
        Ok(count)
    }

    #[test]
    fn every_combination_of_fields_is_skipped_exactly() {
        for flags in 0..32 {
            let mut fields = Vec::new();
            if flags & FEXTRA != 0 {
                fields.extend_from_slice(&[3, 0, 0, 9, 0]);
            }
            if flags & FNAME != 0 {
                fields.extend_from_slice(b"name\0");
            }
            if flags & FCOMMENT != 0 {
                fields.extend_from_slice(b"\0");
            }
            let mut bytes = header(flags, &fields);
            if flags & FHCRC != 0 {
                bytes = with_checksum(bytes);
            }
            assert_eq!(taken(&bytes), Ok(bytes.len()), "flags {flags:#x}");
            let mut whole = Header::new();
            let with_body = [&bytes[..], b"body"].concat();
            assert_eq!(whole.take(&with_body), Ok(bytes.len()), "flags {flags:#x}");
        }
        let empty_extra = header(FEXTRA, &[0, 0]);
        assert_eq!(taken(&empty_extra), Ok(12));
    }

    #[test]
    fn what_is_no_header_says_why() {
        assert_eq!(taken(b"GET /"), Err(Cause::GzipMagic));
        assert_eq!(taken(&[0x1f, 0x8c]), Err(Cause::GzipMagic));
        assert_eq!(taken(&[0x1f, 0x8b, 7]), Err(Cause::GzipMethod(7)));
        assert_eq!(taken(&[0x1f, 0x8b, 8, 0x20]), Err(Cause::GzipFlags(0x20)));
        let mut bytes = with_checksum(header(FHCRC, &[]));
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(taken(&bytes), Err(Cause::GzipHeaderChecksum));
    }

    #[test]
    fn a_header_ends_at_its_limit() {
        let longest = header(FNAME, &[b'n'; MAX_GZIP_HEADER]);
        let mut parser = Header::new();
        let limit = MAX_GZIP_HEADER;
        assert_eq!(parser.take(&longest[..limit]), Ok(limit));
        assert_eq!(
            parser.take(&longest[limit..]),
            Err(Cause::GzipHeaderLength { limit })
        );
        let mut fits = longest[..limit].to_vec();
        fits[limit - 1] = 0;
        assert_eq!(Header::new().take(&fits), Ok(limit));
    }

    #[test]
    fn a_trailer_is_checked_in_both_halves() {
        let mut crc = Crc::new();
        crc.update(b"hello");
        let right = [crc.sum().to_le_bytes(), 5_u32.to_le_bytes()].concat();
        for (byte, flip) in (0..8).flat_map(|byte| [(byte, 0), (byte, 1)]) {
            let mut bytes = right.clone();
            bytes[byte] ^= flip;
            let mut trailer = Trailer::default();
            assert_eq!(trailer.take(&bytes[..3]), 3);
            assert!(!trailer.is_complete());
            bytes.push(9);
            assert_eq!(trailer.take(&bytes[3..]), 5);
            assert!(trailer.is_complete());
            match (trailer.check(&crc), flip, byte) {
                (Ok(()), 0, _)
                | (Err(Cause::GzipChecksum { .. }), 1, 0..4)
                | (Err(Cause::GzipLength { .. }), 1, 4..) => {}
                (verdict, ..) => panic!("byte {byte}, flip {flip}: {verdict:?}"),
            }
        }
    }
}
