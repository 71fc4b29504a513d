//! One worker of a route: a loop, the connections that came to it, and what it counts.
//!
//! # Invariants
//! - A connection stays with its worker: client, upstream, layers and callbacks are all on one loop and one thread.
//! - The counters, the meters of the layers and the queue of those that wait are changed on that thread alone. Other threads read
//!   the numbers, and add them up.
//! - A connection keeps the [`Plan`] that it came in by: a reload changes what the next one gets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bufferevent::{Address, Bev, Error, LoopHandle, RateGroup};

use crate::access::AccessLog;
use crate::address::Endpoint;
use crate::gate::{Entry, Gate, RouteId};
use crate::layers::Stack;
use crate::limits::Limits;
use crate::names::Names;
use crate::session::{self, Sessions};
use crate::stats::Counters;

/// What a worker does with a connection.
pub(crate) struct Plan {
    /// The route's name, in logs.
    pub(crate) name: Arc<str>,
    pub(crate) upstream: Endpoint,
    /// The layers on what is accepted, and on what is connected.
    pub(crate) below: Stack,
    pub(crate) above: Stack,
    pub(crate) limits: Limits,
    pub(crate) names: Names,
    pub(crate) shared: Shared,
}

/// What all routes have in common.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    pub(crate) access: Option<AccessLog>,
    /// Which all clients are in, where they share a rate.
    pub(crate) group: Option<RateGroup>,
}

/// A loop, and the sessions of all routes that are on it.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) events: LoopHandle,
    pub(crate) sessions: Arc<Sessions>,
}

impl Lane {
    pub(crate) fn new(events: &LoopHandle) -> Self {
        Self {
            events: events.clone(),
            sessions: Arc::default(),
        }
    }
}

/// One loop's share of a route.
pub(crate) struct Worker {
    pub(crate) events: LoopHandle,
    pub(crate) route: RouteId,
    pub(crate) counters: Counters,
    pub(crate) gate: Arc<Gate>,
    pub(crate) sessions: Arc<Sessions>,
    plan: Mutex<Arc<Plan>>,
    /// Accepted, and kept out by a limit: one that was accepted while another worker took the last place, or those that were
    /// handed out before the listener was disabled. Nothing is read from them.
    waiting: Mutex<VecDeque<(Bev, Address)>>,
}

impl Worker {
    pub(crate) fn new(lane: &Lane, route: RouteId, plan: Plan, gate: &Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            events: lane.events.clone(),
            route,
            counters: Counters::default(),
            gate: gate.clone(),
            sessions: lane.sessions.clone(),
            plan: Mutex::new(Arc::new(plan)),
            waiting: Mutex::default(),
        })
    }

    /// What the next connection gets.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        // Nothing that can panic runs under the lock.
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.clone()
    }

    /// From now on connections get this.
    pub(crate) fn set_plan(&self, plan: Plan) {
        let mut here = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *here, Arc::new(plan));
        drop(here);
        drop(former);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Bev, Address)>> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come.
    pub(crate) fn accept(self: &Arc<Self>, client: Bev, peer: Address) -> Result<(), Error> {
        match self.gate.enter(self) {
            Entry::Welcome => self.join(&client, peer),
            Entry::Wait => {
                self.waiting().push_back((client, peer));
                Ok(())
            }
            Entry::Refused => client.free().map(drop),
        }
    }

    /// Tries to bring in those that wait, the first that came first.
    pub(crate) fn try_again(self: &Arc<Self>) {
        loop {
            let next = self.waiting().pop_front();
            let Some((client, peer)) = next else { return };
            match self.gate.enter_again(self) {
                Entry::Welcome => {
                    if let Err(error) = self.join(&client, peer) {
                        tracing::warn!(%error, "an accepted connection was refused");
                        // Freed already is just as well.
                        let _ = client.free();
                    }
                }
                Entry::Wait => return self.waiting().push_front((client, peer)),
                Entry::Refused => drop(client.free()),
            }
        }
    }

    fn join(self: &Arc<Self>, client: &Bev, peer: Address) -> Result<(), Error> {
        self.counters.accepted.add(1);
        session::join(self, client, peer)
    }

    /// A session is gone.
    pub(crate) fn ended(&self) {
        self.counters.ended.add(1);
        self.gate.leave(self.route);
    }
}
