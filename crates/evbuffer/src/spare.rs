//! Small storage that is used again: what short messages come and go in.
//!
//! A connection that echoes short messages wants small storage and lets go of it once per message. Each thread keeps a few pieces of
//! one size for the next message, whichever connection that comes from, so the allocator is not asked.
//!
//! # Invariants
//! - A thread keeps at most [`MAX_SPARES`] pieces; what is given back beyond that is freed.
//! - A piece is given back to the thread that drops it, and is empty then: no byte of one user is seen by the next.

use std::cell::RefCell;

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

/// Keeps `bytes` for the next taker of this thread, or frees them.
#[inline]
pub(crate) fn give(mut bytes: Vec<u8>) {
    bytes.clear();
    // Freed by the closure's drop where it cannot be kept.
    let _ = SPARES.try_with(move |spares| {
        let mut spares = spares.borrow_mut();
        let kept = spares.len();
        if kept < MAX_SPARES && (kept < spares.capacity() || spares.try_reserve(1).is_ok()) {
            spares.push(bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_used_again_and_starts_empty() {
        let mut bytes = take("test").unwrap();
        bytes.extend_from_slice(b"secret");
        let place = bytes.as_ptr();
        give(bytes);
        let again = take("test").unwrap();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn a_thread_keeps_few() {
        let taken: Vec<_> = (0..2 * MAX_SPARES).map(|_| take("test").unwrap()).collect();
        taken.into_iter().for_each(give);
        assert_eq!(SPARES.with(|spares| spares.borrow().len()), MAX_SPARES);
    }
}
