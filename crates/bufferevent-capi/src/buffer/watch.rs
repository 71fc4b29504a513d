//! Callbacks on a buffer's length, in C's order: the newest first.
//!
//! # Invariants
//! - A callback runs with nothing borrowed, so it may do anything, also remove itself and others: one that was removed
//!   meanwhile is not called.
//! - A change from inside a callback does not call callbacks in the middle of others: it is told in a further round, of which
//!   there are at most [`MAX_ROUNDS`]. What is left then is told with the next change.
//! - Where callbacks are deferred, they are told once of all that changed since the last time.

use std::ffi::{c_int, c_void};

use crate::buffer::{Buffer, Owner};
use crate::event::base::Base;
use crate::event::layout::Callback;
use crate::ffi::{self, Opaque, Ref};

/// How often callbacks whose changes have to be told again are called for one change.
const MAX_ROUNDS: usize = evbuffer::MAX_ROUNDS;

/// `EVBUFFER_CB_ENABLED`.
const ENABLED: u32 = 1;

/// `struct evbuffer_cb_info`.
#[repr(C)]
pub(crate) struct Info {
    orig_size: usize,
    n_added: usize,
    n_deleted: usize,
}

type WatchCallback = extern "C" fn(Ref<Buffer>, *const Info, Opaque);
type OldCallback = extern "C" fn(Ref<Buffer>, usize, usize, Opaque);

#[derive(Clone, Copy)]
enum Function {
    New(WatchCallback),
    /// That of `evbuffer_setcb`, which is told the old and the new length.
    Old(OldCallback),
}

/// `struct evbuffer_cb_entry`.
pub(crate) struct Watcher {
    function: Function,
    argument: Opaque,
    flags: std::cell::Cell<u32>,
}

impl Buffer {
    /// Tells of a change: the program's callbacks, then the bufferevent whose buffer this is.
    #[inline(always)]
    pub(crate) fn changed(&self, added: usize, deleted: usize) {
        if added == 0 && deleted == 0 {
            return;
        }
        // A callback may free what it is a part of.
        let owner = self.owner.get();
        if self.is_watched.get() {
            self.tell_watchers(added, deleted);
        }
        match owner {
            Owner::Nobody => {}
            Owner::Input(bev) => bev.input_changed(),
            Owner::Output(bev) => bev.output_changed(added),
        }
    }

    #[inline(never)]
    fn tell_watchers(&self, added: usize, deleted: usize) {
        self.added.set(self.added.get() + added);
        self.deleted.set(self.deleted.get() + deleted);
        match self.deferring.get() {
            Some(base) => self.defer(base),
            None => self.tell(),
        }
    }

    /// Has the loop tell of what changed until then.
    fn defer(&self, base: Ref<Base>) {
        let (own, callback) = (Ref::of(self), Ref::of(&self.deferred));
        let _guard = base.guard();
        if base.defer(callback) {
            callback.argument.set(own.address().cast());
            own.retain(); // Until it was told.
        }
    }

    fn tell(&self) {
        if self.telling.replace(true) {
            return;
        }
        for _ in 0..MAX_ROUNDS {
            if !self.tell_once() {
                break;
            }
        }
        self.telling.set(false);
    }

    /// Calls each callback once; whether there was something to tell.
    fn tell_once(&self) -> bool {
        let (n_added, n_deleted) = (self.added.take(), self.deleted.take());
        if n_added == 0 && n_deleted == 0 {
            return false;
        }
        let info = Info {
            orig_size: (self.len() + n_deleted).saturating_sub(n_added),
            n_added,
            n_deleted,
        };
        // As they are now: others that are added meanwhile have nothing to hear of this change.
        let watchers = self.watchers.borrow().clone();
        for watcher in watchers {
            let stays = self.watchers.borrow().contains(&watcher);
            if !stays || watcher.flags.get() & ENABLED == 0 {
                continue;
            }
            match watcher.function {
                Function::New(function) => {
                    function(Ref::of(self), &raw const info, watcher.argument)
                }
                Function::Old(function) => {
                    let (old, new) = (info.orig_size, self.len());
                    function(Ref::of(self), old, new, watcher.argument);
                }
            }
        }
        true
    }

    fn remove_watcher(&self, remove: impl Fn(Ref<Watcher>) -> bool) -> bool {
        let removed = {
            let mut watchers = self.watchers.borrow_mut();
            let at = watchers.iter().position(|watcher| remove(*watcher));
            let removed = at.map(|at| watchers.remove(at));
            if watchers.is_empty() {
                // Nobody is left to tell.
                self.is_watched.set(false);
                self.added.set(0);
                self.deleted.set(0);
            }
            removed
        };
        let Some(watcher) = removed else { return false };
        // SAFETY: it was made by `add_watcher` and is in no list any more; `tell_once` looks only at those that are.
        unsafe { watcher.free() };
        true
    }

    pub(crate) fn forget_watchers(&self) {
        while self.remove_watcher(|_| true) {}
    }

    fn add_watcher(&self, function: Function, argument: Opaque) -> Option<Ref<Watcher>> {
        let watcher = Ref::make(Watcher {
            function,
            argument,
            flags: std::cell::Cell::new(ENABLED),
        })?;
        self.watchers.borrow_mut().insert(0, watcher);
        self.is_watched.set(true);
        Some(watcher)
    }
}

/// The loop has come to a buffer whose callbacks are deferred.
pub(crate) extern "C" fn tell_deferred(_callback: Ref<Callback>, buffer: Opaque) {
    // SAFETY: what `Buffer::defer` passes: a buffer, kept alive by it until here.
    let Some(buffer) = (unsafe { std::mem::transmute::<Opaque, Option<Ref<Buffer>>>(buffer) })
    else {
        return;
    };
    {
        let _guard = buffer.guard();
        buffer.tell();
    }
    buffer.let_go();
}

/// Has a base's loop run the callbacks from now on.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_defer_callbacks(
    buffer: Option<Ref<Buffer>>,
    base: Option<Ref<Base>>,
) -> c_int {
    let (Some(buffer), Some(base)) = (buffer, base) else {
        return -1;
    };
    let _guard = buffer.guard();
    let middle = (base.priorities() / 2) as u8;
    buffer.deferred.priority.set(middle);
    buffer.deferring.set(Some(base));
    0
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_cb(
    buffer: Option<Ref<Buffer>>,
    callback: Option<WatchCallback>,
    argument: Opaque,
) -> Option<Ref<Watcher>> {
    let buffer = buffer?;
    let _guard = buffer.guard();
    buffer.add_watcher(Function::New(callback?), argument)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_remove_cb_entry(
    buffer: Option<Ref<Buffer>>,
    entry: Option<Ref<Watcher>>,
) -> c_int {
    let (Some(buffer), Some(entry)) = (buffer, entry) else {
        return -1;
    };
    let _guard = buffer.guard();
    ffi::code(buffer.remove_watcher(|watcher| watcher == entry))
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_remove_cb(
    buffer: Option<Ref<Buffer>>,
    callback: Option<WatchCallback>,
    argument: Opaque,
) -> c_int {
    let (Some(buffer), Some(callback)) = (buffer, callback) else {
        return -1;
    };
    let _guard = buffer.guard();
    ffi::code(buffer.remove_watcher(|watcher| {
        watcher.argument == argument
            && matches!(watcher.function, Function::New(own) if std::ptr::fn_addr_eq(own, callback))
    }))
}

fn set_flags(
    buffer: Option<Ref<Buffer>>,
    entry: Option<Ref<Watcher>>,
    flags: u32,
    on: bool,
) -> c_int {
    let (Some(buffer), Some(entry)) = (buffer, entry) else {
        return -1;
    };
    let _guard = buffer.guard();
    // What else there is, is the library's own business.
    let flags = flags & ENABLED;
    let now = entry.flags.get();
    entry.flags.set(if on { now | flags } else { now & !flags });
    0
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_cb_set_flags(
    buffer: Option<Ref<Buffer>>,
    entry: Option<Ref<Watcher>>,
    flags: u32,
) -> c_int {
    set_flags(buffer, entry, flags, true)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_cb_clear_flags(
    buffer: Option<Ref<Buffer>>,
    entry: Option<Ref<Watcher>>,
    flags: u32,
) -> c_int {
    set_flags(buffer, entry, flags, false)
}

/// Replaces all callbacks by one that is told lengths.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_setcb(
    buffer: Option<Ref<Buffer>>,
    callback: Option<OldCallback>,
    argument: *mut c_void,
) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    buffer.forget_watchers();
    let set = callback.is_none_or(|callback| {
        buffer
            .add_watcher(Function::Old(callback), argument)
            .is_some()
    });
    ffi::code(set)
}
