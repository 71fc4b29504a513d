//! Random stacks under random use: whatever happens, all bytes arrive in order, no mark is exceeded, nothing is
//! stuck and nothing spins.
//!
//! Two stacks of 0 to 4 layers stand on the two ends of a pair or of a faulty network. Random operations (writes, toggles of
//! what is enabled and held up, moved marks, layers put on live, reads of a few bytes) are followed by a calm in which
//! everything must come to its end by itself.
//!
//! # How it was tried
//! Each wake-up of `wake.rs` was taken out in turn; each time a seed failed. `xtask/mutants/core.mutants` has them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::{
    Bev, Direction, Directions, Event, Handler, Options, READ, TriggerOptions, WRITE,
};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, Network, Random, Through, faulty, spec};

/// Runs of the test, each with its own seed.
const SEEDS: u64 = 2_500;

/// Runs with transports that stay alone.
const LONE_SEEDS: u64 = 1_500;

/// Random operations of one run.
const OPERATIONS: usize = 40;

/// What a covered bufferevent without a mark reads ahead, in bytes: the core's own constant.
const READ_AHEAD: usize = 64 * 1024;

/// What one side's handler has seen.
#[derive(Default)]
struct Seen {
    received: Vec<u8>,
    ends: usize,
    connected: usize,
    errors: Vec<String>,
    /// From here on every byte is taken as it comes.
    calm: bool,
}

/// Reads a few bytes at a time, and sometimes none.
struct Reader {
    seen: Arc<Mutex<Seen>>,
    random: Random,
}

impl Handler for Reader {
    fn on_read(&mut self, bev: &Bev) {
        let mut seen = self.seen.lock().unwrap();
        let most = if seen.calm {
            usize::MAX
        } else {
            self.random.below(80)
        };
        let mut bytes = vec![0; most.min(bev.input().len())];
        let count = bev.read(&mut bytes).unwrap();
        seen.received.extend_from_slice(&bytes[..count]);
    }

    fn on_event(&mut self, _: &Bev, event: &Event) {
        let mut seen = self.seen.lock().unwrap();
        match event {
            Event::Eof => seen.ends += 1,
            Event::Connected => seen.connected += 1,
            Event::Error { error, .. } => seen.errors.push(error.to_string()),
            _ => {}
        }
    }
}

/// One bufferevent of a stack, and the highest marks that it ever had.
struct Level {
    bev: Bev,
    read_limit: usize,
    write_limit: usize,
}

/// One of the two stacks, bottom first.
struct Side {
    levels: Vec<Level>,
    seen: Arc<Mutex<Seen>>,
    sent: Vec<u8>,
    to_send: Vec<u8>,
    finished: bool,
}

struct Run {
    events: Loop,
    random: Random,
    sides: [Side; 2],
    calls: Arc<AtomicUsize>,
    operations: usize,
    /// Layers that greet need room for a greeting.
    least_mark: usize,
    /// The transports stay alone.
    lone: bool,
}

fn limit(mark: usize) -> usize {
    if mark == 0 { usize::MAX } else { mark }
}

impl Side {
    fn top(&self) -> &Bev {
        &self.levels.last().expect("a stack has a transport").bev
    }
}

impl Run {
    fn new(seed: u64, lone: bool) -> Self {
        let mut random = Random::new(seed);
        let events = Loop::new();
        let (near, far) = if lone || random.once_in(3) {
            faulty(&events, Options::EMPTY, Network::seeded(random.bits())).unwrap()
        } else {
            pair(&events).unwrap()
        };
        let side = |bev: Bev, random: &mut Random| Side {
            levels: vec![Level {
                bev,
                read_limit: usize::MAX,
                write_limit: usize::MAX,
            }],
            seen: Arc::default(),
            sent: Vec::new(),
            to_send: {
                let count = random.below(400);
                random.bytes(count)
            },
            finished: false,
        };
        let sides = [side(near, &mut random), side(far, &mut random)];
        let greets = !lone && random.once_in(4);
        let least_mark = if greets { 32 } else { 1 };
        let calls = Arc::default();
        let mut run = Self {
            events,
            random,
            sides,
            calls,
            operations: 0,
            least_mark,
            lone,
        };
        for side in 0..2 {
            run.install(side);
            run.move_marks(side, 0);
            let layers = if lone { 0 } else { run.random.below(4) };
            for _ in 0..layers {
                run.put_on(side);
            }
        }
        if greets {
            for side in 0..2 {
                let layer = Through::new().greeting().counted(&run.calls);
                run.cover(side, layer);
            }
        }
        run
    }

    fn install(&mut self, side: usize) {
        // Whoever is on top now hears of the end, also if the one below was told before it was covered.
        self.sides[side].seen.lock().unwrap().ends = 0;
        let reader = Reader {
            seen: self.sides[side].seen.clone(),
            random: Random::new(self.random.bits()),
        };
        self.sides[side].top().set_handler(reader).unwrap();
    }

    fn put_on(&mut self, side: usize) {
        let chunk = [1, 3, 17, usize::MAX][self.random.below(4)];
        let mut layer = Through::new().chunk(chunk).counted(&self.calls);
        if self.random.once_in(3) {
            layer = layer.terse();
        }
        // A greeting has to get through without a flush.
        if self.random.once_in(10) && self.least_mark == 1 {
            layer = layer.holding();
        }
        self.cover(side, layer);
    }

    /// Puts a layer on a stack, live. What was enabled stays so.
    fn cover(&mut self, side: usize, layer: Through) {
        let top = self.sides[side].top();
        let enabled = top.enabled();
        let above = top.over(Options::EMPTY, layer).unwrap();
        let stats = top.stats();
        let below = self.sides[side]
            .levels
            .last_mut()
            .expect("a stack has a transport");
        // What was written to it while it was on top is there already.
        below.write_limit = below.write_limit.max(stats.output);
        let level = Level {
            bev: above,
            read_limit: usize::MAX,
            write_limit: usize::MAX,
        };
        self.sides[side].levels.push(level);
        self.install(side);
        let place = self.sides[side].levels.len() - 1;
        self.move_marks(side, place);
        let top = self.sides[side].top();
        top.disable(Directions::BOTH.without(enabled)).unwrap();
        // An end that came before the layer did is found by reading.
        let _ = top.enable(enabled);
    }

    /// A mark: mostly tiny, sometimes none.
    fn mark(&mut self) -> usize {
        match self.random.below(4) {
            0 => 0,
            _ => self.least_mark + self.random.below(60),
        }
    }

    fn move_marks(&mut self, side: usize, place: usize) {
        let (read, write) = (self.mark(), self.mark());
        let level = &mut self.sides[side].levels[place];
        level.bev.set_read_watermark(0, read).unwrap();
        level.bev.set_write_watermark(0, write).unwrap();
        // A mark below what is there stops, it takes nothing back.
        level.read_limit = limit(read).max(level.bev.input().len());
        level.write_limit = limit(write).max(level.bev.output().len());
    }

    fn write(&mut self, side: usize, most: usize) {
        let side = &mut self.sides[side];
        if side.finished {
            return;
        }
        let count = most.min(side.to_send.len());
        let bytes: Vec<u8> = side.to_send.drain(..count).collect();
        side.top().write(&bytes).unwrap();
        side.sent.extend_from_slice(&bytes);
    }

    fn finish(&mut self, side: usize) {
        if self.sides[side].finished {
            return;
        }
        self.write(side, usize::MAX);
        self.sides[side].top().finish().unwrap();
        self.sides[side].finished = true;
    }

    fn operate(&mut self) {
        self.operations += 1;
        let side = self.random.below(2);
        let directions = [READ, WRITE, Directions::BOTH][self.random.below(3)];
        let place = self.random.below(self.sides[side].levels.len());
        let any = self.sides[side].levels[place].bev.clone();
        let top = self.sides[side].top().clone();
        match self.random.below(12) {
            0..=2 => {
                let most = self.random.below(120);
                self.write(side, most);
            }
            // A direction that has ended refuses, which is right.
            3 | 4 => drop(top.enable(directions)),
            5 => top.disable(directions).unwrap(),
            6 => any.suspend(directions).unwrap(),
            7 => any.resume(directions).unwrap(),
            // The handler takes some more of what it left lying.
            8 => top
                .trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
                .unwrap(),
            9 => self.move_marks(side, place),
            10 if self.random.once_in(4) => self.finish(side),
            11 if self.random.once_in(3)
                && !self.lone
                && !self.sides[side].finished
                && self.sides[side].levels.len() < 5 =>
            {
                self.put_on(side);
            }
            _ => {
                let span = Duration::from_millis(self.random.below(100) as u64);
                self.events.advance(span);
            }
        }
        if self.random.once_in(2) {
            self.events.run();
        }
        self.check_marks();
    }

    fn check_marks(&self) {
        for side in &self.sides {
            let top = side.levels.len() - 1;
            for (place, level) in side.levels.iter().enumerate() {
                let stats = level.bev.stats();
                // Covered, and never given a mark: it reads ahead by the default.
                let most = if place < top {
                    level.read_limit.max(READ_AHEAD)
                } else {
                    usize::MAX
                };
                let marked = level.bev.watermark(Direction::Read).high() != 0;
                let most = if marked { level.read_limit } else { most };
                assert!(
                    stats.input <= most,
                    "{} > {most} bytes in an input",
                    stats.input
                );
                if place < top {
                    // A greeting goes past the mark: one unit.
                    let most = level.write_limit.saturating_add(self.least_mark);
                    assert!(
                        stats.output <= most,
                        "{} > {most} bytes in an output",
                        stats.output
                    );
                }
            }
        }
    }

    fn received(&self) -> usize {
        self.sides
            .iter()
            .map(|side| side.seen.lock().unwrap().received.len())
            .sum()
    }

    fn ends(&self) -> usize {
        self.sides
            .iter()
            .map(|side| side.seen.lock().unwrap().ends)
            .sum()
    }

    /// Lets everything go, and waits for the end of both streams. Once the handlers have taken what
    /// they had left lying, progress comes by wake-ups alone.
    fn calm(&mut self) {
        for side in 0..2 {
            self.finish(side);
            for level in &self.sides[side].levels {
                level.bev.resume(Directions::BOTH).unwrap();
            }
            let top = self.sides[side].top();
            // A direction that has ended refuses, which is right.
            let _ = top.enable(Directions::BOTH);
            self.sides[side].seen.lock().unwrap().calm = true;
            top.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
                .unwrap();
        }
        let mut before = (usize::MAX, usize::MAX);
        while self.ends() < 2 {
            self.events.run();
            self.check_marks();
            self.events.advance(Duration::from_secs(30));
            let now = (self.received(), self.ends());
            assert!(now != before, "stuck: {}", self.state());
            before = now;
        }
        self.events.advance(Duration::from_secs(30));
    }

    fn state(&self) -> String {
        let sides = self.sides.each_ref().map(|side| {
            let levels = side.levels.iter().map(|level| {
                let bev = &level.bev;
                format!(
                    "{:?} {:?} {:?}",
                    bev.stats(),
                    bev.enabled(),
                    bev.watermark(Direction::Read)
                )
            });
            levels.collect::<Vec<_>>().join("\n    ")
        });
        format!("\n  {}\n  --\n  {}", sides[0], sides[1])
    }

    fn check_result(&self) {
        for (side, other) in [(0, 1), (1, 0)] {
            let sent = &self.sides[side].sent;
            let seen = self.sides[other].seen.lock().unwrap();
            assert!(
                seen.received == *sent,
                "{} bytes sent, {} came",
                sent.len(),
                seen.received.len()
            );
            assert_eq!(seen.ends, 1, "the end is told once");
            assert_eq!(seen.errors, Vec::<String>::new());
        }
        // One call moves at least a byte or follows a change: what spins makes many more.
        let levels: usize = self.sides.iter().map(|side| side.levels.len()).sum();
        let bytes: usize = self.sides.iter().map(|side| side.sent.len() + 64).sum();
        let most = 4 * levels * (bytes + 8 * self.operations);
        let calls = self.calls.load(Ordering::Relaxed);
        assert!(
            calls <= most,
            "{calls} calls for {bytes} bytes through {levels} levels"
        );
    }
}

/// Says which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

fn run(seed: u64, lone: bool) {
    let _seed = Seed(seed);
    let mut run = Run::new(seed, lone);
    for _ in 0..OPERATIONS {
        run.operate();
    }
    run.calm();
    run.check_result();
}

#[test]
fn any_stack_under_any_use_delivers_all_bytes_and_the_end() {
    spec!(A4);
    for seed in 0..SEEDS {
        run(seed, false);
    }
}

/// What is alone takes shorter ways through the core.
#[test]
fn any_transport_alone_under_any_use_delivers_all_bytes_and_the_end() {
    spec!(A4);
    for seed in 0..LONE_SEEDS {
        run(seed, true);
    }
}
