//! Telling the program: at once, or from the loop.
//!
//! # Invariants
//! - One deferred run tells, in order: that it is connected, alone; what was read; what was written; all other events as one.
//! - What waits to be told keeps the bufferevent alive.
//! - Setting other callbacks does not cancel what waits: the new ones are told.

use std::ffi::{c_int, c_short};

use crate::bufferevent::{
    Bev, CONNECTED, DEFER_CALLBACKS, DataFunction, EventsFunction, UNLOCK_CALLBACKS, of_argument,
};
use crate::event::layout::{Callback, EV_READ, EV_WRITE};
use crate::ffi::{Opaque, Ref, errno, set_errno};
use crate::lock::Guard;

/// `BEV_TRIG_IGNORE_WATERMARKS`.
pub(crate) const IGNORE_MARKS: c_int = 1 << 16;

impl Ref<Bev> {
    pub(crate) fn set_callbacks(
        self,
        on_read: Option<DataFunction>,
        on_write: Option<DataFunction>,
        on_event: Option<EventsFunction>,
        argument: Opaque,
    ) {
        self.on_read.set(on_read);
        self.on_write.set(on_write);
        self.on_event.set(on_event);
        self.argument.set(argument);
    }

    fn defer(self) {
        let Some(base) = self.base.get() else { return };
        let _guard = base.guard();
        if base.defer(Ref::of(&self.deferred)) {
            self.retain(); // Until it has run.
        }
    }

    fn defers(self, options: c_int) -> bool {
        (self.options.get() | options) & DEFER_CALLBACKS != 0
    }

    /// Tells what was read and written, where the marks are reached or do not count.
    #[inline]
    pub(crate) fn trigger(self, directions: c_short, options: c_int) {
        let always = options & IGNORE_MARKS != 0;
        if directions & EV_READ != 0 && (always || self.input.len() >= self.read_mark.low.get()) {
            self.tell_read(options);
        }
        if directions & EV_WRITE != 0 && (always || self.output.len() <= self.write_mark.low.get())
        {
            self.tell_write(options);
        }
    }

    #[inline]
    fn tell_read(self, options: c_int) {
        let Some(function) = self.on_read.get() else {
            return;
        };
        if self.defers(options) {
            self.pending.read.set(true);
            self.defer();
        } else {
            self.call_read(|| function(self, self.argument.get()));
        }
    }

    /// Calls, and once more from the loop if much is left: at the high mark, nothing else would come to tell of it. One that took
    /// nothing is not asked again.
    #[inline]
    fn call_read(self, call: impl FnOnce()) {
        let before = self.input.len();
        call();
        let (after, high) = (self.input.len(), self.read_mark.high.get());
        if high != 0 && after >= high && after < before && self.is_enabled(EV_READ) {
            self.pending.read.set(true);
            self.defer();
        }
    }

    fn tell_write(self, options: c_int) {
        let Some(function) = self.on_write.get() else {
            return;
        };
        if self.defers(options) {
            self.pending.write.set(true);
            self.defer();
        } else {
            function(self, self.argument.get());
        }
    }

    pub(crate) fn tell_event(self, what: c_short, options: c_int) {
        let Some(function) = self.on_event.get() else {
            return;
        };
        if self.defers(options) {
            self.pending.events.set(self.pending.events.get() | what);
            self.pending.errno.set(errno());
            self.defer();
        } else {
            function(self, what, self.argument.get());
        }
    }

    /// Calls the program, without the lock if that was asked for.
    fn call(self, call: impl FnOnce()) {
        if self.has_option(UNLOCK_CALLBACKS) {
            Guard::unlocked(self.the_lock(), call);
        } else {
            call();
        }
    }

    fn tell_pending(self) {
        let connected = self.pending.events.get() & CONNECTED != 0;
        if connected && let Some(function) = self.on_event.get() {
            self.pending
                .events
                .set(self.pending.events.get() & !CONNECTED);
            let argument = self.argument.get();
            self.call(|| function(self, CONNECTED, argument));
        }
        if self.pending.read.get()
            && let Some(function) = self.on_read.get()
        {
            self.pending.read.set(false);
            let argument = self.argument.get();
            self.call_read(|| self.call(|| function(self, argument)));
        }
        if self.pending.write.get()
            && let Some(function) = self.on_write.get()
        {
            self.pending.write.set(false);
            let argument = self.argument.get();
            self.call(|| function(self, argument));
        }
        let what = self.pending.events.get();
        if what != 0
            && let Some(function) = self.on_event.get()
        {
            self.pending.events.set(0);
            set_errno(self.pending.errno.take());
            let argument = self.argument.get();
            self.call(|| function(self, what, argument));
        }
    }
}

/// The loop has come to what was deferred.
pub(crate) extern "C" fn run_deferred(_callback: Ref<Callback>, bev: Opaque) {
    let Some(bev) = of_argument(bev) else { return };
    let _guard = bev.guard();
    bev.tell_pending();
    bev.let_go();
}
