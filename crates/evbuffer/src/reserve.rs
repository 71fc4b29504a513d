//! Room behind the last byte that is filled first and counted afterwards.
//!
//! # Invariants
//! - A reservation borrows the buffer, so no other operation can come between: what libevent checks
//!   when space is committed cannot happen.
//! - The room is initialised memory: a wrong count shows zeros or old bytes, never what was never written.
//! - A new segment belongs to the reservation until it is committed, so that dropping a reservation,
//!   or committing nothing, leaves the buffer as it was.

use std::fmt;

use crate::EvBuffer;
use crate::change::End;
use crate::error::{Error, ErrorKind};
use crate::segment::{Own, Segment};

/// Room at the end of a buffer, to be written and then committed; see [`EvBuffer::reserve`].
#[must_use = "what is written to the room counts when it is committed"]
#[doc(alias = "evbuffer_iovec")]
pub struct Reservation<'a> {
    buffer: &'a mut EvBuffer,
    len: usize,
    /// Storage for a new segment; none: the room is in the last one.
    fresh: Option<Vec<u8>>,
}

impl EvBuffer {
    /// Reserves `n` contiguous bytes behind the last one.
    ///
    /// ```compile_fail,E0499
    /// # let mut buffer = evbuffer::EvBuffer::new();
    /// let room = buffer.reserve(10)?;
    /// buffer.drain(1); // Not while there is a reservation.
    /// room.commit(10)?;
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Frozen`], [`ErrorKind::TooLong`], [`ErrorKind::OutOfMemory`].
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut buffer = EvBuffer::new();
    /// let mut room = buffer.reserve(100)?;
    /// room.as_mut()[..3].copy_from_slice(b"abc");
    /// room.commit(3)?;
    /// assert_eq!(buffer, b"abc"[..]);
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    /// Source: libevent `evbuffer_reserve_space`.
    #[doc(alias = "evbuffer_reserve_space")]
    pub fn reserve(&mut self, n: usize) -> Result<Reservation<'_>, Error> {
        const DURING: &str = "reserve";
        self.check_open(End::Back, DURING)?;
        self.check_fits(n, DURING)?;
        let fresh = if n <= self.tail().room() {
            None
        } else {
            let mut bytes = self.new_storage(n, DURING)?;
            self.expect_segments(1, DURING)?;
            bytes.resize(n, 0);
            Some(bytes)
        };
        Ok(Reservation {
            buffer: self,
            len: n,
            fresh,
        })
    }

    /// Asks for the memory of the next `n` appended bytes now, so that appending them asks for none.
    ///
    /// An empty buffer keeps this room until it was filled and drained, or [`compact`](Self::compact)ed.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`], [`ErrorKind::OutOfMemory`].
    ///
    /// Source: libevent `evbuffer_expand`.
    #[doc(alias = "evbuffer_expand")]
    pub fn expand(&mut self, n: usize) -> Result<(), Error> {
        const DURING: &str = "expand";
        self.check_fits(n, DURING)?;
        if n > self.tail().room() {
            let bytes = self.new_storage(n, DURING)?;
            self.expect_segments(1, DURING)?;
            self.rest_mut().prepared = bytes;
        }
        Ok(())
    }
}

impl Reservation<'_> {
    /// How many bytes are reserved.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the first `n` bytes of the room to the buffer.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when `n` is more than was reserved; nothing is appended then.
    ///
    /// Source: libevent `evbuffer_commit_space`.
    #[doc(alias = "evbuffer_commit_space")]
    pub fn commit(self, n: usize) -> Result<(), Error> {
        if n > self.len {
            return Err(Error::new(ErrorKind::BadRange, "commit"));
        }
        if n == 0 {
            return Ok(());
        }
        match self.fresh {
            Some(bytes) => self
                .buffer
                .push_segment(Segment::Own(Own::filled(bytes, n))),
            None => self.buffer.commit_to_tail(n),
        }
        self.buffer.changed(n, 0);
        Ok(())
    }
}

impl EvBuffer {
    /// Counts `n` bytes that were written to the room of the last segment.
    pub(crate) fn commit_to_tail(&mut self, n: usize) {
        let tail = self.tail_mut();
        debug_assert!(n <= tail.room());
        tail.room_mut(n); // Initialised, whether the writer looked at it or not.
        tail.commit(n);
        self.len += n;
    }
}

impl AsMut<[u8]> for Reservation<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.fresh {
            Some(bytes) => bytes,
            None => self.buffer.tail_mut().room_mut(self.len),
        }
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
