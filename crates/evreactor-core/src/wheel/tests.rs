//! The wheel against a sorted list, and its rules one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

fn ms(ms: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(ms)
}

fn fired<T>(wheel: &mut TimerWheel<T>, now: Moment) -> Vec<T> {
    wheel.collect(now);
    std::iter::from_fn(|| wheel.pop()).collect()
}

#[test]
fn a_timer_of_a_loop_takes_56_bytes() {
    let payload = size_of::<Option<(std::sync::Arc<dyn crate::Target>, u64)>>();
    assert_eq!(size_of::<Entry>() + payload, 56);
}

#[test]
fn never_early_and_at_most_a_tick_late() {
    for nanos in [
        1,
        999_999,
        1_000_000,
        1_000_001,
        63_999_999,
        64_000_001,
        4_096_000_001,
    ] {
        let at = Moment::from_nanos(nanos);
        let mut wheel = TimerWheel::new();
        wheel.arm(Moment::ZERO, at, ());
        assert!(
            fired(&mut wheel, Moment::from_nanos(nanos - 1)).is_empty(),
            "{nanos} ns fired early"
        );
        assert_eq!(
            fired(&mut wheel, at + Duration::from_millis(1)).len(),
            1,
            "{nanos} ns came late"
        );
    }
}

#[test]
fn what_is_due_when_armed_waits_for_no_tick() {
    let now = Moment::from_nanos(1_500_000);
    let mut wheel = TimerWheel::new();
    wheel.collect(now);
    wheel.arm(now, now, "now");
    assert_eq!(fired(&mut wheel, now), ["now"]);
}

#[test]
fn a_pass_ends_although_timers_arm_timers() {
    let mut wheel = TimerWheel::new();
    wheel.arm(ms(0), ms(1), 0);
    wheel.collect(ms(5));
    let mut popped = Vec::new();
    while let Some(n) = wheel.pop() {
        wheel.arm(ms(5), ms(1), n + 1);
        popped.push(n);
    }
    assert_eq!(popped, [0]);
    assert_eq!(
        wheel.next_due(),
        Some(Moment::ZERO),
        "the new one is due in the next pass"
    );
    assert_eq!(fired(&mut wheel, ms(5)), [1]);
}

#[test]
fn one_pass_goes_by_deadline_then_by_arming() {
    let mut wheel = TimerWheel::new();
    // Armed while far away and while near, moved, and in the same tick: still one order.
    wheel.arm(ms(0), ms(5_000), "c");
    let moved = wheel.arm(ms(0), ms(10), "d");
    wheel.arm(ms(0), Moment::from_nanos(4_999_900_000), "b");
    wheel.collect(ms(4_990));
    assert_eq!(wheel.pop(), Some("d"));
    assert!(!wheel.rearm(moved, ms(4_990), ms(1)), "it was popped");
    wheel.arm(ms(4_990), ms(5_000), "e");
    wheel.arm(ms(4_990), ms(4_995), "a");
    assert_eq!(fired(&mut wheel, ms(6_000)), ["a", "b", "c", "e"]);
}

#[test]
fn what_a_pass_left_is_sorted_into_the_next() {
    let mut wheel = TimerWheel::new();
    for n in 1..=4 {
        wheel.arm(ms(0), ms(n), n);
    }
    wheel.collect(ms(3));
    assert_eq!(wheel.pop(), Some(1));
    assert_eq!(fired(&mut wheel, ms(4)), [2, 3, 4]);
}

#[test]
fn a_due_timer_can_still_be_cancelled_and_moved() {
    let mut wheel = TimerWheel::new();
    let first = wheel.arm(ms(0), ms(1), 1);
    let second = wheel.arm(ms(0), ms(2), 2);
    wheel.collect(ms(3));
    assert_eq!(wheel.disarm(first), Some(1));
    assert!(wheel.rearm(second, ms(3), ms(100)));
    assert_eq!(wheel.pop(), None);
    assert_eq!(wheel.len(), 1);
    assert_eq!(fired(&mut wheel, ms(100)), [2]);
}

#[test]
fn a_gap_in_the_clock_fires_each_timer_once() {
    let mut wheel = TimerWheel::new();
    for n in 0..1_000_u64 {
        wheel.arm(ms(0), ms(n * n), n);
    }
    assert_eq!(
        fired(&mut wheel, ms(400 * 86_400_000)),
        (0..1_000).collect::<Vec<_>>()
    );
    assert!(fired(&mut wheel, Moment::FAR).is_empty());
}

#[test]
fn timers_beyond_the_last_level_fire_in_time() {
    let (years, at) = (
        Duration::from_secs(86_400 * 365 * 5),
        ms(86_400_000 * 365 * 10),
    );
    let mut wheel = TimerWheel::new();
    wheel.arm(ms(0), at, "ten years");
    let never = wheel.arm(ms(0), Moment::FAR, "never");
    assert!(fired(&mut wheel, Moment::ZERO + years).is_empty());
    assert!(fired(&mut wheel, Moment::from_nanos(at.as_nanos() - 1)).is_empty());
    assert_eq!(fired(&mut wheel, at), ["ten years"]);
    assert_eq!(wheel.disarm(never), Some("never"));
    assert_eq!(wheel.next_due(), None);
}

#[test]
fn a_stale_key_names_nothing() {
    let mut wheel = TimerWheel::new();
    let old = wheel.arm(ms(0), ms(1), 1);
    assert_eq!(wheel.disarm(old), Some(1));
    let new = wheel.arm(ms(0), ms(1), 2);
    assert_ne!(old, new);
    assert_eq!(wheel.disarm(old), None);
    assert!(!wheel.rearm(old, ms(0), ms(5)));
    assert_eq!(wheel.disarm(TimerKey::from_bits(u64::MAX)), None);
    assert_eq!(wheel.disarm(new), Some(2));
}

#[test]
fn an_entry_whose_generations_are_used_up_retires() {
    let mut wheel = TimerWheel::new();
    let key = wheel.arm(ms(0), ms(1), 1);
    wheel.disarm(key);
    wheel.entries[0].generation = u32::MAX;
    let last = wheel.arm(ms(0), ms(1), 2);
    assert_eq!(wheel.disarm(last), Some(2));
    let fresh = wheel.arm(ms(0), ms(1), 3);
    assert_eq!(fresh.bits() as u32, 1, "the first entry is not used again");
    assert_eq!(wheel.disarm(last), None);
}

/// Random operations on the wheel and on a sorted map; both must agree at every step.
#[test]
fn random_operations_agree_with_a_sorted_map() {
    for seed in 1..200_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut wheel = TimerWheel::new();
        let mut model: BTreeMap<(Moment, u64), u64> = BTreeMap::new();
        let mut keys: Vec<(TimerKey, (Moment, u64), u64)> = Vec::new();
        let (mut now, mut arming) = (ms(0), 0);
        for step in 0..500 {
            let reach = 10_u64.pow(next(12) as u32 + 1);
            let at = now + Duration::from_nanos(next(reach));
            arming += 1;
            match next(6) {
                0..=2 => {
                    let key = wheel.arm(now, at, arming);
                    model.insert((at, arming), arming);
                    keys.push((key, (at, arming), arming));
                }
                3 if !keys.is_empty() => {
                    let chosen = next(keys.len() as u64) as usize;
                    let (key, place, payload) = &mut keys[chosen];
                    let there = model.remove(place).is_some();
                    if there {
                        *place = (at, arming);
                        model.insert(*place, *payload);
                    }
                    assert_eq!(wheel.rearm(*key, now, at), there, "seed {seed} step {step}");
                }
                4 if !keys.is_empty() => {
                    let (key, place, _) = keys.swap_remove(next(keys.len() as u64) as usize);
                    assert_eq!(
                        wheel.disarm(key),
                        model.remove(&place),
                        "seed {seed} step {step}"
                    );
                }
                _ => {
                    now = now + Duration::from_nanos(next(reach));
                    let due = fired(&mut wheel, now);
                    let places: Vec<(Moment, u64)> = model
                        .iter()
                        .filter(|(_, payload)| due.contains(payload))
                        .map(|(place, _)| *place)
                        .collect();
                    let expected: Vec<u64> = places
                        .iter()
                        .filter_map(|place| model.remove(place))
                        .collect();
                    assert_eq!(
                        due, expected,
                        "out of order or twice: seed {seed} step {step}"
                    );
                    assert!(
                        places.iter().all(|(at, _)| *at <= now),
                        "early: seed {seed} step {step}"
                    );
                    // A tick of delay is allowed: whatever stayed behind must be within the running tick.
                    if let Some(((at, _), _)) = model.first_key_value() {
                        assert!(
                            tick_of(at.as_nanos()) * TICK_NS > now.as_nanos(),
                            "late: seed {seed} step {step}"
                        );
                    }
                }
            }
            assert_eq!(wheel.len(), model.len());
            let earliest = model.first_key_value().map(|((at, _), _)| *at);
            assert_eq!(wheel.next_due().is_some(), earliest.is_some());
            if let (Some(due), Some(at)) = (wheel.next_due(), earliest) {
                assert!(
                    due <= at + Duration::from_millis(1),
                    "a wake-up would come too late"
                );
            }
        }
    }
}
