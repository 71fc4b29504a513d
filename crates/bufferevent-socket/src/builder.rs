//! Making socket bufferevents: from nothing, from an address, from a socket that is there.
//!
//! # Invariants
//! - A socket that comes in is made non-blocking and checked: datagram sockets are refused, typed, unharmed, and listening ones
//!   too where the system can be asked (Linux, Android, FreeBSD).
//! - A bufferevent is returned only with its socket registered; when something fails on the way, what was given by
//!   value is closed and what was borrowed is left alone.

use std::fmt;

use bufferevent_core::resolve::hunt::Rules;
use bufferevent_core::resolve::race::Pace;
use bufferevent_core::resolve::{Family, Resolve};
use bufferevent_core::{Bev, Error, Handler, Options, READ};
use evreactor::{LoopHandle, Priority, RawSource};

use crate::NAME;
use crate::address::{Address, IntoAddress};
use crate::descriptor::Descriptor;
#[cfg(unix)]
use crate::descriptor::new_pair;
use crate::socket::Socket;

#[cfg(unix)]
use std::os::fd::OwnedFd as OwnedSource;
#[cfg(windows)]
use std::os::windows::io::OwnedSocket as OwnedSource;

/// Makes a socket bufferevent.
///
/// ```
/// use bufferevent_core::{Options, on_read};
/// use bufferevent_socket::Builder;
///
/// let events = evreactor::EventLoop::new()?;
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let bev = Builder::new(&events)
///     .options(Options::DEFER_CALLBACKS)
///     .handler(on_read(|bev| println!("{} bytes", bev.input().len())))
///     .connect(listener.local_addr()?)?;
/// bev.write(b"sent once connected")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

    /// Sends small segments at once (TCP_NODELAY). Output already leaves in one piece per round of callbacks.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How fast the addresses of a name are tried: RFC 8305's pace, unless told otherwise.
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// A bufferevent without a socket: [`SocketExt::connect`](crate::SocketExt::connect) makes one, or
    /// [`SocketExt::set_stream`](crate::SocketExt::set_stream) gives it one.
    ///
    /// # Errors
    /// [`Kind::WrongThread`](bufferevent_core::Kind::WrongThread) from another thread than the loop's.
    #[doc(alias = "bufferevent_socket_new")]
    pub fn unconnected(self) -> Result<Bev, Error> {
        self.build(None)
    }

    /// A bufferevent that connects to `address`. [`Event::Connected`](bufferevent_core::Event::Connected) or an error tells
    /// what came of it. Data may be written at once and is sent after.
    ///
    /// # Errors
    /// Where no socket could be made, or the address is none; a refusal by the network comes as an event.
    #[doc(alias = "bufferevent_socket_connect")]
    #[doc(alias = "bufferevent_connect")]
    #[doc(alias = "bufferevent_base_connect")]
    pub fn connect(self, address: impl IntoAddress) -> Result<Bev, Error> {
        let address = address.into_address()?;
        let nodelay = self.nodelay && matches!(address, Address::Tcp(_));
        let bev = self.build(None)?;
        crate::SocketExt::connect(&bev, address)?;
        if nodelay {
            set_nodelay(&bev)?;
        }
        Ok(bev)
    }

    /// A bufferevent that connects to `host`, a name or an address, by what `resolver` knows of it. See
    /// [`SocketExt::connect_hostname`](crate::SocketExt::connect_hostname).
    ///
    /// # Errors
    /// [`Kind::WrongThread`](bufferevent_core::Kind::WrongThread); [`Kind::LoopClosed`](bufferevent_core::Kind::LoopClosed). What is
    /// wrong with the name, or with all its addresses, comes as an event.
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
        let bev = self.build(None)?;
        crate::ext::connect_by_name(&bev, resolver, (host, family), rules, nodelay)?;
        Ok(bev)
    }

    /// A bufferevent over a socket that is given away: `TcpStream`, `UnixStream`, any owned stream socket. It is closed with the
    /// bufferevent.
    ///
    /// A socket whose connection is still under way is taken as such: its completion shows as one write callback.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](bufferevent_core::Kind::Unsupported) for datagram sockets, and for listening ones where the system can be asked
    /// (Linux, Android, FreeBSD); what the system says.
    #[doc(alias = "bufferevent_socket_new")]
    #[doc(alias = "bufferevent_new")]
    pub fn stream(self, stream: impl Into<OwnedSource>) -> Result<Bev, Error> {
        let owned: OwnedSource = stream.into();
        self.checked(Descriptor::Owned(owned.into()))
    }

    /// A bufferevent over a descriptor that stays its owner's, unless
    /// [`CLOSE_ON_FREE`](Options::CLOSE_ON_FREE) hands it over when the bufferevent is freed.
    ///
    /// # Safety
    /// `raw` is an open socket and stays open until the bufferevent is freed.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    #[doc(alias = "bufferevent_socket_new")]
    #[expect(unsafe_code, reason = "a raw descriptor's owner must vouch for it")]
    pub unsafe fn borrow_raw(self, raw: RawSource) -> Result<Bev, Error> {
        // SAFETY: the caller's contract is the same.
        let descriptor = unsafe { Descriptor::borrow(raw) };
        self.checked(descriptor)
    }

    fn checked(self, descriptor: Descriptor) -> Result<Bev, Error> {
        let connected = Socket::check(&descriptor, "new")?;
        let descriptor = descriptor
            .nonblocking()
            .map_err(|source| Error::io(NAME, "new", source))?;
        let nodelay = self.nodelay;
        let bev = self.build(Some(descriptor))?;
        if !connected {
            crate::ext::with_socket(&bev, Socket::adopt_connecting)?;
        }
        if nodelay {
            set_nodelay(&bev)?;
        }
        Ok(bev)
    }

    /// A bufferevent over a socket that was just accepted: a stream, connected and non-blocking.
    pub(crate) fn accepted(self, socket: socket2::Socket) -> Result<Bev, Error> {
        let nodelay = self.nodelay;
        let bev = self.build(Some(Descriptor::Owned(socket)))?;
        if nodelay {
            set_nodelay(&bev)?;
        }
        Ok(bev)
    }

    fn build(self, descriptor: Option<Descriptor>) -> Result<Bev, Error> {
        let registers = descriptor.is_some();
        let socket = Socket::new(self.events.clone(), descriptor);
        let bev = Bev::transport(self.events.host(), self.options, socket)?;
        if registers {
            let (target, key) = bev.target()?;
            let priority = self.priority;
            crate::ext::with_socket(&bev, |socket, _| socket.register(target, key, priority))??;
        }
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
    crate::ext::with_socket(bev, |socket, _| match socket.descriptor() {
        // A Unix-domain socket has no such option and needs none.
        Some(descriptor) => match descriptor.socket().set_tcp_nodelay(true) {
            Err(error)
                if descriptor
                    .socket()
                    .local_addr()
                    .is_ok_and(|address| address.is_unix()) =>
            {
                tracing::trace!(%error, "no TCP_NODELAY on a Unix-domain socket");
                Ok(())
            }
            result => result.map_err(|source| Error::io(NAME, "nodelay", source)),
        },
        None => Ok(()),
    })?
}

impl Socket {
    /// A bufferevent that connects to `address`, with default options. See [`Builder::connect`].
    ///
    /// # Errors
    /// As [`Builder::connect`].
    pub fn connect_to(events: &LoopHandle, address: impl IntoAddress) -> Result<Bev, Error> {
        Builder::new(events).connect(address)
    }

    /// Two bufferevents, with default options, over the ends of a new pair of connected Unix-domain sockets: for another process
    /// or thread to hold one of them. Within one thread `bufferevent-pair` does the same without the system.
    ///
    /// # Errors
    /// The system's, such as too many open files; [`Kind::LoopClosed`](bufferevent_core::Kind::LoopClosed).
    ///
    /// Source: libevent `evutil_socketpair`, with a `bufferevent_socket_new` for each end.
    ///
    /// ```
    /// use bufferevent_core::READ;
    /// use bufferevent_socket::Socket;
    ///
    /// let mut events = evreactor::EventLoop::new()?;
    /// let (near, far) = Socket::pair(&events)?;
    /// far.enable(READ)?;
    /// near.write(b"to the other end")?;
    /// while far.input().is_empty() {
    ///     events.run_once()?;
    /// }
    /// assert_eq!(far.input().len(), 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(unix)]
    #[doc(alias = "evutil_socketpair")]
    pub fn pair(events: &LoopHandle) -> Result<(Bev, Bev), Error> {
        let (near, far) = new_pair().map_err(|source| Error::io(NAME, "pair", source))?;
        // They are as an accepted socket is: connected streams that do not block.
        let near = Builder::new(events).accepted(near)?;
        Ok((near, Builder::new(events).accepted(far)?))
    }

    /// A bufferevent over `stream` that reads, with `handler`. See [`Builder::stream`].
    ///
    /// # Errors
    /// As [`Builder::stream`].
    pub fn serve(
        events: &LoopHandle,
        stream: impl Into<OwnedSource>,
        handler: impl Handler + Send,
    ) -> Result<Bev, Error> {
        let bev = Builder::new(events).handler(handler).stream(stream)?;
        bev.enable(READ)?;
        Ok(bev)
    }
}
