//! What the workspace's tests stand on: a loop with a virtual clock, scripted and faulty
//! transports, a model of a filter, a handler that remembers, choices for fuzzers, and the records from which `cargo xtask spec` says
//! what was proved.
//!
//! For tests alone: every crate of the workspace may use it in its tests, and none may depend on it otherwise.

#![forbid(unsafe_code)]

pub mod record;

/// Whether a test may judge how much memory a process has: not under a sanitizer, whose own is most of it.
///
/// `cargo xtask sanitize` says so by the environment variable `BUFFEREVENT_SANITIZED`. Everything else of such a test holds all the same.
#[must_use]
pub fn judges_memory() -> bool {
    std::env::var_os("BUFFEREVENT_SANITIZED").is_none()
}

mod choices;

pub use choices::Choices;

#[cfg(feature = "bufferevents")]
mod alarm;
#[cfg(feature = "bufferevents")]
mod clock;
#[cfg(feature = "bufferevents")]
mod faulty;
#[cfg(feature = "bufferevents")]
mod random;
#[cfg(feature = "bufferevents")]
mod recorder;
#[cfg(feature = "bufferevents")]
mod scripted;
#[cfg(feature = "bufferevents")]
mod through;
#[cfg(feature = "bufferevents")]
mod virtual_loop;

#[cfg(feature = "bufferevents")]
pub use clock::ManualClock;
#[cfg(feature = "bufferevents")]
pub use faulty::{Network, faulty};
#[cfg(feature = "bufferevents")]
pub use random::Random;
#[cfg(feature = "bufferevents")]
pub use recorder::{Log, Recorder, Told};
#[cfg(feature = "bufferevents")]
pub use scripted::{Script, Trace, scripted};
#[cfg(feature = "bufferevents")]
pub use through::Through;
#[cfg(feature = "bufferevents")]
pub use virtual_loop::Loop;
