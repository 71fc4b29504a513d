//! Filters over real sockets: what only a transport that connects, and lives in the system, can show.

#![cfg(unix)]

mod support;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::{Bev, Options, READ, WRITE};
use bufferevent_filter::{FilterExt, Identity};
use bufferevent_socket::{Builder, Listener, SocketExt as _};
use bufferevent_testkit::{fault, spec};
use evreactor::EventLoop;
use support::{Greeting, contents, listen};

/// Turns the loop until `done`, for some seconds at most.
fn until(events: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain: {what}");
        events.poll().unwrap();
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_told_before_connected_though_bytes_are_written_early() {
    spec!(C11);
    let events = EventLoop::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Builder::new(&events)
        .connect(listener.local_addr().unwrap())
        .unwrap();
    let top = socket.filter(Options::CLOSE_ON_FREE, Identity).unwrap();
    let heard = listen(&top);
    top.enable(READ | WRITE).unwrap();
    top.write(b"early").unwrap();
    until(&events, "connected", || {
        heard.lock().unwrap().order.len() >= 2
    });
    assert_eq!(heard.lock().unwrap().order[..2], ["connected", "write"]);
    let (mut peer, _) = listener.accept().unwrap();
    let mut bytes = [0; 5];
    std::io::Read::read_exact(&mut peer, &mut bytes).unwrap();
    assert_eq!(&bytes, b"early");
}

#[test]
fn a_connection_refused_is_one_error_on_top() {
    spec!(F4);
    let events = EventLoop::new().unwrap();
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let socket = Builder::new(&events).connect(address).unwrap();
    let top = socket
        .filter(Options::CLOSE_ON_FREE, Identity)
        .unwrap()
        .filter(Options::CLOSE_ON_FREE, Greeting::new())
        .unwrap();
    let heard = listen(&top);
    until(&events, "refused", || {
        !heard.lock().unwrap().ends.is_empty()
    });
    events.poll().unwrap();
    let heard = heard.lock().unwrap();
    assert_eq!(heard.order.len(), 1, "{:?}", heard.order);
    assert_eq!(heard.errors[0].layer(), "socket");
}

#[test]
fn a_filter_over_a_socket_that_is_set_later_hears_of_it() {
    spec!(S5);
    let events = EventLoop::new().unwrap();
    let bev = Builder::new(&events).unconnected().unwrap();
    let top = bev.filter(Options::CLOSE_ON_FREE, Identity).unwrap();
    let heard = listen(&top);
    top.write(b"early").unwrap();
    top.enable(READ).unwrap();
    events.poll().unwrap();
    assert_eq!(heard.lock().unwrap().order, Vec::<String>::new());
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    top.set_stream(near).unwrap();
    std::io::Write::write_all(&mut far, b"in").unwrap();
    until(&events, "both", || {
        let heard = heard.lock().unwrap();
        heard.order.contains(&"write".into()) && heard.order.contains(&"read 2".into())
    });
    let mut bytes = [0; 5];
    std::io::Read::read_exact(&mut far, &mut bytes).unwrap();
    assert_eq!(&bytes, b"early");
    assert!(top.fd().is_some(), "through the stack");
}

#[test]
fn a_listener_takes_a_filter_per_connection_and_a_close_loses_nothing() {
    spec!(G8);
    fault!(F68);
    let events = EventLoop::new().unwrap();
    let accepted = Arc::new(Mutex::new(Vec::<Bev>::new()));
    let keep = accepted.clone();
    let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _peer| {
        keep.lock()
            .unwrap()
            .push(bev.filter(Options::CLOSE_ON_FREE, Greeting::new())?);
        Ok(())
    })
    .unwrap();
    let address = listener.local_addr().unwrap();
    let near = Builder::new(&events)
        .connect(address)
        .unwrap()
        .filter(Options::CLOSE_ON_FREE, Greeting::new())
        .unwrap();
    let heard = listen(&near);
    until(&events, "greetings", || {
        heard.lock().unwrap().order.contains(&"connected".into())
    });
    // More than the system takes; the peer reads only after the close has begun.
    let bytes = vec![7; 4 << 20];
    near.write(&bytes).unwrap();
    near.close(Duration::from_secs(30)).unwrap();
    for _ in 0..10 {
        events.poll().unwrap();
    }
    let far = accepted.lock().unwrap()[0].clone();
    let told = listen(&far);
    far.enable(READ).unwrap();
    until(&events, "the end", || !told.lock().unwrap().ends.is_empty());
    assert_eq!(contents(&far).len(), bytes.len());
    assert_eq!(told.lock().unwrap().ends, ["eof"]);
    far.close(Duration::from_secs(30)).unwrap();
    until(&events, "both gone", || near.is_freed() && far.is_freed());
    assert_eq!(heard.lock().unwrap().ends, ["written", "eof"]);
}
