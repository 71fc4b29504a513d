//! What a loop counts.
//!
//! # Invariants
//! - Counters only grow. Those that only the loop's thread changes are plain stores, not atomic additions.

use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a loop did since it was built.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the loop.
    pub turns: u64,
    /// Waits of the backend, those that only looked among them.
    pub polls: u64,
    /// Events handed to targets.
    pub events: u64,
    /// Timers fired.
    pub timers: u64,
    /// Calls of the deferred queue.
    pub deferred: u64,
    /// Calls of the queue that runs at the start of a turn.
    pub tasks: u64,
    /// Panics of user code, caught.
    pub panics: u64,
    /// Times that a thread woke the waiting loop.
    pub wakes: u64,
}

impl Sum for Stats {
    /// What several loops did together.
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |sum, one| Self {
            turns: sum.turns + one.turns,
            polls: sum.polls + one.polls,
            events: sum.events + one.events,
            timers: sum.timers + one.timers,
            deferred: sum.deferred + one.deferred,
            tasks: sum.tasks + one.tasks,
            panics: sum.panics + one.panics,
            wakes: sum.wakes + one.wakes,
        })
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) turns: Counter,
    pub(crate) polls: Counter,
    pub(crate) events: Counter,
    pub(crate) timers: Counter,
    pub(crate) deferred: Counter,
    pub(crate) tasks: Counter,
    pub(crate) panics: Counter,
    pub(crate) wakes: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        Stats {
            turns: self.turns.read(),
            polls: self.polls.read(),
            events: self.events.read(),
            timers: self.timers.read(),
            deferred: self.deferred.read(),
            tasks: self.tasks.read(),
            panics: self.panics.read(),
            wakes: self.wakes.read(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one, from any thread.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds one, on the loop's thread, to a counter that only that thread changes.
    #[inline]
    pub(crate) fn bump(&self) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
