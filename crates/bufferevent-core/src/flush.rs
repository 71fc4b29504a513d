//! Flushing: run the layers' work now, down to the transport or up from it.
//!
//! A flush runs the steps of a stack in order on the caller's stack, without the queue and without callbacks; what must
//! wait (a transport that would block, a disabled direction) stays owed as state and completes by itself.
//!
//! Source: libevent `bufferevent_flush`, on every type.

use std::cell::RefCell;

use evreactor_core::sync::Arc;
use evreactor_core::{Phase, Ready, Target};

use crate::bev::Bev;
use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::error::{Error, Kind};
use crate::node::{End, Index, NONE, Node, Steps};
use crate::options::{Flushed, Mode};
use crate::pump;

/// Pushes of one layer in one flush: a layer that needs more than this goes on from the queue.
const PUSHES_PER_FLUSH: usize = 64;

impl Bev {
    /// Flushes a direction as far as `mode` says. See [`Mode`].
    ///
    /// Writing, bytes move down through every layer to the transport; reading, what the transport and the layers have now is
    /// taken once, at most [`max_single_read`](Self::max_single_read), past the read high mark with `Flush` and `Finished`.
    /// Disabled directions hold. After `Finished`, writes answer [`Kind::Ended`] and the peer gets the end mark behind
    /// all queued bytes.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_flush")]
    pub fn flush(&self, direction: Direction, mode: Mode) -> Result<Flushed, Error> {
        let domain = self.0.domain();
        // Refusals first, with nothing changed.
        match self.own("flush", |_, _| Ok(())) {
            Err(error) if error.kind() == Kind::Busy => return self.flush_posted(direction, mode),
            refused => refused?,
        }
        if !domain.on_loop_thread() {
            return self.flush_later(direction, mode);
        }
        self.flush_now(direction, mode)
    }

    /// On the loop's thread.
    fn flush_now(&self, direction: Direction, mode: Mode) -> Result<Flushed, Error> {
        let (index, generation) = self.0.place();
        let domain = self.0.domain();
        self.own("flush", |_, _| Ok(()))?;
        let some = {
            let cell = domain.hold("flush")?;
            let moved = |core: &Core| {
                core.find(index, generation)
                    .map_or(0, |node| match direction {
                        Direction::Read => node.bytes_read,
                        // What a layer held left it if the one below has got more.
                        Direction::Write => {
                            let got =
                                |below: &Node| below.bytes_written + below.output.len() as u64;
                            node.bytes_written + core.get(node.below).map_or(0, got)
                        }
                    })
            };
            let before = moved(&cell.borrow());
            match direction {
                Direction::Read => flush_up(&cell, index, mode),
                Direction::Write => flush_down(&cell, index, mode),
            }
            let after = moved(&cell.borrow());
            after > before
        };
        domain.operate("flush", |_| ())?;
        Ok(if some {
            Flushed::Some
        } else {
            Flushed::Nothing
        })
    }

    /// From another thread only the state is changed; the loop does the rest.
    fn flush_later(&self, direction: Direction, mode: Mode) -> Result<Flushed, Error> {
        if direction == Direction::Read {
            let target = Arc::new(ReadLater(self.clone(), mode));
            // A closed loop reads nothing any more.
            let _ = self.0.domain().host().schedule(Phase::Turn, target, 0);
            return Ok(Flushed::Nothing);
        }
        self.own("flush", |core, index| {
            match mode {
                Mode::Finished => {
                    core.owe_flush(index);
                    core.want_end(index);
                }
                Mode::Flush => core.owe_flush(index),
                Mode::Normal => core.queue_push(index),
            }
            Ok(Flushed::Nothing)
        })
    }

    /// The domain is busy, and this thread cannot wait.
    fn flush_posted(&self, direction: Direction, mode: Mode) -> Result<Flushed, Error> {
        let operation = move |bev: &Self| bev.flush_later(direction, mode).map(drop);
        self.post("flush", Box::new(operation))?;
        Ok(Flushed::Nothing)
    }

    /// Ends the output behind its last byte: `flush(Write, Finished)`. The peer gets an EOF; reading goes on.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), and [`Kind::Ended`] if it has ended already.
    pub fn finish(&self) -> Result<(), Error> {
        self.told_own("finish", |core, index| {
            let node = core.node(index);
            if node.write_end != End::Open {
                return Err(Error::new(Kind::Ended, node.name(), "finish"));
            }
            core.want_end(index);
            Ok(())
        })
    }
}

/// A flush of the reading side, in the loop's next turn.
struct ReadLater(Bev, Mode);

impl Target for ReadLater {
    fn run(&self, _key: u64) {
        // Freed or covered meanwhile: then there is nothing to flush.
        let _ = self.0.flush_now(Direction::Read, self.1);
    }
    fn expired(&self, _key: u64) {}
    fn ready(&self, _key: u64, _ready: Ready) {}
}

/// The indices from `index` down to its transport.
fn stack(cell: &RefCell<Core>, index: Index) -> Vec<Index> {
    let core = cell.borrow();
    let mut stack = Vec::with_capacity(4);
    let mut next = index;
    while let Some(node) = core.get(next) {
        stack.push(next);
        next = node.below;
    }
    stack
}

fn flush_down(cell: &RefCell<Core>, top: Index, mode: Mode) {
    {
        let mut core = cell.borrow_mut();
        match mode {
            Mode::Normal => core.queue_push(top),
            Mode::Flush => core.owe_flush(top),
            Mode::Finished => {
                core.owe_flush(top);
                core.want_end(top);
            }
        }
    }
    for index in stack(cell, top) {
        for _ in 0..PUSHES_PER_FLUSH {
            let waits = {
                let mut core = cell.borrow_mut();
                core.get(index).is_some() && core.take_step(index, Steps::PUSH)
            };
            if !waits {
                break;
            }
            pump::push(cell, index, mode);
        }
    }
}

fn flush_up(cell: &RefCell<Core>, top: Index, mode: Mode) {
    let reads = {
        let core = cell.borrow();
        core.get(top).is_some_and(|node| {
            node.enabled.contains(Directions::READ) && node.held_read.is_empty()
        })
    };
    if !reads {
        return;
    }
    for index in stack(cell, top).into_iter().rev() {
        let open = {
            let mut core = cell.borrow_mut();
            core.get(index)
                .is_some_and(|node| node.read_end == End::Open)
                && {
                    core.take_step(index, Steps::PULL);
                    index != NONE
                }
        };
        if open {
            pump::pull(cell, index, mode);
        }
    }
}
