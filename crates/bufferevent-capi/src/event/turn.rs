//! The loop: waits, finds what is due, and calls it.
//!
//! # A turn
//! 1. What was put off becomes active; prepare watchers run.
//! 2. The base waits for descriptors; check watchers run.
//! 3. Timers that are due become active.
//! 4. The most urgent priority that has something active is served; the others wait for the next turn.
//!
//! # Invariants
//! - The program is called with the lock released, and nothing borrowed.
//! - What an event is called with is copied before the call: the callback may free it.

use std::cell::Cell;
use std::ffi::c_int;
use std::time::Duration;

use evreactor_core::{Clock, Moment, Monotonic};

use crate::event::base::{Base, Wait};
use crate::event::layout::{
    Callback, Closure, EV_PERSIST, EV_TIMEOUT, Event, FINALIZING, INTERNAL, NO_TIME,
};
use crate::event::watch::{self, Kind};
use crate::ffi::Ref;
use crate::lock::this_thread;
use crate::util::time::duration;
use crate::{log, memory};

pub(crate) const ONCE: c_int = 1;
pub(crate) const NONBLOCK: c_int = 2;
pub(crate) const NO_EXIT_ON_EMPTY: c_int = 4;

/// Why a queue was left.
enum Left {
    /// It is empty, or its share is used up; so many calls were made.
    Served(usize),
    Broken,
}

impl Ref<Base> {
    /// Runs; 1 when nothing is left that could happen, -1 for an error.
    pub(crate) fn run(self, flags: c_int) -> c_int {
        let _guard = self.guard();
        let state = &self.state;
        if state.running.get() {
            log::warn(
                "event_base_loop: reentrant invocation: only one loop can run on a base at a time",
            );
            return -1;
        }
        state.running.set(true);
        state.thread.set(this_thread());
        state.exit.set(false);
        state.broken.set(false);
        state.priority.set(0);
        self.forget_time();
        let result = self.turns(flags);
        self.forget_time();
        state.running.set(false);
        result
    }

    fn turns(self, flags: c_int) -> c_int {
        let state = &self.state;
        loop {
            state.go_on.set(false);
            if state.exit.get() || state.broken.get() {
                return 0;
            }
            let idle = self.active.get() == 0;
            if idle && self.is_empty() && flags & NO_EXIT_ON_EMPTY == 0 {
                return 1;
            }
            self.queue_put_off();
            let timeout = if self.active.get() > 0 || flags & NONBLOCK != 0 {
                Some(Duration::ZERO)
            } else {
                self.until_next_timer()
            };
            self.forget_time();
            if !self.wait(timeout) {
                log::warn("event_base_loop: the system cannot wait for events");
                return -1;
            }
            self.fire_timers();
            if self.active.get() > 0 {
                let called = self.serve();
                if flags & ONCE != 0 && self.active.get() == 0 && called > 0 {
                    return 0;
                }
            } else if flags & NONBLOCK != 0 {
                return 0;
            }
        }
    }

    fn is_empty(self) -> bool {
        self.count.get() == 0 && self.virtual_events.get() == 0
    }

    /// How long it is until the next timer; `None` where there is none.
    pub(crate) fn until_next_timer(self) -> Option<Duration> {
        let due = self.timers.borrow().next_due()?;
        Some(due - self.now())
    }

    fn wait(self, timeout: Option<Duration>) -> bool {
        watch::run(self, Kind::Prepare, timeout);
        // Prepare watchers may have changed what there is to wait for.
        let timeout = match timeout {
            Some(Duration::ZERO) => timeout,
            _ if self.active.get() > 0 => Some(Duration::ZERO),
            _ => self.until_next_timer(),
        };
        let mut waiting = self.poller.borrow_mut().begin_wait();
        let waited = self.unlocked(|| waiting.wait(timeout));
        self.poller.borrow_mut().end_wait(waiting);
        self.keep_time();
        watch::run(self, Kind::Check, None);
        let ready = self.poller.borrow_mut().take_ready();
        for &(fd, happened) in &ready {
            self.activate_io(fd, happened);
        }
        self.poller.borrow_mut().give_back(ready);
        waited
    }

    fn fire_timers(self) {
        if self.timers.borrow().next_due().is_none() {
            return;
        }
        let now = self.now();
        self.timers.borrow_mut().collect(now);
        loop {
            let Some(event) = self.timers.borrow_mut().pop() else {
                break;
            };
            self.timer_fired(event);
        }
    }

    /// Serves the most urgent priority that calls the program. Answers how many calls were made.
    fn serve(self) -> usize {
        let levels = self.priorities();
        let mut called = 0;
        for level in 0..levels {
            if self.queues.borrow()[level].first().is_none() {
                continue;
            }
            self.state.priority.set(level);
            match self.serve_level(level) {
                Left::Broken => break,
                Left::Served(0) => {} // The library's own only.
                Left::Served(count) => {
                    called = count;
                    break;
                }
            }
        }
        self.state.priority.set(0);
        called
    }

    fn serve_level(self, level: usize) -> Left {
        let limits = self.limits;
        let limited = level as i64 >= i64::from(limits.from_priority);
        let most = if limited && limits.callbacks >= 0 {
            limits.callbacks as usize
        } else {
            usize::MAX
        };
        let clock = Monotonic::new();
        let end = limits
            .interval
            .filter(|_| limited)
            .map(|interval| Moment::ZERO + interval);
        let mut called = 0;
        loop {
            let Some(callback) = self.queues.borrow()[level].first() else {
                return Left::Served(called);
            };
            match callback.event() {
                // What stays added is only taken out of the queue.
                Some(event) if !event.waits_for(EV_PERSIST) && !event.has(FINALIZING) => {
                    self.delete(event, Wait::No);
                }
                Some(_) | None => self.unqueue(callback),
            }
            called += usize::from(!callback.has(INTERNAL));
            self.call(callback);
            if self.state.broken.get() {
                return Left::Broken;
            }
            let late = end.is_some_and(|end| clock.now() >= end);
            if called >= most || late || self.state.go_on.get() {
                return Left::Served(called);
            }
        }
    }

    /// Calls one callback.
    pub(crate) fn call(self, callback: Ref<Callback>) {
        self.state.current.set(Some(callback));
        let function = callback.function.get();
        let argument = callback.argument.get();
        match (callback.closure.get(), callback.event()) {
            (Closure::Persist, Some(event)) => {
                self.add_again(event);
                self.call_event(event);
            }
            (Closure::Event, Some(event)) => self.call_event(event),
            (Closure::Signal, Some(event)) => self.call_signal(event),
            (Closure::Finalize | Closure::FinalizeFree, Some(event)) => {
                self.state.current.set(None);
                let free = callback.closure.get() == Closure::FinalizeFree;
                super::debug::forget(event);
                // SAFETY: this closure goes with a finalizer: `Ref<Base>::finalize`.
                let finalizer = unsafe { function.finalizer };
                self.unlocked(|| {
                    if let Some(finalizer) = finalizer {
                        finalizer(event, argument);
                    }
                    if free {
                        memory::release(event.address().cast());
                    }
                });
            }
            (Closure::Own | Closure::FinalizeOwn, _) => {
                if callback.closure.get() == Closure::FinalizeOwn {
                    self.state.current.set(None);
                }
                // SAFETY: these closures go with a function of the library's own: `Callback::own`.
                if let Some(function) = unsafe { function.own } {
                    self.unlocked(|| function(callback, argument));
                }
            }
            (_, None) => {}
        }
        self.state.current.set(None);
        self.has_returned();
    }

    fn call_event(self, event: Ref<Event>) {
        let (function, fd) = (event.function(), event.fd.get());
        let (result, argument) = (event.result.get(), event.callback.argument.get());
        if let Some(function) = function {
            self.unlocked(|| function(fd, result, argument));
        }
    }

    /// Calls as often as the signal came, unless it is deleted or the loop is broken meanwhile.
    fn call_signal(self, event: Ref<Event>) {
        let left = Cell::new(event.calls.get());
        if left.get() == 0 {
            return;
        }
        event.calling.set(Some(Ref::of(&left)));
        let (function, fd) = (event.function(), event.fd.get());
        let (result, argument) = (event.result.get(), event.callback.argument.get());
        while left.get() > 0 {
            left.set(left.get() - 1);
            event.calls.set(left.get());
            if left.get() == 0 {
                event.calling.set(None);
            }
            if let Some(function) = function {
                self.unlocked(|| function(fd, result, argument));
            }
            if self.state.broken.get() {
                // A deletion has cleared what is left, and then the event may be gone.
                if left.get() > 0 {
                    event.calling.set(None);
                }
                return;
            }
        }
    }

    /// Sets a persistent event's timeout again: after a timeout from when that was due, else from now.
    fn add_again(self, event: Ref<Event>) {
        let interval = event.interval.get();
        if (interval.tv_sec, interval.tv_usec) == (NO_TIME.tv_sec, NO_TIME.tv_usec) {
            return;
        }
        let (span, now) = (duration(interval), self.now());
        let from = if event.result.get() & EV_TIMEOUT != 0 {
            Base::moment(event.due.get())
        } else {
            now
        };
        let due = from + span;
        let due = if due <= now { now + span } else { due };
        self.add_until(event, Some(due));
    }
}
