//! What goes in comes out, however it is cut, limited and flushed.

mod common;

use bufferevent_core::{Kind, Mode};
use bufferevent_filter::{Filter, Sink, Verdict};
use bufferevent_testkit::fault;
use bufferevent_zlib::{Builder, Cause, FlushPolicy, Format, Zlib};
use common::*;
use evbuffer::EvBuffer;
use proptest::prelude::*;

/// One move of the property test.
#[derive(Clone, Debug)]
enum Op {
    /// So many more plain bytes.
    Write(usize),
    /// The output side gets so much room.
    Output(usize, Mode),
    /// So many compressed bytes reach the other end.
    Deliver(usize),
    /// The input side there gets so much room.
    Input(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop_oneof![Just(1_usize), 0..20_usize, 0..3000_usize, 0..100_000_usize];
    let mode = prop_oneof![3 => Just(Mode::Normal), 1 => Just(Mode::Flush)];
    prop_oneof![
        length.clone().prop_map(Op::Write),
        (length.clone(), mode).prop_map(|(room, mode)| Op::Output(room, mode)),
        length.clone().prop_map(Op::Deliver),
        length.prop_map(Op::Input),
    ]
}

fn settings() -> impl Strategy<Value = Builder> {
    let policy = prop_oneof![
        Just(FlushPolicy::EachBurst),
        Just(FlushPolicy::EachBurstFull),
        Just(FlushPolicy::OnRequest)
    ];
    let format = proptest::sample::select(&FORMATS[..]);
    (format, 0..=9_u32, policy, 9..=15_u8, any::<bool>()).prop_map(
        |(format, level, policy, bits, dictionary)| {
            let settings = Zlib::builder()
                .format(format)
                .level(level)
                .flush(policy)
                .output_window_bits(bits);
            if dictionary && format != Format::Gzip {
                settings.dictionary(b"the watermark of the layer is closed by the peer")
            } else {
                settings
            }
        },
    )
}

/// Plain bytes on their way through two filters, and what has come of them.
struct Line {
    writer: Zlib,
    reader: Zlib,
    plain: EvBuffer,
    wire: EvBuffer,
    arrived: EvBuffer,
    read: EvBuffer,
}

impl Line {
    fn new(settings: &Builder) -> Self {
        Self {
            writer: settings.clone().build().unwrap(),
            reader: settings.clone().build().unwrap(),
            plain: EvBuffer::new(),
            wire: EvBuffer::new(),
            arrived: EvBuffer::new(),
            read: EvBuffer::new(),
        }
    }

    fn output(&mut self, room: usize, mode: Mode) -> Verdict {
        let before = self.wire.len();
        let mut sink = Sink::new(&mut self.wire, room);
        let verdict = self
            .writer
            .output(&mut self.plain, &mut sink, mode)
            .unwrap();
        assert!(self.wire.len() - before <= room);
        verdict
    }

    fn input(&mut self, room: usize, mode: Mode) -> Verdict {
        let before = self.read.len();
        let mut sink = Sink::new(&mut self.read, room);
        let verdict = self
            .reader
            .input(&mut self.arrived, &mut sink, mode)
            .unwrap();
        assert!(self.read.len() - before <= room);
        verdict
    }

    /// Everything that can move without the writer's end, moves.
    fn settle(&mut self, mode: Mode) -> Verdict {
        while self.output(usize::MAX, mode) == Verdict::Full {}
        self.arrived.append(&mut self.wire).unwrap();
        loop {
            match self.input(usize::MAX, Mode::Normal) {
                Verdict::Full => {}
                verdict => return verdict,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// F5: every format, level, window, dictionary and policy, cut anywhere on either side, with any limits and flushes.
    #[test]
    fn any_chunking_limits_and_flushes_round_trip(
        settings in settings(),
        ops in proptest::collection::vec(op(), 1..60),
        seed in any::<u64>(),
    ) {
        let mut line = Line::new(&settings);
        let mut sent = Vec::new();
        for op in ops {
            match op {
                Op::Write(length) => {
                    let more = if seed & 3 == 0 { noise(length, seed) } else { text(length, seed) };
                    sent.extend_from_slice(&more);
                    line.plain.append_slice(&more).unwrap();
                }
                Op::Output(room, mode) => { let _ = line.output(room, mode); }
                Op::Deliver(length) => { line.wire.move_to(length, &mut line.arrived).unwrap(); }
                Op::Input(room) => prop_assert_ne!(line.input(room, Mode::Normal), Verdict::End),
            }
        }
        // A flush makes all that was written readable, whatever was held back where.
        prop_assert_eq!(line.settle(Mode::Flush), Verdict::NeedInput);
        prop_assert_eq!(line.read.len(), sent.len());
        while line.output(usize::MAX, Mode::Finished) == Verdict::Full {}
        line.arrived.append(&mut line.wire).unwrap();
        prop_assert_eq!(line.input(usize::MAX, Mode::Finished), Verdict::End);
        prop_assert!(bytes_of(&mut line.read) == sent);
        prop_assert_eq!(line.reader.stats().input, line.writer.stats().output);
    }
}

#[test]
fn one_byte_of_room_and_one_byte_of_source_are_enough() {
    let plain = [text(3000, 3), noise(3000, 4)].concat();
    for format in FORMATS {
        for level in [0, 1, 6, 9] {
            let settings = Zlib::builder().format(format).level(level);
            let mut line = Line::new(&settings);
            for &byte in &plain {
                line.plain.append_slice(&[byte]).unwrap();
                while line.output(1, Mode::Normal) == Verdict::Full {}
                while line.wire.move_to(1, &mut line.arrived).unwrap() > 0 {
                    while line.input(1, Mode::Normal) == Verdict::Full {}
                }
                // Flushed after each burst: what was written is there.
            }
            assert_eq!(line.read.len(), plain.len(), "{format:?} {level}");
            while line.output(1, Mode::Finished) == Verdict::Full {}
            line.arrived.append(&mut line.wire).unwrap();
            assert_eq!(line.input(1, Mode::Finished), Verdict::End);
            assert!(bytes_of(&mut line.read) == plain);
        }
    }
}

#[test]
fn each_burst_is_readable_at_once_unless_that_is_not_wanted() {
    for format in FORMATS {
        for (policy, delayed) in [
            (FlushPolicy::EachBurst, false),
            (FlushPolicy::EachBurstFull, false),
            (FlushPolicy::OnRequest, true),
        ] {
            let mut line = Line::new(&Zlib::builder().format(format).flush(policy));
            line.plain.append_slice(b"a line\n").unwrap();
            assert_eq!(line.settle(Mode::Normal), Verdict::NeedInput);
            assert_eq!(line.read.len(), if delayed { 0 } else { 7 });
            assert_eq!(line.settle(Mode::Flush), Verdict::NeedInput);
            assert_eq!(
                line.read.len(),
                7,
                "a flush that is asked for comes in any case"
            );
        }
    }
}

#[test]
fn after_a_full_flush_a_reader_can_begin() {
    let mut writer = Zlib::builder()
        .format(Format::Deflate)
        .flush(FlushPolicy::EachBurstFull)
        .build()
        .unwrap();
    let plain = text(5000, 1);
    let first = compress_with(&mut writer, &plain, Mode::Normal);
    let second = compress_with(&mut writer, &plain, Mode::Normal);
    assert!(!first.is_empty());
    let mut late = Zlib::builder().format(Format::Deflate).build().unwrap();
    let (read, verdict, _) = read_with(&mut late, &second, Mode::Normal);
    assert_eq!(verdict.unwrap(), Verdict::NeedInput);
    assert!(read == plain);
}

/// F66: a sync flush is written once per burst, and none where nothing was written; a peer that sends a storm of them causes no
/// output, no error and no memory.
#[test]
fn empty_blocks_are_neither_written_nor_minded() {
    fault!(F66);
    const MARK: [u8; 4] = [0, 0, 0xff, 0xff];
    for format in FORMATS {
        for level in 0..=9 {
            let mut writer = Zlib::builder().format(format).level(level).build().unwrap();
            assert_eq!(compress_with(&mut writer, b"", Mode::Normal), b"");
            assert_eq!(compress_with(&mut writer, b"", Mode::Flush), b"");
            let burst = compress_with(&mut writer, b"hello", Mode::Normal);
            assert!(burst.ends_with(&MARK));
            for mode in [Mode::Normal, Mode::Flush, Mode::Flush] {
                assert_eq!(
                    compress_with(&mut writer, b"", mode),
                    b"",
                    "{format:?} {level}"
                );
            }
        }
        // Whatever room the sink has while a burst is flushed, there is one mark: the codec's own trap (see `deflater`).
        for length in [1, 20, 300, 40_000] {
            let plain = noise(length, 9);
            let whole = {
                let mut writer = Zlib::builder().format(format).build().unwrap();
                compress_with(&mut writer, &plain, Mode::Normal)
            };
            for limit in [1, 2, 3, 4, 5, 6, 7, 100, whole.len() - 1, whole.len()] {
                let mut writer = Zlib::builder().format(format).build().unwrap();
                let mut out = EvBuffer::new();
                let mut source = EvBuffer::from(&plain[..]);
                let limit = limit.max(1);
                let _ = run(
                    &mut writer,
                    Side::Output,
                    &mut source,
                    &mut out,
                    limit,
                    Mode::Normal,
                )
                .unwrap();
                let out = bytes_of(&mut out);
                assert_eq!(out.len(), whole.len(), "{format:?} {length} {limit}");
                assert!(out == whole);
            }
        }
    }
    let mut reader = Zlib::builder().format(Format::Deflate).build().unwrap();
    let mut source = EvBuffer::new();
    for _ in 0..1000 {
        source
            .append_slice(&[0, 0, 0, 0xff, 0xff].repeat(200))
            .unwrap();
        let mut out = EvBuffer::new();
        let mut sink = Sink::new(&mut out, 1);
        let verdict = reader.input(&mut source, &mut sink, Mode::Normal).unwrap();
        assert_eq!(
            (verdict, out.len(), source.len()),
            (Verdict::NeedInput, 0, 0)
        );
    }
    assert_eq!(reader.stats().input.plain, 0);
}

/// F67: the end of the stream is written once, wherever the room ends, and not again.
#[test]
fn a_trailer_that_fits_exactly_is_written_once() {
    fault!(F67);
    for format in FORMATS {
        for plain in [&b""[..], b"x", &text(10_000, 5), &noise(70_000, 6)] {
            let settings = Zlib::builder().format(format);
            let whole = compress(&settings, plain);
            let near = whole.len().saturating_sub(20).max(1)..=whole.len() + 1;
            for room in near.chain([1, 7, 1000]) {
                let mut writer = settings.clone().build().unwrap();
                let (mut source, mut out) = (EvBuffer::from(plain), EvBuffer::new());
                let end = run(
                    &mut writer,
                    Side::Output,
                    &mut source,
                    &mut out,
                    room,
                    Mode::Finished,
                );
                assert_eq!(end.unwrap(), Verdict::End);
                for mode in [Mode::Finished, Mode::Flush, Mode::Normal, Mode::Finished] {
                    let again = run(&mut writer, Side::Output, &mut source, &mut out, room, mode);
                    let expected = if mode == Mode::Finished {
                        Verdict::End
                    } else {
                        Verdict::NeedInput
                    };
                    assert_eq!(again.unwrap(), expected);
                }
                let out = bytes_of(&mut out);
                let (read, end, left) = read(&settings, &out);
                assert_eq!(end.unwrap(), Verdict::End);
                assert!(read == plain && left.is_empty(), "{format:?} room {room}");
                let mut late = EvBuffer::from(&b"late"[..]);
                let mut nowhere = EvBuffer::new();
                let refused = run(
                    &mut writer,
                    Side::Output,
                    &mut late,
                    &mut nowhere,
                    9,
                    Mode::Normal,
                );
                assert_eq!(refused.unwrap_err().kind(), Kind::Ended);
                assert_eq!((late.len(), nowhere.len()), (4, 0));
            }
            // The reader's buffer is full exactly at the last byte.
            let mut reader = settings.clone().build().unwrap();
            let (mut source, mut out) = (EvBuffer::from(&whole[..]), EvBuffer::new());
            let room = plain.len().max(1);
            let end = run(
                &mut reader,
                Side::Input,
                &mut source,
                &mut out,
                room,
                Mode::Finished,
            );
            assert_eq!(end.unwrap(), Verdict::End);
            assert!(bytes_of(&mut out) == plain);
        }
    }
}

#[test]
fn files_and_shared_bytes_are_compressed_like_any_other() {
    let plain = text(200_000, 8);
    let path = std::env::temp_dir().join(format!("bufferevent-zlib-{}", std::process::id()));
    std::fs::write(&path, &plain).unwrap();
    let file = std::sync::Arc::new(std::fs::File::open(&path).unwrap());
    std::fs::remove_file(&path).ok();
    let mut source = EvBuffer::new();
    source.append_bytes(plain.clone().into()).unwrap();
    source
        .append_file(evbuffer::FileRegion::whole(file).unwrap())
        .unwrap();
    source.append_slice(b"the end").unwrap();
    let (mut writer, mut out) = (Zlib::default(), EvBuffer::new());
    let _ = run(
        &mut writer,
        Side::Output,
        &mut source,
        &mut out,
        1000,
        Mode::Finished,
    )
    .unwrap();
    let (read, end, _) = read(&Zlib::builder(), &bytes_of(&mut out));
    assert_eq!(end.unwrap(), Verdict::End);
    assert!(read == [&plain[..], &plain, b"the end"].concat());
}

#[test]
fn settings_that_no_stream_can_have_are_refused() {
    let cause = |settings: Builder| {
        let error = settings.build().unwrap_err();
        assert_eq!(error.kind(), Kind::Misuse);
        let source = std::error::Error::source(&error).unwrap();
        source.downcast_ref::<Cause>().unwrap().clone()
    };
    let builder = Zlib::builder;
    assert_eq!(cause(builder().level(10)), Cause::Level(10));
    assert_eq!(cause(builder().output_window_bits(8)), Cause::WindowBits(8));
    assert_eq!(
        cause(builder().input_window_bits(16)),
        Cause::WindowBits(16)
    );
    assert_eq!(cause(builder().dictionary(b"")), Cause::DictionaryLength(0));
    assert_eq!(
        cause(builder().output_dictionary(&[0; 32769])),
        Cause::DictionaryLength(32769)
    );
    let gzip = builder().format(Format::Gzip);
    assert_eq!(cause(gzip.dictionary(b"a")), Cause::DictionaryInGzip);
    assert!(builder().dictionary(&[0; 32768]).build().is_ok());
}

#[test]
fn both_ways_are_counted() {
    let plain = text(100_000, 2);
    let mut writer = Zlib::default();
    assert_eq!(writer.stats().output.ratio(), None);
    let wire = compress_with(&mut writer, &plain, Mode::Finished);
    let output = writer.stats().output;
    assert_eq!(
        (output.plain, output.compressed),
        (100_000, wire.len() as u64)
    );
    assert!(output.ratio().unwrap() > 3.0);
    let mut reader = Zlib::default();
    let _ = read_with(&mut reader, &wire, Mode::Finished);
    assert_eq!(reader.stats().input, output);
    assert_eq!(reader.stats().members, 1);
}

/// The level, the window and the dictionary reach the stream.
#[test]
fn levels_windows_and_dictionaries_show() {
    let plain = text(200_000, 11);
    for format in FORMATS {
        let of = |level| compress(&Zlib::builder().format(format).level(level), &plain).len();
        let (stored, fast, best) = (of(0), of(1), of(9));
        assert!(
            stored > plain.len() && fast < stored && best < fast,
            "{format:?}"
        );
    }
    let zlib = compress(&Zlib::builder().output_window_bits(9), &plain);
    assert_eq!(zlib[0] >> 4, 9 - 8, "the header tells the window");
    let narrow = Zlib::builder().input_window_bits(9);
    assert!(read(&narrow, &zlib).0 == plain);
    let wide = compress(&Zlib::builder(), &plain);
    assert_eq!(read(&narrow, &wide).1.unwrap_err().kind(), Kind::Peer);
    for format in [Format::Zlib, Format::Deflate] {
        let with = Zlib::builder().format(format).dictionary(&plain[..32768]);
        let short = compress(&with, &plain[20_000..21_000]).len();
        assert!(
            short < 40,
            "{format:?}: a copy of the dictionary takes {short} bytes"
        );
        assert!(read(&with, &compress(&with, &plain)).0 == plain);
    }
    // One way only.
    let writes = Zlib::builder().output_dictionary(b"hello");
    let reads = Zlib::builder().input_dictionary(b"hello");
    assert_eq!(
        read(&reads, &compress(&writes, b"hello hello")).0,
        b"hello hello"
    );
    assert_eq!(read(&reads, &compress(&reads, b"plain")).0, b"plain");
}
