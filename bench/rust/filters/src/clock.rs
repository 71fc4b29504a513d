//! CPU time of this thread, and what was done in it.
//!
//! # Invariants
//! - The clock of CPU time, a system call each time, is read [`READINGS`] times per measurement at most, before the end: nobody pays for being
//!   asked often whether the time is over.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// CPU time that this thread has had, in the kernel too.
pub(crate) fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.try_into().expect("a clock that counts from 0"),
        now.tv_nsec.try_into().expect("less than a second"),
    )
}

/// How much was done in how much time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Bytes or handshakes.
    pub(crate) amount: u64,
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            amount,
            cpu_s,
            wall_s,
        } = self;
        write!(
            f,
            r#"{{"amount": {amount}, "cpu_s": {cpu_s}, "wall_s": {wall_s}}}"#
        )
    }
}

/// Readings of the clock in as much time as was asked for.
const READINGS: u32 = 16;

/// A measurement under way.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    began: Duration,
    began_wall: Instant,
    span: Duration,
    /// Before this, on the clock on the wall, it cannot be over, or was looked at a moment ago.
    not_before: Cell<Instant>,
}

impl Stretch {
    /// Begins now.
    pub(crate) fn begin(seconds: f64) -> Self {
        let span = Duration::from_secs_f64(seconds);
        let now = Instant::now();
        Self {
            began: cpu(),
            began_wall: now,
            span,
            not_before: Cell::new(now + span),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        let now = Instant::now();
        if now < self.not_before.get() {
            return false;
        }
        self.not_before.set(now + self.span / READINGS);
        cpu() - self.began >= self.span
    }

    pub(crate) fn end(&self, amount: u64) -> Measured {
        Measured {
            amount,
            cpu_s: (cpu() - self.began).as_secs_f64(),
            wall_s: self.began_wall.elapsed().as_secs_f64(),
        }
    }
}
