//! A listener: accepts connections into bufferevents.
//!
//! # Rules
//! 1. At most [`ACCEPTS_PER_TURN`] connections, or as many as were asked for, are accepted per turn of the loop; the rest wait for the next.
//! 2. When descriptors or memory run out, accepting pauses: 50 ms at first, doubling to one second at most, until one accept
//!    succeeds. Nothing spins meanwhile; the connections wait in the system's queue. It is logged once a second at most.
//! 3. A connection that was gone before it was accepted is skipped.
//! 4. The accept callback runs with nothing locked: it may disable or drop the listener. If it panics, the loop counts it and the
//!    listener goes on.
//! 5. For several loops there is one listener each, or one that hands out: see [`ListenerBuilder::bind_each`].
//!
//! Source: libevent `listener.c`.

mod spread;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

#[cfg(unix)]
use std::os::fd::OwnedFd as OwnedSource;
#[cfg(windows)]
use std::os::windows::io::OwnedSocket as OwnedSource;

use bufferevent_core::{Bev, Error, Options};
use evreactor::{
    Interest, LoopHandle, Moment, Phase, Priority, Ready, Registration, Target, TimerKey,
};
use evreactor_core::Host as _;
use evreactor_core::sync::{Arc, Mutex, Weak};
use socket2::{Domain, Socket, Type};

use crate::NAME;
use crate::address::{Address, IntoAddress};
use crate::builder::Builder;

pub use spread::Sharing;
use spread::Spread;

/// Connections accepted per turn of the loop, so that a flood of new ones does not starve those that are there.
const ACCEPTS_PER_TURN: usize = 64;

/// The first pause after descriptors ran out.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: recovery is never further away than this.
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

type OnAccept = Box<dyn FnMut(Bev, Address) -> Option<Error> + Send>;
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
    /// A further accept is scheduled.
    scheduled: bool,
    accepted: u64,
}

struct Inner {
    state: Mutex<State>,
    socket: Socket,
    events: LoopHandle,
    terms: Terms,
    accepts_per_turn: usize,
    /// Who else gets connections from here.
    spread: Option<Spread>,
    me: Weak<Inner>,
    unlink: Option<PathBuf>,
    /// Nobody else has the socket, unless the system does.
    own: bool,
}

/// What every accepted bufferevent is made with.
#[derive(Clone, Copy, Debug)]
struct Terms {
    options: Options,
    priority: Priority,
    nodelay: bool,
    keepalive: Option<Duration>,
    make: Option<Make>,
}

/// Makes a bufferevent of an accepted socket, on the loop that it is to live on. See [`ListenerBuilder::made_by`].
pub type Make = fn(&LoopHandle, Options, OwnedSource) -> Result<Bev, Error>;

impl Terms {
    fn make(&self, events: &LoopHandle, socket: Socket) -> Result<Bev, Error> {
        if let Some(idle) = self.keepalive {
            keep_alive(&socket, idle).map_err(|source| Error::io(NAME, "keepalive", source))?;
        }
        if let Some(make) = self.make {
            return make(events, self.options, socket.into());
        }
        Builder::new(events)
            .options(self.options)
            .priority(self.priority)
            .nodelay(self.nodelay)
            .accepted(socket)
    }
}

/// Has the system ask a silent TCP peer whether it is still there. Other sockets need no such thing: their peers cannot vanish.
fn keep_alive(socket: &Socket, idle: Duration) -> io::Result<()> {
    if matches!(socket.local_addr()?.domain(), Domain::IPV4 | Domain::IPV6) {
        socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle))?;
    }
    Ok(())
}

/// Calls `accept` with a new bufferevent, which is freed if that fails or panics.
fn introduce(
    events: &LoopHandle,
    bev: Bev,
    peer: Address,
    accept: impl FnOnce(Bev, Address) -> Option<Error>,
) {
    let kept = bev.clone();
    match catch_unwind(AssertUnwindSafe(|| accept(bev, peer))) {
        Ok(None) => {}
        Ok(Some(error)) => {
            tracing::warn!(%error, "an accepted connection was refused");
            // Freed already is just as well.
            let _ = kept.free();
        }
        Err(payload) => {
            events.caught_panic("accept callback", &*payload);
            let _ = kept.free();
        }
    }
}

/// Accepts connections until it is dropped.
#[doc(alias = "evconnlistener")]
#[doc(alias = "evconnlistener_free")]
#[must_use = "dropping the listener closes it"]
pub struct Listener {
    inner: Arc<Inner>,
}

/// Makes a [`Listener`].
#[must_use = "a builder makes nothing until it is told to bind"]
#[derive(Debug)]
pub struct ListenerBuilder<'a> {
    events: &'a LoopHandle,
    terms: Terms,
    backlog: i32,
    accepts_per_turn: usize,
    defer_accept: Option<Duration>,
    only_v6: Option<bool>,
    reuse_address: bool,
    reuse_port: bool,
    sharing: Sharing,
    replace_stale: bool,
    enabled: bool,
    /// It bound the socket itself.
    own: bool,
}

impl<'a> ListenerBuilder<'a> {
    /// The options of the bufferevents that are accepted.
    pub fn options(mut self, options: Options) -> Self {
        self.terms.options = options;
        self
    }

    /// How urgent new connections are to the loop, and what they bring.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = priority;
        self
    }

    /// How many connections the system may keep waiting; 1,024 by default.
    pub fn backlog(mut self, connections: u16) -> Self {
        self.backlog = connections.into();
        self
    }

    /// Sets TCP_NODELAY on what is accepted.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.terms.nodelay = nodelay;
        self
    }

    /// Has the bufferevents made by `make`, not by this crate: on a backend that completes operations, say, which can watch the listening
    /// socket, and has a better way to receive. What is set on the socket itself (`nodelay`) is left to `make`.
    pub fn made_by(mut self, make: Make) -> Self {
        self.terms.make = Some(make);
        self
    }

    /// How many connections are accepted in one turn of the loop; 64 by default. The rest wait for the next, so that a flood of new
    /// ones does not starve those that are there.
    pub fn accepts_per_turn(mut self, connections: NonZeroUsize) -> Self {
        self.accepts_per_turn = connections.get();
        self
    }

    /// Has the system ask a TCP peer that was silent for `idle` whether it is still there (SO_KEEPALIVE), and fail the connection if it
    /// does not answer. How often it asks is the system's matter. In whole seconds.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.terms.keepalive = Some(idle);
        self
    }

    /// Leaves TCP connections with the system until their peers have sent something, or for about `span` (TCP_DEFER_ACCEPT): one that
    /// connects and says nothing costs no bufferevent meanwhile. In whole seconds; on Linux alone, elsewhere nothing is deferred. Not for
    /// protocols in which the server speaks first.
    #[doc(alias = "LEV_OPT_DEFERRED_ACCEPT")]
    pub fn defer_accept(mut self, span: Duration) -> Self {
        self.defer_accept = Some(span);
        self
    }

    /// Whether a port may be listened at while connections of an earlier listener still linger in the system (SO_REUSEADDR); `true` by
    /// default. Windows needs no such option: what has that name there lets strangers take the port over, and is never set.
    #[doc(alias = "LEV_OPT_REUSEABLE")]
    pub fn reuse_address(mut self, reuse_address: bool) -> Self {
        self.reuse_address = reuse_address;
        self
    }

    /// Whether an IPv6 address takes IPv6 alone; the system's default where not said.
    #[doc(alias = "LEV_OPT_BIND_IPV6ONLY")]
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.only_v6 = Some(only_v6);
        self
    }

    /// Lets other sockets listen on the same TCP port (SO_REUSEPORT).
    #[doc(alias = "LEV_OPT_REUSEABLE_PORT")]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Takes over a Unix-domain path that nobody listens on any more, and removes the path when the listener goes.
    pub fn replace_stale(mut self, replace_stale: bool) -> Self {
        self.replace_stale = replace_stale;
        self
    }

    /// Whether it accepts from the start; `true` by default. See [`Listener::enable`].
    #[doc(alias = "LEV_OPT_DISABLED")]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Binds, listens, and has `accept` called with each connection and its peer's address.
    ///
    /// # Errors
    /// What the system says (the port is in use, the path is too long), with the operation; [`Kind::Misuse`](bufferevent_core::Kind::Misuse) for text that is
    /// no address.
    #[doc(alias = "evconnlistener_new_bind")]
    pub fn bind<R: Accepted>(
        mut self,
        address: impl IntoAddress,
        mut accept: impl FnMut(Bev, Address) -> R + Send + 'static,
    ) -> Result<Listener, Error> {
        self.own = true;
        let address = address.into_address()?;
        let socket = self.bound(&address, self.reuse_port)?;
        self.listening(&socket)?;
        let accept: OnAccept = Box::new(move |bev, peer| accept(bev, peer).failure());
        let unlink = self.unlink(address);
        self.start(socket, accept, None, unlink)
    }

    /// Accepts from a socket that listens already.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](bufferevent_core::Kind::Unsupported) for a socket that does not listen, or carries no streams; what the system
    /// says.
    #[doc(alias = "evconnlistener_new")]
    pub fn listen<R: Accepted>(
        self,
        socket: impl Into<Socket>,
        mut accept: impl FnMut(Bev, Address) -> R + Send + 'static,
    ) -> Result<Listener, Error> {
        let accept: OnAccept = Box::new(move |bev, peer| accept(bev, peer).failure());
        let socket = socket.into();
        check(&socket)?;
        self.start(socket, accept, None, None)
    }

    /// A socket that is bound and does not listen yet.
    fn bound(&self, address: &Address, reuse_port: bool) -> Result<Socket, Error> {
        let system = |operation| move |source| Error::io(NAME, operation, source);
        let to = address.to_sockaddr("bind")?;
        let socket = Socket::new(address.domain(), Type::STREAM, None).map_err(system("socket"))?;
        if let Address::Tcp(_) = address {
            #[cfg(unix)]
            socket
                .set_reuse_address(self.reuse_address)
                .map_err(system("reuse_address"))?;
            if reuse_port {
                share_port(&socket).map_err(system("reuse_port"))?;
            }
            if let (Some(only_v6), Domain::IPV6) = (self.only_v6, address.domain()) {
                socket.set_only_v6(only_v6).map_err(system("only_v6"))?;
            }
        }
        let mut bound = socket.bind(&to);
        if let (Err(error), Address::Unix(path), true) = (&bound, address, self.replace_stale)
            && error.kind() == io::ErrorKind::AddrInUse
            && is_stale(path)
        {
            std::fs::remove_file(path).map_err(system("remove"))?;
            bound = socket.bind(&to);
        }
        bound.map_err(system("bind"))?;
        Ok(socket)
    }

    fn listening(&self, socket: &Socket) -> Result<(), Error> {
        socket
            .listen(self.backlog)
            .map_err(|source| Error::io(NAME, "listen", source))?;
        if let Some(span) = self.defer_accept {
            crate::descriptor::defer_accept(socket, span)
                .map_err(|source| Error::io(NAME, "defer_accept", source))?;
        }
        Ok(())
    }

    /// The path that goes with the listener.
    fn unlink(&self, address: Address) -> Option<PathBuf> {
        match address {
            Address::Unix(path) if self.replace_stale => Some(path),
            _ => None,
        }
    }

    fn start(
        self,
        socket: Socket,
        accept: OnAccept,
        spread: Option<Spread>,
        unlink: Option<PathBuf>,
    ) -> Result<Listener, Error> {
        let system = |operation| move |source| Error::io(NAME, operation, source);
        socket
            .set_nonblocking(true)
            .map_err(system("nonblocking"))?;
        let state = State {
            registration: None,
            on_accept: Some(accept),
            on_error: None,
            enabled: self.enabled,
            pause: None,
            timer: None,
            logged: None,
            scheduled: false,
            accepted: 0,
        };
        let inner = Arc::new_cyclic(|me| Inner {
            state: Mutex::new(state),
            socket,
            events: self.events.clone(),
            terms: self.terms,
            accepts_per_turn: self.accepts_per_turn,
            spread,
            me: me.clone(),
            unlink,
            own: self.own,
        });
        let registration = self
            .events
            .register(
                &inner.socket,
                Interest::READ,
                self.terms.priority,
                inner.clone(),
                0,
            )
            .map_err(system("register"))?;
        inner.state.lock().registration = Some(registration);
        Ok(Listener { inner })
    }
}

/// Refuses a socket from which nothing can be accepted.
fn check(socket: &Socket) -> Result<(), Error> {
    const OPERATION: &str = "listen";
    let system = |source| Error::io(NAME, OPERATION, source);
    let mut listens = socket.r#type().map_err(system)? == Type::STREAM;
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        listens &= socket.is_listener().map_err(system)?;
    }
    // Where that cannot be asked: one with a peer does not listen.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        listens &= socket.peer_addr().is_err();
    }
    if listens {
        return Ok(());
    }
    let why = io::Error::new(
        io::ErrorKind::Unsupported,
        "only a stream socket that listens has connections to accept",
    );
    let error = Error::new(bufferevent_core::Kind::Unsupported, NAME, OPERATION);
    Err(error.with_source(why))
}

/// Lets other sockets listen on the same port.
#[cfg(unix)]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// Where there is no such option, nothing is asked for.
#[cfg(not(unix))]
fn share_port(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// Whether a Unix-domain path is a socket at which nobody answers. Any other file refuses connections just the same, and is
/// somebody's data.
fn is_stale(path: &std::path::Path) -> bool {
    #[cfg(unix)]
    if !std::fs::symlink_metadata(path)
        .is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()))
    {
        return false;
    }
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    Socket::new(Domain::UNIX, Type::STREAM, None)
        .and_then(|probe| probe.connect(&socket2::SockAddr::unix(path)?))
        .is_err_and(|error| refused(&error))
}

impl Listener {
    /// A builder, for what [`bind`](Self::bind) does not say.
    pub fn builder(events: &LoopHandle) -> ListenerBuilder<'_> {
        ListenerBuilder {
            events,
            terms: Terms {
                options: Options::EMPTY,
                priority: Priority::default(),
                nodelay: false,
                keepalive: None,
                make: None,
            },
            backlog: BACKLOG,
            accepts_per_turn: ACCEPTS_PER_TURN,
            defer_accept: None,
            only_v6: None,
            reuse_address: true,
            reuse_port: false,
            sharing: Sharing::Queues,
            replace_stale: false,
            enabled: true,
            own: false,
        }
    }

    /// Listens at `address` and has `accept` called with each connection and its peer's address. The bufferevent lives by itself
    /// while it has work: the callback need not keep it.
    ///
    /// # Errors
    /// As [`ListenerBuilder::bind`].
    #[doc(alias = "evconnlistener_new_bind")]
    pub fn bind<R: Accepted>(
        events: &LoopHandle,
        address: impl IntoAddress,
        accept: impl FnMut(Bev, Address) -> R + Send + 'static,
    ) -> Result<Self, Error> {
        Self::builder(events).bind(address, accept)
    }

    /// Where it listens; the port that the system chose, where 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> Result<Address, Error> {
        self.inner
            .socket
            .local_addr()
            .map(|address| Address::from_sockaddr(&address))
            .map_err(|source| Error::io(NAME, "local_addr", source))
    }

    /// Accepts again after [`disable`](Self::disable). Connections that waited are taken in the loop's next turn.
    #[doc(alias = "evconnlistener_enable")]
    pub fn enable(&self) {
        let mut state = self.inner.state.lock();
        state.enabled = true;
        self.inner.go_on(&mut state);
    }

    /// Stops accepting; new connections wait in the system's queue.
    #[doc(alias = "evconnlistener_disable")]
    pub fn disable(&self) {
        self.inner.state.lock().enabled = false;
    }

    /// Has `report` called when accepting fails for another reason than a connection that was gone.
    #[doc(alias = "evconnlistener_set_error_cb")]
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
        drop((registration, callbacks));
        // A backend that completes operations has the socket for a turn longer. Where a listening socket has no such end, it is closed.
        if self.inner.own {
            let _ = self.inner.socket.shutdown(std::net::Shutdown::Read);
        }
        if let Some(spread) = &self.inner.spread {
            spread.close();
        }
        if let Some(path) = &self.inner.unlink
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "the socket's path was gone already");
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

/// What one attempt to accept came to.
enum Attempt {
    Connection(Socket, Address),
    /// Gone before it was accepted: there may be another.
    Gone,
    /// Nothing waits.
    Nothing,
    Failed(io::Error),
}

impl Inner {
    fn attempt(&self) -> Attempt {
        match accept(&self.socket) {
            Ok((socket, peer)) => Attempt::Connection(socket, Address::from_sockaddr(&peer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Attempt::Nothing,
            Err(error) if is_gone(&error) => Attempt::Gone,
            Err(error) => Attempt::Failed(error),
        }
    }

    /// Accepts what waits, within a turn's bound.
    fn accept_some(&self) {
        for _ in 0..self.accepts_per_turn {
            if !self.may_accept() {
                return;
            }
            match self.attempt() {
                Attempt::Connection(socket, peer) => self.welcome(socket, peer),
                Attempt::Gone => {}
                Attempt::Nothing => {
                    if let Some(registration) = &self.state.lock().registration
                        && let Err(error) = registration.rearm()
                    {
                        tracing::warn!(%error, "a listener could not be re-armed");
                    }
                    return;
                }
                Attempt::Failed(error) => {
                    self.pause(error);
                    return;
                }
            }
        }
        self.go_on(&mut self.state.lock());
    }

    fn may_accept(&self) -> bool {
        let state = self.state.lock();
        state.enabled && state.timer.is_none() && state.registration.is_some()
    }

    fn welcome(&self, socket: Socket, peer: Address) {
        {
            let mut state = self.state.lock();
            state.pause = None;
            state.accepted += 1;
        }
        match &self.spread {
            Some(spread) => spread.hand_out(socket, peer, |socket, peer| self.keep(socket, peer)),
            None => self.keep(socket, peer),
        }
    }

    /// Makes a bufferevent on this loop.
    fn keep(&self, socket: Socket, peer: Address) {
        let accept = self.state.lock().on_accept.take();
        let Some(mut accept) = accept else { return };
        match self.terms.make(&self.events, socket) {
            Ok(bev) => introduce(&self.events, bev, peer, &mut accept),
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

    /// Stops accepting for a while.
    fn pause(&self, error: io::Error) {
        let error = Error::io(NAME, "accept", error);
        self.report(&error);
        let mut state = self.state.lock();
        if state.registration.is_none() || state.timer.is_some() {
            return;
        }
        let pause = state
            .pause
            .map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        state.pause = Some(pause);
        let Some(me) = self.me.upgrade() else { return };
        let at = self.events.now() + pause;
        // A closed loop accepts nothing any more.
        state.timer = self.events.arm(at, me, 0).ok();
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
        let Some(me) = self.me.upgrade() else { return };
        state.scheduled = self.events.schedule(Phase::Turn, me, 0).is_ok();
    }
}

impl Target for Inner {
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

/// Accepts, non-blocking and closed on exec in the same call where the system can.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn accept(socket: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    socket.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn accept(socket: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    let (accepted, peer) = socket.accept()?;
    accepted.set_nonblocking(true)?;
    Ok((accepted, peer))
}

/// Whether the connection that was to be accepted was gone: not the listener's trouble.
///
/// Source: accept(2), "Error handling"; libevent `EVUTIL_ERR_ACCEPT_RETRIABLE`.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    if matches!(
        error.kind(),
        K::Interrupted
            | K::ConnectionAborted
            | K::ConnectionReset
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::TimedOut
    ) {
        return true;
    }
    #[cfg(unix)]
    return matches!(
        error.raw_os_error(),
        Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN | libc::EOPNOTSUPP | libc::EPERM)
    );
    #[cfg(not(unix))]
    false
}
