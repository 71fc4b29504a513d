//! A listener: accepts connections into bufferevents.
//!
//! When it accepts, whom it calls and when it rests is core's [`Acceptor`]; how it accepts, and on which loops, is here.
//!
//! # Invariants
//! - A connection is non-blocking, and closed on exec, before anybody has it.
//! - The registration is dropped before the descriptor is closed.
//! - For several loops there is one listener each, or one that hands out: see [`ListenerBuilder::bind_each`].
//!
//! Source: libevent `listener.c`.

mod spread;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(unix)]
use std::os::fd::OwnedFd as OwnedSource;
#[cfg(windows)]
use std::os::windows::io::OwnedSocket as OwnedSource;

use bufferevent_core::accept::{
    ACCEPTS_PER_TURN, Acceptor, Attempt, BACKLOG, OnAccept, Source, Trouble, is_gone,
};
use bufferevent_core::{Bev, Error, Options};
use evreactor::{Interest, LoopHandle, Priority, Registration};
use evreactor_core::sync::{Arc, Mutex};
use socket2::{Domain, Socket, Type};

use crate::NAME;
use crate::address::{Address, IntoAddress};
use crate::builder::Builder;

pub use bufferevent_core::accept::Accepted;
pub use spread::Sharing;
use spread::Spread;

/// What accepts from a listening socket.
struct Sockets {
    registration: Mutex<Option<Registration>>,
    socket: Socket,
    events: LoopHandle,
    terms: Terms,
    /// Who else gets connections from here.
    spread: Option<Spread>,
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

/// Accepts connections until it is dropped.
#[doc(alias = "evconnlistener")]
#[doc(alias = "evconnlistener_free")]
#[must_use = "dropping the listener closes it"]
pub struct Listener {
    acceptor: Arc<Acceptor<Sockets>>,
    unlink: Option<PathBuf>,
    /// Nobody else has the socket, unless the system does.
    own: bool,
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
        let accept: OnAccept<_> = Box::new(move |bev, peer| accept(bev, peer).failure());
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
        let accept: OnAccept<_> = Box::new(move |bev, peer| accept(bev, peer).failure());
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
        accept: OnAccept<Address>,
        spread: Option<Spread>,
        unlink: Option<PathBuf>,
    ) -> Result<Listener, Error> {
        let system = |operation| move |source| Error::io(NAME, operation, source);
        socket
            .set_nonblocking(true)
            .map_err(system("nonblocking"))?;
        let sockets = Sockets {
            registration: Mutex::new(None),
            socket,
            events: self.events.clone(),
            terms: self.terms,
            spread,
        };
        let host = self.events.host();
        let acceptor = Acceptor::new(host, sockets, accept, self.accepts_per_turn, self.enabled);
        let sockets = acceptor.source();
        let (target, priority) = (acceptor.clone(), self.terms.priority);
        let registration = self
            .events
            .register(&sockets.socket, Interest::READ, priority, target, 0)
            .map_err(system("register"))?;
        *sockets.registration.lock() = Some(registration);
        Ok(Listener {
            acceptor,
            unlink,
            own: self.own,
        })
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
            backlog: BACKLOG.into(),
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
        let sockets = self.acceptor.source();
        sockets
            .socket
            .local_addr()
            .map(|address| Address::from_sockaddr(&address))
            .map_err(|source| Error::io(NAME, "local_addr", source))
    }

    /// Accepts again after [`disable`](Self::disable). Connections that waited are taken in the loop's next turn.
    #[doc(alias = "evconnlistener_enable")]
    pub fn enable(&self) {
        self.acceptor.enable();
    }

    /// Stops accepting; new connections wait in the system's queue.
    #[doc(alias = "evconnlistener_disable")]
    pub fn disable(&self) {
        self.acceptor.disable();
    }

    /// Has `report` called when accepting fails for another reason than a connection that was gone.
    #[doc(alias = "evconnlistener_set_error_cb")]
    pub fn on_error(&self, report: impl FnMut(&Error) + Send + 'static) {
        self.acceptor.on_error(report);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.acceptor.accepted()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.acceptor.close();
        let sockets = self.acceptor.source();
        let registration = sockets.registration.lock().take();
        drop(registration);
        // A backend that completes operations has the socket for a turn longer. Where a listening socket has no such end, it is closed.
        if self.own {
            let _ = sockets.socket.shutdown(std::net::Shutdown::Read);
        }
        if let Some(spread) = &sockets.spread {
            spread.close();
        }
        if let Some(path) = &self.unlink
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

impl Source for Sockets {
    type Connection = (Socket, Address);
    type Peer = Address;
    const LAYER: &'static str = NAME;

    fn attempt(&self) -> Attempt<Self::Connection> {
        match accept(&self.socket) {
            Ok((socket, peer)) => Attempt::Connection((socket, Address::from_sockaddr(&peer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Attempt::Nothing,
            Err(error) if is_gone(&error) || is_gone_here(&error) => Attempt::Gone,
            Err(error) => Attempt::Failed(error),
        }
    }

    fn rest(&self) {
        if let Some(registration) = &*self.registration.lock()
            && let Err(error) = registration.rearm()
        {
            tracing::warn!(%error, "a listener could not be re-armed");
        }
    }

    fn give_away(&self, connection: Self::Connection) -> Option<Self::Connection> {
        match &self.spread {
            Some(spread) => spread.hand_out(connection),
            None => Some(connection),
        }
    }

    fn make(&self, (socket, peer): Self::Connection) -> Result<(Bev, Address), Error> {
        Ok((self.terms.make(&self.events, socket)?, peer))
    }

    fn log(&self, trouble: Trouble<'_>) {
        match trouble {
            Trouble::Failed(error) => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(%error, cause, "accepting has failed and pauses");
            }
            Trouble::Refused(error) => {
                tracing::warn!(%error, "an accepted connection was refused");
            }
        }
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

/// What else of this system's errors says that the connection which was to be accepted was gone.
#[cfg(unix)]
fn is_gone_here(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN | libc::EOPNOTSUPP | libc::EPERM)
    )
}

/// Where the kinds say it all.
#[cfg(not(unix))]
fn is_gone_here(_error: &io::Error) -> bool {
    false
}
