//! Other threads: with THREADSAFE they may do what they like while the loop runs, without it they are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bufferevent_core::{
    Bev, Direction, Directions, Event, EventFlags, Handler, Mode, Options, READ, TriggerOptions,
    WRITE,
};
use bufferevent_testkit::{Random, fault, spec};
use evbuffer::EvBuffer;
use evreactor_core::Priority;

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("used from two threads while the loop runs", used),
    ("freed from other threads while the loop runs", freed),
];

/// Bytes that go through in one run: many turns of the loop.
const BYTES: usize = 48 * 1024;

/// What waits in an output before its writer rests, in bytes.
const ENOUGH: usize = 32 * 1024;

/// Longer than any run takes on a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a thread leaves to the others when it has nothing to do: the checks of other types run on the same cores.
const PAUSE: Duration = Duration::from_micros(100);

/// The option sets under which threads share a bufferevent.
fn shared() -> [Options; 3] {
    let deferred = Options::THREADSAFE | Options::DEFER_CALLBACKS;
    [
        Options::THREADSAFE,
        deferred,
        deferred | Options::UNLOCK_CALLBACKS,
    ]
}

/// The byte that stands at this place of the stream.
fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

/// Counts its calls, and tells if it is entered twice at once, or after `over`.
#[derive(Clone, Default)]
struct Counts {
    inside: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    wrong: Arc<AtomicBool>,
}

impl Counts {
    fn enter(&self) {
        let alone = self.inside.fetch_add(1, Ordering::SeqCst) == 0;
        if !alone || self.over.load(Ordering::SeqCst) {
            self.wrong.store(true, Ordering::SeqCst);
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Counts {
    fn on_read(&mut self, _: &Bev) {
        self.enter();
    }
    fn on_write(&mut self, _: &Bev) {
        self.enter();
    }
    fn on_event(&mut self, _: &Bev, event: &Event) {
        self.enter();
        if matches!(event, Event::Eof) {
            self.ended.store(true, Ordering::SeqCst);
        }
    }
}

/// Runs the loop until all threads are through.
fn run_until_done<T>(joint: &dyn Joint, threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let began = Instant::now();
    while !threads.iter().all(JoinHandle::is_finished) {
        if !joint.turn() {
            thread::sleep(PAUSE);
        }
        assert!(
            began.elapsed() < PATIENCE,
            "a thread does not come to its end"
        );
    }
    threads
        .into_iter()
        .map(|thread| thread.join().expect("no thread panics"))
        .collect()
}

/// Something that changes nothing about the stream.
fn meddle(bev: &Bev, random: &mut Random) {
    let fine = "it is there, and any thread may";
    let far_off = Some(Duration::from_secs(100_000));
    match random.below(16) {
        0 => bev
            .set_watermark(Direction::Write, random.below(9), 1024 + random.below(9999))
            .expect(fine),
        1 => bev
            .set_watermark(Direction::Read, 0, 1 + random.below(9999))
            .expect(fine),
        2 => {
            bev.suspend(Directions::BOTH).expect(fine);
            bev.resume(Directions::BOTH).expect(fine);
        }
        3 => bev
            .trigger(Directions::BOTH, TriggerOptions::IGNORE_WATERMARKS)
            .expect(fine),
        4 => bev
            .trigger_event(EventFlags::CONNECTED, TriggerOptions::DEFER_CALLBACKS)
            .expect(fine),
        5 => bev.set_timeouts(far_off, far_off).expect(fine),
        6 => drop(bev.flush(Direction::Write, Mode::Flush).expect(fine)),
        7 => drop(bev.flush(Direction::Read, Mode::Normal).expect(fine)),
        8 => {
            let lock = bev.lock().expect(fine);
            let inner = bev.lock().expect("it is recursive");
            let length = bev.input().len();
            drop(inner);
            assert_eq!(bev.input().len(), length, "nobody else is in there");
            drop(lock);
        }
        9 => bev.set_priority(Priority(0)).expect(fine),
        10 => bev
            .set_max_single_read(4096 + random.below(9999))
            .expect(fine),
        11 => bev
            .set_max_single_write(4096 + random.below(9999))
            .expect(fine),
        12 => {
            bev.disable(WRITE).expect(fine);
            bev.enable(WRITE).expect(fine);
        }
        13 => {
            let _ = (
                bev.stats(),
                bev.room(),
                bev.is_full(),
                bev.interest(),
                bev.enabled(),
            );
            let _ = (
                bev.watermark(Direction::Read),
                bev.timeouts(),
                bev.priority(),
            );
            drop((bev.underlying(), format!("{bev:?}")));
        }
        14 => drop(bev.clone()),
        _ => thread::sleep(PAUSE),
    }
}

/// Writes the stream, in every way there is, and ends it.
fn write_all(bev: &Bev, seed: u64) {
    let mut random = Random::new(seed);
    let mut written = 0;
    while written < BYTES {
        let count = random.within(1..2000).min(BYTES - written);
        let bytes: Vec<u8> = (written..written + count).map(byte_at).collect();
        match random.below(4) {
            0 => bev.write(&bytes).expect("it is open"),
            1 => {
                let mut buffer = EvBuffer::new();
                buffer.append_slice(&bytes).expect("there is memory");
                bev.write_buffer(&mut buffer).expect("it is open");
            }
            2 => bev.output().append_bytes(bytes.into()).expect("it is open"),
            _ => {
                let _lock = bev.lock().expect("any thread may");
                let (first, rest) = bytes.split_at(count / 2);
                bev.write(first).expect("it is open");
                bev.write(rest).expect("it is open");
            }
        }
        written += count;
        meddle(bev, &mut random);
        while bev.output().len() > ENOUGH {
            thread::sleep(PAUSE);
        }
    }
    bev.finish().expect("it is open");
}

/// Reads the stream until it has ended.
fn read_all(bev: &Bev, seed: u64, ended: &AtomicBool) -> usize {
    let mut random = Random::new(seed);
    let mut taken = 0;
    let mut bytes = vec![0; 4096];
    loop {
        let over = ended.load(Ordering::SeqCst);
        let room = random.within(1..bytes.len());
        let count = bev.read(&mut bytes[..room]).expect("it is there");
        for byte in &bytes[..count] {
            assert_eq!(*byte, byte_at(taken), "byte {taken}");
            taken += 1;
        }
        if count == 0 && over {
            return taken;
        }
        if count == 0 {
            thread::sleep(PAUSE);
        }
        // Reading that the end has disabled cannot be enabled again.
        if random.once_in(8) {
            meddle(bev, &mut random);
        } else if random.once_in(8) {
            bev.disable(READ).expect("it is there");
            let _ = bev.enable(READ);
        }
    }
}

fn used(joint: &dyn Joint) {
    spec!(O2, O4, G7);
    for (seed, options) in (1..).zip(shared()) {
        let (near, far) = joint.make(options);
        let (told, counts) = (Counts::default(), Counts::default());
        near.set_handler(told.clone()).expect("it is there");
        far.set_handler(counts.clone()).expect("it is there");
        far.enable(READ).expect("it is there");
        let (writes, reads) = (near.clone(), far.clone());
        let ended = counts.ended.clone();
        let threads = vec![
            thread::spawn(move || {
                write_all(&writes, seed);
                BYTES
            }),
            thread::spawn(move || read_all(&reads, seed + 100, &ended)),
        ];
        assert_eq!(
            run_until_done(joint, threads),
            [BYTES, BYTES],
            "nothing is lost"
        );
        for handler in [&told, &counts] {
            assert!(handler.calls.load(Ordering::SeqCst) > 0, "it was called");
            assert!(!handler.wrong.load(Ordering::SeqCst), "never twice at once");
        }
        assert_eq!(joint.panics(), 0);
    }
}

fn freed(joint: &dyn Joint) {
    spec!(O2, G1);
    fault!(F86);
    for (seed, options) in (1..).zip(shared()) {
        for round in 0..4 {
            let (near, far) = joint.make(options);
            let counts = Counts::default();
            near.set_handler(counts.clone()).expect("it is there");
            // Without one it would free itself when the other is gone.
            far.set_handler(Counts::default()).expect("it is there");
            near.enable(READ).expect("it is there");
            far.enable(READ).expect("it is there");
            let writer = |bev: Bev, seed: u64| {
                thread::spawn(move || {
                    let mut random = Random::new(seed);
                    // Until it is freed, or its stream has ended for that the other was.
                    while !bev.is_freed() {
                        let _ = bev.write(&[1; 100]);
                        let _ = bev.trigger(READ, TriggerOptions::DEFER_CALLBACKS);
                        let _ = bev.input().drain(usize::MAX);
                        if random.once_in(4) {
                            thread::sleep(PAUSE);
                        }
                    }
                })
            };
            let frees = |bev: Bev, pause: usize| {
                thread::spawn(move || {
                    for _ in 0..pause {
                        thread::sleep(PAUSE);
                    }
                    bev.free().expect("nobody else frees it");
                })
            };
            let mut random = Random::new(seed * 10 + round);
            let threads = vec![
                writer(near.clone(), seed),
                writer(far.clone(), seed + 50),
                frees(near.clone(), random.below(60)),
                frees(far.clone(), random.below(60)),
            ];
            run_until_done(joint, threads);
            assert!(near.is_freed() && far.is_freed());
            counts.over.store(true, Ordering::SeqCst);
            joint.settle();
            assert!(
                !counts.wrong.load(Ordering::SeqCst),
                "told after it was freed"
            );
            assert_eq!(joint.panics(), 0);
        }
    }
}
