//! What a loop shares with its handles: queues, timers, sources, and the flags that end a run.
//!
//! # Invariants
//! - User code (a target, a payload's drop) is never run with one of these locks held; no two of them are held at once.
//! - `closed` is kept in each table, under that table's lock, so nothing slips in behind [`Shared::close`].
//! - Work is made visible first, the bell is rung second: see `doorbell.rs`.
//! - The agenda says which tables hold anything; a table that is empty is not locked to find that out: see `agenda.rs`.
//! - The time of a turn is read when it is first asked for, and is the same for all that ask on the loop's thread until the turn waits or
//!   ends.
//! - One queue per phase and priority takes the calls of every thread, so "in the order in which they were asked
//!   for" holds across threads as well. A channel for other threads beside the loop's own queue would not keep it, and is slower
//!   (`docs/decisions/one-queue-for-all-threads.md`).

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use evreactor_core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use evreactor_core::sync::{Mutex, ThreadNumber, thread_number};
use evreactor_core::{
    Clock, CloseList, Host, LoopClosed, Moment, Phase, Target, TimerKey, TimerWheel,
};

use crate::agenda::{Agenda, Item};
use crate::backend::{Features, Registrar};
use crate::doorbell::Doorbell;
use crate::source::Sources;
use crate::stats::Counters;

/// A target, and the key that it is called with.
pub(crate) struct Call {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) key: u64,
}

/// In `Shared::turn_time`: no turn is going on.
const BETWEEN_TURNS: u64 = u64::MAX;

/// In `Shared::turn_time`: a turn is going on, and nobody has asked for its time.
const UNREAD: u64 = u64::MAX - 1;

pub(crate) struct Shared {
    thread: ThreadNumber,
    clock: Arc<dyn Clock>,
    /// Nanoseconds; the time that the current turn goes by.
    turn_time: AtomicU64,
    pub(crate) backend_name: &'static str,
    pub(crate) registrar: Arc<dyn Registrar>,
    pub(crate) features: Features,
    bell: Doorbell,
    pub(crate) agenda: Agenda,
    queue: Mutex<Queue>,
    timers: Mutex<Timers>,
    pub(crate) sources: Mutex<Sources>,
    holds: AtomicUsize,
    /// Asked for, not yet obeyed.
    exit: AtomicBool,
    stop: AtomicBool,
    /// How the last run ended.
    pub(crate) got_exit: AtomicBool,
    pub(crate) got_break: AtomicBool,
    pub(crate) counters: Counters,
}

struct Queue {
    closed: bool,
    /// Who asked to be told when the loop closes.
    closing: CloseList,
    turn: VecDeque<Call>,
    /// By priority, most urgent first.
    deferred: Vec<VecDeque<Call>>,
}

struct Timers {
    closed: bool,
    wheel: TimerWheel<Call>,
}

impl Shared {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        backend_name: &'static str,
        registrar: Arc<dyn Registrar>,
        priorities: usize,
    ) -> Self {
        Self {
            thread: thread_number(),
            clock,
            turn_time: AtomicU64::new(BETWEEN_TURNS),
            backend_name,
            features: registrar.features(),
            registrar,
            bell: Doorbell::new(),
            agenda: Agenda::new(),
            queue: Mutex::new(Queue {
                closed: false,
                closing: CloseList::default(),
                turn: VecDeque::new(),
                deferred: (0..priorities).map(|_| VecDeque::new()).collect(),
            }),
            timers: Mutex::new(Timers {
                closed: false,
                wheel: TimerWheel::new(),
            }),
            sources: Mutex::new(Sources::new()),
            holds: AtomicUsize::new(0),
            exit: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            got_exit: AtomicBool::new(false),
            got_break: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    // ---- from any thread ----

    /// Wakes the loop if it sleeps. To be called after the news is visible.
    pub(crate) fn ring(&self) {
        if self.bell.ring() {
            self.counters.wakes.add();
            if let Err(error) = self.registrar.wake() {
                tracing::error!(%error, "the loop could not be woken");
            }
        }
    }

    pub(crate) fn request_exit(&self) {
        self.exit.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(crate) fn request_break(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(crate) fn hold(&self) {
        self.holds.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn release_hold(&self) {
        if self.holds.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.ring();
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Moment> {
        if !self.agenda.has(Item::Timers) {
            return None;
        }
        self.timers.lock().wheel.next_due()
    }

    /// The time of the current turn, if there is one and it is to be known here.
    fn turn_time(&self) -> Option<Moment> {
        match self.turn_time.load(Ordering::Relaxed) {
            BETWEEN_TURNS => None,
            UNREAD => (thread_number() == self.thread).then(|| self.read_turn_time()),
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    // ---- on the loop's thread ----

    fn read_turn_time(&self) -> Moment {
        let now = self.clock.now().min(Moment::from_nanos(UNREAD - 1));
        self.turn_time.store(now.as_nanos(), Ordering::Relaxed);
        now
    }

    /// From here on the turn goes by the time at which it is first asked for.
    pub(crate) fn start_turn_time(&self) {
        self.turn_time.store(UNREAD, Ordering::Relaxed);
    }

    /// From here on, who asks for the time gets it from the clock.
    pub(crate) fn end_turn_time(&self) {
        self.turn_time.store(BETWEEN_TURNS, Ordering::Relaxed);
    }

    /// How long the loop may wait, by the state of the tables. Announces the wait: what is posted from here on rings.
    pub(crate) fn lie_down(&self) -> Option<Duration> {
        self.bell.lie_down();
        if self.has_queued() || self.exit.load(Ordering::SeqCst) || self.stop.load(Ordering::SeqCst)
        {
            return Some(Duration::ZERO);
        }
        self.next_timer().map(|due| due - self.clock.now())
    }

    pub(crate) fn get_up(&self) {
        self.bell.get_up();
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn take_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed) && self.stop.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn take_exit(&self) -> bool {
        self.exit.load(Ordering::Relaxed) && self.exit.swap(false, Ordering::SeqCst)
    }

    /// Nothing is left that could ever wake the loop.
    pub(crate) fn nothing_left(&self) -> bool {
        !self.agenda.has_any()
            && self.holds.load(Ordering::SeqCst) == 0
            && !self.exit.load(Ordering::SeqCst)
    }

    pub(crate) fn has_queued(&self) -> bool {
        self.agenda.has(Item::Turn) || self.agenda.has(Item::Deferred)
    }

    /// Makes due what is due by now, for `pop_timer` to hand out.
    pub(crate) fn collect_timers(&self) {
        if self.agenda.has(Item::Timers) {
            let now = self.now();
            self.timers.lock().wheel.collect(now);
        }
    }

    pub(crate) fn pop_timer(&self) -> Option<Call> {
        if !self.agenda.has(Item::Timers) {
            return None;
        }
        let mut timers = self.timers.lock();
        let call = timers.wheel.pop();
        self.agenda.note(Item::Timers, !timers.wheel.is_empty());
        call
    }

    pub(crate) fn turn_len(&self) -> usize {
        if self.agenda.has(Item::Turn) {
            self.queue.lock().turn.len()
        } else {
            0
        }
    }

    pub(crate) fn pop_turn(&self) -> Option<Call> {
        let mut queue = self.queue.lock();
        let call = queue.turn.pop_front();
        self.agenda.note(Item::Turn, !queue.turn.is_empty());
        call
    }

    /// The first of the most urgent deferred calls.
    pub(crate) fn pop_deferred(&self) -> Option<Call> {
        if !self.agenda.has(Item::Deferred) {
            return None;
        }
        let mut queue = self.queue.lock();
        let call = queue.deferred.iter_mut().find_map(VecDeque::pop_front);
        let holds = queue.deferred.iter().any(|level| !level.is_empty());
        self.agenda.note(Item::Deferred, holds);
        call
    }

    /// Runs user code; a panic ends there.
    #[inline]
    pub(crate) fn guard(&self, what: &'static str, code: impl FnOnce()) {
        // The loop's own state is whole whenever user code runs, and what a target leaves behind is the target's to judge.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
            self.caught_panic(what, &*payload);
            // A payload may panic in its drop; it is not worth more than a leak then.
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
        }
    }

    /// Ends all service: drops what is queued, armed and registered, with no lock held.
    pub(crate) fn close(&self) {
        let (closing, queued) = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            let closing = queue.closing.take();
            let deferred = queue
                .deferred
                .iter_mut()
                .flat_map(std::mem::take)
                .collect::<Vec<_>>();
            (closing, (std::mem::take(&mut queue.turn), deferred))
        };
        let armed = {
            let mut timers = self.timers.lock();
            timers.closed = true;
            self.agenda.note(Item::Timers, false);
            std::mem::take(&mut timers.wheel)
        };
        let registered = {
            let mut sources = self.sources.lock();
            self.agenda.note(Item::Sources, false);
            sources.close()
        };
        // Who is asked first lets go of what it holds, and that is closed with the rest.
        for target in closing.iter().chain(&registered) {
            self.guard("closing of a source", || target.closed());
        }
        self.guard("drop of queued calls", move || drop(queued));
        self.guard("drop of timers", move || drop(armed));
        self.guard("drop of sources", move || drop((closing, registered)));
    }
}

impl Host for Shared {
    fn thread(&self) -> ThreadNumber {
        self.thread
    }

    fn now(&self) -> Moment {
        self.turn_time().unwrap_or_else(|| self.clock.now())
    }

    fn clock_now(&self) -> Moment {
        self.clock.now()
    }

    fn schedule(&self, phase: Phase, target: Arc<dyn Target>, key: u64) -> Result<(), LoopClosed> {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue); // Before the target is dropped.
            return Err(LoopClosed);
        }
        let call = Call { target, key };
        match phase {
            Phase::Deferred(priority) => {
                let least = queue.deferred.len() - 1;
                queue.deferred[usize::from(priority.0).min(least)].push_back(call);
                self.agenda.note(Item::Deferred, true);
            }
            // A phase that is not known yet runs soonest.
            Phase::Turn | _ => {
                queue.turn.push_back(call);
                self.agenda.note(Item::Turn, true);
            }
        }
        drop(queue);
        self.ring();
        Ok(())
    }

    fn arm(&self, at: Moment, target: Arc<dyn Target>, key: u64) -> Result<TimerKey, LoopClosed> {
        // Between turns the clock is not asked: a deadline that has just passed may then wait for the end of a tick.
        let now = self.turn_time().unwrap_or(Moment::ZERO);
        let mut timers = self.timers.lock();
        if timers.closed {
            drop(timers); // Before the target is dropped.
            return Err(LoopClosed);
        }
        let timer = timers.wheel.arm(now, at, Call { target, key });
        self.agenda.note(Item::Timers, true);
        drop(timers);
        self.ring();
        Ok(timer)
    }

    fn rearm(&self, timer: TimerKey, at: Moment) -> bool {
        let now = self.turn_time().unwrap_or(Moment::ZERO);
        let found = self.timers.lock().wheel.rearm(timer, now, at);
        if found {
            self.ring();
        }
        found
    }

    fn disarm(&self, timer: TimerKey) -> bool {
        let (call, empty) = {
            let mut timers = self.timers.lock();
            let call = timers.wheel.disarm(timer);
            let empty = timers.wheel.is_empty();
            self.agenda.note(Item::Timers, !empty);
            (call, empty)
        };
        if empty {
            // The loop may have nothing left to wait for.
            self.ring();
        }
        call.is_some()
    }

    fn tell_closed(&self, target: Weak<dyn Target>) -> Result<(), LoopClosed> {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue); // Before the target is dropped.
            return Err(LoopClosed);
        }
        queue.closing.add(target);
        Ok(())
    }

    fn caught_panic(&self, what: &'static str, payload: &(dyn Any + Send)) {
        self.counters.panics.add();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no message)");
        tracing::error!(what, message, "user code panicked");
    }
}
