//! Layers put on and taken off a stack that runs, and freed in any order: no byte is lost, none twice, none out of place.

mod support;

use bufferevent_core::{
    Bev, Direction, Directions, Error, Event, Kind, Mode, Options, READ, WRITE, on_event,
};
use bufferevent_filter::{Filter, FilterExt, Identity, Sink, Verdict};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, fault, spec};
use evbuffer::EvBuffer;
use support::{Greeting, Hoarder, contents, listen};

/// A stream with an end of its own: shifted by one, ended by a zero byte.
#[derive(Default)]
struct Shifted {
    ended: bool,
}

impl Filter for Shifted {
    fn name(&self) -> &'static str {
        "shifted"
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        let mut byte = [0];
        while sink.room() > 0 {
            match source.remove(&mut byte) {
                0 if mode == Mode::Finished => {
                    return Err(Error::new(Kind::Truncated, "shifted", "input"));
                }
                0 => return Ok(Verdict::NeedInput),
                _ if byte[0] == 0 => return Ok(Verdict::End),
                _ => sink.append_slice(&[byte[0] - 1]),
            };
        }
        Ok(Verdict::Full)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        let mut byte = [0];
        while sink.room() > 0 {
            match source.remove(&mut byte) {
                1 => sink.append_slice(&[byte[0] + 1]),
                _ if mode != Mode::Finished => return Ok(Verdict::NeedInput),
                _ => {
                    sink.append_slice(&[0]);
                    self.ended = true;
                    return Ok(Verdict::End);
                }
            };
        }
        Ok(Verdict::Full)
    }
}

fn two() -> (Loop, Bev, Bev) {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    (events, near, far)
}

#[test]
fn a_layer_put_on_gets_the_unread_bytes_the_marks_and_what_is_enabled() {
    spec!(F7);
    let (events, near, far) = two();
    near.set_read_watermark(2, 7).unwrap();
    near.set_write_watermark(3, 9).unwrap();
    near.enable(READ).unwrap();
    near.disable(WRITE).unwrap();
    far.write(b"bcdefghijkl").unwrap();
    near.write(b"before").unwrap();
    events.run();
    assert_eq!(near.input().len(), 7, "unread, up to the mark");
    let top = near
        .put_on(
            Options::EMPTY,
            bufferevent_filter::Filtering::new(Shifted::default()),
        )
        .unwrap();
    assert_eq!(top.enabled(), READ);
    let mark = top.watermark(Direction::Read);
    assert_eq!((mark.low(), mark.high()), (2, 7));
    let mark = top.watermark(Direction::Write);
    assert_eq!((mark.low(), mark.high()), (3, 9));
    assert_eq!(near.watermark(Direction::Read).high(), 0);
    events.run();
    let mut all = Vec::new();
    while !top.input().is_empty() {
        assert!(top.input().len() <= 7);
        all.extend(contents(&top));
        events.run();
    }
    assert_eq!(all, b"abcdefghijk");
    // What was written before the layer is sent as it was.
    far.enable(READ).unwrap();
    top.write(b"a").unwrap();
    events.run();
    assert_eq!(contents(&far), b"before");
    top.enable(WRITE).unwrap();
    events.run();
    assert_eq!(contents(&far), b"b");
}

#[test]
fn a_layer_comes_off_at_its_end_and_the_stream_goes_on_below() {
    spec!(F7);
    let (events, near, far) = two();
    let below = listen(&near);
    let (top, peer) = (
        near.filter(Options::CLOSE_ON_FREE, Shifted::default())
            .unwrap(),
        far.filter(Options::CLOSE_ON_FREE, Shifted::default())
            .unwrap(),
    );
    let heard = listen(&top);
    top.enable(READ).unwrap();
    top.set_read_watermark(0, 100).unwrap();
    top.write(b"question").unwrap();
    top.finish_layer().unwrap();
    assert_eq!(top.finish_layer().unwrap_err().kind(), Kind::Ended);
    assert_eq!(top.write(b"late").unwrap_err().kind(), Kind::Ended);
    assert_eq!(
        top.take_off().unwrap_err().kind(),
        Kind::Misuse,
        "the peer's layer has not ended"
    );
    peer.enable(READ).unwrap();
    peer.write(b"answer").unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().ends, ["written"]);
    peer.finish_layer().unwrap();
    // Behind the end of the layer the peer speaks plainly.
    events.run();
    assert_eq!(contents(&peer), b"question");
    let far = peer.take_off().unwrap();
    assert!(peer.is_freed());
    far.write(b", plainly").unwrap();
    events.run();
    assert_eq!(
        heard.lock().unwrap().order,
        ["write", "written", "read 6", "eof"]
    );
    let near_again = top.take_off().unwrap();
    assert_eq!(near_again, near);
    events.run();
    assert_eq!(near.enabled(), Directions::BOTH);
    assert_eq!(near.watermark(Direction::Read).high(), 100);
    assert_eq!(contents(&near), b"answer, plainly");
    assert!(
        !below.lock().unwrap().order.is_empty(),
        "its handler is back"
    );
    near.write(b"and back").unwrap();
    events.run();
    assert_eq!(contents(&far), b"and back");
    // The stream as a whole has its own end.
    far.finish().unwrap();
    events.run();
    assert_eq!(below.lock().unwrap().ends, ["eof"]);
}

#[test]
fn a_layer_comes_off_in_its_own_callback() {
    spec!(F7);
    let (events, near, far) = two();
    let top = near.filter(Options::EMPTY, Shifted::default()).unwrap();
    top.set_handler(on_event(|bev, event| {
        if let Event::Eof = event {
            let below = bev.take_off().unwrap();
            below.write(&contents(&below)).unwrap();
        }
    }))
    .unwrap();
    top.enable(READ).unwrap();
    top.finish_layer().unwrap();
    far.enable(READ).unwrap();
    far.write(b"bcd\0rest").unwrap();
    events.run();
    assert!(top.is_freed());
    let sent = contents(&far);
    assert_eq!(sent, b"\0abcrest");
}

#[test]
fn a_layer_torn_off_gives_back_what_it_had_not_taken() {
    spec!(F7);
    let (events, near, far) = two();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Shifted::default())
        .unwrap();
    top.set_read_watermark(0, 2).unwrap();
    near.set_read_watermark(0, 100).unwrap();
    top.enable(READ).unwrap();
    top.disable(WRITE).unwrap();
    top.write(b"secret").unwrap();
    far.write(b"bcdef").unwrap();
    far.enable(READ).unwrap();
    events.run();
    let torn = top.tear_off().unwrap();
    assert_eq!(torn.bev, near);
    assert_eq!(torn.unsent, b"secret"[..]);
    assert!(top.is_freed());
    assert_eq!(near.enabled(), READ);
    near.enable(WRITE).unwrap();
    near.set_read_watermark(0, 0).unwrap();
    events.run();
    assert_eq!(contents(&near), b"abdef", "two of it had passed the layer");
    assert_eq!(far.input().len(), 0, "nothing of the secret");
}

#[test]
fn what_cannot_come_off_says_why_and_nothing_changes() {
    spec!(F7);
    let (events, near, far) = two();
    assert_eq!(near.take_off().unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(near.finish_layer().unwrap_err().kind(), Kind::Unsupported);
    let middle = near.filter(Options::EMPTY, Identity).unwrap();
    let top = middle.filter(Options::EMPTY, Identity).unwrap();
    assert_eq!(middle.tear_off().unwrap_err().kind(), Kind::Covered);
    assert_eq!(middle.finish_layer().unwrap_err().kind(), Kind::Covered);
    assert_eq!(top.take_off().unwrap_err().kind(), Kind::Misuse);
    top.enable(READ).unwrap();
    far.write(b"x").unwrap();
    events.run();
    let kind = top
        .input()
        .with_contiguous(1, |_| top.tear_off().unwrap_err().kind())
        .unwrap();
    assert_eq!(kind, Kind::Busy);
    let kind = top
        .filter_of::<Identity>()
        .unwrap()
        .with(|_| top.tear_off().unwrap_err().kind())
        .unwrap();
    assert_eq!(kind, Kind::Busy);
    assert_eq!(contents(&top), b"x");
    far.enable(READ).unwrap();
    top.write(b"y").unwrap();
    events.run();
    assert_eq!(contents(&far), b"y");
    top.free().unwrap();
    assert_eq!(top.tear_off().unwrap_err().kind(), Kind::Freed);
}

#[test]
fn nothing_goes_on_a_bufferevent_that_can_send_no_more() {
    spec!(F7);
    let (_events, near, _far) = two();
    near.finish().unwrap();
    let refused = near.filter(Options::EMPTY, Identity).unwrap_err();
    assert_eq!((refused.kind(), refused.layer()), (Kind::Ended, "identity"));
    assert_eq!(near.write(b"x").unwrap_err().kind(), Kind::Ended);
}

#[test]
fn a_filter_freed_without_close_on_free_leaves_a_usable_bufferevent_and_its_bytes() {
    spec!(O1);
    let (events, near, far) = two();
    let heard = listen(&near);
    near.enable(READ).unwrap();
    let top = near.filter(Options::EMPTY, Identity).unwrap();
    top.write(b"out").unwrap();
    far.write(b"unread").unwrap();
    events.run();
    top.free().unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().order, ["read 6"]);
    assert_eq!(contents(&near), b"unread");
    far.enable(READ).unwrap();
    near.write(b" and more").unwrap();
    events.run();
    assert_eq!(contents(&far), b"out and more");
}

#[test]
fn a_stack_freed_from_below_or_within_tells_and_loses_nothing_else() {
    spec!(O1);
    fault!(F68);
    for closes in [Options::EMPTY, Options::CLOSE_ON_FREE] {
        for freed in 0..4 {
            let (events, near, far) = two();
            let mut stack = vec![near];
            for _ in 0..3 {
                let top = stack.last().unwrap().clone();
                stack.push(top.filter(closes, Hoarder::default()).unwrap());
            }
            stack[3].enable(READ).unwrap();
            far.enable(READ).unwrap();
            let heard = listen(&stack[3]);
            stack[3].write(b"sent").unwrap();
            events.run();
            stack[freed].free().unwrap();
            events.run();
            assert_eq!(contents(&far), b"sent");
            for (place, bev) in stack.iter().enumerate() {
                let closed = place == freed || (place < freed && closes == Options::CLOSE_ON_FREE);
                assert_eq!(bev.is_freed(), closed, "{place} of {freed}");
            }
            let ends = heard.lock().unwrap().ends.len();
            assert_eq!(ends > 0, freed < 3, "who loses what is below is told");
            for bev in stack {
                let _ = bev.free();
            }
            events.run();
        }
    }
}

#[test]
fn a_layer_is_closed_gracefully_after_it_was_ended_alone() {
    spec!(G8);
    let (events, near, far) = two();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Shifted::default())
        .unwrap();
    let peer = far
        .filter(Options::CLOSE_ON_FREE, Shifted::default())
        .unwrap();
    let heard = listen(&peer);
    peer.enable(READ).unwrap();
    top.write(b"last").unwrap();
    top.finish_layer().unwrap();
    events.run();
    top.close(std::time::Duration::from_secs(5)).unwrap();
    events.run();
    assert_eq!(contents(&peer), b"last");
    assert_eq!(heard.lock().unwrap().ends, ["eof"]);
    peer.close(std::time::Duration::from_secs(5)).unwrap();
    events.run();
    assert!(top.is_freed() && peer.is_freed());
}

#[test]
fn connected_is_told_once_whoever_comes_and_goes_before_it_is() {
    spec!(F7);
    for freed in [false, true] {
        let (events, near, far) = two();
        let top = near
            .filter(Options::DEFER_CALLBACKS, Greeting::new())
            .unwrap();
        let _far = far.filter(Options::EMPTY, Greeting::new()).unwrap();
        // It has connected, and its handler is called in the loop's next turn.
        let below = listen(&top);
        let cover = top.filter(Options::DEFER_CALLBACKS, Identity).unwrap();
        let above = listen(&cover);
        if freed {
            cover.free().unwrap();
        } else {
            assert_eq!(cover.tear_off().unwrap().bev, top);
        }
        events.run();
        assert_eq!(above.lock().unwrap().order, Vec::<String>::new());
        assert_eq!(below.lock().unwrap().order, ["connected"]);
    }
}
