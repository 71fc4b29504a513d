//! Watchers: callbacks of the loop itself, before and after it waits.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use crate::event::base::Base;
use crate::ffi::{Opaque, Out, Ref};
use crate::util::time::{TimeVal, timeval};

/// When a watcher runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Prepare,
    Check,
}

/// `struct evwatch_prepare_cb_info`: what a prepare watcher may ask about.
pub(crate) struct Info(Option<Duration>);

/// That of either kind: only the second parameter's type differs, and only prepare watchers can use it.
type Callback = extern "C" fn(Ref<Watcher>, *const c_void, Opaque);

/// `struct evwatch`.
pub(crate) struct Watcher {
    base: Ref<Base>,
    kind: Kind,
    callback: Callback,
    argument: Opaque,
}

fn list(base: &Base, kind: Kind) -> &std::cell::RefCell<Vec<Ref<Watcher>>> {
    match kind {
        Kind::Prepare => &base.prepare,
        Kind::Check => &base.check,
    }
}

/// Runs all watchers of a kind, with the lock released.
pub(crate) fn run(base: Ref<Base>, kind: Kind, timeout: Option<Duration>) {
    if list(&base, kind).borrow().is_empty() {
        return;
    }
    let info = Info(timeout);
    let watchers = list(&base, kind).borrow().clone();
    for watcher in watchers {
        // One that was freed by another is not in the list any more.
        if !list(&base, kind).borrow().contains(&watcher) {
            continue;
        }
        let (callback, argument) = (watcher.callback, watcher.argument);
        base.unlocked(|| callback(watcher, (&raw const info).cast(), argument));
    }
}

fn make(
    base: Option<Ref<Base>>,
    kind: Kind,
    callback: Option<Callback>,
    argument: Opaque,
) -> Option<Ref<Watcher>> {
    let (base, callback) = (base?, callback?);
    let watcher = Ref::make(Watcher {
        base,
        kind,
        callback,
        argument,
    })?;
    let _guard = base.guard();
    list(&base, kind).borrow_mut().push(watcher);
    Some(watcher)
}

#[unsafe(no_mangle)]
extern "C" fn evwatch_prepare_new(
    base: Option<Ref<Base>>,
    callback: Option<Callback>,
    argument: Opaque,
) -> Option<Ref<Watcher>> {
    make(base, Kind::Prepare, callback, argument)
}

#[unsafe(no_mangle)]
extern "C" fn evwatch_check_new(
    base: Option<Ref<Base>>,
    callback: Option<Callback>,
    argument: Opaque,
) -> Option<Ref<Watcher>> {
    make(base, Kind::Check, callback, argument)
}

#[unsafe(no_mangle)]
extern "C" fn evwatch_base(watcher: Option<Ref<Watcher>>) -> Option<Ref<Base>> {
    watcher.map(|watcher| watcher.base)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evwatch_free(watcher: Option<Ref<Watcher>>) {
    let Some(watcher) = watcher else { return };
    let _guard = watcher.base.guard();
    list(&watcher.base, watcher.kind)
        .borrow_mut()
        .retain(|own| *own != watcher);
    // SAFETY: it was made by `make` and is in no list; `run` has copied what it calls.
    unsafe { watcher.free() };
}

/// How long the loop is going to wait; 0 if it is not limited.
#[unsafe(no_mangle)]
extern "C" fn evwatch_prepare_get_timeout(info: Option<Ref<Info>>, timeout: Out<TimeVal>) -> c_int {
    match info.and_then(|info| info.0) {
        Some(span) => {
            timeout.set(timeval(span));
            1
        }
        None => 0,
    }
}
