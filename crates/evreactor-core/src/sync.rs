//! The one place the workspace's concurrent code takes its primitives from.
//!
//! Locks, atomics and thread identity of `evreactor` and `bufferevent-core` come from here (parking_lot's and
//! std's), so that a model checker can be put under the same code by changing this file alone.
//!
//! # Invariants
//! - [`thread_number`] is never reused within a process, unlike the system's thread ids: "same
//!   number" proves "same thread".
//! - Thread identity and the locks come from the same place, so that they can only be replaced together.

//! - `Arc` and `Weak` are always std's: their counts are trusted, and a model checker's know no trait objects.

#[cfg(loom)]
mod modelled;
#[cfg(not(loom))]
mod real;

#[cfg(loom)]
pub use modelled::{
    Mutex, MutexGuard, ReentrantMutex, ReentrantMutexGuard, ThreadNumber, atomic,
    lazy_thread_local, thread, thread_local, thread_number,
};
#[cfg(not(loom))]
pub use real::{
    Condvar, Mutex, MutexGuard, ReentrantMutex, ReentrantMutexGuard, ThreadNumber, atomic, thread,
    thread_local, thread_number,
};
pub use std::sync::{Arc, Weak};
