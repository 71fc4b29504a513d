//! The two halves of the contract between a loop and those who live on it.
//!
//! # Invariants
//! - [`Host`] may be called from any thread; [`Target`] is called on the host's thread only.
//! - The host holds no lock of its own while it calls a target, so a target may call any method
//!   of the host, also to cancel itself.
//! - A key is the target's own: the host hands it back and never looks at it.
//! - After a loop closed, [`Host::schedule`] and [`Host::arm`] answer [`LoopClosed`]; nothing is called any more.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::sync::ThreadNumber;
use crate::{Moment, Ready};

/// A running loop, as its inhabitants see it.
///
/// Source: what libevent's `bufferevent.c` uses of `event_base`.
pub trait Host: Send + Sync + 'static {
    /// The thread the loop runs on. Never changes.
    fn thread(&self) -> ThreadNumber;

    /// The time of the loop's current turn, the same for all who ask in it; between turns, the time now.
    #[doc(alias = "event_base_gettimeofday_cached")]
    fn now(&self) -> Moment;

    /// The time now by the loop's clock, whatever turn is going on: for what several loops share, from any of their threads.
    fn clock_now(&self) -> Moment {
        self.now()
    }

    /// Has the loop call [`Target::run`] with `key`, once, in the given phase.
    ///
    /// Calls of one phase and priority run in the order in which they were asked for. From another thread
    /// this wakes the loop.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone; the target is not called.
    fn schedule(&self, phase: Phase, target: Arc<dyn Target>, key: u64) -> Result<(), LoopClosed>;

    /// Has the loop call [`Target::expired`] with `key`, once, at `at` or soon after, never before.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone; no timer is set.
    fn arm(&self, at: Moment, target: Arc<dyn Target>, key: u64) -> Result<TimerKey, LoopClosed>;

    /// Moves a timer that has not fired. Returns whether there was one.
    fn rearm(&self, timer: TimerKey, at: Moment) -> bool;

    /// Cancels a timer that has not fired. Returns whether there was one.
    fn disarm(&self, timer: TimerKey) -> bool;

    /// Has the loop call [`Target::closed`], once, when it closes, on its thread, if `target` is still there then: for who keeps
    /// something for the loop that is neither scheduled, armed nor registered. This keeps neither the target nor a loop running.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone; the target is not called.
    fn tell_closed(&self, target: Weak<dyn Target>) -> Result<(), LoopClosed>;

    /// Tells the loop that user code panicked, was caught, and what was freed for it: the loop logs and counts it.
    fn caught_panic(&self, what: &'static str, payload: &(dyn Any + Send));
}

/// What can name a loop to those who are made on it: the loop itself, a handle to it, a test's virtual loop.
pub trait AsHost {
    /// The loop.
    fn as_host(&self) -> Arc<dyn Host>;
}

impl AsHost for Arc<dyn Host> {
    fn as_host(&self) -> Arc<dyn Host> {
        self.clone()
    }
}

impl<T: AsHost + ?Sized> AsHost for &T {
    fn as_host(&self) -> Arc<dyn Host> {
        (**self).as_host()
    }
}

/// What a loop calls.
pub trait Target: Send + Sync + 'static {
    /// What [`Host::schedule`] asked for.
    fn run(&self, key: u64);

    /// A timer of [`Host::arm`] has expired; its [`TimerKey`] is void from here on.
    fn expired(&self, key: u64);

    /// A source that was registered with the loop for this target may be able to move.
    fn ready(&self, key: u64, ready: Ready);

    /// The loop, with which a source is registered for this target, is closing: nothing will become ready any more. Called once per
    /// registration, and once for each [`Host::tell_closed`].
    fn closed(&self) {}
}

/// Those whom a loop tells that it closes.
///
/// # Invariants
/// - At most half of them, and [`CloseList::FEW`], are gone already: the list does not grow with what came and went.
#[derive(Default)]
pub struct CloseList {
    targets: Vec<Weak<dyn Target>>,
    /// At this length those that are gone are thrown out.
    look_at: usize,
}

impl CloseList {
    /// So many are not worth a look.
    pub const FEW: usize = 64;

    /// Another one to tell.
    pub fn add(&mut self, target: Weak<dyn Target>) {
        if self.targets.len() >= self.look_at.max(Self::FEW) {
            self.targets.retain(|target| target.strong_count() > 0);
            self.look_at = 2 * self.targets.len();
        }
        self.targets.push(target);
    }

    /// Those that are still there.
    #[must_use]
    pub fn take(&mut self) -> Vec<Arc<dyn Target>> {
        let targets = std::mem::take(&mut self.targets);
        targets.iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for CloseList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloseList")
            .field("len", &self.targets.len())
            .finish_non_exhaustive()
    }
}

/// When in a turn of the loop a scheduled call runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// At the start of the next turn, before the loop waits: for work that goes on.
    Turn,
    /// After the ordinary callbacks of the current turn, most urgent priority first; a bounded number per turn.
    ///
    /// Source: libevent's deferred callbacks (`event_deferred_cb_schedule_`).
    Deferred(Priority),
}

/// How urgent a callback is: 0 is the most urgent.
///
/// A loop has a number of priorities that is set when it is made; a larger value counts as its least urgent one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Priority(pub u8);

/// Names a timer until it fires or is cancelled. A stale key names nothing: it is never reused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct TimerKey(u64);

impl TimerKey {
    /// A key made of the host's own bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The host's own bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The loop is gone, so nothing can be scheduled on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoopClosed;

impl fmt::Display for LoopClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event loop is closed")
    }
}

impl Error for LoopClosed {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Target for Nobody {
        fn run(&self, _key: u64) {}
        fn expired(&self, _key: u64) {}
        fn ready(&self, _key: u64, _ready: Ready) {}
    }

    #[test]
    fn what_came_and_went_leaves_no_trace_in_a_close_list() {
        let mut list = CloseList::default();
        let stays: Vec<Arc<dyn Target>> = (0..10).map(|_| Arc::new(Nobody) as _).collect();
        for target in &stays {
            list.add(Arc::downgrade(target));
        }
        for _ in 0..10_000 {
            let goes: Arc<dyn Target> = Arc::new(Nobody);
            list.add(Arc::downgrade(&goes));
            assert!(list.targets.len() <= CloseList::FEW + 1);
        }
        assert_eq!(list.take().len(), 10);
    }
}
