//! F93: memory for segments is refused, at every allocation in turn.
//!
//! The allocator of this program refuses what is asked of it for segments: byte storage, and queues that
//! grow. Bookkeeping of a fixed size is let through, since Rust has no way to answer there, and it is
//! smaller than anything a queue asks for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{IoSlice, Write};
use std::sync::Arc;

use bufferevent_testkit::fault;
use bytes::Bytes;
use evbuffer::{Eol, Error, ErrorKind, EvBuffer, FileRegion, Pool};

/// The least that a queue of segments asks for, in bytes.
const LEAST_QUEUE: usize = 160;

thread_local! {
    /// How many allocations for segments still succeed; none: all do.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    static REFUSED: Cell<usize> = const { Cell::new(0) };
}

struct Refusing;

fn refuses(align: usize, size: usize) -> bool {
    if align != 1 && size < LEAST_QUEUE {
        return false;
    }
    match LEFT.get() {
        None => false,
        Some(0) => {
            REFUSED.set(REFUSED.get() + 1);
            true
        }
        Some(left) => {
            LEFT.set(Some(left - 1));
            false
        }
    }
}

// SAFETY: every call goes to the system's allocator as it is, or answers null, which says "no memory".
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match refuses(layout.align(), layout.size()) {
            true => std::ptr::null_mut(),
            // SAFETY: the caller's contract is the same.
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same; all memory came from `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match refuses(layout.align(), size) {
            true => std::ptr::null_mut(),
            // SAFETY: the caller's contract is the same; all memory came from `System`.
            false => unsafe { System.realloc(at, layout, size) },
        }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

type Case = (
    &'static str,
    fn(&mut EvBuffer, &mut EvBuffer) -> Result<(), Error>,
);

static LONG: [u8; 9000] = [b'l'; 9000];

const CASES: &[Case] = &[
    ("append_slice", |a, _| a.append_slice(&LONG)),
    ("append_slices", |a, _| {
        a.append_slices(&[IoSlice::new(&LONG), IoSlice::new(b"x")])
    }),
    ("append_bytes", |a, _| {
        a.append_bytes(Bytes::from_static(&LONG))
    }),
    ("prepend_slice", |a, _| a.prepend_slice(&LONG)),
    ("append", |a, b| a.append(b)),
    ("prepend", |a, b| a.prepend(b)),
    ("move_to, the front part copied", |a, b| {
        b.move_to(9004, a).map(|_| ())
    }),
    ("move_to, the back part copied", |a, b| {
        b.move_to(8999, a).map(|_| ())
    }),
    ("move_to, whole segments", |a, b| {
        b.move_to(9003, a).map(|_| ())
    }),
    ("add_reference_of", |a, b| a.add_reference_of(b)),
    ("reserve", |a, _| a.reserve(20_000)?.commit(20_000)),
    ("expand", |a, _| a.expand(20_000)),
    ("pull_up", |a, _| a.pull_up(a.len()).map(|_| ())),
    ("remove_bytes", |a, _| a.remove_bytes(a.len()).map(|_| ())),
    ("search", |a, _| a.search(b"not there").map(|_| ())),
    ("find_eol", |a, _| a.find_eol(Eol::Lf).map(|_| ())),
    ("read_line", |a, _| a.read_line(Eol::Nul, 1 << 20).map(drop)),
    ("read_line_into", |a, _| {
        a.read_line_into(Eol::Nul, 1 << 20, &mut Vec::new())
            .map(|_| ())
    }),
    ("read_line, into_vec", |a, _| {
        match a.read_line(Eol::Nul, 1 << 20)? {
            Some(line) => line.into_vec().map(drop),
            None => Ok(()),
        }
    }),
    ("append_fmt", |a, _| {
        a.append_fmt(format_args!("{:>9000}", 1))
    }),
];

/// Own, shared, file and block segments: every case has to ask for something.
fn filled(pool: &Pool, file: &Arc<std::fs::File>) -> EvBuffer {
    let mut buffer = EvBuffer::new();
    buffer.append_slice(&LONG).unwrap();
    buffer.append_bytes(Bytes::from_static(b"abc")).unwrap();
    buffer.append_block(pool.take().unwrap(), 5).unwrap();
    buffer
        .append_file(FileRegion::new(file.clone(), 0, 5).unwrap())
        .unwrap();
    buffer.append_bytes(Bytes::from_static(b"end\0")).unwrap();
    buffer
}

fn bytes_of(buffer: &EvBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out_from(0, &mut bytes).unwrap();
    bytes
}

/// Runs `body` with `left` allocations for segments; returns its answer and how many were refused.
fn with_memory_for<R>(left: usize, body: impl FnOnce() -> R) -> (R, usize) {
    REFUSED.set(0);
    LEFT.set(Some(left));
    let answer = body();
    LEFT.set(None);
    (answer, REFUSED.get())
}

#[test]
fn a_refused_allocation_changes_nothing_whichever_it_is() {
    fault!(F93);
    let pool = Pool::new(0);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"file!").unwrap();
    let file = Arc::new(file);
    for empty in [false, true] {
        for (name, case) in CASES {
            let mut failures = 0;
            for left in 0.. {
                let mut a = if empty {
                    EvBuffer::new()
                } else {
                    filled(&pool, &file)
                };
                let mut b = filled(&pool, &file);
                let before = (bytes_of(&a), bytes_of(&b));
                let (answer, refused) = with_memory_for(left, || case(&mut a, &mut b));
                if refused == 0 {
                    answer.unwrap();
                    break;
                }
                failures += 1;
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::OutOfMemory, "{name}");
                assert!(
                    (bytes_of(&a), bytes_of(&b)) == before,
                    "{name} changed something"
                );
                assert!(
                    !empty || a.memory() == 0,
                    "{name} left memory in an empty buffer"
                );
                case(&mut a, &mut b)
                    .unwrap_or_else(|error| panic!("{name} after memory came back: {error}"));
            }
            assert!(
                failures > 0 || empty,
                "{name} asks for no memory: it tests nothing"
            );
        }
    }
}

#[test]
fn a_pool_answers_too_and_a_block_goes_back_without_memory() {
    fault!(F93);
    let pool = Pool::new(8);
    let (answer, refused) = with_memory_for(0, || pool.take().map(|_| ()));
    assert_eq!(
        (answer.unwrap_err().kind(), refused),
        (ErrorKind::OutOfMemory, 1)
    );
    let blocks: Vec<_> = (0..8).map(|_| pool.take().unwrap()).collect();
    let ((), _) = with_memory_for(0, || drop(blocks));
    assert!(pool.idle() <= 8, "what has no place is freed");
    drop(pool.take().unwrap());
}

#[test]
fn reading_from_a_stream_without_memory_reads_nothing() {
    fault!(F93);
    let mut stream = &LONG[..];
    let mut buffer = EvBuffer::new();
    let (answer, _) = with_memory_for(0, || buffer.read_from(&mut stream, 9000));
    assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::OutOfMemory);
    assert_eq!(
        (stream.len(), buffer.len()),
        (9000, 0),
        "the stream keeps its bytes"
    );
    assert_eq!(buffer.read_from(&mut stream, 9000).unwrap(), 9000);
}

#[test]
fn compacting_without_memory_leaves_all_as_it_was() {
    fault!(F93);
    let pool = Pool::new(0);
    let mut buffer = EvBuffer::new();
    buffer.append_block(pool.take().unwrap(), 9).unwrap();
    let ((), refused) = with_memory_for(0, || buffer.compact());
    assert_eq!(
        (refused, buffer.len(), buffer.memory()),
        (1, 9, evbuffer::BLOCK_LEN)
    );
}
