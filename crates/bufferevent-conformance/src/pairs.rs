//! The pair, on the virtual loop and on real ones.

use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::{Bev, Options};
use bufferevent_pair::pair_with;
use bufferevent_testkit::Loop;
use evreactor_core::{AsHost, Host};

use crate::joint::Joint;
use crate::real_loop::RealLoop;

enum On {
    Virtual(Loop),
    Real(RealLoop),
}

/// Ends of pairs.
pub struct Pairs(On);

impl Pairs {
    /// On the virtual loop.
    #[must_use]
    pub fn on_virtual_loop() -> Self {
        Self(On::Virtual(Loop::new()))
    }

    /// On a real loop with the backend of this name.
    ///
    /// # Panics
    /// If there is no such backend.
    #[must_use]
    pub fn on(backend: &str) -> Self {
        Self(On::Real(RealLoop::new(backend)))
    }
}

impl Joint for Pairs {
    fn kind(&self) -> &str {
        "pair"
    }

    fn backend(&self) -> &str {
        match &self.0 {
            On::Virtual(_) => "virtual",
            On::Real(events) => events.backend(),
        }
    }

    fn make(&self, options: Options) -> (Bev, Bev) {
        match &self.0 {
            On::Virtual(events) => pair_with(events, options),
            On::Real(events) => pair_with(events.handle(), options),
        }
        .expect("a pair can be made on its loop's thread")
    }

    fn host(&self) -> Arc<dyn Host> {
        match &self.0 {
            On::Virtual(events) => events.as_host(),
            On::Real(events) => events.handle().as_host(),
        }
    }

    fn turn(&self) -> bool {
        match &self.0 {
            On::Virtual(events) => events.turn(),
            On::Real(events) => events.turn(),
        }
    }

    fn advance(&self, span: Duration) {
        match &self.0 {
            On::Virtual(events) => events.advance(span),
            On::Real(events) => events.advance(self, span),
        }
    }

    fn absorbs(&self) -> usize {
        0
    }

    fn panics(&self) -> u64 {
        match &self.0 {
            On::Virtual(events) => events.panics(),
            On::Real(events) => events.panics(),
        }
    }

    fn has_descriptor(&self) -> bool {
        false
    }
}
