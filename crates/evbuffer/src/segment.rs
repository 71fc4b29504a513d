//! Segments: the pieces a buffer is a queue of.
//!
//! Four kinds of storage, one set of verbs. Two kinds are *own*: nobody else can see them, so they
//! can be written behind and before their bytes. Two are *foreign*: shared bytes, which are
//! read-only for ever, and file regions, which are not in memory at all.
//!
//! # Invariants
//! - `start <= end <= bytes.len()` for own storage. Bytes of a vector behind `end` are initialised
//!   room that was handed to a writer once; the capacity behind them is room that was not.
//! - A segment in a queue is never empty; [`Segment::Empty`] is only the head of an empty buffer.
//! - Forty bytes: with its length and the pointer to the rest of the queue a buffer has 56.
//!
//! # Why `Bytes` is inline and not boxed
//! A reference costs its owner's allocation already; a second one would double the price of
//! appending and draining it.

use bytes::Bytes;

use crate::error::Error;
use crate::file::FileRegion;
use crate::pool::{BLOCK_LEN, Block, storage, zeroed};
use crate::spare::{self, SPARE_CAPACITY};

/// The most bytes that a split copies: up to here a copy is cheaper than making storage shared.
pub(crate) const SPLIT_COPY_MAX: usize = 2 * 1024;

#[derive(Debug, Default)]
pub(crate) enum Segment {
    #[default]
    Empty,
    Own(Own),
    Block(Piece),
    Shared(Bytes),
    File(FileRegion),
}

const _: () = assert!(size_of::<Segment>() <= 40 || usize::BITS != 64);

/// Small storage from the heap, with room to grow into.
#[derive(Debug)]
pub(crate) struct Own {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// The used part of a pooled block.
#[derive(Debug)]
pub(crate) struct Piece {
    block: Block,
    start: u32,
    end: u32,
}

const _: () = assert!(BLOCK_LEN <= u32::MAX as usize);

impl Own {
    /// All bytes of `bytes`; the spare capacity is room.
    pub(crate) fn from_vec(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self {
            bytes,
            start: 0,
            end,
        }
    }

    /// The first `end` bytes of `bytes`; all else is room.
    pub(crate) fn filled(bytes: Vec<u8>, end: usize) -> Self {
        debug_assert!(end <= bytes.len());
        Self {
            bytes,
            start: 0,
            end,
        }
    }

    /// A copy of `data` at the end of `capacity` bytes of storage, so that more can go before it.
    pub(crate) fn before(
        data: &[u8],
        capacity: usize,
        during: &'static str,
    ) -> Result<Self, Error> {
        let mut bytes = zeroed(capacity.max(data.len()), during)?;
        let (start, end) = (bytes.len() - data.len(), bytes.len());
        bytes[start..].copy_from_slice(data);
        Ok(Self { bytes, start, end })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// How many bytes fit behind the last without new storage.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity() - self.end
    }

    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    #[inline]
    pub(crate) fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n;
    }

    /// Appends what [`room`](Self::room) has room for.
    #[inline]
    pub(crate) fn push(&mut self, data: &[u8]) {
        debug_assert!(data.len() <= self.room());
        if self.bytes.len() == self.end {
            self.bytes.extend_from_slice(data);
            self.end += data.len();
        } else {
            self.push_over(data);
        }
    }

    /// As [`push`](Self::push), over room that a writer was given and did not use.
    #[inline(never)]
    fn push_over(&mut self, data: &[u8]) {
        let end = self.end + data.len();
        match self.bytes.get_mut(self.end..end) {
            Some(room) => room.copy_from_slice(data),
            None => {
                self.bytes.truncate(self.end);
                self.bytes.extend_from_slice(data);
            }
        }
        self.end = end;
    }

    /// The bytes as a vector of their own, without a copy when they begin the storage.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(self.end);
        if self.start > 0 {
            bytes.drain(..self.start);
        }
        bytes
    }
}

impl Own {
    /// Gives the storage to the next small segment, if it is of that size and is wanted. Then this segment has none, and is not to
    /// be looked at any more.
    #[inline]
    pub(crate) fn give_storage(&mut self) -> bool {
        self.bytes.capacity() == SPARE_CAPACITY && spare::give(&mut self.bytes)
    }
}

impl Drop for Own {
    #[inline]
    fn drop(&mut self) {
        self.give_storage();
    }
}

impl std::ops::Deref for Own {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl Piece {
    pub(crate) fn new(block: Block, len: usize) -> Self {
        debug_assert!(len <= block.len());
        Self {
            block,
            start: 0,
            end: len as u32,
        }
    }
}

impl AsRef<[u8]> for Piece {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.block[self.start as usize..self.end as usize]
    }
}

impl Segment {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Own(own) => own.len(),
            Self::Block(piece) => (piece.end - piece.start) as usize,
            Self::Shared(bytes) => bytes.len(),
            Self::File(region) => region.len(),
        }
    }

    /// The bytes in memory: none of a file region's.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(own) => own,
            Self::Empty | Self::Block(_) | Self::Shared(_) | Self::File(_) => self.bytes_not_own(),
        }
    }

    /// Apart, so that the usual kind costs a comparison and not a jump table.
    fn bytes_not_own(&self) -> &[u8] {
        match self {
            Self::Block(piece) => piece.as_ref(),
            Self::Shared(bytes) => bytes,
            Self::Empty | Self::Own(_) | Self::File(_) => &[],
        }
    }

    #[inline]
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Whether dropping it may run code of somebody else, or close a file.
    #[inline]
    pub(crate) fn is_foreign(&self) -> bool {
        match self {
            Self::Shared(_) | Self::File(_) => true,
            Self::Empty | Self::Own(_) | Self::Block(_) => false,
        }
    }

    /// Copies the bytes from `skip` on; `skip + dst.len()` is at most the length.
    pub(crate) fn copy_out(
        &self,
        skip: usize,
        dst: &mut [u8],
        during: &'static str,
    ) -> Result<(), Error> {
        match self {
            Self::File(region) => region.read_exact(skip, dst, during),
            Self::Empty | Self::Own(_) | Self::Block(_) | Self::Shared(_) => {
                dst.copy_from_slice(&self.bytes()[skip..skip + dst.len()]);
                Ok(())
            }
        }
    }

    /// Drops the first `n` bytes; `n` is at most the length.
    #[inline]
    pub(crate) fn advance(&mut self, n: usize) {
        match self {
            Self::Empty => debug_assert_eq!(n, 0),
            Self::Own(own) => own.advance(n),
            Self::Block(piece) => {
                debug_assert!(n <= (piece.end - piece.start) as usize);
                piece.start += n as u32;
            }
            Self::Shared(bytes) => bytes::Buf::advance(bytes, n),
            Self::File(region) => region.advance(n),
        }
    }

    /// How many bytes can be written behind the last one.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Own(own) => own.room(),
            Self::Block(piece) => BLOCK_LEN - piece.end as usize,
            Self::Empty | Self::Shared(_) | Self::File(_) => 0,
        }
    }

    /// Appends what [`room`](Self::room) has room for.
    #[inline]
    pub(crate) fn push(&mut self, data: &[u8]) {
        match self {
            Self::Own(own) => own.push(data),
            Self::Block(piece) => {
                let (from, to) = (piece.end as usize, piece.end as usize + data.len());
                piece.block[from..to].copy_from_slice(data);
                piece.end = to as u32;
            }
            Self::Empty | Self::Shared(_) | Self::File(_) => debug_assert!(data.is_empty()),
        }
    }

    /// The room behind the last byte, initialised, at most `max` of it.
    pub(crate) fn room_mut(&mut self, max: usize) -> &mut [u8] {
        match self {
            Self::Own(own) => {
                let to = own.end + own.room().min(max);
                if own.bytes.len() < to {
                    own.bytes.resize(to, 0);
                }
                &mut own.bytes[own.end..to]
            }
            Self::Block(piece) => {
                let from = piece.end as usize;
                let to = from + (BLOCK_LEN - from).min(max);
                &mut piece.block[from..to]
            }
            Self::Empty | Self::Shared(_) | Self::File(_) => &mut [],
        }
    }

    /// Counts `n` bytes that were written to [`room_mut`](Self::room_mut).
    pub(crate) fn commit(&mut self, n: usize) {
        match self {
            Self::Own(own) => {
                debug_assert!(own.end + n <= own.bytes.len());
                own.end += n;
            }
            Self::Block(piece) => piece.end += n as u32,
            Self::Empty | Self::Shared(_) | Self::File(_) => debug_assert_eq!(n, 0),
        }
    }

    /// Writes `data` before the first byte if there is room for it.
    pub(crate) fn push_front(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Own(own) if own.start >= data.len() => {
                let start = own.start - data.len();
                own.bytes[start..own.start].copy_from_slice(data);
                own.start = start;
                true
            }
            Self::Block(piece) if piece.start as usize >= data.len() => {
                let start = piece.start as usize - data.len();
                piece.block[start..start + data.len()].copy_from_slice(data);
                piece.start = start as u32;
                true
            }
            Self::Empty | Self::Own(_) | Self::Block(_) | Self::Shared(_) | Self::File(_) => false,
        }
    }

    /// Makes the segment a shared one, without a copy; file regions are shared already.
    pub(crate) fn share(&mut self) {
        *self = match std::mem::take(self) {
            Self::Own(own) if own.start == 0 => Self::Shared(Bytes::from(own.into_vec())),
            Self::Own(mut own) => {
                let mut bytes = std::mem::take(&mut own.bytes);
                bytes.truncate(own.end);
                let mut bytes = Bytes::from(bytes);
                bytes::Buf::advance(&mut bytes, own.start);
                Self::Shared(bytes)
            }
            Self::Block(piece) => Self::Shared(Bytes::from_owner(piece)),
            other @ (Self::Empty | Self::Shared(_) | Self::File(_)) => other,
        };
    }

    /// A second reference to a segment that [`share`](Self::share) has made shared.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Shared(bytes) => Self::Shared(bytes.clone()),
            Self::File(region) => Self::File(region.clone()),
            Self::Empty | Self::Own(_) | Self::Block(_) => {
                unreachable!("only shared segments are referred to again")
            }
        }
    }

    /// Cuts the first `n` bytes off; `0 < n < len`.
    ///
    /// Foreign storage is referred to twice. Of own storage the smaller part is copied if it has at
    /// most [`SPLIT_COPY_MAX`] bytes; else the storage becomes shared, and no byte is copied.
    pub(crate) fn split_to(&mut self, n: usize, during: &'static str) -> Result<Self, Error> {
        debug_assert!(0 < n && n < self.len());
        let behind = self.len() - n;
        match self {
            Self::Shared(bytes) => return Ok(Self::Shared(bytes.split_to(n))),
            Self::File(region) => return Ok(Self::File(region.split_to(n))),
            Self::Empty | Self::Own(_) | Self::Block(_) => {}
        }
        if n <= SPLIT_COPY_MAX {
            let front = copied(&self.bytes()[..n], during)?;
            self.advance(n);
            return Ok(front);
        }
        if behind <= SPLIT_COPY_MAX {
            let back = copied(&self.bytes()[n..], during)?;
            let mut front = std::mem::replace(self, back);
            front.truncate(n);
            return Ok(front);
        }
        self.share();
        match self {
            Self::Shared(bytes) => Ok(Self::Shared(bytes.split_to(n))),
            Self::Empty | Self::Own(_) | Self::Block(_) | Self::File(_) => {
                unreachable!("own storage was made shared")
            }
        }
    }

    /// Keeps the first `n` bytes of own storage.
    fn truncate(&mut self, n: usize) {
        match self {
            Self::Own(own) => own.end = own.start + n,
            Self::Block(piece) => piece.end = piece.start + n as u32,
            Self::Empty | Self::Shared(_) | Self::File(_) => {
                unreachable!("only own storage is cut behind")
            }
        }
    }

    /// Storage that is held for this segment, in bytes. Shared bytes count with what is seen of them.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Own(own) => own.capacity(),
            Self::Block(_) => BLOCK_LEN,
            Self::Shared(bytes) => bytes.len(),
            Self::Empty | Self::File(_) => 0,
        }
    }
}

/// A new segment with a copy of `data` and no room.
pub(crate) fn copied(data: &[u8], during: &'static str) -> Result<Segment, Error> {
    let mut bytes = storage(data.len(), during)?;
    bytes.extend_from_slice(data);
    Ok(Segment::Own(Own::from_vec(bytes)))
}
