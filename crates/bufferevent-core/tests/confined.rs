//! Without THREADSAFE: every way in is refused on another thread, with the reason, and nothing is changed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use bufferevent_core::{
    Bev, Deadline, Direction, Directions, Error, EventFlags, Handler, Kind, Mode, Options, READ,
    Rate, RateGroup, TriggerOptions,
};
use bufferevent_pair::{Pair, Partner as _, pair, pair_with};
use bufferevent_testkit::{Loop, Through, spec};
use bytes::Bytes;
use evbuffer::{Eol, EvBuffer};
use evreactor_core::{AsHost as _, Priority};

struct Silent;
impl Handler for Silent {}

/// An operation that answers an error.
type Answers = (&'static str, fn(&Bev) -> Result<(), Error>);

/// A look that answers a plain value.
type Looks = (&'static str, fn(&Bev));

const SPAN: Option<Duration> = Some(Duration::from_secs(1));

/// The answer is of no interest.
fn seen<T>(_: T) {}

fn buffer() -> EvBuffer {
    let mut buffer = EvBuffer::new();
    buffer.append_slice(b"x").expect("there is memory");
    buffer
}

fn rate() -> Rate {
    Rate::per_second(1000).expect("it is one")
}

const OPERATIONS: &[Answers] = &[
    ("lock", |bev| bev.lock().map(drop)),
    ("lock_both", |bev| bev.lock_both(bev).map(drop)),
    ("free", |bev| bev.free().map(drop)),
    ("free_when_written", Bev::free_when_written),
    ("close", |bev| bev.close(Duration::from_secs(1))),
    ("write", |bev| bev.write(b"x")),
    ("write_buffer", |bev| bev.write_buffer(&mut buffer())),
    ("append", |bev| bev.output().append(b"x")),
    ("append_bytes", |bev| {
        bev.output().append_bytes(Bytes::from_static(b"x"))
    }),
    ("append_from", |bev| {
        bev.output().append_from(&bev.input()).map(drop)
    }),
    ("read", |bev| bev.read(&mut [0; 1]).map(drop)),
    ("read_buffer", |bev| {
        bev.read_buffer(&mut EvBuffer::new()).map(drop)
    }),
    ("drain", |bev| bev.input().drain(1).map(drop)),
    ("remove", |bev| bev.input().remove(&mut [0; 1]).map(drop)),
    ("move_to", |bev| {
        bev.input().move_to(1, &mut EvBuffer::new()).map(drop)
    }),
    ("copy_out", |bev| {
        bev.input().copy_out(&mut [0; 1]).map(drop)
    }),
    ("read_line", |bev| {
        bev.input().read_line(Eol::Lf, 9).map(drop)
    }),
    ("find", |bev| bev.input().find(b"x").map(drop)),
    ("with_contiguous", |bev| {
        bev.input().with_contiguous(1, |_| ())
    }),
    ("enable", |bev| bev.enable(READ)),
    ("disable", |bev| bev.disable(Directions::BOTH)),
    ("suspend", |bev| bev.suspend(READ)),
    ("resume", |bev| bev.resume(READ)),
    ("set_watermark", |bev| {
        bev.set_watermark(Direction::Read, 1, 2)
    }),
    ("set_read_watermark", |bev| bev.set_read_watermark(1, 2)),
    ("set_write_watermark", |bev| bev.set_write_watermark(1, 2)),
    ("set_timeouts", |bev| bev.set_timeouts(SPAN, SPAN)),
    ("set_deadline", |bev| bev.set_deadline(Deadline::Idle, SPAN)),
    ("set_idle_timeout", |bev| bev.set_idle_timeout(SPAN)),
    ("set_connect_timeout", |bev| bev.set_connect_timeout(SPAN)),
    ("set_max_output", |bev| bev.set_max_output(1)),
    ("set_max_single_read", |bev| bev.set_max_single_read(1)),
    ("set_max_single_write", |bev| bev.set_max_single_write(1)),
    ("set_rate_limit", |bev| {
        bev.set_rate_limit(Direction::Read, Some(rate()))
    }),
    ("charge_rate_limit", |bev| {
        bev.set_rate_limit(Direction::Write, Some(rate()))?;
        bev.charge_rate_limit(Direction::Write, 1)
    }),
    ("charge_rate_limit of none", |bev| {
        match bev.charge_rate_limit(Direction::Write, 1) {
            // There is none to charge: the thread was asked about first.
            Err(error) if error.kind() == Kind::Misuse => Ok(()),
            answer => answer,
        }
    }),
    ("join_rate_group", |bev| {
        bev.join_rate_group(&RateGroup::new(&bev.host()))
    }),
    ("leave_rate_group", Bev::leave_rate_group),
    ("set_priority", |bev| bev.set_priority(Priority(1))),
    ("set_handler", |bev| bev.set_handler(Silent)),
    ("set_local_handler", |bev| bev.set_local_handler(Silent)),
    ("replace_handler", |bev| bev.replace_handler(None).map(drop)),
    ("with_handler", |bev| bev.with_handler(|_: &mut Silent| ())),
    ("trigger", |bev| bev.trigger(READ, TriggerOptions::EMPTY)),
    ("trigger_event", |bev| {
        bev.trigger_event(EventFlags::EOF, TriggerOptions::EMPTY)
    }),
    ("flush", |bev| {
        bev.flush(Direction::Write, Mode::Finished).map(drop)
    }),
    ("finish", Bev::finish),
    ("finish_layer", Bev::finish_layer),
    ("take_off", |bev| bev.take_off().map(drop)),
    ("tear_off", |bev| bev.tear_off().map(drop)),
    ("over", |bev| {
        bev.over(Options::EMPTY, Through::new()).map(drop)
    }),
    ("put_on", |bev| {
        bev.put_on(Options::EMPTY, Through::new()).map(drop)
    }),
    ("beside", |bev| bev.beside(Through::new()).map(drop)),
    ("key", |bev| bev.key().map(drop)),
    ("target", |bev| bev.target().map(drop)),
];

const LOOKS: &[Looks] = &[
    ("is_freed", |bev| seen(bev.is_freed())),
    ("room", |bev| seen(bev.room())),
    ("is_full", |bev| seen(bev.is_full())),
    ("stats", |bev| seen(bev.stats())),
    ("has_option", |bev| {
        seen(bev.has_option(Options::THREADSAFE))
    }),
    ("input", |bev| {
        seen((bev.input().len(), bev.input().is_empty()))
    }),
    ("output", |bev| {
        seen((bev.output().len(), bev.output().is_empty()))
    }),
    ("enabled", |bev| seen(bev.enabled())),
    ("suspended", |bev| seen(bev.suspended(Direction::Read))),
    ("watermark", |bev| seen(bev.watermark(Direction::Read))),
    ("timeouts", |bev| seen(bev.timeouts())),
    ("deadline", |bev| seen(bev.deadline(Deadline::Idle))),
    ("dns_error", |bev| seen(bev.dns_error())),
    ("max_single_read", |bev| seen(bev.max_single_read())),
    ("max_single_write", |bev| seen(bev.max_single_write())),
    ("rate_limit", |bev| seen(bev.rate_limit(Direction::Read))),
    ("rate_level", |bev| seen(bev.rate_level(Direction::Read))),
    ("may_move", |bev| seen(bev.may_move(Direction::Read))),
    ("rate_group", |bev| seen(bev.rate_group())),
    ("priority", |bev| seen(bev.priority())),
    ("interest", |bev| seen(bev.interest())),
    ("underlying", |bev| seen(bev.underlying())),
    ("layer", |bev| seen(bev.layer::<Through>())),
    ("partner", |bev| seen(bev.partner())),
];

/// What can be seen of a bufferevent from outside.
fn appearance(bev: &Bev) -> String {
    let marks = (
        bev.watermark(Direction::Read),
        bev.watermark(Direction::Write),
    );
    let rates = (
        bev.rate_limit(Direction::Read),
        bev.rate_limit(Direction::Write),
        bev.rate_group().is_some(),
    );
    let sizes = (bev.max_single_read(), bev.max_single_write(), bev.room());
    format!(
        "{:?} {:?} {marks:?} {sizes:?} {rates:?} {:?} {:?} {:?} {:?} {:?}",
        bev.stats(),
        bev.enabled(),
        bev.timeouts(),
        bev.priority(),
        bev.interest(),
        bev.suspended(Direction::Read),
        bev.is_freed(),
    )
}

#[test]
fn every_operation_is_refused_on_another_thread_and_changes_nothing() {
    spec!(O2);
    let events = Loop::new();
    let (near, far) = pair(&events).expect("a pair");
    let top = near
        .over(Options::EMPTY, Through::new())
        .expect("it is free");
    far.write(b"bytes").expect("it is open");
    top.enable(READ).expect("it is there");
    events.run();
    let before = [appearance(&top), appearance(&near), appearance(&far)];
    let other = top.clone();
    let kinds = thread::spawn(move || {
        let kind = |call: &fn(&Bev) -> Result<(), Error>| call(&other).map_err(|e| e.kind());
        OPERATIONS
            .iter()
            .map(|(name, call)| (*name, kind(call)))
            .collect::<Vec<_>>()
    });
    for (name, answer) in kinds.join().expect("no panic") {
        assert_eq!(answer, Err(Kind::WrongThread), "{name}");
    }
    events.run();
    assert_eq!(
        before,
        [appearance(&top), appearance(&near), appearance(&far)]
    );
}

#[test]
fn every_look_panics_on_another_thread_with_the_reason() {
    spec!(O2);
    let events = Loop::new();
    let (near, _far) = pair(&events).expect("a pair");
    let layer = near.layer::<Pair>().expect("it is one");
    thread::spawn(move || {
        for (name, look) in LOOKS {
            let payload = catch_unwind(AssertUnwindSafe(|| look(&near))).expect_err(name);
            let reason = payload.downcast_ref::<&str>().expect("a message");
            assert!(reason.contains("Options::THREADSAFE"), "{name}: {reason}");
        }
        let refused = layer.with(|_, _| ()).expect_err("nor its layer");
        assert_eq!(refused.kind(), Kind::WrongThread);
        // Handles may travel and end anywhere.
        drop(near.clone());
        let _ = (format!("{near:?}"), near.host(), near == near.clone());
    })
    .join()
    .expect("nothing else panics");
}

#[test]
fn with_threadsafe_every_operation_is_carried_out_but_those_of_the_loops_own_thread() {
    spec!(O2);
    let events = Loop::new();
    let local = ["set_local_handler", "take_off", "tear_off"];
    for (name, call) in OPERATIONS {
        let (near, far) = pair_with(&events, Options::THREADSAFE).expect("a pair");
        let top = near
            .over(Options::THREADSAFE, Through::new())
            .expect("it is free");
        far.write(b"bytes").expect("it is open");
        top.set_handler(Silent).expect("it is there");
        let answer = thread::spawn({
            let top = top.clone();
            move || call(&top).map_err(|error| error.kind())
        });
        let answer = answer.join().expect("no panic");
        events.run();
        if local.contains(name) {
            assert_eq!(answer, Err(Kind::WrongThread), "{name}");
        } else {
            assert_eq!(answer, Ok(()), "{name}");
        }
    }
    let (near, _far) = pair_with(&events, Options::THREADSAFE).expect("a pair");
    thread::spawn(move || {
        for (_, look) in LOOKS {
            look(&near);
        }
        assert!(near.partner().is_some());
    })
    .join()
    .expect("every look is allowed");
}

#[test]
fn made_on_another_thread_only_with_threadsafe() {
    spec!(O2);
    let events = Loop::new();
    let host = events.as_host();
    let (far, refused) = thread::spawn(move || {
        let refused = pair(&host).expect_err("it is the loop's").kind();
        let (near, far) = pair_with(&host, Options::THREADSAFE).expect("any thread may");
        near.write(b"from the start").expect("it is open");
        far.enable(READ).expect("it is there");
        (far, refused)
    })
    .join()
    .expect("no panic");
    assert_eq!(refused, Kind::WrongThread);
    events.run();
    assert_eq!(far.input().len(), 14);
}
