//! The primitives of a program: parking_lot's and std's.

pub use parking_lot::{Condvar, Mutex, MutexGuard, ReentrantMutex, ReentrantMutexGuard};
pub use std::sync::atomic;
pub use std::thread;
pub use std::thread_local;

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Identifies a thread for as long as the process lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct ThreadNumber(NonZeroU64);

/// The number of the calling thread.
#[inline]
#[must_use]
pub fn thread_number() -> ThreadNumber {
    NUMBER.with(|number| {
        let known = NonZeroU64::new(number.get());
        ThreadNumber(known.unwrap_or_else(|| {
            let next = NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed))
                .expect("2^64 threads were never started");
            number.set(next.get());
            next
        }))
    })
}
