//! The rules of lent memory, on the fake driver: in any order, partial, late, cancelled, failed.

mod common;

use bufferevent_core::{Direction, Event, Kind, Options, READ, on_event};
use bufferevent_iocp::{Fake, Verb};
use bufferevent_testkit::{Log, Told, fault, record, spec};
use bytes::Bytes;
use common::{bytes, calm, lane, port, script, stormy, turns, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// `ECONNRESET`, or what stands for it.
const RESET: i32 = if cfg!(windows) { 10054 } else { 104 };

/// Memory that says when it is dropped.
struct Canary(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Canary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn whatever_the_order_all_bytes_arrive_in_theirs() {
    record::within("completion", "fake", || {
        for seed in 1..=120 {
            let events = stormy(seed);
            let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
            let sent = [bytes(seed, 150_000), bytes(seed + 1000, 90_000)];
            let logs = [Log::new(), Log::new()];
            for ((bev, data), log) in [&near, &far].into_iter().zip(&sent).zip(&logs) {
                bev.set_handler(log.take_all()).unwrap();
                bev.set_read_watermark(0, 1 + (seed as usize * 977) % 40_000)
                    .unwrap();
                bev.enable(READ).unwrap();
                for piece in data.chunks(1 + (seed as usize * 131) % 9000) {
                    bev.write(piece).unwrap();
                }
                bev.finish().unwrap();
            }
            until(&events, "both ends", || {
                logs.iter().all(|log| log.has(&Told::Eof))
            });
            assert_eq!(logs[0].received(), sent[1], "seed {seed}");
            assert_eq!(logs[1].received(), sent[0], "seed {seed}");
        }
    });
}

#[test]
fn what_was_handed_over_still_leaves_when_the_bufferevent_is_freed() {
    record::within("completion", "fake", || {
        spec!(I2);
        fault!(F90);
        let events = calm();
        let dropped = Arc::new(AtomicUsize::new(0));
        let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        far.enable(READ).unwrap();
        let sending = lane(&near);
        script(&events, |fake| fake.hold(sending, Verb::Send, true));
        near.output()
            .append_bytes(Bytes::from_owner(Canary(b"lent".to_vec(), dropped.clone())))
            .unwrap();
        turns(&events, 3);
        assert_eq!(near.output().len(), 0, "it was handed over");
        assert_eq!(near.free().unwrap(), 0);
        turns(&events, 3);
        assert_eq!(dropped.load(Ordering::SeqCst), 0, "the driver has it");
        assert!(script(&events, |fake| fake.is_under_way(sending, Verb::Send)));
        script(&events, |fake| fake.hold(sending, Verb::Send, false));
        until(&events, "the end", || log.has(&Told::Eof));
        assert_eq!(log.received(), b"lent");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        far.free().unwrap();
        turns(&events, 3);
        assert_eq!(port(&events).lanes(), 0, "and nothing is left of it");
    });
}

#[test]
fn a_number_is_not_used_again_while_anything_is_under_way() {
    record::within("completion", "fake", || {
        spec!(I2);
        let events = calm();
        let (near, _far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let busy = lane(&near);
        script(&events, |fake| fake.hold(busy, Verb::Send, true));
        near.write(b"held").unwrap();
        turns(&events, 2);
        near.free().unwrap();
        turns(&events, 2);
        for _ in 0..20 {
            let (one, two) = Fake::pair(&events, Options::EMPTY).unwrap();
            assert!(lane(&one) != busy && lane(&two) != busy);
        }
    });
}

#[test]
fn a_loop_that_goes_ends_what_is_under_way_and_drops_what_was_lent() {
    record::within("completion", "fake", || {
        spec!(I2);
        fault!(F90);
        let dropped = Arc::new(AtomicUsize::new(0));
        let kept;
        {
            let events = calm();
            let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
            let sending = lane(&near);
            script(&events, |fake| fake.hold(sending, Verb::Send, true));
            far.enable(READ).unwrap();
            let canary = Canary(vec![7; 1000], dropped.clone());
            near.output()
                .append_bytes(Bytes::from_owner(canary))
                .unwrap();
            turns(&events, 3);
            std::mem::forget(near.clone());
            kept = (near, far);
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        // What is used afterwards answers, and harms nobody.
        let _ = kept.0.write(b"too late");
        let _ = kept.1.input().len();
    });
}

#[test]
fn one_that_nobody_holds_lives_while_a_send_takes_long() {
    record::within("completion", "fake", || {
        spec!(I2);
        let events = stormy(77);
        let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        let data = bytes(5, 200_000);
        near.write(&data).unwrap();
        turns(&events, 10);
        drop(near);
        turns(&events, 10);
        far.enable(READ).unwrap();
        until(&events, "all of it", || log.received().len() == data.len());
        assert_eq!(log.received(), data);
        until(&events, "its end", || log.has(&Told::Eof));
    });
}

#[test]
fn a_send_that_fails_later_is_told_also_with_nothing_more_to_send() {
    record::within("completion", "fake", || {
        fault!(F18);
        let events = calm();
        let (near, _far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let log = Log::new();
        near.set_handler(log.watch()).unwrap();
        let sending = lane(&near);
        script(&events, |fake| fake.fail(sending, Verb::Send, RESET));
        near.write(b"never arrives").unwrap();
        until(&events, "the error", || {
            log.has(&Told::Error(Some(Direction::Write), Kind::Peer))
        });
        assert_eq!(near.write(b"more").unwrap_err().kind(), Kind::Ended);
    });
}

#[test]
fn a_receive_that_fails_is_told_behind_its_data() {
    record::within("completion", "fake", || {
        fault!(F18);
        let events = calm();
        let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let log = Log::new();
        near.set_handler(log.take_all()).unwrap();
        near.enable(READ).unwrap();
        far.write(b"before").unwrap();
        until(&events, "the data", || log.received() == b"before");
        let receiving = lane(&near);
        script(&events, |fake| fake.fail(receiving, Verb::Receive, RESET));
        until(&events, "the error", || {
            log.has(&Told::Error(Some(Direction::Read), Kind::Peer))
        });
    });
}

#[test]
fn a_full_input_stops_receiving_and_a_drained_one_starts_it_again() {
    record::within("completion", "fake", || {
        for seed in 0..=20 {
            let events = if seed == 0 { calm() } else { stormy(seed) };
            let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
            near.set_read_watermark(0, 100).unwrap();
            near.enable(READ).unwrap();
            let data = bytes(seed, 600_000);
            far.write(&data).unwrap();
            turns(&events, 200);
            let receiving = lane(&near);
            assert!(!script(&events, |fake| fake.is_under_way(receiving, Verb::Receive)));
            assert_eq!(near.input().len(), 100);
            assert!(!far.output().is_empty(), "the sender feels it");
            near.set_read_watermark(0, 0).unwrap();
            let mut taken = Vec::new();
            until(&events, "all of it", || {
                let mut piece = vec![0; 70_000];
                let count = near.read(&mut piece).unwrap();
                taken.extend_from_slice(&piece[..count]);
                taken.len() == data.len()
            });
            assert_eq!(taken, data, "seed {seed}");
        }
    });
}

#[test]
fn foreign_memory_may_use_the_bufferevent_while_it_is_dropped() {
    /// Writes to a bufferevent when it is dropped, and panics then.
    struct Busy(bufferevent_core::Bev, Arc<AtomicBool>);
    impl AsRef<[u8]> for Busy {
        fn as_ref(&self) -> &[u8] {
            b"busy"
        }
    }
    impl Drop for Busy {
        fn drop(&mut self) {
            self.0.write(b" again").expect("it may be written to");
            self.1.store(true, Ordering::SeqCst);
            panic!("on purpose");
        }
    }
    record::within("completion", "fake", || {
        let events = calm();
        let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        far.enable(READ).unwrap();
        let gone = Arc::new(AtomicBool::new(false));
        let busy = Busy(near.clone(), gone.clone());
        near.output().append_bytes(Bytes::from_owner(busy)).unwrap();
        until(&events, "both", || log.received() == b"busy again");
        assert!(gone.load(Ordering::SeqCst));
        assert!(!near.is_freed());
    });
}

#[test]
fn random_lives_leave_nothing_behind() {
    record::within("completion", "fake", || {
        fault!(F90);
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut lent = 0;
        for seed in 1..=60_u64 {
            let events = stormy(seed);
            let mut alive = Vec::new();
            let choice = bytes(seed, 400);
            for pair in choice.chunks(2) {
                let at = usize::from(pair[1]);
                match pair[0] % 8 {
                    0 | 1 => {
                        let (one, two) = Fake::pair(&events, Options::EMPTY).unwrap();
                        one.enable(READ).unwrap();
                        two.enable(READ).unwrap();
                        alive.extend([one, two]);
                    }
                    2 | 3 if !alive.is_empty() => {
                        let bev = &alive[at % alive.len()];
                        let canary = Canary(vec![pair[0]; at * 40 + 1], dropped.clone());
                        if bev.output().append_bytes(Bytes::from_owner(canary)).is_ok() {
                            lent += 1;
                        } else {
                            lent += 1; // Refused, and dropped at once.
                        }
                    }
                    4 if !alive.is_empty() => drop(alive.swap_remove(at % alive.len())),
                    5 if !alive.is_empty() => {
                        let _ = alive.swap_remove(at % alive.len()).free();
                    }
                    6 if !alive.is_empty() => {
                        std::mem::forget(alive.swap_remove(at % alive.len()));
                    }
                    _ => turns(&events, at % 4),
                }
            }
            // A forgotten handle keeps its domain's memory, and with it what was read and not taken; so the inputs are emptied.
            drop(alive);
            drop(events);
        }
        assert!(dropped.load(Ordering::SeqCst) <= lent);
        assert!(lent > 1000, "{lent}: something was lent");
    });
}

#[test]
fn another_loop_is_refused_with_a_word_on_what_to_do() {
    let events = evreactor::EventLoop::builder()
        .backend("polling")
        .build()
        .unwrap();
    let error = bufferevent_iocp::Builder::new(&events)
        .unconnected()
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        why.contains("polling") && why.contains(bufferevent_iocp::BACKEND),
        "{why}"
    );
}

#[test]
fn an_end_is_told_once_and_frees_on_demand() {
    record::within("completion", "fake", || {
        let events = calm();
        let (near, far) = Fake::pair(&events, Options::EMPTY).unwrap();
        let ends = Arc::new(AtomicUsize::new(0));
        let seen = ends.clone();
        near.set_handler(on_event(move |bev, event| {
            if matches!(event, Event::Eof) {
                seen.fetch_add(1, Ordering::SeqCst);
                bev.free().unwrap();
            }
        }))
        .unwrap();
        near.enable(READ).unwrap();
        far.finish().unwrap();
        until(&events, "the end", || ends.load(Ordering::SeqCst) == 1);
        turns(&events, 5);
        assert!(near.is_freed());
        assert_eq!(ends.load(Ordering::SeqCst), 1);
    });
}
