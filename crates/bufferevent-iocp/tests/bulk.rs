//! A stream of bulk on this system's backend: it is received another way than messages are, and nobody notices.

#![cfg(unix)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use bufferevent_core::{Bev, Options, READ, on_read};
use bufferevent_iocp::{BACKEND, Builder};
use bufferevent_testkit::{Log, Told, fault, record};
use common::{PATIENCE, bytes, system, turns, until};

/// A connection of two plain sockets.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    far.set_nodelay(true).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

/// Bulk, then messages one at a time, then bulk, …: more than enough in a row of each for the way to change.
fn send_changing(far: &mut TcpStream, data: &[u8]) {
    let mut rest = data;
    while !rest.is_empty() {
        let (bulk, behind) = rest.split_at(rest.len().min(3_000_000));
        far.write_all(bulk).unwrap();
        let (messages, behind) = behind.split_at(behind.len().min(40 * 100));
        for message in messages.chunks(100) {
            far.write_all(message).unwrap();
            thread::yield_now();
        }
        rest = behind;
    }
}

#[test]
fn bulk_and_messages_by_turns_arrive_whole_and_in_order() {
    record::within("completion", BACKEND, || {
        let events = system();
        let (near, mut far) = sockets();
        let log = Log::new();
        let bev = Builder::new(&events)
            .handler(log.take_all())
            .stream(near)
            .unwrap();
        bev.enable(READ).unwrap();
        let data = bytes(3, 20_000_000);
        let sent = data.clone();
        let sender = thread::spawn(move || {
            send_changing(&mut far, &sent);
            far
        });
        until(&events, "all of it", || log.received().len() == data.len());
        assert!(log.received() == data);
        assert!(!log.has(&Told::Eof));
        drop(sender.join().unwrap());
        until(&events, "the end", || log.has(&Told::Eof));
    });
}

/// Takes what is there by now; what it makes room for comes later.
fn take(bev: &Bev, taken: &mut Vec<u8>) {
    let mut piece = vec![0; bev.input().len()];
    let count = bev.read(&mut piece).unwrap();
    taken.extend_from_slice(&piece[..count]);
}

#[test]
fn bulk_stops_at_the_mark_and_goes_on_when_there_is_room() {
    record::within("completion", BACKEND, || {
        let events = system();
        let (near, mut far) = sockets();
        let bev = Builder::new(&events).stream(near).unwrap();
        bev.enable(READ).unwrap();
        let data = bytes(4, 12_000_000);
        let sent = data.clone();
        let sender = thread::spawn(move || far.write_all(&sent).map(|()| far));
        let mut taken = Vec::new();
        let mut mark = 0;
        until(&events, "all of it", || {
            // From unlimited to narrow and back, so that a receive of either way is cancelled, and begun again.
            if taken.len() > 1_000_000 * (mark + 1) {
                mark += 1;
                let high = if mark % 2 == 1 { 10_000 } else { 0 };
                bev.set_read_watermark(0, high).unwrap();
                take(&bev, &mut taken);
                turns(&events, 30);
                assert!(high == 0 || bev.input().len() <= high);
            }
            take(&bev, &mut taken);
            taken.len() == data.len()
        });
        assert!(taken == data);
        drop(sender.join().unwrap().unwrap());
    });
}

#[test]
fn freeing_one_in_the_middle_of_its_bulk_closes_the_connection() {
    record::within("completion", BACKEND, || {
        fault!(F90);
        let events = system();
        let (near, mut far) = sockets();
        let bev = Builder::new(&events)
            .options(Options::EMPTY)
            .handler(on_read(|bev| drop(bev.input().drain(usize::MAX))))
            .stream(near)
            .unwrap();
        bev.enable(READ).unwrap();
        let sender = thread::spawn(move || {
            let block = [7; 64 * 1024];
            // Until the other end has gone.
            while far.write_all(&block).is_ok() {}
            far.read(&mut [0]).map_or(true, |count| count == 0)
        });
        turns(&events, 200);
        bev.free().unwrap();
        drop(bev);
        until(&events, "the lane to go", || {
            common::port(&events).lanes() == 0
        });
        assert!(sender.join().unwrap(), "nothing more came from this side");
    });
}
