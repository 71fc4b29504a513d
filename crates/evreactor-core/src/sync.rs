//! The one place the workspace's concurrent code takes its primitives from.
//!
//! Locks, atomics and thread identity of `evreactor` and `bufferevent-core` come from here (parking_lot's and
//! std's), so that a model checker can be put under the same code by changing this file alone.
//!
//! # Invariants
//! - [`thread_number`] is never reused within a process, unlike the system's thread ids: "same
//!   number" proves "same thread".
//! - Thread identity and the locks come from the same place, so that they can only be replaced together.

pub use parking_lot::{Condvar, Mutex, MutexGuard, ReentrantMutex, ReentrantMutexGuard};
pub use std::sync::{Arc, Weak, atomic};
pub use std::thread;

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
