//! What a socket alone shows: how it is made, connects, moves, and is listened for.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use bufferevent_core::{Bev, Deadline, Direction, Kind, Options, READ, Rate, RateGroup, WRITE};
use bufferevent_socket::{Address, Builder, Calls, Listener, SocketExt as _};
use bufferevent_testkit::{Log, Through, Told, spec};
use common::{Family, Net, everywhere, on_backends, raw};
use evreactor::{EventLoop, Priority};
use socket2::{Domain, Socket, Type};

#[test]
fn made_from_a_connected_socket_or_from_none() {
    everywhere(|net| {
        spec!(S1);
        let (near, mut far) = net.plain_pair();
        #[cfg(unix)] // Elsewhere it cannot be asked.
        assert!(!near.nonblocking().unwrap());
        let raw = raw(&near);
        #[cfg(unix)]
        let probe = near.try_clone().unwrap();
        let bev = Builder::new(&net.events).stream(near).unwrap();
        #[cfg(unix)]
        assert!(probe.nonblocking().unwrap(), "made so by the library");
        assert_eq!(bev.fd(), Some(raw));
        bev.write(b"out").unwrap();
        net.settle();
        let mut bytes = [0; 3];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"out");
        // From none, set later: nothing moves until then.
        let bev = Builder::new(&net.events).unconnected().unwrap();
        assert_eq!(bev.fd(), None);
        bev.enable(READ).unwrap();
        bev.write(b"early").unwrap();
        net.settle();
        assert_eq!(bev.output().len(), 5);
        let (near, mut far) = net.plain_pair();
        bev.set_stream(near).unwrap();
        far.write_all(b"in").unwrap();
        net.until("both", || bev.input().len() == 2 && bev.output().is_empty());
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"early");
        // What carries no stream is refused, typed.
        let domain = if net.family == Family::Tcp {
            Domain::IPV4
        } else {
            Domain::UNIX
        };
        let datagrams = Socket::new(domain, Type::DGRAM, None).unwrap();
        let refused = Builder::new(&net.events).stream(datagrams).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unsupported);
        // A system that can be asked whether a socket listens.
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        {
            let (listening, _) = net.plain_listener();
            let refused = Builder::new(&net.events).stream(listening).unwrap_err();
            assert_eq!(refused.kind(), Kind::Unsupported);
        }
        let refused = bev
            .set_stream(UdpSocket::bind("127.0.0.1:0").unwrap())
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Unsupported);
        assert!(bev.fd().is_some(), "nothing was changed");
    });
}

#[test]
fn a_connection_is_told_once_and_not_from_inside() {
    everywhere(|net| {
        spec!(S2, S8);
        let (_listener, address) = net.echo();
        let log = Log::new();
        let bev = Builder::new(&net.events)
            .handler(log.take_all())
            .connect(&address)
            .unwrap();
        bev.enable(READ).unwrap();
        bev.write(b"before it stands").unwrap();
        assert_eq!(log.told(), [], "never from inside connect");
        net.until("the echo", || log.received() == b"before it stands");
        assert_eq!(log.events(), [Told::Connected], "once");
        assert_eq!(log.told()[0], Told::Connected, "first");
        assert_eq!(bev.connect(&address).unwrap_err().kind(), Kind::Misuse);
        net.settle();
        assert_eq!(log.events(), [Told::Connected]);
        assert_eq!(bev.peer_addr().unwrap(), address);
    });
}

#[test]
fn a_failed_connection_is_told_once_with_its_cause() {
    everywhere(|net| {
        spec!(S2, C11);
        bufferevent_testkit::fault!(F26);
        for early in [false, true] {
            let (listening, address) = net.plain_listener();
            drop(listening);
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.watch())
                .connect(&address)
                .unwrap();
            if early {
                bev.enable(READ).unwrap();
                bev.write(b"early").unwrap();
            }
            assert_eq!(log.told(), []);
            net.until("the refusal", || !log.events().is_empty());
            net.settle();
            assert_eq!(
                log.told(),
                [Told::Error(None, Kind::Peer)],
                "both directions, once"
            );
            let error = log.errors().remove(0);
            assert_eq!((error.layer(), error.operation()), ("socket", "connect"));
            let cause = error.io_error().unwrap().kind();
            assert_eq!(cause, std::io::ErrorKind::ConnectionRefused);
            assert_eq!(bev.write(b"x").unwrap_err().kind(), Kind::Ended);
        }
    });
}

#[test]
fn connect_uses_a_socket_that_is_set() {
    on_backends(Family::Tcp, |net| {
        spec!(S2);
        let (listening, address) = net.plain_listener();
        let own = net.plain_socket();
        own.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let local = own.local_addr().unwrap().as_socket().unwrap();
        let log = Log::new();
        let bev = Builder::new(&net.events)
            .handler(log.watch())
            .unconnected()
            .unwrap();
        bev.set_stream(own).unwrap();
        bev.connect(&address).unwrap();
        net.until("the connection", || log.has(&Told::Connected));
        assert_eq!(bev.local_addr().unwrap(), Address::Tcp(local));
        let (_, peer) = listening.accept().unwrap();
        assert_eq!(peer.as_socket(), Some(local));
    });
}

/// Connections to a listener that accepts nobody, until one stays under way: the system's queue is full then.
fn under_way(net: &Net, address: &Address) -> (Vec<Socket>, Socket) {
    let mut queued = Vec::new();
    loop {
        let socket = net.plain_socket();
        socket.set_nonblocking(true).unwrap();
        // In progress, or there already.
        let _ = socket.connect(&Net::sockaddr(address));
        if socket.peer_addr().is_err() {
            return (queued, socket);
        }
        queued.push(socket);
    }
}

#[test]
fn who_connects_by_hand_hears_of_it_only_if_asked() {
    on_backends(Family::Tcp, |net| {
        spec!(S3);
        for asked in [false, true] {
            let (listening, address) = net.plain_listener();
            let (queued, socket) = under_way(net, &address);
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.watch())
                .stream(socket)
                .unwrap();
            if asked {
                bev.tell_connected().unwrap();
            }
            bev.write(b"sent after").unwrap();
            net.settle();
            assert_eq!(log.told(), [], "it is under way");
            // Room in the queue: the system completes it by itself at its next attempt.
            for _ in &queued {
                drop(listening.accept().unwrap());
            }
            net.until("its completion", || {
                log.told().len() == 1 + usize::from(asked)
            });
            net.settle();
            if asked {
                assert_eq!(log.told(), [Told::Connected, Told::Write(0)]);
            } else {
                assert_eq!(log.told(), [Told::Write(0)], "one write callback");
            }
            let (mut far, _) = listening.accept().unwrap();
            let mut bytes = [0; 10];
            far.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"sent after");
        }
    });
}

#[test]
fn who_has_connected_by_hand_hears_of_it_only_if_asked() {
    everywhere(|net| {
        spec!(S3);
        for asked in [false, true] {
            // A connection that stood before the bufferevent was made: a Unix-domain one is never under way.
            let (near, mut far) = net.plain_pair();
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.watch())
                .stream(near)
                .unwrap();
            bev.enable(READ).unwrap();
            if asked {
                bev.tell_connected().unwrap();
                assert_eq!(log.told(), [], "not from inside");
                net.settle();
                assert_eq!(log.news(), [Told::Connected]);
            }
            bev.enable(WRITE).unwrap();
            net.settle();
            assert_eq!(log.news(), [Told::Write(0)], "the one write callback");
            bev.write(b"out").unwrap();
            far.write_all(b"in").unwrap();
            net.until("both", || {
                log.has(&Told::Read(2)) && log.has(&Told::Write(0))
            });
            net.settle();
            assert_eq!(log.events(), []);
        }
    });
}

#[test]
fn the_descriptor_can_be_set_replaced_and_moved() {
    everywhere(|net| {
        spec!(S5);
        let (bev, far) = net.bev_and_plain();
        let top = bev.over(Options::EMPTY, Through::new()).unwrap();
        let first = top.fd().unwrap();
        let (near, mut other) = net.plain_pair();
        let second = raw(&near);
        top.set_stream(near).unwrap();
        assert_eq!(
            (top.fd(), bev.fd()),
            (Some(second), Some(second)),
            "through the layer"
        );
        assert_ne!(first, second);
        let mut none = [0; 1];
        let mut far = far;
        assert_eq!(
            far.read(&mut none).unwrap(),
            0,
            "the one before was the library's: closed"
        );
        top.enable(READ).unwrap();
        other.write_all(b"in").unwrap();
        net.until("the bytes", || top.input().len() == 2);
        top.set_priority(Priority(0)).unwrap();
        assert_eq!((top.priority(), bev.priority()), (Priority(0), Priority(0)));
        // To another loop, with everything.
        let (bev, mut far) = net.bev_and_plain();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.set_read_watermark(0, 77).unwrap();
        bev.enable(READ).unwrap();
        let next = EventLoop::builder()
            .backend(net.events.backend())
            .build()
            .unwrap();
        let rate = Rate::new(1000, 5000, std::time::Duration::from_secs(3600)).unwrap();
        let group = RateGroup::new(&net.events);
        bev.set_rate_limit(Direction::Read, Some(rate)).unwrap();
        bev.charge_rate_limit(Direction::Read, 1700).unwrap();
        bev.set_rate_limit(Direction::Write, Some(rate)).unwrap();
        bev.charge_rate_limit(Direction::Write, -250).unwrap();
        bev.join_rate_group(&group).unwrap();
        bev.set_max_single_read(4096).unwrap();
        let minute = Some(std::time::Duration::from_secs(60));
        bev.set_deadline(Deadline::HalfClosed, minute).unwrap();
        bev.set_deadline(Deadline::Read, minute).unwrap();
        let moved = bev.move_to_loop(&next).unwrap();
        assert!(bev.is_freed());
        for (direction, level) in [(Direction::Read, -700), (Direction::Write, 1250)] {
            assert_eq!(moved.rate_limit(direction), Some(rate));
            assert_eq!(moved.rate_level(direction), Some(level), "{direction:?}");
        }
        assert_eq!(moved.rate_group(), Some(group.clone()));
        assert_eq!(group.members(), 1, "one went, one came");
        assert_eq!(moved.max_single_read(), 4096);
        let deadlines =
            [Deadline::HalfClosed, Deadline::Read, Deadline::Write].map(|one| moved.deadline(one));
        assert_eq!(deadlines, [minute, minute, None]);
        moved.set_rate_limit(Direction::Read, None).unwrap();
        assert_eq!(moved.watermark(Direction::Read).high(), 77);
        far.write_all(b"there").unwrap();
        let start = std::time::Instant::now();
        while log.received() != b"there" {
            next.poll().unwrap();
            assert!(start.elapsed().as_secs() < 20);
        }
    });
}

#[test]
fn many_segments_leave_by_one_call() {
    everywhere(|net| {
        spec!(S6);
        let (bev, mut far) = net.bev_and_plain();
        let mut expected = Vec::new();
        bev.disable(WRITE).unwrap();
        for n in 0..50_u8 {
            let segment = vec![n; 600];
            expected.extend_from_slice(&segment);
            bev.output().append_bytes(segment.into()).unwrap();
        }
        let before = Calls::of_thread().sends;
        bev.enable(WRITE).unwrap();
        net.until("all out", || bev.output().is_empty());
        assert_eq!(Calls::of_thread().sends - before, 1);
        let mut bytes = vec![0; expected.len()];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
    });
}

#[test]
fn a_fast_peer_gets_its_share_of_a_turn_and_no_more() {
    everywhere(|net| {
        spec!(S6);
        let (fast, mut fast_peer) = net.bev_and_plain();
        let (slow, mut slow_peer) = net.bev_and_plain();
        let log = Log::new();
        fast.set_handler(log.take_all()).unwrap();
        fast.set_max_single_read(1000).unwrap();
        assert_eq!(fast.max_single_read(), 1000);
        fast_peer.write_all(&[1; 50_000]).unwrap();
        slow_peer.write_all(&[2; 10]).unwrap();
        let before = Calls::of_thread().receives;
        fast.enable(READ).unwrap();
        slow.enable(READ).unwrap();
        let mut turns = 0;
        let mut last = 0;
        while log.received_len() < 50_000 {
            net.turn();
            turns += 1;
            let now = log.received_len();
            // Its readiness and its own next turn may fall together.
            assert!(now - last <= 2000, "{} bytes in one turn", now - last);
            last = now;
            assert!(turns < 10_000, "stuck at {now}");
        }
        assert_eq!(slow.input().len(), 10);
        let calls = Calls::of_thread().receives - before;
        assert!(calls <= 120, "{calls} receives for 50 shares");
        // Writing likewise.
        let (bev, _far) = net.bev_and_plain();
        bev.set_max_single_write(1000).unwrap();
        bev.disable(WRITE).unwrap();
        for _ in 0..20 {
            bev.output().append_bytes(vec![3; 500].into()).unwrap();
        }
        bev.enable(WRITE).unwrap();
        assert!(bev.output().len() >= 9000, "{} left", bev.output().len());
        net.until("the rest", || bev.output().is_empty());
    });
}

#[test]
fn a_listener_accepts_pauses_and_reports() {
    everywhere(|net| {
        spec!(S7, S8);
        let accepted: Arc<Mutex<Vec<Bev>>> = Arc::default();
        let keep = accepted.clone();
        let address = net.any_address();
        let listener = Listener::builder(&net.events)
            .options(Options::DEFER_CALLBACKS)
            .bind(&address, move |bev, _peer| keep.lock().unwrap().push(bev))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let socket = net.plain_socket();
            socket.connect(&Net::sockaddr(&address)).unwrap();
            socket
        };
        let count = || accepted.lock().unwrap().len();
        let mut one = connect();
        net.until("one", || count() == 1);
        assert!(accepted.lock().unwrap()[0].has_option(Options::DEFER_CALLBACKS));
        one.write_all(b"x").unwrap();
        let bev = accepted.lock().unwrap()[0].clone();
        bev.enable(READ).unwrap();
        net.until("its byte", || bev.input().len() == 1);
        listener.disable();
        let _two = connect();
        net.settle();
        assert_eq!(count(), 1, "disabled");
        listener.enable();
        net.until("the one that waited", || count() == 2);
        assert_eq!(listener.accepted(), 2);
        let in_use = Listener::bind(&net.events, &address, |_, _| ()).unwrap_err();
        assert_eq!(in_use.kind(), Kind::System);
        // Many at once: all of them, over several turns.
        let many: Vec<Socket> = (0..100).map(|_| connect()).collect();
        net.until("all", || count() == 102);
        drop(many);
        drop(listener);
        assert!(
            net.plain_socket()
                .connect(&Net::sockaddr(&address))
                .is_err()
        );
    });
}

#[test]
fn a_borrowed_socket_outlives_its_bufferevent() {
    everywhere(|net| {
        spec!(O1);
        for closes in [false, true] {
            let (near, mut far) = net.plain_pair();
            let options = if closes {
                Options::CLOSE_ON_FREE
            } else {
                Options::EMPTY
            };
            let raw = raw(&near);
            // SAFETY: `near` is open, and stays so until the bufferevent is freed below: it is forgotten only where the
            // bufferevent closes it.
            #[allow(unsafe_code)]
            let bev =
                unsafe { Builder::new(&net.events).options(options).borrow_raw(raw) }.unwrap();
            bev.write(b"x").unwrap();
            net.settle();
            bev.free().unwrap();
            net.settle();
            let mut byte = [0; 1];
            far.read_exact(&mut byte).unwrap();
            if closes {
                std::mem::forget(near);
                assert_eq!(far.read(&mut byte).unwrap(), 0, "closed");
            } else {
                let mut near = near;
                near.write_all(b"y").unwrap();
                far.read_exact(&mut byte).unwrap();
                assert_eq!(&byte, b"y", "unharmed");
            }
        }
        // One that was given by value is closed, or handed back.
        let (bev, mut far) = net.bev_and_plain();
        far.write_all(b"unread").unwrap();
        bev.enable(READ).unwrap();
        net.until("the bytes", || bev.input().len() == 6);
        bev.disable(WRITE).unwrap();
        bev.write(b"unsent").unwrap();
        let parts = bev.clone().into_transport().unwrap();
        assert!(bev.is_freed());
        assert_eq!((parts.unread.len(), parts.unsent.len()), (6, 6));
        let stream = parts.stream;
        let mut near = Socket::from(stream);
        near.write_all(b"z").unwrap();
        let mut byte = [0; 1];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"z");
        let (bev, mut far) = net.bev_and_plain();
        bev.free().unwrap();
        net.settle();
        assert_eq!(
            far.read(&mut byte).unwrap(),
            0,
            "closed without being asked to"
        );
    });
}

#[test]
fn an_idle_accepted_connection_holds_no_buffer() {
    everywhere(|net| {
        spec!(B6);
        let (bev, mut far) = net.bev_and_plain();
        bev.enable(READ).unwrap();
        far.write_all(&[0; 60_000]).unwrap();
        net.until("the bytes", || bev.input().len() == 60_000);
        bev.input().drain(usize::MAX).unwrap();
        bev.write(&[0; 1000]).unwrap();
        net.settle();
        assert_eq!((bev.stats().input, bev.stats().output), (0, 0));
        let held = bev.replace_handler(None);
        drop(held);
        // What it holds can be asked of the buffers when the connection is taken apart.
        let parts = bev.into_transport().unwrap();
        assert_eq!((parts.unread.memory(), parts.unsent.memory()), (0, 0));
    });
}

#[test]
fn an_address_in_numbers_is_an_address_and_a_name_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let net = Net::new(Family::Tcp, evreactor::backend_names()[0]);
    let text = listener.local_addr().unwrap().to_string();
    let bev = Builder::new(&net.events).connect(&*text).unwrap();
    assert_eq!(bev.peer_addr().unwrap().to_string(), text);
    let refused = Builder::new(&net.events)
        .connect("localhost:1")
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Misuse);
}
