//! Stacks of layers that pass bytes through, on any other joint: a caller that holds the top cannot tell.

use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::{Bev, Options};
use bufferevent_testkit::Through;
use evreactor_core::Host;

use crate::joint::Joint;

/// Layers per stack.
const LAYERS: usize = 3;

/// What each layer's output may hold, in bytes, so that a slow peer is felt on top.
const MARK: usize = 16 * 1024;

/// Stacks of three layers on the ends of another joint.
pub struct Stacks {
    below: Box<dyn Joint>,
    kind: String,
}

impl Stacks {
    /// Stacks on the ends that `below` makes.
    #[must_use]
    pub fn on(below: Box<dyn Joint>) -> Self {
        let kind = format!("stack on {}", below.kind());
        Self { below, kind }
    }
}

fn cover(bottom: Bev, options: Options) -> Bev {
    let options = options | Options::CLOSE_ON_FREE;
    let mut top = bottom;
    for _ in 0..LAYERS {
        top.set_write_watermark(0, MARK)
            .expect("it is on top still");
        top = top
            .over(options, Through::new())
            .expect("nothing is on it yet");
    }
    top
}

impl Joint for Stacks {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn backend(&self) -> &str {
        self.below.backend()
    }

    fn make(&self, options: Options) -> (Bev, Bev) {
        let (near, far) = self.below.make(options);
        (cover(near, options), cover(far, options))
    }

    fn host(&self) -> Arc<dyn Host> {
        self.below.host()
    }

    fn turn(&self) -> bool {
        self.below.turn()
    }

    fn advance(&self, span: Duration) {
        self.below.advance(span);
    }

    fn absorbs(&self) -> usize {
        // Each layer of the reading side may read ahead, by the core's default.
        self.below.absorbs() + LAYERS * (64 * 1024 + MARK)
    }

    fn panics(&self) -> u64 {
        self.below.panics()
    }

    fn has_descriptor(&self) -> bool {
        self.below.has_descriptor()
    }
}
