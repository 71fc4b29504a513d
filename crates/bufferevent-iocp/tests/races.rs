//! Bufferevents that are dropped, forgotten, freed, taken apart or left to a loop that goes, each with operations under way: on the fake driver and on the
//! system's. No memory that was lent is harmed.
//!
//! How many comes from `BUFFEREVENT_RACES` (`cargo xtask races` sets it, to a million, under AddressSanitizer); a few thousand otherwise.
//!
//! # How harm would show
//! - AddressSanitizer sees what this program does to memory that is freed. It does not see the kernel, so:
//! - What is sent lies in a [`Canary`]: its bytes are all the same until it dies, and then they are [`DEAD`]. A receiver that sees that
//!   byte was sent freed memory.
//! - What is received lies in blocks. Beside them live [`Cages`]: as long as a block, freed and allocated all the time, so that they get the memory of a
//!   block that was freed too early. A kernel that still writes there breaks their pattern.

mod common;

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{Bev, Options, READ, on_read};
use bufferevent_iocp::{CompletionExt as _, Fake};
use bufferevent_testkit::{fault, record, spec};
use bytes::Bytes;
use common::{port, stormy, turns};
use evreactor::EventLoop;

/// What the bytes of a canary are when it is dead.
const DEAD: u8 = 0xdd;

/// Pairs that live on one loop: then the loop goes, and with it those that were forgotten.
const PAIRS_PER_LOOP: usize = 400;

/// Handles that stay forgotten when their loop has gone: each has a descriptor. Earlier ones are dropped then, which is too late for them to
/// matter, too.
const STAY_FORGOTTEN: usize = 100;

/// Pairs that are there at once.
const AT_ONCE: usize = 8;

/// Bytes of a cage: a block's.
const CAGE: usize = evbuffer::BLOCK_LEN;

/// Memory that is lent, and shows when it was freed.
struct Canary {
    bytes: Vec<u8>,
    dead: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Canary {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let alive = self.bytes[0];
        assert!(alive != DEAD, "it dies once");
        assert!(
            self.bytes.iter().all(|&byte| byte == alive),
            "somebody wrote into what was lent"
        );
        self.bytes.fill(DEAD);
        self.dead.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory that nobody but this test may write to.
#[derive(Default)]
struct Cages(VecDeque<(u8, Vec<u8>)>);

impl Cages {
    /// Frees the oldest, which has to be as it was, and builds another where the allocator likes.
    fn turn_over(&mut self, pattern: u8) {
        self.0.push_back((pattern, vec![pattern; CAGE]));
        if self.0.len() > 16 {
            self.open_one();
        }
    }

    fn open_one(&mut self) {
        if let Some((pattern, bytes)) = self.0.pop_front() {
            let whole = bytes.iter().all(|&byte| byte == pattern);
            assert!(whole, "somebody wrote into freed memory");
        }
    }
}

/// What became of those that had something under way.
#[derive(Debug, Default)]
struct Count {
    dropped: usize,
    forgotten: usize,
    freed: usize,
    taken: usize,
    left: usize,
}

impl Count {
    fn all(&self) -> usize {
        self.dropped + self.forgotten + self.freed + self.taken + self.left
    }
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % limit as u64) as usize
    }
}

/// How many races are run, unless the environment says.
fn wanted() -> usize {
    std::env::var("BUFFEREVENT_RACES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(4_000)
}

/// Handles that were forgotten. Not by `mem::forget`, so that a leak checker still finds them; it comes to the same.
type Forgotten = Vec<ManuallyDrop<Bev>>;

struct Race {
    draw: Draw,
    count: Count,
    cages: Cages,
    forgotten: Forgotten,
    lent: usize,
    dead: Arc<AtomicUsize>,
}

impl Race {
    /// Has a receive under way on it, and a send of a canary or several.
    fn start(&mut self, bev: &Bev) {
        bev.set_handler(on_read(|bev| {
            let mut input = [0; 4096];
            while let Ok(1..) = bev.read(&mut input) {
                assert!(!input.contains(&DEAD), "freed memory was sent");
                input.fill(0);
            }
        }))
        .unwrap();
        bev.enable(READ).unwrap();
        for _ in 0..=self.draw.below(2) {
            let length = [1, 64, 3_000, 20_000, 70_000][self.draw.below(5)];
            let canary = Canary {
                bytes: vec![1 + self.draw.below(200) as u8; length],
                dead: self.dead.clone(),
            };
            self.lent += 1;
            // Refused only where it was freed, and dead at once then.
            let _ = bev.output().append_bytes(Bytes::from_owner(canary));
        }
    }

    fn end(&mut self, bev: Bev) {
        match self.draw.below(16) {
            0..=4 => {
                self.count.dropped += 1;
                drop(bev);
            }
            5..=8 => {
                self.count.forgotten += 1;
                self.forgotten.push(ManuallyDrop::new(bev));
            }
            9..=13 => {
                self.count.freed += 1;
                let _ = bev.free();
            }
            // On a driver without sockets it is refused, and dropped.
            14 => {
                self.count.taken += 1;
                drop(bev.into_transport());
            }
            _ => {
                self.count.left += 1;
                let _ = bev.finish();
                self.forgotten.push(ManuallyDrop::new(bev));
            }
        }
    }

    fn run(
        &mut self,
        make_loop: impl Fn(u64) -> EventLoop,
        make_pair: impl Fn(&EventLoop) -> (Bev, Bev),
    ) {
        let wanted = wanted();
        let mut seed = 0;
        while self.count.all() < wanted {
            seed += 1;
            let events = make_loop(seed);
            let mut alive = Vec::new();
            for _ in 0..PAIRS_PER_LOOP {
                let (near, far) = make_pair(&events);
                self.start(&near);
                self.start(&far);
                alive.extend([near, far]);
                self.cages.turn_over(1 + self.draw.below(200) as u8);
                if self.draw.below(4) != 0 {
                    turns(&events, 1);
                }
                while alive.len() > AT_ONCE {
                    let at = self.draw.below(alive.len());
                    let bev = alive.swap_remove(at);
                    self.end(bev);
                }
            }
            // What is under way now, ends with the loop; what is handed back comes too late.
            assert!(port(&events).lanes() > 0);
            drop(events);
            self.count.left += alive.len();
            drop(alive);
            let late = self.forgotten.len().saturating_sub(STAY_FORGOTTEN);
            for forgotten in self.forgotten.drain(..late) {
                drop(ManuallyDrop::into_inner(forgotten));
            }
        }
        while !self.cages.0.is_empty() {
            self.cages.open_one();
        }
    }
}

fn race(
    make_loop: impl Fn(u64) -> EventLoop,
    make_pair: impl Fn(&EventLoop) -> (Bev, Bev),
) -> Count {
    let mut race = Race {
        draw: Draw(0x5eed_cafe),
        count: Count::default(),
        cages: Cages::default(),
        forgotten: Vec::new(),
        lent: 0,
        dead: Arc::default(),
    };
    race.run(make_loop, make_pair);
    for forgotten in race.forgotten.drain(..) {
        // Its loop has gone long ago. What it kept of its own, it gives back now.
        drop(ManuallyDrop::into_inner(forgotten));
    }
    assert_eq!(
        race.dead.load(Ordering::Relaxed),
        race.lent,
        "what was lent is freed once, all of it"
    );
    println!("{} canaries were lent; {:?}", race.lent, race.count);
    race.count
}

#[test]
fn on_the_fake_driver_nothing_lent_is_harmed() {
    record::within("completion", "fake", || {
        spec!(I2);
        fault!(F90);
        let count = race(stormy, |events| Fake::pair(events, Options::EMPTY).unwrap());
        assert!(count.all() >= wanted());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn on_the_system_nothing_lent_is_harmed() {
    record::within("completion", bufferevent_iocp::BACKEND, || {
        spec!(I2);
        fault!(F90);
        let count = race(
            |_| common::system(),
            |events| {
                let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                let make = |stream| bufferevent_iocp::Builder::new(events).stream(stream);
                (make(near).unwrap(), make(far).unwrap())
            },
        );
        assert!(count.all() >= wanted());
    });
}
