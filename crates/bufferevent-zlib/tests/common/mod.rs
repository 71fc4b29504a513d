//! A filter run as what it is: a function of two buffers and a limit.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use bufferevent_core::{Error, Mode};
use bufferevent_filter::{Filter, Sink, Verdict};
use bufferevent_zlib::{Builder, Format, Zlib};
use evbuffer::EvBuffer;

pub(crate) const FORMATS: [Format; 3] = [Format::Zlib, Format::Deflate, Format::Gzip];

/// Calls for one piece of work before the filter counts as spinning. The pieces of these tests are below 16 MiB, taken a byte
/// at a time.
const MAX_CALLS: usize = 1 << 25;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Input,
    Output,
}

pub(crate) fn bytes_of(buffer: &mut EvBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    assert_eq!(buffer.remove(&mut bytes), bytes.len());
    bytes
}

/// Runs one side until it wants more than room, giving it `limit` bytes of it at a time.
pub(crate) fn run(
    filter: &mut Zlib,
    side: Side,
    source: &mut EvBuffer,
    out: &mut EvBuffer,
    limit: usize,
    mode: Mode,
) -> Result<Verdict, Error> {
    for _ in 0..MAX_CALLS {
        let (held, before) = (source.len(), out.len());
        let mut sink = Sink::new(out, limit);
        let verdict = match side {
            Side::Input => filter.input(source, &mut sink, mode)?,
            Side::Output => filter.output(source, &mut sink, mode)?,
        };
        assert!(out.len() - before <= limit, "past the limit");
        match verdict {
            // Full is a promise that room brings something, but for the last time, when it turns out that nothing is left.
            Verdict::Full => assert!(out.len() > before || source.len() < held || limit == 0),
            Verdict::NeedInput | Verdict::End => return Ok(verdict),
            Verdict::Progress => panic!("it bounds its work by the limit alone"),
        }
    }
    panic!("it spins");
}

pub(crate) fn compress_with(filter: &mut Zlib, plain: &[u8], mode: Mode) -> Vec<u8> {
    let mut out = EvBuffer::new();
    let verdict = run(
        filter,
        Side::Output,
        &mut EvBuffer::from(plain),
        &mut out,
        usize::MAX,
        mode,
    )
    .unwrap();
    let expected = match mode {
        Mode::Finished => Verdict::End,
        Mode::Normal | Mode::Flush => Verdict::NeedInput,
    };
    assert_eq!(verdict, expected);
    bytes_of(&mut out)
}

/// One whole stream of `plain`.
pub(crate) fn compress(settings: &Builder, plain: &[u8]) -> Vec<u8> {
    compress_with(
        &mut settings.clone().build().unwrap(),
        plain,
        Mode::Finished,
    )
}

/// What `filter` makes of `compressed`, and how that ended, nothing following it.
pub(crate) fn read_with(
    filter: &mut Zlib,
    compressed: &[u8],
    mode: Mode,
) -> (Vec<u8>, Result<Verdict, Error>, Vec<u8>) {
    let (mut source, mut out) = (EvBuffer::from(compressed), EvBuffer::new());
    let result = run(filter, Side::Input, &mut source, &mut out, usize::MAX, mode);
    (bytes_of(&mut out), result, bytes_of(&mut source))
}

pub(crate) fn read(
    settings: &Builder,
    compressed: &[u8],
) -> (Vec<u8>, Result<Verdict, Error>, Vec<u8>) {
    read_with(
        &mut settings.clone().build().unwrap(),
        compressed,
        Mode::Finished,
    )
}

/// Text that compresses as text does: words of a small vocabulary, chosen by `seed`.
pub(crate) fn text(length: usize, seed: u64) -> Vec<u8> {
    let words = [
        "the",
        "buffer",
        "event",
        "of",
        "layer",
        "and",
        "a",
        "socket",
        "reads",
        "writes",
        "when",
        "enough",
        "watermark",
        "filter",
        "stream",
        "to",
        "peer",
        "is",
        "closed",
        "by",
        "0x1f",
    ];
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
        out.push(if (state >> 20) & 15 == 0 { b'\n' } else { b' ' });
    }
    out.truncate(length);
    out
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}
