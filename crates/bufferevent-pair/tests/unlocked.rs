//! UNLOCK_CALLBACKS: the lock is free while a callback runs.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bufferevent_core::{Bev, Event, Handler, Kind, Options, READ};
use bufferevent_pair::{pair, pair_with};
use bufferevent_testkit::{Loop, Through, fault, spec};
use evreactor::EventLoop;

/// Longer than anything here takes; reaching it is a failure: somebody holds the lock.
const PATIENCE: Duration = Duration::from_secs(20);

fn unlocked() -> Options {
    Options::THREADSAFE | Options::DEFER_CALLBACKS | Options::UNLOCK_CALLBACKS
}

/// Tells of each read, and waits there until it is told to go on.
struct Waits {
    name: &'static str,
    began: Sender<&'static str>,
    goes_on: Arc<Mutex<Receiver<()>>>,
    inside: Arc<AtomicUsize>,
}

impl Handler for Waits {
    fn on_read(&mut self, bev: &Bev) {
        assert_eq!(
            self.inside.fetch_add(1, Ordering::SeqCst),
            0,
            "entered twice at once"
        );
        self.began.send(self.name).expect("the test listens");
        let goes_on = self.goes_on.lock().expect("nobody panics with it");
        goes_on
            .recv_timeout(PATIENCE)
            .expect("the other thread gets the lock");
        // Freed by the other thread, perhaps.
        let _ = bev.input().drain(usize::MAX);
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Scene {
    events: EventLoop,
    near: Bev,
    far: Bev,
    began: Receiver<&'static str>,
    go_on: Sender<()>,
    handler: Box<dyn Fn(&'static str) -> Waits + Send>,
}

/// A pair whose one end has a handler that waits inside of its read callback, with a byte to tell of.
fn scene() -> Scene {
    let events = EventLoop::new().expect("a loop");
    let (near, far) = pair_with(&events, unlocked()).expect("a pair");
    let (began_here, began) = channel();
    let (go_on, goes_on) = channel();
    let goes_on = Arc::new(Mutex::new(goes_on));
    let inside = Arc::new(AtomicUsize::new(0));
    let handler = move |name| Waits {
        name,
        began: began_here.clone(),
        goes_on: goes_on.clone(),
        inside: inside.clone(),
    };
    near.set_handler(handler("first")).expect("it is there");
    near.enable(READ).expect("it is there");
    far.write(b"x").expect("it is open");
    Scene {
        events,
        near,
        far,
        began,
        go_on,
        handler: Box::new(handler),
    }
}

#[test]
fn unlocking_without_deferring_is_refused_with_the_reason() {
    spec!(O4);
    fault!(F88);
    let events = Loop::new();
    let wrong = Options::THREADSAFE | Options::UNLOCK_CALLBACKS;
    let refusal = pair_with(&events, wrong).expect_err("it contradicts itself");
    assert_eq!(refusal.kind(), Kind::Misuse);
    let why = refusal.source().expect("a reason").to_string();
    assert_eq!(why, "UNLOCK_CALLBACKS needs DEFER_CALLBACKS");
    let (near, _far) = pair(&events).expect("a pair");
    let refusal = near
        .over(Options::UNLOCK_CALLBACKS, Through::new())
        .expect_err("so does this");
    assert_eq!(refusal.kind(), Kind::Misuse);
    assert!(near.write(b"nothing was changed").is_ok());
}

#[test]
fn another_thread_writes_and_reads_while_a_callback_runs() {
    spec!(O2, O4);
    let Scene {
        events,
        near,
        far,
        began,
        go_on,
        ..
    } = scene();
    far.enable(READ).expect("it is there");
    let other = thread::spawn({
        let near = near.clone();
        move || {
            assert_eq!(began.recv_timeout(PATIENCE), Ok("first"));
            near.write(b"from another thread").expect("it is open");
            let mut byte = [0];
            assert_eq!(near.read(&mut byte).expect("not lent"), 1);
            {
                let _lock = near.lock().expect("THREADSAFE");
                assert_eq!(near.input().len(), 0);
            }
            go_on.send(()).expect("the handler waits");
        }
    });
    while !other.is_finished() {
        events.poll().expect("the loop runs");
    }
    other.join().expect("no panic");
    for _ in 0..10 {
        events.poll().expect("the loop runs");
    }
    assert_eq!(far.input().len(), 19);
}

#[test]
fn a_handler_that_is_replaced_while_it_runs_ends_before_the_next_begins() {
    spec!(O4, C1);
    let Scene {
        events,
        near,
        far,
        began,
        go_on,
        handler,
    } = scene();
    let other = thread::spawn({
        let near = near.clone();
        move || {
            assert_eq!(began.recv_timeout(PATIENCE), Ok("first"));
            near.set_handler(handler("second")).expect("it is there");
            far.write(b"y").expect("it is open");
            // The first is still inside: the second must not begin.
            assert!(began.recv_timeout(Duration::from_millis(50)).is_err());
            go_on.send(()).expect("the handler waits");
            assert_eq!(began.recv_timeout(PATIENCE), Ok("second"));
            go_on.send(()).expect("the handler waits");
        }
    });
    while !other.is_finished() {
        events.poll().expect("the loop runs");
    }
    other.join().expect("no panic");
}

#[test]
fn freed_by_another_thread_while_its_callback_runs() {
    spec!(O4, G1);
    fault!(F86);
    let Scene {
        events,
        near,
        far,
        began,
        go_on,
        ..
    } = scene();
    let other = thread::spawn({
        let near = near.clone();
        move || {
            assert_eq!(began.recv_timeout(PATIENCE), Ok("first"));
            near.free().expect("it is there");
            far.write(b"nobody hears of this")
                .expect("open until the loop has freed it");
            go_on.send(()).expect("the handler waits");
            began
        }
    });
    while !other.is_finished() {
        events.poll().expect("the loop runs");
    }
    let began = other.join().expect("no panic");
    for _ in 0..10 {
        events.poll().expect("the loop runs");
    }
    assert!(near.is_freed());
    assert!(
        began.try_recv().is_err(),
        "a callback began after it was freed"
    );
}

#[test]
fn freed_by_itself_or_by_a_panic_in_its_callback() {
    spec!(O4);
    fault!(F83, F85);
    struct Ends(fn(&Bev));
    impl Handler for Ends {
        fn on_read(&mut self, bev: &Bev) {
            (self.0)(bev);
        }
    }
    for end in [(|bev: &Bev| drop(bev.free())) as fn(&Bev), |_| {
        panic!("on purpose, in an unlocked callback")
    }] {
        let events = EventLoop::new().expect("a loop");
        let (near, far) = pair_with(&events, unlocked()).expect("a pair");
        near.set_handler(Ends(end)).expect("it is there");
        near.enable(READ).expect("it is there");
        far.write(b"x").expect("it is open");
        for _ in 0..10 {
            events.poll().expect("the loop runs");
        }
        assert!(near.is_freed());
        // The lock is free: the other end is as usable as before.
        far.enable(READ).expect("it is there");
    }
}

#[test]
fn a_reply_is_sent_before_the_end_is_told() {
    spec!(O4, C11);
    struct Echo;
    impl Handler for Echo {
        fn on_read(&mut self, bev: &Bev) {
            bev.output().append_from(&bev.input()).expect("it is open");
        }
        fn on_event(&mut self, bev: &Bev, event: &Event) {
            if matches!(event, Event::Eof) {
                bev.free().expect("it is there");
            }
        }
    }
    let events = EventLoop::new().expect("a loop");
    let (near, far) = pair_with(&events, unlocked()).expect("a pair");
    near.set_handler(Echo).expect("it is there");
    near.enable(READ).expect("it is there");
    far.enable(READ).expect("it is there");
    far.write(b"data and the end together").expect("it is open");
    far.finish().expect("it is open");
    for _ in 0..10 {
        events.poll().expect("the loop runs");
    }
    assert_eq!(far.input().len(), 25);
    assert!(near.is_freed());
}
