//! What the core owes to layers that work for themselves as well as for their user.

use bufferevent_core::{Event, Options, on_event};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, Through, spec};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_layer_in_the_middle_reads_for_itself_though_nobody_above_reads() {
    spec!(G2);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let top = near
        .over(Options::EMPTY, Through::new().greeting())
        .unwrap()
        .over(Options::EMPTY, Through::new())
        .unwrap();
    let far = far.over(Options::EMPTY, Through::new().greeting()).unwrap();
    let connected = Arc::new(AtomicUsize::new(0));
    for bev in [&top, &far] {
        let connected = connected.clone();
        bev.set_handler(on_event(move |_, event| {
            if matches!(event, Event::Connected) {
                connected.fetch_add(1, Ordering::Relaxed);
            }
        }))
        .unwrap();
    }
    events.run();
    assert_eq!(connected.load(Ordering::Relaxed), 2);
}
