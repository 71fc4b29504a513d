//! Watermarks: when a bufferevent asks for bytes, tells of bytes, and stops asking.
//!
//! A mark owns no buffer and calls nobody; it turns a length into an answer.
//!
//! # Invariants
//! - `low <= high` whenever a high mark is set. [`Watermark::new`] is the only way in.
//! - A high mark of 0 is none at all.
//!
//! Source: libevent `bufferevent.c`, `bufferevent_setwatermark`.

use crate::error::{Error, Kind};

/// The low and high mark of one direction, in bytes.
///
/// ```
/// use bufferevent_core::Watermark;
/// let mark = Watermark::new(128, 4096)?;
/// assert_eq!((mark.low(), mark.high()), (128, 4096));
/// assert!(Watermark::new(2, 1).is_err());
/// assert!(Watermark::new(2, 0).is_ok()); // 0: no high mark
/// # Ok::<(), bufferevent_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Watermark {
    low: usize,
    /// The high mark; `usize::MAX` where there is none, so that comparing with it is all there is to do.
    limit: usize,
}

impl Default for Watermark {
    /// No marks.
    fn default() -> Self {
        Self {
            low: 0,
            limit: usize::MAX,
        }
    }
}

impl Watermark {
    /// A low mark of `low` bytes and a high mark of `high` bytes; `high == 0` means unlimited.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if the low mark is above the high one: such a bufferevent would never tell.
    pub fn new(low: usize, high: usize) -> Result<Self, Error> {
        if high != 0 && low > high {
            return Err(Error::new(Kind::Misuse, "bufferevent", "set_watermark"));
        }
        let limit = if high == 0 { usize::MAX } else { high };
        Ok(Self { low, limit })
    }

    /// These marks with a high mark of `bytes`, or of the low mark if that is more.
    #[cfg(feature = "async")]
    pub(crate) const fn bounded(self, bytes: usize) -> Self {
        let limit = if self.low > bytes { self.low } else { bytes };
        Self {
            low: self.low,
            limit,
        }
    }

    /// The low mark in bytes.
    #[must_use]
    pub const fn low(self) -> usize {
        self.low
    }

    /// The high mark in bytes; 0 means unlimited.
    #[must_use]
    pub const fn high(self) -> usize {
        if self.limit == usize::MAX {
            0
        } else {
            self.limit
        }
    }

    /// The high mark as a limit: unlimited is `usize::MAX`.
    #[inline]
    #[must_use]
    pub const fn limit(self) -> usize {
        self.limit
    }

    /// How many bytes fit on top of `length` until the high mark.
    #[inline]
    #[must_use]
    pub const fn room(self, length: usize) -> usize {
        self.limit().saturating_sub(length)
    }
}
