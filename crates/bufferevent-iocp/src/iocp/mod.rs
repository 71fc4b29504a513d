//! I/O completion ports: one port per loop, one `GetQueuedCompletionStatusEx` per turn.
//!
//! | file | what |
//! |---|---|
//! | `driver.rs` | the port: what is started, and what packets mean |
//! | `lent.rs` | an operation's block of control and its memory, out of reach while the system has them |
//! | `buffers.rs` | blocks that the system receives into |
//! | `sends.rs` | bytes that the system sends from |
//! | `calls.rs` | the overlapped calls, each once |
//! | `detect.rs` | the two functions that have to be asked for, and whether success needs no packet |
//!
//! # How it is fast
//! 1. An idle connection waits by a receive of no bytes: nothing is lent but its block of control. When that completes, bytes are fetched into a
//!    pooled block, mostly in one call that completes at once.
//! 2. What completes at once posts no packet (`FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`), where the system's providers allow that.
//! 3. Packets are dequeued in batches of 256.
//!
//! # What is lent, and until when
//! Every operation has one [`Lent`](lent::Lent): `OVERLAPPED` and memory in one allocation, which is reachable again when its packet was dequeued, or the
//! call that began it has said that none will come. Dropping one that is out leaks it.
//!
//! # Association
//! A socket belongs to one port for as long as it is open. One that was taken back from a loop can be used by ordinary calls. Another
//! loop takes it over where the system can move it (Windows 8.1 and later); else its first operation says why not.
//!
//! Tested under Wine 8.0.

mod buffers;
mod calls;
mod detect;
mod driver;
mod lent;
mod sends;

pub(crate) use driver::Iocp;
