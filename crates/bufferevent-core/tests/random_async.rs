//! Random streams between futures: random layers, marks, networks and pieces, each by a seed; every byte arrives, nothing is stuck
//! and nothing spins.
//!
//! Each wake-up that a mutation takes out leaves one of these runs stuck.

mod common_async;

use bufferevent_core::{AsyncBev, Bev, Options};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, Network, Random, Through, faulty};
use common_async::start;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

/// Runs, each with a seed of its own.
const RUNS: u64 = 100;

/// Bytes that one side of a run sends at most.
const MOST: usize = 10_000;

/// Puts up to three layers on a bufferevent, each with marks of its own.
fn stack(random: &mut Random, bottom: Bev) -> Bev {
    let mut top = bottom;
    mark(random, &top);
    for _ in 0..random.below(4) {
        let layer = match random.below(4) {
            0 => Through::new(),
            1 => Through::new().terse(),
            2 => Through::new().holding(),
            _ => Through::new().chunk(random.within(1..200)),
        };
        top = top.over(Options::CLOSE_ON_FREE, layer).unwrap();
        mark(random, &top);
    }
    top
}

fn mark(random: &mut Random, bev: &Bev) {
    let mut high = || {
        if random.once_in(3) {
            0
        } else {
            random.within(1..3_000)
        }
    };
    let (read, write) = (high(), high());
    bev.set_read_watermark(0, read).unwrap();
    bev.set_write_watermark(0, write).unwrap();
}

/// Sends `bytes` in random pieces, flushing now and then, and closes.
async fn send<W: AsyncWriteExt + Unpin>(mut writer: W, bytes: Vec<u8>, mut random: Random) -> W {
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let piece = random.within(1..1_000).min(rest.len());
        let count = writer.write(&rest[..piece]).await.unwrap();
        rest = &rest[count..];
        if random.once_in(5) {
            writer.flush().await.unwrap();
        }
    }
    writer.close().await.unwrap();
    writer
}

/// Reads to the end, in random pieces.
async fn receive<R: AsyncReadExt + Unpin>(mut reader: R, mut random: Random) -> (Vec<u8>, R) {
    let mut all = Vec::new();
    let mut piece = [0; 2_000];
    loop {
        let room = random.within(1..piece.len());
        match reader.read(&mut piece[..room]).await.unwrap() {
            0 => return (all, reader),
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}

#[test]
fn every_byte_arrives_whatever_the_stack() {
    for seed in 0..RUNS {
        let mut random = Random::new(seed);
        let events = Loop::new();
        let (near, far) = if random.once_in(2) {
            pair(&events).unwrap()
        } else {
            let network = Network::seeded(seed).window(random.within(1..3_000));
            faulty(&events, Options::EMPTY, network).unwrap()
        };
        let mut ways = Vec::new();
        let mut readers = Vec::new();
        for bottom in [near, far] {
            let bev = AsyncBev::new(stack(&mut random, bottom)).unwrap();
            let count = random.below(MOST);
            let bytes = random.bytes(count);
            let (reader, writer) = bev.split();
            let sender = send(writer, bytes.clone(), Random::new(random.bits()));
            ways.push((bytes, start(&events, sender)));
            readers.push(start(&events, receive(reader, Random::new(random.bits()))));
        }
        events.run_until(|| {
            ways.iter().all(|(_, sender)| sender.is_there())
                && readers.iter().all(|reader| reader.is_there())
        });
        for ((sent, _), reader) in ways.iter().zip(readers.iter().rev()) {
            assert!(reader.take().0 == *sent, "seed {seed}: other bytes");
        }
    }
}
