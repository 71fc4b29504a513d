//! What waits for a domain's loop: operations of threads that could not wait for the domain's lock.
//!
//! A thread that holds one domain never waits for another (`held.rs`). If that one is busy just then, an operation that needs no answer is
//! put here. The domain's loop is called to do it; but whoever takes the lock before that does it first. `Ok` means that it was taken in;
//! if it fails later, that is told as an event.
//!
//! # Invariants
//! - In order: what is put here comes behind what was put here before, and before whatever is done under a lock that is taken
//!   later. Who had the lock at that time goes on undisturbed: operations under one lock are one.
//! - Bytes that wait here count as output of their bufferevent.
//! - At most [`MAX_OPERATIONS`], and [`MAX_BYTES`] but for the last one, wait; after that the answer is `Full`.
//! - While anything waits, the loop has a call that will do it, or is gone; then what waits is dropped.
//! - The lock here is a leaf: nothing is called, taken or dropped under it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evreactor_core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use evreactor_core::sync::{Arc, Mutex};
use evreactor_core::{LoopClosed, Phase, Ready, Target};

use crate::bev::Bev;
use crate::domain::Domain;
use crate::error::{Error, Kind};
use crate::pump::{self, Active};

/// Operations that may wait for one domain: with what they point to, a few MiB.
const MAX_OPERATIONS: usize = 16 * 1024;

/// Bytes that may wait for one domain: more than a relay's marks let through, less than what hurts.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An operation, to be done on its bufferevent.
pub(crate) type Operation = Box<dyn FnOnce(&Bev) -> Result<(), Error> + Send>;

/// One that waits. Its handle keeps the bufferevent alive until it is done.
struct Posted {
    bev: Bev,
    bytes: usize,
    operation: Operation,
}

#[derive(Default)]
struct Queue {
    posted: VecDeque<Posted>,
    bytes: usize,
    /// The loop has a call that will run them.
    scheduled: bool,
}

/// The operations that wait for one domain.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    outstanding: AtomicUsize,
    /// How often the domain's lock is kept; changed by its holder alone.
    keepers: AtomicUsize,
}

impl Inbox {
    /// Whether anything was put here that has not been done.
    #[inline]
    pub(crate) fn is_outstanding(&self) -> bool {
        // Who has taken the lock sees what those put here whom it has heard of. Others may be in the act; they come later.
        self.outstanding.load(Ordering::Acquire) > 0
    }

    /// Whether an operation that brings `bytes` may be put here.
    pub(crate) fn takes(&self, bytes: usize) -> bool {
        self.queue.lock().takes(bytes)
    }

    /// The lock is kept once more. Answers how often it is.
    pub(crate) fn keep(&self) -> usize {
        self.keepers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The lock is kept once less. Answers how often it is.
    pub(crate) fn let_go(&self) -> usize {
        self.keepers.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// Puts an operation behind the others. `None` if that is past a limit, else whether the loop has yet to be called.
    fn put(&self, posted: Posted, limited: bool) -> Option<bool> {
        let mut queue = self.queue.lock();
        if limited && !queue.takes(posted.bytes) {
            drop(queue); // Before the operation is dropped.
            return None;
        }
        posted.bev.count_posted(posted.bytes);
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        queue.bytes += posted.bytes;
        queue.posted.push_back(posted);
        Some(!std::mem::replace(&mut queue.scheduled, true))
    }

    /// Does what was there when it began; its caller has the domain's lock.
    pub(crate) fn carry_out_all(&self) {
        let count = self.queue.lock().posted.len();
        for _ in 0..count {
            let next = self.queue.lock().posted.pop_front();
            let Some(posted) = next else { break };
            self.carry_out(posted);
        }
    }

    /// One operation, in its turn.
    fn carry_out(&self, posted: Posted) {
        let Posted {
            bev,
            bytes,
            operation,
        } = posted;
        let outcome = catch_unwind(AssertUnwindSafe(|| operation(&bev)));
        self.settled(&bev, bytes);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => bev.refused_later(bytes, error),
            Err(payload) => bev.panicked_later(payload),
        }
    }

    /// An operation does not wait any more.
    fn settled(&self, bev: &Bev, bytes: usize) {
        self.queue.lock().bytes -= bytes;
        bev.discount_posted(bytes);
        self.outstanding.fetch_sub(1, Ordering::Release);
    }

    /// Has the loop come back to what waits.
    fn later(&self, domain: &Arc<Domain>) {
        let first = !std::mem::replace(&mut self.queue.lock().scheduled, true);
        if first {
            // A closed loop drops it.
            let _ = schedule(domain);
        }
    }

    /// The loop is gone: drops what waits.
    pub(crate) fn give_up(&self) {
        let left = {
            let mut queue = self.queue.lock();
            queue.scheduled = false;
            std::mem::take(&mut queue.posted)
        };
        for posted in left {
            self.settled(&posted.bev, posted.bytes);
        }
    }
}

impl Queue {
    fn takes(&self, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= MAX_BYTES;
        // A single operation may bring more: it could never be put anywhere else.
        self.posted.len() < MAX_OPERATIONS && (fits || self.bytes == 0)
    }
}

/// The loop's call. If it is dropped without having run, the loop is gone.
struct Turn {
    domain: Arc<Domain>,
    ran: AtomicBool,
}

impl Target for Turn {
    fn run(&self, _key: u64) {
        self.ran.store(true, Ordering::Relaxed);
        run(&self.domain);
    }
    fn expired(&self, _key: u64) {}
    fn ready(&self, _key: u64, _ready: Ready) {}
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.ran.load(Ordering::Relaxed)
            && let Some(inbox) = self.domain.inbox()
        {
            inbox.give_up();
        }
    }
}

/// Has the domain's loop run what waits.
fn schedule(domain: &Arc<Domain>) -> Result<(), LoopClosed> {
    let turn = Turn {
        domain: domain.clone(),
        ran: AtomicBool::new(false),
    };
    domain.host.schedule(Phase::Turn, Arc::new(turn), 0)
}

/// Puts an operation on `bev`, which brings `bytes` of output, into its domain's inbox. `limited` is false for bytes that have been
/// taken from somewhere already.
///
/// # Errors
/// [`Kind::Freed`]; [`Kind::Full`] past the limits; [`Kind::LoopClosed`].
pub(crate) fn post(
    bev: &Bev,
    name: &'static str,
    bytes: usize,
    limited: bool,
    operation: Operation,
) -> Result<(), Error> {
    let refusal = |kind| Error::new(kind, "bufferevent", name);
    let domain = &bev.0.domain;
    let Some(inbox) = domain.inbox() else {
        return Err(refusal(Kind::Busy));
    };
    let posted = Posted {
        bev: bev.clone(),
        bytes,
        operation,
    };
    let first = inbox
        .put(posted, limited)
        .ok_or_else(|| refusal(Kind::Full))?;
    if first {
        schedule(domain).map_err(|_| refusal(Kind::LoopClosed))?;
    }
    Ok(())
}

/// The domain's turn: does what waits, and the pump after all of it, so that many writes leave together.
fn run(domain: &Arc<Domain>) {
    let Some(inbox) = domain.inbox() else { return };
    inbox.queue.lock().scheduled = false;
    let active = Active::begin();
    match domain.lock_unless_holding() {
        Some(lock) => domain.catch_up(&lock),
        None => inbox.later(domain),
    }
    if inbox.is_outstanding() {
        // A loop that is driven by code that holds the lock, or some came meanwhile.
        inbox.later(domain);
    }
    if active.is_some() {
        drop(active);
        pump::run_listed();
    }
}
