//! Locks, which exist only once the program asked for threads: `evthread_*`.
//!
//! # Invariants
//! - A lock is made by the functions that were set when it was made, and used by those.
//! - Every lock of the library's own is recursive.
//! - Without `evthread_use_pthreads` or callbacks of the program's no object has a lock, and locking costs a look at a null pointer.

use std::ffi::{c_int, c_ulong, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use parking_lot::lock_api::GuardNoSend;

use crate::ffi::Value;
use crate::log;
use crate::memory::address;

const LOCKTYPE_RECURSIVE: u32 = 1;
const API_VERSION: c_int = 1;

/// `EVTHREAD_TRY`: a lock function is not to wait.
const TRY: u32 = 0x10;

/// `struct evthread_lock_callbacks`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LockCallbacks {
    version: c_int,
    supported_locktypes: u32,
    alloc: Option<extern "C" fn(u32) -> *mut c_void>,
    free: Option<extern "C" fn(*mut c_void, u32)>,
    lock: Option<extern "C" fn(u32, *mut c_void) -> c_int>,
    unlock: Option<extern "C" fn(u32, *mut c_void) -> c_int>,
}

/// `struct evthread_condition_callbacks`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ConditionCallbacks {
    version: c_int,
    alloc: Option<extern "C" fn(u32) -> *mut c_void>,
    free: Option<extern "C" fn(*mut c_void)>,
    signal: Option<extern "C" fn(*mut c_void, c_int) -> c_int>,
    wait: Option<extern "C" fn(*mut c_void, *mut c_void, *const libc::timeval) -> c_int>,
}

impl PartialEq for LockCallbacks {
    fn eq(&self, other: &Self) -> bool {
        let functions = |one: &Self| {
            [
                address(one.alloc),
                address(one.free),
                address(one.lock),
                address(one.unlock),
            ]
        };
        functions(self) == functions(other)
    }
}

impl PartialEq for ConditionCallbacks {
    fn eq(&self, other: &Self) -> bool {
        let functions = |one: &Self| {
            [
                address(one.alloc),
                address(one.free),
                address(one.signal),
                address(one.wait),
            ]
        };
        functions(self) == functions(other)
    }
}

/// What the program chose.
#[derive(Clone, Copy)]
enum Threads {
    None,
    Ours,
    Theirs(LockCallbacks),
}

static THREADS: Mutex<Threads> = Mutex::new(Threads::None);
static CONDITIONS: Mutex<Option<ConditionCallbacks>> = Mutex::new(None);
static DEBUGGING: AtomicBool = AtomicBool::new(false);

fn get<T: Copy>(place: &Mutex<T>) -> T {
    *place.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set<T>(place: &Mutex<T>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

/// Whether objects are to have locks.
pub(crate) fn threads_in_use() -> bool {
    !matches!(get(&THREADS), Threads::None)
}

/// This thread's number; never 0, never reused.
pub(crate) fn this_thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// A recursive lock.
pub(crate) struct Lock {
    kind: Kind,
    owner: AtomicU32,
    depth: AtomicU32,
}

enum Kind {
    Ours(parking_lot::Mutex<()>),
    Theirs(LockCallbacks, *mut c_void),
    /// The program's own lock, given to `evbuffer_enable_locking`: not ours to free.
    Lent(LockCallbacks, *mut c_void),
}

// SAFETY: the pointer of `Theirs` and `Lent` goes to the program's lock functions alone, which are there for several threads; the
// rest is atomic.
unsafe impl Send for Lock {}
// SAFETY: as above.
unsafe impl Sync for Lock {}

impl Lock {
    /// A new lock, if threads are in use.
    pub(crate) fn new() -> Option<Arc<Self>> {
        let kind = match get(&THREADS) {
            Threads::None => return None,
            Threads::Ours => Kind::Ours(parking_lot::Mutex::new(())),
            Threads::Theirs(callbacks) => {
                let lock = callbacks.alloc.map(|alloc| alloc(LOCKTYPE_RECURSIVE))?;
                Kind::Theirs(callbacks, lock)
            }
        };
        Some(Arc::new(Self::of(kind)))
    }

    /// A lock of the program's own making.
    pub(crate) fn lent(lock: *mut c_void) -> Option<Arc<Self>> {
        match get(&THREADS) {
            Threads::Theirs(callbacks) => Some(Arc::new(Self::of(Kind::Lent(callbacks, lock)))),
            Threads::None | Threads::Ours => None,
        }
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            owner: AtomicU32::new(0),
            depth: AtomicU32::new(0),
        }
    }

    pub(crate) fn lock(&self) {
        let me = this_thread();
        match &self.kind {
            // Only this thread can have written its own number there.
            Kind::Ours(_) if self.owner.load(Ordering::Relaxed) == me => {}
            // Held without a guard; `unlock` knows who holds it.
            Kind::Ours(mutex) => std::mem::forget(mutex.lock()),
            Kind::Theirs(callbacks, lock) | Kind::Lent(callbacks, lock) => {
                if let Some(take) = callbacks.lock {
                    take(0, *lock);
                }
            }
        }
        self.owner.store(me, Ordering::Relaxed);
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes it if nobody else holds it.
    pub(crate) fn try_lock(&self) -> bool {
        let me = this_thread();
        let taken = match &self.kind {
            // Only this thread can have written its own number there.
            Kind::Ours(_) if self.owner.load(Ordering::Relaxed) == me => true,
            // Held without a guard; `unlock` knows who holds it.
            Kind::Ours(mutex) => mutex.try_lock().map(std::mem::forget).is_some(),
            Kind::Theirs(callbacks, lock) | Kind::Lent(callbacks, lock) => {
                callbacks.lock.is_none_or(|take| take(TRY, *lock) == 0)
            }
        };
        if taken {
            self.owner.store(me, Ordering::Relaxed);
            self.depth.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Lets go once. One who does not hold it is ignored, or ends the process under lock debugging.
    pub(crate) fn unlock(&self) {
        if !self.is_held() {
            if DEBUGGING.load(Ordering::Relaxed) {
                log::fatal("a lock was released by a thread that does not hold it");
            }
            return;
        }
        let last = self.depth.fetch_sub(1, Ordering::Relaxed) == 1;
        if last {
            self.owner.store(0, Ordering::Relaxed);
        }
        match &self.kind {
            Kind::Ours(mutex) => {
                if last {
                    // SAFETY: this thread holds it: `is_held`, and this was its last hold.
                    unsafe { mutex.force_unlock(GuardNoSend::new()) };
                }
            }
            Kind::Theirs(callbacks, lock) | Kind::Lent(callbacks, lock) => {
                if let Some(release) = callbacks.unlock {
                    release(0, *lock);
                }
            }
        }
    }

    /// Whether this thread holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == this_thread()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Kind::Theirs(callbacks, lock) = self.kind
            && let Some(free) = callbacks.free
        {
            free(lock, LOCKTYPE_RECURSIVE);
        }
    }
}

/// Holds a lock, if there is one, until it is dropped.
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct Guard(Option<Arc<Lock>>);

impl Guard {
    #[inline(always)]
    pub(crate) fn new(lock: Option<&Arc<Lock>>) -> Self {
        Self(lock.map(taken))
    }

    /// The same without waiting: `None` while another thread holds it.
    pub(crate) fn try_new(lock: Option<&Arc<Lock>>) -> Option<Self> {
        match lock {
            Some(lock) => lock.try_lock().then(|| Self(Some(lock.clone()))),
            None => Some(Self(None)),
        }
    }

    /// Lets go for the length of `body`, as often as it is held.
    pub(crate) fn unlocked<R>(lock: Option<&Arc<Lock>>, body: impl FnOnce() -> R) -> R {
        let Some(lock) = lock.filter(|lock| lock.is_held()).cloned() else {
            return body();
        };
        let held = lock.depth.load(Ordering::Relaxed);
        (0..held).for_each(|_| lock.unlock());
        let result = body();
        (0..held).for_each(|_| lock.lock());
        result
    }
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            let_go(lock);
        }
    }
}

/// Apart, as [`let_go`]: most programs have no locks.
#[inline(never)]
fn taken(lock: &Arc<Lock>) -> Arc<Lock> {
    lock.lock();
    lock.clone()
}

#[inline(never)]
fn let_go(lock: Arc<Lock>) {
    lock.unlock();
}

#[unsafe(no_mangle)]
extern "C" fn evthread_use_pthreads() -> c_int {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    match *threads {
        Threads::Theirs(_) => return -1,
        Threads::None | Threads::Ours => *threads = Threads::Ours,
    }
    0
}

/// The flag for priority inheritance is taken, and makes no difference: no lock is held while anything waits.
#[unsafe(no_mangle)]
extern "C" fn evthread_use_pthreads_with_flags(_flags: c_int) -> c_int {
    evthread_use_pthreads()
}

#[unsafe(no_mangle)]
extern "C" fn evthread_set_lock_callbacks(callbacks: Value<LockCallbacks>) -> c_int {
    let Some(callbacks) = callbacks.get() else {
        set(&THREADS, Threads::None);
        return 0;
    };
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    match *threads {
        Threads::Theirs(set) if set == callbacks => 0,
        Threads::Theirs(_) | Threads::Ours => {
            drop(threads);
            log::warn("evthread: lock callbacks are set already and cannot be changed");
            -1
        }
        Threads::None => {
            let complete = callbacks.version == API_VERSION
                && callbacks.supported_locktypes & LOCKTYPE_RECURSIVE != 0
                && callbacks.alloc.is_some()
                && callbacks.free.is_some()
                && callbacks.lock.is_some()
                && callbacks.unlock.is_some();
            if !complete {
                return -1;
            }
            *threads = Threads::Theirs(callbacks);
            0
        }
    }
}

/// Kept and checked; waiting inside the library needs no condition of the program's.
#[unsafe(no_mangle)]
extern "C" fn evthread_set_condition_callbacks(callbacks: Value<ConditionCallbacks>) -> c_int {
    let Some(callbacks) = callbacks.get() else {
        set(&CONDITIONS, None);
        return 0;
    };
    match get(&CONDITIONS) {
        Some(set) if set == callbacks => return 0,
        Some(_) => {
            log::warn("evthread: condition callbacks are set already and cannot be changed");
            return -1;
        }
        None => {}
    }
    let complete = callbacks.version == API_VERSION
        && callbacks.alloc.is_some()
        && callbacks.free.is_some()
        && callbacks.signal.is_some()
        && callbacks.wait.is_some();
    if complete {
        set(&CONDITIONS, Some(callbacks));
    }
    if complete { 0 } else { -1 }
}

/// Threads are told apart by numbers of the library's own.
#[unsafe(no_mangle)]
extern "C" fn evthread_set_id_callback(_callback: Option<extern "C" fn() -> c_ulong>) {}

#[unsafe(no_mangle)]
extern "C" fn evthread_enable_lock_debugging() {
    DEBUGGING.store(true, Ordering::Relaxed);
}

/// As it was spelt once.
#[unsafe(no_mangle)]
extern "C" fn evthread_enable_lock_debuging() {
    evthread_enable_lock_debugging();
}
