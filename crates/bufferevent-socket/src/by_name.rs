//! Connecting by name over readiness: how core's [`Hunt`] makes an attempt, which is a socket that connects.
//!
//! # Invariants
//! - A registration without a descriptor stands for the bufferevent while there is no socket: the loop goes on, and tells when it closes.
//! - An attempt's registration is dropped before its descriptor is closed.

use std::io;
use std::net::SocketAddr;

use bufferevent_core::resolve::hunt::{Dial, Hunt, Outcome, Rules};
use bufferevent_core::resolve::{Question, Resolve};
use bufferevent_core::{Error, Kind};
use evreactor::{Interest, LoopHandle, Priority, Registration};
use evreactor_core::Target;
use evreactor_core::sync::Arc;
use socket2::Domain;

use crate::NAME;
use crate::descriptor::new_stream;
use crate::socket::in_progress;

/// A connection by name that is under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Hunting {
    hunt: Hunt<Sockets>,
    priority: Priority,
    /// Stands for the bufferevent with the loop; nothing becomes ready by it.
    _presence: Registration,
}

/// How sockets of the system are connected.
pub(crate) struct Sockets {
    events: LoopHandle,
    nodelay: bool,
    priority: Priority,
}

/// A socket that connects.
pub(crate) struct Attempt {
    // Dropped before the descriptor is closed.
    registration: Registration,
    socket: socket2::Socket,
}

impl Hunting {
    /// Begins to hunt for `question`'s host, for the bufferevent that `target` knows under `key`.
    pub(crate) fn begin(
        events: &LoopHandle,
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
        let dial = Sockets {
            events: events.clone(),
            nodelay,
            priority,
        };
        Ok(Self {
            hunt: Hunt::begin(
                events.host(),
                dial,
                resolver,
                question,
                rules,
                (&target, key),
            )?,
            priority,
            _presence: presence,
        })
    }

    /// What the bufferevent is registered under, and how urgently, once there is a socket.
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

impl Dial for Sockets {
    type Attempt = Attempt;

    fn start(&self, address: SocketAddr, heard: Arc<dyn Target>, key: u64) -> io::Result<Attempt> {
        let socket = new_stream(Domain::for_address(address))?;
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let registration =
            self.events
                .register(&socket, Interest::BOTH, self.priority, heard, key)?;
        Ok(Attempt {
            registration,
            socket,
        })
    }

    fn look(&self, attempt: &Attempt) -> Option<io::Result<()>> {
        match attempt.socket.take_error() {
            Ok(Some(error)) | Err(error) => Some(Err(error)),
            Ok(None) if attempt.socket.peer_addr().is_ok() => Some(Ok(())),
            Ok(None) => {
                attempt.rearm();
                None
            }
        }
    }
}

impl Attempt {
    /// Asks to hear again: it was woken, and is still under way.
    fn rearm(&self) {
        if let Err(error) = self.registration.rearm() {
            tracing::debug!(%error, "an attempt to connect could not be re-armed");
        }
    }

    /// The socket, which nobody is registered for any more.
    pub(crate) fn into_socket(self) -> socket2::Socket {
        drop(self.registration);
        self.socket
    }
}
