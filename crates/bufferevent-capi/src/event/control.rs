//! The loop: run, ended, timed, counted, looked through.

use std::ffi::{c_char, c_int, c_short, c_uint, c_void};

use crate::event::base::Base;
use crate::event::config::{event_base_get_method, event_base_priority_init};
use crate::event::create::current;
use crate::event::layout::{
    ACTIVE, ACTIVE_LATER, EV_SIGNAL, Event, EventFunction, INSERTED, INTERNAL, TIMED,
};
use crate::event::once::event_base_once;
use crate::ffi::{Opaque, Out, Ref, Value, code};
use crate::util::time::TimeVal;

/// Common timeouts that a base may have.
const MAX_COMMON_TIMEOUTS: usize = 256;

/// `EVENT_BASE_COUNT_ACTIVE`, `_VIRTUAL`, `_ADDED`.
const COUNT_ACTIVE: c_uint = 1;
const COUNT_VIRTUAL: c_uint = 2;
const COUNT_ADDED: c_uint = 4;

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_loop(base: Option<Ref<Base>>, flags: c_int) -> c_int {
    base.map_or(-1, |base| base.run(flags))
}

#[unsafe(no_mangle)]
extern "C" fn event_base_dispatch(base: Option<Ref<Base>>) -> c_int {
    event_base_loop(base, 0)
}

#[unsafe(no_mangle)]
extern "C" fn event_loop(flags: c_int) -> c_int {
    event_base_loop(current(), flags)
}

#[unsafe(no_mangle)]
extern "C" fn event_dispatch() -> c_int {
    event_base_loop(current(), 0)
}

extern "C" fn exit(_fd: c_int, _what: c_short, base: Opaque) {
    // SAFETY: the argument of `event_base_loopexit` below, whose event goes with its base.
    let base = unsafe { std::mem::transmute::<Opaque, Option<Ref<Base>>>(base) };
    if let Some(base) = base {
        let _guard = base.guard();
        base.state.exit.set(true);
    }
}

#[unsafe(no_mangle)]
extern "C" fn event_base_loopexit(base: Option<Ref<Base>>, after: Value<TimeVal>) -> c_int {
    let Some(base) = base else { return -1 };
    let argument = base.address().cast();
    event_base_once(
        Some(base),
        -1,
        crate::event::layout::EV_TIMEOUT,
        Some(exit),
        argument,
        after,
    )
}

#[unsafe(no_mangle)]
extern "C" fn event_loopexit(after: Value<TimeVal>) -> c_int {
    event_base_loopexit(current(), after)
}

#[unsafe(no_mangle)]
extern "C" fn event_base_loopbreak(base: Option<Ref<Base>>) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    base.state.broken.set(true);
    base.notify();
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_loopbreak() -> c_int {
    event_base_loopbreak(current())
}

#[unsafe(no_mangle)]
extern "C" fn event_base_loopcontinue(base: Option<Ref<Base>>) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    base.state.go_on.set(true);
    base.notify();
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_base_got_exit(base: Option<Ref<Base>>) -> c_int {
    c_int::from(base.is_some_and(|base| base.state.exit.get()))
}

#[unsafe(no_mangle)]
extern "C" fn event_base_got_break(base: Option<Ref<Base>>) -> c_int {
    c_int::from(base.is_some_and(|base| base.state.broken.get()))
}

#[unsafe(no_mangle)]
extern "C" fn event_once(
    fd: c_int,
    events: c_short,
    function: Option<EventFunction>,
    argument: Opaque,
    timeout: Value<TimeVal>,
) -> c_int {
    event_base_once(current(), fd, events, function, argument, timeout)
}

#[unsafe(no_mangle)]
extern "C" fn event_get_method() -> *const c_char {
    event_base_get_method(current())
}

#[unsafe(no_mangle)]
extern "C" fn event_priority_init(levels: c_int) -> c_int {
    event_base_priority_init(current(), levels)
}

#[unsafe(no_mangle)]
extern "C" fn event_gettime_monotonic(base: Option<Ref<Base>>, time: Out<TimeVal>) -> c_int {
    if base.is_none() || time.is_null() {
        return -1;
    }
    time.set(crate::util::time::monotonic());
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_base_gettimeofday_cached(base: Option<Ref<Base>>, time: Out<TimeVal>) -> c_int {
    let Some(base) = base.or_else(current) else {
        time.set(crate::util::time::wall());
        return code(!time.is_null());
    };
    let _guard = base.guard();
    time.set(base.wall());
    code(!time.is_null())
}

#[unsafe(no_mangle)]
extern "C" fn event_base_update_cache_time(base: Option<Ref<Base>>) -> c_int {
    let Some(base) = base.or_else(current) else {
        return -1;
    };
    let _guard = base.guard();
    if base.state.running.get() {
        base.keep_time();
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_base_get_num_events(base: Option<Ref<Base>>, which: c_uint) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    let mut sum = 0;
    for (bit, counter) in [
        (COUNT_ACTIVE, &base.active),
        (COUNT_VIRTUAL, &base.virtual_events),
        (COUNT_ADDED, &base.count),
    ] {
        sum += if which & bit != 0 { counter.get() } else { 0 };
    }
    sum as c_int
}

#[unsafe(no_mangle)]
extern "C" fn event_base_get_max_events(
    base: Option<Ref<Base>>,
    which: c_uint,
    clear: c_int,
) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    let mut sum = 0;
    for (bit, counter) in [
        (COUNT_ACTIVE, &base.active),
        (COUNT_VIRTUAL, &base.virtual_events),
        (COUNT_ADDED, &base.count),
    ] {
        sum += if which & bit != 0 {
            counter.most(clear != 0)
        } else {
            0
        };
    }
    sum as c_int
}

/// The event whose callback is running, if this is the loop's thread.
#[unsafe(no_mangle)]
extern "C" fn event_base_get_running_event(base: Option<Ref<Base>>) -> Option<Ref<Event>> {
    let base = base?;
    let _guard = base.guard();
    let here = base.state.running.get() && base.state.thread.get() == crate::lock::this_thread();
    base.state.current.get().filter(|_| here)?.event()
}

/// A value for `event_add` that says that many events will use it.
#[unsafe(no_mangle)]
extern "C" fn event_base_init_common_timeout(
    base: Option<Ref<Base>>,
    timeout: Value<TimeVal>,
) -> *const TimeVal {
    let (Some(base), Some(timeout)) = (base, timeout.get()) else {
        return std::ptr::null();
    };
    let _guard = base.guard();
    let plain = base.plain(timeout);
    let mut common = base.common_timeouts.borrow_mut();
    let at = common.iter().position(|own| {
        let own = base.plain(*own);
        (own.tv_sec, own.tv_usec) == (plain.tv_sec, plain.tv_usec)
    });
    let at = match at {
        Some(at) => at,
        None if common.len() == MAX_COMMON_TIMEOUTS => {
            crate::log::warn("event_base_init_common_timeout: too many common timeouts");
            return std::ptr::null();
        }
        None => {
            let value = base.common(common.len(), plain);
            let room = MAX_COMMON_TIMEOUTS - common.len();
            common.reserve_exact(room);
            common.push(value);
            common.len() - 1
        }
    };
    &raw const common[at]
}

#[unsafe(no_mangle)]
extern "C" fn event_base_active_by_fd(base: Option<Ref<Base>>, fd: c_int, events: c_short) {
    let Some(base) = base else { return };
    let _guard = base.guard();
    base.activate_io(fd, events);
    if events & crate::event::layout::EV_TIMEOUT != 0 {
        let timed: Vec<_> = {
            let poller = base.poller.borrow();
            let events = poller.events_of(fd).iter();
            events.filter(|event| event.has(TIMED)).copied().collect()
        };
        for event in timed {
            base.activate(event, crate::event::layout::EV_TIMEOUT, 1);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn event_base_active_by_signal(base: Option<Ref<Base>>, signal: c_int) {
    let Some(base) = base else { return };
    let _guard = base.guard();
    base.activate_signal(signal, 1);
}

type EachFunction = extern "C" fn(Ref<Base>, Ref<Event>, Opaque) -> c_int;

/// Calls the function with each event, with the lock held, until it answers something else than 0.
#[unsafe(no_mangle)]
extern "C" fn event_base_foreach_event(
    base: Option<Ref<Base>>,
    function: Option<EachFunction>,
    argument: Opaque,
) -> c_int {
    let (Some(base), Some(function)) = (base, function) else {
        return -1;
    };
    let _guard = base.guard();
    let all = base.all.borrow().clone();
    for event in all {
        if event.has(INTERNAL) {
            continue;
        }
        let result = function(base, event, argument);
        if result != 0 {
            return result;
        }
    }
    0
}

/// Writes what the base has to a stream of C's.
#[unsafe(no_mangle)]
extern "C" fn event_base_dump_events(base: Option<Ref<Base>>, stream: *mut c_void) {
    let Some(base) = base else { return };
    let _guard = base.guard();
    let mut text = String::new();
    let lists = [
        ("Inserted events:", INSERTED | TIMED),
        ("Active events:", ACTIVE | ACTIVE_LATER),
    ];
    for (title, flags) in lists {
        text.push_str(title);
        text.push('\n');
        for event in base.all.borrow().iter().filter(|event| event.has(flags)) {
            let kind = if event.waits_for(EV_SIGNAL) {
                "sig"
            } else {
                "fd"
            };
            text.push_str(&format!(
                "  {:p} [{kind} {}]{}{}\n",
                event.address(),
                event.fd.get(),
                names(event.events.get()),
                if event.has(INTERNAL) { " Internal" } else { "" },
            ));
        }
    }
    // SAFETY: C's promise: an open stream; the text is ours and so long.
    unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream.cast()) };
}

fn names(events: c_short) -> String {
    const NAMES: [(c_short, &str); 6] = [
        (0x02, " Read"),
        (0x04, " Write"),
        (0x80, " EOF"),
        (0x08, " Signal"),
        (0x10, " Persist"),
        (0x20, " ET"),
    ];
    NAMES
        .iter()
        .filter(|(bit, _)| events & bit != 0)
        .map(|(_, name)| *name)
        .collect()
}
