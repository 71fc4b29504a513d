//! What waits for a domain's loop: operations of threads that could not wait for the domain's lock.
//!
//! A thread that holds one domain never waits for another (`held.rs`). If that one is busy just then, an operation that needs no answer is
//! put here. Bytes for an output are, too, when a thread that holds nothing brings them from outside of the loop: it would wait for the loop to send, and
//! the loop for it. The domain's loop is called to do what is here; but whoever takes the lock before that does it first. `Ok` means that it was taken in;
//! if it fails later, that is told as an event.
//!
//! Writes that follow each other lie in one buffer, so that one of them costs this lock and a copy, and the loop moves them by the segment. The loop takes
//! all that waits with one hold of this lock: who is put off by the system with the lock in its hands, often for the very receiver that the loop has
//! just sent to, holds the loop up once at most.
//!
//! # Invariants
//! - In order: what is put here comes behind what was put here before, and before whatever is done under a lock that is taken
//!   later. Who had the lock at that time goes on undisturbed: operations under one lock are one.
//! - Bytes that wait here count as output of their bufferevent.
//! - At most [`MAX_OPERATIONS`], and [`MAX_BYTES`] but for the last one of each thread, wait. After that the answer is `Full`; who holds nothing
//!   waits for the lock instead.
//! - While anything waits, the loop has a call that will do it, or is gone; then what waits is dropped.
//! - The lock here is a leaf: nothing of the user's is called or dropped under it, and no lock taken. What came is counted under it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evreactor_core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use evreactor_core::sync::{Arc, Mutex, ThreadNumber, thread_number};
use evreactor_core::{LoopClosed, Phase, Ready, Target};

use crate::bev::Bev;
use crate::buffers::refused;
use crate::domain::Domain;
use crate::error::{Error, Kind};
use crate::gathered::Gathered;
use crate::pump;
use crate::tally::Tally;

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
    what: What,
}

enum What {
    Operation(Operation),
    /// Bytes for the output, of writes that followed each other.
    Writes(&'static str, Gathered),
}

#[derive(Default)]
struct Queue {
    posted: VecDeque<Posted>,
    /// The loop has a call that will run them.
    scheduled: bool,
}

/// What was taken out of the queue, in order.
pub(crate) struct Taken {
    first: Option<Posted>,
    more: VecDeque<Posted>,
}

/// The operations that wait for one domain.
pub(crate) struct Inbox {
    /// The loop's.
    thread: ThreadNumber,
    queue: Mutex<Queue>,
    outstanding: AtomicUsize,
    /// Bytes that they bring.
    bytes: Tally,
    /// How often the domain's lock is kept; changed by its holder alone.
    keepers: AtomicUsize,
}

impl Inbox {
    /// That of a domain whose loop is on this thread.
    pub(crate) fn new(thread: ThreadNumber) -> Self {
        Self {
            thread,
            queue: Mutex::default(),
            outstanding: AtomicUsize::new(0),
            bytes: Tally::new(),
            keepers: AtomicUsize::new(0),
        }
    }

    /// Whether the loop's thread asks.
    pub(crate) fn is_of_this_thread(&self) -> bool {
        self.thread == thread_number()
    }

    /// Whether anything was put here that has not been done.
    #[inline]
    pub(crate) fn is_outstanding(&self) -> bool {
        // Who has taken the lock sees what those put here whom it has heard of. Others may be in the act; they come later.
        self.outstanding.load(Ordering::Acquire) > 0
    }

    /// Whether an operation that brings `bytes` may be put here.
    pub(crate) fn takes(&self, bytes: usize) -> bool {
        let waiting = self.bytes.waiting();
        let fits = waiting.saturating_add(bytes) <= MAX_BYTES;
        // A single operation may bring more: it could never be put anywhere else.
        self.outstanding.load(Ordering::Relaxed) < MAX_OPERATIONS && (fits || waiting == 0)
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
    fn put(&self, bev: &Bev, operation: Operation) -> Option<bool> {
        let mut queue = self.queue.lock();
        if !self.takes(0) {
            drop(queue); // Before the operation is dropped.
            return None;
        }
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        queue.posted.push_back(Posted {
            bev: bev.clone(),
            bytes: 0,
            what: What::Operation(operation),
        });
        Some(queue.schedules())
    }

    /// Puts bytes behind what waits. Answers whether the loop has yet to be called.
    fn put_bytes(
        &self,
        bev: &Bev,
        name: &'static str,
        count: usize,
        add: impl FnOnce(&mut Gathered) -> Result<(), evbuffer::Error>,
    ) -> Result<bool, evbuffer::Error> {
        let mut queue = self.queue.lock();
        match queue.posted.back_mut() {
            Some(Posted {
                bev: last,
                bytes,
                what: What::Writes(_, waiting),
            }) if last == bev => {
                add(waiting)?;
                *bytes += count;
            }
            _ => {
                let mut waiting = Gathered::default();
                add(&mut waiting)?;
                self.outstanding.fetch_add(1, Ordering::Relaxed);
                queue.posted.push_back(Posted {
                    bev: bev.clone(),
                    bytes: count,
                    what: What::Writes(name, waiting),
                });
            }
        }
        self.brought(bev, count);
        Ok(queue.schedules())
    }

    /// Bytes came; the caller has the lock.
    fn brought(&self, bev: &Bev, count: usize) {
        self.bytes.add(count);
        if let Some(published) = bev.published() {
            published.posted.add(count);
        }
    }

    /// Takes all that waits, to have it carried out with the domain's lock held.
    pub(crate) fn take(&self) -> Taken {
        self.queue.lock().take()
    }

    /// As [`take`](Self::take), in the loop's turn: what comes from here on needs another.
    fn take_in_turn(&self) -> Taken {
        let mut queue = self.queue.lock();
        queue.scheduled = false;
        queue.take()
    }

    /// Does what was taken; its caller has the domain's lock.
    pub(crate) fn carry_out_all(&self, taken: Taken) {
        for posted in taken.first.into_iter().chain(taken.more) {
            self.carry_out(posted);
        }
    }

    /// One operation, in its turn.
    fn carry_out(&self, posted: Posted) {
        let Posted { bev, bytes, what } = posted;
        let outcome = catch_unwind(AssertUnwindSafe(|| match what {
            What::Operation(operation) => operation(&bev),
            What::Writes(name, waiting) => bev.write_posted(name, &mut waiting.into_buffer()),
        }));
        self.settled(&bev, bytes);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => bev.refused_later(bytes, error),
            Err(payload) => bev.panicked_later(payload),
        }
    }

    /// An operation does not wait any more.
    fn settled(&self, bev: &Bev, bytes: usize) {
        if bytes > 0 {
            self.bytes.take_off(bytes);
            if let Some(published) = bev.published() {
                published.posted.take_off(bytes);
            }
        }
        self.outstanding.fetch_sub(1, Ordering::Release);
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
    /// The loop is to have a call. Answers whether it had none.
    fn schedules(&mut self) -> bool {
        !std::mem::replace(&mut self.scheduled, true)
    }

    fn take(&mut self) -> Taken {
        let first = self.posted.pop_front();
        // One alone leaves the queue its memory.
        let more = if self.posted.is_empty() {
            VecDeque::new()
        } else {
            std::mem::take(&mut self.posted)
        };
        Taken { first, more }
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
    domain.host().schedule(Phase::Turn, Arc::new(turn), 0)
}

/// Puts an operation on `bev` into its domain's inbox.
///
/// # Errors
/// [`Kind::Full`] past the limits; [`Kind::LoopClosed`].
pub(crate) fn post(bev: &Bev, name: &'static str, operation: Operation) -> Result<(), Error> {
    let refusal = |kind| Error::new(kind, "bufferevent", name);
    let Some(inbox) = bev.0.domain().inbox() else {
        return Err(refusal(Kind::Busy));
    };
    let first = inbox.put(bev, operation);
    call(bev, name, first.ok_or_else(|| refusal(Kind::Full))?)
}

/// Puts bytes for the output of `bev` into its domain's inbox. Nothing but memory is asked for: the limits were looked at before.
///
/// # Errors
/// [`Kind::OutOfMemory`], with nothing taken; [`Kind::LoopClosed`].
pub(crate) fn post_bytes(
    bev: &Bev,
    name: &'static str,
    count: usize,
    add: impl FnOnce(&mut Gathered) -> Result<(), evbuffer::Error>,
) -> Result<(), Error> {
    let Some(inbox) = bev.0.domain().inbox() else {
        return Err(Error::new(Kind::Busy, "bufferevent", name));
    };
    let first = inbox.put_bytes(bev, name, count, add);
    call(bev, name, first.map_err(|error| refused(name, error))?)
}

/// Has the loop do what was put into the inbox, if it has yet to be called.
fn call(bev: &Bev, name: &'static str, first: bool) -> Result<(), Error> {
    if first && schedule(bev.0.domain()).is_err() {
        return Err(Error::new(Kind::LoopClosed, "bufferevent", name));
    }
    Ok(())
}

/// The domain's turn: does what waits, and the pump after all of it, so that many writes leave together.
fn run(domain: &Arc<Domain>) {
    let Some(inbox) = domain.inbox() else { return };
    if !pump::run_posted(domain, || inbox.take_in_turn()) {
        // The loop is driven by code that holds the lock. A closed loop drops what waits.
        let _ = schedule(domain);
    }
}
