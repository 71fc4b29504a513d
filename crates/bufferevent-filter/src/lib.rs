//! Filters stacked on any bufferevent.

#![forbid(unsafe_code)]

mod filter;
mod sink;

pub use filter::{Filter, Verdict, Wants};
pub use sink::Sink;
