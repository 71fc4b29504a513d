//! What a relay counts, and how it is shown.
//!
//! # Invariants
//! - Counters only grow, apart from `active`. The loop's thread alone changes them; atomics make them shareable, no more.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

/// The counters of one relay.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections accepted.
    pub(crate) accepted: Counter,
    /// Pairs of connections that have ended, however.
    pub(crate) ended: Counter,
    /// Of those, the ones whose upstream could not be reached.
    pub(crate) unreachable: Counter,
    /// Of those, the ones that failed or were cut by a timeout.
    pub(crate) broken: Counter,
    /// Bytes from clients to the upstream.
    pub(crate) up: Counter,
    /// Bytes from the upstream to clients.
    pub(crate) down: Counter,
    /// Callbacks of the relay's connections.
    pub(crate) callbacks: Counter,
}

/// A number that one thread counts up and any may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        // One thread writes, so this need not be one atomic step.
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Pairs of connections that are there now.
    pub(crate) fn active(&self) -> u64 {
        self.accepted.get() - self.ended.get()
    }

    /// One line for `--stats`; `before` bytes had passed `elapsed` ago.
    pub(crate) fn line(&self, json: bool, before: u64, elapsed: Duration) -> String {
        let (active, accepted) = (self.active(), self.accepted.get());
        let (unreachable, broken) = (self.unreachable.get(), self.broken.get());
        let (up, down) = (self.up.get(), self.down.get());
        let rate = per_second(up + down - before, elapsed);
        if json {
            return json!({
                "event": "stats",
                "active": active,
                "accepted": accepted,
                "unreachable": unreachable,
                "broken": broken,
                "bytes_up": up,
                "bytes_down": down,
                "bytes_per_second": rate,
            })
            .to_string();
        }
        format!(
            "{active} active, {accepted} accepted, {unreachable} unreachable, {broken} broken; \
             {} up, {} down, {}/s",
            Bytes(up),
            Bytes(down),
            Bytes(rate)
        )
    }
}

/// How many per second, rounded down.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// A number of bytes, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = UNITS.iter();
        let mut unit = units.next();
        while value >= 1024.0
            && let Some(next) = units.next()
        {
            value /= 1024.0;
            unit = Some(next);
        }
        write!(f, "{value:.1} {}", unit.unwrap_or(&""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_line_says_what_passed_since_the_last() {
        let counters = Counters::default();
        counters.accepted.add(3);
        counters.ended.add(1);
        counters.up.add(3 << 20);
        let line = counters.line(false, 1 << 20, Duration::from_secs(2));
        assert!(line.starts_with("2 active, 3 accepted"), "{line}");
        assert!(line.ends_with("3.0 MiB up, 0 B down, 1.0 MiB/s"), "{line}");
        let line = counters.line(true, 0, Duration::from_secs(1));
        let value: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
        assert_eq!(value["bytes_up"], 3 << 20);
    }
}
