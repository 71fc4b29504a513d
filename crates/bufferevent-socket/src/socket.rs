//! The socket type: a stream socket as the transport of a bufferevent.
//!
//! # Rules
//! 1. The socket is registered with the loop once, for both directions. On an edge-triggered backend no call to the system
//!    changes that again; on others it is re-armed when an operation would block.
//! 2. Readiness is believed until an operation says would-block. A short read ends it early only where the backend also
//!    reports a closed peer, and has not: data and FIN may come in one edge.
//! 3. A write is tried before anybody waits for writability.
//! 4. The registration is dropped before the descriptor is closed: it is declared first.
//! 5. While it connects by name there is a hunt in the registration's place, and its sockets are the hunt's.
//!
//! Source: libevent `bufferevent_sock.c`.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;

use bufferevent_core::resolve::hunt::{Outcome, Rules};
use bufferevent_core::resolve::{Family, Question, Resolve};
use bufferevent_core::{Bufferevent, Context, Direction, Error, Kind, Step};
use evreactor::{Interest, LoopHandle, Priority, Ready, Registration};
use evreactor_core::Target;
use socket2::{Domain, SockAddr, Type};

use crate::NAME;
use crate::address::Address;
use crate::by_name::{Attempt, Hunting};
use crate::descriptor::{Descriptor, new_stream};
use crate::transfer::{Sent, receive, send};

/// What a readiness report may say that a short read does not end.
const MORE_BEHIND: Ready = Ready::READ_CLOSED;

/// How a connection that is under way is told of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Telling {
    /// By CONNECTED: this library connects, or was asked to tell.
    Connected,
    /// By one write callback: the user connected by hand.
    Silent,
}

/// What ties the bufferevent to the loop.
#[derive(Debug)]
enum Tie {
    /// The registration of its socket.
    Registered(Registration),
    /// A connection by name that is under way, or nothing.
    Loose(Option<Box<Hunting>>),
}

/// A stream socket as a type of bufferevent. Found in any stack by `bev.layer::<Socket>()`; made by
/// [`Builder`](crate::Builder).
#[derive(Debug)]
pub struct Socket {
    tie: Tie,
    descriptor: Option<Descriptor>,
    events: LoopHandle,
    /// Reported and not yet met by an end, an error or would-block.
    remembered: Ready,
    telling: Telling,
    /// A short read or write says that nothing more can move now: so it is on this loop's backend.
    short_is_blocked: bool,
    /// The system's error code that fails the connection in the next step, or 0: `connect` itself never tells.
    refused: i32,
}

/// Every idle connection has one: with its header it fills an allocation of 48 bytes.
#[cfg(all(unix, target_pointer_width = "64"))]
const _: () = assert!(size_of::<Socket>() <= 40);

impl Socket {
    pub(crate) fn new(events: LoopHandle, descriptor: Option<Descriptor>) -> Self {
        let features = events.features();
        Self {
            tie: Tie::Loose(None),
            descriptor,
            events,
            remembered: Ready::EMPTY,
            telling: Telling::Silent,
            short_is_blocked: features.edge_triggered && features.early_close,
            refused: 0,
        }
    }

    pub(crate) fn descriptor(&self) -> Option<&Descriptor> {
        self.descriptor.as_ref()
    }

    fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::io(NAME, operation, source)
    }

    /// Refuses what is not a connected or connectable stream. Answers whether it is connected.
    pub(crate) fn check(descriptor: &Descriptor, operation: &'static str) -> Result<bool, Error> {
        let socket = descriptor.socket();
        let refuse = |why: &str| {
            let source = io::Error::new(io::ErrorKind::Unsupported, why);
            Error::new(Kind::Unsupported, NAME, operation).with_source(source)
        };
        if socket.r#type().map_err(Self::system(operation))? != Type::STREAM {
            return Err(refuse("only stream sockets can be buffered"));
        }
        // What has a peer does not listen: of most, the system is not asked that.
        let connected = socket.peer_addr().is_ok();
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        if !connected && socket.is_listener().map_err(Self::system(operation))? {
            return Err(refuse("a listening socket carries no data; use a Listener"));
        }
        Ok(connected)
    }

    /// Starts to listen to readiness.
    pub(crate) fn register(
        &mut self,
        target: Arc<dyn Target>,
        key: u64,
        priority: Priority,
    ) -> Result<(), Error> {
        let Some(descriptor) = &self.descriptor else {
            return Ok(());
        };
        // One that was set before it was connected is registered already: once is all that a loop takes.
        self.tie = Tie::Loose(None);
        let registration = self
            .events
            .register(descriptor.socket(), Interest::BOTH, priority, target, key)
            .map_err(Self::system("register"))?;
        self.tie = Tie::Registered(registration);
        Ok(())
    }

    fn registration(&self) -> Option<&Registration> {
        match &self.tie {
            Tie::Registered(registration) => Some(registration),
            Tie::Loose(_) => None,
        }
    }

    fn hunt(&mut self) -> Option<&mut Hunting> {
        match &mut self.tie {
            Tie::Registered(_) => None,
            Tie::Loose(hunt) => hunt.as_deref_mut(),
        }
    }

    /// Refuses to connect what connects already, or stands.
    fn check_unconnected(&mut self, operation: &'static str) -> Result<(), Error> {
        let used = self.descriptor.is_some()
            && (self.telling == Telling::Connected || self.is_connected());
        if used || self.hunt().is_some() {
            return Err(Error::new(Kind::Misuse, NAME, operation));
        }
        Ok(())
    }

    /// Whether a connection stands already.
    pub(crate) fn is_connected(&self) -> bool {
        self.descriptor
            .as_ref()
            .is_some_and(|descriptor| descriptor.socket().peer_addr().is_ok())
    }

    /// A connection is under way, and it was not this library that asked for it.
    pub(crate) fn adopt_connecting(&mut self, cx: &mut Context<'_>) {
        self.telling = Telling::Silent;
        cx.connect_begun();
    }

    /// The user wants to hear CONNECTED of a connection that it began by hand.
    /// Answers whether that is news.
    pub(crate) fn tell_connected(&mut self) -> bool {
        std::mem::replace(&mut self.telling, Telling::Connected) == Telling::Silent
    }

    /// Begins to connect. What comes of it is told by the loop, never from here.
    pub(crate) fn connect(&mut self, cx: &mut Context<'_>, address: &Address) -> Result<(), Error> {
        const OPERATION: &str = "connect";
        let to = address.to_sockaddr(OPERATION)?;
        self.check_unconnected(OPERATION)?;
        if self.descriptor.is_none() {
            let made = new_stream(address.domain()).map_err(Self::system(OPERATION))?;
            self.descriptor = Some(Descriptor::Owned(made));
        }
        self.begin_connect(&to)?;
        self.telling = Telling::Connected;
        cx.connect_begun();
        Ok(())
    }

    /// Asks the system for the connection of the socket that is there.
    fn begin_connect(&mut self, to: &SockAddr) -> Result<(), Error> {
        let Some(descriptor) = &self.descriptor else {
            return Ok(());
        };
        self.refused = match descriptor.socket().connect(to) {
            Ok(()) => 0,
            Err(error) if in_progress(&error) => 0,
            Err(error) => match error.raw_os_error() {
                Some(code) => code,
                None => return Err(Error::io(NAME, "connect", error)),
            },
        };
        Ok(())
    }

    /// Begins to connect by name. What comes of it is told by the loop, never from here.
    pub(crate) fn connect_hostname(
        &mut self,
        cx: &mut Context<'_>,
        resolver: &(impl Resolve + ?Sized),
        (host, family): (&str, Family),
        (mut rules, nodelay, priority): (Rules, bool, Priority),
        place: (Arc<dyn Target>, u64),
    ) -> Result<(), Error> {
        const OPERATION: &str = "connect_hostname";
        self.check_unconnected(OPERATION)?;
        let mut family = family;
        if let Some(descriptor) = &self.descriptor {
            rules.address_only = true;
            // Where the system does not say before a socket is bound, the connecting will.
            if let Ok(own) = descriptor.socket().local_addr() {
                let own = match own.domain() {
                    Domain::IPV4 => Family::V4,
                    Domain::IPV6 => Family::V6,
                    _ => return Err(Error::new(Kind::Misuse, NAME, OPERATION)),
                };
                if !family.wants(own) {
                    return Err(Error::new(Kind::Misuse, NAME, OPERATION));
                }
                family = own;
            }
        }
        // A socket that waits for its address is not listened to.
        self.tie = Tie::Loose(None);
        let question = Question::new(host, family);
        let manner = (nodelay, priority);
        let hunt = Hunting::begin(&self.events, resolver, question, rules, manner, place)?;
        self.tie = Tie::Loose(Some(Box::new(hunt)));
        self.telling = Telling::Connected;
        cx.resolve_begun();
        Ok(())
    }

    /// Takes what came of a connection by name.
    fn hunted(&mut self, cx: &mut Context<'_>, outcome: Outcome<Attempt>) -> Step {
        let place = self.hunt().and_then(|hunt| hunt.place());
        self.tie = Tie::Loose(None);
        cx.resolve_ended();
        let taken = match (outcome, place) {
            (Outcome::Failed(error), _) => Err(error),
            // Nobody is there to be told.
            (_, None) => return Step::Done,
            (Outcome::Connected(attempt), Some((target, key, priority))) => {
                self.descriptor = Some(Descriptor::Owned(attempt.into_socket()));
                self.register(target, key, priority)
            }
            (Outcome::Address(address), Some((target, key, priority))) => self
                .begin_connect(&address.into())
                .and_then(|()| self.register(target, key, priority)),
        };
        match taken {
            Ok(()) => self.finish_connect(cx),
            Err(error) => {
                cx.connect_failed(error);
                Step::Done
            }
        }
    }

    /// Looks whether the connection that was asked for stands, failed, or still needs time.
    fn finish_connect(&mut self, cx: &mut Context<'_>) -> Step {
        if let Some(hunt) = self.hunt() {
            return match hunt.outcome() {
                Some(outcome) => self.hunted(cx, outcome),
                None => {
                    if hunt.found() {
                        cx.resolve_ended();
                    }
                    Step::Blocked
                }
            };
        }
        let error = match std::mem::take(&mut self.refused) {
            code if code != 0 => Some(io::Error::from_raw_os_error(code)),
            _ => {
                let Some(descriptor) = &self.descriptor else {
                    return Step::Blocked;
                };
                match descriptor.socket().take_error() {
                    Ok(error) => error,
                    Err(error) => Some(error),
                }
            }
        };
        if let Some(error) = error {
            self.tie = Tie::Loose(None);
            cx.connect_failed(Error::io(NAME, "connect", error));
            return Step::Done;
        }
        if !self.is_connected() {
            self.rearm();
            return Step::Blocked;
        }
        match self.telling {
            Telling::Connected => cx.connected(),
            Telling::Silent => cx.connected_silently(),
        }
        Step::Again
    }

    fn rearm(&self) {
        if let Some(registration) = self.registration()
            && let Err(error) = registration.rearm()
        {
            tracing::debug!(%error, "a socket could not be re-armed");
        }
    }

    /// Takes the descriptor away, for whoever is to have it now.
    pub(crate) fn take_descriptor(&mut self) -> Option<Descriptor> {
        self.tie = Tie::Loose(None);
        self.remembered = Ready::EMPTY;
        self.descriptor.take()
    }

    pub(crate) fn put_descriptor(&mut self, descriptor: Descriptor) {
        self.telling = Telling::Silent;
        self.descriptor = Some(descriptor);
    }
}

pub(crate) fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::EINPROGRESS);
    #[cfg(windows)]
    return error.kind() == io::ErrorKind::WouldBlock;
}

impl Bufferevent for Socket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attached(&mut self, cx: &mut Context<'_>) {
        if self.descriptor.is_none() {
            cx.disconnected();
        } else {
            // The registration reports at once what is there already.
            cx.wait_readable();
        }
    }

    #[inline]
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let Some(descriptor) = &self.descriptor else {
            return Step::Blocked;
        };
        let room = cx.room();
        if room == 0 {
            return Step::Done;
        }
        match receive(descriptor.socket(), room, cx) {
            Ok(received) if received.count == 0 => {
                cx.end_input();
                Step::Done
            }
            Ok(received) => {
                let drained = received.short
                    && !self.remembered.intersects(
                        MORE_BEHIND | Ready::WRITE_CLOSED | Ready::ERROR | Ready::PRIORITY,
                    )
                    && self.short_is_blocked;
                if drained { Step::Blocked } else { Step::Again }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.remembered = Ready::EMPTY;
                self.rearm();
                Step::Blocked
            }
            Err(error) => {
                cx.fail(Direction::Read, Error::io(NAME, "read", error));
                Step::Done
            }
        }
    }

    #[inline]
    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        if cx.connecting() {
            return self.finish_connect(cx);
        }
        let Some(descriptor) = &self.descriptor else {
            return Step::Blocked;
        };
        if cx.finishing() {
            // The peer may be gone already: then there is nobody left to tell.
            let _ = descriptor.socket().shutdown(Shutdown::Write);
            cx.end_output();
            return Step::Done;
        }
        let share = cx.share();
        let sent = cx.send(|output| {
            if output.is_empty() {
                return Ok(Sent::All);
            }
            send(descriptor.socket(), output, share)
        });
        match sent {
            // All is out: nothing is left to ask about.
            None | Some(Ok(Sent::All)) => Step::Done,
            Some(Ok(Sent::Short)) if self.short_is_blocked => Step::Blocked,
            Some(Ok(Sent::Short | Sent::Offered)) => Step::Again,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.rearm();
                Step::Blocked
            }
            Some(Err(error)) => {
                cx.fail(Direction::Write, Error::io(NAME, "write", error));
                Step::Done
            }
        }
    }

    #[inline]
    fn ready(&mut self, _cx: &mut Context<'_>, ready: Ready) {
        self.remembered |= ready.without(Ready::READABLE | Ready::WRITABLE);
    }

    fn freed(&mut self, _cx: &mut Context<'_>, close: bool) {
        self.tie = Tie::Loose(None);
        if let Some(descriptor) = self.descriptor.take()
            && close
        {
            descriptor.close();
        }
    }

    fn set_priority(&mut self, priority: Priority) {
        match &mut self.tie {
            Tie::Registered(registration) => registration.set_priority(priority),
            Tie::Loose(Some(hunt)) => hunt.set_priority(priority),
            Tie::Loose(None) => {}
        }
    }
}
