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
use std::sync::Arc;

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

    /// Has the loop call [`Target::closed`], once, when it closes, on its thread: for who keeps something for the loop that is
    /// neither scheduled, armed nor registered. This keeps no loop running.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone; the target is not called.
    fn tell_closed(&self, target: Arc<dyn Target>) -> Result<(), LoopClosed>;

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
