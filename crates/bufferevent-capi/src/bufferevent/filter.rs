//! A bufferevent that turns another's bytes into its own, by two functions of the program's.
//!
//! # Invariants
//! - The output side runs inside of the call that adds to the output; what is added while it runs is taken by the run that is going
//!   on, so it never nests.
//! - The one below is watched by callbacks of this one, and is held up while this one does not read.

use std::cell::Cell;
use std::ffi::{c_int, c_short};

use crate::buffer::{Buffer, End};
use crate::bufferevent::pair::NORMAL;
use crate::bufferevent::timeouts::some;
use crate::bufferevent::{Bev, CLOSE_ON_FREE, HELD_BY_FILTER, Kind, make, of_argument};
use crate::event::layout::{EV_READ, EV_WRITE};
use crate::ffi::{Opaque, Ref};

/// `BEV_OK` of `enum bufferevent_filter_result`.
const OK: c_int = 0;

type FilterFunction = extern "C" fn(Ref<Buffer>, Ref<Buffer>, isize, c_int, Opaque) -> c_int;
type FreeFunction = extern "C" fn(Opaque);

/// What makes a bufferevent a filter.
pub(crate) struct Filter {
    below: Cell<Option<Ref<Bev>>>,
    input: Option<FilterFunction>,
    output: Option<FilterFunction>,
    free: Option<FreeFunction>,
    context: Opaque,
    /// The output side is running.
    running: Cell<bool>,
    /// Bytes wait below for room here.
    waits_for_room: Cell<bool>,
}

/// What passes bytes through, where the program has no function.
extern "C" fn pass(
    from: Ref<Buffer>,
    to: Ref<Buffer>,
    limit: isize,
    _mode: c_int,
    _context: Opaque,
) -> c_int {
    let count = usize::try_from(limit).unwrap_or(usize::MAX);
    match to.move_some(from, count) {
        Some(_) => OK,
        None => 2,
    }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn bufferevent_filter_new(
    below: Option<Ref<Bev>>,
    input: Option<FilterFunction>,
    output: Option<FilterFunction>,
    options: c_int,
    free: Option<FreeFunction>,
    context: Opaque,
) -> Option<Ref<Bev>> {
    let below = below?;
    let guard = below.guard();
    let filter = Filter {
        below: Cell::new(Some(below)),
        input: Some(input.unwrap_or(pass)),
        output: Some(output.unwrap_or(pass)),
        free,
        context,
        running: Cell::new(false),
        waits_for_room: Cell::new(false),
    };
    let lock = below.the_lock().cloned();
    let bev = make(
        below.base.get(),
        Kind::Filter(filter),
        options,
        lock.as_ref(),
    )?;
    if lock.is_none()
        && let Some(lock) = bev.the_lock()
    {
        below.take_lock(lock);
    }
    // What a filter's buffers may be changed by, is the program's own business.
    bev.input.freeze(End::Back, false);
    bev.output.freeze(End::Front, false);
    bev.make_timers();
    below.retain();
    below.set_callbacks(
        Some(below_read),
        Some(below_wrote),
        Some(below_event),
        bev.address().cast(),
    );
    below.enable(EV_READ | EV_WRITE);
    below.hold_read(HELD_BY_FILTER);
    drop(guard);
    Some(bev)
}

/// The filter on a bufferevent, whose callback's argument this is; kept alive by the caller for the callback's length.
pub(crate) fn filter_of(argument: Opaque) -> Option<Ref<Bev>> {
    of_argument(argument).filter(|bev| !bev.is_freed())
}

extern "C" fn below_read(_below: Ref<Bev>, argument: Opaque) {
    if let Some(bev) = filter_of(argument) {
        let _guard = bev.guard();
        bev.retain();
        bev.filter_in();
        bev.let_go();
    }
}

extern "C" fn below_wrote(_below: Ref<Bev>, argument: Opaque) {
    if let Some(bev) = filter_of(argument) {
        let _guard = bev.guard();
        bev.retain();
        bev.filter_out(NORMAL);
        bev.let_go();
    }
}

extern "C" fn below_event(_below: Ref<Bev>, what: c_short, argument: Opaque) {
    if let Some(bev) = filter_of(argument) {
        let _guard = bev.guard();
        bev.retain();
        bev.tell_event(what, 0);
        bev.let_go();
    }
}

impl Filter {
    pub(crate) fn below(&self) -> Option<Ref<Bev>> {
        self.below.get()
    }

    pub(crate) fn start(&self, bev: Ref<Bev>, directions: c_short) {
        if directions & EV_READ != 0 {
            bev.time_reading();
            if let Some(below) = self.below.get() {
                below.let_read(HELD_BY_FILTER);
            }
        }
        if directions & EV_WRITE != 0 {
            bev.time_writing_whatever_waits();
        }
    }

    pub(crate) fn stop(&self, directions: c_short) {
        if directions & EV_READ != 0
            && let Some(below) = self.below.get()
        {
            below.hold_read(HELD_BY_FILTER);
        }
    }

    pub(crate) fn output_grew(&self, bev: Ref<Bev>) {
        if !self.running.get() && !bev.is_freed() {
            bev.retain();
            bev.filter_out(NORMAL);
            bev.let_go();
        }
    }

    /// Somebody took from the input: what waits below has room now.
    pub(crate) fn input_drained(&self, bev: Ref<Bev>) {
        if self.waits_for_room.get() && bev.has_room() && !bev.is_freed() {
            self.waits_for_room.set(false);
            bev.retain();
            bev.filter_in();
            bev.let_go();
        }
    }

    /// The filter goes: the one below is free of it, or goes too.
    pub(crate) fn unlink(&self, bev: Ref<Bev>) {
        let Some(below) = self.below.get() else {
            return;
        };
        let ours = below.argument.get() == bev.address().cast();
        if ours {
            below.set_callbacks(None, None, None, std::ptr::null_mut());
        }
        if bev.has_option(CLOSE_ON_FREE) {
            below.release();
        } else if ours {
            below.let_read(HELD_BY_FILTER);
        }
    }

    pub(crate) fn destroy(&self) {
        if let Some(free) = self.free {
            free(self.context);
        }
        if let Some(below) = self.below.take() {
            below.let_go();
        }
    }

    /// Whether the one below has as much output as its mark allows.
    fn is_full(&self) -> bool {
        self.below.get().is_none_or(|below| {
            let high = below.write_mark.high.get();
            high != 0 && below.output.len() >= high
        })
    }
}

impl Ref<Bev> {
    pub(crate) fn has_room(self) -> bool {
        let high = self.read_mark.high.get();
        high == 0 || self.input.len() < high
    }

    fn time_writing_whatever_waits(self) {
        if self.output.is_empty() {
            let Some(base) = self.base.get() else { return };
            if let Some(timeout) = some(self.write_timeout.get()) {
                let _guard = base.guard();
                base.add(Ref::of(&self.ev_write), Some(timeout));
            }
        } else {
            self.time_writing();
        }
    }

    /// Runs the output side; whether it moved something.
    fn filter_out(self, mode: c_int) -> bool {
        let Some(filter) = self.filter() else {
            return false;
        };
        let (Some(below), Some(function)) = (filter.below.get(), filter.output) else {
            return false;
        };
        let may_go_on =
            || self.is_enabled(EV_WRITE) && !self.output.is_empty() && !filter.is_full();
        if mode == NORMAL && !may_go_on() {
            return false;
        }
        if filter.running.replace(true) {
            return false;
        }
        let mut moved = false;
        loop {
            let mut moved_now = false;
            let mut result;
            loop {
                let high = below.write_mark.high.get();
                let limit = if mode == NORMAL && high != 0 {
                    high.saturating_sub(below.output.len()) as isize
                } else {
                    -1
                };
                result = function(self.output, below.output, limit, mode, filter.context);
                moved_now |= result == OK;
                if result != OK || !may_go_on() {
                    break;
                }
            }
            moved |= moved_now;
            if moved_now {
                // What this writes is taken in the next round.
                self.trigger(EV_WRITE, 0);
            }
            if !(moved_now && result == OK && may_go_on()) {
                break;
            }
        }
        filter.running.set(false);
        if moved {
            self.time_writing();
        }
        moved
    }

    /// Runs the input side, with what came from below.
    fn filter_in(self) {
        let Some(filter) = self.filter() else { return };
        let moved = self.run_input(NORMAL);
        if moved {
            self.trigger(EV_READ, 0);
        }
        if let Some(below) = filter.below.get()
            && !below.input.is_empty()
            && !self.has_room()
        {
            filter.waits_for_room.set(true);
        }
    }

    fn run_input(self, mode: c_int) -> bool {
        let Some(filter) = self.filter() else {
            return false;
        };
        let (Some(below), Some(function)) = (filter.below.get(), filter.input) else {
            return false;
        };
        if mode == NORMAL && !(self.is_enabled(EV_READ) && self.has_room()) {
            return false;
        }
        let mut moved = false;
        loop {
            let high = self.read_mark.high.get();
            let limit = if mode == NORMAL && high != 0 {
                high.saturating_sub(self.input.len()) as isize
            } else {
                -1
            };
            let result = function(below.input, self.input, limit, mode, filter.context);
            moved |= result == OK;
            let goes_on = self.is_enabled(EV_READ) && !below.input.is_empty() && self.has_room();
            if result != OK || !goes_on {
                break;
            }
        }
        if moved {
            self.time_reading();
        }
        moved
    }

    pub(crate) fn flush_filter(self, directions: c_short, mode: c_int) -> c_int {
        let mut moved = false;
        if directions & EV_READ != 0 {
            moved |= self.run_input(mode);
        }
        if directions & EV_WRITE != 0 {
            moved |= self.filter_out(mode);
        }
        if let Some(below) = self.filter().and_then(Filter::below) {
            below.flush(directions, mode);
        }
        c_int::from(moved)
    }
}
