//! What only a socket can do, through any stack that stands on one.
//!
//! # Invariants
//! - Each call finds the socket from the top of the stack downwards; where there is none, it answers
//!   [`Kind::Unsupported`] and changes nothing.
//! - Each changes the socket in one go under the stack's lock: with THREADSAFE any thread may call it, while the loop runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::resolve::hunt::Rules;
use bufferevent_core::resolve::{Family, Resolve};
use bufferevent_core::{
    Bev, Bufferevent as _, Context, Deadline, Direction, Directions, Error, Kind, LayerRef,
    Options, Rate, RateGroup, Watermark,
};
use evreactor::{LoopHandle, RawSource, Target};

#[cfg(unix)]
use std::os::fd::{AsRawFd as _, OwnedFd as OwnedSource};
#[cfg(windows)]
use std::os::windows::io::{AsRawSocket as _, OwnedSocket as OwnedSource};

use crate::NAME;
use crate::address::{Address, IntoAddress};
use crate::builder::Builder;
use crate::descriptor::Descriptor;
use crate::socket::Socket;

pub(crate) fn with_socket<R>(
    bev: &Bev,
    call: impl FnOnce(&mut Socket, &mut Context<'_>) -> R,
) -> Result<R, Error> {
    // Freed, or on the wrong thread.
    bev.key()?;
    match bev.layer::<Socket>() {
        Some(socket) => socket.with(call),
        None => Err(Error::new(Kind::Unsupported, "bufferevent", "socket")),
    }
}

/// Operations of the socket under a bufferevent.
pub trait SocketExt {
    /// Begins to connect: makes a socket where there is none, else uses the one that is set. `Connected` or an error tells what
    /// came of it, exactly once and never from inside this call.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if it is connected or connecting already, or the address is none; [`Kind::Unsupported`] where there is
    /// no socket in the stack; what the system says where no socket could be made.
    #[doc(alias = "bufferevent_socket_connect")]
    fn connect(&self, address: impl IntoAddress) -> Result<(), Error>;

    /// Begins to connect to `host`, a name or an address: `resolver` is asked for its addresses, and they are tried as RFC 8305 has it, the next a
    /// quarter of a second after the last. The first that stands is the connection. `Connected` or an error tells what came of it,
    /// exactly once and never from inside this call; [`Bev::dns_error`] tells whether it was the name.
    ///
    /// An address, also one of IPv6 in brackets, is not looked up. Where a socket is set it is used, for the first address of
    /// its family.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if it is connected or connecting already, or if the socket that is set is of another family;
    /// [`Kind::Unsupported`] where there is no socket in the stack. What is wrong with the name comes as the event.
    ///
    /// # Examples
    /// ```
    /// use bufferevent_core::resolve::{Family, Lookup, Question, Reply, Resolve};
    /// use bufferevent_core::{Event, on_event};
    /// use bufferevent_socket::{Builder, SocketExt};
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
    /// let events = evreactor::EventLoop::new()?;
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
    #[doc(alias = "bufferevent_socket_connect_hostname_hints")]
    fn connect_hostname(
        &self,
        resolver: &(impl Resolve + ?Sized),
        family: Family,
        host: &str,
        port: u16,
    ) -> Result<(), Error>;

    /// Asks to be told `Connected` of a connection that was begun by hand.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    #[doc(alias = "bufferevent_socket_connect")]
    fn tell_connected(&self) -> Result<(), Error>;

    /// Gives the bufferevent a socket, in place of the one it has; that one is closed if it was the library's, and left alone if it was
    /// borrowed.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] as [`Builder::stream`](crate::Builder::stream) says, and where there is no socket in the stack; what the system
    /// says.
    #[doc(alias = "bufferevent_setfd")]
    #[doc(alias = "bufferevent_replacefd")]
    fn set_stream(&self, stream: impl Into<OwnedSource>) -> Result<(), Error>;

    /// Frees the bufferevent and gives its socket back, with what was unread and unsent. See [`Parts`].
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if there is no socket at this very bufferevent, or it is borrowed; [`Kind::Covered`], [`Kind::Freed`].
    fn into_transport(self) -> Result<Parts, Error>;

    /// Moves the socket to another loop, of this thread or, with THREADSAFE, of any: frees this bufferevent and returns its successor
    /// there, with the options, unread and unsent bytes, marks, deadlines, rate limits, group, enabled directions and handler of this one. A
    /// limit goes on where it is, with what it has to give or is owed. An end that was asked for (`finish`) comes behind the unsent bytes there, and
    /// `Written` tells of it there. Statistics begin anew, and so do deadlines; a `max_output` is to be set again.
    ///
    /// # Errors
    /// As [`into_transport`](Self::into_transport), and nothing is changed then. [`Kind::LoopClosed`] and what the system says where the other
    /// loop does not take the socket: the connection is closed then.
    #[doc(alias = "bufferevent_base_set")]
    fn move_to_loop(&self, events: &LoopHandle) -> Result<Bev, Error>;

    /// The descriptor, or `None` where there is none, or another thread is in the stack while this one holds another's lock.
    ///
    /// # Panics
    /// On another thread than the loop's, without THREADSAFE.
    #[doc(alias = "bufferevent_getfd")]
    fn fd(&self) -> Option<RawSource>;

    /// The local address.
    ///
    /// # Errors
    /// What the system says; [`Kind::Unsupported`] without a socket.
    fn local_addr(&self) -> Result<Address, Error>;

    /// The peer's address.
    ///
    /// # Errors
    /// What the system says; [`Kind::Unsupported`] without a socket.
    fn peer_addr(&self) -> Result<Address, Error>;
}

/// What a bufferevent over a socket was made of.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts {
    /// The socket.
    pub stream: OwnedSource,
    /// What was read and not taken.
    pub unread: evbuffer::EvBuffer,
    /// What was written and not sent.
    pub unsent: evbuffer::EvBuffer,
}

/// What a user has set on a bufferevent, and what goes along to another loop.
struct Settings {
    marks: [(Direction, Watermark); 2],
    /// The most that is read and written in a turn.
    single: (usize, usize),
    deadlines: [(Deadline, Option<Duration>); 8],
    /// Rates, with what they would let pass now.
    limits: [(Direction, Option<(Rate, i64)>); 2],
    group: Option<RateGroup>,
}

impl Settings {
    fn of(bev: &Bev) -> Self {
        let each = [Direction::Read, Direction::Write];
        // `Close` comes of a call, and is over with it.
        let deadlines = [
            Deadline::Read,
            Deadline::Write,
            Deadline::Idle,
            Deadline::Resolve,
            Deadline::Connect,
            Deadline::Handshake,
            Deadline::HalfClosed,
            Deadline::Drain,
        ];
        let limit = |direction| bev.rate_limit(direction).zip(bev.rate_level(direction));
        Self {
            marks: each.map(|direction| (direction, bev.watermark(direction))),
            single: (bev.max_single_read(), bev.max_single_write()),
            deadlines: deadlines.map(|which| (which, bev.deadline(which))),
            limits: each.map(|direction| (direction, limit(direction))),
            group: bev.rate_group(),
        }
    }

    /// Sets it on a new bufferevent. What is as by default costs nothing.
    fn set_on(&self, bev: &Bev) -> Result<(), Error> {
        for (direction, mark) in self.marks {
            bev.set_watermark(direction, mark.low(), mark.high())?;
        }
        let (read, write) = self.single;
        if bev.max_single_read() != read {
            bev.set_max_single_read(read)?;
        }
        if bev.max_single_write() != write {
            bev.set_max_single_write(write)?;
        }
        for (which, span) in self.deadlines {
            if span.is_some() {
                bev.set_deadline(which, span)?;
            }
        }
        for (direction, limit) in self.limits {
            if let Some((rate, level)) = limit {
                bev.set_rate_limit(direction, Some(rate))?;
                let fresh = bev.rate_level(direction).unwrap_or(level);
                bev.charge_rate_limit(direction, fresh.saturating_sub(level))?;
            }
        }
        match &self.group {
            Some(group) => bev.join_rate_group(group),
            None => Ok(()),
        }
    }
}

impl SocketExt for Bev {
    fn connect(&self, address: impl IntoAddress) -> Result<(), Error> {
        let address = address.into_address()?;
        self.key()?;
        let socket = self
            .layer::<Socket>()
            .ok_or_else(|| Error::new(Kind::Unsupported, "bufferevent", "connect"))?;
        let (target, key) = target_of(&socket)?;
        let priority = self.priority();
        socket.with(|socket, cx| {
            socket.connect(cx, &address)?;
            socket.register(target, key, priority)?;
            cx.ready_later();
            Ok(())
        })?
    }

    fn connect_hostname(
        &self,
        resolver: &(impl Resolve + ?Sized),
        family: Family,
        host: &str,
        port: u16,
    ) -> Result<(), Error> {
        connect_by_name(self, resolver, (host, family), Rules::to(port, NAME), false)
    }

    fn tell_connected(&self) -> Result<(), Error> {
        with_socket(self, |socket, cx| {
            let was_silent = socket.tell_connected();
            // One that stands already is told of as well, in the loop's next turn.
            if was_silent && socket.descriptor().is_some() && !cx.connecting() {
                cx.connect_begun();
                cx.ready_later();
            }
        })
    }

    fn set_stream(&self, stream: impl Into<OwnedSource>) -> Result<(), Error> {
        const OPERATION: &str = "set_stream";
        let owned: OwnedSource = stream.into();
        let descriptor = Descriptor::Owned(owned.into());
        let connected = Socket::check(&descriptor, OPERATION)?;
        let descriptor = descriptor
            .nonblocking()
            .map_err(|source| Error::io(NAME, OPERATION, source))?;
        self.key()?;
        let socket = self
            .layer::<Socket>()
            .ok_or_else(|| Error::new(Kind::Unsupported, "bufferevent", OPERATION))?;
        let (target, key) = target_of(&socket)?;
        let priority = self.priority();
        socket.with(|socket, cx| {
            drop(socket.take_descriptor());
            socket.put_descriptor(descriptor);
            socket.register(target, key, priority)?;
            if connected {
                cx.connected_quietly();
                cx.became_ready(Directions::BOTH);
            } else {
                socket.adopt_connecting(cx);
            }
            Ok(())
        })?
    }

    fn into_transport(self) -> Result<Parts, Error> {
        let (parts, ()) = take_apart(&self, "into_transport", |_| Ok(()))?;
        Ok(parts)
    }

    fn move_to_loop(&self, events: &LoopHandle) -> Result<Bev, Error> {
        let (mut parts, (options, settings, enabled, ends, handler)) =
            take_apart(self, "move_to_loop", |cx| {
                let kept = [
                    Options::CLOSE_ON_FREE,
                    Options::THREADSAFE,
                    Options::DEFER_CALLBACKS,
                    Options::UNLOCK_CALLBACKS,
                ];
                let mut options = Options::EMPTY;
                for option in kept.into_iter().filter(|option| self.has_option(*option)) {
                    options.insert(option);
                }
                let (settings, enabled) = (Settings::of(self), self.enabled());
                let handler = self.replace_handler(None)?;
                Ok((options, settings, enabled, cx.ends(), handler))
            })?;
        let bev = Builder::new(events).options(options).stream(parts.stream)?;
        settings.set_on(&bev)?;
        with_socket(&bev, |_, cx| cx.restore_input(&mut parts.unread))?;
        // Before its loop has anything to do for it, which may be another thread's.
        bev.replace_handler(handler)?;
        bev.disable(Directions::BOTH.without(enabled))?;
        bev.write_buffer(&mut parts.unsent)?;
        if ends {
            bev.finish()?;
        }
        if enabled.contains(Directions::READ) {
            bev.enable(Directions::READ)?;
        }
        Ok(bev)
    }

    fn fd(&self) -> Option<RawSource> {
        let socket = self.layer::<Socket>()?;
        let descriptor = socket.with(|socket, _| {
            let socket = socket.descriptor()?.socket();
            #[cfg(unix)]
            return Some(socket.as_raw_fd());
            #[cfg(windows)]
            return Some(socket.as_raw_socket());
        });
        descriptor.ok()?
    }

    fn local_addr(&self) -> Result<Address, Error> {
        address(self, "local_addr", socket2::Socket::local_addr)
    }

    fn peer_addr(&self) -> Result<Address, Error> {
        address(self, "peer_addr", socket2::Socket::peer_addr)
    }
}

/// Takes the socket out of `bev`, with all that waits, and frees that. `look` sees it before, when nothing can refuse any more. All of it under one
/// lock: no byte comes or goes meanwhile.
fn take_apart<R>(
    bev: &Bev,
    operation: &'static str,
    look: impl FnOnce(&Context<'_>) -> Result<R, Error>,
) -> Result<(Parts, R), Error> {
    bev.key()?;
    if bev.underlying().is_some() {
        return Err(Error::new(Kind::Unsupported, "bufferevent", operation));
    }
    let refusal = || Error::new(Kind::Unsupported, NAME, operation);
    with_socket(bev, |socket, cx| {
        // Refused before anything is changed.
        if !matches!(socket.descriptor(), Some(Descriptor::Owned(_))) {
            return Err(refusal());
        }
        let mut unread = evbuffer::EvBuffer::new();
        bev.read_buffer(&mut unread)?;
        let looked = look(cx).inspect_err(|_| cx.restore_input(&mut unread))?;
        let stream = socket.take_descriptor().map(Descriptor::into_owned);
        let Some(Ok(stream)) = stream else {
            return Err(refusal());
        };
        let unsent = cx.take_output();
        bev.free()?;
        let parts = Parts {
            stream: stream.into(),
            unread,
            unsent,
        };
        Ok((parts, looked))
    })?
}

/// Begins to connect by name, by the given rules.
pub(crate) fn connect_by_name(
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
    let place = target_of(&socket)?;
    let manner = (rules, nodelay, bev.priority());
    socket.with(|socket, cx| socket.connect_hostname(cx, resolver, host, manner, place))?
}

fn target_of(socket: &LayerRef<Socket>) -> Result<(Arc<dyn Target>, u64), Error> {
    socket
        .bev()
        .ok_or_else(|| Error::new(Kind::Freed, NAME, "socket"))?
        .target()
}

fn address(
    bev: &Bev,
    operation: &'static str,
    ask: impl FnOnce(&socket2::Socket) -> io::Result<socket2::SockAddr>,
) -> Result<Address, Error> {
    with_socket(bev, |socket, _| {
        let name = socket.name();
        let descriptor = socket
            .descriptor()
            .ok_or_else(|| Error::new(Kind::Unsupported, name, operation))?;
        ask(descriptor.socket())
            .map(|address| Address::from_sockaddr(&address))
            .map_err(|source| Error::io(name, operation, source))
    })?
}
