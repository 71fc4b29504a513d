//! B1 to B6: what an evbuffer is and does, row by row.

use std::fs::File;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bufferevent_testkit::spec;
use bytes::{Buf, BufMut, Bytes};
use evbuffer::{BLOCK_LEN, Delivery, End, Eol, ErrorKind, EvBuffer, FileRegion, MAX_LEN, Pool};

fn file_with(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(bytes).expect("it can be written");
    Arc::new(file)
}

fn shared(pieces: &[&'static str]) -> EvBuffer {
    pieces
        .iter()
        .map(|piece| Bytes::from_static(piece.as_bytes()))
        .collect()
}

#[test]
fn a_queue_of_segments() {
    spec!(B1);
    let mut buffer = EvBuffer::new();
    buffer.append_bytes(Bytes::from_static(b"cd")).unwrap();
    buffer.append_slice(b"ef").unwrap();
    buffer
        .append_slices(&[IoSlice::new(b"g"), IoSlice::new(b"h")])
        .unwrap();
    buffer.prepend_slice(b"b").unwrap();
    let before = buffer.chunk().as_ptr();
    buffer.prepend_slice(b"a").unwrap();
    assert_eq!(
        before.wrapping_sub(1),
        buffer.chunk().as_ptr(),
        "there was room before it"
    );
    assert_eq!((buffer.len(), buffer.chunk()), (8, &b"ab"[..]));
    // Peek, the whole and in part.
    assert_eq!(
        buffer.segments().collect::<Vec<_>>(),
        [&b"ab"[..], b"cd", b"efgh"]
    );
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(buffer.io_slices(&mut slices), 3);
    assert_eq!(&*slices[2], b"efgh");
    assert_eq!(buffer.io_slices(&mut slices[..2]), 2);
    assert_eq!(buffer.position(3).unwrap().io_slices(&mut slices), 2);
    assert_eq!((&*slices[0], &*slices[1]), (&b"d"[..], &b"efgh"[..]));
    // Copy out leaves, remove and drain take.
    let mut out = [0; 5];
    assert_eq!((buffer.copy_out(&mut out), &out), (5, b"abcde"));
    assert_eq!(
        (buffer.copy_out_from(5, &mut out).unwrap(), &out[..3]),
        (3, &b"fgh"[..])
    );
    assert_eq!(buffer.copy_out_from(8, &mut out).unwrap(), 0);
    assert_eq!(
        (buffer.remove(&mut out[..3]), &out[..3], buffer.len()),
        (3, &b"abc"[..], 5)
    );
    assert_eq!(buffer.pull_up(3).unwrap(), b"def");
    assert_eq!(buffer.len(), 5);
    assert_eq!((buffer.drain(2), buffer.drain(9), buffer.len()), (2, 3, 0));
    // Reserve and commit; expand.
    let mut room = buffer.reserve(1000).unwrap();
    assert_eq!(room.as_mut().len(), 1000);
    room.as_mut()[..2].copy_from_slice(b"xy");
    room.commit(2).unwrap();
    assert_eq!(buffer, b"xy"[..]);
    buffer.expand(50_000).unwrap();
    let held = buffer.memory();
    assert!(held >= 50_000);
    for _ in 0..50 {
        buffer.append_slice(&[b'z'; 1000]).unwrap();
    }
    assert_eq!(
        buffer.memory(),
        held,
        "the room that was asked for was enough"
    );
    // Sizes that overflow.
    let len = buffer.len();
    assert_eq!(
        buffer.reserve(usize::MAX).unwrap_err().kind(),
        ErrorKind::TooLong
    );
    assert_eq!(
        buffer.expand(MAX_LEN - len + 1).unwrap_err().kind(),
        ErrorKind::TooLong
    );
    assert_eq!(
        buffer.pull_up(len + 1).unwrap_err().kind(),
        ErrorKind::BadRange
    );
    assert_eq!(
        buffer.copy_out_from(len + 1, &mut out).unwrap_err().kind(),
        ErrorKind::BadRange
    );
    assert_eq!(buffer.len(), len);
}

#[test]
fn moves_and_references_copy_nothing() {
    spec!(B2);
    let pool = Pool::new(1);
    let mut block = pool.take().unwrap();
    block[..9000].fill(b'b');
    let at = block.as_ptr();
    let mut a = EvBuffer::new();
    a.append_bytes(Bytes::from_static(b"shared")).unwrap();
    a.append_block(block, 9000).unwrap();
    let addresses = |buffer: &EvBuffer| buffer.segments().map(<[u8]>::as_ptr).collect::<Vec<_>>();
    let before = addresses(&a);
    assert_eq!(before[1], at);
    // Add all, behind others; prepend all.
    let mut b = shared(&["first"]);
    b.append(&mut a).unwrap();
    assert_eq!(
        (a.len(), b.len(), &addresses(&b)[1..]),
        (0, 9011, &before[..])
    );
    b.drain(5);
    let mut c = shared(&["last"]);
    c.prepend(&mut b).unwrap();
    assert_eq!((b.len(), &addresses(&c)[..2]), (0, &before[..]));
    assert_eq!(c.segments().last(), Some(&b"last"[..]));
    // Remove N, through the middle of a block: both halves are where they were.
    let mut d = EvBuffer::new();
    assert_eq!(c.move_to(6 + 4000, &mut d).unwrap(), 4006);
    assert_eq!(addresses(&d), before);
    assert_eq!(addresses(&c)[0], at.wrapping_add(4000));
    assert_eq!((d.len(), c.len()), (4006, 5004));
    // References to a buffer: one storage for three.
    let (mut e, mut f) = (EvBuffer::new(), EvBuffer::new());
    e.add_reference_of(&mut d).unwrap();
    f.add_reference_of(&mut d).unwrap();
    assert_eq!(
        (addresses(&e), addresses(&f)),
        (before.clone(), before.clone())
    );
    d.drain(4006);
    assert_eq!((d.len(), e.len(), f.len()), (0, 4006, 4006));
    // Of a buffer with own bytes too.
    let mut own = EvBuffer::from(vec![b'o'; 100]);
    let own_at = own.chunk().as_ptr();
    e.add_reference_of(&mut own).unwrap();
    assert_eq!(e.segments().last().map(<[u8]>::as_ptr), Some(own_at));
    assert_eq!((own.len(), own.chunk().as_ptr()), (100, own_at));
    // Nobody can pass a buffer as its own source: see the example of `append` that must not compile.
    let lock = Mutex::new(own);
    let one = lock.lock().unwrap();
    assert!(lock.try_lock().is_err() && one.len() == 100);
    // The block goes home with the last of them.
    drop((c, e));
    assert_eq!(pool.idle(), 0);
    drop(f);
    assert_eq!(pool.idle(), 1);
}

#[test]
fn a_file_region_is_sent_or_read_but_not_copied_until_then() {
    spec!(B2);
    let content: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    let file = file_with(&content);
    let mut buffer = EvBuffer::new();
    buffer
        .append_file(FileRegion::new(file.clone(), 1000, 150_000).unwrap())
        .unwrap();
    buffer.append_slice(b"tail").unwrap();
    assert_eq!(buffer.len(), 150_004);
    assert!(buffer.memory() < 10_000, "nothing was read");
    // For who can send it.
    let region = buffer.front_file().unwrap();
    assert!(Arc::ptr_eq(region.file(), &file));
    assert_eq!((region.offset(), region.len()), (1000, 150_000));
    assert_eq!(
        (
            buffer.chunk(),
            buffer.io_slices(&mut [IoSlice::new(&[]); 4])
        ),
        (&b""[..], 0)
    );
    assert_eq!(buffer.drain(500), 500, "what was sent");
    let region = buffer.front_file().unwrap();
    assert_eq!((region.offset(), region.len()), (1500, 149_500));
    // Moved in part without reading; two buffers may look at the same range.
    let mut part = EvBuffer::new();
    buffer.move_to(500, &mut part).unwrap();
    part.add_reference_of(&mut buffer).unwrap();
    assert!(part.memory() < 10_000);
    // Read where someone needs bytes, a block at a time.
    assert_eq!(part.fill_buf().unwrap(), &content[1500..2000]);
    part.consume(500);
    assert_eq!(part.fill_buf().unwrap().len(), BLOCK_LEN);
    let mut all = Vec::new();
    part.read_to_end(&mut all).unwrap();
    assert!(all[..149_000] == content[2000..151_000] && all.ends_with(b"tail"));
    assert_eq!(buffer.search(b"tail").unwrap().unwrap().offset(), 149_000);
    assert_eq!(
        buffer.front_file().unwrap().len(),
        149_000,
        "a search leaves the region as it is"
    );
    assert_eq!(buffer.pull_up(3).unwrap(), &content[2000..2003]);
}

#[test]
fn searching_with_positions_and_finding_ends_of_lines() {
    spec!(B3);
    let buffer = shared(&[
        "GET /a",
        " HTTP",
        "/1.1\r",
        "\nHost",
        ": x\n",
        "\r\n\n\0end",
    ]);
    let slash = buffer.search(b"/").unwrap().unwrap();
    assert_eq!(slash.offset(), 4);
    let next = slash.advance(1).unwrap().search(b"/").unwrap().unwrap();
    assert_eq!((next.offset(), next.chunk()), (11, &b"/1.1\r"[..]));
    assert_eq!(
        buffer.search(b"P/1.1\r\nH").unwrap().unwrap().offset(),
        10,
        "across three segments"
    );
    assert_eq!(buffer.search(b"").unwrap().unwrap().offset(), 0);
    assert_eq!(buffer.search(b"nowhere").unwrap(), None);
    assert_eq!(
        buffer
            .search_range(b"HTTP", 0..11)
            .unwrap()
            .unwrap()
            .offset(),
        7
    );
    assert_eq!(
        buffer.search_range(b"HTTP", 0..10).unwrap(),
        None,
        "the match must end in the range"
    );
    assert_eq!(buffer.search_range(b"HTTP", 8..20).unwrap(), None);
    assert_eq!(
        buffer.position(7).unwrap(),
        buffer.search(b"HTTP").unwrap().unwrap()
    );
    let ends = |eol, from| {
        let found = buffer.position(from).unwrap().find_eol(eol).unwrap();
        found.map(|end| (end.position.offset(), end.len))
    };
    assert_eq!(ends(Eol::Any, 0), Some((15, 2)));
    assert_eq!(ends(Eol::Any, 17), Some((24, 4)), "a run is one end");
    assert_eq!(ends(Eol::Crlf, 0), Some((15, 2)));
    assert_eq!(
        ends(Eol::Crlf, 16),
        Some((16, 1)),
        "what lies before the start does not count"
    );
    assert_eq!(ends(Eol::Crlf, 17), Some((24, 1)));
    assert_eq!(ends(Eol::CrlfStrict, 17), Some((25, 2)));
    assert_eq!(ends(Eol::Lf, 0), Some((16, 1)));
    assert_eq!(ends(Eol::Nul, 0), Some((28, 1)));
    assert_eq!(ends(Eol::Nul, 29), None);
}

#[test]
fn lines_of_every_style_with_a_greatest_length() {
    spec!(B3);
    let text = "one\r\ntwo\nthree\r\n\r\nfour\r";
    let lines = |eol| {
        let mut buffer: EvBuffer = text
            .as_bytes()
            .chunks(2)
            .map(Bytes::copy_from_slice)
            .collect();
        let mut lines = Vec::new();
        while let Some(line) = buffer.read_line(eol, 30).unwrap() {
            lines.push(String::from_utf8(line.into_vec().unwrap()).unwrap());
        }
        (lines, buffer.len())
    };
    let of = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(lines(Eol::Crlf), (of(&["one", "two", "three", ""]), 5));
    assert_eq!(lines(Eol::Lf), (of(&["one\r", "two", "three\r", "\r"]), 5));
    assert_eq!(lines(Eol::CrlfStrict), (of(&["one", "two\nthree", ""]), 5));
    assert_eq!(lines(Eol::Any), (of(&["one", "two", "three", "four"]), 0));
    assert_eq!(lines(Eol::Nul).0, of(&[]));
    // The greatest length: a line of it passes, one more byte does not, whether its end is there or not.
    for eol in [Eol::Any, Eol::Crlf, Eol::CrlfStrict, Eol::Lf] {
        for end in ["", "\r\n"] {
            let mut buffer = shared(&["123", "45"]);
            buffer.append_slice(end.as_bytes()).unwrap();
            let len = 5 + usize::from(eol == Eol::Lf && !end.is_empty());
            assert_eq!(
                buffer.read_line(eol, len - 1).unwrap_err().kind(),
                ErrorKind::LineTooLong
            );
            assert_eq!(buffer.len(), 5 + end.len(), "a line too long stays");
            let line = buffer.read_line(eol, len).unwrap();
            assert_eq!(
                line.map(|line| line.len()),
                (!end.is_empty()).then_some(len)
            );
        }
    }
    // A line of the greatest length whose end has only begun is not too long yet.
    let mut buffer = shared(&["12345\r"]);
    assert!(buffer.read_line(Eol::Crlf, 5).unwrap().is_none());
    buffer.append_slice(b"\n").unwrap();
    assert_eq!(*buffer.read_line(Eol::Crlf, 5).unwrap().unwrap(), *b"12345");
    // Into memory that is there already, behind what is in it.
    let mut line = b"> ".to_vec();
    let mut buffer = shared(&["abc\nd"]);
    assert_eq!(
        buffer.read_line_into(Eol::Lf, 9, &mut line).unwrap(),
        Some(3)
    );
    assert_eq!(buffer.read_line_into(Eol::Lf, 9, &mut line).unwrap(), None);
    assert_eq!(line, b"> abc");
}

#[test]
fn a_line_is_read_in_place_and_leaves_when_it_is_dropped() {
    spec!(B3);
    let mut buffer = EvBuffer::from(&b"first\r\nsecond"[..]);
    let place = buffer.chunk().as_ptr();
    let line = buffer.read_line(Eol::Crlf, 100).unwrap().unwrap();
    assert_eq!((&*line, line.as_ptr()), (&b"first"[..], place), "no copy");
    assert_eq!(format!("{line:?}"), r#"b"first""#);
    std::mem::forget(line);
    assert_eq!(buffer, b"first\r\nsecond"[..], "it was forgotten, not read");
    drop(buffer.read_line(Eol::Crlf, 100).unwrap());
    assert_eq!(buffer, b"second"[..]);
    // Across segments, one of them another's, and the end in a third.
    buffer.append_bytes(" and".into()).unwrap();
    buffer.append_bytes(" last\n".into()).unwrap();
    let log = Log::default();
    listen(&mut buffer, &log, "line", Delivery::AtOnce);
    let line = buffer.read_line(Eol::Lf, 100).unwrap().unwrap();
    assert_eq!(*line, *b"second and last");
    assert!(log.lock().unwrap().is_empty(), "nothing has changed yet");
    drop(line);
    assert_eq!(*log.lock().unwrap(), [("line", 16, 0, 16)]);
    assert!(buffer.is_empty());
}

type Log = Arc<Mutex<Vec<(&'static str, usize, usize, usize)>>>;

fn listen(
    buffer: &mut EvBuffer,
    log: &Log,
    name: &'static str,
    delivery: Delivery,
) -> evbuffer::CallbackId {
    let log = log.clone();
    buffer.add_callback(delivery, move |_, change| {
        log.lock()
            .unwrap()
            .push((name, change.original, change.added, change.deleted));
    })
}

#[test]
fn callbacks_hear_of_changes_at_once_or_deferred() {
    spec!(B4);
    let log = Log::default();
    let mut buffer = EvBuffer::new();
    listen(&mut buffer, &log, "old", Delivery::AtOnce);
    let late = listen(&mut buffer, &log, "late", Delivery::Deferred);
    let new = listen(&mut buffer, &log, "new", Delivery::AtOnce);
    let heard = || std::mem::take(&mut *log.lock().unwrap());
    buffer.append_slice(b"hello").unwrap();
    assert_eq!(
        heard(),
        [("new", 0, 5, 0), ("old", 0, 5, 0)],
        "newest first"
    );
    buffer.append_slice(b"").unwrap();
    buffer.drain(0);
    assert_eq!(heard(), [], "nothing changed, nobody is called");
    buffer.prepend_slice(b"oh ").unwrap();
    buffer.drain(2);
    let at_once = [
        ("new", 5, 3, 0),
        ("old", 5, 3, 0),
        ("new", 8, 0, 2),
        ("old", 8, 0, 2),
    ];
    assert_eq!(heard(), at_once);
    assert!(buffer.has_untold_changes());
    buffer.deliver_changes();
    assert_eq!(
        heard(),
        [("late", 0, 8, 2)],
        "three changes in one, told once"
    );
    assert!(!buffer.has_untold_changes());
    buffer.deliver_changes();
    assert_eq!(heard(), []);
    // Off and on again, and away.
    assert!(buffer.disable_callback(new));
    buffer.append_slice(b"!").unwrap();
    assert_eq!(heard(), [("old", 6, 1, 0)]);
    assert!(
        buffer.enable_callback(new)
            && buffer.remove_callback(late)
            && !buffer.remove_callback(late)
    );
    // Moves: both sides hear, the source first, each its own change.
    let mut other = shared(&["ab", "cd"]);
    listen(&mut other, &log, "other", Delivery::AtOnce);
    buffer.append(&mut other).unwrap();
    assert_eq!(
        heard(),
        [("other", 4, 0, 4), ("new", 7, 4, 0), ("old", 7, 4, 0)]
    );
    buffer.move_to(1, &mut other).unwrap();
    assert_eq!(
        heard(),
        [("new", 11, 0, 1), ("old", 11, 0, 1), ("other", 0, 1, 0)]
    );
    other.add_reference_of(&mut buffer).unwrap();
    assert_eq!(
        heard(),
        [("other", 1, 10, 0)],
        "a reference changes only who holds it"
    );
    // From inside: removing itself, changing the buffer, adding another.
    let own = Arc::new(Mutex::new(None));
    let (id, inner) = (own.clone(), log.clone());
    *own.lock().unwrap() = Some(buffer.add_callback(Delivery::AtOnce, move |buffer, _| {
        assert!(buffer.remove_callback(id.lock().unwrap().expect("it was stored")));
        buffer.clear();
        listen(buffer, &inner, "inner", Delivery::AtOnce);
    }));
    buffer.append_slice(b"x").unwrap();
    // Each hears the sum of what it has not heard: the new byte and the clearing are one change to them.
    assert_eq!(heard(), [("new", 10, 1, 11), ("old", 10, 1, 11)]);
    buffer.append_slice(b"y").unwrap();
    assert_eq!(
        heard(),
        [("inner", 0, 1, 0), ("new", 0, 1, 0), ("old", 0, 1, 0)]
    );
}

#[test]
fn either_end_can_be_frozen() {
    spec!(B4);
    let mut buffer = EvBuffer::from(&b"abc"[..]);
    buffer.freeze(End::Back);
    assert_eq!(
        buffer.append_slice(b"d").unwrap_err().kind(),
        ErrorKind::Frozen
    );
    assert_eq!(buffer.reserve(1).unwrap_err().kind(), ErrorKind::Frozen);
    assert_eq!(buffer.drain(1), 1, "the other end is free");
    buffer.freeze(End::Front);
    assert_eq!(
        buffer.prepend_slice(b"d").unwrap_err().kind(),
        ErrorKind::Frozen
    );
    assert_eq!(buffer.try_drain(1).unwrap_err().kind(), ErrorKind::Frozen);
    assert_eq!(buffer, b"bc"[..]);
    assert_eq!(buffer.pull_up(2).unwrap(), b"bc", "looking is free");
    buffer.unfreeze(End::Back);
    buffer.append_slice(b"d").unwrap();
    buffer.unfreeze(End::Front);
    assert_eq!((buffer.drain(2), buffer.len()), (2, 1));
    assert!(!buffer.is_frozen(End::Front) && !buffer.is_frozen(End::Back));
}

/// A stream that counts slices: that reads and writes are vectored shows in it alone.
struct Counting {
    stream: TcpStream,
    slices: usize,
}

impl Read for Counting {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        self.slices = 1;
        self.stream.read(dst)
    }

    fn read_vectored(&mut self, dst: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.slices = dst.len();
        self.stream.read_vectored(dst)
    }
}

impl Write for Counting {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.slices = 1;
        self.stream.write(data)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.slices = slices.len();
        self.stream.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn vectored_reads_and_writes_of_a_descriptor() {
    spec!(B5);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let mut near = Counting {
        stream: near,
        slices: 0,
    };
    let mut far = Counting {
        stream: far,
        slices: 0,
    };
    let mut out = shared(&["one ", "two ", "three "]);
    out.append_slice(b"four").unwrap();
    assert_eq!(out.write_to(&mut near, 6).unwrap(), 6);
    assert_eq!(near.slices, 2, "as many as six bytes take");
    assert_eq!(out.write_to(&mut near, usize::MAX).unwrap(), 12);
    assert_eq!((near.slices, out.len(), out.memory()), (3, 0, 0));
    assert_eq!(out.write_to(&mut near, usize::MAX).unwrap(), 0);
    let mut input = EvBuffer::from(Vec::from_iter(b"got: ".iter().copied()));
    input.append_slice(&[b'.'; 400]).unwrap();
    input.drain(400);
    while input.len() < 5 + 18 {
        assert_ne!(input.read_from(&mut far, 5000).unwrap(), 0);
        assert_eq!(far.slices, 2, "the room behind the last byte, and new room");
    }
    assert_eq!(input, b".....one two three four"[..]);
    near.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        input.read_from(&mut far, 5000).unwrap(),
        0,
        "the end of the stream"
    );
    // A stream that claims more than it was given is not believed.
    struct Liar;
    impl Read for Liar {
        fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
            Ok(dst.len() + 1)
        }
    }
    impl Write for Liar {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            Ok(data.len() + 1)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let len = input.len();
    assert!(input.read_from(&mut Liar, 10).is_err() && input.write_to(&mut Liar, 10).is_err());
    assert_eq!(input.len(), len);
}

#[test]
fn the_traits_of_std_and_bytes() {
    spec!(B5);
    let mut buffer = EvBuffer::new();
    // std::io::Write, fmt::Write and the macro on both.
    Write::write_all(&mut buffer, b"one\n").unwrap();
    Write::write_fmt(&mut buffer, format_args!("{}\n", 2)).unwrap();
    std::fmt::Write::write_str(&mut buffer, "three\nrest").unwrap();
    Write::write_vectored(&mut buffer, &[IoSlice::new(b" of"), IoSlice::new(b" it")]).unwrap();
    // BufRead: the standard library's own line reader.
    let mut line = String::new();
    BufRead::read_line(&mut buffer, &mut line).unwrap();
    let two = BufRead::lines(&mut buffer).next().unwrap().unwrap();
    assert_eq!((line.as_str(), two.as_str()), ("one\n", "2"));
    // Read.
    let mut some = [0; 6];
    Read::read_exact(&mut buffer, &mut some).unwrap();
    assert_eq!(&some, b"three\n");
    let mut all = String::new();
    Read::read_to_string(&mut buffer, &mut all).unwrap();
    assert_eq!(
        (all.as_str(), Read::read(&mut buffer, &mut some).unwrap()),
        ("rest of it", 0)
    );
    // BufMut, a chunk at a time and by the typed methods; Buf back again.
    buffer.put_u32(0xdead_beef);
    buffer.put_slice(b"slice");
    buffer.put_bytes(7, 10_000);
    buffer.put(&b"buf"[..]);
    assert_eq!(buffer.remaining(), 4 + 5 + 10_000 + 3);
    assert!(buffer.has_remaining());
    assert_eq!(buffer.get_u32(), 0xdead_beef);
    assert_eq!(buffer.copy_to_bytes(5), "slice");
    let mut slices = [IoSlice::new(&[]); 16];
    let n = buffer.chunks_vectored(&mut slices);
    assert_eq!(
        slices[..n].iter().map(|slice| slice.len()).sum::<usize>(),
        10_003
    );
    buffer.advance(9_999);
    let mut end = [0; 4];
    buffer.copy_to_slice(&mut end);
    assert_eq!((&end, buffer.memory()), (b"\x07buf", 0));
}

#[test]
fn an_empty_buffer_owns_no_memory() {
    spec!(B6);
    const CONST: EvBuffer = EvBuffer::new();
    assert!(size_of::<EvBuffer>() <= 56);
    assert_eq!(
        (CONST.memory(), EvBuffer::default().memory(), CONST.len()),
        (0, 0, 0)
    );
    fn is_send<T: Send>(_: &T) {}
    is_send(&CONST);
    let pool = Pool::new(0);
    let fill = |buffer: &mut EvBuffer| {
        buffer.append_slice(&[1; 3000]).unwrap();
        buffer.append_block(pool.take().unwrap(), 5).unwrap();
        buffer.append_bytes(Bytes::from(vec![1; 100])).unwrap();
        buffer
            .append_file(FileRegion::new(file_with(b"file"), 0, 4).unwrap())
            .unwrap();
        buffer.prepend_slice(b"front").unwrap();
        buffer.append_slice(&[1; 70_000]).unwrap();
        assert!(buffer.memory() >= 3000 + BLOCK_LEN + 100 + 5 + 70_000);
    };
    let emptyings: [fn(&mut EvBuffer); 7] = [
        |buffer| assert_eq!(buffer.drain(usize::MAX), 73_114),
        |buffer| while buffer.drain(1000) > 0 {},
        |buffer| assert_eq!(buffer.remove(&mut vec![0; 80_000]), 73_114),
        |buffer| EvBuffer::new().append(buffer).unwrap(),
        |buffer| EvBuffer::from(&b"x"[..]).append(buffer).unwrap(),
        |buffer| {
            assert_eq!(
                buffer.move_to(73_114, &mut EvBuffer::new()).unwrap(),
                73_114
            )
        },
        |buffer| assert_eq!(buffer.remove_bytes(73_114).unwrap().len(), 73_114),
    ];
    for empty in emptyings {
        let mut buffer = EvBuffer::new();
        fill(&mut buffer);
        empty(&mut buffer);
        assert_eq!((buffer.len(), buffer.memory()), (0, 0));
        assert_eq!(buffer.drain(1), 0);
    }
    // A short read of a stream that might have brought much holds little.
    let mut buffer = EvBuffer::new();
    assert_eq!(buffer.read_from(&mut &b"abc"[..], 60_000).unwrap(), 3);
    assert!(buffer.memory() < 100);
    // Bytes that are going to stay hold no more than they need.
    let mut buffer = EvBuffer::new();
    buffer.append_block(pool.take().unwrap(), 50).unwrap();
    assert_eq!(buffer.memory(), BLOCK_LEN);
    buffer.compact();
    assert_eq!((buffer.len(), buffer.memory()), (50, 50));
    // Callbacks are kept for as long as there are any, bytes or not.
    buffer.drain(50);
    let id = buffer.add_callback(Delivery::AtOnce, |_, _| {});
    assert_ne!(buffer.memory(), 0);
    buffer.remove_callback(id);
    assert_eq!(buffer.memory(), 0);
}
