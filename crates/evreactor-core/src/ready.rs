//! Readiness: what a source may be able to do now.
//!
//! # Invariants
//! - A set bit is a hint ("try it"), a missing bit promises nothing: only an operation that
//!   would block says that a source is not ready.
//! - `READ_CLOSED`, `WRITE_CLOSED`, `ERROR` and `PRIORITY` are to be remembered until a read has met the end, an
//!   error or would-block: they mean that a short read has not drained the source.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of readiness bits, as a loop reports them to a [`Target`](crate::Target).
///
/// ```
/// use evreactor_core::Ready;
/// let ready = Ready::READABLE | Ready::READ_CLOSED;
/// assert!(ready.contains(Ready::READABLE));
/// assert!(ready.intersects(Ready::ERROR | Ready::READ_CLOSED));
/// assert!(!ready.contains(Ready::WRITABLE));
/// ```
#[derive(Clone, Copy, Default, Eq, PartialEq, Hash)]
pub struct Ready(u8);

impl Ready {
    /// Nothing is known to be ready.
    pub const EMPTY: Self = Self(0);
    /// A read may make progress.
    pub const READABLE: Self = Self(1);
    /// A write may make progress.
    pub const WRITABLE: Self = Self(1 << 1);
    /// The peer closed its writing half, or the connection is gone.
    pub const READ_CLOSED: Self = Self(1 << 2);
    /// Our writing half is closed.
    pub const WRITE_CLOSED: Self = Self(1 << 3);
    /// An error is waiting to be fetched.
    pub const ERROR: Self = Self(1 << 4);
    /// Urgent data arrived.
    pub const PRIORITY: Self = Self(1 << 5);

    /// All of them.
    pub const ALL: Self = Self((1 << 6) - 1);

    /// The set as a number, for who stores it.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of this number, of which bits without a meaning are left out.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no bit is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The bits of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Ready {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Ready, &str); 6] = [
            (Ready::READABLE, "READABLE"),
            (Ready::WRITABLE, "WRITABLE"),
            (Ready::READ_CLOSED, "READ_CLOSED"),
            (Ready::WRITE_CLOSED, "WRITE_CLOSED"),
            (Ready::ERROR, "ERROR"),
            (Ready::PRIORITY, "PRIORITY"),
        ];
        f.write_str("Ready(")?;
        let mut first = true;
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.contains(*bit)) {
            if !first {
                f.write_str(" | ")?;
            }
            f.write_str(name)?;
            first = false;
        }
        f.write_str(")")
    }
}
