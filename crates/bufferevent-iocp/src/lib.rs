//! Bufferevents over completion I/O: what libevent calls `bufferevent_async`.
//!
//! A readiness loop is told that a socket *can* be read, and reads. A completion loop hands the kernel a read, and is told
//! that it *was*. The bufferevent is the same to its user; below it are operations that are under way, and memory that is lent to them.
//!
//! ```no_run
//! use bufferevent_core::{READ, on_read};
//! use bufferevent_iocp::Listener;
//!
//! let events = bufferevent_iocp::builder()?.build()?;
//! let address: std::net::SocketAddr = "127.0.0.1:7000".parse()?;
//! let _listener = Listener::bind(&events, address, |bev, _peer| {
//!     bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
//!     bev.enable(READ)
//! })?;
//! events.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The contract of lent memory
//! 1. **An operation owns what it lends.** The bytes of a send are moved out of the bufferevent's output and *into* the
//!    [`Operation`]; a receive's memory is the driver's own. No pointer to memory of the bufferevent is handed out.
//! 2. **It comes back with the completion, and in no other way.** A driver gives up lent memory only inside of a
//!    [`Completion`] that it has reaped: not when the operation is cancelled, not when its socket is closed, not when anybody loses interest.
//! 3. **Handles own nothing.** Freeing or dropping a bufferevent, or `mem::forget`-ting a handle, changes no operation's memory: the *lane* of
//!    the socket stays, with nobody to tell, until nothing is under way on it.
//! 4. **A lane's number is used again only then**, so a late completion is never another socket's.
//! 5. **A descriptor is closed only then**, so no operation meets a descriptor that has become another's. What was handed over
//!    before still leaves, for 30 seconds at most.
//! 6. **A driver outlives its operations.** One that is dropped cancels them and waits; what the system does not give back by then is leaked,
//!    never freed. `mem::forget`-ting a loop leaks its driver with all that it has.
//! 7. **One thread.** A driver is called by its loop's thread alone. Other threads stage operations under a lock, and wake. Nothing else is shared, and
//!    the wake is that of every backend: the models of `evreactor` (`cargo xtask loom`) are its models.
//!
//! ```text
//!            bufferevent                desk                    driver           system
//!  push      output ──moved──> staged send ──moved──> Operation ──lent──> kernel
//!                                                                               │
//!            (dropped) <──────── trash <──moved── Completion <──────reaped──────┘
//!  pull      input <──moved── arrived <──moved── Completion <──reaped── block of the ring
//! ```
//!
//! # Where things are
//! - [`Driver`]: the completion trait: [`Operation`]s in, [`Completion`]s out. [`Fake`] is one with a script; io_uring's is in `uring/`,
//!   that of completion ports in `iocp/`.
//! - [`Port`]: a driver as a backend of the reactor. Timers, wake-ups, signals and readiness sources live on the same loop.
//! - [`Builder`], [`CompletionExt`], [`Listener`]: making bufferevents, and what only these can do.
//! - What is under way on a socket, and every change of it: `desk.rs`.
//!
//! # Portability
//! io_uring needs Linux 6.1 or later, and a system that allows it: [`available`] says so, [`builder`] falls back. Completion ports (IOCP)
//! are in every Windows; tested under Wine 8.0.

#![deny(unsafe_code)]

mod builder;
mod by_name;
mod desk;
mod driver;
mod fake;
#[cfg(windows)]
mod iocp;
mod listener;
mod port;
mod socket;
mod system;
mod unavailable;
#[cfg(target_os = "linux")]
mod uring;

pub use builder::{Builder, CompletionExt, Parts};
pub use driver::{Completion, Done, Driver, Lane, Operation, Verb, Waker};
pub use fake::{Fake, PIPE};
pub use listener::{Accepted, Listener, ListenerBuilder};
pub use port::{Port, register_driver};
pub use socket::Socket;
pub use socket2::SockAddr;
#[cfg(target_os = "linux")]
pub use system::RingOptions;
pub use system::{BACKEND, BACKEND_FAKE, available, builder, register, register_fake};
pub use unavailable::Unavailable;

/// The type's name in errors.
const NAME: &str = "completion socket";
