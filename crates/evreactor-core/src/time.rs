//! Time as a loop sees it: a moment counts nanoseconds since its clock started.
//!
//! # Invariants
//! - A clock never goes backwards; the wall clock has no influence.
//! - Arithmetic saturates: a deadline "for ever" ahead is [`Moment::FAR`], never a wrap-around.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

/// A point in time on one clock, in nanoseconds since that clock started.
///
/// Moments of different clocks have nothing to do with each other.
///
/// ```
/// use std::time::Duration;
/// use evreactor_core::Moment;
/// let start = Moment::ZERO;
/// let later = start + Duration::from_millis(3);
/// assert_eq!(later - start, Duration::from_millis(3));
/// assert_eq!(start - later, Duration::ZERO);             // saturates
/// assert_eq!(later + Duration::MAX, Moment::FAR);        // saturates
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);
    /// Later than anything that will happen (584 years).
    pub const FAR: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Where a loop takes the time from.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time now. Never earlier than an answer given before.
    #[doc(alias = "event_gettime_monotonic")]
    fn now(&self) -> Moment;
}

/// The system's monotonic clock, counted from when it was made.
///
/// Setting the wall clock does not move it.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    start: Instant,
}

impl Monotonic {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for Monotonic {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Moment {
        Moment::ZERO + self.start.elapsed()
    }
}
