//! G2, G4, G7, O3: moving bytes, enabling, locking, deferring.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bufferevent_core::{Directions, Kind, Options, READ, TriggerOptions, WRITE, on_read};
use bufferevent_testkit::{Log, Through, Told, spec};
use evbuffer::EvBuffer;

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("bytes are copied or moved in and out", in_and_out),
    ("a disabled direction moves nothing", disabled),
    ("disabling cancels a callback that waits", cancels),
    (
        "a layer's own bytes flow while its directions are off",
        handshake,
    ),
    (
        "a suspended direction moves again when the last reason is gone",
        suspended,
    ),
    ("the lock is recursive", locked),
    (
        "deferred callbacks never run on the caller's stack",
        deferred,
    ),
];

fn in_and_out(joint: &dyn Joint) {
    spec!(G4);
    let (near, far) = joint.pair();
    far.enable(READ).unwrap();
    near.write(b"").unwrap();
    near.write(b"copied, ").unwrap();
    let mut moved = EvBuffer::new();
    let shared = bytes_of("moved");
    moved.append_bytes(shared.clone()).unwrap();
    near.write_buffer(&mut moved).unwrap();
    assert!(moved.is_empty());
    joint.until("both", || far.input().len() == 13);
    let mut first = [0; 8];
    assert_eq!(far.read(&mut first).unwrap(), 8);
    assert_eq!(&first, b"copied, ");
    let mut rest = EvBuffer::new();
    rest.append_slice(b"behind: ").unwrap();
    assert_eq!(far.read_buffer(&mut rest).unwrap(), 5);
    let mut bytes = [0; 13];
    rest.copy_out(&mut bytes);
    assert_eq!(&bytes, b"behind: moved");
    if joint.moves() {
        // It is the same memory to the last.
        let arrived = rest
            .segments()
            .any(|segment| segment.as_ptr() == shared.as_ptr());
        assert!(arrived, "the bytes were copied");
    }
    assert_eq!(far.read(&mut bytes).unwrap(), 0, "nothing is left");
    assert_eq!(far.read_buffer(&mut rest).unwrap(), 0);
}

fn bytes_of(text: &'static str) -> bytes::Bytes {
    bytes::Bytes::from_static(text.as_bytes())
}

fn disabled(joint: &dyn Joint) {
    spec!(G2);
    let (near, far) = joint.pair();
    near.enable(READ | WRITE).unwrap();
    assert_eq!(near.enabled(), Directions::BOTH);
    near.disable(WRITE).unwrap();
    assert_eq!(near.enabled(), READ);
    far.enable(READ).unwrap();
    near.write(b"held").unwrap();
    joint.settle();
    assert_eq!((near.output().len(), far.input().len()), (4, 0));
    near.finish().unwrap();
    let log = Log::new();
    far.set_handler(log.watch()).unwrap();
    joint.settle();
    assert_eq!(log.told(), [], "the end mark is held too");
    far.write(b"in").unwrap();
    joint.until("the other direction", || near.input().len() == 2);
    near.disable(READ).unwrap();
    far.write(b"not in").unwrap();
    joint.settle();
    assert_eq!(near.input().len(), 2);
    near.enable(Directions::BOTH).unwrap();
    joint.until("all that was held", || {
        near.input().len() == 8 && log.has(&Told::Eof)
    });
    assert_eq!(far.input().len(), 4);
}

fn cancels(joint: &dyn Joint) {
    spec!(G2);
    let (near, far) = joint.make(Options::DEFER_CALLBACKS);
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.trigger(Directions::BOTH, TriggerOptions::IGNORE_WATERMARKS)
        .unwrap();
    near.disable(Directions::BOTH).unwrap();
    joint.settle();
    assert_eq!(log.told(), [], "they were queued and are cancelled");
    // Bytes whose callback was cancelled are told of when the direction is enabled again, and not before.
    near.enable(READ).unwrap();
    far.write(b"bytes").unwrap();
    joint.until("the bytes", || near.input().len() == 5 || log.reads() > 0);
    near.disable(READ).unwrap();
    log.news();
    near.trigger_event(bufferevent_core::EventFlags::WRITTEN, TriggerOptions::EMPTY)
        .unwrap();
    joint.settle();
    assert_eq!(log.reads(), 0, "{:?}", log.told());
    // What an end disables is another matter: the data before it is told.
    let (near, far) = joint.make(Options::DEFER_CALLBACKS);
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    far.write(b"last words").unwrap();
    far.finish().unwrap();
    joint.settle();
    near.enable(READ).unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    assert_eq!(log.told(), [Told::Read(10), Told::Eof]);
}

fn handshake(joint: &dyn Joint) {
    spec!(G2);
    let (near, far) = joint.pair();
    let (near_log, far_log) = (Log::new(), Log::new());
    let near = near
        .over(Options::EMPTY, Through::new().greeting())
        .unwrap();
    near.set_handler(near_log.watch()).unwrap();
    near.disable(Directions::BOTH).unwrap();
    near.write(b"application").unwrap();
    joint.settle();
    assert_eq!(near_log.told(), [], "the other side has not greeted");
    let far = far.over(Options::EMPTY, Through::new().greeting()).unwrap();
    far.set_handler(far_log.watch()).unwrap();
    // Both are greeted, with reading off on both sides and writing off on one.
    let connected = |log: &Log| log.has(&Told::Connected);
    joint.until("the greetings", || {
        connected(&near_log) && connected(&far_log)
    });
    joint.settle();
    assert_eq!(
        (near.output().len(), far.stats().read),
        (11, 0),
        "the user's bytes wait"
    );
    far.write(b"answer").unwrap();
    joint.settle();
    assert_eq!(near.stats().read, 0);
    far.enable(READ).unwrap();
    near.enable(Directions::BOTH).unwrap();
    joint.until("the bytes", || {
        near.input().len() == 6 && far.input().len() == 11
    });
    assert_eq!(near_log.events(), [Told::Connected], "once");
}

fn suspended(joint: &dyn Joint) {
    spec!(G2);
    let (near, far) = joint.pair();
    near.enable(READ).unwrap();
    near.suspend(Directions::BOTH).unwrap();
    assert_eq!(near.enabled(), Directions::BOTH, "held up, not disabled");
    far.write(b"in").unwrap();
    near.write(b"out").unwrap();
    far.enable(READ).unwrap();
    joint.settle();
    assert_eq!((near.input().len(), far.input().len()), (0, 0));
    near.disable(READ).unwrap();
    near.resume(Directions::BOTH).unwrap();
    joint.until("what goes out", || far.input().len() == 3);
    assert_eq!(near.input().len(), 0, "disabled since");
    near.enable(READ).unwrap();
    joint.until("what comes in", || near.input().len() == 2);
}

fn locked(joint: &dyn Joint) {
    spec!(G7);
    for options in [Options::EMPTY, Options::THREADSAFE] {
        let (near, far) = joint.make(options);
        far.enable(READ).unwrap();
        let outer = near.lock().unwrap();
        let inner = near.lock().unwrap();
        near.write(b"under ").unwrap();
        near.write(b"one lock").unwrap();
        drop(inner);
        drop(outer);
        joint.until("both", || far.input().len() == 14);
        if options.contains(Options::THREADSAFE) {
            // It covers the whole stack: while it is held, another thread's operation waits, and sees both.
            let top = near.over(options, Through::new()).unwrap();
            let guard = near.lock().unwrap();
            let other = top.clone();
            let (started, starts) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                started.send(()).unwrap();
                let seen = other.output().len();
                let _lock = other.lock().unwrap();
                (seen, other.output().len())
            });
            starts.recv().unwrap();
            top.disable(WRITE).unwrap();
            top.write(b"one").unwrap();
            top.write(b"two").unwrap();
            drop(guard);
            let (seen, under_lock) = thread.join().unwrap();
            assert!(seen == 0 || seen == 6, "never one of them alone: {seen}");
            assert_eq!(under_lock, 6);
        } else {
            let other = near.clone();
            let refused = std::thread::spawn(move || {
                let kind = other.lock().map(drop).unwrap_err().kind();
                (kind, other.write(b"no").unwrap_err().kind())
            });
            assert_eq!(
                refused.join().unwrap(),
                (Kind::WrongThread, Kind::WrongThread)
            );
            assert_eq!(near.output().len(), 0, "nothing was changed");
        }
    }
}

/// How often two bytes are sent until both are told of in one turn. The first time, but for systems that tell of one socket at a time.
const UNTIL_ONE_TURN: usize = 100;

fn deferred(joint: &dyn Joint) {
    spec!(O3);
    let (near, far) = joint.make(Options::DEFER_CALLBACKS);
    let log = Log::new();
    far.set_handler(log.watch()).unwrap();
    far.enable(READ).unwrap();
    near.set_handler(log.watch()).unwrap();
    near.write(b"x").unwrap();
    near.enable(WRITE).unwrap();
    far.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
        .unwrap();
    assert_eq!(log.told(), [], "nothing from the caller's stack");
    joint.until("both", || log.reads() > 0 && log.writes() > 0);

    // After the ordinary callbacks of a turn: a confined one that fires in the same turn comes first.
    let (near, far) = joint.make(Options::DEFER_CALLBACKS);
    let (direct, other) = joint.make(Options::EMPTY);
    let turn = Arc::new(AtomicUsize::new(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let (turn, order) = (turn.clone(), order.clone());
        on_read(move |bev| {
            let now = turn.load(Ordering::Relaxed);
            order.lock().unwrap().push((what, now));
            bev.input().drain(usize::MAX).unwrap();
        })
    };
    near.set_handler(note("deferred")).unwrap();
    direct.set_handler(note("direct")).unwrap();
    near.enable(READ).unwrap();
    direct.enable(READ).unwrap();
    // In which turn the system tells of a byte is its own matter: two that were sent one after the other may come in two turns.
    for _ in 0..UNTIL_ONE_TURN {
        far.write(b"x").unwrap();
        other.write(b"x").unwrap();
        // Asked before the first turn, and after each.
        let mut turns = 0..;
        joint.until("both", || {
            turn.store(turns.next().unwrap_or_default(), Ordering::Relaxed);
            order.lock().unwrap().len() == 2
        });
        let told = std::mem::take(&mut *order.lock().unwrap());
        if let [(first, one), (second, two)] = *told
            && one == two
        {
            assert_eq!((first, second), ("direct", "deferred"), "deferred last");
            return;
        }
    }
    panic!("{UNTIL_ONE_TURN} times two bytes, and never both in one turn");
}
