//! How a side ends: by its own verdict, by an error, by a panic, by the end below; with bytes before it, and bytes left over.

use bufferevent_core::{Error, Kind, Mode, Options, READ, WRITE};
use bufferevent_filter::{FilterExt, Sink, Verdict, from_fn};
use bufferevent_testkit::spec;
use evbuffer::EvBuffer;

use crate::joined;
use crate::support::{contents, listen, pass};

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
