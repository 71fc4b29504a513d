//! Events that the base makes, calls once, and frees: `event_base_once`.

use std::ffi::{c_int, c_short};

use crate::event::base::Base;
use crate::event::create;
use crate::event::layout::{EV_IO, EV_PERSIST, EV_SIGNAL, EV_TIMEOUT, Event, EventFunction};
use crate::ffi::{Opaque, Ref, Value};
use crate::log;
use crate::util::time::TimeVal;

/// One such event, and what it is for.
pub(crate) struct Once {
    pub(crate) event: Event,
    base: Ref<Base>,
    function: EventFunction,
    argument: Opaque,
}

extern "C" fn call(fd: c_int, what: c_short, once: Opaque) {
    // SAFETY: the argument of the event below, which is freed here and by the base's end only.
    let Some(once) = (unsafe { std::mem::transmute::<Opaque, Option<Ref<Once>>>(once) }) else {
        return;
    };
    let (function, argument) = (once.function, once.argument);
    {
        let _guard = once.base.guard();
        once.base.once.borrow_mut().retain(|own| *own != once);
    }
    function(fd, what, argument);
    super::debug::forget(Ref::of(&once.event));
    // SAFETY: it is in no list any more, and its event is not added: it was called, and is not persistent.
    unsafe { once.free() };
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_once(
    base: Option<Ref<Base>>,
    fd: c_int,
    events: c_short,
    function: Option<EventFunction>,
    argument: Opaque,
    timeout: Value<TimeVal>,
) -> c_int {
    let (Some(base), Some(function)) = (base, function) else {
        return -1;
    };
    if events & (EV_SIGNAL | EV_PERSIST) != 0 {
        return -1; // They are not for once.
    }
    let at_once = events & EV_IO == 0;
    if at_once && events & EV_TIMEOUT == 0 {
        log::warn("event_base_once: neither a descriptor nor a timeout to wait for");
        return -1;
    }
    let fd = if at_once { -1 } else { fd };
    let Some(once) = Ref::make(Once {
        event: create::unassigned(),
        base,
        function,
        argument,
    }) else {
        return -1;
    };
    let event = Ref::of(&once.event);
    let events = events & (EV_IO | super::layout::EV_ET);
    create::assign(
        event,
        Some(base),
        fd,
        events,
        Some(call),
        once.address().cast(),
    );
    let _guard = base.guard();
    let timeout = timeout.get();
    let now = timeout.is_none_or(|timeout| timeout.tv_sec <= 0 && timeout.tv_usec <= 0);
    let done = if at_once && now {
        base.activate(event, EV_TIMEOUT, 1);
        true
    } else {
        base.add(event, timeout)
    };
    if done {
        base.once.borrow_mut().push(once);
        0
    } else {
        // SAFETY: it was made just now and is in no list.
        unsafe { once.free() };
        -1
    }
}
