//! What a filter costs: nothing while idle, one codec per direction once it is used, and no allocation for a message after that.
//!
//! Alone in its process, whose allocator counts.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bufferevent_core::Mode;
use bufferevent_filter::{Filter, Sink, Verdict};
use bufferevent_zlib::{Format, Zlib};
use common::*;
use evbuffer::EvBuffer;

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator with the same arguments; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `work` leaves allocated in bytes, and how often it asked.
fn cost(work: impl FnOnce()) -> (usize, usize) {
    let (bytes, calls) = (BYTES.load(Relaxed), CALLS.load(Relaxed));
    work();
    (
        BYTES.load(Relaxed).saturating_sub(bytes),
        CALLS.load(Relaxed) - calls,
    )
}

/// A message through one side, as it is when each takes its turn.
fn pass(filter: &mut Zlib, side: Side, source: &mut EvBuffer, out: &mut EvBuffer) {
    let mut sink = Sink::new(out, usize::MAX);
    let verdict = match side {
        Side::Input => filter.input(source, &mut sink, Mode::Normal),
        Side::Output => filter.output(source, &mut sink, Mode::Normal),
    };
    assert_eq!(verdict.unwrap(), Verdict::NeedInput);
}

/// One test: what another thread allocates would count too.
#[test]
fn idle_filters_own_nothing_and_busy_ones_allocate_no_more() {
    for format in FORMATS {
        let mut filter = None;
        let idle = cost(|| filter = Some(Zlib::builder().format(format).build().unwrap()));
        assert_eq!(idle, (0, 0), "{format:?}: an idle filter");
        let mut filter = filter.unwrap();
        let (mut plain, mut wire, mut back) = (EvBuffer::new(), EvBuffer::new(), EvBuffer::new());
        plain.append_slice(&text(100, 1)).unwrap();
        let (compressor, _) = cost(|| pass(&mut filter, Side::Output, &mut plain, &mut wire));
        let (decompressor, _) = cost(|| pass(&mut filter, Side::Input, &mut wire, &mut back));
        println!("{format:?}: compressing costs {compressor} bytes, decompressing {decompressor}");
        assert!(compressor <= 400 << 10 && decompressor <= 64 << 10);
        // Buffers and storage have settled after a few messages.
        for round in 0..100 {
            let message = text(100, round);
            back.clear();
            let (left, calls) = cost(|| {
                plain.append_slice(&message).unwrap();
                pass(&mut filter, Side::Output, &mut plain, &mut wire);
                pass(&mut filter, Side::Input, &mut wire, &mut back);
            });
            assert_eq!(bytes_of(&mut back), message);
            assert!(
                round < 3 || (left, calls) == (0, 0),
                "{format:?} {round}: {left} bytes, {calls} calls"
            );
        }
        // At the ends the codecs go.
        let before = BYTES.load(Relaxed);
        let mut source = EvBuffer::new();
        let end = filter.output(
            &mut source,
            &mut Sink::new(&mut wire, usize::MAX),
            Mode::Finished,
        );
        assert_eq!(end.unwrap(), Verdict::End);
        let end = filter.input(
            &mut wire,
            &mut Sink::new(&mut back, usize::MAX),
            Mode::Finished,
        );
        assert_eq!(end.unwrap(), Verdict::End);
        let freed = before - BYTES.load(Relaxed);
        assert!(
            freed + 1024 >= compressor + decompressor - 1024,
            "{format:?}: {freed}"
        );
    }
    let small = Zlib::builder()
        .output_window_bits(9)
        .input_window_bits(9)
        .level(1);
    let mut small = small.format(Format::Deflate).build().unwrap();
    let (mut plain, mut wire) = (EvBuffer::from(&text(100, 1)[..]), EvBuffer::new());
    let (compressor, _) = cost(|| pass(&mut small, Side::Output, &mut plain, &mut wire));
    println!("the smallest window: {compressor} bytes to compress");
}
