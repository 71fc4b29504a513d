//! How many system calls a thread's sockets made: what a program's cost per message is mostly made of.
//!
//! # Invariants
//! - Every attempt counts, those that would block or were interrupted among them.

use std::cell::Cell;

thread_local! {
    static CALLS: Cell<Calls> = const { Cell::new(Calls { receives: 0, sends: 0 }) };
}

/// System calls that moved, or tried to move, bytes of socket bufferevents.
///
/// ```
/// let before = bufferevent_socket::Calls::of_thread();
/// // … run the loop …
/// let after = bufferevent_socket::Calls::of_thread();
/// assert_eq!(after.sends - before.sends, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Calls {
    /// `recv` and its like.
    pub receives: u64,
    /// `send`, `sendmsg`, `sendfile` and their like.
    pub sends: u64,
}

impl Calls {
    /// Those of the calling thread so far.
    #[must_use]
    pub fn of_thread() -> Self {
        CALLS.get()
    }
}

#[inline]
pub(crate) fn count_receive() {
    let calls = CALLS.get();
    CALLS.set(Calls {
        receives: calls.receives + 1,
        ..calls
    });
}

#[inline]
pub(crate) fn count_send() {
    let calls = CALLS.get();
    CALLS.set(Calls {
        sends: calls.sends + 1,
        ..calls
    });
}
