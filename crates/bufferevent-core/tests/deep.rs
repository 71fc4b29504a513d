//! No cycle and no chain of callbacks uses stack: a million answers, a hundred layers, a hundred thousand pairs.
//!
//! Each runs on a thread with a stack of 256 KiB, far less than a frame for each step would need.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;

use bufferevent_core::{Bev, Event, Options, READ, on_event, on_read};
use bufferevent_pair::{pair, pair_with};
use bufferevent_testkit::{Log, Loop, Through, Told, spec};

/// Bytes.
const STACK: usize = 256 * 1024;

/// Runs `body` on a thread with little stack.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new()
        .stack_size(STACK)
        .spawn(body)
        .unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ping_pong(options: Options, rounds: usize) {
    let events = Loop::new();
    let (near, far) = pair_with(&events, options).unwrap();
    let left = Rc::new(Cell::new(rounds));
    for bev in [&near, &far] {
        let left = left.clone();
        let back = on_read(move |bev: &Bev| {
            if left.get() > 0 {
                left.set(left.get() - 1);
                bev.output().append_from(&bev.input()).unwrap();
            }
        });
        bev.set_local_handler(back).unwrap();
        bev.enable(READ).unwrap();
    }
    near.write(b"ball").unwrap();
    events.run();
    assert_eq!((left.get(), events.panics()), (0, 0));
}

#[test]
fn a_million_answers_over_a_pair() {
    spec!(O5);
    bufferevent_testkit::fault!(F84);
    on_a_small_stack(|| ping_pong(Options::EMPTY, 1_000_000));
    on_a_small_stack(|| ping_pong(Options::DEFER_CALLBACKS, 100_000));
}

#[test]
fn a_hundred_layers() {
    spec!(O5);
    on_a_small_stack(|| {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let mut top = near;
        for _ in 0..100 {
            top = top.over(Options::CLOSE_ON_FREE, Through::new()).unwrap();
        }
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        far.enable(READ).unwrap();
        top.write(&[7; 10_000]).unwrap();
        top.finish().unwrap();
        events.run();
        assert_eq!(log.received(), [7; 10_000]);
        assert!(log.has(&Told::Eof));
        far.write(b"and back").unwrap();
        top.enable(READ).unwrap();
        events.run();
        assert_eq!(top.input().len(), 8);
        top.free().unwrap();
        events.run();
    });
}

/// A chain of pairs: what comes out of the far end of one is written to the near end of the next.
struct Chain {
    events: Loop,
    first: Bev,
    log: Log,
    last: Bev,
}

fn chain(length: usize) -> Chain {
    let events = Loop::new();
    let (first, mut end) = pair(&events).unwrap();
    for _ in 1..length {
        let (near, far) = pair(&events).unwrap();
        end.set_handler(
            on_read({
                let near = near.clone();
                move |bev| drop(near.output().append_from(&bev.input()))
            })
            .on_event(move |_, event| {
                if matches!(event, Event::Eof) {
                    near.finish().unwrap();
                }
            }),
        )
        .unwrap();
        end.enable(READ).unwrap();
        end = far;
    }
    let log = Log::new();
    end.set_handler(log.take_all()).unwrap();
    end.enable(READ).unwrap();
    Chain {
        events,
        first,
        log,
        last: end,
    }
}

/// Pairs per chain.
const LENGTH: usize = 100_000;

#[test]
fn a_chain_of_a_hundred_thousand_pairs_forwards_and_ends() {
    spec!(O5);
    on_a_small_stack(|| {
        let chain = chain(LENGTH);
        chain.first.write(b"through all of them").unwrap();
        chain.first.finish().unwrap();
        chain.events.run();
        assert_eq!(chain.log.received(), b"through all of them");
        assert!(chain.log.has(&Told::Eof));
    });
}

#[test]
fn a_chain_of_a_hundred_thousand_pairs_is_dropped_from_its_first() {
    spec!(O5);
    on_a_small_stack(|| {
        // Each far end's handler holds the next near end: the first one's end ends them all.
        let chain = chain(LENGTH);
        let Chain {
            events,
            first,
            log,
            last,
        } = chain;
        first.free().unwrap();
        events.run();
        assert!(log.has(&Told::Eof), "the end came through");
        last.free().unwrap();
        events.run();
    });
}

#[test]
fn a_chain_of_frees_uses_no_stack() {
    spec!(O5);
    on_a_small_stack(|| {
        // Each end frees the next pair's near end when it hears of its own partner's end.
        let events = Loop::new();
        let (first, mut end) = pair(&events).unwrap();
        let freed = Rc::new(Cell::new(0));
        for _ in 1..LENGTH {
            let (near, far) = pair(&events).unwrap();
            let freed = freed.clone();
            end.set_local_handler(on_event(move |bev, _| {
                near.free().unwrap();
                bev.free().unwrap();
                freed.set(freed.get() + 1);
            }))
            .unwrap();
            end.enable(READ).unwrap();
            end = far;
        }
        first.free().unwrap();
        events.run();
        assert_eq!(freed.get(), LENGTH - 1);
        assert!(!end.is_freed());
    });
}
