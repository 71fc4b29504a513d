//! A loop that is dropped takes along what nobody holds on to, and leaves the rest usable.

#![cfg(feature = "socket")]

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use bufferevent::{Address, Event, EventLoop, Listener, READ, on_event};

/// A loop with one accepted bufferevent, and the peer's end of it. The bufferevent is sent through `keep`, if it is
/// to be held.
fn accepted(keep: Option<mpsc::Sender<bufferevent::Bev>>) -> (EventLoop, Listener, TcpStream) {
    let events = EventLoop::new().unwrap();
    let stop = events.clone();
    let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
        bev.set_handler(on_event(|_, event: &Event| panic!("{event:?}")))?;
        bev.enable(READ)?;
        if let Some(keep) = &keep {
            keep.send(bev).expect("the test waits for it");
        }
        stop.exit();
        Ok(())
    })
    .unwrap();
    let Address::Tcp(address) = listener.local_addr().unwrap() else {
        panic!("not a TCP address")
    };
    let peer = TcpStream::connect(address).unwrap();
    events.run_until_exit().unwrap();
    (events, listener, peer)
}

#[test]
fn what_nobody_holds_is_closed_with_the_loop() {
    let (events, listener, mut peer) = accepted(None);
    drop(listener);
    drop(events);
    peer.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the peer sees the end");
}

#[test]
fn what_is_held_is_closed_when_it_is_let_go() {
    let (send, receive) = mpsc::channel();
    let (events, listener, mut peer) = accepted(Some(send));
    let bev = receive.recv().unwrap();
    drop(listener);
    drop(events);
    peer.set_nonblocking(true).unwrap();
    assert_eq!(
        peer.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    bev.write(b"!").unwrap();
    drop(bev);
    peer.set_nonblocking(false).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"!");
}
