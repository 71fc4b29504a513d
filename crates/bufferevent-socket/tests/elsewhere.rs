//! What only a socket can do, from another thread than its loop's: with THREADSAFE all of it, while the loop runs; without, none.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bufferevent_core::{
    Bev, Direction, Event, Handler, Kind, Options, READ, TriggerOptions, WRITE, on_event, on_read,
};
use bufferevent_socket::{Builder, Socket, SocketExt as _};
use bufferevent_testkit::{Through, spec};
use evreactor::{EventLoop, LoopHandle, LoopPool};

/// Much longer than anything here takes; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that go through while their connection moves.
const BYTES: usize = 4 << 20;

/// Times that it moves.
const MOVES: usize = 40;

fn pool(count: usize) -> LoopPool {
    LoopPool::builder(NonZeroUsize::new(count).unwrap())
        .start()
        .unwrap()
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn shared(events: &LoopHandle, near: TcpStream) -> Bev {
    let builder = Builder::new(events).options(Options::THREADSAFE);
    builder.stream(near).unwrap()
}

/// A handler that tells when so many bytes wait.
fn tells_at(count: usize) -> (impl Handler + Send, Receiver<()>) {
    let (tell, told) = channel();
    let handler = on_read(move |bev| {
        if bev.input().len() >= count {
            let _ = tell.send(());
        }
    });
    (handler, told)
}

#[test]
fn its_descriptor_and_its_addresses_are_told() {
    spec!(O2, A5);
    let pool = pool(1);
    let (near, far) = connected();
    let (local, peer) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
    #[cfg(unix)]
    let raw = std::os::fd::AsRawFd::as_raw_fd(&near);
    let bev = shared(&pool.handles()[0], near);
    #[cfg(unix)]
    assert_eq!(bev.fd(), Some(raw));
    assert_eq!(bev.local_addr().unwrap().to_string(), local.to_string());
    assert_eq!(bev.peer_addr().unwrap().to_string(), peer.to_string());
    let here = thread::current().id();
    let layer = bev.layer::<Socket>().unwrap();
    let there = layer.with(|_, _| thread::current().id()).unwrap();
    assert_eq!(here, there, "on the thread that asks, under the lock");
    drop(far);
}

#[test]
fn it_connects() {
    spec!(O2, S2);
    let pool = pool(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (tell, told) = channel();
    let bev = Builder::new(&pool.handles()[0])
        .options(Options::THREADSAFE)
        .handler(on_event(move |_, event| {
            let _ = tell.send((format!("{event:?}"), thread::current().id()));
        }))
        .unconnected()
        .unwrap();
    bev.connect(listener.local_addr().unwrap()).unwrap();
    bev.write(b"early").unwrap();
    let (event, thread) = told.recv_timeout(PATIENCE).unwrap();
    assert!(event.contains("Connected"), "{event}");
    assert_ne!(thread, thread::current().id(), "told on the loop's");
    let again = bev.connect(listener.local_addr().unwrap()).unwrap_err();
    assert_eq!(again.kind(), Kind::Misuse);
    let mut bytes = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"early");
}

#[test]
fn it_is_given_another_socket() {
    spec!(O2, S5);
    let pool = pool(1);
    let ((near, mut far), (other, mut beyond)) = (connected(), connected());
    let bev = shared(&pool.handles()[0], near);
    let (handler, told) = tells_at(2);
    bev.set_handler(handler).unwrap();
    bev.enable(READ).unwrap();
    bev.set_stream(other).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "the one before is closed");
    beyond.write_all(b"in").unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    bev.write(b"out").unwrap();
    let mut bytes = [0; 3];
    beyond.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"out");
}

#[test]
fn its_socket_is_taken_out_with_all_that_waits() {
    spec!(O2, O1);
    let pool = pool(1);
    let (near, mut far) = connected();
    let bev = shared(&pool.handles()[0], near);
    let (handler, told) = tells_at(6);
    bev.set_handler(handler).unwrap();
    bev.disable(WRITE).unwrap();
    bev.enable(READ).unwrap();
    far.write_all(b"unread").unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    bev.write(b"unsent").unwrap();
    let parts = bev.into_transport().unwrap();
    assert_eq!((parts.unread.len(), parts.unsent.len()), (6, 6));
    far.write_all(b"later").unwrap();
    let mut near = TcpStream::from(parts.stream);
    near.set_nonblocking(false).unwrap();
    let mut bytes = [0; 5];
    near.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"later", "nobody else reads it");
}

fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

/// Takes what comes, but for a part that stays unread until more or the end comes; and tells of the end.
struct Takes {
    taken: Arc<Mutex<Vec<u8>>>,
    ended: Sender<()>,
}

impl Handler for Takes {
    fn on_read(&mut self, bev: &Bev) {
        let length = bev.input().len();
        self.take(bev, length - length / 3);
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        assert!(matches!(event, Event::Eof), "{event:?}");
        self.take(bev, bev.input().len());
        let _ = self.ended.send(());
    }
}

impl Takes {
    fn take(&self, bev: &Bev, count: usize) {
        let mut bytes = vec![0; count];
        let count = bev.read(&mut bytes).unwrap();
        self.taken
            .lock()
            .unwrap()
            .extend_from_slice(&bytes[..count]);
    }
}

/// While bytes come and go, the connection moves from loop to loop, of two other threads. No byte is lost, doubled or out of order.
#[test]
fn it_moves_between_the_loops_of_other_threads_while_bytes_come_and_go() {
    spec!(O2, S5);
    let pool = pool(2);
    let (near, far) = connected();
    let mut bev = shared(&pool.handles()[0], near);
    let taken = Arc::<Mutex<Vec<u8>>>::default();
    let (tell, ended) = channel();
    bev.set_handler(Takes {
        taken: taken.clone(),
        ended: tell,
    })
    .unwrap();
    bev.set_read_watermark(0, 16 * 1024).unwrap();
    bev.enable(READ).unwrap();
    let mut writer = far.try_clone().unwrap();
    let (end, may_end) = channel::<()>();
    let writing = thread::spawn(move || {
        let bytes: Vec<u8> = (0..BYTES).map(byte_at).collect();
        for piece in bytes.chunks(10_007) {
            writer.write_all(piece).unwrap();
        }
        may_end.recv().unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        (&far).read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut written = 0;
    for turn in 0..MOVES {
        let bytes: Vec<u8> = (written..written + 5000).map(byte_at).collect();
        bev.write(&bytes).unwrap();
        written += bytes.len();
        bev = bev.move_to_loop(&pool.handles()[(turn + 1) % 2]).unwrap();
    }
    end.send(()).unwrap();
    ended.recv_timeout(PATIENCE).unwrap();
    bev.finish().unwrap();
    writing.join().unwrap();
    for bytes in [&*taken.lock().unwrap(), &reading.join().unwrap()] {
        let wrong = (0..bytes.len()).find(|place| bytes[*place] != byte_at(*place));
        assert_eq!(wrong, None);
    }
    assert_eq!(taken.lock().unwrap().len(), BYTES);
}

#[test]
fn an_end_that_was_asked_for_comes_behind_the_unsent_bytes_after_a_move() {
    spec!(S5, G6);
    let events = EventLoop::new().unwrap();
    let next = EventLoop::new().unwrap();
    let (near, far) = connected();
    let bev = Builder::new(&events).stream(near).unwrap();
    bev.disable(WRITE).unwrap();
    bev.write(b"the last words").unwrap();
    bev.finish().unwrap();
    let moved = bev.move_to_loop(&LoopHandle::clone(&next)).unwrap();
    assert_eq!(moved.write(b"more").unwrap_err().kind(), Kind::Ended);
    let stop = LoopHandle::clone(&next);
    let written = on_event(move |_, event| {
        if matches!(event, Event::Written) {
            stop.exit();
        }
    });
    moved.set_handler(written).unwrap();
    next.exit_after(PATIENCE).unwrap();
    moved.enable(WRITE).unwrap();
    next.run_until_exit().unwrap();
    let mut bytes = Vec::new();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    (&far).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"the last words");
}

#[test]
fn a_move_that_is_refused_changes_nothing() {
    spec!(O2, S5);
    let events = EventLoop::new().unwrap();
    let (near, _far) = connected();
    let (tell, told) = channel();
    let bev = Builder::new(&events).stream(near).unwrap();
    let top = bev.over(Options::EMPTY, Through::new()).unwrap();
    let handler = on_read(move |_| tell.send(()).unwrap());
    top.set_handler(handler).unwrap();
    let refused = top.move_to_loop(&events).unwrap_err();
    assert_eq!(
        refused.kind(),
        Kind::Unsupported,
        "a layer is on the socket"
    );
    let refused = bev.move_to_loop(&events).unwrap_err();
    assert_eq!(refused.kind(), Kind::Covered);
    assert!(!top.is_freed() && !bev.is_freed());
    let always = TriggerOptions::IGNORE_WATERMARKS;
    top.trigger(READ, always).unwrap();
    events.poll().unwrap();
    told.try_recv().expect("the handler is still there");
}

#[test]
fn without_threadsafe_each_is_refused_and_changes_nothing() {
    spec!(O2);
    let events = EventLoop::new().unwrap();
    let other = EventLoop::new().unwrap();
    let next = LoopHandle::clone(&other);
    let (near, far) = connected();
    let bev = Builder::new(&events).stream(near).unwrap();
    let before = (bev.fd(), bev.enabled(), bev.watermark(Direction::Read));
    let elsewhere = bev.clone();
    thread::spawn(move || {
        let bev = elsewhere;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let (spare, _kept) = connected();
        let kinds = [
            bev.connect(nowhere).unwrap_err().kind(),
            bev.tell_connected().unwrap_err().kind(),
            bev.set_stream(spare).unwrap_err().kind(),
            bev.clone().into_transport().unwrap_err().kind(),
            bev.move_to_loop(&next).unwrap_err().kind(),
            bev.local_addr().unwrap_err().kind(),
            bev.peer_addr().unwrap_err().kind(),
        ];
        assert_eq!(kinds, [Kind::WrongThread; 7]);
        let payload = catch_unwind(AssertUnwindSafe(|| bev.fd())).unwrap_err();
        let reason = payload.downcast_ref::<&str>().unwrap();
        assert!(reason.contains("Options::THREADSAFE"), "{reason}");
    })
    .join()
    .unwrap();
    let after = (bev.fd(), bev.enabled(), bev.watermark(Direction::Read));
    assert_eq!(before, after);
    bev.write(b"x").unwrap();
    let mut byte = [0];
    (&far).read_exact(&mut byte).unwrap();
}
