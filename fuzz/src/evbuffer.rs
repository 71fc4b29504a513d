//! Operations on three buffers that move bytes between each other, against three vectors.
//!
//! The third buffer has change callbacks, one of each delivery, so that what they are told adds up and the paths of
//! buffers with extras are taken.

use std::fs::File;
use std::io::{BufRead as _, IoSlice, Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::{Buf as _, BufMut as _, Bytes};
use evbuffer::{BLOCK_LEN, Delivery, End, Eol, ErrorKind, EvBuffer, FileRegion, Pool};

use bufferevent_testkit::Choices;

const BUFFERS: usize = 3;

/// The buffer with callbacks.
const WATCHED: usize = BUFFERS - 1;

/// Operations of one run.
const MAX_OPERATIONS: usize = 200;

/// Bytes in all buffers together from which on nothing is added: references can double what there is.
const MAX_BYTES: usize = 128 * 1024;

const FILE_LEN: usize = 20_000;

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(4));

static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| text(7, FILE_LEN));

static FILE: LazyLock<Arc<File>> = LazyLock::new(|| {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(&TEXT).expect("it can be written");
    Arc::new(file)
});

/// Bytes of a small alphabet: ends of lines and repetitions are frequent.
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

/// Where a line ends, in the plainest way.
fn plain_eol(eol: Eol, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    (from..bytes.len()).find_map(|at| {
        let here = &bytes[at..];
        let len = match eol {
            Eol::Any => here
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                .count(),
            Eol::Crlf if here.starts_with(b"\r\n") => 2,
            Eol::Crlf | Eol::Lf => usize::from(here[0] == b'\n'),
            Eol::CrlfStrict => 2 * usize::from(here.starts_with(b"\r\n")),
            Eol::Nul => usize::from(here[0] == 0),
            _ => unreachable!("no other end of line is chosen"),
        };
        (len > 0).then_some((at, len))
    })
}

/// A buffer and the vector that it should behave like.
type Side<'a> = (&'a mut EvBuffer, &'a mut Vec<u8>);

struct World<'a> {
    choices: Choices<'a>,
    buffers: [EvBuffer; BUFFERS],
    models: [Vec<u8>; BUFFERS],
    /// What the callback that hears at once was told adds up to, and the deferred one.
    told: [Arc<AtomicUsize>; 2],
    /// Room was asked for that an empty buffer may hold.
    expanded: [bool; BUFFERS],
}

/// Runs the operations that `data` says.
pub fn run(data: &[u8]) {
    let mut world = World::new(Choices::new(data));
    for _ in 0..MAX_OPERATIONS {
        if world.choices.is_over() {
            break;
        }
        world.operate();
        world.check();
    }
    for (buffer, model) in world.buffers.iter_mut().zip(&world.models) {
        let mut all = Vec::new();
        buffer.read_to_end(&mut all).expect("memory can be read");
        assert!(all == *model);
    }
}

impl<'a> World<'a> {
    fn new(choices: Choices<'a>) -> Self {
        let mut buffers = [EvBuffer::new(), EvBuffer::new(), EvBuffer::new()];
        let told = [Delivery::AtOnce, Delivery::Deferred].map(|delivery| {
            let told = Arc::new(AtomicUsize::new(0));
            let sum = told.clone();
            buffers[WATCHED].add_callback(delivery, move |buffer, change| {
                assert_eq!(change.original, sum.load(Ordering::Relaxed));
                let now = change.original + change.added - change.deleted;
                assert_eq!(now, buffer.len());
                sum.store(now, Ordering::Relaxed);
            });
            told
        });
        Self {
            choices,
            buffers,
            models: Default::default(),
            told,
            expanded: [false; BUFFERS],
        }
    }

    fn operate(&mut self) {
        let choice = self.choices.byte();
        let a = self.choices.below(BUFFERS);
        let full = self.models.iter().map(Vec::len).sum::<usize>() >= MAX_BYTES;
        match choice % 16 {
            0..=4 if full => self.take(a),
            0..=4 => self.add(a),
            5..=7 => self.join(a),
            8..=12 => self.take(a),
            13 | 14 => self.look(a),
            _ => self.arrange(a),
        }
    }

    /// A length: mostly short, sometimes around the lengths at which segments are made otherwise.
    fn len(&mut self) -> usize {
        match self.choices.below(8) {
            0..=3 => self.choices.below(40),
            4 | 5 => self.choices.below(3000),
            6 => 2000 + self.choices.below(7000),
            _ => self.choices.below(1 << 16),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let seed = self.choices.byte().into();
        let len = self.len();
        text(seed, len)
    }

    fn eol(&mut self) -> Eol {
        self.choices
            .pick(&[Eol::Any, Eol::Crlf, Eol::CrlfStrict, Eol::Lf, Eol::Nul])
    }

    fn side(&mut self, a: usize) -> Side<'_> {
        (&mut self.buffers[a], &mut self.models[a])
    }

    /// Two different buffers with their models.
    fn sides(&mut self, a: usize, b: usize) -> (Side<'_>, Side<'_>) {
        let [x, y] = self.buffers.get_disjoint_mut([a, b]).expect("they are two");
        let [p, q] = self.models.get_disjoint_mut([a, b]).expect("they are two");
        ((x, p), (y, q))
    }

    /// Bytes come in, from outside.
    fn add(&mut self, a: usize) {
        let choice = self.choices.below(12);
        let data = self.text();
        let more = self.choices.below(64);
        let (buffer, model) = self.side(a);
        match choice {
            0 | 1 => {
                buffer.append_slice(&data).unwrap();
                model.extend(data);
            }
            2 => {
                let (one, two) = data.split_at(more.min(data.len()));
                let slices = [IoSlice::new(one), IoSlice::new(two)];
                buffer.append_slices(&slices).unwrap();
                model.extend(data);
            }
            3 => {
                buffer.append_bytes(Bytes::from(data.clone())).unwrap();
                model.extend(data);
            }
            4 => {
                let owner = Bytes::from_owner(data.clone());
                buffer.append_bytes(owner).unwrap();
                model.extend(data);
            }
            5 => {
                let data = &data[..data.len().min(BLOCK_LEN)];
                let mut block = POOL.take().unwrap();
                block[..data.len()].copy_from_slice(data);
                buffer.append_block(block, data.len()).unwrap();
                model.extend(data);
            }
            6 => {
                let offset = 300 * more;
                let n = data.len().min(FILE_LEN - offset);
                let region = FileRegion::new(FILE.clone(), offset as u64, n).unwrap();
                buffer.append_file(region).unwrap();
                model.extend(&TEXT[offset..offset + n]);
            }
            7 => {
                buffer.prepend_slice(&data).unwrap();
                model.splice(..0, data);
            }
            8 => {
                let mut room = buffer.reserve(data.len()).unwrap();
                room.as_mut().copy_from_slice(&data);
                // Committed is a part, all, or one more than there is.
                let n = (data.len() + 1).saturating_sub(more);
                if n > data.len() {
                    let refused = room.commit(n).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::BadRange);
                } else {
                    room.commit(n).unwrap();
                    model.extend(&data[..n]);
                }
            }
            9 => {
                buffer.put(&data[..]);
                model.extend(data);
            }
            10 => {
                let most = data.len() / 2 + 1;
                let got = buffer.read_from(&mut &data[..], most).unwrap();
                assert!(got <= most);
                model.extend(&data[..got]);
            }
            _ => {
                buffer.append_fmt(format_args!("{more}-{choice}")).unwrap();
                model.extend(format!("{more}-{choice}").into_bytes());
            }
        }
    }

    /// Bytes go from one buffer to another.
    fn join(&mut self, a: usize) {
        let choice = self.choices.below(8);
        let b = (a + 1 + self.choices.below(BUFFERS - 1)) % BUFFERS;
        let n = self.len();
        let expanded = self.expanded[a] | self.expanded[b];
        let ((buffer, model), (other, others)) = self.sides(a, b);
        match choice {
            0 => {
                buffer.append(other).unwrap();
                model.append(others);
            }
            1 => {
                buffer.prepend(other).unwrap();
                others.append(model);
                std::mem::swap(others, model);
            }
            2..=4 => {
                let n_there = n.min(model.len());
                assert_eq!(buffer.move_to(n, other).unwrap(), n_there);
                others.extend(model.drain(..n_there));
            }
            5 if model.len() + others.len() < MAX_BYTES => {
                buffer.add_reference_of(other).unwrap();
                model.extend_from_slice(others);
            }
            _ => {
                let mut trash = EvBuffer::new();
                let n_there = n.min(model.len());
                assert_eq!(buffer.drain_into(n, &mut trash), n_there);
                assert!(trash.len() <= n);
                model.drain(..n_there);
            }
        }
        // Room that was asked for may have gone along.
        (self.expanded[a], self.expanded[b]) = (expanded, expanded);
    }

    /// Bytes are taken out.
    fn take(&mut self, a: usize) {
        let choice = self.choices.below(12);
        let n = self.len();
        let eol = self.eol();
        let (buffer, model) = self.side(a);
        let n_there = n.min(model.len());
        match choice {
            0 | 1 => {
                assert_eq!(buffer.drain(n), n_there);
                model.drain(..n_there);
            }
            2 => {
                let mut out = vec![0; n];
                assert_eq!(buffer.remove(&mut out), n_there);
                assert!(model.drain(..n_there).eq(out[..n_there].iter().copied()));
            }
            3 => match buffer.remove_bytes(n) {
                Ok(bytes) => assert!(model.drain(..n).eq(bytes)),
                Err(error) => {
                    assert_eq!((error.kind(), n > n_there), (ErrorKind::BadRange, true));
                }
            },
            4 => {
                let mut out = Vec::new();
                let put = buffer.write_to(&mut out, n).unwrap();
                assert_eq!((put, put == 0), (out.len(), n_there == 0));
                assert!(model.drain(..put).eq(out));
            }
            5 => {
                let chunk = buffer.fill_buf().unwrap();
                assert_eq!(chunk, &model[..chunk.len()]);
                assert_eq!(chunk.is_empty(), model.is_empty());
                let n = n.min(chunk.len());
                buffer.consume(n);
                model.drain(..n);
            }
            6 => {
                // What is in front of the first file, which is no memory.
                let n = n.min(buffer.remaining());
                buffer.advance(n);
                model.drain(..n);
            }
            7 => {
                buffer.clear();
                model.clear();
            }
            8 => {
                let mut into = vec![b'>'];
                let before = model.clone();
                take_line(buffer, model, eol, n, |buffer| {
                    let read = buffer.read_line_into(eol, n, &mut into)?;
                    Ok(read.map(|_| into[1..].to_vec()))
                });
                assert!(before.ends_with(model));
            }
            _ => take_line(buffer, model, eol, n, |buffer| {
                Ok(buffer.read_line(eol, n)?.map(|line| line.to_vec()))
            }),
        }
    }

    /// Nothing changes.
    fn look(&mut self, a: usize) {
        let choice = self.choices.below(4);
        let (at, from) = (self.choices.below(1 << 16), self.choices.below(1 << 16));
        let n = self.len();
        let eol = self.eol();
        let (buffer, model) = self.side(a);
        let (at, from) = (at % (model.len() + 1), from % (model.len() + 1));
        match choice {
            0 | 1 => {
                let n = n.min(64).min(model.len() - at);
                search(buffer, model, &model[at..at + n], from);
            }
            2 => {
                let found = buffer.position(from).unwrap().find_eol(eol).unwrap();
                let place = found.map(|end| (end.position.offset(), end.len));
                assert_eq!(place, plain_eol(eol, model, from));
                if let Some(end) = found {
                    let mut rest = vec![0; model.len()];
                    let n = end.position.copy_out(&mut rest).unwrap();
                    assert_eq!(rest[..n], model[end.position.offset()..]);
                }
            }
            _ => {
                let mut out = vec![0; n];
                let got = buffer.copy_out_from(at, &mut out).unwrap();
                assert_eq!(out[..got], model[at..at + n.min(model.len() - at)]);
                assert!(buffer.copy_out_from(model.len() + 1, &mut out).is_err());
                assert!(buffer.position(model.len() + 1).is_err());
            }
        }
    }

    /// The bytes stay; how they lie, or what may be done with them, changes.
    fn arrange(&mut self, a: usize) {
        let choice = self.choices.below(6);
        let n = self.len();
        let (buffer, model) = self.side(a);
        match choice {
            0 | 1 => match buffer.pull_up(n) {
                Ok(bytes) => assert!(bytes == &model[..n]),
                Err(error) => {
                    assert_eq!((error.kind(), n > model.len()), (ErrorKind::BadRange, true));
                }
            },
            2 => {
                buffer.compact();
                self.expanded[a] = false;
            }
            3 => {
                buffer.expand(n).unwrap();
                self.expanded[a] = true;
            }
            4 => {
                buffer.deliver_changes();
                assert!(!buffer.has_untold_changes());
                if a == WATCHED {
                    let len = model.len();
                    assert_eq!(self.told[1].load(Ordering::Relaxed), len);
                }
            }
            _ => frozen(buffer, n + 1),
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
            if model.is_empty() && !self.expanded[i] && i != WATCHED {
                assert_eq!(buffer.memory(), 0, "an empty buffer owns nothing");
            }
        }
        let told = self.told[0].load(Ordering::Relaxed);
        assert_eq!(told, self.models[WATCHED].len());
    }
}

/// A line of `buffer`, read by `read`, against the same of `model`.
fn take_line(
    buffer: &mut EvBuffer,
    model: &mut Vec<u8>,
    eol: Eol,
    max: usize,
    read: impl FnOnce(&mut EvBuffer) -> Result<Option<Vec<u8>>, evbuffer::Error>,
) {
    let line = read(buffer).map_err(|error| error.kind());
    match plain_eol(eol, model, 0) {
        Some((at, len)) if at <= max => {
            assert_eq!(line, Ok(Some(model[..at].to_vec())));
            model.drain(..at + len);
        }
        Some(_) => assert_eq!(line, Err(ErrorKind::LineTooLong)),
        None => {
            // A last carriage return may be the beginning of an end.
            let may_begin = matches!(eol, Eol::Crlf | Eol::CrlfStrict);
            let begun = may_begin && model.last() == Some(&b'\r');
            let expected = if model.len() - usize::from(begun) > max {
                Err(ErrorKind::LineTooLong)
            } else {
                Ok(None)
            };
            assert_eq!(line, expected);
        }
    }
}

fn search(buffer: &EvBuffer, model: &[u8], needle: &[u8], from: usize) {
    let plain = |from: usize, end: usize| {
        if needle.is_empty() {
            return Some(from);
        }
        let mut windows = model[from..end].windows(needle.len());
        windows
            .position(|window| window == needle)
            .map(|i| from + i)
    };
    let end = from + (model.len() - from) * 3 / 4;
    let found = buffer.position(from).unwrap().search(needle).unwrap();
    let offset = found.map(|position| position.offset());
    assert_eq!(offset, plain(from, model.len()));
    let found = buffer.search_range(needle, from..end).unwrap();
    assert_eq!(found.map(|position| position.offset()), plain(from, end));
}

/// What a frozen end refuses. That nothing has changed is checked after every operation.
fn frozen(buffer: &mut EvBuffer, n: usize) {
    buffer.freeze(End::Back);
    let mut other = EvBuffer::from(&b"other"[..]);
    let refusals = [
        buffer.append_slice(b"x").map(drop),
        buffer.append_bytes(Bytes::from_static(b"x")),
        buffer.reserve(n).map(drop),
        buffer.append(&mut other),
    ];
    buffer.unfreeze(End::Back);
    assert!(refusals.iter().all(is_frozen), "{refusals:?}");
    assert_eq!(other.len(), 5);
    if buffer.is_empty() {
        return;
    }
    buffer.freeze(End::Front);
    let refusals = [
        buffer.prepend_slice(b"x"),
        buffer.try_drain(n).map(drop),
        buffer.move_to(n, &mut other).map(drop),
    ];
    buffer.unfreeze(End::Front);
    assert!(refusals.iter().all(is_frozen), "{refusals:?}");
    assert_eq!(other.len(), 5);
}

fn is_frozen(result: &Result<(), evbuffer::Error>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::Frozen)
}
