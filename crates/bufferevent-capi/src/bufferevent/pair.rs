//! Two bufferevents without a descriptor: what is written to one is read from the other, moved and not copied.
//!
//! # Invariants
//! - They share a lock, and their callbacks are deferred.
//! - Bytes go over when the one has writing enabled, the other reading, and room below its high mark.

use std::cell::Cell;
use std::ffi::{c_int, c_short};

use crate::bufferevent::{Bev, DEFER_CALLBACKS, EOF, Kind, READING, WRITING, make};
use crate::event::base::Base;
use crate::event::layout::{EV_READ, EV_WRITE};
use crate::ffi::{Out, Ref};

/// `enum bufferevent_flush_mode`.
pub(crate) const NORMAL: c_int = 0;
pub(crate) const FINISHED: c_int = 2;

#[unsafe(no_mangle)]
extern "C" fn bufferevent_pair_new(
    base: Option<Ref<Base>>,
    options: c_int,
    pair: Out<[Option<Ref<Bev>>; 2]>,
) -> c_int {
    if pair.is_null() {
        return -1;
    }
    let options = options | DEFER_CALLBACKS;
    let Some(first) = make(base, Kind::Pair(Cell::new(None)), options, None) else {
        return -1;
    };
    let lock = first.the_lock().cloned();
    let Some(second) = make(base, Kind::Pair(Cell::new(None)), options, lock.as_ref()) else {
        first.release();
        return -1;
    };
    for (one, other) in [(first, second), (second, first)] {
        one.make_timers();
        if let Kind::Pair(partner) = &one.kind {
            partner.set(Some(other));
        }
    }
    pair.set([Some(first), Some(second)]);
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_pair_get_partner(bev: Option<Ref<Bev>>) -> Option<Ref<Bev>> {
    let bev = bev?;
    let _guard = bev.guard();
    bev.partner()
}

/// One end goes: the other has no partner any more.
pub(crate) fn unlink(partner: &Cell<Option<Ref<Bev>>>) {
    if let Some(partner) = partner.take()
        && let Kind::Pair(own) = &partner.kind
    {
        own.set(None);
    }
}

impl Ref<Bev> {
    fn may_pass_to(self, to: Self) -> bool {
        self.is_enabled(EV_WRITE)
            && to.is_enabled(EV_READ)
            && to.read_held.get() == 0
            && !self.output.is_empty()
    }

    /// Output was added to an end.
    pub(crate) fn pass_on(self) {
        if let Some(partner) = self.partner()
            && self.may_pass_to(partner)
        {
            self.pass_to(partner, false);
        }
    }

    fn pass_to(self, to: Self, past_mark: bool) {
        let (len, high) = (to.input.len(), to.read_mark.high.get());
        let room = match high.saturating_sub(len) {
            _ if high == 0 => usize::MAX,
            0 if !past_mark => return,
            0 => usize::MAX,
            room => room,
        };
        // The end may be freed by a callback on its length.
        self.retain();
        to.retain();
        let moved = to.input.move_some(self.output, room).unwrap_or(0);
        if moved > 0 {
            to.time_reading();
            to.time_writing();
        }
        to.trigger(EV_READ, 0);
        self.trigger(EV_WRITE, 0);
        to.let_go();
        self.let_go();
    }

    pub(crate) fn start_pair(self, directions: c_short) {
        if directions & EV_READ != 0 {
            self.time_reading();
        }
        if directions & EV_WRITE != 0 {
            self.time_writing();
        }
        let Some(partner) = self.partner() else {
            return;
        };
        if directions & EV_READ != 0 && partner.may_pass_to(self) {
            partner.pass_to(self, false);
        }
        if directions & EV_WRITE != 0 && self.may_pass_to(partner) {
            self.pass_to(partner, false);
        }
    }

    pub(crate) fn flush_pair(self, directions: c_short, mode: c_int) -> c_int {
        let Some(partner) = self.partner() else {
            return -1;
        };
        if mode == NORMAL {
            return 0;
        }
        if directions & EV_READ != 0 {
            partner.pass_to(self, true);
        }
        if directions & EV_WRITE != 0 {
            self.pass_to(partner, true);
        }
        if mode == FINISHED {
            let mut what = EOF;
            what |= if directions & EV_READ != 0 {
                WRITING
            } else {
                0
            };
            what |= if directions & EV_WRITE != 0 {
                READING
            } else {
                0
            };
            partner.tell_event(what, 0);
        }
        0
    }
}
