//! The filter: two sides that know nothing of each other.

use bufferevent_core::{Error, Mode};
use bufferevent_filter::{Filter, Sink, Verdict};
use evbuffer::EvBuffer;

use crate::deflater::Deflater;
use crate::inflater::Inflater;
use crate::settings::{Builder, Format};
use crate::stats::ZlibStats;

/// Compresses what is written and decompresses what is read.
///
/// Made by [`Zlib::builder`], or as it is by [`Zlib::default`]: the zlib format at level 6, flushed after each burst, guarded
/// against bombs. See the [crate documentation](crate).
#[derive(Debug)]
pub struct Zlib {
    format: Format,
    input: Inflater,
    output: Deflater,
}

impl Zlib {
    /// Begins to describe a filter.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_settings(settings: &Builder) -> Self {
        Self {
            format: settings.format,
            input: Inflater::new(settings),
            output: Deflater::new(settings),
        }
    }

    /// The format of both directions.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How much went through so far, each way.
    #[must_use]
    pub fn stats(&self) -> ZlibStats {
        ZlibStats {
            input: self.input.volume(),
            output: self.output.volume(),
            members: self.input.complete(),
        }
    }
}

impl Default for Zlib {
    fn default() -> Self {
        Self::from_settings(&Builder::default())
    }
}

impl Filter for Zlib {
    fn name(&self) -> &'static str {
        self.format.name()
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.input.input(source, sink, mode)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.output.output(source, sink, mode)
    }
}
