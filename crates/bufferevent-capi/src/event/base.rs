//! `struct event_base`: the tables of events, and every change of an event's state.
//!
//! # States of an event
//! An event is nowhere, or any of: *inserted* (a descriptor's or a signal's table has it), *timed*, *active* (queued to be called) or
//! *active later* (queued for the next turn). Its flags say which; the functions here are the only ones that change them.
//!
//! # Invariants
//! - Everything here is called with the base's lock held, and calls nothing of the program's.
//! - `all` has exactly the events with one of the flags `KNOWN`; `count` is the number of such flags of events that are not internal.
//! - Another thread's change wakes the loop.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_short};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use evreactor_core::{Clock, Moment, Monotonic, TimerKey, TimerWheel};
use parking_lot::{Condvar, Mutex};
use rustix::event::EventfdFlags;

use crate::event::layout::{
    ACTIVE, ACTIVE_LATER, Callback, Closure, EV_ET, EV_FINALIZE, EV_IO, EV_PERSIST, EV_READ,
    EV_SIGNAL, EV_TIMEOUT, Event, EventFunction, FINALIZING, Finalizer, Function, INIT, INSERTED,
    INTERNAL, KNOWN, NO_TIME, TIMED,
};
use crate::event::once::Once;
use crate::event::poll::{Method, Poller};
use crate::event::queue::Queue;
use crate::event::signal::Signals;
use crate::event::watch::Watcher;
use crate::ffi::{Ref, system};
use crate::lock::{Guard, Lock, this_thread};
use crate::util::time::{TimeVal, duration, timeval};

/// Deferred calls that run in one turn; more wait for the next, so that descriptors are looked at meanwhile.
const MAX_DEFERRED: u32 = 32;

/// A common timeout's microseconds carry these bits, and its index.
const COMMON_MAGIC: i64 = 0x5000_0000;
const COMMON_MASK: i64 = 0xf000_0000;
const MICROS_MASK: i64 = 0x000f_ffff;

/// What a configuration asked for.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) interval: Option<Duration>,
    pub(crate) callbacks: c_int,
    pub(crate) from_priority: c_int,
}

/// Where the loop is.
#[derive(Default)]
pub(crate) struct LoopState {
    pub(crate) running: Cell<bool>,
    pub(crate) thread: Cell<u32>,
    pub(crate) exit: Cell<bool>,
    pub(crate) broken: Cell<bool>,
    pub(crate) go_on: Cell<bool>,
    /// The most urgent priority that is being served, or the number of priorities.
    pub(crate) priority: Cell<usize>,
    pub(crate) current: Cell<Option<Ref<Callback>>>,
    pub(crate) deferred: Cell<u32>,
}

/// `struct event_base`.
pub(crate) struct Base {
    pub(crate) lock: Option<Arc<Lock>>,
    pub(crate) flags: c_int,
    pub(crate) limits: Limits,
    pub(crate) state: LoopState,
    pub(crate) poller: RefCell<Poller>,
    pub(crate) signals: RefCell<Signals>,
    pub(crate) timers: RefCell<TimerWheel<Ref<Event>>>,
    pub(crate) queues: RefCell<Vec<Queue>>,
    pub(crate) later: Queue,
    pub(crate) all: RefCell<Vec<Ref<Event>>>,
    pub(crate) count: Counter,
    pub(crate) active: Counter,
    pub(crate) virtual_events: Counter,
    clock: Monotonic,
    now: Cell<Option<Moment>>,
    wall: Cell<Option<TimeVal>>,
    pub(crate) wake: RefCell<Option<OwnedFd>>,
    woken: Cell<bool>,
    pub(crate) internal: RefCell<Vec<Ref<Event>>>,
    signal_event: Cell<Option<Ref<Event>>>,
    pub(crate) once: RefCell<Vec<Ref<Once>>>,
    pub(crate) prepare: RefCell<Vec<Ref<Watcher>>>,
    pub(crate) check: RefCell<Vec<Ref<Watcher>>>,
    /// Its memory is asked for once: C keeps pointers into it.
    pub(crate) common_timeouts: RefCell<Vec<TimeVal>>,
    /// Counted up, and told, whenever a callback has returned: for those who wait for one.
    returned: (Mutex<u64>, Condvar),
}

/// How many there are, and were at most.
#[derive(Default)]
pub(crate) struct Counter {
    now: Cell<usize>,
    most: Cell<usize>,
}

impl Counter {
    pub(crate) fn up(&self) {
        self.now.set(self.now.get() + 1);
        self.most.set(self.most.get().max(self.now.get()));
    }

    pub(crate) fn down(&self) {
        self.now.set(self.now.get().saturating_sub(1));
    }

    pub(crate) fn get(&self) -> usize {
        self.now.get()
    }

    pub(crate) fn most(&self, clear: bool) -> usize {
        let most = self.most.get();
        if clear {
            self.most.set(0);
        }
        most
    }
}

/// How `event_del` treats a callback that is running in another thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// It is not waited for.
    No,
    /// It is waited for.
    Yes,
    /// It is waited for, unless the event has a finalizer.
    Auto,
    /// As `No`, and also when the event is being finalized.
    NotEvenFinalizing,
}

impl Base {
    pub(crate) fn new(method: Method, flags: c_int, limits: Limits) -> Option<Self> {
        Some(Self {
            lock: Lock::new(),
            flags,
            limits,
            state: LoopState::default(),
            poller: RefCell::new(Poller::new(method)?),
            signals: RefCell::new(Signals::new()),
            timers: RefCell::new(TimerWheel::new()),
            queues: RefCell::new(vec![Queue::default()]),
            later: Queue::default(),
            all: RefCell::new(Vec::new()),
            count: Counter::default(),
            active: Counter::default(),
            virtual_events: Counter::default(),
            clock: Monotonic::new(),
            now: Cell::new(None),
            wall: Cell::new(None),
            wake: RefCell::new(None),
            woken: Cell::new(false),
            internal: RefCell::new(Vec::new()),
            signal_event: Cell::new(None),
            once: RefCell::new(Vec::new()),
            prepare: RefCell::new(Vec::new()),
            check: RefCell::new(Vec::new()),
            common_timeouts: RefCell::new(Vec::new()),
            returned: (Mutex::new(0), Condvar::new()),
        })
    }

    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.lock.as_ref())
    }

    /// Calls the program with the lock released.
    pub(crate) fn unlocked<R>(&self, call: impl FnOnce() -> R) -> R {
        Guard::unlocked(self.lock.as_ref(), call)
    }

    pub(crate) fn priorities(&self) -> usize {
        self.queues.borrow().len()
    }

    /// Whether the loop runs in another thread than this.
    #[inline(always)]
    fn is_elsewhere(&self) -> bool {
        self.lock.is_some() && self.state.running.get() && self.state.thread.get() != this_thread()
    }
}

/// Time.
impl Base {
    /// The time of this turn; between turns, the time now.
    pub(crate) fn now(&self) -> Moment {
        self.now.get().unwrap_or_else(|| self.clock.now())
    }

    pub(crate) fn wall(&self) -> TimeVal {
        self.wall.get().unwrap_or_else(crate::util::time::wall)
    }

    pub(crate) fn keep_time(&self) {
        const NO_CACHE_TIME: c_int = 0x08;
        self.forget_time();
        if self.flags & NO_CACHE_TIME == 0 {
            self.now.set(Some(self.clock.now()));
            self.wall.set(Some(crate::util::time::wall()));
        }
    }

    pub(crate) fn forget_time(&self) {
        self.now.set(None);
        self.wall.set(None);
    }

    /// The moment that a timeval of `Event::due` means.
    pub(crate) fn moment(due: TimeVal) -> Moment {
        Moment::ZERO + duration(due)
    }

    /// What a program passes as a timeout, without the mark of common timeouts.
    pub(crate) fn plain(&self, time: TimeVal) -> TimeVal {
        TimeVal {
            tv_sec: time.tv_sec,
            tv_usec: if time.tv_usec & COMMON_MASK == COMMON_MAGIC {
                time.tv_usec & MICROS_MASK
            } else {
                time.tv_usec
            },
        }
    }

    /// A common timeout: one that says so, for a wheel treats all of them alike.
    pub(crate) fn common(&self, index: usize, time: TimeVal) -> TimeVal {
        TimeVal {
            tv_sec: time.tv_sec,
            tv_usec: (time.tv_usec & MICROS_MASK) | COMMON_MAGIC | ((index as i64) << 20),
        }
    }
}

impl Ref<Base> {
    /// An event of the library's own, which does not keep the loop running.
    pub(crate) fn internal_event(self, fd: c_int, function: EventFunction) -> Option<Ref<Event>> {
        let event = Ref::make(Event {
            callback: Callback::new(
                Closure::Persist,
                Function {
                    event: Some(function),
                },
                self.address().cast(),
            ),
            timer: Cell::new(0),
            place: Cell::new(0),
            fd: Cell::new(fd),
            base: Cell::new(Some(self)),
            interval: Cell::new(NO_TIME),
            calls: Cell::new(0),
            calling: Cell::new(None),
            events: Cell::new(EV_READ | EV_PERSIST),
            result: Cell::new(0),
            due: Cell::new(NO_TIME),
        })?;
        event.callback.set(INIT | INTERNAL);
        self.internal.borrow_mut().push(event);
        self.add(event, None).then_some(event)
    }

    /// Makes it possible to wake the loop from other threads.
    pub(crate) fn make_notifiable(self) -> bool {
        if self.wake.borrow().is_some() {
            return true;
        }
        self.open_wake() && self.wake_event()
    }

    fn open_wake(self) -> bool {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        *self.wake.borrow_mut() = system(rustix::event::eventfd(0, flags));
        self.wake.borrow().is_some()
    }

    fn wake_event(self) -> bool {
        let fd = self
            .wake
            .borrow()
            .as_ref()
            .map_or(-1, |wake| wake.as_raw_fd());
        self.internal_event(fd, woken).is_some()
    }

    /// As in a new process: nothing is shared with the parent any more.
    pub(crate) fn reinit(self) -> bool {
        let mut done = self.signals.borrow_mut().again();
        // Internal events have descriptors of the parent's; they are made anew.
        let internal = std::mem::take(&mut *self.internal.borrow_mut());
        for event in internal {
            self.delete(event, Wait::NotEvenFinalizing);
            // SAFETY: made by `internal_event`, and in no table any more.
            unsafe { event.free() };
        }
        let (signals, wakes) = (
            self.signal_event.take().is_some(),
            self.wake.borrow().is_some(),
        );
        done &= self.poller.borrow_mut().again();
        if signals {
            done &= self.listen_to_signals();
        }
        if wakes {
            done &= self.open_wake() && self.wake_event();
        }
        self.woken.set(false);
        done
    }

    fn listen_to_signals(self) -> bool {
        if self.signal_event.get().is_some() {
            return true;
        }
        let Some(fd) = self.signals.borrow_mut().descriptor() else {
            return false;
        };
        self.signal_event.set(self.internal_event(fd, signalled));
        self.signal_event.get().is_some()
    }

    /// Ends the wait of the loop, if it runs in another thread.
    #[inline(always)]
    pub(crate) fn notify(self) {
        if self.is_elsewhere() && !self.woken.replace(true) {
            self.wake();
        }
    }

    #[inline(never)]
    fn wake(self) {
        if let Some(wake) = &*self.wake.borrow() {
            // A counter that is full wakes as well.
            let _ = rustix::io::write(wake.as_fd(), &1_u64.to_ne_bytes());
        }
    }
}

extern "C" fn woken(_fd: c_int, _what: c_short, base: *mut std::ffi::c_void) {
    let Some(base) = base_of(base) else { return };
    let _guard = base.guard();
    base.woken.set(false);
    if let Some(wake) = &*base.wake.borrow() {
        let _ = rustix::io::read(wake.as_fd(), &mut [0; 8]);
    }
}

extern "C" fn signalled(_fd: c_int, _what: c_short, base: *mut std::ffi::c_void) {
    let Some(base) = base_of(base) else { return };
    let _guard = base.guard();
    let came = base.signals.borrow().came();
    for (signal, count) in came {
        base.activate_signal(signal, count);
    }
}

fn base_of(argument: *mut std::ffi::c_void) -> Option<Ref<Base>> {
    // SAFETY: internal events carry their base, which outlives them.
    unsafe { std::mem::transmute::<*mut std::ffi::c_void, Option<Ref<Base>>>(argument) }
}

/// Where events are.
impl Ref<Base> {
    fn enter(self, event: Ref<Event>, flag: c_short) {
        if !event.has(KNOWN) {
            let mut all = self.all.borrow_mut();
            event.place.set(all.len() as u64);
            all.push(event);
        }
        event.callback.set(flag);
        if !event.has(INTERNAL) {
            self.count.up();
        }
    }

    fn leave(self, event: Ref<Event>, flag: c_short) {
        event.callback.unset(flag);
        if !event.has(INTERNAL) {
            self.count.down();
        }
        if !event.has(KNOWN) {
            let mut all = self.all.borrow_mut();
            let place = event.place.get() as usize;
            all.swap_remove(place);
            if let Some(moved) = all.get(place) {
                moved.place.set(place as u64);
            }
        }
    }

    fn set_timer(self, event: Ref<Event>, due: Moment) {
        event.due.set(timeval(due - Moment::ZERO));
        let due = Base::moment(event.due.get());
        if event.has(TIMED) {
            let key = TimerKey::from_bits(event.timer.get());
            if self.timers.borrow_mut().rearm(key, self.now(), due) {
                return;
            }
            self.leave(event, TIMED);
        }
        let key = self.timers.borrow_mut().arm(self.now(), due, event);
        event.timer.set(key.bits());
        self.enter(event, TIMED);
    }

    pub(crate) fn clear_timer(self, event: Ref<Event>) {
        if event.has(TIMED) {
            let key = TimerKey::from_bits(event.timer.get());
            self.timers.borrow_mut().disarm(key);
            self.leave(event, TIMED);
        }
    }

    /// A timer that the wheel has given out is set no more.
    pub(crate) fn timer_fired(self, event: Ref<Event>) {
        self.leave(event, TIMED);
        self.delete(event, Wait::No);
        self.activate(event, EV_TIMEOUT, 1);
    }

    pub(crate) fn queue_active(self, callback: Ref<Callback>) {
        if !callback.has(ACTIVE) {
            self.push_active(callback);
        }
    }

    #[inline(always)]
    fn push_active(self, callback: Ref<Callback>) {
        match callback.event() {
            Some(event) => self.enter(event, ACTIVE),
            None => callback.set(ACTIVE),
        }
        self.active.up();
        let queues = self.queues.borrow();
        let level = usize::from(callback.priority.get()).min(queues.len() - 1);
        queues[level].push(callback);
    }

    #[inline(always)]
    pub(crate) fn unqueue(self, callback: Ref<Callback>) {
        if callback.has(ACTIVE | ACTIVE_LATER) {
            self.unqueue_known(callback);
        }
    }

    #[inline(never)]
    fn unqueue_known(self, callback: Ref<Callback>) {
        let flag = callback.flags.get() & (ACTIVE | ACTIVE_LATER);
        if flag == ACTIVE {
            let queues = self.queues.borrow();
            let level = usize::from(callback.priority.get()).min(queues.len() - 1);
            queues[level].remove(callback);
        } else {
            self.later.remove(callback);
        }
        self.active.down();
        match callback.event() {
            Some(event) => self.leave(event, flag),
            None => callback.unset(flag),
        }
    }

    fn queue_later(self, callback: Ref<Callback>) {
        match callback.event() {
            Some(event) => self.enter(event, ACTIVE_LATER),
            None => callback.set(ACTIVE_LATER),
        }
        self.active.up();
        self.later.push(callback);
    }

    /// What was put off to this turn.
    pub(crate) fn queue_put_off(self) {
        while let Some(callback) = self.later.first() {
            self.unqueue(callback);
            self.queue_active(callback);
        }
        self.state.deferred.set(0);
    }
}

/// What programs ask for.
impl Ref<Base> {
    /// Adds an event to what it waits for; a timeout counts from now.
    pub(crate) fn add(self, event: Ref<Event>, timeout: Option<TimeVal>) -> bool {
        let timeout = timeout.map(|timeout| self.plain(timeout));
        if let Some(timeout) = timeout
            && event.callback.closure.get() == Closure::Persist
            && !event.has(FINALIZING)
        {
            event.interval.set(timeout);
        }
        self.add_until(event, timeout.map(|timeout| self.now() + duration(timeout)))
    }

    /// The same, with a moment.
    pub(crate) fn add_until(self, event: Ref<Event>, due: Option<Moment>) -> bool {
        if event.has(FINALIZING) {
            return false;
        }
        if event.waits_for(EV_IO | EV_SIGNAL) && !event.has(INSERTED | ACTIVE | ACTIVE_LATER) {
            let done = if event.waits_for(EV_SIGNAL) {
                self.listen_to_signals() && self.signals.borrow_mut().add(event)
            } else {
                self.poller.borrow_mut().add(event)
            };
            if !done {
                return false;
            }
            self.enter(event, INSERTED);
        }
        if let Some(due) = due {
            if event.has(ACTIVE) && event.result.get() & EV_TIMEOUT != 0 {
                // Its last timeout has not been told: the new one takes its place.
                self.unqueue(event.callback());
            }
            self.set_timer(event, due);
        }
        self.notify();
        true
    }

    pub(crate) fn delete(self, event: Ref<Event>, wait: Wait) {
        if wait != Wait::NotEvenFinalizing && event.has(FINALIZING) {
            return;
        }
        if let Some(calling) = event.calling.take() {
            calling.set(0);
        }
        self.clear_timer(event);
        self.unqueue(event.callback());
        if event.has(INSERTED) {
            self.leave(event, INSERTED);
            if event.waits_for(EV_SIGNAL) {
                self.signals.borrow_mut().remove(event);
            } else {
                self.poller.borrow_mut().remove(event);
            }
        }
        if self.count.get() == 0 {
            self.notify();
        }
        let waits = match wait {
            Wait::Yes => true,
            Wait::Auto => !event.waits_for(EV_FINALIZE),
            Wait::No | Wait::NotEvenFinalizing => false,
        };
        if waits {
            self.wait_for(event.callback());
        }
    }

    /// Waits until a callback that another thread is running has returned.
    fn wait_for(self, callback: Ref<Callback>) {
        while self.state.current.get() == Some(callback) && self.is_elsewhere() {
            let (count, told) = &self.returned;
            let mut count = count.lock();
            let before = *count;
            // Let go of before the base's lock is taken again: the loop's thread takes them in that order.
            self.unlocked(move || {
                while *count == before {
                    told.wait(&mut count);
                }
            });
        }
    }

    /// Tells those who wait that a callback has returned.
    #[inline(always)]
    pub(crate) fn has_returned(self) {
        if self.lock.is_some() {
            self.tell_returned();
        }
    }

    #[inline(never)]
    fn tell_returned(self) {
        let (count, told) = &self.returned;
        *count.lock() += 1;
        told.notify_all();
    }

    #[inline]
    pub(crate) fn activate(self, event: Ref<Event>, result: c_short, calls: c_short) {
        if event.has(FINALIZING | ACTIVE | ACTIVE_LATER) {
            self.activate_again(event, result, calls);
            return;
        }
        event.result.set(result);
        self.make_active(event, calls);
    }

    /// The same for one that is queued already, or is being finalized.
    #[inline(never)]
    fn activate_again(self, event: Ref<Event>, result: c_short, calls: c_short) {
        if event.has(FINALIZING) {
            return;
        }
        event.result.set(event.result.get() | result);
        if event.has(ACTIVE_LATER) {
            self.unqueue(event.callback());
            self.make_active(event, calls);
        }
    }

    /// Queues one that is in no queue.
    #[inline(always)]
    fn make_active(self, event: Ref<Event>, calls: c_short) {
        if usize::from(event.callback.priority.get()) < self.state.priority.get() {
            self.state.go_on.set(true);
        }
        if event.waits_for(EV_SIGNAL) {
            event.calls.set(calls);
            event.calling.set(None);
        }
        self.push_active(event.callback());
        self.notify();
    }

    pub(crate) fn activate_callback(self, callback: Ref<Callback>) {
        self.unqueue(callback);
        self.queue_active(callback);
        self.notify();
    }

    /// Gives a callback of the library's own another priority; one that is queued changes its queue.
    pub(crate) fn set_priority(self, callback: Ref<Callback>, priority: u8) {
        let queued = callback.has(ACTIVE);
        if queued {
            self.unqueue(callback);
        }
        callback.priority.set(priority);
        if queued {
            self.queue_active(callback);
        }
    }

    /// Puts a deferred call of the library's own into this turn, or into the next if this one has many. Answers whether it was not
    /// queued yet.
    pub(crate) fn defer(self, callback: Ref<Callback>) -> bool {
        if callback.has(ACTIVE | ACTIVE_LATER | FINALIZING) {
            return false;
        }
        let deferred = self.state.deferred.get();
        if deferred > MAX_DEFERRED {
            self.queue_later(callback);
        } else {
            self.state.deferred.set(deferred + 1);
            self.queue_active(callback);
        }
        self.notify();
        true
    }

    /// Activates an event for the next turn.
    pub(crate) fn activate_later(self, event: Ref<Event>, result: c_short) {
        if !event.has(FINALIZING | ACTIVE | ACTIVE_LATER) {
            event.result.set(result);
            self.queue_later(event.callback());
        }
    }

    pub(crate) fn activate_signal(self, signal: c_int, calls: c_short) {
        let events = self.signals.borrow().events_of(signal).to_vec();
        for event in events {
            self.activate(event, EV_SIGNAL, calls);
        }
    }

    /// Activates those events of a descriptor that wait for some of what happened.
    pub(crate) fn activate_io(self, fd: c_int, happened: c_short) {
        let happened = happened & EV_IO;
        let poller = self.poller.borrow();
        for event in poller.events_of(fd) {
            let told = event.events.get() & happened;
            if told != 0 {
                self.activate(*event, told | (event.events.get() & EV_ET), 1);
            }
        }
    }

    /// Finalizes: takes the event out of everything and calls its finalizer from the loop.
    pub(crate) fn finalize(self, event: Ref<Event>, free: bool, finalizer: Finalizer) {
        self.delete(event, Wait::No);
        let closure = if free {
            Closure::FinalizeFree
        } else {
            Closure::Finalize
        };
        event.callback.closure.set(closure);
        event.callback.function.set(Function {
            finalizer: Some(finalizer),
        });
        self.activate(event, EV_FINALIZE, 1);
        event.callback.set(FINALIZING);
    }
}
