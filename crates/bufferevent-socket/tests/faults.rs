//! What a socket has to survive, on both backends.

#![cfg(unix)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferevent_core::{Direction, Directions, Kind, READ, on_read};
use bufferevent_socket::{Address, Builder, Calls, Listener};
use bufferevent_testkit::{Log, Told, fault};
use common::{Family, Net, everywhere, on_backends, reset};
use evreactor::EventLoop;
use socket2::Socket;

const READ_RESET: Told = Told::Error(Some(Direction::Read), Kind::Peer);
const WRITE_RESET: Told = Told::Error(Some(Direction::Write), Kind::Peer);

#[test]
fn a_reset_while_reading_comes_after_nothing_and_once() {
    on_backends(Family::Tcp, |net| {
        fault!(F18);
        let (bev, far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        net.settle();
        reset(far);
        net.until("the reset", || log.has(&READ_RESET));
        net.settle();
        assert_eq!(log.events(), [READ_RESET]);
        let cause = log.errors()[0].io_error().unwrap().kind();
        assert_eq!(cause, std::io::ErrorKind::ConnectionReset);
        let calls = Calls::of_thread();
        for _ in 0..50 {
            net.turn();
        }
        assert_eq!(Calls::of_thread(), calls, "nothing spins on a dead socket");
    });
}

#[test]
fn a_reset_while_output_is_queued_is_told_and_counts_the_unsent() {
    on_backends(Family::Tcp, |net| {
        fault!(F18);
        for reads in [false, true] {
            let (bev, far) = net.bev_and_plain();
            let log = Log::new();
            bev.set_handler(log.watch()).unwrap();
            bev.write(&vec![1; 32 << 20]).unwrap();
            if reads {
                bev.enable(READ).unwrap();
            }
            net.settle();
            assert!(bev.output().len() > 1 << 20, "the peer reads nothing");
            reset(far);
            net.until("the reset", || log.has(&WRITE_RESET));
            net.settle();
            let mut events = log.events();
            events.retain(|told| *told != READ_RESET);
            // The first call that meets it gets the error, a later read an end: each at most once.
            events.retain(|told| *told != Told::Eof);
            assert_eq!(events, [WRITE_RESET]);
            assert!(
                bev.free().unwrap() > 1 << 20,
                "what was never sent is reported"
            );
        }
    });
}

#[test]
fn half_closed_on_either_side_the_other_direction_finishes() {
    everywhere(|net| {
        fault!(F19);
        // The peer half-closes: its last bytes, its end, and then a long answer.
        let (bev, mut far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        far.write_all(b"question").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        net.until("the end", || log.has(&Told::Eof));
        assert_eq!(log.received(), b"question");
        bev.write(&[7; 300_000]).unwrap();
        bev.finish().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all
        });
        net.until("the word that all is out", || log.has(&Told::Written));
        assert!(reader.join().unwrap() == vec![7; 300_000]);
        // We half-close: the peer reads to the end and answers at length.
        let (bev, mut far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        bev.write(b"question").unwrap();
        bev.finish().unwrap();
        let answerer = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            far.write_all(&[8; 300_000]).unwrap();
            all
        });
        net.until("the answer and its end", || log.has(&Told::Eof));
        assert_eq!(answerer.join().unwrap(), b"question");
        assert!(log.received() == vec![8; 300_000]);
    });
}

#[test]
fn one_byte_at_a_time_through_the_smallest_buffers() {
    everywhere(|net| {
        fault!(F24);
        let (bev, mut far) = net.bev_and_plain();
        bev.set_max_single_read(1).unwrap();
        bev.set_max_single_write(1).unwrap();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        let all: Vec<u8> = (0..=255).collect();
        bev.write(&all).unwrap();
        for byte in &all {
            far.write_all(&[*byte]).unwrap();
            net.turn();
        }
        net.until("all of it", || {
            log.received_len() == 256 && bev.output().is_empty()
        });
        assert_eq!(log.received(), all);
        let mut sent = vec![0; 256];
        far.read_exact(&mut sent).unwrap();
        assert_eq!(sent, all);
    });
}

#[test]
fn five_seconds_of_a_closed_window_on_a_real_clock_cost_nothing() {
    let threads = ["mio", "polling"].map(|backend| {
        std::thread::spawn(move || {
            fault!(F25);
            let events = EventLoop::builder().backend(backend).build().unwrap();
            let net = Net::new(Family::Tcp, backend);
            let (near, mut far) = net.plain_pair();
            let bev = Builder::new(&events).stream(near).unwrap();
            bev.write(&vec![1; 32 << 20]).unwrap();
            events.poll().unwrap();
            let (calls, turns) = (Calls::of_thread(), events.stats().turns);
            let cpu = cpu_time();
            events.exit_after(Duration::from_secs(5)).unwrap();
            events.run().unwrap();
            let sends = Calls::of_thread().sends - calls.sends;
            assert!(sends < 50, "{sends} sends against a closed window");
            assert!(events.stats().turns - turns < 100);
            let spent = cpu_time() - cpu;
            assert!(
                spent < Duration::from_millis(50),
                "{spent:?} is more than 1 %"
            );
            let left = bev.output().len();
            assert!(left > 1 << 20);
            // And it goes on when the window opens.
            let reader = std::thread::spawn(move || {
                let mut all = vec![0; 32 << 20];
                far.read_exact(&mut all).unwrap();
            });
            let start = Instant::now();
            while !bev.output().is_empty() && start.elapsed() < Duration::from_secs(20) {
                events.poll().unwrap();
            }
            reader.join().unwrap();
            assert_eq!(bev.output().len(), 0);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.cast_unsigned(),
        time.tv_nsec.cast_unsigned() as u32,
    )
}

#[test]
fn a_hang_up_without_data_is_an_end_and_no_spin() {
    everywhere(|net| {
        fault!(F29);
        // Both directions are shut down: the system reports a hang-up, not data.
        let (bev, far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.finish().unwrap();
        net.settle();
        bev.enable(READ).unwrap();
        far.shutdown(Shutdown::Both).unwrap();
        drop(far);
        net.until("the end", || log.has(&Told::Eof));
        net.settle();
        assert_eq!(log.events(), [Told::Written, Told::Eof]);
        let events = net.events.stats().events;
        for _ in 0..50 {
            net.turn();
        }
        assert!(net.events.stats().events - events < 5, "it spins");
        // Nobody reads: the hang-up costs nothing either.
        let (bev, far) = net.bev_and_plain();
        bev.disable(Directions::BOTH).unwrap();
        drop(far);
        net.settle();
        let events = net.events.stats().events;
        for _ in 0..50 {
            net.turn();
        }
        assert!(net.events.stats().events - events < 5, "it spins");
    });
}

#[test]
fn a_peer_that_speaks_first_is_heard_after_the_connection() {
    everywhere(|net| {
        fault!(F34);
        let (listening, address) = net.plain_listener();
        let log = Log::new();
        let bev = Builder::new(&net.events)
            .handler(log.take_all())
            .connect(&address)
            .unwrap();
        bev.enable(READ).unwrap();
        let (mut far, _) = listening.accept().unwrap();
        far.write_all(b"banner").unwrap();
        net.until("the banner", || log.received() == b"banner");
        assert_eq!(log.told()[0], Told::Connected);
        assert_eq!(log.events(), [Told::Connected]);
    });
}

#[test]
fn an_end_or_a_reset_before_the_connection_is_told_is_told_after_it() {
    everywhere(|net| {
        fault!(F35);
        for resets in [false, true] {
            let (listening, address) = net.plain_listener();
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.take_all())
                .connect(&address)
                .unwrap();
            bev.enable(READ).unwrap();
            let (far, _) = listening.accept().unwrap();
            if resets {
                reset(far);
            } else {
                drop(far);
            }
            net.until("an end", || {
                log.events().iter().any(|told| *told != Told::Connected)
            });
            net.settle();
            let events = log.events();
            let tcp_reset = resets && net.family == Family::Tcp;
            if tcp_reset && events.len() == 1 {
                // It was gone before it was known to stand.
                assert_eq!(events, [Told::Error(None, Kind::Peer)]);
            } else {
                assert_eq!(events[0], Told::Connected, "{events:?}");
                let end = if tcp_reset { READ_RESET } else { Told::Eof };
                assert_eq!(events[1..], [end]);
            }
            drop(bev);
        }
    });
}

#[test]
fn unix_paths_that_are_gone_stale_or_too_long() {
    on_backends(Family::Unix, |net| {
        fault!(F36);
        let log = Log::new();
        let gone = Address::Unix(net.folder().join("gone"));
        let _bev = Builder::new(&net.events)
            .handler(log.watch())
            .connect(&gone)
            .unwrap();
        net.until("an error", || !log.events().is_empty());
        assert!(matches!(log.events()[..], [Told::Error(None, _)]));
        let cause = log.errors()[0].io_error().unwrap().kind();
        assert_eq!(cause, std::io::ErrorKind::NotFound);
        // Stale: refused to connect to, in use to bind, and taken over by who asks for that.
        let (listening, stale) = net.plain_listener();
        drop(listening);
        assert!(Listener::bind(&net.events, &stale, |_, _| ()).is_err());
        let listener = Listener::builder(&net.events)
            .replace_stale(true)
            .bind(&stale, |_, _| ())
            .unwrap();
        assert_eq!(listener.local_addr().unwrap(), stale);
        // One that is listened on is not taken over.
        let busy = Listener::builder(&net.events)
            .replace_stale(true)
            .bind(&stale, |_, _| ());
        assert!(busy.is_err());
        let Address::Unix(path) = &stale else {
            panic!("{stale}")
        };
        drop(listener);
        assert!(!path.exists(), "it goes with its listener");
        for length in [200, 5000] {
            let long = Address::Unix(net.folder().join("x".repeat(length)));
            let refused = Builder::new(&net.events).connect(&long).unwrap_err();
            assert_eq!(refused.kind(), Kind::Misuse);
            let refused = Listener::bind(&net.events, &long, |_, _| ()).unwrap_err();
            assert_eq!(refused.kind(), Kind::Misuse);
        }
        // The longest that fits is fine.
        let base = net.folder();
        let room = 107 - base.as_os_str().len() - 1;
        let longest = Address::Unix(base.join("y".repeat(room)));
        let accepted = Arc::new(Mutex::new(0));
        let count = accepted.clone();
        let _listener = Listener::bind(&net.events, &longest, move |_, _| {
            *count.lock().unwrap() += 1
        })
        .unwrap();
        let log = Log::new();
        let _bev = Builder::new(&net.events)
            .handler(log.watch())
            .connect(&longest)
            .unwrap();
        net.until("both", || {
            log.has(&Told::Connected) && *accepted.lock().unwrap() == 1
        });
    });
}

/// Has several things arrive in one readiness event: the bufferevent is registered, and the loop looks only afterwards.
fn in_one_event(net: &Net, arrive: impl FnOnce(Socket), expected: &[u8]) -> Log {
    let (bev, far) = net.bev_and_plain();
    let log = Log::new();
    bev.set_handler(log.take_all()).unwrap();
    bev.enable(READ).unwrap();
    net.settle();
    arrive(far);
    net.until("all of it", || {
        log.received_len() >= expected.len() && !log.events().is_empty()
    });
    net.settle();
    assert_eq!(log.received(), expected);
    log
}

#[test]
fn nothing_is_left_behind_by_what_comes_in_one_event() {
    everywhere(|net| {
        fault!(F37);
        // Data and the end, small and large.
        for count in [1, 3000, 60_000] {
            let data = vec![5; count];
            let send = |mut far: Socket| far.write_all(&data).unwrap();
            let log = in_one_event(net, send, &data);
            assert_eq!(log.events(), [Told::Eof]);
        }
    });
    on_backends(Family::Tcp, |net| {
        fault!(F37);
        // Data and a reset: the system throws the data away, so the reset alone has to come.
        let (bev, mut far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        net.settle();
        far.write_all(b"lost, perhaps").unwrap();
        reset(far);
        net.until("the reset", || log.has(&READ_RESET));
        net.settle();
        assert_eq!(log.events(), [READ_RESET]);
        // Data, an urgent byte, data: a read stops before the urgent byte, and there is no further event.
        let (bev, far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        net.settle();
        let mut far = far;
        far.write_all(b"before ").unwrap();
        far.send_out_of_band(b"!").unwrap();
        far.write_all(b"after").unwrap();
        net.until("both", || log.received_len() >= 12);
        net.settle();
        assert_eq!(
            log.received(),
            b"before after",
            "the urgent byte itself is out of band"
        );
        // And with the end behind it.
        let send = |mut far: Socket| {
            far.write_all(b"before ").unwrap();
            far.send_out_of_band(b"!").unwrap();
            far.write_all(b"after").unwrap();
        };
        let log = in_one_event(net, send, b"before after");
        assert_eq!(log.events(), [Told::Eof]);
    });
}

#[test]
fn a_storm_of_would_block_costs_nothing() {
    everywhere(|net| {
        fault!(F22);
        let (bev, mut far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        net.settle();
        let before = Calls::of_thread();
        for _ in 0..100 {
            far.write_all(b"x").unwrap();
            net.settle();
            bev.enable(READ).unwrap();
            bev.disable(READ).unwrap();
            bev.enable(READ).unwrap();
        }
        net.until("all", || log.received_len() == 100);
        let receives = Calls::of_thread().receives - before.receives;
        assert!(receives <= 300, "{receives} receives for 100 bytes");
    });
}

#[test]
fn the_library_forgets_nothing_when_callbacks_free_everything() {
    everywhere(|net| {
        fault!(F83);
        // The listener, the accepted and the connecting one are all freed inside the accepted one's read callback.
        let client: Arc<Mutex<Option<bufferevent_core::Bev>>> = Arc::default();
        let listener: Arc<Mutex<Option<Listener>>> = Arc::default();
        let (held_client, held_listener) = (client.clone(), listener.clone());
        let done = Arc::new(Mutex::new(false));
        let seen = done.clone();
        let made = Listener::bind(&net.events, net.any_address(), move |bev, _| {
            let (client, listener) = (held_client.clone(), held_listener.clone());
            let seen = seen.clone();
            bev.set_handler(on_read(move |bev| {
                drop(listener.lock().unwrap().take());
                let client = client.lock().unwrap().take();
                client.unwrap().free().unwrap();
                bev.free().unwrap();
                *seen.lock().unwrap() = true;
            }))?;
            bev.enable(READ)
        })
        .unwrap();
        let address = made.local_addr().unwrap();
        *listener.lock().unwrap() = Some(made);
        let bev = Builder::new(&net.events).connect(&address).unwrap();
        bev.write(b"go").unwrap();
        *client.lock().unwrap() = Some(bev.clone());
        net.until("the end of all", || *done.lock().unwrap());
        net.settle();
        assert!(bev.is_freed());
        assert_eq!(
            net.events.run().unwrap(),
            evreactor::Outcome::Empty,
            "nothing is left"
        );
    });
}

#[test]
fn a_loop_that_goes_closes_the_connections_that_nobody_holds() {
    everywhere(|net| {
        fault!(F83);
        let events = EventLoop::builder()
            .backend(net.events.backend())
            .build()
            .unwrap();
        let (near, mut far) = net.plain_pair();
        let bev = Builder::new(&events).stream(near).unwrap();
        bev.set_handler(on_read(|_| {})).unwrap();
        bev.enable(READ).unwrap();
        drop(bev);
        events.poll().unwrap();
        drop(events);
        far.set_nonblocking(true).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 0, "it leaks its descriptor");
    });
}

#[test]
fn a_loop_that_is_driven_from_a_callback_of_another_loses_no_readiness() {
    everywhere(|net| {
        fault!(F84);
        let inner = EventLoop::builder()
            .backend(net.events.backend())
            .build()
            .unwrap();
        let (near, mut far) = net.plain_pair();
        let log = Log::new();
        let bev = Builder::new(&inner)
            .handler(log.take_all())
            .stream(near)
            .unwrap();
        bev.enable(READ).unwrap();
        inner.poll().unwrap();
        far.write_all(b"came while another ran").unwrap();
        let inner = std::rc::Rc::new(inner);
        let driven = inner.clone();
        let (outer, mut outer_far) = net.bev_and_plain();
        outer
            .set_local_handler(on_read(move |bev| {
                bev.input().drain(usize::MAX).unwrap();
                for _ in 0..3 {
                    driven.poll().unwrap();
                }
            }))
            .unwrap();
        outer.enable(READ).unwrap();
        outer_far.write_all(b"x").unwrap();
        net.until("the outer one", || outer.stats().read == 1);
        net.settle();
        inner.poll().unwrap();
        assert_eq!(log.received(), b"came while another ran");
        outer.free().unwrap();
    });
}
