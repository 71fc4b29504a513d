//! Connecting by name, for every kind of transport: a resolver is asked, attempts race, and one of them stands or nothing is left to try.
//!
//! A [`Hunt`] belongs to a transport that is connecting. It asks the resolver, runs the [`Race`] on the loop's clock, and holds what is under way for
//! each attempt. How an attempt is made is the transport's own: it implements [`Dial`]. What comes of it (one [`Outcome`]) the hunt keeps for its
//! transport, which it wakes.
//!
//! # Invariants
//! - Everything but a resolver's answer happens on the loop's thread, and nothing from inside the call that began it.
//! - One outcome, once; with it, or with the drop of the hunt, all other attempts are dropped, the timer is off and the question called off.
//! - No lock is held while the resolver, the bufferevent or a drop of theirs runs.
//! - No descriptor is known here: an attempt is whatever the transport says that it is.
//!
//! # Why here
//! Sockets over readiness and over completions connect by name in one and the same way, and neither imports the other.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use evreactor_core::sync::{Arc, Mutex, Weak};
use evreactor_core::{Host, Moment, Phase, Ready, Target, TimerKey};

use super::race::{Loss, Move, Pace, Race};
use super::{Answers, Family, Lookup, Question, Resolve};
use crate::error::{Error, Kind};

/// The key under which answers are told; attempts go by their numbers.
const ANSWERED: u64 = u64::MAX;

/// How a transport makes one attempt to connect.
///
/// The methods are called on the loop's thread, with nothing locked.
pub trait Dial: Send + Sync + 'static {
    /// An attempt that is under way, or stands. Dropping it ends it.
    type Attempt: Send + 'static;

    /// Begins an attempt. Whenever there may be news of it, `heard` is told that `key` is [ready](Target::ready), and never from inside this call.
    ///
    /// # Errors
    /// What keeps it from being begun. The next address is tried then.
    fn start(
        &self,
        address: SocketAddr,
        heard: Arc<dyn Target>,
        key: u64,
    ) -> io::Result<Self::Attempt>;

    /// What came of an attempt; `None` while it is under way, and it is heard of again then.
    fn look(&self, attempt: &Self::Attempt) -> Option<io::Result<()>>;
}

/// What came of a hunt.
#[derive(Debug)]
pub enum Outcome<A> {
    /// This attempt stands.
    Connected(A),
    /// What was there before is to connect to this address: see [`Rules::address_only`].
    Address(SocketAddr),
    /// There will be no connection.
    Failed(Error),
}

/// What is hunted, and how.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// The transport's name in errors.
    pub layer: &'static str,
    /// The port of each address.
    pub port: u16,
    /// How fast addresses are tried.
    pub pace: Pace,
    /// An address is asked for, and no attempts are made.
    pub address_only: bool,
}

impl Rules {
    /// What is usual, to `port`; errors name the transport `layer`.
    #[must_use]
    pub const fn to(port: u16, layer: &'static str) -> Self {
        Self {
            layer,
            port,
            pace: Pace::DEFAULT,
            address_only: false,
        }
    }
}

/// A connection by name that is under way. Dropping it ends it.
pub struct Hunt<D: Dial> {
    shared: Arc<Shared<D>>,
}

struct Shared<D: Dial> {
    me: Weak<Shared<D>>,
    host: Arc<dyn Host>,
    dial: D,
    rules: Rules,
    /// Whom to wake, and under which key. Weak: the transport owns the hunt.
    target: Weak<dyn Target>,
    key: u64,
    state: Mutex<State<D::Attempt>>,
}

struct State<A> {
    running: Option<Running<A>>,
    outcome: Option<Outcome<A>>,
    /// There is an address: an attempt was begun.
    found: bool,
}

struct Running<A> {
    race: Race,
    source: Source,
    attempts: Vec<(u32, A)>,
    timer: Option<TimerKey>,
}

/// Where addresses come from.
enum Source {
    /// The host is one.
    Numeric(SocketAddr),
    /// A resolver, whose search ends with the drop of the lookup.
    Resolver { answers: Answers, _lookup: Lookup },
}

enum Started<A> {
    Attempt(A),
    Chosen(SocketAddr),
}

impl<D: Dial> Hunt<D> {
    /// Begins to hunt for `question`'s host, for the transport that `target` knows under `key`. That is told that it is
    /// [ready](Target::ready) when there is an address, and when there is an outcome.
    ///
    /// # Errors
    /// [`Kind::LoopClosed`].
    pub fn begin(
        host: Arc<dyn Host>,
        dial: D,
        resolver: &(impl Resolve + ?Sized),
        question: Question,
        rules: Rules,
        (target, key): (&Arc<dyn Target>, u64),
    ) -> Result<Self, Error> {
        let race = Race::new(question.clone(), rules.pace, host.now());
        let shared = Arc::new_cyclic(|me| Shared {
            me: me.clone(),
            host,
            dial,
            rules,
            target: Arc::downgrade(target),
            key,
            state: Mutex::new(State {
                running: None,
                outcome: None,
                found: false,
            }),
        });
        let host = &shared.host;
        let source = if let Some(address) = numeric(question.host()) {
            // Told from the loop, as everything is.
            host.schedule(Phase::Turn, shared.clone(), ANSWERED)
                .map_err(|closed| {
                    Error::new(Kind::LoopClosed, rules.layer, "connect_hostname")
                        .with_source(closed)
                })?;
            Source::Numeric(address)
        } else {
            let me: Weak<dyn Target> = shared.me.clone();
            let (answers, reply) = Answers::to(question.clone(), host.clone(), me, ANSWERED);
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
        Ok(Self { shared })
    }

    /// What the transport is known to its loop by, while there is one.
    #[must_use]
    pub fn place(&self) -> Option<(Arc<dyn Target>, u64)> {
        Some((self.shared.target.upgrade()?, self.shared.key))
    }

    /// Whether the host has an address.
    #[must_use]
    pub fn found(&self) -> bool {
        self.shared.state.lock().found
    }

    /// What came of it, once.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome<D::Attempt>> {
        self.shared.state.lock().outcome.take()
    }
}

impl<D: Dial> Drop for Hunt<D> {
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

impl<D: Dial> fmt::Debug for Hunt<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hunt")
    }
}

impl<D: Dial> Shared<D> {
    /// Tells the race something, and does what it says until it is to wait.
    fn go_on(
        &self,
        tell: impl FnOnce(&mut Running<D::Attempt>, Moment) -> Option<Outcome<D::Attempt>>,
    ) {
        // Taken out, not locked: attempts are made and dropped, and lookups too, with nothing held.
        let Some(mut running) = self.state.lock().running.take() else {
            return;
        };
        let now = self.host.now();
        if let Some(outcome) = tell(&mut running, now) {
            return self.ended(running, outcome);
        }
        let mut begun = false;
        loop {
            match running.race.next(now) {
                Move::Start(number, address) => match self.start(number, address) {
                    Ok(Started::Attempt(attempt)) => {
                        begun = true;
                        running.attempts.push((number, attempt));
                    }
                    Ok(Started::Chosen(address)) => {
                        return self.ended(running, Outcome::Address(address));
                    }
                    Err(error) => running.race.failed(number, error, now),
                },
                Move::GiveUp(number) => running.attempts.retain(|(one, _)| *one != number),
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
                    let layer = self.rules.layer;
                    let error = match loss {
                        Loss::Resolve(error) => {
                            Error::new(Kind::Resolve, layer, "resolve").with_source(error)
                        }
                        Loss::Connect(error) => Error::io(layer, "connect", error),
                    };
                    return self.ended(running, Outcome::Failed(error));
                }
            }
        }
    }

    fn wait(&self, running: &mut Running<D::Attempt>, until: Moment) {
        if let Some(timer) = running.timer.take()
            && self.host.rearm(timer, until)
        {
            running.timer = Some(timer);
            return;
        }
        let Some(me) = self.me.upgrade() else {
            return;
        };
        // A closed loop has no timers, and nothing is told any more.
        running.timer = self.host.arm(until, me, 0).ok();
    }

    fn start(&self, number: u32, mut address: SocketAddr) -> io::Result<Started<D::Attempt>> {
        address.set_port(self.rules.port);
        if self.rules.address_only {
            return Ok(Started::Chosen(address));
        }
        let me = self.me.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let attempt = self.dial.start(address, me, u64::from(number))?;
        Ok(Started::Attempt(attempt))
    }

    /// The hunt is over: what is left of it goes, and the transport hears of it.
    fn ended(&self, running: Running<D::Attempt>, outcome: Outcome<D::Attempt>) {
        self.end(running);
        self.state.lock().outcome = Some(outcome);
        self.wake();
    }

    /// Has the transport look at its hunt.
    fn wake(&self) {
        if let Some(target) = self.target.upgrade() {
            target.ready(self.key, Ready::WRITABLE);
        }
    }

    fn end(&self, running: Running<D::Attempt>) {
        if let Some(timer) = running.timer {
            self.host.disarm(timer);
        }
        drop(running);
    }
}

impl<D: Dial> Target for Shared<D> {
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
            let attempts = &running.attempts;
            let at = attempts
                .iter()
                .position(|(one, _)| u64::from(*one) == key)?;
            let result = self.dial.look(&attempts[at].1)?;
            let (number, attempt) = running.attempts.swap_remove(at);
            match result {
                Ok(()) => Some(Outcome::Connected(attempt)),
                Err(error) => {
                    drop(attempt);
                    running.race.failed(number, error, now);
                    None
                }
            }
        });
    }
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
