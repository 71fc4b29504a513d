//! TLS on a bufferevent: what runs `bufferevent-tls`'s filter, which knows only buffers, in the order that C programs expect.
//!
//! # Invariants
//! - Nothing is encrypted, decrypted or told but from the loop, or by `bufferevent_flush`. So what a callback writes goes out in few
//!   records, and no call of the program's calls it back.
//! - A handshake goes on whatever the program has enabled; no byte of the program's moves before it is over.
//! - `BEV_EVENT_CONNECTED` comes once, before anything that was read; an end or an error once, after it.
//! - A write is told when the one below has got rid of what it became, so that a program that frees at its last write loses nothing.

mod ask;
mod settings;

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{CString, c_int, c_short};
use std::io;
use std::os::fd::BorrowedFd;

use bufferevent_core::{Error, Mode};
use bufferevent_filter::{Filter as _, Sink, Verdict};
use bufferevent_tls::Tls;
use evbuffer::EvBuffer;
use rustix::net::SendFlags;

use crate::bufferevent::filter::filter_of;
use crate::bufferevent::pair::{FINISHED, NORMAL};
use crate::bufferevent::{
    Bev, CLOSE_ON_FREE, CONNECTED, DEFER_CALLBACKS, EOF, ERROR, HELD_BY_FILTER, Kind, READING,
    WRITING, callbacks::IGNORE_MARKS, make,
};
use crate::event::layout::{EV_READ, EV_WRITE};
use crate::ffi::{Opaque, Ref, descriptor};

/// Bytes of records that may wait in a socket of the library's own, before no more are made.
const RECORDS_AHEAD: usize = 256 * 1024;

/// What makes a bufferevent one of TLS.
pub(crate) struct Layer {
    below: Cell<Option<Ref<Bev>>>,
    /// The one below was made with this one, and goes with it.
    own_socket: bool,
    session: RefCell<Tls>,
    /// The two sides are being run.
    running: Cell<bool>,
    connected: Cell<bool>,
    /// Nothing more is read, or written.
    input_over: Cell<bool>,
    output_over: Cell<bool>,
    /// The close_notify is asked for and not yet made.
    finishing: Cell<bool>,
    /// The one below has come to its end.
    below_over: Cell<bool>,
    /// Bytes were written since the program was told last.
    wrote: Cell<bool>,
    failure: RefCell<Option<Error>>,
    texts: Texts,
}

/// What the program asked for as text: it stays as long as the bufferevent does.
#[derive(Default)]
struct Texts {
    alpn: OnceCell<CString>,
    server_name: OnceCell<CString>,
    cipher: OnceCell<CString>,
    failure: OnceCell<CString>,
}

/// What came of running both sides until nothing moved.
#[derive(Default)]
struct Moved {
    read: usize,
    written: usize,
    /// How it ended, if it did.
    end: Option<c_short>,
}

/// Puts a session on a bufferevent.
fn put_on(below: Ref<Bev>, session: Tls, options: c_int, own_socket: bool) -> Option<Ref<Bev>> {
    let guard = below.guard();
    let base = below.base.get()?;
    let layer = Layer {
        below: Cell::new(Some(below)),
        own_socket,
        session: RefCell::new(session),
        running: Cell::new(false),
        connected: Cell::new(false),
        input_over: Cell::new(false),
        output_over: Cell::new(false),
        finishing: Cell::new(false),
        below_over: Cell::new(false),
        wrote: Cell::new(false),
        failure: RefCell::new(None),
        texts: Texts::default(),
    };
    let lock = below.the_lock().cloned();
    let kind = Kind::Tls(Box::new(layer));
    let bev = make(Some(base), kind, options, lock.as_ref())?;
    if lock.is_none()
        && let Some(lock) = bev.the_lock()
    {
        below.take_lock(lock);
    }
    bev.make_timers();
    below.retain();
    below.set_callbacks(
        Some(below_moved),
        Some(below_moved),
        Some(below_event),
        bev.address().cast(),
    );
    if own_socket {
        below.write_mark.high.set(RECORDS_AHEAD);
    }
    below.enable(EV_READ | EV_WRITE);
    if let Some(layer) = bev.tls() {
        layer.go_on(); // A client speaks first; and bytes may be there already.
    }
    drop(guard);
    Some(bev)
}

extern "C" fn below_moved(_below: Ref<Bev>, argument: Opaque) {
    with_layer(argument, |bev, layer| {
        layer.run(bev, Mode::Normal);
    });
}

extern "C" fn below_event(_below: Ref<Bev>, what: c_short, argument: Opaque) {
    with_layer(argument, |bev, layer| {
        if what & CONNECTED != 0 {
            return; // The program hears of it when the handshake is over.
        }
        if what & (EOF | READING) == EOF | READING {
            layer.below_over.set(true);
            layer.run(bev, Mode::Normal);
            return;
        }
        if what & ERROR != 0 {
            layer.input_over.set(true);
            layer.output_over.set(true);
        }
        bev.tell_event(what, 0);
    });
}

fn with_layer(argument: Opaque, body: impl FnOnce(Ref<Bev>, &Layer)) {
    let Some(bev) = filter_of(argument) else {
        return;
    };
    let _guard = bev.guard();
    bev.retain();
    if let Some(layer) = bev.tls() {
        body(bev, layer);
    }
    bev.let_go();
}

impl Layer {
    pub(crate) fn below(&self) -> Option<Ref<Bev>> {
        self.below.get()
    }

    /// The socket that was made with this one.
    pub(crate) fn carrier(&self) -> Option<Ref<Bev>> {
        self.below.get().filter(|_| self.own_socket)
    }

    /// Has the loop run both sides.
    pub(crate) fn go_on(&self) {
        if let Some(below) = self.below.get().filter(|_| !self.running.get()) {
            below.trigger(EV_READ, DEFER_CALLBACKS | IGNORE_MARKS);
        }
    }

    pub(crate) fn start(&self, bev: Ref<Bev>, directions: c_short) {
        if directions & EV_READ != 0 {
            bev.time_reading();
        }
        if directions & EV_WRITE != 0 {
            self.time_writing(bev);
            // A timeout may have stopped it.
            if let Some(carrier) = self.carrier() {
                carrier.enable(EV_WRITE);
            }
        }
        self.hold_below(bev);
        self.go_on();
    }

    pub(crate) fn stop(&self, bev: Ref<Bev>, directions: c_short) {
        if directions & EV_READ != 0 {
            self.hold_below(bev);
        }
    }

    /// A write timeout is the socket's: there the bytes wait.
    pub(crate) fn time_writing(&self, bev: Ref<Bev>) {
        match self.carrier() {
            Some(carrier) => {
                carrier.write_timeout.set(bev.write_timeout.get());
                carrier.retime_socket();
            }
            None => bev.time_writing(),
        }
    }

    pub(crate) fn flush(&self, bev: Ref<Bev>, directions: c_short, mode: c_int) -> c_int {
        let Some(below) = self.below.get() else {
            return -1;
        };
        let how = if mode == NORMAL {
            Mode::Normal
        } else {
            Mode::Flush
        };
        if directions & EV_WRITE != 0 && mode == FINISHED && !self.output_over.get() {
            self.finishing.set(true);
        }
        let moved = self.run(bev, how);
        below.flush(directions, mode);
        c_int::from(moved)
    }

    fn is_reading(&self, bev: Ref<Bev>) -> bool {
        bev.is_enabled(EV_READ) && bev.read_held.get() == 0 && bev.has_room()
    }

    fn is_writing(&self, bev: Ref<Bev>) -> bool {
        bev.is_enabled(EV_WRITE) && bev.write_held.get() == 0
    }

    /// The one below reads while something is wanted of it.
    fn hold_below(&self, bev: Ref<Bev>) {
        let Some(below) = self.below.get().filter(|_| !self.running.get()) else {
            return;
        };
        let wants = self.session.borrow().wants().read || self.is_reading(bev);
        if wants && !self.input_over.get() {
            below.let_read(HELD_BY_FILTER);
        } else {
            below.hold_read(HELD_BY_FILTER);
        }
    }

    /// Runs both sides until nothing moves, and tells what came of it; whether something moved.
    fn run(&self, bev: Ref<Bev>, mode: Mode) -> bool {
        if self.running.replace(true) {
            return false;
        }
        let moved = self.move_all(bev, mode);
        self.running.set(false);
        self.hold_below(bev);
        self.tell(bev, &moved);
        moved.read + moved.written > 0
    }

    fn move_all(&self, bev: Ref<Bev>, mode: Mode) -> Moved {
        let mut all = Moved::default();
        let Some(below) = self.below.get() else {
            return all;
        };
        loop {
            let read = self.move_in(bev, below, &mut all);
            let written = self.move_out(bev, below, mode, &mut all);
            if read + written == 0 || bev.is_freed() {
                return all;
            }
        }
    }

    /// Runs the input side; how many bytes it took or made.
    fn move_in(&self, bev: Ref<Bev>, below: Ref<Bev>, all: &mut Moved) -> usize {
        let reading = self.is_reading(bev);
        let shaking = self.session.borrow().handshaking();
        if self.input_over.get() || !(reading || shaking) {
            return 0;
        }
        let mode = if self.below_over.get() {
            Mode::Finished
        } else {
            Mode::Normal
        };
        let high = bev.read_mark.high.get();
        // A handshake brings nothing that the program reads.
        let room = match (reading, high) {
            (false, _) => 0,
            (true, 0) => usize::MAX,
            (true, high) => high.saturating_sub(bev.input.len()),
        };
        let (verdict, taken, added) = between(below, bev, |source, own| {
            let mut sink = Sink::new(own, room);
            self.session.borrow_mut().input(source, &mut sink, mode)
        });
        below.input.changed(0, taken);
        bev.input.changed(added, 0);
        all.read += added;
        match verdict {
            Ok(Verdict::End) => self.ends(all, READING | EOF),
            Ok(Verdict::NeedInput) if mode == Mode::Finished => self.ends(all, READING | EOF),
            Ok(Verdict::NeedInput | Verdict::Full | Verdict::Progress) => {}
            Err(error) => self.fails(all, error, READING | ERROR),
        }
        taken + added
    }

    /// Runs the output side; how many bytes it took or made.
    fn move_out(&self, bev: Ref<Bev>, below: Ref<Bev>, mode: Mode, all: &mut Moved) -> usize {
        let writing = self.is_writing(bev);
        let speaks = self.session.borrow().wants().write;
        let ready = !self.session.borrow().handshaking() && writing;
        let has_own = ready && (!bev.output.is_empty() || self.finishing.get());
        if self.output_over.get() || !(speaks || has_own) {
            return 0;
        }
        let high = below.write_mark.high.get();
        let room = match (mode, high) {
            (Mode::Normal, 1..) => high.saturating_sub(below.output.len()),
            _ => usize::MAX,
        };
        let finishing = ready && self.finishing.get();
        let mode = if finishing { Mode::Finished } else { mode };
        let mut session = self.session.borrow_mut();
        let (mut taken, mut added) = (0, 0);
        let verdict = below.output.with(|to| {
            let mut sink = Sink::new(to, room);
            let verdict = if ready {
                bev.output.with(|own| {
                    let before = own.len();
                    let verdict = session.output(own, &mut sink, mode);
                    taken = before - own.len();
                    verdict
                })
            } else {
                session.output(&mut EvBuffer::new(), &mut sink, Mode::Normal)
            };
            added = room - sink.room();
            verdict
        });
        drop(session);
        bev.output.changed(0, taken);
        below.output.changed(added, 0);
        all.written += taken;
        match verdict {
            Ok(Verdict::End) => {
                self.output_over.set(true);
                self.finishing.set(false);
            }
            Ok(Verdict::NeedInput | Verdict::Full | Verdict::Progress) => {}
            // What the input side has failed by is told there.
            Err(_) if self.input_over.get() => self.output_over.set(true),
            Err(error) => self.fails(all, error, WRITING | ERROR),
        }
        taken + added
    }

    fn ends(&self, all: &mut Moved, what: c_short) {
        self.input_over.set(true);
        all.end = Some(what);
    }

    /// The session is broken. An alert that says why still goes out: the output side ends by itself.
    fn fails(&self, all: &mut Moved, error: Error, what: c_short) {
        *self.failure.borrow_mut() = Some(error);
        if what & WRITING != 0 {
            self.output_over.set(true);
        }
        self.ends(all, what);
    }

    /// Tells, in the order of all bufferevents.
    fn tell(&self, bev: Ref<Bev>, moved: &Moved) {
        if !self.session.borrow().handshaking() && !self.connected.replace(true) {
            bev.tell_event(CONNECTED, 0);
            self.go_on(); // What was written before goes out now.
        }
        if moved.read > 0 {
            bev.time_reading();
            bev.trigger(EV_READ, 0);
        }
        if moved.written > 0 {
            self.wrote.set(true);
            if !self.own_socket {
                bev.time_writing();
            }
        }
        let gone = |below: Ref<Bev>| below.output.len() <= below.write_mark.low.get();
        if self.wrote.get() && self.below.get().is_some_and(gone) {
            self.wrote.set(false);
            bev.trigger(EV_WRITE, 0);
        }
        if let Some(what) = moved.end {
            let directions = if what & ERROR != 0 {
                EV_READ | EV_WRITE
            } else {
                EV_READ
            };
            bev.disable(directions);
            bev.tell_event(what, 0);
        }
    }

    /// It goes: the peer is told that this is the end, if all that was written has been taken, and the one below is free of it,
    /// or goes too.
    pub(crate) fn unlink(&self, bev: Ref<Bev>) {
        let Some(below) = self.below.get() else {
            return;
        };
        let ours = below.argument.get() == bev.address().cast();
        if ours {
            below.set_callbacks(None, None, None, std::ptr::null_mut());
        }
        if bev.has_option(CLOSE_ON_FREE) {
            self.say_goodbye(bev, below);
        }
        if self.own_socket || bev.has_option(CLOSE_ON_FREE) {
            below.release();
        } else if ours {
            below.let_read(HELD_BY_FILTER);
        }
    }

    /// A close_notify, written at once as far as the socket takes it: nobody will be there to wait.
    fn say_goodbye(&self, bev: Ref<Bev>, below: Ref<Bev>) {
        let open = self.connected.get() && !self.output_over.get();
        if !open || !bev.output.is_empty() || self.failure.borrow().is_some() {
            return;
        }
        below.output.change_frozen(|to| {
            let mut sink = Sink::new(to, usize::MAX);
            let mut session = self.session.borrow_mut();
            let end = session.output(&mut EvBuffer::new(), &mut sink, Mode::Finished);
            end.is_ok()
        });
        let socket = matches!(below.kind, Kind::Socket) && !below.connecting.get();
        if let Some(fd) = descriptor(below.socket_descriptor()).filter(|_| socket) {
            below.output.change_frozen(|from| {
                let count = from.len();
                from.write_to(&mut Quiet(fd), count).is_ok()
            });
        }
    }

    pub(crate) fn destroy(&self) {
        if let Some(below) = self.below.take() {
            below.let_go();
        }
    }
}

/// Calls with what came from below, and the own input; answers also how many bytes left the one and entered the other.
fn between<R>(
    below: Ref<Bev>,
    bev: Ref<Bev>,
    call: impl FnOnce(&mut EvBuffer, &mut EvBuffer) -> R,
) -> (R, usize, usize) {
    bev.input.with(|own| {
        below.input.with(|source| {
            let before = (source.len(), own.len());
            let result = call(source, own);
            (result, before.0 - source.len(), own.len() - before.1)
        })
    })
}

/// A socket that is written to without waiting, and without a signal where nobody reads any more.
struct Quiet(BorrowedFd<'static>);

impl io::Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::send(self.0, bytes, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
