//! What a filter may add to: the end of a buffer, up to a limit.
//!
//! # Invariants
//! - No call adds more than [`Sink::room`] said before it: what does not fit is not taken, and the count says so.

use bytes::Bytes;
use evbuffer::EvBuffer;
use std::io;

/// Up to so many bytes room is lent from the stack and copied: that costs less than storage of its own, and a buffer has storage that
/// was used before for what is appended so.
const COPIED: usize = 512;

/// The end of a buffer, with a limit on what may be added.
#[derive(Debug)]
pub struct Sink<'a> {
    buffer: &'a mut EvBuffer,
    room: usize,
}

impl<'a> Sink<'a> {
    /// A sink that adds at most `limit` bytes to `buffer`.
    pub fn new(buffer: &'a mut EvBuffer, limit: usize) -> Self {
        Self {
            buffer,
            room: limit,
        }
    }

    /// How many bytes it still takes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Adds a copy of as much of `bytes` as fits; returns how many bytes that was.
    pub fn append_slice(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room);
        self.took(count, |buffer| buffer.append_slice(&bytes[..count]))
    }

    /// Adds as much of `bytes` as fits, shared and not copied; returns how many bytes that was.
    pub fn append_bytes(&mut self, bytes: &Bytes) -> usize {
        let count = bytes.len().min(self.room);
        self.took(count, |buffer| buffer.append_bytes(bytes.slice(..count)))
    }

    /// Moves as much as fits from the front of `source`, without copying; returns how many bytes that was.
    pub fn append_from(&mut self, source: &mut EvBuffer) -> usize {
        let moved = source.move_to(self.room, self.buffer).unwrap_or(0);
        self.room -= moved;
        moved
    }

    /// Lends at most `at_most` bytes of the room to `write`, and adds as many of them, from the front, as it says it has written.
    ///
    /// The lent bytes are initialised and otherwise anything. `None`: there is no room, or no memory; nothing was added.
    ///
    /// ```
    /// # use bufferevent_filter::Sink;
    /// # let mut buffer = evbuffer::EvBuffer::new();
    /// let mut sink = Sink::new(&mut buffer, 3);
    /// let lent = sink.fill(100, |room| {
    ///     room.fill(b'x');
    ///     (room.len() - 1, room.len())
    /// });
    /// assert_eq!(lent, Some(3));
    /// assert_eq!(sink.room(), 1);
    /// assert_eq!(buffer, b"xx"[..]);
    /// ```
    pub fn fill<R>(
        &mut self,
        at_most: usize,
        write: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<R> {
        let lent = at_most.min(self.room);
        if lent == 0 {
            return None;
        }
        // A count beyond what was lent is a filter that cannot be trusted, and is cut short like every other.
        if lent <= COPIED {
            let mut room = [0; COPIED];
            let (written, answer) = write(&mut room[..lent]);
            let written = written.min(lent);
            return (self.append_slice(&room[..written]) == written).then_some(answer);
        }
        let mut reservation = self.buffer.reserve(lent).ok()?;
        let (written, answer) = write(reservation.as_mut());
        let written = written.min(lent);
        reservation.commit(written).ok()?;
        self.room -= written;
        Some(answer)
    }

    fn took(
        &mut self,
        count: usize,
        add: impl FnOnce(&mut EvBuffer) -> Result<(), evbuffer::Error>,
    ) -> usize {
        // Memory that cannot be had is room that is not there: the source keeps its bytes.
        if count == 0 || add(self.buffer).is_err() {
            return 0;
        }
        self.room -= count;
        count
    }
}

impl io::Write for Sink<'_> {
    /// Adds as much as fits. `Ok(0)` when nothing does.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.append_slice(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
