//! R1: rate limits and groups, on any layer of any type.

use std::time::Duration;

use bufferevent_core::{Bev, Direction, Kind, Mode, READ, Rate, RateGroup, Reasons};
use bufferevent_testkit::{Log, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("what is written leaves at its rate", writing),
    ("what is read comes at its rate", reading),
    ("the lowest layer's rate is that of its own bytes", lowest),
    ("a flush and an end keep to the rate", ends),
    ("a limit is changed, charged and lifted", changes),
    ("a group shares its rate alike", sharing),
    ("members come and go", members),
];

const SECOND: Duration = Duration::from_secs(1);

/// A timer may be late by as much.
const LATE: Duration = Duration::from_millis(2);

fn rate(bytes: u64) -> Option<Rate> {
    Some(Rate::new(bytes, bytes, SECOND).expect("a rate"))
}

fn written(bev: &Bev) -> u64 {
    bev.stats().written
}

fn read(bev: &Bev) -> u64 {
    bev.stats().read
}

/// Two ends, the far one of which takes all.
fn taking(joint: &dyn Joint) -> (Bev, Bev, Log) {
    let (near, far) = joint.pair();
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    (near, far, log)
}

fn writing(joint: &dyn Joint) {
    spec!(R1);
    let (near, _far, log) = taking(joint);
    near.set_rate_limit(Direction::Write, rate(1000)).unwrap();
    near.write(&[7; 4500]).unwrap();
    joint.advance(LATE);
    for second in 1..=4 {
        joint.until("its share", || log.received_len() == second * 1000);
        joint.settle();
        assert_eq!(written(&near), second as u64 * 1000);
        assert_eq!(near.suspended(Direction::Write), Reasons::RATE);
        joint.advance(SECOND);
    }
    joint.until("the rest", || log.received_len() == 4500);
    assert!(near.suspended(Direction::Write).is_empty());
    assert_eq!(near.rate_level(Direction::Write), Some(500));
}

fn reading(joint: &dyn Joint) {
    spec!(R1);
    let (near, far, log) = taking(joint);
    far.set_rate_limit(Direction::Read, rate(1000)).unwrap();
    near.write(&[7; 4500]).unwrap();
    joint.advance(LATE);
    for second in 1..=4 {
        joint.until("its share", || log.received_len() == second * 1000);
        joint.settle();
        assert_eq!(read(&far), second as u64 * 1000);
        joint.advance(SECOND);
    }
    joint.until("the rest", || log.received_len() == 4500);
    // Disabled, it has nothing to wait for; enabled, it has what has come together.
    far.disable(READ).unwrap();
    near.write(&[7; 4500]).unwrap();
    joint.advance(10 * SECOND);
    assert_eq!(log.received_len(), 4500);
    far.enable(READ).unwrap();
    joint.until("a burst", || log.received_len() == 5500);
    joint.settle();
    assert_eq!(log.received_len(), 5500);
}

fn lowest(joint: &dyn Joint) {
    spec!(R1);
    let (near, far, log) = taking(joint);
    let bottom = |bev: &Bev| {
        let mut bev = bev.clone();
        while let Some(below) = bev.underlying() {
            bev = below;
        }
        bev
    };
    let (near_bottom, far_bottom) = (bottom(&near), bottom(&far));
    joint.settle();
    near_bottom
        .set_rate_limit(Direction::Write, rate(1000))
        .unwrap();
    let before = written(&near_bottom);
    near.write(&[7; 3300]).unwrap();
    joint.advance(LATE);
    for second in 1..=3 {
        joint.settle();
        assert_eq!(written(&near_bottom) - before, second * 1000);
        joint.advance(SECOND);
    }
    near_bottom.set_rate_limit(Direction::Write, None).unwrap();
    joint.until("the rest", || log.received_len() == 3300);
    far_bottom
        .set_rate_limit(Direction::Read, rate(1000))
        .unwrap();
    joint.settle();
    let before = read(&far_bottom);
    near.write(&[7; 3300]).unwrap();
    joint.advance(LATE);
    for second in 1..=3 {
        joint.until("its share", || read(&far_bottom) - before >= second * 1000);
        joint.settle();
        assert_eq!(read(&far_bottom) - before, second * 1000);
        joint.advance(SECOND);
    }
    joint.advance(2 * SECOND);
    joint.until("the rest", || log.received_len() == 6600);
}

fn ends(joint: &dyn Joint) {
    spec!(R1, G6, G8);
    let (near, far, log) = taking(joint);
    let near_log = Log::new();
    near.set_handler(near_log.watch()).unwrap();
    near.set_rate_limit(Direction::Write, rate(1000)).unwrap();
    near.write(&[7; 2500]).unwrap();
    joint.settle();
    let _ = near.flush(Direction::Write, Mode::Flush).unwrap();
    joint.settle();
    assert_eq!(written(&near), 1000, "a flush does not go past it");
    let _ = near.flush(Direction::Write, Mode::Finished).unwrap();
    joint.settle();
    assert_eq!(written(&near), 1000, "nor does a finish");
    assert_eq!(near.write(b"x").unwrap_err().kind(), Kind::Ended);
    joint.advance(SECOND + LATE);
    assert_eq!(written(&near), 2000);
    assert!(!log.has(&Told::Eof));
    joint.advance(SECOND);
    joint.until("the end", || log.has(&Told::Eof));
    assert_eq!(log.received_len(), 2500, "all of it, and the end behind");
    joint.until("the end mark", || near_log.has(&Told::Written));
    // The other way: what a flush reads is counted too.
    far.set_rate_limit(Direction::Write, None).unwrap();
    near.enable(READ).unwrap();
    near.set_rate_limit(Direction::Read, rate(1000)).unwrap();
    far.write(&[7; 2500]).unwrap();
    far.close(30 * SECOND).unwrap();
    joint.until("its share", || read(&near) == 1000);
    joint.settle();
    let _ = near.flush(Direction::Read, Mode::Flush).unwrap();
    joint.settle();
    assert_eq!(read(&near), 1000);
    joint.advance(2 * SECOND + LATE);
    joint.until("the end", || near_log.has(&Told::Eof));
    assert_eq!(near.input().len(), 2500);
    joint.until("a close", || far.is_freed());
}

fn changes(joint: &dyn Joint) {
    spec!(R1);
    let (near, _far, log) = taking(joint);
    assert_eq!(near.rate_limit(Direction::Write), None);
    let charge = |bytes| near.charge_rate_limit(Direction::Write, bytes);
    assert_eq!(charge(1).unwrap_err().kind(), Kind::Misuse);
    near.set_rate_limit(Direction::Write, rate(1000)).unwrap();
    assert_eq!(near.rate_limit(Direction::Write), rate(1000));
    assert_eq!(near.may_move(Direction::Write), 1000);
    charge(1500).unwrap();
    assert_eq!(near.rate_level(Direction::Write), Some(-500));
    assert_eq!(near.may_move(Direction::Write), 0);
    near.write(&vec![7; 100_000]).unwrap();
    joint.settle();
    assert_eq!(written(&near), 0, "the debt is repaid first");
    joint.advance(SECOND + LATE);
    assert_eq!(written(&near), 500);
    charge(-300).unwrap();
    joint.settle();
    assert_eq!(written(&near), 800, "what is given back goes at once");
    near.set_rate_limit(Direction::Write, rate(5000)).unwrap();
    joint.advance(SECOND);
    assert_eq!(written(&near), 5800);
    near.set_rate_limit(Direction::Write, None).unwrap();
    joint.until("all of it", || log.received_len() == 100_000);
}

fn sharing(joint: &dyn Joint) {
    spec!(R1);
    let group = RateGroup::new(&joint.host());
    group.set_rate(Direction::Write, rate(3000));
    let ends: Vec<_> = (0..3).map(|_| taking(joint)).collect();
    for (near, _, _) in &ends {
        near.join_rate_group(&group).unwrap();
        assert_eq!(near.rate_group().as_ref(), Some(&group));
        near.write(&vec![7; 100_000]).unwrap();
    }
    assert_eq!(group.members(), 3);
    joint.advance(LATE);
    let total = || ends.iter().map(|(near, _, _)| written(near)).sum::<u64>();
    for second in 1..=4 {
        joint.settle();
        assert_eq!(total(), second * 3000);
        joint.advance(SECOND);
    }
    assert_eq!(group.totals(), (0, 15_000));
    // The first was alone at first, and may be ahead by a second.
    let least = written(&ends[1].0).min(written(&ends[2].0));
    let most = written(&ends[1].0).max(written(&ends[2].0));
    assert!(most - least <= 64, "{least} to {most}");
    group.charge(Direction::Write, 3000);
    joint.advance(SECOND);
    assert_eq!(
        total(),
        15_000,
        "what was moved elsewhere is theirs no more"
    );
    group.set_rate(Direction::Write, None);
    for (_, _, log) in &ends {
        joint.until("all of it", || log.received_len() == 100_000);
    }
}

fn members(joint: &dyn Joint) {
    spec!(R1);
    let group = RateGroup::new(&joint.host());
    group.set_rate(Direction::Read, rate(1000));
    let ends: Vec<_> = (0..4).map(|_| taking(joint)).collect();
    for (near, far, _) in &ends {
        far.join_rate_group(&group).unwrap();
        near.write(&[7; 10_000]).unwrap();
    }
    joint.advance(SECOND + LATE);
    let total = || group.totals().0;
    joint.until("two shares", || total() == 2000);
    // Freed while it waits, and in a callback.
    let [first, second, third, fourth] = &ends[..] else {
        unreachable!("there are four");
    };
    first.1.free().unwrap();
    second
        .1
        .set_handler(bufferevent_core::on_read(|bev: &Bev| {
            drop(bev.free());
        }))
        .unwrap();
    joint.advance(SECOND);
    joint.until("another share", || total() == 3000);
    joint.advance(SECOND);
    joint.until("another share", || total() == 4000);
    assert!(second.1.is_freed());
    assert_eq!(group.members(), 2);
    third.1.leave_rate_group().unwrap();
    joint.until("all of it", || third.2.received_len() == 10_000);
    // The handle goes; the limit stays until the last member does.
    let before = read(&fourth.1);
    drop(group);
    joint.advance(SECOND);
    joint.until("another share", || read(&fourth.1) == before + 1000);
    joint.settle();
    assert_eq!(read(&fourth.1), before + 1000);
}
