//! Scheduled calls: what one costs the loop's own thread, another thread, and both at once. One JSON object.
//!
//! # Units
//! Nanoseconds per call, scheduled and run, wall time, the best of several rounds. `own` and `other` is who schedules;
//! `own_beside_other` is the price of the former while another thread never stops to do the latter; `wake` is the way from
//! another thread to a loop that sleeps and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use evreactor::{EventLoop, Host, LoopHandle, Phase, Ready, Target};

const CALLS: u64 = 1_000_000;
const CALLS_PER_TURN: u64 = 1_000;
const WAKES: u64 = 10_000;
/// Between two calls of the other thread in `own_beside_other`, in spins: some 200 ns.
const PAUSE: usize = 10;
const ROUNDS: usize = 7;

/// Calls that schedule themselves again until all are made.
struct Again {
    handle: LoopHandle,
    left: AtomicU64,
}

impl Target for Again {
    fn run(&self, key: u64) {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return self.handle.exit();
        }
        self.left.store(left - 1, Ordering::Relaxed);
        again(&self.handle, key);
    }
    fn expired(&self, _key: u64) {}
    fn ready(&self, _key: u64, _ready: Ready) {}
}

thread_local! {
    static AGAIN: std::cell::RefCell<Option<Arc<Again>>> = const { std::cell::RefCell::new(None) };
}

fn again(handle: &LoopHandle, key: u64) {
    let target = AGAIN.with_borrow(Clone::clone).expect("it was set");
    handle
        .schedule(Phase::Turn, target, key)
        .expect("the loop is there");
}

/// Counts its calls and ends the loop with the last.
struct Count {
    handle: LoopHandle,
    left: AtomicU64,
}

impl Target for Count {
    fn run(&self, _key: u64) {
        let left = self.left.load(Ordering::Relaxed) - 1;
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            self.handle.exit();
        }
    }
    fn expired(&self, _key: u64) {}
    fn ready(&self, _key: u64, _ready: Ready) {}
}

fn best(calls: u64, mut round: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        round();
        started.elapsed().as_nanos() as f64 / calls as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn own(events: &EventLoop) -> f64 {
    best(CALLS, || {
        let target = Arc::new(Again {
            handle: LoopHandle::clone(events),
            left: AtomicU64::new(CALLS),
        });
        AGAIN.set(Some(target));
        for key in 0..CALLS_PER_TURN {
            again(events, key);
        }
        events.run_until_exit().expect("the loop runs");
        events.run().expect("the loop runs"); // Whatever was still queued.
        AGAIN.set(None);
    })
}

fn own_beside_other(events: &EventLoop) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let other = std::thread::spawn({
        let (handle, stop) = (LoopHandle::clone(events), stop.clone());
        let target = Arc::new(Count {
            handle: LoopHandle::clone(events),
            left: AtomicU64::new(u64::MAX),
        });
        move || {
            while !stop.load(Ordering::Relaxed) {
                handle
                    .schedule(Phase::Turn, target.clone(), 0)
                    .expect("the loop is there");
                for _ in 0..PAUSE {
                    std::hint::spin_loop();
                }
            }
        }
    });
    let figure = own(events);
    stop.store(true, Ordering::Relaxed);
    other.join().expect("it ends when told");
    figure
}

fn others(events: &EventLoop, threads: u64) -> f64 {
    best(CALLS, || {
        let target = Arc::new(Count {
            handle: LoopHandle::clone(events),
            left: AtomicU64::new(CALLS),
        });
        let post = || {
            let (handle, target) = (LoopHandle::clone(events), target.clone());
            std::thread::spawn(move || {
                for key in 0..CALLS / threads {
                    handle
                        .schedule(Phase::Turn, target.clone(), key)
                        .expect("the loop is there");
                }
            })
        };
        let posters: Vec<_> = (0..threads).map(|_| post()).collect();
        events.run_until_exit().expect("the loop runs");
        for poster in posters {
            poster.join().expect("it has posted all");
        }
    })
}

fn wake(events: &EventLoop) -> f64 {
    best(WAKES, || {
        let handle = LoopHandle::clone(events);
        let poster = std::thread::spawn(move || {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..WAKES {
                let sender = sender.clone();
                let answer = move || sender.send(()).expect("it waits");
                handle.post(answer).expect("the loop is there");
                receiver.recv().expect("the loop answers");
            }
            handle.exit();
        });
        events.run_until_exit().expect("the loop runs");
        poster.join().expect("it was answered");
    })
}

fn main() {
    let events = EventLoop::new().expect("a backend");
    let figures = [
        ("own", own(&events)),
        ("own_beside_other", own_beside_other(&events)),
        ("other", others(&events, 1)),
        ("four_others", others(&events, 4)),
        ("wake", wake(&events)),
    ]
    .map(|(name, nanos)| format!("\"task_{name}\": {nanos:.1}"));
    println!("{{{}}}", figures.join(", "));
}
