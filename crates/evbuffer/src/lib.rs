//! libevent's evbuffer in Rust: a segmented byte queue that moves instead of copying.
//!
//! A program that speaks over connections is forever putting bytes behind others and taking them
//! from the front. A `Vec<u8>` does that by moving everything it holds; a ring buffer by copying
//! everything once more when it grows. An [`EvBuffer`] is a queue of *segments* instead: appending
//! adds to the last one or puts a new one behind it, draining forgets the first ones, and passing
//! bytes from one buffer to another hands the segments over as they are.
//!
//! ```
//! use evbuffer::{EvBuffer, Eol};
//!
//! let mut input = EvBuffer::new();
//! input.append_slice(b"GET / HTTP/1.0\r\nHost: ")?;
//! input.append_slice(b"example.org\r\n\r\nbody")?;
//!
//! let mut lines = Vec::new();
//! while let Some(line) = input.read_line(Eol::Crlf, 8192)? {
//!     if line.is_empty() { break }
//!     lines.push(String::from_utf8_lossy(&line).into_owned());
//! }
//! assert_eq!(lines, ["GET / HTTP/1.0", "Host: example.org"]);
//!
//! let mut output = EvBuffer::new();
//! output.append(&mut input)?;         // Moves the segments: nothing is copied.
//! assert!(input.is_empty());
//! assert_eq!(output, b"body"[..]);
//! # Ok::<(), evbuffer::Error>(())
//! ```
//!
//! # What a segment is
//!
//! | kind | comes from | writable | a part of it moves by |
//! |---|---|---|---|
//! | own | [`append_slice`](EvBuffer::append_slice), [`reserve`](EvBuffer::reserve) | yes | a copy up to 2 KiB, else sharing |
//! | block | a [`Block`] of a [`Pool`], [`append_block`](EvBuffer::append_block) | yes | as own |
//! | shared | [`bytes::Bytes`], [`append_bytes`](EvBuffer::append_bytes), [`add_reference_of`](EvBuffer::add_reference_of) | no | sharing |
//! | file | a [`FileRegion`], [`append_file`](EvBuffer::append_file) | no | sharing |
//!
//! The first two nobody else can see. The bytes of a file region count as bytes of the buffer, and
//! are read when somebody needs them: a socket that knows sendfile never does
//! ([`front_file`](EvBuffer::front_file)).
//!
//! # What it costs
//!
//! The buffer itself has 56 bytes. Empty, it owns no memory at all, and draining the last byte gives
//! everything back: a hundred thousand idle connections cost no buffer. What is rare (change
//! callbacks, frozen ends) sits behind a pointer that the hot paths find null.
//!
//! # What it promises
//!
//! - **An error changes nothing.** Every refused operation leaves all buffers as they were.
//! - **Memory for segments may lack.** Storage is asked for with `try_reserve`; the answer is
//!   [`ErrorKind::OutOfMemory`]. Only small bookkeeping (the target of that pointer, the reference
//!   count of shared storage, callbacks, the queue of [`drain_into`](EvBuffer::drain_into)'s trash)
//!   aborts, as allocations in Rust do.
//! - **Foreign code runs when the buffer is consistent.** Change callbacks, and the `Drop` of what
//!   [`Bytes::from_owner`](bytes::Bytes::from_owner) owns, run after the operation. Who holds a lock
//!   meanwhile takes the drops along with [`drain_into`](EvBuffer::drain_into) and lets go later.
//! - **What the compiler can refuse is not checked again.** A buffer cannot be appended to itself, a
//!   reservation cannot outlive another operation, a [`Position`] cannot survive a drain.
//! - **No byte handed out was ever uninitialised.** Not even to a writer that lies about how much it
//!   wrote; `unsafe` occurs in one file, because `bytes::BufMut` is an unsafe trait.
//!
//! # Names
//!
//! Every function can be found by its libevent name in the search of this documentation. Locking is
//! a `Mutex<EvBuffer>`: the type is `Send`.

#![deny(unsafe_code)]

mod buffer;
mod bufmut;
mod change;
mod convert;
mod error;
mod file;
mod io;
mod line;
mod pool;
mod read;
mod reserve;
mod search;
mod segment;
mod spare;
mod sync;
mod transfer;

pub use buffer::{EvBuffer, MAX_LEN};
pub use change::{CallbackId, Change, Delivery, End, MAX_ROUNDS};
pub use error::{Error, ErrorKind};
pub use file::FileRegion;
pub use io::{MAX_SLICES, READ_LEN};
pub use line::{Eol, EolAt, Line};
pub use pool::{BLOCK_LEN, Block, DEFAULT_IDLE_BLOCKS, Pool};
pub use read::Segments;
pub use reserve::Reservation;
pub use search::Position;
pub use transfer::COALESCE_MAX;

/// The example of the README is one of the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
