//! `AsyncBev`: reads, writes, flushes and ends, over a pair, over layers, over transports that follow a script.

mod common_async;

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bufferevent_core::{
    AsyncBev, Bev, DEFAULT_MARK, Deadline, Elapsed, Error, Kind, LINGER, Options, READ, on_read,
};
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop, Script, Through, Told, scripted};
use common_async::{counted, run, start};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use futures_util::{AsyncRead, AsyncWrite};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A pair with `AsyncBev`s at both ends.
fn both(events: &Loop) -> (AsyncBev, AsyncBev) {
    let (near, far) = pair(events).unwrap();
    (AsyncBev::new(near).unwrap(), AsyncBev::new(far).unwrap())
}

/// What of ours is inside an I/O error.
fn ours(error: &io::Error) -> &Error {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .expect("it has its cause")
}

#[test]
fn bytes_go_both_ways_and_the_end_comes_behind_them() {
    let events = Loop::new();
    let (mut near, mut far) = both(&events);
    let server = start(&events, async move {
        let mut asked = Vec::new();
        far.read_to_end(&mut asked).await.unwrap();
        asked.make_ascii_uppercase();
        far.write_all(&asked).await.unwrap(); // Its peer has ended, and still reads.
        far.close().await.unwrap();
        far.read(&mut [0; 1]).await.unwrap()
    });
    let answer = run(&events, async move {
        near.write_all(b"half-").await.unwrap();
        near.write_all(b"closed").await.unwrap();
        near.close().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        let late = near.write(b"x").await.unwrap_err();
        assert_eq!(
            (late.kind(), ours(&late).kind()),
            (ErrorKind::BrokenPipe, Kind::Ended)
        );
        answer
    });
    assert_eq!(answer, "HALF-CLOSED");
    assert_eq!(
        server.take(),
        0,
        "the end is told as often as it is asked for"
    );
}

#[test]
fn a_writer_waits_at_the_high_mark_and_goes_on_when_the_output_falls_below_it() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    far.set_read_watermark(0, 1000).unwrap();
    near.set_write_watermark(0, 100).unwrap();
    let mut near = AsyncBev::new(near).unwrap();
    let watched = near.bev().clone();
    let (writing, polls) = counted(async move { near.write_all(&[7; 5000]).await.map(|()| near) });
    let written = start(&events, writing);
    events.run();
    assert_eq!(
        (watched.output().len(), polls.get()),
        (100, 1),
        "nobody reads"
    );
    far.enable(READ).unwrap();
    events.run();
    assert_eq!((far.input().len(), watched.output().len()), (1000, 100));
    let before = polls.get();
    events.advance(seconds(600));
    assert_eq!(polls.get(), before, "who waits is not polled");
    let mut got = 0;
    while !written.is_there() {
        got += far.input().drain(usize::MAX).unwrap();
        assert!(watched.output().len() <= 100);
        events.run();
    }
    assert_eq!(got + far.input().len(), 5000);
    written.take().unwrap();
}

#[test]
fn a_peer_that_does_not_read_bounds_the_memory_of_a_whole_stack() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let top = near
        .over(Options::EMPTY, Through::new())
        .and_then(|bev| bev.over(Options::EMPTY, Through::new().terse()))
        .unwrap();
    let mut stack = AsyncBev::new(top.clone()).unwrap();
    let endless = start(&events, async move {
        loop {
            stack.write_all(&[1; 10_000]).await.unwrap();
        }
    });
    events.run();
    let mut waits = far.input().len();
    let mut layer = Some(top);
    while let Some(bev) = layer {
        assert!(bev.output().len() <= DEFAULT_MARK);
        waits += bev.output().len();
        layer = bev.underlying();
    }
    assert!(
        (DEFAULT_MARK..=3 * DEFAULT_MARK).contains(&waits),
        "{waits}"
    );
    endless.cancel();
    events.run();
}

#[test]
fn a_reader_that_is_slow_stops_the_writer() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let far = AsyncBev::new(far).unwrap();
    near.write(&vec![3; 10 * DEFAULT_MARK]).unwrap();
    events.run();
    assert_eq!(far.bev().input().len(), DEFAULT_MARK);
    assert_eq!(near.output().len(), 9 * DEFAULT_MARK);
}

#[test]
fn marks_that_were_set_are_kept() {
    let events = Loop::new();
    let (near, _far) = pair(&events).unwrap();
    near.set_read_watermark(10, 20).unwrap();
    near.set_write_watermark(30, 40).unwrap();
    let near = AsyncBev::new(near).unwrap();
    let marks = |direction| {
        let mark = near.bev().watermark(direction);
        (mark.low(), mark.high())
    };
    assert_eq!(marks(bufferevent_core::Direction::Read), (10, 20));
    assert_eq!(marks(bufferevent_core::Direction::Write), (30, 40));
}

#[test]
fn a_reader_is_woken_at_the_low_mark_and_by_the_end() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    far.set_read_watermark(4, 0).unwrap();
    let mut far = AsyncBev::new(far).unwrap();
    let (reading, polls) = counted(async move {
        let mut all = Vec::new();
        let mut piece = [0; 64];
        loop {
            match far.read(&mut piece).await.unwrap() {
                0 => return all,
                count => all.push(piece[..count].to_vec()),
            }
        }
    });
    let pieces = start(&events, reading);
    events.run();
    near.write(b"abc").unwrap();
    events.run();
    assert_eq!(polls.get(), 1, "three bytes are not worth it");
    near.write(b"def").unwrap();
    events.run();
    near.write(b"g").unwrap();
    near.finish().unwrap();
    events.run();
    assert_eq!(pieces.take(), [b"abcdef".to_vec(), b"g".to_vec()]);
}

#[test]
fn an_error_comes_behind_the_bytes_keeps_its_cause_and_stays() {
    let events = Loop::new();
    let script = Script::new()
        .bytes(b"first")
        .read_fails(ErrorKind::ConnectionReset);
    let (bev, _trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    run(&events, async move {
        let mut bytes = [0; 64];
        assert_eq!(bev.read(&mut bytes).await.unwrap(), 5);
        for _ in 0..3 {
            let error = bev.read(&mut bytes).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(
                (ours(&error).layer(), ours(&error).kind()),
                ("scripted", Kind::Peer)
            );
            let cause = ours(&error).io_error().expect("what the system said");
            assert_eq!(cause.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_write_error_reaches_writes_flushes_and_closes() {
    let events = Loop::new();
    let script = Script::new().takes(3).write_fails(ErrorKind::BrokenPipe);
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    run(&events, async move {
        bev.write_all(b"abcdef").await.unwrap();
        let error = bev.flush().await.unwrap_err();
        assert_eq!(
            (error.kind(), ours(&error).operation()),
            (ErrorKind::BrokenPipe, "write")
        );
        assert_eq!(
            bev.write(b"x").await.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
        assert_eq!(bev.close().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
    assert_eq!(trace.written(), b"abc");
}

#[test]
fn a_flush_waits_until_the_transport_has_taken_all() {
    let events = Loop::new();
    let script = Script::new().takes(2).takes(0).at(seconds(5)).takes(100);
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    let (flushing, polls) = counted(async move {
        bev.write_all(b"abcdef").await.unwrap();
        bev.flush().await.unwrap();
        bev.flush().await.unwrap(); // Nothing to do.
        bev
    });
    let flushed = start(&events, flushing);
    events.advance(seconds(4));
    assert_eq!(
        (trace.written(), flushed.is_there(), polls.get()),
        (b"ab".to_vec(), false, 1)
    );
    events.advance(seconds(1));
    assert_eq!((trace.written(), polls.get()), (b"abcdef".to_vec(), 2));
    flushed.take();
}

#[test]
fn a_flush_has_layers_send_what_they_hold() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let top = near
        .over(Options::CLOSE_ON_FREE, Through::new().holding())
        .unwrap();
    let top = top
        .over(Options::CLOSE_ON_FREE, Through::new().holding())
        .unwrap();
    let mut top = AsyncBev::new(top).unwrap();
    far.enable(READ).unwrap();
    let top = run(&events, async move {
        top.write_all(b"held").await.unwrap();
        top
    });
    events.run();
    assert_eq!(far.input().len(), 0, "without a flush they hold it");
    let held = far.clone();
    run(&events, async move {
        let mut top = top;
        top.flush().await.unwrap();
        assert_eq!(held.input().len(), 4);
    });
}

#[test]
fn who_waits_for_a_flush_is_told_when_writing_fails() {
    let events = Loop::new();
    let script = Script::new()
        .takes(0)
        .at(seconds(5))
        .write_fails(ErrorKind::ConnectionReset);
    let (bev, _trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    let error = run(&events, async move {
        bev.write_all(b"abc").await.unwrap();
        bev.flush().await.unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_close_finishes_every_layer_and_waits_until_the_end_mark_is_out() {
    let events = Loop::new();
    let script = Script::new().takes(4).takes(0).at(seconds(5)).takes(100);
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let top = bev
        .over(Options::CLOSE_ON_FREE, Through::new().holding())
        .unwrap();
    let mut top = AsyncBev::new(top).unwrap();
    let (closing, polls) = counted(async move {
        top.write_all(b"to the last byte").await.unwrap();
        top.close().await.unwrap();
        top.close().await.unwrap(); // Again is no error.
        top
    });
    let closed = start(&events, closing);
    events.advance(seconds(4));
    assert!(!closed.is_there() && !trace.finished());
    assert_eq!(polls.get(), 1);
    events.advance(seconds(1));
    assert_eq!(trace.written(), b"to the last byte");
    assert!(trace.finished() && closed.is_there());
}

#[test]
fn a_close_whose_transport_breaks_below_is_told() {
    // The layer on top has sent its end mark; the transport fails with it in its output.
    let events = Loop::new();
    let script = Script::new()
        .takes(4)
        .takes(0)
        .at(seconds(5))
        .write_fails(ErrorKind::BrokenPipe);
    let (bev, _trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let top = bev.over(Options::CLOSE_ON_FREE, Through::new()).unwrap();
    let mut top = AsyncBev::new(top).unwrap();
    let error = run(&events, async move {
        top.write_all(b"to the last byte").await.unwrap();
        top.close().await.unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn what_one_poll_writes_leaves_in_one_push() {
    let events = Loop::new();
    let (bev, trace) = scripted(&events, Options::EMPTY, Script::new()).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    let bev = run(&events, async move {
        for _ in 0..100 {
            bev.write_all(b"piece").await.unwrap();
        }
        bev
    });
    assert_eq!((trace.written().len(), trace.pushes()), (500, 1));
    drop(bev);
}

#[test]
fn slices_are_gathered_up_to_the_mark() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_write_watermark(0, 10).unwrap();
    let mut near = AsyncBev::new(near).unwrap();
    let taken = run(&events, async move {
        let slices = [b"abcd", b"efgh", b"ijkl"].map(|slice| IoSlice::new(slice));
        let taken = near.write_vectored(&slices).await.unwrap();
        assert_eq!(near.write_vectored(&[IoSlice::new(b"")]).await.unwrap(), 0);
        far.enable(READ).unwrap();
        (taken, far, near)
    });
    events.run();
    let mut bytes = [0; 16];
    assert_eq!((taken.0, taken.1.read(&mut bytes).unwrap()), (10, 10));
    assert_eq!(&bytes[..10], b"abcdefghij");
}

#[test]
fn an_output_that_is_limited_is_waited_for_as_well() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_max_output(8).unwrap();
    let mut near = AsyncBev::new(near).unwrap();
    let written = start(&events, async move {
        near.write_all(b"0123456789").await.map(|()| near)
    });
    events.run();
    assert!(!written.is_there());
    far.enable(READ).unwrap();
    events.run();
    written.take().unwrap();
    events.run();
    assert_eq!(far.input().len(), 10);
}

#[test]
fn a_timeout_is_an_error_once_and_reading_goes_on() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    far.set_timeouts(Some(seconds(10)), None).unwrap();
    let mut far = AsyncBev::new(far).unwrap();
    let far = run(&events, async move {
        let error = far.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let elapsed = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(elapsed, Some(&Elapsed(Deadline::Read)));
        far
    });
    assert_eq!(events.now().as_nanos(), 10_000_000_000);
    near.write(b"late").unwrap();
    let count = run(&events, async move {
        let mut far = far;
        far.read(&mut [0; 8]).await.unwrap()
    });
    assert_eq!(count, 4);
}

#[test]
fn a_write_timeout_is_an_error_once_and_writing_goes_on() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_timeouts(None, Some(seconds(10))).unwrap();
    near.set_write_watermark(0, 4).unwrap();
    let mut near = AsyncBev::new(near).unwrap();
    run(&events, async move {
        let error = near.write_all(b"too much").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        far.enable(READ).unwrap();
        near.write_all(b"more").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(far.input().len(), 8);
    });
}

#[test]
fn a_handshake_is_waited_for_and_its_failure_told() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let greet = |bev: Bev| {
        bev.over(Options::CLOSE_ON_FREE, Through::new().greeting())
            .unwrap()
    };
    let mut near = AsyncBev::new(greet(near)).unwrap();
    let connected = start(
        &events,
        async move { near.connected().await.map(|()| near) },
    );
    events.run();
    assert!(!connected.is_there());
    let mut far = AsyncBev::new(greet(far)).unwrap();
    run(&events, async move { far.connected().await.map(|()| far) }).unwrap();
    let mut near = connected.take().unwrap();
    run(&events, async move { near.connected().await }).unwrap();

    let script = Script::new().read_fails(ErrorKind::ConnectionReset);
    let (bev, _trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let mut bev = AsyncBev::new(greet(bev)).unwrap();
    let error = run(&events, async move { bev.connected().await }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn who_waits_hears_that_the_bufferevent_was_freed_or_has_another_handler() {
    let events = Loop::new();
    for freed in [true, false] {
        let (mut near, _far) = both(&events);
        let bev = near.bev().clone();
        let read = start(&events, async move { near.read(&mut [0; 1]).await });
        events.run();
        assert!(!read.is_there());
        if freed {
            bev.free().unwrap();
        } else {
            bev.set_handler(on_read(|_| {})).unwrap();
        }
        events.run();
        let kind = if freed { Kind::Freed } else { Kind::Misuse };
        assert_eq!(ours(&read.take().unwrap_err()).kind(), kind);
    }
}

#[test]
fn given_back_it_has_its_bytes_and_takes_a_handler() {
    let events = Loop::new();
    let (near, far) = both(&events);
    far.bev().write(b"unread").unwrap();
    events.run();
    let near = near.into_inner();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    events.run();
    assert_eq!((near.input().len(), log.news()), (6, vec![Told::Read(6)]));

    // The end too, which woke somebody before.
    let mut near = AsyncBev::new(near).unwrap();
    drop(far);
    events.run();
    let near = run(&events, async move {
        let mut unread = Vec::new();
        near.read_to_end(&mut unread).await.unwrap();
        near.into_inner()
    });
    near.set_handler(log.watch()).unwrap();
    events.run();
    assert_eq!(log.news(), [Told::Eof]);
}

#[test]
fn dropped_it_still_sends_what_was_written_and_no_end_mark_of_a_layer() {
    let events = Loop::new();
    let script = Script::new().takes(2).takes(0).at(seconds(5)).takes(100);
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let top = bev
        .over(Options::CLOSE_ON_FREE, Through::new().holding())
        .unwrap();
    let mut top = AsyncBev::new(top).unwrap();
    run(
        &events,
        async move { top.write_all(b"abcdef").await.unwrap() },
    );
    events.run();
    assert_eq!((trace.written(), trace.freed()), (b"ab".to_vec(), None));
    events.advance(seconds(5));
    assert_eq!(
        (trace.written(), trace.freed()),
        (b"abcdef".to_vec(), Some(true))
    );
    assert!(!trace.finished(), "nobody closed it");
}

#[test]
fn dropped_over_a_peer_that_takes_nothing_it_is_freed_in_time() {
    let events = Loop::new();
    let (bev, trace) = scripted(&events, Options::CLOSE_ON_FREE, Script::new().takes(0)).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    run(
        &events,
        async move { bev.write_all(b"abcdef").await.unwrap() },
    );
    events.advance(LINGER - seconds(1));
    assert_eq!(trace.freed(), None);
    events.advance(seconds(1));
    assert_eq!(trace.freed(), Some(true));
}

#[test]
fn dropped_after_a_close_it_waits_for_the_peers_end() {
    let events = Loop::new();
    let (mut near, mut far) = both(&events);
    let (ours, theirs) = (near.bev().clone(), far.bev().clone());
    run(&events, async move {
        far.write_all(b"never read").await.unwrap();
        near.write_all(b"bye").await.unwrap();
        near.close().await.unwrap();
        drop(near);
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "bye");
        assert!(!ours.is_freed(), "the peer may still send");
        far.close().await.unwrap();
    });
    events.run();
    assert!(theirs.is_freed());
    events.advance(LINGER);
    assert!(theirs.is_freed());
}

#[test]
fn dropped_on_another_thread_it_is_given_up_on_its_own() {
    let events = Loop::new();
    let (near, far) = both(&events);
    let (near_bev, far_bev) = (near.bev().clone(), far.bev().clone());
    std::thread::spawn(move || drop((near, far)))
        .join()
        .unwrap();
    events.run();
    assert!(near_bev.is_freed() && far_bev.is_freed());
}

#[test]
fn polled_on_another_thread_a_confined_one_answers_wrong_thread() {
    let events = Loop::new();
    let (mut near, _far) = both(&events);
    let polled = std::thread::spawn(move || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let read = Pin::new(&mut near).poll_read(&mut cx, &mut [0; 1]);
        let Poll::Ready(Err(error)) = read else {
            panic!("{read:?}");
        };
        ours(&error).kind()
    });
    assert_eq!(polled.join().unwrap(), Kind::WrongThread);
    events.run();
}

#[test]
fn a_future_that_never_waits_gives_way_to_its_loop() {
    let events = Loop::new();
    let (bev, _trace) = scripted(&events, Options::EMPTY, Script::new()).unwrap();
    let mut bev = AsyncBev::new(bev).unwrap();
    let flushes = Arc::new(AtomicUsize::new(0));
    let counter = flushes.clone();
    let (endless, polls) = counted(async move {
        loop {
            bev.write_all(b"x").await.unwrap();
            bev.flush().await.unwrap(); // The transport takes it at once: nothing to wait for.
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let endless = start::<()>(&events, endless);
    for _ in 0..10 {
        events.turn();
    }
    assert_eq!(polls.get(), 10, "one poll per turn");
    let each = bufferevent_core::task::OPERATIONS_PER_POLL as usize / 2;
    assert_eq!(flushes.load(Ordering::Relaxed), 10 * each);
    endless.cancel();
    events.run();
}

#[test]
fn nothing_spins_while_it_waits() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let top = near
        .over(Options::EMPTY, Through::new().counted(&calls))
        .unwrap();
    let mut top = AsyncBev::new(top).unwrap();
    let (waiting, polls) = counted(async move {
        let mut byte = [0; 1];
        top.read_exact(&mut byte).await.unwrap();
        byte[0]
    });
    let read = start(&events, waiting);
    events.run();
    let (turns, called) = (events.turns(), calls.load(Ordering::Relaxed));
    events.advance(seconds(600));
    assert_eq!((polls.get(), calls.load(Ordering::Relaxed)), (1, called));
    assert!(events.turns() - turns < 10);
    far.write(b"!").unwrap();
    events.run();
    assert_eq!((read.take(), polls.get()), (b'!', 2));
}

#[test]
fn a_direction_that_is_disabled_by_hand_waits_until_it_is_enabled() {
    let events = Loop::new();
    let (mut near, far) = both(&events);
    let bev = near.bev().clone();
    bev.disable(READ).unwrap();
    far.bev().write(b"x").unwrap();
    let read = start(&events, async move { near.read(&mut [0; 1]).await });
    events.run();
    assert!(!read.is_there());
    bev.enable(READ).unwrap();
    events.run();
    assert_eq!(read.take().unwrap(), 1);
}

#[test]
fn a_poll_that_was_given_up_leaves_nothing_behind() {
    // A read is polled once and dropped, as `select` does; its bytes come to the next one.
    let events = Loop::new();
    let (mut near, far) = both(&events);
    let got = start(&events, async move {
        let mut bytes = [0; 8];
        poll_fn(|cx| {
            assert!(Pin::new(&mut near).poll_read(cx, &mut bytes).is_pending());
            Poll::Ready(())
        })
        .await;
        far.bev().write(b"whole").unwrap();
        let count = near.read(&mut bytes).await.unwrap();
        (bytes[..count].to_vec(), far)
    });
    events.run();
    assert_eq!(got.take().0, b"whole");
}

/// The bounds that generic code asks for.
#[test]
fn it_is_send_and_both_traits() {
    fn check<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>() {}
    check::<AsyncBev>();
}
