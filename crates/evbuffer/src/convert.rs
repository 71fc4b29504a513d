//! From and to other types: conversions, `bytes::Buf`, comparison, `Debug`.
//!
//! # Invariants
//! - `Buf` sees the bytes in memory only: it can say neither that a file cannot be read nor that an end
//!   is frozen, so to it such a buffer ends there.

use std::fmt;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::EvBuffer;
use crate::change::End;
use crate::segment::{Own, Segment};

impl From<Vec<u8>> for EvBuffer {
    /// The vector becomes the first segment, its spare capacity room.
    fn from(bytes: Vec<u8>) -> Self {
        match bytes.len() {
            0 => Self::new(),
            len => Self {
                len,
                head: Segment::Own(Own::from_vec(bytes)),
                rest: None,
            },
        }
    }
}

impl From<String> for EvBuffer {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&[u8]> for EvBuffer {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for EvBuffer {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&str> for EvBuffer {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Bytes> for EvBuffer {
    /// Without a copy.
    fn from(bytes: Bytes) -> Self {
        match bytes.len() {
            0 => Self::new(),
            len => Self {
                len,
                head: Segment::Shared(bytes),
                rest: None,
            },
        }
    }
}

impl FromIterator<Bytes> for EvBuffer {
    fn from_iter<I: IntoIterator<Item = Bytes>>(iter: I) -> Self {
        let mut buffer = Self::new();
        buffer.extend(iter);
        buffer
    }
}

impl Extend<Bytes> for EvBuffer {
    /// # Panics
    /// When the buffer refuses the bytes; [`append_bytes`](Self::append_bytes) is the one that answers.
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, iter: I) {
        for bytes in iter {
            self.append_bytes(bytes)
                .expect("`Extend` cannot answer that bytes are refused");
        }
    }
}

impl<'a> Extend<&'a [u8]> for EvBuffer {
    /// # Panics
    /// When the buffer refuses the bytes; [`append_slice`](Self::append_slice) is the one that answers.
    fn extend<I: IntoIterator<Item = &'a [u8]>>(&mut self, iter: I) {
        for bytes in iter {
            self.append_slice(bytes)
                .expect("`Extend` cannot answer that bytes are refused");
        }
    }
}

impl Extend<u8> for EvBuffer {
    /// # Panics
    /// When the buffer refuses the bytes; [`append_slice`](Self::append_slice) is the one that answers.
    fn extend<I: IntoIterator<Item = u8>>(&mut self, iter: I) {
        for byte in iter {
            self.append_slice(&[byte])
                .expect("`Extend` cannot answer that bytes are refused");
        }
    }
}

impl Buf for EvBuffer {
    /// Bytes before the first file region; none when the front is frozen.
    fn remaining(&self) -> usize {
        if self.is_frozen(End::Front) {
            0
        } else {
            self.len_in_memory()
        }
    }

    fn chunk(&self) -> &[u8] {
        if self.is_frozen(End::Front) {
            &[]
        } else {
            EvBuffer::chunk(self)
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        if self.is_frozen(End::Front) {
            0
        } else {
            self.io_slices(dst)
        }
    }

    /// # Panics
    /// When `n` is more than [`remaining`](Self::remaining).
    fn advance(&mut self, n: usize) {
        assert!(
            n <= self.remaining(),
            "advance {n} of {} bytes",
            self.remaining()
        );
        self.drain(n);
    }

    /// Without a copy when the bytes lie in one segment.
    ///
    /// # Panics
    /// When `n` is more than [`remaining`](Self::remaining), or there is no memory for a copy.
    fn copy_to_bytes(&mut self, n: usize) -> Bytes {
        assert!(
            n <= self.remaining(),
            "copy {n} of {} bytes",
            self.remaining()
        );
        self.remove_bytes(n)
            .expect("`Buf` cannot answer that there is no memory")
    }
}

/// Compares bytes in memory; bytes of a file region are equal to nothing.
impl PartialEq<[u8]> for EvBuffer {
    fn eq(&self, other: &[u8]) -> bool {
        let mut left = other;
        self.len() == other.len()
            && self
                .segments()
                .all(|segment| match left.split_at_checked(segment.len()) {
                    Some((now, later)) => {
                        left = later;
                        now == segment
                    }
                    None => false,
                })
            && left.is_empty()
    }
}

impl fmt::Debug for EvBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extras = self.rest.as_ref().and_then(|rest| rest.extras.as_ref());
        f.debug_struct("EvBuffer")
            .field("len", &self.len())
            .field("segments", &self.segment_count())
            .field("extras", &extras)
            .finish()
    }
}
