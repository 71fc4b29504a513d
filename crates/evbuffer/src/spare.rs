//! Small storage that is used again: what short messages come and go in.
//!
//! A connection that echoes short messages wants small storage and lets go of it once per message. Each thread keeps a few pieces of
//! one size for the next message, whichever connection that comes from, so the allocator is not asked.
//!
//! # Invariants
//! - A thread keeps at most [`MAX_SPARES`] pieces; what is given back beyond that is freed.
//! - A piece is given back to the thread that drops it, and is empty then: no byte of one user is seen by the next.

use std::cell::RefCell;
use std::mem;

use crate::error::Error;
use crate::pool::storage;

/// Length of a piece in bytes: most messages fit.
pub(crate) const SPARE_CAPACITY: usize = 512;

/// Pieces that a thread keeps: 16 KiB.
const MAX_SPARES: usize = 32;

thread_local! {
    static SPARES: RefCell<Spares> = const { RefCell::new(Spares::new()) };
}

/// The pieces of one thread, in their places: no call of the allocator but for the pieces themselves.
struct Spares {
    pieces: [Vec<u8>; MAX_SPARES],
    /// Those in front are there, the others are empty.
    count: usize,
}

impl Spares {
    const fn new() -> Self {
        Self {
            pieces: [const { Vec::new() }; MAX_SPARES],
            count: 0,
        }
    }

    #[inline(always)]
    fn take(&mut self, place: &mut Vec<u8>) -> bool {
        let last = self.count.wrapping_sub(1);
        let Some(piece) = self.pieces.get_mut(last) else {
            return false;
        };
        mem::swap(place, piece);
        self.count = last;
        true
    }

    #[inline(always)]
    fn give(&mut self, bytes: &mut Vec<u8>) -> bool {
        let Some(place) = self.pieces.get_mut(self.count) else {
            return false;
        };
        bytes.clear();
        // The place is empty: nothing has to be dropped.
        mem::swap(place, bytes);
        self.count += 1;
        true
    }
}

/// Empty storage of [`SPARE_CAPACITY`] bytes, or the error that there is no memory for it.
#[inline(always)]
pub(crate) fn take(during: &'static str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    // At the end of a thread its spares are gone already.
    match SPARES.try_with(|spares| spares.borrow_mut().take(&mut bytes)) {
        Ok(true) => Ok(bytes),
        Ok(false) | Err(_) => storage(SPARE_CAPACITY, during),
    }
}

/// Keeps `bytes` for the next taker of this thread, and leaves an empty vector; or leaves them where they are and answers `false`.
#[inline(always)]
pub(crate) fn give(bytes: &mut Vec<u8>) -> bool {
    // At the end of a thread there is nobody to keep anything for.
    SPARES
        .try_with(|spares| spares.borrow_mut().give(bytes))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_used_again_and_starts_empty() {
        let mut bytes = take("test").unwrap();
        bytes.extend_from_slice(b"secret");
        let place = bytes.as_ptr();
        give(&mut bytes);
        let again = take("test").unwrap();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn a_thread_keeps_few() {
        let mut taken: Vec<_> = (0..2 * MAX_SPARES).map(|_| take("test").unwrap()).collect();
        let kept: Vec<_> = taken.iter_mut().map(give).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), MAX_SPARES);
        assert_eq!(SPARES.with(|spares| spares.borrow().count), MAX_SPARES);
    }
}
