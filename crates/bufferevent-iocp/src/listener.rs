//! A listener whose accepts are under way in the system: connections come as completions.
//!
//! When it accepts, whom it calls and when it rests is core's [`Acceptor`]; here is where connections come from.
//!
//! # Rules
//! 1. One accept is under way for as long as the listener accepts; each connection is one completion of it. At most 256 wait for their
//!    callback: then accepting stops until they are fetched, and the rest waits in the system's queue.
//! 2. While accepting pauses, no accept is under way.
//!
//! Source: libevent `listener.c`, its IOCP half.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bufferevent_core::accept::{
    ACCEPTS_PER_TURN, Acceptor, Attempt, BACKLOG, OnAccept, Source, Trouble, is_gone,
};
use bufferevent_core::{Bev, Error, Options};
use evreactor::{LoopHandle, Priority, Registration};
use evreactor_core::sync::{Arc, Mutex};
use socket2::{SockAddr, Socket, Type};

use crate::NAME;
use crate::builder::{Builder, port_of};
use crate::driver::{Lane, Verb};
use crate::port::Port;

pub use bufferevent_core::accept::Accepted;

/// What accepts from a lane.
struct Lanes {
    /// Whom the port tells, and of which lane; nothing until the listener stands, and when it is dropped.
    place: Mutex<Option<(Registration, Lane)>>,
    port: Arc<Port>,
    events: LoopHandle,
    options: Options,
    priority: Priority,
    nodelay: bool,
}

/// Accepts connections until it is dropped.
#[doc(alias = "evconnlistener_new_async")]
#[must_use = "dropping the listener closes it"]
pub struct Listener {
    acceptor: Arc<Acceptor<Lanes>>,
    unlink: Option<PathBuf>,
    /// It bound the socket itself: nobody else has it.
    own: bool,
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
        on_accept: OnAccept<SockAddr>,
        unlink: Option<PathBuf>,
        own: bool,
    ) -> Result<Listener, Error> {
        let system = |source| Error::io(NAME, "listen", source);
        let port = port_of(self.events, "listen")?;
        let lanes = Lanes {
            place: Mutex::new(None),
            port: port.clone(),
            events: self.events.clone(),
            options: self.options,
            priority: self.priority,
            nodelay: self.nodelay,
        };
        let host = self.events.host();
        let acceptor = Acceptor::new(host, lanes, on_accept, ACCEPTS_PER_TURN, self.enabled);
        let registration = self
            .events
            .attach(self.priority, acceptor.clone(), 0)
            .map_err(system)?;
        let token = registration.token();
        let lane = port
            .desk(|desk| desk.open(Some(socket), token))
            .map_err(system)?;
        *acceptor.source().place.lock() = Some((registration, lane));
        if self.enabled {
            acceptor.source().rest();
        }
        Ok(Listener {
            acceptor,
            unlink,
            own,
        })
    }
}

fn when_accepted<R: Accepted>(
    mut accept: impl FnMut(Bev, SockAddr) -> R + Send + 'static,
) -> OnAccept<SockAddr> {
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
            backlog: BACKLOG.into(),
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
        let lanes = self.acceptor.source();
        let address = lanes.lane().and_then(|lane| {
            let ask = |socket: &Socket| socket.local_addr();
            lanes.port.desk(|desk| desk.socket(lane).map(ask))
        });
        address
            .unwrap_or_else(|| Err(crate::desk::closed()))
            .map_err(|source| Error::io(NAME, "local_addr", source))
    }

    /// Accepts again after [`disable`](Self::disable).
    pub fn enable(&self) {
        self.acceptor.enable();
    }

    /// Stops accepting; new connections wait in the system's queue, and a few that are accepted already wait here.
    pub fn disable(&self) {
        self.acceptor.disable();
        self.acceptor.source().pause();
    }

    /// Has `report` called when accepting fails for another reason than a connection that was gone.
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
        let Lanes {
            place,
            port,
            events,
            ..
        } = self.acceptor.source();
        let place = place.lock().take();
        if let Some((registration, lane)) = place {
            // The system has the socket until its accept is over. Where a listening socket has no such end, it is closed then.
            if self.own {
                port.desk(|desk| {
                    if let Some(socket) = desk.socket(lane) {
                        let _ = socket.shutdown(std::net::Shutdown::Read);
                    }
                });
            }
            port.detach(events, lane, Verb::Accept);
            drop(registration);
        }
        if let Some(path) = &self.unlink
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

impl Lanes {
    fn lane(&self) -> Option<Lane> {
        self.place.lock().as_ref().map(|(_, lane)| *lane)
    }
}

impl Source for Lanes {
    type Connection = (Socket, SockAddr);
    type Peer = SockAddr;
    const LAYER: &'static str = NAME;

    fn attempt(&self) -> Attempt<Self::Connection> {
        let next = |lane| self.port.desk(|desk| desk.next_accepted(lane));
        match self.lane().and_then(next) {
            // One without a peer is gone already.
            Some(Ok(socket)) => match socket.peer_addr() {
                Ok(peer) => Attempt::Connection((socket, peer)),
                Err(_) => Attempt::Gone,
            },
            Some(Err(error)) if is_gone(&error) => Attempt::Gone,
            Some(Err(error)) => Attempt::Failed(error),
            None => Attempt::Nothing,
        }
    }

    fn rest(&self) {
        if let Some(lane) = self.lane() {
            self.port.desk_from_anywhere(|desk| desk.accept(lane));
        }
    }

    fn pause(&self) {
        if let Some(lane) = self.lane() {
            self.port
                .desk_from_anywhere(|desk| desk.stop_accepting(lane));
        }
    }

    fn make(&self, (socket, peer): Self::Connection) -> Result<(Bev, SockAddr), Error> {
        let bev = Builder::new(&self.events)
            .options(self.options)
            .priority(self.priority)
            .nodelay(self.nodelay)
            .connected(Some(socket))?;
        Ok((bev, peer))
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
