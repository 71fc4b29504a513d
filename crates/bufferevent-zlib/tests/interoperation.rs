//! Others' programs read what this filter writes, and it reads what they write: gzip(1), and zlib itself through Python.
//!
//! A program that is missing is a failure and says which one: a check that silently did not run proves nothing.

#![cfg(unix)] // Where the checks ask for those programs.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use bufferevent_core::Mode;
use bufferevent_filter::Verdict;
use bufferevent_zlib::{Format, Zlib};
use common::*;

/// What `program` answers to `stdin`.
fn through(program: &str, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs the program {program}: {error}"));
    let mut pipe = child.stdin.take().unwrap();
    let answer = thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(stdin).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(
        answer.status.success(),
        "{program} {arguments:?}: {}",
        answer.status
    );
    answer.stdout
}

fn python(script: &str, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
    let program = if cfg!(windows) { "python" } else { "python3" };
    through(program, &[&["-c", script], arguments].concat(), stdin)
}

/// zlib's own numbers for the formats.
fn wbits(format: Format) -> &'static str {
    match format {
        Format::Zlib => "15",
        Format::Gzip => "31",
        _ => "-15",
    }
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"x".to_vec(),
        text(100_000, 1),
        noise(100_000, 2),
        vec![7; 500_000],
    ]
}

#[test]
fn gunzip_reads_what_is_written_and_gzip_writes_what_is_read() {
    for plain in samples() {
        for level in [0, 1, 6, 9] {
            let gzip = Zlib::builder().format(Format::Gzip).level(level);
            let compressed = compress(&gzip, &plain);
            assert!(through("gunzip", &["-c"], &compressed) == plain);
            let with_members = [compressed, compress(&gzip, &plain)].concat();
            assert!(through("gunzip", &["-c"], &with_members) == [&plain[..], &plain].concat());
            let theirs = through("gzip", &["-c", &format!("-{}", level.max(1))], &plain);
            let (read, end, left) = read(&gzip, &theirs);
            assert_eq!(end.unwrap(), Verdict::End);
            assert!(read == plain && left.is_empty());
        }
    }
}

#[test]
fn zlib_reads_every_burst_at_once() {
    // Reads "length of a burst, compressed burst, plain length" and demands that each burst gives all of its plain bytes.
    const READER: &str = r"
import sys, zlib, struct
wbits, dictionary = int(sys.argv[1]), sys.argv[2].encode()
more = {'zdict': dictionary} if dictionary else {}
reader, plain, stdin = zlib.decompressobj(wbits, **more), b'', sys.stdin.buffer
while (head := stdin.read(8)):
    compressed, expected = struct.unpack('<II', head)
    burst = reader.decompress(stdin.read(compressed))
    assert len(burst) == expected, (len(burst), expected)
    plain += burst
assert reader.eof and not reader.unused_data
sys.stdout.buffer.write(plain)
";
    for (format, dictionary) in [
        (Format::Zlib, ""),
        (Format::Zlib, "a dictionary of words"),
        (Format::Deflate, ""),
        (Format::Deflate, "a dictionary of words"),
        (Format::Gzip, ""),
    ] {
        let mut settings = Zlib::builder().format(format);
        if !dictionary.is_empty() {
            settings = settings.dictionary(dictionary.as_bytes());
        }
        let mut writer = settings.build().unwrap();
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for (index, length) in [1, 21, 0, 5000, 70_000, 3, 0].into_iter().enumerate() {
            let plain = match index {
                1 => b"a dictionary of words".to_vec(),
                _ => text(length, 6),
            };
            let mode = if index == 6 {
                Mode::Finished
            } else {
                Mode::Normal
            };
            let burst = compress_with(&mut writer, &plain, mode);
            for number in [burst.len(), plain.len()] {
                wire.extend_from_slice(&(number as u32).to_le_bytes());
            }
            wire.extend_from_slice(&burst);
            sent.extend_from_slice(&plain);
        }
        let read = python(READER, &[wbits(format), dictionary], &wire);
        assert!(read == sent, "{format:?} {dictionary:?}");
    }
}

#[test]
fn what_zlib_flushes_is_read_at_once() {
    // Writes each line of stdin as one burst, sync flushed, as "length, compressed"; then the end.
    const WRITER: &str = r"
import sys, zlib, struct
wbits, dictionary = int(sys.argv[1]), sys.argv[2].encode()
more = {'zdict': dictionary} if dictionary else {}
writer, stdout = zlib.compressobj(int(sys.argv[3]), zlib.DEFLATED, wbits, **more), sys.stdout.buffer
def put(burst):
    stdout.write(struct.pack('<I', len(burst)) + burst)
for line in sys.stdin.buffer:
    put(writer.compress(line) + writer.flush(zlib.Z_SYNC_FLUSH))
put(writer.flush(zlib.Z_FINISH))
";
    for format in FORMATS {
        for (level, dictionary) in [("1", ""), ("6", "the buffer of the layer"), ("9", "")] {
            let dictionary = if format == Format::Gzip {
                ""
            } else {
                dictionary
            };
            let mut settings = Zlib::builder().format(format);
            if !dictionary.is_empty() {
                settings = settings.dictionary(dictionary.as_bytes());
            }
            let plain = [text(60_000, 4), b"\nlast\n".to_vec()].concat();
            let wire = python(WRITER, &[wbits(format), dictionary, level], &plain);
            let mut reader = settings.build().unwrap();
            let mut bursts = &wire[..];
            for line in plain.split_inclusive(|&byte| byte == b'\n') {
                let burst = split(&mut bursts);
                let (read, verdict, _) = read_with(&mut reader, burst, Mode::Normal);
                assert_eq!(verdict.unwrap(), Verdict::NeedInput);
                assert!(read == line);
            }
            let (read, verdict, left) = read_with(&mut reader, split(&mut bursts), Mode::Finished);
            assert_eq!(verdict.unwrap(), Verdict::End);
            assert!(read.is_empty() && left.is_empty() && bursts.is_empty());
        }
    }
}

fn split<'a>(bursts: &mut &'a [u8]) -> &'a [u8] {
    let (length, rest) = bursts.split_at(4);
    let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
    let (burst, rest) = rest.split_at(length);
    *bursts = rest;
    burst
}
