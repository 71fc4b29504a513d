//! `struct event` and `struct event_callback` as libevent 2.1 lays them out: the program allocates them, so their size and the
//! places of what it may look at are part of the binary interface.
//!
//! # Invariants
//! - 128 bytes, and `flags` at 16: memory of zeros reads as "not initialised".
//! - What is not written by an assignment is not read before one.
//! - An event that is in a queue, a table or the timers of a base has flags that say so. C's promise is that its
//!   memory stays until `event_del`.

use std::cell::Cell;
use std::ffi::{c_int, c_short};
use std::mem::offset_of;

use crate::event::base::Base;
use crate::ffi::{Opaque, Ref};
use crate::util::time::TimeVal;

pub(crate) const EV_TIMEOUT: c_short = 0x01;
pub(crate) const EV_READ: c_short = 0x02;
pub(crate) const EV_WRITE: c_short = 0x04;
pub(crate) const EV_SIGNAL: c_short = 0x08;
pub(crate) const EV_PERSIST: c_short = 0x10;
pub(crate) const EV_ET: c_short = 0x20;
pub(crate) const EV_FINALIZE: c_short = 0x40;
pub(crate) const EV_CLOSED: c_short = 0x80;

/// What an event waits for on a descriptor.
pub(crate) const EV_IO: c_short = EV_READ | EV_WRITE | EV_CLOSED;

/// Where an event is: bits of `flags`.
pub(crate) const TIMED: c_short = 0x01;
pub(crate) const INSERTED: c_short = 0x02;
pub(crate) const ACTIVE: c_short = 0x08;
pub(crate) const INTERNAL: c_short = 0x10;
pub(crate) const ACTIVE_LATER: c_short = 0x20;
pub(crate) const FINALIZING: c_short = 0x40;
pub(crate) const INIT: c_short = 0x80;

/// The bits that mean that the base knows the event.
pub(crate) const KNOWN: c_short = TIMED | INSERTED | ACTIVE | ACTIVE_LATER;

/// How a callback is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Closure {
    /// With descriptor, what happened, and argument.
    Event = 0,
    /// The same, as often as the signal came.
    Signal = 1,
    /// The same, after it was added again with its timeout.
    Persist = 2,
    /// With itself and the argument: no event, but a deferred call of the library's own.
    Own = 3,
    /// The finalizer of a deferred call.
    FinalizeOwn = 4,
    /// An event's finalizer.
    Finalize = 5,
    /// The same, and then the event's memory is released.
    FinalizeFree = 6,
}

pub(crate) type EventFunction = extern "C" fn(c_int, c_short, Opaque);
pub(crate) type OwnFunction = extern "C" fn(Ref<Callback>, Opaque);
pub(crate) type Finalizer = extern "C" fn(Ref<Event>, Opaque);

/// What is called: which one it is, `closure` says.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union Function {
    pub(crate) event: Option<EventFunction>,
    pub(crate) own: Option<OwnFunction>,
    pub(crate) finalizer: Option<Finalizer>,
}

/// `struct event_callback`.
#[repr(C)]
pub(crate) struct Callback {
    pub(crate) next: Cell<Option<Ref<Callback>>>,
    pub(crate) prev: Cell<Option<Ref<Callback>>>,
    pub(crate) flags: Cell<c_short>,
    pub(crate) priority: Cell<u8>,
    pub(crate) closure: Cell<Closure>,
    pub(crate) function: Cell<Function>,
    pub(crate) argument: Cell<Opaque>,
}

/// `struct event`.
#[repr(C)]
pub(crate) struct Event {
    pub(crate) callback: Callback,
    /// The key of its timer, while `TIMED`.
    pub(crate) timer: Cell<u64>,
    /// Its place in the base's list of all, while one of `KNOWN`.
    pub(crate) place: Cell<u64>,
    pub(crate) fd: Cell<c_int>,
    pub(crate) base: Cell<Option<Ref<Base>>>,
    /// The timeout of a persistent event, to be set again after each call.
    pub(crate) interval: Cell<TimeVal>,
    /// How often a signal has yet to be told.
    pub(crate) calls: Cell<c_short>,
    /// Whether the calls that are going on are to go on.
    pub(crate) calling: Cell<Option<Ref<Cell<c_short>>>>,
    pub(crate) events: Cell<c_short>,
    pub(crate) result: Cell<c_short>,
    /// When its timer is due, on the base's clock.
    pub(crate) due: Cell<TimeVal>,
}

const _: () = {
    assert!(size_of::<Callback>() == 40);
    assert!(offset_of!(Callback, flags) == 16);
    assert!(offset_of!(Callback, priority) == 18);
    assert!(offset_of!(Callback, closure) == 19);
    assert!(offset_of!(Callback, function) == 24);
    assert!(offset_of!(Callback, argument) == 32);
    assert!(size_of::<Event>() == 128);
    assert!(offset_of!(Event, fd) == 56);
    assert!(offset_of!(Event, base) == 64);
    assert!(offset_of!(Event, events) == 104);
    assert!(offset_of!(Event, result) == 106);
    assert!(offset_of!(Event, due) == 112);
};

pub(crate) const NO_TIME: TimeVal = TimeVal {
    tv_sec: 0,
    tv_usec: 0,
};

impl Callback {
    pub(crate) fn new(closure: Closure, function: Function, argument: Opaque) -> Self {
        Self {
            next: Cell::new(None),
            prev: Cell::new(None),
            flags: Cell::new(INIT),
            priority: Cell::new(0),
            closure: Cell::new(closure),
            function: Cell::new(function),
            argument: Cell::new(argument),
        }
    }

    /// A deferred call of the library's own.
    pub(crate) fn own(function: OwnFunction, argument: Opaque) -> Self {
        let callback = Self::new(
            Closure::Own,
            Function {
                own: Some(function),
            },
            argument,
        );
        callback.flags.set(0);
        callback
    }

    pub(crate) fn has(&self, flags: c_short) -> bool {
        self.flags.get() & flags != 0
    }

    pub(crate) fn set(&self, flags: c_short) {
        self.flags.set(self.flags.get() | flags);
    }

    pub(crate) fn unset(&self, flags: c_short) {
        self.flags.set(self.flags.get() & !flags);
    }
}

impl Ref<Callback> {
    /// The event that this is the beginning of, if it is one's.
    pub(crate) fn event(self) -> Option<Ref<Event>> {
        // SAFETY: `INIT` is set for those callbacks that are the first member of an event, and for no others.
        self.has(INIT).then(|| unsafe { self.cast::<Event>() })
    }
}

impl Ref<Event> {
    pub(crate) fn callback(self) -> Ref<Callback> {
        // SAFETY: it is the event's first member.
        unsafe { self.cast::<Callback>() }
    }
}

impl Event {
    pub(crate) fn has(&self, flags: c_short) -> bool {
        self.callback.has(flags)
    }

    pub(crate) fn waits_for(&self, events: c_short) -> bool {
        self.events.get() & events != 0
    }

    pub(crate) fn function(&self) -> Option<EventFunction> {
        // SAFETY: every variant is a function pointer or null, so reading one as another is no more than a number; it is
        // called as an event's function only where `closure` says so.
        unsafe { self.callback.function.get().event }
    }
}
