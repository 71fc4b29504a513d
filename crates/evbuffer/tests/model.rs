//! Every mutating operation against a `Vec<u8>`: random lists of operations on three buffers that move
//! bytes between each other, with segments of every kind.
//!
//! The third buffer has a change callback, so that it takes the paths of buffers with extras, and so that
//! what callbacks are told adds up.

use std::fs::File;
use std::io::{BufRead, IoSlice, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::{Buf, BufMut, Bytes};
use evbuffer::{Delivery, Eol, ErrorKind, EvBuffer, FileRegion, Pool};
use proptest::prelude::*;

const BUFFERS: usize = 3;
const FILE_LEN: usize = 100_000;

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(4));

static FILE: LazyLock<Arc<File>> = LazyLock::new(|| {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(&text(7, FILE_LEN))
        .expect("it can be written");
    Arc::new(file)
});

/// Bytes from a small alphabet: ends of lines and repetitions are frequent.
fn text(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        b"aaaaaabbbbc\r\n\n\0x"[(state % 16) as usize]
    };
    (0..len).map(|_| next()).collect()
}

#[derive(Clone, Debug)]
enum Op {
    AppendSlice(u32, usize),
    AppendSlices(u32, usize, usize),
    AppendBytes(u32, usize),
    AppendOwner(u32, usize),
    AppendBlock(u32, usize),
    AppendFile(usize, usize),
    PrependSlice(u32, usize),
    Append(usize),
    Prepend(usize),
    MoveTo(usize, usize),
    Reference(usize),
    Drain(usize),
    DrainInto(usize),
    Remove(usize),
    RemoveBytes(usize),
    PullUp(usize),
    Reserve(usize, u32, usize),
    Expand(usize),
    Put(u32, usize),
    PutChunk(u32, usize),
    Compact,
    ReadFrom(u32, usize),
    WriteTo(usize),
    BufRead(usize),
    Advance(usize),
    ReadLine(Eol, usize),
    Search(usize, usize, usize),
    FindEol(Eol, usize),
    CopyOutFrom(usize, usize),
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..40_usize, 3 => 0..3000_usize, 2 => 2000..9000_usize, 1 => 9000..70_000_usize]
}

fn eol() -> impl Strategy<Value = Eol> {
    prop::sample::select(vec![
        Eol::Any,
        Eol::Crlf,
        Eol::CrlfStrict,
        Eol::Lf,
        Eol::Nul,
    ])
}

fn op() -> impl Strategy<Value = Op> {
    use Op::*;
    let other = 1..BUFFERS;
    let adding = prop_oneof![
        4 => (any::<u32>(), len()).prop_map(|(s, n)| AppendSlice(s, n)),
        1 => (any::<u32>(), len(), len()).prop_map(|(s, n, m)| AppendSlices(s, n, m)),
        2 => (any::<u32>(), len()).prop_map(|(s, n)| AppendBytes(s, n)),
        1 => (any::<u32>(), len()).prop_map(|(s, n)| AppendOwner(s, n)),
        2 => (any::<u32>(), len()).prop_map(|(s, n)| AppendBlock(s, n)),
        1 => (any::<usize>(), len()).prop_map(|(o, n)| AppendFile(o, n)),
        2 => (any::<u32>(), len()).prop_map(|(s, n)| PrependSlice(s, n)),
        1 => (len(), any::<u32>(), any::<usize>()).prop_map(|(n, s, c)| Reserve(n, s, c)),
        1 => len().prop_map(Expand),
        1 => (any::<u32>(), len()).prop_map(|(s, n)| Put(s, n)),
        1 => (any::<u32>(), len()).prop_map(|(s, n)| PutChunk(s, n)),
        1 => (any::<u32>(), len()).prop_map(|(s, n)| ReadFrom(s, n)),
    ];
    let moving = prop_oneof![
        2 => other.clone().prop_map(Append),
        1 => other.clone().prop_map(Prepend),
        3 => (other.clone(), len()).prop_map(|(o, n)| MoveTo(o, n)),
        1 => other.prop_map(Reference),
    ];
    let taking = prop_oneof![
        3 => len().prop_map(Drain),
        1 => len().prop_map(DrainInto),
        2 => len().prop_map(Remove),
        1 => len().prop_map(RemoveBytes),
        1 => len().prop_map(PullUp),
        1 => Just(Compact),
        1 => len().prop_map(WriteTo),
        1 => len().prop_map(BufRead),
        1 => len().prop_map(Advance),
        2 => (eol(), len()).prop_map(|(e, n)| ReadLine(e, n)),
    ];
    let looking = prop_oneof![
        (any::<usize>(), 0..30_usize, any::<usize>()).prop_map(|(a, n, f)| Search(a, n, f)),
        (eol(), any::<usize>()).prop_map(|(e, f)| FindEol(e, f)),
        (any::<usize>(), len()).prop_map(|(a, n)| CopyOutFrom(a, n)),
    ];
    prop_oneof![4 => adding, 3 => moving, 4 => taking, 2 => looking]
}

/// Where a line ends, in the plainest way.
fn plain_eol(eol: Eol, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    (from..bytes.len()).find_map(|at| {
        let here = &bytes[at..];
        let len = match eol {
            Eol::Any => here
                .iter()
                .take_while(|b| matches!(b, b'\r' | b'\n'))
                .count(),
            Eol::Crlf if here.starts_with(b"\r\n") => 2,
            Eol::Crlf | Eol::Lf => usize::from(here[0] == b'\n'),
            Eol::CrlfStrict => 2 * usize::from(here.starts_with(b"\r\n")),
            Eol::Nul => usize::from(here[0] == 0),
            _ => unreachable!("no other end of line is generated"),
        };
        (len > 0).then_some((at, len))
    })
}

struct World {
    buffers: [EvBuffer; BUFFERS],
    models: [Vec<u8>; BUFFERS],
    /// What the callback of the last buffer was told adds up to.
    told: Arc<AtomicUsize>,
    /// Room was asked for that an empty buffer may hold.
    expanded: [bool; BUFFERS],
}

/// A buffer and the vector that it should behave like.
type Side<'a> = (&'a mut EvBuffer, &'a mut Vec<u8>);

impl World {
    fn new() -> Self {
        let mut buffers = [EvBuffer::new(), EvBuffer::new(), EvBuffer::new()];
        let told = Arc::new(AtomicUsize::new(0));
        let sum = told.clone();
        buffers[BUFFERS - 1].add_callback(Delivery::AtOnce, move |buffer, change| {
            assert_eq!(change.original, sum.load(Ordering::Relaxed));
            assert_eq!(
                change.original + change.added - change.deleted,
                buffer.len()
            );
            sum.store(buffer.len(), Ordering::Relaxed);
        });
        Self {
            buffers,
            models: Default::default(),
            told,
            expanded: [false; BUFFERS],
        }
    }

    /// Two different buffers with their models.
    fn pair(&mut self, a: usize, b: usize) -> (Side<'_>, Side<'_>) {
        let [x, y] = self.buffers.get_disjoint_mut([a, b]).expect("they are two");
        let [p, q] = self.models.get_disjoint_mut([a, b]).expect("they are two");
        ((x, p), (y, q))
    }

    fn apply(&mut self, a: usize, op: &Op) {
        let (buffer, model) = (&mut self.buffers[a], &mut self.models[a]);
        match *op {
            Op::AppendSlice(seed, n) => {
                let data = text(seed, n);
                buffer.append_slice(&data).unwrap();
                model.extend(data);
            }
            Op::AppendSlices(seed, n, m) => {
                let (one, two) = (text(seed, n), text(seed ^ 99, m));
                buffer
                    .append_slices(&[IoSlice::new(&one), IoSlice::new(&two)])
                    .unwrap();
                model.extend(one);
                model.extend(two);
            }
            Op::AppendBytes(seed, n) => {
                let data = text(seed, n);
                buffer.append_bytes(Bytes::from(data.clone())).unwrap();
                model.extend(data);
            }
            Op::AppendOwner(seed, n) => {
                let data = text(seed, n);
                buffer
                    .append_bytes(Bytes::from_owner(data.clone()))
                    .unwrap();
                model.extend(data);
            }
            Op::AppendBlock(seed, n) => {
                let data = text(seed, n.min(evbuffer::BLOCK_LEN));
                let mut block = POOL.take().unwrap();
                block[..data.len()].copy_from_slice(&data);
                buffer.append_block(block, data.len()).unwrap();
                model.extend(data);
            }
            Op::AppendFile(offset, n) => {
                let offset = offset % FILE_LEN;
                let n = n.min(FILE_LEN - offset);
                buffer
                    .append_file(FileRegion::new(FILE.clone(), offset as u64, n).unwrap())
                    .unwrap();
                model.extend(&text(7, FILE_LEN)[offset..offset + n]);
            }
            Op::PrependSlice(seed, n) => {
                let data = text(seed, n);
                buffer.prepend_slice(&data).unwrap();
                model.splice(..0, data);
            }
            Op::Append(by) => {
                let ((dst, to), (src, from)) = self.pair(a, (a + by) % BUFFERS);
                dst.append(src).unwrap();
                to.append(from);
            }
            Op::Prepend(by) => {
                let ((dst, to), (src, from)) = self.pair(a, (a + by) % BUFFERS);
                dst.prepend(src).unwrap();
                from.append(to);
                std::mem::swap(from, to);
            }
            Op::MoveTo(by, n) => {
                let ((src, from), (dst, to)) = self.pair(a, (a + by) % BUFFERS);
                assert_eq!(src.move_to(n, dst).unwrap(), n.min(from.len()));
                to.extend(from.drain(..n.min(from.len())));
            }
            Op::Reference(by) => {
                let ((dst, to), (src, from)) = self.pair(a, (a + by) % BUFFERS);
                dst.add_reference_of(src).unwrap();
                to.extend_from_slice(from);
            }
            Op::Drain(n) => {
                assert_eq!(buffer.drain(n), n.min(model.len()));
                model.drain(..n.min(model.len()));
            }
            Op::DrainInto(n) => {
                let mut trash = EvBuffer::new();
                assert_eq!(buffer.drain_into(n, &mut trash), n.min(model.len()));
                assert!(trash.len() <= n);
                model.drain(..n.min(model.len()));
            }
            Op::Remove(n) => {
                let mut out = vec![0; n];
                let got = buffer.remove(&mut out);
                assert_eq!(got, n.min(model.len()));
                assert!(model.drain(..got).eq(out[..got].iter().copied()));
            }
            Op::RemoveBytes(n) => {
                if n > model.len() {
                    assert_eq!(
                        buffer.remove_bytes(n).unwrap_err().kind(),
                        ErrorKind::BadRange
                    );
                } else {
                    let bytes = buffer.remove_bytes(n).unwrap();
                    assert!(model.drain(..n).eq(bytes));
                }
            }
            Op::PullUp(n) => {
                if n > model.len() {
                    assert_eq!(buffer.pull_up(n).unwrap_err().kind(), ErrorKind::BadRange);
                } else {
                    assert!(buffer.pull_up(n).unwrap() == &model[..n]);
                }
            }
            Op::Reserve(n, seed, commit) => {
                let data = text(seed, n);
                let mut room = buffer.reserve(n).unwrap();
                assert_eq!(room.as_mut().len(), n);
                room.as_mut().copy_from_slice(&data);
                let commit = commit % (n + 2);
                if commit > n {
                    assert_eq!(room.commit(commit).unwrap_err().kind(), ErrorKind::BadRange);
                } else {
                    room.commit(commit).unwrap();
                    model.extend(&data[..commit]);
                }
            }
            Op::Expand(n) => {
                buffer.expand(n).unwrap();
                self.expanded[a] = true;
            }
            Op::Put(seed, n) => {
                let data = text(seed, n);
                buffer.put(&data[..]);
                model.extend(data);
            }
            Op::PutChunk(seed, n) => {
                let data = text(seed, n);
                let chunk = buffer.chunk_mut();
                let n = n.min(chunk.len());
                chunk[..n].copy_from_slice(&data[..n]);
                // SAFETY: the first `n` bytes of the chunk were just written.
                unsafe { buffer.advance_mut(n) };
                model.extend(&data[..n]);
                self.expanded[a] = true;
            }
            Op::Compact => {
                buffer.compact();
                self.expanded[a] = false;
            }
            Op::ReadFrom(seed, n) => {
                let data = text(seed, n);
                let got = buffer.read_from(&mut &data[..], n / 2 + 1).unwrap();
                assert!(got <= n / 2 + 1);
                model.extend(&data[..got]);
            }
            Op::WriteTo(n) => {
                let mut out = Vec::new();
                let put = buffer.write_to(&mut out, n).unwrap();
                assert_eq!((put, put == 0), (out.len(), n == 0 || model.is_empty()));
                assert!(model.drain(..put).eq(out));
            }
            Op::BufRead(n) => {
                let chunk = buffer.fill_buf().unwrap();
                assert_eq!(chunk, &model[..chunk.len()]);
                assert_eq!(chunk.is_empty(), model.is_empty());
                let n = n.min(chunk.len());
                buffer.consume(n);
                model.drain(..n);
            }
            Op::Advance(n) => {
                let n = n.min(buffer.remaining());
                buffer.advance(n);
                model.drain(..n);
            }
            Op::ReadLine(eol, max) => {
                let line = buffer.read_line(eol, max);
                match plain_eol(eol, model, 0) {
                    Some((at, len)) if at <= max => {
                        let line = line.unwrap().unwrap();
                        assert_eq!(line[..], model[..at]);
                        drop(line);
                        model.drain(..at + len);
                    }
                    Some(_) => assert_eq!(line.unwrap_err().kind(), ErrorKind::LineTooLong),
                    None => {
                        let begun = matches!(eol, Eol::Crlf | Eol::CrlfStrict)
                            && model.last() == Some(&b'\r');
                        if model.len() - usize::from(begun) > max {
                            assert_eq!(line.unwrap_err().kind(), ErrorKind::LineTooLong);
                        } else {
                            assert!(line.unwrap().is_none());
                        }
                    }
                }
            }
            Op::Search(at, n, from) => {
                let at = at % (model.len() + 1);
                let needle = model[at..].iter().copied().take(n).collect::<Vec<u8>>();
                let from = from % (model.len() + 1);
                let end = from + (model.len() - from) * 3 / 4;
                let plain = |from: usize, end: usize| {
                    let range = &model[from..end];
                    if needle.is_empty() {
                        return Some(from);
                    }
                    range
                        .windows(needle.len())
                        .position(|window| window == needle)
                        .map(|i| from + i)
                };
                let found = buffer.position(from).unwrap().search(&needle).unwrap();
                assert_eq!(
                    found.map(|position| position.offset()),
                    plain(from, model.len())
                );
                let found = buffer.search_range(&needle, from..end).unwrap();
                assert_eq!(found.map(|position| position.offset()), plain(from, end));
            }
            Op::FindEol(eol, from) => {
                let from = from % (model.len() + 1);
                let found = buffer.position(from).unwrap().find_eol(eol).unwrap();
                assert_eq!(
                    found.map(|end| (end.position.offset(), end.len)),
                    plain_eol(eol, model, from)
                );
                if let Some(end) = found {
                    let mut rest = vec![0; model.len()];
                    let n = end.position.copy_out(&mut rest).unwrap();
                    assert_eq!(rest[..n], model[end.position.offset()..]);
                }
            }
            Op::CopyOutFrom(at, n) => {
                let at = at % (model.len() + 1);
                let mut out = vec![0; n];
                let got = buffer.copy_out_from(at, &mut out).unwrap();
                assert_eq!(out[..got], model[at..at + n.min(model.len() - at)]);
                assert!(buffer.copy_out_from(model.len() + 1, &mut out).is_err());
            }
        }
    }

    fn check(&self) {
        for (i, (buffer, model)) in self.buffers.iter().zip(&self.models).enumerate() {
            assert_eq!(buffer.len(), model.len());
            assert_eq!(buffer.is_empty(), model.is_empty());
            let mut bytes = vec![0; model.len() + 1];
            assert_eq!(buffer.copy_out(&mut bytes), model.len());
            assert!(bytes[..model.len()] == model[..], "the bytes of buffer {i}");
            assert!(buffer.segments().all(|segment| !segment.is_empty()));
            if buffer.front_file().is_none() {
                assert_eq!(buffer.chunk().is_empty(), model.is_empty());
                assert_eq!(buffer.remaining() == 0, model.is_empty());
            }
            if model.is_empty() && !self.expanded[i] && i < BUFFERS - 1 {
                assert_eq!(buffer.memory(), 0);
            }
        }
        assert_eq!(
            self.told.load(Ordering::Relaxed),
            self.models[BUFFERS - 1].len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_buffer_behaves_like_a_vector(ops in prop::collection::vec((0..BUFFERS, op()), 1..60)) {
        let mut world = World::new();
        for (a, op) in &ops {
            world.apply(*a, op);
            world.check();
        }
        for (buffer, model) in world.buffers.iter_mut().zip(&world.models) {
            let mut all = Vec::new();
            buffer.read_to_end(&mut all).unwrap();
            assert!(all == *model);
        }
    }
}

/// Small segments against needles of every length: the window of the search is where mistakes would be.
#[test]
fn a_search_finds_the_same_in_every_cut() {
    let data = text(3, 700);
    for cut in [1, 2, 3, 5, 16, 100, 699] {
        let buffer: EvBuffer = data.chunks(cut).map(Bytes::copy_from_slice).collect();
        for n in [1, 2, 3, 4, 7, 17, 130, 600] {
            for at in (0..data.len() - n).step_by(13) {
                let needle = &data[at..at + n];
                let plain = data.windows(n).position(|window| window == needle);
                let found = buffer
                    .search(needle)
                    .unwrap()
                    .map(|position| position.offset());
                assert_eq!(found, plain, "cut {cut}, needle of {n} at {at}");
            }
        }
        assert!(buffer.search(b"not there at all").unwrap().is_none());
    }
}
