//! The traits of `std::io`, and vectored reads and writes through them.
//!
//! # Invariants
//! - One call here is at most one call of the reader or writer, so that the caller decides when to stop.
//! - A reader or writer that claims more than it was given is an error, and claims nothing.
//!
//! # Why no descriptor
//! Whatever has `Read` or `Write` will do, a socket too; who wants sendfile or pooled blocks asks for
//! [`front_file`](EvBuffer::front_file) and [`append_block`](EvBuffer::append_block).

use std::fmt;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Read, Write};

use crate::change::End;
use crate::error::{Error, ErrorKind};
use crate::segment::{Own, Segment};
use crate::{EvBuffer, MAX_LEN};

/// The most bytes that one [`EvBuffer::read_from`] reads, and that are read of a file at a time.
pub const READ_LEN: usize = 64 * 1024;

/// The most slices that one [`EvBuffer::write_to`] passes: more than a socket takes at a time in practice.
pub const MAX_SLICES: usize = 64;

/// Below this a last segment's room is not worth a slice of its own, in bytes.
const LEAST_ROOM: usize = 64;

impl EvBuffer {
    /// Reads once, at most `max` bytes and at most [`READ_LEN`], and appends what came; 0 is the end of the stream.
    ///
    /// One vectored read fills the room behind the last byte and new room.
    ///
    /// # Errors
    /// The reader's, and this buffer's refusals as [`io::Error`] with an [`Error`] inside. Nothing is appended then.
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut buffer = EvBuffer::new();
    /// let mut stream = &b"from a stream"[..];
    /// assert_eq!(buffer.read_from(&mut stream, 6)?, 6);
    /// assert_eq!(buffer, b"from a"[..]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    /// Source: libevent `evbuffer_read`.
    #[doc(alias = "evbuffer_read")]
    #[doc(alias = "evbuffer_set_max_read")]
    #[doc(alias = "evbuffer_get_max_read")]
    pub fn read_from(&mut self, reader: &mut impl Read, max: usize) -> io::Result<usize> {
        const DURING: &str = "read";
        self.check_open(End::Back, DURING)?;
        let max = max.min(READ_LEN).min(MAX_LEN - self.len());
        if max == 0 {
            return Ok(0);
        }
        let room = self.tail().room();
        let room = if room < LEAST_ROOM { 0 } else { room.min(max) };
        let mut fresh = Vec::new();
        if room < max {
            fresh = self.new_storage(max - room, DURING)?;
            self.expect_segments(1, DURING)?;
            fresh.resize(max - room, 0);
        }
        let n = match (room, fresh.is_empty()) {
            (0, _) => reader.read(&mut fresh)?,
            (_, true) => reader.read(self.tail_mut().room_mut(room))?,
            (_, false) => {
                let tail = self.tail_mut().room_mut(room);
                reader.read_vectored(&mut [IoSliceMut::new(tail), IoSliceMut::new(&mut fresh)])?
            }
        };
        if n > max {
            return Err(Error::new(ErrorKind::BadRange, DURING).into());
        }
        let in_tail = n.min(room);
        if in_tail > 0 {
            self.commit_to_tail(in_tail);
        }
        if n > in_tail {
            let mut segment = Segment::Own(Own::filled(fresh, n - in_tail));
            if (n - in_tail) < segment.memory() / 4
                && let Ok(copy) = crate::segment::copied(segment.bytes(), DURING)
            {
                segment = copy; // A short read shall not keep room for a long one.
            }
            self.push_segment(segment);
        }
        self.changed(n, 0);
        Ok(n)
    }

    /// Writes once, at most `max` bytes, and drains what was taken.
    ///
    /// One vectored write of up to [`MAX_SLICES`] segments. A file region in front is read a block at a time.
    ///
    /// # Errors
    /// The writer's, and this buffer's refusals as [`io::Error`] with an [`Error`] inside. Nothing is drained then.
    ///
    /// Source: libevent `evbuffer_write_atmost`.
    #[doc(alias = "evbuffer_write")]
    #[doc(alias = "evbuffer_write_atmost")]
    pub fn write_to(&mut self, writer: &mut impl Write, max: usize) -> io::Result<usize> {
        const DURING: &str = "write";
        let max = max.min(self.len());
        if max == 0 {
            return Ok(0);
        }
        self.check_open(End::Front, DURING)?;
        self.load_front()?;
        let (n, given) = match self.chunk().get(..max) {
            // The usual case: one segment has all of it.
            Some(first) => (writer.write(first)?, max),
            None => self.write_several(writer, max)?,
        };
        if n > given {
            return Err(Error::new(ErrorKind::BadRange, DURING).into());
        }
        Ok(self.drain(n))
    }

    /// Writes once, of several segments; answers how much was taken, and how much was offered.
    fn write_several(&self, writer: &mut impl Write, max: usize) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (mut count, mut given) = (0, 0);
        for (slot, segment) in slices.iter_mut().zip(self.segments()) {
            let segment = &segment[..segment.len().min(max - given)];
            if segment.is_empty() {
                break;
            }
            *slot = IoSlice::new(segment);
            given += segment.len();
            count += 1;
        }
        let n = match count {
            1 => writer.write(&slices[0])?,
            _ => writer.write_vectored(&slices[..count])?,
        };
        Ok((n, given))
    }

    /// Reads the first block of a file region that the buffer begins with.
    pub(crate) fn load_front(&mut self) -> Result<(), Error> {
        match self.front_file().map(|region| region.len().min(READ_LEN)) {
            Some(n) => self.pull_up(n).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Appends formatted text: what `write!` calls when it is given a buffer.
    ///
    /// # Errors
    /// As [`append_slice`](Self::append_slice); nothing is appended then.
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut buffer = EvBuffer::new();
    /// buffer.append_fmt(format_args!("{}-{:02}", "a", 7))?;
    /// assert_eq!(buffer, b"a-07"[..]);
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    #[doc(alias = "evbuffer_add_printf")]
    #[doc(alias = "evbuffer_add_vprintf")]
    pub fn append_fmt(&mut self, arguments: fmt::Arguments<'_>) -> Result<(), Error> {
        if let Some(text) = arguments.as_str() {
            return self.append_slice(text.as_bytes());
        }
        let mut text = Text {
            buffer: EvBuffer::new(),
            refused: None,
        };
        if fmt::write(&mut text, arguments).is_err() {
            // An error of the formatted value itself is misuse of formatting, and says nothing more.
            return Err(text
                .refused
                .unwrap_or_else(|| Error::new(ErrorKind::BadRange, "format")));
        }
        self.append(&mut text.buffer)
    }
}

/// Formatted text on its way, with the reason why it did not go on.
struct Text {
    buffer: EvBuffer,
    refused: Option<Error>,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.buffer.append_slice(text.as_bytes()).map_err(|error| {
            self.refused = Some(error);
            fmt::Error
        })
    }
}

impl Read for EvBuffer {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        Ok(self.try_remove(dst)?)
    }
}

impl BufRead for EvBuffer {
    /// The first segment; of a file region, a block is read.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.is_empty() {
            self.check_open(End::Front, "read")?;
            self.load_front()?;
        }
        Ok(self.chunk())
    }

    /// # Panics
    /// When `n` is more than [`fill_buf`](Self::fill_buf) returned.
    fn consume(&mut self, n: usize) {
        assert!(
            n <= self.chunk().len(),
            "consume {n} of {} bytes",
            self.chunk().len()
        );
        self.drain(n);
    }
}

impl Write for EvBuffer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.append_slice(data)?;
        Ok(data.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.append_slices(slices)?;
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Ok(self.append_slice(data)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for EvBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append_slice(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
