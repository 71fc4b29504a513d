//! A rate on a filter that takes more at once than the rate brings: a block, and nothing of a part of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bufferevent_core::{Direction, Error, Mode, Options, READ, Rate, Reasons};
use bufferevent_filter::{Filter, FilterExt as _, Sink, Verdict};
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop, spec};
use evbuffer::EvBuffer;

/// Bytes of a block.
const BLOCK: usize = 16;

const SECOND: Duration = Duration::from_secs(1);

/// Emits whole blocks, as a cipher does, and what is left at the end.
struct Blocks(Arc<AtomicUsize>);

impl Filter for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        sink.append_from(source);
        Ok(Verdict::NeedInput)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        while source.len() >= BLOCK || (mode == Mode::Finished && !source.is_empty()) {
            let mut block = [0; BLOCK];
            let count = source.remove(&mut block);
            sink.append_slice(&block[..count]);
        }
        Ok(Verdict::NeedInput)
    }
}

#[test]
fn a_filter_that_takes_whole_blocks_gets_them_and_the_rate_holds_over_time() {
    spec!(R1);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let top = near
        .filter(Options::CLOSE_ON_FREE, Blocks(calls.clone()))
        .unwrap();
    let rate = Rate::new(10, 10, SECOND).unwrap();
    top.set_rate_limit(Direction::Write, Some(rate)).unwrap();
    // Ten bytes are no block: the filter takes nothing of them. Of twenty it takes one, not all that waits, and owes for it.
    top.write(&[1; 100 * BLOCK]).unwrap();
    events.run();
    assert_eq!(log.received_len(), BLOCK);
    assert_eq!(top.rate_level(Direction::Write), Some(10 - 16));
    assert_eq!(top.suspended(Direction::Write), Reasons::RATE);
    // The debt is repaid first: six bytes. Then there are four bytes for the second block.
    events.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(log.received_len(), BLOCK);
    events.advance(Duration::from_nanos(1));
    assert_eq!(log.received_len(), 2 * BLOCK);
    assert_eq!(top.rate_level(Direction::Write), Some(4 - 16));
    // At no time has more come than the rate has brought, and a block.
    for second in 2..=160 {
        events.advance(SECOND);
        let most = 10 + 10 * second + BLOCK;
        assert!(log.received_len() <= most, "{second}");
    }
    let all = 100 * BLOCK;
    assert_eq!(log.received_len(), all);
    // A part of a block that is all there is waits for the rest of it, and nothing asks again and again.
    top.write(&[3; 5]).unwrap();
    events.advance(2 * SECOND);
    let before = calls.load(Ordering::Relaxed);
    events.advance(3600 * SECOND);
    assert_eq!(calls.load(Ordering::Relaxed), before);
    assert_eq!((log.received_len(), top.output().len()), (all, 5));
    top.write(&[3; BLOCK]).unwrap();
    events.run();
    assert_eq!(log.received_len(), all + BLOCK);
    // And the rest at the end, also against the rate.
    top.finish().unwrap();
    events.advance(2 * SECOND);
    assert_eq!(log.received_len(), all + BLOCK + 5);
}

#[test]
fn over_many_blocks_the_rate_is_kept() {
    spec!(R1);
    const BLOCKS: usize = 50;
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Blocks(Arc::default()))
        .unwrap();
    let rate = Rate::new(10, 10, SECOND).unwrap();
    top.set_rate_limit(Direction::Write, Some(rate)).unwrap();
    let start = events.now();
    for count in 1..=BLOCKS {
        top.write(&[9; BLOCK]).unwrap();
        events.run();
        while log.received_len() < count * BLOCK {
            events.advance(SECOND);
        }
    }
    let seconds = (events.now() - start).as_secs() as usize;
    let least = (BLOCKS - 1) * BLOCK / 10;
    assert!(
        (least - 1..=least + 2).contains(&seconds),
        "{seconds} instead of {least}"
    );
}
