//! In-memory operations, as a plain program: one JSON object with the operation's name and its figure.
//!
//! Arguments are names of groups (`add`, `move`, `lines`, …) to run; all without.
//!
//! # Units
//! Nanoseconds for one operation; GiB/s for `search_*` and `pullup_*`. CPU time of the thread (on Windows,
//! wall time), the best of several rounds: what a quiet machine takes, on one that is not. The names and the amounts are those of the
//! C program for libevent that the comparison pairs this with; where libevent returns a copy of
//! each line, `readln_*` looks at it where it lies, `readln_*_vec` copies it as libevent does, and `readln_*_into` copies
//! it into one vector.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evbuffer::{Eol, EvBuffer, Pool};

const ROUNDS: usize = 5;
const GIB: f64 = (1_u64 << 30) as f64;
const TEXT_LEN: usize = 64 << 20;
const NEVER_TOO_LONG: usize = 1 << 20;

static BLK: [u8; 1 << 20] = [b'x'; 1 << 20];

fn main() {
    let groups: &[(&str, Group)] = &[
        ("add", add),
        ("move", moves),
        ("lines", lines),
        ("search", search),
        ("pullup", pull_up),
        ("ref", reference),
        #[cfg(unix)]
        ("io", socket),
    ];
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let mut figures = Figures(Vec::new());
    for (name, group) in groups {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            group(&mut figures);
        }
    }
    println!("{}", figures.json());
}

/// Measures some operations.
type Group = fn(&mut Figures);

struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    fn nanoseconds(&mut self, name: &'static str, n: usize, round: impl FnMut() -> f64) {
        self.0.push((name, best(round) * 1e9 / n as f64));
    }

    fn gib_per_s(&mut self, name: &'static str, bytes: usize, round: impl FnMut() -> f64) {
        self.0.push((name, bytes as f64 / best(round) / GIB));
    }

    fn json(&self) -> String {
        let mut json = String::from("{");
        for (i, (name, figure)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(json, "{comma}\"{name}\": {figure:.3}").expect("a string takes all");
        }
        json + "}"
    }
}

/// The least of several rounds, in seconds. A round says itself what it took, without its preparation.
fn best(mut round: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn timed<R>(body: impl FnOnce() -> R) -> f64 {
    let start = now();
    black_box(body());
    (now() - start).as_secs_f64()
}

#[cfg(unix)]
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is never negative")
}

#[cfg(windows)]
fn now() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

fn add(figures: &mut Figures) {
    let n = 4_000_000;
    figures.nanoseconds("add64_steady", n, || {
        let mut buffer = EvBuffer::new();
        timed(|| {
            for i in 0..n {
                buffer
                    .append_slice(black_box(&BLK[..64]))
                    .expect("there is memory");
                if i & 63 == 63 {
                    buffer.drain(4096);
                }
            }
        })
    });
    let n = 1_000_000;
    figures.nanoseconds("add64_grow64M", n, || {
        let mut buffer = EvBuffer::new();
        timed(|| {
            for _ in 0..n {
                buffer
                    .append_slice(black_box(&BLK[..64]))
                    .expect("there is memory");
            }
            buffer.drain(n * 64);
        })
    });
    figures.nanoseconds("drain64_of64M", n, || {
        let mut buffer = EvBuffer::new();
        for _ in 0..n {
            buffer.append_slice(&BLK[..64]).expect("there is memory");
        }
        timed(|| {
            while !buffer.is_empty() {
                buffer.drain(black_box(64));
            }
        })
    });
    let n = 4_000_000;
    figures.nanoseconds("add64_remove64", n, || {
        let mut buffer = EvBuffer::new();
        let mut out = [0; 64];
        timed(|| {
            for _ in 0..n {
                buffer
                    .append_slice(black_box(&BLK[..64]))
                    .expect("there is memory");
                buffer.remove(black_box(&mut out));
            }
        })
    });
}

fn moves(figures: &mut Figures) {
    let n = 5_000_000;
    figures.nanoseconds("add_buffer_move4K", 2 * n, || {
        let (mut a, mut b) = (EvBuffer::new(), EvBuffer::new());
        a.append_slice(&BLK[..4000]).expect("there is memory");
        timed(|| {
            for _ in 0..n {
                black_box(&mut b)
                    .append(black_box(&mut a))
                    .expect("nothing is frozen");
                black_box(&mut a)
                    .append(black_box(&mut b))
                    .expect("nothing is frozen");
            }
        })
    });
    let n = 3_000_000;
    figures.nanoseconds("echo_add64_move_drain", n, || {
        let (mut a, mut b) = (EvBuffer::new(), EvBuffer::new());
        timed(|| {
            for _ in 0..n {
                a.append_slice(black_box(&BLK[..64]))
                    .expect("there is memory");
                black_box(&mut b)
                    .append(black_box(&mut a))
                    .expect("nothing is frozen");
                b.drain(64);
            }
        })
    });
    // What the C program has no equal to: a pooled block in, moved, and out.
    figures.nanoseconds("block_move_drain", n, || {
        let (mut a, mut b) = (EvBuffer::new(), EvBuffer::new());
        let pool = Pool::default();
        timed(|| {
            for _ in 0..n {
                a.append_block(pool.take().expect("there is memory"), 64)
                    .expect("it is long enough");
                black_box(&mut b)
                    .append(black_box(&mut a))
                    .expect("nothing is frozen");
                b.drain(64);
            }
        })
    });
}

fn lines(figures: &mut Figures) {
    for (eol, in_place, owned, reused) in [
        (Eol::Lf, "readln_lf", "readln_lf_vec", "readln_lf_into"),
        (
            Eol::Crlf,
            "readln_crlf",
            "readln_crlf_vec",
            "readln_crlf_into",
        ),
    ] {
        let mut data = text(TEXT_LEN);
        for i in (79..data.len()).step_by(80) {
            data[i] = b'\n';
            if eol == Eol::Crlf {
                data[i - 1] = b'\r';
            }
        }
        let mut figure = |name, mut read: Box<dyn FnMut(&mut EvBuffer) -> usize>| {
            let count = data.len() / 80;
            figures.nanoseconds(name, count, || {
                let mut buffer = filled(&data);
                timed(|| assert_eq!(read(&mut buffer), count))
            });
        };
        figure(
            in_place,
            Box::new(move |buffer| {
                let mut lines = 0;
                while let Ok(Some(line)) = buffer.read_line(eol, NEVER_TOO_LONG) {
                    black_box(&line[..]);
                    lines += 1;
                }
                lines
            }),
        );
        figure(
            owned,
            Box::new(move |buffer| {
                let mut lines = 0;
                while let Ok(Some(line)) = buffer.read_line(eol, NEVER_TOO_LONG) {
                    black_box(line.into_vec().expect("there is memory"));
                    lines += 1;
                }
                lines
            }),
        );
        let mut line = Vec::new();
        figure(
            reused,
            Box::new(move |buffer| {
                let mut lines = 0;
                while let Ok(Some(_)) = buffer.read_line_into(eol, NEVER_TOO_LONG, &mut line) {
                    black_box(&line[..]);
                    line.clear();
                    lines += 1;
                }
                lines
            }),
        );
    }
}

fn search(figures: &mut Figures) {
    let mut data = text(TEXT_LEN);
    let (common, rare) = (b"event zq-needle!", b"QZneedle-needle!");
    let n = data.len();
    data[n - 64..n - 48].copy_from_slice(common);
    data[n - 32..n - 16].copy_from_slice(rare);
    let buffer = filled(&data);
    for (name, needle, place) in [
        ("search_commonfirst", common, n - 64),
        ("search_rarefirst", rare, n - 32),
    ] {
        figures.gib_per_s(name, n, || {
            timed(|| {
                let found = buffer
                    .search(black_box(needle))
                    .expect("no file is in the buffer");
                assert_eq!(found.expect("it is there").offset(), place);
            })
        });
    }
}

fn pull_up(figures: &mut Figures) {
    const PIECE: usize = 4048;
    let rounds = 200;
    figures.gib_per_s("pullup_1M_from_4K", rounds * 256 * PIECE, || {
        let mut total = 0.0;
        for _ in 0..rounds {
            let mut buffer = EvBuffer::new();
            for _ in 0..256 {
                let mut piece = EvBuffer::new();
                piece.append_slice(&BLK[..PIECE]).expect("there is memory");
                buffer.append(&mut piece).expect("nothing is frozen");
            }
            total += timed(|| {
                let n = buffer.len();
                assert_eq!(buffer.pull_up(n).expect("there is memory").len(), n);
            });
        }
        total
    });
}

/// Memory of somebody else that counts how often it is let go.
struct Counted(Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &BLK[..65536]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn reference(figures: &mut Figures) {
    let n = 3_000_000;
    figures.nanoseconds("add_reference_drain", n, || {
        let mut buffer = EvBuffer::new();
        timed(|| {
            for _ in 0..n {
                buffer
                    .append_bytes(Bytes::from_static(black_box(&BLK[..65536])))
                    .expect("it fits");
                buffer.drain(65536);
            }
        })
    });
    figures.nanoseconds("add_owner_drain", n, || {
        let mut buffer = EvBuffer::new();
        let dropped = Arc::new(AtomicUsize::new(0));
        let seconds = timed(|| {
            for _ in 0..n {
                buffer
                    .append_bytes(Bytes::from_owner(Counted(dropped.clone())))
                    .expect("it fits");
                buffer.drain(65536);
            }
        });
        assert_eq!(dropped.load(Ordering::Relaxed), n);
        seconds
    });
}

#[cfg(unix)]
fn socket(figures: &mut Figures) {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let n = 100_000;
    let (mut near, mut far) = UnixStream::pair().expect("there are descriptors");
    figures.nanoseconds("unix_write_evbuffer_read4K", n, || {
        let mut buffer = EvBuffer::new();
        timed(|| {
            for _ in 0..n {
                near.write_all(&BLK[..4096]).expect("it is connected");
                assert_eq!(
                    buffer.read_from(&mut far, 4096).expect("it is connected"),
                    4096
                );
                buffer.clear();
            }
        })
    });
    figures.nanoseconds("unix_write_rawread4K", n, || {
        let mut block = [0; 4096];
        timed(|| {
            for _ in 0..n {
                near.write_all(&BLK[..4096]).expect("it is connected");
                assert_eq!(far.read(&mut block).expect("it is connected"), 4096);
            }
        })
    });
}

/// English-like word soup, the same every time and in both programs.
fn text(len: usize) -> Vec<u8> {
    const WORDS: [&str; 30] = [
        "the",
        "event",
        "buffer",
        "of",
        "and",
        "connection",
        "reads",
        "when",
        "data",
        "arrives",
        "to",
        "a",
        "server",
        "writes",
        "then",
        "with",
        "error",
        "timeout",
        "filter",
        "chain",
        "that",
        "is",
        "in",
        "for",
        "on",
        "network",
        "socket",
        "loop",
        "callback",
        "line",
    ];
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut text = Vec::with_capacity(len + 32);
    while text.len() < len {
        text.extend_from_slice(WORDS[(random() % 30) as usize].as_bytes());
        text.push(if random() % 12 == 0 { b',' } else { b' ' });
    }
    text.truncate(len);
    text
}

/// As a socket would bring it: 16 KiB at a time.
fn filled(data: &[u8]) -> EvBuffer {
    let mut buffer = EvBuffer::new();
    for piece in data.chunks(16 * 1024) {
        buffer.append_slice(piece).expect("there is memory");
    }
    buffer
}
