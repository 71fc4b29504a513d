//! A pool of loops: how it starts, whom it gives work to, and how it ends when something goes wrong.

mod common;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use common::{ManualClock, PATIENCE, at_ms, count, each_backend, ms};
use evreactor::{Builder, Clock as _, EventLoop, Host as _, LoopPool, Reason};

fn pool(loops: Builder, size: usize) -> LoopPool {
    let builder = LoopPool::builder(count(size)).loops(loops).name("pool");
    builder.start().expect("the pool starts")
}

/// Tells that it was dropped, and on which thread.
struct Gone(Sender<String>);

impl Drop for Gone {
    fn drop(&mut self) {
        let name = thread::current().name().unwrap_or_default().to_string();
        // A test that has failed listens no more.
        let _ = self.0.send(name);
    }
}

#[test]
fn each_loop_runs_on_a_thread_of_its_own_with_what_its_setup_made() {
    each_backend(|loops| {
        let (sender, names) = channel();
        let sender = Mutex::new(sender);
        let builder = LoopPool::builder(count(3)).loops(loops).name("worker");
        let pool = builder
            .start_with(move |index, events: &EventLoop| {
                let gone = Gone(sender.lock().expect("no test panics with it").clone());
                // What is not `Send` may stay with the loop.
                let here = Rc::new(Cell::new(index));
                let task = here.clone();
                events.defer(move || task.set(task.get() + 10));
                Ok::<_, String>((here, gone))
            })
            .expect("the pool starts");
        let (said, heard) = channel();
        pool.post_all(move |index| {
            let name = thread::current().name().unwrap_or_default().to_string();
            said.send((index, name)).expect("the test listens");
        })
        .expect("all loops are there");
        let mut all: Vec<_> = (0..3)
            .map(|_| heard.recv_timeout(PATIENCE).expect("posted"))
            .collect();
        all.sort();
        let expected = [0, 1, 2].map(|index| (index, format!("worker-{index}")));
        assert_eq!(all, expected);
        assert_eq!(pool.handles().len(), 3);
        assert_eq!(names.try_recv().ok(), None, "kept while the loops run");
        pool.shut_down(PATIENCE).expect("all end well");
        let mut gone: Vec<_> = names.iter().collect();
        gone.sort();
        assert_eq!(gone, ["worker-0", "worker-1", "worker-2"]);
    });
}

#[test]
fn loops_take_turns_and_the_least_loaded_is_found() {
    each_backend(|loops| {
        let pool = pool(loops, 3);
        let threads: Vec<_> = (0..6).map(|_| pool.next_loop().thread()).collect();
        assert_eq!(threads[..3], threads[3..], "round and round");
        let own: Vec<_> = pool
            .handles()
            .iter()
            .map(|handle| handle.thread())
            .collect();
        assert_eq!(threads[..3], own);

        let mut leases: Vec<_> = (0..9).map(|_| pool.lease()).collect();
        assert_eq!(pool.leases(), [3, 3, 3]);
        leases.retain(|lease| lease.index() != 1);
        assert_eq!(pool.leases(), [3, 0, 3]);
        let burst: Vec<_> = (0..3).map(|_| pool.lease()).collect();
        assert!(burst.iter().all(|lease| lease.index() == 1), "{burst:?}");
        drop((leases, burst));
        assert_eq!(pool.leases(), [0, 0, 0]);
    });
}

#[test]
fn statistics_add_up_and_all_loops_go_by_one_clock() {
    each_backend(|loops| {
        let clock = ManualClock::new();
        clock.set(at_ms(7));
        let pool = pool(loops.clock(clock.clone()), 2);
        let (sender, receiver) = channel();
        let handles = pool.handles().to_vec();
        pool.post_all(move |index| {
            sender.send(handles[index].now()).expect("the test listens");
        })
        .expect("posted");
        let times: Vec<_> = (0..2)
            .map(|_| receiver.recv_timeout(PATIENCE).expect("called"))
            .collect();
        assert_eq!(times, [clock.now(); 2]);
        let stats = pool.stats();
        let each: Vec<_> = pool.handles().iter().map(|handle| handle.stats()).collect();
        assert_eq!(
            stats.tasks,
            each.iter().map(|stats| stats.tasks).sum::<u64>()
        );
        assert_eq!(stats.tasks, 2);
    });
}

#[test]
fn a_setup_that_panics_or_fails_is_told_and_ends_the_others() {
    each_backend(|loops| {
        for panics in [Some("panics"), None] {
            let (sender, gone) = channel();
            let sender = Mutex::new(sender);
            let builder = LoopPool::builder(count(3)).loops(loops.clone());
            let error = builder
                .start_with(move |index, _| match (index, panics) {
                    (1, Some(_)) => panic!("nothing works in loop {index}"),
                    (1, None) => Err("no room".to_string()),
                    _ => Ok(Gone(sender.lock().expect("not held in a panic").clone())),
                })
                .expect_err("the pool does not start");
            let [failure] = error.failures() else {
                panic!("one failure: {error}");
            };
            assert_eq!(failure.index(), 1);
            match (panics, failure.reason()) {
                (Some(_), Reason::Panicked(said)) => {
                    assert_eq!(said, "nothing works in loop 1");
                }
                (None, Reason::Setup(why)) => assert_eq!(why.to_string(), "no room"),
                (_, other) => panic!("{other}"),
            }
            assert_eq!(gone.iter().count(), 2, "the other two have ended");
        }
    });
}

#[test]
fn a_loop_that_cannot_be_made_is_told_with_its_cause() {
    let loops = EventLoop::builder().backend("kpoll");
    let error = LoopPool::builder(NonZeroUsize::MIN)
        .loops(loops)
        .start()
        .expect_err("there is no such backend");
    assert!(matches!(error.failures()[0].reason(), Reason::Build(_)));
    let text = error.to_string();
    assert!(
        text.starts_with("loop 0: no loop could be made: no backend is named \"kpoll\""),
        "{text}"
    );
}

#[test]
fn a_setup_that_takes_too_long_is_left_behind_and_becomes_no_loop() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let (sender, gone) = channel();
    let sender = Mutex::new(sender);
    let since = Instant::now();
    // The others run; dropped with the setup, the channel's end says that the thread is gone.
    let error = LoopPool::builder(count(2))
        .start_within(ms(50))
        .start_with(move |index, _| {
            if index == 1 {
                let waited = released.lock().expect("held by nobody else");
                waited.recv_timeout(PATIENCE).expect("released");
            }
            Ok::<_, String>(Gone(sender.lock().expect("not held in a panic").clone()))
        })
        .expect_err("one setup is late");
    assert!(since.elapsed() < PATIENCE);
    // On a busy machine loop 0 may have been late as well.
    let last = error.failures().last().expect("one failure at least");
    assert_eq!(last.to_string(), "loop 1: not set up after 50ms");
    gone.recv_timeout(PATIENCE).expect("loop 0 has ended");
    release.send(()).expect("the setup still waits");
    gone.recv_timeout(PATIENCE).expect("loop 1 has ended too");
}

#[test]
fn a_loop_that_is_busy_is_told_and_the_wait_ends() {
    each_backend(|loops| {
        let pool = pool(loops, 2);
        let (release, released) = channel::<()>();
        let (sender, entered) = channel();
        let busy = pool.handles()[1].clone();
        busy.post(move || {
            sender.send(()).expect("the test listens");
            released.recv_timeout(PATIENCE).expect("released");
        })
        .expect("posted");
        entered.recv_timeout(PATIENCE).expect("called");
        let error = pool.shut_down(ms(20)).expect_err("one is busy");
        // On a busy machine loop 0 may need longer as well.
        let last = error.failures().last().expect("one failure at least");
        assert_eq!(last.to_string(), "loop 1: still busy after 20ms");
        release.send(()).expect("it still waits");
        // It was told to end, and does.
        let deadline = Instant::now() + PATIENCE;
        while busy.post(|| {}).is_ok() {
            assert!(Instant::now() < deadline, "the loop goes on");
            thread::yield_now();
        }
    });
}

#[test]
fn a_panic_in_a_callback_ends_no_loop() {
    each_backend(|loops| {
        let pool = pool(loops, 2);
        pool.post_all(|index| assert_eq!(index, 2, "meant to fail"))
            .expect("posted");
        let (sender, receiver) = channel();
        pool.post_all(move |index| sender.send(index).expect("the test listens"))
            .expect("posted");
        for _ in 0..2 {
            receiver.recv_timeout(PATIENCE).expect("the loops go on");
        }
        assert_eq!(pool.stats().panics, 2);
        pool.shut_down(PATIENCE).expect("all end well");
    });
}

#[test]
fn a_panic_at_the_end_is_told() {
    struct Fuse;
    impl Drop for Fuse {
        fn drop(&mut self) {
            panic!("dropped badly");
        }
    }
    let pool = LoopPool::builder(count(2))
        .start_with(|index, _| Ok::<_, String>((index == 0).then(|| Fuse)))
        .expect("the pool starts");
    let error = pool.shut_down(PATIENCE).expect_err("one panics");
    assert_eq!(error.to_string(), "loop 0: panicked: dropped badly");
}

#[test]
fn joined_loops_may_end_by_themselves() {
    each_backend(|loops| {
        let pool = pool(loops, 2);
        let handles = pool.handles().to_vec();
        pool.post_all(move |index| handles[index].exit())
            .expect("posted");
        pool.join(PATIENCE).expect("all end");
    });
}

#[test]
fn dropping_a_pool_ends_its_loops_also_from_one_of_them() {
    each_backend(|loops| {
        let first = pool(loops.clone(), 2);
        let handles = first.handles().to_vec();
        drop(first);
        assert!(handles.iter().all(|handle| handle.post(|| {}).is_err()));

        let second = Arc::new(Mutex::new(Some(pool(loops, 2))));
        let handles = {
            let pool = second.lock().expect("not poisoned");
            pool.as_ref().expect("still there").handles().to_vec()
        };
        let (sender, dropped) = channel();
        handles[0]
            .post(move || {
                drop(second.lock().expect("not poisoned").take());
                sender.send(()).expect("the test listens");
            })
            .expect("posted");
        dropped
            .recv_timeout(PATIENCE)
            .expect("it does not wait for itself");
        let deadline = Instant::now() + PATIENCE;
        while handles.iter().any(|handle| handle.post(|| {}).is_ok()) {
            assert!(Instant::now() < deadline, "a loop goes on");
            thread::yield_now();
        }
    });
}
