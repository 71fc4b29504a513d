//! What a peer can send: bombs, quines, garbage, half of a stream, more than a stream.

mod common;

use std::error::Error as _;
use std::num::NonZeroU32;

use bufferevent_core::{Blame, Error, Kind, Mode};
use bufferevent_filter::{Filter, Sink, Verdict};
use bufferevent_testkit::fault;
use bufferevent_zlib::{
    Builder, Cause, DEFAULT_RATIO_FREE, FlushPolicy, Format, MAX_GZIP_HEADER, Members, Zlib,
};
use common::*;
use evbuffer::EvBuffer;

const MIB: u64 = 1 << 20;

/// The most that the guard's ratio is overstepped by: one piece of the codec's.
const PIECE: u64 = 256 * 1024;

fn cause(error: &Error) -> Option<&Cause> {
    error.source()?.downcast_ref()
}

/// What stands before the deflated bytes, in each format.
fn prefix(format: Format) -> &'static [u8] {
    match format {
        Format::Zlib => &[0x78, 0x9c],
        Format::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        _ => &[],
    }
}

/// A stretch of deflate that becomes 16 MiB of zeros, wherever it stands in a stream, and any number of times.
fn zeros() -> Vec<u8> {
    let mut writer = Zlib::builder()
        .format(Format::Deflate)
        .level(9)
        .flush(FlushPolicy::EachBurstFull)
        .build()
        .unwrap();
    compress_with(&mut writer, &vec![0; 16 << 20], Mode::Normal)
}

/// Feeds `reader` a bomb that becomes 10 GB, a little at a time, throwing away what comes of it; returns how that ends.
fn explode(reader: &mut Zlib, zeros: &[u8], most: u64) -> Result<(), Error> {
    let mut source = EvBuffer::from(prefix(reader.format()));
    let mut fed = 0;
    while fed < 10_000_000 && reader.stats().input.plain < most {
        source.append_slice(zeros).unwrap();
        fed += zeros.len();
        loop {
            let mut out = EvBuffer::new();
            let mut sink = Sink::new(&mut out, 64 * 1024);
            let verdict = reader.input(&mut source, &mut sink, Mode::Normal);
            assert!(
                out.len() <= 64 * 1024 && out.memory() <= 128 * 1024,
                "{}",
                out.memory()
            );
            match verdict? {
                Verdict::NeedInput => break,
                Verdict::Full => {}
                verdict => panic!("{verdict:?}"),
            }
        }
    }
    Ok(())
}

/// How many bytes of a bomb that nobody stops are let through, unless `BOMB_MIB` says how many MiB: 10,000 are all of it.
const PASSED: u64 = 48 * MIB;

/// F60: the guard stops a 1000:1 bomb just above what is free, an absolute limit stops it exactly there, and without a
/// guard it passes in bounded memory.
#[test]
fn a_bomb_is_stopped_early_and_in_bounded_memory() {
    fault!(F60);
    let zeros = zeros();
    let passed = std::env::var("BOMB_MIB").map_or(PASSED, |mib| mib.parse::<u64>().unwrap() * MIB);
    let ratio = (16 * MIB) / zeros.len() as u64;
    assert!(ratio >= 1000, "{ratio}");
    for format in FORMATS {
        let settings = Zlib::builder().format(format);
        let mut reader = settings.clone().build().unwrap();
        let error = explode(&mut reader, &zeros, 64 * MIB).unwrap_err();
        assert_eq!((error.kind(), error.blame()), (Kind::Limit, Blame::Peer));
        assert!(
            matches!(cause(&error), Some(Cause::Ratio { .. })),
            "{error:?}"
        );
        let plain = reader.stats().input.plain;
        assert!(
            (DEFAULT_RATIO_FREE..=DEFAULT_RATIO_FREE + PIECE).contains(&plain),
            "{plain}"
        );

        let unguarded = settings.clone().max_ratio(None);
        let mut reader = unguarded.clone().max_output(3_000_001).build().unwrap();
        let error = explode(&mut reader, &zeros, 64 * MIB).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert_eq!(cause(&error), Some(&Cause::MaxOutput { limit: 3_000_001 }));

        let generous = settings.max_ratio(NonZeroU32::new(2000));
        for settings in [unguarded, generous] {
            let mut reader = settings.build().unwrap();
            explode(&mut reader, &zeros, passed).unwrap();
            assert!(reader.stats().input.plain >= passed.min(10_000_000 * ratio));
        }
    }
}

#[test]
fn what_compresses_well_passes_below_the_guard() {
    // A megabyte is free at any ratio; above that, what came before counts.
    let zeros = vec![0; 1 << 20];
    assert!(read(&Zlib::builder(), &compress(&Zlib::builder(), &zeros)).0 == zeros);
    let mixed = [noise(1 << 15, 1), vec![0; 3 << 20]].concat();
    let (plain, end, _) = read(&Zlib::builder(), &compress(&Zlib::builder(), &mixed));
    assert_eq!(end.unwrap(), Verdict::End);
    assert!(plain == mixed);
}

/// F70, as a function: the limit is reached in the middle of a block; all that is allowed comes, then the error, every time
/// the same and nothing with it. Through a stack: `stack.rs`.
#[test]
fn at_the_limit_all_that_is_allowed_comes_and_then_the_error() {
    let plain = text(300_000, 7);
    for format in FORMATS {
        let whole = compress(&Zlib::builder().format(format), &plain);
        for limit in [0, 1, 65_535, 100_000, 299_999] {
            for room in [1 << 20, 777] {
                let settings = Zlib::builder().format(format).max_output(limit as u64);
                let mut reader = settings.build().unwrap();
                let (mut source, mut out) = (EvBuffer::from(&whole[..]), EvBuffer::new());
                let result = run(
                    &mut reader,
                    Side::Input,
                    &mut source,
                    &mut out,
                    room,
                    Mode::Normal,
                );
                let error = result.unwrap_err();
                assert_eq!(error.kind(), Kind::Limit);
                assert!(
                    bytes_of(&mut out) == plain[..limit],
                    "{format:?} {limit} {room}"
                );
                let left = source.len();
                for mode in [Mode::Normal, Mode::Finished] {
                    let result = run(&mut reader, Side::Input, &mut source, &mut out, room, mode);
                    assert_eq!(result.unwrap_err().kind(), Kind::Limit);
                    assert_eq!((out.len(), source.len()), (0, left));
                }
            }
        }
        for limit in [300_000, 300_001] {
            let settings = Zlib::builder().format(format).max_output(limit);
            let (exact, end, _) = read(&settings, &whole);
            assert_eq!(
                end.unwrap(),
                Verdict::End,
                "exactly at the limit is within it"
            );
            assert!(exact == plain);
        }
    }
}

/// A deflate stream that inflates to itself, of five-byte instructions: `L(n)` is a stored block of n of them, `R4` repeats
/// the last four, and the end is an empty last block. Source: Russ Cox, "Zip Files All The Way Down".
fn quine() -> Vec<u8> {
    const fn l(n: u8) -> [u8; 5] {
        [0, n * 5, 0, !(n * 5), 0xff]
    }
    /// A fixed block of two matches, each of 10 bytes at distance 20, and its end: 40 bits exactly.
    const R4: [u8; 5] = {
        // Huffman codes go in from their most significant bit, extra bits from their least: already in stream order here.
        // Header 0,1,0; twice (length 10: 264 = 0001000; distance 17..24: code 8 = 01000, extra 3 = 1,1,0); end 0000000.
        let bits: [u8; 40] = [
            0, 1, 0, //
            0, 0, 0, 1, 0, 0, 0, /**/ 0, 1, 0, 0, 0, /**/ 1, 1, 0, //
            0, 0, 0, 1, 0, 0, 0, /**/ 0, 1, 0, 0, 0, /**/ 1, 1, 0, //
            0, 0, 0, 0, 0, 0, 0,
        ];
        let mut bytes = [0; 5];
        let mut at = 0;
        while at < 40 {
            bytes[at / 8] |= bits[at] << (at % 8);
            at += 1;
        }
        bytes
    };
    const END: [u8; 5] = [1, 0, 0, 0xff, 0xff];
    let (l0, l4) = (l(0), l(4));
    [
        l0, l0, l0, l4, l0, l0, l0, l4, R4, l4, R4, l4, R4, l4, R4, l4, //
        R4, l0, l0, l4, R4, l0, l0, l4, R4, l0, l0, END, R4, l0, l0, END,
    ]
    .concat()
}

/// F61: a stream that inflates to itself is inflated as often as there are filters, and no more; each layer of a nested bomb has a guard
/// of its own.
#[test]
fn nested_streams_are_opened_once_per_layer() {
    fault!(F61);
    let quine = quine();
    let settings = Zlib::builder().format(Format::Deflate);
    let mut stream = quine.clone();
    for _ in 0..5 {
        let mut reader = settings.clone().build().unwrap();
        let (inside, end, left) = read_with(&mut reader, &stream, Mode::Finished);
        assert_eq!(end.unwrap(), Verdict::End);
        assert!(left.is_empty());
        assert_eq!(reader.stats().input.ratio(), Some(1.0));
        stream = inside;
        assert!(stream == quine);
    }
    // Zeros in a stream in a stream: a few bytes that stand for 64 MiB.
    let inner = compress(&Zlib::builder().level(9), &vec![0; 64 << 20]);
    let nested = compress(&Zlib::builder().level(9), &inner);
    assert!(nested.len() < 2000, "{}", nested.len());
    let (inside, end, _) = read(&Zlib::builder(), &nested);
    assert_eq!(end.unwrap(), Verdict::End, "64 KiB are nobody's bomb");
    let (plain, end, _) = read(&Zlib::builder(), &inside);
    assert_eq!(end.unwrap_err().kind(), Kind::Limit);
    assert!(plain.len() as u64 <= DEFAULT_RATIO_FREE + PIECE);
}

/// F62: what is no stream, or not the one that its checksum is of, is the peer's error with the codec's or our own cause.
#[test]
fn garbage_and_wrong_checksums_are_the_peers_errors() {
    fault!(F62);
    let refused = |settings: &Builder, bytes: &[u8]| {
        let (_, end, _) = read(settings, bytes);
        let error = end.unwrap_err();
        assert_eq!(
            (error.kind(), error.blame()),
            (Kind::Peer, Blame::Peer),
            "{error:?}"
        );
        assert!(
            error
                .source()
                .is_some_and(|source| !source.to_string().is_empty())
        );
        error
    };
    for format in FORMATS {
        let settings = Zlib::builder().format(format);
        for garbage in [&b"\xff\xff\xff\xff"[..], b"\x07GET / HTTP/1.1\r\n\r\n"] {
            let error = refused(&settings, garbage);
            let codec = error.source().unwrap().is::<flate2::DecompressError>();
            assert_eq!(codec, format != Format::Gzip);
        }
    }
    let plain = text(5000, 1);
    let zlib = Zlib::builder();
    let mut stream = compress(&zlib, &plain);
    *stream.last_mut().unwrap() ^= 1;
    assert!(
        refused(&zlib, &stream)
            .source()
            .unwrap()
            .is::<flate2::DecompressError>()
    );
    let gzip = Zlib::builder().format(Format::Gzip);
    let stream = compress(&gzip, &plain);
    let flipped = |back: usize| {
        let mut stream = stream.clone();
        let at = stream.len() - back;
        stream[at] ^= 1;
        stream
    };
    assert!(matches!(
        cause(&refused(&gzip, &flipped(8))),
        Some(Cause::GzipChecksum { .. })
    ));
    assert!(matches!(
        cause(&refused(&gzip, &flipped(1))),
        Some(Cause::GzipLength { found: 5000, .. })
    ));
    let with = zlib.clone().dictionary(b"one dictionary");
    let stream = compress(&with, b"one dictionary is not another");
    for other in [zlib.clone(), zlib.clone().dictionary(b"another one")] {
        assert!(matches!(
            cause(&refused(&other, &stream)),
            Some(Cause::Dictionary { .. })
        ));
    }
    let mut endless = prefix(Format::Gzip).to_vec();
    endless[3] = 8;
    endless.resize(MAX_GZIP_HEADER + 1, b'n');
    let (_, end, _) = read(&gzip, &endless);
    let error = end.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert_eq!(
        cause(&error),
        Some(&Cause::GzipHeaderLength {
            limit: MAX_GZIP_HEADER
        })
    );
}

/// F62, every bit: nothing panics or spins, and where there is a checksum nothing wrong passes for a whole stream.
#[test]
fn no_flipped_bit_passes_a_checksum() {
    fault!(F62);
    let plain = [text(300, 1), noise(50, 2)].concat();
    for format in FORMATS {
        let settings = Zlib::builder().format(format).max_output(1 << 20);
        let whole = compress(&settings, &plain);
        for bit in 0..whole.len() * 8 {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let (read, end, _) = read(&settings, &broken);
            if end.is_ok() && format != Format::Deflate {
                // Bits that say nothing: a time, a letter of a name, the last byte's padding.
                assert!(read == plain, "{format:?} bit {bit}");
            }
        }
    }
}

/// F63: wherever it is cut, the stream is truncated at its end and no sooner; what came before is delivered, and asking again is the same.
#[test]
fn a_cut_at_every_byte_is_truncated_and_never_spins() {
    fault!(F63);
    let plain = [text(400, 1), vec![7; 700], noise(60, 2)].concat();
    for format in FORMATS {
        let settings = Zlib::builder().format(format).max_output(1 << 20);
        let mut whole = compress(&settings, &plain);
        if format == Format::Gzip {
            whole.extend_from_within(..); // The second member's cuts are truncations too.
        }
        for cut in 0..whole.len() {
            if format == Format::Gzip && (cut == whole.len() / 2 || cut == whole.len() / 2 + 1) {
                continue; // The end of the first member, and one byte that may be anything behind it.
            }
            let mut most = None;
            for room in [usize::MAX, 1, 64] {
                let mut reader = settings.clone().build().unwrap();
                let (mut source, mut out) = (EvBuffer::from(&whole[..cut]), EvBuffer::new());
                for _ in 0..3 {
                    let waits = run(
                        &mut reader,
                        Side::Input,
                        &mut source,
                        &mut out,
                        room,
                        Mode::Normal,
                    );
                    assert_eq!(waits.unwrap(), Verdict::NeedInput);
                    assert!(source.is_empty());
                }
                for _ in 0..2 {
                    let end = run(
                        &mut reader,
                        Side::Input,
                        &mut source,
                        &mut out,
                        room,
                        Mode::Finished,
                    );
                    let error = end.unwrap_err();
                    assert_eq!(error.kind(), Kind::Truncated, "{format:?} at {cut}");
                    assert_eq!(error.layer(), format.name());
                }
                let twice = [&plain[..], &plain].concat();
                let out = bytes_of(&mut out);
                assert!(twice.starts_with(&out));
                // However little room there was, all that the bytes say has come.
                assert_eq!(*most.get_or_insert(out.len()), out.len());
            }
        }
    }
}

/// F64: what follows the end stays in the source, to the byte, however it arrives.
#[test]
fn what_follows_the_end_is_left() {
    fault!(F64);
    for format in FORMATS {
        let settings = Zlib::builder().format(format).members(Members::One);
        let whole = compress(&settings, b"the stream");
        for tail in [
            &b""[..],
            b"\0",
            b"220 plain again\r\n",
            b"\x1f",
            b"\x1f\x8b\x08",
            &whole,
        ] {
            let all = [&whole[..], tail].concat();
            let (plain, end, left) = read(&settings, &all);
            assert_eq!(
                (end.unwrap(), &plain[..], &left[..]),
                (Verdict::End, &b"the stream"[..], tail)
            );
            // A byte at a time, the end is known with its last byte.
            let mut reader = settings.clone().build().unwrap();
            let (mut source, mut out) = (EvBuffer::new(), EvBuffer::new());
            for (at, &byte) in all.iter().enumerate() {
                source.append_slice(&[byte]).unwrap();
                let verdict = run(
                    &mut reader,
                    Side::Input,
                    &mut source,
                    &mut out,
                    100,
                    Mode::Normal,
                );
                let expected = if at + 1 < whole.len() {
                    Verdict::NeedInput
                } else {
                    Verdict::End
                };
                assert_eq!(verdict.unwrap(), expected);
            }
            assert_eq!(bytes_of(&mut source), tail);
        }
    }
}

/// F65: gzip members are one stream, zeros behind them padding, and anything else is left; the other formats end once.
#[test]
fn members_are_one_stream_and_padding_is_none() {
    fault!(F65);
    let gzip = Zlib::builder().format(Format::Gzip);
    let (one, two) = (compress(&gzip, b"one "), compress(&gzip, b"two"));
    let empty = compress(&gzip, b"");
    /// What arrives, what is read of it, what is left of it.
    type Case<'a> = (&'a [&'a [u8]], &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 8] = [
        (&[&one, &two], b"one two", b""),
        (&[&empty, &one, &empty, &two, &empty], b"one two", b""),
        (&[&one, &[0; 512]], b"one ", b""),
        (&[&one, &[0; 512], b"x"], b"one ", b"x"),
        (&[&one, &[0; 3], &two], b"one ", &two), // As gzip(1): behind padding there is nothing.
        (&[&one, b"\x1f"], b"one ", b"\x1f"),
        (&[&one, b"\x1fxyz"], b"one ", b"\x1fxyz"),
        (&[&one, b"garbage"], b"one ", b"garbage"),
    ];
    for (parts, plain, left) in cases {
        let all = parts.concat();
        for piece in [all.len(), 1, 2, 7] {
            let mut reader = gzip.clone().build().unwrap();
            let (mut source, mut out) = (EvBuffer::new(), EvBuffer::new());
            for bytes in all.chunks(piece) {
                source.append_slice(bytes).unwrap();
                let _ = run(
                    &mut reader,
                    Side::Input,
                    &mut source,
                    &mut out,
                    3,
                    Mode::Normal,
                )
                .unwrap();
            }
            let end = run(
                &mut reader,
                Side::Input,
                &mut source,
                &mut out,
                3,
                Mode::Finished,
            );
            assert_eq!(end.unwrap(), Verdict::End);
            assert_eq!(
                (&bytes_of(&mut out)[..], &bytes_of(&mut source)[..]),
                (plain, left)
            );
        }
    }
    // A thousand members need one codec.
    let many = [&one[..], &empty].concat().repeat(500);
    let mut reader = gzip.build().unwrap();
    let (plain, end, _) = read_with(&mut reader, &many, Mode::Finished);
    assert_eq!((end.unwrap(), plain), (Verdict::End, b"one ".repeat(500)));
    assert_eq!(reader.stats().members, 1000);
    for format in [Format::Zlib, Format::Deflate] {
        let settings = Zlib::builder().format(format);
        let (one, two) = (compress(&settings, b"one "), compress(&settings, b"two"));
        let (plain, end, left) = read(&settings, &[&one[..], &two].concat());
        assert_eq!(
            (end.unwrap(), &plain[..], left),
            (Verdict::End, &b"one "[..], two)
        );
    }
}
