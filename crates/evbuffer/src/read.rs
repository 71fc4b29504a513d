//! Looking at the bytes, copying them out, taking them away.
//!
//! # Invariants
//! - What is looked at is not moved: only [`EvBuffer::pull_up`] rearranges segments, and no byte
//!   changes its place in the stream by it.
//! - Bytes of a file region are read into the caller's memory, or into a segment of their own when the
//!   caller wants a slice; a region that cannot be read stays in the buffer as it is.

use std::io::IoSlice;

use bytes::Bytes;

use crate::buffer::Front;
use crate::change::End;
use crate::error::{Error, ErrorKind};
use crate::file::FileRegion;
use crate::pool::storage;
use crate::segment::{Own, Segment};
use crate::{EvBuffer, MAX_LEN};

impl EvBuffer {
    /// The bytes of the first segment: empty if the buffer is, or if it begins with a file region.
    ///
    /// Its length is what libevent calls the contiguous space.
    #[doc(alias = "evbuffer_get_contiguous_space")]
    #[inline]
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        self.head.bytes()
    }

    /// The file region that the buffer begins with, if it does: for whoever can send it without reading it.
    #[doc(alias = "evbuffer_set_flags")]
    #[doc(alias = "evbuffer_clear_flags")]
    #[doc(alias = "EVBUFFER_FLAG_DRAINS_TO_FD")]
    #[must_use]
    pub fn front_file(&self) -> Option<&FileRegion> {
        match &self.head {
            Segment::File(region) => Some(region),
            Segment::Empty | Segment::Own(_) | Segment::Block(_) | Segment::Shared(_) => None,
        }
    }

    /// The segments in order, as slices, up to the first file region.
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut buffer = EvBuffer::new();
    /// buffer.append_bytes("ab".into())?;
    /// buffer.append_bytes("cd".into())?;
    /// assert_eq!(buffer.segments().collect::<Vec<_>>(), [b"ab", b"cd"]);
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    #[doc(alias = "evbuffer_peek")]
    pub fn segments(&self) -> Segments<'_> {
        Segments {
            buffer: self,
            index: 0,
        }
    }

    /// Fills `dst` with slices of the first segments, up to the first file region, and returns how many those are.
    ///
    /// Nothing is copied; pass `&dst[..n]` to a vectored write and [`drain`](Self::drain) what it took.
    #[doc(alias = "evbuffer_peek")]
    #[inline]
    pub fn io_slices<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, segment) in dst.iter_mut().zip(self.segments()) {
            *slot = IoSlice::new(segment);
            n += 1;
        }
        n
    }

    /// Copies the first bytes to `dst`, as many as fit, and returns how many; the buffer keeps them.
    ///
    /// It stops before bytes of a file that cannot be read; [`copy_out_from`](Self::copy_out_from) says why.
    #[doc(alias = "evbuffer_copyout")]
    #[inline]
    pub fn copy_out(&self, dst: &mut [u8]) -> usize {
        if self.rest.is_none() && !self.head.is_file() {
            let n = dst.len().min(self.head.len());
            dst[..n].copy_from_slice(&self.head.bytes()[..n]);
            return n;
        }
        self.copy_at(0, 0, dst, "copy out").0
    }

    /// Copies the bytes from `offset` on to `dst`, as many as there are, and returns how many.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when `offset` is beyond the last byte; [`ErrorKind::Io`] when a file
    /// region cannot be read: then `dst` holds the bytes before it.
    #[doc(alias = "evbuffer_copyout_from")]
    pub fn copy_out_from(&self, offset: usize, dst: &mut [u8]) -> Result<usize, Error> {
        self.position(offset)?.copy_out(dst)
    }

    /// Moves the first bytes to `dst`, as many as fit, and returns how many.
    ///
    /// It stops before bytes of a file that cannot be read, and a frozen front gives nothing;
    /// [`try_remove`](Self::try_remove) says why.
    #[doc(alias = "evbuffer_remove")]
    #[inline]
    pub fn remove(&mut self, dst: &mut [u8]) -> usize {
        let n = dst.len();
        if self.rest.is_none()
            && n > 0
            && let Some(bytes) = self.head.bytes().get(..n)
        {
            dst.copy_from_slice(bytes);
            return self.drain(n);
        }
        self.remove_slowly(dst).0
    }

    /// As [`remove`](Self::remove), and an error when there was nothing to give for a reason.
    ///
    /// # Errors
    /// [`ErrorKind::Frozen`]; [`ErrorKind::Io`] when the buffer begins with a file region that cannot be
    /// read. Not when the buffer or `dst` is empty.
    pub fn try_remove(&mut self, dst: &mut [u8]) -> Result<usize, Error> {
        match self.remove_slowly(dst) {
            (0, result) => result.map(|()| 0),
            (n, _) => Ok(n), // The reason, if any, shows with the next call.
        }
    }

    fn remove_slowly(&mut self, dst: &mut [u8]) -> (usize, Result<(), Error>) {
        if dst.is_empty() || self.is_empty() {
            return (0, Ok(()));
        }
        if let Err(error) = self.check_open(End::Front, "remove") {
            return (0, Err(error));
        }
        let (n, result) = self.copy_at(0, 0, dst, "remove");
        self.drain(n);
        (n, result)
    }

    /// Takes the first `n` bytes away as shared bytes, without a copy when they lie in one segment.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when there are fewer; else as [`pull_up`](Self::pull_up), and
    /// [`ErrorKind::Frozen`].
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// let mut buffer = EvBuffer::from(&b"frame|rest"[..]);
    /// assert_eq!(buffer.remove_bytes(5)?, "frame");
    /// assert_eq!(buffer.len(), 5);
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    pub fn remove_bytes(&mut self, n: usize) -> Result<Bytes, Error> {
        const DURING: &str = "remove bytes";
        self.check_open(End::Front, DURING)?;
        self.pull_up(n)?;
        let mut segment = match n {
            0 => return Ok(Bytes::new()),
            _ if n == self.head.len() => self.pop_segment(),
            _ => {
                let front = self.head.split_to(n, DURING)?;
                self.len -= n;
                front
            }
        };
        segment.share();
        self.changed(0, n);
        match segment {
            Segment::Shared(bytes) => Ok(bytes),
            Segment::Empty | Segment::Own(_) | Segment::Block(_) | Segment::File(_) => {
                unreachable!("pulled up bytes are in memory, and were made shared")
            }
        }
    }

    /// Makes the first `n` bytes contiguous and returns them.
    ///
    /// Copies only if they are not so already. Slices and addresses of earlier calls are borrowed and so are gone.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when there are fewer than `n` bytes; [`ErrorKind::OutOfMemory`];
    /// [`ErrorKind::Io`] when a file region among them cannot be read. The segments are as before then.
    ///
    /// Source: libevent `evbuffer_pullup`, whose -1 is `len()` here and whose null for 0 is an empty slice.
    #[doc(alias = "evbuffer_pullup")]
    #[doc(alias = "EVBUFFER_DATA")]
    #[inline]
    pub fn pull_up(&mut self, n: usize) -> Result<&[u8], Error> {
        if n > self.head.bytes().len() {
            self.gather(n)?;
        }
        Ok(&self.head.bytes()[..n])
    }

    /// Makes the head hold `n` bytes in memory, which it does not yet.
    fn gather(&mut self, n: usize) -> Result<(), Error> {
        const DURING: &str = "pull up";
        if n > self.len() {
            return Err(Error::new(ErrorKind::BadRange, DURING));
        }
        if self.gather_into_head(n, DURING)? {
            return Ok(());
        }
        let mut bytes = storage(n, DURING)?;
        let mut front = Front::default();
        front.copy(&self.head, n, &mut bytes, DURING)?;
        for segment in self.rest.iter().flat_map(|rest| &rest.more) {
            if bytes.len() == n {
                break;
            }
            front.copy(segment, n, &mut bytes, DURING)?;
        }
        // Foreign storage is dropped when the copy is in its place.
        let mut trash = EvBuffer::new();
        trash.expect_segments(front.foreign, DURING)?;
        self.expect_segments(1, DURING)?;
        self.replace_front(&front, Own::from_vec(bytes), &mut trash);
        Ok(())
    }

    /// As [`gather`](Self::gather), if the head has the room and all the others needed are own: no allocation.
    fn gather_into_head(&mut self, n: usize, during: &'static str) -> Result<bool, Error> {
        let mut need = n - self.head.len().min(n);
        let Some(rest) = self
            .rest
            .as_mut()
            .filter(|_| need > 0 && need <= self.head.room())
        else {
            return Ok(false);
        };
        let mut room = self.head.room_mut(need);
        for segment in &rest.more {
            if segment.is_foreign() {
                return Ok(false);
            }
            let (now, later) = room.split_at_mut(segment.len().min(room.len()));
            segment.copy_out(0, now, during)?;
            room = later;
            if room.is_empty() {
                break;
            }
        }
        self.head.commit(need);
        while need > 0
            && let Some(front) = rest.more.front_mut()
        {
            if need < front.len() {
                front.advance(need);
                break;
            }
            need -= front.len();
            rest.more.pop_front();
        }
        Ok(true)
    }

    /// Copies from `within` the segment at `index` on, as far as there are bytes and room; tells how far it came.
    pub(crate) fn copy_at(
        &self,
        mut index: usize,
        mut within: usize,
        dst: &mut [u8],
        during: &'static str,
    ) -> (usize, Result<(), Error>) {
        let mut done = 0;
        while done < dst.len()
            && let Some(segment) = self.segment(index)
        {
            let n = (segment.len() - within).min(dst.len() - done);
            if let Err(error) = segment.copy_out(within, &mut dst[done..done + n], during) {
                return (done, Err(error));
            }
            done += n;
            index += 1;
            within = 0;
        }
        (done, Ok(()))
    }

    /// How many bytes lie before the first file region.
    pub(crate) fn len_in_memory(&self) -> usize {
        match &self.rest {
            Some(rest) if rest.files > 0 => self.segments().map(<[u8]>::len).sum(),
            Some(_) if !self.head.is_file() => self.len,
            _ => self.head.bytes().len().min(MAX_LEN),
        }
    }
}

/// The segments of a buffer as slices; see [`EvBuffer::segments`].
#[derive(Clone, Debug)]
#[must_use = "iterators do nothing unless consumed"]
pub struct Segments<'a> {
    buffer: &'a EvBuffer,
    index: usize,
}

impl<'a> Segments<'a> {
    pub(crate) fn from_index(buffer: &'a EvBuffer, index: usize) -> Self {
        Self { buffer, index }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let segment = self
            .buffer
            .segment(self.index)
            .filter(|segment| !segment.is_file())?;
        self.index += 1;
        Some(segment.bytes())
    }
}

impl std::iter::FusedIterator for Segments<'_> {}
