//! Deadlines where the type does not matter: several at once, what starts which, and when a stack's begin.

use std::time::Duration;

use bufferevent_core::{Bev, Bufferevent, Context, Deadline, Event, Options, READ, Step, on_event};
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop, Through, Told, spec};
use evreactor_core::AsHost;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn several_that_pass_together_are_told_in_one_round_in_order() {
    spec!(C11);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_timeouts(Some(SECOND), Some(SECOND)).unwrap();
    for deadline in [Deadline::Drain, Deadline::HalfClosed, Deadline::Idle] {
        near.set_deadline(deadline, Some(SECOND)).unwrap();
    }
    near.enable(READ).unwrap();
    near.write(b"never read").unwrap();
    events.run();
    near.free_when_written().unwrap();
    events.advance(SECOND);
    let told = [
        Deadline::Read,
        Deadline::Write,
        Deadline::Idle,
        Deadline::Drain,
    ];
    assert_eq!(log.events(), told.map(Told::Timeout));
    assert!(near.is_freed());
    drop(far);
}

#[test]
fn setting_one_does_not_start_another() {
    spec!(G5);
    let events = Loop::new();
    let (near, _far) = pair(&events).unwrap();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_deadline(Deadline::Idle, Some(4 * SECOND)).unwrap();
    for _ in 0..3 {
        events.advance(SECOND);
        near.set_deadline(Deadline::Connect, Some(SECOND)).unwrap();
        near.set_timeouts(None, None).unwrap();
    }
    events.advance(SECOND);
    assert_eq!(log.events(), [Told::Timeout(Deadline::Idle)]);
}

/// A transport that connects when it is told to.
#[derive(Default)]
struct Late;

impl Bufferevent for Late {
    fn name(&self) -> &'static str {
        "late"
    }
    fn attached(&mut self, cx: &mut Context<'_>) {
        cx.disconnected();
    }
    fn pull(&mut self, _: &mut Context<'_>) -> Step {
        Step::Blocked
    }
    fn push(&mut self, _: &mut Context<'_>) -> Step {
        Step::Blocked
    }
}

fn with(top: &Bev, call: impl FnOnce(&mut Context<'_>)) {
    let late = top.layer::<Late>().expect("it is at the bottom");
    late.with(|_, cx| call(cx)).unwrap();
}

#[test]
fn the_steps_of_a_connection_have_their_times_one_after_the_other() {
    spec!(G5);
    let events = Loop::new();
    let transport = Bev::transport(events.as_host(), Options::EMPTY, Late).unwrap();
    let greeting = transport
        .over(Options::CLOSE_ON_FREE, Through::new().greeting())
        .unwrap();
    let top = greeting
        .over(Options::CLOSE_ON_FREE, Through::new())
        .unwrap();
    let log = Log::new();
    top.set_handler(log.watch()).unwrap();
    top.set_deadline(Deadline::Resolve, Some(2 * SECOND))
        .unwrap();
    top.set_deadline(Deadline::Connect, Some(50 * SECOND))
        .unwrap();
    top.set_deadline(Deadline::Handshake, Some(3 * SECOND))
        .unwrap();
    top.set_deadline(Deadline::Idle, Some(SECOND)).unwrap();
    events.advance(100 * SECOND);
    // The layer waits for a connection from the start, which is what the whole is about.
    assert_eq!(log.news(), [Told::Timeout(Deadline::Connect)]);
    with(&top, |cx| cx.resolve_begun());
    events.advance(SECOND);
    assert_eq!(log.news(), []);
    events.advance(SECOND);
    assert_eq!(log.news(), [Told::Timeout(Deadline::Resolve)]);
    events.advance(SECOND);
    with(&top, |cx| {
        cx.resolve_ended();
        cx.connect_begun();
    });
    events.advance(2 * SECOND);
    with(&top, |cx| cx.connected());
    events.advance(3 * SECOND - Duration::from_millis(1));
    assert_eq!(
        log.news(),
        [],
        "the handshake begins when the transport stands"
    );
    events.advance(Duration::from_millis(1));
    assert_eq!(log.news(), [Told::Timeout(Deadline::Handshake)]);
    // Three seconds of looking up, two of connecting and three of the handshake are part of the whole.
    events.advance(42 * SECOND - Duration::from_millis(1));
    assert_eq!(log.news(), []);
    events.advance(Duration::from_millis(1));
    assert_eq!(log.news(), [Told::Timeout(Deadline::Connect)]);
    events.advance(100 * SECOND);
    assert_eq!(log.news(), [], "once each, and idle is only what stands");
}

#[test]
fn a_handler_that_frees_at_one_hears_of_no_other() {
    spec!(G1);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let log = Log::new();
    let heard = log.clone();
    near.set_handler(on_event(move |bev: &Bev, event: &Event| {
        heard.add(Told::from(event));
        if matches!(event, Event::Timeout(_)) {
            drop(bev.free());
        }
    }))
    .unwrap();
    near.set_deadline(Deadline::Idle, Some(SECOND)).unwrap();
    near.set_deadline(Deadline::HalfClosed, Some(SECOND))
        .unwrap();
    near.enable(READ).unwrap();
    far.finish().unwrap();
    events.advance(SECOND);
    assert_eq!(log.news(), [Told::Eof, Told::Timeout(Deadline::Idle)]);
    assert!(near.is_freed());
}
