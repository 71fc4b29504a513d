//! Random stacks of filters under random use: whatever happens, all bytes arrive in order, no mark is exceeded, nothing is
//! stuck and nothing spins.
//!
//! Two stacks of the same 0 to 4 filters stand on the two ends of a pair or of a faulty network: identity, chunking, expanding,
//! holding, framing with an end of its own, greeting first, lying. Random operations (writes, flushes, toggles of what is enabled and
//! held up, moved marks, filters put on and torn off live, reads of a few bytes) are followed by a calm in which everything must come
//! to its end by itself.
//!
//! `FILTER_SEEDS` says how many runs; what fails names its seed.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::{
    Bev, Direction, Directions, Event, Handler, Mode, Options, READ, TriggerOptions, WRITE,
};
use bufferevent_filter::{FilterExt, Filtering};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, Network, Random, faulty, spec};
use support::kinds::Does;

/// Runs of the test, each with its own seed, unless `FILTER_SEEDS` says otherwise.
const SEEDS: u64 = 1_000;

/// Random operations of one run.
const OPERATIONS: usize = 40;

/// What a covered bufferevent without a mark reads ahead, in bytes: the core's own constant.
const READ_AHEAD: usize = 64 * 1024;

#[derive(Default)]
struct Seen {
    received: Vec<u8>,
    connected: usize,
    ends: Vec<String>,
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
            Event::Connected => seen.connected += 1,
            Event::Written => {}
            other => seen.ends.push(format!("{other:?}")),
        }
    }
}

/// One bufferevent of a stack, and the highest marks that it ever had.
struct Level {
    bev: Bev,
    does: Does,
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
    /// A flush went past the marks.
    flushed: bool,
}

impl Side {
    fn top(&self) -> &Bev {
        &self.levels.last().expect("a stack has a transport").bev
    }

    fn handshakes(&self) -> usize {
        let greets = |level: &&Level| level.does == Does::Greets;
        self.levels.iter().filter(greets).count()
    }
}

fn limit(mark: usize) -> usize {
    if mark == 0 { usize::MAX } else { mark }
}

struct Run {
    events: Loop,
    random: Random,
    sides: [Side; 2],
    calls: Arc<AtomicUsize>,
    operations: usize,
    /// What every filter is made with.
    options: Options,
    /// How often a filter was put on, or torn off, live.
    covers: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let events = Loop::new();
        let (near, far) = if random.once_in(3) {
            faulty(&events, Options::EMPTY, Network::seeded(random.bits())).unwrap()
        } else {
            pair(&events).unwrap()
        };
        let sides = [near, far].map(|bev| Side {
            levels: vec![Level {
                bev,
                does: Does::Nothing,
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
            flushed: false,
        });
        let options = [Options::EMPTY, Options::DEFER_CALLBACKS][random.below(2)];
        let mut run = Self {
            events,
            random,
            sides,
            calls: Arc::default(),
            operations: 0,
            options,
            covers: 0,
        };
        for side in 0..2 {
            run.install(side);
            run.move_marks(side, 0);
        }
        for _ in 0..run.random.below(5) {
            let mut does = Does::ALL[run.random.below(Does::ALL.len())];
            let held = run.sides[0]
                .levels
                .iter()
                .any(|level| level.does == Does::Holds);
            if does == Does::Greets && held {
                // A greeting has to get through without a flush.
                does = Does::Nothing;
            }
            for side in 0..2 {
                let layer = does.filter(&mut run.random, &run.calls);
                let top = run.sides[side].top().filter(run.options, layer).unwrap();
                run.stacked(side, top, does);
            }
        }
        run
    }

    fn install(&mut self, side: usize) {
        let reader = Reader {
            seen: self.sides[side].seen.clone(),
            random: Random::new(self.random.bits()),
        };
        self.sides[side].top().set_handler(reader).unwrap();
    }

    /// A new top stands on a stack.
    fn stacked(&mut self, side: usize, top: Bev, does: Does) {
        let levels = &mut self.sides[side].levels;
        let below = levels.last_mut().expect("a stack has a transport");
        // What was written to it while it was on top is there already.
        below.write_limit = below.write_limit.max(below.bev.stats().output);
        levels.push(Level {
            bev: top,
            does,
            read_limit: usize::MAX,
            write_limit: usize::MAX,
        });
        let below = levels.len() - 2;
        self.install(side);
        self.move_marks(side, below);
        self.move_marks(side, below + 1);
    }

    /// Puts a filter on a stack, live, that the other end need not know of.
    fn put_on(&mut self, side: usize) {
        let does = [Does::Nothing, Does::Chunks, Does::Lies][self.random.below(3)];
        let layer = Filtering::new(does.filter(&mut self.random, &self.calls));
        let enabled = self.sides[side].top().enabled();
        self.covers += 1;
        let top = self.sides[side].top().put_on(self.options, layer).unwrap();
        if self.sides[side].top().stats().read > 0 || !enabled.contains(READ) {
            // An end that came before the layer did is found by reading.
            let _ = top.enable(enabled);
        }
        self.stacked(side, top, does);
    }

    /// Tears the topmost filter off, live, if the other end need not know.
    fn tear_off(&mut self, side: usize) {
        let stack = &mut self.sides[side];
        let level = stack.levels.last().expect("a stack has a transport");
        if stack.levels.len() == 1 || !level.does.is_transparent() {
            return;
        }
        let torn = level.bev.tear_off().unwrap();
        self.covers += 1;
        let mut unsent = torn.unsent;
        stack.levels.pop();
        assert_eq!(&torn.bev, stack.top());
        torn.bev.write_buffer(&mut unsent).unwrap();
        let place = stack.levels.len() - 1;
        self.install(side);
        self.move_marks(side, place);
    }

    /// A mark: mostly tiny, sometimes none.
    fn mark(&mut self) -> usize {
        match self.random.below(4) {
            0 => 0,
            _ => 1 + self.random.below(60),
        }
    }

    fn move_marks(&mut self, side: usize, place: usize) {
        let (read, write) = (self.mark(), self.mark());
        let level = &mut self.sides[side].levels[place];
        level.bev.set_read_watermark(0, read).unwrap();
        level.bev.set_write_watermark(0, write).unwrap();
        // A mark below what is there stops, it takes nothing back.
        let stats = level.bev.stats();
        level.read_limit = limit(read).max(stats.input);
        level.write_limit = limit(write).max(stats.output);
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
        match self.random.below(15) {
            0..=2 => {
                let most = self.random.below(120);
                self.write(side, most);
            }
            // A direction that has ended refuses, which is right.
            3 | 4 => drop(top.enable(directions)),
            5 => top.disable(directions).unwrap(),
            6 => any.suspend(directions).unwrap(),
            7 => any.resume(directions).unwrap(),
            8 => top
                .trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
                .unwrap(),
            9 => self.move_marks(side, place),
            10 if self.random.once_in(4) => self.finish(side),
            11 if !self.sides[side].finished && self.sides[side].levels.len() < 5 => {
                self.put_on(side);
            }
            12 if !self.sides[side].finished => self.tear_off(side),
            13 if self.random.once_in(3) => {
                let direction = [Direction::Read, Direction::Write][self.random.below(2)];
                let mode = [Mode::Normal, Mode::Flush][self.random.below(2)];
                self.sides[side].flushed |= mode == Mode::Flush;
                let _ = top.flush(direction, mode).unwrap();
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
        for side in self.sides.iter().filter(|side| !side.flushed) {
            let top = side.levels.len() - 1;
            for (place, level) in side.levels.iter().enumerate() {
                let stats = level.bev.stats();
                let marked = level.bev.watermark(Direction::Read).high() != 0;
                let most = match (marked, place < top) {
                    (true, _) => level.read_limit,
                    (false, true) => level.read_limit.max(READ_AHEAD),
                    (false, false) => usize::MAX,
                };
                let does = level.does;
                assert!(stats.input <= most, "{does:?}: {} > {most} in", stats.input);
                if place < top {
                    let most = level.write_limit;
                    assert!(
                        stats.output <= most,
                        "{does:?}: {} > {most} out",
                        stats.output
                    );
                }
            }
        }
    }

    fn progress(&self) -> (usize, usize) {
        let seen = self.sides.each_ref().map(|side| {
            let seen = side.seen.lock().unwrap();
            (seen.received.len(), seen.ends.len() + seen.connected)
        });
        (seen[0].0 + seen[1].0, seen[0].1 + seen[1].1)
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
        while self.progress() != before {
            before = self.progress();
            self.events.run();
            self.check_marks();
            self.events.advance(Duration::from_secs(30));
        }
    }

    fn state(&self) -> String {
        let sides = self.sides.each_ref().map(|side| {
            let levels = side.levels.iter().map(|level| {
                let bev = &level.bev;
                format!(
                    "{:?} {:?} {:?} {:?} {:?}",
                    level.does,
                    bev.stats(),
                    bev.enabled(),
                    bev.watermark(Direction::Read),
                    bev.watermark(Direction::Write)
                )
            });
            let seen = side.seen.lock().unwrap();
            format!(
                "{:?}\n    {}",
                seen.ends,
                levels.collect::<Vec<_>>().join("\n    ")
            )
        });
        format!("\n  {}\n  --\n  {}", sides[0], sides[1])
    }

    fn check_result(&self) {
        for (side, other) in [(0, 1), (1, 0)] {
            let sent = &self.sides[side].sent;
            let state = self.state();
            let seen = self.sides[other].seen.lock().unwrap();
            assert!(
                seen.received == *sent,
                "{} bytes sent, {} came: {}",
                sent.len(),
                seen.received.len(),
                state,
            );
            // Who is on top now may be told again.
            let ended = seen.ends.first().is_some_and(|end| end == "Eof");
            let most = 1 + self.covers;
            assert!(
                ended && seen.ends.len() <= most && seen.ends.iter().all(|end| end == "Eof"),
                "{:?} on top of {:?}",
                seen.ends,
                self.state_of(other)
            );
            // While a stack is made, each handshake may end before the next filter is put on.
            let handshakes = self.sides[other].handshakes();
            assert!(
                seen.connected <= handshakes && (seen.connected > 0 || handshakes == 0),
                "{} times connected, {handshakes} handshakes",
                seen.connected
            );
        }
        // One call moves at least a byte or follows a change: what spins makes many more.
        let levels: usize = self.sides.iter().map(|side| side.levels.len() + 5).sum();
        let bytes: usize = self
            .sides
            .iter()
            .map(|side| 32 * side.sent.len() + 64)
            .sum();
        let most = 4 * levels * (bytes + 8 * self.operations);
        let calls = self.calls.load(Ordering::Relaxed);
        assert!(
            calls <= most,
            "{calls} calls for {bytes} bytes through {levels} levels"
        );
    }

    fn state_of(&self, side: usize) -> String {
        let does = self.sides[side].levels.iter().map(|level| level.does);
        format!("{:?}", does.collect::<Vec<_>>())
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

fn run(seed: u64) {
    let _seed = Seed(seed);
    let mut run = Run::new(seed);
    for _ in 0..OPERATIONS {
        run.operate();
    }
    run.calm();
    run.check_result();
}

#[test]
fn whatever_happens_all_bytes_arrive_and_nothing_spins() {
    spec!(F2);
    spec!(F3);
    spec!(F7);
    let seeds = std::env::var("FILTER_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS);
    for seed in 0..seeds {
        run(seed);
    }
}
