//! What each verdict leads to: one small filter per case, over a pair on a virtual loop.

mod support;

use bufferevent_core::{
    Bev, Direction, Directions, Error, Event, Flushed, Kind, Mode, Options, READ, WRITE,
};
use bufferevent_filter::{Filter, FilterExt, Identity, Sink, Verdict, Wants, from_fn};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, spec};
use evbuffer::EvBuffer;
use support::{Greeting, Hoarder, contents, listen, pass};

fn joined() -> (Loop, Bev, Bev) {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    (events, near, far)
}

#[test]
fn a_filter_sees_source_room_and_mode_and_its_verdicts_are_heard() {
    spec!(F1);
    let (events, near, far) = joined();
    let mut modes = Vec::new();
    let (tell, told) = std::sync::mpsc::channel();
    let top = near
        .filter(
            Options::EMPTY,
            from_fn("watched", pass, move |source, sink, mode| {
                tell.send((source.len(), sink.room(), mode)).unwrap();
                pass(source, sink, mode)
            }),
        )
        .unwrap();
    near.set_write_watermark(0, 4).unwrap();
    top.write(b"abcdef").unwrap();
    far.enable(READ).unwrap();
    events.run();
    assert_eq!(contents(&far), b"abcdef");
    let _ = top.flush(Direction::Write, Mode::Flush).unwrap();
    let _ = top.flush(Direction::Write, Mode::Finished).unwrap();
    events.run();
    modes.extend(told.try_iter());
    assert_eq!(modes[0], (6, 4, Mode::Normal), "the room is the mark below");
    assert!(modes.iter().any(|call| call.2 == Mode::Flush));
    assert_eq!(modes.last().unwrap().2, Mode::Finished);
}

#[test]
fn what_is_held_for_want_of_room_comes_when_there_is_room_and_nothing_else() {
    spec!(F3);
    let (events, near, far) = joined();
    // It takes all there is at once, and gives what fits.
    let top = near.filter(Options::EMPTY, Hoarder::default()).unwrap();
    top.set_read_watermark(0, 10).unwrap();
    top.enable(READ).unwrap();
    far.write(&[7; 1000]).unwrap();
    events.run();
    assert_eq!(near.input().len(), 0, "the filter has it all");
    let mut count = 0;
    while count < 1000 {
        assert_eq!(top.input().len(), 10.min(1000 - count));
        count += top.read(&mut [0; 3]).unwrap();
        events.run();
    }
    assert_eq!(top.input().len(), 0);
}

#[test]
fn what_is_held_on_the_way_out_leaves_as_the_peer_takes() {
    spec!(F3);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Hoarder::default()).unwrap();
    near.set_write_watermark(0, 16).unwrap();
    far.set_read_watermark(0, 8).unwrap();
    far.enable(READ).unwrap();
    top.write(&[7; 500]).unwrap();
    events.run();
    assert_eq!((near.stats().output, far.input().len()), (16, 8));
    let mut count = 0;
    while count < 500 {
        let got = far.read(&mut [0; 5]).unwrap();
        assert!(got > 0, "stuck after {count}");
        count += got;
        assert!(near.stats().output <= 16);
        events.run();
    }
}

#[test]
fn what_is_held_stays_while_writing_is_disabled() {
    spec!(G2);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Hoarder::default()).unwrap();
    near.set_write_watermark(0, 16).unwrap();
    far.enable(READ).unwrap();
    far.set_read_watermark(0, 4).unwrap();
    top.write(&[7; 100]).unwrap();
    events.run();
    top.disable(WRITE).unwrap();
    far.set_read_watermark(0, 0).unwrap();
    events.run();
    assert_eq!(far.input().len(), 20, "what had left the filter already");
    top.enable(WRITE).unwrap();
    events.run();
    assert_eq!(far.input().len(), 100);
}

#[test]
fn a_finish_empties_the_filter_into_a_blocked_peer_bit_by_bit() {
    spec!(G6);
    bufferevent_testkit::fault!(F68);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Hoarder::patient()).unwrap();
    let heard = listen(&far);
    let told = listen(&top);
    near.set_write_watermark(0, 16).unwrap();
    far.set_read_watermark(0, 8).unwrap();
    top.write(&[7; 300]).unwrap();
    assert_eq!(
        top.flush(Direction::Write, Mode::Finished).unwrap(),
        Flushed::Some
    );
    assert_eq!(top.write(b"late").unwrap_err().kind(), Kind::Ended);
    events.run();
    assert_eq!(far.input().len(), 0, "reading is disabled: nothing moves");
    far.enable(READ).unwrap();
    events.run();
    let mut count = 0;
    while count < 300 {
        let ended = !heard.lock().unwrap().ends.is_empty();
        assert_eq!(
            ended,
            count + far.input().len() == 300,
            "an end before the bytes"
        );
        count += far.read(&mut [0; 7]).unwrap();
        events.run();
    }
    assert_eq!(count, 300);
    assert_eq!(heard.lock().unwrap().ends, ["eof"]);
    assert_eq!(told.lock().unwrap().ends, ["written"]);
}

#[test]
fn a_flush_brings_out_what_a_filter_holds_back() {
    spec!(G6);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::EMPTY, Hoarder::patient())
        .unwrap()
        .filter(Options::EMPTY, Hoarder::patient())
        .unwrap();
    far.enable(READ).unwrap();
    top.write(b"held").unwrap();
    events.run();
    assert_eq!(
        top.flush(Direction::Write, Mode::Normal).unwrap(),
        Flushed::Nothing
    );
    events.run();
    assert_eq!(far.input().len(), 0);
    assert_eq!(
        top.flush(Direction::Write, Mode::Flush).unwrap(),
        Flushed::Some
    );
    events.run();
    assert_eq!(contents(&far), b"held");
    assert_eq!(
        top.flush(Direction::Write, Mode::Flush).unwrap(),
        Flushed::Nothing
    );
}

#[test]
fn a_flush_reads_past_the_mark_and_out_of_the_filter() {
    spec!(G6);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Hoarder::default()).unwrap();
    top.set_read_watermark(0, 2).unwrap();
    top.enable(READ).unwrap();
    far.write(b"0123456789").unwrap();
    events.run();
    assert_eq!(top.input().len(), 2);
    assert_eq!(
        top.flush(Direction::Read, Mode::Flush).unwrap(),
        Flushed::Some
    );
    assert_eq!(contents(&top), b"0123456789");
}

/// Passes bytes on until it meets a `!`, which it cannot stand.
fn squeamish(source: &mut EvBuffer, sink: &mut Sink<'_>, mode: Mode) -> Result<Verdict, Error> {
    let mut bytes = vec![0; source.len().min(sink.room())];
    source.copy_out(&mut bytes);
    let Some(bad) = bytes.iter().position(|byte| *byte == b'!') else {
        return pass(source, sink, mode);
    };
    sink.append_slice(&bytes[..bad]);
    source.drain(bad);
    Err(Error::new(Kind::Peer, "squeamish", "input").with_source(std::fmt::Error))
}

#[test]
fn an_error_of_the_input_side_comes_behind_the_bytes_before_it() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::EMPTY, from_fn("squeamish", squeamish, pass))
        .unwrap();
    let heard = listen(&top);
    top.enable(READ).unwrap();
    far.write(b"good!bad").unwrap();
    events.run();
    {
        let heard = heard.lock().unwrap();
        assert_eq!(heard.order, ["read 4", "error squeamish input"]);
        assert!(
            std::error::Error::source(&heard.errors[0]).is_some(),
            "the filter's own cause"
        );
    }
    assert_eq!(contents(&top), b"good");
    assert_eq!(top.enabled(), WRITE, "the other direction goes on");
    top.write(b"still").unwrap();
    far.enable(READ).unwrap();
    events.run();
    assert_eq!(contents(&far), b"still");
}

#[test]
fn an_error_of_the_output_side_is_told_too() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::EMPTY, from_fn("squeamish", pass, squeamish))
        .unwrap();
    let heard = listen(&top);
    far.enable(READ).unwrap();
    top.write(b"good!bad").unwrap();
    events.run();
    assert_eq!(contents(&far), b"good");
    assert_eq!(heard.lock().unwrap().ends, ["error squeamish input"]);
    assert_eq!(top.write(b"more").unwrap_err().kind(), Kind::Ended);
}

/// Ends after a full stop; what follows is not its.
fn sentence(source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
    let mut bytes = vec![0; source.len().min(sink.room())];
    source.copy_out(&mut bytes);
    let stop = bytes.iter().position(|byte| *byte == b'.');
    let count = stop.map_or(bytes.len(), |stop| stop + 1);
    sink.append_slice(&bytes[..count]);
    source.drain(count);
    Ok(match stop {
        Some(_) => Verdict::End,
        None if source.is_empty() => Verdict::NeedInput,
        None => Verdict::Full,
    })
}

#[test]
fn an_end_of_the_input_side_is_an_eof_and_leaves_the_rest_below() {
    spec!(F1);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::EMPTY, from_fn("sentence", sentence, pass))
        .unwrap();
    let heard = listen(&top);
    top.enable(READ).unwrap();
    far.write(b"One. Two.").unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().order, ["read 4", "eof"]);
    assert_eq!(contents(&top), b"One.");
    top.free().unwrap();
    assert_eq!(contents(&near), b" Two.");
}

#[test]
fn the_end_below_reaches_the_filter_with_its_last_bytes() {
    spec!(F1);
    let (events, near, far) = joined();
    // Needs pairs of bytes; half of one at the end is an error.
    let pairs = |source: &mut EvBuffer, sink: &mut Sink<'_>, mode: Mode| {
        while source.len() >= 2 && sink.room() > 0 {
            let mut two = [0; 2];
            source.remove(&mut two);
            sink.append_slice(&two[..1]);
        }
        match (source.len(), mode) {
            (1, Mode::Finished) => Err(Error::new(Kind::Truncated, "pairs", "input")),
            (0 | 1, _) => Ok(Verdict::NeedInput),
            _ => Ok(Verdict::Full),
        }
    };
    let top = near
        .filter(Options::EMPTY, from_fn("pairs", pairs, pass))
        .unwrap();
    let heard = listen(&top);
    top.enable(READ).unwrap();
    far.write(b"a_b_c").unwrap();
    far.finish().unwrap();
    events.run();
    assert_eq!(contents(&top), b"ab");
    assert_eq!(heard.lock().unwrap().ends, ["error pairs input"]);
    assert_eq!(heard.lock().unwrap().errors[0].kind(), Kind::Truncated);
}

#[test]
fn a_handshake_completes_while_reading_is_disabled_and_before_any_byte_of_the_users() {
    spec!(F1);
    let (events, near, far) = joined();
    let near = near.filter(Options::EMPTY, Greeting::new()).unwrap();
    // One that stands above it and does not read, either.
    let top = near.filter(Options::EMPTY, Identity).unwrap();
    let heard = listen(&top);
    top.write(b"early").unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().order, Vec::<String>::new());
    let far = far.filter(Options::EMPTY, Greeting::new()).unwrap();
    let other = listen(&far);
    events.run();
    assert_eq!(heard.lock().unwrap().order, ["connected", "write"]);
    assert_eq!(other.lock().unwrap().order, ["connected"]);
    far.enable(READ).unwrap();
    events.run();
    assert_eq!(contents(&far), b"early");
}

#[test]
fn an_end_within_a_handshake_is_a_failed_connection() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Greeting::new()).unwrap();
    let heard = listen(&top);
    far.free().unwrap();
    events.run();
    let heard = heard.lock().unwrap();
    assert_eq!(heard.ends.len(), 1, "{:?}", heard.order);
    assert_eq!(heard.errors[0].layer(), "greeting");
}

/// Fails on the first byte, with something to say about it.
#[derive(Default)]
struct Alerting {
    alert: bool,
}

impl Filter for Alerting {
    fn name(&self) -> &'static str {
        "alerting"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        _: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        if source.is_empty() {
            return Ok(Verdict::NeedInput);
        }
        self.alert = true;
        Err(Error::new(Kind::Peer, "alerting", "input"))
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        if std::mem::take(&mut self.alert) {
            sink.append_slice(b"alert");
        }
        pass(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: false,
            write: self.alert,
        }
    }
}

#[test]
fn an_alert_goes_out_though_the_handler_frees_all_on_the_error() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Alerting::default())
        .unwrap();
    top.set_handler(bufferevent_core::on_event(|bev, event| {
        if let Event::Error { .. } = event {
            bev.free().unwrap();
        }
    }))
    .unwrap();
    top.enable(READ).unwrap();
    far.enable(READ).unwrap();
    far.write(b"x").unwrap();
    events.run();
    assert!(top.is_freed());
    assert_eq!(contents(&far), b"alert");
}

/// Lies about everything, in turn.
#[derive(Default)]
struct Liar {
    calls: usize,
}

impl Liar {
    fn lie(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.calls += 1;
        match self.calls % 3 {
            0 => pass(source, sink, mode),
            1 => Ok(Verdict::Progress),
            _ => Ok(Verdict::Full),
        }
    }
}

impl Filter for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.lie(source, sink, mode)
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.lie(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: self.calls.is_multiple_of(2),
            write: self.calls % 5 < 3,
        }
    }
}

#[test]
fn a_filter_that_lies_does_not_spin() {
    spec!(F3);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Liar::default()).unwrap();
    top.enable(READ).unwrap();
    far.enable(READ).unwrap();
    for _ in 0..100 {
        far.write(b"x").unwrap();
        top.write(b"x").unwrap();
        events.run();
        top.enable(Directions::BOTH).unwrap();
        events.run();
    }
    let calls = top
        .filter_of::<Liar>()
        .unwrap()
        .with(|liar| liar.calls)
        .unwrap();
    assert!(calls < 3_000, "{calls} calls for 200 bytes");
}

#[test]
fn a_filter_is_cut_short_at_the_limit() {
    spec!(F2);
    let (events, near, far) = joined();
    // Adds what it likes; a byte of the source stands for a hundred.
    let greedy = |source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode| {
        while !source.is_empty() {
            source.drain(1);
            sink.append_slice(&[9; 100]);
        }
        Ok(Verdict::NeedInput)
    };
    let top = near
        .filter(Options::EMPTY, from_fn("greedy", greedy, greedy))
        .unwrap();
    near.set_write_watermark(0, 50).unwrap();
    top.set_read_watermark(0, 30).unwrap();
    top.enable(READ).unwrap();
    far.write(b"abc").unwrap();
    top.write(b"abc").unwrap();
    events.run();
    assert_eq!(top.input().len(), 30);
    assert_eq!(near.stats().output, 50);
}

#[test]
fn a_filter_is_found_from_the_top_by_its_type() {
    spec!(A5);
    let (_events, near, _far) = joined();
    let top = near
        .filter(Options::EMPTY, Liar::default())
        .unwrap()
        .filter(Options::EMPTY, Identity)
        .unwrap()
        .filter(Options::EMPTY, Hoarder::default())
        .unwrap();
    let found = top.filter_of::<Liar>().unwrap();
    assert!(found.with(|liar| liar.calls).is_ok());
    assert_eq!(found.bev().unwrap().underlying(), Some(near.clone()));
    assert!(top.filter_of::<Greeting>().is_none());
    assert!(near.filter_of::<Liar>().is_none(), "it stands above");
    assert_eq!(near.write(b"x").unwrap_err().kind(), Kind::Covered);
}

#[test]
fn a_panic_in_a_filter_frees_it_and_nothing_else() {
    spec!(F4);
    let (events, near, far) = joined();
    let bad = |_: &mut EvBuffer, _: &mut Sink<'_>, _: Mode| -> Result<Verdict, Error> {
        panic!("on purpose")
    };
    let top = near
        .filter(Options::EMPTY, from_fn("bad", bad, pass))
        .unwrap();
    top.enable(READ).unwrap();
    far.write(b"kept").unwrap();
    events.run();
    assert!(top.is_freed());
    near.enable(READ).unwrap();
    events.run();
    assert_eq!(contents(&near), b"kept");
}

#[test]
fn what_a_filter_holds_is_sent_before_it_is_freed_when_written() {
    spec!(G8);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Hoarder::patient())
        .unwrap();
    far.set_read_watermark(0, 3).unwrap();
    near.set_write_watermark(0, 3).unwrap();
    far.enable(READ).unwrap();
    top.write(b"held back").unwrap();
    events.run();
    top.free_when_written().unwrap();
    let mut all = Vec::new();
    for _ in 0..9 {
        events.run();
        all.extend(contents(&far));
    }
    assert_eq!(all, b"held back");
    assert!(top.is_freed() && near.is_freed());
}

#[test]
fn a_graceful_close_empties_the_filter_first() {
    spec!(G8);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Hoarder::patient())
        .unwrap();
    let (heard, told) = (listen(&far), listen(&top));
    far.enable(READ).unwrap();
    far.set_read_watermark(0, 4).unwrap();
    top.write(b"goodbye, and thank you").unwrap();
    top.close(std::time::Duration::from_secs(10)).unwrap();
    let mut all = Vec::new();
    for _ in 0..9 {
        events.run();
        all.extend(contents(&far));
    }
    assert_eq!(all, b"goodbye, and thank you");
    assert_eq!(heard.lock().unwrap().ends, ["eof"]);
    assert_eq!(told.lock().unwrap().ends, ["written"]);
    far.free().unwrap();
    events.run();
    assert!(top.is_freed());
}

#[test]
fn a_flush_that_takes_many_calls_is_not_over_before_the_last() {
    spec!(G6);
    let (events, near, far) = joined();
    let mut held = EvBuffer::new();
    // One byte per call, and only under a flush.
    let slow = move |source: &mut EvBuffer, sink: &mut Sink<'_>, mode: Mode| {
        held.append(source).expect("a test has memory");
        if mode == Mode::Normal || held.is_empty() {
            return Ok(Verdict::NeedInput);
        }
        let mut byte = [0];
        held.remove(&mut byte);
        sink.append_slice(&byte);
        Ok(Verdict::Progress)
    };
    let top = near
        .filter(Options::EMPTY, from_fn("slow", pass, slow))
        .unwrap();
    far.enable(READ).unwrap();
    // More than the pushes of one flush can bring out.
    top.write(&[7; 5_000]).unwrap();
    events.run();
    assert_eq!(far.input().len(), 0);
    assert_eq!(
        top.flush(Direction::Write, Mode::Flush).unwrap(),
        Flushed::Some
    );
    events.run();
    assert_eq!(far.input().len(), 5_000);
}

/// Gives up only when asked to write what it was given to read.
#[derive(Default)]
struct Mirror {
    held: EvBuffer,
    open: bool,
}

impl Filter for Mirror {
    fn name(&self) -> &'static str {
        "mirror"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.held.append(source).expect("a test has memory");
        if self.open {
            pass(&mut self.held, sink, mode)
        } else {
            Ok(Verdict::NeedInput)
        }
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.open |= !source.is_empty();
        pass(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: self.open && !self.held.is_empty(),
            write: false,
        }
    }
}

#[test]
fn one_side_may_make_work_for_the_other() {
    spec!(F3);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Mirror::default()).unwrap();
    top.enable(READ).unwrap();
    far.write(b"image").unwrap();
    events.run();
    assert_eq!(top.input().len(), 0);
    top.write(b"x").unwrap();
    events.run();
    assert_eq!(contents(&top), b"image");
}

#[test]
fn a_filter_that_leaves_bytes_at_the_end_is_told_of() {
    spec!(F4);
    let (events, near, far) = joined();
    // Takes pairs, and has no idea what to do with one.
    let pairs = |source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode| {
        let whole = source.len() / 2 * 2;
        let mut two = [0; 2];
        for _ in 0..whole / 2 {
            source.remove(&mut two);
            sink.append_slice(&two);
        }
        Ok(Verdict::NeedInput)
    };
    let top = near
        .filter(Options::EMPTY, from_fn("pairs", pass, pairs))
        .unwrap();
    let heard = listen(&top);
    far.enable(READ).unwrap();
    top.write(b"abc").unwrap();
    top.finish().unwrap();
    events.run();
    assert_eq!(contents(&far), b"ab");
    assert_eq!(heard.lock().unwrap().ends, ["error pairs finish"]);
}

#[test]
fn bytes_that_a_filter_leaves_of_an_ended_source_are_told_of() {
    spec!(F4);
    let (events, near, far) = joined();
    // Takes pairs, and waits for the second byte of one for ever.
    let pairs = |source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode| {
        let mut two = [0; 2];
        while source.len() >= 2 && sink.room() >= 2 {
            source.remove(&mut two);
            sink.append_slice(&two);
        }
        Ok(if source.len() < 2 {
            Verdict::NeedInput
        } else {
            Verdict::Full
        })
    };
    let top = near
        .filter(Options::EMPTY, from_fn("pairs", pairs, pass))
        .unwrap();
    let heard = listen(&top);
    top.enable(READ).unwrap();
    far.write(b"abc").unwrap();
    far.finish().unwrap();
    events.run();
    assert_eq!(contents(&top), b"ab");
    assert_eq!(heard.lock().unwrap().ends, ["error pairs input"]);
    assert_eq!(heard.lock().unwrap().errors[0].kind(), Kind::Truncated);
    top.free().unwrap();
    assert_eq!(contents(&near), b"c", "it is there still");
}

/// Refuses whatever comes as the answer of its handshake, and says so.
#[derive(Default)]
struct Refusing {
    alert: bool,
}

impl Filter for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        _: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        if source.is_empty() {
            return Ok(Verdict::NeedInput);
        }
        self.alert = true;
        Err(Error::new(Kind::Peer, "refusing", "handshake"))
    }
    fn output(&mut self, _: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
        if std::mem::take(&mut self.alert) {
            sink.append_slice(b"alert");
        }
        Ok(Verdict::NeedInput)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: true,
            write: self.alert,
        }
    }
    fn handshaking(&self) -> bool {
        true
    }
}

#[test]
fn an_alert_goes_out_when_a_handshake_fails() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Refusing::default())
        .unwrap();
    let heard = listen(&top);
    far.enable(READ).unwrap();
    far.write(b"x").unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().order, ["error refusing handshake"]);
    assert_eq!(contents(&far), b"alert");
    assert_eq!(top.write(b"x").unwrap_err().kind(), Kind::Ended);
}

#[test]
fn a_filter_that_says_progress_and_moves_nothing_is_asked_once_per_change() {
    spec!(F3);
    let (events, near, far) = joined();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = calls.clone();
    let idle = move |_: &mut EvBuffer, _: &mut Sink<'_>, _: Mode| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Verdict::Progress)
    };
    let top = near
        .filter(Options::EMPTY, from_fn("idle", idle, pass))
        .unwrap();
    top.enable(READ).unwrap();
    for _ in 0..10 {
        far.write(b"x").unwrap();
        events.run();
    }
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!((10..=40).contains(&calls), "{calls} calls for 10 changes");
}
