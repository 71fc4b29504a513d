//! Bufferevents: buffered I/O with callbacks that run when *enough* was read or written.
//!
//! A bufferevent is a transport with an input buffer, an output buffer, and a handler. Bytes that arrive wait in the
//! input until the application takes them; bytes that the application writes wait in the output until the
//! transport takes them; watermarks say how much waiting is too little to mention and how much is too much.
//!
//! This crate has all that every type of bufferevent shares, and no type of its own: sockets, pairs and filters
//! live in crates beside it and implement one trait, [`Bufferevent`]. An application holds a [`Bev`], which looks the same
//! whatever is behind it.
//!
//! ```
//! use bufferevent_core::{Bev, Event, Handler, READ};
//!
//! /// Sends back what comes, in upper case.
//! struct Shout;
//!
//! impl Handler for Shout {
//!     fn on_read(&mut self, bev: &Bev) {
//!         let mut bytes = vec![0; bev.input().len()];
//!         let count = bev.read(&mut bytes).unwrap_or(0);
//!         bytes.truncate(count);
//!         bytes.make_ascii_uppercase();
//!         // A refusal means that the stream has ended; the event callback hears of that.
//!         let _ = bev.write(&bytes);
//!     }
//! }
//!
//! fn serve(bev: &Bev) -> Result<(), bufferevent_core::Error> {
//!     bev.set_handler(Shout)?;
//!     bev.set_read_watermark(0, 64 * 1024)?;
//!     bev.enable(READ)
//! }
//! # let _ = serve;
//! ```
//!
//! # How it works
//! All bufferevents of one stack (or pair) form a *domain*: one arena, one lock, one queue of steps. A *pump* takes
//! steps from the queue: *pull* a layer (bytes up), *push* a layer (bytes down), *deliver* to a handler. Layers never call each
//! other and never call the user; whatever changes a buffer queues what may have become possible. The pump is a loop, so
//! neither deep stacks nor callbacks that call back use stack.
//!
//! # Invariants
//! - No descriptor, no system call, no clock but the loop's.
//! - User code is never called while anything here is borrowed or half-changed.
//! - One pump is active per thread, and only on the loop's.
//!
//! The chapter "Bufferevents: concepts and basics" of the libevent book describes the originals.

#![forbid(unsafe_code)]

pub mod accept;
#[cfg(feature = "async")]
mod async_bev;
mod bev;
mod buffers;
mod callbacks;
mod context;
mod core;
mod deliver;
mod direction;
mod domain;
mod error;
mod event;
mod flush;
mod gathered;
mod group;
mod handler;
mod held;
mod home;
mod inbox;
mod layer;
mod lent;
mod life;
mod limits;
mod local;
mod lone;
mod node;
mod options;
mod published;
mod pump;
mod rate;
pub mod resolve;
mod set;
mod settings;
mod stack;
mod stacked;
mod surgery;
mod tally;
#[cfg(feature = "async")]
pub mod task;
mod timers;
mod told;
mod wake;
mod watermark;

#[cfg(feature = "async")]
pub use async_bev::{AsyncBev, DEFAULT_MARK, Elapsed, LINGER};
pub use bev::{Bev, Stats};
pub use buffers::{Input, Output};
pub use context::{BelowEnd, Context, NodeKey};
pub use direction::{Direction, Directions, READ, Reasons, WRITE};
pub use error::{Blame, Error, Kind};
pub use event::{Deadline, Event, EventFlags};
pub use group::RateGroup;
pub use handler::{
    Absent, Callbacks, DataCallback, EventCallback, Handler, Interest, Pressure, on_event, on_read,
    on_write,
};
pub use layer::{Bufferevent, Step};
pub use options::{Flushed, Mode, Options, TriggerOptions};
pub use rate::{BadRate, Rate};
pub use resolve::{Family, Resolve, ResolveError, ResolveFailure};
pub use stack::LayerRef;
pub use surgery::TornOff;
pub use told::Guard;
pub use watermark::Watermark;
