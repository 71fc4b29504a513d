//! Events: added, deleted, activated, asked about.

use std::ffi::{c_int, c_short};

use crate::event::base::{Base, Wait};
use crate::event::debug;
use crate::event::layout::{
    ACTIVE, ACTIVE_LATER, EV_IO, EV_SIGNAL, EV_TIMEOUT, Event, EventFunction, INIT, INSERTED, TIMED,
};
use crate::ffi::{Opaque, Out, Ref, Value, code};
use crate::log;
use crate::util::time::{TimeVal, add, timeval};

/// The base of an event that is to be used, if it has one.
fn base_of(event: Option<Ref<Event>>, operation: &str) -> Option<(Ref<Event>, Ref<Base>)> {
    let event = event?;
    debug::used(event, operation);
    match event.base.get() {
        Some(base) => Some((event, base)),
        None => {
            log::warn(&format!("{operation}: the event has no base"));
            None
        }
    }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_add(event: Option<Ref<Event>>, timeout: Value<TimeVal>) -> c_int {
    let Some((event, base)) = base_of(event, "event_add") else {
        return -1;
    };
    let _guard = base.guard();
    code(base.add(event, timeout.get()))
}

fn delete(event: Option<Ref<Event>>, wait: Wait) -> c_int {
    let Some((event, base)) = base_of(event, "event_del") else {
        return -1;
    };
    let _guard = base.guard();
    base.delete(event, wait);
    0
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_del(event: Option<Ref<Event>>) -> c_int {
    delete(event, Wait::Auto)
}

#[unsafe(no_mangle)]
extern "C" fn event_del_noblock(event: Option<Ref<Event>>) -> c_int {
    delete(event, Wait::No)
}

#[unsafe(no_mangle)]
extern "C" fn event_del_block(event: Option<Ref<Event>>) -> c_int {
    delete(event, Wait::Yes)
}

#[unsafe(no_mangle)]
extern "C" fn event_remove_timer(event: Option<Ref<Event>>) -> c_int {
    let Some((event, base)) = base_of(event, "event_remove_timer") else {
        return -1;
    };
    let _guard = base.guard();
    base.clear_timer(event);
    event.interval.set(super::layout::NO_TIME);
    0
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_active(event: Option<Ref<Event>>, result: c_int, calls: c_short) {
    if let Some((event, base)) = base_of(event, "event_active") {
        let _guard = base.guard();
        base.activate(event, result as c_short, calls);
    }
}

/// Which of `what` the event waits for, or is about to be called with.
#[unsafe(no_mangle)]
extern "C" fn event_pending(event: Option<Ref<Event>>, what: c_short, due: Out<TimeVal>) -> c_int {
    let Some(event) = event else { return 0 };
    debug::used(event, "event_pending");
    let Some(base) = event.base.get() else {
        return 0;
    };
    let _guard = base.guard();
    let mut flags = 0;
    if event.has(INSERTED) {
        flags |= event.events.get() & (EV_IO | EV_SIGNAL);
    }
    if event.has(ACTIVE | ACTIVE_LATER) {
        flags |= event.result.get();
    }
    if event.has(TIMED) {
        flags |= EV_TIMEOUT;
    }
    let asked = what & (EV_TIMEOUT | EV_IO | EV_SIGNAL);
    if flags & asked & EV_TIMEOUT != 0 {
        let left = Base::moment(event.due.get()) - base.now();
        due.set(add(base.wall(), timeval(left)));
    }
    c_int::from(flags & asked)
}

#[unsafe(no_mangle)]
extern "C" fn event_initialized(event: Option<Ref<Event>>) -> c_int {
    c_int::from(event.is_some_and(|event| event.has(INIT)))
}

#[unsafe(no_mangle)]
extern "C" fn event_get_fd(event: Option<Ref<Event>>) -> c_int {
    event.map_or(-1, |event| event.fd.get())
}

#[unsafe(no_mangle)]
extern "C" fn event_get_base(event: Option<Ref<Event>>) -> Option<Ref<Base>> {
    event?.base.get()
}

#[unsafe(no_mangle)]
extern "C" fn event_get_events(event: Option<Ref<Event>>) -> c_short {
    event.map_or(0, |event| event.events.get())
}

#[unsafe(no_mangle)]
extern "C" fn event_get_callback(event: Option<Ref<Event>>) -> Option<EventFunction> {
    event?.function()
}

#[unsafe(no_mangle)]
extern "C" fn event_get_callback_arg(event: Option<Ref<Event>>) -> Opaque {
    event.map_or(std::ptr::null_mut(), |event| event.callback.argument.get())
}

#[unsafe(no_mangle)]
extern "C" fn event_get_priority(event: Option<Ref<Event>>) -> c_int {
    event.map_or(-1, |event| c_int::from(event.callback.priority.get()))
}

#[unsafe(no_mangle)]
extern "C" fn event_get_assignment(
    event: Option<Ref<Event>>,
    base: Out<Option<Ref<Base>>>,
    fd: Out<c_int>,
    events: Out<c_short>,
    function: Out<Option<EventFunction>>,
    argument: Out<Opaque>,
) {
    let Some(event) = event else { return };
    debug::used(event, "event_get_assignment");
    base.set(event.base.get());
    fd.set(event.fd.get());
    events.set(event.events.get());
    function.set(event.function());
    argument.set(event.callback.argument.get());
}

#[unsafe(no_mangle)]
extern "C" fn event_get_struct_event_size() -> usize {
    size_of::<Event>()
}
