//! No cycle of callbacks over filters, and no depth of them, uses stack.
//!
//! Each test runs on a thread with a stack of 256 KiB, far less than a frame for each step would need.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bufferevent_core::{Bev, Options, READ, on_read};
use bufferevent_filter::{FilterExt, Identity};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, spec};
use support::{Greeting, Hoarder, contents, listen};

/// Bytes.
const STACK: usize = 256 * 1024;

fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new()
        .stack_size(STACK)
        .spawn(body)
        .unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_million_steps_of_ping_pong_through_filters() {
    spec!(O5);
    on_a_small_stack(|| {
        // Every round is two pulls, two pushes and a delivery at each end.
        const ROUNDS: usize = 200_000;
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let near = near.filter(Options::EMPTY, Identity).unwrap();
        let far = far.filter(Options::EMPTY, Hoarder::default()).unwrap();
        let left = Arc::new(AtomicUsize::new(ROUNDS));
        for bev in [&near, &far] {
            let left = left.clone();
            bev.set_handler(on_read(move |bev: &Bev| {
                let more = |left: usize| left.checked_sub(1);
                if left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                    .is_ok()
                {
                    bev.output().append_from(&bev.input()).unwrap();
                }
            }))
            .unwrap();
            bev.enable(READ).unwrap();
        }
        near.write(b"ball").unwrap();
        events.run();
        assert_eq!((left.load(Ordering::Relaxed), events.panics()), (0, 0));
    });
}

#[test]
fn a_hundred_filters_on_each_other() {
    spec!(O5);
    spec!(F2);
    on_a_small_stack(|| {
        let events = Loop::new();
        let (mut near, mut far) = pair(&events).unwrap();
        for place in 0..100 {
            for top in [&mut near, &mut far] {
                *top = match place % 3 {
                    0 => top.filter(Options::CLOSE_ON_FREE, Identity),
                    1 => top.filter(Options::CLOSE_ON_FREE, Hoarder::default()),
                    _ => top.filter(Options::CLOSE_ON_FREE, Greeting::new()),
                }
                .unwrap();
            }
        }
        events.run();
        let heard = listen(&far);
        far.enable(READ).unwrap();
        near.write(&[7; 10_000]).unwrap();
        near.finish().unwrap();
        events.run();
        assert_eq!(contents(&far), [7; 10_000]);
        assert_eq!(heard.lock().unwrap().ends, ["eof"]);
        far.write(b"and back").unwrap();
        near.enable(READ).unwrap();
        events.run();
        assert_eq!(contents(&near), b"and back");
        near.free().unwrap();
        far.free().unwrap();
        events.run();
        assert_eq!(events.panics(), 0);
    });
}
