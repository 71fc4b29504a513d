//! One relayed connection: a client, an upstream, and the two flows between them.
//!
//! # Rules
//! 1. What comes into one side is moved, not copied, to the output of the other.
//! 2. While the other side's output is at its high mark, this side is not read. So a flow holds at most the mark and one
//!    read, whatever either peer does.
//! 3. The end of one side is the end of the other's output; the opposite flow goes on. A flow is over when its end is out, or
//!    when nobody is left to write it to; the session, when both flows are.
//! 4. A client whose layers shake hands (TLS, a PROXY header) is let through when they have: who does not come so far costs no connection
//!    upstream.
//! 5. A side that breaks while it is read takes the other along: what has come is still delivered, within [`LINGER`].
//!
//! # Invariants
//! - Each side's handler owns a handle of the other side, and both own the [`Session`]; it is dropped when both
//!   bufferevents are freed, and that is how the relay learns of the end.
//! - Where there is an access log, a session knows its sides until one of them is gone, so that they can be counted where the loop ends first.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bufferevent::filter::proxy::{Header, Version};
use bufferevent::{
    Address, Bev, Deadline, Direction, Error, Event, Handler, Interest, Kind, Pressure, READ,
};

use crate::access::{LayerBytes, Record};
use crate::address::Written;
use crate::exit::Chain;
use crate::limits::TooLate;
use crate::sockets;
use crate::trust::Untrusted;
use crate::worker::{Plan, Worker};

/// How long what came from a broken side may take to be delivered to the other.
const LINGER: Duration = Duration::from_secs(10);

/// The sessions on one loop that are there and have a line of the access log to come.
///
/// When a loop ends, sessions that are there end with it, and nobody tells them. Their lines are written from here.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<usize, Weak<Session>>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<usize, Weak<Session>>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down those that are still there. To be called on the loop's thread, when it has run and is not yet closed: then they can
    /// be counted.
    pub(crate) fn cut(&self) {
        let left = std::mem::take(&mut *self.all());
        for session in left.into_values().filter_map(|session| session.upgrade()) {
            let (client, upstream) = std::mem::take(&mut *session.sides());
            session.count(client.as_ref(), upstream.as_ref());
            session.write_down();
        }
    }
}

/// What both sides share.
pub(crate) struct Session {
    worker: Arc<Worker>,
    plan: Arc<Plan>,
    peer: Address,
    /// Who the client is, as a proxy in front of this relay says.
    proxied: OnceLock<SocketAddr>,
    /// The flows that are over, by [`Way::bit`].
    over: AtomicU8,
    /// The session did not end as its peers wanted.
    broken: AtomicBool,
    began: Instant,
    up: AtomicU64,
    down: AtomicU64,
    ending: Mutex<Ending>,
    /// Client and upstream.
    sides: Mutex<Sides>,
    /// The access log has its line.
    is_written: AtomicBool,
}

/// The client's bufferevent and the upstream's, as far as they are there and would be counted.
type Sides = (Option<Bev>, Option<Bev>);

/// What the access log says of the end.
#[derive(Default)]
struct Ending {
    /// The first cause; the others follow from it.
    why: Option<String>,
    client: Vec<LayerBytes>,
    upstream: Vec<LayerBytes>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.broken.get_mut() {
            self.worker.counters.broken.add(1);
        }
        tracing::debug!(client = %self.client(), "ended");
        if self.plan.shared.access.is_some() {
            self.worker.sessions.all().remove(&address_of(self));
        }
        self.write_down();
        self.worker.ended();
    }
}

/// Tells sessions apart that are there.
fn address_of(session: &Session) -> usize {
    std::ptr::from_ref(session).addr()
}

/// Who a session's client is.
struct Client<'a>(&'a Session);

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.proxied.get() {
            Some(proxied) => write!(f, "tcp:{proxied} via {}", Written(&self.0.peer)),
            None => Written(&self.0.peer).fmt(f),
        }
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

/// The handler of a client whose layers shake hands.
struct Arriving {
    session: Arc<Session>,
}

/// Lets an accepted connection in, and joins it to a new one to the route's upstream.
pub(crate) fn join(worker: &Arc<Worker>, transport: &Bev, peer: Address) -> Result<(), Error> {
    tracing::debug!(client = %Written(&peer), "accepted");
    // First, so that its drop tells the worker, whatever fails from here on.
    let session = Arc::new(Session {
        worker: worker.clone(),
        plan: worker.plan(),
        peer,
        proxied: OnceLock::new(),
        over: AtomicU8::new(0),
        broken: AtomicBool::new(false),
        began: Instant::now(),
        up: AtomicU64::new(0),
        down: AtomicU64::new(0),
        ending: Mutex::default(),
        sides: Mutex::default(),
        is_written: AtomicBool::new(false),
    });
    if session.plan.shared.access.is_some() {
        let listed = Arc::downgrade(&session);
        worker.sessions.all().insert(address_of(&session), listed);
    }
    let Plan { below, limits, .. } = &*session.plan;
    if below.takes_proxy() && !limits.trust.covers(&session.peer) {
        session.refused(&Error::new(Kind::Peer, "proxy", "header").with_source(Untrusted));
        return transport.free().map(drop);
    }
    let client = below.put_on(transport, None)?;
    session.has(Some(&client), None);
    limits.set_on(&client)?;
    limits.set_on_client(&client)?;
    if let Some(group) = &session.plan.shared.group {
        client.join_rate_group(group)?;
    }
    if !below.shakes_hands() {
        return meet(&session, &client);
    }
    client.set_deadline(Deadline::Handshake, limits.handshake)?;
    client.set_handler(Arriving { session })
}

/// Connects a client, which has come so far, to the upstream.
fn meet(session: &Arc<Session>, client: &Bev) -> Result<(), Error> {
    let Plan {
        upstream: to,
        above,
        limits,
        ..
    } = &*session.plan;
    let header = above
        .proxy_version()
        .map(|version| session.header(version, client));
    let connected = session
        .plan
        .names
        .connect(&session.worker.events, to, limits.pace())
        .and_then(|transport| above.put_on(&transport, header.as_ref()));
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            session.unreachable(&error);
            session.count(Some(client), None);
            return client.free().map(drop);
        }
    };
    session.has(None, Some(&upstream));
    let side = |way, other: &Bev| Side {
        way,
        other: other.clone(),
        session: session.clone(),
    };
    upstream
        .set_handler(side(Way::Down, client))
        .and_then(|()| client.set_handler(side(Way::Up, &upstream)))
        .and_then(|()| limits.set_on(&upstream))
        .and_then(|()| upstream.set_deadline(Deadline::Connect, limits.connect))
        .and_then(|()| upstream.enable(READ))
        // Last: what has arrived is told from inside, and may end it all.
        .and_then(|()| client.enable(READ))
        .inspect_err(|_| {
            let _ = upstream.free();
            let _ = client.free();
        })
}

impl Session {
    fn client(&self) -> Client<'_> {
        Client(self)
    }

    /// What the upstream is told of the client.
    fn header(&self, version: Version, client: &Bev) -> Header {
        let told = self.plan.below.proxy_header(client);
        let own = match (&self.peer, sockets::local_addr(client)) {
            (Address::Tcp(source), Ok(Address::Tcp(destination))) => Some((*source, destination)),
            _ => None,
        };
        // Of a proxy that says nothing of its client, its own address is known, and would be believed to be the client's.
        let told = match told {
            Some(told) => told.source().zip(told.destination()),
            None => own,
        };
        match told {
            Some((source, destination)) => Header::of_addresses(version, source, destination),
            None => Header::unknown(version),
        }
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        // Nothing that can panic runs under the lock.
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sides(&self) -> MutexGuard<'_, Sides> {
        // Nothing that can panic runs under the lock.
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes its sides, where somebody will want them counted.
    fn has(&self, client: Option<&Bev>, upstream: Option<&Bev>) {
        if self.plan.shared.access.is_none() {
            return;
        }
        let mut sides = self.sides();
        if let Some(client) = client {
            sides.0 = Some(client.clone());
        }
        if let Some(upstream) = upstream {
            sides.1 = Some(upstream.clone());
        }
    }

    /// Why it ends, unless that is known already. Nobody asks where there is no access log.
    fn ends(&self, why: impl FnOnce() -> String) {
        if self.plan.shared.access.is_some() {
            self.ending().why.get_or_insert_with(why);
        }
    }

    /// What has passed the layers, before they are freed.
    fn count(&self, client: Option<&Bev>, upstream: Option<&Bev>) {
        if self.plan.shared.access.is_none() {
            return;
        }
        // From here on it is counted by who ends it: what is left of it may free itself.
        let sides = std::mem::take(&mut *self.sides());
        drop(sides);
        let mut ending = self.ending();
        for (bev, stack, layers) in [
            (client, &self.plan.below, 0),
            (upstream, &self.plan.above, 1),
        ] {
            let Some(bev) = bev else { continue };
            let counted = LayerBytes::of(bev, stack);
            let kept = if layers == 0 {
                &mut ending.client
            } else {
                &mut ending.upstream
            };
            if !counted.is_empty() {
                *kept = counted;
            }
        }
    }

    fn write_down(&self) {
        let Some(access) = &self.plan.shared.access else {
            return;
        };
        if self.is_written.swap(true, Ordering::Relaxed) {
            return;
        }
        let ending = self.ending();
        access.write(&Record {
            route: &self.plan.name,
            peer: &self.peer,
            proxied: self.proxied.get().copied(),
            upstream: &self.plan.upstream,
            lasted: self.began.elapsed(),
            up: self.up.load(Ordering::Relaxed),
            down: self.down.load(Ordering::Relaxed),
            client: &ending.client,
            server: &ending.upstream,
            // Nobody ended it: the relay did.
            end: ending.why.as_deref().unwrap_or("cut"),
        });
    }

    /// The client's layers have not come about: it does not speak what it should, or is not trusted.
    fn refused(&self, error: &dyn StdError) {
        self.broken.store(true, Ordering::Relaxed);
        self.ends(|| format!("client refused: {}", Chain(error)));
        tracing::warn!(client = %self.client(), "refused: {}", Chain(error));
    }

    fn unreachable(&self, error: &dyn StdError) {
        self.worker.counters.unreachable.add(1);
        self.ends(|| format!("upstream unreachable: {}", Chain(error)));
        tracing::warn!(
            client = %self.client(),
            "cannot connect to {}: {}",
            self.plan.upstream,
            Chain(error)
        );
    }

    fn timed_out(&self, deadline: Deadline) {
        self.broken.store(true, Ordering::Relaxed);
        self.ends(|| TooLate(deadline).to_string());
        tracing::info!(client = %self.client(), "cut: {}", TooLate(deadline));
    }
}

impl Handler for Arriving {
    fn interest(&self) -> Interest {
        Interest::EVENT
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        let session = &self.session;
        session.worker.counters.callbacks.add(1);
        match event {
            Event::Connected => {
                let told = session.plan.below.proxy_header(bev);
                if let Some(source) = told.and_then(|header| header.source()) {
                    // Told once.
                    let _ = session.proxied.set(source);
                }
                if let Err(error) = meet(session, bev) {
                    session.refused(&error);
                    let _ = bev.free();
                }
                return;
            }
            Event::Error { error, .. } => session.refused(error),
            Event::Timeout(late @ Deadline::Handshake) => session.refused(&TooLate(*late)),
            Event::Timeout(deadline) => session.timed_out(*deadline),
            // An end without a handshake is an error.
            _ => return,
        }
        session.count(Some(bev), None);
        // Gone already is just as well.
        let _ = bev.free();
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
        let (all, own) = match self.way {
            Way::Up => (&counters.up, &self.session.up),
            Way::Down => (&counters.down, &self.session.down),
        };
        all.add(moved);
        // One thread writes, so this need not be one atomic step.
        own.store(own.load(Ordering::Relaxed) + moved, Ordering::Relaxed);
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
            Event::Timeout(late @ Deadline::Connect) => {
                self.never_stood(&TooLate(*late));
                self.free_both(bev);
            }
            Event::Timeout(deadline) => {
                self.session.timed_out(*deadline);
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
            self.session.ends(|| "done".into());
            self.free_both(bev);
        }
    }

    /// This side's connection, or the handshake of a layer on it, has failed.
    fn never_stood(&self, error: &dyn StdError) {
        match self.way {
            Way::Up => self.session.refused(error),
            Way::Down => self.session.unreachable(error),
        }
    }

    /// The client's bufferevent and the upstream's.
    fn sides<'a>(&'a self, bev: &'a Bev) -> (&'a Bev, &'a Bev) {
        match self.way {
            Way::Up => (bev, &self.other),
            Way::Down => (&self.other, bev),
        }
    }

    fn free_both(&self, bev: &Bev) {
        let (client, upstream) = self.sides(bev);
        self.session.count(Some(client), Some(upstream));
        // One of them may be gone already.
        let _ = bev.free();
        let _ = self.other.free();
    }

    /// This side is broken: the other gets what has come from here, and ends.
    fn part(&self, bev: &Bev) {
        let (client, upstream) = self.sides(bev);
        self.session.count(Some(client), Some(upstream));
        let parting = Parting {
            way: self.way,
            session: self.session.clone(),
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
        self.session
            .ends(|| format!("{side} broken: {operation}: {}", Chain(error)));
        tracing::info!(client = %self.session.client(), side, operation, "broken: {}", Chain(error));
    }
}

/// The handler of a side that is only to deliver what it still has, of a flow that goes this way.
struct Parting {
    way: Way,
    session: Arc<Session>,
}

impl Handler for Parting {
    fn interest(&self) -> Interest {
        Interest::EVENT
    }

    /// As by default, and counted.
    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match self.way {
            Way::Up => self.session.count(None, Some(bev)),
            Way::Down => self.session.count(Some(bev), None),
        }
        match event {
            Event::Error { .. } | Event::Timeout(_) => drop(bev.free()),
            Event::Eof => drop(bev.free_when_written()),
            _ => {}
        }
    }
}
