//! A driver without a system: completions come as a script or a seed says, in any order, in parts, late, or as errors.
//!
//! Two lanes are joined in memory, by [`Fake::pair`]. A *calm* driver completes everything at once and whole. A *stormy* one draws from
//! its seed: which operation completes in this wait, how many bytes of it, whether a receive goes on, and whether bytes slip in between
//! a cancellation and its completion. [`Fake::fail`] and [`Fake::hold`] script single operations.
//!
//! # Invariants
//! - It keeps every rule of the [driver](crate::driver), so what runs over it unharmed asks for nothing else.
//! - The same seed and the same operations give the same run.
//!
//! ```
//! use bufferevent_core::{READ, Options};
//! use bufferevent_iocp::{Fake, BACKEND_FAKE};
//!
//! bufferevent_iocp::register_fake();
//! let events = evreactor::EventLoop::builder().backend(BACKEND_FAKE).build()?;
//! let (near, far) = Fake::pair(&events, Options::EMPTY)?;
//! far.enable(READ)?;
//! near.write(b"without a descriptor")?;
//! while far.input().len() < 20 {
//!     events.poll()?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bufferevent_core::{Bev, Error, Options};
use evbuffer::EvBuffer;
use evreactor::LoopHandle;

use crate::NAME;
use crate::builder::{Builder, port_of, with_socket};
use crate::driver::{Completion, Done, Driver, Lane, Operation, Verb, Waker};

/// Bytes that lie between two joined lanes at most: what a system's buffers are.
pub const PIPE: usize = 16 * 1024;

/// Operations that an outcome is kept for, per lane and kind.
const SCRIPTED: usize = 64;

#[derive(Debug, Default)]
struct End {
    peer: Option<Lane>,
    /// What the peer has sent and this end has not received.
    pipe: EvBuffer,
    /// The peer sends nothing any more.
    over: bool,
    receiving: bool,
    sending: Option<(EvBuffer, usize)>,
    /// To be told at the next opportunity, in this order.
    cancelled: Vec<Verb>,
    held: BTreeSet<u8>,
    failures: VecDeque<(u8, i32)>,
}

/// The driver. See the module.
#[derive(Debug)]
pub struct Fake {
    ends: BTreeMap<Lane, End>,
    done: Vec<Completion>,
    bell: Arc<Bell>,
    seed: Option<u64>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Waker for Bell {
    fn wake(&self) -> io::Result<()> {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
        Ok(())
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::calm()
    }
}

impl Fake {
    /// A driver that completes everything at once and whole.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            ends: BTreeMap::new(),
            done: Vec::new(),
            bell: Arc::default(),
            seed: None,
        }
    }

    /// A driver that draws from `seed` what completes, when, and how much of it.
    #[must_use]
    pub fn stormy(seed: u64) -> Self {
        Self {
            seed: Some(seed | 1),
            ..Self::calm()
        }
    }

    /// Two joined bufferevents on a loop whose driver is a fake.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](bufferevent_core::Kind::Unsupported) on any other loop.
    pub fn pair(events: &LoopHandle, options: Options) -> Result<(Bev, Bev), Error> {
        let make = || Builder::new(events).options(options).connected(None);
        let (near, far) = (make()?, make()?);
        let lane = |bev: &Bev| with_socket(bev, |socket, _| socket.lane());
        if let (Some(one), Some(two)) = (lane(&near)?, lane(&far)?) {
            port_of(events, "pair")?
                .with_driver(|fake: &mut Self| fake.join(one, two))
                .ok_or_else(|| Error::new(bufferevent_core::Kind::Unsupported, NAME, "pair"))?;
        }
        Ok((near, far))
    }

    /// Joins two lanes.
    pub fn join(&mut self, one: Lane, two: Lane) {
        self.end(one).peer = Some(two);
        self.end(two).peer = Some(one);
    }

    /// Has the next operation of this kind on a lane fail with the system's error `code`.
    ///
    /// # Panics
    /// With more than 64 outcomes in waiting.
    pub fn fail(&mut self, lane: Lane, verb: Verb, code: i32) {
        let failures = &mut self.end(lane).failures;
        assert!(failures.len() < SCRIPTED, "a script has an end");
        failures.push_back((verb as u8, code));
    }

    /// Completes no operation of this kind on a lane until it is released, or cancelled.
    pub fn hold(&mut self, lane: Lane, verb: Verb, held: bool) {
        let set = &mut self.end(lane).held;
        if held {
            set.insert(verb as u8);
        } else {
            set.remove(&(verb as u8));
        }
    }

    /// Whether an operation of this kind is under way on a lane.
    #[must_use]
    pub fn is_under_way(&self, lane: Lane, verb: Verb) -> bool {
        self.ends.get(&lane).is_some_and(|end| match verb {
            Verb::Receive => end.receiving,
            Verb::Send => end.sending.is_some(),
            Verb::Connect | Verb::Accept => false,
        })
    }

    fn end(&mut self, lane: Lane) -> &mut End {
        self.ends.entry(lane).or_default()
    }

    /// A number below `limit`; the largest, when calm.
    fn draw(&mut self, limit: usize) -> usize {
        match &mut self.seed {
            None => limit.saturating_sub(1),
            Some(state) => {
                // xorshift64: plain, and the same everywhere.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                (*state % limit.max(1) as u64) as usize
            }
        }
    }

    /// One time in four, when stormy.
    fn rarely(&mut self) -> bool {
        self.seed.is_some() && self.draw(4) == 0
    }

    fn told(&mut self, lane: Lane, last: bool, done: Done) {
        self.done.push(Completion { lane, last, done });
    }

    fn take_failure(&mut self, lane: Lane, verb: Verb) -> Option<io::Error> {
        let failures = &mut self.ends.get_mut(&lane)?.failures;
        let at = failures.iter().position(|(of, _)| *of == verb as u8)?;
        let (_, code) = failures.remove(at)?;
        Some(io::Error::from_raw_os_error(code))
    }

    fn held(&self, lane: Lane, verb: Verb) -> bool {
        self.ends
            .get(&lane)
            .is_some_and(|end| end.held.contains(&(verb as u8)))
    }

    /// Moves bytes of a send to the peer's pipe, and ends it when it is out, or in parts.
    fn send(&mut self, lane: Lane) {
        let Some(end) = self.ends.get_mut(&lane) else {
            return;
        };
        let cancelled = end.cancelled.contains(&Verb::Send);
        let Some((bytes, sent)) = end.sending.take() else {
            return;
        };
        let peer = end.peer;
        if cancelled {
            return self.sent(lane, bytes, sent, Err(cancelled_error()));
        }
        if let Some(error) = self.take_failure(lane, Verb::Send) {
            return self.sent(lane, bytes, sent, Err(error));
        }
        if self.held(lane, Verb::Send) {
            self.end(lane).sending = Some((bytes, sent));
            return;
        }
        let Some(pipe) = peer
            .and_then(|peer| self.ends.get(&peer))
            .map(|to| &to.pipe)
        else {
            let broken = io::Error::from(io::ErrorKind::BrokenPipe);
            return self.sent(lane, bytes, sent, Err(broken));
        };
        let room = PIPE.saturating_sub(pipe.len()).min(bytes.len() - sent);
        let count = if room == 0 { 0 } else { self.draw(room) + 1 };
        let mut copy = vec![0; count];
        let copied = bytes.copy_out_from(sent, &mut copy).unwrap_or(0);
        if let Some(to) = peer.and_then(|peer| self.ends.get_mut(&peer)) {
            let _ = to.pipe.append_slice(&copy[..copied]);
        }
        let sent = sent + copied;
        if sent == bytes.len() || (sent > 0 && self.rarely()) {
            self.sent(lane, bytes, sent, Ok(()));
        } else {
            self.end(lane).sending = Some((bytes, sent));
        }
    }

    fn sent(&mut self, lane: Lane, bytes: EvBuffer, sent: usize, result: io::Result<()>) {
        self.end(lane).cancelled.retain(|verb| *verb != Verb::Send);
        self.told(
            lane,
            true,
            Done::Sent {
                bytes,
                sent,
                result,
            },
        );
    }

    /// Completes a receive with what there is.
    fn receive(&mut self, lane: Lane) {
        let (late, cut) = (self.rarely(), self.rarely());
        let failure = self.take_failure(lane, Verb::Receive);
        let held = self.held(lane, Verb::Receive);
        let Some(end) = self.ends.get_mut(&lane) else {
            return;
        };
        if !end.receiving {
            return;
        }
        let cancelled = end.cancelled.contains(&Verb::Receive);
        if let Some(error) = failure {
            self.end_receive(lane);
            return self.told(lane, true, Done::Received(Err(error)));
        }
        // Bytes may slip in before the cancellation is through.
        if cancelled && (self.seed.is_none() || late) {
            self.end_receive(lane);
            return self.told(lane, true, Done::Received(Err(cancelled_error())));
        }
        let (length, over) = (end.pipe.len(), end.over);
        if held || (late && !cancelled) {
            return;
        }
        if length > 0 {
            let count = self.draw(length) + 1;
            let mut bytes = EvBuffer::new();
            let moved = self.end(lane).pipe.move_to(count, &mut bytes).unwrap_or(0);
            if moved > 0 {
                if cut {
                    self.end_receive(lane);
                }
                self.told(lane, cut, Done::Received(Ok(bytes)));
            }
        } else if over {
            self.end_receive(lane);
            self.told(lane, true, Done::Received(Ok(EvBuffer::new())));
        }
    }

    fn end_receive(&mut self, lane: Lane) {
        let end = self.end(lane);
        end.receiving = false;
        end.cancelled.retain(|verb| *verb != Verb::Receive);
    }

    fn finish(&mut self, lane: Lane) {
        if let Some(peer) = self.ends.get(&lane).and_then(|end| end.peer)
            && let Some(end) = self.ends.get_mut(&peer)
        {
            end.over = true;
        }
    }
}

/// What a cancelled operation ends with.
fn cancelled_error() -> io::Error {
    io::Error::from_raw_os_error(crate::desk::CANCELLED)
}

impl Driver for Fake {
    fn submit(&mut self, operation: Operation) {
        match operation {
            Operation::Receive { lane, .. } => self.end(lane).receiving = true,
            Operation::Send { lane, bytes, .. } => self.end(lane).sending = Some((bytes, 0)),
            Operation::Connect { lane, .. } => {
                let result = self.take_failure(lane, Verb::Connect).map_or(Ok(()), Err);
                self.told(lane, true, Done::Connected(result));
            }
            Operation::Accept { lane, .. } => {
                let refused = io::Error::from(io::ErrorKind::Unsupported);
                self.told(lane, true, Done::Accepted(Err(refused)));
            }
            Operation::Cancel { lane, verb } => {
                if self.is_under_way(lane, verb) {
                    self.end(lane).cancelled.push(verb);
                }
            }
            Operation::Finish { lane } => self.finish(lane),
            Operation::Close { lane } => {
                self.finish(lane);
                let peer = self.ends.remove(&lane).and_then(|end| end.peer);
                // The number may be another's soon.
                if let Some(end) = peer.and_then(|peer| self.ends.get_mut(&peer)) {
                    end.peer = None;
                }
            }
            // `watches` says no.
            Operation::Open { .. } | Operation::Watch { .. } | Operation::Unwatch { .. } => {}
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut lanes: Vec<Lane> = self.ends.keys().copied().collect();
        for at in (1..lanes.len()).rev() {
            let other = if self.seed.is_some() {
                self.draw(at + 1)
            } else {
                at
            };
            lanes.swap(at, other);
        }
        for &lane in &lanes {
            self.send(lane);
        }
        for &lane in &lanes {
            self.receive(lane);
        }
        let mut rung = self
            .bell
            .rung
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let moves = self.ends.values().any(|end| {
            (end.sending.is_some() && end.peer.is_some())
                || (end.receiving && (!end.pipe.is_empty() || end.over))
        });
        let waits = timeout.is_none_or(|timeout| !timeout.is_zero());
        if self.done.is_empty() && !*rung && !moves && waits {
            let far = timeout.unwrap_or(Duration::from_secs(3600));
            rung = self
                .bell
                .changed
                .wait_timeout(rung, far)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *rung = false;
        Ok(())
    }

    fn reap(&mut self, told: &mut dyn FnMut(Completion)) {
        self.done.drain(..).for_each(told);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.bell.clone()
    }
}
