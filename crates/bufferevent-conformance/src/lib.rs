//! One conformance suite, run over every type of bufferevent and every backend.
//!
//! A type takes part by a [`Joint`]: "make me two joined bufferevents, and run their loop". Every check is written once against
//! that trait and records the rows of the specification that it proves, under the joint's type and backend.
//!
//! ```
//! use bufferevent_conformance::{Pairs, check_all};
//!
//! // A type of your own: implement `Joint` for it, and hand `check_all` what makes one.
//! check_all(&|| Box::new(Pairs::on_virtual_loop()));
//! ```
//!
//! # Invariants
//! - A check asks for nothing that the specification does not promise of every type; what one type alone shows is
//!   checked in that type's crate.
//! - Every check gets a loop of its own, and virtual time, on sockets too: nothing sleeps.
//!
//! # What the compiler checks
//! The application only removes from the input and only adds to the output (A3):
//! ```compile_fail,E0599
//! fn push_back(bev: &bufferevent_core::Bev) {
//!     let _ = bev.input().append(b"into the input");
//! }
//! ```
//! ```compile_fail,E0599
//! fn take_back(bev: &bufferevent_core::Bev) {
//!     let _ = bev.output().drain(1);
//! }
//! ```

#![forbid(unsafe_code)]

mod anatomy;
mod callbacks;
mod completions;
mod end;
mod flush;
mod general;
mod joint;
mod life;
mod marks;
mod pairs;
mod rates;
mod real_loop;
mod sockets;
mod stacks;
mod suite;
mod threads;
mod timeouts;

pub use completions::Completions;
pub use joint::{Joint, Place};
pub use pairs::Pairs;
pub use sockets::Sockets;
pub use stacks::{End, Stacks};
pub use suite::check_all;
