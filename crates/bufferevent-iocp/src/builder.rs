//! Making bufferevents over completions, and asking for what is below them.
//!
//! # Invariants
//! - A bufferevent is made only on a loop whose backend completes operations; any other loop is refused, typed.
//! - When something fails on the way, what was given by value is closed.

use std::fmt;
use std::io;

use bufferevent_core::resolve::hunt::Rules;
use bufferevent_core::resolve::race::Pace;
use bufferevent_core::resolve::{Family, Resolve};
use bufferevent_core::{Bev, Context, Error, Handler, Kind, Options};
use evbuffer::EvBuffer;
use evreactor::{LoopHandle, Priority, RawSource};
use evreactor_core::sync::Arc;
use socket2::SockAddr;

#[cfg(unix)]
use std::os::fd::OwnedFd as OwnedSource;
#[cfg(windows)]
use std::os::windows::io::OwnedSocket as OwnedSource;

use crate::NAME;
use crate::port::Port;
use crate::socket::{Socket, check};

/// Makes bufferevents over completions.
#[must_use = "a builder makes nothing until it is told what of"]
pub struct Builder<'a> {
    events: &'a LoopHandle,
    options: Options,
    handler: Option<Box<dyn Handler + Send>>,
    priority: Priority,
    nodelay: bool,
    pace: Pace,
}

impl fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .field("priority", &self.priority)
            .field("nodelay", &self.nodelay)
            .finish_non_exhaustive()
    }
}

/// The port of a loop, or why there is none.
pub(crate) fn port_of(events: &LoopHandle, operation: &'static str) -> Result<Arc<Port>, Error> {
    Port::of(events).ok_or_else(|| {
        let why = format!(
            "the loop's backend is {:?}, which completes no operations; build the loop with the backend {:?}",
            events.backend(),
            crate::BACKEND
        );
        Error::new(Kind::Unsupported, NAME, operation)
            .with_source(io::Error::new(io::ErrorKind::Unsupported, why))
    })
}

impl<'a> Builder<'a> {
    /// A builder for bufferevents on `events`.
    pub fn new(events: &'a LoopHandle) -> Self {
        Self {
            events,
            options: Options::EMPTY,
            handler: None,
            priority: Priority::default(),
            nodelay: false,
            pace: Pace::DEFAULT,
        }
    }

    /// The options.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The handler.
    pub fn handler(mut self, handler: impl Handler + Send) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// How urgent it is to the loop.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sends small segments at once (TCP_NODELAY). Of no effect on Unix-domain sockets.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How fast the addresses of a name are tried: RFC 8305's pace, unless told otherwise.
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// A bufferevent without a socket; [`CompletionExt::connect`] makes one.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] on a loop whose backend completes no operations;
    /// [`Kind::WrongThread`] from another thread than the loop's.
    #[doc(alias = "bufferevent_async_new")]
    pub fn unconnected(self) -> Result<Bev, Error> {
        let port = port_of(self.events, "new")?;
        let bev = Bev::transport(
            self.events.host(),
            self.options,
            Socket::new(port, self.events.clone()),
        )?;
        self.finished(bev)
    }

    /// A bufferevent that connects to `address`. [`Event::Connected`](bufferevent_core::Event::Connected) or an error tells what came
    /// of it, never from inside this call. Data may be written at once and is sent after.
    ///
    /// # Errors
    /// As [`unconnected`](Self::unconnected), and where no socket could be made.
    #[doc(alias = "bufferevent_async_connect")]
    pub fn connect(self, address: impl Into<SockAddr>) -> Result<Bev, Error> {
        let nodelay = self.nodelay;
        let bev = self.unconnected()?;
        bev.connect(address)?;
        if nodelay {
            set_nodelay(&bev)?;
        }
        Ok(bev)
    }

    /// A bufferevent that connects to `host`, a name or an address, by what `resolver` knows of it. See
    /// [`CompletionExt::connect_hostname`].
    ///
    /// # Errors
    /// As [`unconnected`](Self::unconnected); [`Kind::LoopClosed`]. What is wrong with the name, or with all its addresses, comes as an
    /// event.
    #[doc(alias = "bufferevent_socket_connect_hostname")]
    pub fn connect_hostname(
        self,
        resolver: &(impl Resolve + ?Sized),
        family: Family,
        host: &str,
        port: u16,
    ) -> Result<Bev, Error> {
        let mut rules = Rules::to(port, NAME);
        rules.pace = self.pace;
        let nodelay = self.nodelay;
        let bev = self.unconnected()?;
        connect_by_name(&bev, resolver, (host, family), rules, nodelay)?;
        Ok(bev)
    }

    /// A bufferevent over a connected stream socket that is given away. It is closed with the bufferevent, when what was handed over
    /// has left.
    ///
    /// # Errors
    /// As [`unconnected`](Self::unconnected); [`Kind::Unsupported`] for datagram sockets and those that are not connected; what
    /// the system says.
    #[doc(alias = "bufferevent_async_new")]
    pub fn stream(self, stream: impl Into<OwnedSource>) -> Result<Bev, Error> {
        let owned: OwnedSource = stream.into();
        let socket = socket2::Socket::from(owned);
        check(&socket, "new")?;
        self.connected(Some(socket))
    }

    /// A bufferevent over a socket that is known to be connected, or over what the driver brings itself.
    pub(crate) fn connected(self, socket: Option<socket2::Socket>) -> Result<Bev, Error> {
        let port = port_of(self.events, "new")?;
        let nodelay = self.nodelay;
        let layer = Socket::new(port, self.events.clone());
        let bev = Bev::transport(self.events.host(), self.options, layer)?;
        let (target, key) = bev.target()?;
        let priority = self.priority;
        with_socket(&bev, |layer, cx| {
            layer.place(socket, target, key, priority)?;
            cx.connected_quietly();
            cx.became_ready(bufferevent_core::Directions::BOTH);
            Ok::<(), Error>(())
        })??;
        if nodelay {
            set_nodelay(&bev)?;
        }
        self.finished(bev)
    }

    fn finished(self, bev: Bev) -> Result<Bev, Error> {
        if self.priority != Priority::default() {
            bev.set_priority(self.priority)?;
        }
        if let Some(handler) = self.handler {
            bev.replace_handler(Some(handler))?;
        }
        Ok(bev)
    }
}

fn set_nodelay(bev: &Bev) -> Result<(), Error> {
    with_descriptor(bev, "nodelay", |socket| {
        // Windows tells no address of a socket that is about to connect: it has none yet.
        if socket.local_addr().is_ok_and(|address| address.is_unix()) {
            return Ok(());
        }
        socket.set_tcp_nodelay(true)
    })
}

pub(crate) fn with_socket<R>(
    bev: &Bev,
    call: impl FnOnce(&mut Socket, &mut Context<'_>) -> R,
) -> Result<R, Error> {
    if bev.is_freed() {
        return Err(Error::new(Kind::Freed, NAME, "socket"));
    }
    match bev.layer::<Socket>() {
        Some(socket) => socket.with(call),
        None => Err(Error::new(Kind::Unsupported, "bufferevent", "socket")),
    }
}

fn with_descriptor<R>(
    bev: &Bev,
    operation: &'static str,
    ask: impl FnOnce(&socket2::Socket) -> io::Result<R>,
) -> Result<R, Error> {
    with_socket(bev, |layer, _| {
        let lane = layer.lane();
        let answer = layer
            .port()
            .desk(|desk| lane.and_then(|lane| desk.socket(lane)).map(ask));
        answer
            .ok_or_else(|| Error::new(Kind::Unsupported, NAME, operation))?
            .map_err(|source| Error::io(NAME, operation, source))
    })?
}

/// Begins to connect by name, by the given rules.
fn connect_by_name(
    bev: &Bev,
    resolver: &(impl Resolve + ?Sized),
    host: (&str, Family),
    rules: Rules,
    nodelay: bool,
) -> Result<(), Error> {
    bev.key()?;
    let socket = bev
        .layer::<Socket>()
        .ok_or_else(|| Error::new(Kind::Unsupported, "bufferevent", "connect_hostname"))?;
    let place = socket
        .bev()
        .ok_or_else(|| Error::new(Kind::Freed, NAME, "connect_hostname"))?
        .target()?;
    let manner = (rules, nodelay, bev.priority());
    socket.with(|socket, cx| socket.connect_hostname(cx, resolver, host, manner, place))?
}

/// Operations of the completion socket under a bufferevent, through any stack that stands on one.
pub trait CompletionExt {
    /// Begins to connect: makes a socket. `Connected` or an error tells what came of it, exactly once and never from
    /// inside this call.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if there is a socket already; [`Kind::Unsupported`] where there is no completion socket in the stack; what the
    /// system says where no socket could be made.
    #[doc(alias = "bufferevent_async_connect")]
    fn connect(&self, address: impl Into<SockAddr>) -> Result<(), Error>;

    /// Begins to connect to `host`, a name or an address: `resolver` is asked for its addresses, and they are tried as RFC 8305 has it, the next a
    /// quarter of a second after the last. The first that stands is the connection. `Connected` or an error tells what came of it,
    /// exactly once and never from inside this call; [`Bev::dns_error`] tells whether it was the name.
    ///
    /// An address, also one of IPv6 in brackets, is not looked up. A resolver that asks on this loop itself has to be able to watch its sockets
    /// there: on completion ports, which watch nothing, use one that asks on threads, or elsewhere.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if it is connected or connecting already; [`Kind::Unsupported`] where there is no completion socket in the stack. What is
    /// wrong with the name comes as the event.
    ///
    /// # Examples
    /// ```
    /// use bufferevent_core::resolve::{Family, Lookup, Question, Reply, Resolve};
    /// use bufferevent_core::{Event, on_event};
    /// use bufferevent_iocp::{Builder, CompletionExt};
    ///
    /// /// Every name is this machine. Real resolvers are in `bufferevent-dns`.
    /// struct Here;
    /// impl Resolve for Here {
    ///     fn resolve(&self, _: &Question, reply: Reply) -> Lookup {
    ///         reply.answer(Family::Any, Ok(vec![([127, 0, 0, 1], 0).into()]));
    ///         Lookup::done()
    ///     }
    /// }
    ///
    /// # if bufferevent_iocp::available().is_err() { return Ok(()) }
    /// let events = bufferevent_iocp::builder()?.build()?;
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stop = events.clone();
    /// let bev = Builder::new(&events)
    ///     .handler(on_event(move |_, event| {
    ///         assert!(matches!(event, Event::Connected));
    ///         stop.exit();
    ///     }))
    ///     .unconnected()?;
    /// bev.connect_hostname(&Here, Family::Any, "example.org", listener.local_addr()?.port())?;
    /// events.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "bufferevent_socket_connect_hostname")]
    fn connect_hostname(
        &self,
        resolver: &(impl Resolve + ?Sized),
        family: Family,
        host: &str,
        port: u16,
    ) -> Result<(), Error>;

    /// Frees the bufferevent and gives its socket back, with what was unread and unsent. Waits, at most a second, until what is
    /// under way has ended.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if there is no socket at this very bufferevent; a `WouldBlock` of the system's if bytes that were
    /// handed over do not leave: then nothing has changed but that reading pauses; [`Kind::Covered`], [`Kind::Freed`].
    fn into_transport(self) -> Result<Parts, Error>;

    /// The descriptor, or `None` where there is none. Nobody but the driver may read from it or write to it.
    #[doc(alias = "bufferevent_getfd")]
    fn fd(&self) -> Option<RawSource>;

    /// The local address.
    ///
    /// # Errors
    /// What the system says; [`Kind::Unsupported`] without a socket.
    fn local_addr(&self) -> Result<SockAddr, Error>;

    /// The peer's address.
    ///
    /// # Errors
    /// What the system says; [`Kind::Unsupported`] without a socket.
    fn peer_addr(&self) -> Result<SockAddr, Error>;
}

/// What a bufferevent over a socket was made of.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts {
    /// The socket.
    pub stream: OwnedSource,
    /// What was read and not taken.
    pub unread: EvBuffer,
    /// What was written and not sent.
    pub unsent: EvBuffer,
}

impl CompletionExt for Bev {
    fn connect(&self, address: impl Into<SockAddr>) -> Result<(), Error> {
        let address = address.into();
        let socket = self
            .layer::<Socket>()
            .ok_or_else(|| Error::new(Kind::Unsupported, "bufferevent", "connect"))?;
        let bev = socket
            .bev()
            .ok_or_else(|| Error::new(Kind::Freed, NAME, "connect"))?;
        let (target, key) = bev.target()?;
        let priority = self.priority();
        socket.with(|socket, cx| socket.connect(cx, address, target, key, priority))?
    }

    fn connect_hostname(
        &self,
        resolver: &(impl Resolve + ?Sized),
        family: Family,
        host: &str,
        port: u16,
    ) -> Result<(), Error> {
        let rules = Rules::to(port, NAME);
        connect_by_name(self, resolver, (host, family), rules, false)
    }

    fn into_transport(self) -> Result<Parts, Error> {
        if self.underlying().is_some() {
            return Err(Error::new(
                Kind::Unsupported,
                "bufferevent",
                "into_transport",
            ));
        }
        // The socket first: what is taken out of an input makes room, and more would be pulled.
        let (stream, mut rest) = with_socket(&self, |socket, _| socket.take())??;
        let mut unread = EvBuffer::new();
        self.read_buffer(&mut unread)?;
        // Their sum was one stream's.
        let _ = unread.append(&mut rest);
        let unsent = with_socket(&self, |_, cx| cx.take_output())?;
        self.free()?;
        Ok(Parts {
            stream: stream.into(),
            unread,
            unsent,
        })
    }

    fn fd(&self) -> Option<RawSource> {
        with_descriptor(self, "fd", |socket| Ok(crate::desk::raw(Some(socket)))).ok()
    }

    fn local_addr(&self) -> Result<SockAddr, Error> {
        with_descriptor(self, "local_addr", socket2::Socket::local_addr)
    }

    fn peer_addr(&self) -> Result<SockAddr, Error> {
        with_descriptor(self, "peer_addr", socket2::Socket::peer_addr)
    }
}
