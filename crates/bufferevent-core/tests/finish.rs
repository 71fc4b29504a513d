//! A finish on its way down: each layer hears of it behind the last byte from above, however long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{Bufferevent, Context, Direction, Flushed, Mode, Options, READ, Step};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, Through, spec};

/// Passes bytes through, and remembers after how many of them it was first told to finish.
struct Ending {
    passed: usize,
    finished_at: Arc<AtomicUsize>,
}

impl Bufferevent for Ending {
    fn name(&self) -> &'static str {
        "ending"
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        cx.lift(|below, own, room| below.move_to(room, own).unwrap_or(0));
        Step::Done
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        self.passed += cx.lower(|own, below, room| own.move_to(room, below).unwrap_or(0));
        if cx.mode() == Mode::Finished {
            self.finished_at.fetch_min(self.passed, Ordering::Relaxed);
        }
        if cx.finishing() {
            cx.end_output();
        }
        Step::Done
    }
}

#[test]
fn a_layer_is_told_to_finish_when_all_from_above_has_come() {
    spec!(G6);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let finished_at = Arc::new(AtomicUsize::new(usize::MAX));
    let ending = Ending {
        passed: 0,
        finished_at: finished_at.clone(),
    };
    // The layer in the middle needs more pushes than one flush makes, and gets all there is by that flush.
    let top = near
        .over(Options::EMPTY, ending)
        .and_then(|bev| bev.over(Options::EMPTY, Through::new().chunk(1)))
        .and_then(|bev| bev.over(Options::EMPTY, Through::new().holding()))
        .unwrap();
    far.enable(READ).unwrap();
    top.write(&[7; 1000]).unwrap();
    let flushed = top.flush(Direction::Write, Mode::Finished).unwrap();
    assert_eq!(flushed, Flushed::Some);
    events.run();
    assert_eq!(far.input().len(), 1000);
    assert_eq!(finished_at.load(Ordering::Relaxed), 1000);
}
