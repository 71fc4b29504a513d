//! The one place this crate takes its shared-memory primitives from.
//!
//! # Why separate
//! The pool is the only thing here that two threads share. Under `cfg(loom)` its lock is a model checker's; the counts of
//! `Arc` are trusted.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks, also after a thread panicked inside: what the lock guards here is valid at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
