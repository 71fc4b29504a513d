//! Turns, queues, modes of running and what ends them, on every backend.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bufferevent_testkit::spec;
use common::{
    Entry, Log, ManualClock, PATIENCE, arm, at_ms, count, deferred, each_backend, ms, schedule,
};
use evreactor::{EventLoop, Host, LoopClosed, Outcome, Phase, RunError, Target};

#[test]
fn a_turn_goes_timers_then_tasks_then_deferred_by_priority() {
    each_backend(|builder| {
        spec!(L2);
        let clock = ManualClock::new();
        let events = builder
            .priorities(3)
            .clock(clock.clone())
            .build()
            .expect("a loop");
        let log = Log::new();
        schedule(&events, deferred(2), &log, 5);
        schedule(&events, deferred(0), &log, 3);
        schedule(&events, deferred(200), &log, 6);
        schedule(&events, deferred(0), &log, 4);
        schedule(&events, Phase::Turn, &log, 2);
        arm(&events, at_ms(1), &log, 1);
        clock.advance(ms(1));
        assert_eq!(events.run_once().expect("the loop runs"), Outcome::Done);
        let order = log.take();
        assert_eq!(order[0], Entry::Expired(1));
        assert_eq!(order[1..], [2, 3, 4, 5, 6].map(Entry::Run));
        let stats = events.stats();
        assert_eq!(
            (stats.turns, stats.timers, stats.tasks, stats.deferred),
            (1, 1, 1, 4)
        );
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
    });
}

#[test]
fn tasks_that_ask_again_run_once_per_turn() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let own: Arc<Mutex<Option<Arc<Log>>>> = Arc::default();
        let inner = own.clone();
        let log = Log::acting(move |_| {
            let again = inner
                .lock()
                .expect("not poisoned")
                .clone()
                .expect("it was set");
            schedule(&handle, Phase::Turn, &again, 1);
        });
        *own.lock().expect("not poisoned") = Some(log.clone());
        schedule(&events, Phase::Turn, &log, 1);
        for turn in 1..=3 {
            events.poll().expect("the loop runs");
            assert_eq!(log.keys(), [1], "turn {turn}");
        }
        own.lock().expect("not poisoned").take();
    });
}

#[test]
fn deferred_calls_are_bounded_per_turn() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder
            .priorities(2)
            .max_deferred_per_turn(count(3))
            .build()
            .expect("a loop");
        let log = Log::new();
        for key in 0..7 {
            schedule(&events, deferred(1), &log, key);
        }
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [0, 1, 2]);
        schedule(&events, deferred(0), &log, 100);
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [100, 3, 4], "the more urgent one overtakes");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(log.keys(), [5, 6], "the rest is not lost");
    });
}

#[test]
fn local_closures_are_deferred_too() {
    each_backend(|builder| {
        let events = Rc::new(
            builder
                .max_deferred_per_turn(count(2))
                .build()
                .expect("a loop"),
        );
        let seen = Rc::new(RefCell::new(Vec::new()));
        for n in 0..3 {
            let (seen, inner) = (seen.clone(), events.clone());
            events.defer(move || {
                seen.borrow_mut().push(n);
                if n == 0 {
                    let seen = seen.clone();
                    inner.defer(move || seen.borrow_mut().push(10));
                }
            });
        }
        events.poll().expect("the loop runs");
        assert_eq!(*seen.borrow(), [0, 1]);
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(*seen.borrow(), [0, 1, 2, 10]);
    });
}

#[test]
fn the_modes_end_when_they_say() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        for outcome in [events.run(), events.run_once(), events.poll()] {
            assert_eq!(
                outcome.expect("the loop runs"),
                Outcome::Empty,
                "there is nothing to do"
            );
        }
        let log = Log::new();
        let hold = events.hold();
        assert_eq!(
            events.poll().expect("the loop runs"),
            Outcome::Done,
            "it does not wait"
        );

        // run_once waits, and ends with the first turn that called something.
        let started = Instant::now();
        arm(&events, events.now() + ms(5), &log, 1);
        arm(&events, events.now() + ms(600_000), &log, 2);
        assert_eq!(events.run_once().expect("the loop runs"), Outcome::Done);
        assert!(started.elapsed() >= ms(5), "the timer was early");
        assert_eq!(log.keys(), [1]);
        drop(hold);

        // exit_after ends it although a timer is left.
        events.exit_after(ms(2)).expect("the loop is there");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Exit);
        assert!(events.got_exit() && !events.got_break());
        assert!(log.take().is_empty());
    });
}

#[test]
fn until_exit_stays_with_nothing_to_do_until_another_thread_says_so() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let other = std::thread::spawn(move || {
            let (sender, receiver) = channel();
            handle
                .post(move || sender.send(()).expect("it is waited for"))
                .expect("the loop is there");
            receiver
                .recv_timeout(PATIENCE)
                .expect("the loop runs with nothing else to do");
            handle.exit();
        });
        assert_eq!(
            events.run_until_exit().expect("the loop runs"),
            Outcome::Exit
        );
        other.join().expect("the other thread ends");
    });
}

#[test]
fn exit_ends_after_the_turn_and_break_after_the_callback() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let log = Log::acting(move |entry| {
            match entry {
                Entry::Run(1) => handle.exit(),
                Entry::Run(2) => handle.break_now(),
                _ => {}
            };
        });
        for key in [1, 3, 4] {
            schedule(&events, Phase::Turn, &log, key);
        }
        schedule(&events, deferred(0), &log, 5);
        assert_eq!(events.run().expect("the loop runs"), Outcome::Exit);
        assert_eq!(log.keys(), [1, 3, 4, 5]);
        assert!(events.got_exit());

        for key in [2, 3, 2] {
            schedule(&events, Phase::Turn, &log, key);
        }
        schedule(&events, deferred(0), &log, 5);
        assert_eq!(events.run().expect("the loop runs"), Outcome::Break);
        assert_eq!(log.keys(), [2]);
        assert!(events.got_break() && !events.got_exit());
        assert_eq!(events.run().expect("the loop runs"), Outcome::Break);
        assert_eq!(log.keys(), [3, 2], "what the break left comes in its order");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(log.keys(), [5]);
        assert!(!events.got_break());
    });
}

#[test]
fn an_end_that_was_asked_for_too_early_is_not_lost() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let log = Log::new();
        events.exit();
        schedule(&events, Phase::Turn, &log, 1);
        assert_eq!(
            events.run_until_exit().expect("the loop runs"),
            Outcome::Exit
        );
        assert_eq!(log.keys(), [1], "one turn is made");
        events.break_now();
        schedule(&events, Phase::Turn, &log, 2);
        assert_eq!(
            events.run_until_exit().expect("the loop runs"),
            Outcome::Break
        );
        assert!(log.take().is_empty(), "a break is at once");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(log.keys(), [2]);
    });
}

#[test]
fn running_inside_a_callback_is_an_error() {
    each_backend(|builder| {
        let events = Rc::new(builder.build().expect("a loop"));
        let results = Rc::new(RefCell::new(Vec::new()));
        let (inner, told) = (events.clone(), results.clone());
        events.defer(move || {
            for again in [
                inner.run(),
                inner.run_once(),
                inner.poll(),
                inner.run_until_exit(),
            ] {
                told.borrow_mut().push(again);
            }
        });
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(results.borrow().len(), 4);
        assert!(
            results
                .borrow()
                .iter()
                .all(|again| matches!(again, Err(RunError::Running)))
        );
        assert_eq!(events.stats().panics, 0);
    });
}

#[test]
fn a_panic_in_a_callback_is_caught_and_counted_and_the_loop_goes_on() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let log = Log::new();
        let broken = || Log::acting(|_| panic!("on purpose"));
        schedule(&events, Phase::Turn, &broken(), 1);
        schedule(&events, Phase::Turn, &log, 2);
        schedule(&events, deferred(0), &broken(), 3);
        schedule(&events, deferred(0), &log, 4);
        events.defer(|| panic!("on purpose"));
        arm(&events, at_ms(0), &broken(), 5);
        arm(&events, at_ms(0), &log, 6);
        /// Panics when the loop lets go of it.
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose, in a drop");
            }
        }
        let bomb = Bomb;
        events.post(move || drop(bomb)).expect("the loop is there");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(log.keys(), [6, 2, 4]);
        assert_eq!(events.stats().panics, 5);
        // And what is dropped uncalled.
        let bomb = Bomb;
        events.post(move || drop(bomb)).expect("the loop is there");
        let handle = events.clone();
        drop(events);
        assert_eq!(handle.stats().panics, 6);
    });
}

#[test]
fn calls_from_the_loops_own_thread_make_no_system_call_and_others_one_per_sleep() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let log = Log::new();
        for key in 0..100 {
            schedule(&events, Phase::Turn, &log, key);
            arm(&events, events.now(), &log, key);
        }
        let handle = events.clone();
        let inner = log.clone();
        events
            .post(move || {
                for key in 0..100 {
                    schedule(&handle, deferred(0), &inner, key);
                }
                // The loop is awake: another thread has no need to wake it either.
                let other = handle.clone();
                std::thread::spawn(move || {
                    for key in 0..100 {
                        schedule(&other, Phase::Turn, &inner, key);
                    }
                })
                .join()
                .expect("the other thread ends");
            })
            .expect("the loop is there");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(log.take().len(), 400);
        assert_eq!(events.stats().wakes, 0);
    });
}

/// Each round trip starts with the loop asleep or on its way there; one lost wake-up would end the test.
#[test]
fn no_wake_up_is_lost() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 2_000;
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let hold = Arc::new(events.hold());
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (handle, hold) = (events.clone(), hold.clone());
                std::thread::spawn(move || {
                    let (sender, receiver) = channel();
                    for round in 0..ROUNDS {
                        let sender = sender.clone();
                        let answer = move || sender.send(round).expect("it is waited for");
                        match (thread + round) % 3 {
                            0 => handle.post(answer).expect("the loop is there"),
                            1 => {
                                let now = handle.now();
                                let answer = Mutex::new(Some(answer));
                                let log = Log::acting(move |_| {
                                    let once = answer.lock().expect("not poisoned").take();
                                    once.expect("it is called once")();
                                });
                                arm(&handle, now, &log, 0);
                            }
                            _ => {
                                let answer = Mutex::new(Some(answer));
                                let log = Log::acting(move |_| {
                                    let once = answer.lock().expect("not poisoned").take();
                                    once.expect("it is called once")();
                                });
                                schedule(&handle, deferred(0), &log, 0);
                            }
                        }
                        let answered = receiver.recv_timeout(PATIENCE).expect("a lost wake-up");
                        assert_eq!(answered, round);
                    }
                    drop(hold);
                })
            })
            .collect();
        drop(hold);
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        for thread in threads {
            thread.join().expect("no wake-up was lost");
        }
    });
}

/// One poster alone, whom no other's ring can save, sweeps over the moments at which the loop goes to sleep. With the last
/// look and the announcement of sleep swapped in the loop, this fails within a few thousand rounds.
#[test]
fn no_wake_up_is_lost_at_any_moment_of_falling_asleep() {
    const ROUNDS: usize = 30_000;
    const SWEEP: usize = 400;
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let (handle, hold) = (events.clone(), events.hold());
        let poster = std::thread::spawn(move || {
            let answered = Arc::new(AtomicUsize::new(0));
            for round in 1..=ROUNDS {
                for _ in 0..round % SWEEP {
                    std::hint::spin_loop();
                }
                let answer = answered.clone();
                let task = move || answer.store(round, Ordering::SeqCst);
                handle.post(task).expect("the loop is there");
                let started = Instant::now();
                while answered.load(Ordering::SeqCst) != round {
                    if started.elapsed() > PATIENCE {
                        handle.exit(); // Would wake it: so that the test ends.
                        panic!("a lost wake-up in round {round}");
                    }
                    std::hint::spin_loop();
                }
            }
            drop(hold);
        });
        let outcome = events.run().expect("the loop runs");
        poster.join().expect("no wake-up was lost");
        assert_eq!(outcome, Outcome::Empty);
    });
}

/// Four threads and the loop's own ask for calls of every phase and priority while the loop runs: those that one thread asks for
/// come in its order, in each queue, and none is lost or comes twice.
#[test]
fn calls_of_one_thread_keep_their_order() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 3_000;
    let phase = |key: u64| [Phase::Turn, deferred(0), deferred(2)][key as usize % 3];
    each_backend(|builder| {
        let events = builder.priorities(3).build().expect("a loop");
        let log = Log::new();
        let hold = Arc::new(events.hold());
        let threads: Vec<_> = (1..=THREADS)
            .map(|thread| {
                let (handle, log, hold) = (events.clone(), log.clone(), hold.clone());
                std::thread::spawn(move || {
                    for key in 0..CALLS {
                        schedule(&handle, phase(key), &log, thread * CALLS + key);
                    }
                    drop(hold);
                })
            })
            .collect();
        drop(hold);
        for key in 0..CALLS {
            schedule(&events, phase(key), &log, key);
            if key % 7 == 0 {
                events.poll().expect("the loop runs");
            }
        }
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        for thread in threads {
            thread.join().expect("it has asked for all");
        }
        let keys = log.keys();
        for thread in 0..=THREADS {
            for first in 0..3 {
                let asked = (first..CALLS).step_by(3).map(|key| thread * CALLS + key);
                let came = keys.iter().copied();
                let came = came.filter(|key| key / CALLS == thread && key % CALLS % 3 == first);
                assert!(came.eq(asked), "thread {thread}, queue {first}");
            }
        }
    });
}

#[test]
fn calls_keep_their_order_across_threads() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let log = Log::new();
        let hold = events.hold();
        // Each thread asks after the one before it has: one order, whoever asks.
        for key in 0..50 {
            let (handle, inner) = (events.clone(), log.clone());
            schedule(&events, Phase::Turn, &log, 2 * key);
            std::thread::spawn(move || schedule(&handle, Phase::Turn, &inner, 2 * key + 1))
                .join()
                .expect("the other thread ends");
        }
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), (0..100).collect::<Vec<_>>());
        drop(hold);
    });
}

/// What another thread asked for is dropped with the loop, and a panic in one drop takes no other along.
#[test]
fn calls_that_never_came_are_dropped_with_the_loop() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            let before = self.0.fetch_add(1, Ordering::SeqCst);
            assert_ne!(before, 3, "the fourth drop panics, as the test wants");
        }
    }
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = dropped.clone();
        std::thread::spawn(move || {
            for _ in 0..100 {
                let counts = Counts(counted.clone());
                handle
                    .post(move || drop(counts))
                    .expect("the loop is there");
            }
        })
        .join()
        .expect("it has posted all");
        let handle = events.clone();
        drop(events);
        assert_eq!(dropped.load(Ordering::SeqCst), 100);
        assert_eq!(handle.stats().panics, 1);
        let late = std::thread::spawn(move || handle.post(|| {}));
        assert_eq!(late.join().expect("it ends"), Err(LoopClosed));
    });
}

#[test]
fn a_closed_loop_refuses_and_has_dropped_everything_with_no_lock_held() {
    /// Calls its loop when it is dropped: that must neither deadlock nor succeed.
    struct CallsInDrop {
        handle: evreactor::LoopHandle,
        dropped: Arc<AtomicUsize>,
        next: Arc<Log>,
    }
    impl Drop for CallsInDrop {
        fn drop(&mut self) {
            assert_eq!(
                self.handle.schedule(Phase::Turn, self.next.clone(), 1),
                Err(LoopClosed)
            );
            let now = self.handle.now();
            assert_eq!(self.handle.arm(now, self.next.clone(), 1), Err(LoopClosed));
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
    impl Target for CallsInDrop {
        fn run(&self, _key: u64) {}
        fn expired(&self, _key: u64) {}
        fn ready(&self, _key: u64, _ready: evreactor::Ready) {}
    }
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let (dropped, next) = (Arc::new(AtomicUsize::new(0)), Log::new());
        let target = || {
            Arc::new(CallsInDrop {
                handle: handle.clone(),
                dropped: dropped.clone(),
                next: next.clone(),
            })
        };
        handle
            .schedule(Phase::Turn, target(), 1)
            .expect("the loop is there");
        handle
            .schedule(deferred(0), target(), 1)
            .expect("the loop is there");
        let timer = handle
            .arm(at_ms(1), target(), 1)
            .expect("the loop is there");
        let registration = handle.attach(evreactor::Priority(0), target(), 1);
        drop(events);
        assert_eq!(dropped.load(Ordering::SeqCst), 4);
        assert!(!handle.disarm(timer) && !handle.rearm(timer, at_ms(2)));
        assert!(handle.post(|| panic!("it must not run")).is_err());
        assert!(handle.after(ms(1), || panic!("it must not run")).is_err());
        handle.exit();
        drop((registration, handle.hold()));
        assert_eq!(handle.stats().panics, 0);
        assert_eq!(Arc::strong_count(&next), 1);
    });
}

#[test]
fn the_host_is_the_loop() {
    each_backend(|builder| {
        let events: EventLoop = builder.build().expect("a loop");
        let host = events.host();
        assert_eq!(host.thread(), evreactor_core::sync::thread_number());
        let ran = Arc::new(AtomicBool::new(false));
        let told = ran.clone();
        let log = Log::acting(move |_| told.store(true, Ordering::SeqCst));
        host.schedule(Phase::Turn, log, 1)
            .expect("the loop is there");
        host.caught_panic("a handler", &"made up");
        events.run().expect("the loop runs");
        assert!(ran.load(Ordering::SeqCst));
        assert_eq!(events.stats().panics, 1);
        std::thread::spawn(move || host.now())
            .join()
            .expect("the time can be asked for from anywhere");
    });
}
