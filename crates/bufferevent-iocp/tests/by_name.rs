//! Connecting by name over completions: the race is core's and proved in `bufferevent-core` and `bufferevent-socket`; here is what lanes make of it.

#![cfg(any(target_os = "linux", windows))]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::resolve::{Lookup, Question, Reply, Resolve};
use bufferevent_core::{Bev, Family, Kind, Options, READ, ResolveFailure};
use bufferevent_iocp::{BACKEND, Builder, CompletionExt as _};
use bufferevent_testkit::{Log, Told, fault, record, spec};
use common::{port, system, turns, until};
use evreactor::EventLoop;

fn on_system(check: impl FnOnce()) {
    record::within("completion", BACKEND, check);
}

/// A resolver that keeps its question until the test answers.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Option<Reply>>>);

impl Resolve for Script {
    fn resolve(&self, _: &Question, reply: Reply) -> Lookup {
        *self.0.lock().unwrap() = Some(reply);
        Lookup::until_dropped(())
    }
}

impl Script {
    fn answer(&self, addresses: &[SocketAddr]) {
        let reply = self.0.lock().unwrap();
        let reply = reply.as_ref().expect("it was asked");
        reply.answer(Family::Any, Ok(addresses.to_vec()));
    }

    fn fail(&self, failure: ResolveFailure) {
        let reply = self.0.lock().unwrap();
        let reply = reply.as_ref().expect("it was asked");
        reply.answer(Family::Any, Err(reply.question().failed(failure)));
    }

    fn is_wanted(&self) -> bool {
        self.0
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(Reply::is_wanted)
    }
}

/// A resolver that must not be asked.
struct Nobody;

impl Resolve for Nobody {
    fn resolve(&self, question: &Question, _: Reply) -> Lookup {
        panic!("asked for {}", question.host());
    }
}

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))
}

fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind(v4(1)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn begin(events: &EventLoop, resolver: &impl Resolve, port: u16) -> (Bev, Log) {
    let log = Log::new();
    let bev = Builder::new(events)
        .nodelay(true)
        .handler(log.take_all())
        .connect_hostname(resolver, Family::Any, "example.org", port)
        .unwrap();
    (bev, log)
}

#[test]
fn the_first_that_stands_is_the_connection_told_once_and_not_from_inside() {
    on_system(|| {
        spec!(S4, S2);
        let events = system();
        let (listener, to) = listening();
        let script = Script::default();
        let (bev, log) = begin(&events, &script, to);
        bev.enable(READ).unwrap();
        bev.write(b"before there is an address").unwrap();
        turns(&events, 3);
        assert_eq!(log.told(), [], "nothing blocks, nothing is told");
        script.answer(&[v4(1)]);
        assert_eq!(log.told(), [], "an answer is told by the loop");
        until(&events, "connected", || log.has(&Told::Connected));
        assert!(!script.is_wanted(), "nobody waits for more");
        let (mut far, _) = listener.accept().unwrap();
        until(&events, "sent", || bev.output().is_empty());
        let mut bytes = [0; 26];
        turns(&events, 3);
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"before there is an address");
        far.write_all(b"answer").unwrap();
        until(&events, "the answer", || log.received() == b"answer");
        assert_eq!(log.events(), [Told::Connected]);
        assert!(bev.dns_error().is_none());
        let peer = bev.peer_addr().unwrap().as_socket().unwrap();
        assert_eq!(peer, listener.local_addr().unwrap());
        assert_eq!(port(&events).lanes(), 1, "the one that won");
        // One that stands cannot be connected again, and what it is stays.
        for refused in [
            bev.connect_hostname(&Nobody, Family::Any, "other", 1),
            bev.connect(peer),
        ] {
            assert_eq!(refused.unwrap_err().kind(), Kind::Misuse);
        }
        assert!(bev.peer_addr().is_ok());
    });
}

#[test]
fn addresses_that_refuse_are_followed_by_the_next() {
    on_system(|| {
        spec!(S4);
        fault!(F26);
        let events = system();
        let (listener, to) = listening();
        let script = Script::default();
        let (bev, log) = begin(&events, &script, to);
        // Nobody listens at the others.
        script.answer(&[v4(3), v4(2), v4(1)]);
        until(&events, "connected", || log.has(&Told::Connected));
        assert_eq!(log.events(), [Told::Connected]);
        let peer = bev.peer_addr().unwrap().as_socket().unwrap();
        assert_eq!(peer, listener.local_addr().unwrap());
        until(&events, "the losers' end", || port(&events).lanes() == 1);
    });
}

#[test]
fn where_all_refuse_one_error_tells_and_it_is_none_of_the_dns() {
    on_system(|| {
        spec!(S4);
        fault!(F26);
        let events = system();
        let (listener, to) = listening();
        drop(listener);
        let script = Script::default();
        let (bev, log) = begin(&events, &script, to);
        bev.write(b"never sent").unwrap();
        script.answer(&[v4(1), v4(2)]);
        until(&events, "an error", || !log.errors().is_empty());
        turns(&events, 5);
        assert_eq!(log.events(), [Told::Error(None, Kind::Peer)]);
        assert_eq!(log.errors()[0].operation(), "connect");
        assert!(bev.dns_error().is_none());
        assert_eq!(port(&events).lanes(), 0, "nothing is left");
    });
}

#[test]
fn a_resolvers_failure_is_an_error_that_names_it() {
    on_system(|| {
        spec!(S4);
        fault!(F71);
        let events = system();
        let script = Script::default();
        let (bev, log) = begin(&events, &script, 1);
        script.fail(ResolveFailure::NotFound);
        until(&events, "an error", || !log.errors().is_empty());
        assert_eq!(log.events(), [Told::Error(None, Kind::Resolve)]);
        let failure = bev.dns_error().expect("it was the name").failure();
        assert_eq!(failure, ResolveFailure::NotFound);
        assert_eq!(port(&events).lanes(), 0);
    });
}

#[test]
fn an_address_is_not_looked_up_and_a_second_begin_is_refused() {
    on_system(|| {
        spec!(S4);
        let events = system();
        let (listener, to) = listening();
        let log = Log::new();
        let bev = Builder::new(&events)
            .handler(log.take_all())
            .unconnected()
            .unwrap();
        bev.connect_hostname(&Nobody, Family::Any, "127.0.0.1", to)
            .unwrap();
        let again = bev.connect_hostname(&Nobody, Family::Any, "127.0.0.1", to);
        assert_eq!(again.unwrap_err().kind(), Kind::Misuse);
        let again = bev.connect(listener.local_addr().unwrap());
        assert_eq!(again.unwrap_err().kind(), Kind::Misuse);
        assert_eq!(log.told(), []);
        until(&events, "connected", || log.has(&Told::Connected));
        assert_eq!(log.events(), [Told::Connected]);
    });
}

#[test]
fn freed_with_a_question_or_attempts_under_way_it_leaves_nothing() {
    on_system(|| {
        spec!(S4, G1);
        fault!(F80, F90);
        let events = system();
        let script = Script::default();
        let (bev, log) = begin(&events, &script, 1);
        bev.free().unwrap();
        assert!(!script.is_wanted());
        script.answer(&[v4(1)]);
        turns(&events, 5);
        assert_eq!(log.told(), []);

        // Freed while it connects, before and after the driver has heard of it.
        for turns_before in 0..3 {
            let (_listener, to) = listening();
            let (bev, log) = begin(&events, &script, to);
            script.answer(&[v4(1), v4(2)]);
            turns(&events, turns_before);
            let told = log.told();
            bev.free().unwrap();
            until(&events, "nothing is under way", || {
                port(&events).lanes() == 0
            });
            assert_eq!(log.told(), told);
        }

        // Without a handle it goes on, for it is connecting.
        let (_listener, to) = listening();
        let (bev, log) = begin(&events, &script, to);
        drop(bev);
        turns(&events, 3);
        assert!(script.is_wanted());
        script.answer(&[v4(1)]);
        until(&events, "connected", || log.has(&Told::Connected));
    });
}

#[test]
fn a_loop_that_goes_takes_questions_and_attempts_along() {
    on_system(|| {
        fault!(F80, F90);
        for turns_before in 0..3 {
            let events = system();
            let (_listener, to) = listening();
            let script = Script::default();
            let (bev, _log) = begin(&events, &script, to);
            if turns_before > 0 {
                script.answer(&[v4(1)]);
            }
            turns(&events, turns_before);
            drop(events);
            drop(bev);
            assert!(!script.is_wanted(), "after {turns_before} turns");
        }
    });
}

#[test]
fn a_run_does_not_end_while_a_name_is_looked_up_elsewhere() {
    on_system(|| {
        spec!(S4);
        let events = system();
        let (listener, to) = listening();
        let script = Script::default();
        let stop = events.clone();
        let bev = Builder::new(&events)
            .options(Options::THREADSAFE)
            .handler(bufferevent_core::on_event(move |_, _| stop.exit()))
            .connect_hostname(&script, Family::Any, "example.org", to)
            .unwrap();
        let asked = script.clone();
        let waits = events.clone();
        let other = std::thread::spawn(move || {
            // The loop is in its wait, or about to be: its answer wakes it.
            waits.after(Duration::ZERO, || ()).unwrap().detach();
            asked.answer(&[v4(1)]);
        });
        assert_eq!(events.run().unwrap(), evreactor::Outcome::Exit);
        other.join().unwrap();
        assert!(bev.peer_addr().is_ok());
        drop(listener);
    });
}

/// A family that says nothing costs one attempt delay: the loser's lane is let go of.
#[test]
#[cfg(target_os = "linux")]
fn an_address_in_a_black_hole_costs_a_quarter_of_a_second() {
    use bufferevent_testkit::ManualClock;
    use evreactor_core::Moment;
    use socket2::{Domain, Socket, Type};
    on_system(|| {
        spec!(S4);
        fault!(F27, F82);
        bufferevent_iocp::register();
        let clock = ManualClock::default();
        let events = EventLoop::builder()
            .backend(BACKEND)
            .clock(Arc::new(clock.clone()))
            .build()
            .unwrap();
        let (_listener, to) = listening();
        let mut hole = v4(2);
        hole.set_port(to);
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&hole.into()).unwrap();
        silent.listen(0).unwrap();
        // Its queue is full once one that connects is not connected.
        let mut queue = Vec::new();
        loop {
            let one = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            one.set_nonblocking(true).unwrap();
            let _ = one.connect(&hole.into());
            let connected = one.peer_addr().is_ok();
            queue.push(one);
            if !connected {
                break;
            }
            assert!(queue.len() < 64, "the queue does not fill");
        }
        let script = Script::default();
        let (bev, log) = begin(&events, &script, to);
        script.answer(&[v4(2), v4(1)]);
        turns(&events, 10);
        clock.set(Moment::ZERO + Duration::from_millis(249));
        turns(&events, 10);
        assert_eq!((port(&events).lanes(), log.events()), (1, vec![]));
        clock.set(Moment::ZERO + Duration::from_millis(250));
        until(&events, "connected", || log.has(&Told::Connected));
        assert_eq!(
            bev.peer_addr().unwrap().as_socket().unwrap().port(),
            to,
            "the other's"
        );
        until(&events, "the loser's end", || port(&events).lanes() == 1);
        assert_eq!(log.events(), [Told::Connected]);
    });
}
