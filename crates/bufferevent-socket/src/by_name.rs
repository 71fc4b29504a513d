//! Connecting by name: attempts that race, until a socket stands or nothing is left to try.
//!
//! A [`Hunt`] belongs to a [`Socket`](crate::Socket) that is connecting. It asks the resolver, runs core's [`Race`] on the loop's
//! clock, and holds a socket for each attempt. What comes of it (one [`Outcome`]) it keeps for its socket, which it wakes.
//!
//! # Invariants
//! - Everything but a resolver's answer happens on the loop's thread, and nothing from inside the call that began it.
//! - One outcome, once; with it, or with the drop of the hunt, all other attempts are closed, the timer is off and the question called off.
//! - A registration of its own, without a descriptor, stands for the bufferevent while there is no socket: the loop goes on, and tells when it closes.
//! - No lock is held while the resolver, the bufferevent or a drop of theirs runs.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bufferevent_core::resolve::race::{Loss, Move, Pace, Race};
use bufferevent_core::resolve::{Answers, Family, Lookup, Question, Resolve};
use bufferevent_core::{Error, Kind};
use evreactor::{Interest, LoopHandle, Priority, Ready, Registration};
use evreactor_core::sync::{Arc, Mutex, Weak};
use evreactor_core::{Host as _, Moment, Phase, Target, TimerKey};
use socket2::Domain;

use crate::NAME;
use crate::descriptor::new_stream;
use crate::socket::in_progress;

/// The key under which answers are told; attempts go by their numbers.
const ANSWERED: u64 = u64::MAX;

/// What came of a hunt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// This socket stands.
    Connected(socket2::Socket),
    /// The socket that was set before is to connect to this address.
    Address(SocketAddr),
    /// There will be no connection.
    Failed(Error),
}

/// What is hunted, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) port: u16,
    pub(crate) pace: Pace,
    pub(crate) nodelay: bool,
    pub(crate) priority: Priority,
    /// A socket is there already: its address is asked for, and no attempts are made.
    pub(crate) address_only: bool,
}

impl Rules {
    /// What is usual, to `port`.
    pub(crate) fn to(port: u16) -> Self {
        Self {
            port,
            pace: Pace::DEFAULT,
            nodelay: false,
            priority: Priority::default(),
            address_only: false,
        }
    }
}

/// A connection by name that is under way. Dropping it ends it.
pub(crate) struct Hunt {
    shared: Arc<Shared>,
    priority: Priority,
    /// Stands for the bufferevent with the loop; nothing becomes ready by it.
    _presence: Registration,
}

struct Shared {
    me: Weak<Shared>,
    events: LoopHandle,
    rules: Rules,
    /// Whom to wake, and under which key. Weak: the bufferevent owns the hunt.
    target: Weak<dyn Target>,
    key: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    outcome: Option<Outcome>,
    /// There is an address: an attempt was begun.
    found: bool,
}

struct Running {
    race: Race,
    source: Source,
    attempts: Vec<Attempt>,
    timer: Option<TimerKey>,
}

/// Where addresses come from.
enum Source {
    /// The host is one.
    Numeric(SocketAddr),
    /// A resolver, whose search ends with the drop of the lookup.
    Resolver { answers: Answers, _lookup: Lookup },
}

struct Attempt {
    number: u32,
    // Dropped before the descriptor is closed.
    registration: Registration,
    socket: socket2::Socket,
}

impl Hunt {
    /// Begins to hunt for `question`'s host, for the bufferevent that `target` knows under `key`.
    pub(crate) fn begin(
        events: &LoopHandle,
        resolver: &(impl Resolve + ?Sized),
        question: Question,
        rules: Rules,
        (target, key): (Arc<dyn Target>, u64),
    ) -> Result<Self, Error> {
        // Only a closed loop refuses.
        let presence = events
            .attach(rules.priority, target.clone(), key)
            .map_err(|closed| loop_closed().with_source(closed))?;
        let shared = Arc::new_cyclic(|me| Shared {
            me: me.clone(),
            events: events.clone(),
            rules,
            target: Arc::downgrade(&target),
            key,
            state: Mutex::new(State::default()),
        });
        let race = Race::new(question.clone(), rules.pace, events.now());
        let source = if let Some(address) = numeric(question.host()) {
            // Told from the loop, as everything is.
            events
                .schedule(Phase::Turn, shared.clone(), ANSWERED)
                .map_err(|closed| loop_closed().with_source(closed))?;
            Source::Numeric(address)
        } else {
            let me: Weak<dyn Target> = shared.me.clone();
            let (answers, reply) = Answers::to(question.clone(), events.host(), me, ANSWERED);
            Source::Resolver {
                answers,
                _lookup: resolver.resolve(&question, reply),
            }
        };
        let running = Running {
            race,
            source,
            attempts: Vec::new(),
            timer: None,
        };
        shared.state.lock().running = Some(running);
        // Nothing is known yet, so this only arms the timer.
        shared.go_on(|_, _| None);
        Ok(Self {
            shared,
            priority: rules.priority,
            _presence: presence,
        })
    }

    /// What the bufferevent is registered under, and how urgently, once there is a socket.
    pub(crate) fn place(&self) -> Option<(Arc<dyn Target>, u64, Priority)> {
        let target = self.shared.target.upgrade()?;
        Some((target, self.shared.key, self.priority))
    }

    /// The bufferevent has another urgency; attempts that are under way keep theirs.
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// Whether the host has an address.
    pub(crate) fn found(&self) -> bool {
        self.shared.state.lock().found
    }

    /// What came of it, once.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.shared.state.lock().outcome.take()
    }
}

impl Drop for Hunt {
    fn drop(&mut self) {
        let (running, outcome) = {
            let mut state = self.shared.state.lock();
            (state.running.take(), state.outcome.take())
        };
        if let Some(running) = running {
            self.shared.end(running);
        }
        drop(outcome);
    }
}

impl fmt::Debug for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hunt")
    }
}

impl Shared {
    /// Tells the race something, and does what it says until it is to wait.
    fn go_on(&self, tell: impl FnOnce(&mut Running, Moment) -> Option<Outcome>) {
        // Taken out, not locked: sockets are made and closed, and lookups dropped, with nothing held.
        let Some(mut running) = self.state.lock().running.take() else {
            return;
        };
        let now = self.events.now();
        if let Some(outcome) = tell(&mut running, now) {
            return self.ended(running, outcome);
        }
        let mut begun = false;
        loop {
            match running.race.next(now) {
                Move::Start(number, address) => match self.start(number, address) {
                    Ok(Started::Attempt(attempt)) => {
                        begun = true;
                        running.attempts.push(attempt);
                    }
                    Ok(Started::Chosen(address)) => {
                        return self.ended(running, Outcome::Address(address));
                    }
                    Err(error) => running.race.failed(number, error, now),
                },
                Move::GiveUp(number) => running.attempts.retain(|one| one.number != number),
                Move::Wait(until) => {
                    self.wait(&mut running, until);
                    let mut state = self.state.lock();
                    state.running = Some(running);
                    let news = begun && !std::mem::replace(&mut state.found, true);
                    drop(state);
                    if news {
                        self.wake();
                    }
                    return;
                }
                Move::Lost(loss) => {
                    let error = match loss {
                        Loss::Resolve(error) => {
                            Error::new(Kind::Resolve, NAME, "resolve").with_source(error)
                        }
                        Loss::Connect(error) => Error::io(NAME, "connect", error),
                    };
                    return self.ended(running, Outcome::Failed(error));
                }
            }
        }
    }

    fn wait(&self, running: &mut Running, until: Moment) {
        if let Some(timer) = running.timer.take()
            && self.events.rearm(timer, until)
        {
            running.timer = Some(timer);
            return;
        }
        let Some(me) = self.me.upgrade() else {
            return;
        };
        // A closed loop has no timers, and nothing is told any more.
        running.timer = self.events.arm(until, me, 0).ok();
    }

    fn start(&self, number: u32, mut address: SocketAddr) -> io::Result<Started> {
        address.set_port(self.rules.port);
        if self.rules.address_only {
            return Ok(Started::Chosen(address));
        }
        let domain = Domain::for_address(address);
        let socket = new_stream(domain)?;
        if self.rules.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let me = self.me.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let registration = self.events.register(
            &socket,
            Interest::BOTH,
            self.rules.priority,
            me,
            u64::from(number),
        )?;
        Ok(Started::Attempt(Attempt {
            number,
            registration,
            socket,
        }))
    }

    /// The hunt is over: what is left of it goes, and the socket hears of it.
    fn ended(&self, running: Running, outcome: Outcome) {
        self.end(running);
        self.state.lock().outcome = Some(outcome);
        self.wake();
    }

    /// Has the bufferevent look at its hunt.
    fn wake(&self) {
        if let Some(target) = self.target.upgrade() {
            target.ready(self.key, Ready::WRITABLE);
        }
    }

    fn end(&self, running: Running) {
        if let Some(timer) = running.timer {
            self.events.disarm(timer);
        }
        drop(running);
    }
}

enum Started {
    Attempt(Attempt),
    Chosen(SocketAddr),
}

impl Target for Shared {
    /// There are answers.
    fn run(&self, _key: u64) {
        self.go_on(|running, now| {
            match &running.source {
                Source::Numeric(address) => {
                    let found = Ok(vec![*address]);
                    running.race.answered(Family::Any, &found, now);
                }
                Source::Resolver { answers, .. } => {
                    for (family, found) in answers.take() {
                        running.race.answered(family, &found, now);
                    }
                }
            }
            None
        });
    }

    fn expired(&self, _key: u64) {
        self.go_on(|running, _| {
            running.timer = None;
            None
        });
    }

    /// An attempt came to something.
    fn ready(&self, key: u64, _ready: Ready) {
        self.go_on(|running, now| {
            let found = |one: &Attempt| u64::from(one.number) == key;
            let at = running.attempts.iter().position(found)?;
            let socket = &running.attempts[at].socket;
            let error = match socket.take_error() {
                Ok(Some(error)) | Err(error) => Some(error),
                Ok(None) if socket.peer_addr().is_ok() => None,
                Ok(None) => {
                    running.attempts[at].rearm();
                    return None;
                }
            };
            let attempt = running.attempts.swap_remove(at);
            match error {
                None => Some(Outcome::Connected(attempt.into_socket())),
                Some(error) => {
                    running.race.failed(attempt.number, error, now);
                    None
                }
            }
        });
    }
}

impl Attempt {
    /// Asks to hear again: it was woken, and is still under way.
    fn rearm(&self) {
        if let Err(error) = self.registration.rearm() {
            tracing::debug!(%error, "an attempt to connect could not be re-armed");
        }
    }

    /// The socket, which nobody is registered for any more.
    fn into_socket(self) -> socket2::Socket {
        drop(self.registration);
        self.socket
    }
}

fn loop_closed() -> Error {
    Error::new(Kind::LoopClosed, NAME, "connect_hostname")
}

/// A host that needs no look-up: an address, one of IPv6 in brackets or not.
fn numeric(host: &str) -> Option<SocketAddr> {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => host,
    };
    if host.len() == bare.len()
        && let Ok(address) = bare.parse::<std::net::Ipv4Addr>()
    {
        return Some(SocketAddr::from((address, 0)));
    }
    // With a scope, as in `fe80::1%2`, it is only as a socket address that the standard library parses it.
    format!("[{bare}]:0")
        .parse::<std::net::SocketAddrV6>()
        .ok()
        .map(SocketAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_names() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:0"),
            ("::1", "[::1]:0"),
            ("[::1]", "[::1]:0"),
            ("fe80::1%2", "[fe80::1%2]:0"),
            ("[fe80::1%2]", "[fe80::1%2]:0"),
            ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:0"),
        ] {
            let address: SocketAddr = address.parse().expect(address);
            assert_eq!(numeric(text), Some(address), "{text}");
        }
        for text in [
            "",
            "localhost",
            "[::1",
            "::1]",
            "[127.0.0.1]",
            "127.1",
            "1.2.3.4.5",
            "[[::1]]",
            "[]",
            "::1]:80[",
            "127.0.0.1:80",
            "[::1]:80",
            ":",
            " 127.0.0.1",
        ] {
            assert_eq!(numeric(text), None, "{text:?}");
        }
    }
}
