//! How much a future may do in one poll.
//!
//! A future that always finds bytes to read, or room to write, would never come back to its loop. So each operation on an
//! [`AsyncBev`](crate::AsyncBev) counts, and behind the last one the future is told to wait, and woken at once: it goes on in the
//! loop's next turn.

use std::cell::Cell;
use std::task::{Context, Poll};

/// Operations on bufferevents that a future does in one poll, before the loop gets its turn.
///
/// Enough that what is switched for does not count; few enough that the other connections wait for a millisecond at most.
pub const OPERATIONS_PER_POLL: u32 = 256;

/// Nobody counts: the future is polled by somebody else's executor.
const UNCOUNTED: u32 = u32::MAX;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(UNCOUNTED) };
}

/// A poll that is counted, until this is dropped.
pub(super) struct Counted(u32);

impl Counted {
    pub(super) fn begin() -> Self {
        Self(LEFT.replace(OPERATIONS_PER_POLL))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Counts one operation; pending, with the waker called, when none is left.
#[inline]
pub(crate) fn proceed(cx: &mut Context<'_>) -> Poll<()> {
    match LEFT.get() {
        UNCOUNTED => Poll::Ready(()),
        0 => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        left => {
            LEFT.set(left - 1);
            Poll::Ready(())
        }
    }
}
