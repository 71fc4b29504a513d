//! 100,000 timers: add (into fresh memory: `grow`, into used: `add`), re-add at random, delete, fire. One JSON object per line, nanoseconds per operation, best round.
//!
//! The same operations in the same order, with the same distribution of deadlines (1 to 61 seconds ahead), as libevent's
//! `event_add` and `event_del` are measured with in `bench/peers/micro.c timer`.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evreactor::{EventLoop, Host, LoopHandle, Moment, Ready, Target, TimerKey};

const TIMERS: usize = 100_000;
const READDS: usize = 5 * TIMERS;
const ROUNDS: usize = 7;

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

/// Keeps the best of several rounds: the others were disturbed.
struct Best([(&'static str, f64); 5]);

impl Best {
    fn offer(&mut self, slot: usize, started: Instant, operations: usize) {
        let nanos = started.elapsed().as_nanos() as f64 / operations as f64;
        self.0[slot].1 = self.0[slot].1.min(nanos);
    }
}

fn round(handle: &LoopHandle, target: &Arc<Fired>, common: bool, best: &mut Best) {
    let mut random = Random(1_234_567);
    let spans: Vec<Duration> = (0..TIMERS)
        .map(|_| match common {
            true => Duration::from_secs(30),
            false => Duration::from_micros(1_000_000 + random.below(60_000_000)),
        })
        .collect();
    let mut keys: Vec<TimerKey> = Vec::with_capacity(TIMERS);

    let started = Instant::now();
    for span in &spans {
        let key = handle.arm(handle.now() + *span, target.clone(), 1);
        keys.push(key.expect("the loop is there"));
    }
    best.offer(0, started, TIMERS);
    for key in keys.drain(..) {
        handle.disarm(key);
    }

    let started = Instant::now();
    for span in &spans {
        let key = handle.arm(handle.now() + *span, target.clone(), 1);
        keys.push(key.expect("the loop is there"));
    }
    best.offer(1, started, TIMERS);

    let started = Instant::now();
    for n in 0..READDS {
        let chosen = random.below(TIMERS as u64) as usize;
        let span = spans[(chosen + n / TIMERS) % TIMERS];
        black_box(handle.rearm(keys[chosen], handle.now() + span));
    }
    best.offer(2, started, READDS);

    let started = Instant::now();
    for key in &keys {
        black_box(handle.disarm(*key));
    }
    best.offer(3, started, TIMERS);
}

fn main() {
    for (place, common) in [
        ("outside", false),
        ("outside", true),
        ("inside", false),
        ("inside", true),
    ] {
        let mut best = Best([
            ("grow", f64::MAX),
            ("add", f64::MAX),
            ("readd", f64::MAX),
            ("del", f64::MAX),
            ("fire", f64::MAX),
        ]);
        for _ in 0..ROUNDS {
            let events = EventLoop::new().expect("a backend");
            let target = Arc::new(Fired::default());
            if place == "outside" {
                round(&events, &target, common, &mut best);
            } else {
                // In a callback the loop's time is cached, as libevent's is.
                let (handle, inner) = (events.clone(), target.clone());
                let (sender, receiver) = std::sync::mpsc::channel();
                let measured = move || {
                    round(&handle, &inner, common, &mut best);
                    sender.send(best).expect("the receiver waits");
                };
                events.post(measured).expect("the loop is there");
                events.run().expect("the loop runs");
                best = receiver.recv().expect("the round ran");
            }
            let mut random = Random(7);
            for _ in 0..TIMERS {
                let at = Moment::from_nanos(1 + random.below(1_000_000));
                events
                    .arm(at, target.clone(), 1)
                    .expect("the loop is there");
            }
            let started = Instant::now();
            events.run().expect("the loop runs");
            best.offer(4, started, TIMERS);
            assert_eq!(target.0.load(Ordering::Relaxed), TIMERS as u64);
        }
        let kind = if common { "common" } else { "spread" };
        for (operation, nanos) in best.0 {
            println!(
                r#"{{"bench":"timers","place":"{place}","deadlines":"{kind}","timers":{TIMERS},"operation":"{operation}","ns_per_op":{nanos:.1}}}"#
            );
        }
    }
}
