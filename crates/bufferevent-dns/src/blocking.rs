//! Look-ups that block, on threads of their own.
//!
//! # Invariants
//! - There are never more threads, nor more questions that wait, than the limits say; a question beyond them is answered
//!   [`ResolveFailure::Busy`].
//! - A question that is called off gives its place up; one that a thread is at is forgotten when the thread comes back.
//! - Threads are made when there is work, and end when there was none for a while. Nobody waits for one: it may be held up for as long as the system likes.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bufferevent_core::resolve::{
    Family, Found, Lookup, Question, Reply, Resolve, ResolveError, ResolveFailure,
};
use evreactor_core::sync::{Arc, Condvar, Mutex, Weak, thread};

use crate::name;

/// Threads, unless told otherwise: names that take long hold one up each.
const THREADS: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// Questions that may wait for a thread, unless told otherwise. At a few milliseconds each, as most take, that is under a second.
const WAITING: usize = 256;

/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(10);

/// Any function that looks a name up and takes its time, as a resolver: it runs on a few threads, which are made when they are needed.
///
/// ```
/// use bufferevent_dns::{Blocking, ResolveFailure};
/// let resolver = Blocking::new(|question, ascii| {
///     // Ask a directory service for `ascii` …
///     match ascii {
///         "db.internal" => Ok(vec![([192, 0, 2, 7], 0).into()]),
///         _ => Err(question.failed(ResolveFailure::NotFound)),
///     }
/// });
/// # let _ = resolver;
/// ```
pub struct Blocking {
    pool: Arc<Pool>,
}

type LookUp = dyn Fn(&Question, &str) -> Found + Send + Sync;

struct Pool {
    look_up: Box<LookUp>,
    threads: usize,
    waiting: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    next: u64,
    threads: usize,
    /// Threads that are at a question.
    busy: usize,
    closed: bool,
}

struct Job {
    number: u64,
    name: String,
    reply: Reply,
}

impl Blocking {
    /// A resolver that calls `look_up` with the question and the ASCII form of its name, on up to 4 threads, with up to 256
    /// questions waiting.
    pub fn new(look_up: impl Fn(&Question, &str) -> Found + Send + Sync + 'static) -> Self {
        Self::with_limits(look_up, THREADS, WAITING)
    }

    /// The same with other limits.
    pub fn with_limits(
        look_up: impl Fn(&Question, &str) -> Found + Send + Sync + 'static,
        threads: NonZeroUsize,
        waiting: usize,
    ) -> Self {
        Self {
            pool: Arc::new(Pool {
                look_up: Box::new(look_up),
                threads: threads.get(),
                waiting,
                state: Mutex::new(State::default()),
                work: Condvar::new(),
            }),
        }
    }
}

impl Resolve for Blocking {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        let name = match name::ascii(question) {
            Ok(name) => name,
            Err(error) => {
                reply.answer(Family::Any, Err(error));
                return Lookup::done();
            }
        };
        match self.pool.take_in(name, reply) {
            Ok(number) => Lookup::until_dropped(Place {
                pool: Arc::downgrade(&self.pool),
                number,
            }),
            Err((error, reply)) => {
                reply.answer(Family::Any, Err(error));
                Lookup::done()
            }
        }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.pool.work.notify_all();
        // Each answers `Cancelled`, with nothing locked.
        drop(jobs);
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.pool.state.lock();
        f.debug_struct("Blocking")
            .field("threads", &state.threads)
            .field("waiting", &state.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Pool {
    fn take_in(self: &Arc<Self>, name: String, reply: Reply) -> Result<u64, (ResolveError, Reply)> {
        let mut state = self.state.lock();
        // Those for whom a thread is there, or about to be, do not wait.
        let free = self.threads - state.busy;
        if state.jobs.len() >= self.waiting.saturating_add(free) {
            drop(state);
            return Err((reply.question().failed(ResolveFailure::Busy), reply));
        }
        if state.jobs.len() >= state.threads - state.busy && state.threads < self.threads {
            let pool = self.clone();
            let made = thread::Builder::new()
                .name("resolver".into())
                .spawn(move || pool.serve());
            match made {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    drop(state);
                    let failed = reply.question().failed(ResolveFailure::System);
                    return Err((failed.with_source(error), reply));
                }
                // Those that are there will get to it.
                Err(error) => tracing::warn!(%error, "no thread for a look-up"),
            }
        }
        let number = state.next;
        state.next += 1;
        state.jobs.push_back(Job {
            number,
            name,
            reply,
        });
        drop(state);
        self.work.notify_one();
        Ok(number)
    }

    /// What each thread does.
    fn serve(&self) {
        while let Some(Job { name, reply, .. }) = self.next_job() {
            let question = reply.question();
            let looked_up = || (self.look_up)(question, &name);
            // A panic is the function's; its question is answered by the drop of the reply, and the thread goes on.
            if let Ok(found) = catch_unwind(AssertUnwindSafe(looked_up)) {
                reply.answer(Family::Any, found);
            }
            drop(reply);
            self.state.lock().busy -= 1;
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.busy += 1;
                return Some(job);
            }
            if state.closed {
                break;
            }
            let waited = self.work.wait_for(&mut state, IDLE);
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        None
    }
}

/// A question's place in the queue.
struct Place {
    pool: Weak<Pool>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let mut state = pool.state.lock();
        let at = state.jobs.iter().position(|job| job.number == self.number);
        let job = at.and_then(|at| state.jobs.remove(at));
        drop(state);
        drop(job);
    }
}
