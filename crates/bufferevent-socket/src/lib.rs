//! Bufferevents over stream sockets, TCP and Unix-domain, and a listener that accepts into them.
//!
//! ```
//! use bufferevent_core::{READ, on_read};
//! use bufferevent_socket::{Builder, Listener, SocketExt};
//!
//! let events = evreactor::EventLoop::new()?;
//! // Echo: what comes in goes out, moved and not copied.
//! let listener = Listener::bind(&events, "127.0.0.1:0", |bev, _peer| {
//!     bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
//!     bev.enable(READ)
//! })?;
//!
//! let stop = events.clone();
//! let client = Builder::new(&events)
//!     .handler(on_read(move |bev| {
//!         let mut answer = [0; 5];
//!         assert_eq!((bev.read(&mut answer).unwrap(), &answer), (5, b"hello"));
//!         stop.exit();
//!     }))
//!     .connect(listener.local_addr()?)?;
//! client.enable(READ)?;
//! client.write(b"hello")?;
//! events.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//! - A socket is registered once; in the steady state a message costs a receive, a send and its share of a wait.
//! - An idle connection holds no buffer.
//! - Nothing blocks the loop, and no peer can make this crate panic.
//!
//! Names are looked up by whatever implements core's `Resolve`, for [`SocketExt::connect_hostname`]; resolvers are in `bufferevent-dns`.

#![deny(unsafe_code)]

mod address;
mod builder;
mod by_name;
mod calls;
mod descriptor;
mod ext;
mod listener;
mod socket;
mod transfer;

pub use address::{Address, IntoAddress};
pub use builder::Builder;
pub use calls::Calls;
pub use ext::{Parts, SocketExt};
pub use listener::{Accepted, Listener, ListenerBuilder, Make, Sharing};
pub use socket::Socket;

/// The type's name in errors.
const NAME: &str = "socket";
