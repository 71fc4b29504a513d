//! Debug mode: misuse of events that would corrupt memory ends the process with a reason.
//!
//! # Invariants
//! - Off, it costs one load. It is turned on before the first event is made, or not at all.

use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::event::layout::{Event, KNOWN};
use crate::ffi::Ref;
use crate::log;

static ON: AtomicBool = AtomicBool::new(false);
static TOO_LATE: AtomicBool = AtomicBool::new(false);

/// Addresses of events that were assigned.
static ASSIGNED: Mutex<Option<HashSet<usize>>> = Mutex::new(None);

fn with<R>(body: impl FnOnce(&mut HashSet<usize>) -> R) -> R {
    let mut assigned = ASSIGNED.lock().unwrap_or_else(PoisonError::into_inner);
    body(assigned.get_or_insert_default())
}

fn address(event: Ref<Event>) -> usize {
    event.address().cast::<c_void>() as usize
}

/// From here on debug mode cannot be turned on.
pub(crate) fn too_late() {
    TOO_LATE.store(true, Ordering::Relaxed);
}

/// An event is about to be assigned: it must not be in use.
pub(crate) fn assigned(event: Ref<Event>) {
    if !ON.load(Ordering::Relaxed) {
        return;
    }
    let again = with(|assigned| !assigned.insert(address(event)));
    if again && event.has(KNOWN) {
        log::fatal("event_assign: the event is added or active already");
    }
}

/// An event is about to be used: it must have been assigned.
pub(crate) fn used(event: Ref<Event>, operation: &str) {
    if ON.load(Ordering::Relaxed) && !with(|assigned| assigned.contains(&address(event))) {
        log::fatal(&format!(
            "{operation}: the event was not assigned, or its memory was given up"
        ));
    }
}

/// Whether an event may be at this address. Debug mode knows; without it, every one is believed.
pub(crate) fn may_be_there(address: usize) -> bool {
    !ON.load(Ordering::Relaxed) || with(|assigned| assigned.contains(&address))
}

pub(crate) fn forget(event: Ref<Event>) {
    if ON.load(Ordering::Relaxed) {
        with(|assigned| assigned.remove(&address(event)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn event_enable_debug_mode() {
    if ON.load(Ordering::Relaxed) {
        log::fatal("event_enable_debug_mode: called twice");
    }
    if TOO_LATE.load(Ordering::Relaxed) {
        log::fatal(
            "event_enable_debug_mode: must be called before any event or event_base is made",
        );
    }
    ON.store(true, Ordering::Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn event_debug_unassign(event: Option<Ref<Event>>) {
    if let Some(event) = event {
        event.callback.unset(super::layout::INIT);
        forget(event);
    }
}
