//! The primitives of a model: loom's, in the form of those of a program.
//!
//! loom's threads share one thread of the system, so the identity of a thread comes from loom too: by any other every lock would
//! look re-entered, and every confinement check pass.
//!
//! # Invariants
//! - Nothing here is used outside of `cfg(loom)`; a program is built without it.

#![expect(unsafe_code, reason = "lock_api builds the recursive lock of these")]

pub mod atomic;

pub use loom::thread;
#[doc(hidden)]
pub use loom::thread_local as lazy_thread_local;

/// `thread_local!` with constant values, of loom's threads.
#[doc(hidden)]
#[macro_export]
macro_rules! modelled_thread_local {
    () => {};
    ($(#[$meta:meta])* static $name:ident: $type:ty = const $value:block; $($rest:tt)*) => {
        $crate::sync::lazy_thread_local! { $(#[$meta])* static $name: $type = $value; }
        $crate::modelled_thread_local! { $($rest)* }
    };
}

pub use crate::modelled_thread_local as thread_local;

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::{Deref, DerefMut};
use std::sync::{OnceLock, TryLockError};

/// A lock, with parking_lot's interface.
#[derive(Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// What holds a [`Mutex`].
pub struct MutexGuard<'a, T>(loom::sync::MutexGuard<'a, T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Takes the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(
            self.0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard(guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some(MutexGuard(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A recursive lock.
pub type ReentrantMutex<T> = lock_api::ReentrantMutex<Raw, Identity, T>;

/// What holds a [`ReentrantMutex`].
pub type ReentrantMutexGuard<'a, T> = lock_api::ReentrantMutexGuard<'a, Raw, Identity, T>;

/// The plain lock under the recursive one. Made when first used, since loom makes nothing outside of a model.
pub struct Raw(OnceLock<(loom::sync::Mutex<bool>, loom::sync::Condvar)>);

impl Raw {
    fn parts(&self) -> &(loom::sync::Mutex<bool>, loom::sync::Condvar) {
        self.0
            .get_or_init(|| (loom::sync::Mutex::new(false), loom::sync::Condvar::new()))
    }
}

// SAFETY: `locked` is set by one `lock` or `try_lock` at a time, under the inner lock, and only `unlock` resets it.
unsafe impl lock_api::RawMutex for Raw {
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "the trait asks for it"
    )]
    const INIT: Self = Self(OnceLock::new());
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        let (locked, let_go) = self.parts();
        let mut locked = locked.lock().expect("no panic under it");
        while *locked {
            locked = let_go.wait(locked).expect("no panic under it");
        }
        *locked = true;
    }

    fn try_lock(&self) -> bool {
        let mut locked = self.parts().0.lock().expect("no panic under it");
        !std::mem::replace(&mut *locked, true)
    }

    unsafe fn unlock(&self) {
        let (locked, let_go) = self.parts();
        *locked.lock().expect("no panic under it") = false;
        let_go.notify_one();
    }
}

/// Who locks.
pub struct Identity;

// SAFETY: the number of a thread is its own, and never that of another.
unsafe impl lock_api::GetThreadId for Identity {
    const INIT: Self = Self;

    fn nonzero_thread_id(&self) -> NonZeroUsize {
        let number = usize::try_from(thread_number().0.get()).expect("few threads");
        NonZeroUsize::new(number).expect("it is not zero")
    }
}

static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

loom::thread_local! {
    static NUMBER: u64 = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Identifies a thread for as long as the process lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct ThreadNumber(NonZeroU64);

/// The number of the calling thread.
#[must_use]
pub fn thread_number() -> ThreadNumber {
    NUMBER.with(|number| ThreadNumber(NonZeroU64::new(*number).expect("they begin at one")))
}
