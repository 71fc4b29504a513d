//! What passes a layer, and how long that takes: a filter around a filter.
//!
//! # Invariants
//! - A meter is changed by its loop's thread alone: each worker of a relay has its own. It says nothing of a byte that a filter still holds.
//! - The clock is read only where somebody asked for times: twice a call is much for small messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bufferevent::evbuffer::EvBuffer;
use bufferevent::{Error, Filter, Mode, Sink, Verdict, Wants};

use crate::stats::Counter;

/// The sums of one layer over its connections, in bytes and nanoseconds.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) name: &'static str,
    /// Given to the layer from above, and what it made of that.
    pub(crate) down: Passed,
    /// Given to the layer from below, and what it made of that.
    pub(crate) up: Passed,
    /// Spent in the layer; counted only if that was asked for.
    nanos: AtomicU64,
    timed: AtomicBool,
}

/// Bytes in and out of one side.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) taken: Counter,
    pub(crate) made: Counter,
}

impl Meter {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            down: Passed::default(),
            up: Passed::default(),
            nanos: AtomicU64::new(0),
            timed: AtomicBool::new(false),
        }
    }

    /// From here on times are counted too.
    pub(crate) fn count_time(&self) {
        self.timed.store(true, Ordering::Relaxed);
    }

    /// Seconds spent in the layer.
    pub(crate) fn seconds(&self) -> f64 {
        self.nanos.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// What has passed until now, from any thread.
    pub(crate) fn read(&self) -> LayerTotals {
        let read = |passed: &Passed| (passed.taken.get(), passed.made.get());
        LayerTotals {
            name: self.name,
            down: read(&self.down),
            up: read(&self.up),
        }
    }

    fn measure(
        &self,
        passed: &Passed,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        call: impl FnOnce(&mut EvBuffer, &mut Sink<'_>) -> Result<Verdict, Error>,
    ) -> Result<Verdict, Error> {
        let (length, room) = (source.len(), sink.room());
        let began = self.timed.load(Ordering::Relaxed).then(Instant::now);
        let verdict = call(source, sink);
        if let Some(began) = began {
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let before = self.nanos.load(Ordering::Relaxed);
            self.nanos
                .store(before.saturating_add(nanos), Ordering::Relaxed);
        }
        passed.taken.add(length.saturating_sub(source.len()) as u64);
        passed.made.add(room.saturating_sub(sink.room()) as u64);
        verdict
    }
}

/// What passed a layer, over one meter or several: bytes taken and bytes made, each way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LayerTotals {
    pub(crate) name: &'static str,
    pub(crate) down: (u64, u64),
    pub(crate) up: (u64, u64),
}

impl LayerTotals {
    /// With what passed the same layer elsewhere.
    pub(crate) fn and(self, other: Self) -> Self {
        let add = |(taken, made): (u64, u64), other: (u64, u64)| (taken + other.0, made + other.1);
        Self {
            name: self.name,
            down: add(self.down, other.down),
            up: add(self.up, other.up),
        }
    }
}

/// A filter with a meter on it.
#[derive(Debug)]
pub(crate) struct Metered<F> {
    filter: F,
    meter: Arc<Meter>,
}

impl<F: Filter> Metered<F> {
    pub(crate) fn new(filter: F, meter: Arc<Meter>) -> Self {
        Self { filter, meter }
    }

    /// The filter.
    pub(crate) fn get(&self) -> &F {
        &self.filter
    }
}

impl<F: Filter> Filter for Metered<F> {
    fn name(&self) -> &'static str {
        self.filter.name()
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        let Self { filter, meter } = self;
        meter.measure(&meter.up, source, sink, |source, sink| {
            filter.input(source, sink, mode)
        })
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        let Self { filter, meter } = self;
        meter.measure(&meter.down, source, sink, |source, sink| {
            filter.output(source, sink, mode)
        })
    }

    fn wants(&self) -> Wants {
        self.filter.wants()
    }

    fn handshaking(&self) -> bool {
        self.filter.handshaking()
    }
}
