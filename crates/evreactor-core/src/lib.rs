//! What an event loop offers to those who live on it, as traits, and nothing else.
//!
//! A buffered-I/O object needs little of its loop: the time, a timer, "call me later", "call me
//! when the descriptor is ready". That little is the [`Host`] trait; what the loop calls back is
//! the [`Target`] trait. `evreactor` implements `Host` over real readiness backends, and a test
//! kit implements it over a virtual clock, so whoever is written against this crate runs on both
//! without a change.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use evreactor_core::{Host, Ready, Target};
//!
//! /// Counts how often its loop called it.
//! #[derive(Default)]
//! struct Counter(AtomicU64);
//!
//! impl Target for Counter {
//!     fn run(&self, key: u64) {
//!         self.0.fetch_add(key, Ordering::Relaxed);
//!     }
//!     fn expired(&self, _key: u64) {}
//!     fn ready(&self, _key: u64, _ready: Ready) {}
//! }
//!
//! /// Works on any loop.
//! fn count_later(host: &dyn Host, counter: &Arc<Counter>) {
//!     host.schedule(evreactor_core::Phase::Turn, counter.clone(), 1).expect("the loop runs");
//! }
//! # let _ = count_later;
//! ```
//!
//! # Invariants
//! - No trait here names a descriptor: a [`Ready`] set says *that* something can move, never what.
//! - A [`Target`] is only ever called on its host's thread, with no lock of the host held.
//! - [`sync`] is the only place the workspace's concurrent code takes locks, atomics and thread identity from.

#![cfg_attr(not(loom), forbid(unsafe_code))]
#![cfg_attr(loom, deny(unsafe_code))]

mod host;
mod ready;
pub mod sync;
mod time;
mod wheel;

pub use host::{AsHost, CloseList, Host, LoopClosed, Phase, Priority, Target, TimerKey};
pub use ready::Ready;
pub use time::{Clock, Moment, Monotonic};
pub use wheel::TimerWheel;
