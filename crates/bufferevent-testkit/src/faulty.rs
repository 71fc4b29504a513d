//! Two transports joined by a network that delays, chunks, stalls and resets, all by one seed; it loses nothing.
//!
//! # Invariants
//! - The same seed and the same calls give the same run: every choice comes from one [`Random`].
//! - Bytes keep their order. What is under way in one direction never exceeds the window.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bufferevent_core::{Bev, Bufferevent, Context, Direction, Error, Options, Step};
use evbuffer::EvBuffer;
use evreactor_core::{AsHost, Moment};

use crate::alarm::Alarm;
use crate::random::Random;

/// How a faulty network behaves. Made by [`Network::seeded`] and changed by the rest.
///
/// ```
/// use std::time::Duration;
/// use bufferevent_core::{Options, READ};
/// use bufferevent_testkit::{Loop, Network, faulty};
///
/// let events = Loop::new();
/// let (near, far) = faulty(&events, Options::EMPTY, Network::seeded(1))?;
/// far.enable(READ)?;
/// near.write(b"hello")?;
/// events.run_until(|| far.input().len() == 5);
/// assert!(events.now().as_nanos() > 0, "it took its time");
/// # Ok::<(), bufferevent_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Network {
    random: Random,
    /// Bytes under way per direction.
    window: usize,
    /// Bytes per packet at most.
    packet: usize,
    delay: Duration,
    /// One packet in so many stalls for a hundred delays; 0: none does.
    stall_one_in: usize,
    reset_at: Option<Moment>,
}

impl Network {
    /// A network with choices by `seed`: windows of 1 to 4096 bytes, delays up to 50 ms, now and then a stall.
    pub fn seeded(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let window = 1 << random.below(13);
        let packet = random.within(1..window + 1);
        let delay = Duration::from_millis(random.below(50) as u64);
        let stall_one_in = [0, 50, 7][random.below(3)];
        Self {
            random,
            window,
            packet,
            delay,
            stall_one_in,
            reset_at: None,
        }
    }

    /// At most so many bytes are under way in one direction.
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = bytes;
        self.packet = self.packet.min(bytes);
        self
    }

    /// Both ends fail with a reset at `time` of the loop's clock.
    pub fn reset_at(mut self, time: Duration) -> Self {
        self.reset_at = Some(Moment::ZERO + time);
        self
    }
}

struct Packet {
    arrives: Moment,
    /// Empty: the end of the stream.
    bytes: EvBuffer,
}

#[derive(Default)]
struct Lane {
    packets: VecDeque<Packet>,
    under_way: usize,
    last: Moment,
    writer: Option<Alarm>,
    reader: Option<Alarm>,
}

struct State {
    network: Network,
    lanes: [Lane; 2],
}

impl State {
    /// When the next packet of a lane arrives: after all that went before it.
    fn arrival(&mut self, lane: usize, now: Moment) -> Moment {
        let network = &mut self.network;
        let nanos = (network.delay.as_nanos() as usize).max(1);
        let mut delay = Duration::from_nanos(network.random.within(1..nanos + 1) as u64);
        if network.stall_one_in > 0 && network.random.once_in(network.stall_one_in) {
            delay += network.delay * 100;
        }
        let at = (now + delay).max(self.lanes[lane].last);
        self.lanes[lane].last = at;
        at
    }
}

struct End {
    state: Arc<Mutex<State>>,
    /// The lane it writes to; it reads the other.
    lane: usize,
}

/// Makes two bufferevents joined by `network`, each in a domain of its own, as two sockets are.
///
/// # Errors
/// As [`Bev::transport`].
pub fn faulty(host: &impl AsHost, options: Options, network: Network) -> Result<(Bev, Bev), Error> {
    let reset_at = network.reset_at;
    let state = Arc::new(Mutex::new(State {
        network,
        lanes: Default::default(),
    }));
    let make = |lane| {
        Bev::transport(
            host.as_host(),
            options,
            End {
                state: state.clone(),
                lane,
            },
        )
    };
    let ends = (make(0)?, make(1)?);
    let alarms = [Alarm::of(&ends.0)?, Alarm::of(&ends.1)?];
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    for lane in 0..2 {
        state.lanes[lane].writer = Some(alarms[lane].clone());
        state.lanes[lane].reader = Some(alarms[1 - lane].clone());
        if let Some(at) = reset_at {
            alarms[lane].set(at);
        }
    }
    Ok(ends)
}

const NAME: &str = "faulty";

impl End {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_reset(&self, now: Moment) -> bool {
        self.state().network.reset_at.is_some_and(|at| at <= now)
    }

    fn send(&self, now: Moment, bytes: EvBuffer) {
        let mut state = self.state();
        let arrives = state.arrival(self.lane, now);
        let lane = &mut state.lanes[self.lane];
        lane.under_way += bytes.len();
        lane.packets.push_back(Packet { arrives, bytes });
        if let Some(reader) = &lane.reader {
            reader.set(arrives);
        }
    }
}

fn reset(operation: &'static str) -> Error {
    Error::io(NAME, operation, io::ErrorKind::ConnectionReset.into())
}

impl Bufferevent for End {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let now = cx.now();
        if self.is_reset(now) {
            cx.fail(Direction::Read, reset("read"));
            return Step::Done;
        }
        let room = cx.room();
        let mut came = EvBuffer::new();
        {
            let mut state = self.state();
            let lane = &mut state.lanes[1 - self.lane];
            let Some(packet) = lane
                .packets
                .front_mut()
                .filter(|packet| packet.arrives <= now)
            else {
                return Step::Blocked;
            };
            if packet.bytes.is_empty() {
                lane.packets.pop_front();
                drop(state);
                cx.end_input();
                return Step::Done;
            }
            let count = packet
                .bytes
                .move_to(room, &mut came)
                .expect("a test has memory");
            if packet.bytes.is_empty() {
                lane.packets.pop_front();
            }
            lane.under_way -= count;
            // The writer hears of the room a little later, as by an acknowledgement.
            if let Some(writer) = lane.writer.clone() {
                writer.set(now + Duration::from_micros(1));
            }
        }
        let mut bytes = vec![0; came.len()];
        came.remove(&mut bytes);
        cx.add_input(&bytes).expect("a test has memory");
        Step::Again
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        let now = cx.now();
        if self.is_reset(now) {
            cx.fail(Direction::Write, reset("write"));
            return Step::Done;
        }
        if cx.finishing() {
            self.send(now, EvBuffer::new());
            cx.end_output();
            return Step::Done;
        }
        let most = {
            let mut state = self.state();
            let packet = state.network.packet;
            let free = state.network.window - state.lanes[self.lane].under_way;
            state.network.random.within(1..packet + 1).min(free)
        };
        if most == 0 {
            return Step::Blocked;
        }
        let mut packet = EvBuffer::new();
        cx.send(|output| {
            output
                .move_to(most, &mut packet)
                .expect("a test has memory")
        });
        if packet.is_empty() {
            return Step::Done;
        }
        self.send(now, packet);
        Step::Again
    }

    fn hears(&self, _: &Context<'_>) -> bool {
        !self.state().lanes[1 - self.lane].packets.is_empty() || Arc::strong_count(&self.state) > 1
    }

    fn freed(&mut self, cx: &mut Context<'_>, _: bool) {
        // As a closed socket: the peer reads what is under way, and then the end.
        self.send(cx.now(), EvBuffer::new());
    }
}
