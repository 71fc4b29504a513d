//! The completion socket on this system's backend: real sockets, and the edges of the queues.

#![cfg(any(target_os = "linux", windows))]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use std::os::unix::net::UnixStream;
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, Direction, Event, Kind, Options, READ, on_event, on_read};
#[cfg(target_os = "linux")]
use bufferevent_iocp::RingOptions;
use bufferevent_iocp::{BACKEND, Builder, CompletionExt as _, Listener};
#[cfg(target_os = "linux")]
use bufferevent_testkit::spec;
use bufferevent_testkit::{Log, Told, fault, record};
use common::{PATIENCE, bytes, port, system, turns, until};
use evreactor::{EventLoop, Outcome};
#[cfg(target_os = "linux")]
use evreactor::{Interest, Priority, Ready, Target};

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn on_system(check: impl FnOnce()) {
    record::within("completion", BACKEND, check);
}

/// A bufferevent, and the other end of its connection as a plain socket.
fn joined(events: &EventLoop) -> (Bev, TcpStream) {
    let listener = TcpListener::bind(local()).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_nodelay(true).unwrap();
    let near = listener.accept().unwrap().0;
    (
        Builder::new(events).nodelay(true).stream(near).unwrap(),
        far,
    )
}

fn echo(events: &EventLoop) -> (Listener, SocketAddr) {
    let listener = Listener::bind(events, local(), |bev, _| {
        bev.set_handler(on_read(|bev| {
            drop(bev.output().append_from(&bev.input()));
        }))?;
        bev.enable(READ)
    })
    .unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    (listener, address)
}

#[test]
fn it_connects_sends_what_was_written_before_and_hears_the_end() {
    on_system(|| {
        let events = system();
        let (_listener, address) = echo(&events);
        let log = Log::new();
        let bev = Builder::new(&events)
            .handler(log.take_all())
            .connect(address)
            .unwrap();
        bev.enable(READ).unwrap();
        let data = bytes(1, 1_000_000);
        bev.write(&data).unwrap();
        bev.finish().unwrap();
        assert!(!log.has(&Told::Connected), "never from inside");
        until(&events, "the end", || log.has(&Told::Eof));
        assert!(log.received() == data);
        assert_eq!(
            log.told()
                .iter()
                .filter(|told| **told == Told::Connected)
                .count(),
            1
        );
    });
}

#[test]
fn a_refused_connection_is_one_error() {
    on_system(|| {
        fault!(F26);
        let events = system();
        let free = TcpListener::bind(local()).unwrap().local_addr().unwrap();
        let log = Log::new();
        let bev = Builder::new(&events)
            .handler(log.watch())
            .connect(free)
            .unwrap();
        bev.write(b"to nobody").unwrap();
        until(&events, "the error", || !log.errors().is_empty());
        turns(&events, 5);
        let errors = log.errors();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].operation(), "connect");
        assert_eq!(
            errors[0].io_error().unwrap().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn a_run_ends_when_nothing_is_under_way_any_more() {
    on_system(|| {
        let events = system();
        let (bev, mut far) = joined(&events);
        let data = bytes(9, 300_000);
        bev.write(&data).unwrap();
        drop(bev);
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all
        });
        assert_eq!(events.run().unwrap(), Outcome::Empty);
        assert_eq!(port(&events).lanes(), 0);
        assert!(reader.join().unwrap() == data, "nothing was lost");
    });
}

#[test]
fn data_and_an_end_in_one_go_are_both_told() {
    on_system(|| {
        fault!(F19);
        let events = system();
        for round in 0..200 {
            let (bev, mut far) = joined(&events);
            let log = Log::new();
            bev.set_handler(log.take_all()).unwrap();
            bev.enable(READ).unwrap();
            let data = bytes(round, 1 + (round as usize * 997) % 70_000);
            far.write_all(&data).unwrap();
            // Not closed: data that nobody owns any more the kernel may throw away with a reset when its memory is short.
            far.shutdown(std::net::Shutdown::Write).unwrap();
            until(&events, "the end", || {
                log.events().iter().any(Told::is_event)
            });
            assert_eq!(log.events(), [Told::Eof], "{:?}", log.errors());
            assert!(log.received() == data);
        }
    });
}

#[test]
fn a_reset_is_an_error_of_the_peers() {
    on_system(|| {
        fault!(F18);
        let events = system();
        let (bev, far) = joined(&events);
        let log = Log::new();
        bev.set_handler(log.watch()).unwrap();
        bev.enable(READ).unwrap();
        turns(&events, 3);
        socket2::SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(far);
        until(&events, "the error", || {
            log.has(&Told::Error(Some(Direction::Read), Kind::Peer))
        });
        // With output that is under way and does not get through.
        let (bev, far) = joined(&events);
        let log = Log::new();
        bev.set_handler(log.watch()).unwrap();
        bev.write(&vec![0; 16 << 20]).unwrap();
        turns(&events, 20);
        socket2::SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(far);
        until(&events, "the error", || {
            log.has(&Told::Error(Some(Direction::Write), Kind::Peer))
        });
    });
}

#[test]
fn urgent_data_does_not_hide_what_is_behind_it() {
    on_system(|| {
        fault!(F37);
        let events = system();
        let (bev, mut far) = joined(&events);
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        far.write_all(b"before").unwrap();
        socket2::SockRef::from(&far).send_out_of_band(b"!").unwrap();
        far.write_all(b"behind").unwrap();
        until(&events, "all", || log.received_len() >= 12);
        assert_eq!(log.received(), b"beforebehind");
    });
}

#[test]
fn a_peer_that_does_not_read_is_felt_and_then_gets_all() {
    on_system(|| {
        fault!(F25);
        let events = system();
        let (bev, mut far) = joined(&events);
        let data = bytes(4, 12 << 20);
        bev.write(&data).unwrap();
        turns(&events, 50);
        assert!(bev.output().len() > 1 << 20, "the rest waits in the output");
        bev.finish().unwrap();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all
        });
        until(&events, "all out", || bev.output().is_empty());
        bev.free().unwrap();
        assert_eq!(events.run().unwrap(), Outcome::Empty);
        assert!(reader.join().unwrap() == data);
    });
}

#[test]
fn file_regions_and_many_pieces_leave_in_order() {
    on_system(|| {
        let events = system();
        let (bev, mut far) = joined(&events);
        let file =
            std::fs::File::open(file!().trim_start_matches("crates/bufferevent-iocp/")).unwrap();
        let text = include_bytes!("system.rs");
        let region = evbuffer::FileRegion::whole(Arc::new(file)).unwrap();
        let mut expected = Vec::new();
        for round in 0..300_u64 {
            let piece = bytes(round, 700);
            bev.output().append_bytes(piece.clone().into()).unwrap();
            expected.extend_from_slice(&piece);
            if round % 100 == 50 {
                bev.output().append_file(region.clone()).unwrap();
                expected.extend_from_slice(text);
            }
        }
        bev.finish().unwrap();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all
        });
        until(&events, "all out", || bev.output().is_empty());
        drop(bev);
        events.run().unwrap();
        assert!(reader.join().unwrap() == expected);
    });
}

/// Many echoes at once over a ring that is too small for anything.
#[cfg(target_os = "linux")]
fn crowd(options: RingOptions, name: &'static str, connections: usize, length: usize) {
    options.register(name).unwrap();
    let events = EventLoop::builder().backend(name).build().unwrap();
    crowd_on(&events, connections, length);
}

/// Bytes that a connection takes on although the loop is busy elsewhere.
const FITS: usize = 16 * 1024;

/// Many echoes at once. A loop that has much else to do finds all of a round in one turn: it looks when they are sent, if they can be.
fn crowd_on(events: &EventLoop, connections: usize, length: usize) {
    const ROUNDS: u64 = 3;
    let (_listener, address) = echo(events);
    let (tell, told) = mpsc::channel();
    let client = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..connections)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream
            })
            .collect();
        for round in 0..ROUNDS {
            for (at, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&bytes(at as u64 + round, length)).unwrap();
            }
            if length <= FITS {
                tell.send(()).unwrap();
            }
            for (at, stream) in streams.iter_mut().enumerate() {
                let mut answer = vec![0; length];
                stream.read_exact(&mut answer).unwrap();
                assert!(answer == bytes(at as u64 + round, length));
            }
            tell.send(()).unwrap();
        }
    });
    for _ in 0..ROUNDS {
        if length <= FITS {
            told.recv_timeout(PATIENCE).expect("all is sent");
        }
        until(events, "every answer", || {
            told.try_recv().is_ok() || client.is_finished()
        });
    }
    client.join().unwrap();
}

/// Has `act` called on another thread when the loop has run what was to be run, and is in its wait or about to.
fn when_it_waits(
    events: &EventLoop,
    act: impl FnOnce() + Send + 'static,
) -> thread::JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let ran = events.after(Duration::ZERO, move || tell.send(()).unwrap());
    ran.unwrap().detach();
    thread::spawn(move || {
        told.recv_timeout(PATIENCE).expect("the loop runs");
        act();
    })
}

#[test]
fn a_crowd_is_accepted_and_answered() {
    on_system(|| {
        let events = system();
        crowd_on(&events, 300, 3000);
        let (bev, _far) = joined(&events);
        bev.free().unwrap();
        until(&events, "only the listener's end", || {
            turns(&events, 1);
            port(&events).lanes() == 0
        });
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_submission_queue_loses_nothing() {
    on_system(|| {
        fault!(F90);
        let mut options = RingOptions::default();
        options.submissions = Some(2);
        crowd(options, "uring, two submissions", 100, 3000);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_overflow_of_completions_loses_nothing() {
    on_system(|| {
        fault!(F90);
        let mut options = RingOptions::default();
        options.submissions = Some(2);
        options.completions = Some(2);
        crowd(options, "uring, two completions", 100, 3000);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_ring_without_blocks_backs_off_and_goes_on() {
    on_system(|| {
        // 900 connections with a block each, where there are 16 at first and 512 at most.
        crowd(RingOptions::default(), "uring, a crowd", 900, 2500);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn sends_without_a_copy_are_the_same_bytes() {
    on_system(|| {
        let mut options = RingOptions::default();
        options.zero_copy = Some(1);
        crowd(options, "uring, no copies", 20, 200_000);
    });
}

#[test]
fn the_socket_comes_back_with_what_was_read_ahead() {
    on_system(|| {
        let events = system();
        let (bev, mut far) = joined(&events);
        bev.set_read_watermark(0, 4).unwrap();
        bev.enable(READ).unwrap();
        far.write_all(b"read and ahead").unwrap();
        until(&events, "the first", || bev.input().len() == 4);
        turns(&events, 3);
        bev.write(b"out").unwrap();
        let mut parts = bev.clone().into_transport().unwrap();
        assert!(bev.is_freed());
        let mut unread = vec![0; parts.unread.len()];
        parts.unread.remove(&mut unread);
        let mut stream = TcpStream::from(parts.stream);
        far.write_all(b", and more").unwrap();
        let mut more = vec![0; b"read and ahead, and more".len() - unread.len()];
        stream.read_exact(&mut more).unwrap();
        unread.extend_from_slice(&more);
        assert_eq!(unread, b"read and ahead, and more");
        let mut out = [0; 3];
        far.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"out");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn other_descriptors_live_on_the_same_loop() {
    struct Count(AtomicUsize);
    impl Target for Count {
        fn run(&self, _key: u64) {}
        fn expired(&self, _key: u64) {}
        fn ready(&self, _key: u64, ready: Ready) {
            if ready.contains(Ready::READABLE) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    on_system(|| {
        spec!(L1);
        let events = system();
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let registration = events
            .register(&near, Interest::BOTH, Priority(0), count.clone(), 0)
            .unwrap();
        for round in 1..=5 {
            far.write_all(b"x").unwrap();
            until(&events, "an edge", || {
                count.0.load(Ordering::SeqCst) == round
            });
        }
        turns(&events, 5);
        assert_eq!(count.0.load(Ordering::SeqCst), 5, "each change once");
        drop(registration);
    });
}

#[test]
fn timers_and_wake_ups_live_on_the_same_loop() {
    on_system(|| {
        let events = system();
        let start = Instant::now();
        let stop = events.clone();
        events
            .after(Duration::from_millis(20), move || stop.exit())
            .unwrap()
            .detach();
        assert_eq!(events.run().unwrap(), Outcome::Exit);
        assert!(start.elapsed() >= Duration::from_millis(20), "never early");
        // A wake-up that comes before the wait ends it as well as one in it.
        for _ in 0..100 {
            let stop = events.clone();
            let waker = when_it_waits(&events, move || stop.exit());
            assert_eq!(events.run_until_exit().unwrap(), Outcome::Exit);
            waker.join().unwrap();
        }
    });
}

#[test]
fn a_threadsafe_one_may_be_freed_elsewhere() {
    on_system(|| {
        fault!(F90);
        let events = system();
        let listener = TcpListener::bind(local()).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let near = listener.accept().unwrap().0;
        let bev = Builder::new(&events)
            .options(Options::THREADSAFE)
            .stream(near)
            .unwrap();
        bev.enable(READ).unwrap();
        turns(&events, 2);
        let stop = events.clone();
        let other = thread::spawn(move || {
            bev.write(b"good-bye").unwrap();
            let start = Instant::now();
            while !bev.output().is_empty() && start.elapsed() < PATIENCE {
                thread::yield_now();
            }
            bev.free().unwrap();
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            stop.exit();
            all
        });
        events.run_until_exit().unwrap();
        assert_eq!(other.join().unwrap(), b"good-bye");
    });
}

#[test]
fn a_threadsafe_one_may_be_connected_elsewhere_while_the_loop_waits() {
    on_system(|| {
        let events = system();
        let listener = TcpListener::bind(local()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        // Only if it is in vain.
        events.exit_after(PATIENCE).unwrap();
        for _ in 0..20 {
            let stop = events.clone();
            let bev = Builder::new(&events)
                .options(Options::THREADSAFE)
                .handler(on_event(move |_, event| {
                    assert!(matches!(event, Event::Connected), "{event:?}");
                    stop.exit();
                }))
                .unconnected()
                .unwrap();
            let other = when_it_waits(&events, move || bev.connect(address).unwrap());
            assert_eq!(events.run_until_exit().unwrap(), Outcome::Exit);
            other.join().unwrap();
            assert!(listener.accept().is_ok(), "it was connected to");
        }
    });
}

#[test]
fn a_listener_rests_while_it_is_disabled() {
    on_system(|| {
        let events = system();
        let (listener, address) = echo(&events);
        turns(&events, 2);
        listener.disable();
        turns(&events, 3);
        let _waits = TcpStream::connect(address).unwrap();
        turns(&events, 20);
        assert_eq!(listener.accepted(), 0);
        listener.enable();
        until(&events, "the connection", || listener.accepted() == 1);
        drop(listener);
        turns(&events, 3);
        assert!(
            TcpStream::connect(address).is_err(),
            "nobody listens any more"
        );
    });
}

#[test]
fn datagrams_and_unconnected_sockets_are_refused() {
    on_system(|| {
        let events = system();
        let datagrams = std::net::UdpSocket::bind(local()).unwrap();
        let error = Builder::new(&events).stream(datagrams).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        let listening = TcpListener::bind(local()).unwrap();
        let error = Builder::new(&events).stream(listening).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert_eq!(port(&events).lanes(), 0);
    });
}

#[test]
fn the_end_is_told_while_an_idle_loop_sleeps() {
    on_system(|| {
        let events = system();
        for _ in 0..50 {
            let (bev, far) = joined(&events);
            let stop = events.clone();
            bev.set_handler(on_event(move |_, event| {
                if matches!(event, Event::Eof) {
                    stop.exit();
                }
            }))
            .unwrap();
            bev.enable(READ).unwrap();
            let other = when_it_waits(&events, move || drop(far));
            assert_eq!(events.run().unwrap(), Outcome::Exit);
            other.join().unwrap();
        }
    });
}
