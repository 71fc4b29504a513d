//! A listener whose accepts are under way in the system: connections come as completions.
//!
//! # Rules
//! 1. One accept is under way for as long as the listener accepts; each connection is one completion of it. At most 256 wait for their
//!    callback: then accepting stops until they are fetched, and the rest waits in the system's queue.
//! 2. At most [`ACCEPTS_PER_TURN`] callbacks run per turn of the loop.
//! 3. When descriptors or memory run out, accepting pauses: 50 ms at first, doubling to one second at most, until one accept succeeds.
//!    It is logged once a second at most.
//! 4. A connection that was gone before it was accepted is skipped.
//! 5. The callback runs with nothing locked: it may disable or drop the listener. If it panics, the loop counts it and the listener goes on.
//!
//! Source: libevent `listener.c`, its IOCP half.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use bufferevent_core::{Bev, Error, Options};
use evreactor::{LoopHandle, Moment, Phase, Priority, Ready, Registration, Target, TimerKey};
use evreactor_core::Host as _;
use evreactor_core::sync::{Arc, Mutex, Weak};
use socket2::{SockAddr, Socket, Type};

use crate::NAME;
use crate::builder::{Builder, port_of};
use crate::driver::{Lane, Verb};
use crate::port::Port;

/// Callbacks per turn of the loop.
const ACCEPTS_PER_TURN: usize = 64;

/// The first pause after descriptors ran out.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often the same trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Connections that the system may keep waiting, unless told otherwise.
const BACKLOG: i32 = 1024;

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

type OnAccept = Box<dyn FnMut(Bev, SockAddr) -> Option<Error> + Send>;
type OnError = Box<dyn FnMut(&Error) + Send>;

struct State {
    registration: Option<Registration>,
    on_accept: Option<OnAccept>,
    on_error: Option<OnError>,
    enabled: bool,
    /// The pause that is running, or the length of the last one since an accept succeeded.
    pause: Option<Duration>,
    timer: Option<TimerKey>,
    logged: Option<Moment>,
    scheduled: bool,
    accepted: u64,
}

struct Inner {
    state: Mutex<State>,
    port: Arc<Port>,
    lane: Lane,
    events: LoopHandle,
    options: Options,
    priority: Priority,
    nodelay: bool,
    me: Weak<Inner>,
    unlink: Option<PathBuf>,
    /// It bound the socket itself: nobody else has it.
    own: bool,
}

/// Accepts connections until it is dropped.
#[doc(alias = "evconnlistener_new_async")]
#[must_use = "dropping the listener closes it"]
pub struct Listener {
    inner: Arc<Inner>,
}

/// Makes a [`Listener`].
#[derive(Debug)]
#[must_use = "a builder makes nothing until it is told to bind"]
pub struct ListenerBuilder<'a> {
    events: &'a LoopHandle,
    options: Options,
    priority: Priority,
    nodelay: bool,
    backlog: i32,
    replace_stale: bool,
    enabled: bool,
}

impl ListenerBuilder<'_> {
    /// The options of the bufferevents that are accepted.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How urgent new connections are to the loop, and what they bring.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets TCP_NODELAY on what is accepted.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How many connections the system may keep waiting; 1,024 by default.
    pub fn backlog(mut self, connections: u16) -> Self {
        self.backlog = connections.into();
        self
    }

    /// Takes over a Unix-domain path that nobody listens on any more, and removes the path when the listener goes.
    pub fn replace_stale(mut self, replace_stale: bool) -> Self {
        self.replace_stale = replace_stale;
        self
    }

    /// Whether it accepts from the start; `true` by default. See [`Listener::enable`].
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Binds, listens, and has `accept` called with each connection and its peer's address.
    ///
    /// # Errors
    /// What the system says, with the operation; [`Kind::Unsupported`](bufferevent_core::Kind::Unsupported) on a loop
    /// whose backend completes no operations.
    pub fn bind<R: Accepted>(
        self,
        address: impl Into<SockAddr>,
        accept: impl FnMut(Bev, SockAddr) -> R + Send + 'static,
    ) -> Result<Listener, Error> {
        let (socket, unlink) = self.bound(address.into())?;
        self.start(socket, when_accepted(accept), unlink, true)
    }

    /// A socket that listens, and the path that goes with it.
    fn bound(&self, address: SockAddr) -> Result<(Socket, Option<PathBuf>), Error> {
        let system = |operation| move |source| Error::io(NAME, operation, source);
        let socket = Socket::new(address.domain(), Type::STREAM, None).map_err(system("socket"))?;
        if !address.is_unix() && cfg!(unix) {
            socket
                .set_reuse_address(true)
                .map_err(system("reuse_address"))?;
        }
        let path = path_of(&address).filter(|_| self.replace_stale);
        let mut bound = socket.bind(&address);
        if let (Err(error), Some(path)) = (&bound, &path)
            && error.kind() == io::ErrorKind::AddrInUse
            && is_stale(path, &address)
        {
            std::fs::remove_file(path).map_err(system("remove"))?;
            bound = socket.bind(&address);
        }
        bound.map_err(system("bind"))?;
        socket.listen(self.backlog).map_err(system("listen"))?;
        Ok((socket, path))
    }

    /// Accepts from a socket that listens already.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn listen<R: Accepted>(
        self,
        socket: impl Into<Socket>,
        accept: impl FnMut(Bev, SockAddr) -> R + Send + 'static,
    ) -> Result<Listener, Error> {
        self.start(socket.into(), when_accepted(accept), None, false)
    }

    fn start(
        self,
        socket: Socket,
        on_accept: OnAccept,
        unlink: Option<PathBuf>,
        own: bool,
    ) -> Result<Listener, Error> {
        let system = |source| Error::io(NAME, "listen", source);
        let port = port_of(self.events, "listen")?;
        // The target is told under a token, which the lane needs: it is made with a lane of its own then.
        let mut made = Err(crate::desk::closed());
        let inner = Arc::new_cyclic(|me: &Weak<Inner>| {
            let target = Arc::new(Relay(me.clone()));
            made = self
                .events
                .attach(self.priority, target, 0)
                .and_then(|registration| {
                    let token = registration.token();
                    let lane = port.desk(|desk| desk.open(Some(socket), token))?;
                    Ok((registration, lane))
                });
            Inner {
                state: Mutex::new(State {
                    registration: None,
                    on_accept: Some(on_accept),
                    on_error: None,
                    enabled: self.enabled,
                    pause: None,
                    timer: None,
                    logged: None,
                    scheduled: false,
                    accepted: 0,
                }),
                lane: made.as_ref().map_or(Lane::NONE, |(_, lane)| *lane),
                port,
                events: self.events.clone(),
                options: self.options,
                priority: self.priority,
                nodelay: self.nodelay,
                me: me.clone(),
                unlink,
                own,
            }
        });
        let (registration, lane) = made.map_err(system)?;
        inner.state.lock().registration = Some(registration);
        if self.enabled {
            inner.port.desk_from_anywhere(|desk| desk.accept(lane));
        }
        Ok(Listener { inner })
    }
}

fn when_accepted<R: Accepted>(
    mut accept: impl FnMut(Bev, SockAddr) -> R + Send + 'static,
) -> OnAccept {
    Box::new(move |bev, peer| accept(bev, peer).failure())
}

/// The path of a Unix-domain address.
fn path_of(address: &SockAddr) -> Option<PathBuf> {
    #[cfg(unix)]
    return address.as_pathname().map(std::path::Path::to_path_buf);
    // Elsewhere a path is not told.
    #[cfg(not(unix))]
    return Some(address).and(None);
}

/// Whether a path is a socket's that nobody listens on any more.
#[cfg(unix)]
fn is_stale(path: &std::path::Path, address: &SockAddr) -> bool {
    let is_socket = std::fs::symlink_metadata(path)
        .is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()));
    is_socket
        && Socket::new(address.domain(), Type::STREAM, None)
            .and_then(|probe| probe.connect(address))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Where no path is told, there is none to be stale.
#[cfg(not(unix))]
fn is_stale(_path: &std::path::Path, _address: &SockAddr) -> bool {
    false
}

impl Listener {
    /// A builder, for what [`bind`](Self::bind) does not say.
    pub fn builder(events: &LoopHandle) -> ListenerBuilder<'_> {
        ListenerBuilder {
            events,
            options: Options::EMPTY,
            priority: Priority::default(),
            nodelay: false,
            backlog: BACKLOG,
            replace_stale: false,
            enabled: true,
        }
    }

    /// Listens at `address` and has `accept` called with each connection and its peer's address.
    ///
    /// # Errors
    /// As [`ListenerBuilder::bind`].
    #[doc(alias = "evconnlistener_new_bind")]
    pub fn bind<R: Accepted>(
        events: &LoopHandle,
        address: impl Into<SockAddr>,
        accept: impl FnMut(Bev, SockAddr) -> R + Send + 'static,
    ) -> Result<Self, Error> {
        Self::builder(events).bind(address, accept)
    }

    /// Where it listens; the port that the system chose, where 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> Result<SockAddr, Error> {
        let address = self
            .inner
            .port
            .desk(|desk| desk.socket(self.inner.lane).map(Socket::local_addr));
        address
            .unwrap_or_else(|| Err(crate::desk::closed()))
            .map_err(|source| Error::io(NAME, "local_addr", source))
    }

    /// Accepts again after [`disable`](Self::disable).
    pub fn enable(&self) {
        let mut state = self.inner.state.lock();
        state.enabled = true;
        self.inner.go_on(&mut state);
    }

    /// Stops accepting; new connections wait in the system's queue, and a few that are accepted already wait here.
    pub fn disable(&self) {
        self.inner.state.lock().enabled = false;
        let lane = self.inner.lane;
        self.inner
            .port
            .desk_from_anywhere(|desk| desk.stop_accepting(lane));
    }

    /// Has `report` called when accepting fails for another reason than a connection that was gone.
    pub fn on_error(&self, report: impl FnMut(&Error) + Send + 'static) {
        let old = self.inner.state.lock().on_error.replace(Box::new(report));
        drop(old);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.inner.state.lock().accepted
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let (registration, timer, callbacks) = {
            let mut state = self.inner.state.lock();
            state.enabled = false;
            let callbacks = (state.on_accept.take(), state.on_error.take());
            (state.registration.take(), state.timer.take(), callbacks)
        };
        if let Some(timer) = timer {
            self.inner.events.disarm(timer);
        }
        let lane = self.inner.lane;
        // The system has the socket until its accept is over. Where a listening socket has no such end, it is closed then.
        if self.inner.own {
            self.inner.port.desk(|desk| {
                if let Some(socket) = desk.socket(lane) {
                    let _ = socket.shutdown(std::net::Shutdown::Read);
                }
            });
        }
        self.inner
            .port
            .detach(&self.inner.events, lane, Verb::Accept);
        drop((registration, callbacks));
        if let Some(path) = &self.inner.unlink
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "the path of a listener is gone already");
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("address", &self.local_addr().ok())
            .finish_non_exhaustive()
    }
}

/// What the loop calls: the listener, for as long as it is there.
struct Relay(Weak<Inner>);

impl Target for Relay {
    fn run(&self, _key: u64) {
        if let Some(inner) = self.0.upgrade() {
            inner.state.lock().scheduled = false;
            inner.accept_some();
        }
    }

    fn expired(&self, _key: u64) {
        if let Some(inner) = self.0.upgrade() {
            inner.state.lock().timer = None;
            inner.accept_some();
        }
    }

    fn ready(&self, _key: u64, _ready: Ready) {
        if let Some(inner) = self.0.upgrade() {
            inner.accept_some();
        }
    }
}

impl Inner {
    fn may_accept(&self) -> bool {
        let state = self.state.lock();
        state.enabled && state.timer.is_none() && state.registration.is_some()
    }

    /// Makes bufferevents of what was accepted, within a turn's bound, and accepts on.
    fn accept_some(&self) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.may_accept() {
                return;
            }
            match self.port.desk(|desk| desk.next_accepted(self.lane)) {
                Some(Ok(socket)) => self.welcome(socket),
                Some(Err(error)) if is_gone(&error) => {}
                Some(Err(error)) => return self.pause(error),
                None => return self.port.desk(|desk| desk.accept(self.lane)),
            }
        }
        self.go_on(&mut self.state.lock());
    }

    fn welcome(&self, socket: Socket) {
        // Gone already, if it has no peer.
        let Ok(peer) = socket.peer_addr() else { return };
        let accept = {
            let mut state = self.state.lock();
            state.pause = None;
            state.accepted += 1;
            state.on_accept.take()
        };
        let Some(mut accept) = accept else { return };
        let made = Builder::new(&self.events)
            .options(self.options)
            .priority(self.priority)
            .nodelay(self.nodelay)
            .connected(Some(socket));
        match made {
            Ok(bev) => self.introduce(bev, peer, &mut accept),
            Err(error) => self.report(&error),
        }
        let mut state = self.state.lock();
        // Dropped by its own callback: then the callback goes with it.
        if state.registration.is_some() {
            state.on_accept = Some(accept);
        } else {
            drop(state);
            drop(accept);
        }
    }

    fn introduce(&self, bev: Bev, peer: SockAddr, accept: &mut OnAccept) {
        let kept = bev.clone();
        match catch_unwind(AssertUnwindSafe(|| accept(bev, peer))) {
            Ok(None) => {}
            Ok(Some(error)) => {
                tracing::warn!(%error, "an accepted connection was refused");
                // Freed already is just as well.
                let _ = kept.free();
            }
            Err(payload) => {
                self.events.caught_panic("accept callback", &*payload);
                let _ = kept.free();
            }
        }
    }

    /// Stops accepting for a while.
    fn pause(&self, error: io::Error) {
        self.report(&Error::io(NAME, "accept", error));
        self.port.desk(|desk| desk.stop_accepting(self.lane));
        let mut state = self.state.lock();
        if state.registration.is_none() || state.timer.is_some() {
            return;
        }
        let pause = state
            .pause
            .map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        state.pause = Some(pause);
        let target = Arc::new(Relay(self.me.clone()));
        // A closed loop accepts nothing any more.
        state.timer = self.events.arm(self.events.now() + pause, target, 0).ok();
    }

    fn report(&self, error: &Error) {
        let now = self.events.now();
        let (log, callback) = {
            let mut state = self.state.lock();
            let log = state.logged.is_none_or(|last| now - last >= LOG_EVERY);
            if log {
                state.logged = Some(now);
            }
            (log, state.on_error.take())
        };
        if log {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "accepting has failed and pauses");
        }
        let Some(mut callback) = callback else { return };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| callback(error))) {
            self.events
                .caught_panic("listener error callback", &*payload);
        }
        let mut state = self.state.lock();
        if state.registration.is_some() && state.on_error.is_none() {
            state.on_error = Some(callback);
        } else {
            drop(state);
            drop(callback);
        }
    }

    /// Has accepting go on in the loop's next turn.
    fn go_on(&self, state: &mut State) {
        if state.scheduled || state.timer.is_some() {
            return;
        }
        let target = Arc::new(Relay(self.me.clone()));
        state.scheduled = self.events.schedule(Phase::Turn, target, 0).is_ok();
    }
}

/// Whether the connection that was to be accepted was gone: not the listener's trouble.
fn is_gone(error: &io::Error) -> bool {
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
