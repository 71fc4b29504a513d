//! What each verdict leads to: one small filter per case, over a pair on a virtual loop.
//!
//! Here is what a filter is asked and how far it is believed; what it holds, how it ends, and how it shakes hands have a file each.

mod ends;
mod handshakes;
mod held;
#[path = "../support/mod.rs"]
mod support;

use bufferevent_core::{Bev, Direction, Directions, Error, Kind, Mode, Options, READ};
use bufferevent_filter::{Filter, FilterExt, Identity, Sink, Verdict, Wants, from_fn};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, spec};
use evbuffer::EvBuffer;
use support::{Greeting, Hoarder, contents, pass};

fn joined() -> (Loop, Bev, Bev) {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    (events, near, far)
}

#[test]
fn a_filter_sees_source_room_and_mode_and_its_verdicts_are_heard() {
    spec!(F1);
    let (events, near, far) = joined();
    let mut modes = Vec::new();
    let (tell, told) = std::sync::mpsc::channel();
    let top = near
        .filter(
            Options::EMPTY,
            from_fn("watched", pass, move |source, sink, mode| {
                tell.send((source.len(), sink.room(), mode)).unwrap();
                pass(source, sink, mode)
            }),
        )
        .unwrap();
    near.set_write_watermark(0, 4).unwrap();
    top.write(b"abcdef").unwrap();
    far.enable(READ).unwrap();
    events.run();
    assert_eq!(contents(&far), b"abcdef");
    let _ = top.flush(Direction::Write, Mode::Flush).unwrap();
    let _ = top.flush(Direction::Write, Mode::Finished).unwrap();
    events.run();
    modes.extend(told.try_iter());
    assert_eq!(modes[0], (6, 4, Mode::Normal), "the room is the mark below");
    assert!(modes.iter().any(|call| call.2 == Mode::Flush));
    assert_eq!(modes.last().unwrap().2, Mode::Finished);
}

/// Lies about everything, in turn.
#[derive(Default)]
struct Liar {
    calls: usize,
}

impl Liar {
    fn lie(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.calls += 1;
        match self.calls % 3 {
            0 => pass(source, sink, mode),
            1 => Ok(Verdict::Progress),
            _ => Ok(Verdict::Full),
        }
    }
}

impl Filter for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.lie(source, sink, mode)
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.lie(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: self.calls.is_multiple_of(2),
            write: self.calls % 5 < 3,
        }
    }
}

#[test]
fn a_filter_that_lies_does_not_spin() {
    spec!(F3);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Liar::default()).unwrap();
    top.enable(READ).unwrap();
    far.enable(READ).unwrap();
    for _ in 0..100 {
        far.write(b"x").unwrap();
        top.write(b"x").unwrap();
        events.run();
        top.enable(Directions::BOTH).unwrap();
        events.run();
    }
    let calls = top
        .filter_of::<Liar>()
        .unwrap()
        .with(|liar| liar.calls)
        .unwrap();
    assert!(calls < 3_000, "{calls} calls for 200 bytes");
}

#[test]
fn a_filter_is_cut_short_at_the_limit() {
    spec!(F2);
    let (events, near, far) = joined();
    // Adds what it likes; a byte of the source stands for a hundred.
    let greedy = |source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode| {
        while !source.is_empty() {
            source.drain(1);
            sink.append_slice(&[9; 100]);
        }
        Ok(Verdict::NeedInput)
    };
    let top = near
        .filter(Options::EMPTY, from_fn("greedy", greedy, greedy))
        .unwrap();
    near.set_write_watermark(0, 50).unwrap();
    top.set_read_watermark(0, 30).unwrap();
    top.enable(READ).unwrap();
    far.write(b"abc").unwrap();
    top.write(b"abc").unwrap();
    events.run();
    assert_eq!(top.input().len(), 30);
    assert_eq!(near.stats().output, 50);
}

#[test]
fn a_filter_is_found_from_the_top_by_its_type() {
    spec!(A5);
    let (_events, near, _far) = joined();
    let top = near
        .filter(Options::EMPTY, Liar::default())
        .unwrap()
        .filter(Options::EMPTY, Identity)
        .unwrap()
        .filter(Options::EMPTY, Hoarder::default())
        .unwrap();
    let found = top.filter_of::<Liar>().unwrap();
    assert!(found.with(|liar| liar.calls).is_ok());
    assert_eq!(found.bev().unwrap().underlying(), Some(near.clone()));
    assert!(top.filter_of::<Greeting>().is_none());
    assert!(near.filter_of::<Liar>().is_none(), "it stands above");
    assert_eq!(near.write(b"x").unwrap_err().kind(), Kind::Covered);
}

#[test]
fn a_filter_that_says_progress_and_moves_nothing_is_asked_once_per_change() {
    spec!(F3);
    let (events, near, far) = joined();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = calls.clone();
    let idle = move |_: &mut EvBuffer, _: &mut Sink<'_>, _: Mode| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Verdict::Progress)
    };
    let top = near
        .filter(Options::EMPTY, from_fn("idle", idle, pass))
        .unwrap();
    top.enable(READ).unwrap();
    for _ in 0..10 {
        far.write(b"x").unwrap();
        events.run();
    }
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!((10..=40).contains(&calls), "{calls} calls for 10 changes");
}
