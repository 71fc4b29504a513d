//! Bases: configured, made, freed, made anew after a fork.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int};

use crate::event::base::{Base, Limits, Wait};
use crate::event::create::{current, set_current};
use crate::event::debug;
use crate::event::layout::{FINALIZING, INTERNAL};
use crate::event::poll::Method;
use crate::event::queue::Queue;
use crate::event::watch::evwatch_free;
use crate::ffi::{Ref, Text, Value, code};
use crate::lock::threads_in_use;
use crate::util::time::{TimeVal, duration};

/// `EVENT_BASE_FLAG_NOLOCK`, `EVENT_BASE_FLAG_IGNORE_ENV`.
const NOLOCK: c_int = 0x01;
const IGNORE_ENV: c_int = 0x02;

/// Priorities that a base may have.
const MAX_PRIORITIES: c_int = 256;

/// `struct event_config`.
pub(crate) struct Config {
    avoided: RefCell<Vec<Vec<u8>>>,
    features: Cell<c_int>,
    flags: Cell<c_int>,
    limits: Cell<Limits>,
}

const NO_LIMITS: Limits = Limits {
    interval: None,
    callbacks: -1,
    from_priority: c_int::MAX,
};

#[unsafe(no_mangle)]
extern "C" fn event_config_new() -> Option<Ref<Config>> {
    Ref::make(Config {
        avoided: RefCell::new(Vec::new()),
        features: Cell::new(0),
        flags: Cell::new(0),
        limits: Cell::new(NO_LIMITS),
    })
}

#[unsafe(no_mangle)]
extern "C" fn event_config_free(config: Option<Ref<Config>>) {
    if let Some(config) = config {
        // SAFETY: it came from `event_config_new`, and C gives it up.
        unsafe { config.free() };
    }
}

#[unsafe(no_mangle)]
extern "C" fn event_config_avoid_method(config: Option<Ref<Config>>, method: Text<'_>) -> c_int {
    let (Some(config), Some(method)) = (config, method.get()) else {
        return -1;
    };
    config.avoided.borrow_mut().push(method.to_bytes().to_vec());
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_config_require_features(config: Option<Ref<Config>>, features: c_int) -> c_int {
    let Some(config) = config else { return -1 };
    config.features.set(features);
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_config_set_flag(config: Option<Ref<Config>>, flag: c_int) -> c_int {
    let Some(config) = config else { return -1 };
    config.flags.set(config.flags.get() | flag);
    0
}

/// A hint that only completion ports could use.
#[unsafe(no_mangle)]
extern "C" fn event_config_set_num_cpus_hint(config: Option<Ref<Config>>, _cpus: c_int) -> c_int {
    code(config.is_some())
}

#[unsafe(no_mangle)]
extern "C" fn event_config_set_max_dispatch_interval(
    config: Option<Ref<Config>>,
    interval: Value<TimeVal>,
    callbacks: c_int,
    from_priority: c_int,
) -> c_int {
    let Some(config) = config else { return -1 };
    let limited = !interval.is_null() || callbacks >= 0;
    config.limits.set(Limits {
        interval: interval.get().map(duration),
        callbacks,
        from_priority: if limited {
            from_priority.max(0)
        } else {
            c_int::MAX
        },
    });
    0
}

/// The first method that the configuration and the environment allow.
fn choose(config: Option<Ref<Config>>) -> Option<Method> {
    let flags = config.map_or(0, |config| config.flags.get());
    let features = config.map_or(0, |config| config.features.get());
    Method::ALL.into_iter().find(|method| {
        let avoided = config.is_some_and(|config| {
            let avoided = config.avoided.borrow();
            avoided.iter().any(|name| name == method.name().to_bytes())
        });
        let forbidden = flags & IGNORE_ENV == 0 && std::env::var_os(method.variable()).is_some();
        !avoided && !forbidden && method.features() & features == features
    })
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_new_with_config(
    config: Option<Ref<Config>>,
) -> Option<Ref<Base>> {
    debug::too_late();
    let method = choose(config)?;
    let flags = config.map_or(0, |config| config.flags.get());
    let limits = config.map_or(NO_LIMITS, |config| config.limits.get());
    let mut base = Base::new(method, flags, limits)?;
    if flags & NOLOCK != 0 {
        base.lock = None;
    }
    let threaded = base.lock.is_some() && threads_in_use();
    let base = Ref::make(base)?;
    if threaded && !base.make_notifiable() {
        event_base_free(Some(base));
        return None;
    }
    Some(base)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_new() -> Option<Ref<Base>> {
    event_base_new_with_config(None)
}

#[unsafe(no_mangle)]
extern "C" fn event_init() -> Option<Ref<Base>> {
    let base = event_base_new()?;
    set_current(Some(base));
    Some(base)
}

#[unsafe(no_mangle)]
extern "C" fn evthread_make_base_notifiable(base: Option<Ref<Base>>) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    code(base.make_notifiable())
}

#[unsafe(no_mangle)]
extern "C" fn event_reinit(base: Option<Ref<Base>>) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    code(base.reinit())
}

/// Takes all events off the base; runs what finalizers wait, if asked to. Answers whether there was anything.
fn empty(base: Ref<Base>, finalizers: bool) -> bool {
    let mut found = false;
    loop {
        let event = {
            let all = base.all.borrow();
            all.iter()
                .rev()
                .find(|event| !event.has(INTERNAL | FINALIZING))
                .copied()
        };
        let Some(event) = event else { break };
        base.delete(event, Wait::No);
        found = true;
    }
    base.queue_put_off();
    for level in 0..base.priorities() {
        loop {
            let callback = base.queues.borrow()[level].first();
            let Some(callback) = callback else { break };
            found = true;
            base.unqueue(callback);
            if callback.has(FINALIZING) && finalizers {
                base.call(callback);
            }
        }
    }
    found
}

fn free(base: Option<Ref<Base>>, finalizers: bool) {
    let Some(base) = base.or_else(current) else {
        crate::log::warn("event_base_free: no base to free");
        return;
    };
    if current() == Some(base) {
        set_current(None);
    }
    // Finalizers may finalize others.
    while empty(base, finalizers) {}
    for once in std::mem::take(&mut *base.once.borrow_mut()) {
        debug::forget(Ref::of(&once.event));
        // SAFETY: its event was deleted above, and nobody else knows it.
        unsafe { once.free() };
    }
    let watchers = [&base.prepare, &base.check].map(|list| list.borrow().clone());
    for watcher in watchers.into_iter().flatten() {
        evwatch_free(Some(watcher));
    }
    let internal = std::mem::take(&mut *base.internal.borrow_mut());
    for event in internal {
        base.delete(event, Wait::NotEvenFinalizing);
        // SAFETY: made by `internal_event`, in no table any more.
        unsafe { event.free() };
    }
    // SAFETY: it came from `event_base_new`, C gives it up, and no event knows it any more but those that C may not use.
    unsafe { base.free() };
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_free(base: Option<Ref<Base>>) {
    free(base, true);
}

#[unsafe(no_mangle)]
extern "C" fn event_base_free_nofinalize(base: Option<Ref<Base>>) {
    free(base, false);
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_priority_init(base: Option<Ref<Base>>, levels: c_int) -> c_int {
    let Some(base) = base else { return -1 };
    let _guard = base.guard();
    if !(1..MAX_PRIORITIES).contains(&levels) || base.active.get() > 0 {
        return -1;
    }
    let queues = (0..levels).map(|_| Queue::default()).collect();
    *base.queues.borrow_mut() = queues;
    0
}

#[unsafe(no_mangle)]
extern "C" fn event_base_get_npriorities(base: Option<Ref<Base>>) -> c_int {
    let base = base.or_else(current);
    base.map_or(-1, |base| {
        let _guard = base.guard();
        base.priorities() as c_int
    })
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn event_base_get_method(base: Option<Ref<Base>>) -> *const c_char {
    base.map_or(std::ptr::null(), |base| {
        base.poller.borrow().method().name().as_ptr()
    })
}

#[unsafe(no_mangle)]
extern "C" fn event_base_get_signal_method(base: Option<Ref<Base>>) -> *const c_char {
    base.map_or(std::ptr::null(), |_| c"signal".as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn event_base_get_features(base: Option<Ref<Base>>) -> c_int {
    base.map_or(0, |base| base.poller.borrow().method().features())
}

/// Names of methods, and a null behind them.
struct Names([*const c_char; 3]);

// SAFETY: pointers to strings that stay for ever.
unsafe impl Sync for Names {}

#[unsafe(no_mangle)]
extern "C" fn event_get_supported_methods() -> *const *const c_char {
    static NAMES: Names = Names([c"epoll".as_ptr(), c"poll".as_ptr(), std::ptr::null()]);
    NAMES.0.as_ptr()
}

const VERSION: &CStr = c"2.1.12-stable";
const VERSION_NUMBER: u32 = 0x0201_0c00;

#[unsafe(no_mangle)]
extern "C" fn event_get_version() -> *const c_char {
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn event_get_version_number() -> u32 {
    VERSION_NUMBER
}

/// What the library holds for the whole process is given back by the system.
#[unsafe(no_mangle)]
extern "C" fn libevent_global_shutdown() {
    set_current(None);
}
