//! Connecting by name over completions: how core's [`Hunt`] makes an attempt, which is a lane that connects.
//!
//! # Invariants
//! - A registration of its own stands for the bufferevent while there is no lane: the loop goes on, and tells when it closes.
//! - An attempt that is dropped lets go of its lane: what is under way on it is cancelled, and its descriptor closed when that is reaped.
//! - The lane that stands is the bufferevent's from then on: only whom it tells is changed.

use std::io;
use std::net::SocketAddr;

use bufferevent_core::resolve::hunt::{Dial, Hunt, Outcome, Rules};
use bufferevent_core::resolve::{Question, Resolve};
use bufferevent_core::{Error, Kind};
use evreactor::{LoopHandle, Priority, Registration};
use evreactor_core::Target;
use evreactor_core::sync::Arc;

use crate::NAME;
use crate::driver::{Lane, Verb};
use crate::port::Port;
use crate::socket::new_stream;

/// A connection by name that is under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Hunting {
    hunt: Hunt<Lanes>,
    priority: Priority,
    /// Stands for the bufferevent with the loop; nothing becomes ready by it.
    _presence: Registration,
}

/// How lanes are connected.
struct Lanes {
    port: Arc<Port>,
    events: LoopHandle,
    nodelay: bool,
    priority: Priority,
}

/// A lane that connects.
pub(crate) struct Attempt {
    place: Option<(Registration, Lane)>,
    port: Arc<Port>,
    events: LoopHandle,
}

impl Hunting {
    /// Begins to hunt for `question`'s host, for the bufferevent that `target` knows under `key`.
    pub(crate) fn begin(
        (port, events): (&Arc<Port>, &LoopHandle),
        resolver: &(impl Resolve + ?Sized),
        question: Question,
        rules: Rules,
        (nodelay, priority): (bool, Priority),
        (target, key): (Arc<dyn Target>, u64),
    ) -> Result<Self, Error> {
        // Only a closed loop refuses.
        let presence = events
            .attach(priority, target.clone(), key)
            .map_err(|closed| {
                Error::new(Kind::LoopClosed, NAME, "connect_hostname").with_source(closed)
            })?;
        let dial = Lanes {
            port: port.clone(),
            events: events.clone(),
            nodelay,
            priority,
        };
        let place = (&target, key);
        Ok(Self {
            hunt: Hunt::begin(events.host(), dial, resolver, question, rules, place)?,
            priority,
            _presence: presence,
        })
    }

    /// What the bufferevent is registered under, and how urgently, once there is a lane.
    pub(crate) fn place(&self) -> Option<(Arc<dyn Target>, u64, Priority)> {
        let (target, key) = self.hunt.place()?;
        Some((target, key, self.priority))
    }

    /// The bufferevent has another urgency; attempts that are under way keep theirs.
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// Whether the host has an address.
    pub(crate) fn found(&self) -> bool {
        self.hunt.found()
    }

    /// What came of it, once.
    pub(crate) fn outcome(&self) -> Option<Outcome<Attempt>> {
        self.hunt.outcome()
    }
}

impl Dial for Lanes {
    type Attempt = Attempt;

    fn start(&self, address: SocketAddr, heard: Arc<dyn Target>, key: u64) -> io::Result<Attempt> {
        let address = address.into();
        let socket = new_stream(&address)?;
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        let registration = self.events.attach(self.priority, heard, key)?;
        let token = registration.token();
        let lane = self.port.desk(|desk| {
            let lane = desk.open(Some(socket), token)?;
            desk.connect(lane, address);
            Ok::<Lane, io::Error>(lane)
        })?;
        Ok(Attempt {
            place: Some((registration, lane)),
            port: self.port.clone(),
            events: self.events.clone(),
        })
    }

    fn look(&self, attempt: &Attempt) -> Option<io::Result<()>> {
        let (_, lane) = attempt.place.as_ref()?;
        self.port.desk(|desk| desk.connected(*lane))
    }
}

impl Attempt {
    /// Hands the lane, which is connected, to a bufferevent.
    pub(crate) fn hand_over(
        mut self,
        target: Arc<dyn Target>,
        key: u64,
        priority: Priority,
    ) -> Result<Option<(Registration, Lane)>, Error> {
        let own = self
            .events
            .attach(priority, target, key)
            .map_err(|source| Error::io(NAME, "attach", source))?;
        Ok(self.place.take().map(|(_, lane)| {
            self.port.desk(|desk| desk.tell_to(lane, own.token()));
            (own, lane)
        }))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some((registration, lane)) = self.place.take() {
            self.port.detach(&self.events, lane, Verb::Receive);
            drop(registration);
        }
    }
}
