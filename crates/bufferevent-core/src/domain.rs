//! A domain: what is locked together, and how it is entered.
//!
//! One stack of bufferevents, or the two stacks of a pair, share one recursive lock around one cell. A confined domain
//! (without THREADSAFE) is entered by its loop's thread alone; every entry checks that first, and the lock is then never
//! contended. With THREADSAFE an entry tries the lock; whether it may wait for it is a matter of what the thread holds (`held.rs`).
//!
//! # Invariants
//! - An entry borrows the cell for the length of one short closure that calls no user code and drops nothing of the
//!   user's. What it takes out is dropped by the caller, outside.
//! - Whoever leaves work behind lists the domain, once: with the thread's pump on the loop's thread,
//!   with the loop elsewhere.
//! - Only the loop's thread pumps.

use std::cell::RefCell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evreactor_core::sync::{Arc, ReentrantMutex, ReentrantMutexGuard};
use evreactor_core::{Host, Phase, Ready, Target};

use crate::core::{Core, Facts};
use crate::direction::Directions;
use crate::error::{Error, Kind};
use crate::held::{self, Held, Holder};
use crate::home::Home;
use crate::inbox::{Inbox, Taken};
use crate::life;
use crate::node::{Index, Steps};
use crate::options::Options;
use crate::pump;

pub(crate) struct Domain {
    cell: ReentrantMutex<RefCell<Core>>,
    /// Outside the lock: a dropped handle must be able to post without taking it.
    home: Arc<Home>,
}

/// The lock of a domain.
pub(crate) type Lock<'a> = ReentrantMutexGuard<'a, RefCell<Core>>;

/// The lock of a domain, kept while code of others runs.
pub(crate) struct Hold<'a> {
    // In this order: it counts until it is let go.
    lock: Lock<'a>,
    _held: Held,
    /// `None` where nobody else may look or wait: without THREADSAFE.
    inbox: Option<&'a Inbox>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox
            && inbox.let_go() == 0
        {
            let mut core = self.lock.borrow_mut();
            core.facts.remove(Facts::KEPT);
            core.publish_when_let_go();
        }
    }
}

impl Deref for Hold<'_> {
    type Target = RefCell<Core>;

    fn deref(&self) -> &RefCell<Core> {
        &self.lock
    }
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
        let home = Home::on(host, threadsafe);
        Arc::new_cyclic(|me| Self {
            cell: ReentrantMutex::new(RefCell::new(Core::new(me.clone(), threadsafe))),
            home,
        })
    }

    pub(crate) fn host(&self) -> &Arc<dyn Host> {
        self.home.host()
    }

    #[inline]
    pub(crate) fn on_loop_thread(&self) -> bool {
        self.home.is_own_thread()
    }

    #[inline]
    pub(crate) fn may_enter(&self) -> bool {
        self.home.is_own_thread() || self.threadsafe()
    }

    #[inline]
    pub(crate) fn threadsafe(&self) -> bool {
        self.inbox().is_some()
    }

    /// Where operations wait; `None` in a confined domain.
    #[inline]
    pub(crate) fn inbox(&self) -> Option<&Inbox> {
        self.home.inbox()
    }

    /// What orders the domains, and tells them apart.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Takes the lock for the loop, which holds no other: it may wait.
    #[inline]
    #[track_caller]
    pub(crate) fn lock(&self) -> Lock<'_> {
        match self.cell.try_lock() {
            Some(lock) => lock,
            None => self.wait(),
        }
    }

    #[cold]
    #[track_caller]
    fn wait(&self) -> Lock<'_> {
        held::check_wait(self.address());
        self.cell.lock()
    }

    /// Takes the lock if that needs no waiting.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Lock<'_>> {
        self.cell.try_lock()
    }

    /// Takes the lock, waiting for it also while another is held: for [`Bev::lock_both`](crate::Bev::lock_both), in its order.
    pub(crate) fn lock_in_order(&self) -> Lock<'_> {
        self.cell.lock()
    }

    /// Takes the lock for the pump; waits for it only if nothing is held.
    #[inline]
    pub(crate) fn lock_unless_holding(&self) -> Option<Lock<'_>> {
        match self.cell.try_lock() {
            Some(lock) => Some(lock),
            None if held::by_count() => None,
            None => Some(self.cell.lock()),
        }
    }

    /// Takes the lock for an operation that needs an answer.
    ///
    /// # Errors
    /// [`Kind::WrongThread`] from another thread than the loop's, unless THREADSAFE. [`Kind::Busy`] if another thread is in there and
    /// this one holds a domain.
    #[inline]
    pub(crate) fn enter(&self, operation: &'static str) -> Result<Lock<'_>, Error> {
        if !self.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", operation));
        }
        let lock = match self.cell.try_lock() {
            Some(lock) => lock,
            None => self.enter_busy(operation)?,
        };
        self.catch_up(&lock);
        Ok(lock)
    }

    #[cold]
    fn enter_busy(&self, operation: &'static str) -> Result<Lock<'_>, Error> {
        if held::anything() {
            return Err(Error::new(Kind::Busy, "bufferevent", operation));
        }
        Ok(self.cell.lock())
    }

    /// As [`enter`](Self::enter), to keep the lock while code of others runs.
    ///
    /// # Errors
    /// As `enter`.
    pub(crate) fn hold(&self, operation: &'static str) -> Result<Hold<'_>, Error> {
        let lock = self.enter(operation)?;
        Ok(self.keep(lock))
    }

    /// Keeps the lock while code of others runs.
    pub(crate) fn keep<'a>(&'a self, lock: Lock<'a>) -> Hold<'a> {
        self.keep_as(lock, Holder::Call)
    }

    /// As [`keep`](Self::keep), and says for whom.
    #[track_caller]
    pub(crate) fn keep_as<'a>(&'a self, lock: Lock<'a>, holder: Holder) -> Hold<'a> {
        let inbox = self.inbox();
        if let Some(inbox) = inbox
            && inbox.keep() == 1
        {
            lock.borrow_mut().facts.insert(Facts::KEPT);
        }
        Hold {
            lock,
            _held: Held::new(self.address(), holder),
            inbox,
        }
    }

    /// Whether anything waits in the inbox.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.inbox().is_some_and(Inbox::is_outstanding)
    }

    /// Whoever has just taken the lock does what waits in the inbox first. Not who had it before: what came since comes later.
    #[inline]
    pub(crate) fn catch_up(&self, lock: &Lock<'_>) {
        if let Some(inbox) = self.inbox()
            && inbox.is_outstanding()
        {
            self.carry_out(lock, || inbox.take());
        }
    }

    /// Does what is taken from the inbox; `false`, with nothing taken, if the lock was had before.
    #[cold]
    pub(crate) fn carry_out(&self, lock: &Lock<'_>, take: impl FnOnce() -> Taken) -> bool {
        let had_before = {
            let core = lock.borrow();
            core.running || core.facts.contains(Facts::KEPT)
        };
        if had_before {
            return false;
        }
        let Some(inbox) = self.inbox() else {
            return false;
        };
        let taken = take();
        inbox.keep();
        lock.borrow_mut().facts.insert(Facts::KEPT);
        let held = Held::new(self.address(), Holder::Call);
        inbox.carry_out_all(taken);
        drop(held);
        inbox.let_go();
        let mut core = lock.borrow_mut();
        core.facts.remove(Facts::KEPT);
        core.publish_when_let_go();
        true
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
        let cell = self.enter(operation)?;
        Ok(self.change(cell, change))
    }

    /// Takes the lock for an operation that needs no answer: `None` if that has to be put into the inbox.
    ///
    /// # Errors
    /// [`Kind::WrongThread`] from another thread than the loop's, unless THREADSAFE.
    #[inline]
    pub(crate) fn enter_unless_busy(
        &self,
        operation: &'static str,
    ) -> Result<Option<Lock<'_>>, Error> {
        if !self.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", operation));
        }
        let lock = match self.cell.try_lock() {
            Some(lock) => lock,
            None if held::anything() => return Ok(None),
            None => self.cell.lock(),
        };
        self.catch_up(&lock);
        Ok(Some(lock))
    }

    /// As [`enter_unless_busy`](Self::enter_unless_busy), for bytes that come to an output: a visitor's go through the inbox, so that a thread that
    /// writes and a loop that sends do not hand the lock to and fro.
    ///
    /// # Errors
    /// As `enter_unless_busy`.
    #[inline]
    pub(crate) fn enter_to_add(&self, operation: &'static str) -> Result<Option<Lock<'_>>, Error> {
        if self.is_visited() {
            return Ok(None);
        }
        self.enter_unless_busy(operation)
    }

    /// Whether this thread comes from outside of the loop, as any may with THREADSAFE, and holds nothing.
    #[inline]
    pub(crate) fn is_visited(&self) -> bool {
        self.inbox()
            .is_some_and(|inbox| !inbox.is_of_this_thread() && !held::anything())
    }

    /// Changes the state under the lock, and lets go of it before the pump gets going.
    #[inline]
    pub(crate) fn change<R>(
        self: &Arc<Self>,
        cell: Lock<'_>,
        change: impl FnOnce(&mut Core) -> R,
    ) -> R {
        let (result, start) = {
            let mut core = cell.borrow_mut();
            let result = change(&mut core);
            let start = !core.running && !core.listed && (core.has_work() || core.settles());
            core.listed |= start;
            core.publish_if_shared();
            (result, start)
        };
        drop(cell);
        if start {
            self.start();
        }
        result
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
        if self
            .host()
            .schedule(Phase::Turn, self.clone(), key)
            .is_err()
        {
            // Nothing runs on a closed loop; let a later operation try, and fail, again.
            // Whoever is in there now marks it anew, or fails likewise.
            if let Some(lock) = self.cell.try_lock() {
                let mut core = lock.borrow_mut();
                core.listed = false;
                core.facts.remove(Facts::RESTING);
            }
        }
    }
}

impl Target for Domain {
    fn run(&self, key: u64) {
        let key = Key::unpack(key);
        let mut unlocked = None;
        pump::run(self, |core| match key.call {
            Call::Run => core.facts.remove(Facts::RESTING),
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
        if let Some(inbox) = self.inbox() {
            inbox.give_up();
        }
        // They are called never again; and what they own may be what keeps their bufferevents.
        let handlers = self.lock().borrow_mut().take_handlers();
        for handler in handlers {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(handler)));
            if let Err(payload) = dropped {
                self.host().caught_panic("drop", &*payload);
            }
        }
        pump::run(self, |core| {
            core.facts.insert(Facts::CLOSED);
            core.orphan_all();
            core.facts.remove(Facts::RESTING);
            core.facts.insert(Facts::SETTLE);
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
    use crate::bev::Handle;

    /// Of a connection that waits, nearly all memory are these two and the type's own: what grows here is paid by each of a million
    /// connections. Put what is rarely used into `Extras`, `Rare`, `Home` or `Seen`, which only exist where they are needed.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_each_connection_costs_has_not_grown() {
        const COUNTS: usize = 2 * size_of::<usize>();
        // What an allocator hands out is a multiple of sixteen, behind a word of its own.
        assert!(COUNTS + size_of::<Domain>() <= 344);
        assert!(COUNTS + size_of::<Handle>() <= 40);
    }

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
