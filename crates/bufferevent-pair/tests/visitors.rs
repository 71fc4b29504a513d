//! Threads that come from outside of the loop to write, and hold nothing: they do not wait for a stack that is busy.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bufferevent_core::{Bev, Kind, Options, READ, WRITE};
use bufferevent_pair::pair_with;
use bufferevent_testkit::{Log, Loop, spec};
use bytes::Bytes;
use evbuffer::EvBuffer;

/// Much longer than anything here takes; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

const MIB: usize = 1 << 20;

fn shared(events: &Loop) -> (Bev, Bev) {
    let (near, far) = pair_with(events, Options::THREADSAFE).expect("a pair");
    far.enable(READ).expect("it is there");
    (near, far)
}

/// A thread that holds a bufferevent's lock until it is told to let go.
struct Holder {
    let_go: Sender<()>,
    thread: JoinHandle<()>,
}

impl Holder {
    fn of(bev: &Bev) -> Self {
        let bev = bev.clone();
        let (holds, held) = channel();
        let (let_go, told) = channel::<()>();
        let thread = thread::spawn(move || {
            let _lock = bev.lock().expect("any thread may");
            holds.send(()).expect("the test waits");
            // Also if the test has failed.
            let _ = told.recv();
        });
        held.recv().expect("it takes the lock");
        Self { let_go, thread }
    }

    fn let_go(self) {
        self.let_go.send(()).expect("it waits");
        self.thread.join().expect("no panic");
    }
}

/// Runs `visit` on another thread; what it answers comes by the channel.
fn visit<R: Send + 'static>(
    bev: &Bev,
    visit: impl FnOnce(&Bev) -> R + Send + 'static,
) -> Receiver<R> {
    let bev = bev.clone();
    let (tell, told) = channel();
    thread::spawn(move || tell.send(visit(&bev)).expect("the test waits"));
    told
}

fn received(far: &Bev) -> Vec<u8> {
    let mut bytes = vec![0; far.input().len()];
    assert_eq!(far.read(&mut bytes).expect("it is there"), bytes.len());
    bytes
}

#[test]
fn who_writes_does_not_wait_for_a_stack_that_is_busy() {
    spec!(O2, G4);
    let events = Loop::new();
    let (near, far) = shared(&events);
    let holder = Holder::of(&near);
    let done = visit(&near, |bev| {
        bev.write(b"one ").expect("taken in");
        bev.output()
            .append_bytes(Bytes::from_static(b"two "))
            .expect("taken in");
        let mut buffer = EvBuffer::new();
        buffer.append_slice(b"three ").expect("there is memory");
        bev.write_buffer(&mut buffer).expect("taken in");
        assert!(buffer.is_empty(), "moved");
        bev.write(b"four").expect("taken in");
        bev.output().len()
    });
    let length = done.recv_timeout(PATIENCE).expect("it does not wait");
    assert_eq!(length, 18, "what waits counts as output");
    holder.let_go();
    events.run();
    assert_eq!(received(&far), b"one two three four");
    assert_eq!(near.output().len(), 0);
}

#[test]
fn what_a_thread_does_comes_in_its_order() {
    spec!(O2, G7);
    let events = Loop::new();
    let (near, far) = shared(&events);
    visit(&near, |bev| {
        bev.write(b"1").expect("taken in");
        let lock = bev.lock().expect("any thread may");
        // Now by the lock, behind what was taken in without it.
        bev.write(b"2").expect("it is open");
        assert_eq!(bev.output().len(), 2);
        drop(lock);
        bev.write(b"3").expect("taken in");
        bev.set_max_output(1).expect("it is there");
        let full = bev.write(b"4").expect_err("past the limit").kind();
        bev.finish().expect("it is open");
        let ended = bev.write(b"5").expect_err("behind the end").kind();
        assert_eq!((full, ended), (Kind::Full, Kind::Ended));
    })
    .recv_timeout(PATIENCE)
    .expect("no panic");
    events.run();
    assert_eq!(received(&far), b"123");
}

#[test]
fn who_writes_more_than_may_wait_waits_for_the_lock_and_is_not_refused() {
    spec!(O2);
    let events = Loop::new();
    let (near, far) = shared(&events);
    let holder = Holder::of(&near);
    let done = visit(&near, |bev| {
        let block = vec![7; MIB];
        for _ in 0..20 {
            bev.write(&block).expect("it is open");
        }
    });
    // It has come as far as it can without the lock.
    while near.output().len() < 16 * MIB {
        thread::yield_now();
    }
    assert_eq!(done.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(near.output().len(), 16 * MIB, "no more waits without it");
    holder.let_go();
    done.recv_timeout(PATIENCE).expect("no panic");
    events.run();
    assert_eq!(far.input().len(), 20 * MIB);
}

#[test]
fn who_writes_sees_at_once_that_it_is_full() {
    spec!(O2, C5);
    let events = Loop::new();
    let (near, _far) = shared(&events);
    near.set_write_watermark(0, 10).expect("it is there");
    near.disable(WRITE).expect("it is there");
    let full = visit(&near, |bev| {
        bev.write(&[0; 9]).expect("taken in");
        let before = (bev.is_full(), bev.room());
        bev.write(&[0; 1]).expect("taken in");
        (before, bev.is_full(), bev.room())
    });
    let full = full.recv_timeout(PATIENCE).expect("no panic");
    assert_eq!(full, ((false, 1), true, 0));
}

#[test]
fn freeing_tells_each_unsent_byte_once() {
    spec!(O2, G1);
    let events = Loop::new();
    for here in [true, false] {
        let (near, far) = shared(&events);
        near.write(b"here").expect("it is open");
        let write = |bev: &Bev| bev.write(b"there").expect("taken in");
        visit(&near, write)
            .recv_timeout(PATIENCE)
            .expect("no panic");
        near.disable(WRITE).expect("it is there");
        visit(&near, write)
            .recv_timeout(PATIENCE)
            .expect("no panic");
        let free = |bev: &Bev| bev.free().expect("it is there");
        let sent = far.stats().read as usize;
        let unsent = if here {
            free(&near)
        } else {
            visit(&near, free).recv_timeout(PATIENCE).expect("no panic")
        };
        assert_eq!(sent + unsent, 14);
        events.run();
    }
}

#[test]
fn what_a_visitor_wrote_and_an_end_of_somebody_elses_overtook_is_told() {
    spec!(O2, C6);
    let events = Loop::new();
    let (near, _far) = shared(&events);
    let log = Log::new();
    near.set_handler(log.watch()).expect("it is there");
    let other = near.clone();
    let (holds, held) = channel();
    let (let_go, told) = channel::<()>();
    let holder = thread::spawn(move || {
        let _lock = other.lock().expect("any thread may");
        holds.send(()).expect("the test waits");
        let _ = told.recv();
        other.finish().expect("it is open");
    });
    held.recv().expect("it takes the lock");
    visit(&near, |bev| bev.write(b"too late").expect("taken in"))
        .recv_timeout(PATIENCE)
        .expect("it does not wait");
    let_go.send(()).expect("it waits");
    holder.join().expect("no panic");
    events.run();
    let kinds = format!("{:?}", log.told());
    assert!(kinds.contains("Ended"), "{kinds}");
}
