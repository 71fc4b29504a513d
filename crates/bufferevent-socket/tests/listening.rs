//! What a listener can be told: what the system is asked for, and how much of a turn accepting takes.

#![cfg(unix)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, Kind};
use bufferevent_socket::{Address, Listener, SocketExt as _};
use evreactor::{EventLoop, LoopPool};
use socket2::SockRef;

/// How long something that has to come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

fn on(backend: &str) -> EventLoop {
    EventLoop::builder().backend(backend).build().unwrap()
}

fn address(listener: &Listener) -> SocketAddr {
    match listener.local_addr().unwrap() {
        Address::Tcp(address) => address,
        other => panic!("{other}"),
    }
}

fn until(events: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        events.poll().unwrap();
    }
}

#[test]
fn what_was_asked_for_is_set_on_what_is_accepted() {
    for backend in ["mio", "polling"] {
        let events = on(backend);
        let accepted: Arc<Mutex<Vec<Bev>>> = Arc::default();
        let keep = accepted.clone();
        let listener = Listener::builder(&events)
            .nodelay(true)
            .keepalive(Duration::from_secs(77))
            .bind("127.0.0.1:0", move |bev, _| keep.lock().unwrap().push(bev))
            .unwrap();
        let _client = TcpStream::connect(address(&listener)).unwrap();
        until(&events, "accepted", || !accepted.lock().unwrap().is_empty());
        let bev = accepted.lock().unwrap().pop().unwrap();
        let stream = TcpStream::from(bev.into_transport().unwrap().stream);
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(77)
        );
    }
    // A Unix-domain socket has neither, and is accepted all the same.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let events = on("mio");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let _listener = Listener::builder(&events)
        .nodelay(true)
        .keepalive(Duration::from_secs(77))
        .defer_accept(Duration::from_secs(5))
        .bind(Address::Unix(path.clone()), move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    let _client = std::os::unix::net::UnixStream::connect(path).unwrap();
    until(&events, "accepted", || count.load(Ordering::Relaxed) == 1);
}

#[test]
fn a_turn_accepts_as_many_as_was_said_and_no_more() {
    for (limit, asked) in [(None, 64), (NonZeroUsize::new(3), 3)] {
        let events = on("mio");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let mut builder = Listener::builder(&events);
        if let Some(limit) = limit {
            builder = builder.accepts_per_turn(limit);
        }
        let listener = builder
            .bind("127.0.0.1:0", move |_, _| {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        let _clients: Vec<_> = (0..150)
            .map(|_| TcpStream::connect(address(&listener)).unwrap())
            .collect();
        let mut before = 0;
        until(&events, "all", || {
            let now = count.load(Ordering::Relaxed);
            assert!(now - before <= asked, "{} in a turn", now - before);
            before = now;
            now == 150
        });
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_says_nothing_is_not_accepted_where_that_is_deferred() {
    let events = on("mio");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let listener = Listener::builder(&events)
        .defer_accept(Duration::from_secs(30))
        .bind("127.0.0.1:0", move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    let silent = TcpStream::connect(address(&listener)).unwrap();
    let mut speaks = TcpStream::connect(address(&listener)).unwrap();
    std::io::Write::write_all(&mut speaks, b"x").unwrap();
    until(&events, "the one that speaks", || {
        count.load(Ordering::Relaxed) > 0
    });
    // It connected first, and would have come first.
    assert_eq!(count.load(Ordering::Relaxed), 1);
    drop(silent);
}

#[test]
fn ipv6_alone_is_ipv6_alone() {
    let Ok(_) = TcpListener::bind("[::1]:0") else {
        println!("no IPv6 here");
        return;
    };
    for only_v6 in [true, false] {
        let events = on("mio");
        let listener = Listener::builder(&events)
            .only_v6(only_v6)
            .bind("[::]:0", |_, _| ())
            .unwrap();
        let port = address(&listener).port();
        let v4 = TcpStream::connect(("127.0.0.1", port));
        assert_eq!(v4.is_err(), only_v6);
    }
}

#[test]
fn a_port_is_free_again_at_once_unless_that_was_not_wanted() {
    for reuse in [true, false] {
        let events = on("mio");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let listener = Listener::bind(&events, "127.0.0.1:0", move |bev: Bev, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(bev.free());
        })
        .unwrap();
        let at = address(&listener);
        let client = TcpStream::connect(at).unwrap();
        until(&events, "accepted", || count.load(Ordering::Relaxed) == 1);
        // Closed here first: this end lingers.
        drop((listener, client));
        let again = Listener::builder(&events)
            .reuse_address(reuse)
            .bind(at, |_, _| ());
        match again {
            Ok(_) => assert!(reuse),
            Err(error) => {
                assert!(!reuse, "{error}");
                assert_eq!(error.kind(), Kind::System);
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn as_many_wait_with_the_system_as_was_said() {
    /// Longer than a connection on this machine takes, and shorter than the system's first repetition of one that it dropped.
    const SOON: Duration = Duration::from_millis(500);
    for (backlog, there_is_room) in [(2, false), (16, true)] {
        let events = on("mio");
        let listener = Listener::builder(&events)
            .backlog(backlog)
            .enabled(false)
            .bind("127.0.0.1:0", |_, _| ())
            .unwrap();
        let at = address(&listener);
        // Linux lets one more in than was said.
        let _waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
        let another = TcpStream::connect_timeout(&at, SOON);
        assert_eq!(another.is_ok(), there_is_room, "{another:?}");
    }
}

#[test]
fn a_port_is_shared_where_both_say_so() {
    for (first, second, shared) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
        (false, false, false),
    ] {
        let events = on("mio");
        let builder = |reuse| Listener::builder(&events).reuse_port(reuse);
        let one = builder(first).bind("127.0.0.1:0", |_, _| ()).unwrap();
        let other = builder(second).bind(address(&one), |_, _| ());
        assert_eq!(other.is_ok(), shared, "{other:?}");
    }
}

#[test]
fn a_socket_that_listens_already_serves_several_loops() {
    let pool = LoopPool::builder(NonZeroUsize::new(3).unwrap())
        .start()
        .unwrap();
    let [first, others @ ..] = pool.handles() else {
        unreachable!("a pool has loops")
    };
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = given.local_addr().unwrap();
    let listener = Listener::builder(first)
        .listen_each(others, given, |index, bev: Bev, _| {
            bev.write(&[u8::try_from(index).unwrap()])?;
            bev.free_when_written()
        })
        .unwrap();
    let mut served: Vec<u8> = (0..6)
        .map(|_| {
            let mut client = TcpStream::connect(at).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = [0];
            std::io::Read::read_exact(&mut client, &mut answer).unwrap();
            answer[0]
        })
        .collect();
    served.sort_unstable();
    assert_eq!(served, [0, 0, 1, 1, 2, 2]);
    drop(listener);
    pool.shut_down(PATIENCE).unwrap();
}

#[test]
fn what_does_not_listen_is_refused() {
    let events = on("mio");
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = Listener::builder(&events).listen(datagrams, |_, _| ());
    assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
    #[cfg(target_os = "linux")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refused = Listener::builder(&events).listen_each(&[], connected, |_, _, _| ());
        assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
    }
}
