//! C1, C6, C9, C10, C11: who is told what, when, and in which order.

use std::sync::{Arc, Mutex};

use bufferevent_core::{
    Bev, Directions, Event, EventFlags, Handler, Interest, Kind, Options, READ, TriggerOptions,
    WRITE, on_event, on_read,
};
use bufferevent_testkit::{Log, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("callbacks share one state and can be asked for", one_state),
    (
        "callbacks can be replaced and removed, also from inside",
        replaced,
    ),
    (
        "a handler that is set late hears what was left untold",
        late_handler,
    ),
    (
        "new data brings a new callback, no data none",
        none_lost_none_spurious,
    ),
    (
        "what fires while a handler runs is told after it",
        while_running,
    ),
    (
        "an end is told after the data, and after what it caused",
        in_order,
    ),
    ("callbacks can be run by hand", by_hand),
    (
        "callbacks that are run by hand can be deferred",
        by_hand_later,
    ),
];

struct Count {
    reads: usize,
    writes: usize,
    events: usize,
}

impl Handler for Count {
    fn on_read(&mut self, bev: &Bev) {
        self.reads += bev.input().drain(usize::MAX).unwrap();
    }
    fn on_write(&mut self, _: &Bev) {
        self.writes += 1;
    }
    fn on_event(&mut self, _: &Bev, _: &Event) {
        self.events += 1;
    }
}

fn one_state(joint: &dyn Joint) {
    spec!(C1);
    let (near, far) = joint.pair();
    assert_eq!(near.interest(), Interest::EMPTY);
    near.set_handler(Count {
        reads: 0,
        writes: 0,
        events: 0,
    })
    .unwrap();
    assert_eq!(near.interest(), Interest::ALL);
    near.enable(READ).unwrap();
    near.write(b"one").unwrap();
    far.write(b"three").unwrap();
    far.finish().unwrap();
    let seen = || {
        near.with_handler(|c: &mut Count| (c.reads, c.writes, c.events))
            .unwrap()
    };
    far.enable(READ).unwrap();
    joint.until("all three", || seen() == (5, 1, 1));
    let other = near.with_handler(|_: &mut bufferevent_testkit::Recorder| ());
    assert_eq!(other.unwrap_err().kind(), Kind::Misuse);
    near.set_handler(on_read(|_| {})).unwrap();
    assert_eq!(near.interest(), Interest::READ | Interest::EVENT);
}

/// Replaces itself by another handler at the first byte.
struct Successor(Log);

impl Handler for Successor {
    fn on_read(&mut self, bev: &Bev) {
        assert_eq!(
            bev.with_handler(|_: &mut Self| ()).unwrap_err().kind(),
            Kind::Busy,
            "it runs"
        );
        bev.set_handler(self.0.take_all()).unwrap();
    }
}

/// Removes itself.
struct Once(Arc<Mutex<usize>>);

impl Handler for Once {
    fn on_read(&mut self, bev: &Bev) {
        *self.0.lock().unwrap() += 1;
        bev.replace_handler(None).unwrap();
    }
}

fn replaced(joint: &dyn Joint) {
    spec!(C1);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(Successor(log.clone())).unwrap();
    near.enable(READ).unwrap();
    far.write(b"a").unwrap();
    joint.until("the first byte", || near.input().len() == 1);
    joint.settle();
    far.write(b"b").unwrap();
    joint.until("the successor", || log.received() == b"ab");

    let count = Arc::new(Mutex::new(0));
    let (near, far) = joint.pair();
    near.set_handler(Once(count.clone())).unwrap();
    near.enable(READ).unwrap();
    for length in 1..4 {
        far.write(b"x").unwrap();
        joint.until("a byte", || near.input().len() == length);
        joint.settle();
    }
    assert_eq!(*count.lock().unwrap(), 1);
    assert_eq!(near.interest(), Interest::EMPTY);
    // From outside the old one is handed back.
    near.input().drain(usize::MAX).unwrap();
    near.set_handler(Once(count)).unwrap();
    assert!(near.replace_handler(None).unwrap().is_some());
}

fn late_handler(joint: &dyn Joint) {
    spec!(C7, C9);
    let (near, far) = joint.pair();
    near.enable(READ).unwrap();
    far.write(b"early").unwrap();
    far.finish().unwrap();
    joint.until("the end", || {
        near.input().len() == 5 && near.enabled() == WRITE
    });
    joint.settle();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    joint.settle();
    assert_eq!(log.told(), [Told::Read(5), Told::Eof]);
}

fn none_lost_none_spurious(joint: &dyn Joint) {
    spec!(C9);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.take_all()).unwrap();
    near.enable(READ).unwrap();
    joint.settle();
    assert_eq!(log.told(), [], "nothing has happened");
    let mut sent = Vec::new();
    for round in 0..50_u8 {
        let bytes = vec![round; 1 + usize::from(round) * 7];
        far.write(&bytes).unwrap();
        sent.extend_from_slice(&bytes);
        if round % 3 == 0 {
            joint.until("what was sent", || log.received_len() == sent.len());
        }
    }
    joint.until("all", || log.received() == sent);
    joint.settle();
    assert!(
        log.told()
            .iter()
            .all(|told| matches!(told, Told::Read(1..))),
        "{:?}",
        log.told()
    );
    // A handler that leaves everything lying hears of new bytes, and of nothing else.
    let lazy = Log::new();
    near.set_handler(lazy.watch()).unwrap();
    far.write(b"1").unwrap();
    joint.until("one", || lazy.reads() == 1);
    joint.settle();
    far.write(b"2").unwrap();
    joint.until("two", || lazy.reads() == 2);
    joint.settle();
    joint.advance(std::time::Duration::from_secs(5));
    assert_eq!(lazy.told(), [Told::Read(1), Told::Read(2)]);
}

/// Causes everything at once while it runs, and says when it has returned.
struct Busy {
    log: Log,
    done: bool,
}

impl Handler for Busy {
    fn on_read(&mut self, bev: &Bev) {
        self.log.add(Told::Read(bev.input().len()));
        if self.done {
            return;
        }
        self.done = true;
        let always = TriggerOptions::IGNORE_WATERMARKS;
        bev.trigger_event(EventFlags::ERROR, always).unwrap();
        bev.trigger(Directions::BOTH, always).unwrap();
        self.log.add(Told::Unknown);
    }
    fn on_write(&mut self, bev: &Bev) {
        self.log.add(Told::Write(bev.output().len()));
    }
    fn on_event(&mut self, _: &Bev, event: &Event) {
        self.log.add(Told::from(event));
    }
}

fn while_running(joint: &dyn Joint) {
    spec!(C9, C11);
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        let (near, far) = joint.make(options);
        let log = Log::new();
        near.set_handler(Busy {
            log: log.clone(),
            done: false,
        })
        .unwrap();
        near.enable(READ).unwrap();
        far.write(b"x").unwrap();
        joint.until("all of it", || log.told().len() >= 5);
        joint.settle();
        let mut told = log.told();
        assert_eq!(
            told[..2],
            [Told::Read(1), Told::Unknown],
            "never entered while it runs"
        );
        // The rest of the round goes on in order; what stands before its place comes with the next round.
        told.drain(..2);
        assert_eq!(told.len(), 3, "each once: {told:?}");
        for what in [
            Told::Read(1),
            Told::Write(0),
            Told::Triggered(EventFlags::ERROR),
        ] {
            assert!(told.contains(&what), "{what:?} in {told:?}");
        }
        let place = |what: Told| told.iter().position(|told| *told == what);
        let triggered = place(Told::Triggered(EventFlags::ERROR));
        assert!(
            place(Told::Write(0)) < triggered,
            "write before events: {told:?}"
        );
    }
}

/// Answers what it read, and frees itself at the end.
struct Answer(Log);

impl Handler for Answer {
    fn on_read(&mut self, bev: &Bev) {
        self.0.add(Told::Read(bev.input().len()));
        bev.output().append_from(&bev.input()).unwrap();
    }
    fn on_write(&mut self, bev: &Bev) {
        self.0.add(Told::Write(bev.output().len()));
    }
    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.0.add(Told::from(event));
        if matches!(event, Event::Eof) {
            assert_eq!(bev.free().unwrap(), 0, "the reply was pushed before");
        }
    }
}

fn in_order(joint: &dyn Joint) {
    spec!(C11);
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        // Data and end together: the data first, and its answer is out before the end is told.
        let (near, far) = joint.make(options);
        let log = Log::new();
        near.set_handler(Answer(log.clone())).unwrap();
        far.enable(READ).unwrap();
        far.write(b"question").unwrap();
        far.finish().unwrap();
        joint.settle();
        near.enable(READ).unwrap();
        joint.until("the end", || log.has(&Told::Eof));
        let told = log.told();
        assert_eq!(told.first(), Some(&Told::Read(8)));
        assert_eq!(told.last(), Some(&Told::Eof));
        assert_eq!(told.iter().filter(|told| **told == Told::Eof).count(), 1);
        joint.until("the answer", || far.input().len() == 8);
    }
    // One round: read, write, then the end.
    let (near, far) = joint.make(Options::DEFER_CALLBACKS);
    let log = Log::new();
    far.enable(READ).unwrap();
    near.enable(READ).unwrap();
    near.disable(WRITE).unwrap();
    near.write(b"out").unwrap();
    far.write(b"in").unwrap();
    far.finish().unwrap();
    joint.until("the end", || near.enabled() == Directions::EMPTY);
    near.set_handler(log.watch()).unwrap();
    near.enable(WRITE).unwrap();
    joint.until("the round", || log.told().len() == 3);
    joint.settle();
    assert_eq!(log.told(), [Told::Read(2), Told::Write(0), Told::Eof]);
}

fn by_hand(joint: &dyn Joint) {
    spec!(C10);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_read_watermark(10, 0).unwrap();
    near.enable(READ).unwrap();
    far.write(b"short").unwrap();
    joint.until("the bytes", || near.input().len() == 5);
    joint.settle();
    let by_marks = TriggerOptions::EMPTY;
    near.trigger(READ, by_marks).unwrap();
    joint.settle();
    assert_eq!(log.news(), [], "below the mark");
    near.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
        .unwrap();
    joint.settle();
    assert_eq!(log.news(), [Told::Read(5)]);
    near.set_read_watermark(5, 0).unwrap();
    joint.settle();
    log.news();
    near.trigger(READ | WRITE, by_marks).unwrap();
    joint.settle();
    assert_eq!(log.news(), [Told::Read(5), Told::Write(0)]);
    // It ignores what is enabled, as it is not about what moves.
    near.disable(Directions::BOTH).unwrap();
    near.trigger(READ, by_marks).unwrap();
    near.trigger_event(EventFlags::EOF | EventFlags::READING, by_marks)
        .unwrap();
    joint.settle();
    let flags = EventFlags::EOF | EventFlags::READING;
    assert_eq!(log.news(), [Told::Read(5), Told::Triggered(flags)]);
}

/// Triggers a deferred event while it runs.
struct Defers(Log);

impl Handler for Defers {
    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.0.add(Told::from(event));
        if let Event::Triggered(EventFlags::CONNECTED) = event {
            bev.trigger_event(EventFlags::WRITTEN, TriggerOptions::DEFER_CALLBACKS)
                .unwrap();
        }
    }
}

fn by_hand_later(joint: &dyn Joint) {
    spec!(C10);
    let (near, _far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    let later = TriggerOptions::IGNORE_WATERMARKS | TriggerOptions::DEFER_CALLBACKS;
    near.trigger(Directions::BOTH, later).unwrap();
    near.trigger_event(EventFlags::TIMEOUT, later).unwrap();
    assert_eq!(log.told(), [], "not from here");
    joint.settle();
    assert_eq!(
        log.news(),
        [
            Told::Read(0),
            Told::Write(0),
            Told::Triggered(EventFlags::TIMEOUT)
        ]
    );
    // From inside a callback: not before that callback's caller is back in the loop.
    let (near, _far) = joint.pair();
    near.set_handler(Defers(log.clone())).unwrap();
    near.trigger_event(EventFlags::CONNECTED, TriggerOptions::EMPTY)
        .unwrap();
    assert_eq!(log.told(), [Told::Triggered(EventFlags::CONNECTED)]);
    joint.settle();
    assert_eq!(
        log.told().last(),
        Some(&Told::Triggered(EventFlags::WRITTEN))
    );
    // And a closure can be given instead of a type.
    let seen = log.clone();
    near.set_handler(on_event(move |_, event| seen.add(Told::from(event))))
        .unwrap();
    log.news();
    near.trigger_event(EventFlags::EOF, TriggerOptions::EMPTY)
        .unwrap();
    joint.settle();
    assert_eq!(log.news(), [Told::Triggered(EventFlags::EOF)]);
}
