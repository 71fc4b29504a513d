//! What a filter holds: for want of room, or until it is told to let go. It comes out when it can, and is never forgotten.

use bufferevent_core::{Direction, Error, Flushed, Kind, Mode, Options, READ, WRITE};
use bufferevent_filter::{Filter, FilterExt, Sink, Verdict, Wants, from_fn};
use bufferevent_testkit::{fault, spec};
use evbuffer::EvBuffer;

use crate::joined;
use crate::support::{Hoarder, contents, listen, pass};

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
    fault!(F68);
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
