//! Models of a bufferevent and its threads, run by loom in every order of steps that matters. `cargo xtask loom` runs them.
//!
//! The code under test is the crate's own: `evreactor_core::sync` puts loom's primitives under it.

#![cfg(all(loom, feature = "async"))]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bufferevent_core::{Bev, Handler, Kind, Options, READ, TriggerOptions, WRITE, task};
use bufferevent_pair::pair_with;
use bufferevent_testkit::Loop;
use evreactor_core::sync::atomic::{AtomicUsize, Ordering};
use evreactor_core::sync::thread;

/// Counts its calls.
struct Counts(Arc<AtomicUsize>);

impl Handler for Counts {
    fn on_read(&mut self, _: &Bev) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(model);
}

#[test]
fn operations_under_a_recursive_lock_are_one() {
    check(|| {
        let events = Loop::new();
        let (near, _far) = pair_with(&events, Options::THREADSAFE).unwrap();
        near.disable(WRITE).unwrap();
        let other = near.clone();
        let thread = thread::spawn(move || {
            let _outer = other.lock().unwrap();
            let _inner = other.lock().unwrap();
            other.write(b"x").unwrap();
            other.write(b"x").unwrap();
        });
        {
            // Without the lock too, nobody sees one of them alone.
            assert_ne!(near.output().len(), 1);
            let _lock = near.lock().unwrap();
            assert_ne!(near.output().len(), 1);
        }
        thread.join().unwrap();
        assert_eq!(near.output().len(), 2);
    });
}

#[test]
fn what_another_thread_triggers_is_told_once() {
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        check(move || {
            let events = Loop::new();
            let (near, _far) = pair_with(&events, Options::THREADSAFE | options).unwrap();
            let calls = Arc::new(AtomicUsize::new(0));
            near.set_handler(Counts(calls.clone())).unwrap();
            let other = near.clone();
            let thread = thread::spawn(move || {
                let always = TriggerOptions::IGNORE_WATERMARKS;
                other.trigger(READ, always).unwrap();
            });
            events.run();
            thread.join().unwrap();
            events.run();
            assert_eq!(calls.load(Ordering::Relaxed), 1);
        });
    }
}

#[test]
fn nothing_is_told_after_free_has_returned_on_the_loops_thread() {
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        check(move || {
            let events = Loop::new();
            let (near, _far) = pair_with(&events, Options::THREADSAFE | options).unwrap();
            let calls = Arc::new(AtomicUsize::new(0));
            near.set_handler(Counts(calls.clone())).unwrap();
            let other = near.clone();
            let thread = thread::spawn(move || {
                let triggered = other.trigger(READ, TriggerOptions::IGNORE_WATERMARKS);
                assert!(triggered.is_ok_and(|()| true) || other.is_freed());
            });
            near.free().unwrap();
            let told = calls.load(Ordering::Relaxed);
            events.run();
            thread.join().unwrap();
            events.run();
            assert_eq!(calls.load(Ordering::Relaxed), told);
        });
    }
}

#[test]
fn a_handler_that_is_replaced_by_another_thread_hands_over_what_was_not_told() {
    check(|| {
        let events = Loop::new();
        let options = Options::THREADSAFE | Options::DEFER_CALLBACKS | Options::UNLOCK_CALLBACKS;
        let (near, _far) = pair_with(&events, options).unwrap();
        let (first, second) = (Arc::default(), Arc::default());
        near.set_handler(Counts(Arc::clone(&first))).unwrap();
        let always = TriggerOptions::IGNORE_WATERMARKS;
        near.trigger(READ, always).unwrap();
        let (other, replacement) = (near.clone(), Counts(Arc::clone(&second)));
        let thread = thread::spawn(move || other.set_handler(replacement).unwrap());
        events.run();
        thread.join().unwrap();
        events.run();
        let told = first.load(Ordering::Relaxed);
        assert_eq!(told + second.load(Ordering::Relaxed), 1);
        // From here on there is the new one alone, also where the old one was running when it came.
        near.trigger(READ, always).unwrap();
        events.run();
        assert_eq!(first.load(Ordering::Relaxed), told);
        assert_eq!(told + second.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn freed_by_another_thread_while_its_callback_runs_unlocked() {
    check(|| {
        let events = Loop::new();
        let options = Options::THREADSAFE | Options::DEFER_CALLBACKS | Options::UNLOCK_CALLBACKS;
        let (near, _far) = pair_with(&events, options).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        near.set_handler(Counts(calls.clone())).unwrap();
        near.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
            .unwrap();
        let other = near.clone();
        let thread = thread::spawn(move || other.free().unwrap());
        events.run();
        thread.join().unwrap();
        events.run();
        assert!(near.is_freed());
        assert!(calls.load(Ordering::Relaxed) <= 1);
    });
}

#[test]
fn a_thread_that_holds_one_stack_waits_for_no_other_and_loses_nothing() {
    check(|| {
        let events = Loop::new();
        let (one, _a) = pair_with(&events, Options::THREADSAFE).unwrap();
        let (two, _b) = pair_with(&events, Options::THREADSAFE).unwrap();
        let across = |mine: &Bev, others: &Bev| {
            let _lock = mine.lock().unwrap();
            others.write(b"x").unwrap();
            if let Err(error) = others.input().drain(1) {
                assert_eq!(error.kind(), Kind::Busy);
            }
        };
        let (mine, others) = (two.clone(), one.clone());
        let thread = thread::spawn(move || across(&mine, &others));
        across(&one, &two);
        thread.join().unwrap();
        events.run();
        assert_eq!((one.output().len(), two.output().len()), (1, 1));
    });
}

#[test]
fn what_visitors_write_is_taken_in_once_and_in_order() {
    check(|| {
        let events = Loop::new();
        let (near, far) = pair_with(&events, Options::THREADSAFE).unwrap();
        far.enable(READ).unwrap();
        let other = near.clone();
        let thread = thread::spawn(move || {
            other.write(b"1").unwrap();
            other.write(b"2").unwrap();
        });
        events.run();
        thread.join().unwrap();
        events.run();
        // A look: it fetches nothing that the loop was not called for.
        assert_eq!((near.output().len(), far.input().len()), (0, 2));
        let mut bytes = [0; 4];
        let count = far.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"12");
    });
}

/// What came and what went are counted in two places: a look between never sees less come than went.
#[test]
fn who_looks_while_a_visitor_writes_and_the_loop_takes_in_sees_no_more_than_there_is() {
    check(|| {
        let events = Loop::new();
        let (near, _far) = pair_with(&events, Options::THREADSAFE).unwrap();
        near.disable(WRITE).unwrap();
        let writer = thread::spawn({
            let near = near.clone();
            move || near.write(b"x").unwrap()
        });
        let looker = thread::spawn({
            let near = near.clone();
            move || assert!(near.output().len() <= 1)
        });
        events.run();
        writer.join().unwrap();
        looker.join().unwrap();
        events.run();
        assert_eq!(near.output().len(), 1);
    });
}

/// The third is the loop's, which takes in what one has written while the other writes.
#[test]
fn three_threads_share_one_handle() {
    check(|| {
        let events = Loop::new();
        let (near, _far) = pair_with(&events, Options::THREADSAFE).unwrap();
        let writes = |bev: Bev| thread::spawn(move || bev.write(b"x").unwrap());
        let threads = [writes(near.clone()), writes(near.clone())];
        near.disable(WRITE).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        events.run();
        assert_eq!(near.output().len(), 2, "each byte once");
    });
}

/// A future that waits until a number is set, and shows its waker. loom lets a load read an older value where nothing orders it behind
/// the store.
struct Waits {
    number: Arc<AtomicUsize>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for Waits {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        match self.number.load(Ordering::Relaxed) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

#[test]
fn a_wake_from_elsewhere_is_seen_by_the_next_poll() {
    check(|| {
        let events = Loop::new();
        let number = Arc::new(AtomicUsize::new(0));
        // Not of the model: only this thread asks it.
        let waker = Arc::<Mutex<Option<Waker>>>::default();
        let future = Waits {
            number: number.clone(),
            waker: waker.clone(),
        };
        let task = task::spawn(&events, future).unwrap();
        events.run();
        let waker = waker.lock().unwrap().take().unwrap();
        // Asked for already when the other thread wakes it: then its wake queues nothing.
        waker.wake_by_ref();
        let thread = thread::spawn(move || {
            number.store(1, Ordering::Relaxed);
            waker.wake();
        });
        events.run();
        thread.join().unwrap();
        events.run();
        assert!(task.is_over());
    });
}
