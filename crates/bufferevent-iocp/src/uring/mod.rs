//! io_uring: one ring per loop, one `io_uring_enter` per turn.
//!
//! | file | what |
//! |---|---|
//! | `driver.rs` | the ring: what is submitted, and what completions mean |
//! | `buffers.rs` | blocks that the kernel receives into |
//! | `receives.rs` | which way each socket is received from |
//! | `sends.rs` | bytes that the kernel sends from |
//! | `watches.rs` | readiness of other descriptors |
//! | `detect.rs` | whether this kernel can do it |
//!
//! # How it is fast
//! 1. A socket has one receive for its life (multishot). The kernel takes a block when bytes are there, so an idle connection has none.
//! 2. Sends are gathered until the loop waits, and are submitted by the call that waits.
//! 3. A send that nobody waits for is *quiet*: it may not block (`MSG_DONTWAIT`) and, if all of it goes, posts no completion. When the call that
//!    submitted it has returned, it has either failed visibly or is over. So an echo costs one call per turn and one completion per message.
//! 4. A stream of bulk is polled and read instead: one read takes what a whole turn brought.
//!
//! # What is lent, and until when
//! - A block: from its entry in the buffer ring until the completion that names it.
//! - A send's bytes, its list of slices and its header: until its completion; if it is quiet, until the call that submitted it has
//!   returned, the completion queue has been read, and the kernel holds no completions back (overflow).
//! - An address to connect to: until its completion.

mod buffers;
mod detect;
mod driver;
mod receives;
mod sends;
mod watches;

pub(crate) use driver::Uring;
