//! Two stacks and their locks: a thread that holds one waits for no other.

use std::error::Error as _;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bufferevent_core::{
    Bev, Direction, Event, Handler, Kind, Mode, Options, Pressure, READ, TriggerOptions, WRITE,
    on_read,
};
use bufferevent_pair::pair_with;
use bufferevent_testkit::{Log, Loop, Through, Told, fault, spec};
use evbuffer::EvBuffer;

fn shared(events: &Loop) -> (Bev, Bev) {
    pair_with(events, Options::THREADSAFE).expect("a pair")
}

/// A thread that holds a bufferevent's lock until it is told to let go.
struct Holder {
    let_go: Sender<()>,
    thread: JoinHandle<()>,
}

impl Holder {
    fn of(bev: &Bev) -> Self {
        let bev = bev.clone();
        let (holds, held) = channel();
        let (let_go, told) = channel();
        let thread = thread::spawn(move || {
            let _lock = bev.lock().expect("any thread may");
            holds.send(()).expect("the test waits");
            told.recv().expect("the test tells");
        });
        held.recv().expect("it takes the lock");
        Self { let_go, thread }
    }

    fn let_go(self) {
        self.let_go.send(()).expect("it waits");
        self.thread.join().expect("no panic");
    }
}

#[test]
fn what_needs_no_answer_is_taken_in_and_done_in_order() {
    spec!(O2);
    fault!(F87);
    for early in [false, true] {
        taken_in(early);
    }
}

#[test]
fn operations_under_one_lock_are_not_parted_by_what_comes_meanwhile() {
    spec!(O2, G7);
    let events = Loop::new();
    let (near, far) = shared(&events);
    far.enable(READ).expect("it is there");
    near.disable(WRITE).expect("it is there");
    let lock = near.lock().expect("it is free");
    near.write(b"one ").expect("it is open");
    let other = near.clone();
    thread::spawn(move || {
        let events = Loop::new();
        let (mine, _beyond) = shared(&events);
        let _lock = mine.lock().expect("it is free");
        other.write(b"from elsewhere").expect("taken in");
    })
    .join()
    .expect("it waits for nobody");
    near.write(b"lock, ").expect("it is open");
    drop(lock);
    near.enable(WRITE).expect("it is there");
    events.run();
    let mut bytes = [0; 32];
    let count = far.read(&mut bytes).expect("it is there");
    assert_eq!(&bytes[..count], b"one lock, from elsewhere");
}

fn taken_in(early: bool) {
    let events = Loop::new();
    let (mine, _beyond) = shared(&events);
    let (near, far) = shared(&events);
    far.enable(READ).expect("it is there");
    near.write(b"0").expect("nothing is in the way");
    let holder = Holder::of(&near);
    {
        let _lock = mine.lock().expect("it is free");
        near.write(b"1").expect("taken in");
        let mut buffer = EvBuffer::new();
        buffer.append_slice(b"2").expect("there is memory");
        near.write_buffer(&mut buffer).expect("taken in");
        assert!(buffer.is_empty(), "moved");
        near.set_write_watermark(3, 30).expect("taken in");
        near.disable(WRITE).expect("taken in");
        near.enable(WRITE).expect("taken in");
        assert_eq!(near.output().len(), 2, "what is posted counts");
        assert_eq!(near.stats().output, 2);
    }
    assert_eq!(near.watermark(Direction::Write).high(), 0, "not yet");
    holder.let_go();
    // Whoever takes the lock first does what was taken in; the loop does, if nobody else.
    if early {
        near.write(b"3").expect("it is open");
        assert_eq!(near.watermark(Direction::Write).high(), 30);
    } else {
        events.run();
        assert_eq!(near.watermark(Direction::Write).high(), 30);
        near.write(b"3").expect("it is open");
    }
    events.run();
    let mut bytes = [0; 8];
    let count = far.read(&mut bytes).expect("it is there");
    assert_eq!(&bytes[..count], b"0123");
    near.write(b"4").expect("nothing waits any more");
    assert_eq!(far.input().len(), 1, "so it is done at once");
}

#[test]
fn what_needs_an_answer_is_refused_and_looks_need_no_lock() {
    spec!(O2);
    fault!(F87);
    let events = Loop::new();
    let (mine, _beyond) = shared(&events);
    let (near, far) = shared(&events);
    let top = near
        .over(Options::THREADSAFE, Through::new())
        .expect("it is free");
    top.set_write_watermark(1, 5).expect("it is there");
    top.set_max_output(1000).expect("it is there");
    top.disable(WRITE).expect("it is there");
    top.write(b"123456").expect("it is open");
    far.write(b"in").expect("it is open");
    top.enable(READ).expect("it is there");
    events.run();
    let see = |top: &Bev| {
        let marks = (
            top.watermark(Direction::Read),
            top.watermark(Direction::Write),
        );
        let lengths = (top.input().len(), top.output().len(), top.room());
        let below = top.underlying().map(|below| below == near);
        let layer = top.layer::<Through>().is_some();
        let facts = (top.enabled(), top.is_full(), top.is_freed(), top.stats());
        format!("{marks:?} {lengths:?} {below:?} {layer} {facts:?}")
    };
    let before = see(&top);
    let holder = Holder::of(&top);
    {
        let _lock = mine.lock().expect("it is free");
        assert_eq!(see(&top), before, "without the lock, and no wait");
        let busy = |what: &str, kind: Option<Kind>| assert_eq!(kind, Some(Kind::Busy), "{what}");
        busy("read", top.read(&mut [0; 4]).err().map(|e| e.kind()));
        busy("drain", top.input().drain(1).err().map(|e| e.kind()));
        busy("replace", top.replace_handler(None).err().map(|e| e.kind()));
        busy(
            "take",
            mine.output()
                .append_from(&top.input())
                .err()
                .map(|e| e.kind()),
        );
        let full = top.write(&[0; 2000]).expect_err("past its limit");
        assert_eq!(full.kind(), Kind::Full);
        let covered = near.write(b"x").expect_err("a layer is on it");
        assert_eq!(covered.kind(), Kind::Covered);
    }
    holder.let_go();
    events.run();
    assert_eq!(see(&top), before, "nothing was changed");
    assert_eq!(top.read(&mut [0; 4]).expect("it is free"), 2);
}

#[test]
fn what_fails_after_it_was_taken_in_is_told() {
    spec!(O2, C6);
    let events = Loop::new();
    let (mine, _beyond) = shared(&events);
    let (near, _far) = shared(&events);
    let log = Log::new();
    near.set_handler(log.watch()).expect("it is there");
    let holder = Holder::of(&near);
    {
        let _lock = mine.lock().expect("it is free");
        near.finish().expect("taken in");
        near.write(b"behind the end").expect("taken in");
    }
    holder.let_go();
    events.run();
    let lost = Told::Error(Some(Direction::Write), Kind::Ended);
    assert!(
        log.has(&Told::Written) && log.has(&lost),
        "{:?}",
        log.told()
    );
    assert_eq!(near.output().len(), 0);

    // Freed meanwhile: there is nobody to tell.
    let (near, far) = shared(&events);
    let holder = Holder::of(&near);
    let unsent = {
        let _lock = mine.lock().expect("it is free");
        near.write(b"never sent").expect("taken in");
        near.free().expect("taken in")
    };
    assert_eq!(unsent, 10);
    holder.let_go();
    events.run();
    assert!(near.is_freed());
    assert_eq!(far.input().len(), 0);
}

#[test]
fn a_flush_and_a_handler_are_taken_in_too() {
    spec!(O2);
    let events = Loop::new();
    let (mine, _beyond) = shared(&events);
    let (near, far) = shared(&events);
    far.write(b"x").expect("it is open");
    let log = Log::new();
    let holder = Holder::of(&near);
    {
        let _lock = mine.lock().expect("it is free");
        near.set_handler(log.watch()).expect("taken in");
        near.set_priority(evreactor_core::Priority(3))
            .expect("taken in");
        near.enable(READ).expect("taken in");
        let flushed = near.flush(Direction::Read, Mode::Flush).expect("taken in");
        assert_eq!(flushed, bufferevent_core::Flushed::Nothing);
    }
    holder.let_go();
    events.run();
    assert_eq!(log.reads(), 1);
    assert_eq!(near.priority(), evreactor_core::Priority(3));
}

#[test]
fn what_waits_is_bounded_and_goes_with_the_loop() {
    spec!(O2);
    let events = Loop::new();
    let (mine, _beyond) = shared(&events);
    let (near, far) = shared(&events);
    let holder = Holder::of(&near);
    let lock = mine.lock().expect("it is free");
    let block = vec![0; 1 << 20];
    let mut bytes = 0;
    let full = loop {
        match near.write(&block) {
            Ok(()) => bytes += block.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), Kind::Full);
    assert_eq!(bytes, 16 << 20);
    let mut operations = 0;
    while near.enable(WRITE).is_ok() {
        operations += 1;
    }
    assert_eq!(operations + 1, 16 * 1024, "the writes wait as one");
    drop(lock);
    holder.let_go();
    drop(events);
    assert_eq!(
        near.output().len(),
        0,
        "nothing is kept for a loop that is gone"
    );
    let weak = Arc::downgrade(&near.host());
    drop((near, far, mine, _beyond));
    assert!(weak.upgrade().is_none(), "nor does anything keep itself");
}

#[test]
fn two_are_locked_by_one_call() {
    spec!(O2, G7);
    fault!(F87);
    let events = Loop::new();
    let (one, _a) = shared(&events);
    let (other, _b) = shared(&events);
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (one, other) = (one.clone(), other.clone());
            thread::spawn(move || {
                for _ in 0..2_000 {
                    let (first, second) = if number % 2 == 0 {
                        (&one, &other)
                    } else {
                        (&other, &one)
                    };
                    let _both = first.lock_both(second).expect("any thread may");
                    assert_eq!(one.output().len(), other.output().len());
                    first.write(b"x").expect("it is open");
                    second.write(b"x").expect("it is open");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic, and no circle");
    }
    assert_eq!((one.output().len(), other.output().len()), (8_000, 8_000));
}

#[cfg(debug_assertions)]
#[test]
fn a_second_lock_by_hand_names_both_places() {
    fault!(F87);
    let events = Loop::new();
    let (one, _a) = shared(&events);
    let (other, _b) = shared(&events);
    let line = line!() + 1;
    let _lock = one.lock().expect("it is free");
    let _again = one.lock().expect("it is recursive");
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(other.lock());
    }));
    let payload = payload.expect_err("against the order");
    let message = payload.downcast_ref::<String>().expect("a message");
    let places = message.matches("two_stacks.rs:").count();
    assert!(
        places == 2 && message.contains(&format!("two_stacks.rs:{line}")),
        "{message}"
    );
    assert!(message.contains("lock_both"), "{message}");
}

#[cfg(debug_assertions)]
#[test]
fn a_loop_that_would_wait_for_one_while_another_is_held_names_both_places() {
    fault!(F87);
    let events = Loop::new();
    let (mine, _beyond) = shared(&events);
    let (near, _far) = shared(&events);
    near.set_handler(on_read(|_| {})).expect("it is there");
    // Something for the loop to do.
    let other = near.clone();
    thread::spawn(move || other.trigger(READ, TriggerOptions::IGNORE_WATERMARKS))
        .join()
        .expect("no panic")
        .expect("any thread may");
    let holder = Holder::of(&near);
    let line = line!() + 1;
    let lock = mine.lock().expect("it is free");
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| events.run()));
    let payload = payload.expect_err("against the order");
    let message = payload.downcast_ref::<String>().expect("a message");
    let (runs, held) = message.split_once("taken at").expect("both places");
    assert!(runs.contains(".rs:"), "{message}");
    let here = format!("two_stacks.rs:{line}:");
    assert!(held.contains(&here), "{message}");
    drop(lock);
    holder.let_go();
}

#[test]
fn a_relay_that_stops_when_full_hears_when_to_go_on() {
    spec!(O2, C5);
    struct Relay {
        to: Bev,
    }
    impl Handler for Relay {
        fn on_read(&mut self, bev: &Bev) {
            self.to
                .output()
                .append_from(&bev.input())
                .expect("taken in");
            if self.to.is_full() {
                bev.suspend(READ).expect("it is there");
            }
        }
    }
    struct Eases {
        from: Bev,
        eased: Arc<Mutex<usize>>,
    }
    impl Handler for Eases {
        fn on_pressure(&mut self, _: &Bev, pressure: Pressure) {
            if pressure == Pressure::Eased {
                *self.eased.lock().expect("no panic") += 1;
                self.from.resume(READ).expect("taken in");
            }
        }
        fn on_event(&mut self, _: &Bev, event: &Event) {
            panic!("{event:?}, {:?}", event_source(event));
        }
    }
    fn event_source(event: &Event) -> Option<String> {
        match event {
            Event::Error { error, .. } => error.source().map(ToString::to_string),
            _ => None,
        }
    }
    let events = Loop::new();
    let (source, from) = shared(&events);
    let (to, sink) = shared(&events);
    let eased = Arc::new(Mutex::new(0));
    to.set_write_watermark(0, 10).expect("it is there");
    to.set_handler(Eases {
        from: from.clone(),
        eased: eased.clone(),
    })
    .expect("it is there");
    from.set_read_watermark(0, 7).expect("it is there");
    from.set_handler(Relay { to: to.clone() })
        .expect("it is there");
    from.enable(READ).expect("it is there");
    sink.set_read_watermark(0, 20).expect("it is there");
    sink.set_handler(on_read(|_| {})).expect("it is there");
    sink.enable(READ).expect("it is there");
    source.write(&[b'x'; 1000]).expect("it is open");
    let mut taken = 0;
    while taken < 1000 {
        events.run();
        let count = sink.input().drain(usize::MAX).expect("it is there");
        assert!(count > 0, "stuck after {taken}");
        assert!(to.output().len() <= 16, "the mark and one read");
        taken += count;
    }
    assert!(*eased.lock().expect("no panic") > 10);
}
