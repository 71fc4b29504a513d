//! G5: deadlines, on the loop's clock.

use std::time::Duration;

use bufferevent_core::{Bufferevent, Context, Deadline, Directions, Options, READ, Step, WRITE};
use bufferevent_testkit::{Log, Through, Told, spec};

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
    (
        "a half-closed bufferevent may be idle for so long",
        half_closed,
    ),
    ("the last of the output has its time to leave", drain),
    (
        "a drain that fails ends what lives for it",
        drain_ends_a_life,
    ),
    (
        "looking up, connecting and shaking hands have their times",
        coming,
    ),
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
    let _ = joint.jam(&near, 1000);
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

fn half_closed(joint: &dyn Joint) {
    spec!(G5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_deadline(Deadline::HalfClosed, Some(SECOND))
        .unwrap();
    assert_eq!(near.deadline(Deadline::HalfClosed), Some(SECOND));
    near.enable(READ).unwrap();
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), [], "both directions are open");
    far.finish().unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    log.news();
    joint.advance(SECOND - Duration::from_millis(2));
    assert_eq!(log.events(), [], "not before its time");
    joint.advance(Duration::from_millis(4));
    assert_eq!(log.news(), [Told::Timeout(Deadline::HalfClosed)]);
    joint.advance(SECOND * 3 / 4);
    far.enable(READ).unwrap();
    near.write(b"x").unwrap();
    joint.until("the byte", || far.input().len() == 1);
    joint.advance(SECOND - Duration::from_millis(2));
    assert_eq!(log.events(), [], "the other direction moved");
    joint.advance(Duration::from_millis(4));
    assert_eq!(log.events(), [Told::Timeout(Deadline::HalfClosed)]);
    assert_eq!(near.enabled(), WRITE, "it has no direction to disable");
    log.news();
    joint.advance(SECOND);
    let again = [Told::Timeout(Deadline::HalfClosed)];
    assert_eq!(log.events(), again, "after as long again");
    near.finish().unwrap();
    joint.until("the end mark", || log.has(&Told::Written));
    log.news();
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), [], "both have ended");
}

fn drain(joint: &dyn Joint) {
    spec!(G5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_deadline(Deadline::Drain, Some(SECOND)).unwrap();
    let written = joint.stuff(&near, 1000);
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), [], "more may follow");
    near.finish().unwrap();
    joint.advance(SECOND - Duration::from_millis(2));
    assert_eq!(log.events(), []);
    joint.advance(Duration::from_millis(4));
    assert_eq!(log.events(), [Told::Timeout(Deadline::Drain)]);
    assert!(!near.enabled().contains(WRITE), "the direction is off");
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), [Told::Timeout(Deadline::Drain)], "once");
    // No bytes were lost: they leave if they may.
    near.enable(WRITE).unwrap();
    assert_eq!(joint.take(&far, written).len(), written);
    joint.until("the end mark", || log.has(&Told::Written));
    // In time, nothing is told.
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_deadline(Deadline::Drain, Some(SECOND)).unwrap();
    let written = joint.stuff(&near, 1000);
    near.finish().unwrap();
    joint.advance(SECOND / 2);
    assert_eq!(joint.take(&far, written).len(), written);
    joint.until("the end mark", || log.has(&Told::Written));
    joint.advance(10 * SECOND);
    assert_eq!(log.events(), [Told::Written]);
}

fn drain_ends_a_life(joint: &dyn Joint) {
    spec!(G5, G8);
    for closes in [false, true] {
        let (near, far) = joint.pair();
        let (log, far_log) = (Log::new(), Log::new());
        near.set_handler(log.watch()).unwrap();
        far.set_handler(far_log.watch()).unwrap();
        near.set_deadline(Deadline::Drain, Some(SECOND)).unwrap();
        let _ = joint.stuff(&near, 1000);
        if closes {
            near.close(10 * SECOND).unwrap();
        } else {
            near.free_when_written().unwrap();
        }
        joint.advance(SECOND - Duration::from_millis(2));
        assert!(!near.is_freed());
        joint.advance(Duration::from_millis(4));
        assert_eq!(log.events(), [Told::Timeout(Deadline::Drain)]);
        assert!(near.is_freed(), "nobody waits for the rest any more");
        drop(far);
        joint.settle();
    }
}

/// A layer whose peer's address is not found before it is told so, and whose handshake does not end before it is told that.
#[derive(Default)]
struct Slow {
    resolves: bool,
}

impl Bufferevent for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn attached(&mut self, cx: &mut Context<'_>) {
        if self.resolves {
            cx.resolve_begun();
        } else {
            cx.connect_begun();
        }
    }
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        cx.lift(|below, own, room| below.move_to(room, own).unwrap_or(0));
        Step::Done
    }
    fn push(&mut self, _: &mut Context<'_>) -> Step {
        Step::Done
    }
}

fn coming(joint: &dyn Joint) {
    spec!(G5);
    for (deadline, resolves) in [
        (Deadline::Resolve, true),
        (Deadline::Connect, true),
        (Deadline::Connect, false),
        (Deadline::Handshake, false),
    ] {
        for late in [false, true] {
            let (near, far) = joint.pair();
            let options = Options::CLOSE_ON_FREE;
            let slow = near.over(options, Slow { resolves }).unwrap();
            // Of a whole stack, wherever in it the waiting is.
            let top = slow.over(options, Through::new()).unwrap();
            let log = Log::new();
            top.set_handler(log.watch()).unwrap();
            top.set_deadline(deadline, Some(SECOND)).unwrap();
            joint.advance(SECOND - Duration::from_millis(2));
            // What the peer sends meanwhile does not push it away.
            far.write(b"x").unwrap();
            joint.settle();
            assert_eq!(log.events(), []);
            let layer = top.layer::<Slow>().expect("it is there");
            if !late {
                layer
                    .with(|_, cx| {
                        cx.resolve_ended();
                        cx.connected();
                    })
                    .unwrap();
            }
            joint.advance(Duration::from_millis(4));
            let told = [if late {
                Told::Timeout(deadline)
            } else {
                Told::Connected
            }];
            assert_eq!(log.events(), told);
            joint.advance(10 * SECOND);
            assert_eq!(log.events(), told, "once");
            assert_eq!(top.deadline(deadline), Some(SECOND));
        }
    }
}
