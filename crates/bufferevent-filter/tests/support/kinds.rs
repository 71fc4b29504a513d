//! Filters for random stacks: each has a mirror at the other end, and something that real filters have and is easy to get wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{Error, Kind, Mode};
use bufferevent_filter::{Filter, Identity, Sink, Verdict, Wants};
use bufferevent_testkit::Random;
use evbuffer::EvBuffer;

use super::{Greeting, pass};

/// What a filter of a random stack does. Both ends have the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Does {
    Nothing,
    /// A few bytes per call.
    Chunks,
    /// Two bytes for one: hexadecimal.
    Expands,
    /// Keeps what is less than a batch until a flush.
    Holds,
    /// Records with a length, and one that is the end of the stream.
    Frames,
    /// Exchanges greetings first.
    Greets,
    /// Passes all, and says what is not so.
    Lies,
}

impl Does {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Chunks,
        Self::Expands,
        Self::Holds,
        Self::Frames,
        Self::Greets,
        Self::Lies,
    ];

    /// Whether the other end need not know that it is there.
    pub(crate) fn is_transparent(self) -> bool {
        matches!(self, Self::Nothing | Self::Chunks | Self::Lies)
    }

    /// How many bytes at most `bytes` become on their way down, written one at a time.
    pub(crate) fn grows(self, bytes: usize) -> usize {
        match self {
            Self::Nothing | Self::Chunks | Self::Holds | Self::Lies => bytes,
            Self::Expands => 2 * bytes,
            Self::Frames => 2 * bytes + 1,
            Self::Greets => bytes + 6,
        }
    }

    pub(crate) fn filter(self, random: &mut Random, calls: &Arc<AtomicUsize>) -> Counted {
        let inner: Box<dyn Filter> = match self {
            Self::Nothing => Box::new(Identity),
            Self::Chunks => Box::new(Chunks(1 + random.below(9))),
            Self::Expands => Box::new(Hex::default()),
            Self::Holds => Box::new(Batches::default()),
            Self::Frames => Box::new(Frames::default()),
            Self::Greets => Box::new(Greeting::new()),
            Self::Lies => Box::new(Liar::default()),
        };
        Counted::new(inner, calls)
    }
}

/// The most that any of these holds on its way down, in bytes.
pub(crate) const UNIT: usize = 32;

/// Counts the calls: what spins shows there.
pub(crate) struct Counted {
    inner: Box<dyn Filter>,
    calls: Arc<AtomicUsize>,
}

impl Counted {
    pub(crate) fn new(inner: Box<dyn Filter>, calls: &Arc<AtomicUsize>) -> Self {
        Self {
            inner,
            calls: calls.clone(),
        }
    }
}

impl Filter for Counted {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.input(source, sink, mode)
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.output(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        self.inner.wants()
    }
    fn handshaking(&self) -> bool {
        self.inner.handshaking()
    }
}

struct Chunks(usize);

impl Chunks {
    fn some(&self, source: &mut EvBuffer, sink: &mut Sink<'_>) -> Verdict {
        let mut bytes = [0; 16];
        let count = self.0.min(sink.room());
        let count = source.remove(&mut bytes[..count]);
        sink.append_slice(&bytes[..count]);
        match (source.is_empty(), sink.room()) {
            (true, _) => Verdict::NeedInput,
            (false, 0) => Verdict::Full,
            (false, _) => Verdict::Progress,
        }
    }
}

impl Filter for Chunks {
    fn name(&self) -> &'static str {
        "chunks"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(self.some(source, sink))
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(self.some(source, sink))
    }
}

/// Half a byte may be on its way in either direction.
#[derive(Default)]
struct Hex {
    /// The digit of a byte whose first digit is out.
    second: Option<u8>,
    /// The digit whose second has yet to come.
    first: Option<u8>,
}

impl Filter for Hex {
    fn name(&self) -> &'static str {
        "hex"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        while sink.room() > 0 {
            let mut digit = [0];
            if source.remove(&mut digit) == 0 {
                return match (mode, self.first) {
                    (Mode::Finished, Some(_)) => Err(Error::new(Kind::Truncated, "hex", "input")),
                    _ => Ok(Verdict::NeedInput),
                };
            }
            match self.first.take() {
                None => self.first = Some(digit[0]),
                Some(first) => drop(sink.append_slice(&[first << 4 | digit[0]])),
            }
        }
        Ok(Verdict::Full)
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        while sink.room() > 0 {
            let mut byte = [0];
            if let Some(second) = self.second.take() {
                sink.append_slice(&[second]);
            } else if source.remove(&mut byte) == 0 {
                return Ok(Verdict::NeedInput);
            } else {
                sink.append_slice(&[byte[0] >> 4]);
                self.second = Some(byte[0] & 15);
            }
        }
        Ok(Verdict::Full)
    }
}

#[derive(Default)]
struct Batches {
    held: EvBuffer,
    /// What is held goes out, as far as it fits.
    opened: bool,
}

const BATCH: usize = 16;

impl Filter for Batches {
    fn name(&self) -> &'static str {
        "batches"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        pass(source, sink, mode)
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        loop {
            let wanted = BATCH - self.held.len().min(BATCH);
            source
                .move_to(wanted, &mut self.held)
                .expect("a test has memory");
            self.opened |= mode != Mode::Normal || self.held.len() == BATCH;
            if !self.opened || self.held.is_empty() {
                self.opened = false;
                return Ok(Verdict::NeedInput);
            }
            sink.append_from(&mut self.held);
            if !self.held.is_empty() {
                return Ok(Verdict::Full);
            }
            self.opened = false;
        }
    }
}

/// A record is its length in a byte, then so many bytes; none is the end.
#[derive(Default)]
struct Frames {
    /// What of the record at hand is not out yet.
    record: EvBuffer,
    /// Bytes of the record at hand that have yet to come.
    left: u8,
    ends: bool,
}

impl Filter for Frames {
    fn name(&self) -> &'static str {
        "frames"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        loop {
            let mut byte = [0];
            if self.left > 0 && sink.room() == 0 {
                return Ok(Verdict::Full);
            }
            if source.remove(&mut byte) == 0 {
                return match mode {
                    Mode::Finished => Err(Error::new(Kind::Truncated, "frames", "input")),
                    _ => Ok(Verdict::NeedInput),
                };
            }
            match (self.left, byte[0]) {
                (0, 0) => return Ok(Verdict::End),
                (0, length) => self.left = length,
                (_, byte) => {
                    self.left -= 1;
                    sink.append_slice(&[byte]);
                }
            }
        }
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        loop {
            sink.append_from(&mut self.record);
            if !self.record.is_empty() {
                return Ok(Verdict::Full);
            }
            let length = source.len().min(BATCH);
            if length > 0 {
                let prefix = u8::try_from(length).expect("a batch is small");
                self.record
                    .append_slice(&[prefix])
                    .expect("a test has memory");
                source
                    .move_to(length, &mut self.record)
                    .expect("a test has memory");
            } else if mode != Mode::Finished {
                return Ok(Verdict::NeedInput);
            } else if self.ends {
                return Ok(Verdict::End);
            } else {
                self.ends = true;
                self.record.append_slice(&[0]).expect("a test has memory");
            }
        }
    }
}

/// Moves what fits; what it says of it is another matter.
#[derive(Default)]
struct Liar {
    calls: usize,
}

impl Liar {
    fn lie(&mut self, source: &mut EvBuffer, sink: &mut Sink<'_>, mode: Mode) -> Verdict {
        self.calls += 1;
        sink.append_from(source);
        match self.calls % 3 {
            0 => Verdict::Progress,
            // It has to come to its end some time.
            1 if mode != Mode::Finished => Verdict::Full,
            _ if source.is_empty() => Verdict::NeedInput,
            _ => Verdict::Full,
        }
    }
}

impl Filter for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        Ok(self.lie(source, sink, mode))
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        Ok(self.lie(source, sink, mode))
    }
    fn wants(&self) -> Wants {
        Wants {
            read: self.calls.is_multiple_of(2),
            write: self.calls % 5 < 3,
        }
    }
}
