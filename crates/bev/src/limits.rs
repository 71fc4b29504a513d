//! What a route lets its sessions have.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use bufferevent::resolve::race::Pace;
use bufferevent::{Bev, Deadline, Direction, Error, Rate};

use crate::trust::Trust;

/// Bytes that one connection may have waiting in each direction, unless told otherwise.
const BUFFER: NonZeroUsize = NonZeroUsize::new(256 * 1024).expect("not zero");

/// For an upstream that does not answer, and a handshake that does not end, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// The limits of one route. `None`: none.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes that wait in each direction of a session, apart from one read.
    pub(crate) buffer: NonZeroUsize,
    /// Sessions at once.
    pub(crate) max_connections: Option<NonZeroU64>,
    /// Until the upstream's name is looked up.
    pub(crate) resolve: Option<Duration>,
    /// Until the upstream is connected, with all its layers.
    pub(crate) connect: Option<Duration>,
    /// Until a client's layers have shaken hands.
    pub(crate) handshake: Option<Duration>,
    /// Without a byte in either direction.
    pub(crate) idle: Option<Duration>,
    /// With one direction ended, and without a byte in the other.
    pub(crate) half_closed: Option<Duration>,
    /// With something to write, and without a byte that is taken.
    pub(crate) write: Option<Duration>,
    /// What a client may send, and be sent, in a second.
    pub(crate) rate: Option<Rate>,
    /// From a direction's end until all before it is written.
    pub(crate) finish: Option<Duration>,
    /// Whose PROXY headers are believed.
    pub(crate) trust: Trust,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buffer: BUFFER,
            max_connections: None,
            resolve: None,
            connect: Some(PATIENCE),
            handshake: Some(PATIENCE),
            idle: None,
            half_closed: None,
            write: None,
            rate: None,
            finish: None,
            trust: Trust::default(),
        }
    }
}

impl Limits {
    /// Sets what holds for the client's side alone. It counts what the client's layers take and give: plaintext, above TLS.
    pub(crate) fn set_on_client(&self, client: &Bev) -> Result<(), Error> {
        if self.rate.is_some() {
            client.set_rate_limit(Direction::Read, self.rate)?;
            client.set_rate_limit(Direction::Write, self.rate)?;
        }
        Ok(())
    }

    /// How an upstream's name is looked up and its addresses are tried: each of them may take as long as all of it, and so may the
    /// look-up, unless it has a time of its own.
    pub(crate) fn pace(&self) -> Pace {
        let pace = match self.connect {
            Some(connect) => Pace::DEFAULT
                .with_attempt_timeout(connect)
                .with_resolve_timeout(connect),
            None => Pace::DEFAULT,
        };
        match self.resolve {
            Some(resolve) => pace.with_resolve_timeout(resolve),
            None => pace,
        }
    }

    /// Sets what holds for both sides.
    pub(crate) fn set_on(&self, bev: &Bev) -> Result<(), Error> {
        let mark = self.buffer.get();
        bev.set_read_watermark(0, mark)?;
        bev.set_write_watermark(0, mark)?;
        for (which, span) in [
            (Deadline::Idle, self.idle),
            (Deadline::HalfClosed, self.half_closed),
            (Deadline::Write, self.write),
            (Deadline::Drain, self.finish),
        ] {
            if span.is_some() {
                bev.set_deadline(which, span)?;
            }
        }
        Ok(())
    }
}

/// A deadline has passed. It is called as its flag is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooLate(pub(crate) Deadline);

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Deadline::Idle => "idle",
            Deadline::HalfClosed => "half-closed",
            Deadline::Write => "write",
            Deadline::Drain | Deadline::Close => "finish",
            Deadline::Resolve => "resolve",
            Deadline::Connect => "connect",
            Deadline::Handshake => "handshake",
            _ => "read",
        };
        write!(f, "timeout: {name}")
    }
}

impl std::error::Error for TooLate {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_each_address_have_the_whole_time_unless_told_otherwise() {
        let seconds = Duration::from_secs;
        let pace = |resolve: Option<u64>, connect: Option<u64>| {
            let limits = Limits {
                resolve: resolve.map(seconds),
                connect: connect.map(seconds),
                ..Limits::default()
            };
            let pace = limits.pace();
            (pace.resolve_timeout, pace.attempt_timeout)
        };
        assert_eq!(pace(None, Some(60)), (seconds(60), seconds(60)));
        assert_eq!(pace(Some(2), Some(60)), (seconds(2), seconds(60)));
        assert_eq!(pace(Some(2), None).0, seconds(2));
        assert_eq!(pace(None, None).0, Pace::DEFAULT.resolve_timeout);
    }
}
