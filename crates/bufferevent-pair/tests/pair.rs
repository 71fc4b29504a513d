//! What a pair alone shows: moved bytes, marks of both sides, the partner, and no system below.

use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::{Deadline, Direction, Kind, Mode, Options, READ, WRITE};
use bufferevent_pair::{Pair, Partner as _, pair};
use bufferevent_testkit::{Log, Loop, ManualClock, Through, Told, fault, record, spec};
use evbuffer::EvBuffer;
use evreactor::EventLoop;
use evreactor_core::{AsHost, Host};

/// Runs a check on the virtual loop and on a real one over each backend.
fn on_every_loop(check: fn(&std::sync::Arc<dyn Host>, &dyn Fn())) {
    record::within("pair", "virtual", || {
        let events = Loop::new();
        check(&events.as_host(), &|| events.run());
    });
    for backend in evreactor::backend_names() {
        record::within("pair", backend, || {
            let events = EventLoop::builder().backend(backend).build().unwrap();
            check(&events.as_host(), &|| {
                for _ in 0..4 {
                    events.poll().unwrap();
                }
            });
        });
    }
}

#[test]
fn bytes_are_moved_from_one_to_the_other() {
    on_every_loop(|host, run| {
        spec!(P1);
        let (near, far) = pair(host).unwrap();
        assert_eq!(
            (near.partner(), far.partner()),
            (Some(far.clone()), Some(near.clone()))
        );
        assert!(near.layer::<Pair>().is_some());
        far.enable(READ).unwrap();
        near.enable(READ).unwrap();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let block = bytes::Bytes::from(vec![7; 100_000]);
            from.output().append_bytes(block.clone()).unwrap();
            run();
            let mut arrived = EvBuffer::new();
            assert_eq!(to.read_buffer(&mut arrived).unwrap(), 100_000);
            let same = arrived
                .segments()
                .any(|segment| segment.as_ptr() == block.as_ptr());
            assert!(same, "moved, not copied");
        }
        // Layers on either end, or on both.
        let near = near
            .over(Options::EMPTY, Through::new().greeting())
            .unwrap();
        let far = far.over(Options::EMPTY, Through::new().greeting()).unwrap();
        assert_eq!(near.partner(), far.underlying(), "found through the layer");
        far.enable(READ).unwrap();
        near.write(b"through both").unwrap();
        run();
        assert_eq!(far.input().len(), 12);
    });
}

#[test]
fn both_sides_marks_and_directions_count() {
    on_every_loop(|host, run| {
        spec!(P2);
        let (near, far) = pair(host).unwrap();
        far.set_read_watermark(0, 100).unwrap();
        near.write(&[0; 250]).unwrap();
        run();
        assert_eq!(
            (near.output().len(), far.input().len()),
            (250, 0),
            "the reader does not read"
        );
        near.disable(WRITE).unwrap();
        far.enable(READ).unwrap();
        run();
        assert_eq!(far.input().len(), 0, "the writer does not write");
        near.enable(WRITE).unwrap();
        run();
        assert_eq!(
            (near.output().len(), far.input().len()),
            (150, 100),
            "the reader's mark"
        );
        // A flush of the writer goes past its own marks, not past the reader's.
        let _ = near.flush(Direction::Write, Mode::Flush).unwrap();
        assert_eq!(far.input().len(), 100);
        far.input().drain(100).unwrap();
        run();
        assert_eq!((near.output().len(), far.input().len()), (50, 100));
    });
}

#[test]
fn a_finish_and_a_free_are_an_end_to_the_partner() {
    on_every_loop(|host, run| {
        spec!(P2);
        for frees in [false, true] {
            let (near, far) = pair(host).unwrap();
            let log = Log::new();
            far.set_handler(log.take_all()).unwrap();
            far.enable(READ).unwrap();
            near.write(b"last").unwrap();
            run();
            if frees {
                near.free().unwrap();
            } else {
                let _ = near.flush(Direction::Write, Mode::Finished).unwrap();
            }
            run();
            assert_eq!(
                (log.received(), log.events()),
                (b"last".to_vec(), vec![Told::Eof])
            );
            if frees {
                // The other is safe: it says what it can no longer do.
                assert_eq!(far.partner(), None);
                far.write(b"to nobody").unwrap();
                run();
                let error = Told::Error(Some(Direction::Write), Kind::Peer);
                assert_eq!(log.events(), [Told::Eof, error]);
                assert_eq!(far.free().unwrap(), 9);
            } else {
                far.write(b"still heard").unwrap();
                near.enable(READ).unwrap();
                run();
                assert_eq!(near.input().len(), 11);
            }
        }
    });
}

#[test]
fn a_free_with_bytes_in_flight_loses_the_unsent_only() {
    on_every_loop(|host, run| {
        spec!(P2);
        let (near, far) = pair(host).unwrap();
        let log = Log::new();
        far.set_handler(log.watch()).unwrap();
        far.set_read_watermark(0, 10).unwrap();
        far.enable(READ).unwrap();
        near.write(&[0; 25]).unwrap();
        run();
        assert_eq!(near.free().unwrap(), 15);
        run();
        assert_eq!(
            (far.input().len(), log.events()),
            (10, vec![]),
            "the end waits behind the mark"
        );
        far.input().drain(10).unwrap();
        run();
        assert_eq!(log.events(), [Told::Eof]);
    });
}

#[test]
fn an_input_that_is_lent_out_is_not_filled_past_its_mark() {
    spec!(C3);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_read_watermark(0, 4).unwrap();
    near.enable(READ).unwrap();
    far.write(b"abcd").unwrap();
    events.run();
    near.input()
        .with_contiguous(4, |bytes| {
            assert_eq!(bytes, b"abcd");
            far.write(b"efgh").unwrap();
            events.run();
        })
        .unwrap();
    events.run();
    assert_eq!(near.input().len(), 4);
    // And what had to wait comes by itself.
    near.input().drain(4).unwrap();
    events.run();
    let mut rest = [0; 4];
    assert_eq!((near.read(&mut rest).unwrap(), &rest), (4, b"efgh"));
}

/// The machine slept for three days: what waited for ten seconds has waited once, not 25,920 times.
#[test]
fn a_leap_of_the_clock_passes_a_deadline_once() {
    fault!(F95);
    let ten = Some(Duration::from_secs(10));
    let clock = ManualClock::default();
    let events = EventLoop::builder()
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    let (near, _far) = pair(&events).unwrap();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.set_timeouts(ten, None).unwrap();
    near.set_deadline(Deadline::Idle, ten).unwrap();
    near.enable(READ).unwrap();
    clock.set(events.now() + Duration::from_secs(3 * 86_400));
    for _ in 0..3 {
        events.poll().unwrap();
    }
    let told = [Deadline::Read, Deadline::Idle].map(Told::Timeout);
    assert_eq!(log.events(), told);
}
