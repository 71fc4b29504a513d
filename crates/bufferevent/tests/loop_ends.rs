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

/// Counts its drops.
struct Gone(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn handlers_that_own_each_others_bufferevents_go_with_the_loop() {
    let gone = std::sync::Arc::default();
    let (events, listener, _peer) = accepted(None);
    let (near, far) = bufferevent::pair(&events).unwrap();
    let lone = bufferevent::Builder::new(&events).unconnected().unwrap();
    let all = [near, far, lone];
    for (bev, other) in [(0, 1), (1, 0), (2, 2)] {
        let owned = (Gone(std::sync::Arc::clone(&gone)), all[other].clone());
        let handler = on_event(move |_, event: &Event| {
            let (_gone, other) = &owned;
            panic!("{event:?}, and {other:?}")
        });
        all[bev].set_handler(handler).unwrap();
        all[bev].enable(READ).unwrap();
    }
    drop(all);
    events.poll().unwrap();
    let counted = || gone.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted(), 0, "they keep each other");
    drop(listener);
    drop(events);
    assert_eq!(counted(), 3);
}

#[test]
fn a_pair_that_nobody_holds_goes_with_the_loop() {
    let gone = std::sync::Arc::default();
    let events = EventLoop::new().unwrap();
    let (near, far) = bufferevent::pair(&events).unwrap();
    let owned = Gone(std::sync::Arc::clone(&gone));
    near.set_handler(on_event(move |_, event: &Event| {
        panic!("{event:?} {}", size_of_val(&owned))
    }))
    .unwrap();
    near.enable(READ).unwrap();
    far.enable(READ).unwrap();
    drop((near, far));
    drop(events);
    assert_eq!(gone.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn what_was_let_go_on_another_thread_just_before_goes_with_the_loop() {
    let gone = std::sync::Arc::default();
    let events = EventLoop::new().unwrap();
    let (near, far) = bufferevent::pair(&events).unwrap();
    let owned = Gone(std::sync::Arc::clone(&gone));
    // In a layer, which a loop that closes does not drop by itself.
    let owner = Owner(owned);
    let top = near
        .over(bufferevent::Options::CLOSE_ON_FREE, owner)
        .unwrap();
    top.enable(READ).unwrap();
    std::thread::spawn(move || drop((top, near, far)))
        .join()
        .unwrap();
    drop(events);
    assert_eq!(gone.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// A layer that does nothing and owns something.
struct Owner(Gone);

impl bufferevent::Bufferevent for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn pull(&mut self, _cx: &mut bufferevent::Context<'_>) -> bufferevent::Step {
        let _ = &self.0;
        bufferevent::Step::Done
    }

    fn push(&mut self, _cx: &mut bufferevent::Context<'_>) -> bufferevent::Step {
        bufferevent::Step::Done
    }
}
