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
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Empty storage of [`SPARE_CAPACITY`] bytes, or the error that there is no memory for it.
#[inline]
pub(crate) fn take(during: &'static str) -> Result<Vec<u8>, Error> {
    // At the end of a thread its spares are gone already.
    match SPARES.try_with(|spares| spares.borrow_mut().pop()) {
        Ok(Some(spare)) => Ok(spare),
        Ok(None) | Err(_) => storage(SPARE_CAPACITY, during),
    }
}

/// Keeps `bytes` for the next taker of this thread, and leaves an empty vector; or leaves them where they are and answers `false`.
#[inline]
pub(crate) fn give(bytes: &mut Vec<u8>) -> bool {
    let kept = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        let count = spares.len();
        let keeps =
            count < MAX_SPARES && (count < spares.capacity() || spares.try_reserve(1).is_ok());
        if keeps {
            bytes.clear();
            spares.push(mem::take(bytes));
        }
        keeps
    });
    // At the end of a thread there is nobody to keep anything for.
    kept.unwrap_or(false)
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
        assert_eq!(SPARES.with(|spares| spares.borrow().len()), MAX_SPARES);
    }
}
