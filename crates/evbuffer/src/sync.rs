//! The one place this crate takes its shared-memory primitives from.
//!
//! # Why separate
//! The pool is the only thing here that two threads share. Whoever wants to model it under another
//! scheduler changes these lines and nothing else.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

/// Locks, also after a thread panicked inside: what the lock guards here is valid at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
