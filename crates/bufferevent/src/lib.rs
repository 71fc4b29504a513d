//! Bufferevents for Rust: one dependency for the whole stack.
//!
//! A bufferevent is a transport with an input buffer, an output buffer and callbacks that run when *enough* was read or
//! written. This crate holds no code of its own: it re-exports the crates that do.
//!
//! | feature | what it brings | crate |
//! |---|---|---|
//! | (always) | [`Bev`], [`Handler`], [`Event`], marks, options; [`EvBuffer`](evbuffer::EvBuffer) | `bufferevent-core`, `evbuffer` |
//! | `socket` (default) | [`EventLoop`], [`Listener`], TCP and Unix-domain sockets | `evreactor`, `bufferevent-socket` |
//! | `dns` | `System`, `Dns`, `Static`: resolvers, for sockets that connect by name | `bufferevent-dns` |
//! | `pair` (default) | [`pair()`] | `bufferevent-pair` |
//! | `filter` (default) | `Filter`, and `FilterExt`, which puts filters on any bufferevent | `bufferevent-filter` |
//! | `iocp` | `iocp`: sockets over completions, io_uring on Linux | `bufferevent-iocp` |
//! | `zlib` | `Zlib`: zlib, deflate and gzip as filters | `bufferevent-zlib` |
//! | `tls` | `TlsClient`, `TlsServer`: TLS 1.2 and 1.3 as filters | `bufferevent-tls` |
//! | `async` | `AsyncBev`: any bufferevent as `AsyncRead` and `AsyncWrite`; `task`: futures on the loop | `bufferevent-core` |
//!
//! ```
//! # #[cfg(feature = "socket")] {
//! use bufferevent::{EventLoop, Listener, READ, on_read};
//!
//! let events = EventLoop::new()?;
//! let listener = Listener::bind(&events, "127.0.0.1:0", |bev, _peer| {
//!     bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
//!     bev.enable(READ)
//! })?;
//! println!("echo at {}", listener.local_addr()?);
//! # drop(listener);
//! events.run()?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(all(doctest, feature = "socket", feature = "pair"))]
mod book;

pub use bufferevent_core::{
    Absent, BadRate, BelowEnd, Bev, Blame, Bufferevent, Callbacks, Context, Deadline, Direction,
    Directions, Error, Event, EventFlags, Family, Flushed, Guard, Handler, Input, Interest, Kind,
    LayerRef, Mode, Options, Output, Pressure, READ, Rate, RateGroup, Reasons, Resolve,
    ResolveError, ResolveFailure, Stats, Step, TornOff, TriggerOptions, WRITE, Watermark, on_event,
    on_read, on_write, resolve,
};
#[cfg(feature = "async")]
pub use bufferevent_core::{AsyncBev, Elapsed, task};
pub use evbuffer;
pub use evreactor_core::{AsHost, Clock, Host, Moment, Priority};

#[cfg(feature = "dns")]
pub use bufferevent_dns::{self as dns, Blocking, Dns, Static, System};

#[cfg(feature = "filter")]
pub use bufferevent_filter::{
    self as filter, Filter, FilterExt, FilterRef, Filtering, Sink, Verdict, Wants,
};

#[cfg(feature = "iocp")]
pub use bufferevent_iocp as iocp;

#[cfg(feature = "pair")]
pub use bufferevent_pair::{Pair, Partner, pair, pair_with};

#[cfg(feature = "socket")]
pub use bufferevent_socket::{
    Address, Builder, Calls, IntoAddress, Listener, ListenerBuilder, Parts, Sharing, Socket,
    SocketExt,
};
#[cfg(any(feature = "socket", feature = "iocp"))]
pub use evreactor::{self, EventLoop, LoopHandle};

#[cfg(feature = "tls")]
pub use bufferevent_tls::{self as tls, Tls, TlsClient, TlsServer};

#[cfg(feature = "zlib")]
pub use bufferevent_zlib::{self as zlib, Zlib};
