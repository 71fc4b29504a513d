//! F1 to F17: what a program can do wrong with a buffer, and what must not come of it.
//!
//! Where C has to find misuse at run time and Rust refuses to compile it, the documentation of the
//! function has an example that must not compile, and the test here shows what is left of the case.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bufferevent_testkit::fault;
use bytes::{BufMut, Bytes};
use evbuffer::{
    BLOCK_LEN, Delivery, End, Eol, Error, ErrorKind, EvBuffer, FileRegion, MAX_LEN, MAX_ROUNDS,
    Pool,
};

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.expect_err("the operation must be refused").kind()
}

fn shared(pieces: &[&'static str]) -> EvBuffer {
    pieces
        .iter()
        .map(|piece| Bytes::from_static(piece.as_bytes()))
        .collect()
}

fn file_with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(bytes).expect("it can be written");
    file
}

/// Memory that counts how often it is let go.
struct Owned(Arc<AtomicUsize>, Vec<u8>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Longer than any memory: a device has no length that could be too short.
#[cfg(unix)]
fn endless(len: usize) -> FileRegion {
    FileRegion::new(Arc::new(File::open("/dev/zero").unwrap()), 0, len).unwrap()
}

#[cfg(unix)]
#[test]
fn no_operation_makes_a_buffer_longer_than_the_greatest_length() {
    fault!(F1, F2);
    let mut full = EvBuffer::new();
    full.append_file(endless(MAX_LEN - 1)).unwrap();
    full.append_slice(b"x").unwrap();
    assert_eq!(full.len(), MAX_LEN);
    let mut other = shared(&["o"]);
    assert_eq!(kind(full.append_slice(b"x")), ErrorKind::TooLong);
    assert_eq!(
        kind(full.append_slices(&[std::io::IoSlice::new(b"x")])),
        ErrorKind::TooLong
    );
    assert_eq!(
        kind(full.append_bytes(Bytes::from_static(b"x"))),
        ErrorKind::TooLong
    );
    assert_eq!(
        kind(full.append_block(Pool::new(0).take().unwrap(), 1)),
        ErrorKind::TooLong
    );
    assert_eq!(kind(full.append_file(endless(MAX_LEN))), ErrorKind::TooLong);
    assert_eq!(kind(full.append(&mut other)), ErrorKind::TooLong);
    assert_eq!(kind(full.add_reference_of(&mut other)), ErrorKind::TooLong);
    assert_eq!(
        kind(full.append_fmt(format_args!("{}", 7))),
        ErrorKind::TooLong
    );
    assert_eq!(kind(full.prepend_slice(b"x")), ErrorKind::TooLong);
    assert_eq!(kind(full.prepend(&mut other)), ErrorKind::TooLong);
    assert_eq!(kind(other.move_to(1, &mut full)), ErrorKind::TooLong);
    assert_eq!(kind(full.reserve(1)), ErrorKind::TooLong);
    assert_eq!(kind(full.reserve(usize::MAX)), ErrorKind::TooLong);
    assert_eq!(kind(full.expand(1)), ErrorKind::TooLong);
    assert_eq!(full.remaining_mut(), 0);
    assert!(full.chunk_mut().len() == 0);
    assert!((&mut full as &mut dyn Write).write(b"x").is_err());
    assert_eq!(
        (full.len(), other.len()),
        (MAX_LEN, 1),
        "a refusal changes nothing"
    );
    // The other way round: bytes of a full buffer do not fit behind one byte.
    assert_eq!(kind(other.append(&mut full)), ErrorKind::TooLong);
    assert_eq!(full.drain(2), 2);
    full.append(&mut other).unwrap();
    assert_eq!(full.drain(usize::MAX), MAX_LEN - 1);
    assert_eq!(full.memory(), 0);
}

#[test]
fn lengths_that_wrap_are_refused() {
    fault!(F2);
    for mut buffer in [EvBuffer::new(), shared(&["abc"])] {
        let len = buffer.len();
        for n in [usize::MAX, usize::MAX - 1, MAX_LEN + 1, MAX_LEN - len + 1] {
            if len == 0 && n <= MAX_LEN {
                continue;
            }
            assert_eq!(kind(buffer.reserve(n)), ErrorKind::TooLong);
            assert_eq!(kind(buffer.expand(n)), ErrorKind::TooLong);
        }
        // Allowed by length, and more than there is.
        assert_eq!(kind(buffer.reserve(MAX_LEN - len)), ErrorKind::OutOfMemory);
        assert_eq!(kind(buffer.expand(MAX_LEN - len)), ErrorKind::OutOfMemory);
        assert_eq!(buffer.len(), len);
    }
}

#[test]
fn a_reservation_that_was_let_go_leaves_nothing_behind() {
    fault!(F3);
    let mut buffer = EvBuffer::new();
    for n in [10, 100, 5000, 70_000] {
        let mut room = buffer.reserve(n).unwrap();
        room.as_mut().fill(b'!');
        drop(room); // Only now can another operation come.
        buffer.append_slice(b"ab").unwrap();
        buffer.drain(1);
        let mut room = buffer.reserve(3).unwrap();
        room.as_mut().copy_from_slice(b"cde");
        room.commit(2).unwrap();
        assert_eq!(buffer, b"bcd"[..]);
        buffer.clear();
        assert_eq!(buffer.memory(), 0);
    }
}

#[test]
fn a_commit_is_never_more_than_was_reserved() {
    fault!(F4);
    for mut buffer in [
        EvBuffer::new(),
        EvBuffer::from(&b"abc"[..]),
        shared(&["a", "bc"]),
    ] {
        let before = buffer.len();
        assert_eq!(
            kind(buffer.reserve(4).unwrap().commit(5)),
            ErrorKind::BadRange
        );
        assert_eq!(
            kind(buffer.reserve(0).unwrap().commit(1)),
            ErrorKind::BadRange
        );
        assert_eq!(
            kind(buffer.reserve(4).unwrap().commit(usize::MAX)),
            ErrorKind::BadRange
        );
        buffer.reserve(4).unwrap().commit(0).unwrap();
        buffer.reserve(0).unwrap().commit(0).unwrap();
        assert_eq!(buffer.len(), before);
        // Counted and never written: old bytes or zeros, and never what was not initialised.
        buffer.reserve(4).unwrap().commit(4).unwrap();
        let mut all = vec![1; before + 4];
        assert_eq!(buffer.copy_out(&mut all), before + 4);
        assert_eq!(all[before..], [0; 4]);
    }
    // In room behind bytes that are there, too.
    let mut buffer = EvBuffer::new();
    buffer.append_slice(b"abc").unwrap();
    buffer.reserve(4).unwrap().commit(4).unwrap();
    assert_eq!(buffer, b"abc\0\0\0\0"[..]);
    // An unsafe contract that is broken panics here.
    let too_far = std::panic::catch_unwind(|| {
        let mut buffer = EvBuffer::new();
        let n = buffer.chunk_mut().len() + 1;
        // SAFETY: the contract is broken on purpose; this buffer documents that it checks it.
        unsafe { buffer.advance_mut(n) };
    });
    assert!(too_far.is_err());
}

#[test]
fn draining_more_than_there_is_drains_all_also_of_pinned_segments() {
    fault!(F5);
    let mut source = EvBuffer::new();
    source.append_slice(&[b's'; 5000]).unwrap();
    source
        .append_block(Pool::new(1).take().unwrap(), BLOCK_LEN)
        .unwrap();
    let len = source.len();
    let mut reference = EvBuffer::new();
    reference.add_reference_of(&mut source).unwrap();
    assert_eq!(source.drain(len + 1), len);
    assert_eq!(source.drain(usize::MAX), 0);
    assert_eq!(source.memory(), 0);
    assert_eq!(reference.len(), len, "the other's bytes stay");
    assert!(reference.chunk().iter().all(|&byte| byte == b's'));
    assert_eq!(reference.drain(5000), 5000);
    assert_eq!(reference.drain(usize::MAX), BLOCK_LEN);
    let mut trash = EvBuffer::new();
    assert_eq!(reference.drain_into(1, &mut trash), 0);
}

#[test]
fn pulling_up_none_all_and_too_many_across_ten_thousand_segments() {
    fault!(F6);
    let mut buffer: EvBuffer = (0..10_000_u32)
        .map(|i| Bytes::from(i.to_le_bytes().to_vec()))
        .collect();
    assert_eq!(buffer.segments().count(), 10_000);
    assert_eq!(buffer.pull_up(0).unwrap(), b"");
    assert_eq!(kind(buffer.pull_up(40_001)), ErrorKind::BadRange);
    assert_eq!(kind(buffer.pull_up(usize::MAX)), ErrorKind::BadRange);
    assert_eq!(buffer.segments().count(), 10_000, "a refusal moves nothing");
    assert_eq!(buffer.pull_up(6).unwrap(), [0, 0, 0, 0, 1, 0]);
    assert_eq!(
        buffer.segments().count(),
        10_000,
        "the second segment lost its first half"
    );
    let all = buffer.pull_up(buffer.len()).unwrap();
    assert!(
        all.chunks(4)
            .enumerate()
            .all(|(i, bytes)| bytes == (i as u32).to_le_bytes())
    );
    assert_eq!(buffer.segments().count(), 1);
    assert_eq!(EvBuffer::new().pull_up(0).unwrap(), b"");
    assert_eq!(kind(EvBuffer::new().pull_up(1)), ErrorKind::BadRange);
}

#[test]
fn prepending_nothing_then_removing_then_adding() {
    fault!(F7);
    for mut buffer in [EvBuffer::new(), EvBuffer::from(&b"x"[..]), shared(&["x"])] {
        let len = buffer.len();
        buffer.prepend_slice(b"").unwrap();
        let mut one = [0];
        assert_eq!(buffer.remove(&mut one), len);
        buffer.append_slice(b"abc").unwrap();
        assert_eq!(buffer, b"abc"[..]);
        buffer.prepend_slice(b"").unwrap();
        assert_eq!((buffer.remove(&mut one), one[0]), (1, b'a'));
        buffer.append_slice(b"d").unwrap();
        assert_eq!(buffer, b"bcd"[..]);
    }
}

#[test]
fn empty_references_are_no_segments_and_move_nowhere() {
    fault!(F8);
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut a = EvBuffer::new();
    a.append_bytes(Bytes::from_owner(Owned(dropped.clone(), Vec::new())))
        .unwrap();
    a.append_file(FileRegion::new(Arc::new(file_with(b"")), 0, 0).unwrap())
        .unwrap();
    a.append_block(Pool::new(1).take().unwrap(), 0).unwrap();
    assert_eq!(
        dropped.load(Ordering::SeqCst),
        1,
        "its owner is let go at once"
    );
    assert_eq!((a.len(), a.segments().count(), a.memory()), (0, 0, 0));
    let mut b = shared(&["b"]);
    b.append(&mut a).unwrap();
    b.prepend(&mut a).unwrap();
    assert_eq!(a.move_to(5, &mut b).unwrap(), 0);
    a.append(&mut b).unwrap();
    a.append_bytes(Bytes::new()).unwrap();
    assert_eq!((a.segments().count(), b.memory()), (1, 0));
    assert_eq!(a, b"b"[..]);
}

#[test]
fn a_buffer_cannot_be_moved_into_itself() {
    fault!(F9);
    // By name it does not compile: see `EvBuffer::append`. Through a lock, the second reference is refused.
    let buffer = Mutex::new(shared(&["abc"]));
    let mut dst = buffer.lock().unwrap();
    assert!(
        buffer.try_lock().is_err(),
        "there is no second reference to pass as the source"
    );
    // What can be written: the content taken out and put back.
    let mut content = EvBuffer::new();
    content.append(&mut dst).unwrap();
    dst.append(&mut content).unwrap();
    assert_eq!(*dst, b"abc"[..]);
}

#[test]
fn references_to_nothing_and_in_a_circle() {
    fault!(F10);
    let dropped = Arc::new(AtomicUsize::new(0));
    let (mut a, mut b) = (EvBuffer::new(), EvBuffer::new());
    a.add_reference_of(&mut b).unwrap();
    assert_eq!((a.len(), a.memory(), b.memory()), (0, 0, 0));
    a.append_bytes(Bytes::from_owner(Owned(dropped.clone(), b"own".to_vec())))
        .unwrap();
    b.add_reference_of(&mut a).unwrap();
    a.add_reference_of(&mut b).unwrap();
    b.add_reference_of(&mut a).unwrap();
    assert_eq!(a, b"ownown"[..]);
    assert_eq!(b, b"ownownown"[..]);
    assert_eq!(
        a.chunk().as_ptr(),
        b.chunk().as_ptr(),
        "all of them are the same three bytes"
    );
    drop(a);
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    b.drain(8);
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    b.drain(1);
    assert_eq!(
        dropped.load(Ordering::SeqCst),
        1,
        "let go once, with the last reference"
    );
}

#[test]
fn a_frozen_end_refuses_every_change_and_keeps_every_byte() {
    fault!(F11);
    let mut other = shared(&["other"]);
    let mut buffer = shared(&["line\n", "more"]);
    buffer.freeze(End::Back);
    assert!(buffer.is_frozen(End::Back) && !buffer.is_frozen(End::Front));
    assert_eq!(kind(buffer.append_slice(b"x")), ErrorKind::Frozen);
    assert_eq!(
        kind(buffer.append_slices(&[std::io::IoSlice::new(b"x")])),
        ErrorKind::Frozen
    );
    assert_eq!(
        kind(buffer.append_bytes(Bytes::from_static(b"x"))),
        ErrorKind::Frozen
    );
    assert_eq!(
        kind(buffer.append_block(Pool::new(0).take().unwrap(), 1)),
        ErrorKind::Frozen
    );
    let region = FileRegion::whole(Arc::new(file_with(b"file"))).unwrap();
    assert_eq!(kind(buffer.append_file(region)), ErrorKind::Frozen);
    assert_eq!(
        kind(buffer.append_fmt(format_args!("x"))),
        ErrorKind::Frozen
    );
    assert_eq!(kind(buffer.append(&mut other)), ErrorKind::Frozen);
    assert_eq!(kind(other.move_to(2, &mut buffer)), ErrorKind::Frozen);
    assert_eq!(kind(buffer.add_reference_of(&mut other)), ErrorKind::Frozen);
    assert_eq!(kind(buffer.reserve(1)), ErrorKind::Frozen);
    assert_eq!(buffer.remaining_mut(), 0);
    assert!(buffer.read_from(&mut &b"x"[..], 1).is_err());
    assert!(buffer.write(b"x").is_err());
    assert_eq!((buffer.len(), other.len()), (9, 5));

    buffer.unfreeze(End::Back);
    buffer.freeze(End::Front);
    let mut byte = [0];
    assert_eq!((buffer.drain(1), buffer.remove(&mut byte)), (0, 0));
    assert_eq!(kind(buffer.try_drain(1)), ErrorKind::Frozen);
    assert_eq!(kind(buffer.try_remove(&mut byte)), ErrorKind::Frozen);
    assert_eq!(buffer.drain_into(1, &mut EvBuffer::new()), 0);
    assert_eq!(kind(buffer.remove_bytes(1)), ErrorKind::Frozen);
    assert_eq!(kind(buffer.read_line(Eol::Lf, 9)), ErrorKind::Frozen);
    assert_eq!(kind(buffer.prepend_slice(b"x")), ErrorKind::Frozen);
    assert_eq!(kind(buffer.prepend(&mut other)), ErrorKind::Frozen);
    assert_eq!(kind(other.append(&mut buffer)), ErrorKind::Frozen);
    assert_eq!(kind(buffer.move_to(1, &mut other)), ErrorKind::Frozen);
    assert_eq!(bytes::Buf::remaining(&buffer), 0);
    assert!(buffer.read(&mut byte).is_err());
    assert!(std::io::BufRead::fill_buf(&mut buffer).is_err());
    assert!(buffer.write_to(&mut Vec::new(), 1).is_err());
    assert_eq!((buffer.len(), other.len()), (9, 5));

    buffer.unfreeze(End::Front);
    assert_eq!(buffer.drain(4), 4);
    assert_eq!(buffer, b"\nmore"[..]);
}

#[test]
fn what_is_referred_to_is_pinned_whatever_the_source_does() {
    fault!(F11);
    let mut source = EvBuffer::from(&b"pinned"[..]);
    let mut reference = EvBuffer::new();
    reference.add_reference_of(&mut source).unwrap();
    source.append_slice(b" and more").unwrap();
    source.prepend_slice(b"not ").unwrap();
    source.pull_up(source.len()).unwrap();
    source.reserve(3).unwrap().as_mut().fill(0);
    reference.append_slice(b"!").unwrap();
    assert_eq!(reference, b"pinned!"[..]);
    assert_eq!(source, b"not pinned and more"[..]);
}

#[test]
fn positions_past_the_end_and_from_before_a_drain() {
    fault!(F12);
    let mut buffer = shared(&["ab", "cab"]);
    assert_eq!(kind(buffer.position(6)), ErrorKind::BadRange);
    assert_eq!(kind(buffer.position(usize::MAX)), ErrorKind::BadRange);
    let end = buffer.position(5).unwrap();
    assert_eq!(
        (end.search(b"a").unwrap(), end.find_eol(Eol::Any).unwrap()),
        (None, None)
    );
    assert_eq!(kind(end.advance(1)), ErrorKind::BadRange);
    assert_eq!(kind(end.advance(usize::MAX)), ErrorKind::BadRange);
    assert_eq!(end.chunk(), b"");
    assert_eq!(kind(end.search_until(b"a", 4)), ErrorKind::BadRange);
    assert_eq!(kind(buffer.search_range(b"a", 0..6)), ErrorKind::BadRange);
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "the mistake that is to be refused"
    )]
    let reversed = 3..2;
    assert_eq!(
        kind(buffer.search_range(b"a", reversed)),
        ErrorKind::BadRange
    );
    // A position does not survive a drain (see `Position`); its offset does, and is checked anew.
    let kept = buffer.search(b"cab").unwrap().unwrap().offset();
    buffer.drain(4);
    assert_eq!(kind(buffer.position(kept)), ErrorKind::BadRange);
    assert_eq!(
        kind(buffer.copy_out_from(kept, &mut [0])),
        ErrorKind::BadRange
    );
}

/// Memory whose end locks the very buffer that it was in.
struct Reentering {
    buffer: Arc<Mutex<EvBuffer>>,
    bytes: &'static [u8],
}

impl AsRef<[u8]> for Reentering {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Reentering {
    fn drop(&mut self) {
        let mut buffer = self
            .buffer
            .try_lock()
            .expect("the lock was let go before this was dropped");
        let len = buffer.len();
        buffer
            .append_fmt(format_args!("<{len}>"))
            .expect("there is memory");
    }
}

#[test]
fn what_a_segment_owns_may_use_the_buffer_when_it_ends() {
    fault!(F13);
    let buffer = Arc::new(Mutex::new(EvBuffer::new()));
    for bytes in [&b"one"[..], b"two", b"three"] {
        let owner = Reentering {
            buffer: buffer.clone(),
            bytes,
        };
        buffer
            .lock()
            .unwrap()
            .append_bytes(Bytes::from_owner(owner))
            .unwrap();
    }
    let mut trash = EvBuffer::new();
    assert_eq!(buffer.lock().unwrap().drain_into(7, &mut trash), 7);
    assert_eq!(trash, b"onetwo"[..], "the third is not done with");
    drop(trash);
    assert_eq!(buffer.lock().unwrap().len(), 4 + "<4><7>".len());
    let mut trash = EvBuffer::new();
    buffer.lock().unwrap().drain_into(4, &mut trash);
    drop(trash);
    assert_eq!(*buffer.lock().unwrap(), b"<4><7><6>"[..]);
}

#[test]
fn an_owner_that_panics_when_it_ends_leaves_a_sound_buffer() {
    fault!(F13);
    struct Panics;
    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            b"panics"
        }
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("as an owner may");
        }
    }
    let mut buffer = shared(&["a"]);
    buffer.append_bytes(Bytes::from_owner(Panics)).unwrap();
    let mut pulled = shared(&["a"]);
    pulled.append_bytes(Bytes::from_owner(Panics)).unwrap();
    let pull_up = std::panic::AssertUnwindSafe(|| pulled.pull_up(7).map(<[u8]>::len));
    assert!(std::panic::catch_unwind(pull_up).is_err());
    assert_eq!(
        pulled,
        b"apanics"[..],
        "it was let go when its copy was in its place"
    );
    buffer.append_slice(b"rest").unwrap();
    let drained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buffer.drain(8)));
    assert!(drained.is_err());
    assert_eq!(
        buffer,
        b"rest"[..],
        "what was drained before the panic is gone, what was not is there"
    );
    buffer.append_slice(b"!").unwrap();
    assert_eq!(buffer.drain(9), 5);
}

#[test]
fn files_too_short_cut_off_or_beyond_all_offsets() {
    fault!(F14);
    let file = Arc::new(file_with(&[b'f'; 1000]));
    for (offset, len) in [
        (0, 1001),
        (1001, 0),
        (u64::MAX, 1),
        (u64::MAX, 0),
        (i64::MAX as u64, 1),
        (0, usize::MAX),
    ] {
        assert_eq!(
            kind(FileRegion::new(file.clone(), offset, len)),
            ErrorKind::BadRange,
            "{offset} + {len}"
        );
    }
    let mut buffer = shared(&["ab"]);
    buffer
        .append_file(FileRegion::new(file.clone(), 500, 500).unwrap())
        .unwrap();
    buffer.append_slice(b"\nend").unwrap();
    file.set_len(600).unwrap();
    let len = buffer.len();
    assert_eq!(kind(buffer.pull_up(len)), ErrorKind::Io);
    assert_eq!(kind(buffer.search(b"end")), ErrorKind::Io);
    assert_eq!(kind(buffer.find_eol(Eol::Lf)), ErrorKind::Io);
    assert_eq!(kind(buffer.read_line(Eol::Lf, 9999)), ErrorKind::Io);
    assert_eq!(kind(buffer.copy_out_from(0, &mut [0; 600])), ErrorKind::Io);
    assert_eq!(
        buffer.len(),
        len,
        "a file that cannot be read changes nothing"
    );
    let mut out = [0; 600];
    assert_eq!((buffer.remove(&mut out), &out[..2]), (2, &b"ab"[..]));
    assert_eq!((buffer.remove(&mut out), buffer.len()), (0, len - 2));
    assert_eq!(
        buffer.read(&mut out).unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    assert!(buffer.write_to(&mut Vec::new(), 10).is_err());
    // What is still in the file can be had, and the rest can be given up.
    assert_eq!(buffer.remove(&mut out[..100]), 100);
    assert_eq!(buffer.drain(400), 400);
    assert_eq!(buffer, b"\nend"[..]);
}

#[test]
fn a_callback_that_removes_itself_or_adds_more_is_bounded() {
    fault!(F15);
    let calls = Arc::new(AtomicUsize::new(0));
    let mut buffer = EvBuffer::new();
    // Each time it hears that something was added, it adds something: without a bound, for ever.
    let counted = calls.clone();
    let adding = buffer.add_callback(Delivery::AtOnce, move |buffer, change| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert!(change.added > 0);
        buffer.append_slice(b"+").expect("there is memory");
    });
    buffer.append_slice(b"first").unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), MAX_ROUNDS);
    assert_eq!(buffer.len(), 5 + MAX_ROUNDS);
    assert!(
        buffer.has_untold_changes(),
        "the last byte is told next time"
    );
    assert!(buffer.remove_callback(adding) && !buffer.remove_callback(adding));
    // One that removes itself hears once; its captures go with it.
    let alive = Arc::new(());
    let (mine, own_id) = (alive.clone(), Arc::new(Mutex::new(None)));
    let id = own_id.clone();
    let calls_of_self = calls.clone();
    calls.store(0, Ordering::SeqCst);
    *own_id.lock().unwrap() = Some(buffer.add_callback(Delivery::AtOnce, move |buffer, _| {
        let _captured = &mine;
        calls_of_self.fetch_add(1, Ordering::SeqCst);
        assert!(buffer.remove_callback(id.lock().unwrap().expect("it was stored")));
        buffer.drain(1);
    }));
    buffer.drain(1);
    buffer.drain(1);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&alive), 1);
    buffer.clear();
    assert_eq!(
        buffer.memory(),
        0,
        "a buffer without callbacks is a plain one again"
    );
}

#[test]
fn a_callback_that_panics_stays_and_the_buffer_is_sound() {
    fault!(F15);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let mut buffer = EvBuffer::new();
    buffer.add_callback(Delivery::AtOnce, move |_, _| {
        assert_ne!(
            counted.fetch_add(1, Ordering::SeqCst),
            0,
            "as a callback may"
        );
    });
    let append = std::panic::AssertUnwindSafe(|| buffer.append_slice(b"a"));
    assert!(std::panic::catch_unwind(append).is_err());
    buffer.append_slice(b"b").unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2, "it was put back");
    assert_eq!(buffer, b"ab"[..]);
}

#[test]
fn a_callback_that_exchanges_the_buffer_it_is_lent_harms_nobody() {
    fault!(F15);
    let mut buffer = EvBuffer::new();
    buffer.add_callback(Delivery::AtOnce, |buffer, _| {
        *buffer = EvBuffer::from(&b"another"[..]);
    });
    buffer.append_slice(b"one").unwrap();
    assert_eq!(buffer, b"another"[..]);
    buffer.append_slice(b"!").unwrap();
    assert_eq!(buffer, b"another!"[..]);
    // Exchanged for one that lives elsewhere: the other callbacks go along and hear there.
    let elsewhere = Arc::new(Mutex::new(EvBuffer::new()));
    let added = Arc::new(AtomicUsize::new(0));
    let (inside, sum) = (elsewhere.clone(), added.clone());
    buffer.add_callback(Delivery::AtOnce, move |_, change| {
        sum.fetch_add(change.added, Ordering::SeqCst);
    });
    buffer.add_callback(Delivery::AtOnce, move |buffer, _| {
        std::mem::swap(buffer, &mut inside.lock().unwrap());
    });
    buffer.append_slice(b"?").unwrap();
    let mut moved = std::mem::take(&mut *elsewhere.lock().unwrap());
    assert_eq!(
        (buffer.len(), moved.len(), added.load(Ordering::SeqCst)),
        (0, 9, 0)
    );
    moved.append_slice(b"...").unwrap();
    assert_eq!(
        added.load(Ordering::SeqCst),
        4,
        "what it had not heard, and the new bytes"
    );
}

#[test]
fn a_buffer_outlives_all_that_its_bytes_came_from() {
    fault!(F16);
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut heir = EvBuffer::new();
    {
        let pool = Pool::new(2);
        let mut block = pool.take().unwrap();
        block[..5].copy_from_slice(b"block");
        let mut source = EvBuffer::from(&b"own"[..]);
        source.append_block(block, 5).unwrap();
        source
            .append_bytes(Bytes::from_owner(Owned(dropped.clone(), b"owner".to_vec())))
            .unwrap();
        let region = FileRegion::whole(Arc::new(file_with(b"file"))).unwrap();
        source.append_file(region).unwrap();
        source.add_callback(Delivery::AtOnce, |_, _| panic!("its buffer is gone"));
        heir.add_reference_of(&mut source).unwrap();
    } // The source, its callback, the pool and the only other handle of the file.
    let mut bytes = [0; 17];
    assert_eq!(heir.copy_out(&mut bytes), 17);
    assert_eq!(&bytes, b"ownblockownerfile");
    std::thread::spawn(move || drop(heir)).join().unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn zeros_are_bytes_in_formats_and_lines() {
    fault!(F17);
    let mut buffer = EvBuffer::new();
    buffer
        .append_fmt(format_args!("a{}b\n{}", '\0', "c\0"))
        .unwrap();
    assert_eq!(*buffer.read_line(Eol::Lf, 10).unwrap().unwrap(), *b"a\0b");
    assert_eq!(*buffer.read_line(Eol::Nul, 10).unwrap().unwrap(), *b"c");
    assert!(buffer.is_empty());
}

#[test]
fn a_line_that_never_ends_is_refused_at_its_limit() {
    fault!(F17);
    let piece = Bytes::from(vec![b'l'; 1 << 20]);
    let mut buffer: EvBuffer = std::iter::repeat_n(piece, 64).collect();
    let limit = 64 << 20;
    for eol in [Eol::Any, Eol::Crlf, Eol::CrlfStrict, Eol::Lf, Eol::Nul] {
        assert!(
            buffer.read_line(eol, limit).unwrap().is_none(),
            "it may still end"
        );
        assert_eq!(
            kind(buffer.read_line(eol, limit - 1)),
            ErrorKind::LineTooLong
        );
        assert_eq!(kind(buffer.read_line(eol, 0)), ErrorKind::LineTooLong);
    }
    assert_eq!(buffer.len(), limit, "nothing is lost");
    buffer.append_slice(b"\r\n").unwrap();
    assert_eq!(
        buffer.read_line(Eol::Crlf, limit).unwrap().unwrap().len(),
        limit
    );
    assert!(buffer.is_empty());
    // An end of a line that is there does not make a long line shorter.
    let mut buffer = EvBuffer::from(&b"12345\n"[..]);
    assert_eq!(kind(buffer.read_line(Eol::Lf, 4)), ErrorKind::LineTooLong);
    assert_eq!(*buffer.read_line(Eol::Lf, 5).unwrap().unwrap(), *b"12345");
}

/// The search for an end stops at the limit: else this one would read for centuries.
#[cfg(unix)]
#[test]
fn the_search_for_an_end_is_bounded_by_the_limit() {
    fault!(F17);
    let mut buffer = EvBuffer::new();
    buffer.append_file(endless(MAX_LEN)).unwrap();
    for eol in [Eol::Any, Eol::Crlf, Eol::CrlfStrict, Eol::Lf] {
        assert_eq!(kind(buffer.read_line(eol, 100_000)), ErrorKind::LineTooLong);
    }
    assert_eq!(buffer.len(), MAX_LEN);
}
