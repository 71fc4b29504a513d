//! From buffer to buffer: whole, in part, or by reference, with as few copies as can be.
//!
//! # Invariants
//! - What can fail (places for segments, a copy for a split) is done before the first segment moves,
//!   so that an error leaves both buffers as they were.
//! - Callbacks run when both buffers are complete: the source's first.
//! - Callbacks and frozen ends stay with their buffer; only segments move.

use std::mem;

use crate::EvBuffer;
use crate::change::End;
use crate::error::Error;
use crate::segment::Segment;

/// The longest own segment, in bytes, that is copied into the room behind the last byte of its new
/// buffer rather than moved: the copy costs less than the segment would cost its readers.
pub const COALESCE_MAX: usize = 512;

impl EvBuffer {
    /// Moves all bytes of `other` behind those of this buffer. Nothing is copied, except that own
    /// segments of at most [`COALESCE_MAX`] bytes go into room that is there already.
    ///
    /// A buffer cannot be appended to itself:
    /// ```compile_fail,E0499
    /// # let mut buffer = evbuffer::EvBuffer::new();
    /// buffer.append(&mut buffer);
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Frozen`](crate::ErrorKind::Frozen) when the back of this or the front of `other` is
    /// frozen, unless `other` is empty; [`ErrorKind::TooLong`](crate::ErrorKind::TooLong);
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory).
    ///
    /// Source: libevent `evbuffer_add_buffer`.
    #[doc(alias = "evbuffer_add_buffer")]
    #[inline]
    pub fn append(&mut self, other: &mut EvBuffer) -> Result<(), Error> {
        // An empty source may hold room that was asked for: it keeps it.
        if self.is_empty() && self.rest.is_none() && other.is_plain() && !other.is_empty() {
            mem::swap(self, other);
            return Ok(());
        }
        self.append_slowly(other)
    }

    fn append_slowly(&mut self, other: &mut EvBuffer) -> Result<(), Error> {
        const DURING: &str = "append buffer";
        let len = other.len();
        if len == 0 {
            return Ok(());
        }
        self.check_transfer(End::Back, other, len, DURING)?;
        self.expect_segments(other.segment_count(), DURING)?;
        while !other.is_empty() {
            let segment = other.pop_segment();
            self.push_or_coalesce(segment);
        }
        other.changed(0, len);
        self.changed(len, 0);
        Ok(())
    }

    /// Moves all bytes of `other` before those of this buffer, without a copy.
    ///
    /// # Errors
    /// As [`append`](Self::append), for the front of both.
    ///
    /// Source: libevent `evbuffer_prepend_buffer`.
    #[doc(alias = "evbuffer_prepend_buffer")]
    pub fn prepend(&mut self, other: &mut EvBuffer) -> Result<(), Error> {
        const DURING: &str = "prepend buffer";
        let len = other.len();
        if len == 0 {
            return Ok(());
        }
        self.check_transfer(End::Front, other, len, DURING)?;
        self.expect_segments(other.segment_count(), DURING)?;
        let mut more = match &mut other.rest {
            Some(rest) => {
                rest.files = 0;
                mem::take(&mut rest.more)
            }
            None => Default::default(),
        };
        let first = mem::take(&mut other.head);
        other.len = 0;
        other.rest_after_emptying();
        while let Some(segment) = more.pop_back() {
            self.push_segment_front(segment);
        }
        self.push_segment_front(first);
        other.changed(0, len);
        self.changed(len, 0);
        Ok(())
    }

    /// Moves the first `n` bytes, or all if there are fewer, behind those of `dst`; returns how many.
    ///
    /// Whole segments move as in [`append`](Self::append). Of the one that `n` falls into, the smaller part
    /// is copied if it is own storage and the part has at most 2 KiB; else its storage becomes shared.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut input = EvBuffer::from(&b"head and body"[..]);
    /// let mut head = EvBuffer::new();
    /// assert_eq!(input.move_to(4, &mut head)?, 4);
    /// assert_eq!(head, b"head"[..]);
    /// assert_eq!(input, b" and body"[..]);
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    /// Source: libevent `evbuffer_remove_buffer`.
    #[doc(alias = "evbuffer_remove_buffer")]
    #[inline]
    pub fn move_to(&mut self, n: usize, dst: &mut EvBuffer) -> Result<usize, Error> {
        let len = self.len();
        if n >= len {
            dst.append(self)?;
            return Ok(len);
        }
        self.move_part_to(n, dst)
    }

    /// As [`move_to`](Self::move_to), for `n` below the length.
    fn move_part_to(&mut self, n: usize, dst: &mut EvBuffer) -> Result<usize, Error> {
        const DURING: &str = "move";
        if n == 0 {
            return Ok(0);
        }
        dst.check_transfer(End::Back, self, n, DURING)?;
        let (whole, part) = self.whole_segments(n);
        dst.expect_segments(whole + usize::from(part > 0), DURING)?;
        let last = match part {
            0 => None,
            _ => match self.split_segment(whole, part, DURING) {
                Ok(last) => Some(last),
                Err(error) => {
                    if dst.is_empty() {
                        dst.rest_after_emptying(); // The places that were expected.
                    }
                    return Err(error);
                }
            },
        };
        for _ in 0..whole {
            let segment = self.pop_segment();
            dst.push_or_coalesce(segment);
        }
        if let Some(last) = last {
            dst.push_or_coalesce(last);
        }
        self.changed(0, n);
        dst.changed(n, 0);
        Ok(n)
    }

    /// Appends the bytes of `other` by reference: both buffers hold them, neither copies them.
    ///
    /// The storage of `other` becomes shared by this, so it is borrowed for writing; its bytes stay the same.
    /// What is drained from or appended to one of them later does not show in the other.
    ///
    /// # Errors
    /// As [`append`](Self::append), but the front of `other` may be frozen.
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut news = EvBuffer::from(&b"to everyone"[..]);
    /// let mut readers = [EvBuffer::new(), EvBuffer::new()];
    /// for reader in &mut readers {
    ///     reader.add_reference_of(&mut news)?;
    /// }
    /// assert_eq!(readers[0].chunk().as_ptr(), readers[1].chunk().as_ptr());
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    /// Source: libevent `evbuffer_add_buffer_reference`.
    #[doc(alias = "evbuffer_add_buffer_reference")]
    pub fn add_reference_of(&mut self, other: &mut EvBuffer) -> Result<(), Error> {
        const DURING: &str = "add reference";
        let len = other.len();
        if len == 0 {
            return Ok(());
        }
        self.check_open(End::Back, DURING)?;
        self.check_fits(len, DURING)?;
        self.expect_segments(other.segment_count(), DURING)?;
        let more = other.rest.iter_mut().flat_map(|rest| rest.more.iter_mut());
        for segment in std::iter::once(&mut other.head).chain(more) {
            segment.share();
            self.push_segment(segment.again());
        }
        self.changed(len, 0);
        Ok(())
    }

    /// Whether it has neither callbacks nor frozen ends.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.extras.is_none())
    }

    /// What must hold before `n` bytes leave the front of `from` for `end` of this buffer.
    fn check_transfer(
        &self,
        end: End,
        from: &EvBuffer,
        n: usize,
        during: &'static str,
    ) -> Result<(), Error> {
        self.check_open(end, during)?;
        from.check_open(End::Front, during)?;
        self.check_fits(n, during)
    }

    /// How many segments the first `n` bytes fill, and how many bytes of the next one they take.
    fn whole_segments(&self, n: usize) -> (usize, usize) {
        let (mut whole, mut left) = (0, n);
        while let Some(segment) = self.segment(whole)
            && segment.len() <= left
        {
            left -= segment.len();
            whole += 1;
        }
        (whole, left)
    }

    /// Cuts `n` bytes off the front of the segment at `index`; `0 < n < its length`.
    fn split_segment(
        &mut self,
        index: usize,
        n: usize,
        during: &'static str,
    ) -> Result<Segment, Error> {
        match (index.checked_sub(1), &mut self.rest) {
            (Some(index), Some(rest)) => {
                let front = rest.more[index].split_to(n, during)?;
                self.len -= n;
                Ok(front)
            }
            (None, _) | (Some(_), None) => {
                let front = self.head.split_to(n, during)?;
                self.len -= n;
                Ok(front)
            }
        }
    }

    /// Puts a segment last, or copies it into the room of the last one if it is small and its own.
    pub(crate) fn push_or_coalesce(&mut self, segment: Segment) {
        if segment.len() <= COALESCE_MAX
            && !segment.is_foreign()
            && segment.len() <= self.tail().room()
        {
            self.push_to_tail(segment.bytes());
        } else {
            self.push_segment(segment);
        }
    }
}
