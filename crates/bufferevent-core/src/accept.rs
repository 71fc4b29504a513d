//! Accepting, for every kind of listener: whose turn it is, who is called, and when to rest.
//!
//! An [`Acceptor`] belongs to a listener. It takes connections from a [`Source`], which is all that differs between listeners over readiness and over
//! completions, within a turn's bound; it calls the user, and pauses when the system has nothing left to accept with.
//!
//! # Rules
//! 1. As many connections as were asked for, [`ACCEPTS_PER_TURN`] unless told otherwise, are taken per turn of the loop; the rest wait for the next.
//! 2. When descriptors or memory run out, accepting pauses: 50 ms at first, doubling to one second at most, until one accept succeeds.
//!    Nothing spins meanwhile; the connections wait in the system's queue. It is logged once a second at most.
//! 3. A connection that was gone before it was accepted is skipped.
//! 4. The callbacks run with nothing locked: they may disable or drop the listener. If one panics, the loop counts it and the listener goes on.
//!
//! # Why here
//! Listeners of both kinds are the same to their users, and neither imports the other. No descriptor is known here: a connection is whatever the
//! source says that it is.
//!
//! Source: libevent `listener.c`.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use evreactor_core::sync::{Arc, Mutex, Weak};
use evreactor_core::{Host, Moment, Phase, Ready, Target, TimerKey};

use crate::bev::Bev;
use crate::error::Error;

/// Connections accepted per turn of the loop, so that a flood of new ones does not starve those that are there.
pub const ACCEPTS_PER_TURN: usize = 64;

/// Connections that the system may keep waiting, unless told otherwise.
pub const BACKLOG: u16 = 1024;

/// The first pause after descriptors ran out.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: recovery is never further away than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often the same trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What an accept callback may return.
pub trait Accepted {
    /// The failure, if there was one: the bufferevent is freed for it.
    fn failure(self) -> Option<Error>;
}

impl Accepted for () {
    fn failure(self) -> Option<Error> {
        None
    }
}

impl Accepted for Result<(), Error> {
    fn failure(self) -> Option<Error> {
        self.err()
    }
}

/// An accept callback, with the address of the peer: what is to be said of the connection if it is refused.
pub type OnAccept<P> = Box<dyn FnMut(Bev, P) -> Option<Error> + Send>;

type OnError = Box<dyn FnMut(&Error) + Send>;

/// What one attempt to accept came to.
#[derive(Debug)]
pub enum Attempt<C> {
    /// A connection, of which a bufferevent is to be made.
    Connection(C),
    /// One that was gone before it was accepted: there may be another.
    Gone,
    /// Nothing waits. The acceptor is told when that changes.
    Nothing,
    /// The system has none to give.
    Failed(io::Error),
}

/// What is worth a line in a log.
#[derive(Clone, Copy, Debug)]
pub enum Trouble<'a> {
    /// Accepting has failed, and pauses.
    Failed(&'a Error),
    /// The callback has refused a connection.
    Refused(&'a Error),
}

/// Where connections come from. Called on the loop's thread, with nothing locked.
pub trait Source: Send + Sync + 'static {
    /// One that was accepted.
    type Connection;

    /// What the callback is told of its peer.
    type Peer: 'static;

    /// The listener's name in errors.
    const LAYER: &'static str;

    /// Takes a connection, if one waits.
    fn attempt(&self) -> Attempt<Self::Connection>;

    /// Nothing waits: the acceptor is to hear of the next one.
    fn rest(&self) {}

    /// Accepting pauses.
    fn pause(&self) {}

    /// Gives the connection to another loop, or back.
    fn give_away(&self, connection: Self::Connection) -> Option<Self::Connection> {
        Some(connection)
    }

    /// Makes a bufferevent of a connection.
    ///
    /// # Errors
    /// What the system or the loop says. The connection is lost then, and the error reported.
    fn make(&self, connection: Self::Connection) -> Result<(Bev, Self::Peer), Error>;

    /// Logs what went wrong.
    fn log(&self, trouble: Trouble<'_>);
}

/// The half of a listener that the loop calls. See the module.
pub struct Acceptor<S: Source> {
    me: Weak<Self>,
    host: Arc<dyn Host>,
    per_turn: usize,
    state: Mutex<State<S::Peer>>,
    source: S,
}

struct State<P> {
    /// The listener is there.
    open: bool,
    enabled: bool,
    on_accept: Option<OnAccept<P>>,
    on_error: Option<OnError>,
    /// The pause that is running, or the length of the last one since an accept succeeded.
    pause: Option<Duration>,
    timer: Option<TimerKey>,
    logged: Option<Moment>,
    /// A further accept is scheduled.
    scheduled: bool,
    accepted: u64,
}

impl<S: Source> Acceptor<S> {
    /// An acceptor on a loop. It accepts when it is told that it is [ready](Target::ready), if it is `enabled`.
    pub fn new(
        host: Arc<dyn Host>,
        source: S,
        on_accept: OnAccept<S::Peer>,
        per_turn: usize,
        enabled: bool,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            host,
            per_turn,
            state: Mutex::new(State {
                open: true,
                enabled,
                on_accept: Some(on_accept),
                on_error: None,
                pause: None,
                timer: None,
                logged: None,
                scheduled: false,
                accepted: 0,
            }),
            source,
        })
    }

    /// Where connections come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Accepts from now on. Connections that waited are taken in the loop's next turn.
    pub fn enable(&self) {
        let mut state = self.state.lock();
        state.enabled = true;
        self.go_on(&mut state);
    }

    /// Accepts no more, until it is enabled again.
    pub fn disable(&self) {
        self.state.lock().enabled = false;
    }

    /// Has `report` called when accepting fails for another reason than a connection that was gone.
    pub fn on_error(&self, report: impl FnMut(&Error) + Send + 'static) {
        let old = self.state.lock().on_error.replace(Box::new(report));
        drop(old);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.state.lock().accepted
    }

    /// Accepts nothing any more, and drops the callbacks. One that runs is dropped when it returns.
    pub fn close(&self) {
        let (timer, callbacks) = {
            let mut state = self.state.lock();
            state.open = false;
            state.enabled = false;
            let callbacks = (state.on_accept.take(), state.on_error.take());
            (state.timer.take(), callbacks)
        };
        if let Some(timer) = timer {
            self.host.disarm(timer);
        }
        drop(callbacks);
    }

    /// Takes what waits, within a turn's bound.
    fn accept_some(&self) {
        for _ in 0..self.per_turn {
            if !self.may_accept() {
                return;
            }
            match self.source.attempt() {
                Attempt::Connection(connection) => self.welcome(connection),
                Attempt::Gone => {}
                Attempt::Nothing => return self.source.rest(),
                Attempt::Failed(error) => return self.pause(error),
            }
        }
        self.go_on(&mut self.state.lock());
    }

    fn may_accept(&self) -> bool {
        let state = self.state.lock();
        state.open && state.enabled && state.timer.is_none()
    }

    fn welcome(&self, connection: S::Connection) {
        {
            let mut state = self.state.lock();
            state.pause = None;
            state.accepted += 1;
        }
        let Some(connection) = self.source.give_away(connection) else {
            return;
        };
        let accept = self.state.lock().on_accept.take();
        let Some(mut accept) = accept else { return };
        match self.source.make(connection) {
            Ok((bev, peer)) => {
                if let Some(error) = introduce(&*self.host, bev, peer, &mut accept) {
                    self.source.log(Trouble::Refused(&error));
                }
            }
            Err(error) => self.report(&error),
        }
        let mut state = self.state.lock();
        // Dropped by its own callback: then the callback goes with it.
        if state.open {
            state.on_accept = Some(accept);
        } else {
            drop(state);
            drop(accept);
        }
    }

    /// Stops accepting for a while.
    fn pause(&self, error: io::Error) {
        self.report(&Error::io(S::LAYER, "accept", error));
        self.source.pause();
        let mut state = self.state.lock();
        if !state.open || state.timer.is_some() {
            return;
        }
        let pause = state
            .pause
            .map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        state.pause = Some(pause);
        let Some(me) = self.me.upgrade() else { return };
        let at = self.host.now() + pause;
        // A closed loop accepts nothing any more.
        state.timer = self.host.arm(at, me, 0).ok();
    }

    fn report(&self, error: &Error) {
        let now = self.host.now();
        let (log, callback) = {
            let mut state = self.state.lock();
            let log = state.logged.is_none_or(|last| now - last >= LOG_EVERY);
            if log {
                state.logged = Some(now);
            }
            (log, state.on_error.take())
        };
        if log {
            self.source.log(Trouble::Failed(error));
        }
        let Some(mut callback) = callback else { return };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| callback(error))) {
            self.host.caught_panic("listener error callback", &*payload);
        }
        let mut state = self.state.lock();
        if state.open && state.on_error.is_none() {
            state.on_error = Some(callback);
        } else {
            drop(state);
            drop(callback);
        }
    }

    /// Has accepting go on in the loop's next turn.
    fn go_on(&self, state: &mut State<S::Peer>) {
        if state.scheduled || state.timer.is_some() {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        state.scheduled = self.host.schedule(Phase::Turn, me, 0).is_ok();
    }
}

impl<S: Source> Target for Acceptor<S> {
    fn run(&self, _key: u64) {
        self.state.lock().scheduled = false;
        self.accept_some();
    }

    fn expired(&self, _key: u64) {
        self.state.lock().timer = None;
        self.accept_some();
    }

    fn ready(&self, _key: u64, _ready: Ready) {
        self.accept_some();
    }
}

impl<S: Source> fmt::Debug for Acceptor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Calls `accept` with a new bufferevent, which is freed if that panics, or refuses it: the answer says why then.
pub fn introduce<P>(
    host: &dyn Host,
    bev: Bev,
    peer: P,
    accept: impl FnOnce(Bev, P) -> Option<Error>,
) -> Option<Error> {
    let kept = bev.clone();
    let refused = match catch_unwind(AssertUnwindSafe(|| accept(bev, peer))) {
        Ok(None) => return None,
        Ok(Some(error)) => Some(error),
        Err(payload) => {
            host.caught_panic("accept callback", &*payload);
            None
        }
    };
    // Freed already is just as well.
    let _ = kept.free();
    refused
}

/// Whether an error of the system's says that the connection which was to be accepted was gone: not the listener's trouble.
///
/// Source: accept(2), "Error handling"; libevent `EVUTIL_ERR_ACCEPT_RETRIABLE`.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::Interrupted
            | K::ConnectionAborted
            | K::ConnectionReset
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::TimedOut
    )
}
