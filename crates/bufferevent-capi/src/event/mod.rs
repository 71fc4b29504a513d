//! Events and the loop: `event2/event.h`, `event_compat.h`, `watch.h`.

pub(crate) mod base;
mod config;
mod control;
pub(crate) mod create;
pub(crate) mod debug;
pub(crate) mod layout;
mod once;
mod operate;
mod poll;
mod queue;
mod signal;
mod turn;
mod watch;

/// The library gives up the memory of an event of its own.
pub(crate) fn forget(event: crate::ffi::Ref<layout::Event>) {
    debug::forget(event);
}
