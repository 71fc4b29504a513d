//! Compressed bytes of whatever kind, in whatever pieces, into whatever room.
//!
//! The bytes are either the input's own, or a stream made of them and then damaged a little: what is behind a checksum is not
//! found by chance.
//!
//! # What is held to
//! - Every call moves something or says that it needs more of what it has none of.
//! - What comes out, how the stream ends and what is left behind its end do not depend on the pieces or on the room.
//! - No more comes out than the limits allow.

use std::num::NonZeroU32;

use bufferevent_core::{Error, Kind, Mode};
use bufferevent_filter::{Filter as _, Sink, Verdict};
use bufferevent_zlib::{Builder, FlushPolicy, Format, Members, Zlib};
use evbuffer::EvBuffer;

use bufferevent_testkit::Choices;

/// Plain bytes that an input is made to stand for at most, where it is not compressed itself.
const MAX_PLAIN: usize = 32 * 1024;

/// Rounds of damage.
const MAX_DAMAGE: usize = 4;

/// Bytes by which a ratio may be overstepped: one piece of the filter's work.
const ONE_PIECE: u64 = 256 * 1024;

/// Plain bytes up to which no ratio counts.
const RATIO_FREE: u64 = 1000;

/// What of the settings matters to the outcome.
struct Asked {
    format: Format,
    members: Members,
    window_bits: u8,
    ratio: Option<NonZeroU32>,
    output: Option<u64>,
}

/// What came of a stream.
#[derive(Debug)]
struct Outcome {
    plain: Vec<u8>,
    /// How it ended: properly, or with an error of this kind. What the codec says about it is left out, as it may depend on the pieces.
    end: Result<(), Kind>,
    /// Bytes that were not taken.
    left: usize,
    compressed: u64,
    members: u64,
}

/// Decompresses what `data` says.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (settings, asked) = settings(&mut choices);
    let how = choices.byte();
    let cuts = choices.take(usize::from(how >> 4)).to_vec();
    let (stream, plain) = if how & 1 == 0 {
        (choices.rest().to_vec(), None)
    } else {
        made(&settings, &asked, &mut choices)
    };
    let whole = inflated(&settings, &stream, &[]);
    let pieces = inflated(&settings, &stream, &cuts);
    compare(&whole, &pieces, &asked);
    for outcome in [&whole, &pieces] {
        check(outcome, &asked, stream.len());
        if let Some(plain) = &plain {
            assert_eq!((&outcome.plain, outcome.end), (plain, Ok(())));
        }
    }
}

fn settings(choices: &mut Choices<'_>) -> (Builder, Asked) {
    let format = choices.pick(&[Format::Zlib, Format::Deflate, Format::Gzip]);
    let marks = choices.byte();
    let mut asked = Asked {
        format,
        members: if marks & 4 == 0 {
            Members::Many
        } else {
            Members::One
        },
        window_bits: 15,
        ratio: (marks & 1 != 0).then_some(NonZeroU32::new(3).expect("3 is not 0")),
        output: (marks & 2 != 0).then(|| 16 * u64::from(choices.byte())),
    };
    let mut builder = Zlib::builder()
        .format(format)
        .max_ratio(asked.ratio)
        .ratio_free(RATIO_FREE)
        .members(asked.members)
        .level(u32::from(marks >> 4) % 10);
    if let Some(bytes) = asked.output {
        builder = builder.max_output(bytes);
    }
    if marks & 8 != 0 {
        asked.window_bits = 9 + choices.byte() % 7;
        builder = builder
            .input_window_bits(asked.window_bits)
            .flush(FlushPolicy::OnRequest);
        if format != Format::Gzip {
            builder = builder.dictionary(b"a dictionary of both ends, and of few words");
        }
    }
    (builder, asked)
}

/// Two streams of the rest of the choices, as this crate makes them, with some bytes changed, taken out, or put in; and what has to come of
/// them, if nothing was done to them and nothing forbids it.
fn made(
    settings: &Builder,
    asked: &Asked,
    choices: &mut Choices<'_>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let damage: Vec<[u8; 4]> = (0..choices.below(MAX_DAMAGE))
        .map(|_| {
            [
                choices.byte(),
                choices.byte(),
                choices.byte(),
                choices.byte(),
            ]
        })
        .collect();
    let times = 1 + choices.below(64);
    let split = choices.below(64);
    let seen = choices.rest();
    let (first, second) = seen.split_at(split.min(seen.len()));
    let first = first[..first.len().min(MAX_PLAIN / times)].repeat(times);
    let mut stream = compressed(settings, &first);
    stream.extend(compressed(settings, second));
    let allowed = asked.ratio.is_none() && asked.output.is_none() && asked.window_bits == 15;
    let plain = (damage.is_empty() && allowed).then(|| match (asked.format, asked.members) {
        (Format::Gzip, Members::Many) => [&first, second].concat(),
        // The second one stands behind the end.
        _ => first,
    });
    for [what, high, low, byte] in damage {
        damage_one(
            &mut stream,
            what,
            usize::from(u16::from_be_bytes([high, low])),
            byte,
        );
    }
    (stream, plain)
}

fn damage_one(stream: &mut Vec<u8>, what: u8, at: usize, byte: u8) {
    if stream.is_empty() {
        return;
    }
    let at = at % stream.len();
    match what % 4 {
        0 => stream[at] ^= byte,
        1 => stream[at] = byte,
        2 => drop(stream.remove(at)),
        _ => stream.insert(at, byte),
    }
}

fn compressed(settings: &Builder, plain: &[u8]) -> Vec<u8> {
    let mut filter = settings.clone().build().expect("the settings are possible");
    let (mut source, mut out) = (EvBuffer::from(plain), EvBuffer::new());
    let mut sink = Sink::new(&mut out, usize::MAX);
    let verdict = filter.output(&mut source, &mut sink, Mode::Finished);
    assert_eq!(verdict.expect("compressing has no errors"), Verdict::End);
    let mut bytes = vec![0; out.len()];
    out.remove(&mut bytes);
    bytes
}

/// The next of `cuts`, over and over: a length of 1 to 128, or everything; where room may be missing, 0 too.
fn next_cut(cuts: &mut impl Iterator<Item = u8>) -> usize {
    cuts.next()
        .map_or(usize::MAX, |cut| usize::from(cut & 0x7f))
}

/// Runs the input side over `stream`, in pieces and with room by `cuts`; none: all at once.
fn inflated(settings: &Builder, stream: &[u8], cuts: &[u8]) -> Outcome {
    let mut filter = settings.clone().build().expect("the settings are possible");
    let (mut source, mut plain) = (EvBuffer::new(), EvBuffer::new());
    let mut cuts = cuts.iter().copied().cycle();
    let mut rest = stream;
    let mut moved = true;
    let end = loop {
        let mode = if rest.is_empty() {
            Mode::Finished
        } else {
            Mode::Normal
        };
        let before = (source.len(), plain.len());
        // No room is given once, not for ever.
        let room = next_cut(&mut cuts).max(usize::from(!moved));
        let verdict = filter.input(&mut source, &mut Sink::new(&mut plain, room), mode);
        assert!(
            plain.len() - before.1 <= room,
            "more than there is room for"
        );
        moved = before != (source.len(), plain.len());
        match verdict {
            Ok(Verdict::NeedInput) => {
                assert!(source.len() < 2, "what is there was enough to go on");
                if mode == Mode::Finished {
                    break Ok(());
                }
                let (piece, behind) = rest.split_at(next_cut(&mut cuts).clamp(1, rest.len()));
                source.append_slice(piece).expect("there is memory");
                rest = behind;
            }
            Ok(Verdict::Full) => assert!(moved || room == 0, "full, and nothing came"),
            Ok(Verdict::Progress) => assert!(moved, "progress, and nothing came"),
            Ok(Verdict::End) => break Ok(()),
            Err(error) => {
                sticky(&mut filter, &error);
                break Err(error.kind());
            }
        }
    };
    let stats = filter.stats();
    // The byte that is one too many is counted, and not given out.
    let refused = stats.input.plain - plain.len() as u64;
    assert!(refused == 0 || (refused == 1 && end == Err(Kind::Limit)));
    let mut bytes = vec![0; plain.len()];
    plain.remove(&mut bytes);
    Outcome {
        plain: bytes,
        end,
        left: source.len() + rest.len(),
        compressed: stats.input.compressed,
        members: stats.members,
    }
}

/// After an error nothing comes any more, and the error stays.
fn sticky(filter: &mut Zlib, error: &Error) {
    let (mut source, mut plain) = (EvBuffer::from(&[0x78, 0x9c, 3, 0][..]), EvBuffer::new());
    let mut sink = Sink::new(&mut plain, usize::MAX);
    let again = filter.input(&mut source, &mut sink, Mode::Normal);
    assert_eq!(again.expect_err("it has failed").kind(), error.kind());
    assert_eq!((source.len(), plain.len()), (4, 0));
}

fn compare(whole: &Outcome, pieces: &Outcome, asked: &Asked) {
    let ratio =
        |outcome: &Outcome| asked.ratio.is_some() && matches!(outcome.end, Err(Kind::Limit));
    if ratio(whole) || ratio(pieces) {
        // The ratio is looked at after each piece of work, and so depends on them.
        let shorter = whole.plain.len().min(pieces.plain.len());
        assert_eq!(whole.plain[..shorter], pieces.plain[..shorter]);
        return;
    }
    assert_eq!(whole.plain, pieces.plain);
    assert_eq!(whole.end, pieces.end);
    assert_eq!(whole.members, pieces.members);
    if whole.end.is_ok() {
        assert_eq!(whole.left, pieces.left);
        assert_eq!(whole.compressed, pieces.compressed);
    }
}

fn check(outcome: &Outcome, asked: &Asked, stream: usize) {
    let plain = outcome.plain.len() as u64;
    assert!(outcome.compressed <= stream as u64);
    if outcome.end.is_ok() {
        assert_eq!(outcome.compressed, (stream - outcome.left) as u64);
    }
    if let Some(limit) = asked.output {
        assert!(plain <= limit, "{plain} of {limit} bytes");
    }
    if let Some(ratio) = asked.ratio {
        let allowed = RATIO_FREE.max(outcome.compressed * u64::from(ratio.get()));
        assert!(plain <= allowed + ONE_PIECE, "{plain} bytes");
        if outcome.end.is_ok() {
            assert!(plain <= allowed, "{plain} bytes, and no error");
        }
    }
    assert!(
        plain <= 1100 * (stream as u64 + 1),
        "the format's own bound"
    );
}
