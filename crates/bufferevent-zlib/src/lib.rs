//! zlib, raw deflate and gzip as a filter on any bufferevent.

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
