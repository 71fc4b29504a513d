//! `struct bufferevent`, of whatever type: what is in it, and how it lives and ends.
//!
//! # Invariants
//! - The first 392 bytes are laid out as libevent 2.1 lays them out; programs read them. `input` and `output` never change.
//! - Everything here is called with the bufferevent's lock held, if it has one. The lock is held during callbacks, unless
//!   those are deferred and asked to run without it.
//! - It lives while somebody counts on it. The last one's going takes it out of the loop at once; its memory and its descriptor go in
//!   the loop's next turn, when nothing of it can be running any more.

mod callbacks;
mod connect;
mod filter;
mod operate;
mod pair;
mod rate;
mod socket;
mod timeouts;
mod tls;

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{c_int, c_short, c_void};
use std::mem::offset_of;
use std::sync::Arc;

use crate::buffer::{Buffer, By, End, Owner};
use crate::dns::Request;
use crate::event::base::{Base, Wait};
use crate::event::create::unassigned;
use crate::event::layout::{Callback, Closure, EV_WRITE, Event, FINALIZING, Function, NO_TIME};
use crate::ffi::{Opaque, Ref};
use crate::lock::{Guard, Lock};
use crate::log;
use crate::util::time::TimeVal;
use filter::Filter;
use rate::Rate;
use tls::Layer;

/// `BEV_OPT_*`.
pub(crate) const CLOSE_ON_FREE: c_int = 1;
pub(crate) const THREADSAFE: c_int = 2;
pub(crate) const DEFER_CALLBACKS: c_int = 4;
pub(crate) const UNLOCK_CALLBACKS: c_int = 8;

/// `BEV_EVENT_*`.
pub(crate) const READING: c_short = 0x01;
pub(crate) const WRITING: c_short = 0x02;
pub(crate) const EOF: c_short = 0x10;
pub(crate) const ERROR: c_short = 0x20;
pub(crate) const TIMEOUT: c_short = 0x40;
pub(crate) const CONNECTED: c_short = 0x80;

/// Why a direction is held up though it is enabled: bits of a set.
pub(crate) const HELD_BY_MARK: u16 = 0x01;
pub(crate) const HELD_BY_RATE: u16 = 0x02;
pub(crate) const HELD_BY_GROUP: u16 = 0x04;
pub(crate) const HELD_BY_LOOKUP: u16 = 0x08;
pub(crate) const HELD_BY_FILTER: u16 = 0x10;

/// Bytes that one read or write moves at most, unless the program says otherwise.
pub(crate) const DEFAULT_MAX_SINGLE: usize = 16 * 1024;

pub(crate) type DataFunction = extern "C" fn(Ref<Bev>, Opaque);
pub(crate) type EventsFunction = extern "C" fn(Ref<Bev>, c_short, Opaque);

/// Low and high watermark.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Mark {
    pub(crate) low: Cell<usize>,
    pub(crate) high: Cell<usize>,
}

/// What waits to be told from the loop.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) read: Cell<bool>,
    pub(crate) write: Cell<bool>,
    pub(crate) events: Cell<c_short>,
    pub(crate) errno: Cell<c_int>,
}

/// What a bufferevent is.
pub(crate) enum Kind {
    Socket,
    /// One of two; the other, while it lives.
    Pair(Cell<Option<Ref<Bev>>>),
    Filter(Filter),
    /// A filter of the library's own, with a handshake.
    Tls(Box<Layer>),
}

/// `struct bufferevent`.
#[repr(C)]
pub(crate) struct Bev {
    pub(crate) base: Cell<Option<Ref<Base>>>,
    operations: Cell<*const c_void>,
    pub(crate) ev_read: Event,
    pub(crate) ev_write: Event,
    pub(crate) input: Ref<Buffer>,
    pub(crate) output: Ref<Buffer>,
    pub(crate) read_mark: Mark,
    pub(crate) write_mark: Mark,
    pub(crate) on_read: Cell<Option<DataFunction>>,
    pub(crate) on_write: Cell<Option<DataFunction>>,
    pub(crate) on_event: Cell<Option<EventsFunction>>,
    pub(crate) argument: Cell<Opaque>,
    pub(crate) read_timeout: Cell<TimeVal>,
    pub(crate) write_timeout: Cell<TimeVal>,
    pub(crate) enabled: Cell<c_short>,
    // From here on nobody but the library looks.
    pub(crate) kind: Kind,
    pub(crate) options: Cell<c_int>,
    users: Cell<u32>,
    freed: Cell<bool>,
    lock: OnceCell<Arc<Lock>>,
    pub(crate) deferred: Callback,
    pub(crate) pending: Pending,
    pub(crate) read_held: Cell<u16>,
    pub(crate) write_held: Cell<u16>,
    /// How bytes pass the descriptor.
    pub(crate) moves_by: Cell<By>,
    pub(crate) connecting: Cell<bool>,
    pub(crate) refused: Cell<bool>,
    /// The loop is in one of its own events, and looks afterwards what was written meanwhile.
    pub(crate) in_turn: Cell<bool>,
    pub(crate) write_due: Cell<bool>,
    pub(crate) dns_error: Cell<c_int>,
    pub(crate) lookup: Cell<Option<Ref<Request>>>,
    pub(crate) max_single_read: Cell<usize>,
    pub(crate) max_single_write: Cell<usize>,
    pub(crate) rate: RefCell<Option<Box<Rate>>>,
}

const _: () = {
    assert!(offset_of!(Bev, ev_read) == 16);
    assert!(offset_of!(Bev, ev_write) == 144);
    assert!(offset_of!(Bev, input) == 272);
    assert!(offset_of!(Bev, output) == 280);
    assert!(offset_of!(Bev, read_mark) == 288);
    assert!(offset_of!(Bev, write_mark) == 304);
    assert!(offset_of!(Bev, on_read) == 320);
    assert!(offset_of!(Bev, argument) == 344);
    assert!(offset_of!(Bev, read_timeout) == 352);
    assert!(offset_of!(Bev, write_timeout) == 368);
    assert!(offset_of!(Bev, enabled) == 384);
};

impl Bev {
    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.lock.get())
    }

    /// The same without waiting for another thread.
    pub(crate) fn try_guard(&self) -> Option<Guard> {
        Guard::try_new(self.lock.get())
    }

    pub(crate) fn the_lock(&self) -> Option<&Arc<Lock>> {
        self.lock.get()
    }

    pub(crate) fn is_enabled(&self, direction: c_short) -> bool {
        self.enabled.get() & direction != 0
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.freed.get()
    }

    pub(crate) fn has_option(&self, option: c_int) -> bool {
        self.options.get() & option != 0
    }

    pub(crate) fn partner(&self) -> Option<Ref<Bev>> {
        match &self.kind {
            Kind::Pair(partner) => partner.get(),
            Kind::Socket | Kind::Filter(_) | Kind::Tls(_) => None,
        }
    }

    pub(crate) fn filter(&self) -> Option<&Filter> {
        match &self.kind {
            Kind::Filter(filter) => Some(filter),
            Kind::Socket | Kind::Pair(_) | Kind::Tls(_) => None,
        }
    }

    pub(crate) fn tls(&self) -> Option<&Layer> {
        match &self.kind {
            Kind::Tls(layer) => Some(layer),
            Kind::Socket | Kind::Pair(_) | Kind::Filter(_) => None,
        }
    }

    /// The one that this stands on.
    pub(crate) fn below(&self) -> Option<Ref<Bev>> {
        match &self.kind {
            Kind::Filter(filter) => filter.below(),
            Kind::Tls(layer) => layer.below(),
            Kind::Socket | Kind::Pair(_) => None,
        }
    }
}

impl Ref<Bev> {
    /// The one that moves the bytes of this one to and from a descriptor, if the library made it for that.
    pub(crate) fn carrier(self) -> Self {
        self.tls().and_then(Layer::carrier).unwrap_or(self)
    }
}

/// Makes a bufferevent. `lock` is that of another one that it belongs to.
pub(crate) fn make(
    base: Option<Ref<Base>>,
    kind: Kind,
    options: c_int,
    lock: Option<&Arc<Lock>>,
) -> Option<Ref<Bev>> {
    if options & UNLOCK_CALLBACKS != 0 && options & DEFER_CALLBACKS == 0 {
        log::warn("bufferevent: BEV_OPT_UNLOCK_CALLBACKS needs BEV_OPT_DEFER_CALLBACKS");
        return None;
    }
    let lock = match lock {
        Some(lock) => Some(lock.clone()),
        // Without threads there are no locks, and so nothing that is safe for them.
        None if options & THREADSAFE != 0 => Some(Lock::new()?),
        None => None,
    };
    let input = Ref::make(Buffer::new())?;
    let Some(output) = Ref::make(Buffer::new()) else {
        input.let_go();
        return None;
    };
    let middle = base.map_or(0, |base| (base.priorities() / 2) as u8);
    let deferred = Callback::own(callbacks::run_deferred, std::ptr::null_mut());
    deferred.priority.set(middle);
    let bev = Ref::make(Bev {
        base: Cell::new(base),
        operations: Cell::new(std::ptr::null()),
        ev_read: unassigned(),
        ev_write: unassigned(),
        input,
        output,
        read_mark: Mark::default(),
        write_mark: Mark::default(),
        on_read: Cell::new(None),
        on_write: Cell::new(None),
        on_event: Cell::new(None),
        argument: Cell::new(std::ptr::null_mut()),
        read_timeout: Cell::new(NO_TIME),
        write_timeout: Cell::new(NO_TIME),
        enabled: Cell::new(EV_WRITE),
        kind,
        options: Cell::new(options),
        users: Cell::new(1),
        freed: Cell::new(false),
        lock: OnceCell::new(),
        deferred,
        pending: Pending::default(),
        read_held: Cell::new(0),
        write_held: Cell::new(0),
        moves_by: Cell::new(By::Socket),
        connecting: Cell::new(false),
        refused: Cell::new(false),
        in_turn: Cell::new(false),
        write_due: Cell::new(false),
        dns_error: Cell::new(0),
        lookup: Cell::new(None),
        max_single_read: Cell::new(DEFAULT_MAX_SINGLE),
        max_single_write: Cell::new(DEFAULT_MAX_SINGLE),
        rate: RefCell::new(None),
    });
    let Some(bev) = bev else {
        input.let_go();
        output.let_go();
        return None;
    };
    bev.deferred.argument.set(bev.address().cast());
    if let Some(lock) = lock {
        bev.take_lock(&lock);
    }
    input.freeze(End::Back, true);
    output.freeze(End::Front, true);
    input.set_max_read(DEFAULT_MAX_SINGLE);
    input.set_owner(Owner::Input(bev));
    output.set_owner(Owner::Output(bev));
    Some(bev)
}

impl Ref<Bev> {
    /// Gets a lock, and gives it to the buffers.
    pub(crate) fn take_lock(self, lock: &Arc<Lock>) {
        if self.lock.set(lock.clone()).is_ok() {
            self.input.share_lock(lock);
            self.output.share_lock(lock);
            self.options.set(self.options.get() | THREADSAFE);
        }
    }

    pub(crate) fn retain(self) {
        self.users.set(self.users.get() + 1);
    }

    /// One less counts on it. Answers whether that was the last. The lock is held by nobody but this thread.
    #[inline(always)]
    pub(crate) fn let_go(self) -> bool {
        let users = self.users.get();
        if users > 1 {
            self.users.set(users - 1);
            return false;
        }
        self.last_let_go()
    }

    #[inline(never)]
    fn last_let_go(self) -> bool {
        if self.users.get() == 0 {
            log::warn("bufferevent_decref: nobody counts on it any more");
            return false;
        }
        self.users.set(0);
        self.unlink();
        let Some(base) = self.base.get() else {
            self.destroy();
            return true;
        };
        let _guard = base.guard();
        base.delete(Ref::of(&self.ev_read), Wait::No);
        base.delete(Ref::of(&self.ev_write), Wait::No);
        let deferred = Ref::of(&self.deferred);
        base.unqueue(deferred);
        deferred.closure.set(Closure::FinalizeOwn);
        deferred.function.set(Function {
            own: Some(finalized),
        });
        base.activate_callback(deferred);
        deferred.set(FINALIZING);
        true
    }

    /// The program frees it: no callback of it begins from here on.
    pub(crate) fn release(self) {
        let guard = self.guard();
        if self.freed.replace(true) {
            log::warn("bufferevent_free: it is freed already");
            return;
        }
        self.set_callbacks(None, None, None, std::ptr::null_mut());
        self.cancel_lookup();
        self.let_go();
        drop(guard);
    }

    /// Nobody counts on it: whoever knows it forgets it.
    fn unlink(self) {
        match &self.kind {
            Kind::Socket => {}
            Kind::Pair(partner) => pair::unlink(partner),
            Kind::Filter(filter) => filter.unlink(self),
            Kind::Tls(layer) => layer.unlink(self),
        }
        self.leave_rates();
    }

    /// Gives back everything.
    fn destroy(self) {
        match &self.kind {
            Kind::Socket => self.close_descriptor(),
            Kind::Pair(_) => {}
            Kind::Filter(filter) => filter.destroy(),
            Kind::Tls(layer) => layer.destroy(),
        }
        for event in [&self.ev_read, &self.ev_write] {
            crate::event::forget(Ref::of(event));
        }
        for buffer in [self.input, self.output] {
            buffer.set_owner(Owner::Nobody);
            buffer.let_go();
        }
        // SAFETY: it was made by `make`; nobody counts on it, and the loop has just done with it.
        unsafe { self.free() };
    }
}

extern "C" fn finalized(_callback: Ref<Callback>, bev: Opaque) {
    if let Some(bev) = of_argument(bev) {
        bev.destroy();
    }
}

/// The bufferevent that is the argument of a callback of the library's own.
pub(crate) fn of_argument(argument: Opaque) -> Option<Ref<Bev>> {
    // SAFETY: the callbacks of a bufferevent's own events carry its address, and are taken out of the loop before it goes.
    unsafe { std::mem::transmute::<Opaque, Option<Ref<Bev>>>(argument) }
}
