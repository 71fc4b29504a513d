//! The filter in its place: over pairs on a virtual loop, with marks, pauses, half-closes and peers that do not read.

mod common;

use std::error::Error as _;

use bufferevent_core::{
    Bev, Direction, Event, Flushed, Kind, Mode, Options, READ, WRITE, on_event,
};
use bufferevent_filter::FilterExt;
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop, Told, fault, record, spec};
use bufferevent_zlib::{Builder, Cause, FlushPolicy, Format, Members, Zlib};
use common::*;

/// A filter on each end of a pair, and what is heard at the far one.
struct Joined {
    events: Loop,
    near: Bev,
    far: Bev,
    heard: Log,
}

impl Joined {
    fn new(settings: &Builder) -> Self {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let cover = |bev: Bev| {
            let filter = settings.clone().build().unwrap();
            bev.filter(Options::CLOSE_ON_FREE, filter).unwrap()
        };
        let (near, far, heard) = (cover(near), cover(far), Log::new());
        far.set_handler(heard.watch()).unwrap();
        Self {
            events,
            near,
            far,
            heard,
        }
    }
}

/// A compressing bufferevent over one end of a pair, and the other end as it is.
fn plain_below(settings: &Builder) -> (Loop, Bev, Bev) {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let top = near
        .filter(Options::CLOSE_ON_FREE, settings.clone().build().unwrap())
        .unwrap();
    (events, top, far)
}

fn contents(bev: &Bev) -> Vec<u8> {
    let mut bytes = vec![0; bev.input().len()];
    assert_eq!(bev.read(&mut bytes).unwrap(), bytes.len());
    bytes
}

/// Every part of the row on a stack: the three formats with level, window and dictionary, bursts, the guard and the absolute limit,
/// truncation, and what follows the end.
#[test]
fn the_zlib_filter_is_what_the_specification_says() {
    record::within("zlib", "virtual", || {
        spec!(F5);
        let common = b"words that both ends know";
        for format in FORMATS {
            let mut settings = Zlib::builder()
                .format(format)
                .level(9)
                .output_window_bits(11);
            if format != Format::Gzip {
                settings = settings.dictionary(common);
            }
            bursts_come_at_once_and_both_ways(&settings);
            bombs_are_stopped(&settings);
            what_is_cut_is_truncated(&settings);
            what_follows_the_end_stays_below(&settings);
        }
    });
}

fn bursts_come_at_once_and_both_ways(settings: &Builder) {
    let joined = Joined::new(settings);
    let (near, far) = (&joined.near, &joined.far);
    near.enable(READ).unwrap();
    far.enable(READ).unwrap();
    let mut compressed = 0;
    for length in [1, 100, 100_000] {
        let plain = text(length, 5);
        near.write(&plain).unwrap();
        far.write(&plain).unwrap();
        joined.events.run();
        assert!(contents(far) == plain, "a burst is there at once");
        assert!(contents(near) == plain, "and the other way");
        let stats = |bev: &Bev| {
            bev.filter_of::<Zlib>()
                .unwrap()
                .with(|filter| filter.stats())
        };
        let (sent, got) = (stats(near).unwrap(), stats(far).unwrap());
        assert_eq!(sent.output, got.input);
        assert!(sent.output.compressed > compressed);
        compressed = sent.output.compressed;
    }
    near.finish().unwrap();
    joined.events.run();
    assert_eq!(
        joined.heard.events(),
        [Told::Eof],
        "the stream's end is a clean one"
    );
}

fn bombs_are_stopped(settings: &Builder) {
    for (guard, most) in [
        (settings.clone(), (1 << 20) + (256 << 10)),
        (settings.clone().max_ratio(None).max_output(12_345), 12_345),
    ] {
        let joined = Joined::new(&guard);
        joined.far.enable(READ).unwrap();
        joined.near.write(&vec![0; 4 << 20]).unwrap();
        joined.events.run();
        assert_eq!(
            joined.heard.events(),
            [Told::Error(Some(Direction::Read), Kind::Limit)]
        );
        assert!(joined.far.input().len() <= most);
    }
}

fn what_is_cut_is_truncated(settings: &Builder) {
    let whole = compress(settings, &text(500, 1));
    for cut in 0..whole.len() {
        let (events, top, far) = plain_below(settings);
        let log = Log::new();
        top.set_handler(log.watch()).unwrap();
        top.enable(READ).unwrap();
        far.write(&whole[..cut]).unwrap();
        far.finish().unwrap();
        events.run();
        let error = Told::Error(Some(Direction::Read), Kind::Truncated);
        assert_eq!(log.events(), [error], "cut at {cut}");
    }
}

fn what_follows_the_end_stays_below(settings: &Builder) {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let settings = settings.clone().members(Members::One);
    let top = near
        .filter(Options::EMPTY, settings.clone().build().unwrap())
        .unwrap();
    let log = Log::new();
    top.set_handler(log.watch()).unwrap();
    top.enable(READ).unwrap();
    far.write(&compress(&settings, b"in the stream")).unwrap();
    far.write(b"behind it").unwrap();
    events.run();
    assert_eq!(
        log.events(),
        [Told::Eof],
        "the stream's end, though nothing below has ended"
    );
    assert_eq!(contents(&top), b"in the stream");
    top.free().unwrap();
    // The layer is off: what followed is there, in order, and the connection goes on in both directions.
    near.enable(READ).unwrap();
    far.write(b", and more").unwrap();
    far.enable(READ).unwrap();
    near.write(b"plain again").unwrap();
    events.run();
    assert_eq!(contents(&near), b"behind it, and more");
    assert_eq!(contents(&far), b"plain again");
}

#[test]
fn marks_bound_every_buffer_of_the_stack() {
    for format in FORMATS {
        let joined = Joined::new(&Zlib::builder().format(format));
        let (near, far) = (&joined.near, &joined.far);
        let below = near.underlying().unwrap();
        below.set_write_watermark(0, 1000).unwrap();
        far.underlying()
            .unwrap()
            .set_read_watermark(0, 700)
            .unwrap();
        far.set_read_watermark(0, 100).unwrap();
        far.enable(READ).unwrap();
        let plain = [noise(20_000, 3), text(50_000, 3)].concat();
        near.write(&plain).unwrap();
        near.finish().unwrap();
        let mut read = Vec::new();
        let mut pieces = 0;
        while read.len() < plain.len() {
            joined.events.run();
            assert!(below.stats().output <= 1000);
            assert!(
                (1..=100).contains(&far.input().len()),
                "stuck after {}",
                read.len()
            );
            read.append(&mut contents(far));
            pieces += 1;
        }
        joined.events.run();
        assert!(read == plain && pieces >= plain.len() / 100);
        assert_eq!(joined.heard.events(), [Told::Eof]);
    }
}

/// F68: a finish towards a peer that does not read loses nothing: the trailer comes behind all bytes, when there is room.
#[test]
fn a_finish_towards_a_blocked_peer_loses_nothing() {
    fault!(F68);
    let plain = [noise(100_000, 7), text(100_000, 7)].concat();
    for format in FORMATS {
        for policy in [FlushPolicy::EachBurst, FlushPolicy::OnRequest] {
            let settings = Zlib::builder().format(format).flush(policy);
            let (events, top, far) = plain_below(&settings);
            let told = Log::new();
            top.set_handler(told.watch()).unwrap();
            top.underlying()
                .unwrap()
                .set_write_watermark(0, 64)
                .unwrap();
            top.write(&plain).unwrap();
            assert_eq!(
                top.flush(Direction::Write, Mode::Finished).unwrap(),
                Flushed::Some
            );
            events.run();
            let refused = top.write(b"late").unwrap_err();
            assert_eq!(refused.kind(), Kind::Ended);
            assert_eq!(
                told.events(),
                [],
                "nothing is said to be over while the peer does not read"
            );
            let log = Log::new();
            far.set_handler(log.take_all()).unwrap();
            far.set_read_watermark(0, 50).unwrap();
            far.enable(READ).unwrap();
            events.run();
            assert_eq!(log.events(), [Told::Eof]);
            let (read, end, left) = read(&settings, &log.received());
            assert!(
                end.is_ok() && left.is_empty() && read == plain,
                "{format:?} {policy:?}"
            );
        }
    }
}

/// F69: what was stuck while a direction was disabled or suspended moves when it may, without a byte from anywhere.
#[test]
fn what_was_stuck_during_a_pause_moves_after_it() {
    fault!(F69);
    for format in FORMATS {
        let joined = Joined::new(&Zlib::builder().format(format));
        let (near, far) = (&joined.near, &joined.far);
        let plain = text(300_000, 9);
        // Reading paused in the middle, by mark, by the user, by a suspension: codec and buffers below hold the rest.
        far.set_read_watermark(0, 10_000).unwrap();
        far.enable(READ).unwrap();
        near.write(&plain).unwrap();
        joined.events.run();
        far.disable(READ).unwrap();
        let mut read = contents(far);
        joined.events.run();
        assert_eq!((read.len(), far.input().len()), (10_000, 0));
        far.enable(READ).unwrap();
        joined.events.run();
        assert_eq!(far.input().len(), 10_000);
        far.suspend(READ).unwrap();
        read.append(&mut contents(far));
        far.set_read_watermark(0, 0).unwrap();
        joined.events.run();
        assert_eq!(far.input().len(), 0);
        far.resume(READ).unwrap();
        joined.events.run();
        read.append(&mut contents(far));
        assert!(read == plain);
        // Writing paused: nothing is compressed meanwhile, and the burst is flushed when it goes on.
        near.disable(WRITE).unwrap();
        near.write(b"held").unwrap();
        joined.events.run();
        assert_eq!(far.input().len(), 0);
        near.enable(WRITE).unwrap();
        joined.events.run();
        assert_eq!(contents(far), b"held");
    }
}

/// F70: the limit is reached in the middle of a block: what is within it is delivered, the error is told once, and the peer hears
/// that nobody listens any more.
#[test]
fn at_a_limit_the_error_comes_once_and_the_peer_is_closed() {
    fault!(F70);
    for format in FORMATS {
        let settings = Zlib::builder().format(format);
        let wire = compress(&settings, &text(100_000, 3));
        let (events, top, far) = plain_below(&settings.max_output(60_000));
        let (log, closed) = (Log::new(), Log::new());
        top.set_handler(log.watch()).unwrap();
        far.set_handler(closed.watch()).unwrap();
        far.enable(READ).unwrap();
        top.enable(READ).unwrap();
        far.write(&wire).unwrap();
        events.run();
        let _ = far.write(&wire);
        events.run();
        assert_eq!(
            log.events(),
            [Told::Error(Some(Direction::Read), Kind::Limit)]
        );
        let error = log.errors().remove(0);
        assert_eq!(error.layer(), format.name());
        let cause = error
            .source()
            .and_then(|source| source.downcast_ref::<Cause>());
        assert_eq!(cause, Some(&Cause::MaxOutput { limit: 60_000 }));
        assert!(contents(&top) == text(100_000, 3)[..60_000]);
        assert_eq!(closed.events(), []);
        top.free().unwrap();
        events.run();
        // What it had no room to read any more cannot be written either.
        let unread = Told::Error(Some(Direction::Write), Kind::Peer);
        assert_eq!(closed.events(), [Told::Eof, unread]);
    }
    // One that nobody holds goes by itself, and the peer hears of that.
    let wire = compress(&Zlib::builder(), &[0; 5000]);
    let (events, top, far) = plain_below(&Zlib::builder().max_output(10));
    let closed = Log::new();
    far.set_handler(closed.watch()).unwrap();
    far.enable(READ).unwrap();
    top.enable(READ).unwrap();
    drop(top);
    far.write(&wire).unwrap();
    events.run();
    assert_eq!(closed.events(), [Told::Eof]);
}

#[test]
fn filters_stand_on_filters() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let cover = |bottom: Bev| {
        let mut top = bottom;
        for format in FORMATS {
            let filter = Zlib::builder().format(format).build().unwrap();
            top = top.filter(Options::CLOSE_ON_FREE, filter).unwrap();
        }
        top
    };
    let (near, far, log) = (cover(near), cover(far), Log::new());
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    let mut sent = Vec::new();
    for length in [1, 50, 3, 200_000, 1] {
        let plain = text(length, 2);
        near.write(&plain).unwrap();
        sent.extend_from_slice(&plain);
        events.run();
        assert_eq!(log.received_len(), sent.len(), "each burst arrives at once");
    }
    near.finish().unwrap();
    events.run();
    assert!(log.received() == sent);
    assert_eq!(log.events(), [Told::Eof]);
}

#[test]
fn a_flush_that_is_asked_for_comes_while_the_policy_waits() {
    let settings = Zlib::builder().flush(FlushPolicy::OnRequest);
    let joined = Joined::new(&settings);
    joined.far.enable(READ).unwrap();
    joined.near.write(b"held back").unwrap();
    joined.events.run();
    assert_eq!(joined.far.input().len(), 0);
    let flushed = joined.near.flush(Direction::Write, Mode::Flush).unwrap();
    assert_eq!(flushed, Flushed::Some);
    joined.events.run();
    assert_eq!(contents(&joined.far), b"held back");
    let again = joined.near.flush(Direction::Write, Mode::Flush).unwrap();
    assert_eq!(
        again,
        Flushed::Nothing,
        "nothing was pending: no empty block"
    );
}

#[test]
fn bytes_before_an_error_are_delivered_first() {
    let settings = Zlib::builder();
    let mut wire = compress(&settings, &text(10_000, 4));
    *wire.last_mut().unwrap() ^= 1;
    let (events, top, far) = plain_below(&settings);
    let (tell, told) = std::sync::mpsc::channel();
    top.set_handler(on_event(move |bev, event| {
        let Event::Error { error, .. } = event else {
            panic!("{event:?}")
        };
        tell.send((error.kind(), bev.input().len())).unwrap();
    }))
    .unwrap();
    top.enable(READ).unwrap();
    far.write(&wire).unwrap();
    events.run();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(Kind::Peer, 10_000)]);
}
