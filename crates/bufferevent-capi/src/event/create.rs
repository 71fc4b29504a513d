//! Events: made, assigned, freed, finalized.

use std::cell::Cell;
use std::ffi::{c_int, c_short, c_uint};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::event::base::{Base, Wait};
use crate::event::debug;
use crate::event::layout::{
    Callback, Closure, EV_IO, EV_PERSIST, EV_SIGNAL, Event, EventFunction, Finalizer, Function,
    INIT, NO_TIME,
};
use crate::ffi::{Opaque, Ref, code};
use crate::{log, memory};

/// The base of functions that are not told one: the one that `event_init` made last.
static CURRENT: AtomicPtr<Base> = AtomicPtr::new(std::ptr::null_mut());

pub(crate) fn current() -> Option<Ref<Base>> {
    // SAFETY: null, or a base that was set as current and not freed since: its end clears this.
    unsafe { std::mem::transmute::<*mut Base, Option<Ref<Base>>>(CURRENT.load(Ordering::Acquire)) }
}

pub(crate) fn set_current(base: Option<Ref<Base>>) {
    let address = base.map_or(std::ptr::null_mut(), Ref::address);
    CURRENT.store(address, Ordering::Release);
}

/// An event that is nothing yet.
pub(crate) fn unassigned() -> Event {
    let function = Function { event: None };
    Event {
        callback: Callback::new(Closure::Event, function, std::ptr::null_mut()),
        timer: Cell::new(0),
        place: Cell::new(0),
        fd: Cell::new(-1),
        base: Cell::new(None),
        interval: Cell::new(NO_TIME),
        calls: Cell::new(0),
        calling: Cell::new(None),
        events: Cell::new(0),
        result: Cell::new(0),
        due: Cell::new(NO_TIME),
    }
}

/// Says what an event is. Its memory may hold anything before.
pub(crate) fn assign(
    event: Ref<Event>,
    base: Option<Ref<Base>>,
    fd: c_int,
    events: c_short,
    function: Option<EventFunction>,
    argument: Opaque,
) -> bool {
    debug::too_late();
    let base = base.or_else(current);
    debug::assigned(event);
    if events & EV_SIGNAL != 0 && events & EV_IO != 0 {
        log::warn("event_assign: EV_SIGNAL goes with no EV_READ, EV_WRITE or EV_CLOSED");
        return false;
    }
    let closure = match (events & EV_SIGNAL != 0, events & EV_PERSIST != 0) {
        (true, _) => Closure::Signal,
        (false, true) => Closure::Persist,
        (false, false) => Closure::Event,
    };
    let callback = Callback::new(closure, Function { event: function }, argument);
    let levels = base.map_or(1, |base| base.priorities());
    callback.priority.set((levels / 2) as u8);
    event.write(Event {
        callback,
        fd: Cell::new(fd),
        base: Cell::new(base),
        events: Cell::new(events),
        ..unassigned()
    });
    true
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_assign(
    event: Option<Ref<Event>>,
    base: Option<Ref<Base>>,
    fd: c_int,
    events: c_short,
    function: Option<EventFunction>,
    argument: Opaque,
) -> c_int {
    let Some(event) = event else { return -1 };
    let itself = argument == event_self_cbarg();
    let argument = if itself {
        event.address().cast()
    } else {
        argument
    };
    code(assign(event, base, fd, events, function, argument))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_set(
    event: Option<Ref<Event>>,
    fd: c_int,
    events: c_short,
    function: Option<EventFunction>,
    argument: Opaque,
) {
    let done = event_assign(event, None, fd, events, function, argument);
    debug_assert_eq!(done, 0);
}

/// Stands for the event itself, as its argument.
#[unsafe(no_mangle)]
extern "C" fn event_self_cbarg() -> Opaque {
    static ITSELF: u8 = 0;
    (&raw const ITSELF).cast_mut().cast()
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_new(
    base: Option<Ref<Base>>,
    fd: c_int,
    events: c_short,
    function: Option<EventFunction>,
    argument: Opaque,
) -> Option<Ref<Event>> {
    let event = Ref::make(unassigned())?;
    if event_assign(Some(event), base, fd, events, function, argument) == 0 {
        return Some(event);
    }
    debug::forget(event);
    // SAFETY: it was made just now, and nobody knows it.
    unsafe { event.free() };
    None
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_free(event: Option<Ref<Event>>) {
    let Some(event) = event else { return };
    if let Some(base) = event.base.get() {
        let _guard = base.guard();
        base.delete(event, Wait::Auto);
    }
    debug::forget(event);
    memory::release(event.address().cast());
}

fn finalize(event: Option<Ref<Event>>, finalizer: Option<Finalizer>, free: bool) -> c_int {
    let (Some(event), Some(finalizer)) = (event, finalizer) else {
        return -1;
    };
    let Some(base) = event.base.get() else {
        log::warn("event_finalize: the event has no base");
        return -1;
    };
    let _guard = base.guard();
    base.finalize(event, free, finalizer);
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_finalize(
    _flags: c_uint,
    event: Option<Ref<Event>>,
    finalizer: Option<Finalizer>,
) -> c_int {
    finalize(event, finalizer, false)
}

#[unsafe(no_mangle)]
extern "C" fn event_free_finalize(
    _flags: c_uint,
    event: Option<Ref<Event>>,
    finalizer: Option<Finalizer>,
) -> c_int {
    finalize(event, finalizer, true)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_set(
    base: Option<Ref<Base>>,
    event: Option<Ref<Event>>,
) -> c_int {
    let (Some(base), Some(event)) = (base, event) else {
        return -1;
    };
    debug::used(event, "event_base_set");
    if event.callback.flags.get() & !super::layout::INTERNAL != INIT {
        return -1; // Only one that is nowhere can move.
    }
    event.base.set(Some(base));
    event.callback.priority.set((base.priorities() / 2) as u8);
    0
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_priority_set(event: Option<Ref<Event>>, priority: c_int) -> c_int {
    let Some(event) = event else { return -1 };
    debug::used(event, "event_priority_set");
    if event.has(super::layout::ACTIVE) {
        return -1;
    }
    let Some(base) = event.base.get() else {
        return -1;
    };
    match u8::try_from(priority) {
        Ok(priority) if usize::from(priority) < base.priorities() => {
            event.callback.priority.set(priority);
            0
        }
        Ok(_) | Err(_) => -1,
    }
}
