//! Models of a bufferevent and its threads, run by loom in every order of steps that matters. `cargo xtask loom` runs them.
//!
//! The code under test is the crate's own: `evreactor_core::sync` puts loom's primitives under it.

#![cfg(loom)]

use std::sync::Arc;

use bufferevent_core::{Bev, Handler, Kind, Options, READ, TriggerOptions, WRITE};
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
    check(|| {
        let events = Loop::new();
        let options = Options::THREADSAFE | Options::DEFER_CALLBACKS;
        let (near, _far) = pair_with(&events, options).unwrap();
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

#[test]
fn a_handler_that_is_replaced_by_another_thread_hands_over_what_was_not_told() {
    check(|| {
        let events = Loop::new();
        let options = Options::THREADSAFE | Options::DEFER_CALLBACKS | Options::UNLOCK_CALLBACKS;
        let (near, _far) = pair_with(&events, options).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        near.set_handler(Counts(calls.clone())).unwrap();
        near.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
            .unwrap();
        let (other, replacement) = (near.clone(), Counts(calls.clone()));
        let thread = thread::spawn(move || other.set_handler(replacement).unwrap());
        events.run();
        thread.join().unwrap();
        events.run();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
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
