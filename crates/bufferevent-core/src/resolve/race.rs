//! Whom to try first, when to try the next, and who has won: RFC 8305's race of connection attempts ("Happy Eyeballs"), as values.
//!
//! A [`Race`] opens no socket and reads no clock. Whoever runs one tells it of answers, failures and the time, asks [`Race::next`] what to do until
//! that is to wait, and closes what is left when an attempt succeeds.
//!
//! # Rules
//! 1. IPv6 goes first and the families take turns; an answer that has both begins with the family of its first address.
//! 2. When IPv4 is answered first, IPv6 has the resolution delay to catch up; after it the race begins with what there is, and later addresses join.
//! 3. The next attempt begins an attempt delay after the last one, or as soon as one fails.
//! 4. An attempt that takes longer than its timeout has failed, and the names' resolution too.
//!
//! # Invariants
//! - At most [`MAX_ADDRESSES`] of each family are tried, each once: with the timeouts, no race goes on for ever.
//! - Every move is made once: asking again gives the next one.
//!
//! # Why here
//! Each kind of transport connects by name; how it races is one rule, and a plain unit test.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evreactor_core::Moment;

use super::{Family, Found, Question, ResolveError, ResolveFailure};

/// Addresses of one family that are tried; what a name has beyond them is ignored. More would keep a user waiting without hope.
pub const MAX_ADDRESSES: usize = 16;

/// How fast a race goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Pace {
    /// How long IPv6 may come after IPv4 and still go first.
    pub resolution_delay: Duration,
    /// How long one attempt is alone before the next begins.
    pub attempt_delay: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How long the resolver may take.
    pub resolve_timeout: Duration,
}

impl Pace {
    /// RFC 8305's delays (50 ms and 250 ms), 10 s for an attempt, 30 s for the resolver.
    pub const DEFAULT: Self = Self {
        resolution_delay: Duration::from_millis(50),
        attempt_delay: Duration::from_millis(250),
        attempt_timeout: Duration::from_secs(10),
        resolve_timeout: Duration::from_secs(30),
    };

    /// The same, with another attempt delay. RFC 8305 has 10 ms as the least and 2 s as the most.
    #[must_use]
    pub const fn with_attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay;
        self
    }

    /// The same, with another resolution delay.
    #[must_use]
    pub const fn with_resolution_delay(mut self, delay: Duration) -> Self {
        self.resolution_delay = delay;
        self
    }

    /// The same, with another time for each attempt.
    #[must_use]
    pub const fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// The same, with another time for the resolver.
    #[must_use]
    pub const fn with_resolve_timeout(mut self, timeout: Duration) -> Self {
        self.resolve_timeout = timeout;
        self
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What whoever runs the race has to do.
#[derive(Debug)]
#[must_use = "a move is told once"]
pub enum Move {
    /// Begin to connect to this address, under this number.
    Start(u32, SocketAddr),
    /// Close this attempt: its time is over.
    GiveUp(u32),
    /// Nothing until this moment, or until something is told.
    Wait(Moment),
    /// The race is lost; it says no more.
    Lost(Loss),
}

/// Why a race was lost.
#[derive(Debug)]
pub enum Loss {
    /// There is no address to connect to.
    Resolve(ResolveError),
    /// There are addresses, and none could be reached: why the last one that failed did.
    Connect(io::Error),
}

/// One family's part.
#[derive(Debug)]
struct Side {
    family: Family,
    answered: bool,
    failure: Option<ResolveError>,
    waiting: VecDeque<SocketAddr>,
}

impl Side {
    fn new(family: Family, wanted: Family) -> Self {
        Self {
            family,
            answered: !wanted.wants(family),
            failure: None,
            waiting: VecDeque::new(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    number: u32,
    until: Moment,
}

/// The attempts to reach one host.
#[derive(Debug)]
pub struct Race {
    pace: Pace,
    question: Question,
    began: Moment,
    v4: Side,
    v6: Side,
    /// Whose turn it is, while both have addresses.
    turn: Family,
    /// Until when IPv6 may catch up.
    grace: Option<Moment>,
    /// When the next attempt may begin, unless one fails before.
    next_start: Moment,
    running: Vec<Attempt>,
    started: u32,
    failure: Option<io::Error>,
}

impl Race {
    /// A race to `question`'s host, which begins `now`. No name is looked up.
    #[must_use]
    pub fn new(question: Question, pace: Pace, now: Moment) -> Self {
        let wanted = question.family();
        Self {
            pace,
            question,
            began: now,
            v4: Side::new(Family::V4, wanted),
            v6: Side::new(Family::V6, wanted),
            turn: Family::V6,
            grace: None,
            next_start: now,
            running: Vec::new(),
            started: 0,
            failure: None,
        }
    }

    /// The resolver answered for `family`.
    pub fn answered(&mut self, family: Family, found: &Found, now: Moment) {
        let untouched = self.started == 0 && !self.v4.answered && !self.v6.answered;
        if let Ok(addresses) = found
            && family == Family::Any
            && untouched
            && let Some(first) = addresses.first()
            && first.is_ipv4()
        {
            self.turn = Family::V4;
        }
        for side in [&mut self.v4, &mut self.v6] {
            if side.answered || !family.wants(side.family) {
                continue;
            }
            side.answered = true;
            match found {
                Ok(addresses) => {
                    for address in addresses.iter().filter(|at| side.family.has(at)) {
                        if side.waiting.len() == MAX_ADDRESSES {
                            break;
                        }
                        if !side.waiting.contains(address) {
                            side.waiting.push_back(*address);
                        }
                    }
                }
                Err(error) => side.failure = Some(error.clone()),
            }
        }
        if self.v4.answered && !self.v6.answered && self.grace.is_none() {
            self.grace = Some(now + self.pace.resolution_delay);
        }
    }

    /// An attempt failed.
    pub fn failed(&mut self, number: u32, error: io::Error, now: Moment) {
        let before = self.running.len();
        self.running.retain(|attempt| attempt.number != number);
        if self.running.len() < before {
            self.failure = Some(error);
            self.next_start = now;
        }
    }

    /// What to do next.
    pub fn next(&mut self, now: Moment) -> Move {
        if let Some(at) = self.running.iter().position(|one| one.until <= now) {
            let Attempt { number, .. } = self.running[at];
            self.failed(number, io::ErrorKind::TimedOut.into(), now);
            return Move::GiveUp(number);
        }
        let resolved_by = self.began + self.pace.resolve_timeout;
        if self.asking() && resolved_by <= now {
            let late = self.question.failed(ResolveFailure::Timeout);
            self.answered(Family::Any, &Err(late), now);
        }
        let mut wake = Moment::FAR;
        if self.asking() {
            wake = wake.min(resolved_by);
        }
        if !self.v4.waiting.is_empty() || !self.v6.waiting.is_empty() {
            let may_start = if self.started == 0 && !self.v6.answered {
                self.grace.unwrap_or(now)
            } else if self.running.is_empty() {
                now
            } else {
                self.next_start
            };
            if may_start <= now
                && let Some(address) = self.pop()
            {
                return self.start(address, now);
            }
            wake = wake.min(may_start);
        }
        for attempt in &self.running {
            wake = wake.min(attempt.until);
        }
        if wake == Moment::FAR && self.running.is_empty() && !self.asking() {
            return Move::Lost(self.loss());
        }
        Move::Wait(wake)
    }

    fn asking(&self) -> bool {
        !self.v4.answered || !self.v6.answered
    }

    /// The next address, the families taking turns.
    fn pop(&mut self) -> Option<SocketAddr> {
        let (first, second) = match self.turn {
            Family::V4 => (&mut self.v4, &mut self.v6),
            Family::Any | Family::V6 => (&mut self.v6, &mut self.v4),
        };
        let address = first
            .waiting
            .pop_front()
            .or_else(|| second.waiting.pop_front())?;
        self.turn = if address.is_ipv6() {
            Family::V4
        } else {
            Family::V6
        };
        Some(address)
    }

    fn start(&mut self, address: SocketAddr, now: Moment) -> Move {
        let number = self.started;
        self.started += 1;
        self.running.push(Attempt {
            number,
            until: now + self.pace.attempt_timeout,
        });
        self.next_start = now + self.pace.attempt_delay;
        Move::Start(number, address)
    }

    fn loss(&mut self) -> Loss {
        if let Some(error) = self.failure.take() {
            return Loss::Connect(error);
        }
        // That a family has no address says less than anything else that went wrong.
        let telling = |side: &mut Side| {
            side.failure
                .take_if(|error| error.failure() != ResolveFailure::NoAddress)
        };
        let error = telling(&mut self.v4)
            .or_else(|| telling(&mut self.v6))
            .unwrap_or_else(|| self.question.failed(ResolveFailure::NoAddress));
        Loss::Resolve(error)
    }
}

#[cfg(test)]
mod tests;
