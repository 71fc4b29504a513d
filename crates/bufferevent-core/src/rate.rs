//! Rates: how many bytes may move in how much time, and the token bucket that counts them.
//!
//! A [`Rate`] adds its bytes to a bucket at each tick, up to the burst. A [`Bucket`] counts no ticks while they pass: it stores
//! when it was looked at last, and adds what has come since when it is looked at again.
//!
//! # Invariants
//! - `1 <= per_tick <= burst <= i64::MAX`, and a tick lasts at least a nanosecond. The constructors are the only way in.
//! - A level never rises above the burst. It falls below zero when more was moved than was there; that is repaid first.
//! - Ticks are counted from a fixed moment: a bucket that is looked at late has lost nothing but what the burst cuts off.
//!
//! Source: libevent `bufferevent_ratelim.c`, `ev_token_bucket_update_`.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use evreactor_core::Moment;

use crate::error::{Error, Kind};

/// How finely [`Rate::per_second`] cuts a second.
const TICKS_PER_SECOND: u64 = 100;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// So many bytes per tick, and so many at once at most.
///
/// ```
/// use std::time::Duration;
/// use bufferevent_core::{BadRate, Rate};
///
/// let rate = Rate::per_second(1_000_000)?; // 10,000 bytes each hundredth of a second; 1,000,000 at once
/// assert_eq!((rate.per_tick(), rate.tick()), (10_000, Duration::from_millis(10)));
/// let rate = Rate::new(100, 250, Duration::from_secs(1))?; // 100 bytes each second; 250 at once
/// assert_eq!(rate.refill(-50, 1), 50); // a debt is repaid first
/// assert_eq!(rate.refill(0, u64::MAX), 250); // clipped, no overflow
/// assert_eq!(Rate::per_second(0), Err(BadRate::Zero)); // nothing at all: that is `disable`, or `suspend`
/// # Ok::<(), BadRate>(())
/// ```
///
/// Source: libevent's `struct ev_token_bucket_cfg`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[doc(alias = "ev_token_bucket_cfg")]
pub struct Rate {
    per_tick: i64,
    burst: i64,
    tick_nanos: u64,
}

/// Why there is no such rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum BadRate {
    /// No bytes at all.
    Zero,
    /// A burst that is smaller than what a tick brings, so that the rest of each tick would be lost.
    BurstBelowRate,
    /// A tick that lasts no time.
    NoTick,
    /// More bytes than can be counted: 2^63 and above.
    TooLarge,
}

impl fmt::Display for BadRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => {
                "a rate of zero bytes; use `disable` or `suspend` to stop a direction, `None` to lift its limit"
            }
            Self::BurstBelowRate => {
                "the burst is smaller than what one tick brings; make it at least as large"
            }
            Self::NoTick => "a tick must last some time; 10 ms are usual",
            Self::TooLarge => {
                "more than 2^63 - 1 bytes cannot be counted; use `None` for no limit"
            }
        })
    }
}

impl StdError for BadRate {}

impl From<BadRate> for Error {
    fn from(why: BadRate) -> Self {
        Self::new(Kind::Misuse, "rate", "new").with_source(why)
    }
}

impl Rate {
    /// `per_tick` bytes are added every `tick`; up to `burst` bytes add up while nothing moves.
    ///
    /// # Errors
    /// [`BadRate`]: a rate of zero, a burst below the rate, a tick of no time, a number above `i64::MAX`.
    #[doc(alias = "ev_token_bucket_cfg_new")]
    #[doc(alias = "ev_token_bucket_cfg_free")]
    pub fn new(per_tick: u64, burst: u64, tick: Duration) -> Result<Self, BadRate> {
        if per_tick == 0 {
            return Err(BadRate::Zero);
        }
        if tick.is_zero() {
            return Err(BadRate::NoTick);
        }
        let count = |bytes| i64::try_from(bytes).map_err(|_| BadRate::TooLarge);
        let (per_tick, burst) = (count(per_tick)?, count(burst)?);
        if burst < per_tick {
            return Err(BadRate::BurstBelowRate);
        }
        // 584 years are as good as any longer time.
        let tick_nanos = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            per_tick,
            burst,
            tick_nanos,
        })
    }

    /// `bytes` in a second, in about a hundred ticks, or one tick per byte where there are fewer; a second's worth at once.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn per_second(bytes: u64) -> Result<Self, BadRate> {
        let per_tick = bytes.div_ceil(TICKS_PER_SECOND);
        if per_tick == 0 {
            return Err(BadRate::Zero);
        }
        // As long as so many bytes take, to a nanosecond: what the rounding up added is in it.
        let nanos = u128::from(per_tick) * NANOS_PER_SECOND / u128::from(bytes);
        let tick = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Self::new(per_tick, bytes, tick)
    }

    /// The same with another burst.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_burst(self, burst: u64) -> Result<Self, BadRate> {
        Self::new(self.per_tick(), burst, self.tick())
    }

    /// Bytes that a tick adds.
    #[must_use]
    pub fn per_tick(&self) -> u64 {
        self.per_tick.unsigned_abs()
    }

    /// Bytes that add up at most.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst.unsigned_abs()
    }

    /// How long a tick lasts.
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_nanos(self.tick_nanos)
    }

    /// The level after `ticks` more ticks, starting from `level`, both in bytes. A level below zero is a debt.
    #[must_use]
    pub fn refill(&self, level: i64, ticks: u64) -> i64 {
        let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
        let added = ticks.saturating_mul(self.per_tick);
        level.saturating_add(added).min(self.burst)
    }
}

/// A token bucket: a rate, and how many bytes may move now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    level: i64,
    /// The last tick that is in the level.
    ticked: Moment,
}

impl Bucket {
    /// A bucket that holds one tick's bytes, the next of which comes a tick from `now`.
    pub(crate) fn new(rate: Rate, now: Moment) -> Self {
        Self {
            rate,
            level: rate.per_tick,
            ticked: now,
        }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Bytes; below zero is a debt.
    pub(crate) fn level(&self) -> i64 {
        self.level
    }

    /// Adds the ticks up to `now`; answers how many there were.
    pub(crate) fn advance(&mut self, now: Moment) -> u64 {
        let nanos = now.as_nanos().saturating_sub(self.ticked.as_nanos());
        let ticks = nanos / self.rate.tick_nanos;
        if ticks > 0 {
            self.ticked = self.ticked + Duration::from_nanos(ticks * self.rate.tick_nanos);
            self.level = self.rate.refill(self.level, ticks);
        }
        ticks
    }

    /// Another rate from now on. What the old one has brought stays, up to the new burst, and so does a debt.
    pub(crate) fn set_rate(&mut self, rate: Rate, now: Moment) {
        self.advance(now);
        // Ticks go on from the last one: who changes the rate more often than it ticks does not stop it.
        self.rate = rate;
        self.level = self.level.min(rate.burst);
    }

    /// Takes bytes out, or with a negative number puts some back, up to the burst.
    pub(crate) fn charge(&mut self, bytes: i64) {
        self.level = self.level.saturating_sub(bytes).min(self.rate.burst);
    }

    /// No more than `most` may be in it, which others hold the rest of.
    pub(crate) fn clip(&mut self, most: i64) {
        self.level = self.level.min(most);
    }

    /// When the level will be at least `wanted`, which is above it now.
    pub(crate) fn due(&self, wanted: i64) -> Moment {
        let missing = i128::from(wanted) - i128::from(self.level);
        let per_tick = i128::from(self.rate.per_tick);
        let ticks = ((missing + per_tick - 1) / per_tick).max(1).unsigned_abs();
        let nanos = ticks.saturating_mul(u128::from(self.rate.tick_nanos));
        self.ticked + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn rates_that_make_no_sense_are_refused() {
        assert_eq!(Rate::new(0, 0, SECOND), Err(BadRate::Zero));
        assert_eq!(Rate::new(0, 10, SECOND), Err(BadRate::Zero));
        assert_eq!(Rate::new(10, 9, SECOND), Err(BadRate::BurstBelowRate));
        assert_eq!(Rate::new(1, 1, Duration::ZERO), Err(BadRate::NoTick));
        let above = 1 << 63;
        assert_eq!(Rate::new(above, above, SECOND), Err(BadRate::TooLarge));
        assert_eq!(Rate::new(1, above, SECOND), Err(BadRate::TooLarge));
        assert_eq!(Rate::per_second(u64::MAX), Err(BadRate::TooLarge));
        let largest = above - 1;
        assert!(Rate::new(largest, largest, Duration::MAX).is_ok());
        let error = Error::from(BadRate::Zero);
        assert_eq!(error.kind(), Kind::Misuse);
    }

    #[test]
    fn a_rate_per_second_is_that_to_a_millionth() {
        for bytes in [
            1,
            7,
            99,
            100,
            101,
            15_000,
            1_000_003,
            1 << 40,
            (1 << 63) - 1,
        ] {
            let rate = Rate::per_second(bytes).unwrap();
            let exact = bytes as f64;
            let got = rate.per_tick() as f64 / rate.tick().as_secs_f64();
            assert!((got / exact - 1.0).abs() < 1e-6, "{bytes}: {got}");
            assert_eq!(rate.burst(), bytes);
        }
        assert_eq!(Rate::per_second(1).unwrap().tick(), SECOND);
    }

    #[test]
    fn a_bucket_that_is_looked_at_late_has_lost_nothing() {
        let rate = Rate::new(10, 1000, Duration::from_nanos(7)).unwrap();
        let (mut often, mut late) = (Bucket::new(rate, at(3)), Bucket::new(rate, at(3)));
        for now in 3..=500 {
            often.advance(at(now));
        }
        late.advance(at(500));
        assert_eq!((often.level(), late.level()), (720, 720));
        assert_eq!(often.due(721), late.due(721));
    }

    #[test]
    fn a_debt_is_due_when_it_is_repaid() {
        let rate = Rate::new(10, 10, SECOND).unwrap();
        let mut bucket = Bucket::new(rate, at(0));
        bucket.charge(35);
        assert_eq!(bucket.level(), -25);
        let due = bucket.due(1);
        assert_eq!(due, at(0) + 3 * SECOND);
        bucket.advance(due);
        assert_eq!(bucket.level(), 5);
        bucket.charge(i64::MIN);
        assert_eq!(bucket.level(), 10, "put back up to the burst");
        bucket.charge(i64::MAX);
        bucket.charge(i64::MAX);
        assert_eq!(bucket.level(), i64::MIN);
        let _ = bucket.due(i64::MAX);
        bucket.advance(Moment::FAR);
    }

    #[test]
    fn who_changes_the_rate_often_does_not_stop_it() {
        let slow = Rate::new(10, 100, SECOND).unwrap();
        let mut bucket = Bucket::new(slow, at(0));
        bucket.charge(10);
        for tenths in 1..=20 {
            let other = Rate::new(10, 100 + tenths, SECOND).unwrap();
            bucket.set_rate(other, at(tenths * 100_000_000));
        }
        assert_eq!(bucket.level(), 20);
    }
}
