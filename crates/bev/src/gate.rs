//! Who may come into a relay: how many sessions there are, over all routes and workers, and how the relay comes to its end.
//!
//! # Life
//! ```text
//! Serving --SIGTERM--> Draining --last session leaves--> exit 0
//!                         `-- deadline, or a second signal, with sessions left --> Cut, exit 5
//! ```
//!
//! # Invariants
//! - At most as many sessions are there at once as the limits say: one of each route, one of all together.
//! - A route accepts until one of its connections has to wait. It waits with the worker that has accepted it, unread, and comes in before
//!   the route's listeners accept again; further clients wait in the system's queues. (Several workers may accept one at the same moment.) At
//!   its own limit a route accepts nobody.
//! - Places of all go to those who wait, in the order in which they came, and to nobody else while one waits. So each route gets its turn,
//!   however many clients another one has.
//! - A worker that was told to wait is asked to try again, once, whenever that may help.
//! - Under the lock only listeners are told something; no session, no handler and no log is touched.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bufferevent::LoopHandle;

use crate::sockets::Listening;
use crate::worker::Worker;

/// Names a route for as long as the program runs.
pub(crate) type RouteId = u64;

/// The gate of all routes.
pub(crate) struct Gate {
    /// The loop whose end is the relay's end.
    main: LoopHandle,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Sessions that are there, over all routes.
    active: u64,
    /// Of those, at most so many.
    limit: Option<NonZeroU64>,
    /// The number of the next one to wait.
    next: u64,
    routes: BTreeMap<RouteId, Entrance>,
}

/// One route's way in.
struct Entrance {
    /// None before they are made, and after the route was closed.
    listeners: Vec<Listening>,
    /// What the listeners were told last.
    accepting: bool,
    is_closed: bool,
    limit: Option<NonZeroU64>,
    active: u64,
    /// Connections that were accepted and that a limit keeps out. The listeners stay disabled until there are none.
    kept_out: u64,
    /// The workers that have some and were not asked to try again yet, each at most once, with its number in the line.
    waiting: Vec<(u64, Arc<Worker>)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Serving,
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
            main: main.clone(),
            state: Mutex::new(State {
                phase: Phase::Serving,
                active: 0,
                limit,
                next: 0,
                routes: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and the state is whole at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new route, whose listeners are about to be made.
    pub(crate) fn open(&self, route: RouteId, limit: Option<NonZeroU64>) {
        let entrance = Entrance {
            listeners: Vec::new(),
            accepting: false,
            is_closed: false,
            limit,
            active: 0,
            kept_out: 0,
            waiting: Vec::new(),
        };
        self.state().routes.insert(route, entrance);
    }

    /// A route's listeners are here, and were told to accept nobody yet.
    pub(crate) fn serve(&self, route: RouteId, listeners: Vec<Listening>) {
        let mut state = self.state();
        if let Some(entrance) = state.routes.get_mut(&route) {
            entrance.listeners = listeners;
            entrance.accepting = false;
        }
        state.settle();
    }

    /// The route takes no more connections; those that are there go on.
    pub(crate) fn close(&self, route: RouteId) {
        let mut state = self.state();
        let closed = state.routes.get_mut(&route).map(Entrance::close);
        state.forget(route);
        drop(state);
        // The listeners close here, with the lock released.
        let (listeners, waiting) = closed.unwrap_or_default();
        drop(listeners);
        try_again(&waiting);
    }

    /// Other limits from now on. Who is inside stays.
    pub(crate) fn set_limit(&self, limit: Option<NonZeroU64>) {
        self.change(|state| state.limit = limit);
    }

    /// Another limit of one route.
    pub(crate) fn set_route_limit(&self, route: RouteId, limit: Option<NonZeroU64>) {
        self.change(|state| {
            if let Some(entrance) = state.routes.get_mut(&route) {
                entrance.limit = limit;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.settle();
        let waiting = state.take_waiting();
        drop(state);
        try_again(&waiting);
    }

    /// A worker has a new connection.
    pub(crate) fn enter(&self, worker: &Arc<Worker>) -> Entry {
        let mut state = self.state();
        let entry = state.ask(worker, Asker::New);
        if entry == Entry::Wait
            && let Some(entrance) = state.routes.get_mut(&worker.route)
        {
            entrance.kept_out += 1;
        }
        state.settle();
        entry
    }

    /// A worker tries to bring in a connection that had to wait.
    pub(crate) fn enter_again(&self, worker: &Arc<Worker>) -> Entry {
        let mut state = self.state();
        let entry = state.ask(worker, Asker::Waiting);
        if entry != Entry::Wait
            && let Some(entrance) = state.routes.get_mut(&worker.route)
        {
            entrance.kept_out -= 1;
        }
        state.settle();
        state.forget(worker.route);
        // Whoever has not taken the place that it was asked for leaves it to the next one.
        let waiting = state.take_waiting();
        drop(state);
        try_again(&waiting);
        entry
    }

    /// A session of a route is gone.
    pub(crate) fn leave(&self, route: RouteId) {
        let mut state = self.state();
        state.active -= 1;
        if let Some(entrance) = state.routes.get_mut(&route) {
            entrance.active -= 1;
        }
        state.settle();
        state.forget(route);
        if state.phase == Phase::Draining && state.active == 0 {
            self.main.exit();
        }
        let waiting = state.take_waiting();
        drop(state);
        try_again(&waiting);
    }

    /// Whether it takes no more connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.state().phase != Phase::Serving
    }

    /// Stops accepting, and ends with the last session, or after `deadline`. Called again, it ends at once.
    pub(crate) fn drain(self: &Arc<Self>, deadline: Duration) {
        let mut state = self.state();
        let active = state.active;
        state.phase = match state.phase {
            Phase::Serving => Phase::Draining,
            Phase::Draining | Phase::Cut { .. } => Phase::Cut { left: active },
        };
        let is_over = state.phase != Phase::Draining || active == 0;
        let closed: Vec<_> = state.routes.values_mut().map(Entrance::close).collect();
        drop(state);
        // The listeners close here, with the lock released.
        let (listeners, waiting): (Vec<_>, Vec<_>) = closed.into_iter().unzip();
        drop(listeners);
        try_again(&waiting.concat());
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
        state.phase = Phase::Cut { left: state.active };
        self.main.exit();
    }

    /// How many sessions were cut at the end.
    pub(crate) fn cut_sessions(&self) -> u64 {
        match self.state().phase {
            Phase::Cut { left } => left,
            Phase::Serving | Phase::Draining => 0,
        }
    }
}

fn reaches(limit: Option<NonZeroU64>, active: u64) -> bool {
    limit.is_some_and(|limit| active >= limit.get())
}

/// Whether a connection waits already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asker {
    New,
    Waiting,
}

impl State {
    fn ask(&mut self, worker: &Arc<Worker>, asker: Asker) -> Entry {
        let behind = asker == Asker::New && self.limit.is_some() && self.somebody_waits();
        let all_full = behind || reaches(self.limit, self.active);
        let serving = self.phase == Phase::Serving;
        let entrance = match self.routes.get_mut(&worker.route) {
            Some(entrance) if serving && !entrance.is_closed => entrance,
            Some(_) | None => return Entry::Refused,
        };
        if all_full || entrance.is_full() {
            let mut asked = entrance.waiting.iter();
            if !asked.any(|(_, other)| Arc::ptr_eq(other, worker)) {
                entrance.waiting.push((self.next, worker.clone()));
                self.next += 1;
            }
            return Entry::Wait;
        }
        entrance.active += 1;
        self.active += 1;
        Entry::Welcome
    }

    /// Whether a connection has to wait that only the limit of all may keep out.
    fn somebody_waits(&self) -> bool {
        let mut routes = self.routes.values();
        routes.any(|entrance| entrance.kept_out > 0 && !entrance.is_full())
    }

    /// Tells the listeners whether to accept, where that has changed.
    fn settle(&mut self) {
        for entrance in self.routes.values_mut() {
            let accept = !entrance.is_full() && entrance.kept_out == 0;
            if accept != entrance.accepting {
                entrance.accepting = accept;
                let tell = if accept {
                    Listening::enable
                } else {
                    Listening::disable
                };
                entrance.listeners.iter().for_each(tell);
            }
        }
    }

    /// The workers that may find a place now, as many as there are places, in the order in which they have come.
    fn take_waiting(&mut self) -> Vec<Arc<Worker>> {
        let free = self
            .limit
            .map_or(u64::MAX, |limit| limit.get().saturating_sub(self.active));
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let routes = self.routes.values().filter(|entrance| !entrance.is_full());
        let mut line: Vec<u64> = routes
            .flat_map(|entrance| entrance.waiting.iter().map(|(number, _)| *number))
            .collect();
        line.sort_unstable();
        line.truncate(free);
        let mut called = Vec::with_capacity(line.len());
        for entrance in self.routes.values_mut() {
            let turn = |(number, _): &mut (u64, _)| line.binary_search(number).is_ok();
            called.extend(entrance.waiting.extract_if(.., turn));
        }
        called.sort_unstable_by_key(|(number, _)| *number);
        called.into_iter().map(|(_, worker)| worker).collect()
    }

    /// Forgets a route that was closed and that nobody uses any more.
    fn forget(&mut self, route: RouteId) {
        let unused = |entrance: &Entrance| {
            entrance.is_closed && entrance.active == 0 && entrance.kept_out == 0
        };
        if self.routes.get(&route).is_some_and(unused) {
            self.routes.remove(&route);
        }
    }
}

impl Entrance {
    /// Whether the route's own limit is reached.
    fn is_full(&self) -> bool {
        reaches(self.limit, self.active)
    }

    /// No more connections. Gives what is to be dropped, and who is to be told, when the lock is released.
    fn close(&mut self) -> (Vec<Listening>, Vec<Arc<Worker>>) {
        self.is_closed = true;
        let listeners = std::mem::take(&mut self.listeners);
        let waiting = std::mem::take(&mut self.waiting);
        let waiting = waiting.into_iter().map(|(_, worker)| worker);
        (listeners, waiting.collect())
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
