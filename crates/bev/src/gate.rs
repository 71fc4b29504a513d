//! Who may come into a relay: how many sessions there are over all workers, and how the relay comes to its end.
//!
//! # Life
//! ```text
//! Starting --> Serving --SIGTERM--> Draining --last session leaves--> exit 0
//!                                      `-- deadline, or a second signal, with sessions left --> Cut, exit 5
//! ```
//!
//! # Invariants
//! - At most `limit` sessions are there at once. At the limit the listeners are disabled, and clients wait in the system's
//!   queues. What several workers accepted at the same moment waits with them, and comes in before the listeners accept again.
//! - A worker that was told to wait is asked to try again, once, whenever that may help.
//! - Under the lock only listeners are told something; no session, no handler and no log is touched.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bufferevent::{Listener, LoopHandle};

use crate::worker::Worker;

/// The gate of one relay.
pub(crate) struct Gate {
    /// Sessions at once.
    limit: Option<NonZeroU64>,
    /// The loop whose end is the relay's end.
    main: LoopHandle,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Sessions that are there.
    active: u64,
    /// Connections that were accepted and that the limit keeps out. The listeners stay disabled until there are none.
    kept_out: u64,
    /// The workers that have some and were not asked to try again yet. Each at most once.
    waiting: Vec<Arc<Worker>>,
}

enum Phase {
    /// The listeners are not yet here, although they may accept already.
    Starting,
    Serving(Vec<Listener>),
    Draining,
    /// The deadline passed, or a second signal came, with so many sessions left.
    Cut {
        left: u64,
    },
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    /// It is counted; [`Gate::leave`] follows.
    Welcome,
    /// Later: [`Worker::try_again`] is called.
    Wait,
    /// The relay takes no more.
    Refused,
}

impl Gate {
    pub(crate) fn new(limit: Option<NonZeroU64>, main: &LoopHandle) -> Self {
        Self {
            limit,
            main: main.clone(),
            state: Mutex::new(State {
                phase: Phase::Starting,
                active: 0,
                kept_out: 0,
                waiting: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and the state is whole at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, state: &State) -> bool {
        self.limit.is_some_and(|limit| state.active >= limit.get())
    }

    /// The listeners are here.
    pub(crate) fn serve(&self, listeners: Vec<Listener>) {
        let mut state = self.state();
        if self.is_full(&state) || state.kept_out > 0 {
            listeners.iter().for_each(Listener::disable);
        }
        state.phase = Phase::Serving(listeners);
    }

    /// A worker has a new connection.
    pub(crate) fn enter(&self, worker: &Arc<Worker>) -> Entry {
        let mut state = self.state();
        let entry = self.ask(&mut state, worker);
        match entry {
            Entry::Welcome if self.is_full(&state) => state.tell(Listener::disable),
            Entry::Wait => state.kept_out += 1,
            Entry::Welcome | Entry::Refused => {}
        }
        entry
    }

    /// A worker tries to bring in a connection that had to wait.
    pub(crate) fn enter_again(&self, worker: &Arc<Worker>) -> Entry {
        let mut state = self.state();
        let entry = self.ask(&mut state, worker);
        match entry {
            Entry::Welcome | Entry::Refused => state.kept_out -= 1,
            Entry::Wait => {}
        }
        if state.kept_out == 0 && !self.is_full(&state) {
            state.tell(Listener::enable);
        }
        entry
    }

    fn ask(&self, state: &mut State, worker: &Arc<Worker>) -> Entry {
        match state.phase {
            Phase::Draining | Phase::Cut { .. } => return Entry::Refused,
            Phase::Starting | Phase::Serving(_) => {}
        }
        if self.is_full(state) {
            if !state.waiting.iter().any(|other| Arc::ptr_eq(other, worker)) {
                state.waiting.push(worker.clone());
            }
            return Entry::Wait;
        }
        state.active += 1;
        Entry::Welcome
    }

    /// A session is gone.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        let was_full = self.is_full(&state);
        state.active -= 1;
        if was_full && state.kept_out == 0 {
            state.tell(Listener::enable);
        }
        match state.phase {
            Phase::Draining if state.active == 0 => self.main.exit(),
            Phase::Starting | Phase::Serving(_) | Phase::Draining | Phase::Cut { .. } => {}
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        try_again(&waiting);
    }

    /// Stops accepting, and ends with the last session, or after `deadline`. Called again, it ends at once.
    pub(crate) fn drain(self: &Arc<Self>, deadline: Duration) {
        let mut state = self.state();
        let (active, waiting) = (state.active, std::mem::take(&mut state.waiting));
        let next = match &state.phase {
            Phase::Starting | Phase::Serving(_) => Phase::Draining,
            Phase::Draining | Phase::Cut { .. } => Phase::Cut { left: active },
        };
        let is_over = matches!(next, Phase::Cut { .. }) || active == 0;
        let former = std::mem::replace(&mut state.phase, next);
        drop(state);
        // The listeners close here, with the lock released.
        drop(former);
        try_again(&waiting);
        if is_over {
            return self.main.exit();
        }
        tracing::info!(active, "draining");
        let gate = self.clone();
        match self.main.after(deadline, move || gate.cut()) {
            Ok(timer) => timer.detach(),
            Err(_) => self.cut(),
        }
    }

    fn cut(&self) {
        let mut state = self.state();
        let left = state.active;
        state.phase = Phase::Cut { left };
        self.main.exit();
    }

    /// How many sessions were cut at the end.
    pub(crate) fn cut_sessions(&self) -> u64 {
        match self.state().phase {
            Phase::Cut { left } => left,
            Phase::Starting | Phase::Serving(_) | Phase::Draining => 0,
        }
    }
}

impl State {
    /// Tells all listeners, if they are here.
    fn tell(&self, what: fn(&Listener)) {
        match &self.phase {
            Phase::Serving(listeners) => listeners.iter().for_each(what),
            Phase::Starting | Phase::Draining | Phase::Cut { .. } => {}
        }
    }
}

/// Has the workers ask once more, on their own threads.
fn try_again(waiting: &[Arc<Worker>]) {
    for worker in waiting {
        let again = worker.clone();
        // A loop that is gone has no connections that could wait.
        let _ = worker.events.post(move || again.try_again());
    }
}
