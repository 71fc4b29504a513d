//! The output side: plain bytes of the user's in, compressed bytes out.
//!
//! # Invariants
//! - A flush is made when bytes have been compressed since the last one, and then once: no empty blocks.
//! - A flush is made where there is room for all of it. A codec that fills its room exactly cannot say whether the flush's mark
//!   is out, and asked again would write another; so what the sink may not take yet is staged here.
//! - What is staged is at most one flush ([`FLUSH_MAX`]), and nothing is compressed while something is.
//! - The end of the stream is written once, whatever room it finds.
//!
//! Source: zlib's manual for `deflate`, on `Z_SYNC_FLUSH` and `avail_out`.

use std::mem;
use std::sync::Arc;

use bufferevent_core::{Error, Kind, Mode};
use bufferevent_filter::{Sink, Verdict};
use evbuffer::EvBuffer;
use flate2::{Compress, Compression, FlushCompress, Status};

use crate::cause::Cause;
use crate::settings::{Builder, FlushPolicy, Format};
use crate::source;
use crate::stats::Volume;

/// Room in bytes that the codec is given at a time, unless it is asked to flush. More would be zeroed for nothing.
const PIECE: usize = 16 * 1024;

/// The most that a flush brings, in bytes: two blocks of the codec's pending buffer (64 KiB each), and marks.
const FLUSH_MAX: usize = 2 * 64 * 1024 + 64;

/// Plain bytes up to which the last piece and the flush behind it are one call: what comes out has a bound that is worth reserving.
const TOGETHER_MAX: usize = 16 * 1024;

/// Where the output stream stands.
///
/// Open --Finished--> Finishing --the last byte is out--> Ended
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    Finishing,
    Ended,
}

/// Whether a call of the codec used up the room it was given: then there may be more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Room {
    Left,
    Filled,
}

#[derive(Debug)]
pub(crate) struct Deflater {
    format: Format,
    level: u32,
    window_bits: u8,
    dictionary: Option<Arc<[u8]>>,
    policy: FlushPolicy,
    state: State,
    /// Made with the first byte: an idle connection has none.
    codec: Option<Compress>,
    /// Plain bytes that were given to the codec since its last flush.
    unflushed: usize,
    /// Compressed bytes of a flush that the sink had no room for.
    staged: EvBuffer,
    volume: Volume,
}

impl Deflater {
    pub(crate) fn new(settings: &Builder) -> Self {
        Self {
            format: settings.format,
            level: settings.level,
            window_bits: settings.output_window_bits,
            dictionary: settings.output_dictionary.clone(),
            policy: settings.flush,
            state: State::Open,
            codec: None,
            unflushed: 0,
            staged: EvBuffer::new(),
            volume: Volume::default(),
        }
    }

    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// The output side of the filter; see [`Filter::output`](bufferevent_filter::Filter::output).
    pub(crate) fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        if !self.unload(sink) {
            return Ok(Verdict::Full);
        }
        match self.state {
            State::Open => {}
            State::Finishing => return self.finish(sink, mode),
            State::Ended if source.is_empty() => return Ok(Self::ended(mode)),
            State::Ended => return Err(Error::new(Kind::Ended, self.format.name(), "deflate")),
        }
        while !source.is_empty() {
            if sink.room() == 0 {
                return Ok(Verdict::Full);
            }
            self.compress(source, sink, mode)?;
            if !self.unload(sink) {
                return Ok(Verdict::Full);
            }
        }
        match (mode, self.flush_for(mode)) {
            (Mode::Finished, _) => {
                self.state = State::Finishing;
                self.finish(sink, mode)
            }
            (Mode::Normal | Mode::Flush, Some(flush)) if self.unflushed > 0 => {
                self.flush(&mut EvBuffer::new(), sink, flush)?;
                Ok(if self.unload(sink) {
                    Verdict::NeedInput
                } else {
                    Verdict::Full
                })
            }
            (Mode::Normal | Mode::Flush, _) => Ok(Verdict::NeedInput),
        }
    }

    /// Which flush ends a burst that was written in this mode.
    fn flush_for(&self, mode: Mode) -> Option<FlushCompress> {
        match (mode, self.policy) {
            (Mode::Finished, _) => None, // The end of the stream flushes by itself.
            (Mode::Normal | Mode::Flush, FlushPolicy::EachBurstFull) => Some(FlushCompress::Full),
            (Mode::Normal | Mode::Flush, FlushPolicy::EachBurst) => Some(FlushCompress::Sync),
            (Mode::Flush, FlushPolicy::OnRequest) => Some(FlushCompress::Sync),
            (Mode::Normal, FlushPolicy::OnRequest) => None,
        }
    }

    /// Compresses the first piece of `source`; if that is all of it and short, with the flush behind it.
    fn compress(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<(), Error> {
        source::load(source, self.format, "deflate")?;
        let piece = source.chunk().len();
        let burst = self.unflushed.saturating_add(piece);
        if piece == source.len()
            && burst <= TOGETHER_MAX
            && let Some(flush) = self.flush_for(mode)
        {
            return self.flush(source, sink, flush);
        }
        self.call(source, sink, FlushCompress::None, PIECE)?;
        Ok(())
    }

    /// Compresses what is in `source`, which is one piece or nothing, and flushes: into the sink if all of it fits there, else aside.
    fn flush(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        flush: FlushCompress,
    ) -> Result<(), Error> {
        let most = flush_bound(self.unflushed + source.len());
        loop {
            // Filled room would mean that the bound is wrong. Then there is one mark too many, and no byte too few.
            let room = if sink.room() >= most && self.staged.is_empty() {
                self.call(source, sink, flush, most)?
            } else {
                let mut staged = mem::take(&mut self.staged);
                let result = self.call(source, &mut Sink::new(&mut staged, most), flush, most);
                self.staged = staged;
                result?
            };
            if room == Room::Left {
                self.unflushed = 0;
                return Ok(());
            }
        }
    }

    /// Writes the end of the stream as far as there is room.
    fn finish(&mut self, sink: &mut Sink<'_>, mode: Mode) -> Result<Verdict, Error> {
        let nothing = &mut EvBuffer::new();
        while self.state == State::Finishing {
            if sink.room() == 0 {
                return Ok(Verdict::Full);
            }
            // What the end needs is mostly a few bytes; its room grows with what waits.
            let most = flush_bound(self.unflushed).min(PIECE);
            self.call(nothing, sink, FlushCompress::Finish, most)?;
        }
        Ok(Self::ended(mode))
    }

    fn ended(mode: Mode) -> Verdict {
        match mode {
            Mode::Finished => Verdict::End,
            Mode::Normal | Mode::Flush => Verdict::NeedInput,
        }
    }

    /// Gives what is staged to the sink; whether nothing is left of it.
    fn unload(&mut self, sink: &mut Sink<'_>) -> bool {
        if !self.staged.is_empty() {
            sink.append_from(&mut self.staged);
        }
        self.staged.is_empty()
    }

    /// One call of the codec: the first piece of `source` into at most `most` bytes of the sink's room, which has some.
    fn call(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        flush: FlushCompress,
        most: usize,
    ) -> Result<Room, Error> {
        self.open()?;
        let codec = self.codec.as_mut().expect("it was just made");
        let (taken_before, given_before) = (codec.total_in(), codec.total_out());
        let answer = sink.fill(most, |room| {
            let status = codec.compress(source.chunk(), room, flush);
            let given = (codec.total_out() - given_before) as usize;
            (given, (status, given, given == room.len()))
        });
        let taken = (codec.total_in() - taken_before) as usize;
        let name = self.format.name();
        let Some((status, given, filled)) = answer else {
            return Err(Error::new(Kind::OutOfMemory, name, "deflate"));
        };
        source.drain(taken);
        self.volume.count(taken, given);
        self.unflushed = self.unflushed.saturating_add(taken);
        match status {
            Ok(Status::StreamEnd) => {
                self.state = State::Ended;
                self.codec = None; // Nothing will come any more: its memory goes.
                Ok(Room::Left)
            }
            Ok(_) if filled => Ok(Room::Filled),
            Ok(_)
                if given == 0
                    && taken == 0
                    && (!source.is_empty() || flush == FlushCompress::Finish) =>
            {
                Err(Error::new(Kind::Misuse, name, "deflate").with_source(Cause::Stuck))
            }
            Ok(_) => Ok(Room::Left),
            // The codec complains about its caller alone: any byte can be compressed.
            Err(error) => Err(Error::new(Kind::Misuse, name, "deflate").with_source(error)),
        }
    }

    /// Makes the codec if there is none yet.
    fn open(&mut self) -> Result<(), Error> {
        if self.codec.is_some() {
            return Ok(());
        }
        let level = Compression::new(self.level);
        let mut codec = match self.format {
            Format::Zlib => Compress::new_with_window_bits(level, true, self.window_bits),
            Format::Deflate => Compress::new_with_window_bits(level, false, self.window_bits),
            Format::Gzip => Compress::new_gzip(level, self.window_bits),
        };
        if let Some(dictionary) = &self.dictionary {
            codec.set_dictionary(dictionary).map_err(|error| {
                Error::new(Kind::Misuse, self.format.name(), "dictionary").with_source(error)
            })?;
        }
        self.codec = Some(codec);
        Ok(())
    }
}

/// The most bytes that come out when `unflushed` plain ones are in the codec and it is flushed.
fn flush_bound(unflushed: usize) -> usize {
    // Incompressible bytes cost 9 bits each in the fastest level's fixed code, and an 8th is more than any other needs.
    let plain = unflushed.min(FLUSH_MAX);
    (plain + plain / 8 + plain / 64 + 64).min(FLUSH_MAX)
}
