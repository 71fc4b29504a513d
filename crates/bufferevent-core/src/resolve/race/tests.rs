//! The rules of the race, one by one, on times that are numbers.

use std::net::SocketAddr;

use super::*;

fn ms(millis: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(millis)
}

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 0))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 0))
}

fn question(family: Family) -> Question {
    Question::new("example.org", family)
}

fn race() -> Race {
    Race::new(question(Family::Any), Pace::DEFAULT, Moment::ZERO)
}

fn nothing(failure: ResolveFailure) -> Found {
    Err(question(Family::Any).failed(failure))
}

#[track_caller]
fn starts(race: &mut Race, now: u64) -> SocketAddr {
    match race.next(ms(now)) {
        Move::Start(_, address) => address,
        other => panic!("expected a start at {now} ms, not {other:?}"),
    }
}

#[track_caller]
fn waits_until(race: &mut Race, now: u64, until: u64) {
    match race.next(ms(now)) {
        Move::Wait(at) => assert_eq!(at, ms(until), "at {now} ms"),
        other => panic!("expected to wait at {now} ms, not {other:?}"),
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

/// Every address that is started when each attempt fails at once.
fn order(race: &mut Race) -> Vec<SocketAddr> {
    let mut order = Vec::new();
    while let Move::Start(number, address) = race.next(ms(60)) {
        order.push(address);
        race.failed(number, broken(), ms(60));
    }
    order
}

#[test]
fn families_take_turns_and_ipv6_begins() {
    let mut race = race();
    race.answered(Family::V6, &Ok(vec![v6(1), v6(2)]), ms(1));
    race.answered(Family::V4, &Ok(vec![v4(1), v4(2), v4(3)]), ms(1));
    assert_eq!(order(&mut race), [v6(1), v4(1), v6(2), v4(2), v4(3)]);
}

#[test]
fn an_answer_of_both_keeps_the_order_of_the_one_who_sorted_it() {
    let mut race = race();
    let both = vec![v4(1), v4(2), v6(1), v6(2)];
    race.answered(Family::Any, &Ok(both), ms(1));
    assert_eq!(order(&mut race), [v4(1), v6(1), v4(2), v6(2)]);
}

#[test]
fn ipv4_waits_for_ipv6_no_longer_than_the_resolution_delay() {
    let mut late = race();
    waits_until(&mut late, 0, 30_000);
    late.answered(Family::V4, &Ok(vec![v4(1)]), ms(20));
    waits_until(&mut late, 20, 70);
    waits_until(&mut late, 69, 70);
    assert_eq!(starts(&mut late, 70), v4(1));
    // What comes later joins, and it is its turn.
    late.answered(Family::V6, &Ok(vec![v6(1)]), ms(90));
    waits_until(&mut late, 90, 320);
    assert_eq!(starts(&mut late, 320), v6(1));

    let mut in_time = race();
    in_time.answered(Family::V4, &Ok(vec![v4(1)]), ms(20));
    in_time.answered(Family::V6, &Ok(vec![v6(1)]), ms(40));
    assert_eq!(starts(&mut in_time, 40), v6(1));

    // That there is none ends the wait as well.
    let mut none = race();
    none.answered(Family::V4, &Ok(vec![v4(1)]), ms(20));
    none.answered(Family::V6, &nothing(ResolveFailure::NoAddress), ms(21));
    assert_eq!(starts(&mut none, 21), v4(1));
}

#[test]
fn ipv6_does_not_wait_for_ipv4() {
    let mut race = race();
    race.answered(Family::V6, &Ok(vec![v6(1)]), ms(5));
    assert_eq!(starts(&mut race, 5), v6(1));
    race.answered(Family::V4, &Ok(vec![v4(1)]), ms(6));
    waits_until(&mut race, 6, 255);
}

#[test]
fn attempts_are_250_ms_apart_unless_one_fails() {
    let mut race = race();
    race.answered(
        Family::Any,
        &Ok(vec![v6(1), v6(2), v6(3), v6(4)]),
        Moment::ZERO,
    );
    assert_eq!(starts(&mut race, 0), v6(1));
    waits_until(&mut race, 249, 250);
    assert_eq!(starts(&mut race, 250), v6(2));
    race.failed(0, broken(), ms(300));
    assert_eq!(
        starts(&mut race, 300),
        v6(3),
        "a failure is followed at once"
    );
    waits_until(&mut race, 301, 550);
    // One that is not running any more changes nothing.
    race.failed(0, broken(), ms(302));
    waits_until(&mut race, 302, 550);
    assert_eq!(starts(&mut race, 550), v6(4));
    waits_until(&mut race, 551, 10_250);
}

#[test]
fn an_attempt_ends_with_its_timeout_and_the_race_with_the_last() {
    let mut race = race();
    race.answered(Family::Any, &Ok(vec![v6(1), v4(1)]), Moment::ZERO);
    let _ = starts(&mut race, 0);
    let _ = starts(&mut race, 250);
    waits_until(&mut race, 250, 10_000);
    assert!(matches!(race.next(ms(10_000)), Move::GiveUp(0)));
    waits_until(&mut race, 10_000, 10_250);
    assert!(matches!(race.next(ms(10_250)), Move::GiveUp(1)));
    match race.next(ms(10_250)) {
        Move::Lost(Loss::Connect(error)) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        other => panic!("expected the end, not {other:?}"),
    }
}

#[test]
fn a_silent_resolver_ends_with_its_timeout() {
    let mut silent = race();
    waits_until(&mut silent, 29_999, 30_000);
    match silent.next(ms(30_000)) {
        Move::Lost(Loss::Resolve(error)) => assert_eq!(error.failure(), ResolveFailure::Timeout),
        other => panic!("expected the end, not {other:?}"),
    }

    // One family that never answers keeps the loss of the other open until then, and no longer.
    let mut half = race();
    half.answered(Family::V4, &Ok(vec![v4(1)]), Moment::ZERO);
    let _ = starts(&mut half, 50);
    half.failed(0, broken(), ms(51));
    waits_until(&mut half, 51, 30_000);
    assert!(matches!(
        half.next(ms(30_000)),
        Move::Lost(Loss::Connect(_))
    ));
}

#[test]
fn what_tells_most_is_told() {
    use ResolveFailure::{NoAddress, NotFound, ServerFailed};
    for (first, second, told) in [
        (NotFound, NotFound, NotFound),
        (NoAddress, NoAddress, NoAddress),
        (NoAddress, ServerFailed, ServerFailed),
        (ServerFailed, NoAddress, ServerFailed),
    ] {
        let mut race = race();
        race.answered(Family::V4, &nothing(first), Moment::ZERO);
        race.answered(Family::V6, &nothing(second), Moment::ZERO);
        match race.next(Moment::ZERO) {
            Move::Lost(Loss::Resolve(error)) => assert_eq!(error.failure(), told),
            other => panic!("expected the end, not {other:?}"),
        }
    }
    // An answer without an address is none.
    let mut empty = race();
    empty.answered(Family::Any, &Ok(Vec::new()), Moment::ZERO);
    match empty.next(Moment::ZERO) {
        Move::Lost(Loss::Resolve(error)) => assert_eq!(error.failure(), NoAddress),
        other => panic!("expected the end, not {other:?}"),
    }
}

#[test]
fn the_family_that_was_not_asked_for_is_not_tried() {
    for (family, expected) in [(Family::V4, v4(1)), (Family::V6, v6(1))] {
        let mut race = Race::new(question(family), Pace::DEFAULT, Moment::ZERO);
        race.answered(Family::Any, &Ok(vec![v4(1), v6(1)]), Moment::ZERO);
        assert_eq!(order(&mut race), [expected]);
    }
}

#[test]
fn addresses_are_tried_once_and_so_many_of_each_family() {
    let mut race = race();
    let mut many: Vec<_> = (1..=200).map(v4).collect();
    many.insert(1, v4(1));
    race.answered(Family::V4, &Ok(many), Moment::ZERO);
    race.answered(Family::V6, &Ok((1..=4096).map(v6).collect()), Moment::ZERO);
    let order = order(&mut race);
    assert_eq!(order.len(), 2 * MAX_ADDRESSES);
    let mut unique = order.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), order.len());
}

#[test]
fn the_first_answer_of_a_family_counts() {
    let mut race = race();
    race.answered(Family::V6, &Ok(vec![v6(1)]), Moment::ZERO);
    race.answered(Family::V6, &Ok(vec![v6(2)]), Moment::ZERO);
    race.answered(Family::Any, &Ok(vec![v6(3), v4(1)]), Moment::ZERO);
    assert_eq!(order(&mut race), [v6(1), v4(1)]);
}
