//! One relayed connection: a client, an upstream, and the two flows between them.
//!
//! # Rules
//! 1. What comes into one side is moved, not copied, to the output of the other.
//! 2. While the other side's output is at its high mark, this side is not read. So a flow holds at most the mark and one
//!    read, whatever either peer does.
//! 3. The end of one side is the end of the other's output; the opposite flow goes on. A flow is over when its end is out, or
//!    when nobody is left to write it to; the session, when both flows are.
//! 4. A side that breaks while it is read takes the other along: what has come is still delivered, within [`LINGER`].
//!
//! # Invariants
//! - Each side's handler owns a handle of the other side, and both own the [`Session`]; it is dropped when both
//!   bufferevents are freed, and that is how the relay learns of the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bufferevent::{
    Address, Bev, Builder, Deadline, Direction, Error, Event, Handler, Interest, Pressure, READ,
};

use crate::address::Written;
use crate::exit::Chain;
use crate::relay::Limits;
use crate::worker::Worker;

/// How long what came from a broken side may take to be delivered to the other.
const LINGER: Duration = Duration::from_secs(10);

/// What both sides share.
struct Session {
    worker: Arc<Worker>,
    peer: Address,
    /// The flows that are over, by [`Way::bit`].
    over: AtomicU8,
    /// The session did not end as its peers wanted.
    broken: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.broken.get_mut() {
            self.worker.counters.broken.add(1);
        }
        tracing::debug!(client = %Written(&self.peer), "ended");
        self.worker.ended();
    }
}

/// The direction of a flow, named after where it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Up,
    Down,
}

impl Way {
    const fn bit(self) -> u8 {
        match self {
            Self::Up => 1,
            Self::Down => 2,
        }
    }

    const fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// The handler of one side.
struct Side {
    /// Where what is read here goes.
    way: Way,
    other: Bev,
    session: Arc<Session>,
}

/// Joins an accepted connection to a new one to the relay's upstream.
pub(crate) fn join(worker: &Arc<Worker>, transport: &Bev, peer: Address) -> Result<(), Error> {
    tracing::debug!(client = %Written(&peer), "accepted");
    // First, so that its drop tells the worker, whatever fails from here on.
    let session = Arc::new(Session {
        worker: worker.clone(),
        peer,
        over: AtomicU8::new(0),
        broken: AtomicBool::new(false),
    });
    let client = worker.below.put_on(transport)?;
    let handler = Side {
        way: Way::Down,
        other: client.clone(),
        session: session.clone(),
    };
    let connecting = Builder::new(&worker.events).nodelay(true);
    let connected = worker
        .names
        .connect(connecting, &worker.upstream)
        .and_then(|transport| worker.above.put_on(&transport));
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            session.unreachable(&error);
            return client.free().map(drop);
        }
    };
    upstream
        .set_handler(handler)
        .and_then(|()| {
            client.set_handler(Side {
                way: Way::Up,
                other: upstream.clone(),
                session,
            })
        })
        .and_then(|()| prepare(&upstream, &worker.limits))
        // Last: what has arrived is told from inside, and may end it all.
        .and_then(|()| prepare(&client, &worker.limits))
        .inspect_err(|_| {
            let _ = upstream.free();
            let _ = client.free();
        })
}

fn prepare(side: &Bev, limits: &Limits) -> Result<(), Error> {
    let mark = limits.buffer.get();
    side.set_read_watermark(0, mark)?;
    side.set_write_watermark(0, mark)?;
    side.set_connect_timeout(limits.connect_timeout)?;
    if limits.idle_timeout.is_some() {
        side.set_idle_timeout(limits.idle_timeout)?;
    }
    side.enable(READ)
}

impl Session {
    /// The client's layers have not come about: it does not speak what it should, or is not trusted.
    fn refused(&self, error: &Error) {
        self.broken.store(true, Ordering::Relaxed);
        tracing::warn!(client = %Written(&self.peer), "refused: {}", Chain(error));
    }

    fn unreachable(&self, error: &Error) {
        self.worker.counters.unreachable.add(1);
        tracing::warn!(
            client = %Written(&self.peer),
            "cannot connect to {}: {}",
            self.worker.upstream,
            Chain(error)
        );
    }
}

impl Handler for Side {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    fn on_read(&mut self, bev: &Bev) {
        let counters = &self.session.worker.counters;
        counters.callbacks.add(1);
        // A refusal means that the other side cannot be written to any more; its own event ends the flow.
        let moved = self.other.output().append_from(&bev.input()).unwrap_or(0) as u64;
        match self.way {
            Way::Up => counters.up.add(moved),
            Way::Down => counters.down.add(moved),
        }
        // At once, not when the other side's turn comes: until then a fast peer could bring much more.
        if self.other.room() == 0 {
            // Freed already: nothing is read then.
            let _ = bev.suspend(READ);
        }
    }

    fn on_pressure(&mut self, _bev: &Bev, pressure: Pressure) {
        self.session.worker.counters.callbacks.add(1);
        // Freed already: nothing is read there then.
        let _ = match pressure {
            Pressure::Full => self.other.suspend(READ),
            Pressure::Eased => self.other.resume(READ),
        };
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.session.worker.counters.callbacks.add(1);
        match event {
            Event::Eof => {
                let finished = self.other.finish();
                if finished.is_err() {
                    self.over(bev, self.way);
                }
            }
            Event::Written => self.over(bev, self.way.back()),
            Event::Error {
                direction: None,
                error,
            } => {
                self.never_stood(error);
                self.free_both(bev);
            }
            Event::Error {
                direction: Some(Direction::Read),
                error,
            } => {
                self.log_broken("read", error);
                self.part(bev);
            }
            Event::Error {
                direction: Some(Direction::Write),
                error,
            } => {
                // The peer may have sent an answer before it stopped to listen: that flow goes on.
                self.log_broken("write", error);
                let _ = self.other.disable(READ);
                self.over(bev, self.way.back());
            }
            Event::Timeout(Deadline::Connect) => {
                let layer = match self.way {
                    Way::Up => &self.session.worker.below,
                    Way::Down => &self.session.worker.above,
                };
                let layer = layer.top_name().unwrap_or("socket");
                let error = Error::io(layer, "connect", std::io::ErrorKind::TimedOut.into());
                self.never_stood(&error);
                self.free_both(bev);
            }
            Event::Timeout(deadline) => {
                tracing::info!(client = %Written(&self.session.peer), ?deadline, "cut for a timeout");
                self.session.broken.store(true, Ordering::Relaxed);
                self.free_both(bev);
            }
            // Connected: what was written before is sent now. The rest is not for a relay.
            _ => {}
        }
    }
}

impl Side {
    /// A flow is over; with the second one the session is.
    fn over(&self, bev: &Bev, way: Way) {
        let before = self.session.over.fetch_or(way.bit(), Ordering::Relaxed);
        if before | way.bit() == Way::Up.bit() | Way::Down.bit() {
            self.free_both(bev);
        }
    }

    /// This side's connection, or the handshake of a layer on it, has failed.
    fn never_stood(&self, error: &Error) {
        match self.way {
            Way::Up => self.session.refused(error),
            Way::Down => self.session.unreachable(error),
        }
    }

    fn free_both(&self, bev: &Bev) {
        // One of them may be gone already.
        let _ = bev.free();
        let _ = self.other.free();
    }

    /// This side is broken: the other gets what has come from here, and ends.
    fn part(&self, bev: &Bev) {
        let parting = Parting {
            _session: self.session.clone(),
        };
        let _ = self
            .other
            .set_handler(parting)
            .and_then(|()| self.other.close(LINGER));
        let _ = bev.free();
    }

    fn log_broken(&self, operation: &'static str, error: &Error) {
        self.session.broken.store(true, Ordering::Relaxed);
        let side = match self.way {
            Way::Up => "client",
            Way::Down => "upstream",
        };
        tracing::info!(client = %Written(&self.session.peer), side, operation, "broken: {}", Chain(error));
    }
}

/// The handler of a side that is only to deliver what it still has. The default for events is right for it.
struct Parting {
    _session: Arc<Session>,
}

impl Handler for Parting {
    fn interest(&self) -> Interest {
        Interest::EVENT
    }
}
