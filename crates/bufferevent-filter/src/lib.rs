//! Filters: what stands between a bufferevent and its user, and turns bytes into other bytes.
//!
//! A filter has two sides and sees nothing but buffers. Its *input* side turns what was read below into what the user
//! reads; its *output* side turns what the user writes into what is written below. It knows no descriptor, no clock and
//! no user, so it is tested as a function, and stands on anything: a socket, one end of a pair, another filter.
//!
//! ```text
//!        user                              user
//!      read | write                          |
//!     +-----v------+                  +------------+
//!     |   filter   |                  |    zlib    |   filter over
//!     +------------+                  +------------+
//!     | underlying |                  |    TLS     |   filter over
//!     +------------+                  +------------+
//!                                     |   socket   |   transport
//!                                     +------------+
//! ```
//!
//! One call puts a filter on a bufferevent; what comes back is a bufferevent like any other:
//!
//! ```
//! use bufferevent_core::{Options, READ};
//! use bufferevent_filter::{FilterExt, Sink, Verdict, from_fn};
//! use bufferevent_pair::pair;
//! use evbuffer::EvBuffer;
//! # use bufferevent_core::{Error, Mode};
//!
//! /// Turns over the bits of every byte; twice gives the bytes again.
//! fn invert(source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
//!     while let (Some(&byte), 1..) = (source.chunk().first(), sink.room()) {
//!         sink.append_slice(&[!byte]);
//!         source.drain(1);
//!     }
//!     Ok(if source.is_empty() { Verdict::NeedInput } else { Verdict::Full })
//! }
//!
//! # let events = bufferevent_testkit::Loop::new();
//! let (near, far) = pair(&events)?;
//! let near = near.filter(Options::CLOSE_ON_FREE, from_fn("invert", invert, invert))?;
//! let far = far.filter(Options::CLOSE_ON_FREE, from_fn("invert", invert, invert))?;
//! far.enable(READ)?;
//! near.write(b"through two filters")?;
//! # events.run();
//! let mut bytes = [0; 19];
//! far.read(&mut bytes)?;
//! assert_eq!(&bytes, b"through two filters");
//! # Ok::<(), Error>(())
//! ```
//!
//! # How a filter is run
//! [`Filtering`] is the bufferevent that runs a [`Filter`]. The core asks it to *pull* when there is something below and room above, and
//! to *push* when there is something above and room below; it calls the filter's side with both buffers and a [`Sink`], which takes no
//! more than there is room for. What the filter answers, a [`Verdict`], says what stops it now:
//!
//! | verdict | it is called again when |
//! |---|---|
//! | [`NeedInput`](Verdict::NeedInput) | the source has more bytes, or has ended |
//! | [`Full`](Verdict::Full) | there is more room, whether or not the source has anything |
//! | [`Progress`](Verdict::Progress) | at once, for a bounded number of times; then the other layers have their turn |
//! | [`End`](Verdict::End) | never: this side is at its end |
//!
//! What a filter needs for itself, it says by [`Wants`]: a handshake reads though the user does not, and writes though he wrote nothing.
//!
//! # Invariants
//! - The limit is the sink's. A filter that adds more is cut short, and told how much was taken.
//! - No byte is stuck: what a filter holds for want of room comes out when there is room, and nothing else has to happen.
//! - No filter spins: a step in which no byte moved brings no other.
//! - What came before an error, or an end, is told before it.
//! - A slow peer bounds the whole stack, as far as every layer below has a write high mark: what waits is at most the sum of the marks,
//!   and what a filter holds itself.
//!
//! # Filters of this crate
//! [`Identity`] changes nothing; [`proxy`] is the PROXY protocol.
//!
//! # On and off a running stack
//! [`Bev::put_on`](bufferevent_core::Bev::put_on), [`finish_layer`](bufferevent_core::Bev::finish_layer),
//! [`take_off`](bufferevent_core::Bev::take_off) and [`tear_off`](bufferevent_core::Bev::tear_off) put layers on while bytes flow, and
//! take them off again, without losing one.
//!
//! Source: libevent `bufferevent_filter.c`. Differences: an error reaches the event callback, the input side learns of the end
//! below, and what a filter holds back is asked for again.

#![forbid(unsafe_code)]

mod ext;
mod filter;
mod filtering;
pub mod proxy;
mod simple;
mod sink;

pub use ext::{FilterExt, FilterRef};
pub use filter::{Filter, Verdict, Wants};
pub use filtering::Filtering;
pub use simple::{FromFn, Identity, from_fn};
pub use sink::Sink;
