//! Two stacks of the same filters on the two ends of a pair, or of a faulty network, under whatever use the bytes say; then a calm in
//! which everything must come to its end by itself.
//!
//! Operations are writes, flushes, toggles of what is enabled and held up, moved marks, filters put on and torn off live, reads of a few
//! bytes. The random test of this crate and a fuzz target run it, each with filters of its own.
//!
//! # What is held to
//! - All bytes arrive, in order, and then an EOF, on both sides; nothing else ends a stack.
//! - No buffer exceeds the highest mark that it had while it was filled.
//! - Filters are called in proportion to the bytes that pass them: nothing spins.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::{
    Bev, Direction, Directions, Event, Handler, Mode, Options, READ, TriggerOptions, WRITE,
};
use bufferevent_filter::{FilterExt as _, Filtering};
use bufferevent_pair::pair;
use bufferevent_testkit::{Choices, Loop, Network, Random, faulty};

use super::kinds::Counted;

/// What one level of a stack does. Both ends have the same.
pub(crate) trait Kind: Copy + Debug {
    /// Stands for the bufferevent at the bottom, which changes nothing.
    const TRANSPORT: Self;

    /// One that can stand on `below`, and its filter for either end.
    fn chosen(
        choices: &mut Choices<'_>,
        below: &[Self],
        calls: &Arc<AtomicUsize>,
    ) -> (Self, [Counted; 2]);

    /// One that the other end need not know of, and its filter.
    fn transparent(choices: &mut Choices<'_>, calls: &Arc<AtomicUsize>) -> (Self, Counted);

    /// Whether the other end need not know that it is there.
    fn is_transparent(self) -> bool;

    /// Whether it is connected only after something was exchanged.
    fn shakes_hands(self) -> bool;

    /// How many bytes at most `bytes` become on their way down, written one at a time.
    fn grows(self, bytes: usize) -> usize;
}

/// Operations of one run.
const MAX_OPERATIONS: usize = 80;

/// Filters of one stack when the operations begin, and at any time.
const MAX_BUILT: usize = 5;
const MAX_LEVELS: usize = 7;

/// Bytes that each side has to send at most, and how many where they are few.
const MAX_SENT: usize = 20_000;
const FEW_SENT: usize = 400;

/// What a covered bufferevent without a mark reads ahead, in bytes: the core's own constant.
const READ_AHEAD: usize = 64 * 1024;

/// Rounds of the calm: each brings bytes or an end, so many more than there are ends and pieces of a mark's length is a stack that spins.
const MAX_ROUNDS: usize = 1 << 20;

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
        let mut seen = self.seen.lock().expect("nobody panics with it");
        let most = if seen.calm {
            usize::MAX
        } else {
            self.random.below(80)
        };
        let mut bytes = vec![0; most.min(bev.input().len())];
        let count = bev.read(&mut bytes).expect("a handler may read");
        seen.received.extend_from_slice(&bytes[..count]);
    }

    fn on_event(&mut self, _: &Bev, event: &Event) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        match event {
            Event::Connected => seen.connected += 1,
            Event::Written => {}
            other => seen.ends.push(format!("{other:?}")),
        }
    }
}

/// One bufferevent of a stack, and the highest marks that it ever had.
struct Level<K> {
    bev: Bev,
    kind: K,
    read_limit: usize,
    write_limit: usize,
}

impl<K: Kind> Level<K> {
    fn new(bev: Bev, kind: K) -> Self {
        Self {
            bev,
            kind,
            read_limit: usize::MAX,
            write_limit: usize::MAX,
        }
    }
}

/// One of the two stacks, bottom first.
struct Side<K> {
    levels: Vec<Level<K>>,
    seen: Arc<Mutex<Seen>>,
    sent: Vec<u8>,
    to_send: Vec<u8>,
    finished: bool,
    /// A flush went past the marks.
    flushed: bool,
    /// How often a filter was put on, or torn off, live.
    covers: usize,
}

impl<K: Kind> Side<K> {
    fn top(&self) -> &Bev {
        &self.levels.last().expect("a stack has a transport").bev
    }

    /// More bytes than pass between any two of its levels.
    fn traffic(&self) -> usize {
        let above = self.sent.len() + 64;
        let levels = self.levels.iter().rev();
        levels.fold(above, |bytes, level| level.kind.grows(bytes))
    }
}

struct Run<'a, K> {
    choices: Choices<'a>,
    events: Loop,
    sides: [Side<K>; 2],
    calls: Arc<AtomicUsize>,
    operations: usize,
    /// What every filter is made with.
    options: Options,
}

/// Runs the stacks and the operations that `data` says.
pub(crate) fn run<K: Kind>(data: &[u8]) {
    let mut run = Run::<K>::new(Choices::new(data));
    for _ in 0..MAX_OPERATIONS {
        if run.choices.is_over() {
            break;
        }
        run.operate();
    }
    run.calm();
    run.check_result();
    assert_eq!(run.events.panics(), 0, "a panic was caught");
    for side in &run.sides {
        // Top first, as each may take the ones below with it.
        for level in side
            .levels
            .iter()
            .rev()
            .filter(|level| !level.bev.is_freed())
        {
            level.bev.free().expect("who is there can be freed");
        }
    }
    run.events.run();
}

impl<'a, K: Kind> Run<'a, K> {
    fn new(mut choices: Choices<'a>) -> Self {
        let events = Loop::new();
        let network = choices.byte();
        let faulty_below = network & 3 == 3;
        let deferred = network & 4 != 0;
        let options = [Options::EMPTY, Options::DEFER_CALLBACKS][usize::from(deferred)];
        // A network may carry one byte at a time.
        let many = if faulty_below { FEW_SENT } else { MAX_SENT };
        let (near, far) = if faulty_below {
            let network = Network::seeded(u64::from(network >> 2));
            faulty(&events, Options::EMPTY, network)
        } else {
            pair(&events)
        }
        .expect("two ends can be made");
        let sides = [near, far].map(|bev| Side {
            levels: vec![Level::new(bev, K::TRANSPORT)],
            seen: Arc::default(),
            sent: Vec::new(),
            to_send: {
                let most = choices.pick(&[FEW_SENT, FEW_SENT, FEW_SENT, many]);
                let count = choices.below(most);
                Random::new(count as u64).bytes(count)
            },
            finished: false,
            flushed: false,
            covers: 0,
        });
        let mut run = Self {
            choices,
            events,
            sides,
            calls: Arc::default(),
            operations: 0,
            options,
        };
        for side in 0..2 {
            run.install(side);
            run.move_marks(side, 0);
        }
        run.build();
        run
    }

    /// Puts the filters on that both sides have.
    fn build(&mut self) {
        for _ in 0..self.choices.below(MAX_BUILT + 1) {
            let levels = self.sides[0].levels.iter();
            let below: Vec<K> = levels.map(|level| level.kind).collect();
            let (kind, filters) = K::chosen(&mut self.choices, &below, &self.calls);
            for (side, filter) in filters.into_iter().enumerate() {
                let top = self.sides[side].top().filter(self.options, filter);
                self.stacked(side, top.expect("a stack can be made"), kind);
            }
        }
    }

    fn install(&mut self, side: usize) {
        let reader = Reader {
            seen: self.sides[side].seen.clone(),
            random: Random::new(self.choices.byte().into()),
        };
        let top = self.sides[side].top();
        top.set_handler(reader).expect("it is there");
    }

    /// A new top stands on a stack.
    fn stacked(&mut self, side: usize, top: Bev, kind: K) {
        let levels = &mut self.sides[side].levels;
        let below = levels.last_mut().expect("a stack has a transport");
        // What was written to it while it was on top is there already.
        below.write_limit = below.write_limit.max(below.bev.stats().output);
        levels.push(Level::new(top, kind));
        let below = levels.len() - 2;
        self.install(side);
        self.move_marks(side, below);
        self.move_marks(side, below + 1);
    }

    /// Puts a filter on a stack, live, that the other end need not know of.
    fn put_on(&mut self, side: usize) {
        let (kind, filter) = K::transparent(&mut self.choices, &self.calls);
        let top = self.sides[side].top();
        let enabled = top.enabled();
        let covered = top.put_on(self.options, Filtering::new(filter));
        let top = covered.expect("who is on top can be covered");
        self.sides[side].covers += 1;
        if self.sides[side].top().stats().read > 0 || !enabled.contains(READ) {
            // An end that came before the filter did is found by reading.
            let _ = top.enable(enabled);
        }
        self.stacked(side, top, kind);
    }

    /// Tears the topmost filter off, live, if the other end need not know.
    fn tear_off(&mut self, side: usize) {
        let stack = &mut self.sides[side];
        let level = stack.levels.last().expect("a stack has a transport");
        if stack.levels.len() == 1 || !level.kind.is_transparent() {
            return;
        }
        let torn = level.bev.tear_off().expect("a filter can be torn off");
        stack.covers += 1;
        stack.levels.pop();
        assert_eq!(&torn.bev, stack.top());
        let mut unsent = torn.unsent;
        torn.bev
            .write_buffer(&mut unsent)
            .expect("it has not finished");
        let place = stack.levels.len() - 1;
        self.install(side);
        self.move_marks(side, place);
    }

    /// A mark: mostly tiny, sometimes none.
    fn mark(&mut self) -> usize {
        match self.choices.byte() {
            0..64 => 0,
            byte => 1 + usize::from(byte - 64) % 60,
        }
    }

    fn move_marks(&mut self, side: usize, place: usize) {
        let (read, write) = (self.mark(), self.mark());
        let level = &mut self.sides[side].levels[place];
        let bev = &level.bev;
        bev.set_read_watermark(0, read).expect("a mark is a mark");
        bev.set_write_watermark(0, write).expect("a mark is a mark");
        // A mark below what is there stops, it takes nothing back.
        let limit = |mark| if mark == 0 { usize::MAX } else { mark };
        let stats = bev.stats();
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
        side.top().write(&bytes).expect("it has not finished");
        side.sent.extend_from_slice(&bytes);
    }

    fn finish(&mut self, side: usize) {
        if self.sides[side].finished {
            return;
        }
        self.write(side, usize::MAX);
        let top = self.sides[side].top();
        top.finish().expect("it has not finished");
        self.sides[side].finished = true;
    }

    fn operate(&mut self) {
        self.operations += 1;
        let what = self.choices.byte();
        let side = usize::from(what >> 7);
        let directions = self.choices.pick(&[READ, WRITE, Directions::BOTH]);
        let place = self.choices.below(self.sides[side].levels.len());
        let any = self.sides[side].levels[place].bev.clone();
        let top = self.sides[side].top().clone();
        let done = match what & 0xf {
            0..=2 => {
                let most = self.choices.below(120);
                self.write(side, most);
                Ok(())
            }
            3 => {
                self.write(side, MAX_SENT / 4);
                Ok(())
            }
            // A direction that has ended refuses, which is right.
            4 => {
                let _ = top.enable(directions);
                Ok(())
            }
            5 => top.disable(directions),
            6 => any.suspend(directions),
            7 => any.resume(directions),
            8 => top.trigger(READ, TriggerOptions::IGNORE_WATERMARKS),
            9 => {
                self.move_marks(side, place);
                Ok(())
            }
            10 => {
                if self.choices.once_in(4) {
                    self.finish(side);
                }
                Ok(())
            }
            11 if !self.sides[side].finished && self.sides[side].levels.len() < MAX_LEVELS => {
                self.put_on(side);
                Ok(())
            }
            12 if !self.sides[side].finished => {
                self.tear_off(side);
                Ok(())
            }
            13 => {
                let direction = self.choices.pick(&[Direction::Read, Direction::Write]);
                let mode = self.choices.pick(&[Mode::Normal, Mode::Flush]);
                self.sides[side].flushed |= mode == Mode::Flush;
                top.flush(direction, mode).map(drop)
            }
            _ => {
                let span = Duration::from_millis(self.choices.below(100) as u64);
                self.events.advance(span);
                Ok(())
            }
        };
        done.expect("no operation of these is ever refused");
        if what & 0x10 == 0 {
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
                let kind = level.kind;
                assert!(stats.input <= most, "{kind:?}: {} > {most} in", stats.input);
                let most = level.write_limit;
                assert!(
                    place == top || stats.output <= most,
                    "{kind:?}: {} > {most} out",
                    stats.output
                );
            }
        }
    }

    /// What has happened so far: bytes over the transports, bytes and ends that the users have heard of.
    fn progress(&self) -> [(u64, usize, usize); 2] {
        self.sides.each_ref().map(|side| {
            let seen = side.seen.lock().expect("nobody panics with it");
            let told = seen.ends.len() + seen.connected;
            let stats = side.levels[0].bev.stats();
            (stats.read + stats.written, seen.received.len(), told)
        })
    }

    /// Lets everything go, and waits for the end of both streams. Once the handlers have taken what they had left lying, progress
    /// comes by wake-ups alone.
    fn calm(&mut self) {
        for side in 0..2 {
            self.finish(side);
            for level in &self.sides[side].levels {
                level.bev.resume(Directions::BOTH).expect("it is there");
            }
            let top = self.sides[side].top();
            // A direction that has ended refuses, which is right.
            let _ = top.enable(Directions::BOTH);
            self.sides[side]
                .seen
                .lock()
                .expect("nobody panics with it")
                .calm = true;
            top.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
                .expect("it is there");
        }
        let mut before = None;
        for _ in 0..MAX_ROUNDS {
            if before == Some(self.progress()) {
                return;
            }
            before = Some(self.progress());
            self.events.run();
            self.check_marks();
            self.events.advance(Duration::from_secs(30));
        }
        panic!("there is no end of it: {}", self.state());
    }

    fn check_result(&self) {
        for (side, other) in [(0, 1), (1, 0)] {
            let sent = &self.sides[side].sent;
            let seen = &self.sides[other]
                .seen
                .lock()
                .expect("nobody panics with it");
            assert!(
                seen.received == *sent,
                "{} bytes sent, {} came: {}",
                sent.len(),
                seen.received.len(),
                self.state(),
            );
            // Who is on top now may be told again.
            let ended = seen.ends.first().is_some_and(|end| end == "Eof");
            let most = 1 + self.sides[other].covers;
            assert!(
                ended && seen.ends.len() <= most && seen.ends.iter().all(|end| end == "Eof"),
                "{:?} of {}",
                seen.ends,
                self.state()
            );
            // While a stack is made, each handshake may end before the next filter is put on.
            let levels = self.sides[other].levels.iter();
            let handshakes = levels.filter(|level| level.kind.shakes_hands()).count();
            assert!(
                seen.connected <= handshakes && (seen.connected > 0 || handshakes == 0),
                "{} times connected, {handshakes} handshakes",
                seen.connected
            );
        }
        self.check_calls();
    }

    /// One call moves at least a byte or follows a change: what spins makes many more.
    fn check_calls(&self) {
        let sum = |of: fn(&Side<K>) -> usize| self.sides.iter().map(of).sum::<usize>();
        let levels = sum(|side| side.levels.len() + 5);
        let most = 4 * levels * (sum(Side::traffic) + 8 * self.operations);
        let calls = self.calls.load(Ordering::Relaxed);
        assert!(
            calls <= most,
            "{calls} calls, {most} at most: {}",
            self.state()
        );
    }

    fn state(&self) -> String {
        let mut text = String::new();
        for side in &self.sides {
            text += &format!("\n  sent {}, finished {}", side.sent.len(), side.finished);
            for level in &side.levels {
                let bev = &level.bev;
                let marks = [Direction::Read, Direction::Write].map(|of| bev.watermark(of));
                let (stats, enabled) = (bev.stats(), bev.enabled());
                text += &format!("\n    {:?} {stats:?} {enabled:?} {marks:?}", level.kind);
            }
        }
        text
    }
}
