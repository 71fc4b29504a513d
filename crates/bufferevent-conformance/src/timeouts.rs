//! G5: deadlines, on the loop's clock.

use std::time::Duration;

use bufferevent_core::{Deadline, Directions, READ, WRITE};
use bufferevent_testkit::{Log, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    (
        "a read timeout counts while reading is wanted",
        read_timeout,
    ),
    (
        "a write timeout counts while there is something to write",
        write_timeout,
    ),
    ("progress starts the time again", progress),
    ("a timeout can be removed, and counts while idle", removed),
];

const SECOND: Duration = Duration::from_secs(1);

fn read_timeout(joint: &dyn Joint) {
    spec!(G5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_timeouts(Some(SECOND), None).unwrap();
    assert_eq!(near.timeouts(), (Some(SECOND), None));
    joint.advance(10 * SECOND);
    assert_eq!(log.told(), [], "reading is disabled");
    near.enable(READ).unwrap();
    joint.advance(SECOND - Duration::from_millis(2));
    assert_eq!(log.told(), [], "not before its time");
    joint.advance(Duration::from_millis(4));
    assert_eq!(log.news(), [Told::Timeout(Deadline::Read)]);
    assert_eq!(near.enabled(), WRITE);
    joint.advance(10 * SECOND);
    assert_eq!(log.told(), [], "the direction is off: told once");
    // At the high mark it does not count; from the drain on it does.
    near.set_read_watermark(0, 4).unwrap();
    far.write(&[0; 8]).unwrap();
    near.enable(READ).unwrap();
    joint.until("a full input", || near.input().len() == 4);
    joint.settle();
    log.news();
    joint.advance(10 * SECOND);
    assert_eq!(log.told(), [], "at the high mark");
    near.input().drain(4).unwrap();
    joint.until("the rest", || near.input().len() == 4);
    near.input().drain(2).unwrap();
    log.news();
    joint.advance(SECOND + Duration::from_millis(2));
    assert_eq!(log.news(), [Told::Timeout(Deadline::Read)]);
}

fn write_timeout(joint: &dyn Joint) {
    spec!(G5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_timeouts(None, Some(SECOND)).unwrap();
    joint.advance(10 * SECOND);
    assert_eq!(log.told(), [], "nothing to write");
    let _ = joint.stuff(&near, 1000);
    log.news();
    joint.advance(SECOND - Duration::from_millis(2));
    assert_eq!(log.told(), []);
    joint.advance(Duration::from_millis(4));
    assert_eq!(log.news(), [Told::Timeout(Deadline::Write)]);
    assert_eq!(near.enabled(), Directions::EMPTY);
    let waiting = near.output().len();
    far.enable(READ).unwrap();
    joint.settle();
    assert_eq!(near.output().len(), waiting, "the direction is off");
    joint.advance(10 * SECOND);
    assert_eq!(log.told(), []);
    near.enable(WRITE).unwrap();
    joint.until("all out", || {
        far.input().drain(usize::MAX).unwrap();
        near.output().is_empty()
    });
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), [], "no bytes were lost, and nothing waits");
    // Disabled: it does not count.
    near.disable(WRITE).unwrap();
    near.write(b"x").unwrap();
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), []);
}

fn progress(joint: &dyn Joint) {
    spec!(G5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_timeouts(Some(SECOND), None).unwrap();
    near.enable(READ).unwrap();
    for length in 1..6 {
        joint.advance(SECOND * 3 / 4);
        far.write(b"x").unwrap();
        joint.until("a byte", || near.input().len() == length);
    }
    joint.settle();
    assert_eq!(log.events(), [], "a byte came in time, each time");
    joint.advance(SECOND * 3 / 4);
    assert_eq!(log.events(), []);
    joint.advance(SECOND / 2);
    assert_eq!(log.events(), [Told::Timeout(Deadline::Read)]);
}

fn removed(joint: &dyn Joint) {
    spec!(G5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_timeouts(Some(SECOND), Some(SECOND)).unwrap();
    near.enable(READ).unwrap();
    joint.advance(SECOND / 2);
    near.set_timeouts(None, None).unwrap();
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), []);
    // The idle deadline: nothing in either direction.
    near.set_idle_timeout(Some(SECOND)).unwrap();
    joint.advance(SECOND * 3 / 4);
    near.write(b"x").unwrap();
    far.enable(READ).unwrap();
    joint.until("the byte", || far.input().len() == 1);
    joint.advance(SECOND * 3 / 4);
    assert_eq!(log.events(), [], "something moved");
    joint.advance(SECOND / 2);
    assert_eq!(log.events(), [Told::Timeout(Deadline::Idle)]);
    assert_eq!(
        near.enabled(),
        Directions::BOTH,
        "it has no direction to disable"
    );
}
