//! What a relay counts, and how it is shown.
//!
//! # Invariants
//! - Counters only grow. Each worker has its own, which its thread alone changes; atomics make them shareable, no more.
//! - What is shown is a sum over the workers, read one by one while they work: each number is right, the moment is not quite the same.

use std::fmt;
use std::iter::Sum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::meter::LayerTotals;

/// The counters of one worker of a relay.
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
    /// The numbers of this moment, from any thread.
    pub(crate) fn read(&self) -> Totals {
        // An end is counted behind its start, so reading it first mostly keeps the two in order; `active` does not rely on that.
        let ended = self.ended.get();
        Totals {
            ended,
            accepted: self.accepted.get(),
            unreachable: self.unreachable.get(),
            broken: self.broken.get(),
            up: self.up.get(),
            down: self.down.get(),
            callbacks: self.callbacks.get(),
        }
    }
}

/// What one worker has counted, or several together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Totals {
    pub(crate) accepted: u64,
    pub(crate) ended: u64,
    pub(crate) unreachable: u64,
    pub(crate) broken: u64,
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) callbacks: u64,
}

impl Totals {
    /// Pairs of connections that are there now.
    pub(crate) fn active(&self) -> u64 {
        self.accepted.saturating_sub(self.ended)
    }

    /// Bytes in both directions.
    pub(crate) fn passed(&self) -> u64 {
        self.up + self.down
    }
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |sum, one| Self {
            accepted: sum.accepted + one.accepted,
            ended: sum.ended + one.ended,
            unreachable: sum.unreachable + one.unreachable,
            broken: sum.broken + one.broken,
            up: sum.up + one.up,
            down: sum.down + one.down,
            callbacks: sum.callbacks + one.callbacks,
        })
    }
}

impl Totals {
    /// Adds what each worker has counted elsewhere.
    pub(crate) fn add_each(sums: &mut [Self], others: &[Self]) {
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum = [*sum, *other].into_iter().sum();
        }
    }
}

/// What one route has counted.
#[derive(Debug)]
pub(crate) struct RouteTotals {
    pub(crate) name: Arc<str>,
    pub(crate) workers: Vec<Totals>,
    /// The side of each layer, and what passed it over all workers.
    pub(crate) layers: Vec<(&'static str, LayerTotals)>,
}

/// What all routes have counted.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) routes: Vec<RouteTotals>,
    /// What routes have counted that are closed, by worker.
    pub(crate) rest: Vec<Totals>,
}

impl RouteTotals {
    /// All workers together.
    pub(crate) fn totals(&self) -> Totals {
        self.workers.iter().copied().sum()
    }
}

impl Snapshot {
    /// All routes together, by worker.
    fn workers(&self) -> Vec<Totals> {
        let mut workers = self.rest.clone();
        for route in &self.routes {
            Totals::add_each(&mut workers, &route.workers);
        }
        workers
    }

    /// All routes and workers together.
    pub(crate) fn totals(&self) -> Totals {
        self.workers().into_iter().sum()
    }

    /// One line for `--stats`; `before` bytes had passed `elapsed` ago.
    pub(crate) fn line(&self, json: bool, before: u64, elapsed: Duration) -> String {
        let all = self.totals();
        let rate = per_second(all.passed().saturating_sub(before), elapsed);
        if json {
            return self.json(&all, rate).to_string();
        }
        format!(
            "{} active, {} accepted, {} unreachable, {} broken; {} up, {} down, {}/s",
            all.active(),
            all.accepted,
            all.unreachable,
            all.broken,
            Bytes(all.up),
            Bytes(all.down),
            Bytes(rate)
        )
    }

    fn json(&self, all: &Totals, rate: u64) -> serde_json::Value {
        let one = |totals: &Totals| {
            json!({
                "active": totals.active(),
                "accepted": totals.accepted,
                "bytes_up": totals.up,
                "bytes_down": totals.down,
            })
        };
        let routes = self.routes.iter().map(|route| {
            let mut json = one(&route.totals());
            json["route"] = (*route.name).into();
            json
        });
        let layers = self.routes.iter().flat_map(|route| {
            route.layers.iter().map(|(side, layer)| {
                json!({
                    "route": *route.name,
                    "side": side,
                    "layer": layer.name,
                    "down": {"taken": layer.down.0, "made": layer.down.1},
                    "up": {"taken": layer.up.0, "made": layer.up.1},
                })
            })
        });
        json!({
            "event": "stats",
            "active": all.active(),
            "accepted": all.accepted,
            "unreachable": all.unreachable,
            "broken": all.broken,
            "bytes_up": all.up,
            "bytes_down": all.down,
            "bytes_per_second": rate,
            "workers": self.workers().iter().map(one).collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "layers": layers.collect::<Vec<_>>(),
        })
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
    fn a_line_says_what_passed_since_the_last_over_all_workers() {
        let workers = [Counters::default(), Counters::default()];
        for counters in &workers {
            counters.accepted.add(3);
            counters.ended.add(1);
            counters.up.add(3 << 19);
        }
        let route = RouteTotals {
            name: "web".into(),
            workers: workers.iter().map(Counters::read).collect(),
            layers: Vec::new(),
        };
        let snapshot = Snapshot {
            routes: vec![route],
            rest: vec![Totals::default(); 2],
        };
        let line = snapshot.line(false, 1 << 20, Duration::from_secs(2));
        assert!(line.starts_with("4 active, 6 accepted"), "{line}");
        assert!(line.ends_with("3.0 MiB up, 0 B down, 1.0 MiB/s"), "{line}");
        let line = snapshot.line(true, 0, Duration::from_secs(1));
        let value: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
        assert_eq!(value["bytes_up"], 3 << 20);
        assert_eq!(value["workers"][1]["accepted"], 3);
        assert_eq!(value["routes"][0]["accepted"], 6);
    }

    #[test]
    fn an_end_that_is_seen_before_its_start_counts_nobody() {
        let counters = Counters::default();
        counters.ended.add(1);
        assert_eq!(counters.read().active(), 0);
    }
}
