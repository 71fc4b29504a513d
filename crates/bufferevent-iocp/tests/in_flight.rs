//! Dropped, forgotten, freed, cancelled, taken back, and the loop gone, while the system has operations under way: no memory is harmed.
//!
//! What is lent for sends are *canaries*: memory that checks itself, and counts, when it is dropped. What is received into cannot be seen from here, so
//! *bystanders* take the memory that was freed, and are looked at when the peers have sent into sockets that had a receive under way.

#![cfg(any(target_os = "linux", windows))]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{Bev, READ};
use bufferevent_iocp::{BACKEND, Builder, CompletionExt as _, Listener};
use bufferevent_testkit::{Log, Told, fault, record, spec};
use bytes::Bytes;
use common::{PATIENCE, bytes, port, system, turns, until};
use evreactor::EventLoop;

/// Operations that are under way when something is done to them.
const OPERATIONS: usize = 10_000;

/// Connections of one loop.
const CONNECTIONS: usize = 16;

const MARK: u8 = 0xa5;

/// What a bystander takes: as much as a block that is received into.
const BLOCK: usize = 64 * 1024;

/// More than the buffers of both ends hold, so that a send stays under way; less than is handed over at a time.
const CANARY: usize = 200 * 1024;

static MARKS: [u8; CANARY] = [MARK; CANARY];

struct Canary(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Canary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        assert!(self.0 == MARKS[..CANARY], "a canary was written to");
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A listener whose connections hold little.
fn narrow() -> TcpListener {
    let listener = TcpListener::bind(local()).unwrap();
    socket2::SockRef::from(&listener)
        .set_recv_buffer_size(4096)
        .unwrap();
    listener
}

fn joined(events: &EventLoop, listener: &TcpListener) -> (Bev, TcpStream) {
    let far = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    far.set_recv_buffer_size(4096).unwrap();
    far.connect(&listener.local_addr().unwrap().into()).unwrap();
    let far = TcpStream::from(far);
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let near = listener.accept().unwrap().0;
    socket2::SockRef::from(&near)
        .set_send_buffer_size(4096)
        .unwrap();
    (Builder::new(events).stream(near).unwrap(), far)
}

/// A loop with operations of each kind under way; then everything goes, each in a way that `choice` says.
fn round(choice: &[u8], dropped: &Arc<AtomicUsize>) -> (usize, usize) {
    let events = system();
    let plain = narrow();
    let _accepts = Listener::bind(&events, local(), |_, _| {}).unwrap();
    let mut ends = Vec::new();
    let (mut under_way, mut lent) = (1, 0);
    for way in choice {
        let (bev, far) = joined(&events, &plain);
        bev.enable(READ).unwrap();
        under_way += 1;
        if way & 8 == 0 {
            let canary = Canary(MARKS.to_vec(), dropped.clone());
            bev.output()
                .append_bytes(Bytes::from_owner(canary))
                .unwrap();
            under_way += 1;
            lent += 1;
        }
        ends.push((bev, far));
    }
    turns(&events, 2);
    let mut taken = Vec::new();
    let mut fars = Vec::new();
    for ((bev, mut far), way) in ends.into_iter().zip(choice) {
        match way & 7 {
            0 | 1 => drop(bev),
            2 => drop(bev.free().unwrap()),
            3 => std::mem::forget(bev.clone()),
            4 => {
                socket2::SockRef::from(&far)
                    .set_linger(Some(std::time::Duration::ZERO))
                    .unwrap();
                drop(far);
                let _ = bev.free();
                continue;
            }
            5 => {
                if way & 8 != 0 {
                    taken.push(bev.into_transport().unwrap());
                }
            }
            // Its receive is told to end, and another begins.
            _ => {
                bev.set_read_watermark(0, 1).unwrap();
                far.write_all(&[MARK; 4096]).unwrap();
                turns(&events, 1);
            }
        }
        fars.push(far);
    }
    turns(&events, usize::from(choice[0] % 3));
    let bystanders: Vec<_> = (0..8).map(|_| vec![MARK; BLOCK]).collect();
    if choice[0] & 16 == 0 {
        drop(events);
    } else {
        turns(&events, 2);
    }
    for far in &mut fars {
        // It may be gone: then nobody has a receive there. Nobody waits for one that does not read.
        far.set_nonblocking(true).unwrap();
        let _ = far.write(&[0; 8192]);
    }
    for bystander in &bystanders {
        assert!(
            bystander[..] == MARKS[..BLOCK],
            "a bystander was written to"
        );
    }
    (under_way, lent)
}

#[test]
fn nothing_is_harmed_whatever_goes_while_operations_are_under_way() {
    record::within("completion", BACKEND, || {
        spec!(I2);
        fault!(F90);
        let dropped = Arc::new(AtomicUsize::new(0));
        let (mut operations, mut lent, mut seed) = (0, 0, 0);
        while operations < OPERATIONS {
            seed += 1;
            let (more, canaries) = round(&bytes(seed, CONNECTIONS), &dropped);
            operations += more;
            lent += canaries;
        }
        assert_eq!(
            dropped.load(Ordering::SeqCst),
            lent,
            "each came back once, and none was leaked"
        );
    });
}

#[test]
fn a_connect_and_an_accept_are_dropped_under_way() {
    record::within("completion", BACKEND, || {
        spec!(I2);
        // Nobody answers there: addresses for documentation are routed nowhere, or refused at once.
        let nowhere: SocketAddr = ([192, 0, 2, 1], 9).into();
        for round in 0..20 {
            let events = system();
            let listener = Listener::bind(&events, local(), |_, _| {}).unwrap();
            let bev = Builder::new(&events).connect(nowhere).unwrap();
            bev.write(b"to nobody").unwrap();
            turns(&events, 1);
            if round % 2 == 0 {
                drop((bev, listener));
                until(&events, "both have ended", || port(&events).lanes() == 0);
            }
        }
    });
}

#[test]
fn half_a_stream_ends_and_the_other_goes_on() {
    record::within("completion", BACKEND, || {
        fault!(F19);
        let events = system();
        let plain = TcpListener::bind(local()).unwrap();
        let (bev, mut far) = joined(&events, &plain);
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.enable(READ).unwrap();
        bev.write(b"all I have").unwrap();
        bev.finish().unwrap();
        let mut all = Vec::new();
        let reader = std::thread::spawn(move || {
            far.read_to_end(&mut all).unwrap();
            far.write_all(&bytes(7, 3_000_000)).unwrap();
            all
        });
        until(&events, "the end", || log.has(&Told::Eof));
        assert_eq!(reader.join().unwrap(), b"all I have");
        assert!(log.received() == bytes(7, 3_000_000));
    });
}
