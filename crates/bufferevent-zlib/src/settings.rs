//! What a filter is told when it is made: format, level, windows, dictionaries, flushing, limits.
//!
//! # Invariants
//! - [`Builder::build`] is the only way to a filter, so a filter's settings are always ones that the codec takes.
//! - Building allocates nothing for compression: each direction makes its codec with its first byte.

use std::num::NonZeroU32;
use std::sync::Arc;

use bufferevent_core::{Error, Kind};

use crate::cause::Cause;
use crate::filter::Zlib;

/// The level of [`Builder::level`] where none is asked for: what zlib calls its default.
pub const DEFAULT_LEVEL: u32 = 6;

/// Plain bytes for each compressed byte that [`Builder::max_ratio`] allows where nothing else is asked for. Text reaches 5,
/// logs 30; the format's own bound is 1,032.
pub const DEFAULT_MAX_RATIO: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");

/// Plain bytes up to which no ratio is too high, where nothing else is asked for: 1 MiB, which any host can hold.
pub const DEFAULT_RATIO_FREE: u64 = 1 << 20;

/// The shortest and the longest window, as the base-2 logarithm of its length in bytes.
const WINDOW_BITS: std::ops::RangeInclusive<u8> = 9..=15;

/// The longest dictionary in bytes: no window reaches further back.
const MAX_DICTIONARY: usize = 1 << 15;

/// What stands around the compressed bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// RFC 1950: two bytes before, an Adler-32 behind.
    #[default]
    Zlib,
    /// RFC 1951: nothing around it, and so no checksum.
    Deflate,
    /// RFC 1952: a header with optional names before, a CRC-32 and the length behind; several may follow each other.
    Gzip,
}

impl Format {
    /// `"zlib"`, `"deflate"` or `"gzip"`: the name of the filter in errors and statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
        }
    }
}

/// What is done when all that was written has been compressed, and nobody has asked for a flush.
///
/// A flush lets the peer read everything that was written so far. It costs about five bytes, and some compression.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum FlushPolicy {
    /// A sync flush, once for each burst of writes: interactive traffic is not delayed.
    #[default]
    EachBurst,
    /// As `EachBurst`, and the peer could start to read here: later bytes refer to nothing before. Compresses less.
    EachBurstFull,
    /// Nothing: bytes wait in the compressor until it has enough of them, or a flush is asked for.
    OnRequest,
}

/// How many members a gzip stream has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Members {
    /// Any number, read as one stream, as gzip(1) does; zeros behind them are padding. Such a stream ends with what is below it, or
    /// before the first byte that begins no member.
    #[default]
    Many,
    /// One: the stream ends with its trailer, and what follows is left to whoever takes the filter off.
    One,
}

/// How a [`Zlib`] filter is made. Cloned, it makes another of the same.
///
/// ```
/// use bufferevent_zlib::{Format, Zlib};
///
/// let recipe = Zlib::builder().format(Format::Gzip).level(9).max_output(1 << 30);
/// let filter = recipe.clone().build()?;
/// # drop(filter);
/// # Ok::<(), bufferevent_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct Builder {
    pub(crate) format: Format,
    pub(crate) level: u32,
    pub(crate) flush: FlushPolicy,
    pub(crate) members: Members,
    pub(crate) output_window_bits: u8,
    pub(crate) input_window_bits: u8,
    pub(crate) output_dictionary: Option<Arc<[u8]>>,
    pub(crate) input_dictionary: Option<Arc<[u8]>>,
    pub(crate) max_ratio: Option<NonZeroU32>,
    pub(crate) ratio_free: u64,
    pub(crate) max_output: Option<u64>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            format: Format::default(),
            level: DEFAULT_LEVEL,
            flush: FlushPolicy::default(),
            members: Members::default(),
            output_window_bits: *WINDOW_BITS.end(),
            input_window_bits: *WINDOW_BITS.end(),
            output_dictionary: None,
            input_dictionary: None,
            max_ratio: Some(DEFAULT_MAX_RATIO),
            ratio_free: DEFAULT_RATIO_FREE,
            max_output: None,
        }
    }
}

impl Builder {
    /// What stands around the compressed bytes, in both directions. Zlib where nothing is asked for.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// How hard to compress: 0 (not at all) to 9 (smallest and slowest).
    pub fn level(mut self, level: u32) -> Self {
        self.level = level;
        self
    }

    /// What is done at the end of a burst of writes.
    pub fn flush(mut self, policy: FlushPolicy) -> Self {
        self.flush = policy;
        self
    }

    /// How many gzip members are read as one stream. The other formats have one always.
    pub fn members(mut self, members: Members) -> Self {
        self.members = members;
        self
    }

    /// The window that is compressed with, as the base-2 logarithm of its bytes: 9 to 15. A shorter one takes less memory on both
    /// sides and compresses less.
    pub fn output_window_bits(mut self, bits: u8) -> Self {
        self.output_window_bits = bits;
        self
    }

    /// The longest window that is accepted, as the base-2 logarithm of its bytes: 9 to 15. A stream that needs a longer one is an error.
    pub fn input_window_bits(mut self, bits: u8) -> Self {
        self.input_window_bits = bits;
        self
    }

    /// Bytes that both ends know before the first, in both directions: at most 32 KiB, the most likely ones last. Not for gzip.
    pub fn dictionary(self, bytes: &[u8]) -> Self {
        let bytes: Arc<[u8]> = bytes.into();
        Self {
            output_dictionary: Some(bytes.clone()),
            input_dictionary: Some(bytes),
            ..self
        }
    }

    /// As [`dictionary`](Self::dictionary), for what is written alone.
    pub fn output_dictionary(mut self, bytes: &[u8]) -> Self {
        self.output_dictionary = Some(bytes.into());
        self
    }

    /// As [`dictionary`](Self::dictionary), for what is read alone.
    ///
    /// A zlib stream says whether it was made with one: it may have been made with none all the same. Raw deflate does not say.
    pub fn input_dictionary(mut self, bytes: &[u8]) -> Self {
        self.input_dictionary = Some(bytes.into());
        self
    }

    /// The most plain bytes for each compressed byte that is read, counted over the whole stream; `None`: as many as the peer likes.
    ///
    /// A stream that goes past it has failed with [`Kind::Limit`]. [`DEFAULT_MAX_RATIO`] where nothing is asked for.
    pub fn max_ratio(mut self, ratio: Option<NonZeroU32>) -> Self {
        self.max_ratio = ratio;
        self
    }

    /// The plain bytes that may come before the ratio counts. [`DEFAULT_RATIO_FREE`] where nothing is asked for.
    pub fn ratio_free(mut self, bytes: u64) -> Self {
        self.ratio_free = bytes;
        self
    }

    /// The most plain bytes that may be read at all. That many are delivered; one more is [`Kind::Limit`].
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.max_output = Some(bytes);
        self
    }

    /// Makes the filter.
    ///
    /// # Errors
    /// [`Kind::Misuse`], whose source is the [`Cause`], for what no stream of the format can have.
    pub fn build(self) -> Result<Zlib, Error> {
        match self.mistake() {
            None => Ok(Zlib::from_settings(&self)),
            Some(mistake) => {
                Err(Error::new(Kind::Misuse, self.format.name(), "build").with_source(mistake))
            }
        }
    }

    fn mistake(&self) -> Option<Cause> {
        for bits in [self.output_window_bits, self.input_window_bits] {
            if !WINDOW_BITS.contains(&bits) {
                return Some(Cause::WindowBits(bits));
            }
        }
        for dictionary in [&self.output_dictionary, &self.input_dictionary] {
            let length = dictionary.as_deref().map(<[u8]>::len);
            match (length, self.format) {
                (None, _) => {}
                (Some(_), Format::Gzip) => return Some(Cause::DictionaryInGzip),
                (Some(1..=MAX_DICTIONARY), Format::Zlib | Format::Deflate) => {}
                (Some(length), Format::Zlib | Format::Deflate) => {
                    return Some(Cause::DictionaryLength(length));
                }
            }
        }
        (self.level > 9).then_some(Cause::Level(self.level))
    }
}
