//! A tally of what waits between two sides: what one has added, less what the other has taken off.
//!
//! # Invariants
//! - Who adds has a lock, and writes one place; who takes off writes the other, and needs none. So neither waits for the other to count.
//! - What is taken off was added before: whoever sees that it was taken off sees that it was added, so the difference is never below nothing.

use evreactor_core::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Tally {
    added: AtomicUsize,
    taken_off: AtomicUsize,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            added: AtomicUsize::new(0),
            taken_off: AtomicUsize::new(0),
        }
    }

    /// Adds. Callers have the lock that orders them.
    pub(crate) fn add(&self, count: usize) {
        let added = self.added.load(Ordering::Relaxed).wrapping_add(count);
        self.added.store(added, Ordering::Relaxed);
    }

    /// Takes off what was added, and seen under the lock.
    pub(crate) fn take_off(&self, count: usize) {
        self.taken_off.fetch_add(count, Ordering::Release);
    }

    /// What waits.
    pub(crate) fn waiting(&self) -> usize {
        let taken_off = self.taken_off.load(Ordering::Acquire);
        // Both may wrap; their difference does not.
        self.added.load(Ordering::Relaxed).wrapping_sub(taken_off)
    }
}
