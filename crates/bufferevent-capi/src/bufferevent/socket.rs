//! Bufferevents over a descriptor: a socket, a terminal, a pipe.
//!
//! # How a write goes out
//! What a read is answered with goes out right behind its callbacks, while it is warm. Other output activates `ev_write` by hand: the
//! loop writes after the callbacks of this turn, before it waits. Only a write that would block, or fell short, has the system watch
//! for room. So an echo is one wait, one read and one write.
//!
//! # Invariants
//! - Nothing is written but from the loop.
//! - While a connection is under way, nothing is read or written: `ev_write` waits for its outcome.

use std::ffi::{c_int, c_short};
use std::os::fd::BorrowedFd;

use crate::buffer::By;
use crate::bufferevent::timeouts::some;
use crate::bufferevent::{
    Bev, CLOSE_ON_FREE, CONNECTED, EOF, ERROR, HELD_BY_MARK, Kind, READING, TIMEOUT, WRITING, make,
    of_argument,
};
use crate::event::base::{Base, Wait};
use crate::event::create::assign;
use crate::event::layout::{EV_FINALIZE, EV_PERSIST, EV_READ, EV_TIMEOUT, EV_WRITE, KNOWN};
use crate::ffi::{Opaque, Ref, descriptor, errno, set_errno};
use crate::util::socket::evutil_closesocket;

/// Errors that mean "later".
fn is_passing(error: c_int) -> bool {
    matches!(error, libc::EINTR | libc::EAGAIN)
}

/// The error that a socket has pending; 0 for none.
fn pending_error(fd: c_int) -> c_int {
    crate::util::socket::option(fd, libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or_else(errno)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn bufferevent_socket_new(
    base: Option<Ref<Base>>,
    fd: c_int,
    options: c_int,
) -> Option<Ref<Bev>> {
    let bev = make(base, Kind::Socket, options, None)?;
    bev.output.set_drains_to_fd();
    bev.assign_descriptor(fd);
    Some(bev)
}

impl Ref<Bev> {
    fn assign_descriptor(self, fd: c_int) {
        let (base, argument) = (self.base.get(), self.address().cast());
        let (read, write) = (Ref::of(&self.ev_read), Ref::of(&self.ev_write));
        let priority = self.ev_read.callback.priority.get();
        let assigned = self.ev_read.callback.flags.get() != 0 && self.ev_read.base.get().is_some();
        self.moves_by.set(By::Socket); // Until the system says that it is none.
        let flags = EV_PERSIST | EV_FINALIZE;
        assign(read, base, fd, EV_READ | flags, Some(readable), argument);
        assign(write, base, fd, EV_WRITE | flags, Some(writable), argument);
        if assigned {
            self.ev_read.callback.priority.set(priority);
            self.ev_write.callback.priority.set(priority);
        }
    }

    pub(crate) fn socket_descriptor(self) -> c_int {
        self.ev_read.fd.get()
    }

    /// Gets another descriptor; the old one is the program's.
    pub(crate) fn set_socket_descriptor(self, fd: c_int) {
        if let Some(base) = self.base.get() {
            let _guard = base.guard();
            base.delete(Ref::of(&self.ev_read), Wait::Auto);
            base.delete(Ref::of(&self.ev_write), Wait::Auto);
        }
        self.cancel_lookup();
        self.assign_descriptor(fd);
        if fd >= 0 {
            self.enable(self.enabled.get());
        }
    }

    pub(crate) fn close_descriptor(self) {
        let fd = self.ev_read.fd.get();
        if self.has_option(CLOSE_ON_FREE) && fd >= 0 {
            evutil_closesocket(fd);
        }
    }

    /// Has the system watch a direction, with its timeout.
    fn watch(self, direction: c_short) -> bool {
        let Some(base) = self.base.get() else {
            return false;
        };
        let (event, timeout) = if direction == EV_READ {
            (Ref::of(&self.ev_read), self.read_timeout.get())
        } else {
            (Ref::of(&self.ev_write), self.write_timeout.get())
        };
        let _guard = base.guard();
        base.add(event, some(timeout))
    }

    fn unwatch(self, direction: c_short) {
        let Some(base) = self.base.get() else { return };
        let event = if direction == EV_READ {
            &self.ev_read
        } else {
            &self.ev_write
        };
        if event.has(KNOWN) {
            let _guard = base.guard();
            base.delete(Ref::of(event), Wait::Auto);
        }
    }

    pub(crate) fn start_socket(self, directions: c_short) -> bool {
        if self.socket_descriptor() < 0 {
            return true; // Once it has one.
        }
        let mut done = true;
        if directions & EV_READ != 0 {
            done &= self.watch(EV_READ);
        }
        if directions & EV_WRITE != 0 {
            done &= self.watch(EV_WRITE);
        }
        done
    }

    pub(crate) fn stop_socket(self, directions: c_short) {
        if directions & EV_READ != 0 {
            self.unwatch(EV_READ);
        }
        // A connection's outcome is waited for whatever is disabled.
        if directions & EV_WRITE != 0 && !self.connecting.get() {
            self.unwatch(EV_WRITE);
        }
    }

    pub(crate) fn output_grew(self) {
        let may = self.is_enabled(EV_WRITE) && self.write_held.get() == 0;
        if !may || self.ev_write.has(KNOWN) || self.socket_descriptor() < 0 {
            return;
        }
        if self.connecting.get() {
            self.watch(EV_WRITE);
        } else if self.in_turn.get() {
            self.write_due.set(true);
        } else if let Some(base) = self.base.get() {
            let _guard = base.guard();
            base.activate(Ref::of(&self.ev_write), EV_WRITE, 1);
        }
    }

    /// Whether output that nobody waits for yet can be written.
    fn may_write(self) -> bool {
        let open = self.is_enabled(EV_WRITE) && self.write_held.get() == 0;
        open && !self.is_freed()
            && !self.output.is_empty()
            && !self.ev_write.has(KNOWN)
            && !self.connecting.get()
            && self.socket_descriptor() >= 0
    }

    /// Timeouts changed: those that run are started anew.
    pub(crate) fn retime_socket(self) {
        let Some(base) = self.base.get() else { return };
        for (event, timeout) in [
            (&self.ev_read, self.read_timeout.get()),
            (&self.ev_write, self.write_timeout.get()),
        ] {
            if event.has(KNOWN) {
                let _guard = base.guard();
                match some(timeout) {
                    Some(timeout) => drop(base.add(Ref::of(event), Some(timeout))),
                    None => {
                        base.clear_timer(Ref::of(event));
                        event.interval.set(crate::event::layout::NO_TIME);
                    }
                }
            }
        }
    }

    fn can_read(self, what: c_short) {
        if what == EV_TIMEOUT {
            self.end(EV_READ, READING | TIMEOUT);
            return;
        }
        let mut most = self.read_limit();
        let high = self.read_mark.high.get();
        if high != 0 {
            let room = high.saturating_sub(self.input.len());
            if room == 0 {
                self.hold_read(HELD_BY_MARK);
                return;
            }
            most = most.min(room);
        }
        if self.read_held.get() != 0 || most == 0 {
            return;
        }
        let Some(fd) = descriptor(self.socket_descriptor()) else {
            return;
        };
        match self.receive(fd, most) {
            Some(0) => self.end(EV_READ, READING | EOF),
            Some(count) => {
                self.charge_read(count);
                self.trigger(EV_READ, 0);
            }
            None if is_passing(errno()) => {}
            // The write side tells it.
            None if errno() == libc::ECONNREFUSED => self.refused.set(true),
            None => self.end(EV_READ, READING | ERROR),
        }
    }

    #[inline(always)]
    fn receive(self, fd: BorrowedFd<'static>, most: usize) -> Option<usize> {
        let received = self.input.read_from(fd, most, self.moves_by.get());
        if received.is_none() && self.is_no_socket() {
            return self.input.read_from(fd, most, By::Any);
        }
        received
    }

    #[inline(always)]
    fn send(self, fd: BorrowedFd<'static>, most: usize) -> Option<usize> {
        let sent = self.output.write_to(fd, most, self.moves_by.get());
        if sent.is_none() && self.is_no_socket() {
            return self.output.write_to(fd, most, By::Any);
        }
        sent
    }

    /// Whether a call for sockets has just failed because the descriptor is none: further ones are for any descriptor.
    #[cold]
    fn is_no_socket(self) -> bool {
        let none = self.moves_by.get() == By::Socket && errno() == libc::ENOTSOCK;
        if none {
            self.moves_by.set(By::Any);
        }
        none
    }

    fn end(self, direction: c_short, what: c_short) {
        let error = errno();
        self.disable(direction);
        set_errno(error);
        self.tell_event(what, 0);
    }

    /// Whether the connection that was under way stands; it is told if it has failed.
    fn finish_connecting(self) -> bool {
        let error = if self.refused.take() {
            libc::ECONNREFUSED
        } else {
            pending_error(self.socket_descriptor())
        };
        if is_passing(error) || error == libc::EINPROGRESS {
            return false;
        }
        self.connecting.set(false);
        if error != 0 {
            self.unwatch(EV_READ);
            self.unwatch(EV_WRITE);
            set_errno(error);
            self.tell_event(ERROR, 0);
            return false;
        }
        self.tell_event(CONNECTED, 0);
        if !self.is_enabled(EV_WRITE) || self.write_held.get() != 0 {
            self.unwatch(EV_WRITE);
            return false;
        }
        true
    }

    fn can_write(self, what: c_short) {
        if what == EV_TIMEOUT {
            self.end(EV_WRITE, WRITING | TIMEOUT);
            return;
        }
        let connected = self.connecting.get();
        if connected && !self.finish_connecting() {
            return;
        }
        if self.write_held.get() != 0 {
            return;
        }
        let mut moved = 0;
        let len = self.output.len();
        if len > 0 {
            let most = self.write_limit().min(len);
            let Some(fd) = descriptor(self.socket_descriptor()) else {
                return;
            };
            if most == 0 {
                return;
            }
            match self.send(fd, most) {
                Some(0) => {
                    self.end(EV_WRITE, WRITING | EOF);
                    return;
                }
                Some(count) => {
                    self.charge_write(count);
                    moved = count;
                    self.go_on_writing(count == most);
                }
                None if is_passing(errno()) => {
                    self.watch(EV_WRITE);
                    return;
                }
                None => {
                    self.end(EV_WRITE, WRITING | ERROR);
                    return;
                }
            }
        } else {
            self.unwatch(EV_WRITE);
        }
        if (moved > 0 || !connected) && self.on_write.get().is_some() {
            self.trigger(EV_WRITE, 0);
        }
    }

    /// After a write: what is left goes on in the next turn, or when there is room.
    fn go_on_writing(self, all_taken: bool) {
        if self.output.is_empty() {
            if self.ev_write.has(KNOWN) {
                self.unwatch(EV_WRITE);
            }
        } else if self.is_enabled(EV_WRITE) && self.write_held.get() == 0 {
            match self.base.get() {
                Some(base) if all_taken && some(self.write_timeout.get()).is_none() => {
                    let _guard = base.guard();
                    base.activate_later(Ref::of(&self.ev_write), EV_WRITE);
                }
                Some(_) | None => drop(self.watch(EV_WRITE)),
            }
        }
    }
}

extern "C" fn readable(_fd: c_int, what: c_short, bev: Opaque) {
    turn(bev, |bev| {
        bev.can_read(what);
        if bev.write_due.take() && bev.may_write() {
            bev.can_write(EV_WRITE); // The answer, while it is warm.
        }
    });
}

extern "C" fn writable(_fd: c_int, what: c_short, bev: Opaque) {
    turn(bev, |bev| bev.can_write(what));
}

/// Does what an event asks for. Who has written even then has his next turn behind the others.
fn turn(bev: Opaque, body: impl FnOnce(Ref<Bev>)) {
    let Some(bev) = of_argument(bev) else { return };
    let _guard = bev.guard();
    bev.retain();
    bev.in_turn.set(true);
    body(bev);
    bev.in_turn.set(false);
    if bev.write_due.take()
        && bev.may_write()
        && let Some(base) = bev.base.get()
    {
        let _guard = base.guard();
        base.activate_later(Ref::of(&bev.ev_write), EV_WRITE);
    }
    bev.let_go();
}
