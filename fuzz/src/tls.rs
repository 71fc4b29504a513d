//! A TLS client and a TLS server with somebody between them who splits, drops, repeats, reorders, changes and invents bytes.
//!
//! # What is held to
//! - With real ciphers, what a user reads is what the other user wrote, from the first byte on and without a gap, however far it comes;
//!   an end is told only where the other user has made one, and behind all bytes.
//! - If nobody interferes, everything arrives.
//! - An error stays, and nothing is read behind it.
//! - Every call moves something or says what it needs; what an end says is in proportion to what it heard and was given.
//!
//! With [`Crypto::Null`] records can be forged, so that the bytes reach what lies behind the ciphers; then only the last two hold.

use bufferevent_core::{Kind, Mode};
use bufferevent_filter::{Filter as _, Sink, Verdict};
use bufferevent_tls::Tls;
use evbuffer::EvBuffer;

use crate::credentials::{Agreement, Crypto, forged};
use bufferevent_testkit::Choices;

/// Operations of one run.
const MAX_OPERATIONS: usize = 100;

/// Calls of one side for one piece of work, before it counts as spinning.
const MAX_CALLS: usize = 1 << 16;

/// Rounds in which both ends say and hear all they can.
const MAX_ROUNDS: usize = 1 << 12;

/// How often an invented record is sent in a row: past the limits on records that bring nothing.
const MAX_REPEATED: usize = 300;

/// Bytes that an end may say for one call, beyond what it was given and has heard: records' frames, key updates, an alert.
const SAID_PER_CALL: usize = 128;

/// Bytes of a handshake.
const SAID_AT_FIRST: usize = 8192;

/// Whether one direction of the stream is as the ends have made it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Untouched,
    Changed,
}

/// How the input side of an end stands.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Open,
    Ended,
    Failed(Kind),
}

/// One end: its filter, and the buffers around it.
struct End {
    tls: Tls,
    /// Bytes that have come for it, and whether more can.
    arrived: EvBuffer,
    below: Mode,
    /// Bytes that it has to say and nobody has carried yet.
    sent: EvBuffer,
    /// What its user has read.
    got: EvBuffer,
    /// What its user has written and the filter has not taken yet.
    unsent: EvBuffer,
    /// All that its user has written, and whether that is all.
    wrote: Vec<u8>,
    mode: Mode,
    heard: Heard,
    /// The output side has failed, and so has said its last.
    silent: bool,
    /// The way to it.
    way: Way,
    calls: usize,
    bytes_heard: usize,
    bytes_said: usize,
}

impl End {
    fn new(tls: Tls) -> Self {
        Self {
            tls,
            arrived: EvBuffer::new(),
            below: Mode::Normal,
            sent: EvBuffer::new(),
            got: EvBuffer::new(),
            unsent: EvBuffer::new(),
            wrote: Vec::new(),
            mode: Mode::Normal,
            heard: Heard::Open,
            silent: false,
            way: Way::Untouched,
            calls: 0,
            bytes_heard: 0,
            bytes_said: 0,
        }
    }

    fn is_failed(&self) -> bool {
        matches!(self.heard, Heard::Failed(_))
    }

    /// Whether it is not read from any more: rustls 0.23 asserts, where debug assertions are on, that it has not sent a close_notify
    /// when it sends a fatal alert, so a broken record behind its close_notify is a panic there.
    fn is_spared(&self) -> bool {
        cfg!(debug_assertions) && self.mode == Mode::Finished && self.way == Way::Changed
    }

    /// One call of the input side. Whether there is more to do with what is there.
    fn read(&mut self, room: usize) -> bool {
        if self.is_spared() {
            return false;
        }
        self.calls += 1;
        let before = (self.arrived.len(), self.got.len());
        let mut sink = Sink::new(&mut self.got, room);
        let verdict = self.tls.input(&mut self.arrived, &mut sink, self.below);
        let after = (self.arrived.len(), self.got.len());
        assert!(after.1 - before.1 <= room, "more than there is room for");
        self.bytes_heard += before.0 - after.0;
        let heard = match verdict {
            Ok(Verdict::NeedInput) => {
                assert_eq!(after.0, 0, "what is there was enough to go on");
                assert_eq!(self.below, Mode::Normal, "an end that nobody has made");
                Heard::Open
            }
            Ok(Verdict::Full) => {
                assert!(room == 0 || before != after, "full, and nothing came");
                return room > 0;
            }
            Ok(Verdict::Progress) => {
                assert_ne!(before, after, "progress, and nothing came");
                return true;
            }
            Ok(Verdict::End) => Heard::Ended,
            Err(error) => Heard::Failed(error.kind()),
        };
        if self.heard != Heard::Open {
            assert_eq!(heard, self.heard, "an end is the last");
            assert_eq!(before, after, "nothing is heard behind an end");
        }
        self.heard = heard;
        false
    }

    /// One call of the output side. Whether there is more to do.
    fn write(&mut self, room: usize) -> bool {
        self.calls += 1;
        let mut none = EvBuffer::new();
        let source = if self.tls.handshaking() {
            &mut none
        } else {
            &mut self.unsent
        };
        let before = (source.len(), self.sent.len());
        let mut sink = Sink::new(&mut self.sent, room);
        let verdict = self.tls.output(source, &mut sink, self.mode);
        let after = (source.len(), self.sent.len());
        let said = after.1 - before.1;
        assert!(said <= room, "more than there is room for");
        self.bytes_said += said;
        let allowed = self.wrote.len() + self.wrote.len() / 64 + self.bytes_heard;
        let allowed = allowed + SAID_PER_CALL * self.calls + SAID_AT_FIRST;
        assert!(self.bytes_said <= allowed, "{} bytes", self.bytes_said);
        match verdict {
            Ok(Verdict::NeedInput) => {
                assert_eq!(after.0, 0, "what is there was enough to go on");
                false
            }
            Ok(Verdict::End) => {
                assert_eq!(self.mode, Mode::Finished);
                false
            }
            Ok(Verdict::Full) => {
                assert!(room == 0 || before != after, "full, and nothing went");
                room > 0
            }
            Ok(Verdict::Progress) => {
                assert_ne!(before, after, "progress, and nothing went");
                true
            }
            Err(_) => {
                assert!(self.is_failed(), "only what came can break it");
                assert!(said == 0 || !self.silent, "the alert is the last");
                self.silent = true;
                false
            }
        }
    }

    /// Says and hears all that it can.
    fn settle(&mut self) {
        until_done(|| self.read(usize::MAX));
        until_done(|| self.write(usize::MAX));
    }
}

fn until_done(mut call: impl FnMut() -> bool) {
    assert!((0..MAX_CALLS).any(|_| !call()), "it spins");
}

struct Run<'a> {
    choices: Choices<'a>,
    crypto: Crypto,
    ends: [End; 2],
}

/// Runs the two ends and the one between them as `data` says.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let first = choices.byte();
    let agreement = Agreement::ALL[usize::from(first) % Agreement::ALL.len()];
    let (client, server) = agreement.filters();
    let mut run = Run {
        choices,
        crypto: agreement.crypto(),
        ends: [End::new(client), End::new(server)],
    };
    if first & 0x80 != 0 {
        run.settle();
    }
    for _ in 0..MAX_OPERATIONS {
        if run.choices.is_over() {
            break;
        }
        run.operate();
        run.check();
    }
    run.settle();
    run.check();
    run.check_arrived();
}

impl Run<'_> {
    fn operate(&mut self) {
        let what = self.choices.byte();
        let from = usize::from(what >> 7);
        let count = match what & 0x40 {
            0 => self.choices.below(64),
            _ => self.choices.below(1 << 15),
        };
        let end = &mut self.ends[from];
        match what & 0x0f {
            0 | 1 if end.mode == Mode::Normal => {
                let bytes: Vec<u8> = (0..count)
                    .map(|i| (i / 3 + end.wrote.len()) as u8)
                    .collect();
                end.unsent.append_slice(&bytes).expect("there is memory");
                end.wrote.extend(bytes);
            }
            2 => end.mode = Mode::Finished,
            3 => drop(end.write(count)),
            4 => drop(end.read(count)),
            0 | 1 | 5 => self.carry(from, count),
            6 => {
                let dropped = end.sent.drain(count);
                self.interfered(from, dropped);
            }
            7 => self.repeat(from, count),
            8 => self.reorder(from, count),
            9 => self.flip(from, count),
            10 => self.invent(from, count),
            11 | 12 => self.invent_record(from, what & 0x20 != 0),
            13 if what & 0x20 != 0 => end.below = Mode::Finished,
            13 | 14 if !end.tls.handshaking() => {
                // TLS 1.2 has none, and refuses.
                let _ = end.tls.refresh_traffic_keys();
            }
            _ => self.settle(),
        }
    }

    /// Bytes go over, as they are.
    fn carry(&mut self, from: usize, count: usize) {
        let [a, b] = &mut self.ends;
        let (end, other) = if from == 0 { (a, b) } else { (b, a) };
        if other.below == Mode::Normal {
            let carried = end.sent.move_to(count, &mut other.arrived);
            carried.expect("there is memory");
        }
    }

    fn interfered(&mut self, from: usize, bytes: usize) {
        if bytes > 0 {
            self.ends[1 - from].way = Way::Changed;
        }
    }

    fn arrive(&mut self, from: usize, bytes: &[u8]) {
        let other = &mut self.ends[1 - from];
        if other.below == Mode::Normal {
            other.arrived.append_slice(bytes).expect("there is memory");
            self.interfered(from, bytes.len());
        }
    }

    /// Bytes go over, and will once more.
    fn repeat(&mut self, from: usize, count: usize) {
        let mut bytes = vec![0; count];
        let there = self.ends[from].sent.copy_out(&mut bytes);
        self.arrive(from, &bytes[..there]);
    }

    /// The first bytes go to the back.
    fn reorder(&mut self, from: usize, count: usize) {
        let sent = &mut self.ends[from].sent;
        let mut bytes = vec![0; count];
        let there = sent.remove(&mut bytes);
        let all = sent.is_empty();
        let back = sent.append_slice(&bytes[..there]);
        back.expect("there is memory");
        self.interfered(from, if all { 0 } else { there });
    }

    fn flip(&mut self, from: usize, at: usize) {
        let mask = self.choices.byte();
        let sent = &mut self.ends[from].sent;
        let mut bytes = vec![0; sent.len()];
        sent.remove(&mut bytes);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= mask;
            self.interfered(from, usize::from(mask));
        }
        let back = self.ends[from].sent.append_slice(&bytes);
        back.expect("there is memory");
    }

    /// Any bytes.
    fn invent(&mut self, from: usize, count: usize) {
        let bytes = self.choices.take(count);
        self.arrive(from, bytes);
    }

    /// What has the form of a record, many times: in the clear, or as a peer with the right keys would send it.
    fn invent_record(&mut self, from: usize, many: bool) {
        let kind = 20 + self.choices.byte() % 5;
        let times = if many {
            1 + self.choices.below(MAX_REPEATED)
        } else {
            1
        };
        let count = self.choices.below(32);
        let content = self.choices.take(count);
        let record = match (self.crypto, self.choices.byte() & 1) {
            (Crypto::Null, 1) => forged(kind, content),
            (Crypto::Null | Crypto::Real, _) => {
                [&[kind, 3, 3, 0, content.len() as u8][..], content].concat()
            }
        };
        self.arrive(from, &record.repeat(times));
    }

    /// Both ends say and hear all they can, until neither has anything to say.
    fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            for end in &mut self.ends {
                end.settle();
            }
            let waiting = [0, 1].map(|from| {
                let reachable = self.ends[1 - from].below == Mode::Normal;
                reachable && !self.ends[from].sent.is_empty()
            });
            if waiting == [false; 2] {
                return;
            }
            for from in 0..2 {
                self.carry(from, usize::MAX);
            }
        }
        panic!("they talk for ever");
    }

    fn check(&self) {
        if self.crypto == Crypto::Null {
            return;
        }
        for (end, other) in [(0, 1), (1, 0)] {
            let (end, other) = (&self.ends[end], &self.ends[other]);
            let mut got = vec![0; end.got.len()];
            end.got.copy_out(&mut got);
            assert!(other.wrote.starts_with(&got), "nobody wrote this");
            if end.heard == Heard::Ended {
                assert_eq!(other.mode, Mode::Finished, "nobody has ended it");
                assert_eq!(got.len(), other.wrote.len(), "the end comes last");
            }
        }
    }

    /// If nobody has interfered, all is there.
    fn check_arrived(&self) {
        let untouched = |end: &End| end.way == Way::Untouched && end.below == Mode::Normal;
        if !self.ends.iter().all(untouched) {
            return;
        }
        for (end, other) in [(0, 1), (1, 0)] {
            let (end, other) = (&self.ends[end], &self.ends[other]);
            assert!(!end.tls.handshaking());
            assert!(end.unsent.is_empty() && end.sent.is_empty());
            assert_eq!(end.got.len(), other.wrote.len());
            let expected = match other.mode {
                Mode::Finished => Heard::Ended,
                Mode::Normal | Mode::Flush => Heard::Open,
            };
            assert_eq!(end.heard, expected);
        }
    }
}
