//! A slow peer at the bottom bounds the memory of the whole stack, and it goes on by itself.

mod support;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use bufferevent_core::{Bev, Handler, Options, Pressure, READ};
use bufferevent_filter::FilterExt;
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, Random, spec};
use support::kinds::{Does, UNIT};
use support::{Notes, contents};

/// Runs of the test, each with its own seed.
const SEEDS: u64 = 200;

/// Writes 50 bytes at a time for as long as there is room, and goes on when the pressure is off.
struct Writer {
    pressures: Arc<Mutex<Vec<Pressure>>>,
    left: Vec<u8>,
}

const PIECE: usize = 50;

impl Writer {
    fn go(&mut self, bev: &Bev) {
        while !self.left.is_empty() && bev.room() > 0 {
            let piece: Vec<u8> = self.left.drain(..PIECE.min(self.left.len())).collect();
            bev.write(&piece).unwrap();
        }
        if self.left.is_empty() {
            // It may have been finished already.
            let _ = bev.finish();
        }
    }
}

impl Handler for Writer {
    fn on_write(&mut self, bev: &Bev) {
        self.go(bev);
    }

    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        self.pressures.lock().unwrap().push(pressure);
        self.go(bev);
    }
}

/// Stacks of one to four filters with a mark on each, under a peer that does not read.
fn stalled(seed: u64) {
    let mut random = Random::new(seed);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let (mut near, mut far) = (vec![near], vec![far]);
    let calls = Arc::new(AtomicUsize::new(0));
    let mut marks = 0;
    let count = 1 + random.below(4);
    for _ in 0..count {
        let mut does = Does::ALL[random.below(Does::ALL.len())];
        if does == Does::Greets {
            does = Does::Expands;
        }
        for side in [&mut near, &mut far] {
            let layer = does.filter(&mut random, &calls);
            let top = side.last().unwrap().filter(Options::EMPTY, layer).unwrap();
            side.push(top);
        }
    }
    for bev in &near {
        let mark = 1 + random.below(100);
        marks += mark;
        bev.set_write_watermark(0, mark).unwrap();
    }
    // The transport of the other end reads a little ahead, no more.
    for bev in &far {
        bev.set_read_watermark(0, 20).unwrap();
    }
    let to_send = random.bytes(1_500);
    let top = near.last().unwrap();
    let pressures = Arc::new(Mutex::new(Vec::new()));
    top.set_handler(Writer {
        pressures: pressures.clone(),
        left: to_send.clone(),
    })
    .unwrap();
    top.enable(bufferevent_core::WRITE).unwrap();
    events.run();
    let total: usize = near.iter().map(|bev| bev.stats().output).sum();
    let most = marks + PIECE + UNIT * count;
    assert!(total <= most, "{total} > {most} bytes wait");
    assert!(top.room() < PIECE + 100, "it knows");
    // The peer reads a few bytes at a time: the rest comes, and no more than that waits at any time.
    let bottom = far.last().unwrap();
    bottom.enable(READ).unwrap();
    let heard = support::listen(bottom);
    let mut received = Vec::new();
    let mut quiet = 0;
    while quiet < 2 {
        events.run();
        let total: usize = near.iter().map(|bev| bev.stats().output).sum();
        assert!(total <= most, "{total} > {most} bytes wait");
        let before = received.len();
        received.extend(contents(bottom));
        quiet = if received.len() > before {
            0
        } else {
            quiet + 1
        };
    }
    assert!(received == to_send, "{} bytes came", received.len());
    let Notes { ends, .. } = &*heard.lock().unwrap();
    assert_eq!(ends, &["eof"]);
    let pressures = pressures.lock().unwrap();
    assert!(pressures.contains(&Pressure::Full), "{pressures:?}");
    assert!(pressures.contains(&Pressure::Eased), "{pressures:?}");
}

#[test]
fn a_stalled_peer_bounds_every_stack_and_nothing_stays_behind() {
    spec!(C5);
    for seed in 0..SEEDS {
        let failed = std::panic::catch_unwind(|| stalled(seed));
        if let Err(panic) = failed {
            eprintln!("the seed was {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_top_is_told_what_it_may_still_add() {
    spec!(C5);
    let events = Loop::new();
    let (near, _far) = pair(&events).unwrap();
    let middle = near
        .filter(Options::EMPTY, bufferevent_filter::Identity)
        .unwrap();
    let top = middle
        .filter(Options::EMPTY, bufferevent_filter::Identity)
        .unwrap();
    assert_eq!(top.room(), usize::MAX);
    near.set_write_watermark(0, 10).unwrap();
    middle.set_write_watermark(0, 20).unwrap();
    assert_eq!(top.room(), 20);
    top.write(&[7; 15]).unwrap();
    events.run();
    assert_eq!((near.stats().output, middle.stats().output), (10, 5));
    assert_eq!(top.room(), 15);
    top.write(&[7; 40]).unwrap();
    events.run();
    assert_eq!((near.stats().output, middle.stats().output), (10, 20));
    assert_eq!((top.stats().output, top.room()), (25, 0));
}
