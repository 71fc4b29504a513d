//! A real loop under virtual time, for what has descriptors.

use std::sync::Arc;
use std::time::Duration;

use bufferevent_testkit::ManualClock;
use evreactor::{EventLoop, LoopHandle};
use evreactor_core::Clock as _;

use crate::joint::Joint;

/// A real loop whose time is moved by hand.
pub(crate) struct RealLoop {
    events: EventLoop,
    clock: ManualClock,
}

impl RealLoop {
    pub(crate) fn new(backend: &str) -> Self {
        let clock = ManualClock::default();
        let events = EventLoop::builder()
            .backend(backend)
            .clock(Arc::new(clock.clone()))
            .build()
            .expect("the backend is there");
        Self { events, clock }
    }

    pub(crate) fn handle(&self) -> &LoopHandle {
        &self.events
    }

    pub(crate) fn backend(&self) -> &'static str {
        self.events.backend()
    }

    pub(crate) fn panics(&self) -> u64 {
        self.events.stats().panics
    }

    pub(crate) fn turn(&self) -> bool {
        let calls = || {
            let stats = self.events.stats();
            stats.events + stats.timers + stats.deferred + stats.tasks
        };
        let before = calls();
        self.events.poll().expect("the backend waits");
        calls() != before
    }

    pub(crate) fn advance(&self, joint: &dyn Joint, span: Duration) {
        let end = self.clock.now() + span;
        joint.settle();
        while let Some(due) = self.events.next_timer().filter(|due| *due <= end) {
            self.clock.set(due.max(self.clock.now()));
            joint.settle();
        }
        self.clock.set(end);
        joint.settle();
    }
}
