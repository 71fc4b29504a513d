//! 100,000 timers: armed, moved at random, cancelled, fired. One JSON object with the operation's name and its figure.
//!
//! The operations, their order and the deadlines are those of the C program that measures libevent's `event_add` and
//! `event_del`: `heap` for deadlines 1 to 61 seconds ahead, as libevent keeps these in a heap, and `common` for all of 30
//! seconds, for which it has a queue. In a callback the time is that of the turn, on both sides; `*_outside` is measured between
//! turns, where whoever arms asks for the time first. We read the precise clock then (some 30 ns, and the processor
//! finishes its loads before), libevent the coarse one, which is behind by up to 4 ms: its timers may be early by that much.
//! `grow` is to arm timers in fresh memory, `fire` to run them.
//!
//! # Units
//! Nanoseconds for one operation; CPU time of the thread (on Windows, wall time), the best of several rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use evreactor::{EventLoop, Host, LoopHandle, Moment, Ready, Target, TimerKey};

const TIMERS: usize = 100_000;
const READDS: usize = 5 * TIMERS;
const ROUNDS: usize = 7;
const OPERATIONS: [&str; 5] = ["grow", "add", "readd", "del", "fire"];

fn main() {
    let mut figures = Vec::new();
    for (deadlines, common) in [("heap", false), ("common", true)] {
        for (place, outside) in [("", false), ("_outside", true)] {
            let best = measure(common, outside);
            figures.extend(OPERATIONS.iter().zip(best).map(|(operation, nanos)| {
                format!("\"timer_{deadlines}_{operation}{place}\": {nanos:.2}")
            }));
        }
    }
    println!("{{{}}}", figures.join(", "));
}

/// Nanoseconds per operation, by operation.
type Times = [f64; OPERATIONS.len()];

/// The best of several rounds: the others were disturbed.
fn measure(common: bool, outside: bool) -> Times {
    let mut best = [f64::INFINITY; OPERATIONS.len()];
    for _ in 0..ROUNDS {
        let events = EventLoop::new().expect("a backend");
        let target = Arc::new(Fired::default());
        let times = if outside {
            round(&events, &target, common)
        } else {
            let (handle, inner) = (LoopHandle::clone(&events), target.clone());
            let (sender, receiver) = mpsc::channel();
            events
                .post(move || {
                    let times = round(&handle, &inner, common);
                    sender.send(times).expect("the receiver waits");
                })
                .expect("the loop is there");
            events.run().expect("the loop runs");
            receiver.recv().expect("the round ran")
        };
        let fire = fire(&events, &target);
        for (best, time) in best.iter_mut().zip(times.into_iter().chain([fire])) {
            *best = best.min(time);
        }
    }
    best
}

fn round(handle: &LoopHandle, target: &Arc<Fired>, common: bool) -> [f64; 4] {
    let mut random = Random(1_234_567);
    let spans: Vec<Duration> = (0..TIMERS)
        .map(|_| match common {
            true => Duration::from_secs(30),
            false => Duration::from_micros(1_000_000 + random.below(60_000_000)),
        })
        .collect();
    let mut keys: Vec<TimerKey> = Vec::with_capacity(TIMERS);
    let arm = |keys: &mut Vec<TimerKey>| {
        for span in &spans {
            let key = handle.arm(handle.now() + *span, target.clone(), 1);
            keys.push(key.expect("the loop is there"));
        }
    };
    let disarm = |keys: &mut Vec<TimerKey>| {
        for key in keys.drain(..) {
            black_box(handle.disarm(key));
        }
    };
    let grow = timed(TIMERS, || arm(&mut keys));
    disarm(&mut keys);
    let add = timed(TIMERS, || arm(&mut keys));
    let readd = timed(READDS, || {
        for n in 0..READDS {
            let chosen = random.below(TIMERS as u64) as usize;
            let span = spans[(chosen + n / TIMERS) % TIMERS];
            black_box(handle.rearm(keys[chosen], handle.now() + span));
        }
    });
    let del = timed(TIMERS, || disarm(&mut keys));
    [grow, add, readd, del]
}

fn fire(events: &EventLoop, target: &Arc<Fired>) -> f64 {
    let mut random = Random(7);
    for _ in 0..TIMERS {
        let at = Moment::from_nanos(1 + random.below(1_000_000));
        events
            .arm(at, target.clone(), 1)
            .expect("the loop is there");
    }
    let nanos = timed(TIMERS, || events.run().expect("the loop runs"));
    assert_eq!(target.0.load(Ordering::Relaxed), TIMERS as u64);
    nanos
}

/// What `body` takes, in nanoseconds per operation.
fn timed<R>(operations: usize, body: impl FnOnce() -> R) -> f64 {
    let start = now();
    black_box(body());
    (now() - start).as_nanos() as f64 / operations as f64
}

#[cfg(unix)]
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is never negative")
}

#[cfg(windows)]
fn now() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[derive(Default)]
struct Fired(AtomicU64);

impl Target for Fired {
    fn run(&self, _key: u64) {}
    fn expired(&self, key: u64) {
        self.0.fetch_add(key & 1, Ordering::Relaxed);
    }
    fn ready(&self, _key: u64, _ready: Ready) {}
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
