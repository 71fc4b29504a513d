//! Ends, failures and time over scripted transports: what a real one does rarely, done on purpose.

use std::io;
use std::time::Duration;

use bufferevent_core::{
    Bev, Bufferevent, Context, Deadline, Direction, Event, Handler, Kind, Options, READ, Step,
    WRITE, on_read,
};
use bufferevent_pair::pair;
use bufferevent_testkit::{
    Log, Loop, Network, Random, Script, Through, Told, fault, faulty, scripted, spec,
};

const SECOND: Duration = Duration::from_secs(1);

/// A transport in which everything happens in one turn, once it is ready.
struct Burst {
    ready: bool,
}

impl Bufferevent for Burst {
    fn name(&self) -> &'static str {
        "burst"
    }
    fn attached(&mut self, cx: &mut Context<'_>) {
        cx.connect_begun();
    }
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        cx.add_input(b"all at once").unwrap();
        cx.end_input();
        Step::Done
    }
    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        if cx.connecting() {
            if self.ready {
                cx.connected();
                return Step::Again;
            }
            return Step::Blocked;
        }
        if cx.finishing() {
            cx.end_output();
            return Step::Done;
        }
        cx.send(|output| output.drain(usize::MAX));
        Step::Again
    }
}

#[test]
fn one_round_tells_everything_in_order() {
    spec!(C11);
    use evreactor_core::AsHost as _;
    for options in [Options::EMPTY, Options::DEFER_CALLBACKS] {
        let events = Loop::new();
        let bev = Bev::transport(events.as_host(), options, Burst { ready: false }).unwrap();
        let log = Log::new();
        bev.set_handler(log.watch()).unwrap();
        bev.enable(READ).unwrap();
        bev.write(b"queued before").unwrap();
        bev.finish().unwrap();
        assert_eq!(log.told(), []);
        let ready = |burst: &mut Burst, cx: &mut Context<'_>| {
            burst.ready = true;
            cx.ready_later();
        };
        bev.layer::<Burst>().unwrap().with(ready).unwrap();
        events.run();
        let mut told = log.told();
        told.dedup();
        assert_eq!(
            told,
            [
                Told::Connected,
                Told::Read(11),
                Told::Write(0),
                Told::Written,
                Told::Eof
            ],
            "{options:?}"
        );
    }
}

#[test]
fn timeouts_of_both_directions_come_in_order_and_before_the_end() {
    spec!(C11, G5);
    let events = Loop::new();
    let script = Script::new().takes(0);
    let (bev, _) = scripted(&events, Options::EMPTY, script).unwrap();
    let log = Log::new();
    bev.set_handler(log.watch()).unwrap();
    bev.set_timeouts(Some(SECOND), Some(SECOND)).unwrap();
    bev.enable(READ).unwrap();
    bev.write(b"never taken").unwrap();
    events.advance(2 * SECOND);
    assert_eq!(
        log.events(),
        [
            Told::Timeout(Deadline::Read),
            Told::Timeout(Deadline::Write)
        ]
    );
}

/// Answers each byte, and frees itself at the end: the echo of the prototype that lost its replies.
struct Echo;

impl Handler for Echo {
    fn on_read(&mut self, bev: &Bev) {
        bev.output().append_from(&bev.input()).unwrap();
    }
    fn on_event(&mut self, bev: &Bev, event: &Event) {
        if matches!(event, Event::Eof) {
            assert_eq!(bev.free().unwrap(), 0, "the reply went first");
        }
    }
}

#[test]
fn two_thousand_echoes_of_data_and_end_together_all_survive() {
    spec!(C7, C11);
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let layers = random.below(3);
        let top = (0..layers).fold(far, |below, _| {
            below
                .over(Options::CLOSE_ON_FREE, Through::new().chunk(5))
                .unwrap()
        });
        top.set_handler(Echo).unwrap();
        let log = Log::new();
        near.set_handler(log.take_all()).unwrap();
        near.enable(READ).unwrap();
        let count = 1 + random.below(50);
        let sent = random.bytes(count);
        near.write(&sent).unwrap();
        near.finish().unwrap();
        top.enable(READ).unwrap();
        events.run();
        assert_eq!(log.received(), sent, "seed {seed}");
        assert!(log.has(&Told::Eof) && top.is_freed(), "seed {seed}");
    }
}

#[test]
fn would_block_again_and_again_costs_nothing_and_loses_nothing() {
    fault!(F22);
    let events = Loop::new();
    let mut script = Script::new().takes(0);
    for second in 1..=100 {
        script = script.at(second * SECOND).bytes(b"x").takes(1).takes(0);
    }
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let log = Log::new();
    bev.set_handler(log.take_all()).unwrap();
    bev.enable(READ).unwrap();
    bev.write(&[b'y'; 100]).unwrap();
    events.advance(101 * SECOND);
    assert_eq!(log.received(), [b'x'; 100]);
    assert_eq!(trace.written(), [b'y'; 100]);
    // A few attempts for each time that it was ready, and none in between.
    assert!(
        trace.pulls() <= 500 && trace.pushes() <= 500,
        "{} {}",
        trace.pulls(),
        trace.pushes()
    );
}

#[test]
fn a_transport_that_is_alone_tells_of_each_write_that_leaves_little_enough() {
    spec!(C4);
    let events = Loop::new();
    let script = Script::new().takes(10).takes(0).at(SECOND).takes(100);
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    let log = Log::new();
    bev.set_handler(log.watch()).unwrap();
    bev.set_write_watermark(4, 0).unwrap();
    bev.enable(READ).unwrap();
    events.run();
    log.news();
    bev.write(&[7; 15]).unwrap();
    events.run();
    assert_eq!((trace.written().len(), log.news().len()), (10, 0));
    events.advance(2 * SECOND);
    assert_eq!(
        (trace.written().len(), log.news()),
        (15, vec![Told::Write(0)])
    );
}

#[test]
fn an_echo_that_reads_four_bytes_at_a_time_sends_all_of_them_back() {
    spec!(A4);
    let events = Loop::new();
    let script = Script::new().bytes(b"0123456789").at(SECOND).bytes(b"ab");
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    bev.set_handler(on_read(|bev| {
        bev.output().append_from(&bev.input()).unwrap();
    }))
    .unwrap();
    bev.set_read_watermark(0, 4).unwrap();
    bev.enable(READ).unwrap();
    events.run();
    assert_eq!(trace.written(), b"0123456789");
    events.advance(SECOND);
    assert_eq!(trace.written(), b"0123456789ab");
}

#[test]
fn one_byte_at_a_time_arrives_whole() {
    fault!(F24);
    let events = Loop::new();
    let mut script = Script::new();
    for byte in 0..=255 {
        script = script.bytes(&[byte]).takes(1);
    }
    let (bev, trace) = scripted(&events, Options::EMPTY, script.eof()).unwrap();
    let top = bev.over(Options::EMPTY, Through::new().chunk(1)).unwrap();
    let log = Log::new();
    top.set_handler(log.take_all()).unwrap();
    let all: Vec<u8> = (0..=255).collect();
    top.write(&all).unwrap();
    top.finish().unwrap();
    top.enable(READ).unwrap();
    events.run();
    assert_eq!(log.received(), all);
    assert_eq!(trace.written(), all);
    assert!(trace.finished() && log.has(&Told::Eof));
}

#[test]
fn ten_minutes_of_a_closed_window_cost_nothing_and_end_well() {
    fault!(F25);
    let events = Loop::new();
    let script = Script::new()
        .takes(10)
        .takes(0)
        .at(600 * SECOND)
        .takes(1000);
    let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
    bev.write(&[1; 500]).unwrap();
    events.advance(599 * SECOND);
    assert_eq!((trace.written().len(), bev.output().len()), (10, 490));
    let (turns, pushes) = (events.turns(), trace.pushes());
    assert!(pushes < 10, "{pushes} attempts");
    assert!(turns < 100, "{turns} turns of the loop");
    events.advance(2 * SECOND);
    assert_eq!(trace.written().len(), 500);
    // With a deadline on it, it is told in time instead.
    let script = Script::new().takes(0);
    let (bev, _) = scripted(&events, Options::EMPTY, script).unwrap();
    let log = Log::new();
    bev.set_handler(log.watch()).unwrap();
    bev.set_timeouts(None, Some(60 * SECOND)).unwrap();
    bev.write(b"x").unwrap();
    events.advance(600 * SECOND);
    assert_eq!(log.events(), [Told::Timeout(Deadline::Write)]);
    assert_eq!(bev.output().len(), 1, "no byte was lost");
}

#[test]
fn a_send_that_the_system_refuses_is_an_error_with_its_cause() {
    fault!(F31, F32);
    for (kind, expected) in [
        (io::ErrorKind::OutOfMemory, Kind::OutOfMemory),
        (io::ErrorKind::ConnectionAborted, Kind::Peer),
        (io::ErrorKind::Other, Kind::System),
    ] {
        let events = Loop::new();
        let script = Script::new()
            .takes(3)
            .write_fails(kind)
            .bytes(b"came before");
        let (bev, trace) = scripted(&events, Options::EMPTY, script).unwrap();
        let log = Log::new();
        bev.set_handler(log.take_all()).unwrap();
        bev.write(b"partly sent").unwrap();
        events.run();
        assert_eq!(
            log.events(),
            [Told::Error(Some(Direction::Write), expected)]
        );
        assert_eq!(log.errors()[0].io_error().map(io::Error::kind), Some(kind));
        assert_eq!(trace.written(), b"par");
        // The other direction is unharmed, and the unsent bytes are reported.
        bev.enable(READ).unwrap();
        events.run();
        assert_eq!(log.received(), b"came before");
        assert_eq!(bev.free().unwrap(), 8);
    }
    // Destroyed under a read: the bytes before it first, then the error, once.
    let events = Loop::new();
    let script = Script::new()
        .bytes(b"last")
        .read_fails(io::ErrorKind::ConnectionAborted);
    let (bev, _) = scripted(&events, Options::EMPTY, script).unwrap();
    let log = Log::new();
    bev.set_handler(log.take_all()).unwrap();
    bev.enable(READ).unwrap();
    events.run();
    assert_eq!(log.received(), b"last");
    assert_eq!(
        log.events(),
        [Told::Error(Some(Direction::Read), Kind::Peer)]
    );
    assert_eq!(bev.enabled(), WRITE);
}

#[test]
fn a_reset_network_is_heard_on_both_sides_through_layers() {
    spec!(C6, C8);
    for seed in 0..200 {
        let events = Loop::new();
        let network = Network::seeded(seed).reset_at(Duration::from_millis(20));
        let (near, far) = faulty(&events, Options::EMPTY, network).unwrap();
        let near = near.over(Options::CLOSE_ON_FREE, Through::new()).unwrap();
        let logs = [Log::new(), Log::new()];
        for (bev, log) in [&near, &far].into_iter().zip(&logs) {
            bev.set_handler(log.take_all()).unwrap();
            bev.enable(READ).unwrap();
            bev.write(&[9; 100_000]).unwrap();
        }
        events.advance(SECOND);
        for log in &logs {
            let mut events = log.events();
            events.sort_by_key(|told| format!("{told:?}"));
            let expected = [
                Told::Error(Some(Direction::Read), Kind::Peer),
                Told::Error(Some(Direction::Write), Kind::Peer),
            ];
            assert_eq!(events, expected, "seed {seed}: each direction once");
            assert!(log.received().iter().all(|byte| *byte == 9));
        }
    }
}

/// A layer that panics when it is to move bytes up.
struct Panics;

impl Bufferevent for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        cx.lift(|_, _, _| panic!("on purpose, with two buffers lent"));
        Step::Done
    }
    fn push(&mut self, _: &mut Context<'_>) -> Step {
        Step::Done
    }
}

#[test]
fn bytes_that_were_lent_to_a_layer_that_panics_are_told_of_below_it() {
    fault!(F85);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let log = Log::new();
    near.set_handler(log.take_all()).unwrap();
    near.enable(READ).unwrap();
    let top = near.over(Options::EMPTY, Panics).unwrap();
    far.write(b"kept").unwrap();
    top.enable(READ).unwrap();
    events.run();
    assert_eq!(events.panics(), 1);
    assert!(top.is_freed() && !near.is_freed());
    assert_eq!(log.received(), b"kept");
}

#[test]
fn a_panic_in_a_layer_frees_its_bufferevent_and_nothing_else() {
    fault!(F85);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let top = near.over(Options::CLOSE_ON_FREE, Panics).unwrap();
    let log = Log::new();
    far.set_handler(log.watch()).unwrap();
    far.enable(READ).unwrap();
    far.write(b"x").unwrap();
    top.enable(READ).unwrap();
    events.run();
    assert_eq!(events.panics(), 1);
    assert!(top.is_freed() && near.is_freed());
    assert!(log.has(&Told::Eof), "the peer hears");
    let (near, far) = pair(&events).unwrap();
    far.enable(READ).unwrap();
    near.write(b"on").unwrap();
    assert_eq!(far.input().len(), 2);
}

#[test]
fn a_handler_that_must_stay_is_dropped_on_its_own_thread() {
    use std::cell::Cell;
    use std::rc::Rc;
    struct Here(Rc<Cell<bool>>, std::thread::ThreadId);
    impl Drop for Here {
        fn drop(&mut self) {
            assert_eq!(std::thread::current().id(), self.1);
            self.0.set(true);
        }
    }
    let events = Loop::new();
    let (near, far) = bufferevent_pair::pair_with(&events, Options::THREADSAFE).unwrap();
    let dropped = Rc::new(Cell::new(false));
    let here = Here(dropped.clone(), std::thread::current().id());
    near.set_local_handler(on_read(move |_| {
        let _ = &here;
    }))
    .unwrap();
    let other = near.clone();
    std::thread::spawn(move || {
        let refused = other.set_local_handler(on_read(|_| {})).unwrap_err();
        assert_eq!(refused.kind(), Kind::WrongThread);
        other.set_handler(on_read(|_| {})).unwrap();
    })
    .join()
    .unwrap();
    events.run();
    assert!(dropped.get());
    drop(far);
}

/// Asks about its partner's partner, which is itself.
struct Mirror;

impl Handler for Mirror {
    fn on_read(&mut self, bev: &Bev) {
        use bufferevent_pair::Partner as _;
        let partner = bev.partner().unwrap();
        assert_eq!(
            partner.partner().as_ref(),
            Some(bev),
            "it is there while it runs"
        );
        bev.input().drain(usize::MAX).unwrap();
    }
}

#[test]
fn a_bufferevent_is_found_while_its_handler_runs() {
    spec!(A5);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_handler(Mirror).unwrap();
    near.enable(READ).unwrap();
    far.write(b"x").unwrap();
    events.run();
    assert_eq!((events.panics(), near.is_freed()), (0, false));
}

#[test]
fn an_end_that_was_told_is_not_told_again_when_a_layer_goes() {
    spec!(C7);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let log = Log::new();
    near.set_handler(log.watch()).unwrap();
    near.enable(READ).unwrap();
    far.finish().unwrap();
    events.run();
    assert_eq!(log.events(), [Told::Eof]);
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    top.free().unwrap();
    events.run();
    assert_eq!(log.events(), [Told::Eof], "once");
    // One that nobody had heard of is told then.
    let (near, far) = pair(&events).unwrap();
    near.set_handler(log.watch()).unwrap();
    let _ = log.news();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    top.enable(READ).unwrap();
    far.finish().unwrap();
    events.run();
    top.free().unwrap();
    events.run();
    assert_eq!(log.events(), [Told::Eof]);
}

#[test]
fn what_a_disabled_transport_held_goes_on_under_a_layer() {
    spec!(G2);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    far.enable(READ).unwrap();
    near.disable(WRITE).unwrap();
    near.write(b"written before").unwrap();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    events.run();
    assert_eq!(far.input().len(), 14);
    drop(top);
}

/// A layer that says something, waits for an answer, and says something more: without a word to the pump but its wishes.
#[derive(Default)]
struct Talks {
    heard: usize,
    said: usize,
}

impl Bufferevent for Talks {
    fn name(&self) -> &'static str {
        "talks"
    }
    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let mut heard = 0;
        cx.lift(|below, _, room| {
            assert_eq!(room, 0, "the user does not read");
            heard = below.drain(usize::MAX);
            0
        });
        self.heard += heard;
        if heard > 0 {
            cx.set_wants(false, true);
        }
        Step::Done
    }
    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        cx.lower(|own, below, _| {
            assert!(own.is_empty(), "the user does not write");
            below.append_slice(b"own").unwrap();
            0
        });
        self.said += 1;
        cx.set_wants(self.said == 1, false);
        Step::Done
    }
}

#[test]
fn what_a_layer_wants_for_itself_is_asked_for_at_once() {
    spec!(G2);
    // The answer is in the layer's reach already, or still at the partner.
    for in_reach in [true, false] {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        if in_reach {
            near.enable(READ).unwrap();
        }
        far.write(b"the answer").unwrap();
        events.run();
        let top = near.over(Options::EMPTY, Talks::default()).unwrap();
        top.disable(WRITE).unwrap();
        top.write(b"held").unwrap();
        events.run();
        let layer = top.layer::<Talks>().unwrap();
        let state = || layer.with(|talks, _| (talks.heard, talks.said)).unwrap();
        layer
            .with(|talks, cx| {
                assert_eq!((talks.heard, talks.said), (0, 0), "it wants nothing yet");
                cx.set_wants(false, true);
            })
            .unwrap();
        assert_eq!(near.output().len(), 6, "said, heard, and said again");
        assert_eq!((state(), top.output().len()), ((10, 2), 4));
    }
}

#[test]
fn a_layer_hears_that_what_is_below_has_connected() {
    spec!(C6);
    use evreactor_core::AsHost as _;
    let events = Loop::new();
    let bev = Bev::transport(events.as_host(), Options::EMPTY, Burst { ready: false }).unwrap();
    let middle = bev.over(Options::EMPTY, Through::new()).unwrap();
    let top = middle.over(Options::EMPTY, Through::new()).unwrap();
    let log = Log::new();
    top.set_handler(log.watch()).unwrap();
    top.write(b"waits").unwrap();
    events.run();
    assert_eq!((log.events(), bev.stats().written), (vec![], 0));
    let ready = |burst: &mut Burst, cx: &mut Context<'_>| {
        burst.ready = true;
        cx.ready_later();
    };
    top.layer::<Burst>().unwrap().with(ready).unwrap();
    events.run();
    assert_eq!(
        log.events(),
        [Told::Connected],
        "reading is off: no end yet"
    );
    assert_eq!(bev.stats().written, 5);
}

#[test]
fn an_end_is_told_while_the_bytes_before_it_lie_unread() {
    spec!(C7);
    use evreactor_core::AsHost as _;
    let events = Loop::new();
    // Bytes and end come in one call, so nobody but the layer's own taking can ask for the end again.
    let burst = Burst { ready: true };
    let bev = Bev::transport(events.as_host(), Options::EMPTY, burst).unwrap();
    let top = bev.over(Options::EMPTY, Through::new().terse()).unwrap();
    let log = Log::new();
    top.set_handler(log.watch()).unwrap();
    let ready = |_: &mut Burst, cx: &mut Context<'_>| cx.ready_later();
    top.layer::<Burst>().unwrap().with(ready).unwrap();
    events.run();
    assert_eq!(log.told(), [Told::Connected]);
    top.enable(READ).unwrap();
    events.run();
    assert_eq!(log.told(), [Told::Connected, Told::Read(11), Told::Eof]);
    assert_eq!(top.input().len(), 11);
}
