//! C6 to C8: ends, errors, and what an event says.

use std::error::Error as _;
use std::sync::{Arc, Mutex};

use bufferevent_core::{
    Bev, Blame, Deadline, Direction, Directions, Event, EventFlags, Kind, READ, WRITE, on_event,
};
use bufferevent_testkit::{Log, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    (
        "an end is told once, behind the data, and stops reading alone",
        half_close,
    ),
    (
        "an end comes without data too, and waits for the mark",
        bare_end,
    ),
    ("a broken stream says what broke", broken),
    ("events say their flags", flags),
    ("a direction is off before its end is told", off_before_told),
];

fn half_close(joint: &dyn Joint) {
    spec!(C7);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_read_watermark(100, 0).unwrap();
    near.enable(READ).unwrap();
    far.write(b"below the mark").unwrap();
    far.finish().unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    assert_eq!(near.enabled(), WRITE, "reading is off, writing is not");
    joint.settle();
    assert_eq!(log.events(), [Told::Eof], "once");
    assert_eq!(near.input().len(), 14, "what came before stays readable");
    near.write(b"still here").unwrap();
    assert_eq!(joint.take(&far, 10), b"still here");
    assert_eq!(near.enable(READ).unwrap_err().kind(), Kind::Ended);
    joint.settle();
    assert_eq!(log.events(), [Told::Eof]);
    let mut bytes = [0; 14];
    assert_eq!(near.read(&mut bytes).unwrap(), 14);
    assert_eq!(&bytes, b"below the mark");
}

fn bare_end(joint: &dyn Joint) {
    spec!(C7);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_read_watermark(0, 10).unwrap();
    near.enable(READ).unwrap();
    far.write(&[0; 25]).unwrap();
    far.finish().unwrap();
    joint.settle();
    // 15 bytes are still on the way: the end is behind them.
    assert_eq!((near.input().len(), log.events()), (10, vec![]));
    near.input().drain(10).unwrap();
    joint.settle();
    assert_eq!((near.input().len(), log.events()), (10, vec![]));
    near.input().drain(10).unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    assert_eq!(near.input().len(), 5);

    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.enable(READ).unwrap();
    far.finish().unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    joint.settle();
    assert_eq!(log.told(), [Told::Eof]);
}

fn broken(joint: &dyn Joint) {
    spec!(C6, C8);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.write(b"never read").unwrap();
    joint.settle();
    far.free().unwrap();
    let error = |told: &Told| matches!(told, Told::Error(Some(Direction::Write), _));
    joint.until("an error", || {
        // Refused as soon as it has failed.
        let _ = near.write(&[0; 1000]);
        log.told().iter().any(error)
    });
    joint.settle();
    let events = log.events();
    assert_eq!(
        events,
        [Told::Error(Some(Direction::Write), Kind::Peer)],
        "once"
    );
    let error = log.errors().remove(0);
    assert_eq!((error.blame(), error.operation()), (Blame::Peer, "write"));
    assert!(!error.layer().is_empty());
    assert_eq!(
        error.source().is_some(),
        joint.has_causes(),
        "the system's own cause"
    );
    assert!(!near.enabled().contains(WRITE), "the direction is off");
    assert_eq!(near.write(b"more").unwrap_err().kind(), Kind::Ended);
    assert_eq!(near.enable(WRITE).unwrap_err().kind(), Kind::Ended);
}

fn flags(joint: &dyn Joint) {
    spec!(C6);
    let seen: Arc<Mutex<Vec<EventFlags>>> = Arc::default();
    let hear = |bev: &Bev| {
        let seen = seen.clone();
        bev.set_handler(on_event(move |_, event| {
            seen.lock().unwrap().push(event.flags())
        }))
        .unwrap();
    };
    let next = |what: &str| {
        joint.until(what, || !seen.lock().unwrap().is_empty());
        std::mem::take(&mut *seen.lock().unwrap())
    };
    let (near, far) = joint.pair();
    hear(&near);
    let second = std::time::Duration::from_secs(1);
    near.set_timeouts(Some(second), None).unwrap();
    near.enable(READ).unwrap();
    joint.advance(second);
    assert_eq!(
        next("a timeout"),
        [EventFlags::TIMEOUT | EventFlags::READING]
    );
    near.set_timeouts(None, Some(second)).unwrap();
    let _ = joint.jam(&near, 1000);
    joint.advance(second);
    assert_eq!(
        next("a timeout"),
        [EventFlags::TIMEOUT | EventFlags::WRITING]
    );
    near.set_timeouts(None, None).unwrap();
    near.enable(READ | WRITE).unwrap();
    far.finish().unwrap();
    assert_eq!(next("an end"), [EventFlags::EOF | EventFlags::READING]);
    let far_log = Log::new();
    far.set_handler(far_log.take_all()).unwrap();
    far.enable(READ).unwrap();
    near.close(second).unwrap();
    assert_eq!(
        next("all is out"),
        [EventFlags::WRITTEN | EventFlags::WRITING]
    );
    assert_eq!(Event::Connected.flags(), EventFlags::CONNECTED);
    let deadline = Event::Timeout(Deadline::Connect).flags();
    assert_eq!(deadline, EventFlags::TIMEOUT);
    let (near, far) = joint.pair();
    hear(&near);
    far.free().unwrap();
    joint.until("an error", || {
        // Refused as soon as it has failed.
        let _ = near.write(&[0; 1000]);
        !seen.lock().unwrap().is_empty()
    });
    assert_eq!(next("an error"), [EventFlags::ERROR | EventFlags::WRITING]);
}

fn off_before_told(joint: &dyn Joint) {
    spec!(C7, C8);
    let states: Arc<Mutex<Vec<(Told, Directions)>>> = Arc::default();
    let hear = |bev: &Bev| {
        let states = states.clone();
        bev.set_handler(on_event(move |bev, event| {
            states
                .lock()
                .unwrap()
                .push((Told::from(event), bev.enabled()));
        }))
        .unwrap();
    };
    let second = std::time::Duration::from_secs(1);
    let (near, far) = joint.pair();
    hear(&near);
    near.set_timeouts(Some(second), None).unwrap();
    near.enable(READ).unwrap();
    joint.advance(second);
    near.enable(READ).unwrap();
    near.set_timeouts(None, None).unwrap();
    far.finish().unwrap();
    joint.until("an end", || states.lock().unwrap().len() == 2);
    near.set_timeouts(None, Some(second)).unwrap();
    let _ = joint.jam(&near, 1000);
    joint.advance(second);
    near.enable(WRITE).unwrap();
    far.free().unwrap();
    joint.until("an error", || {
        // Refused as soon as it has failed.
        let _ = near.write(&[0; 1000]);
        states.lock().unwrap().len() == 4
    });
    let none = Directions::EMPTY;
    let expected = [
        (Told::Timeout(Deadline::Read), WRITE),
        (Told::Eof, WRITE),
        (Told::Timeout(Deadline::Write), none),
        (Told::Error(Some(Direction::Write), Kind::Peer), none),
    ];
    assert_eq!(*states.lock().unwrap(), expected);
}
