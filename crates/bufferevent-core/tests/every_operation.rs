//! Every public operation, from every kind of user code: none panics, none finds the state half-changed, and the
//! bytes flow afterwards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::{
    Bev, Bufferevent, Context, Direction, Directions, Event, EventFlags, Handler, Kind, Mode,
    Options, Pressure, READ, Step, TriggerOptions,
};
use bufferevent_pair::{Partner as _, pair_with};
use bufferevent_testkit::{Log, Loop, Through, fault, spec};
use bytes::Bytes;
use evbuffer::{Eol, EvBuffer};
use evreactor_core::Priority;

/// Runs every operation that leaves both ends usable. What the moment does not allow is refused with an error, and that is
/// all that may happen.
fn everything(bev: &Bev) {
    let again = bev.clone();
    assert!(again == *bev);
    drop(again);
    let _ = format!("{bev:?}");
    let _ = (
        bev.host(),
        bev.is_freed(),
        bev.interest(),
        bev.enabled(),
        bev.timeouts(),
    );
    let _ = (
        bev.room(),
        bev.stats(),
        bev.priority(),
        bev.max_single_read(),
        bev.max_single_write(),
    );
    let _ = bev.has_option(Options::DEFER_CALLBACKS);
    drop(bev.lock().map(drop));
    drop(bev.underlying());
    drop(bev.partner());
    drop(bev.key().map(|key| bev.neighbour(key)));
    drop(bev.target());
    if let Some(layer) = bev.layer::<Through>() {
        drop(layer.bev());
        drop(layer.with(|_, cx| (cx.room(), cx.now(), cx.finishing(), cx.key())));
    }
    for direction in [Direction::Read, Direction::Write] {
        let mark = bev.watermark(direction);
        drop(bev.set_watermark(direction, mark.low(), mark.high()));
        let _ = bev.suspended(direction);
        drop(bev.flush(direction, Mode::Normal));
        drop(bev.flush(direction, Mode::Flush));
    }
    let enabled = bev.enabled();
    drop(bev.disable(Directions::BOTH));
    drop(bev.suspend(Directions::BOTH));
    drop(bev.resume(Directions::BOTH));
    drop(bev.enable(enabled));
    drop(bev.set_timeouts(
        Some(Duration::from_secs(1000)),
        Some(Duration::from_secs(1000)),
    ));
    drop(bev.set_timeouts(None, None));
    drop(bev.set_idle_timeout(Some(Duration::from_secs(1000))));
    drop(bev.set_connect_timeout(None));
    drop(bev.set_max_output(0));
    drop(bev.set_max_single_read(0));
    drop(bev.set_max_single_write(0));
    drop(bev.set_priority(Priority(0)));
    drop(bev.write(b"a"));
    drop(bev.output().append(b"b"));
    drop(bev.output().append_bytes(Bytes::from_static(b"c")));
    let mut buffer = EvBuffer::new();
    buffer.append_slice(b"d").unwrap();
    drop(bev.write_buffer(&mut buffer));
    drop(bev.output().append_from(&bev.input()));
    let _ = (
        bev.output().len(),
        bev.output().is_empty(),
        bev.input().len(),
        bev.input().is_empty(),
    );
    drop(bev.input().find(b"x"));
    drop(bev.input().copy_out(&mut [0; 4]));
    drop(bev.input().with_contiguous(4, <[u8]>::len));
    drop(bev.input().read_line(Eol::Lf, 10));
    drop(bev.read(&mut [0; 1]));
    drop(bev.input().remove(&mut [0; 1]));
    drop(bev.input().move_to(1, &mut buffer));
    drop(bev.read_buffer(&mut buffer));
    drop(bev.input().drain(usize::MAX));
    drop(bev.with_handler(|_: &mut Everywhere| ()));
    drop(bev.trigger(READ, TriggerOptions::EMPTY));
    drop(bev.trigger_event(EventFlags::EMPTY, TriggerOptions::DEFER_CALLBACKS));
}

/// What is called from the user code under test.
type Act = Arc<dyn Fn(&Bev) + Send + Sync>;

/// Acts the first time that one of its callbacks runs.
struct Everywhere {
    place: usize,
    act: Act,
    acted: bool,
}

impl Everywhere {
    fn at(&mut self, place: usize, bev: &Bev) {
        if self.place == place && !self.acted {
            self.acted = true;
            (self.act)(bev);
        }
    }
}

impl Handler for Everywhere {
    fn on_read(&mut self, bev: &Bev) {
        self.at(0, bev);
    }
    fn on_write(&mut self, bev: &Bev) {
        self.at(1, bev);
    }
    fn on_event(&mut self, bev: &Bev, _: &Event) {
        self.at(2, bev);
    }
    fn on_pressure(&mut self, bev: &Bev, _: Pressure) {
        self.at(3, bev);
    }
}

/// Acts inside the calls of a layer.
struct Meddling {
    place: usize,
    act: Act,
    on: Arc<Mutex<Option<Bev>>>,
    acted: bool,
}

impl Meddling {
    fn at(&mut self, place: usize) {
        let on = self.on.lock().unwrap().clone();
        if self.place == place
            && !self.acted
            && let Some(bev) = on
        {
            self.acted = true;
            (self.act)(&bev);
        }
    }
}

impl Bufferevent for Meddling {
    fn name(&self) -> &'static str {
        "meddling"
    }
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        self.at(0);
        let moved = cx.lift(|below, own, room| {
            self.at(1);
            below.move_to(room, own).unwrap()
        });
        self.at(2);
        if moved == 0 {
            cx.inherit_end();
        }
        Step::Done
    }
    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        self.at(3);
        let moved = cx.lower(|own, below, room| {
            self.at(4);
            own.move_to(room, below).unwrap()
        });
        if moved == 0 && cx.finishing() {
            cx.end_output();
        }
        Step::Done
    }
    fn freed(&mut self, _: &mut Context<'_>, _: bool) {
        self.at(5);
    }
}

/// Memory whose owner acts when it is dropped.
struct Owner {
    act: Act,
    on: Bev,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        b"owned"
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        (self.act)(&self.on);
    }
}

/// Runs `act` from every place in turn. `after` looks at what is left.
fn from_everywhere(act: &Act, after: &dyn Fn(&Loop, &Bev, &Bev, &str)) {
    for options in [
        Options::EMPTY,
        Options::DEFER_CALLBACKS,
        Options::THREADSAFE,
    ] {
        let make = || {
            let events = Loop::new();
            let (near, far) = pair_with(&events, options).unwrap();
            far.enable(READ).unwrap();
            (events, near, far)
        };
        let provoke = |events: &Loop, near: &Bev, far: &Bev| {
            drop(near.set_write_watermark(0, 2));
            drop(near.write(b"provoke"));
            drop(near.enable(Directions::BOTH));
            drop(far.write(b"a line\n"));
            drop(near.trigger_event(EventFlags::EMPTY, TriggerOptions::EMPTY));
            events.run();
            drop(near.set_write_watermark(0, 0));
        };
        for place in 0..4 {
            let handler = || Everywhere {
                place,
                act: act.clone(),
                acted: false,
            };
            let (events, near, far) = make();
            near.set_handler(handler()).unwrap();
            provoke(&events, &near, &far);
            after(&events, &near, &far, &format!("callback {place}"));
            let (events, near, far) = make();
            near.set_local_handler(handler()).unwrap();
            provoke(&events, &near, &far);
            after(&events, &near, &far, &format!("local callback {place}"));
        }
        for place in 0..6 {
            for inside in [true, false] {
                let (events, near, far) = make();
                let on = Arc::new(Mutex::new(None));
                let layer = Meddling {
                    place,
                    act: act.clone(),
                    on: on.clone(),
                    acted: false,
                };
                let top = near.over(options, layer).unwrap();
                *on.lock().unwrap() = Some(if inside { top.clone() } else { far.clone() });
                provoke(&events, &top, &far);
                drop(top.clone().finish());
                events.run();
                if place == 5 {
                    drop(top.free());
                }
                events.run();
                drop(on.lock().unwrap().take());
                assert_eq!(events.panics(), 0, "layer call {place}");
            }
        }
        // A closure over a slice of the input.
        let (events, near, far) = make();
        near.enable(READ).unwrap();
        far.write(b"a line\n").unwrap();
        events.run();
        near.input()
            .with_contiguous(3, |bytes| {
                act(&near);
                assert_eq!(bytes, b"a l", "what is lent stays");
            })
            .unwrap();
        events.run();
        after(&events, &near, &far, "closure over a slice");
        // A closure over the handler.
        let (events, near, far) = make();
        near.set_handler(Everywhere {
            place: 9,
            act: act.clone(),
            acted: false,
        })
        .unwrap();
        near.with_handler(|_: &mut Everywhere| act(&near)).unwrap();
        events.run();
        after(&events, &near, &far, "closure over the handler");
        // The drop of memory that somebody else owns, when it is read away, and when it is freed unread.
        for freed in [false, true] {
            let (events, near, far) = make();
            let owner = Owner {
                act: act.clone(),
                on: near.clone(),
            };
            near.enable(READ).unwrap();
            far.output().append_bytes(Bytes::from_owner(owner)).unwrap();
            events.run();
            if freed {
                drop(near.free());
            } else {
                near.input().drain(5).unwrap();
                events.run();
                after(&events, &near, &far, "drop of foreign memory");
            }
            events.run();
            assert_eq!(events.panics(), 0);
        }
        // The drop of a handler.
        let (events, near, far) = make();
        let owner = Owner {
            act: act.clone(),
            on: near.clone(),
        };
        near.set_handler(bufferevent_core::on_read(move |_| {
            let _ = &owner;
        }))
        .unwrap();
        drop(near.replace_handler(None));
        events.run();
        after(&events, &near, &far, "drop of a handler");
    }
}

#[test]
fn everything_can_be_called_from_everywhere() {
    spec!(G1);
    fault!(F84);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let act: Act = Arc::new(move |bev| {
        counted.fetch_add(1, Ordering::Relaxed);
        everything(bev);
    });
    from_everywhere(&act, &|events, near, far, place| {
        assert_eq!(events.panics(), 0, "{place}");
        for bev in [near, far] {
            bev.replace_handler(None).unwrap();
            bev.enable(Directions::BOTH).unwrap();
            bev.input().drain(usize::MAX).unwrap();
        }
        events.run();
        for bev in [near, far] {
            bev.input().drain(usize::MAX).unwrap();
        }
        let log = Log::new();
        far.set_handler(log.take_all()).unwrap();
        near.write(b"still flows").unwrap();
        events.run();
        assert_eq!(log.received(), b"still flows", "{place}");
    });
    // Callbacks, layer calls, closures and drops, under each of the options.
    assert!(calls.load(Ordering::Relaxed) >= 3 * 20, "{calls:?}");
}

#[test]
fn freeing_is_legal_from_everywhere() {
    spec!(G1);
    fault!(F83);
    let act: Act = Arc::new(|bev| {
        drop(bev.free());
        assert!(bev.is_freed());
        assert_eq!(bev.write(b"x").unwrap_err().kind(), Kind::Freed);
        everything(bev);
    });
    from_everywhere(&act, &|events, near, _, place| {
        assert_eq!(events.panics(), 0, "{place}");
        assert!(near.is_freed(), "{place}");
    });
}

#[test]
fn freeing_the_partner_is_legal_from_everywhere() {
    spec!(G1);
    fault!(F83);
    let act: Act = Arc::new(|bev| {
        if let Some(partner) = bev.partner() {
            drop(partner.free());
            assert!(partner.is_freed());
        }
        everything(bev);
    });
    from_everywhere(&act, &|events, near, far, place| {
        assert_eq!(events.panics(), 0, "{place}");
        assert!(!near.is_freed() && far.is_freed(), "{place}");
    });
}
