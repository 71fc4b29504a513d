//! A ticket: who is to poll a future, and whether that is asked for.
//!
//! | bit | meaning | set by | cleared by |
//! |---|---|---|---|
//! | QUEUED | a run is queued with the loop, or the run that goes on will queue one | whoever wakes or cancels | a run as it begins |
//! | RUNNING | a run goes on | a run as it begins | the run as it ends |
//! | CANCELLED | the future is to be dropped by the next run | `cancel` | |
//! | OVER | there is no future any more | a run | |
//!
//! # Rules
//! 1. Who sets QUEUED and finds none of QUEUED, RUNNING and OVER has the loop run the ticket; nobody else does. So at most one run is
//!    queued.
//! 2. A run clears QUEUED and sets RUNNING in one step, then polls; what happened before a wake that found QUEUED is seen by that poll.
//! 3. A run that ends clears RUNNING; if it finds QUEUED then, somebody woke the future meanwhile, and it has itself run again, in
//!    the loop's next turn.
//! 4. Only the loop's thread runs.
//!
//! Every change is one read-modify-write with `AcqRel`: a wake releases what its thread did before, a run acquires it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Poll, Wake};

use evreactor_core::sync::Arc;
use evreactor_core::sync::atomic::{AtomicU8, Ordering};
use evreactor_core::{Host, LoopClosed, Phase, Ready, Target};

use super::budget::Counted;
use super::table::{self, Entry};
use crate::pump::{self, Active};

const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const CANCELLED: u8 = 4;
const OVER: u8 = 8;

/// The next ticket's key: a counter and nothing else. 2^64 tasks are never spawned.
static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

pub(super) struct Ticket {
    pub(super) host: Arc<dyn Host>,
    /// Where the future is in the table of the loop's thread.
    pub(super) key: u64,
    state: AtomicU8,
}

impl Ticket {
    /// A ticket whose first run the caller queues.
    pub(super) fn new(host: Arc<dyn Host>) -> Arc<Self> {
        Arc::new(Self {
            host,
            key: NEXT.fetch_add(1, Ordering::Relaxed),
            state: AtomicU8::new(QUEUED),
        })
    }

    /// Whether the future is being polled, or dropped by a run.
    pub(super) fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) & RUNNING != 0
    }

    pub(super) fn cancel(self: &Arc<Self>) {
        self.ask(CANCELLED);
    }

    /// Sets `bits` and asks for a run.
    fn ask(self: &Arc<Self>, bits: u8) {
        let before = self.state.fetch_or(bits | QUEUED, Ordering::AcqRel);
        if before & (QUEUED | RUNNING | OVER) == 0 {
            // A loop that closes drops all its futures, so there is none to run then.
            let _ = self.schedule();
        }
    }

    pub(super) fn schedule(self: &Arc<Self>) -> Result<(), LoopClosed> {
        self.host.schedule(Phase::Turn, self.clone(), 0)
    }

    /// There is no future any more: drops it.
    fn end(&self, entry: Entry) {
        self.state.fetch_or(OVER, Ordering::AcqRel);
        discard(&*self.host, entry);
    }
}

/// Drops a future, which is user code.
pub(super) fn discard(host: &dyn Host, entry: Entry) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(entry))) {
        host.caught_panic("task", &*payload);
    }
}

impl Wake for Ticket {
    fn wake(self: Arc<Self>) {
        self.ask(0);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ask(0);
    }
}

impl Target for Ticket {
    fn run(&self, _key: u64) {
        let before = self.state.fetch_xor(QUEUED | RUNNING, Ordering::AcqRel);
        debug_assert_eq!(
            before & (QUEUED | RUNNING),
            QUEUED,
            "only what is queued runs"
        );
        let Some(mut entry) = table::take(self.key) else {
            return;
        };
        if before & CANCELLED != 0 {
            return self.end(entry);
        }
        match poll(&mut entry) {
            Ok(Poll::Pending) => {
                let before = self.state.fetch_and(!RUNNING, Ordering::AcqRel);
                if before & QUEUED != 0 {
                    // On a closed loop it is dropped with the rest.
                    let _ = entry.ticket.schedule();
                }
                table::put_back(self.key, entry);
            }
            Ok(Poll::Ready(())) => self.end(entry),
            Err(payload) => {
                self.host.caught_panic("task", &*payload);
                self.end(entry);
            }
        }
    }

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {}
}

/// Polls a future once, with the thread's pump held: what it writes leaves after it, together.
fn poll(entry: &mut Entry) -> std::thread::Result<Poll<()>> {
    let counted = Counted::begin();
    let active = Active::begin();
    let mut cx = std::task::Context::from_waker(&entry.waker);
    let future = entry.future.as_mut();
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx)));
    drop(active);
    drop(counted);
    pump::run_listed();
    polled
}
