//! A hierarchical timing wheel: arm, move and cancel in constant time, whatever the number of timers.
//!
//! The wheel reads no clock and calls nobody: moments come in as arguments, payloads go out of [`TimerWheel::pop`]. A real
//! loop and a virtual one share it.
//!
//! # How it works
//! Level 0 has 64 slots of one tick (a millisecond), each further level has 64 slots that are as long as the whole
//! level below it. A timer sits in the level of the highest bit in which its tick differs from the wheel's, so all slots that are
//! in use lie ahead of the wheel's position, and the first slot in use of the lowest level in use is the next one
//! to open. Opening a slot either makes its timers due or moves them to lower levels. The few beyond six levels (2.2
//! years) wait in a list of their own.
//!
//! 1. *Plain version:* re-arming takes the timer out of its slot and puts it into another.
//! 2. *Departure:* a timer that is moved to later stays where it is, only its deadline changes. Its slot opens too early, finds
//!    out, and places it anew. The usual fate of a time-out is to be moved again and again, and
//!    this makes it one store. The price is at most one wake-up per moved timer that fires nothing.
//!
//! # Invariants
//! - Never early: a timer becomes due only at a moment that is not before its deadline.
//! - Each arming fires at most once, also when the clock jumped over many turns of the wheel.
//! - Timers that become due in one [`collect`](TimerWheel::collect) come out by deadline, then by order of arming.
//! - A key is never used twice: a slab entry whose generation is used up is left unused for good.
//! - Every armed entry is in exactly one list, and `occupied` has a bit for exactly the slots whose list is not empty.
//!
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", scheme 7.

use crate::{Moment, TimerKey};

/// Length of a tick in nanoseconds: what libevent and the waits of most systems can tell apart.
const TICK_NS: u64 = 1_000_000;
/// log2 of the slots per level; 64 slots have their occupancy in one word.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Six levels of 64 slots span 2^36 milliseconds, 2.2 years.
const LEVELS: usize = 6;
const SPAN_BITS: u32 = SLOT_BITS * LEVELS as u32;

/// Ends a list.
const NONE: u32 = u32::MAX;
/// The list of those that fire now, in order.
const DUE: usize = LEVELS * SLOTS;
/// The list of those that were due when they were armed: they fire in the next pass, so that a pass ends.
const OVERDUE: usize = DUE + 1;
/// The list of those beyond the last level.
const BEYOND: usize = DUE + 2;
const LISTS: usize = DUE + 3;
/// The "list" of an entry that is not armed.
const UNARMED: u16 = u16::MAX;

/// Room for due timers that is kept from one pass to the next, in entries (24 bytes each).
const KEPT_ENTRIES: usize = 1024;

/// Timers by deadline, each with a payload.
///
/// ```
/// use std::time::Duration;
/// use evreactor_core::{Moment, TimerWheel};
///
/// let start = Moment::ZERO;
/// let mut wheel = TimerWheel::new();
/// let idle = wheel.arm(start, start + Duration::from_secs(30), "idle");
/// wheel.arm(start, start + Duration::from_secs(40), "give up");
///
/// wheel.rearm(idle, start, start + Duration::from_secs(50)); // something arrived
/// wheel.collect(start + Duration::from_secs(45));
/// assert_eq!(wheel.pop(), Some("give up"));
/// assert_eq!(wheel.pop(), None);
/// assert_eq!(wheel.disarm(idle), Some("idle"));
/// ```
#[derive(Debug)]
pub struct TimerWheel<T> {
    entries: Vec<Entry>,
    /// The payload of each entry. Apart, so that moving a timer touches one cache line of its own and none of a payload.
    payloads: Vec<Option<T>>,
    /// First unused entry.
    free: u32,
    armed: usize,
    /// The tick up to which slots were opened.
    elapsed: u64,
    /// Counts armings, to order timers of one deadline.
    armings: u64,
    /// First entry of each list.
    heads: [u32; LISTS],
    /// Per level, one bit per slot that holds a timer.
    occupied: [u64; LEVELS],
    /// Scratch room for one pass: deadline, arming, entry.
    passing: Vec<(u64, u64, u32)>,
}

/// 32 bytes: two to a cache line, none across two.
#[derive(Debug)]
#[repr(align(32))]
struct Entry {
    /// Deadline in nanoseconds.
    at: u64,
    arming: u64,
    /// Also the next unused entry.
    next: u32,
    previous: u32,
    generation: u32,
    list: u16,
}

impl<T> Default for TimerWheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TimerWheel<T> {
    /// An empty wheel at [`Moment::ZERO`]. It allocates with its first timer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            payloads: Vec::new(),
            free: NONE,
            armed: 0,
            elapsed: 0,
            armings: 0,
            heads: [NONE; LISTS],
            occupied: [0; LEVELS],
            passing: Vec::new(),
        }
    }

    /// How many timers are armed, those that are due but not yet popped among them.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Sets a timer that is due at `at`.
    ///
    /// One whose deadline is not after `now` is due in the next pass without waiting for a tick to end; any earlier
    /// `now` only costs up to a tick of delay.
    ///
    /// # Panics
    /// With 2^32 - 1 timers armed.
    #[doc(alias = "evtimer_add")]
    pub fn arm(&mut self, now: Moment, at: Moment, payload: T) -> TimerKey {
        let index = self.unused_entry();
        self.armings += 1;
        self.armed += 1;
        let entry = &mut self.entries[index as usize];
        entry.at = at.as_nanos();
        entry.arming = self.armings;
        let key = TimerKey::from_bits(u64::from(entry.generation) << 32 | u64::from(index));
        self.payloads[index as usize] = Some(payload);
        self.link(index, self.list_of(now, at));
        key
    }

    /// Moves a timer that has not been popped to `at`; it counts as armed now. Returns whether there was one.
    pub fn rearm(&mut self, key: TimerKey, now: Moment, at: Moment) -> bool {
        let Some(index) = self.find(key) else {
            return false;
        };
        self.armings += 1;
        let arming = self.armings;
        let list = usize::from(self.entries[index as usize].list);
        let entry = &mut self.entries[index as usize];
        entry.at = at.as_nanos();
        entry.arming = arming;
        let stays = list != DUE
            && list != OVERDUE
            && opens_at(self.elapsed, list) <= tick_of(at.as_nanos());
        if !stays {
            self.unlink(index);
            self.link(index, self.list_of(now, at));
        }
        true
    }

    /// Cancels a timer that has not been popped, and hands its payload back.
    #[doc(alias = "evtimer_del")]
    pub fn disarm(&mut self, key: TimerKey) -> Option<T> {
        let index = self.find(key)?;
        self.unlink(index);
        self.release(index)
    }

    /// When to look again: no timer becomes due before this moment, and one may at it. `None` without timers.
    ///
    /// It is a lower bound, as far timers are only known by the slot that they are in.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        if self.heads[DUE] != NONE || self.heads[OVERDUE] != NONE {
            return Some(Moment::ZERO);
        }
        let (_, tick) = self.next_slot()?;
        Some(Moment::from_nanos(tick.saturating_mul(TICK_NS)))
    }

    /// Makes due what is due at `now`, for [`pop`](Self::pop) to hand out; what an earlier pass left is sorted in.
    pub fn collect(&mut self, now: Moment) {
        for list in [OVERDUE, DUE] {
            self.open(list, u64::MAX);
        }
        let target = now.as_nanos() / TICK_NS;
        while let Some((list, tick)) = self.next_slot()
            && tick <= target
        {
            self.elapsed = tick;
            self.open(list, tick);
        }
        // No slot in use opens at or before `target`, so none is passed by.
        self.elapsed = self.elapsed.max(target);

        let mut passing = std::mem::take(&mut self.passing);
        passing.sort_unstable();
        for &(_, _, index) in passing.iter().rev() {
            self.link(index, DUE);
        }
        passing.clear();
        passing.shrink_to(KEPT_ENTRIES);
        self.passing = passing;
    }

    /// Takes out the first of the timers that [`collect`](Self::collect) made due. Its key is void from here on.
    pub fn pop(&mut self) -> Option<T> {
        let index = self.heads[DUE];
        if index == NONE {
            return None;
        }
        self.unlink(index);
        self.release(index)
    }

    /// The slot that opens next, and the tick at which it does.
    fn next_slot(&self) -> Option<(usize, u64)> {
        let list = match self.occupied.iter().position(|slots| *slots != 0) {
            Some(level) => level * SLOTS + self.occupied[level].trailing_zeros() as usize,
            None if self.heads[BEYOND] != NONE => BEYOND,
            None => return None,
        };
        Some((list, opens_at(self.elapsed, list)))
    }

    /// Empties a list: what has its tick at or before `tick` will be due, the rest is placed anew.
    fn open(&mut self, list: usize, tick: u64) {
        let mut index = std::mem::replace(&mut self.heads[list], NONE);
        if list < DUE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
        while index != NONE {
            let entry = &self.entries[index as usize];
            let (next, at) = (entry.next, entry.at);
            if tick_of(at) <= tick {
                self.passing.push((at, entry.arming, index));
            } else {
                self.link(index, self.list_of(Moment::ZERO, Moment::from_nanos(at)));
            }
            index = next;
        }
    }

    /// Where a timer that is due at `at` belongs.
    fn list_of(&self, now: Moment, at: Moment) -> usize {
        let tick = tick_of(at.as_nanos());
        if at <= now || tick <= self.elapsed {
            return OVERDUE;
        }
        let level = (tick ^ self.elapsed).ilog2() / SLOT_BITS;
        if level as usize >= LEVELS {
            return BEYOND;
        }
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        level as usize * SLOTS + slot
    }

    fn link(&mut self, index: u32, list: usize) {
        let next = std::mem::replace(&mut self.heads[list], index);
        let entry = &mut self.entries[index as usize];
        entry.previous = NONE;
        entry.next = next;
        entry.list = list as u16;
        if next != NONE {
            self.entries[next as usize].previous = index;
        } else if list < DUE {
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        }
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (previous, next, list) = (entry.previous, entry.next, usize::from(entry.list));
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[list] = next;
            if next == NONE && list < DUE {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
    }

    fn find(&self, key: TimerKey) -> Option<u32> {
        let index = key.bits() as u32;
        let entry = self.entries.get(index as usize)?;
        let current = u64::from(entry.generation) == key.bits() >> 32 && entry.list != UNARMED;
        current.then_some(index)
    }

    fn unused_entry(&mut self) -> u32 {
        if self.free != NONE {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            return index;
        }
        let index = self.entries.len() as u32;
        assert!(index != NONE, "2^32 - 1 timers are armed");
        self.entries.push(Entry {
            at: 0,
            arming: 0,
            next: NONE,
            previous: NONE,
            generation: 0,
            list: UNARMED,
        });
        self.payloads.push(None);
        index
    }

    /// Ends the life of an entry that is in no list any more.
    fn release(&mut self, index: u32) -> Option<T> {
        self.armed -= 1;
        let free = self.free;
        let entry = &mut self.entries[index as usize];
        entry.list = UNARMED;
        if entry.generation < u32::MAX {
            entry.generation += 1;
            entry.next = free;
            self.free = index;
        }
        self.payloads[index as usize].take()
    }
}

/// The first tick that does not begin before the deadline.
const fn tick_of(at_ns: u64) -> u64 {
    at_ns.div_ceil(TICK_NS)
}

/// The tick at which a list of a wheel at `elapsed` opens; such a list is never in the past.
const fn opens_at(elapsed: u64, list: usize) -> u64 {
    if list >= DUE {
        return ((elapsed >> SPAN_BITS) + 1) << SPAN_BITS;
    }
    let shift = (list / SLOTS) as u32 * SLOT_BITS;
    let slot = (list % SLOTS) as u64;
    (elapsed >> (shift + SLOT_BITS) << (shift + SLOT_BITS)) | slot << shift
}

#[cfg(test)]
mod tests;
