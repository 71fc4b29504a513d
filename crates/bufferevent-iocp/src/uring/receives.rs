//! Receives that are under way, by lane: by the kernel into its ring of blocks, or, for bulk, by us as soon as there is something.
//!
//! ```text
//! Ring --BULK_IN_A_ROW receives of BULK_BYTES--> Leaving --last--> Bulk --SMALL_IN_A_ROW reads below them--> Ring
//! ```
//!
//! A receive by the kernel costs no system call, and no block while a connection idles: for messages nothing is cheaper. Of a stream that fills
//! blocks it is not: the kernel is woken for every few segments, where one read takes what a whole turn brought. Measured: 1.5 times the
//! processor time per byte. So a lane whose receives are large is polled, and read.
//!
//! # Invariants
//! - A lane has one entry under way in the kernel at most: its receive, or its poll. So bytes are told in order.
//! - What leads from one way to the other is what was received, and nothing of it is lost: a receive that is left ends with its last
//!   completion, as if it were cancelled, and only then is the lane polled.

use std::os::fd::RawFd;

/// A receive of so many bytes is one of bulk: half a block.
const BULK_BYTES: usize = 32 * 1024;

/// So many of them in a row make a lane one of bulk: one may be a single large message.
const BULK_IN_A_ROW: u8 = 4;

/// So many reads below that in a row make it none: a stream that stutters does not go to and fro.
const SMALL_IN_A_ROW: u8 = 16;

/// How bytes are received.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Way {
    /// The kernel receives into its ring.
    #[default]
    Ring,
    /// The kernel was told to end that, for the lane to be polled.
    Leaving,
    /// The lane is polled, and read.
    Bulk,
}

/// A receive that is under way, or waits for a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receiving {
    pub(super) socket: RawFd,
    /// It was told to end: one that finds no block is not begun again.
    pub(super) cancelled: bool,
    pub(super) way: Way,
    /// Receives in a row that speak for the other way.
    in_a_row: u8,
}

impl Receiving {
    pub(super) fn begin(socket: RawFd, way: Way) -> Self {
        Self {
            socket,
            cancelled: false,
            way,
            in_a_row: 0,
        }
    }

    /// Notes how much was received at once; whether the other way would be the better one from now on.
    #[inline]
    pub(super) fn should_change(&mut self, length: usize) -> bool {
        let (speaks, enough) = match self.way {
            Way::Ring => (length >= BULK_BYTES, BULK_IN_A_ROW),
            Way::Bulk => (length < BULK_BYTES, SMALL_IN_A_ROW),
            Way::Leaving => return false,
        };
        self.in_a_row = if speaks { self.in_a_row + 1 } else { 0 };
        if self.in_a_row < enough {
            return false;
        }
        self.in_a_row = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_bulk_changes_the_way_and_a_single_large_message_does_not() {
        let mut one = Receiving::begin(0, Way::Ring);
        for _ in 0..10 {
            assert!(!one.should_change(64 * 1024));
            assert!(!one.should_change(64));
        }
        let changed = (0..10).position(|_| one.should_change(BULK_BYTES));
        assert_eq!(changed, Some(usize::from(BULK_IN_A_ROW) - 1));
        one.way = Way::Bulk;
        for _ in 0..10 {
            assert!(!one.should_change(100));
            assert!(!one.should_change(64 * 1024), "it stutters");
        }
        let changed = (0..100).position(|_| one.should_change(100));
        assert_eq!(changed, Some(usize::from(SMALL_IN_A_ROW) - 1));
    }
}
