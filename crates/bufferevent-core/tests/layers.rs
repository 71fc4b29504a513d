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

#[test]
fn who_covers_what_has_connected_and_not_told_so_is_told_instead() {
    spec!(F7);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let greeting = near
        .over(Options::DEFER_CALLBACKS, Through::new().greeting())
        .unwrap();
    let _far = far.over(Options::EMPTY, Through::new().greeting()).unwrap();
    let told = |bev: &bufferevent_core::Bev| {
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        bev.set_handler(on_event(move |_, event| {
            if matches!(event, Event::Connected) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }))
        .unwrap();
        told
    };
    let below = told(&greeting);
    let top = greeting.over(Options::EMPTY, Through::new()).unwrap();
    let above = told(&top);
    events.run();
    assert_eq!(
        (below.load(Ordering::Relaxed), above.load(Ordering::Relaxed)),
        (0, 1)
    );
}
