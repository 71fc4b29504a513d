//! G1, O1, O5: how long a bufferevent lives, who closes what, and how deep the stack gets.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{
    Bev, Directions, Event, Handler, Kind, Options, READ, TriggerOptions, WRITE, on_event, on_read,
};
use bufferevent_testkit::{Log, Through, Told, spec};

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    ("after a free every call answers Freed", freed),
    (
        "a free reports what was never sent, and the peer hears",
        free_reports,
    ),
    ("a free inside any callback is safe", free_inside),
    (
        "a free of the peer inside any callback is safe",
        free_peer_inside,
    ),
    ("a free cancels callbacks that have not begun", free_cancels),
    (
        "it lives while it has work, and then frees itself",
        lives_by_work,
    ),
    ("the default event callback frees", default_frees),
    ("freeing a layer gives back what it stood on", gives_back),
    ("freeing a layer closes what it stood on", closes_below),
    ("freeing what is below is an error above", lost_below),
    ("a panic frees its bufferevent and nothing else", panics),
    ("a thousand answers to each other use no stack", ping_pong),
];

/// Says by a count when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn freed(joint: &dyn Joint) {
    spec!(G1);
    let (near, _far) = joint.pair();
    let handlers = Arc::new(AtomicUsize::new(0));
    let flag = Dropped(handlers.clone());
    near.set_handler(on_read(move |_| {
        let _ = &flag;
    }))
    .unwrap();
    let other = near.clone();
    assert!(!near.is_freed());
    near.free().unwrap();
    joint.settle();
    assert_eq!(
        handlers.load(Ordering::Relaxed),
        1,
        "the handler went with it"
    );
    assert!(near.is_freed() && other.is_freed());
    let kind = |result: Result<(), bufferevent_core::Error>| result.unwrap_err().kind();
    assert_eq!(kind(other.free().map(drop)), Kind::Freed);
    assert_eq!(kind(other.write(b"x")), Kind::Freed);
    assert_eq!(kind(other.read(&mut [0]).map(drop)), Kind::Freed);
    assert_eq!(kind(other.enable(READ)), Kind::Freed);
    assert_eq!(kind(other.disable(READ)), Kind::Freed);
    assert_eq!(kind(other.set_handler(Log::new().watch())), Kind::Freed);
    assert_eq!(kind(other.set_read_watermark(0, 1)), Kind::Freed);
    assert_eq!(kind(other.set_timeouts(None, None)), Kind::Freed);
    assert_eq!(kind(other.finish()), Kind::Freed);
    assert_eq!(kind(other.close(std::time::Duration::ZERO)), Kind::Freed);
    assert_eq!(
        kind(other.trigger(READ, TriggerOptions::EMPTY)),
        Kind::Freed
    );
    assert_eq!(
        kind(other.over(Options::EMPTY, Through::new()).map(drop)),
        Kind::Freed
    );
    let flush = other.flush(
        bufferevent_core::Direction::Write,
        bufferevent_core::Mode::Normal,
    );
    assert_eq!(kind(flush.map(drop)), Kind::Freed);
    assert_eq!(
        kind(other.input().with_contiguous(1, |_| ()).map(drop)),
        Kind::Freed
    );
    assert_eq!(other.underlying(), None);
}

fn free_reports(joint: &dyn Joint) {
    spec!(G1);
    let (near, far) = joint.pair();
    let log = Log::new();
    far.set_handler(log.watch()).unwrap();
    far.enable(READ).unwrap();
    near.disable(WRITE).unwrap();
    near.write(&[0; 12]).unwrap();
    assert_eq!(near.free().unwrap(), 12);
    joint.until("the peer's end", || log.has(&joint.torn()));
    assert_eq!(far.input().len(), 0, "what was unsent is dropped");
}

type Act = Box<dyn FnOnce(&Bev) + Send>;

/// Calls `act` in the first callback of one kind.
struct Acts {
    kind: usize,
    act: Option<Act>,
    log: Log,
}

impl Acts {
    fn at(&mut self, kind: usize, bev: &Bev, told: Told) {
        self.log.add(told);
        if self.kind == kind
            && let Some(act) = self.act.take()
        {
            act(bev);
        }
    }
}

impl Handler for Acts {
    fn on_read(&mut self, bev: &Bev) {
        self.at(0, bev, Told::Read(0));
    }
    fn on_write(&mut self, bev: &Bev) {
        self.at(1, bev, Told::Write(0));
    }
    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.at(2, bev, Told::from(event));
    }
}

/// Has `near` get a read, a write and an event callback; `act` runs in the one of `kind`.
fn act_inside(
    joint: &dyn Joint,
    options: Options,
    kind: usize,
    act: impl FnOnce(&Bev, &Bev) + Send + 'static,
) -> (Bev, Bev, Log) {
    let (near, far) = joint.make(options);
    let log = Log::new();
    let other = far.clone();
    let act: Act = Box::new(move |bev| act(bev, &other));
    near.set_handler(Acts {
        kind,
        act: Some(act),
        log: log.clone(),
    })
    .unwrap();
    far.enable(READ).unwrap();
    far.write(b"in").unwrap();
    far.finish().unwrap();
    near.disable(WRITE).unwrap();
    near.write(b"out").unwrap();
    near.enable(Directions::BOTH).unwrap();
    (near, far, log)
}

fn free_inside(joint: &dyn Joint) {
    spec!(G1);
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        for kind in 0..3 {
            let (near, far, log) = act_inside(joint, options, kind, |bev, _| {
                bev.free().unwrap();
                assert!(bev.is_freed());
                assert_eq!(bev.write(b"x").unwrap_err().kind(), Kind::Freed);
            });
            joint.until("the free", || near.is_freed());
            let told = log.told().len();
            joint.settle();
            assert_eq!(log.told().len(), told, "no callback begins after it");
            // The peer is unharmed.
            far.input().drain(usize::MAX).unwrap();
            assert!(!far.is_freed());
        }
    }
    assert_eq!(joint.panics(), 0);
}

fn free_peer_inside(joint: &dyn Joint) {
    spec!(G1);
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        for kind in 0..3 {
            let (near, far, _log) = act_inside(joint, options, kind, |_, far| {
                far.free().unwrap();
            });
            joint.until("the free", || far.is_freed());
            joint.settle();
            assert!(!near.is_freed());
            near.disable(READ).unwrap();
            near.free().unwrap();
        }
    }
    // Of a layer above and below: a stack of three, and the middle one frees what is around it.
    for (which, options) in [
        (0, Options::EMPTY),
        (1, Options::EMPTY),
        (0, Options::CLOSE_ON_FREE),
    ] {
        let (near, far) = joint.pair();
        let top = near.over(options, Through::new()).unwrap();
        let log = Log::new();
        let seen = log.clone();
        let victim = if which == 0 {
            top.clone()
        } else {
            near.clone()
        };
        top.set_handler(on_read(move |_| {
            victim.free().unwrap();
            seen.add(Told::Unknown);
        }))
        .unwrap();
        top.enable(READ).unwrap();
        far.write(b"x").unwrap();
        joint.until("the free", || log.has(&Told::Unknown));
        joint.settle();
        let both = options.contains(Options::CLOSE_ON_FREE);
        assert_eq!(near.is_freed(), which == 1 || both);
    }
    assert_eq!(joint.panics(), 0);
}

fn free_cancels(joint: &dyn Joint) {
    spec!(G1);
    let (near, far) = joint.make(Options::DEFER_CALLBACKS);
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.enable(READ).unwrap();
    far.write(b"x").unwrap();
    near.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)
        .unwrap();
    near.free().unwrap();
    joint.settle();
    assert_eq!(log.told(), [], "it was queued, and has not begun");
}

fn lives_by_work(joint: &dyn Joint) {
    spec!(G1);
    // Reading is enabled: it lives without a handle, and answers.
    let (near, far) = joint.pair();
    let drops = Arc::new(AtomicUsize::new(0));
    let flag = Dropped(drops.clone());
    far.set_handler(on_read(move |bev| {
        let _ = &flag;
        bev.output().append_from(&bev.input()).unwrap();
    }))
    .unwrap();
    far.enable(READ).unwrap();
    drop(far);
    joint.settle();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    near.write(b"anyone?").unwrap();
    assert_eq!(joint.take(&near, 7), b"anyone?");
    // Until the stream ends: then nothing can come any more.
    near.finish().unwrap();
    joint.until("it to go by itself", || drops.load(Ordering::Relaxed) == 1);

    // Output is queued: it lives until that is out.
    let (near, far) = joint.pair();
    let stuffed = joint.stuff(&near, 10_000);
    let flag = Dropped(drops.clone());
    near.set_handler(on_event(move |_, _| {
        let _ = &flag;
    }))
    .unwrap();
    drop(near);
    joint.settle();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    joint.until("all of it", || log.received_len() == stuffed);
    joint.until("it to go by itself", || drops.load(Ordering::Relaxed) == 2);
    joint.until("the end", || log.has(&joint.torn()));

    // Nothing to do, nothing to hear: it goes at once.
    let (near, _far) = joint.pair();
    let flag = Dropped(drops.clone());
    near.set_handler(on_read(move |_| {
        let _ = &flag;
    }))
    .unwrap();
    drop(near);
    joint.settle();
    assert_eq!(drops.load(Ordering::Relaxed), 3);
}

/// A handler with the default event callback.
struct Lazy;

impl Handler for Lazy {
    fn on_read(&mut self, bev: &Bev) {
        bev.output().append_from(&bev.input()).unwrap();
    }
}

fn default_frees(joint: &dyn Joint) {
    spec!(G1);
    // At an end, once the output is written.
    let (near, far) = joint.pair();
    near.set_handler(Lazy).unwrap();
    near.enable(READ).unwrap();
    let count = joint.absorbs() + 10_000;
    far.write(&vec![1; count]).unwrap();
    far.finish().unwrap();
    joint.until("the end", || near.is_freed() || near.enabled() == WRITE);
    let log = Log::new();
    far.set_handler(log.take_all()).unwrap();
    far.enable(READ).unwrap();
    joint.until("the echo", || log.received_len() == count);
    joint.until("its end", || near.is_freed() && log.has(&joint.torn()));
    // At an error or a timeout, at once.
    let (near, far) = joint.pair();
    near.set_handler(Lazy).unwrap();
    far.free().unwrap();
    joint.until("its end", || {
        near.write(&[0; 1000]).is_err() && near.is_freed()
    });
    let (near, _far) = joint.pair();
    near.set_handler(Lazy).unwrap();
    near.set_timeouts(Some(std::time::Duration::from_secs(1)), None)
        .unwrap();
    near.enable(READ).unwrap();
    joint.advance(std::time::Duration::from_secs(2));
    assert!(near.is_freed());
}

fn gives_back(joint: &dyn Joint) {
    spec!(O1);
    let (near, far) = joint.pair();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.enable(READ).unwrap();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    far.write(b"unread").unwrap();
    joint.settle();
    assert_eq!(log.told(), [], "the layer hears, not who is covered");
    assert_eq!(top.free().unwrap(), 0);
    joint.until("the bytes", || near.input().len() == 6);
    joint.until("its own callback", || log.reads() == 1);
    assert!(!near.is_freed() && near.enabled().contains(READ));
    near.write(b"alive").unwrap();
    assert_eq!(joint.take(&far, 5), b"alive");
    // And again: it can be covered anew, with bytes that came meanwhile for the layer.
    far.write(b", more").unwrap();
    joint.until("more", || near.input().len() == 12);
    let again = near.over(Options::EMPTY, Through::new()).unwrap();
    assert_eq!(joint.take(&again, 12), b"unread, more");
}

fn closes_below(joint: &dyn Joint) {
    spec!(O1);
    let (near, far) = joint.pair();
    let middle = near.over(Options::EMPTY, Through::new()).unwrap();
    let top = middle.over(Options::CLOSE_ON_FREE, Through::new()).unwrap();
    let log = Log::new();
    far.set_handler(log.watch()).unwrap();
    far.enable(READ).unwrap();
    top.free().unwrap();
    assert!(
        top.is_freed() && middle.is_freed(),
        "the one below goes too"
    );
    joint.until("the peer's end", || log.has(&joint.torn()));
    assert!(near.is_freed(), "and so on down");
}

fn lost_below(joint: &dyn Joint) {
    spec!(G1);
    let (near, _far) = joint.pair();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    let log = Log::new();
    top.set_handler(log.watch()).unwrap();
    near.free().unwrap();
    joint.settle();
    let freed = |told: &Told| matches!(told, Told::Error(_, Kind::Freed));
    assert!(
        !log.events().is_empty() && log.events().iter().all(freed),
        "{:?}",
        log.events()
    );
    assert_eq!(top.write(b"x").unwrap_err().kind(), Kind::Ended);
    assert_eq!(top.underlying(), None);
    top.free().unwrap();
}

fn panics(joint: &dyn Joint) {
    bufferevent_testkit::fault!(F85);
    let (near, far, _log) = act_inside(joint, Options::EMPTY, 0, |_, _| panic!("on purpose"));
    let log = Log::new();
    far.set_handler(log.watch()).unwrap();
    joint.until("the panic", || near.is_freed());
    assert_eq!(joint.panics(), 1, "counted");
    joint.until("the peer's end", || log.has(&joint.torn()));
    // Domain, lock and loop go on.
    assert!(!far.is_freed());
    let (near, far) = joint.pair();
    near.write(b"on").unwrap();
    assert_eq!(joint.take(&far, 2), b"on");
}

fn ping_pong(joint: &dyn Joint) {
    spec!(O5);
    const ROUNDS: usize = 1000;
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        let (near, far) = joint.make(options);
        let left = Rc::new(RefCell::new(ROUNDS));
        let lowest = Rc::new(RefCell::new((usize::MAX, 0_usize)));
        for bev in [&near, &far] {
            let (left, lowest) = (left.clone(), lowest.clone());
            bev.set_local_handler(on_read(move |bev| {
                let here = std::ptr::from_ref(&bev).addr();
                let mut seen = lowest.borrow_mut();
                *seen = (seen.0.min(here), seen.1.max(here));
                drop(seen);
                if *left.borrow() > 0 {
                    *left.borrow_mut() -= 1;
                    bev.output().append_from(&bev.input()).unwrap();
                }
            }))
            .unwrap();
            bev.enable(READ).unwrap();
        }
        near.write(b"ball").unwrap();
        joint.until("the game", || *left.borrow() == 0);
        let (low, high) = *lowest.borrow();
        assert!(
            high - low < 64 * 1024,
            "{} bytes of stack between two callbacks",
            high - low
        );
    }
}
