//! Futures on a loop: spawned from anywhere, polled on the loop's thread, woken from any thread.
//!
//! A future lives in a table of its loop's thread, so it need not be `Send`. What travels is its *ticket*: a few bits and
//! the loop, which is the waker of the future and what the loop calls to poll it.
//!
//! ```
//! use bufferevent_core::task::spawn;
//! # use bufferevent_testkit::Loop;
//! # let events = Loop::new();
//! let task = spawn(&events, async { 6 * 7 })?;
//! let report = spawn(&events, async move { println!("{:?}", task.await) })?;
//! # events.run();
//! # assert!(report.is_over());
//! # Ok::<(), bufferevent_core::Error>(())
//! ```
//!
//! # Invariants
//! - No wake-up is lost and none runs twice: see [`ticket`].
//! - A task is polled at most once per turn of its loop: who wakes itself comes again in the next turn, behind the sources that
//!   are ready by then. Within one poll a future does at most [`OPERATIONS_PER_POLL`] operations on bufferevents.
//! - While a future is polled the thread's pump is held: all that one poll writes to a bufferevent leaves together, after it.
//! - A future is polled, and dropped, with nothing borrowed. A panic in it ends its task and nothing else.
//! - What a loop that closes has not brought to its end is dropped then, on the loop's thread.
//!
//! It is no runtime: timers, sockets and the wait are the loop's, and any future's own waker works as well.

mod budget;
mod table;
mod ticket;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use evreactor_core::sync::{Arc, Mutex, thread_number};
use evreactor_core::{AsHost, Host, Phase, Ready, Target};

use crate::error::{Error, Kind};
use ticket::Ticket;

pub use budget::OPERATIONS_PER_POLL;
pub(crate) use budget::proceed;

/// Has the loop run `future`, from its next turn on. May be called on any thread.
///
/// A task that waits is not work of the loop: `run` returns when no source, timer or queued call is left, and only a loop that is
/// held (or has sources) waits for other threads.
///
/// # Errors
/// [`Kind::LoopClosed`]; the future is dropped.
pub fn spawn<F>(on: &impl AsHost, future: F) -> Result<Task<F::Output>, Error>
where
    F: Future<Output: Send> + Send + 'static,
{
    let host = on.as_host();
    let (task, whole) = whole(host.clone(), future);
    let arrival = Arrival {
        ticket: task.0.ticket.clone(),
        future: Mutex::new(Some(Box::pin(whole))),
    };
    host.schedule(Phase::Turn, Arc::new(arrival), 0)
        .map_err(|closed| refused(Kind::LoopClosed).with_source(closed))?;
    Ok(task)
}

/// As [`spawn`], for a future that must not leave this thread, which is the loop's. What it results in may.
///
/// # Errors
/// [`Kind::WrongThread`] on any other thread; [`Kind::LoopClosed`]. The future is dropped.
pub fn spawn_local<F>(on: &impl AsHost, future: F) -> Result<Task<F::Output>, Error>
where
    F: Future<Output: Send> + 'static,
{
    let host = on.as_host();
    if host.thread() != thread_number() {
        return Err(refused(Kind::WrongThread));
    }
    let (task, whole) = whole(host, future);
    let ticket = &task.0.ticket;
    table::adopt(ticket, Box::pin(whole))
        .and_then(|()| ticket.schedule())
        .map_err(|closed| refused(Kind::LoopClosed).with_source(closed))?;
    Ok(task)
}

fn refused(kind: Kind) -> Error {
    Error::new(kind, "task", "spawn")
}

/// A future that was spawned; a future of what it results in, for whichever executor waits for it.
///
/// Dropping this lets the future run on; [`cancel`](Self::cancel) ends it.
pub struct Task<T>(Arc<Join<T>>);

/// Why a task has no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stopped {
    /// It was cancelled, or its loop closed before it was over.
    Cancelled,
    /// Its future panicked; the loop has counted and logged it.
    Panicked,
}

/// Where a task and who waits for it meet.
struct Join<T> {
    ticket: Arc<Ticket>,
    meeting: Mutex<Meeting<T>>,
}

struct Meeting<T> {
    over: bool,
    /// `None` before the end, and once it was handed out.
    outcome: Option<Result<T, Stopped>>,
    waiter: Option<Waker>,
}

impl<T> Join<T> {
    /// Notes how it ended, unless that is known, and tells who waits.
    fn end(&self, outcome: Result<T, Stopped>) {
        let waiter = {
            let mut meeting = self.meeting.lock();
            if meeting.over {
                return;
            }
            meeting.over = true;
            meeting.outcome = Some(outcome);
            meeting.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// Lives in the future of a task: wherever that is dropped, the end is noted.
struct Ending<T>(Arc<Join<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        let why = if self.0.ticket.is_running() && std::thread::panicking() {
            Stopped::Panicked
        } else {
            Stopped::Cancelled
        };
        self.0.end(Err(why));
    }
}

/// A future with all that belongs to its end.
fn whole<F: Future>(
    host: Arc<dyn Host>,
    future: F,
) -> (Task<F::Output>, impl Future<Output = ()> + use<F>) {
    let join = Arc::new(Join {
        ticket: Ticket::new(host),
        meeting: Mutex::new(Meeting {
            over: false,
            outcome: None,
            waiter: None,
        }),
    });
    let ending = Ending(join.clone());
    let whole = async move {
        let result = future.await;
        ending.0.end(Ok(result));
    };
    (Task(join), whole)
}

impl<T> Task<T> {
    /// Has the future dropped in the loop's next turn; it is not polled any more. May be called on any thread. Nothing happens if it
    /// is over already.
    pub fn cancel(&self) {
        self.0.ticket.cancel();
    }

    /// Whether the future has come to its end, in one way or another.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.meeting.lock().over
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Stopped>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut new = Some(cx.waker().clone());
        let mut meeting = self.0.meeting.lock();
        if meeting.over {
            let outcome = meeting.outcome.take();
            return Poll::Ready(outcome.expect("a task is not polled after it was ready"));
        }
        std::mem::swap(&mut meeting.waiter, &mut new);
        drop(meeting); // Before the old waker, which is another's code.
        Poll::Pending
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the task was cancelled",
            Self::Panicked => "the task panicked",
        })
    }
}

impl StdError for Stopped {}

/// A future on its way to its loop's thread.
struct Arrival {
    ticket: Arc<Ticket>,
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Target for Arrival {
    fn run(&self, _key: u64) {
        let future = self.future.lock().take();
        // A loop that closes has dropped what was queued, so it is not closed here; and if it were, the future goes.
        if let Some(future) = future
            && table::adopt(&self.ticket, future).is_ok()
        {
            self.ticket.run(0);
        }
    }

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {}
}
