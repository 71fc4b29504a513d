//! The input side: compressed bytes of the peer's in, plain bytes out.
//!
//! # Invariants
//! - The codec is asked only with bytes or held back output to give it, and with room: it can make progress, and if it does
//!   not it is not asked again.
//! - What stands behind the end of the stream is never taken from the source.
//! - After an error the side has failed: the codec is gone and every later call answers the same error.
//!
//! Source: RFC 1950 to 1952; zlib's manual for `inflate`; gzip(1) on members and padding.

use std::sync::Arc;

use bufferevent_core::{Error, Kind, Mode};
use bufferevent_filter::{Sink, Verdict};
use evbuffer::EvBuffer;
use flate2::{Crc, Decompress, DecompressError, FlushDecompress, Status};

use crate::cause::Cause;
use crate::guard::Guard;
use crate::gzip::{Header, MAGIC, Trailer};
use crate::settings::{Builder, Format, Members};
use crate::source;
use crate::stats::Volume;

/// The least and the most room in bytes that the codec is given at a time. Every piece costs it a copy of its window, so long ones pay: 16 KiB
/// ran at 0.70 of the bare codec, 256 KiB at 0.97. The most is also what a ratio can be overstepped by.
const LEAST_PIECE: usize = 512;
const MOST_PIECE: usize = 256 * 1024;

/// Room in bytes above which it is memory of its own, and not room behind the last byte of the sink.
const OWN_SEGMENT: usize = 4 * 1024;

/// Plain bytes for which room is made for each compressed one at first; twice as many after each time they filled it.
const LIKELY_RATIO: usize = 8;

/// Compressed bytes that are taken to be there, at least, when room is made: the codec may hold some.
const LEAST_CHUNK: usize = 64;

/// Where the input stream stands. zlib and deflate begin in the body and end behind it.
///
/// Header --> Body --> Trailer --> Between --next member--> Header
///                                    |--zero--> Padding --> Ended
///                                    `--anything else, or the end of what is below--> Ended
/// any --error--> Failed
#[derive(Debug)]
enum State {
    Header(Header),
    Body,
    Trailer(Trailer),
    Between,
    Padding,
    Ended,
    Failed(Error),
}

/// How it goes on after one step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    /// The next step can be made.
    On,
    /// Not without more of the source.
    Hungry,
    /// Not without room.
    Full,
}

/// Whether the codec may have output that it had no room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    Nothing,
    Perhaps,
}

#[derive(Debug)]
pub(crate) struct Inflater {
    format: Format,
    window_bits: u8,
    dictionary: Option<Arc<[u8]>>,
    members: Members,
    state: State,
    /// Made with the first byte: an idle connection has none.
    codec: Option<Decompress>,
    held: Held,
    /// Plain bytes for each compressed one that room is made for.
    ratio: usize,
    /// Of the member that is read; gzip alone has one.
    crc: Crc,
    guard: Guard,
    complete: u64,
}

impl Inflater {
    pub(crate) fn new(settings: &Builder) -> Self {
        Self {
            format: settings.format,
            window_bits: settings.input_window_bits,
            dictionary: settings.input_dictionary.clone(),
            members: settings.members,
            state: match settings.format {
                Format::Zlib | Format::Deflate => State::Body,
                Format::Gzip => State::Header(Header::new()),
            },
            codec: None,
            held: Held::Nothing,
            ratio: LIKELY_RATIO,
            crc: Crc::new(),
            guard: Guard::new(settings),
            complete: 0,
        }
    }

    pub(crate) fn volume(&self) -> Volume {
        Volume {
            plain: self.guard.plain(),
            compressed: self.guard.compressed(),
        }
    }

    /// Streams that were read to their ends.
    pub(crate) fn complete(&self) -> u64 {
        self.complete
    }

    /// The input side of the filter; see [`Filter::input`](bufferevent_filter::Filter::input).
    pub(crate) fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.run(source, sink, mode).inspect_err(|error| {
            self.state = State::Failed(error.clone());
            self.codec = None;
        })
    }

    fn run(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.ratio = LIKELY_RATIO;
        loop {
            source::load(source, self.format, "inflate")?;
            let pace = match &mut self.state {
                State::Header(_) => self.header(source)?,
                State::Body => self.body(source, sink)?,
                State::Trailer(_) => self.trailer(source)?,
                State::Between => self.between(source),
                State::Padding => self.padding(source),
                State::Ended => return Ok(Verdict::End),
                State::Failed(error) => return Err(error.clone()),
            };
            match pace {
                Pace::On => {}
                Pace::Full => return Ok(Verdict::Full),
                Pace::Hungry if mode == Mode::Finished => self.end_of_source()?,
                Pace::Hungry => return Ok(Verdict::NeedInput),
            }
        }
    }

    /// Nothing will follow what is in the source, and the stream needs more than that.
    fn end_of_source(&mut self) -> Result<(), Error> {
        match self.state {
            // A byte that could have begun a member does not: it is left like every other that follows the end.
            State::Between | State::Padding => {
                self.end();
                Ok(())
            }
            State::Header(_)
            | State::Body
            | State::Trailer(_)
            | State::Ended
            | State::Failed(_) => Err(Error::new(Kind::Truncated, self.format.name(), "inflate")),
        }
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.codec = None; // Nothing will come any more: its memory goes.
    }

    fn header(&mut self, source: &mut EvBuffer) -> Result<Pace, Error> {
        let State::Header(header) = &mut self.state else {
            return Ok(Pace::On);
        };
        let result = header.take(source.chunk());
        let complete = header.is_complete();
        let taken = result.map_err(|cause| self.refused(cause))?;
        self.guard.count_around(source.drain(taken));
        if complete {
            self.state = State::Body;
            self.crc.reset();
            if let Some(codec) = &mut self.codec {
                codec.reset(false);
            }
            return Ok(Pace::On);
        }
        Ok(hungry_if(source.is_empty()))
    }

    fn trailer(&mut self, source: &mut EvBuffer) -> Result<Pace, Error> {
        let State::Trailer(trailer) = &mut self.state else {
            return Ok(Pace::On);
        };
        let taken = trailer.take(source.chunk());
        self.guard.count_around(source.drain(taken));
        if !trailer.is_complete() {
            return Ok(hungry_if(source.is_empty()));
        }
        let checked = trailer.check(&self.crc);
        checked.map_err(|cause| self.refused(cause))?;
        self.complete += 1;
        match self.members {
            Members::Many => self.state = State::Between,
            Members::One => self.end(),
        }
        Ok(Pace::On)
    }

    /// Behind a member: another one, padding, or the end.
    fn between(&mut self, source: &mut EvBuffer) -> Pace {
        let mut front = [0; 2];
        match (source.copy_out(&mut front), front) {
            (0, _) | (1, [0x1f, _]) => return Pace::Hungry,
            (1.., [0, _]) => self.state = State::Padding,
            (2.., MAGIC) => self.state = State::Header(Header::new()),
            (1.., _) => self.end(),
        }
        Pace::On
    }

    fn padding(&mut self, source: &mut EvBuffer) -> Pace {
        let chunk = source.chunk();
        let zeros = chunk.iter().take_while(|&&byte| byte == 0).count();
        let all = zeros == chunk.len();
        self.guard.count_around(source.drain(zeros));
        if !all {
            self.end();
        }
        hungry_if(source.is_empty() && all)
    }

    /// Inflates the first piece of the source, as far as there is room and the guard allows.
    fn body(&mut self, source: &mut EvBuffer, sink: &mut Sink<'_>) -> Result<Pace, Error> {
        if source.is_empty() && self.held == Held::Nothing {
            return Ok(Pace::Hungry);
        }
        if sink.room() == 0 {
            return Ok(Pace::Full);
        }
        self.open()?;
        let codec = self.codec.as_mut().expect("it was just made");
        let crc = (self.format == Format::Gzip).then_some(&mut self.crc);
        let chunk = source.chunk().len().max(LEAST_CHUNK);
        let piece = chunk
            .saturating_mul(self.ratio)
            .clamp(LEAST_PIECE, MOST_PIECE);
        let at_most = self.guard.left(piece);
        let Some(done) = inflate(codec, crc, source.chunk(), sink, at_most) else {
            return Err(Error::new(Kind::OutOfMemory, self.format.name(), "inflate"));
        };
        let offered = !source.is_empty();
        source.drain(done.taken);
        let counted = self.guard.count(done.taken, done.given);
        counted.map_err(|cause| self.refused(cause))?;
        self.held = match done.room {
            Room::Filled => Held::Perhaps,
            Room::Left => Held::Nothing,
        };
        if done.room == Room::Filled && piece < MOST_PIECE {
            self.ratio = self.ratio.saturating_mul(2);
        }
        match done.status {
            Ok(Status::StreamEnd) => {
                self.held = Held::Nothing;
                self.body_ended();
            }
            Ok(_) if offered && done.taken == 0 && done.given == 0 => {
                return Err(self.refused(Cause::Stuck));
            }
            Ok(_) => {}
            Err(error) => self.dictionary(error)?,
        }
        Ok(Pace::On)
    }

    fn body_ended(&mut self) {
        match self.format {
            Format::Gzip => self.state = State::Trailer(Trailer::default()),
            Format::Zlib | Format::Deflate => {
                self.complete += 1;
                self.end();
            }
        }
    }

    /// Makes the codec if there is none yet.
    fn open(&mut self) -> Result<(), Error> {
        if self.codec.is_some() {
            return Ok(());
        }
        let mut codec = match self.format {
            Format::Zlib => Decompress::new_with_window_bits(true, self.window_bits),
            Format::Deflate | Format::Gzip => {
                Decompress::new_with_window_bits(false, self.window_bits)
            }
        };
        // A zlib stream asks for it; raw deflate cannot.
        if let (Format::Deflate, Some(dictionary)) = (self.format, &self.dictionary) {
            codec.set_dictionary(dictionary).map_err(|error| {
                Error::new(Kind::Misuse, self.format.name(), "dictionary").with_source(error)
            })?;
        }
        self.codec = Some(codec);
        Ok(())
    }

    /// Answers the codec's error: it may just have asked for the dictionary.
    fn dictionary(&mut self, error: DecompressError) -> Result<(), Error> {
        let Some(adler) = error.needs_dictionary() else {
            return Err(Error::new(Kind::Peer, self.format.name(), "inflate").with_source(error));
        };
        let given = match (&mut self.codec, &self.dictionary) {
            (Some(codec), Some(dictionary)) => codec.set_dictionary(dictionary).is_ok(),
            (None, _) | (_, None) => false,
        };
        if given {
            Ok(())
        } else {
            Err(self.refused(Cause::Dictionary { adler }))
        }
    }

    /// The error of a stream that this crate, and not the codec, refuses.
    fn refused(&self, cause: Cause) -> Error {
        let kind = match cause {
            Cause::Ratio { .. } | Cause::MaxOutput { .. } | Cause::GzipHeaderLength { .. } => {
                Kind::Limit
            }
            Cause::GzipMagic
            | Cause::GzipMethod(_)
            | Cause::GzipFlags(_)
            | Cause::GzipHeaderChecksum
            | Cause::GzipChecksum { .. }
            | Cause::GzipLength { .. }
            | Cause::Dictionary { .. }
            | Cause::Stuck => Kind::Peer,
            Cause::Level(_)
            | Cause::WindowBits(_)
            | Cause::DictionaryLength(_)
            | Cause::DictionaryInGzip => Kind::Misuse,
        };
        Error::new(kind, self.format.name(), "inflate").with_source(cause)
    }
}

fn hungry_if(empty: bool) -> Pace {
    if empty { Pace::Hungry } else { Pace::On }
}

/// Whether a call of the codec used up the room it was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Room {
    Left,
    Filled,
}

/// What one call of the codec did.
struct Done {
    status: Result<Status, DecompressError>,
    taken: usize,
    given: usize,
    room: Room,
}

/// One call of the codec, into at most `at_most` bytes of the sink. None allowed is not none given: one byte, which goes nowhere,
/// shows whether there would be any. `None`: no memory.
fn inflate(
    codec: &mut Decompress,
    crc: Option<&mut Crc>,
    chunk: &[u8],
    sink: &mut Sink<'_>,
    at_most: usize,
) -> Option<Done> {
    let (taken_before, given_before) = (codec.total_in(), codec.total_out());
    let at_most = at_most.min(sink.room());
    let (status, given, room) = if at_most > OWN_SEGMENT {
        // Memory of its own, which nobody has to zero first, and which becomes the segment.
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(at_most).ok()?;
        let status = codec.decompress_vec(chunk, &mut bytes, FlushDecompress::None);
        if let Some(crc) = crc {
            crc.update(&bytes);
        }
        let (given, room) = (bytes.len(), bytes.capacity());
        let kept = if given < room / 4 {
            sink.append_slice(&bytes)
        } else {
            sink.append_from(&mut bytes.into())
        };
        if kept < given {
            return None;
        }
        (status, given, room)
    } else {
        let work = |room: &mut [u8]| {
            let status = codec.decompress(chunk, room, FlushDecompress::None);
            let given = (codec.total_out() - given_before) as usize;
            if let Some(crc) = crc {
                crc.update(&room[..given]);
            }
            (given, (status, given, room.len()))
        };
        match at_most {
            0 => work(&mut [0]).1,
            _ => sink.fill(at_most, work)?,
        }
    };
    Some(Done {
        status,
        taken: (codec.total_in() - taken_before) as usize,
        given,
        room: if given == room {
            Room::Filled
        } else {
            Room::Left
        },
    })
}
