//! Readiness at a moment: how a transport without a descriptor hears that it can move again.

use std::sync::Arc;

use bufferevent_core::{Bev, Error};
use evreactor_core::{Host, Moment, Ready, Target};

/// Who is to be told, and by which loop.
#[derive(Clone)]
pub(crate) struct Alarm {
    host: Arc<dyn Host>,
    target: Arc<dyn Target>,
    key: u64,
}

impl Alarm {
    pub(crate) fn of(bev: &Bev) -> Result<Self, Error> {
        let (target, key) = bev.target()?;
        Ok(Self {
            host: bev.host(),
            target,
            key,
        })
    }

    /// Has the bufferevent told at `at` that it may move.
    pub(crate) fn set(&self, at: Moment) {
        // A closed loop tells nobody anything any more.
        let _ = self.host.arm(at, Arc::new(self.clone()), 0);
    }
}

impl Target for Alarm {
    fn run(&self, _: u64) {}

    fn expired(&self, _: u64) {
        self.target
            .ready(self.key, Ready::READABLE | Ready::WRITABLE);
    }

    fn ready(&self, _: u64, _: Ready) {}
}
