//! The queue: adding at either end, draining, and what is known about it.
//!
//! # Invariants
//! - `len` is the sum of the lengths of all segments: the question that is asked most is one load.
//! - `head` is [`Segment::Empty`] exactly when the buffer is empty; then `rest.more` is empty too.
//! - No other segment is empty.
//! - `rest.files` is the number of file regions in `rest.more`.
//! - The whole length is at most [`MAX_LEN`].
//! - An empty buffer without extras and without room that was asked for has no `rest`: it owns nothing.
//! - Every public operation that adds or deletes ends with [`EvBuffer::changed`], when all the above holds.
//!
//! # Why the first segment is apart
//! Most buffers never have a second one: such a buffer is one allocation, moving it to an empty one
//! is an exchange of 56 bytes, and the hot paths look at one pointer to know that nothing rare is on.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;

use crate::change::{End, Extras};
use crate::error::{Error, ErrorKind};
use crate::file::FileRegion;
use crate::pool::{BLOCK_LEN, Block, storage};
use crate::segment::{Own, Segment};
use crate::spare::{self, SPARE_CAPACITY};

/// The greatest length of a buffer in bytes, as for every object in Rust.
pub const MAX_LEN: usize = isize::MAX as usize;

/// The least storage of a first segment, in bytes: most messages fit, and storage of this size is kept at hand.
const FIRST_CAPACITY: usize = SPARE_CAPACITY;

/// The least storage of a further segment, in bytes: a page.
const NEXT_CAPACITY: usize = 4 * 1024;

/// The most bytes of a lone segment, and of what comes behind it, that are copied to make one of both.
const GROW_COPY_MAX: usize = 2 * 1024;

/// Up to here each new segment doubles the last, in bytes. More would waste more than it saves.
const GROWN_CAPACITY: usize = 16 * 1024;

/// A queue of bytes in segments.
///
/// See the [crate documentation](crate) for what it is made of and what it costs.
///
/// # Examples
/// ```
/// let mut buffer = evbuffer::EvBuffer::new();
/// buffer.append_slice(b"world")?;
/// buffer.prepend_slice(b"hello ")?;
/// assert_eq!(buffer.len(), 11);
/// assert_eq!(buffer.drain(6), 6);
/// assert_eq!(buffer, b"world"[..]);
/// # Ok::<(), evbuffer::Error>(())
/// ```
#[doc(alias = "evbuffer")]
#[doc(alias = "evbuffer_enable_locking")]
#[doc(alias = "evbuffer_lock")]
#[doc(alias = "evbuffer_unlock")]
#[derive(Default)]
pub struct EvBuffer {
    pub(crate) len: usize,
    pub(crate) head: Segment,
    pub(crate) rest: Option<Box<Rest>>,
}

const _: () = assert!(size_of::<EvBuffer>() <= 56);

/// What a buffer of one segment without extras does not have.
#[derive(Default)]
pub(crate) struct Rest {
    /// The segments after the head.
    pub(crate) more: VecDeque<Segment>,
    /// File regions in `more`.
    pub(crate) files: usize,
    /// Room that was asked for before there were bytes for it; no capacity: none.
    pub(crate) prepared: Vec<u8>,
    /// Callbacks and frozen ends.
    pub(crate) extras: Option<Box<Extras>>,
}

/// Some bytes at the front, in segments.
#[derive(Default)]
pub(crate) struct Front {
    /// Segments that belong to it with all their bytes.
    pub(crate) whole: usize,
    /// Bytes of the segment behind those.
    pub(crate) cut: usize,
    /// Foreign segments among all of these.
    pub(crate) foreign: usize,
}

impl Front {
    /// Takes in the next segment, or as much of it as `copy` lacks of `n` bytes, and copies that there.
    #[inline(always)]
    pub(crate) fn copy(
        &mut self,
        segment: &Segment,
        n: usize,
        copy: &mut Vec<u8>,
        during: &'static str,
    ) -> Result<(), Error> {
        let left = n - copy.len();
        let len = segment.len();
        let taken = left.min(len);
        if let Segment::File(region) = segment {
            let from = copy.len();
            copy.resize(from + taken, 0);
            region.read_exact(0, &mut copy[from..], during)?;
        } else {
            copy.extend_from_slice(&segment.bytes()[..taken]);
        }
        self.foreign += usize::from(segment.is_foreign());
        match taken == len {
            true => self.whole += 1,
            false => self.cut = taken,
        }
        Ok(())
    }
}

impl EvBuffer {
    /// An empty buffer, which owns no memory.
    #[doc(alias = "evbuffer_new")]
    #[doc(alias = "evbuffer_free")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            len: 0,
            head: Segment::Empty,
            rest: None,
        }
    }

    /// How many bytes there are.
    #[doc(alias = "evbuffer_get_length")]
    #[doc(alias = "EVBUFFER_LENGTH")]
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Heap memory held by this buffer, in bytes.
    ///
    /// Shared bytes count with the length that is seen through this buffer, though another holds them too.
    #[must_use]
    pub fn memory(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| {
            size_of::<Rest>()
                + rest.more.capacity() * size_of::<Segment>()
                + rest.more.iter().map(Segment::memory).sum::<usize>()
                + rest.prepared.capacity()
                + rest.extras.as_ref().map_or(0, |extras| extras.memory())
        });
        self.head.memory() + rest
    }

    /// Appends a copy of `data`: into the room behind the last byte, and what does not fit into a new segment.
    ///
    /// While all of the buffer is one own segment of at most 2 KiB, that grows, so that what is short stays in one piece.
    ///
    /// # Errors
    /// [`ErrorKind::Frozen`], [`ErrorKind::TooLong`], [`ErrorKind::OutOfMemory`].
    ///
    /// Source: libevent `evbuffer_add`.
    #[doc(alias = "evbuffer_add")]
    #[inline]
    pub fn append_slice(&mut self, data: &[u8]) -> Result<(), Error> {
        if self.is_bare() && !data.is_empty() {
            let mut bytes = if data.len() <= FIRST_CAPACITY {
                spare::take("append")?
            } else {
                storage(data.len(), "append")?
            };
            bytes.extend_from_slice(data);
            // An empty head has nothing that would have to be dropped.
            mem::forget(mem::replace(
                &mut self.head,
                Segment::Own(Own::from_vec(bytes)),
            ));
            self.len = data.len();
            return Ok(());
        }
        // Own storage of one segment is shorter than `MAX_LEN`, whatever is added within its room.
        match (&mut self.head, &mut self.rest) {
            (Segment::Own(own), None) if data.len() <= own.room() => {
                own.push(data);
                self.len += data.len();
                Ok(())
            }
            (Segment::Own(_), Some(rest)) if rest.extras.is_none() => {
                if let Some(Segment::Own(last)) = rest.more.back_mut()
                    && data.len() <= last.room()
                    && data.len() <= MAX_LEN - self.len
                {
                    last.push(data);
                    self.len += data.len();
                    return Ok(());
                }
                self.append_slice_slowly(data)
            }
            _ => self.append_slice_slowly(data),
        }
    }

    fn append_slice_slowly(&mut self, data: &[u8]) -> Result<(), Error> {
        const DURING: &str = "append";
        self.check_open(End::Back, DURING)?;
        if data.is_empty() {
            return Ok(());
        }
        self.check_fits(data.len(), DURING)?;
        let fits = self.tail().room();
        if data.len() <= fits {
            self.push_to_tail(data);
        } else if self.is_lone_and_short() && data.len() <= GROW_COPY_MAX {
            let mut bytes = self.new_storage(self.head.len() + data.len(), DURING)?;
            bytes.extend_from_slice(self.head.bytes());
            bytes.extend_from_slice(data);
            self.head = Segment::Own(Own::from_vec(bytes));
            self.len += data.len();
        } else {
            let (fits, over) = data.split_at(fits);
            let mut bytes = self.new_storage(over.len(), DURING)?;
            self.expect_segments(1, DURING)?;
            self.push_to_tail(fits);
            bytes.extend_from_slice(over);
            self.push_segment(Segment::Own(Own::from_vec(bytes)));
        }
        self.changed(data.len(), 0);
        Ok(())
    }

    /// Whether all there is is one own segment, no room was asked for, and a copy costs less than a queue.
    fn is_lone_and_short(&self) -> bool {
        (1..=GROW_COPY_MAX).contains(&self.head.len())
            && !self.head.is_foreign()
            && self
                .rest
                .as_ref()
                .is_none_or(|rest| rest.more.is_empty() && rest.prepared.capacity() == 0)
    }

    /// Appends each of `slices`, or none.
    ///
    /// # Errors
    /// As [`append_slice`](Self::append_slice).
    ///
    /// Source: libevent `evbuffer_add_iovec`, which keeps what it added before it failed.
    #[doc(alias = "evbuffer_add_iovec")]
    pub fn append_slices(&mut self, slices: &[std::io::IoSlice<'_>]) -> Result<(), Error> {
        const DURING: &str = "append slices";
        self.check_open(End::Back, DURING)?;
        let sum = slices
            .iter()
            .try_fold(0_usize, |sum, slice| sum.checked_add(slice.len()));
        let sum = sum.ok_or_else(|| Error::new(ErrorKind::TooLong, DURING))?;
        if sum == 0 {
            return Ok(());
        }
        self.check_fits(sum, DURING)?;
        if self.tail().room() < sum {
            let bytes = self.new_storage(sum, DURING)?;
            self.expect_segments(1, DURING)?;
            self.push_segment_unfilled(bytes);
        }
        for slice in slices {
            self.push_to_tail(slice);
        }
        self.changed(sum, 0);
        Ok(())
    }

    /// Appends shared bytes without a copy.
    ///
    /// With [`Bytes::from_owner`] any memory can be appended; its owner is dropped when the last reference is.
    ///
    /// # Errors
    /// [`ErrorKind::Frozen`], [`ErrorKind::TooLong`], [`ErrorKind::OutOfMemory`].
    ///
    /// Source: libevent `evbuffer_add_reference`.
    #[doc(alias = "evbuffer_add_reference")]
    #[doc(alias = "evbuffer_add_reference_with_offset")]
    #[inline]
    pub fn append_bytes(&mut self, bytes: Bytes) -> Result<(), Error> {
        let len = bytes.len();
        self.append_segment(Segment::Shared(bytes), len, "append bytes")
    }

    /// Appends the first `len` bytes of a pooled block, without a copy; the rest of it is room.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when the block is shorter than `len`; else as [`append_bytes`](Self::append_bytes).
    /// On an error the block goes back to its pool.
    #[inline]
    pub fn append_block(&mut self, block: Block, len: usize) -> Result<(), Error> {
        const DURING: &str = "append block";
        if len > BLOCK_LEN {
            return Err(Error::new(ErrorKind::BadRange, DURING));
        }
        self.append_segment(
            Segment::Block(crate::segment::Piece::new(block, len)),
            len,
            DURING,
        )
    }

    /// Appends a range of a file, without reading it.
    ///
    /// # Errors
    /// As [`append_bytes`](Self::append_bytes).
    ///
    /// Source: libevent `evbuffer_add_file_segment`.
    #[doc(alias = "evbuffer_add_file")]
    #[doc(alias = "evbuffer_add_file_segment")]
    #[doc(alias = "evbuffer_file_segment_add_cleanup_cb")]
    pub fn append_file(&mut self, region: FileRegion) -> Result<(), Error> {
        let len = region.len();
        self.append_segment(Segment::File(region), len, "append file")
    }

    #[inline]
    fn append_segment(
        &mut self,
        segment: Segment,
        len: usize,
        during: &'static str,
    ) -> Result<(), Error> {
        if self.is_empty() && self.rest.is_none() && len > 0 {
            self.head = segment;
            self.len = len;
            return Ok(());
        }
        self.check_open(End::Back, during)?;
        if len == 0 {
            return Ok(());
        }
        self.check_fits(len, during)?;
        self.expect_segments(1, during)?;
        self.push_segment(segment);
        self.changed(len, 0);
        Ok(())
    }

    /// Puts a copy of `data` before the first byte.
    ///
    /// # Errors
    /// As [`append_slice`](Self::append_slice), for the front end.
    ///
    /// Source: libevent `evbuffer_prepend`.
    #[doc(alias = "evbuffer_prepend")]
    pub fn prepend_slice(&mut self, data: &[u8]) -> Result<(), Error> {
        const DURING: &str = "prepend";
        self.check_open(End::Front, DURING)?;
        if data.is_empty() {
            return Ok(());
        }
        self.check_fits(data.len(), DURING)?;
        if self.head.push_front(data) {
            self.len += data.len();
        } else {
            let own = Own::before(data, FIRST_CAPACITY, DURING)?;
            self.expect_segments(1, DURING)?;
            self.push_segment_front(Segment::Own(own));
        }
        self.changed(data.len(), 0);
        Ok(())
    }

    /// Forgets the first `n` bytes, or all if there are fewer, and returns how many those were.
    ///
    /// A frozen front drains nothing and returns 0; [`try_drain`](Self::try_drain) tells the difference.
    ///
    /// Source: libevent `evbuffer_drain`.
    #[doc(alias = "evbuffer_drain")]
    #[inline]
    pub fn drain(&mut self, n: usize) -> usize {
        // The usual case by itself: it is short enough to become a part of the caller.
        if let Segment::Own(own) = &mut self.head
            && n < own.len()
            && self.rest.as_ref().is_none_or(|rest| rest.extras.is_none())
        {
            own.advance(n);
            self.len -= n;
            return n;
        }
        self.drain_segments(n)
    }

    fn drain_segments(&mut self, n: usize) -> usize {
        if self.rest.is_none() {
            let n = n.min(self.len);
            self.len -= n;
            if self.len > 0 {
                self.head.advance(n);
            } else if let Segment::Own(own) = &mut self.head
                && own.give_storage()
            {
                // Nothing is left in it that would have to be dropped.
                mem::forget(mem::take(&mut self.head));
            } else {
                self.head = Segment::Empty;
            }
            return n;
        }
        if n < self.head.len() && self.is_plain() {
            self.head.advance(n);
            self.len -= n;
            return n;
        }
        self.try_drain(n).unwrap_or(0)
    }

    /// As [`drain`](Self::drain), and an error when the front is frozen.
    ///
    /// # Errors
    /// [`ErrorKind::Frozen`], unless there is nothing to drain.
    pub fn try_drain(&mut self, n: usize) -> Result<usize, Error> {
        let n = n.min(self.len());
        if n > 0 {
            self.check_open(End::Front, "drain")?;
            self.forget(n, drop);
            self.changed(0, n);
        }
        Ok(n)
    }

    /// As [`drain`](Self::drain), but foreign segments (shared bytes, file regions) that are done with go
    /// behind the bytes of `trash` instead of being dropped.
    ///
    /// The `Drop` of foreign memory can do anything, and closing a file can take long: who holds a lock
    /// drops `trash` after letting go of it. Own storage is freed, and pooled blocks go back, at once.
    ///
    /// # Examples
    /// ```
    /// # use evbuffer::EvBuffer;
    /// # use std::sync::Mutex;
    /// # let shared = Mutex::new(EvBuffer::from(bytes::Bytes::from_static(b"abc")));
    /// let mut trash = EvBuffer::new();
    /// shared.lock().unwrap().drain_into(3, &mut trash);
    /// drop(trash); // Whatever its owner's `Drop` does, the lock is free.
    /// ```
    #[inline]
    pub fn drain_into(&mut self, n: usize, trash: &mut EvBuffer) -> usize {
        // The usual case: all there is is one segment of its own, so nothing foreign goes.
        if self.rest.is_none() && !self.head.is_foreign() {
            return self.drain(n);
        }
        self.drain_segments_into(n, trash)
    }

    fn drain_segments_into(&mut self, n: usize, trash: &mut EvBuffer) -> usize {
        let n = n.min(self.len());
        if n == 0 || self.check_open(End::Front, "drain").is_err() {
            return 0;
        }
        let before = trash.len();
        self.forget(n, |segment| {
            // Trash that is as long as a buffer can be has no room for more, so this one is dropped here.
            if segment.is_foreign() && trash.check_fits(segment.len(), "drain").is_ok() {
                trash.push_segment(segment);
            }
        });
        trash.changed(trash.len() - before, 0);
        self.changed(0, n);
        n
    }

    /// Drains everything.
    #[inline]
    pub fn clear(&mut self) {
        // What is short lies in one small piece, which another buffer takes next.
        if self.rest.is_none()
            && let Segment::Own(own) = &mut self.head
            && own.give_storage()
        {
            mem::forget(mem::take(&mut self.head));
            self.len = 0;
            return;
        }
        self.drain(usize::MAX);
    }

    /// Drops the buffer; one that owns nothing is only forgotten, which is cheaper than a drop that has to find that out.
    #[inline]
    pub fn forget_empty(self) {
        if self.is_bare() {
            mem::forget(self);
        }
    }

    /// Exchanges two buffers, if they are not both as new ones: then there is nothing to exchange.
    #[inline]
    pub fn swap_with(&mut self, other: &mut Self) {
        if !(self.is_bare() && other.is_bare()) {
            mem::swap(self, other);
        }
    }

    /// Whether it is empty and owns nothing at all, no callback, frozen end or room that was asked for either: as a new one.
    #[inline]
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.len == 0 && self.rest.is_none()
    }

    /// Gives back memory that few bytes hold, for bytes that are going to stay.
    ///
    /// A segment that uses less than a quarter of its storage is copied to storage of its size. Where memory
    /// lacks for that, and for shared bytes, whose storage is another's too, nothing happens.
    pub fn compact(&mut self) {
        let more = self.rest.iter_mut().flat_map(|rest| rest.more.iter_mut());
        for segment in std::iter::once(&mut self.head).chain(more) {
            if !segment.is_foreign()
                && segment.len() < segment.memory() / 4
                && let Ok(copy) = crate::segment::copied(segment.bytes(), "compact")
            {
                *segment = copy;
            }
        }
        if let Some(rest) = &mut self.rest {
            rest.prepared = Vec::new();
            if rest.more.is_empty() && rest.extras.is_none() {
                self.rest = None;
            }
        }
    }

    /// Takes the first `n` bytes out of the queue and gives every finished segment to `done`. `n` is at most the length.
    ///
    /// `done` may run foreign code: it gets a segment when the queue is consistent without it.
    pub(crate) fn forget(&mut self, mut n: usize, mut done: impl FnMut(Segment)) {
        while n > 0 {
            let len = self.head.len();
            if n < len {
                self.head.advance(n);
                self.len -= n;
                return;
            }
            n -= len;
            let segment = self.pop_segment();
            done(segment);
        }
    }

    /// Puts `copy` in the place of the bytes that it holds, those of `front`. Of the segments that are no longer needed
    /// the foreign ones go to `trash`, which has the room, and the others are dropped. There is room for one more segment here.
    pub(crate) fn replace_front(&mut self, front: &Front, copy: Own, trash: &mut Self) {
        let Some(others) = front.whole.checked_sub(1) else {
            self.head.advance(front.cut);
            self.len -= front.cut;
            self.push_segment_front(Segment::Own(copy));
            return;
        };
        let head = mem::replace(&mut self.head, Segment::Own(copy));
        if head.is_foreign() {
            trash.push_segment(head);
        }
        let Some(rest) = &mut self.rest else { return };
        let others = rest.more.drain(..others);
        if front.foreign == 0 {
            drop(others);
        } else {
            for segment in others {
                rest.files -= usize::from(segment.is_file());
                if segment.is_foreign() {
                    trash.push_segment(segment);
                }
            }
        }
        if let Some(next) = rest.more.front_mut() {
            next.advance(front.cut);
        }
    }

    /// Takes the head off; the next segment becomes the head.
    pub(crate) fn pop_segment(&mut self) -> Segment {
        let next = match &mut self.rest {
            None => Segment::Empty,
            Some(rest) => match rest.more.pop_front() {
                Some(next) => {
                    rest.files -= usize::from(next.is_file());
                    next
                }
                None => Segment::Empty,
            },
        };
        let segment = mem::replace(&mut self.head, next);
        self.len -= segment.len();
        if self.is_empty() {
            self.rest_after_emptying();
        }
        segment
    }

    /// Lets go of what an empty buffer does not need.
    pub(crate) fn rest_after_emptying(&mut self) {
        match &mut self.rest {
            Some(rest) if rest.extras.is_some() => {
                rest.more = VecDeque::new();
                rest.prepared = Vec::new();
            }
            Some(_) => self.rest = None,
            None => {}
        }
    }

    /// Puts a segment that is not empty behind all others. Length and ends were checked.
    pub(crate) fn push_segment(&mut self, segment: Segment) {
        debug_assert!(segment.len() > 0);
        self.push_back(segment);
    }

    /// As [`push_segment`](Self::push_segment) for storage that the caller fills before anyone can look.
    fn push_segment_unfilled(&mut self, bytes: Vec<u8>) {
        self.push_back(Segment::Own(Own::from_vec(bytes)));
    }

    fn push_back(&mut self, segment: Segment) {
        let was_empty = matches!(self.head, Segment::Empty);
        self.len += segment.len();
        if was_empty {
            self.head = segment;
        } else {
            let rest = self.rest_mut();
            rest.files += usize::from(segment.is_file());
            rest.more.push_back(segment);
        }
    }

    /// Puts a segment that is not empty before all others. Length and ends were checked.
    pub(crate) fn push_segment_front(&mut self, segment: Segment) {
        debug_assert!(segment.len() > 0);
        self.len += segment.len();
        let second = mem::replace(&mut self.head, segment);
        if !matches!(second, Segment::Empty) {
            let rest = self.rest_mut();
            rest.files += usize::from(second.is_file());
            rest.more.push_front(second);
        }
    }

    /// Copies `data` into the room of the last segment, which has that much.
    pub(crate) fn push_to_tail(&mut self, data: &[u8]) {
        self.len += data.len();
        match &mut self.rest {
            Some(rest) if !rest.more.is_empty() => {
                if let Some(tail) = rest.more.back_mut() {
                    tail.push(data);
                }
            }
            _ => self.head.push(data),
        }
    }

    /// The last segment: the head if there is no other.
    pub(crate) fn tail(&self) -> &Segment {
        self.rest
            .as_ref()
            .and_then(|rest| rest.more.back())
            .unwrap_or(&self.head)
    }

    /// The last segment; its length must not be changed through this.
    pub(crate) fn tail_mut(&mut self) -> &mut Segment {
        match &mut self.rest {
            Some(rest) if !rest.more.is_empty() => {
                let last = rest.more.len() - 1;
                &mut rest.more[last]
            }
            _ => &mut self.head,
        }
    }

    pub(crate) fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// The segment at `index`, the head being number 0.
    #[inline]
    pub(crate) fn segment(&self, index: usize) -> Option<&Segment> {
        match index {
            0 => (!self.is_empty()).then_some(&self.head),
            _ => self.rest.as_ref()?.more.get(index - 1),
        }
    }

    pub(crate) fn segment_count(&self) -> usize {
        usize::from(!self.is_empty()) + self.rest.as_ref().map_or(0, |rest| rest.more.len())
    }

    /// Makes sure that `n` further segments find a place without an allocation that could fail.
    pub(crate) fn expect_segments(&mut self, n: usize, during: &'static str) -> Result<(), Error> {
        let more = n - usize::from(self.is_empty() && n > 0);
        if more == 0 {
            return Ok(());
        }
        let expected = self.rest_mut().more.try_reserve(more);
        if expected.is_err() && self.is_empty() {
            self.rest_after_emptying();
        }
        expected.map_err(Error::out_of_memory(during))
    }

    /// Storage for a new last segment of at least `len` bytes, with room to grow.
    pub(crate) fn new_storage(
        &mut self,
        len: usize,
        during: &'static str,
    ) -> Result<Vec<u8>, Error> {
        if let Some(rest) = &mut self.rest
            && rest.prepared.capacity() >= len
        {
            let mut prepared = mem::take(&mut rest.prepared);
            prepared.clear();
            return Ok(prepared);
        }
        let grown = match self.tail() {
            Segment::Empty => FIRST_CAPACITY,
            Segment::Own(own) => (own.capacity() * 2).clamp(NEXT_CAPACITY, GROWN_CAPACITY),
            Segment::Block(_) | Segment::Shared(_) | Segment::File(_) => NEXT_CAPACITY,
        };
        storage(len.max(grown), during)
    }

    /// Refuses what would make the buffer longer than [`MAX_LEN`].
    #[inline]
    pub(crate) fn check_fits(&self, n: usize, during: &'static str) -> Result<(), Error> {
        if n > MAX_LEN - self.len() {
            return Err(Error::new(ErrorKind::TooLong, during));
        }
        Ok(())
    }

    /// Refuses what a frozen end forbids.
    #[inline]
    pub(crate) fn check_open(&self, end: End, during: &'static str) -> Result<(), Error> {
        match &self.rest {
            Some(rest) if rest.extras.is_some() && self.is_frozen(end) => {
                Err(Error::new(ErrorKind::Frozen, during))
            }
            _ => Ok(()),
        }
    }
}
