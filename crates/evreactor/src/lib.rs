//! An event loop over readiness: sources, timers, signals and queued calls, on one thread, woken from any.
//!
//! [`EventLoop`] is what waits; it stays on its thread. [`LoopHandle`] is what everyone else holds: a clone of it
//! registers sources, arms timers and posts closures from wherever it is. What the loop calls is a [`Target`] with a key of the
//! target's own, so one object can serve a million sources without an allocation for each.
//!
//! ```
//! use std::time::Duration;
//! use evreactor::EventLoop;
//!
//! let events = EventLoop::new()?;
//! let handle = events.clone();
//! events.after(Duration::from_millis(2), move || {
//!     println!("two milliseconds later");
//!     handle.exit();
//! })?.detach();
//! events.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where things are
//! - The order of a turn, and the modes of running: [`EventLoop`].
//! - What waits: the [`Backend`] trait; `mio` and `polling` are built in, other crates [`register_backend`] theirs.
//!   A loop gets one by name: [`Builder::backend`], or the environment variable [`BACKEND_VARIABLE`].
//! - Loops on several threads, made and ended together: [`LoopPool`].
//! - Timers: [`evreactor_core::TimerWheel`], a millisecond per tick, constant time for every operation.
//! - Traits for those who should run on other loops as well: [`evreactor_core`], re-exported here.
//!
//! # Portability
//! Guaranteed everywhere: a change of readiness after a would-block is reported; a timer is never early; calls of
//! one phase and priority come in order; a post is never lost. Hints only: what the bits of [`Ready`] say, and how many
//! events one change makes. [`Features`] tells what a backend does beyond that. Signals are Unix only.
//!
//! # Invariants
//! - User code runs on the loop's thread, with no lock of the loop held. A panic in it is caught, logged through `tracing`
//!   and counted; the loop stays usable.
//! - Descriptors are borrowed, never closed, read or written.
//! - Unsafe code is in the backends' files only.

#![deny(unsafe_code)]

mod agenda;
mod backend;
mod builder;
mod doorbell;
mod event_loop;
mod handle;
#[cfg(all(test, loom))]
mod models;
mod pool;
mod shared;
#[cfg(unix)]
mod signal;
mod source;
mod stats;
mod task;

pub use backend::{
    BACKEND_VARIABLE, Backend, DEFAULT_BACKEND, Events, Features, Interest, NameTaken, Registrar,
    backend_names, register_backend,
};
pub use builder::{BuildError, Builder};
pub use event_loop::{EventLoop, Outcome, RunError};
pub use evreactor_core::{
    Clock, Host, LoopClosed, Moment, Monotonic, Phase, Priority, Ready, Target, TimerKey,
};
pub use handle::{Hold, LoopHandle, Timer};
pub use pool::{Lease, LoopFailure, LoopPool, PoolBuilder, PoolError, Reason};
#[cfg(unix)]
pub use signal::Signal;
pub use source::{AsSource, RawSource, Registration, Token};
pub use stats::Stats;

/// The examples of the README, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
