//! Our TLS handshakes, one after the other, over Unix-domain socket pairs: no port is used up, and nothing waits for the network.
//!
//! One handshake here is: two bufferevents on a fresh pair of sockets, a TLS filter on each, the handshake, one byte from the server (so
//! that the client has also read its tickets), and the end of all.

use std::cell::Cell;
use std::rc::Rc;

use bufferevent::{Bev, Event, EventLoop, FilterExt as _, READ, Socket, on_event, on_read};

use crate::Outcome;
use crate::clock::{Measured, Stretch};
use crate::material::{Resuming, Tls};
use crate::ours::{End, with_tls};

/// Handshakes before the measurement: the first one of a client cannot be resumed.
const WARM_UP: u64 = 10;

/// Whether a handshake was to be resumed, and was.
pub(crate) fn check(tls: &Tls, resumed: bool) -> Outcome<()> {
    if resumed == (tls.resuming == Resuming::Sessions) {
        Ok(())
    } else {
        Err("a session was resumed that should not be, or the other way".into())
    }
}

/// Runs `one` for the time, after a warm-up.
pub(crate) fn timed(
    seconds: f64,
    mut one: impl FnMut() -> Outcome<bool>,
    tls: &Tls,
) -> Outcome<Measured> {
    for _ in 0..WARM_UP {
        one()?;
    }
    let stretch = Stretch::begin(seconds);
    let mut count = 0;
    while !stretch.is_over() {
        check(tls, one()?)?;
        count += 1;
    }
    Ok(stretch.end(count))
}

pub(crate) fn ours(tls: &Tls, seconds: f64) -> Outcome<Measured> {
    let events = EventLoop::new()?;
    timed(seconds, || one(&events, tls), tls)
}

/// One handshake; whether a session was resumed.
fn one(events: &EventLoop, tls: &Tls) -> Outcome<bool> {
    let (near, far) = Socket::pair(events)?;
    let client = with_tls(&near, tls, End::Client)?;
    let server = with_tls(&far, tls, End::Server)?;
    let heard = Rc::new(Cell::new(false));
    server.set_local_handler(on_event(|server: &Bev, event: &Event| match event {
        Event::Connected => server.write(b"x").expect("it is connected"),
        other => panic!("server: {other:?}"),
    }))?;
    let hear = heard.clone();
    client.set_local_handler(on_read(move |_: &Bev| hear.set(true)).on_event(
        |_: &Bev, event: &Event| {
            if !matches!(event, Event::Connected) {
                panic!("client: {event:?}");
            }
        },
    ))?;
    client.enable(READ)?;
    while !heard.get() {
        events.run_once()?;
    }
    let filter = client.filter_of::<bufferevent::Tls>();
    let resumed = filter.ok_or("no TLS in it")?.with(|tls| tls.is_resumed())?;
    client.free()?;
    server.free()?;
    Ok(resumed)
}
