//! The agenda: which of a loop's tables hold anything, in one word, so that a turn that finds nothing takes no lock.
//!
//! # Protocol
//! Each [`Item`] stands for one table. Who puts something into the table, or takes the last thing out, [notes](Agenda::note) that with the
//! table's lock still held.
//!
//! # Invariants
//! - While the lock of a table is free, its bit says whether the table holds anything.
//! - Who looks without the lock sees at least what happened before a ring of the doorbell that it hears, and before the loop lay
//!   down: the orderings are `SeqCst`, as the doorbell's are.

use evreactor_core::sync::atomic::{AtomicU8, Ordering};

/// A table that may hold something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Item {
    /// Calls for the start of a turn.
    Turn = 1,
    /// Deferred calls.
    Deferred = 1 << 1,
    Timers = 1 << 2,
    Sources = 1 << 3,
}

#[derive(Debug)]
pub(crate) struct Agenda(AtomicU8);

impl Agenda {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Whether a table holds something, or did a moment ago.
    #[inline]
    pub(crate) fn has(&self, item: Item) -> bool {
        self.0.load(Ordering::SeqCst) & item as u8 != 0
    }

    /// Whether any table does.
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// Notes whether a table holds something. The caller has its lock.
    #[inline]
    pub(crate) fn note(&self, item: Item, holds: bool) {
        // Nobody else changes this bit meanwhile.
        if self.has(item) == holds {
            return;
        }
        if holds {
            self.0.fetch_or(item as u8, Ordering::SeqCst);
        } else {
            self.0.fetch_and(!(item as u8), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Agenda, Item};

    #[test]
    fn each_item_is_noted_by_itself() {
        let agenda = Agenda::new();
        assert!(!agenda.has_any());
        agenda.note(Item::Timers, true);
        agenda.note(Item::Turn, true);
        agenda.note(Item::Timers, true);
        assert!(agenda.has(Item::Timers) && agenda.has(Item::Turn));
        assert!(!agenda.has(Item::Deferred) && !agenda.has(Item::Sources));
        agenda.note(Item::Timers, false);
        assert!(!agenda.has(Item::Timers) && agenda.has_any());
        agenda.note(Item::Turn, false);
        assert!(!agenda.has_any());
    }
}
