//! Why a stream could not go on, beyond what the codec itself says.

use std::error::Error;
use std::fmt;

/// What [`Error::source`](bufferevent_core::Error) holds when it was this crate that refused; what the codec refused is
/// its own `flate2` error there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// A level above 9 was asked for.
    Level(u32),
    /// A window outside of 9 to 15 was asked for.
    WindowBits(u8),
    /// A dictionary of no byte, or of more than 32 KiB, was given.
    DictionaryLength(usize),
    /// A dictionary was given for gzip, which has none.
    DictionaryInGzip,
    /// The first two bytes are not those of a gzip member.
    GzipMagic,
    /// A gzip member that says it is compressed in another way than deflate.
    GzipMethod(u8),
    /// A gzip header with flags that mean nothing.
    GzipFlags(u8),
    /// The gzip header does not match its own checksum.
    GzipHeaderChecksum,
    /// The gzip header goes on past so many bytes.
    GzipHeaderLength {
        /// [`MAX_GZIP_HEADER`](crate::MAX_GZIP_HEADER).
        limit: usize,
    },
    /// The bytes do not match the CRC-32 in the gzip trailer.
    GzipChecksum {
        /// What the trailer says.
        told: u32,
        /// What the bytes come to.
        found: u32,
    },
    /// The gzip trailer tells another length, modulo 2^32, than there were bytes.
    GzipLength {
        /// What the trailer says.
        told: u32,
        /// How many there were.
        found: u32,
    },
    /// The stream was made with a dictionary, of this Adler-32, that was not given.
    Dictionary {
        /// The dictionary's Adler-32.
        adler: u32,
    },
    /// More plain bytes for the compressed ones than [`max_ratio`](crate::Builder::max_ratio) allows.
    Ratio {
        /// Compressed bytes so far.
        compressed: u64,
        /// Plain bytes so far.
        plain: u64,
    },
    /// More plain bytes than [`max_output`](crate::Builder::max_output) allows.
    MaxOutput {
        /// How many those are.
        limit: u64,
    },
    /// The codec was given bytes and room and used neither. It is not asked again.
    Stuck,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "level {level} is above 9"),
            Self::WindowBits(bits) => write!(f, "{bits} window bits are not within 9 to 15"),
            Self::DictionaryLength(length) => {
                write!(f, "a dictionary of {length} bytes is not within 1 to 32768")
            }
            Self::DictionaryInGzip => write!(f, "gzip has no dictionaries"),
            Self::GzipMagic => write!(f, "not a gzip member"),
            Self::GzipMethod(method) => write!(f, "unknown gzip compression method {method}"),
            Self::GzipFlags(flags) => write!(f, "reserved gzip flags in {flags:#04x}"),
            Self::GzipHeaderChecksum => write!(f, "the gzip header does not match its checksum"),
            Self::GzipHeaderLength { limit } => {
                write!(f, "the gzip header has more than {limit} bytes")
            }
            Self::GzipChecksum { told, found } => write!(
                f,
                "the gzip trailer tells a CRC-32 of {told:08x}, the bytes have {found:08x}"
            ),
            Self::GzipLength { told, found } => write!(
                f,
                "the gzip trailer tells {told} bytes, there were {found} (modulo 2^32)"
            ),
            Self::Dictionary { adler } => {
                write!(f, "needs the dictionary with Adler-32 {adler:08x}")
            }
            Self::Ratio { compressed, plain } => write!(
                f,
                "{plain} plain bytes out of {compressed} compressed ones are past the ratio allowed"
            ),
            Self::MaxOutput { limit } => write!(f, "more than {limit} plain bytes"),
            Self::Stuck => write!(f, "the codec used neither input nor room"),
        }
    }
}

impl Error for Cause {}
