//! Filters stacked on any bufferevent.

#![forbid(unsafe_code)]

mod ext;
mod filter;
mod filtering;
mod simple;
mod sink;

pub use ext::{FilterExt, FilterRef};
pub use filter::{Filter, Verdict, Wants};
pub use filtering::Filtering;
pub use simple::{FromFn, Identity, from_fn};
pub use sink::Sink;
