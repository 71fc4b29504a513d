//! The wall clock jumps about by days, and the loop does not care; a gap in its own clock fires each timer once.
//!
//! This program brings its own `clock_gettime`, before libc's: each reading of the wall clock is three days before or
//! behind the last one. Every other clock is the system's.
#![cfg(target_os = "linux")]

mod common;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bufferevent_testkit::fault;
use common::{Log, ManualClock, arm, at_ms, each_backend, ms};
use evreactor::{Host, Outcome};

const THREE_DAYS_S: i64 = 3 * 86_400;

static READINGS: AtomicI64 = AtomicI64::new(0);

/// # Safety
/// As libc's: `time` may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the caller's contract is the system call's.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        let sign = READINGS.fetch_add(1, Ordering::Relaxed) % 2 * 2 - 1;
        // SAFETY: as above, and the call has just written it.
        unsafe { (*time).tv_sec += sign * THREE_DAYS_S };
    }
    result as libc::c_int
}

#[test]
fn neither_the_wall_clock_nor_a_gap_disturbs_timers() {
    each_backend(|builder| {
        fault!(F95);
        let jump = |first: SystemTime, second: SystemTime| {
            first
                .duration_since(second)
                .unwrap_or_else(|backwards| backwards.duration())
        };
        let jumped = jump(SystemTime::now(), SystemTime::now());
        assert!(
            jumped > Duration::from_secs(5 * 86_400),
            "the wall clock does jump: {jumped:?}"
        );

        let events = builder.clone().build().expect("a loop");
        let log = Log::new();
        let started = Instant::now();
        for key in 1..=5 {
            arm(&events, events.now() + ms(4 * key), &log, key);
        }
        arm(
            &events,
            events.now() + Duration::from_secs(2 * 86_400),
            &log,
            6,
        );
        let mut fired = Vec::new();
        while fired.len() < 5 {
            assert!(jump(SystemTime::now(), SystemTime::now()) > ms(1));
            assert_eq!(events.run_once().expect("the loop runs"), Outcome::Done);
            fired.extend(log.keys());
        }
        assert_eq!(fired, [1, 2, 3, 4, 5]);
        assert!(started.elapsed() >= ms(20), "early");
        assert!(started.elapsed() < common::PATIENCE, "late");
        assert!(
            events.next_timer() > Some(events.now() + ms(1_000)),
            "the last one still waits"
        );

        // A suspended machine: the loop's clock stands at once three days later.
        let clock = ManualClock::new();
        let events = builder
            .clone()
            .clock(clock.clone())
            .build()
            .expect("a loop");
        for key in 0..1_000 {
            arm(&events, at_ms(1 + key * 250_000), &log, key);
        }
        clock.advance(Duration::from_secs(3 * 86_400));
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(
            log.keys(),
            (0..1_000).collect::<Vec<_>>(),
            "each once, in order"
        );
    });
}
