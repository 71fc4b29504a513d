//! A loop without a system below it: it runs what is scheduled and fires timers on a virtual clock.
//!
//! # Invariants
//! - Nothing happens but inside [`Loop::turn`], [`Loop::run`] and [`Loop::advance`], on the thread that made the loop.
//! - Time stands still unless the test moves it, and passes every timer at its own moment, in order.
//! - The phases of a turn are those of the real loop: timers that are due, what was scheduled before the turn
//!   began, then the deferred queue.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use evreactor_core::sync::{Mutex, ThreadNumber, thread_number};
use evreactor_core::{
    AsHost, Clock, CloseList, Host, LoopClosed, Moment, Phase, Priority, Target, TimerKey,
    TimerWheel,
};

/// Deferred callbacks per turn, as in the real loop.
const DEFERRED_PER_TURN: usize = 128;

/// Turns that [`Loop::run`] makes before it says that something spins.
const TURNS: usize = 10_000_000;

type Job = (Arc<dyn Target>, u64);

#[derive(Default)]
struct State {
    now: Moment,
    jobs: VecDeque<Job>,
    deferred: VecDeque<(Priority, Job)>,
    timers: TimerWheel<Job>,
    panics: u64,
    closed: bool,
    closing: CloseList,
    turns: u64,
}

struct Inner {
    thread: ThreadNumber,
    state: Mutex<State>,
}

/// A loop on a virtual clock.
///
/// ```
/// use std::time::Duration;
/// use bufferevent_testkit::Loop;
/// let events = Loop::new();
/// events.advance(Duration::from_secs(600)); // ten minutes, at once
/// assert_eq!(events.now().as_nanos(), 600_000_000_000);
/// ```
pub struct Loop {
    inner: Arc<Inner>,
}

impl Loop {
    /// A loop at the start of its clock.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            thread: thread_number(),
            state: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.inner.state.lock().now
    }

    /// Panics in callbacks that were caught.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.inner.state.lock().panics
    }

    /// Turns made so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.inner.state.lock().turns
    }

    /// Whether anything waits to be run now.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.inner.state.lock();
        state.jobs.is_empty() && state.deferred.is_empty()
    }

    /// One turn. Returns whether anything ran.
    pub fn turn(&self) -> bool {
        let inner = &self.inner;
        inner.state.lock().turns += 1;
        let mut ran = false;
        {
            let mut state = inner.state.lock();
            let now = state.now;
            state.timers.collect(now);
        }
        loop {
            let next = inner.state.lock().timers.pop();
            let Some((target, key)) = next else { break };
            target.expired(key);
            ran = true;
        }
        let jobs = inner.state.lock().jobs.len();
        for _ in 0..jobs {
            let next = inner.state.lock().jobs.pop_front();
            let Some((target, key)) = next else { break };
            target.run(key);
            ran = true;
        }
        for _ in 0..DEFERRED_PER_TURN {
            let next = {
                let mut state = inner.state.lock();
                let most_urgent = state
                    .deferred
                    .iter()
                    .enumerate()
                    .min_by_key(|(place, (priority, _))| (*priority, *place))
                    .map(|(place, _)| place);
                most_urgent.and_then(|place| state.deferred.remove(place))
            };
            let Some((_, (target, key))) = next else {
                break;
            };
            target.run(key);
            ran = true;
        }
        ran
    }

    /// Turns until nothing is left to run at this moment.
    ///
    /// # Panics
    /// If that does not happen: something spins.
    pub fn run(&self) {
        for _ in 0..TURNS {
            if !self.turn() && self.is_idle() {
                return;
            }
        }
        panic!("the loop is still busy after {TURNS} turns: something spins");
    }

    /// Lets `span` pass: runs what waits, then goes from timer to timer, running what each brings.
    pub fn advance(&self, span: Duration) {
        let end = self.now() + span;
        self.run();
        loop {
            let due = {
                let mut state = self.inner.state.lock();
                match state.timers.next_due() {
                    Some(due) if due <= end => {
                        state.now = state.now.max(due);
                        true
                    }
                    _ => false,
                }
            };
            if !due {
                break;
            }
            self.run();
        }
        self.inner.state.lock().now = end;
        self.run();
    }

    /// Turns and lets time pass until `done`.
    ///
    /// # Panics
    /// If nothing is left that could bring it about.
    pub fn run_until(&self, mut done: impl FnMut() -> bool) {
        loop {
            self.run();
            if done() {
                return;
            }
            let due = self.inner.state.lock().timers.next_due();
            let due = due.expect("nothing is left to run and it is not done");
            let mut state = self.inner.state.lock();
            state.now = state.now.max(due);
        }
    }
}

impl Default for Loop {
    fn default() -> Self {
        Self::new()
    }
}

impl AsHost for Loop {
    fn as_host(&self) -> Arc<dyn Host> {
        self.inner.clone()
    }
}

impl std::fmt::Debug for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let closing = {
            let mut state = self.inner.state.lock();
            state.closed = true;
            state.closing.take()
        };
        for target in closing {
            target.closed();
        }
        let dropped = {
            let mut state = self.inner.state.lock();
            (
                std::mem::take(&mut state.jobs),
                std::mem::take(&mut state.deferred),
                std::mem::take(&mut state.timers),
            )
        };
        drop(dropped);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inner")
    }
}

impl Clock for Inner {
    fn now(&self) -> Moment {
        self.state.lock().now
    }
}

impl Host for Inner {
    fn thread(&self) -> ThreadNumber {
        self.thread
    }

    fn now(&self) -> Moment {
        self.state.lock().now
    }

    fn schedule(&self, phase: Phase, target: Arc<dyn Target>, key: u64) -> Result<(), LoopClosed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(LoopClosed);
        }
        match phase {
            Phase::Deferred(priority) => state.deferred.push_back((priority, (target, key))),
            _ => state.jobs.push_back((target, key)),
        }
        Ok(())
    }

    fn arm(&self, at: Moment, target: Arc<dyn Target>, key: u64) -> Result<TimerKey, LoopClosed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(LoopClosed);
        }
        let now = state.now;
        Ok(state.timers.arm(now, at, (target, key)))
    }

    fn rearm(&self, timer: TimerKey, at: Moment) -> bool {
        let mut state = self.state.lock();
        let now = state.now;
        state.timers.rearm(timer, now, at)
    }

    fn disarm(&self, timer: TimerKey) -> bool {
        let removed = self.state.lock().timers.disarm(timer);
        removed.is_some()
    }

    fn tell_closed(&self, target: Weak<dyn Target>) -> Result<(), LoopClosed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(LoopClosed);
        }
        state.closing.add(target);
        Ok(())
    }

    fn caught_panic(&self, _what: &'static str, _payload: &(dyn Any + Send)) {
        self.state.lock().panics += 1;
    }
}
