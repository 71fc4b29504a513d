//! G6: what a flush does, by mode, direction and type; G8: the graceful close.

use std::time::Duration;

use bufferevent_core::{
    Bev, Deadline, Direction, Directions, Event, Flushed, Kind, Mode, Options, READ, WRITE,
};
use bufferevent_testkit::{Log, Through, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("a flush of the output, in each mode", out),
    ("a flush of the input, in each mode", into),
    ("a flush brings out what a layer holds", held_by_a_layer),
    ("disabled directions hold against a flush", disabled),
    (
        "the end mark comes behind all bytes, through all layers",
        finished,
    ),
    ("what a flush could not do completes by itself", owed),
    ("a graceful close says when all is out, and frees", closes),
    ("a graceful close has a deadline", close_in_vain),
    (
        "a graceful close throws away what nobody wanted to read",
        close_unread,
    ),
];

const MODES: [Mode; 3] = [Mode::Normal, Mode::Flush, Mode::Finished];

fn out(joint: &dyn Joint) {
    spec!(G6);
    for mode in MODES {
        let (near, far) = joint.pair();
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        assert_eq!(
            near.flush(Direction::Write, Mode::Normal).unwrap(),
            Flushed::Nothing
        );
        far.enable(READ).unwrap();
        near.disable(WRITE).unwrap();
        near.write(b"waiting").unwrap();
        near.suspend(WRITE).unwrap();
        near.enable(WRITE).unwrap();
        assert_eq!(
            near.flush(Direction::Write, mode).unwrap(),
            Flushed::Nothing,
            "{mode:?}: held up"
        );
        near.resume(WRITE).unwrap();
        joint.until("the bytes", || log.received() == b"waiting");
        joint.settle();
        // From inside a callback nothing has been pushed yet: there the flush itself does it.
        assert_eq!(log.has(&Told::Eof), mode == Mode::Finished, "{mode:?}");
        let later = near.write(b"more");
        match mode {
            Mode::Finished => assert_eq!(later.unwrap_err().kind(), Kind::Ended),
            Mode::Normal | Mode::Flush => {
                later.unwrap();
                joint.until("more", || log.received() == b"waitingmore");
            }
        }
    }
    for mode in MODES {
        let (near, far) = joint.pair();
        far.enable(READ).unwrap();
        let log = Log::new();
        let seen = log.clone();
        near.set_handler(bufferevent_core::on_event(move |bev, event| {
            if !matches!(event, Event::Triggered(_)) {
                return;
            }
            bev.write(b"now").unwrap();
            let flushed = bev.flush(Direction::Write, mode).unwrap();
            assert_eq!(
                (flushed, bev.output().len()),
                (Flushed::Some, 0),
                "{mode:?}"
            );
            seen.add(Told::Written);
        }))
        .unwrap();
        let flags = bufferevent_core::EventFlags::CONNECTED;
        near.trigger_event(flags, bufferevent_core::TriggerOptions::EMPTY)
            .unwrap();
        joint.until("the flush", || log.has(&Told::Written));
        joint.until("the bytes", || far.input().len() == 3);
    }
}

fn into(joint: &dyn Joint) {
    spec!(G6);
    for mode in MODES {
        let (near, far) = joint.pair();
        near.set_read_watermark(0, 10).unwrap();
        near.enable(READ).unwrap();
        far.write(&[1; 40]).unwrap();
        joint.until("a full input", || near.input().len() == 10);
        joint.settle();
        let flushed = near.flush(Direction::Read, mode).unwrap();
        joint.settle();
        match mode {
            Mode::Normal => {
                assert_eq!(
                    (flushed, near.input().len()),
                    (Flushed::Nothing, 10),
                    "the mark holds"
                );
            }
            Mode::Flush | Mode::Finished => {
                assert_eq!(flushed, Flushed::Some, "{mode:?}");
                assert_eq!(near.input().len(), 40, "{mode:?}: once, past the mark");
            }
        }
        // Only once: afterwards the mark holds again.
        far.write(&[2; 5]).unwrap();
        joint.settle();
        assert_eq!(
            near.input().len(),
            if mode == Mode::Normal { 10 } else { 40 }
        );
        near.input().drain(usize::MAX).unwrap();
        joint.until("the rest", || near.stats().read >= 15);
    }
}

fn held_by_a_layer(joint: &dyn Joint) {
    spec!(G6);
    for mode in MODES {
        let (near, far) = joint.pair();
        let near = near.over(Options::EMPTY, Through::new().holding()).unwrap();
        let near = near.over(Options::EMPTY, Through::new()).unwrap();
        far.enable(READ).unwrap();
        near.write(b"held").unwrap();
        joint.settle();
        assert_eq!(
            (near.output().len(), far.input().len()),
            (0, 0),
            "the layer below has it"
        );
        let held = near.underlying().unwrap();
        assert_eq!(held.output().len(), 0);
        let flushed = near.flush(Direction::Write, mode).unwrap();
        joint.settle();
        if mode == Mode::Normal {
            assert_eq!((flushed, far.input().len()), (Flushed::Nothing, 0));
        } else {
            joint.until("what was held", || far.input().len() == 4);
        }
    }
    // Held by the very layer that is flushed: a byte left it, so it is some.
    let (near, far) = joint.pair();
    let near = near.over(Options::EMPTY, Through::new().holding()).unwrap();
    far.enable(READ).unwrap();
    near.write(b"held").unwrap();
    joint.settle();
    assert_eq!(
        near.flush(Direction::Write, Mode::Flush).unwrap(),
        Flushed::Some
    );
    joint.until("what was held", || far.input().len() == 4);
}

fn disabled(joint: &dyn Joint) {
    spec!(G6);
    for mode in MODES {
        let (near, far) = joint.pair();
        near.disable(WRITE).unwrap();
        near.write(b"held").unwrap();
        far.write(b"held too").unwrap();
        assert_eq!(
            near.flush(Direction::Write, mode).unwrap(),
            Flushed::Nothing
        );
        assert_eq!(near.flush(Direction::Read, mode).unwrap(), Flushed::Nothing);
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        far.enable(READ).unwrap();
        joint.settle();
        assert_eq!(
            (near.output().len(), near.input().len()),
            (4, 0),
            "{mode:?}"
        );
        assert_eq!(log.told(), []);
        // With a layer on it as well.
        let (near, far) = joint.pair();
        let near = near.over(Options::EMPTY, Through::new()).unwrap();
        near.disable(WRITE).unwrap();
        near.write(b"held").unwrap();
        far.enable(READ).unwrap();
        assert_eq!(
            near.flush(Direction::Write, mode).unwrap(),
            Flushed::Nothing
        );
        joint.settle();
        assert_eq!(
            (near.output().len(), far.input().len()),
            (4, 0),
            "{mode:?} over a layer"
        );
        near.enable(WRITE).unwrap();
        joint.until("the bytes", || far.input().len() == 4);
    }
}

fn finished(joint: &dyn Joint) {
    spec!(G6);
    let (near, far) = joint.pair();
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    let near_log = Log::new();
    let near = near.over(Options::EMPTY, Through::new().chunk(7)).unwrap();
    let near = near.over(Options::EMPTY, Through::new().holding()).unwrap();
    near.set_handler(near_log.watch()).unwrap();
    let sent: Vec<u8> = (0..joint.absorbs() + 100_000).map(|n| n as u8).collect();
    near.write(&sent).unwrap();
    let _ = near.flush(Direction::Write, Mode::Finished).unwrap();
    assert_eq!(near.write(b"late").unwrap_err().kind(), Kind::Ended);
    assert_eq!(near.finish().unwrap_err().kind(), Kind::Ended);
    far.enable(READ).unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    assert!(
        log.received() == sent,
        "{} bytes of {}",
        log.received_len(),
        sent.len()
    );
    joint.until("the word that all is out", || near_log.has(&Told::Written));
    // The other direction goes on.
    far.write(b"still").unwrap();
    assert_eq!(joint.take(&near, 5), b"still");
}

fn owed(joint: &dyn Joint) {
    spec!(G6);
    let (near, far) = joint.pair();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    near.set_write_watermark(0, 100).unwrap();
    let stuffed = joint.stuff(&top, 5000);
    assert!(near.output().len() <= 100);
    // Past the mark of what is below; the rest stays owed.
    assert_eq!(
        top.flush(Direction::Write, Mode::Flush).unwrap(),
        Flushed::Some
    );
    assert_eq!(top.output().len(), 0, "past the write high mark");
    let before = near.output().len();
    let again = joint.stuff(&top, 500);
    assert!(
        near.output().len() <= before.max(100),
        "the mark holds for what comes later"
    );
    assert_eq!(
        top.flush(Direction::Write, Mode::Finished).unwrap(),
        Flushed::Some
    );
    assert_eq!(top.output().len(), 0, "Finished goes as far as Flush");
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    joint.until("the end", || log.has(&Told::Eof));
    assert_eq!(log.received_len(), stuffed + again);
}

fn gone(bev: &Bev) -> bool {
    bev.is_freed()
}

const SECOND: Duration = Duration::from_secs(1);

fn closes(joint: &dyn Joint) {
    spec!(G8);
    let (near, far) = joint.pair();
    let (near_log, far_log) = (Log::new(), Log::new());
    near.set_handler(near_log.watch()).unwrap();
    far.set_handler(far_log.take_all()).unwrap();
    let stuffed = joint.stuff(&near, 10_000);
    near.close(60 * SECOND).unwrap();
    joint.settle();
    assert_eq!(near_log.events(), [], "not all is out");
    far.enable(READ).unwrap();
    joint.until("the end at the peer", || far_log.has(&Told::Eof));
    joint.settle();
    assert_eq!(
        near_log.events(),
        [Told::Written],
        "it waits for the peer's end"
    );
    assert!(!gone(&near));
    far.close(60 * SECOND).unwrap();
    joint.until("both to go", || gone(&near) && gone(&far));
    assert_eq!(near_log.events(), [Told::Written, Told::Eof]);
    assert_eq!(far_log.events().last(), Some(&Told::Written));
    assert_eq!(far_log.received_len(), stuffed);
}

fn close_in_vain(joint: &dyn Joint) {
    spec!(G8);
    let (near, _far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    let _ = joint.stuff(&near, 10_000);
    near.close(5 * SECOND).unwrap();
    joint.advance(4 * SECOND);
    assert!(!gone(&near) && log.events().is_empty());
    joint.advance(2 * SECOND);
    assert_eq!(log.events(), [Told::Timeout(Deadline::Close)]);
    assert!(gone(&near));
}

fn close_unread(joint: &dyn Joint) {
    spec!(G8);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_read_watermark(0, 1000).unwrap();
    let count = joint.absorbs() + 50_000;
    far.write(&vec![0; count]).unwrap();
    far.finish().unwrap();
    far.enable(READ).unwrap(); // An end mark may be bytes, which somebody has to take.
    near.close(60 * SECOND).unwrap();
    joint.until("its end", || gone(&near));
    assert_eq!(log.reads(), 0, "reading was never enabled");
    assert_eq!(log.events(), [Told::Written, Told::Eof]);
    assert_eq!(far.enabled().and(Directions::WRITE), WRITE);
}
