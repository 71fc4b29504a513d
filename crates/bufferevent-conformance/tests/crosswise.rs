//! Two relays joined crosswise over two loops, four threads, random operations: no deadlock, nothing lost.
//!
//! ```text
//!            loop 1                 loop 2
//!   user  outer == inner <-relay-> inner == outer  user         one relay
//!   user  outer == inner <-relay-> inner == outer  user         the other, made the other way round
//! ```
//!
//! A callback of an inner end on one loop writes to, stops and starts its counterpart on the other, and the other way round, at once: what
//! deadlocks when each waits for the other's lock. Two user threads write and read at the outer ends, and do whatever may be
//! done to any end meanwhile.
//!
//! `BUFFEREVENT_CROSSWISE_SECONDS` says how long; the default is a short form.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bufferevent_core::{
    Bev, Direction, Event, EventFlags, Handler, Kind, Mode, Options, Pressure, READ,
    TriggerOptions, WRITE,
};
use bufferevent_testkit::{Random, fault, spec};
use evreactor::{EventLoop, LoopHandle};

/// The variable that says how long the random part lasts, in seconds.
const SECONDS: &str = "BUFFEREVENT_CROSSWISE_SECONDS";

/// How long the random part lasts by itself.
const SHORT: Duration = Duration::from_millis(1500);

/// Time to come to an end after the random part: much longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a user leaves waiting in an output, in bytes.
const ENOUGH: usize = 64 * 1024;

/// Write high-water mark of the inner ends, in bytes.
const MARK: usize = 8 * 1024;

/// What went wrong anywhere.
type Wrong = Arc<Mutex<Vec<String>>>;

fn complain(wrong: &Wrong, what: String) {
    wrong.lock().expect("nobody panics with it").push(what);
}

/// The handler of an inner end.
struct Relay {
    to: Bev,
    random: Random,
    wrong: Wrong,
}

impl Handler for Relay {
    fn on_read(&mut self, bev: &Bev) {
        match self.to.output().append_from(&bev.input()) {
            Ok(_) if self.to.is_full() => bev.suspend(READ).expect("it is there"),
            Ok(_) => {}
            // The other loop has not had its turn for long.
            Err(error) if error.kind() == Kind::Full => bev
                .trigger(READ, TriggerOptions::DEFER_CALLBACKS)
                .expect("it is there"),
            // Called by hand after the end, with nothing left to pass on.
            Err(error) if error.kind() == Kind::Ended && bev.input().is_empty() => {}
            Err(error) => complain(&self.wrong, format!("relaying: {error}")),
        }
        match self.random.below(8) {
            0 => match self.to.lock() {
                Err(error) if error.kind() != Kind::Busy => {
                    complain(&self.wrong, format!("locking: {error}"));
                }
                held => drop(held),
            },
            1 => drop(self.to.flush(Direction::Write, Mode::Flush)),
            2 => drop(self.to.trigger(WRITE, TriggerOptions::EMPTY)),
            3 => drop((self.to.stats(), self.to.room(), self.to.underlying())),
            4 => drop(self.to.input().copy_out(&mut [0; 8])),
            _ => {}
        }
    }

    fn on_pressure(&mut self, _: &Bev, pressure: Pressure) {
        if pressure == Pressure::Eased
            && let Err(error) = self.to.resume(READ)
        {
            complain(&self.wrong, format!("going on: {error}"));
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match event {
            Event::Eof => {
                // What came before it is on its way already.
                if !bev.input().is_empty() {
                    self.on_read(bev);
                }
                if let Err(error) = self.to.finish() {
                    complain(&self.wrong, format!("finishing: {error}"));
                }
            }
            Event::Error { error, .. } => complain(&self.wrong, format!("told: {error}")),
            _ => {}
        }
    }
}

/// The handler of an outer end: notes its end.
struct Ends(Arc<AtomicBool>);

impl Handler for Ends {
    fn on_event(&mut self, _: &Bev, event: &Event) {
        if matches!(event, Event::Eof) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// One outer end, as its user sees it.
struct Outer {
    bev: Bev,
    /// Bytes written here, and at the other outer end.
    written: Arc<AtomicUsize>,
    expected: Arc<AtomicUsize>,
    read: usize,
    ended: Arc<AtomicBool>,
}

fn byte_at(place: usize) -> u8 {
    (place % 253) as u8
}

impl Outer {
    fn write(&mut self, random: &mut Random) {
        if self.bev.output().len() > ENOUGH {
            return;
        }
        let from = self.written.load(Ordering::SeqCst);
        let bytes: Vec<u8> = (from..from + random.within(1..4000)).map(byte_at).collect();
        self.written.store(from + bytes.len(), Ordering::SeqCst);
        self.bev.write(&bytes).expect("it is open");
    }

    /// Answers whether all has come, and the end.
    fn read(&mut self, random: &mut Random) -> bool {
        let over = self.ended.load(Ordering::SeqCst);
        let mut bytes = vec![0; random.within(1..8000)];
        let count = self.bev.read(&mut bytes).expect("nothing else is held");
        for byte in &bytes[..count] {
            assert_eq!(*byte, byte_at(self.read), "byte {}", self.read);
            self.read += 1;
        }
        over && count == 0
    }
}

/// Whatever may be done to an end, or to two of them, without a change of the stream.
fn meddle(bevs: &[Bev], random: &mut Random) {
    let one = &bevs[random.below(bevs.len())];
    let other = &bevs[random.below(bevs.len())];
    let far_off = Some(Duration::from_secs(100_000));
    match random.below(9) {
        0 => {
            // Under one lock, operations on another: none waits.
            let _lock = one.lock().expect("nothing else is held");
            drop(other.trigger(WRITE, TriggerOptions::DEFER_CALLBACKS));
            drop(other.set_timeouts(far_off, far_off));
            drop(other.input().copy_out(&mut [0; 4]));
            let _ = (other.input().len(), other.output().len(), other.is_full());
        }
        1 => {
            let _both = one.lock_both(other).expect("nothing else is held");
            assert!(!one.is_freed() && !other.is_freed());
        }
        2 => one
            .trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
            .expect("it is there"),
        3 => drop(
            one.flush(Direction::Write, Mode::Flush)
                .expect("it is there"),
        ),
        4 => drop(
            one.flush(Direction::Read, Mode::Normal)
                .expect("it is there"),
        ),
        5 => one
            .set_max_single_read(1024 + random.below(99_999))
            .expect("it is there"),
        6 => one
            .trigger_event(EventFlags::CONNECTED, TriggerOptions::EMPTY)
            .expect("it is there"),
        7 => {
            one.disable(WRITE).expect("it is there");
            one.enable(WRITE).expect("it has not failed");
        }
        _ => thread::yield_now(),
    }
}

/// The two ends of a transport on a loop.
type Make = fn(&LoopHandle) -> (Bev, Bev);

fn pairs(events: &LoopHandle) -> (Bev, Bev) {
    bufferevent_pair::pair_with(events, Options::THREADSAFE).expect("a pair")
}

#[cfg(unix)]
fn sockets(events: &LoopHandle) -> (Bev, Bev) {
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("descriptors");
    let made = |stream: std::os::unix::net::UnixStream| {
        let builder = bufferevent_socket::Builder::new(events).options(Options::THREADSAFE);
        builder.stream(stream).expect("any thread may")
    };
    (made(near), made(far))
}

/// A loop on a thread of its own.
fn run_loop() -> (LoopHandle, thread::JoinHandle<u64>) {
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        let events = EventLoop::new().expect("a backend");
        tell.send(LoopHandle::clone(&events))
            .expect("the test waits");
        events.run_until_exit().expect("the backend waits");
        events.stats().panics
    });
    (told.recv().expect("the loop is made"), thread)
}

/// A relay between two loops: its two outer ends, and all four ends.
fn relay(make: Make, from: &LoopHandle, to: &LoopHandle, wrong: &Wrong) -> ([Outer; 2], Vec<Bev>) {
    let ((left, inner), (right, counter)) = (make(from), make(to));
    for (seed, one, other) in [(1, &inner, &counter), (2, &counter, &inner)] {
        one.set_write_watermark(0, MARK).expect("it is there");
        one.set_handler(Relay {
            to: other.clone(),
            random: Random::new(seed),
            wrong: wrong.clone(),
        })
        .expect("it is there");
        one.enable(READ).expect("it is there");
    }
    let counts = [Arc::default(), Arc::default()];
    let outer = |bev: &Bev, written: &Arc<AtomicUsize>, expected: &Arc<AtomicUsize>| {
        let ended = Arc::new(AtomicBool::new(false));
        bev.set_handler(Ends(ended.clone())).expect("it is there");
        bev.set_read_watermark(0, 16 * 1024).expect("it is there");
        bev.enable(READ).expect("it is there");
        Outer {
            bev: bev.clone(),
            written: written.clone(),
            expected: expected.clone(),
            read: 0,
            ended,
        }
    };
    let outers = [
        outer(&left, &counts[0], &counts[1]),
        outer(&right, &counts[1], &counts[0]),
    ];
    (outers, vec![left, inner, counter, right])
}

/// A user of some outer ends: writes and reads for a while, then ends and reads all that comes.
fn user(mut ends: Vec<Outer>, all: &[Bev], seed: u64, span: Duration) {
    let mut random = Random::new(seed);
    let began = Instant::now();
    while began.elapsed() < span {
        for end in &mut ends {
            end.write(&mut random);
            end.read(&mut random);
        }
        meddle(all, &mut random);
    }
    for end in &ends {
        end.bev.finish().expect("it is open");
    }
    while !ends.is_empty() {
        ends.retain_mut(|end| {
            let over = end.read(&mut random);
            assert!(
                !over || end.read == end.expected.load(Ordering::SeqCst),
                "bytes are lost"
            );
            !over
        });
        thread::yield_now();
    }
}

/// How all ends stand, for who has to find out why.
fn appearances(all: &[Bev]) -> String {
    let lines = all.iter().map(|bev| {
        let held = (
            bev.suspended(Direction::Read),
            bev.suspended(Direction::Write),
        );
        let (stats, enabled, full) = (bev.stats(), bev.enabled(), bev.is_full());
        format!("\n  {enabled:?} held {held:?} full {full} {stats:?}")
    });
    lines.collect()
}

fn crosswise(make: Make) {
    spec!(O2, G7);
    fault!(F87);
    let seconds = std::env::var(SECONDS)
        .ok()
        .and_then(|text| text.parse().ok());
    let span = seconds.map_or(SHORT, Duration::from_secs);
    let wrong = Wrong::default();
    let ((first, one), (second, two)) = (run_loop(), run_loop());
    let ([a, b], mut all) = relay(make, &first, &second, &wrong);
    let ([c, d], more) = relay(make, &second, &first, &wrong);
    all.extend(more);
    let totals = [
        a.written.clone(),
        b.written.clone(),
        c.written.clone(),
        d.written.clone(),
    ];
    let (done, is_done) = channel();
    for (seed, ends) in [(11, vec![a, d]), (12, vec![b, c])] {
        let (all, done) = (all.clone(), done.clone());
        thread::spawn(move || {
            user(ends, &all, seed, span);
            done.send(()).expect("the test waits");
        });
    }
    drop(done);
    for _ in 0..2 {
        match is_done.recv_timeout(span + PATIENCE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("stuck: {}", appearances(&all)),
            Err(RecvTimeoutError::Disconnected) => panic!("a user has panicked"),
        }
    }
    first.exit();
    second.exit();
    let panics = one.join().expect("the loop ends") + two.join().expect("the loop ends");
    assert_eq!(panics, 0);
    let wrong = wrong.lock().expect("nobody panics with it");
    assert!(wrong.is_empty(), "{wrong:?}");
    let total: usize = totals
        .iter()
        .map(|total| total.load(Ordering::SeqCst))
        .sum();
    assert!(total > 100_000, "they moved {total} bytes only");
    println!("{total} bytes in {span:?}");
}

#[test]
fn relays_over_pairs() {
    crosswise(pairs);
}

#[cfg(unix)]
#[test]
fn relays_over_sockets() {
    crosswise(sockets);
}
