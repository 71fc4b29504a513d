//! Resolvers for bufferevents that connect by name.
//!
//! ```
//! use bufferevent_core::{Event, Family, on_event};
//! use bufferevent_dns::System;
//! use bufferevent_socket::Builder;
//!
//! let events = evreactor::EventLoop::new()?;
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let resolver = System::new();
//!
//! let stop = events.clone();
//! let bev = Builder::new(&events)
//!     .handler(on_event(move |bev, event| {
//!         match event {
//!             Event::Connected => println!("connected"),
//!             Event::Error { error, .. } => match bev.dns_error() {
//!                 Some(error) => println!("{error}"), // "cannot look up `localhost`: …"
//!                 None => println!("{error}"),
//!             },
//!             _ => {}
//!         }
//!         stop.exit();
//!     }))
//!     .connect_hostname(&resolver, Family::V4, "localhost", listener.local_addr()?.port())?;
//! events.run()?;
//! # drop(bev);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | resolver | who is asked | where |
//! |---|---|---|
//! | [`System`] | `getaddrinfo`: files, NSS, the DNS, as the system is set up | on a few threads |
//! | `Dns` | name servers, by UDP and TCP | on the loop |
//! | [`Static`] | a table, then another resolver if there is one | at once |
//! | [`Blocking`] | a function of yours | on a few threads |
//!
//! A resolver is shared by reference; any number of questions may be under way, up to a limit that is answered by
//! [`ResolveFailure::Busy`].
//!
//! # Invariants
//! - Nothing here blocks a loop.
//! - A name goes out only as IDNA (UTS 46) makes it ASCII; what is no name is refused before anybody is asked.
//! - Dropping a bufferevent calls its question off; dropping a resolver answers what waits with [`ResolveFailure::Cancelled`].
//! - No answer of a server can make this panic, and what it may cost is limited.

#![forbid(unsafe_code)]

mod blocking;
#[cfg(feature = "hickory")]
mod dns;
mod name;
mod system;
mod table;

pub use blocking::Blocking;
pub use bufferevent_core::resolve::{
    Family, Found, Lookup, Question, Reply, Resolve, ResolveError, ResolveFailure,
};
#[cfg(feature = "hickory")]
pub use dns::{BadSetup, Dns, DnsBuilder};
pub use name::ascii_host;
pub use system::System;
pub use table::{BadLine, Static};
