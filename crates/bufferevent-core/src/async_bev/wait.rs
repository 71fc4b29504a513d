//! Who waits for a bufferevent, and the handler that wakes them.
//!
//! # Invariants
//! - A waker is called, cloned and dropped with no lock held: it is another's code.
//! - When the handler goes (freed, replaced), everybody is woken, and told that nobody will be again.

use std::task::Waker;

use evreactor_core::sync::{Arc, Mutex};

use crate::bev::Bev;
use crate::direction::Direction;
use crate::event::{Deadline, Event};
use crate::handler::{Handler, Interest, Pressure};

/// What an [`AsyncBev`](super::AsyncBev) and its handler share.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Both>);

#[derive(Default)]
struct Both {
    read: Side,
    write: Side,
    /// The handler is gone.
    over: bool,
}

/// One direction; close, flush and connect wait with the writer.
#[derive(Default)]
struct Side {
    waker: Option<Waker>,
    /// A deadline that passed, and was not told yet.
    passed: Option<Deadline>,
}

impl Both {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

impl Waiting {
    /// Leaves a waker. `false` if nobody will call it.
    pub(super) fn wait(&self, direction: Direction, waker: &Waker) -> bool {
        {
            let mut both = self.0.lock();
            let over = both.over;
            let known = &both.side(direction).waker;
            if over || known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                return !over;
            }
        }
        let new = waker.clone();
        let (old, over) = {
            let mut both = self.0.lock();
            (both.side(direction).waker.replace(new), both.over)
        };
        drop(old);
        !over
    }

    /// The deadline to tell of, if one has passed.
    pub(super) fn take_passed(&self, direction: Direction) -> Option<Deadline> {
        self.0.lock().side(direction).passed.take()
    }

    fn wake(&self, direction: Direction) {
        let waker = self.0.lock().side(direction).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_both(&self) {
        self.wake(Direction::Read);
        self.wake(Direction::Write);
    }
}

/// The handler of a bufferevent that futures wait for.
pub(super) struct Rouse(pub(super) Arc<Waiting>);

impl Handler for Rouse {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    fn on_read(&mut self, _bev: &Bev) {
        self.0.wake(Direction::Read);
    }

    fn on_pressure(&mut self, _bev: &Bev, pressure: Pressure) {
        if pressure == Pressure::Eased {
            self.0.wake(Direction::Write);
        }
    }

    fn on_event(&mut self, _bev: &Bev, event: &Event) {
        if let Event::Timeout(deadline) = event {
            let mut both = self.0.0.lock();
            if !matches!(deadline, Deadline::Write | Deadline::Drain) {
                both.read.passed = Some(*deadline);
            }
            if *deadline != Deadline::Read {
                both.write.passed = Some(*deadline);
            }
        }
        self.0.wake_both();
    }
}

impl Drop for Rouse {
    fn drop(&mut self) {
        self.0.0.lock().over = true;
        self.0.wake_both();
    }
}
