//! Rate limits on the virtual clock, where they are exact: own buckets, groups, changes, charges, ends, and odd numbers.

use std::time::Duration;

use bufferevent_core::{Bev, Direction, Kind, READ, Rate, RateGroup, Reasons, WRITE};
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop, Told, fault, spec};

const SECOND: Duration = Duration::from_secs(1);

fn rate(per_tick: u64, burst: u64) -> Option<Rate> {
    Some(Rate::new(per_tick, burst, SECOND).unwrap())
}

/// Two ends, the far one of which takes all.
fn reading_pair(events: &Loop) -> (Bev, Bev, Log) {
    let (near, far) = pair(events).unwrap();
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    (near, far, log)
}

#[test]
fn what_is_written_leaves_at_its_rate_exactly() {
    spec!(R1);
    let events = Loop::new();
    let (near, _far, log) = reading_pair(&events);
    near.set_rate_limit(Direction::Write, rate(100, 250))
        .unwrap();
    near.write(&[7; 1000]).unwrap();
    for second in 0..10 {
        events.run();
        assert_eq!(log.received_len(), 100 * (second + 1));
        assert!(second == 9 || near.suspended(Direction::Write) == Reasons::RATE);
        events.advance(SECOND - Duration::from_nanos(1));
        assert_eq!(
            log.received_len(),
            100 * (second + 1),
            "not before its time"
        );
        events.advance(Duration::from_nanos(1));
    }
    assert!(near.suspended(Direction::Write).is_empty());
    // What nobody uses adds up to the burst.
    events.advance(60 * SECOND);
    assert_eq!(near.rate_level(Direction::Write), Some(250));
    near.write(&[7; 1000]).unwrap();
    events.run();
    assert_eq!(log.received_len(), 1250);
}

#[test]
fn what_is_read_comes_at_its_rate_exactly() {
    spec!(R1);
    let events = Loop::new();
    let (near, far, log) = reading_pair(&events);
    far.set_rate_limit(Direction::Read, rate(100, 100)).unwrap();
    near.write(&[7; 1000]).unwrap();
    for second in 0..10 {
        events.run();
        assert_eq!(log.received_len(), 100 * (second + 1));
        events.advance(SECOND);
    }
    // Both ends: the slower one counts.
    far.set_rate_limit(Direction::Read, rate(70, 70)).unwrap();
    near.set_rate_limit(Direction::Write, rate(30, 30)).unwrap();
    near.write(&[7; 300]).unwrap();
    events.advance(4 * SECOND);
    assert_eq!(log.received_len(), 1150);
    near.set_rate_limit(Direction::Write, rate(1000, 1000))
        .unwrap();
    near.write(&[7; 1000]).unwrap();
    // 30 of the second before are left to the one end, 70 of each to the other.
    let before = log.received_len();
    events.advance(3 * SECOND);
    assert_eq!(log.received_len() - before, 3 * 70);
}

#[test]
fn a_limit_is_changed_lifted_read_and_charged_at_any_time() {
    spec!(R1);
    let events = Loop::new();
    let (near, _far, log) = reading_pair(&events);
    assert_eq!(near.rate_limit(Direction::Write), None);
    assert_eq!(near.rate_level(Direction::Write), None);
    assert_eq!(near.may_move(Direction::Write), near.max_single_write());
    let error = near.charge_rate_limit(Direction::Write, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse);
    near.set_rate_limit(Direction::Write, rate(100, 1000))
        .unwrap();
    assert_eq!(near.rate_limit(Direction::Write), rate(100, 1000));
    assert_eq!(near.may_move(Direction::Write), 100);
    // A debt is repaid first.
    near.charge_rate_limit(Direction::Write, 350).unwrap();
    assert_eq!(near.rate_level(Direction::Write), Some(-250));
    assert_eq!(near.may_move(Direction::Write), 0);
    near.write(&[7; 10_000]).unwrap();
    events.advance(2 * SECOND);
    assert_eq!(log.received_len(), 0);
    events.advance(SECOND);
    assert_eq!(log.received_len(), 50);
    // Some is given back: it goes on at once.
    near.charge_rate_limit(Direction::Write, -30).unwrap();
    events.run();
    assert_eq!(log.received_len(), 80);
    // Faster from now on; what the old rate brought is gone already.
    events.advance(SECOND / 2);
    near.set_rate_limit(Direction::Write, rate(500, 1000))
        .unwrap();
    events.advance(SECOND / 2);
    assert_eq!(log.received_len(), 580);
    // Another tick: the time since the last one counts in it.
    near.set_rate_limit(
        Direction::Write,
        Some(Rate::new(1, 1000, Duration::from_millis(1)).unwrap()),
    )
    .unwrap();
    events.advance(SECOND / 10);
    assert_eq!(log.received_len(), 680);
    near.set_rate_limit(Direction::Write, None).unwrap();
    events.run();
    assert_eq!(log.received_len(), 10_000);
    assert!(near.suspended(Direction::Write).is_empty());
}

#[test]
fn ends_wait_behind_the_bytes_and_a_close_keeps_to_the_limit() {
    spec!(R1, G8);
    let events = Loop::new();
    let (near, _far, log) = reading_pair(&events);
    let near_log = Log::new();
    near.set_handler(near_log.watch()).unwrap();
    near.set_rate_limit(Direction::Write, rate(100, 100))
        .unwrap();
    near.write(&[7; 300]).unwrap();
    near.finish().unwrap();
    events.advance(2 * SECOND - Duration::from_nanos(1));
    assert_eq!((log.received_len(), log.events()), (200, vec![]));
    events.advance(Duration::from_nanos(1));
    assert_eq!((log.received_len(), log.events()), (300, vec![Told::Eof]));
    assert!(near_log.has(&Told::Written));

    // Without a user it lives until all is out.
    let (near, _far, log) = reading_pair(&events);
    near.set_rate_limit(Direction::Write, rate(100, 100))
        .unwrap();
    near.write(&[7; 1000]).unwrap();
    drop(near);
    events.advance(20 * SECOND);
    assert_eq!((log.received_len(), log.events()), (1000, vec![Told::Eof]));

    let (near, _far, log) = reading_pair(&events);
    near.set_rate_limit(Direction::Write, rate(100, 100))
        .unwrap();
    near.write(&[7; 1000]).unwrap();
    near.close(5 * SECOND).unwrap();
    events.advance(5 * SECOND);
    assert_eq!(log.received_len(), 600, "the deadline is above the limit");
    assert!(near.is_freed());
}

#[test]
fn a_timeout_does_not_count_what_the_rate_holds_up() {
    spec!(R1, G5);
    let events = Loop::new();
    let (near, far, log) = reading_pair(&events);
    let near_log = Log::new();
    near.set_handler(near_log.watch()).unwrap();
    near.set_timeouts(None, Some(SECOND)).unwrap();
    near.set_rate_limit(
        Direction::Write,
        Some(Rate::new(100, 100, 10 * SECOND).unwrap()),
    )
    .unwrap();
    near.write(&[7; 250]).unwrap();
    events.advance(30 * SECOND);
    assert_eq!((log.received_len(), near_log.events()), (250, vec![]));
    // What the peer does not take counts.
    far.disable(READ).unwrap();
    near.write(&[7; 10]).unwrap();
    events.advance(SECOND);
    assert_eq!(near_log.events().len(), 1);
    assert_eq!(near.enabled(), READ.without(READ));
    near.enable(WRITE).unwrap();
}

#[test]
fn a_limit_that_is_not_reached_costs_no_timer_and_no_turn() {
    let events = Loop::new();
    let (near, _far, log) = reading_pair(&events);
    near.set_rate_limit(Direction::Write, rate(100, 100))
        .unwrap();
    let turns = events.turns();
    near.write(&[7; 100]).unwrap();
    assert_eq!(log.received_len(), 100);
    events.advance(3600 * SECOND);
    assert!(events.turns() - turns < 5, "{}", events.turns() - turns);
}

#[test]
fn fifty_members_share_a_group_alike() {
    spec!(R1);
    let events = Loop::new();
    let group = RateGroup::new(&events);
    group.set_rate(
        Direction::Read,
        Some(Rate::new(1000, 1000, SECOND / 10).unwrap()),
    );
    let members: Vec<_> = (0..50)
        .map(|_| {
            let (near, far, log) = reading_pair(&events);
            far.join_rate_group(&group).unwrap();
            near.write(&[7; 100_000]).unwrap();
            (near, far, log)
        })
        .collect();
    assert_eq!(group.members(), 50);
    events.advance(10 * SECOND);
    let total: usize = members.iter().map(|(_, _, log)| log.received_len()).sum();
    assert_eq!(
        total,
        1000 * 101,
        "a tick's bytes at the start, and a hundred ticks"
    );
    assert_eq!(group.totals(), (101_000, 0));
    // The first was there alone, with a tick's bytes.
    for (_, _, log) in &members[1..] {
        let got = log.received_len();
        assert!(got.abs_diff(2000) <= 64, "{got} of 2000");
    }
    // One alone gets all, though the others are members.
    for (near, _, _) in &members[1..] {
        near.disable(WRITE).unwrap();
    }
    let alone = &members[0].2;
    events.advance(SECOND);
    let before = alone.received_len();
    events.advance(SECOND);
    assert_eq!(alone.received_len() - before, 10_000);
}

#[test]
fn members_that_use_little_leave_the_rest_to_others() {
    spec!(R1);
    let events = Loop::new();
    let group = RateGroup::new(&events);
    group.set_rate(
        Direction::Write,
        Some(Rate::new(1000, 1000, SECOND).unwrap()),
    );
    let (greedy, _far, greedy_log) = reading_pair(&events);
    let (modest, _other, modest_log) = reading_pair(&events);
    for bev in [&greedy, &modest] {
        bev.join_rate_group(&group).unwrap();
    }
    greedy.write(&[7; 1 << 20]).unwrap();
    events.run();
    for second in 1..=20_usize {
        modest.write(&[7; 10]).unwrap();
        events.advance(SECOND);
        assert_eq!(
            modest_log.received_len(),
            10 * second,
            "it has its share in time"
        );
        assert_eq!(greedy_log.received_len(), 1000 + 990 * second);
    }
}

#[test]
fn with_many_members_some_wait_rather_than_all_move_a_little() {
    spec!(R1);
    let events = Loop::new();
    let group = RateGroup::new(&events);
    group.set_rate(Direction::Write, Some(Rate::new(200, 200, SECOND).unwrap()));
    group.set_min_share(100);
    let members: Vec<_> = (0..10)
        .map(|_| {
            let (near, far, log) = reading_pair(&events);
            near.join_rate_group(&group).unwrap();
            near.write(&[7; 10_000]).unwrap();
            (near, far, log)
        })
        .collect();
    events.advance(SECOND / 2);
    for _ in 0..5 {
        let lengths = || members.iter().map(|member| member.2.received_len());
        let earlier: Vec<_> = lengths().collect();
        events.advance(SECOND);
        let moved: Vec<_> = lengths()
            .zip(earlier)
            .map(|(now, then)| now - then)
            .collect();
        assert_eq!(
            moved.iter().filter(|bytes| **bytes == 100).count(),
            2,
            "{moved:?}"
        );
        assert_eq!(moved.iter().sum::<usize>(), 200);
    }
    // The first had 200 at the start, when it was alone.
    for member in &members {
        let got = member.2.received_len();
        assert!((100..=200).contains(&got), "each had its turn, not {got}");
    }
}

#[test]
fn a_member_that_moved_too_much_repays_it_and_nobody_else_does() {
    spec!(R1);
    let events = Loop::new();
    let group = RateGroup::new(&events);
    group.set_rate(Direction::Write, rate(100, 100));
    let (near, _far, log) = reading_pair(&events);
    near.join_rate_group(&group).unwrap();
    near.write(&[7; 1000]).unwrap();
    events.run();
    assert_eq!(log.received_len(), 100);
    group.charge(Direction::Write, 250);
    assert_eq!(group.level(Direction::Write), Some(-250));
    assert_eq!(near.may_move(Direction::Write), 0);
    events.advance(2 * SECOND);
    assert_eq!(log.received_len(), 100);
    events.advance(SECOND);
    assert_eq!(log.received_len(), 150);
    group.charge(Direction::Write, -70);
    events.run();
    assert_eq!(log.received_len(), 220);
}

#[test]
fn members_come_and_go_and_groups_change_while_bytes_flow() {
    spec!(R1);
    fault!(F96);
    let events = Loop::new();
    let group = RateGroup::new(&events);
    group.set_rate(Direction::Read, rate(100, 100));
    let mut members: Vec<_> = (0..5)
        .map(|_| {
            let (near, far, log) = reading_pair(&events);
            far.join_rate_group(&group).unwrap();
            near.write(&[7; 100_000]).unwrap();
            (near, far, log)
        })
        .collect();
    events.advance(3 * SECOND);
    let total = |members: &[(Bev, Bev, Log)]| -> usize {
        members.iter().map(|member| member.2.received_len()).sum()
    };
    assert_eq!(total(&members), 400);
    // One is freed while it waits, one leaves, one goes to another group.
    members.remove(0).1.free().unwrap();
    assert_eq!(group.members(), 4);
    members[0].1.leave_rate_group().unwrap();
    assert_eq!(members[0].1.rate_group(), None);
    events.run();
    assert_eq!(members.remove(0).2.received_len(), 100_000);
    let other = RateGroup::new(&events);
    other.set_rate(Direction::Read, rate(10, 10));
    let moved = members.remove(0);
    let before = moved.2.received_len();
    moved.1.join_rate_group(&other).unwrap();
    assert_eq!(moved.1.rate_group(), Some(other.clone()));
    events.advance(SECOND);
    assert_eq!(moved.2.received_len() - before, 20);
    assert_eq!((group.members(), other.members()), (2, 1));
    let before = total(&members);
    events.advance(SECOND);
    assert_eq!(
        total(&members) - before,
        100,
        "what the others left is theirs"
    );
    // The group's handle goes, and the limit stays.
    let rates = group.rate(Direction::Read);
    drop(group);
    let before = total(&members);
    events.advance(SECOND);
    assert_eq!(total(&members) - before, 100);
    let group = members[0].1.rate_group().unwrap();
    assert_eq!(group.rate(Direction::Read), rates);
    // Faster, then without a limit.
    group.set_rate(Direction::Read, rate(1000, 1000));
    let before = total(&members);
    events.advance(SECOND);
    assert_eq!(total(&members) - before, 1000);
    group.set_rate(Direction::Read, None);
    events.run();
    assert_eq!(total(&members), 200_000);
    assert!(members[0].1.suspended(Direction::Read).is_empty());
}

#[test]
fn odd_numbers_are_refused_or_right() {
    fault!(F96);
    let events = Loop::new();
    // One byte a second.
    let (near, _far, log) = reading_pair(&events);
    near.set_rate_limit(Direction::Write, Some(Rate::per_second(1).unwrap()))
        .unwrap();
    near.write(&[7; 100]).unwrap();
    events.advance(9 * SECOND);
    assert_eq!(log.received_len(), 10);
    // As much as can be counted, in as little time, or as much.
    let most = i64::MAX as u64;
    for tick in [Duration::from_nanos(1), Duration::MAX] {
        let (near, _far, log) = reading_pair(&events);
        let rate = Some(Rate::new(most, most, tick).unwrap());
        near.set_rate_limit(Direction::Write, rate).unwrap();
        let group = RateGroup::new(&events);
        group.set_rate(Direction::Write, rate);
        near.join_rate_group(&group).unwrap();
        near.write(&[7; 100_000]).unwrap();
        events.advance(SECOND);
        assert_eq!(log.received_len(), 100_000);
        // A debt that can hardly be counted either.
        for _ in 0..3 {
            near.charge_rate_limit(Direction::Write, i64::MAX).unwrap();
            group.charge(Direction::Write, i64::MAX);
        }
        near.write(&[7; 100]).unwrap();
        events.advance(SECOND);
        for _ in 0..3 {
            near.charge_rate_limit(Direction::Write, i64::MIN).unwrap();
            group.charge(Direction::Write, i64::MIN);
        }
        events.advance(SECOND);
        assert_eq!(log.received_len(), 100_100);
    }
    // A tick that is far longer than anything: the first one's bytes, and no more.
    let (near, _far, log) = reading_pair(&events);
    near.set_rate_limit(
        Direction::Write,
        Some(Rate::new(1, 1, Duration::MAX).unwrap()),
    )
    .unwrap();
    near.write(&[7; 100]).unwrap();
    events.advance(Duration::from_secs(1 << 30));
    assert_eq!(log.received_len(), 1);
}
