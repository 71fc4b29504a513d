//! `struct evbuffer`: an [`EvBuffer`] with what C adds to it: a lock, callbacks in C's order, ends that can be frozen for
//! the program but not for the library.
//!
//! # Invariants
//! - Bytes are reached through [`Buffer::with`] alone, for a closure that calls nothing of the program's. Cleanup functions of
//!   references that are dropped in it run after it.
//! - Every change of the length is told by [`Buffer::changed`], after the change and with nothing borrowed.
//! - A buffer lives while somebody counts on it: the program, a deferred call, a bufferevent.

mod add;
mod channel;
mod file;
mod look;
mod reference;
mod take;
mod transfer;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use evbuffer::EvBuffer;

use crate::bufferevent::Bev;
use crate::event::base::Base;
use crate::event::layout::Callback;
use crate::ffi::{self, Ref};
use crate::lock::{Guard, Lock};
pub(crate) use channel::By;
pub(crate) use take::evbuffer_remove;
pub(crate) use transfer::evbuffer_add_buffer;
use watch::Watcher;

/// Bytes that one `evbuffer_read` takes at most, unless `evbuffer_set_max_read` says otherwise.
const DEFAULT_MAX_READ: usize = 4096;

/// `EVBUFFER_FLAG_DRAINS_TO_FD`: what is in the buffer goes to a descriptor, so that files may stay files.
const DRAINS_TO_FD: u64 = 1;

/// `struct evbuffer`.
pub(crate) struct Buffer {
    lock: OnceCell<Arc<Lock>>,
    bytes: RefCell<EvBuffer>,
    users: Cell<u32>,
    frozen_front: Cell<bool>,
    frozen_back: Cell<bool>,
    drains_to_fd: Cell<bool>,
    max_read: Cell<usize>,
    /// Room that was handed out by `evbuffer_reserve_space` and not yet committed.
    reserved: RefCell<Vec<u8>>,
    /// Newest first.
    watchers: RefCell<Vec<Ref<Watcher>>>,
    /// Whether there are some.
    is_watched: Cell<bool>,
    added: Cell<usize>,
    deleted: Cell<usize>,
    telling: Cell<bool>,
    /// Callbacks run from this base's loop.
    deferring: Cell<Option<Ref<Base>>>,
    deferred: Callback,
    owner: Cell<Owner>,
}

/// Whose input or output a buffer is.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    Nobody,
    Input(Ref<Bev>),
    Output(Ref<Bev>),
}

/// An end of the queue.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Front,
    Back,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self {
            lock: OnceCell::new(),
            bytes: RefCell::new(EvBuffer::new()),
            users: Cell::new(1),
            frozen_front: Cell::new(false),
            frozen_back: Cell::new(false),
            drains_to_fd: Cell::new(false),
            max_read: Cell::new(DEFAULT_MAX_READ),
            reserved: RefCell::new(Vec::new()),
            watchers: RefCell::new(Vec::new()),
            is_watched: Cell::new(false),
            added: Cell::new(0),
            deleted: Cell::new(0),
            telling: Cell::new(false),
            deferring: Cell::new(None),
            deferred: Callback::own(watch::tell_deferred, std::ptr::null_mut()),
            owner: Cell::new(Owner::Nobody),
        }
    }

    /// Takes the lock, if there is one.
    #[inline]
    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.lock.get())
    }

    /// Reaches the bytes. `body` calls nothing of the program's.
    #[inline(always)]
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut EvBuffer) -> R) -> R {
        reference::while_borrowed(|| body(&mut self.bytes.borrow_mut()))
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.borrow().len() // Nothing is dropped: no cleanup can be waiting for it.
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_frozen(&self, end: End) -> bool {
        match end {
            End::Front => self.frozen_front.get(),
            End::Back => self.frozen_back.get(),
        }
    }

    pub(crate) fn freeze(&self, end: End, frozen: bool) {
        match end {
            End::Front => self.frozen_front.set(frozen),
            End::Back => self.frozen_back.set(frozen),
        }
    }

    pub(crate) fn set_owner(&self, owner: Owner) {
        self.owner.set(owner);
    }

    pub(crate) fn set_max_read(&self, max: usize) {
        self.max_read.set(max);
    }

    pub(crate) fn set_drains_to_fd(&self) {
        self.drains_to_fd.set(true);
    }

    /// Uses a lock together with others.
    pub(crate) fn share_lock(&self, lock: &Arc<Lock>) {
        // One that has a lock of its own keeps it.
        let _ = self.lock.set(lock.clone());
    }

    /// Adds a copy of bytes, if the back is not frozen.
    pub(crate) fn add(&self, bytes: &[u8]) -> bool {
        self.change(End::Back, |own| own.append_slice(bytes).is_ok())
    }

    /// Changes the bytes at an end, if that is not frozen, and tells of it. The closure answers whether it was done.
    fn change(&self, end: End, change: impl FnOnce(&mut EvBuffer) -> bool) -> bool {
        let _guard = self.guard();
        !self.is_frozen(end) && self.change_frozen(change)
    }

    /// The same, whatever is frozen.
    pub(crate) fn change_frozen(&self, change: impl FnOnce(&mut EvBuffer) -> bool) -> bool {
        let (before, done, after) = self.with(|bytes| {
            let before = bytes.len();
            let done = change(bytes);
            (before, done, bytes.len())
        });
        self.changed(after.saturating_sub(before), before.saturating_sub(after));
        done
    }
}

impl Ref<Buffer> {
    /// Somebody else counts on it.
    pub(crate) fn retain(self) {
        self.users.set(self.users.get() + 1);
    }

    /// One less counts on it; the last one's going frees it.
    pub(crate) fn let_go(self) {
        let users = self.users.get() - 1;
        self.users.set(users);
        if users > 0 {
            return;
        }
        self.forget_watchers();
        // SAFETY: it was made by `Ref::make`, and nobody counts on it any more.
        unsafe { self.free() };
    }

    /// Two buffers, locked in the order of their addresses, so that two threads cannot wait for each other.
    fn guard_both(self, other: Self) -> (Guard, Guard) {
        if self.address() < other.address() {
            let first = self.guard();
            (first, other.guard())
        } else {
            let first = other.guard();
            (first, self.guard())
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_new() -> Option<Ref<Buffer>> {
    Ref::make(Buffer::new())
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_free(buffer: Option<Ref<Buffer>>) {
    let Some(buffer) = buffer else { return };
    let guard = buffer.guard();
    if buffer.users.get() > 1 {
        buffer.let_go();
        return;
    }
    drop(guard);
    buffer.let_go();
}

/// Gives the buffer a lock: the program's own, or a new one.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_enable_locking(buffer: Option<Ref<Buffer>>, lock: *mut c_void) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let lock = if lock.is_null() {
        Lock::new()
    } else {
        Lock::lent(lock)
    };
    let set = lock.is_some_and(|lock| buffer.lock.set(lock).is_ok());
    ffi::code(set)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_lock(buffer: Option<Ref<Buffer>>) {
    if let Some(lock) = buffer.as_ref().and_then(|buffer| buffer.lock.get()) {
        lock.lock();
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_unlock(buffer: Option<Ref<Buffer>>) {
    if let Some(lock) = buffer.as_ref().and_then(|buffer| buffer.lock.get()) {
        lock.unlock();
    }
}

fn set_flags(buffer: Option<Ref<Buffer>>, flags: u64, on: bool) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    if flags & DRAINS_TO_FD != 0 {
        buffer.drains_to_fd.set(on);
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_set_flags(buffer: Option<Ref<Buffer>>, flags: u64) -> c_int {
    set_flags(buffer, flags, true)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_clear_flags(buffer: Option<Ref<Buffer>>, flags: u64) -> c_int {
    set_flags(buffer, flags, false)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_set_max_read(buffer: Option<Ref<Buffer>>, max: usize) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    if max > c_int::MAX as usize {
        return -1;
    }
    let _guard = buffer.guard();
    buffer.max_read.set(max);
    0
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_get_max_read(buffer: Option<Ref<Buffer>>) -> usize {
    buffer.map_or(0, |buffer| {
        let _guard = buffer.guard();
        buffer.max_read.get()
    })
}

fn set_frozen(buffer: Option<Ref<Buffer>>, at_front: c_int, frozen: bool) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    let end = if at_front != 0 { End::Front } else { End::Back };
    buffer.freeze(end, frozen);
    0
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_freeze(buffer: Option<Ref<Buffer>>, at_front: c_int) -> c_int {
    set_frozen(buffer, at_front, true)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_unfreeze(buffer: Option<Ref<Buffer>>, at_front: c_int) -> c_int {
    set_frozen(buffer, at_front, false)
}
