//! `bytes::BufMut`, the one unsafe trait this crate implements, and its one file with `unsafe`.
//!
//! # Invariants
//! - What `chunk_mut` hands out is initialised memory of this buffer: it is made from a `&mut [u8]`.
//! - `advance_mut` believes nothing: it counts bytes of room that it finds, and panics if they are too few.
//!   Its contract is unsafe for other implementors; here a broken one gives wrong bytes, never undefined ones.

#![allow(unsafe_code)]

use bytes::BufMut;
use bytes::buf::UninitSlice;

use crate::change::End;
use crate::pool::storage;
use crate::segment::{Own, Segment};
use crate::{EvBuffer, MAX_LEN};

/// Room that `chunk_mut` makes when there is none, in bytes.
const CHUNK_LEN: usize = 4 * 1024;

// SAFETY:
// - `chunk_mut` returns memory that this buffer owns exclusively (own storage, a block, or `prepared`)
//   and that stays where it is until the buffer is used again, which the returned borrow forbids.
// - `remaining_mut` is a limit that the buffer itself keeps, and 0 when its back is frozen; `chunk_mut`
//   is empty only then or at the greatest length.
unsafe impl BufMut for EvBuffer {
    fn remaining_mut(&self) -> usize {
        if self.is_frozen(End::Back) {
            0
        } else {
            MAX_LEN - self.len()
        }
    }

    /// # Panics
    /// When there is no memory for room; [`EvBuffer::reserve`] is the one that answers.
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let max = self.remaining_mut();
        if max == 0 {
            return UninitSlice::new(&mut []);
        }
        if self.tail().room() > 0 {
            return UninitSlice::new(self.tail_mut().room_mut(max));
        }
        let rest = self.rest_mut();
        if rest.prepared.capacity() == 0 {
            rest.prepared = storage(CHUNK_LEN, "chunk")
                .expect("`BufMut` cannot answer that there is no memory");
        }
        let len = rest.prepared.capacity().min(max);
        rest.prepared.resize(len, 0);
        UninitSlice::new(&mut rest.prepared)
    }

    /// # Panics
    /// When `n` is more than the last [`chunk_mut`](Self::chunk_mut) had.
    unsafe fn advance_mut(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        assert!(
            n <= self.remaining_mut(),
            "advance past the greatest length or a frozen end"
        );
        if self.tail().room() > 0 {
            assert!(
                n <= self.tail().room(),
                "advance past the room behind the last byte"
            );
            self.commit_to_tail(n);
        } else {
            let bytes = std::mem::take(&mut self.rest_mut().prepared);
            assert!(
                n <= bytes.len(),
                "advance past the room that was handed out"
            );
            self.push_segment(Segment::Own(Own::filled(bytes, n)));
        }
        self.changed(n, 0);
    }

    /// # Panics
    /// When the buffer refuses the bytes; [`EvBuffer::append_slice`] is the one that answers.
    fn put_slice(&mut self, src: &[u8]) {
        self.append_slice(src)
            .expect("`BufMut` cannot answer that bytes are refused");
    }
}
