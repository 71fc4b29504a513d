//! `event2/util.h`: what programs need around the library, the same on every system.

pub(crate) mod address;
mod random;
pub(crate) mod resolve;
pub(crate) mod socket;
mod text;
pub(crate) mod time;
