//! Pairs and layers in memory, as a plain program: one JSON object with the operation's name and its figure.
//!
//! - `pair_4K`, `pair_64K`, `pair_4K_loop_each`: writes of that length at one end, drained by the read callback at the
//!   other, with the loop run after each 16 of them, or after each; as the C program measures libevent's pair.
//! - `pair_step`: one byte goes there and back a million times, by two read callbacks; half of a round trip.
//! - `layer_crossing`, `layer_crossing_100`: what a round trip takes longer with 10, or 100, layers on one end that pass all
//!   bytes through, for each time that the byte crosses one.
//! - `pair_stack_bytes`: how far below its caller's frame the stack ever was in a callback of the million steps.
//!
//! # Units
//! GiB/s; nanoseconds for steps and crossings; bytes of stack. CPU time of the thread (on Windows, wall time), the best of
//! several rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bufferevent_core::{Bev, Bufferevent, Context, Handler, Interest, Options, READ, Step};
use bufferevent_pair::pair;
use evreactor::EventLoop;

const ROUNDS: usize = 5;
const STEPS: u64 = 1_000_000;
const KIB: usize = 1024;
const GIB: usize = 1024 * 1024 * KIB;

static BLOCK: [u8; 64 * KIB] = [b'x'; 64 * KIB];

fn main() {
    let plain = best(|| ping_pong(0, STEPS).0);
    let crossing = |layers: u32, steps: u64| {
        let took = best(|| ping_pong(layers, steps).0) / steps as f64;
        (took - plain / STEPS as f64) / f64::from(layers) * 1e9
    };
    let figures = [
        ("pair_4K", throughput(4 * KIB, 16, GIB / 4)),
        ("pair_64K", throughput(64 * KIB, 1, GIB)),
        ("pair_4K_loop_each", throughput(4 * KIB, 1, GIB / 8)),
        ("pair_step", plain / STEPS as f64 * 1e9),
        ("layer_crossing", crossing(10, STEPS / 10)),
        ("layer_crossing_100", crossing(100, STEPS / 100)),
        ("pair_stack_bytes", ping_pong(0, STEPS).1 as f64),
    ]
    .map(|(name, figure)| format!("\"{name}\": {figure:.2}"));
    println!("{{{}}}", figures.join(", "));
}

/// Counts and drops what comes.
struct Drain(Arc<AtomicUsize>);

impl Handler for Drain {
    fn on_read(&mut self, bev: &Bev) {
        let count = bev.input().drain(usize::MAX).expect("it is there");
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// GiB/s of writes of `length` bytes, the loop run after every `batch` of them, until `total` has arrived.
fn throughput(length: usize, batch: usize, total: usize) -> f64 {
    let events = EventLoop::new().expect("a backend");
    let (near, far) = pair(&events).expect("on the loop's thread");
    let arrived = Arc::new(AtomicUsize::new(0));
    far.set_handler(Drain(arrived.clone()))
        .expect("it is there");
    far.enable(READ).expect("it is there");
    let seconds = best(|| {
        arrived.store(0, Ordering::Relaxed);
        timed(|| {
            for _ in 0..total / (length * batch) {
                for _ in 0..batch {
                    near.write(black_box(&BLOCK[..length])).expect("it is open");
                }
                events.poll().expect("the loop runs");
            }
            while arrived.load(Ordering::Relaxed) < total {
                events.poll().expect("the loop runs");
            }
        })
    });
    total as f64 / seconds / GIB as f64
}

/// Sends back each byte, until there were enough.
struct Ball {
    left: Arc<AtomicU64>,
    lowest: Arc<AtomicUsize>,
}

impl Handler for Ball {
    fn interest(&self) -> Interest {
        Interest::READ
    }

    fn on_read(&mut self, bev: &Bev) {
        let mut byte = [0];
        let count = bev.read(&mut byte).expect("it is there");
        assert_eq!(count, 1);
        self.lowest.fetch_min(address(&byte), Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed) - 1;
        self.left.store(left, Ordering::Relaxed);
        if left > 0 {
            bev.write(&byte).expect("it is open");
        }
    }
}

/// One byte makes `steps` steps between an end under so many layers and a plain one. Returns seconds, and bytes of stack.
fn ping_pong(layers: u32, steps: u64) -> (f64, usize) {
    let events = EventLoop::new().expect("a backend");
    let (mut near, far) = pair(&events).expect("on the loop's thread");
    for _ in 0..layers {
        near = near.over(Options::EMPTY, Through).expect("it is there");
    }
    let left = Arc::new(AtomicU64::new(steps));
    let lowest = Arc::new(AtomicUsize::new(usize::MAX));
    for end in [&near, &far] {
        let (left, lowest) = (left.clone(), lowest.clone());
        end.set_handler(Ball { left, lowest }).expect("it is there");
        end.enable(READ).expect("it is there");
    }
    let here = 0_u8;
    let seconds = timed(|| {
        near.write(b"x").expect("it is open");
        while left.load(Ordering::Relaxed) > 0 {
            events.poll().expect("the loop runs");
        }
    });
    let deep = address(&here).saturating_sub(lowest.load(Ordering::Relaxed));
    (seconds, deep)
}

/// Where something on the stack is.
fn address<T>(local: &T) -> usize {
    std::ptr::from_ref(local).addr()
}

/// The least that a layer can be.
struct Through;

impl Bufferevent for Through {
    fn name(&self) -> &'static str {
        "through"
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let moved = cx.lift(|below, own, room| below.move_to(room, own).unwrap_or(0));
        if moved == 0 {
            cx.inherit_end();
        }
        Step::Done
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        let moved = cx.lower(|own, below, room| own.move_to(room, below).unwrap_or(0));
        if moved == 0 && cx.finishing() {
            cx.end_output();
        }
        Step::Done
    }
}

/// The least of several rounds, in seconds.
fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn timed<R>(body: impl FnOnce() -> R) -> f64 {
    let start = now();
    black_box(body());
    (now() - start).as_secs_f64()
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
