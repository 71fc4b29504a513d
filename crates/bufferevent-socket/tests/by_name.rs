//! Connecting by name: addresses that stand, refuse or say nothing, a resolver that answers when the test says so, and a clock that is moved by
//! hand.

#![cfg(unix)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::resolve::race::Pace;
use bufferevent_core::resolve::{Family as Wanted, Lookup, Question, Reply, Resolve};
use bufferevent_core::{Bev, Deadline, Kind, READ, ResolveFailure};
use bufferevent_socket::{Builder, SocketExt as _};
use bufferevent_testkit::{Log, Through, Told, fault, spec};
use common::{Family, Net, on_backends};
use evreactor::EventLoop;
use evreactor_core::{Host as _, Moment};
use socket2::{Domain, Socket, Type};

/// A resolver that keeps its questions until the test answers.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<Asked>>>);

struct Asked {
    reply: Option<Reply>,
    called_off: Arc<AtomicBool>,
}

impl Resolve for Script {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        struct CallOff(Arc<AtomicBool>);
        impl Drop for CallOff {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        assert_eq!(question, reply.question());
        let called_off = Arc::new(AtomicBool::new(false));
        let guard = CallOff(called_off.clone());
        let reply = Some(reply);
        self.0.lock().unwrap().push(Asked { reply, called_off });
        Lookup::until_dropped(guard)
    }
}

impl Script {
    fn asked(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn answer(&self, family: Wanted, addresses: &[SocketAddr]) {
        let asked = self.0.lock().unwrap();
        let reply = asked.last().unwrap().reply.as_ref().unwrap();
        reply.answer(family, Ok(addresses.to_vec()));
    }

    fn fail(&self, family: Wanted, failure: ResolveFailure) {
        let asked = self.0.lock().unwrap();
        let reply = asked.last().unwrap().reply.as_ref().unwrap();
        reply.answer(family, Err(reply.question().failed(failure)));
    }

    fn is_wanted(&self) -> bool {
        let asked = self.0.lock().unwrap();
        let asked = asked.last().unwrap();
        let wanted = asked.reply.as_ref().unwrap().is_wanted();
        assert_eq!(wanted, !asked.called_off.load(Ordering::SeqCst));
        wanted
    }

    fn drop_reply(&self) {
        let reply = self.0.lock().unwrap().last_mut().unwrap().reply.take();
        drop(reply);
    }
}

/// A resolver that must not be asked.
struct Nobody;

impl Resolve for Nobody {
    fn resolve(&self, question: &Question, _: Reply) -> Lookup {
        panic!("asked for {}", question.host());
    }
}

const V6: Ipv6Addr = Ipv6Addr::LOCALHOST;

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))
}

fn v6() -> SocketAddr {
    SocketAddr::from((V6, 0))
}

fn listener_at(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

fn at_millis(net: &Net, millis: u64) {
    net.clock.set(Moment::ZERO + Duration::from_millis(millis));
    net.settle();
}

/// A port of 127.0.0.1, with a listener there, that is free on `[::1]` too.
fn port_of_both() -> (TcpListener, TcpListener) {
    for _ in 0..100 {
        let first = listener_at(v4(1));
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind((V6, port)) {
            return (first, second);
        }
    }
    panic!("no port is free on both families");
}

/// A listener whose queue is full: it answers nobody any more.
struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _queue: Vec<Socket>,
}

impl BlackHole {
    fn at(address: SocketAddr) -> Self {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = Vec::new();
        loop {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            let connected = socket.peer_addr().is_ok();
            queue.push(socket);
            if !connected {
                break;
            }
            assert!(queue.len() < 64, "the queue does not fill");
        }
        Self {
            address,
            _listener: listener,
            _queue: queue,
        }
    }

    /// How many sockets of this host still try to connect here, but for those that filled the queue.
    #[cfg(target_os = "linux")]
    fn attempts(&self) -> usize {
        const SYN_SENT: &str = "02";
        let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes(bytes.try_into().unwrap()));
        let (table, host) = match self.address {
            SocketAddr::V4(at) => ("/proc/net/tcp", word(&at.ip().octets())),
            SocketAddr::V6(at) => (
                "/proc/net/tcp6",
                at.ip().octets().chunks(4).map(word).collect(),
            ),
        };
        let here = format!("{host}:{:04X}", self.address.port());
        let table = std::fs::read_to_string(table).unwrap();
        // The system shows a socket twice if others come and go meanwhile.
        let trying: std::collections::BTreeSet<_> = table
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
                (remote == here && state == SYN_SENT).then_some(local)
            })
            .collect();
        trying.len() - 1
    }
}

fn begin(net: &Net, resolver: &impl Resolve, port: u16) -> (Bev, Log) {
    let log = Log::new();
    let bev = Builder::new(&net.events)
        .handler(log.take_all())
        .connect_hostname(resolver, Wanted::Any, "example.org", port)
        .unwrap();
    (bev, log)
}

#[test]
fn the_first_success_is_the_connection_told_once_and_not_from_inside() {
    on_backends(Family::Tcp, |net| {
        spec!(S4, S2);
        let listener = listener_at(v4(1));
        let script = Script::default();
        let (bev, log) = begin(net, &script, listener.local_addr().unwrap().port());
        bev.enable(READ).unwrap();
        bev.write(b"before there is an address").unwrap();
        assert_eq!((script.asked(), log.told()), (1, vec![]));
        net.settle();
        assert_eq!(log.told(), [], "nothing blocks, nothing is told");
        script.answer(Wanted::Any, &[v4(1)]);
        assert_eq!(log.told(), [], "an answer is told by the loop");
        net.until("connected", || log.has(&Told::Connected));
        assert!(!script.is_wanted(), "nobody waits for more");
        let (mut far, _) = listener.accept().unwrap();
        net.until("sent", || bev.output().is_empty());
        let mut bytes = [0; 26];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"before there is an address");
        far.write_all(b"answer").unwrap();
        net.until("the answer", || log.received() == b"answer");
        assert_eq!(log.events(), [Told::Connected]);
        assert!(bev.dns_error().is_none());
        assert!(bev.fd().is_some());
        // One that stands cannot be connected again, and what it is stays.
        let refused = bev.connect_hostname(&Nobody, Wanted::Any, "other", 1);
        assert_eq!(refused.unwrap_err().kind(), Kind::Misuse);
        assert!(bev.peer_addr().is_ok());
    });
}

#[test]
fn addresses_that_refuse_are_followed_by_the_next_at_once() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        fault!(F26);
        let listener = listener_at(v4(4));
        let port = listener.local_addr().unwrap().port();
        let script = Script::default();
        let (bev, log) = begin(net, &script, port);
        // Nobody listens on the others, and the clock stands still.
        script.answer(Wanted::Any, &[v6(), v4(2), v4(3), v4(4)]);
        net.until("connected", || log.has(&Told::Connected));
        assert_eq!(log.events(), [Told::Connected]);
        assert_eq!(
            bev.peer_addr().unwrap().to_string(),
            format!("127.0.0.4:{port}")
        );
        assert!(listener.accept().is_ok());
    });
}

#[test]
fn where_all_refuse_one_error_tells_and_it_is_none_of_the_dns() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        fault!(F26);
        let port = listener_at(v4(1)).local_addr().unwrap().port();
        let script = Script::default();
        let (bev, log) = begin(net, &script, port);
        bev.write(b"never sent").unwrap();
        script.answer(Wanted::Any, &[v4(5), v4(6), v4(7)]);
        net.until("an error", || !log.events().is_empty());
        at_millis(net, 60_000);
        assert_eq!(log.events(), [Told::Error(None, Kind::Peer)]);
        let error = &log.errors()[0];
        assert_eq!(error.operation(), "connect");
        assert_eq!(
            error.io_error().unwrap().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
        assert!(bev.dns_error().is_none());
        assert_eq!(bev.free().unwrap(), 10, "what was not sent is told");
    });
}

#[test]
fn a_resolvers_failure_is_an_error_that_names_it() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        fault!(F71);
        for failure in [
            ResolveFailure::BadName,
            ResolveFailure::NotFound,
            ResolveFailure::NoAddress,
            ResolveFailure::ServerFailed,
            ResolveFailure::Refused,
            ResolveFailure::Malformed,
            ResolveFailure::Busy,
            ResolveFailure::System,
        ] {
            let script = Script::default();
            let (bev, log) = begin(net, &script, 1);
            script.fail(Wanted::Any, failure);
            net.settle();
            assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
            assert_eq!(bev.dns_error().unwrap().failure(), failure);
            assert_eq!(bev.dns_error().unwrap().host(), "example.org");
            let error = &log.errors()[0];
            assert_eq!(error.resolve_error().unwrap().failure(), failure);
            assert_eq!((error.layer(), error.operation()), ("socket", "resolve"));
            assert_eq!(bev.enabled(), bufferevent_core::Directions::EMPTY);
        }
        // A resolver that loses the question has answered it.
        let script = Script::default();
        let (bev, log) = begin(net, &script, 1);
        script.drop_reply();
        net.settle();
        assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
        assert_eq!(
            bev.dns_error().unwrap().failure(),
            ResolveFailure::Cancelled
        );
    });
}

#[test]
fn a_silent_resolver_is_given_up_after_its_time() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        fault!(F72);
        let script = Script::default();
        let (bev, log) = begin(net, &script, 1);
        at_millis(net, 29_999);
        assert_eq!(log.events(), []);
        assert!(script.is_wanted());
        at_millis(net, 30_000);
        assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
        assert_eq!(bev.dns_error().unwrap().failure(), ResolveFailure::Timeout);
        assert!(!script.is_wanted(), "the question is called off");
        // What is said too late changes nothing.
        script.answer(Wanted::Any, &[v4(1)]);
        net.settle();
        assert_eq!(log.events().len(), 1);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_family_in_a_black_hole_costs_a_quarter_of_a_second() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        fault!(F27, F82);
        let (good, other) = port_of_both();
        let port = good.local_addr().unwrap().port();
        drop(other);
        let hole = BlackHole::at(SocketAddr::from((V6, port)));
        let script = Script::default();
        let (bev, log) = begin(net, &script, port);
        script.answer(Wanted::Any, &[v6(), v4(1)]);
        net.settle();
        at_millis(net, 249);
        assert_eq!((hole.attempts(), log.events()), (1, vec![]));
        at_millis(net, 250);
        net.until("connected", || log.has(&Told::Connected));
        assert_eq!(
            bev.peer_addr().unwrap().to_string(),
            format!("127.0.0.1:{port}")
        );
        assert_eq!(hole.attempts(), 0, "the loser is closed");
        at_millis(net, 60_000);
        assert_eq!(log.events(), [Told::Connected]);

        // One family answers, the other's answer never comes: 50 ms.
        let (_bev, log) = begin(net, &script, port);
        script.answer(Wanted::V4, &[v4(1)]);
        net.settle();
        at_millis(net, 60_049);
        assert_eq!(log.events(), []);
        at_millis(net, 60_050);
        net.until("connected", || log.has(&Told::Connected));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn each_attempt_and_the_whole_end_in_time() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        fault!(F27);
        let hole = BlackHole::at(v4(1));
        let port = hole.address.port();
        let script = Script::default();
        let log = Log::new();
        let pace = Pace::DEFAULT.with_attempt_timeout(Duration::from_secs(2));
        let bev = Builder::new(&net.events)
            .handler(log.take_all())
            .pace(pace)
            .nodelay(true)
            .connect_hostname(&script, Wanted::Any, "example.org", port)
            .unwrap();
        script.answer(Wanted::Any, &[v4(1)]);
        net.settle();
        at_millis(net, 1_999);
        assert_eq!((hole.attempts(), log.events()), (1, vec![]));
        at_millis(net, 2_000);
        assert_eq!(log.events(), [Told::Error(None, Kind::System)]);
        assert_eq!(
            log.errors()[0].io_error().unwrap().kind(),
            std::io::ErrorKind::TimedOut
        );
        assert_eq!(hole.attempts(), 0);
        drop(bev);

        // The user's own deadline for the whole, which names itself.
        let (bev, log) = begin(net, &script, port);
        bev.set_connect_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        script.answer(Wanted::Any, &[v4(1)]);
        net.settle();
        at_millis(net, 2_999);
        assert_eq!(log.events(), []);
        at_millis(net, 3_000);
        assert_eq!(log.events(), [Told::Timeout(Deadline::Connect)]);
        bev.free().unwrap();
        assert_eq!(hole.attempts(), 0);

        // And that for its first part, which is over with the first address.
        for answered in [true, false] {
            let (bev, log) = begin(net, &script, port);
            let second = Some(Duration::from_secs(1));
            bev.set_deadline(Deadline::Resolve, second).unwrap();
            if answered {
                script.answer(Wanted::V4, &[v4(1)]);
                script.answer(Wanted::V6, &[]);
            }
            net.settle();
            let now = (net.events.now() - Moment::ZERO).as_millis() as u64;
            at_millis(net, now + 999);
            assert_eq!(log.events(), []);
            at_millis(net, now + 1_000);
            let told = [Told::Timeout(Deadline::Resolve)];
            assert_eq!(log.events(), if answered { &[][..] } else { &told });
            bev.free().unwrap();
        }
    });
}

#[test]
fn addresses_are_not_looked_up() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        let (on_v4, on_v6) = port_of_both();
        let port = on_v4.local_addr().unwrap().port();
        for (host, listener) in [("127.0.0.1", &on_v4), ("::1", &on_v6), ("[::1]", &on_v6)] {
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.take_all())
                .connect_hostname(&Nobody, Wanted::Any, host, port)
                .unwrap();
            assert_eq!(log.told(), []);
            net.until(host, || log.has(&Told::Connected));
            let (_, from) = listener.accept().unwrap();
            assert_eq!(bev.local_addr().unwrap().to_string(), from.to_string());
        }
        // One of the wrong family is none.
        for (family, host) in [(Wanted::V6, "127.0.0.1"), (Wanted::V4, "[::1]")] {
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.take_all())
                .connect_hostname(&Nobody, family, host, port)
                .unwrap();
            net.settle();
            assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
            let failure = bev.dns_error().unwrap().failure();
            assert_eq!(failure, ResolveFailure::NoAddress);
        }
    });
}

#[test]
fn the_family_that_is_asked_for_is_the_one_that_is_tried() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        let (on_v4, on_v6) = port_of_both();
        let port = on_v4.local_addr().unwrap().port();
        for (family, listener) in [(Wanted::V4, &on_v4), (Wanted::V6, &on_v6)] {
            let script = Script::default();
            let log = Log::new();
            let bev = Builder::new(&net.events)
                .handler(log.take_all())
                .connect_hostname(&script, family, "example.org", port)
                .unwrap();
            script.answer(Wanted::Any, &[v6(), v4(1)]);
            net.until("connected", || log.has(&Told::Connected));
            let peer = listener.local_addr().unwrap();
            assert_eq!(bev.peer_addr().unwrap().to_string(), peer.to_string());
        }
    });
}

#[test]
fn a_socket_that_is_set_is_used() {
    on_backends(Family::Tcp, |net| {
        spec!(S4, S2);
        let listener = listener_at(v4(1));
        let port = listener.local_addr().unwrap().port();
        let set = |domain| Socket::new(domain, Type::STREAM, None).unwrap();
        let script = Script::default();
        let log = Log::new();
        let bev = Builder::new(&net.events)
            .handler(log.take_all())
            .unconnected()
            .unwrap();
        let socket = set(Domain::IPV4);
        socket.bind(&v4(9).into()).unwrap();
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        bev.set_stream(socket).unwrap();
        let raw = bev.fd();
        net.settle();
        log.news();
        let other = bev.connect_hostname(&Nobody, Wanted::V6, "example.org", port);
        assert_eq!(other.unwrap_err().kind(), Kind::Misuse);
        bev.connect_hostname(&script, Wanted::Any, "example.org", port)
            .unwrap();
        bev.write(b"not yet").unwrap();
        net.settle();
        assert_eq!((bev.output().len(), log.told()), (7, vec![]));
        script.answer(Wanted::Any, &[v6(), v4(1), v4(2)]);
        net.until("connected", || log.has(&Told::Connected));
        assert_eq!(bev.fd(), raw);
        let (mut far, from) = listener.accept().unwrap();
        assert_eq!(from, local, "its own address was kept");
        net.until("sent", || bev.output().is_empty());
        far.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(log.events(), [Told::Connected]);

        // It has one address, and what comes of that is all.
        let log = Log::new();
        let bev = Builder::new(&net.events)
            .handler(log.take_all())
            .unconnected()
            .unwrap();
        bev.set_stream(set(Domain::IPV4)).unwrap();
        net.settle();
        log.news();
        bev.connect_hostname(&script, Wanted::Any, "example.org", port)
            .unwrap();
        script.answer(Wanted::Any, &[v4(3), v4(1)]);
        net.until("an error", || !log.events().is_empty());
        assert_eq!(log.events(), [Told::Error(None, Kind::Peer)]);
    });
}

#[test]
fn one_that_connects_is_not_connected_again() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        let listener = listener_at(v4(1));
        let port = listener.local_addr().unwrap().port();
        let script = Script::default();
        let (bev, log) = begin(net, &script, port);
        let again = bev.connect_hostname(&Nobody, Wanted::Any, "other", port);
        assert_eq!(again.unwrap_err().kind(), Kind::Misuse);
        let again = bev.connect((std::net::IpAddr::from([127, 0, 0, 1]), port));
        assert_eq!(again.unwrap_err().kind(), Kind::Misuse);
        script.answer(Wanted::Any, &[v4(1)]);
        net.until("connected", || log.has(&Told::Connected));

        // A stream that is set instead takes its place.
        let (bev, log) = begin(net, &script, port);
        let (near, mut far) = net.plain_pair();
        bev.set_stream(near).unwrap();
        assert!(!script.is_wanted());
        script.answer(Wanted::Any, &[v4(1)]);
        bev.enable(READ).unwrap();
        far.write_all(b"from the other").unwrap();
        net.until("read", || log.received() == b"from the other");
        assert!(!log.has(&Told::Connected));

        // No socket in the stack: typed, and nothing changed.
        let script = bufferevent_testkit::Script::new();
        let options = bufferevent_core::Options::EMPTY;
        let (other, _) = bufferevent_testkit::scripted(&net.events, options, script).unwrap();
        let refused = other.connect_hostname(&Nobody, Wanted::Any, "example.org", port);
        assert_eq!(refused.unwrap_err().kind(), Kind::Unsupported);
    });
}

#[test]
fn it_works_from_the_top_of_a_stack() {
    on_backends(Family::Tcp, |net| {
        spec!(S4, A5);
        let listener = listener_at(v4(1));
        let port = listener.local_addr().unwrap().port();
        let script = Script::default();
        for good in [true, false] {
            let log = Log::new();
            let below = Builder::new(&net.events).unconnected().unwrap();
            let top = Bev::over(
                &below,
                bufferevent_core::Options::CLOSE_ON_FREE,
                Through::new(),
            )
            .unwrap();
            top.set_handler(log.take_all()).unwrap();
            top.connect_hostname(&script, Wanted::Any, "example.org", port)
                .unwrap();
            top.write(b"through").unwrap();
            if good {
                script.answer(Wanted::Any, &[v4(1)]);
                net.until("connected", || log.has(&Told::Connected));
                let (mut far, _) = listener.accept().unwrap();
                net.settle();
                far.read_exact(&mut [0; 7]).unwrap();
                assert_eq!(log.events(), [Told::Connected]);
                assert!(top.peer_addr().is_ok());
            } else {
                script.fail(Wanted::Any, ResolveFailure::NotFound);
                net.settle();
                assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
                let failure = top.dns_error().unwrap().failure();
                assert_eq!(failure, ResolveFailure::NotFound);
            }
        }
    });
}

#[test]
fn freed_with_a_question_or_attempts_under_way_it_leaves_nothing() {
    on_backends(Family::Tcp, |net| {
        spec!(S4, G1);
        fault!(F80);
        let script = Script::default();
        let (bev, log) = begin(net, &script, 1);
        bev.free().unwrap();
        assert!(!script.is_wanted());
        script.answer(Wanted::Any, &[v4(1)]);
        net.settle();
        assert_eq!(log.told(), []);

        // Without a handle it goes on, for it is connecting.
        let listener = listener_at(v4(1));
        let (bev, log) = begin(net, &script, listener.local_addr().unwrap().port());
        drop(bev);
        net.settle();
        assert!(script.is_wanted());
        script.answer(Wanted::Any, &[v4(1)]);
        net.until("connected", || log.has(&Told::Connected));

        #[cfg(target_os = "linux")]
        {
            let hole = BlackHole::at(v4(1));
            let (bev, log) = begin(net, &script, hole.address.port());
            script.answer(Wanted::V4, &[v4(1)]);
            script.answer(Wanted::V6, &[]);
            net.settle();
            assert_eq!(hole.attempts(), 1);
            bev.free().unwrap();
            assert_eq!(hole.attempts(), 0);
            at_millis(net, 60_000);
            assert_eq!(log.told(), []);
        }
    });
}

#[test]
fn freed_in_the_callback_that_tells_of_it() {
    on_backends(Family::Tcp, |net| {
        fault!(F80, F83);
        let listener = listener_at(v4(1));
        let port = listener.local_addr().unwrap().port();
        for good in [true, false] {
            let script = Script::default();
            let told = Arc::new(Mutex::new(0));
            let count = told.clone();
            let bev = Builder::new(&net.events)
                .handler(bufferevent_core::on_event(move |bev, _| {
                    *count.lock().unwrap() += 1;
                    bev.free().unwrap();
                }))
                .connect_hostname(&script, Wanted::Any, "example.org", port)
                .unwrap();
            if good {
                script.answer(Wanted::Any, &[v4(1)]);
            } else {
                script.fail(Wanted::Any, ResolveFailure::NotFound);
            }
            net.until("told", || *told.lock().unwrap() == 1);
            assert!(bev.is_freed());
            net.settle();
            assert_eq!(*told.lock().unwrap(), 1);
        }
    });
}

#[test]
fn a_loop_that_goes_takes_questions_and_attempts_along() {
    on_backends(Family::Tcp, |net| {
        fault!(F80);
        let other = || {
            EventLoop::builder()
                .backend(net.events.backend())
                .build()
                .unwrap()
        };
        for handle_is_kept in [true, false] {
            let events = other();
            let script = Script::default();
            let bev = Builder::new(&events)
                .connect_hostname(&script, Wanted::Any, "example.org", 1)
                .unwrap();
            let kept = handle_is_kept.then_some(bev);
            events.poll().unwrap();
            assert!(script.is_wanted());
            drop(events);
            drop(kept);
            assert!(!script.is_wanted(), "handle kept: {handle_is_kept}");
            script.answer(Wanted::Any, &[v4(1)]);
        }
        #[cfg(target_os = "linux")]
        {
            let hole = BlackHole::at(v4(1));
            let events = other();
            let script = Script::default();
            drop(
                Builder::new(&events)
                    .connect_hostname(&script, Wanted::V4, "example.org", hole.address.port())
                    .unwrap(),
            );
            script.answer(Wanted::V4, &[v4(1)]);
            events.poll().unwrap();
            events.poll().unwrap();
            assert_eq!(hole.attempts(), 1);
            drop(events);
            assert_eq!(hole.attempts(), 0);
        }
        // A loop that is gone begins nothing.
        let events = other();
        let handle = events.host();
        let remains = (*events).clone();
        drop(events);
        let refused = Builder::new(&remains)
            .connect_hostname(&Nobody, Wanted::Any, "example.org", 1)
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::LoopClosed);
        drop(handle);
    });
}

#[test]
fn an_answer_may_come_from_any_thread() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        let listener = listener_at(v4(1));
        let script = Script::default();
        let (_bev, log) = begin(net, &script, listener.local_addr().unwrap().port());
        let other = script.clone();
        let thread = std::thread::spawn(move || {
            other.fail(Wanted::V6, ResolveFailure::NoAddress);
            other.answer(Wanted::V4, &[v4(1)]);
        });
        net.until("connected", || log.has(&Told::Connected));
        thread.join().unwrap();
        assert_eq!(log.events(), [Told::Connected]);
    });
}

#[test]
fn a_run_of_the_loop_does_not_end_while_a_name_is_looked_up() {
    on_backends(Family::Tcp, |net| {
        spec!(S4);
        let events = EventLoop::builder()
            .backend(net.events.backend())
            .build()
            .unwrap();
        let script = Script::default();
        let log = Log::new();
        let bev = Builder::new(&events)
            .handler(log.take_all())
            .connect_hostname(&script, Wanted::Any, "example.org", 1)
            .unwrap();
        let other = script.clone();
        let thread = std::thread::spawn(move || {
            // Not before the loop waits, most of the time; right either way.
            std::thread::yield_now();
            other.fail(Wanted::Any, ResolveFailure::NotFound);
        });
        events.run().unwrap();
        thread.join().unwrap();
        assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
        drop(bev);
    });
}
