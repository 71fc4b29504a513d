//! What the workspace's tests stand on: a loop with a virtual clock, scripted and faulty
//! transports, and the records from which `cargo xtask spec` says what was proved.
//!
//! Never published: every crate of the workspace may use it in its tests and none may depend on it.

#![forbid(unsafe_code)]

pub mod record;
#[cfg(feature = "bufferevents")]
mod virtual_loop;

#[cfg(feature = "bufferevents")]
pub use virtual_loop::Loop;
