//! What the tests share: loops on fake drivers, and ways to wait for what must come.

#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::Cell;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use bufferevent_core::Bev;
use bufferevent_iocp::{Driver, Fake, Lane, Port, Socket};
use evreactor::{EventLoop, LoopHandle};

/// Longer than any machine needs for what is waited for: only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(1) };
}

/// A loop whose fake driver draws from `seed`.
pub(crate) fn stormy(seed: u64) -> EventLoop {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        bufferevent_iocp::register_driver("stormy", || {
            Ok(Box::new(Fake::stormy(SEED.get())) as Box<dyn Driver>)
        })
        .expect("the name is free");
    });
    SEED.set(seed);
    EventLoop::builder()
        .backend("stormy")
        .build()
        .expect("it needs no system")
}

/// A loop whose fake driver completes all at once.
pub(crate) fn calm() -> EventLoop {
    bufferevent_iocp::register_fake();
    EventLoop::builder()
        .backend(bufferevent_iocp::BACKEND_FAKE)
        .build()
        .expect("it needs no system")
}

/// A loop on this system's completion backend.
pub(crate) fn system() -> EventLoop {
    bufferevent_iocp::register();
    EventLoop::builder()
        .backend(bufferevent_iocp::BACKEND)
        .build()
        .expect("the system has it")
}

/// Runs the loop until `done`.
pub(crate) fn until(events: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        events.poll().expect("the backend waits");
    }
}

/// A few turns: what comes by itself has come then.
pub(crate) fn turns(events: &EventLoop, count: usize) {
    for _ in 0..count {
        events.poll().expect("the backend waits");
    }
}

pub(crate) fn port(events: &LoopHandle) -> Arc<Port> {
    Port::of(events).expect("the backend is this crate's")
}

/// Scripts the fake driver of a loop.
pub(crate) fn script<R>(events: &LoopHandle, act: impl FnOnce(&mut Fake) -> R) -> R {
    port(events)
        .with_driver(act)
        .expect("the driver is a fake, and idle")
}

/// The number of a bufferevent's socket.
pub(crate) fn lane(bev: &Bev) -> Lane {
    bev.layer::<Socket>()
        .expect("there is a completion socket")
        .with(|socket, _| socket.lane())
        .expect("it is there")
        .expect("it has a socket")
}

/// Bytes that are the same for the same seed.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
