//! Networks that are not as they should be: no way there, no port left, packets that are lost.
//!
//! What is lost is lost for the system's TCP: a filter on a socket throws segments away that have come for it. So no rights are needed, and
//! nothing leaves this machine.

#![cfg(target_os = "linux")]

mod common;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, Deadline, Event, Kind, READ, WRITE, on_event};
use bufferevent_socket::{Builder, Calls};
use bufferevent_testkit::{Log, Told, fault};
use common::{Family, Net, on_backends};
use evreactor::EventLoop;
use socket2::{SockFilter, Socket};

/// `IP_LOCAL_PORT_RANGE` of Linux 6.3.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// A loop that goes by the real clock: the system's TCP does.
fn real_loop(net: &Net) -> EventLoop {
    let builder = EventLoop::builder().backend(net.events.backend());
    builder.build().unwrap()
}

/// One error of both directions, with this cause, and nobody else is harmed.
fn fails(net: &Net, log: &Log, bev: &Bev, cause: io::ErrorKind) {
    assert_eq!(log.told(), [], "never from inside the call");
    net.until("the failure", || !log.events().is_empty());
    net.settle();
    let [Told::Error(None, _)] = log.told()[..] else {
        panic!("{:?}", log.events())
    };
    let error = log.errors().remove(0);
    assert_eq!((error.layer(), error.operation()), ("socket", "connect"));
    assert_eq!(error.io_error().unwrap().kind(), cause, "{error}");
    assert_eq!(bev.write(b"x").unwrap_err().kind(), Kind::Ended);
}

#[test]
fn no_route_and_no_address_are_told_like_any_failed_connection() {
    on_backends(Family::Tcp, |net| {
        fault!(F28);
        // TCP has no way to any of these, whatever the routes are.
        for place in ["224.0.0.1:9", "255.255.255.255:9"] {
            let log = Log::new();
            let builder = Builder::new(&net.events).handler(log.watch());
            let bev = builder.connect(place).unwrap();
            bev.write(b"early").unwrap();
            fails(net, &log, &bev, io::ErrorKind::NetworkUnreachable);
        }
        // The address and port that it was to come from are taken towards there.
        let (listening, address) = net.plain_listener();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = net.plain_socket();
        first.set_reuse_address(true).unwrap();
        first.bind(&local.into()).unwrap();
        let second = net.plain_socket();
        second.set_reuse_address(true).unwrap();
        second.bind(&first.local_addr().unwrap()).unwrap();
        first.connect(&Net::sockaddr(&address)).unwrap();
        let log = Log::new();
        let builder = Builder::new(&net.events).handler(log.watch());
        let bev = builder.stream(second).unwrap();
        bufferevent_socket::SocketExt::connect(&bev, &address).unwrap();
        fails(net, &log, &bev, io::ErrorKind::AddrNotAvailable);
        drop(listening);
    });
}

/// Lets a socket have ports from this one to this one alone. `false`: this system does not know how.
#[allow(unsafe_code)]
fn only_port(socket: &Socket, port: u16) -> bool {
    let range = u32::from(port) << 16 | u32::from(port);
    // SAFETY: the option is four bytes, which are there for the length of the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const range).cast(),
            4,
        )
    };
    set == 0
}

#[test]
fn when_ports_are_gone_a_connection_fails_and_the_next_one_goes_on() {
    on_backends(Family::Tcp, |net| {
        let (listening, address) = net.plain_listener();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let connect = |log: &Log| {
            let socket = net.plain_socket();
            if !only_port(&socket, port) {
                return None;
            }
            let builder = Builder::new(&net.events).handler(log.watch());
            let bev = builder.stream(socket).unwrap();
            bufferevent_socket::SocketExt::connect(&bev, &address).unwrap();
            Some(bev)
        };
        let log = Log::new();
        let Some(first) = connect(&log) else {
            println!("this system does not bound the ports of one socket");
            return;
        };
        fault!(F28);
        net.until("the first", || log.has(&Told::Connected));
        let (accepted, from) = listening.accept().unwrap();
        assert_eq!(from.as_socket().unwrap().port(), port);
        // Its only port is in use.
        let refused = Log::new();
        let second = connect(&refused).unwrap();
        fails(net, &refused, &second, io::ErrorKind::AddrNotAvailable);
        assert!(!first.is_freed() && log.errors().is_empty());
        // Reset, so that the port is free at once.
        first.enable(READ).unwrap();
        common::reset(accepted);
        net.until("the end of the first", || !log.errors().is_empty());
        first.free().unwrap();
        let log = Log::new();
        let third = connect(&log).unwrap();
        net.until("the third", || log.has(&Told::Connected));
        drop(third);
    });
}

/// Throws away what `drops` says, of the segments that come for `socket`.
fn lossy(socket: &Socket, drops: [SockFilter; 2]) {
    let [load, test] = drops;
    let keep = SockFilter::new(0x06, 0, 0, u32::MAX);
    let lose = SockFilter::new(0x06, 0, 0, 0);
    socket.attach_filter(&[load, test, keep, lose]).unwrap();
}

/// A fifth of all, whichever.
fn a_fifth() -> [SockFilter; 2] {
    let random = 0xffff_f000 + 56; // SKF_AD_OFF + SKF_AD_RANDOM
    [
        SockFilter::new(0x20, 0, 0, random),
        SockFilter::new(0x35, 0, 1, u32::MAX / 5),
    ]
}

/// What is longer than a frame of Ethernet, and nobody says so: a path whose MTU is less than its ends think.
fn the_long_ones() -> [SockFilter; 2] {
    [
        SockFilter::new(0x80, 0, 0, 0),
        SockFilter::new(0x25, 1, 0, 1500),
    ]
}

/// How many segments this system has sent again.
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("Tcp:"))
        .map(|line| line.split(' ').collect())
        .collect();
    let at = lines[0].iter().position(|name| *name == "RetransSegs");
    lines[1][at.unwrap()].parse().unwrap()
}

#[test]
fn bytes_come_whole_and_in_order_through_heavy_loss() {
    const COUNT: usize = 64 * 1024;
    on_backends(Family::Tcp, |net| {
        fault!(F33);
        let events = real_loop(net);
        let (listener, address) = net.plain_listener();
        listener.set_tcp_mss(1400).unwrap();
        let near = net.plain_socket();
        near.set_tcp_mss(1400).unwrap();
        near.connect(&Net::sockaddr(&address)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // First on the way there, then on the way back: with both at once a time that TCP gives itself could double too often.
        lossy(&far, a_fifth());
        let way_back = near.try_clone().unwrap();
        let bytes: Vec<u8> = (0..COUNT).map(|n| (n * 7 / 5) as u8).collect();
        let log = Log::new();
        let builder = Builder::new(&events).handler(log.take_all());
        let bev = builder.stream(near).unwrap();
        bev.enable(READ).unwrap();
        bev.write(&bytes).unwrap();
        bev.finish().unwrap();
        let echo = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            lossy(&way_back, a_fifth());
            far.write_all(&all).unwrap();
        });
        let (start, turns) = (Instant::now(), events.stats().turns);
        let before = sent_again();
        while !log.has(&Told::Eof) {
            events.exit_after(Duration::from_secs(1)).unwrap();
            events.run().unwrap();
            assert_eq!(log.errors().len(), 0, "{:?}", log.errors());
            assert!(start.elapsed() < Duration::from_secs(120), "in vain");
        }
        echo.join().unwrap();
        assert_eq!(log.received(), bytes);
        assert!(sent_again() > before, "segments were lost");
        let turns = events.stats().turns - turns;
        assert!(turns < 1000, "{turns} turns: it waits, it does not spin");
    });
}

#[test]
fn a_path_that_swallows_long_packets_ends_in_a_named_timeout_and_may_heal() {
    const COUNT: usize = 16 << 20;
    on_backends(Family::Tcp, |net| {
        fault!(F33);
        let events = real_loop(net);
        let (near, mut far) = net.plain_pair();
        let (other, mut other_far) = net.plain_pair();
        lossy(&far, the_long_ones());
        let (told, heard) = std::sync::mpsc::channel();
        let stop = events.clone();
        let handler = on_event(move |_: &Bev, event: &Event| {
            told.send(format!("{event:?}")).unwrap();
            stop.exit();
        });
        let bev = Builder::new(&events).handler(handler).stream(near).unwrap();
        let unharmed = Builder::new(&events).stream(other).unwrap();
        // What is short passes, so the connection seems to be well.
        bev.write(b"short").unwrap();
        events.poll().unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
        bev.set_deadline(Deadline::Write, Some(Duration::from_secs(1)))
            .unwrap();
        bev.write(&vec![7; COUNT]).unwrap();
        let (calls, turns) = (Calls::of_thread().sends, events.stats().turns);
        events.exit_after(Duration::from_secs(20)).unwrap();
        events.run().unwrap();
        assert_eq!(
            heard.try_recv().unwrap(),
            format!("{:?}", Event::Timeout(Deadline::Write))
        );
        assert!(!bev.enabled().contains(WRITE));
        assert!(
            Calls::of_thread().sends - calls < 20,
            "nothing is tried in vain"
        );
        assert!(events.stats().turns - turns < 20, "nothing spins");
        unharmed.write(b"unharmed").unwrap();
        events.poll().unwrap();
        other_far.read_exact(&mut [0; 8]).unwrap();
        // Nothing was lost: when the path is well again, it goes on where it was.
        far.detach_filter().unwrap();
        bev.set_deadline(Deadline::Write, None).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; COUNT];
            far.read_exact(&mut all).unwrap();
            assert!(all.iter().all(|byte| *byte == 7));
        });
        bev.enable(WRITE).unwrap();
        let start = Instant::now();
        while !bev.output().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "in vain");
            events.exit_after(Duration::from_secs(1)).unwrap();
            events.run_once().unwrap();
        }
        reader.join().unwrap();
    });
}
