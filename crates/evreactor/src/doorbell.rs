//! The doorbell: who posts to a loop learns whether the loop must be woken, and at most one poster per sleep is told so.
//!
//! # Protocol
//! The loop calls [`lie_down`](Doorbell::lie_down), *then* looks whether there is work, then waits, then calls
//! [`get_up`](Doorbell::get_up). A poster makes its work visible, *then* calls [`ring`](Doorbell::ring).
//!
//! # Invariants
//! - No lost wake-up: of "the loop looks" and "the poster rings", whichever comes second sees the first. The orderings are
//!   `SeqCst`, as each side writes one place and then reads the other's; only getting up needs none.
//! - A loop that is not asleep costs a poster one load and no system call.
//!
//! It is separate so that a model checker can run it alone.

use evreactor_core::sync::atomic::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const RUNG: u8 = 2;

#[derive(Debug)]
pub(crate) struct Doorbell(AtomicU8);

impl Doorbell {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// The loop is about to look for work a last time, and then to wait.
    pub(crate) fn lie_down(&self) {
        self.0.store(ASLEEP, Ordering::SeqCst);
    }

    /// The loop looks for work by itself again.
    pub(crate) fn get_up(&self) {
        // A poster that reads this reads it before the loop lies down the next time, and only then does the loop look.
        self.0.store(AWAKE, Ordering::Release);
    }

    /// Whether the caller has to wake the loop.
    #[must_use]
    pub(crate) fn ring(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ASLEEP
            && self
                .0
                .compare_exchange(ASLEEP, RUNG, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }
}

/// `cargo xtask loom` runs these.
#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc;

    use evreactor_core::sync::{Mutex, thread};

    use super::Doorbell;

    #[test]
    fn a_task_that_is_submitted_is_seen_or_the_loop_is_woken() {
        loom::model(|| {
            let shared = Arc::new((Doorbell::new(), Mutex::new(0_u32)));
            let posters: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        *shared.1.lock() += 1; // Made visible first,
                        shared.0.ring() // rung second.
                    })
                })
                .collect();
            shared.0.lie_down();
            let seen = *shared.1.lock();
            let rung = posters
                .into_iter()
                .map(|poster| usize::from(poster.join().expect("no panic")))
                .sum::<usize>();
            assert!(rung <= 1, "one wake-up per sleep");
            assert!(seen == 2 || rung == 1, "it sleeps on a task");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Doorbell;

    #[test]
    fn one_ring_per_sleep() {
        let bell = Doorbell::new();
        assert!(!bell.ring(), "awake");
        bell.lie_down();
        assert!(bell.ring());
        assert!(!bell.ring(), "rung already");
        bell.get_up();
        assert!(!bell.ring());
    }
}
