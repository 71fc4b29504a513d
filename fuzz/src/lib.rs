//! What the fuzz targets do: each takes bytes that say what happens, and panics where a promise is broken.
//!
//! The bodies are here and not in the targets, so that they compile, and run over the checked-in seeds, without libFuzzer.
//!
//! # Invariants
//! - The same bytes give the same run: no clock, no randomness of the system, nothing kept from one run to the next. A crash is
//!   reproduced by its input alone.
//! - Every run ends: what bytes can ask for is bounded by named limits, and a loop that makes no progress is a panic.

#![forbid(unsafe_code)]

pub mod evbuffer;
pub mod filter_stack;
pub mod inflate;
pub mod proxy;
pub mod tls;

mod credentials;

/// A target: what the bytes say is done, and checked.
pub type Target = fn(&[u8]);

/// Every target with its name.
pub const TARGETS: [(&str, Target); 5] = [
    ("evbuffer", evbuffer::run),
    ("filter_stack", filter_stack::run),
    ("inflate", inflate::run),
    ("proxy", proxy::run),
    ("tls", tls::run),
];
