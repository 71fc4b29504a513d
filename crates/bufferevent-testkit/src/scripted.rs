//! A transport whose every read and write follows a script: short, would-block until a moment, failing, ending.
//!
//! # Invariants
//! - What the script does not say does not happen: a read script that is used up blocks for ever, a write
//!   script that is used up takes all.
//! - The transport writes down every call, so a test can see that nothing spins.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bufferevent_core::{Bev, Bufferevent, Context, Direction, Error, Options, Step};
use evreactor_core::{AsHost, Moment};

use crate::alarm::Alarm;

#[derive(Clone, Debug)]
enum Reading {
    Bytes(Vec<u8>),
    Eof,
    Fails(io::ErrorKind),
}

#[derive(Clone, Debug)]
enum Writing {
    Takes(usize),
    Fails(io::ErrorKind),
}

/// What a scripted transport does, and when, counted from the loop's start.
///
/// ```
/// use std::time::Duration;
/// use bufferevent_core::{Options, READ};
/// use bufferevent_testkit::{Loop, Script, scripted};
///
/// let events = Loop::new();
/// let script = Script::new().bytes(b"at once").at(Duration::from_secs(2)).bytes(b", later").eof();
/// let (bev, _trace) = scripted(&events, Options::EMPTY, script)?;
/// bev.enable(READ)?;
/// events.run();
/// assert_eq!(bev.input().len(), 7);
/// events.advance(Duration::from_secs(2));
/// assert_eq!(bev.input().len(), 14);
/// # Ok::<(), bufferevent_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Script {
    at: Moment,
    reads: VecDeque<(Moment, Reading)>,
    writes: VecDeque<(Moment, Writing)>,
}

impl Script {
    /// A transport that never brings anything and takes everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What follows is not before `time`.
    pub fn at(mut self, time: Duration) -> Self {
        self.at = Moment::ZERO + time;
        self
    }

    /// One read brings these bytes, or as many of them as there is room for.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.reads
            .push_back((self.at, Reading::Bytes(bytes.to_vec())));
        self
    }

    /// Reading comes to the end.
    pub fn eof(mut self) -> Self {
        self.reads.push_back((self.at, Reading::Eof));
        self
    }

    /// A read fails.
    pub fn read_fails(mut self, kind: io::ErrorKind) -> Self {
        self.reads.push_back((self.at, Reading::Fails(kind)));
        self
    }

    /// One write takes at most `count` bytes; with 0 this and every later one would block, until a later entry's time.
    pub fn takes(mut self, count: usize) -> Self {
        self.writes.push_back((self.at, Writing::Takes(count)));
        self
    }

    /// A write fails.
    pub fn write_fails(mut self, kind: io::ErrorKind) -> Self {
        self.writes.push_back((self.at, Writing::Fails(kind)));
        self
    }

    fn times(&self) -> Vec<Moment> {
        let reads = self.reads.iter().map(|(at, _)| *at);
        let mut times: Vec<_> = reads.chain(self.writes.iter().map(|(at, _)| *at)).collect();
        times.sort_unstable();
        times.dedup();
        times
    }
}

#[derive(Default)]
struct Seen {
    written: Vec<u8>,
    finished: bool,
    pulls: usize,
    pushes: usize,
    freed: Option<bool>,
}

/// What was done to a scripted transport.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Seen>>);

impl Trace {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that were written.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        self.seen().written.clone()
    }

    /// Whether the end mark was written behind them.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.seen().finished
    }

    /// How often it was asked to read.
    #[must_use]
    pub fn pulls(&self) -> usize {
        self.seen().pulls
    }

    /// How often it was asked to write.
    #[must_use]
    pub fn pushes(&self) -> usize {
        self.seen().pushes
    }

    /// Whether it was freed, and then whether it was to close what it borrowed.
    #[must_use]
    pub fn freed(&self) -> Option<bool> {
        self.seen().freed
    }
}

struct Scripted {
    script: Script,
    trace: Trace,
}

/// Makes a bufferevent over a transport that follows `script`.
///
/// # Errors
/// As [`Bev::transport`].
pub fn scripted(
    host: &impl AsHost,
    options: Options,
    script: Script,
) -> Result<(Bev, Trace), Error> {
    let trace = Trace::default();
    let times = script.times();
    let layer = Scripted {
        script,
        trace: trace.clone(),
    };
    let bev = Bev::transport(host.as_host(), options, layer)?;
    let alarm = Alarm::of(&bev)?;
    for at in times.into_iter().filter(|at| *at > Moment::ZERO) {
        alarm.set(at);
    }
    Ok((bev, trace))
}

const NAME: &str = "scripted";

fn failure(operation: &'static str, kind: io::ErrorKind) -> Error {
    Error::io(NAME, operation, kind.into())
}

impl Bufferevent for Scripted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        self.trace.seen().pulls += 1;
        let now = cx.now();
        let Some((at, what)) = self.script.reads.pop_front_if(|(at, _)| *at <= now) else {
            return Step::Blocked;
        };
        match what {
            Reading::Eof => cx.end_input(),
            Reading::Fails(kind) => cx.fail(Direction::Read, failure("read", kind)),
            Reading::Bytes(bytes) => {
                let count = cx.room().min(bytes.len());
                cx.add_input(&bytes[..count]).expect("a test has memory");
                if count < bytes.len() {
                    let rest = Reading::Bytes(bytes[count..].to_vec());
                    self.script.reads.push_front((at, rest));
                }
                return Step::Again;
            }
        }
        Step::Done
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        self.trace.seen().pushes += 1;
        if cx.finishing() {
            self.trace.seen().finished = true;
            cx.end_output();
            return Step::Done;
        }
        let now = cx.now();
        let most = match self.script.writes.front() {
            None => cx.share(),
            Some((at, _)) if *at > now => return Step::Blocked,
            Some((_, Writing::Takes(0))) => {
                // Until the next entry's time, if there is one.
                if self.script.writes.get(1).is_none_or(|(at, _)| *at > now) {
                    return Step::Blocked;
                }
                self.script.writes.pop_front();
                return self.push(cx);
            }
            Some((_, Writing::Takes(count))) => *count,
            Some((_, Writing::Fails(kind))) => {
                cx.fail(Direction::Write, failure("write", *kind));
                return Step::Done;
            }
        };
        let trace = self.trace.clone();
        let sent = cx.send(|output| {
            let mut bytes = vec![0; output.len().min(most)];
            let count = output.remove(&mut bytes);
            trace.seen().written.extend_from_slice(&bytes[..count]);
            count
        });
        if sent.is_some_and(|count| count > 0) {
            self.script.writes.pop_front();
        }
        Step::Again
    }

    fn freed(&mut self, _: &mut Context<'_>, close: bool) {
        self.trace.seen().freed = Some(close);
    }
}
