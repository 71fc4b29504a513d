//! Ends of lines, and lines.
//!
//! # Invariants
//! - A line is taken whole or not at all: until its end is there, the buffer keeps its bytes.
//! - While a [`Line`] lives, its bytes lie in the first segment, and nobody else can reach the buffer.
//! - [`EvBuffer::read_line`] looks at no more than the allowed length and an end behind it, so that a
//!   peer who never ends a line costs a bounded search, and is told apart from one who has not yet.

use std::fmt;
use std::ops::Deref;

use memchr::{memchr, memchr2};

use crate::EvBuffer;
use crate::change::End;
use crate::error::{Error, ErrorKind};
use crate::io::READ_LEN;
use crate::pool::zeroed;
use crate::search::{Cursor, Position};
use crate::segment::Segment;

const DURING: &str = "read line";

/// What ends a line.
#[doc(alias = "evbuffer_eol_style")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Eol {
    /// Any run of carriage returns and line feeds, as one end.
    #[doc(alias = "EVBUFFER_EOL_ANY")]
    Any,
    /// A line feed, with or without a carriage return before it: what Internet protocols say and what they get.
    #[doc(alias = "EVBUFFER_EOL_CRLF")]
    Crlf,
    /// A carriage return and a line feed.
    #[doc(alias = "EVBUFFER_EOL_CRLF_STRICT")]
    CrlfStrict,
    /// A line feed.
    #[doc(alias = "EVBUFFER_EOL_LF")]
    Lf,
    /// A byte 0.
    #[doc(alias = "EVBUFFER_EOL_NUL")]
    Nul,
}

impl Eol {
    /// How many bytes must be there, at least, behind the longest line allowed, to know that it is too long.
    fn lookahead(self) -> usize {
        match self {
            Self::Crlf | Self::CrlfStrict => 2,
            Self::Any | Self::Lf | Self::Nul => 1,
        }
    }

    /// Whether `last`, behind a line, may be the beginning of its end.
    fn may_begin_with(self, last: u8) -> bool {
        match self {
            Self::Crlf | Self::CrlfStrict => last == b'\r',
            Self::Any | Self::Lf | Self::Nul => false,
        }
    }
}

/// Where a line ends: see [`EvBuffer::find_eol`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EolAt<'a> {
    /// Behind the last byte of the line.
    pub position: Position<'a>,
    /// Length of the end itself, in bytes.
    pub len: usize,
}

impl EvBuffer {
    /// Finds the first end of a line.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::{Eol, EvBuffer};
    /// let buffer = EvBuffer::from(&b"line\r\nmore"[..]);
    /// let end = buffer.find_eol(Eol::Crlf)?.expect("there is one");
    /// assert_eq!((end.position.offset(), end.len), (4, 2));
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    /// Source: libevent `evbuffer_search_eol`.
    #[doc(alias = "evbuffer_search_eol")]
    pub fn find_eol(&self, eol: Eol) -> Result<Option<EolAt<'_>>, Error> {
        Position {
            buffer: self,
            cursor: Cursor::default(),
        }
        .find_eol(eol)
    }

    /// The first line, without its end; none if there is no end yet. Dropping the [`Line`] takes both away.
    ///
    /// The line is bytes: it may contain anything but its end, zeros too. It is read where it lies; only one that lies
    /// in several segments is [pulled up](Self::pull_up) first.
    ///
    /// # Errors
    /// [`ErrorKind::LineTooLong`] as soon as it is known that the line has more than `max_len` bytes, with or
    /// without an end in sight: the buffer keeps everything. [`ErrorKind::Frozen`]; else as [`search`](Self::search)
    /// and [`pull_up`](Self::pull_up).
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::{Eol, ErrorKind, EvBuffer};
    /// let mut buffer = EvBuffer::from(&b"one\ntwo\nthree"[..]);
    /// if let Some(line) = buffer.read_line(Eol::Lf, 100)? {
    ///     assert_eq!(*line, *b"one");
    /// } // Here the line leaves the buffer.
    /// let two = buffer.read_line(Eol::Lf, 100)?.expect("it has an end").into_vec()?;
    /// assert_eq!(two, b"two");
    /// assert!(buffer.read_line(Eol::Lf, 100)?.is_none());
    /// assert_eq!(buffer.read_line(Eol::Lf, 4).unwrap_err().kind(), ErrorKind::LineTooLong);
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    /// Source: libevent `evbuffer_readln`, which allocates each line and knows no greatest length.
    #[doc(alias = "evbuffer_readln")]
    #[doc(alias = "evbuffer_readline")]
    #[inline]
    pub fn read_line(&mut self, eol: Eol, max_len: usize) -> Result<Option<Line<'_>>, Error> {
        let found = match self.line_in_head(eol, max_len) {
            None => self.line_anywhere(eol, max_len)?,
            found => found,
        };
        Ok(found.map(|(len, eol_len)| Line {
            len,
            eol_len,
            buffer: self,
        }))
    }

    /// Moves the first line behind the bytes of `line`, and forgets its end; returns how many bytes were added.
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line).
    #[inline]
    pub fn read_line_into(
        &mut self,
        eol: Eol,
        max_len: usize,
        line: &mut Vec<u8>,
    ) -> Result<Option<usize>, Error> {
        match self.read_line(eol, max_len)? {
            Some(found) => found.move_to(line).map(Some),
            None => Ok(None),
        }
    }

    /// The usual case, a line in the first segment and nobody who listens to changes: its length, and that of its end.
    #[inline]
    fn line_in_head(&self, eol: Eol, max_len: usize) -> Option<(usize, usize)> {
        if !matches!(eol, Eol::Lf | Eol::Crlf) || !self.is_plain() {
            return None;
        }
        let bytes = self.head.bytes();
        let window = &bytes[..bytes.len().min(max_len.saturating_add(eol.lookahead()))];
        let at = memchr(b'\n', window)?;
        let len = at - usize::from(eol == Eol::Crlf && at > 0 && window[at - 1] == b'\r');
        (len <= max_len).then_some((len, at + 1 - len))
    }

    /// As [`line_in_head`](Self::line_in_head), for every case; the line is in the first segment afterwards.
    #[inline(never)]
    fn line_anywhere(&mut self, eol: Eol, max_len: usize) -> Result<Option<(usize, usize)>, Error> {
        self.check_open(End::Front, DURING)?;
        let too_long = || Error::new(ErrorKind::LineTooLong, DURING);
        let window = self.len().min(max_len.saturating_add(eol.lookahead()));
        let Some((at, eol_len)) = self.find_eol_until(eol, Cursor::default(), window)? else {
            let mut last = [0];
            let begun = window > 0
                && self.copy_out_from(window - 1, &mut last)? == 1
                && eol.may_begin_with(last[0]);
            return if window - usize::from(begun) > max_len {
                Err(too_long())
            } else {
                Ok(None)
            };
        };
        let len = at.offset;
        if len > max_len {
            return Err(too_long());
        }
        // The window may have cut a run short.
        let eol_len = if eol == Eol::Any {
            self.run_len(at)?
        } else {
            eol_len
        };
        self.pull_up(len)?;
        Ok(Some((len, eol_len)))
    }

    /// The first end of a line between `from` and `end`, and its length as far as it lies there.
    fn find_eol_until(
        &self,
        eol: Eol,
        from: Cursor,
        end: usize,
    ) -> Result<Option<(Cursor, usize)>, Error> {
        let found = match eol {
            Eol::Lf => self
                .find_where(from, end, |bytes| memchr(b'\n', bytes))?
                .map(|at| (at, 1)),
            Eol::Nul => self
                .find_where(from, end, |bytes| memchr(0, bytes))?
                .map(|at| (at, 1)),
            Eol::CrlfStrict => self.find(b"\r\n", from, end)?.map(|at| (at, 2)),
            Eol::Crlf => match self.find_where(from, end, |bytes| memchr(b'\n', bytes))? {
                Some(at) if at.offset > from.offset => {
                    let (before, byte) = self.before(at)?;
                    Some(if byte == b'\r' { (before, 2) } else { (at, 1) })
                }
                Some(at) => Some((at, 1)),
                None => None,
            },
            Eol::Any => match self.find_where(from, end, |bytes| memchr2(b'\r', b'\n', bytes))? {
                Some(at) => Some((at, self.run_len(at)?.min(end - at.offset))),
                None => None,
            },
        };
        Ok(found)
    }

    /// How many bytes from `at` on are carriage returns and line feeds.
    fn run_len(&self, at: Cursor) -> Result<usize, Error> {
        let other = |bytes: &[u8]| bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
        let end = self.find_where(at, self.len(), other)?;
        Ok(end.map_or(self.len(), |end| end.offset) - at.offset)
    }

    /// The byte before `at`, which has one.
    fn before(&self, at: Cursor) -> Result<(Cursor, u8), Error> {
        let (index, within) = match at.within.checked_sub(1) {
            Some(within) => (at.index, within),
            None => {
                let index = at.index - 1;
                (index, self.segment(index).map_or(0, Segment::len) - 1)
            }
        };
        let mut byte = [0];
        self.copy_at(index, within, &mut byte, "search").1?;
        Ok((
            Cursor {
                offset: at.offset - 1,
                index,
                within,
            },
            byte[0],
        ))
    }

    /// The first byte between `at` and `end` that `first` finds in a slice. Files are read a block at a time.
    fn find_where(
        &self,
        mut at: Cursor,
        end: usize,
        first: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<Option<Cursor>, Error> {
        let mut block = Vec::new();
        while at.offset < end
            && let Some(segment) = self.segment(at.index)
        {
            let left = (segment.len() - at.within).min(end - at.offset);
            let bytes = match segment {
                Segment::File(region) => {
                    let len = left.min(READ_LEN);
                    if block.len() < len {
                        block = zeroed(len, "search")?;
                    }
                    region.read_exact(at.within, &mut block[..len], "search")?;
                    &block[..len]
                }
                Segment::Empty | Segment::Own(_) | Segment::Block(_) | Segment::Shared(_) => {
                    &segment.bytes()[at.within..at.within + left]
                }
            };
            if let Some(i) = first(bytes) {
                return Ok(Some(self.forward(at, i)));
            }
            at = self.forward(at, bytes.len());
        }
        Ok(None)
    }
}

/// The first line of a buffer, without its end: a slice of the buffer's own bytes. See [`EvBuffer::read_line`].
///
/// Dropping it takes the line and its end out of the buffer, and tells those who listen to changes. One that is
/// forgotten ([`std::mem::forget`]) leaves them there, to be read again.
#[must_use = "dropping the line takes it out of the buffer"]
pub struct Line<'a> {
    len: usize,
    eol_len: usize,
    buffer: &'a mut EvBuffer,
}

impl Line<'_> {
    /// Takes the line out as a vector of its own.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`]: the line stays in the buffer.
    pub fn into_vec(self) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        self.move_to(&mut line)?;
        Ok(line)
    }

    /// Behind the bytes of `line`, if there is memory.
    #[inline]
    fn move_to(self, line: &mut Vec<u8>) -> Result<usize, Error> {
        if let Err(lack) = line.try_reserve(self.len) {
            std::mem::forget(self);
            return Err(Error::out_of_memory(DURING)(lack));
        }
        line.extend_from_slice(&self);
        Ok(self.len)
    }
}

impl Deref for Line<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buffer.head.bytes()[..self.len]
    }
}

impl AsRef<[u8]> for Line<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Line<'_> {
    #[inline]
    fn drop(&mut self) {
        self.buffer.drain(self.len + self.eol_len);
    }
}

impl fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl<'a> Position<'a> {
    /// As [`EvBuffer::find_eol`], from here on.
    ///
    /// # Errors
    /// As [`EvBuffer::search`].
    pub fn find_eol(self, eol: Eol) -> Result<Option<EolAt<'a>>, Error> {
        let found = self
            .buffer
            .find_eol_until(eol, self.cursor, self.buffer.len())?;
        Ok(found.map(|(cursor, len)| EolAt {
            position: Self { cursor, ..self },
            len,
        }))
    }
}
