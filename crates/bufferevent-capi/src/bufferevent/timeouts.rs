//! Enabling, holding up, and timeouts.
//!
//! # Invariants
//! - What the program enabled stays enabled while something holds the direction up; it moves again when the last reason has gone.
//! - A type without a descriptor times itself: its `ev_read` and `ev_write` are plain timers.

use std::ffi::{c_int, c_short};

use crate::bufferevent::{Bev, HELD_BY_MARK, Kind, READING, TIMEOUT, WRITING, of_argument};
use crate::event::base::Wait;
use crate::event::create::assign;
use crate::event::layout::{EV_FINALIZE, EV_READ, EV_WRITE, Event};
use crate::ffi::{Opaque, Ref};
use crate::util::time::TimeVal;

fn is_set(time: TimeVal) -> bool {
    time.tv_sec != 0 || time.tv_usec != 0
}

/// A timeout, unless it is none.
pub(crate) fn some(time: TimeVal) -> Option<TimeVal> {
    Some(time).filter(|time| is_set(*time))
}

impl Ref<Bev> {
    pub(crate) fn enable(self, directions: c_short) -> bool {
        self.enabled.set(self.enabled.get() | directions);
        let mut moving = directions;
        if self.read_held.get() != 0 {
            moving &= !EV_READ;
        }
        if self.write_held.get() != 0 {
            moving &= !EV_WRITE;
        }
        moving == 0 || self.start(moving)
    }

    pub(crate) fn disable(self, directions: c_short) -> bool {
        self.enabled.set(self.enabled.get() & !directions);
        self.stop(directions)
    }

    /// The type's own part of enabling.
    fn start(self, directions: c_short) -> bool {
        match &self.kind {
            Kind::Socket => self.start_socket(directions),
            Kind::Pair(_) => {
                self.start_pair(directions);
                true
            }
            Kind::Filter(filter) => {
                filter.start(self, directions);
                true
            }
            Kind::Tls(layer) => {
                layer.start(self, directions);
                true
            }
        }
    }

    fn stop(self, directions: c_short) -> bool {
        match &self.kind {
            Kind::Socket => self.stop_socket(directions),
            Kind::Pair(_) => self.stop_timers(directions),
            Kind::Filter(filter) => {
                self.stop_timers(directions);
                filter.stop(directions);
            }
            Kind::Tls(layer) => {
                self.stop_timers(directions);
                layer.stop(self, directions);
            }
        }
        true
    }

    pub(crate) fn hold_read(self, why: u16) {
        if self.read_held.get() == 0 {
            self.stop(EV_READ);
        }
        self.read_held.set(self.read_held.get() | why);
    }

    pub(crate) fn let_read(self, why: u16) {
        let before = self.read_held.get();
        self.read_held.set(before & !why);
        if before != 0 && before & !why == 0 && self.is_enabled(EV_READ) {
            self.start(EV_READ);
        }
    }

    pub(crate) fn hold_write(self, why: u16) {
        if self.write_held.get() == 0 {
            self.stop(EV_WRITE);
        }
        self.write_held.set(self.write_held.get() | why);
    }

    pub(crate) fn let_write(self, why: u16) {
        let before = self.write_held.get();
        self.write_held.set(before & !why);
        if before != 0 && before & !why == 0 && self.is_enabled(EV_WRITE) {
            self.start(EV_WRITE);
        }
    }

    /// Bytes came into the input, or left it, whoever took them.
    #[inline(always)]
    pub(crate) fn input_changed(self) {
        if self.read_mark.high.get() != 0 {
            self.look_at_mark();
        }
        if let Kind::Filter(filter) = &self.kind {
            filter.input_drained(self);
        }
    }

    #[inline(never)]
    fn look_at_mark(self) {
        if self.input.len() >= self.read_mark.high.get() {
            self.hold_read(HELD_BY_MARK);
        } else {
            self.let_read(HELD_BY_MARK);
        }
    }

    /// Bytes came into the output, or left it.
    #[inline(always)]
    pub(crate) fn output_changed(self, added: usize) {
        if added > 0 {
            self.output_has_more();
        }
    }

    fn output_has_more(self) {
        match &self.kind {
            Kind::Socket => self.output_grew(),
            Kind::Pair(_) => self.pass_on(),
            Kind::Filter(filter) => filter.output_grew(self),
            Kind::Tls(layer) => layer.go_on(),
        }
    }

    /// Timers for a type without a descriptor.
    pub(crate) fn make_timers(self) {
        let (base, argument) = (self.base.get(), self.address().cast());
        let (read, write) = (Ref::of(&self.ev_read), Ref::of(&self.ev_write));
        assign(read, base, -1, EV_FINALIZE, Some(read_timed_out), argument);
        assign(
            write,
            base,
            -1,
            EV_FINALIZE,
            Some(write_timed_out),
            argument,
        );
    }

    fn set_timer(self, event: Ref<Event>, timeout: Option<TimeVal>) {
        let Some(base) = self.base.get() else { return };
        let _guard = base.guard();
        match timeout {
            Some(_) => drop(base.add(event, timeout)),
            None => base.delete(event, Wait::No),
        }
    }

    /// Starts a read timeout anew, or ends it.
    pub(crate) fn time_reading(self) {
        let wants = self.is_enabled(EV_READ) && self.read_held.get() == 0;
        let timeout = some(self.read_timeout.get()).filter(|_| wants);
        self.set_timer(Ref::of(&self.ev_read), timeout);
    }

    /// Starts a write timeout anew, or ends it: without output there is nothing to wait for.
    pub(crate) fn time_writing(self) {
        let wants =
            self.is_enabled(EV_WRITE) && self.write_held.get() == 0 && !self.output.is_empty();
        let timeout = some(self.write_timeout.get()).filter(|_| wants);
        self.set_timer(Ref::of(&self.ev_write), timeout);
    }

    fn stop_timers(self, directions: c_short) {
        if directions & EV_READ != 0 {
            self.set_timer(Ref::of(&self.ev_read), None);
        }
        if directions & EV_WRITE != 0 {
            self.set_timer(Ref::of(&self.ev_write), None);
        }
    }
}

extern "C" fn read_timed_out(_fd: c_int, _what: c_short, bev: Opaque) {
    timed_out(bev, EV_READ, TIMEOUT | READING);
}

extern "C" fn write_timed_out(_fd: c_int, _what: c_short, bev: Opaque) {
    timed_out(bev, EV_WRITE, TIMEOUT | WRITING);
}

fn timed_out(bev: Opaque, direction: c_short, what: c_short) {
    let Some(bev) = of_argument(bev) else { return };
    let _guard = bev.guard();
    bev.retain();
    bev.disable(direction);
    bev.tell_event(what, 0);
    bev.let_go();
}
