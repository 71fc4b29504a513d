//! C2 to C5, G3: watermarks.

use bufferevent_core::{Direction, Kind, Options, Pressure, READ, WRITE};
use bufferevent_testkit::{Log, Through, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("the read callback waits for the low mark", read_low),
    ("the input never exceeds the high mark", read_high),
    ("the write callback waits for the low mark", write_low),
    ("enabling an idle writer starts it", writers_start),
    ("a layer stops at the mark of what is below", write_high),
    (
        "a slow peer bounds the memory of a whole stack",
        bounded_stack,
    ),
    ("crossing the write mark is told once each way", pressure),
    ("a limit on the output refuses", max_output),
    ("marks are checked, kept and effective at once", set_marks),
];

fn read_low(joint: &dyn Joint) {
    spec!(C2);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_read_watermark(10, 0).unwrap();
    near.enable(READ).unwrap();
    far.write(&[0; 9]).unwrap();
    joint.until("nine bytes", || near.input().len() == 9);
    joint.settle();
    assert_eq!(log.told(), [], "nine are below ten");
    far.write(&[0; 1]).unwrap();
    joint.until("the tenth", || near.input().len() == 10);
    joint.settle();
    assert_eq!(log.news(), [Told::Read(10)], "at the mark");
    far.write(&[0; 1]).unwrap();
    joint.until("the eleventh", || log.has(&Told::Read(11)));
    // By default every read is told.
    near.input().drain(usize::MAX).unwrap();
    near.set_read_watermark(0, 0).unwrap();
    log.news();
    for length in 1..4 {
        far.write(&[0; 1]).unwrap();
        joint.until("one more", || log.has(&Told::Read(length)));
    }
    assert_eq!(log.reads(), 3);
}

fn read_high(joint: &dyn Joint) {
    spec!(C3);
    let (near, far) = joint.pair();
    near.set_read_watermark(0, 1000).unwrap();
    near.enable(READ).unwrap();
    far.write(&vec![7; 5500]).unwrap();
    let mut taken = 0;
    while taken < 5000 {
        joint.until("a full input", || {
            assert!(near.input().len() <= 1000, "{} bytes", near.input().len());
            near.input().len() == 1000
        });
        joint.settle();
        assert_eq!(near.input().len(), 1000);
        taken += near.input().drain(500).unwrap();
    }
    joint.until("the rest", || near.stats().read == 5500);
    // 0 means unlimited.
    near.set_read_watermark(0, 0).unwrap();
    far.write(&vec![7; 200_000]).unwrap();
    joint.until("all at once", || near.input().len() > 200_000);
}

fn write_low(joint: &dyn Joint) {
    spec!(C4);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    joint.settle();
    assert_eq!(log.told(), [], "nothing was written");
    let _ = joint.stuff(&near, 100_000);
    log.news();
    joint.settle();
    assert_eq!(log.told(), [], "the output is above the mark of 0");
    far.enable(READ).unwrap();
    joint.until("an empty output", || log.has(&Told::Write(0)));
    joint.settle();
    assert_eq!(log.writes(), 1, "once, at the mark: {:?}", log.told());

    // A mark of its own: told at or below it.
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_write_watermark(50_000, 0).unwrap();
    far.set_read_watermark(0, 4000).unwrap();
    let _ = joint.stuff(&near, 120_000);
    log.news();
    far.enable(READ).unwrap();
    while log.writes() == 0 {
        assert!(near.output().len() > 50_000 || log.writes() > 0);
        joint.settle();
        far.input().drain(4000).unwrap();
    }
    let [Told::Write(length), ..] = log.told()[..] else {
        panic!("{:?}", log.told())
    };
    assert!(length <= 50_000, "{length} bytes were left");
}

fn writers_start(joint: &dyn Joint) {
    spec!(C4);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.enable(WRITE).unwrap();
    joint.settle();
    assert_eq!(
        log.news(),
        [Told::Write(0)],
        "connected, idle, nothing to write: once"
    );
    joint.settle();
    assert_eq!(log.news(), []);
    near.disable(WRITE).unwrap();
    near.write(b"x").unwrap();
    near.enable(WRITE).unwrap();
    far.enable(READ).unwrap();
    joint.until("the byte", || far.input().len() == 1);
    joint.settle();
    assert_eq!(log.news(), [Told::Write(0)]);
}

fn write_high(joint: &dyn Joint) {
    spec!(C5);
    let (near, far) = joint.pair();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    near.set_write_watermark(0, 1000).unwrap();
    let total = joint.stuff(&top, 50_000);
    assert!(
        near.output().len() <= 1000,
        "{} bytes went below",
        near.output().len()
    );
    // It goes on when what is below has drained.
    let mut taken = 0;
    far.enable(READ).unwrap();
    joint.until("all of it", || {
        assert!(near.output().len() <= 1000);
        taken += far.input().drain(usize::MAX).unwrap();
        taken == total
    });
    // 0 means unlimited.
    far.disable(READ).unwrap();
    top.write(&vec![1; 300_000]).unwrap();
    near.set_write_watermark(0, 0).unwrap();
    joint.settle();
    assert_eq!(top.output().len(), 0, "all went below");
}

fn bounded_stack(joint: &dyn Joint) {
    spec!(C5);
    let (near, far) = joint.pair();
    let mut stack = vec![near];
    for _ in 0..5 {
        let below = stack.last().unwrap();
        below.set_write_watermark(0, 2000).unwrap();
        stack.push(below.over(Options::EMPTY, Through::new()).unwrap());
    }
    let top = stack.last().unwrap().clone();
    top.set_write_watermark(0, 3000).unwrap();
    let _far = far;
    // A writer that keeps to its room, over a peer that reads nothing.
    let mut written = 0;
    loop {
        joint.settle();
        let room = top.room();
        if room == 0 {
            break;
        }
        top.write(&vec![1; room]).unwrap();
        written += room;
        assert!(written < joint.absorbs() + 100_000, "nothing stops it");
    }
    let held: usize = stack.iter().map(|bev| bev.output().len()).sum();
    assert!(held <= 5 * 2000 + 3000, "{held} bytes in the outputs");
    // Without a mark of its own, the room is that of the one below.
    top.set_write_watermark(0, 0).unwrap();
    let below = &stack[4];
    let queued = top.output().len() + below.output().len();
    assert_eq!(top.room(), 2000_usize.saturating_sub(queued));
}

fn pressure(joint: &dyn Joint) {
    spec!(C5);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_write_watermark(0, 1000).unwrap();
    near.disable(WRITE).unwrap();
    assert_eq!(near.room(), 1000);
    near.write(&[0; 999]).unwrap();
    assert_eq!((near.room(), log.told()), (1, vec![]));
    near.write(&[0; 1]).unwrap();
    near.write(&[0; 500]).unwrap();
    joint.settle();
    assert_eq!(near.room(), 0);
    assert_eq!(
        log.news(),
        [Told::Pressure(Pressure::Full)],
        "once; and a write is not refused"
    );
    far.enable(READ).unwrap();
    near.enable(WRITE).unwrap();
    joint.until("room again", || near.room() == 1000);
    joint.settle();
    let told = log.news();
    let eased = Told::Pressure(Pressure::Eased);
    assert_eq!(
        told.iter()
            .filter(|told| matches!(told, Told::Pressure(_)))
            .count(),
        1
    );
    assert!(told.contains(&eased), "{told:?}");
    near.set_write_watermark(0, 0).unwrap();
    assert!(
        near.room() > 10_000,
        "without a mark of its own, that of what is below counts"
    );
}

fn max_output(joint: &dyn Joint) {
    spec!(C5);
    let (near, far) = joint.pair();
    near.disable(WRITE).unwrap();
    near.set_max_output(10).unwrap();
    near.write(&[1; 10]).unwrap();
    assert_eq!(near.write(&[2; 1]).unwrap_err().kind(), Kind::Full);
    let mut buffer = evbuffer::EvBuffer::new();
    buffer.append_slice(&[3; 4]).unwrap();
    assert_eq!(
        near.write_buffer(&mut buffer).unwrap_err().kind(),
        Kind::Full
    );
    assert_eq!(
        (buffer.len(), near.output().len()),
        (4, 10),
        "nothing was taken"
    );
    near.enable(WRITE).unwrap();
    assert_eq!(joint.take(&far, 10), [1; 10]);
    near.write_buffer(&mut buffer).unwrap();
    assert_eq!(joint.take(&far, 4), [3; 4]);
    near.set_max_output(0).unwrap();
    near.write(&[4; 1000]).unwrap();
}

fn set_marks(joint: &dyn Joint) {
    spec!(G3);
    let (near, far) = joint.pair();
    for direction in [Direction::Read, Direction::Write] {
        let mark = near.watermark(direction);
        assert_eq!((mark.low(), mark.high()), (0, 0));
        near.set_watermark(direction, 3, 40).unwrap();
        let refused = near.set_watermark(direction, 41, 40).unwrap_err();
        assert_eq!(refused.kind(), Kind::Misuse);
        let mark = near.watermark(direction);
        assert_eq!(
            (mark.low(), mark.high()),
            (3, 40),
            "a refusal changes nothing"
        );
        near.set_watermark(direction, 0, 0).unwrap();
    }
    // Below what is buffered: reading stops at once, and the low mark tells at once.
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_read_watermark(1000, 0).unwrap();
    near.enable(READ).unwrap();
    far.write(&[0; 500]).unwrap();
    joint.until("the bytes", || near.input().len() == 500);
    joint.settle();
    assert_eq!(log.told(), []);
    near.set_read_watermark(0, 100).unwrap();
    far.write(&[0; 50]).unwrap();
    joint.settle();
    assert_eq!(near.input().len(), 500, "reading has stopped");
    assert_eq!(
        log.news(),
        [Told::Read(500)],
        "500 are above a low mark of 0"
    );
    // And it starts at once when the mark is raised.
    near.set_read_watermark(0, 1000).unwrap();
    joint.until("the rest", || near.input().len() == 550);
    // The write marks as well.
    near.disable(WRITE).unwrap();
    near.write(&[0; 300]).unwrap();
    near.set_write_watermark(0, 200).unwrap();
    joint.settle();
    assert!(log.has(&Told::Pressure(Pressure::Full)));
    near.set_write_watermark(0, 400).unwrap();
    joint.settle();
    assert!(log.has(&Told::Pressure(Pressure::Eased)));
}
