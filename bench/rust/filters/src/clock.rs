//! CPU time of this thread, and what was done in it.

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

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    began: Duration,
    began_wall: Instant,
    span: Duration,
}

impl Stretch {
    /// Begins now.
    pub(crate) fn begin(seconds: f64) -> Self {
        Self {
            began: cpu(),
            began_wall: Instant::now(),
            span: Duration::from_secs_f64(seconds),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
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
