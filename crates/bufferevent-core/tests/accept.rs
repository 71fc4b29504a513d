//! What every listener has in common, over connections that a script brings, on a virtual clock: the bound of a turn, pauses, callbacks.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::accept::{Accepted as _, Acceptor, Attempt, OnAccept, Source, Trouble};
use bufferevent_core::{Bev, Error, Kind};
use bufferevent_testkit::{Loop, spec};
use evreactor_core::{AsHost as _, Ready, Target as _};

/// Connections are numbers.
#[derive(Default)]
struct Script {
    events: Loop,
    waiting: Mutex<VecDeque<u32>>,
    exhausted: Mutex<bool>,
    attempts: AtomicUsize,
    rests: AtomicUsize,
    pauses: AtomicUsize,
    logged: AtomicUsize,
    refused: AtomicUsize,
    made: Mutex<Vec<Bev>>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

/// The number of one that was gone before it was accepted.
const GONE: u32 = u32::MAX;

impl Source for Scripted {
    type Connection = u32;
    type Peer = u32;
    const LAYER: &'static str = "scripted";

    fn attempt(&self) -> Attempt<u32> {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        if *self.0.exhausted.lock().unwrap() {
            return Attempt::Failed(io::Error::other("no descriptor is left"));
        }
        match self.0.waiting.lock().unwrap().pop_front() {
            Some(GONE) => Attempt::Gone,
            Some(number) => Attempt::Connection(number),
            None => Attempt::Nothing,
        }
    }

    fn rest(&self) {
        self.0.rests.fetch_add(1, Ordering::Relaxed);
    }

    fn pause(&self) {
        self.0.pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn make(&self, number: u32) -> Result<(Bev, u32), Error> {
        let (bev, _) = bufferevent_pair::pair(&self.0.events)?;
        self.0.made.lock().unwrap().push(bev.clone());
        Ok((bev, number))
    }

    fn log(&self, trouble: Trouble<'_>) {
        let count = match trouble {
            Trouble::Failed(_) => &self.0.logged,
            Trouble::Refused(_) => &self.0.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Scripted {
    fn acceptor(&self, per_turn: usize, accept: OnAccept<u32>) -> Arc<Acceptor<Self>> {
        Acceptor::new(
            self.0.events.as_host(),
            self.clone(),
            accept,
            per_turn,
            true,
        )
    }

    fn arrive(&self, numbers: impl IntoIterator<Item = u32>) {
        self.0.waiting.lock().unwrap().extend(numbers);
    }

    fn attempts(&self) -> usize {
        self.0.attempts.load(Ordering::Relaxed)
    }

    fn exhaust(&self, exhausted: bool) {
        *self.0.exhausted.lock().unwrap() = exhausted;
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A callback that notes the numbers.
fn noting(told: &Arc<Mutex<Vec<u32>>>) -> OnAccept<u32> {
    let told = told.clone();
    Box::new(move |_, number| {
        told.lock().unwrap().push(number);
        ().failure()
    })
}

#[test]
fn a_turn_takes_as_many_as_it_may_and_what_is_gone_is_skipped() {
    spec!(S7);
    let script = Scripted::default();
    let told = Arc::default();
    let acceptor = script.acceptor(3, noting(&told));
    script.arrive([1, 2, GONE, 4, 5]);
    acceptor.ready(0, Ready::READABLE);
    assert_eq!(*told.lock().unwrap(), [1, 2], "and one that was gone");
    assert_eq!(script.0.rests.load(Ordering::Relaxed), 0);
    script.0.events.run();
    assert_eq!(*told.lock().unwrap(), [1, 2, 4, 5]);
    assert_eq!(script.0.rests.load(Ordering::Relaxed), 1, "nothing waits");
    assert_eq!(acceptor.accepted(), 4);
}

#[test]
fn out_of_descriptors_it_pauses_ever_longer_and_recovers() {
    spec!(S7);
    let script = Scripted::default();
    let told = Arc::default();
    let acceptor = script.acceptor(64, noting(&told));
    let reported = Arc::new(AtomicUsize::new(0));
    let count = reported.clone();
    acceptor.on_error(move |error| {
        assert_eq!((error.layer(), error.operation()), ("scripted", "accept"));
        count.fetch_add(1, Ordering::Relaxed);
    });
    script.exhaust(true);
    script.arrive([1, 2]);
    acceptor.ready(0, Ready::READABLE);
    assert_eq!(script.attempts(), 1);
    // Each pause is over after its time and not before: 50, 100, 200, 400, 800, 1,000, 1,000 ms.
    for (attempts, pause) in (1..).zip([50, 100, 200, 400, 800, 1_000, 1_000]) {
        script.0.events.advance(millis(pause - 1));
        // What becomes ready, or is enabled, meanwhile shortens none.
        acceptor.ready(0, Ready::READABLE);
        acceptor.enable();
        assert_eq!(script.attempts(), attempts, "{pause} ms are not over");
        script.0.events.advance(millis(1));
        assert_eq!(script.attempts(), attempts + 1, "after {pause} ms");
    }
    assert_eq!(reported.load(Ordering::Relaxed), 8);
    assert_eq!(script.0.pauses.load(Ordering::Relaxed), 8);
    let logged = script.0.logged.load(Ordering::Relaxed);
    assert_eq!(logged, 4, "once a second at most, in 3,550 ms");
    assert_eq!(acceptor.accepted(), 0);
    // Descriptors again.
    script.exhaust(false);
    script.0.events.advance(millis(1_000));
    assert_eq!(*told.lock().unwrap(), [1, 2]);
    // One success, and the next pause is a short one.
    script.exhaust(true);
    acceptor.ready(0, Ready::READABLE);
    let before = script.attempts();
    script.0.events.advance(millis(50));
    assert_eq!(script.attempts(), before + 1);
}

#[test]
fn disabled_it_takes_nothing_and_enabled_it_takes_what_waited() {
    spec!(S7);
    let script = Scripted::default();
    let told = Arc::default();
    let acceptor = script.acceptor(64, noting(&told));
    acceptor.disable();
    script.arrive([1]);
    acceptor.ready(0, Ready::READABLE);
    script.0.events.run();
    assert_eq!(script.attempts(), 0);
    acceptor.enable();
    assert_eq!(*told.lock().unwrap(), [], "by the loop, not by the call");
    script.0.events.run();
    assert_eq!(*told.lock().unwrap(), [1]);
}

#[test]
fn who_is_refused_is_freed_and_a_panic_harms_nobody_else() {
    let script = Scripted::default();
    let acceptor = script.acceptor(
        64,
        Box::new(|_, number| match number {
            1 => Err(Error::new(Kind::Misuse, "test", "accept")).failure(),
            2 => panic!("on purpose"),
            _ => None,
        }),
    );
    acceptor.on_error(|_| panic!("on purpose"));
    script.arrive([1, 2, 3]);
    acceptor.ready(0, Ready::READABLE);
    let made = script.0.made.lock().unwrap();
    let freed: Vec<bool> = made.iter().map(Bev::is_freed).collect();
    assert_eq!(freed, [true, true, false]);
    assert_eq!(script.0.refused.load(Ordering::Relaxed), 1);
    assert_eq!(script.0.events.panics(), 1);
    drop(made);
    // The callback of errors panics, and accepting goes on after its pause.
    script.exhaust(true);
    acceptor.ready(0, Ready::READABLE);
    assert_eq!(script.0.events.panics(), 2);
    script.exhaust(false);
    script.arrive([4]);
    script.0.events.advance(millis(50));
    assert_eq!(acceptor.accepted(), 4);
}

#[test]
fn a_listener_that_is_dropped_by_its_callback_takes_the_callback_along() {
    struct Drops(Arc<AtomicUsize>);
    impl Drop for Drops {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let script = Scripted::default();
    let drops = Arc::new(AtomicUsize::new(0));
    let listener: Arc<Mutex<Option<Arc<Acceptor<Scripted>>>>> = Arc::default();
    let (held, seen) = (listener.clone(), drops.clone());
    let guard = Drops(drops.clone());
    let acceptor = script.acceptor(
        64,
        Box::new(move |_, _| {
            let _inside = &guard;
            if let Some(listener) = held.lock().unwrap().take() {
                listener.close();
            }
            assert_eq!(seen.load(Ordering::Relaxed), 0, "it still runs");
            None
        }),
    );
    *listener.lock().unwrap() = Some(acceptor.clone());
    script.arrive([1, 2]);
    acceptor.ready(0, Ready::READABLE);
    script.0.events.run();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert_eq!(acceptor.accepted(), 1, "nothing after it is closed");
    // A pause that was running is over with it.
    let paused = script.acceptor(64, Box::new(|_, _| None));
    script.exhaust(true);
    paused.ready(0, Ready::READABLE);
    let before = script.attempts();
    paused.close();
    script.0.events.advance(millis(5_000));
    assert_eq!(script.attempts(), before);
}
