//! The completion type: a stream socket whose reads and writes are operations under way.
//!
//! # Rules
//! 1. Receiving begins with the first pull, so a bufferevent that never reads has nothing lent. What has come is pulled from the
//!    desk; up to [`READ_AHEAD`](crate::desk::READ_AHEAD) bytes wait there while there is no room above.
//! 2. A push hands bytes over, and is done: from then on they are as if in the system's own buffer. One send is under way at a
//!    time, so order needs no care; what is pushed meanwhile leaves by the next.
//! 3. A send that takes long counts as work of the layer's own: nobody's leaving ends a bufferevent that has one.
//! 4. An end mark is sent when nothing is under way.
//! 5. While it connects by name there is a hunt in the lane's place, and its lanes are the hunt's.
//!
//! Source: libevent `bufferevent_async.c`.

use std::io;

use bufferevent_core::resolve::hunt::{Outcome, Rules};
use bufferevent_core::resolve::{Family, Question, Resolve};
use bufferevent_core::{Bufferevent, Context, Direction, Error, Kind, Mode, Step};
use evbuffer::EvBuffer;
use evreactor::{LoopHandle, Priority, Ready, Registration};
use evreactor_core::Target;
use evreactor_core::sync::Arc;
use socket2::{SockAddr, Type};

use crate::NAME;
use crate::by_name::{Attempt, Hunting};
use crate::desk::{Ending, Fetched, Sending};
use crate::driver::{Lane, Verb};
use crate::port::Port;

/// What ties the bufferevent to the port.
#[derive(Debug)]
enum Tie {
    /// Whom the port tells, and of which lane.
    Placed(Registration, Lane),
    /// A connection by name that is under way, or nothing.
    Loose(Option<Box<Hunting>>),
}

/// A stream socket over completions, as a type of bufferevent. Found in any stack by `bev.layer::<Socket>()`; made by
/// [`Builder`](crate::Builder).
#[derive(Debug)]
pub struct Socket {
    tie: Tie,
    port: Arc<Port>,
    events: LoopHandle,
}

impl Socket {
    pub(crate) fn new(port: Arc<Port>, events: LoopHandle) -> Self {
        Self {
            tie: Tie::Loose(None),
            port,
            events,
        }
    }

    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// The number under which the driver knows its socket, if it has one.
    #[must_use]
    pub fn lane(&self) -> Option<Lane> {
        match self.tie {
            Tie::Placed(_, lane) => Some(lane),
            Tie::Loose(_) => None,
        }
    }

    fn hunt(&self) -> Option<&Hunting> {
        match &self.tie {
            Tie::Placed(..) => None,
            Tie::Loose(hunt) => hunt.as_deref(),
        }
    }

    /// Gives it a socket that is connected, or about to be, or none where the driver brings its own.
    pub(crate) fn place(
        &mut self,
        socket: Option<socket2::Socket>,
        target: std::sync::Arc<dyn Target>,
        key: u64,
        priority: Priority,
    ) -> Result<Lane, Error> {
        self.leave();
        let system = |source| Error::io(NAME, "attach", source);
        let registration = self.events.attach(priority, target, key).map_err(system)?;
        let token = registration.token();
        let lane = self
            .port
            .desk(|desk| desk.open(socket, token))
            .map_err(system)?;
        self.tie = Tie::Placed(registration, lane);
        Ok(lane)
    }

    /// Lets go of the socket, and of a hunt for one.
    fn leave(&mut self) {
        if let Tie::Placed(registration, lane) = std::mem::replace(&mut self.tie, Tie::Loose(None))
        {
            self.port.detach(&self.events, lane, Verb::Receive);
            drop(registration);
        }
    }

    /// Takes the socket back, and what was received of it. Waits for what is under way to end.
    pub(crate) fn take(&mut self) -> Result<(socket2::Socket, EvBuffer), Error> {
        const OPERATION: &str = "into_transport";
        let unsupported = || Error::new(Kind::Unsupported, NAME, OPERATION);
        let lane = self.lane().ok_or_else(unsupported)?;
        if self.port.desk(|desk| desk.socket(lane).is_none()) {
            return Err(unsupported());
        }
        let (socket, unread) = self
            .port
            .take(lane)
            .map_err(|source| Error::io(NAME, OPERATION, source))?;
        self.tie = Tie::Loose(None);
        Ok((socket.ok_or_else(unsupported)?, unread))
    }

    /// Begins to connect, with the bufferevent's own target. What comes of it is told by the loop.
    pub(crate) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        address: SockAddr,
        target: std::sync::Arc<dyn Target>,
        key: u64,
        priority: Priority,
    ) -> Result<(), Error> {
        const OPERATION: &str = "connect";
        self.check_unconnected(OPERATION)?;
        let socket = new_stream(&address).map_err(|source| Error::io(NAME, OPERATION, source))?;
        let lane = self.place(Some(socket), target, key, priority)?;
        self.port.desk(|desk| desk.connect(lane, address));
        cx.connect_begun();
        Ok(())
    }

    /// Refuses to connect what connects already, or stands.
    fn check_unconnected(&self, operation: &'static str) -> Result<(), Error> {
        if self.lane().is_some() || self.hunt().is_some() {
            return Err(Error::new(Kind::Misuse, NAME, operation));
        }
        Ok(())
    }

    /// Begins to connect by name. What comes of it is told by the loop, never from here.
    pub(crate) fn connect_hostname(
        &mut self,
        cx: &mut Context<'_>,
        resolver: &(impl Resolve + ?Sized),
        (host, family): (&str, Family),
        (rules, nodelay, priority): (Rules, bool, Priority),
        place: (std::sync::Arc<dyn Target>, u64),
    ) -> Result<(), Error> {
        self.check_unconnected("connect_hostname")?;
        let whose = (&self.port, &self.events);
        let manner = (nodelay, priority);
        let question = Question::new(host, family);
        let hunt = Hunting::begin(whose, resolver, question, rules, manner, place)?;
        self.tie = Tie::Loose(Some(Box::new(hunt)));
        cx.resolve_begun();
        Ok(())
    }

    /// Takes what came of a connection by name.
    fn hunted(&mut self, cx: &mut Context<'_>, outcome: Outcome<Attempt>) -> Step {
        let place = self.hunt().and_then(Hunting::place);
        self.tie = Tie::Loose(None);
        cx.resolve_ended();
        let taken = match (outcome, place) {
            (Outcome::Failed(error), _) => Err(error),
            // Nobody is there to be told.
            (_, None) => return Step::Done,
            (Outcome::Connected(attempt), Some((target, key, priority))) => {
                attempt.hand_over(target, key, priority)
            }
            // Asked for only where there is a socket already, and here there is none.
            (Outcome::Address(_), Some(_)) => Ok(None),
        };
        match taken {
            Ok(Some((registration, lane))) => {
                self.tie = Tie::Placed(registration, lane);
                cx.connected();
                Step::Again
            }
            Ok(None) => Step::Done,
            Err(error) => {
                cx.connect_failed(error);
                Step::Done
            }
        }
    }

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
        let Some(lane) = self.lane() else {
            return Step::Blocked;
        };
        match self.port.desk(|desk| desk.connected(lane)) {
            None => Step::Blocked,
            Some(Ok(())) => {
                cx.connected();
                Step::Again
            }
            Some(Err(error)) => {
                self.leave();
                cx.connect_failed(Error::io(NAME, "connect", error));
                Step::Done
            }
        }
    }
}

impl Bufferevent for Socket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attached(&mut self, cx: &mut Context<'_>) {
        if self.lane().is_none() {
            cx.disconnected();
        }
    }

    #[inline]
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let Tie::Placed(_, lane) = self.tie else {
            return Step::Blocked;
        };
        let room = cx.room();
        if room == 0 {
            return Step::Done;
        }
        if cx.mode() != Mode::Normal
            && let Err(error) = self.port.look()
        {
            tracing::debug!(%error, "a flush could not look for more");
        }
        let fetched = self.port.desk(|desk| {
            desk.fetch(lane, |arrived| {
                cx.add_input_from(arrived, room);
            })
        });
        match fetched {
            Fetched::More => Step::Again,
            Fetched::Waits => Step::Blocked,
            Fetched::Over(Ending::Eof) => {
                cx.end_input();
                Step::Done
            }
            Fetched::Over(Ending::Failed(error)) => {
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
        let Tie::Placed(_, lane) = self.tie else {
            return Step::Blocked;
        };
        if cx.finishing() {
            if !self.port.desk(|desk| desk.finish(lane)) {
                return Step::Blocked;
            }
            cx.end_output();
            return Step::Done;
        }
        let share = cx.share();
        let port = &self.port;
        let mut refused = None;
        let step = cx.send(|output| {
            let length = output.len();
            let takes = match port.desk(|desk| desk.may_send(lane, length)) {
                Sending::Takes(room) => room.min(share),
                Sending::Waits => return Step::Blocked,
                Sending::Failed(error) => {
                    refused = Some(error);
                    return Step::Done;
                }
            };
            if length == 0 {
                return Step::Done;
            }
            let mut bytes = EvBuffer::new();
            // A segment that would have to be split and cannot be, for want of memory, stays for the next time.
            let moved = output.move_to(takes, &mut bytes).unwrap_or(0);
            port.desk(|desk| desk.send(lane, &mut bytes));
            if moved == length {
                Step::Done
            } else {
                Step::Again
            }
        });
        if let Some(error) = refused {
            cx.fail(Direction::Write, Error::io(NAME, "write", error));
        }
        step.unwrap_or(Step::Done)
    }

    /// A send takes long, or does so no more, or has failed.
    fn ready(&mut self, cx: &mut Context<'_>, ready: Ready) {
        let Tie::Placed(_, lane) = self.tie else {
            return;
        };
        if !ready.contains(Ready::ERROR) || cx.connecting() {
            return;
        }
        let (slow, failed) = self.port.desk(|desk| desk.send_news(lane));
        cx.set_wants(false, slow);
        if let Some(error) = failed {
            cx.fail(Direction::Write, Error::io(NAME, "write", error));
        }
    }

    fn freed(&mut self, _cx: &mut Context<'_>, _close: bool) {
        self.leave();
    }

    fn set_priority(&mut self, priority: Priority) {
        match &mut self.tie {
            Tie::Placed(registration, _) => registration.set_priority(priority),
            Tie::Loose(Some(hunt)) => hunt.set_priority(priority),
            Tie::Loose(None) => {}
        }
    }
}

/// A socket that is to connect to `address`.
pub(crate) fn new_stream(address: &SockAddr) -> io::Result<socket2::Socket> {
    socket2::Socket::new(address.domain(), Type::STREAM, None)
}

/// What the system says about a stream socket that is to be taken over.
pub(crate) fn check(socket: &socket2::Socket, operation: &'static str) -> Result<(), Error> {
    let system = |source| Error::io(NAME, operation, source);
    let refuse = |why: &str| {
        let source = io::Error::new(io::ErrorKind::Unsupported, why);
        Error::new(Kind::Unsupported, NAME, operation).with_source(source)
    };
    if socket.r#type().map_err(system)? != Type::STREAM {
        return Err(refuse("only stream sockets can be buffered"));
    }
    if socket.peer_addr().is_err() {
        return Err(refuse(
            "the socket is not connected; have the library connect it, or hand it over when it is",
        ));
    }
    Ok(())
}
