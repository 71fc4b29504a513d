//! Finding bytes, also where they lie across segments.
//!
//! # The plain version
//! Copy everything into one slice and search that. Each departure from it:
//! 1. A segment at least as long as the needle is searched where it is.
//! 2. What could begin in its last bytes and end in the next segment is searched in a *window*: those
//!    few bytes and as many of the next segment, copied together.
//! 3. Where segments are shorter than the needle, the window takes several of them, so that the work
//!    stays linear: a byte is copied a bounded number of times, however small the segments are.
//! 4. Bytes of a file region are read into the window, a block at a time.
//!
//! # Invariants
//! - A cursor is normal: it points to a byte of a segment, or to the end of the last segment.
//! - A [`Position`] borrows its buffer: it cannot be used after a change, or with another buffer.

use std::fmt;
use std::io::IoSlice;
use std::ops::Range;

use memchr::memmem::Finder;

use crate::EvBuffer;
use crate::error::{Error, ErrorKind};
use crate::io::READ_LEN;
use crate::read::Segments;
use crate::segment::Segment;

/// The least length of a window over short segments, in bytes.
const WINDOW_LEN: usize = 512;

/// A place in a buffer: before a byte, or behind the last one.
///
/// It remembers the segment, so that going on from it costs no walk. It borrows the buffer; to keep a
/// place for later, keep its [`offset`](Self::offset) and ask for a new [`position`](EvBuffer::position).
///
/// ```compile_fail,E0502
/// # let mut buffer = evbuffer::EvBuffer::from(&b"abc"[..]);
/// let place = buffer.search(b"c")?;
/// buffer.drain(1); // The place would be wrong now.
/// println!("{place:?}");
/// # Ok::<(), evbuffer::Error>(())
/// ```
///
/// Source: libevent `struct evbuffer_ptr`, which goes stale without a word.
#[doc(alias = "evbuffer_ptr")]
#[derive(Clone, Copy)]
pub struct Position<'a> {
    pub(crate) buffer: &'a EvBuffer,
    pub(crate) cursor: Cursor,
}

/// A position without its buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// From the beginning of the buffer, in bytes.
    pub(crate) offset: usize,
    /// Of the segment, the head being number 0.
    pub(crate) index: usize,
    /// From the beginning of the segment, in bytes.
    pub(crate) within: usize,
}

impl EvBuffer {
    /// The place `offset` bytes from the beginning.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when that is beyond the end.
    #[doc(alias = "evbuffer_ptr_set")]
    pub fn position(&self, offset: usize) -> Result<Position<'_>, Error> {
        Position {
            buffer: self,
            cursor: Cursor::default(),
        }
        .advance(offset)
    }

    /// Finds the first place where `needle` begins. An empty needle is found at the beginning.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when a file region cannot be read, [`ErrorKind::OutOfMemory`] when there is no
    /// memory for a window across segments.
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut buffer = EvBuffer::new();
    /// buffer.append_bytes("key: va".into())?;
    /// buffer.append_bytes("lue\r\n".into())?;
    /// let found = buffer.search(b"value")?.expect("it is there, across two segments");
    /// assert_eq!(found.offset(), 5);
    /// assert!(found.search(b"key")?.is_none(), "from there on there is no key");
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    #[doc(alias = "evbuffer_search")]
    #[doc(alias = "evbuffer_find")]
    pub fn search(&self, needle: &[u8]) -> Result<Option<Position<'_>>, Error> {
        Position {
            buffer: self,
            cursor: Cursor::default(),
        }
        .search(needle)
    }

    /// Finds the first place in `range`, counted from the beginning, where all of `needle` lies in the range.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when the range does not lie in the buffer; else as [`search`](Self::search).
    #[doc(alias = "evbuffer_search_range")]
    pub fn search_range(
        &self,
        needle: &[u8],
        range: Range<usize>,
    ) -> Result<Option<Position<'_>>, Error> {
        if range.start > range.end {
            return Err(Error::new(ErrorKind::BadRange, "search"));
        }
        self.position(range.start)?.search_until(needle, range.end)
    }
}

impl<'a> Position<'a> {
    /// From the beginning of the buffer, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.cursor.offset
    }

    /// The place `n` bytes further on.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when that is beyond the end.
    #[doc(alias = "evbuffer_ptr_set")]
    #[doc(alias = "EVBUFFER_PTR_ADD")]
    pub fn advance(self, n: usize) -> Result<Self, Error> {
        if n > self.buffer.len() - self.cursor.offset {
            return Err(Error::new(ErrorKind::BadRange, "position"));
        }
        Ok(Self {
            cursor: self.buffer.forward(self.cursor, n),
            ..self
        })
    }

    /// As [`EvBuffer::search`], from here on.
    ///
    /// # Errors
    /// As [`EvBuffer::search`].
    pub fn search(self, needle: &[u8]) -> Result<Option<Self>, Error> {
        self.search_until(needle, self.buffer.len())
    }

    /// As [`search`](Self::search), for matches that end at `end` or before, counted from the beginning.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when `end` is before this place or beyond the end; else as [`EvBuffer::search`].
    pub fn search_until(self, needle: &[u8], end: usize) -> Result<Option<Self>, Error> {
        if end < self.cursor.offset || end > self.buffer.len() {
            return Err(Error::new(ErrorKind::BadRange, "search"));
        }
        let found = self.buffer.find(needle, self.cursor, end)?;
        Ok(found.map(|cursor| Self { cursor, ..self }))
    }

    /// The bytes from here to the end of the segment; empty at the end, and in a file region.
    #[must_use]
    pub fn chunk(&self) -> &'a [u8] {
        self.buffer.chunk_at(self.cursor)
    }

    /// Copies the bytes from here on to `dst`, as many as there are, and returns how many.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when a file region cannot be read; `dst` holds the bytes before it.
    pub fn copy_out(&self, dst: &mut [u8]) -> Result<usize, Error> {
        let (n, result) =
            self.buffer
                .copy_at(self.cursor.index, self.cursor.within, dst, "copy out");
        result.map(|()| n)
    }

    /// As [`EvBuffer::io_slices`], from here on.
    #[doc(alias = "evbuffer_peek")]
    pub fn io_slices(&self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        let mut skip = self.cursor.within;
        for (slot, segment) in dst
            .iter_mut()
            .zip(Segments::from_index(self.buffer, self.cursor.index))
        {
            *slot = IoSlice::new(&segment[skip..]);
            skip = 0;
            n += 1;
        }
        n
    }
}

impl fmt::Debug for Position<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Position")
            .field(&self.cursor.offset)
            .finish()
    }
}

/// Two places of the same buffer are equal when their offsets are.
impl PartialEq for Position<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.buffer, other.buffer) && self.cursor.offset == other.cursor.offset
    }
}

impl Eq for Position<'_> {}

impl EvBuffer {
    /// The cursor `n` bytes after `from`; there are that many.
    pub(crate) fn forward(&self, from: Cursor, n: usize) -> Cursor {
        let mut to = Cursor {
            offset: from.offset + n,
            index: from.index,
            within: from.within + n,
        };
        while let Some(segment) = self.segment(to.index)
            && to.within >= segment.len()
        {
            to.within -= segment.len();
            to.index += 1;
        }
        to
    }

    /// The bytes in memory from `at` to the end of its segment.
    pub(crate) fn chunk_at(&self, at: Cursor) -> &[u8] {
        self.segment(at.index)
            .and_then(|segment| segment.bytes().get(at.within..))
            .unwrap_or(&[])
    }

    /// The first place from `at` on where `needle` begins and ends not after `end`.
    pub(crate) fn find(
        &self,
        needle: &[u8],
        mut at: Cursor,
        end: usize,
    ) -> Result<Option<Cursor>, Error> {
        let n = needle.len();
        if n == 0 {
            return Ok(Some(at));
        }
        let finder = Finder::new(needle);
        let mut window = Vec::new();
        while end - at.offset >= n {
            let chunk = self.chunk_at(at);
            let mut bytes = &chunk[..chunk.len().min(end - at.offset)];
            if bytes.len() < n {
                self.fill_window(&mut window, at, end, n)?;
                bytes = &window;
            }
            if let Some(i) = finder.find(bytes) {
                return Ok(Some(self.forward(at, i)));
            }
            // What begins in the last `n - 1` bytes ends behind them.
            at = self.forward(at, bytes.len() - (n - 1));
        }
        Ok(None)
    }

    /// Copies bytes from `at` on together: at least `n` of them, which there are before `end`.
    fn fill_window(
        &self,
        window: &mut Vec<u8>,
        at: Cursor,
        end: usize,
        n: usize,
    ) -> Result<(), Error> {
        const DURING: &str = "search";
        let enough = n.saturating_mul(4).max(WINDOW_LEN);
        window.clear();
        let (mut index, mut within) = (at.index, at.within);
        while window.len() < enough
            && let Some(segment) = self.segment(index)
        {
            let left = end - at.offset - window.len();
            let len = (segment.len() - within).min(left);
            let is_file = segment.is_file();
            // A long segment is searched by itself; the window only has to reach over its border.
            let is_long = len >= n && !is_file;
            let take = match (is_file, is_long) {
                (true, _) => len.min(READ_LEN),
                (false, true) => n - 1,
                (false, false) => len,
            };
            let from = window.len();
            window
                .try_reserve(take)
                .map_err(Error::out_of_memory(DURING))?;
            match segment {
                Segment::File(region) => {
                    window.resize(from + take, 0);
                    region.read_exact(within, &mut window[from..], DURING)?;
                }
                Segment::Empty | Segment::Own(_) | Segment::Block(_) | Segment::Shared(_) => {
                    window.extend_from_slice(&segment.bytes()[within..within + take]);
                }
            }
            if is_long || take == left || take < segment.len() - within {
                break;
            }
            index += 1;
            within = 0;
        }
        Ok(())
    }
}
