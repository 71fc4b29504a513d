//! The events of one wait are served together: each reaches its target, whatever the callbacks before it did.

mod common;

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Entry, Log};
use evreactor::{
    Backend, EventLoop, Events, Features, Interest, Priority, RawSource, Ready, Registrar,
    Registration, Token,
};

/// A backend that reports what it is told to, all of it in one wait.
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script(Mutex<Vec<(Token, Ready)>>);

impl Backend for Scripted {
    fn registrar(&self) -> Arc<dyn Registrar> {
        self.0.clone()
    }

    fn wait(&mut self, _: Option<Duration>, events: &mut Events) -> io::Result<()> {
        for (token, ready) in self.0.0.lock().expect("not poisoned").drain(..) {
            events.push(token, ready);
        }
        Ok(())
    }
}

impl Registrar for Script {
    fn features(&self) -> Features {
        Features::NONE.with_edges()
    }

    fn register(&self, _: RawSource, _: Token, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn modify(&self, _: RawSource, _: Token, _: Interest) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn deregister(&self, _: RawSource, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn wake(&self) -> io::Result<()> {
        Ok(())
    }
}

fn scripted() -> EventLoop {
    static JOIN: std::sync::Once = std::sync::Once::new();
    JOIN.call_once(|| {
        evreactor::register_backend("scripted", || Ok(Box::new(Scripted(Arc::default()))))
            .expect("the name is free");
    });
    let builder = EventLoop::builder().backend("scripted");
    builder.build().expect("it was registered")
}

fn report(events: &EventLoop, reports: &[(Token, Ready)]) {
    let backend: &dyn Any = events.registrar();
    let script = backend.downcast_ref::<Script>().expect("it is this test's");
    script.0.lock().expect("not poisoned").extend(reports);
}

fn attach(events: &EventLoop, log: &Arc<Log>, key: u64) -> Registration {
    events
        .attach(Priority(0), log.clone(), key)
        .expect("the loop is there")
}

#[test]
fn a_source_with_two_events_is_called_for_both_in_order() {
    let events = scripted();
    let log = Log::new();
    let (one, other) = (attach(&events, &log, 1), attach(&events, &log, 2));
    report(
        &events,
        &[
            (one.token(), Ready::READABLE),
            (other.token(), Ready::READABLE),
            (one.token(), Ready::WRITABLE),
            (one.token(), Ready::READ_CLOSED),
            (other.token(), Ready::WRITABLE),
        ],
    );
    events.poll().expect("the loop runs");
    assert_eq!(
        log.take(),
        [
            Entry::Ready(1, Ready::READABLE),
            Entry::Ready(2, Ready::READABLE),
            Entry::Ready(1, Ready::WRITABLE),
            Entry::Ready(1, Ready::READ_CLOSED),
            Entry::Ready(2, Ready::WRITABLE),
        ]
    );
}

#[test]
fn what_ends_in_a_callback_is_neither_called_nor_kept() {
    let events = scripted();
    let slots: Arc<Mutex<Vec<Registration>>> = Arc::default();
    let inner = slots.clone();
    let first = Log::acting(move |_| inner.lock().expect("not poisoned").clear());
    let other = Log::new();
    let tokens: Vec<_> = [(&first, 1), (&other, 2), (&other, 3)]
        .into_iter()
        .map(|(log, key)| {
            let registration = attach(&events, log, key);
            let token = registration.token();
            slots.lock().expect("not poisoned").push(registration);
            (token, Ready::READABLE)
        })
        .collect();
    let stays = Log::new();
    let stays_watched = attach(&events, &stays, 4);
    report(&events, &tokens);
    report(&events, &[(stays_watched.token(), Ready::READABLE)]);
    events.poll().expect("the loop runs");
    // The first ended itself, too, while it was called.
    assert_eq!(first.keys(), [1]);
    assert!(other.take().is_empty(), "its registrations are gone");
    assert_eq!(stays.keys(), [4], "another's end is not its own");
    assert_eq!(Arc::strong_count(&first), 1, "the loop lets go of it");
    assert_eq!(Arc::strong_count(&other), 1, "the loop lets go of it");

    // Their rows are used again, and what was reported for them before is nobody's.
    let heirs = Log::new();
    let watched: Vec<_> = (0..3).map(|key| attach(&events, &heirs, key)).collect();
    report(&events, &tokens);
    events.poll().expect("the loop runs");
    assert!(heirs.take().is_empty());
    drop(watched);
    assert_eq!(Arc::strong_count(&heirs), 1);
}

#[test]
fn a_registration_that_another_thread_ended_before_a_callback_is_not_called_behind_it() {
    let events = scripted();
    let victim = Log::new();
    let registration = attach(&events, &victim, 2);
    let token = registration.token();
    let mut given = Some(registration);
    let first = Log::acting(move |_| {
        let Some(registration) = given.take() else {
            return;
        };
        let other = std::thread::spawn(move || drop(registration));
        other.join().expect("no panic");
    });
    let first_registration = attach(&events, &first, 1);
    report(
        &events,
        &[
            (first_registration.token(), Ready::READABLE),
            (token, Ready::READABLE),
        ],
    );
    events.poll().expect("the loop runs");
    assert_eq!(first.keys(), [1]);
    assert!(victim.take().is_empty());
    assert_eq!(Arc::strong_count(&victim), 1);
}

#[test]
fn targets_are_back_in_their_place_after_a_panic_and_after_a_break() {
    let events = scripted();
    let handle = events.clone();
    let mut calls = 0;
    let log = Log::acting(move |_| {
        calls += 1;
        match calls {
            1 => handle.break_now(),
            2 => std::panic::resume_unwind(Box::new("a panic of user code")),
            _ => {}
        }
    });
    // A log forgets what it does when that panics, so each source has one of its own.
    let quiet = Log::new();
    let (one, other) = (attach(&events, &log, 1), attach(&events, &quiet, 2));
    let both = [
        (one.token(), Ready::READABLE),
        (other.token(), Ready::READABLE),
    ];
    report(&events, &both);
    events.run().expect("the loop runs");
    assert_eq!((log.keys(), quiet.keys()), (vec![1], vec![]));
    events.poll().expect("the loop runs");
    assert_eq!(quiet.keys(), [2], "the break left it");
    report(&events, &both);
    events.poll().expect("the loop runs");
    assert_eq!((log.keys(), quiet.keys()), (vec![1], vec![2]));
    assert_eq!(events.stats().panics, 1);
    drop((one, other));
    assert_eq!(Arc::strong_count(&quiet), 1);
}
