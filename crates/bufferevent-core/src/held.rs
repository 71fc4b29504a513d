//! What this thread holds: domains whose lock it keeps while code of others runs.
//!
//! # The order of locks
//! 1. A thread that holds a domain's lock never waits for the lock of another. It tries; if that one is busy, what needs no answer is
//!    posted (`inbox.rs`), and what needs one answers [`Kind::Busy`](crate::Kind::Busy).
//! 2. One call takes two: [`Bev::lock_both`](crate::Bev::lock_both), the one at the lower address first. It waits for the first only while
//!    nothing is held, and for the second only while holding the first.
//! 3. The locks of an inbox and of a loop's tables are leaves: nothing is taken under them.
//!
//! By 1 and 2 whoever waits while holding waits for a higher address, so there is no circle of threads that wait.
//!
//! # Invariants
//! - A lock that is kept while code of others runs is counted here, or belongs to the thread's pump.
//! - Debug builds check the order, and a violation names both places. They refuse a second lock by hand even where it would
//!   be free: whether it is depends on the moment.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::Location;

use evreactor_core::sync;

use crate::pump;

sync::thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
    /// The pump has let go of its domain: the code that it calls runs unlocked.
    static LET_GO: Cell<bool> = const { Cell::new(false) };
    /// Where each was taken, in debug builds.
    static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// Who keeps a lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    /// The user, by a guard.
    Hand,
    /// This crate, around a call of a layer.
    Call,
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Place {
    /// The address of the domain.
    domain: usize,
    holder: Holder,
    location: &'static Location<'static>,
}

/// Whether this thread holds any domain's lock.
pub(crate) fn anything() -> bool {
    by_count() || (pump::is_active() && !LET_GO.with(Cell::get))
}

/// Whether this thread holds a domain's lock outside of its pump.
pub(crate) fn by_count() -> bool {
    COUNT.with(Cell::get) > 0
}

/// A lock that is kept. Not `Send`: it is this thread's.
pub(crate) struct Held {
    place: Place,
    here: PhantomData<*const ()>,
}

impl Held {
    #[track_caller]
    pub(crate) fn new(domain: usize, holder: Holder) -> Self {
        let place = Place {
            domain,
            holder,
            location: Location::caller(),
        };
        COUNT.with(|count| count.set(count.get() + 1));
        if cfg!(debug_assertions) {
            PLACES.with(|places| places.borrow_mut().push(place));
        }
        Self {
            place,
            here: PhantomData,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of a thread its count is gone, and nobody asks for it.
        let _ = COUNT.try_with(|count| count.set(count.get() - 1));
        if cfg!(debug_assertions) {
            let _ = PLACES.try_with(|places| {
                let mut places = places.borrow_mut();
                if let Some(at) = places.iter().rposition(|place| *place == self.place) {
                    places.remove(at);
                }
            });
        }
    }
}

/// Lasts while the pump calls code with its domain let go.
pub(crate) struct LetGo(bool);

impl LetGo {
    pub(crate) fn begin() -> Self {
        Self(LET_GO.with(|let_go| let_go.replace(true)))
    }
}

impl Drop for LetGo {
    fn drop(&mut self) {
        LET_GO.with(|let_go| let_go.set(self.0));
    }
}

/// Debug builds: this thread is about to lock `domain` by hand.
///
/// # Panics
/// If it holds another by hand.
#[inline]
#[track_caller]
pub(crate) fn check_by_hand(domain: usize) {
    if cfg!(debug_assertions)
        && let Some(held) = other_than(domain, |holder| holder == Holder::Hand)
    {
        panic!(
            "a second bufferevent was locked by hand at {} while the lock of another, taken at {held}, is held: take both by `lock_both`",
            Location::caller()
        );
    }
}

/// Debug builds: this thread is about to wait for `domain`.
///
/// # Panics
/// If it holds another: who waits for that one may be whom this one waits for.
#[inline]
#[track_caller]
pub(crate) fn check_wait(domain: usize) {
    if cfg!(debug_assertions)
        && let Some(held) = other_than(domain, |_| true)
    {
        panic!(
            "a loop runs at {} and waits for a bufferevent while the lock of another, taken at {held}, is held",
            Location::caller()
        );
    }
}

/// Where another domain's lock was taken that this thread holds.
fn other_than(
    domain: usize,
    counts: impl Fn(Holder) -> bool,
) -> Option<&'static Location<'static>> {
    PLACES.with(|places| {
        let places = places.borrow();
        let mut others = places.iter().filter(|place| place.domain != domain);
        others
            .find(|place| counts(place.holder))
            .map(|place| place.location)
    })
}
