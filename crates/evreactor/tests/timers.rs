//! Timers through the loop, on a clock that is set by hand where the time itself is not the question.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferevent_testkit::{fault, spec};
use common::{Log, ManualClock, PATIENCE, arm, at_ms, each_backend, ms};
use evreactor::{Clock, EventLoop, Host, LoopHandle, Moment, Outcome};

/// Runs a loop on a clock that jumps from timer to timer, until nothing is left.
fn run_virtually(events: &EventLoop, clock: &ManualClock) {
    while events.poll().expect("the loop runs") != Outcome::Empty {
        if let Some(next) = events.next_timer() {
            clock.set(next.max(clock.now()));
        }
    }
}

#[test]
fn timers_fire_in_order_never_early_and_once() {
    each_backend(|builder| {
        spec!(L2);
        let clock = ManualClock::new();
        let events = builder.clock(clock.clone()).build().expect("a loop");
        let log = Log::new();
        let _hold = events.hold();
        arm(&events, at_ms(20), &log, 3);
        arm(&events, at_ms(10), &log, 1);
        arm(&events, at_ms(20), &log, 4);
        arm(&events, at_ms(15), &log, 2);
        clock.set(at_ms(10) + Duration::ZERO);
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [1]);
        clock.set(Moment::from_nanos(14_999_999));
        events.poll().expect("the loop runs");
        assert!(log.take().is_empty(), "not a nanosecond early");
        clock.set(at_ms(1_000_000));
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [2, 3, 4]);
        events.poll().expect("the loop runs");
        assert!(log.take().is_empty(), "each once");
    });
}

#[test]
fn timers_can_be_moved_and_cancelled_also_by_each_other() {
    each_backend(|builder| {
        spec!(L2);
        let clock = ManualClock::new();
        let events = builder.clock(clock.clone()).build().expect("a loop");
        let keys = Arc::new(Mutex::new(Vec::new()));
        let (handle, inner) = (events.clone(), keys.clone());
        let log = Log::acting(move |entry| {
            if entry == common::Entry::Expired(0) {
                let keys = inner.lock().expect("not poisoned");
                assert!(!handle.disarm(keys[0]), "its own key is void");
                assert!(
                    handle.disarm(keys[1]),
                    "due in the same pass, and not yet called"
                );
                assert!(handle.rearm(keys[2], at_ms(50)), "likewise");
            }
        });
        for key in 0..4 {
            let timer = arm(&events, at_ms(10), &log, key);
            keys.lock().expect("not poisoned").push(timer);
        }
        clock.set(at_ms(10));
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [0, 3]);
        run_virtually(&events, &clock);
        assert_eq!(log.keys(), [2]);
        assert_eq!(clock.now(), at_ms(50));
    });
}

#[test]
fn after_can_be_restarted_cancelled_and_detached() {
    each_backend(|builder| {
        let clock = ManualClock::new();
        let events = builder.clock(clock.clone()).build().expect("a loop");
        let count = Arc::new(AtomicU64::new(0));
        let task = |worth: u64| {
            let count = count.clone();
            move || {
                count.fetch_add(worth, Ordering::SeqCst);
            }
        };
        let dropped = events.after(ms(1), task(1)).expect("the loop is there");
        drop(dropped);
        let cancelled = events.after(ms(1), task(10)).expect("the loop is there");
        assert!(cancelled.cancel());
        events
            .after(ms(1), task(100))
            .expect("the loop is there")
            .detach();
        let restarted = events.after(ms(1), task(1_000)).expect("the loop is there");
        assert!(restarted.restart(ms(7)));
        clock.set(at_ms(5));
        events.poll().expect("the loop runs");
        assert_eq!(count.load(Ordering::SeqCst), 100);
        run_virtually(&events, &clock);
        assert_eq!(count.load(Ordering::SeqCst), 1_100);
        assert!(!restarted.restart(ms(1)), "it has fired");
    });
}

#[test]
fn the_time_is_the_turns_inside_and_the_clocks_outside() {
    each_backend(|builder| {
        let clock = ManualClock::new();
        let events = builder.clock(clock.clone()).build().expect("a loop");
        let (handle, inner) = (events.clone(), clock.clone());
        let told = Arc::new(Mutex::new(None));
        let tell = told.clone();
        clock.set(at_ms(3));
        assert_eq!(events.now(), at_ms(3));
        events
            .post(move || {
                let first = handle.now();
                inner.set(at_ms(9));
                *tell.lock().expect("not poisoned") = Some((first, handle.now()));
            })
            .expect("the loop is there");
        events.poll().expect("the loop runs");
        let told = *told.lock().expect("not poisoned");
        assert_eq!(told, Some((at_ms(3), at_ms(3))), "asked once per turn");
        assert_eq!(events.now(), at_ms(9));
    });
}

/// While the loop sleeps, another thread must not reckon with the time at which it fell asleep.
#[test]
fn a_sleeping_loop_tells_others_the_time_of_the_clock() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let hold = events.hold();
        let other = std::thread::spawn(move || {
            let started = Instant::now();
            let first = handle.now();
            while started.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            let passed = handle.now() - first;
            drop(hold);
            passed
        });
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert!(other.join().expect("the other thread ends") >= ms(4));
    });
}

#[test]
fn an_earlier_timer_of_another_thread_shortens_the_wait() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let log = Log::new();
        let far = arm(&events, events.now() + 10 * PATIENCE, &log, 1);
        let handle = events.clone();
        let other = std::thread::spawn(move || {
            let (sender, receiver) = std::sync::mpsc::channel();
            let tell = move || sender.send(()).expect("it is waited for");
            handle
                .after(ms(1), tell)
                .expect("the loop is there")
                .detach();
            receiver
                .recv_timeout(PATIENCE)
                .expect("the wait was shortened");
            assert!(handle.disarm(far)); // And now nothing is left.
        });
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        other.join().expect("the other thread ends");
        assert!(log.take().is_empty());
    });
}

#[test]
fn real_timers_are_not_early() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let late = Arc::new(AtomicU64::new(0));
        for micros in [300, 1_000, 1_700, 2_400, 9_900] {
            let (started, late) = (Instant::now(), late.clone());
            let span = Duration::from_micros(micros);
            events
                .after(span, move || {
                    let passed = started.elapsed();
                    assert!(passed >= span, "{passed:?} instead of {span:?}");
                    late.fetch_add(1, Ordering::SeqCst);
                })
                .expect("the loop is there")
                .detach();
        }
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(late.load(Ordering::SeqCst), 5);
        assert_eq!(events.stats().panics, 0);
        assert!(
            events.stats().turns < 50,
            "it waits, it does not spin: {:?}",
            events.stats()
        );
    });
}

#[test]
fn a_million_timers_and_a_storm_of_adding_and_deleting() {
    const MILLION: u64 = 1_000_000;
    each_backend(|builder| {
        fault!(F94);
        let clock = ManualClock::new();
        let events = builder.clock(clock.clone()).build().expect("a loop");
        let log = Log::new();
        // One deadline for all; every other one is deleted again.
        let timers: Vec<_> = (0..MILLION)
            .map(|key| arm(&events, at_ms(5_000), &log, key))
            .collect();
        for timer in timers.iter().skip(1).step_by(2) {
            assert!(events.disarm(*timer));
        }
        run_virtually(&events, &clock);
        assert_eq!(events.stats().timers, MILLION / 2);
        assert_eq!(clock.now(), at_ms(5_000));
        assert!(
            log.keys().into_iter().eq((0..MILLION).step_by(2)),
            "in the order of arming"
        );

        // The storm: never more than a thousand armed, a million over all, and the table does not grow with it.
        let mut armed = std::collections::VecDeque::new();
        let mut largest = 0;
        for n in 0..MILLION {
            let at = clock.now() + ms(1 + n * 7_919 % 60_000);
            let timer = arm(&events, at, &log, n);
            largest = largest.max(timer.bits() & u64::from(u32::MAX));
            armed.push_back(timer);
            if armed.len() > 1_000 {
                assert!(events.disarm(armed.pop_front().expect("it is not empty")));
            }
        }
        assert!(
            largest < MILLION,
            "the entries of the first million are used again"
        );
        run_virtually(&events, &clock);
        assert_eq!(log.take().len(), 1_000);
        assert_eq!(Arc::strong_count(&log), 1, "nothing is kept");
    });
}

/// Four hours.
const HOURS_MS: u64 = 4 * 3_600_000;

/// Some hours of a small server's timers: idle time-outs that traffic moves, and a bucket that refills. Returns what happened when.
fn hours_of_timeouts_and_limits(
    events: &EventLoop,
    clock: &Arc<ManualClock>,
) -> Vec<(Moment, String)> {
    struct Server {
        handle: LoopHandle,
        clock: Arc<ManualClock>,
        trace: Mutex<Vec<(Moment, String)>>,
        tokens: AtomicU64,
        random: AtomicU64,
        end: Moment,
    }
    impl Server {
        fn note(&self, what: String) {
            self.trace
                .lock()
                .expect("not poisoned")
                .push((self.clock.now(), what));
        }
        fn random(&self, below: u64) -> u64 {
            let next = self
                .random
                .load(Ordering::SeqCst)
                .wrapping_mul(6_364_136_223_846_793_005)
                + 1;
            self.random.store(next, Ordering::SeqCst);
            (next >> 33) % below
        }
        fn refill(self: &Arc<Self>) {
            self.tokens.store(50, Ordering::SeqCst);
            let server = self.clone();
            if self.handle.now() < self.end {
                let refill = move || server.refill();
                self.handle
                    .after(ms(1_000), refill)
                    .expect("the loop is there")
                    .detach();
            }
        }
        fn traffic(self: &Arc<Self>, connection: u64, idle: evreactor::TimerKey) {
            let now = self.handle.now();
            if now >= self.end {
                return;
            }
            let cost = 1 + self.random(20);
            let left = self.tokens.load(Ordering::SeqCst);
            let pause = if left < cost {
                self.note(format!("{connection} is held back"));
                1_000 - now.as_nanos() / 1_000_000 % 1_000
            } else {
                self.tokens.store(left - cost, Ordering::SeqCst);
                self.handle.rearm(idle, now + ms(30_000));
                1 + self.random(31_000)
            };
            let server = self.clone();
            let more = move || server.traffic(connection, idle);
            self.handle
                .after(ms(pause), more)
                .expect("the loop is there")
                .detach();
        }
    }
    impl evreactor::Target for Server {
        fn run(&self, _key: u64) {}
        fn expired(&self, key: u64) {
            self.note(format!("{key} timed out"));
        }
        fn ready(&self, _key: u64, _ready: evreactor::Ready) {}
    }
    let server = Arc::new(Server {
        handle: LoopHandle::clone(events),
        clock: clock.clone(),
        trace: Mutex::default(),
        tokens: AtomicU64::new(0),
        random: AtomicU64::new(42),
        end: at_ms(HOURS_MS),
    });
    server.refill();
    for connection in 0..20 {
        let idle = events
            .arm(at_ms(30_000), server.clone(), connection)
            .expect("the loop is there");
        server.traffic(connection, idle);
    }
    run_virtually(events, clock);
    let trace = std::mem::take(&mut *server.trace.lock().expect("not poisoned"));
    assert!(trace.is_sorted_by_key(|(when, _)| *when));
    trace
}

#[test]
fn virtual_hours_take_no_time_and_are_the_same_each_time() {
    let traces = Mutex::new(Vec::new());
    each_backend(|builder| {
        spec!(L3);
        for _ in 0..2 {
            let started = Instant::now();
            let clock = ManualClock::new();
            let events = builder
                .clone()
                .clock(clock.clone())
                .build()
                .expect("a loop");
            let trace = hours_of_timeouts_and_limits(&events, &clock);
            assert!(clock.now() >= at_ms(HOURS_MS), "hours have passed there");
            assert!(started.elapsed() < PATIENCE, "and not here");
            let timed_out = trace
                .iter()
                .filter(|(_, what)| what.ends_with("timed out"))
                .count();
            assert_eq!(timed_out, 20, "each connection pauses for too long once");
            assert!(trace.len() > timed_out, "the limit was felt");
            traces.lock().expect("not poisoned").push(trace);
        }
    });
    let traces = traces.into_inner().expect("not poisoned");
    assert!(
        traces.windows(2).all(|two| two[0] == two[1]),
        "on every backend, every time"
    );
}
