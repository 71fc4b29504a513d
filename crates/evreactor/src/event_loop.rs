//! The loop itself: its turn, and the modes in which turns are run.
//!
//! # A turn, in this order
//! 1. Timers that are due by the time at which the turn starts, by deadline.
//! 2. Calls scheduled for [`Phase::Turn`](crate::Phase::Turn) (posted closures among them) before this phase began.
//! 3. The wait: none if anything is queued, else until the next timer. Behind it the turn's time is a new one.
//! 4. Ready sources. With one priority, all of them; with several, those of the most urgent priority that has any.
//! 5. Deferred calls, most urgent first, up to the limit per turn; those that are scheduled meanwhile too.
//!
//! What a turn leaves (deferred calls over the limit, less urgent sources, everything behind a break) the next one finds.
//!
//! # Invariants
//! - The poller is borrowed for the whole of a run, so a run inside a callback finds it taken: that is the re-entry check.
//! - No event that a backend reported is lost: it stays in the poller until its target was called or its token is stale.
//! - User code runs only inside [`Shared::guard`], with no lock and no borrow of `local`.
//!
//! Source: libevent's `event_base_loop`; the list of phases after libuv's design document.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evreactor_core::Clock;

use crate::backend::{Backend, Events};
use crate::builder::{BuildError, Builder};
use crate::handle::LoopHandle;
use crate::shared::Shared;
use crate::source::Token;

/// An event loop. It stays on the thread that made it; its [`LoopHandle`] goes everywhere.
///
/// # Fork
/// A child of `fork` must not use its parent's loop: kernel queues are shared between the two (epoll) or missing in
/// the child (kqueue). Make loops after forking.
///
/// # Examples
/// ```
/// let events = evreactor::EventLoop::new()?;
/// let handle = events.clone();
/// std::thread::spawn(move || handle.post(|| println!("on the loop's thread")));
/// # let hold = events.hold();
/// # let handle = events.clone();
/// # std::thread::spawn(move || handle.exit());
/// events.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "event_base")]
#[doc(alias = "event_base_free")]
pub struct EventLoop {
    handle: LoopHandle,
    poller: RefCell<Poller>,
    /// Closures that stay on this thread.
    local: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    deferred_per_turn: NonZeroUsize,
}

/// How far a run goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// One turn without waiting.
    Look,
    /// Until a turn has called something.
    Once,
    /// Until nothing is left.
    WhileAlive,
    /// Until told.
    UntilTold,
}

/// Why a run came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing is left that could wake the loop.
    Empty,
    /// [`LoopHandle::exit`] was called.
    Exit,
    /// [`LoopHandle::break_now`] was called.
    Break,
    /// The mode did what it is for: [`run_once`](EventLoop::run_once) and [`poll`](EventLoop::poll) end like this.
    Done,
}

impl EventLoop {
    /// A loop with the backend that the environment names, or the default one.
    ///
    /// # Errors
    /// As [`Builder::build`].
    #[doc(alias = "event_base_new")]
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// A loop with options.
    #[doc(alias = "event_config_new")]
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn assemble(
        name: &'static str,
        backend: Box<dyn Backend>,
        clock: Arc<dyn Clock>,
        priorities: usize,
        deferred_per_turn: NonZeroUsize,
    ) -> Self {
        let shared = Shared::new(clock, name, backend.registrar(), priorities);
        let levels = if priorities > 1 { priorities } else { 0 };
        Self {
            handle: LoopHandle {
                shared: Arc::new(shared),
            },
            poller: RefCell::new(Poller {
                backend,
                events: Events::default(),
                next: 0,
                levels: (0..levels).map(|_| VecDeque::new()).collect(),
            }),
            local: RefCell::new(VecDeque::new()),
            deferred_per_turn,
        }
    }

    /// Runs until nothing is left that could wake the loop: no source, no timer, nothing queued and no
    /// [`Hold`](crate::Hold); or until it is told to end.
    ///
    /// # Errors
    /// [`RunError`]: it is running already, or the backend failed.
    #[doc(alias = "event_base_dispatch")]
    #[doc(alias = "event_base_loop")]
    pub fn run(&self) -> Result<Outcome, RunError> {
        self.drive(Mode::WhileAlive)
    }

    /// Runs until it is told to end, also with nothing to do.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[doc(alias = "EVLOOP_NO_EXIT_ON_EMPTY")]
    pub fn run_until_exit(&self) -> Result<Outcome, RunError> {
        self.drive(Mode::UntilTold)
    }

    /// Waits until there is something to call, and calls it: ends with the first turn that called anything.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[doc(alias = "EVLOOP_ONCE")]
    pub fn run_once(&self) -> Result<Outcome, RunError> {
        self.drive(Mode::Once)
    }

    /// One turn without waiting.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[doc(alias = "EVLOOP_NONBLOCK")]
    pub fn poll(&self) -> Result<Outcome, RunError> {
        self.drive(Mode::Look)
    }

    /// Has the loop call `task` among the deferred calls, as one of the least urgent. The task may hold what must stay on this thread.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    /// let events = evreactor::EventLoop::new()?;
    /// let count = Rc::new(Cell::new(0));
    /// let counted = count.clone();
    /// events.defer(move || counted.set(counted.get() + 1));
    /// events.run()?;
    /// assert_eq!(count.get(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn defer(&self, task: impl FnOnce() + 'static) {
        self.local.borrow_mut().push_back(Box::new(task));
    }

    fn drive(&self, mode: Mode) -> Result<Outcome, RunError> {
        let mut poller = self
            .poller
            .try_borrow_mut()
            .map_err(|_| RunError::Running)?;
        let shared = &*self.handle.shared;
        shared.got_exit.store(false, Ordering::SeqCst);
        shared.got_break.store(false, Ordering::SeqCst);
        loop {
            if shared.take_stop() {
                shared.got_break.store(true, Ordering::SeqCst);
                return Ok(Outcome::Break);
            }
            if mode != Mode::UntilTold && self.nothing_left(&poller) {
                return Ok(Outcome::Empty);
            }
            let called = self.turn(&mut poller, mode).map_err(RunError::Wait)?;
            if shared.stop_requested() {
                continue; // To the one place that obeys it.
            }
            if shared.take_exit() {
                shared.got_exit.store(true, Ordering::SeqCst);
                return Ok(Outcome::Exit);
            }
            match mode {
                Mode::Look => return Ok(Outcome::Done),
                Mode::Once if called > 0 => return Ok(Outcome::Done),
                Mode::Once | Mode::WhileAlive | Mode::UntilTold => {}
            }
        }
    }

    /// One turn. Returns how many calls it made.
    fn turn(&self, poller: &mut Poller, mode: Mode) -> io::Result<usize> {
        let shared = &*self.handle.shared;
        let turn = Turn::start(shared);
        let called = self.timers_and_tasks();
        if shared.stop_requested() {
            return Ok(called);
        }
        let timeout = self.timeout(poller, mode, called);
        turn.wait(poller, timeout)?;
        Ok(called + poller.dispatch(shared) + self.deferred())
    }

    /// Phases 1 and 2.
    fn timers_and_tasks(&self) -> usize {
        let shared = &*self.handle.shared;
        let mut called = 0;
        while !shared.stop_requested()
            && let Some(call) = shared.pop_timer()
        {
            shared.counters.timers.bump();
            shared.guard("timer", move || call.target.expired(call.key));
            called += 1;
        }
        for _ in 0..shared.turn_len() {
            if shared.stop_requested() {
                break;
            }
            let Some(call) = shared.pop_turn() else { break };
            shared.counters.tasks.bump();
            shared.guard("task", move || call.target.run(call.key));
            called += 1;
        }
        called
    }

    /// How long phase 3 may wait.
    fn timeout(&self, poller: &Poller, mode: Mode, called: usize) -> Option<Duration> {
        let shared = &*self.handle.shared;
        let at_once = match mode {
            Mode::Look => true,
            Mode::Once => called > 0,
            Mode::WhileAlive | Mode::UntilTold => false,
        };
        if at_once || poller.has_left() || !self.local.borrow().is_empty() {
            return Some(Duration::ZERO);
        }
        let timeout = shared.lie_down();
        let last_look = timeout.is_none() && mode != Mode::UntilTold && shared.nothing_left();
        if last_look {
            Some(Duration::ZERO)
        } else {
            timeout
        }
    }

    /// Phase 5.
    fn deferred(&self) -> usize {
        let shared = &*self.handle.shared;
        for called in 0..self.deferred_per_turn.get() {
            if shared.stop_requested() {
                return called;
            }
            if let Some(call) = shared.pop_deferred() {
                shared.guard("deferred call", move || call.target.run(call.key));
            } else {
                let task = self.local.borrow_mut().pop_front();
                let Some(task) = task else { return called };
                shared.guard("deferred call", task);
            }
            shared.counters.deferred.bump();
        }
        self.deferred_per_turn.get()
    }

    fn nothing_left(&self, poller: &Poller) -> bool {
        // Sources first: in most loops that look is the only one.
        self.handle.shared.nothing_left() && !poller.has_left() && self.local.borrow().is_empty()
    }
}

impl Deref for EventLoop {
    type Target = LoopHandle;

    fn deref(&self) -> &LoopHandle {
        &self.handle
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.handle.shared.close();
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

/// A turn that is going on. Its end is the end of the turn's time, also when a backend panics.
struct Turn<'a>(&'a Shared);

impl<'a> Turn<'a> {
    fn start(shared: &'a Shared) -> Self {
        shared.counters.turns.bump();
        shared.start_turn_time();
        shared.collect_timers();
        Self(shared)
    }

    /// Phase 3.
    fn wait(&self, poller: &mut Poller, timeout: Option<Duration>) -> io::Result<()> {
        let shared = self.0;
        let waits = timeout != Some(Duration::ZERO);
        if waits {
            shared.end_turn_time(); // Who asks meanwhile gets the time of the clock.
        }
        let waited = poller.wait(shared, timeout);
        shared.get_up();
        if waits {
            shared.start_turn_time();
        }
        waited
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.get_up();
        self.0.end_turn_time();
    }
}

/// The waiting half of the loop, and the events that it holds.
struct Poller {
    backend: Box<dyn Backend>,
    events: Events,
    /// The first event of `events` that was not handed out: others follow it after a break only.
    next: usize,
    /// Sources that wait for their priority to be served. Empty in a loop with one priority: it dispatches from `events`.
    levels: Vec<VecDeque<Token>>,
}

impl Poller {
    fn has_left(&self) -> bool {
        self.next < self.events.list.len() || self.levels.iter().any(|level| !level.is_empty())
    }

    fn wait(&mut self, shared: &Shared, timeout: Option<Duration>) -> io::Result<()> {
        if self.next < self.events.list.len() {
            return Ok(()); // A break left some; they come first.
        }
        self.events.list.clear();
        self.next = 0;
        shared.counters.polls.bump();
        let waited = self.backend.wait(timeout, &mut self.events);
        if !shared.features.edge_triggered {
            let mut sources = shared.sources.lock();
            sources.keep_armed(&*shared.registrar, &self.events.list);
        }
        match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }

    /// Phase 4.
    fn dispatch(&mut self, shared: &Shared) -> usize {
        if self.levels.is_empty() {
            return self.dispatch_all(shared);
        }
        let least = self.levels.len() - 1;
        let mut sources = shared.sources.lock();
        for &(token, ready) in &self.events.list[self.next..] {
            if let Some(priority) = sources.defer(token, ready) {
                self.levels[usize::from(priority).min(least)].push_back(token);
            }
        }
        drop(sources);
        self.next = self.events.list.len();
        let Some(level) = self.levels.iter_mut().find(|level| !level.is_empty()) else {
            return 0;
        };
        let mut called = 0;
        while !shared.stop_requested()
            && let Some(token) = level.pop_front()
        {
            let deferred = shared.sources.lock().take_deferred(token);
            if let Some((call, ready)) = deferred {
                shared.counters.events.bump();
                shared.guard("ready source", move || call.target.ready(call.key, ready));
                called += 1;
            }
        }
        called
    }

    fn dispatch_all(&mut self, shared: &Shared) -> usize {
        let mut called = 0;
        while let Some(&(token, ready)) = self.events.list.get(self.next) {
            if shared.stop_requested() {
                break;
            }
            self.next += 1;
            let call = shared.sources.lock().call_for(token);
            if let Some(call) = call {
                shared.counters.events.bump();
                shared.guard("ready source", move || call.target.ready(call.key, ready));
                called += 1;
            }
        }
        called
    }
}

/// Why a loop did not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// It is running already: this call came from one of its callbacks.
    Running,
    /// The backend failed.
    Wait(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "the event loop is running already",
            Self::Wait(_) => "the event loop cannot wait for events",
        })
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Running => None,
            Self::Wait(source) => Some(source),
        }
    }
}

impl From<RunError> for io::Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Wait(source) => source,
            RunError::Running => Self::other(error),
        }
    }
}
