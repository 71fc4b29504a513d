//! A pool of loops: one per thread, made and ended together.
//!
//! # Life of one thread
//! ```text
//! loop built, setup run --Started--> runs until told --> state dropped, loop closed --Ended-->
//!          `------------- failed, or panicked ------------------------------------Ended-->
//! ```
//!
//! # Invariants
//! - Everything that a thread does before its end happens under one `catch_unwind`, so every thread says `Ended` once.
//! - Whoever waits, waits with a deadline. A thread that misses it is told in the error and left behind; it finds `stopped`
//!   set, so a setup that comes back late does not become a loop that nobody knows.
//! - A loop, and what its setup made, are made and dropped on their own thread. Handles go everywhere.
//!
//! # Why it is here
//! An [`EventLoop`] stays on its thread, so whoever wants a second one needs a thread that makes it, a way to get its handle
//! out, and an answer to "what if that fails". This is that answer, once. What the loops are for is not known here.

mod error;
mod lease;

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evreactor_core::LoopClosed;

use crate::builder::Builder;
use crate::event_loop::EventLoop;
use crate::handle::LoopHandle;
use crate::stats::Stats;

pub use error::{LoopFailure, PoolError, Reason};
pub use lease::Lease;
use lease::Loads;

/// How long all setups together may take, unless told otherwise.
const START_WITHIN: Duration = Duration::from_secs(30);

/// How long dropping a pool waits for its threads: longer than any callback should take, and yet no hang.
const DROP_WITHIN: Duration = Duration::from_secs(5);

/// Event loops on threads of their own.
///
/// Dropping the pool stops its loops and waits for them, five seconds at most; [`shut_down`](Self::shut_down) tells what
/// went wrong besides.
///
/// # Examples
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::mpsc::channel;
/// use std::time::Duration;
/// use evreactor::LoopPool;
///
/// let two = NonZeroUsize::new(2).unwrap();
/// let pool = LoopPool::builder(two).name("hasher").start()?;
/// let (sender, receiver) = channel();
/// pool.post_all(move |index| sender.send(index).unwrap_or_default())?;
/// let mut answers: Vec<usize> = receiver.iter().collect();
/// answers.sort();
/// assert_eq!(answers, [0, 1]);
/// pool.shut_down(Duration::from_secs(10))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LoopPool {
    handles: Vec<LoopHandle>,
    threads: Threads,
    loads: Arc<Loads>,
    turn: AtomicUsize,
}

/// Options of a [`LoopPool`] to be.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing until it is told to"]
pub struct PoolBuilder {
    count: NonZeroUsize,
    name: String,
    loops: Builder,
    start_within: Duration,
}

impl PoolBuilder {
    /// Names the threads: `name-0`, `name-1` and so on. `loop` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How each loop is made: backend, priorities, clock. All loops go by the builder's one clock, so their times can be compared.
    pub fn loops(mut self, loops: Builder) -> Self {
        self.loops = loops;
        self
    }

    /// How long all setups together may take; 30 seconds by default.
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_within = limit;
        self
    }

    /// Starts the loops. They run until they are told to end, also with nothing to do.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with).
    pub fn start(self) -> Result<LoopPool, PoolError> {
        self.start_with(|_, _| Ok::<(), Infallible>(()))
    }

    /// Starts the loops, each with a call of `setup` on its own thread, before its first turn. The call gets the loop's index
    /// and the loop. What it returns stays on that thread, need not be `Send`, and is dropped there when the loop has ended and
    /// before it is closed: a guard, if you want to hear of that end.
    ///
    /// # Errors
    /// [`PoolError`] if a thread or a loop could not be made, or a setup failed, panicked or was not done in time. The other
    /// loops are stopped then.
    ///
    /// # Examples
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use evreactor::LoopPool;
    /// let result = LoopPool::builder(NonZeroUsize::MIN).start_with(|index, _events| {
    ///     Err::<(), _>(format!("no room for loop {index}"))
    /// });
    /// assert_eq!(result.unwrap_err().to_string(), "loop 0: the setup failed: no room for loop 0");
    /// ```
    pub fn start_with<T, E>(
        self,
        setup: impl Fn(usize, &EventLoop) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<LoopPool, PoolError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (setup, stopped) = (Arc::new(setup), Arc::new(AtomicBool::new(false)));
        let (sender, reports) = channel();
        let mut threads = Threads {
            states: Vec::new(),
            reports: Mutex::new(reports),
            stopped: stopped.clone(),
        };
        for index in 0..self.count.get() {
            let (setup, loops) = (setup.clone(), self.loops.clone());
            let body = move |desk: &Desk| {
                let events = loops.build().map_err(Reason::Build)?;
                let state = setup(index, &events).map_err(|why| Reason::Setup(why.into()))?;
                desk.started(LoopHandle::clone(&events));
                let ended = if desk.is_stopped() {
                    Ok(())
                } else {
                    events.run_until_exit().map(drop).map_err(Reason::Run)
                };
                drop(state);
                ended
            };
            let desk = Desk {
                index,
                reports: sender.clone(),
                stopped: stopped.clone(),
            };
            let spawned = std::thread::Builder::new()
                .name(format!("{}-{index}", self.name))
                .spawn(move || desk.run(body));
            threads.states.push(match spawned {
                Ok(thread) => State::Starting(thread),
                Err(source) => State::Ended(Err(Reason::Spawn(source))),
            });
        }
        // From here on the channel closes when the last thread has ended.
        drop(sender);
        let handles = threads.start(self.start_within)?;
        Ok(LoopPool {
            loads: Arc::new(Loads::new(handles.len())),
            handles,
            threads,
            turn: AtomicUsize::new(0),
        })
    }
}

impl LoopPool {
    /// A pool of `count` loops, with options. [`std::thread::available_parallelism`] says how many this machine has room for.
    pub fn builder(count: NonZeroUsize) -> PoolBuilder {
        PoolBuilder {
            count,
            name: "loop".into(),
            loops: EventLoop::builder(),
            start_within: START_WITHIN,
        }
    }

    /// The loops, by index. There is at least one.
    #[must_use]
    pub fn handles(&self) -> &[LoopHandle] {
        &self.handles
    }

    /// The loop whose turn it is: each call names the next one, from any thread.
    pub fn next_loop(&self) -> &LoopHandle {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.handles[turn % self.handles.len()]
    }

    /// The loop with the fewest leases, for as long as the [`Lease`] is held: keep it with what you put on that loop. Among
    /// equals they take turns.
    ///
    /// # Examples
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use evreactor::LoopPool;
    /// let pool = LoopPool::builder(NonZeroUsize::new(2).unwrap()).start()?;
    /// let (first, second) = (pool.lease(), pool.lease());
    /// assert_ne!(first.index(), second.index());
    /// let index = first.index();
    /// drop(first); // now it has nothing to do
    /// assert_eq!(pool.lease().index(), index);
    /// # Ok::<(), evreactor::PoolError>(())
    /// ```
    pub fn lease(&self) -> Lease {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = self.loads.take_least(first);
        Lease::new(self.loads.clone(), index, self.handles[index].clone())
    }

    /// How many leases each loop has, by index.
    #[must_use]
    pub fn leases(&self) -> Vec<usize> {
        self.loads.read()
    }

    /// Has each loop call `task` with its index at the start of its next turn.
    ///
    /// # Errors
    /// [`LoopClosed`] if at least one of the loops has ended; the others call it all the same.
    pub fn post_all(&self, task: impl Fn(usize) + Send + Sync + 'static) -> Result<(), LoopClosed> {
        let task = Arc::new(task);
        let mut posted = Ok(());
        for (index, handle) in self.handles.iter().enumerate() {
            let task = task.clone();
            posted = posted.and(handle.post(move || task(index)));
        }
        posted
    }

    /// What the loops did so far, all together.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handles.iter().map(LoopHandle::stats).sum()
    }

    /// Has every loop end after its current turn. Does not wait.
    pub fn stop(&self) {
        self.threads.stop();
    }

    /// Waits until all loops have ended: because of [`stop`](Self::stop), because somebody told each of them to, or because they
    /// failed. Waits for `within` at most.
    ///
    /// # Errors
    /// [`PoolError`] names every loop that failed, panicked, or still runs. Those that still run are told to stop and left behind.
    ///
    /// # Panics
    /// On one of the pool's own threads, which would wait for itself.
    pub fn join(mut self, within: Duration) -> Result<(), PoolError> {
        assert!(
            !self.threads.is_own(),
            "a loop of a pool cannot wait for its own end"
        );
        self.threads.join(within)
    }

    /// [`stop`](Self::stop), then [`join`](Self::join).
    ///
    /// # Errors
    /// As [`join`](Self::join).
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn shut_down(self, within: Duration) -> Result<(), PoolError> {
        self.stop();
        self.join(within)
    }
}

impl Drop for LoopPool {
    fn drop(&mut self) {
        self.stop();
        if self.threads.is_own() {
            return; // Who is dropped by one of its own loops cannot wait for it.
        }
        if let Err(error) = self.threads.join(DROP_WITHIN) {
            tracing::warn!(%error, "a pool of loops did not end well");
        }
    }
}

/// What a thread tells of itself.
enum Report {
    Started(usize, LoopHandle),
    Ended(usize, Result<(), Reason>),
}

/// A thread's side of the pool.
struct Desk {
    index: usize,
    reports: Sender<Report>,
    stopped: Arc<AtomicBool>,
}

impl Desk {
    fn run(self, body: impl FnOnce(&Self) -> Result<(), Reason>) {
        let ended = catch_unwind(AssertUnwindSafe(|| body(&self)))
            .unwrap_or_else(|payload| Err(Reason::Panicked(text_of(&*payload))));
        // Nobody waits any more.
        let _ = self.reports.send(Report::Ended(self.index, ended));
    }

    fn started(&self, handle: LoopHandle) {
        let _ = self.reports.send(Report::Started(self.index, handle));
    }

    /// Looked at behind `started`: whoever sets it before that report arrives is heard here, whoever sets it later has the handle.
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// What a panic said.
fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a value that is no text").to_string()
}

/// A thread, as the pool knows it. Transitions happen in [`Threads::note`].
enum State {
    Starting(JoinHandle<()>),
    Running(JoinHandle<()>, LoopHandle),
    Ended(Result<(), Reason>),
}

impl State {
    fn has_failed(&self) -> bool {
        match self {
            Self::Ended(ended) => ended.is_err(),
            Self::Starting(_) | Self::Running(..) => false,
        }
    }

    fn has_started(&self) -> bool {
        match self {
            Self::Starting(_) => false,
            Self::Running(..) | Self::Ended(_) => true,
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Starting(_) | Self::Running(..) => false,
            Self::Ended(_) => true,
        }
    }
}

/// The pool's side of its threads.
struct Threads {
    /// By index; empty once their ends were told.
    states: Vec<State>,
    /// Behind a lock for `Sync` alone: only `&mut self` receives.
    reports: Mutex<Receiver<Report>>,
    stopped: Arc<AtomicBool>,
}

impl Threads {
    /// The handles of all loops, once all have started. With the first that fails, or at the end of the time, all are stopped.
    fn start(&mut self, within: Duration) -> Result<Vec<LoopHandle>, PoolError> {
        self.receive_until(within, |states| {
            states.iter().all(State::has_started) || states.iter().any(State::has_failed)
        });
        let handles: Vec<_> = self.handles().cloned().collect();
        if handles.len() == self.states.len() {
            return Ok(handles);
        }
        // A setup that had all the time gets no more. A failure came early, and the others are given the time to end.
        let is_late = !self.states.iter().any(State::has_failed);
        self.stop();
        self.receive_until(DROP_WITHIN, |states| {
            let mut left = states.iter().filter(|state| !state.has_ended());
            left.all(|state| is_late && !state.has_started())
        });
        Err(PoolError::new(self.failures(within)))
    }

    /// Waits for the ends of all threads. What is not over then is told to stop, and left behind.
    fn join(&mut self, within: Duration) -> Result<(), PoolError> {
        self.receive_until(within, |states| states.iter().all(State::has_ended));
        self.stop();
        let failures = self.failures(within);
        if failures.is_empty() {
            Ok(())
        } else {
            Err(PoolError::new(failures))
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.handles().for_each(LoopHandle::exit);
    }

    fn handles(&self) -> impl Iterator<Item = &LoopHandle> {
        self.states.iter().filter_map(|state| match state {
            State::Running(_, handle) => Some(handle),
            State::Starting(_) | State::Ended(_) => None,
        })
    }

    /// Takes reports until the states are as wanted, or the time is over.
    fn receive_until(&mut self, within: Duration, wanted: impl Fn(&[State]) -> bool) {
        let since = Instant::now();
        while !wanted(&self.states) {
            let left = within.saturating_sub(since.elapsed());
            let reports = self.reports.get_mut();
            match reports
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(left)
            {
                Ok(report) => self.note(report),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn note(&mut self, report: Report) {
        let (index, told) = match report {
            Report::Started(index, handle) => (index, Ok(handle)),
            Report::Ended(index, ended) => (index, Err(ended)),
        };
        let former = std::mem::replace(&mut self.states[index], State::Ended(Ok(())));
        self.states[index] = match (former, told) {
            (State::Starting(thread), Ok(handle)) => {
                if self.stopped.load(Ordering::SeqCst) {
                    handle.exit();
                }
                State::Running(thread, handle)
            }
            (State::Starting(thread) | State::Running(thread, _), Err(ended)) => {
                // Nothing is left of it but the drop of its thread-locals.
                let joined = thread.join();
                debug_assert!(joined.is_ok(), "a panic is caught before the end is told");
                State::Ended(ended)
            }
            // Each report is made once, and these are behind it.
            (state @ State::Running(..), Ok(_)) | (state @ State::Ended(_), _) => state,
        };
    }

    /// What is to be told of the threads, after a wait of `within`.
    fn failures(&mut self, within: Duration) -> Vec<LoopFailure> {
        let states = self.states.drain(..).enumerate();
        let reason = |state| match state {
            State::Starting(_) => Some(Reason::NotStarted(within)),
            State::Running(..) => Some(Reason::NotEnded(within)),
            State::Ended(ended) => ended.err(),
        };
        states
            .filter_map(|(index, state)| Some(LoopFailure::new(index, reason(state)?)))
            .collect()
    }

    /// Whether the caller is one of these threads.
    fn is_own(&self) -> bool {
        let me = std::thread::current().id();
        self.states.iter().any(|state| match state {
            State::Starting(thread) | State::Running(thread, _) => thread.thread().id() == me,
            State::Ended(_) => false,
        })
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("count", &self.states.len())
            .finish_non_exhaustive()
    }
}
