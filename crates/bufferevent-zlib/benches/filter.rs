//! What a filter costs over its codec: `cargo bench -p bufferevent-zlib`.
//!
//! The same text goes through bare flate2 (one slice in, one `Vec` with all its room out) and through the filter (a buffer of
//! 64 KiB segments in, a buffer out), in turns. Only the ratio of one run means anything.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bufferevent_core::Mode;
use bufferevent_filter::{Filter, Sink, Verdict};
use bufferevent_zlib::{Format, Zlib};
use bytes::Bytes;
use evbuffer::EvBuffer;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

const LENGTH: usize = 8 << 20;
const SEGMENT: usize = 64 * 1024;
const ROUNDS: usize = 15;

/// Text with the statistics of logs: compresses about four times.
fn text() -> Bytes {
    let words = [
        "bufferevent",
        "watermark",
        "reads",
        "writes",
        "the",
        "peer",
        "closed",
        "connection",
        "of",
        "layer",
        "timeout",
        "after",
        "bytes",
        "from",
        "to",
        "and",
        "a",
        "filter",
        "stream",
        "error",
    ];
    let mut state = 1_u64;
    let mut out = String::with_capacity(LENGTH + 64);
    while out.len() < LENGTH {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = words[(state >> 33) as usize % words.len()];
        out.push_str(word);
        match (state >> 20) & 15 {
            0 => out.push('\n'),
            1 | 2 => out.push_str(&format!(" {} ", state >> 48)),
            _ => out.push(' '),
        }
    }
    out.truncate(LENGTH);
    out.into()
}

fn segments(bytes: &Bytes) -> EvBuffer {
    let mut buffer = EvBuffer::new();
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(SEGMENT));
        buffer.append_bytes(piece).expect("memory for a segment");
    }
    buffer
}

fn bare_compress(plain: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut codec = Compress::new(Compression::new(6), true);
    codec
        .compress_vec(plain, out, FlushCompress::Finish)
        .expect("bytes compress");
}

fn bare_decompress(compressed: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut codec = Decompress::new(true);
    codec
        .decompress_vec(compressed, out, FlushDecompress::Finish)
        .expect("a whole stream");
}

/// One side of a filter from a full buffer to the stream's end, its output taken away as a transport would.
fn filtered(
    source: &mut EvBuffer,
    mut side: impl FnMut(&mut EvBuffer, &mut Sink<'_>) -> Verdict,
) -> usize {
    let mut total = 0;
    loop {
        let mut out = EvBuffer::new();
        let verdict = side(source, &mut Sink::new(&mut out, 256 * 1024));
        total += black_box(&out).len();
        if verdict == Verdict::End {
            return total;
        }
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The two times at their best, and their ratio.
fn report(name: &str, mut bare: impl FnMut(), mut filter: impl FnMut()) {
    let (mut best_bare, mut best_filter) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        best_bare = best_bare.min(timed(&mut bare));
        best_filter = best_filter.min(timed(&mut filter));
    }
    let speed = |time: Duration| LENGTH as f64 / time.as_secs_f64() / 1e6;
    println!(
        "{name:<12} bare {:7.1} MB/s   filter {:7.1} MB/s   filter/bare {:.3}",
        speed(best_bare),
        speed(best_filter),
        best_bare.as_secs_f64() / best_filter.as_secs_f64(),
    );
}

fn main() {
    let plain = text();
    let mut compressed = Vec::with_capacity(LENGTH);
    bare_compress(&plain, &mut compressed);
    println!(
        "text: {} bytes, {:.2} times longer than compressed, level 6, zlib",
        plain.len(),
        plain.len() as f64 / compressed.len() as f64
    );

    let mut out = Vec::with_capacity(LENGTH + 1024);
    let mut room = Vec::with_capacity(LENGTH + 1024);
    report(
        "compress",
        || bare_compress(black_box(&plain), &mut out),
        || {
            let mut writer = Zlib::builder().build().expect("valid settings");
            let mut source = segments(&plain);
            filtered(&mut source, |source, sink| {
                writer
                    .output(source, sink, Mode::Finished)
                    .expect("bytes compress")
            });
        },
    );
    let shared = Bytes::from(compressed.clone());
    for format in [Format::Zlib, Format::Gzip] {
        let wire = match format {
            Format::Gzip => {
                let mut out = vec![0; LENGTH];
                let mut codec = Compress::new_gzip(Compression::new(6), 15);
                codec
                    .compress(&plain, &mut out, FlushCompress::Finish)
                    .expect("bytes compress");
                out.truncate(codec.total_out() as usize);
                Bytes::from(out)
            }
            _ => shared.clone(),
        };
        report(
            &format!("read {}", format.name()),
            || {
                if format == Format::Gzip {
                    room.clear();
                    let mut codec = Decompress::new_gzip(15);
                    codec
                        .decompress_vec(black_box(&wire), &mut room, FlushDecompress::Finish)
                        .expect("a whole stream");
                } else {
                    bare_decompress(black_box(&wire), &mut room);
                }
            },
            || {
                let mut reader = Zlib::builder()
                    .format(format)
                    .members(bufferevent_zlib::Members::One)
                    .build()
                    .expect("valid settings");
                let mut source = segments(&wire);
                let total = filtered(&mut source, |source, sink| {
                    reader
                        .input(source, sink, Mode::Finished)
                        .expect("a whole stream")
                });
                assert_eq!(total, LENGTH);
            },
        );
    }
}
