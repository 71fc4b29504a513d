//! A domain: what is locked together, and how it is entered.
//!
//! One stack of bufferevents, or the two stacks of a pair, share one recursive lock around one cell. A confined domain
//! (without THREADSAFE) is entered by its loop's thread alone; every entry checks that first, and the lock is then never
//! contended.
//!
//! # Invariants
//! - An entry borrows the cell for the length of one short closure that calls no user code and drops nothing of the
//!   user's. What it takes out is dropped by the caller, outside.
//! - Whoever leaves work behind lists the domain, once: with the thread's pump on the loop's thread,
//!   with the loop elsewhere.
//! - Only the loop's thread pumps.

use std::cell::RefCell;

use evreactor_core::sync::{Arc, ReentrantMutex, ReentrantMutexGuard, ThreadNumber, thread_number};
use evreactor_core::{Host, Phase, Ready, Target};

use crate::core::{Core, Facts};
use crate::direction::Directions;
use crate::error::{Error, Kind};
use crate::life;
use crate::node::{Index, Steps};
use crate::options::Options;
use crate::pump;

pub(crate) struct Domain {
    cell: ReentrantMutex<RefCell<Core>>,
    /// Outside the lock: a dropped handle must be able to post without taking it.
    pub(crate) host: Arc<dyn Host>,
    /// The loop's thread, if no other may enter; `None` with THREADSAFE.
    confined_to: Option<ThreadNumber>,
}

/// What the loop is to do when it calls a domain back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Call {
    /// Run the domain's queue.
    Run,
    /// Deliver a node's deferred callbacks.
    Deliver,
    /// A node's timer.
    Expired,
    /// A node's source is ready.
    Ready,
    /// See whether a node has lost its last user.
    Orphan,
    /// A rate may let a node go on.
    Refilled,
}

/// A loop's key: which call, for which node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Key {
    pub(crate) call: Call,
    pub(crate) index: Index,
    pub(crate) generation: u32,
}

impl Key {
    const INDEX_BITS: u32 = 28;

    pub(crate) fn pack(self) -> u64 {
        let call = match self.call {
            Call::Run => 0_u64,
            Call::Deliver => 1,
            Call::Expired => 2,
            Call::Ready => 3,
            Call::Orphan => 4,
            Call::Refilled => 5,
        };
        call << 60 | u64::from(self.index) << 32 | u64::from(self.generation)
    }

    pub(crate) fn unpack(bits: u64) -> Self {
        let call = match bits >> 60 {
            1 => Call::Deliver,
            2 => Call::Expired,
            3 => Call::Ready,
            4 => Call::Orphan,
            5 => Call::Refilled,
            _ => Call::Run,
        };
        let index = (bits >> 32) as u32 & ((1 << Self::INDEX_BITS) - 1);
        Self {
            call,
            index,
            generation: bits as u32,
        }
    }
}

impl Domain {
    pub(crate) fn new(host: Arc<dyn Host>, threadsafe: bool) -> Arc<Self> {
        let confined_to = (!threadsafe).then(|| host.thread());
        Arc::new_cyclic(|me| Self {
            cell: ReentrantMutex::new(RefCell::new(Core::new(me.clone()))),
            host,
            confined_to,
        })
    }

    pub(crate) fn on_loop_thread(&self) -> bool {
        thread_number() == self.confined_to.unwrap_or_else(|| self.host.thread())
    }

    #[inline]
    pub(crate) fn may_enter(&self) -> bool {
        self.confined_to
            .is_none_or(|thread| thread == thread_number())
    }

    pub(crate) fn threadsafe(&self) -> bool {
        self.confined_to.is_none()
    }

    /// Takes the lock, whoever calls: for those who have checked the thread, and for reaping what a closed loop left.
    pub(crate) fn lock(&self) -> ReentrantMutexGuard<'_, RefCell<Core>> {
        self.cell.lock()
    }

    /// Enters for one operation of the user's: checks the thread, changes the state, and has the pump run what
    /// follows from it.
    ///
    /// # Errors
    /// [`Kind::WrongThread`] from another thread than the loop's, unless THREADSAFE.
    #[inline]
    pub(crate) fn operate<R>(
        self: &Arc<Self>,
        operation: &'static str,
        change: impl FnOnce(&mut Core) -> R,
    ) -> Result<R, Error> {
        if !self.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", operation));
        }
        let (result, start) = {
            let cell = self.cell.lock();
            let mut core = cell.borrow_mut();
            let result = change(&mut core);
            let start = !core.running && !core.listed && (core.has_work() || core.settle);
            core.listed |= start;
            (result, start)
        };
        if start {
            self.start();
        }
        Ok(result)
    }

    /// Gets the pump going for a domain that was just marked as listed.
    #[cold]
    fn start(self: &Arc<Self>) {
        if self.on_loop_thread() {
            pump::list(pump::Listed::Run(self.clone()));
        } else {
            self.schedule_run();
        }
    }

    /// Has the loop run this domain in its next turn.
    pub(crate) fn schedule_run(self: &Arc<Self>) {
        let key = Key {
            call: Call::Run,
            index: 0,
            generation: 0,
        }
        .pack();
        if self.host.schedule(Phase::Turn, self.clone(), key).is_err() {
            // Nothing runs on a closed loop; let a later operation try, and fail, again.
            let lock = self.cell.lock();
            let mut core = lock.borrow_mut();
            core.listed = false;
            core.resting = false;
        }
    }
}

impl Target for Domain {
    fn run(&self, key: u64) {
        let key = Key::unpack(key);
        let mut unlocked = None;
        pump::run(self, |core| match key.call {
            Call::Run => core.resting = false,
            Call::Deliver => {
                if let Some(node) = core.find_mut(key.index, key.generation) {
                    node.queued.remove(Steps::DEFERRED);
                    let due = !node.covered() && !node.deliverable().is_empty();
                    if due && node.options.contains(Options::UNLOCK_CALLBACKS) {
                        unlocked = core.domain_arc();
                    } else if due {
                        core.queue(key.index, Steps::DELIVER);
                    }
                }
            }
            Call::Orphan => life::orphaned(core, key.index, key.generation),
            Call::Ready => {
                if core.find(key.index, key.generation).is_some() {
                    core.became_ready(key.index, Directions::BOTH);
                }
            }
            Call::Refilled => {
                if core.find(key.index, key.generation).is_some() {
                    core.refilled(key.index);
                }
            }
            Call::Expired => {}
        });
        if let Some(domain) = unlocked {
            pump::list(pump::Listed::Unlocked(domain, key.index, key.generation));
        }
    }

    fn expired(&self, key: u64) {
        let key = Key::unpack(key);
        pump::run(self, |core| {
            if core.find(key.index, key.generation).is_some() {
                core.timer_fired(key.index);
            }
        });
    }

    fn ready(&self, key: u64, ready: Ready) {
        let key = Key::unpack(key);
        pump::run_ready(self, key.index, key.generation, ready);
    }

    fn closed(&self) {
        pump::run(self, |core| {
            core.facts.insert(Facts::CLOSED);
            core.resting = false;
            core.settle = true;
        });
    }
}

/// What a readiness report means for a node: which directions may move.
pub(crate) fn directions(ready: Ready) -> Directions {
    let mut directions = Directions::EMPTY;
    if ready.intersects(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR | Ready::PRIORITY) {
        directions.insert(Directions::READ);
    }
    if ready.intersects(Ready::WRITABLE | Ready::WRITE_CLOSED | Ready::ERROR) {
        directions.insert(Directions::WRITE);
    }
    directions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_packing() {
        for call in [
            Call::Run,
            Call::Deliver,
            Call::Expired,
            Call::Ready,
            Call::Orphan,
            Call::Refilled,
        ] {
            let key = Key {
                call,
                index: (1 << Key::INDEX_BITS) - 1,
                generation: u32::MAX,
            };
            assert_eq!(Key::unpack(key.pack()), key);
        }
    }
}
