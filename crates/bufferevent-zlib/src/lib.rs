//! zlib, raw deflate and gzip as a filter on any bufferevent: what is written is compressed, what is read is decompressed.
//!
//! ```
//! use bufferevent_core::{Options, READ};
//! use bufferevent_filter::FilterExt;
//! use bufferevent_zlib::Zlib;
//! # use bufferevent_pair::pair;
//! # let events = bufferevent_testkit::Loop::new();
//! # let (near, far) = pair(&events)?;
//! // `near` and `far` are any two joined bufferevents: sockets, the ends of a pair, other filters.
//! let near = near.filter(Options::CLOSE_ON_FREE, Zlib::default())?;
//! let far = far.filter(Options::CLOSE_ON_FREE, Zlib::default())?;
//! far.enable(READ)?;
//! near.write(b"hello, hello, hello")?;
//! # events.run();
//! assert_eq!(far.input().len(), 19);
//! let stats = near.filter_of::<Zlib>().expect("it is there").with(|filter| filter.stats())?;
//! assert_eq!(stats.output.plain, 19);
//! # Ok::<(), bufferevent_core::Error>(())
//! ```
//!
//! # When bytes leave
//! All that a burst of writes has brought is compressed and then flushed ([`FlushPolicy`]), so the peer reads it at once. Nothing is
//! flushed twice, and nothing where nothing was written. `flush(Write, Mode::Flush)` flushes in any case; `finish()` writes the end of
//! the stream behind all bytes, once, and only then what is below ends.
//!
//! # Where the input ends
//! - zlib and deflate end with their last byte. The user hears an EOF, though what is below goes on; what follows stays there, and is its
//!   user's when the filter is freed.
//! - gzip with [`Members::One`] likewise. With [`Members::Many`], the default, members that follow each other are one stream, as
//!   gzip(1) reads them; zeros behind a member are padding and dropped; the stream ends before the first other byte that begins no member, or
//!   when what is below ends.
//! - If what is below ends anywhere else, before the first byte too, that is [`Kind::Truncated`](bufferevent_core::Kind::Truncated).
//!
//! # What a peer can do
//! - It can send what is no stream, has a wrong checksum, or needs a dictionary that was not given:
//!   [`Kind::Peer`](bufferevent_core::Kind::Peer), whose source is the codec's own error or a [`Cause`].
//! - It cannot fill memory: what comes out is bounded by the marks above, as with every filter.
//! - It cannot have more made of what it sends than [`Builder::max_ratio`] allows (100 times, after the first MiB), nor more in all than
//!   [`Builder::max_output`], where that is asked for: [`Kind::Limit`](bufferevent_core::Kind::Limit). The ratio is looked at after
//!   each piece, of at most 256 KiB; the absolute limit is exact.
//!
//! # What it costs
//! Nothing until the first byte. Then, for each direction that is used, the codec of zlib-rs: about 370 KiB to compress with the longest window
//! (245 KiB with the shortest), and 47 KiB to decompress, until that direction's end. Short messages allocate nothing after that.

#![forbid(unsafe_code)]

mod cause;
mod deflater;
mod filter;
mod guard;
mod gzip;
mod inflater;
mod settings;
mod source;
mod stats;

pub use cause::Cause;
pub use filter::Zlib;
pub use gzip::MAX_GZIP_HEADER;
pub use settings::{
    Builder, DEFAULT_LEVEL, DEFAULT_MAX_RATIO, DEFAULT_RATIO_FREE, FlushPolicy, Format, Members,
};
pub use stats::{Volume, ZlibStats};

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
