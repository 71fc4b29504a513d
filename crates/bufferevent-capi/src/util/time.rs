//! Clocks, and the conversion of C's times.

use std::ffi::c_int;
use std::time::Duration;

use evreactor_core::{Clock, Moment, Monotonic};

use crate::ffi::{Out, Ref, Room, Value, code};

/// `struct timeval`.
pub(crate) type TimeVal = libc::timeval;

const MICROS_PER_S: i64 = 1_000_000;

/// Nothing, or a time that is over, is no time at all.
pub(crate) fn duration(time: TimeVal) -> Duration {
    let whole = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    if time.tv_sec < 0 {
        return Duration::ZERO;
    }
    whole.saturating_add(Duration::from_micros(
        u64::try_from(time.tv_usec).unwrap_or(0),
    ))
}

pub(crate) fn timeval(span: Duration) -> TimeVal {
    TimeVal {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(span.subsec_micros()),
    }
}

/// One of the system's clocks. rustix would ask the vDSO in a way that valgrind does not know.
fn clock(id: libc::clockid_t) -> TimeVal {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the place is ours.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    TimeVal {
        tv_sec: now.tv_sec,
        tv_usec: now.tv_nsec / 1_000,
    }
}

/// The wall clock.
pub(crate) fn wall() -> TimeVal {
    clock(libc::CLOCK_REALTIME)
}

/// `a + b`, where both are proper times.
pub(crate) fn add(a: TimeVal, b: TimeVal) -> TimeVal {
    let micros = a.tv_usec + b.tv_usec;
    TimeVal {
        tv_sec: a
            .tv_sec
            .saturating_add(b.tv_sec)
            .saturating_add(micros.div_euclid(MICROS_PER_S)),
        tv_usec: micros.rem_euclid(MICROS_PER_S),
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_gettimeofday(time: Out<TimeVal>, _zone: *mut libc::timezone) -> c_int {
    if time.is_null() {
        return -1;
    }
    time.set(wall());
    0
}

/// `struct evutil_monotonic_timer`.
pub(crate) struct Timer(std::cell::Cell<Option<Moment>>);

/// Monotonic time since an unspecified start that is the same for the whole process.
pub(crate) fn monotonic() -> TimeVal {
    clock(libc::CLOCK_MONOTONIC)
}

#[unsafe(no_mangle)]
extern "C" fn evutil_monotonic_timer_new() -> Option<Ref<Timer>> {
    Ref::make(Timer(std::cell::Cell::new(None)))
}

#[unsafe(no_mangle)]
extern "C" fn evutil_monotonic_timer_free(timer: Option<Ref<Timer>>) {
    if let Some(timer) = timer {
        // SAFETY: it came from `evutil_monotonic_timer_new`, and C gives it up.
        unsafe { timer.free() };
    }
}

/// There is one clock, which is precise and fast; the flags choose nothing.
#[unsafe(no_mangle)]
extern "C" fn evutil_configure_monotonic_time(timer: Option<Ref<Timer>>, _flags: c_int) -> c_int {
    let Some(timer) = timer else { return -1 };
    timer.0.set(Some(Monotonic::new().now()));
    0
}

#[unsafe(no_mangle)]
extern "C" fn evutil_gettime_monotonic(timer: Option<Ref<Timer>>, time: Out<TimeVal>) -> c_int {
    let Some(_) = timer else { return -1 };
    time.set(monotonic());
    code(!time.is_null())
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Writes a date as HTTP wants it; answers how long it is, whether it fits or not.
#[unsafe(no_mangle)]
extern "C" fn evutil_date_rfc1123(date: Room<'_>, len: usize, tm: Value<libc::tm>) -> c_int {
    let tm = tm.get().unwrap_or_else(|| {
        let now = wall().tv_sec;
        // SAFETY: all numbers and pointers of a `tm` may be zero.
        let mut tm = unsafe { std::mem::zeroed::<libc::tm>() };
        // SAFETY: both places are valid for the call.
        unsafe { libc::gmtime_r(&raw const now, &raw mut tm) };
        tm
    });
    let name = |names: &'static [&'static str], index: c_int| {
        let index = usize::try_from(index).ok();
        index
            .and_then(|index| names.get(index))
            .copied()
            .unwrap_or("???")
    };
    let text = format!(
        "{}, {:02} {} {:4} {:02}:{:02}:{:02} GMT",
        name(&DAYS, tm.tm_wday),
        tm.tm_mday,
        name(&MONTHS, tm.tm_mon),
        1900 + i64::from(tm.tm_year),
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    );
    super::text::put(text.as_bytes(), &date, len);
    text.len() as c_int
}
