//! The desk: what is under way on each socket, what came of it, and what is to be handed to the driver next.
//!
//! ```text
//! receive   Idle --want--> Running --BURST, or READ_AHEAD for a turn--> Cancelling --last--> Idle
//!                             `--last: bytes--> Idle      `--last: end or error--> Ended
//! send      Idle --push--> Staged --wait--> Under way --all out--> Idle
//!                                               `--part--> Staged, slow
//! ```
//!
//! # Invariants
//! - A lane is in one state per direction, and only this file changes it.
//! - A descriptor is closed when its lane is let go of: detached, and no operation under way.
//! - Nothing of the user's is dropped here: what is done with goes to `trash`, for whoever holds the lock to drop behind it.
//! - Bytes handed over are as the system's own: a bufferevent that is freed does not take them back.
//!
//! It is apart from `port.rs` so that every change of state is one method call without lock, thread or system.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::Shutdown;

use evbuffer::EvBuffer;
use evreactor::{Hold, RawSource, Ready, Timer, Token};
use slab::Slab;
use socket2::{SockAddr, Socket};

use crate::driver::{Completion, Done, Driver, Lane, Operation, Verb};

/// Bytes of one socket that may wait for longer than a turn, because its bufferevent has no room for them. Above it, receiving stops until
/// they are taken: the kernel's own buffer is the better place.
pub(crate) const READ_AHEAD: usize = 64 * 1024;

/// Bytes of one socket that may arrive within a turn, before its bufferevent could look: what a fast peer sends meanwhile. To
/// stop and start again for each block of a bulk transfer would cost more than it saves.
const BURST: usize = 128 * 1024;

/// Bytes of one socket that are handed over at a time. As many as a bufferevent moves per turn: more would only hide the
/// output from its marks and timeouts.
pub(crate) const MAX_UNDER_WAY: usize = 256 * 1024;

/// Connections that were accepted and not fetched, per listener. Above it, accepting stops.
const MAX_ACCEPTED: usize = 256;

/// The number of no descriptor.
pub(crate) const NO_SOURCE: RawSource = !0;

/// Nobody is told: the bufferevent has gone.
const NOBODY: usize = usize::MAX;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Inward {
    Idle,
    Running,
    /// It was told to end; `again` if somebody has wanted more since.
    Cancelling {
        again: bool,
    },
    /// The stream has ended or failed: nothing more will be received.
    Ended,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outward {
    Idle,
    /// In `Desk::sends`, at this place.
    Staged(u32),
    UnderWay,
}

/// A connection that the library makes.
#[derive(Debug, Default)]
enum Link {
    #[default]
    None,
    Running,
    Over(io::Result<()>),
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Eof,
    Failed(io::Error),
}

struct Entry {
    token: usize,
    socket: Option<Socket>,
    /// The driver has heard of the socket.
    known: bool,
    inward: Inward,
    outward: Outward,
    /// The bufferevent wants to hear when its send is over.
    waits: bool,
    /// The send that is under way did not go at once.
    slow: bool,
    /// That is to be told, or the opposite.
    news: bool,
    arrived: EvBuffer,
    /// The turn in which the first of it came.
    arrived_in: u32,
    ending: Option<Ending>,
    send_error: Option<io::Error>,
    link: Link,
    /// Listeners only.
    accepted: Option<Box<Accepted>>,
    /// The driver is to hear that it is over.
    closing: bool,
    /// How long a lane may stay without a bufferevent.
    linger: Option<Box<Timer>>,
}

// One for each connection, at rest too; what few have is boxed.
#[cfg(target_os = "linux")]
const _: () = assert!(size_of::<Entry>() <= 144 || usize::BITS != 64);

/// What a listener has yet to fetch.
#[derive(Default)]
struct Accepted(VecDeque<io::Result<Socket>>);

struct StagedSend {
    lane: Lane,
    bytes: EvBuffer,
    quiet: bool,
}

/// What a bufferevent finds when it fetches what was received.
pub(crate) enum Fetched {
    /// There may be more to fetch.
    More,
    /// More will be told of.
    Waits,
    /// The stream is over.
    Over(Ending),
}

/// What a bufferevent may do about sending.
pub(crate) enum Sending {
    /// This many bytes can be taken.
    Takes(usize),
    /// Nothing until it is told.
    Waits,
    /// Nothing any more.
    Failed(io::Error),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Desk {
    entries: Slab<Entry>,
    operations: Vec<Operation>,
    sends: Vec<StagedSend>,
    told: Vec<(Token, Ready)>,
    trash: Vec<EvBuffer>,
    timers: Vec<Timer>,
    /// Lanes without a bufferevent, on which something is under way yet.
    orphans: usize,
    /// Keeps the loop running while there are any.
    hold: Option<Hold>,
    closed: bool,
    /// Counts the driver's waits.
    turn: u32,
}

/// What is to be dropped behind the lock.
#[derive(Default)]
pub(crate) struct Trash {
    bytes: Vec<EvBuffer>,
    timers: Vec<Timer>,
    hold: Option<Hold>,
}

impl Trash {
    pub(crate) fn clear(&mut self) {
        self.hold = None;
        self.timers.clear();
        self.bytes.clear();
    }
}

impl Desk {
    // ---- for bufferevents and listeners ----

    /// A lane for a socket, or for none where the driver brings its own.
    pub(crate) fn open(&mut self, socket: Option<Socket>, token: Token) -> io::Result<Lane> {
        if self.closed {
            return Err(closed());
        }
        let index = self.entries.insert(Entry {
            token: token.bits(),
            socket,
            known: false,
            inward: Inward::Idle,
            outward: Outward::Idle,
            waits: false,
            slow: false,
            news: false,
            arrived: EvBuffer::new(),
            arrived_in: 0,
            ending: None,
            send_error: None,
            link: Link::None,
            accepted: None,
            closing: false,
            linger: None,
        });
        Ok(Lane::new(index))
    }

    pub(crate) fn socket(&self, lane: Lane) -> Option<&Socket> {
        self.entries.get(lane.index())?.socket.as_ref()
    }

    /// Hands what was received to `take`, which leaves what it has no room for, and sees to it that more is received.
    #[inline]
    pub(crate) fn fetch(&mut self, lane: Lane, take: impl FnOnce(&mut EvBuffer)) -> Fetched {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return Fetched::Over(Ending::Failed(closed()));
        };
        if !entry.arrived.is_empty() {
            take(&mut entry.arrived);
            if !entry.arrived.is_empty() {
                return Fetched::More;
            }
        }
        match entry.inward {
            Inward::Running | Inward::Cancelling { again: true } => Fetched::Waits,
            Inward::Cancelling { again: false } => {
                entry.inward = Inward::Cancelling { again: true };
                Fetched::Waits
            }
            Inward::Idle => {
                if self.closed {
                    return Fetched::Over(Ending::Failed(closed()));
                }
                self.receive(lane);
                Fetched::Waits
            }
            Inward::Ended if self.closed => Fetched::Over(Ending::Failed(closed())),
            Inward::Ended => Fetched::Over(entry.ending.take().unwrap_or(Ending::Eof)),
        }
    }

    fn receive(&mut self, lane: Lane) {
        let socket = self.introduce(lane);
        self.entries[lane.index()].inward = Inward::Running;
        self.operations.push(Operation::Receive { lane, socket });
    }

    /// The socket of a lane that is about to have an operation, so it stays open; the driver hears of it before.
    #[inline]
    fn introduce(&mut self, lane: Lane) -> RawSource {
        let entry = &mut self.entries[lane.index()];
        let socket = raw(entry.socket.as_ref());
        if !mem::replace(&mut entry.known, true) && entry.socket.is_some() {
            self.operations.push(Operation::Open { lane, socket });
        }
        socket
    }

    /// How many bytes can be staged now. If fewer than `length`, the bufferevent is told when that changes.
    #[inline]
    pub(crate) fn may_send(&mut self, lane: Lane, length: usize) -> Sending {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return Sending::Failed(closed());
        };
        if let Some(error) = entry.send_error.take() {
            return Sending::Failed(error);
        }
        if self.closed {
            return Sending::Failed(closed());
        }
        let room = match entry.outward {
            Outward::Idle => MAX_UNDER_WAY,
            Outward::Staged(place) => {
                MAX_UNDER_WAY.saturating_sub(self.sends[place as usize].bytes.len())
            }
            Outward::UnderWay => 0,
        };
        if room < length {
            self.wait_for_send(lane);
        }
        if room == 0 {
            Sending::Waits
        } else {
            Sending::Takes(room)
        }
    }

    /// The bufferevent is to hear when its send is over.
    fn wait_for_send(&mut self, lane: Lane) {
        let entry = &mut self.entries[lane.index()];
        entry.waits = true;
        if let Outward::Staged(place) = entry.outward {
            self.sends[place as usize].quiet = false;
        }
    }

    /// Stages bytes, behind those that are staged already.
    #[inline]
    pub(crate) fn send(&mut self, lane: Lane, bytes: &mut EvBuffer) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return;
        };
        if let Outward::Staged(place) = entry.outward {
            // Their sum is at most `MAX_UNDER_WAY`.
            let _ = self.sends[place as usize].bytes.append(bytes);
            return;
        }
        debug_assert_eq!(entry.outward, Outward::Idle, "asked `may_send` first");
        entry.outward = Outward::Staged(self.sends.len() as u32);
        self.sends.push(StagedSend {
            lane,
            bytes: mem::take(bytes),
            quiet: !entry.waits,
        });
        self.introduce(lane);
    }

    /// Ends the output if all of it is out; else the bufferevent is told when to try again.
    pub(crate) fn finish(&mut self, lane: Lane) -> bool {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return true;
        };
        if entry.outward != Outward::Idle {
            self.wait_for_send(lane);
            return false;
        }
        match &entry.socket {
            // The peer may be gone already: then there is nobody left to tell.
            Some(socket) => drop(socket.shutdown(Shutdown::Write)),
            None => self.operations.push(Operation::Finish { lane }),
        }
        true
    }

    /// What is new about the send that is under way: whether it takes long.
    pub(crate) fn send_news(&mut self, lane: Lane) -> (bool, Option<io::Error>) {
        match self.entries.get_mut(lane.index()) {
            Some(entry) => {
                entry.news = false;
                (entry.slow, entry.send_error.take())
            }
            None => (false, None),
        }
    }

    pub(crate) fn connect(&mut self, lane: Lane, address: SockAddr) {
        if self.entries.contains(lane.index()) {
            let socket = self.introduce(lane);
            self.entries[lane.index()].link = Link::Running;
            self.operations.push(Operation::Connect {
                lane,
                socket,
                address,
            });
        }
    }

    /// What came of the connection, once.
    pub(crate) fn connected(&mut self, lane: Lane) -> Option<io::Result<()>> {
        let entry = self.entries.get_mut(lane.index())?;
        match mem::take(&mut entry.link) {
            Link::Over(result) => Some(result),
            other @ (Link::None | Link::Running) => {
                entry.link = other;
                None
            }
        }
    }

    /// Has another hear of a lane from now on.
    pub(crate) fn tell_to(&mut self, lane: Lane, token: Token) {
        if let Some(entry) = self.entries.get_mut(lane.index()) {
            entry.token = token.bits();
        }
    }

    /// Accepts from now on, if it does not yet.
    pub(crate) fn accept(&mut self, lane: Lane) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return;
        };
        match entry.inward {
            Inward::Idle => {
                entry.inward = Inward::Running;
                let socket = self.introduce(lane);
                self.operations.push(Operation::Accept { lane, socket });
            }
            Inward::Cancelling { .. } => entry.inward = Inward::Cancelling { again: true },
            Inward::Running | Inward::Ended => {}
        }
    }

    /// Accepts no more; what was accepted already can still be fetched.
    pub(crate) fn stop_accepting(&mut self, lane: Lane) {
        self.cancel_inward(lane, Verb::Accept);
    }

    pub(crate) fn next_accepted(&mut self, lane: Lane) -> Option<io::Result<Socket>> {
        self.entries
            .get_mut(lane.index())?
            .accepted
            .as_mut()?
            .0
            .pop_front()
    }

    fn cancel_inward(&mut self, lane: Lane, verb: Verb) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return;
        };
        match entry.inward {
            Inward::Running => self.operations.push(Operation::Cancel { lane, verb }),
            Inward::Cancelling { .. } => {}
            Inward::Idle | Inward::Ended => return,
        }
        entry.inward = Inward::Cancelling { again: false };
    }

    /// The bufferevent has gone. Its lane stays until nothing is under way on it; the answer tells whether bytes of it are.
    pub(crate) fn detach(&mut self, lane: Lane, verb: Verb) -> bool {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return false;
        };
        entry.token = NOBODY;
        self.orphans += 1;
        self.trash.push(mem::take(&mut entry.arrived));
        entry.accepted = None;
        if matches!(entry.link, Link::Running) {
            let verb = Verb::Connect;
            self.operations.push(Operation::Cancel { lane, verb });
        }
        self.cancel_inward(lane, verb);
        // What waits for its completion needs one.
        self.wait_for_send(lane);
        let sends = self.entries[lane.index()].outward != Outward::Idle;
        self.let_go(lane);
        sends
    }

    /// Whether the loop has to be kept running for lanes without a bufferevent, and is not yet.
    pub(crate) fn lacks_hold(&self) -> bool {
        self.orphans > 0 && self.hold.is_none() && !self.closed
    }

    pub(crate) fn keep(&mut self, hold: Hold) {
        self.hold = Some(hold);
    }

    /// Bounds how long a detached lane may stay.
    pub(crate) fn linger(&mut self, lane: Lane, timer: Timer) {
        match self.entries.get_mut(lane.index()) {
            Some(entry) if entry.token == NOBODY => entry.linger = Some(Box::new(timer)),
            _ => self.timers.push(timer),
        }
    }

    /// A detached lane has lingered long enough. The timer of one that has gone was cancelled with it.
    pub(crate) fn give_up(&mut self, lane: Lane) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return;
        };
        if entry.token == NOBODY && entry.outward == Outward::UnderWay {
            let verb = Verb::Send;
            self.operations.push(Operation::Cancel { lane, verb });
        }
    }

    /// Asks for the socket back: no more is received. `None` until nothing is under way.
    pub(crate) fn stop(&mut self, lane: Lane) -> bool {
        self.cancel_inward(lane, Verb::Receive);
        self.wait_for_send(lane);
        self.entries.get(lane.index()).is_none_or(is_quiet)
    }

    /// Takes the socket and what was received and not fetched out of a lane that is quiet.
    pub(crate) fn take(&mut self, lane: Lane) -> Option<(Option<Socket>, EvBuffer)> {
        if !self.entries.get(lane.index()).is_some_and(is_quiet) {
            return None;
        }
        let entry = self.entries.remove(lane.index());
        Some((entry.socket, entry.arrived))
    }

    pub(crate) fn push_operation(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    // ---- for the port ----

    /// Whether the loop has something to do already, and must not wait.
    pub(crate) fn is_busy(&self) -> bool {
        !self.told.is_empty() || (self.orphans == 0 && self.hold.is_some())
    }

    pub(crate) fn take_told(&mut self) -> std::vec::Drain<'_, (Token, Ready)> {
        self.told.drain(..)
    }

    /// Exchanges what is to be dropped for the emptied lists of the last time.
    pub(crate) fn swap_trash(&mut self, trash: &mut Trash) {
        mem::swap(&mut self.trash, &mut trash.bytes);
        mem::swap(&mut self.timers, &mut trash.timers);
        if self.orphans == 0 {
            trash.hold = self.hold.take();
        }
    }

    /// Gives the driver what was staged.
    pub(crate) fn hand_over(&mut self, driver: &mut dyn Driver) {
        self.turn = self.turn.wrapping_add(1);
        let mut closed = Vec::new();
        for operation in self.operations.drain(..) {
            if let Operation::Close { lane } = operation {
                closed.push(lane);
            }
            driver.submit(operation);
        }
        for lane in closed {
            self.remove(lane);
        }
        for StagedSend { lane, bytes, quiet } in self.sends.drain(..) {
            let entry = &mut self.entries[lane.index()];
            entry.outward = Outward::UnderWay;
            let socket = raw(entry.socket.as_ref());
            driver.submit(Operation::Send {
                lane,
                socket,
                bytes,
                quiet,
            });
        }
    }

    /// The driver has gone, and with it all that was under way: nothing is handed over any more, and nobody is told.
    pub(crate) fn close(&mut self) -> Vec<Operation> {
        self.closed = true;
        let sends = self.sends.drain(..).map(|send| send.bytes);
        self.trash.extend(sends);
        self.told.clear();
        let mut orphans = Vec::new();
        for (index, entry) in &mut self.entries {
            entry.inward = Inward::Ended;
            entry.outward = Outward::Idle;
            entry.link = Link::None;
            self.timers.extend(entry.linger.take().map(|timer| *timer));
            if entry.token == NOBODY {
                orphans.push(Lane::new(index));
            }
        }
        for lane in orphans {
            self.remove(lane);
        }
        mem::take(&mut self.operations)
    }

    /// Takes in what came of an operation.
    #[inline]
    pub(crate) fn complete(&mut self, completion: Completion) {
        let Completion { lane, last, done } = completion;
        match done {
            Done::Received(result) => self.received(lane, last, result),
            Done::Sent {
                bytes,
                sent,
                result,
            } => self.sent(lane, bytes, sent, result),
            Done::Slow => self.slow(lane),
            Done::Connected(result) => {
                if let Some(entry) = self.entries.get_mut(lane.index()) {
                    entry.link = Link::Over(result);
                    self.tell(lane, Ready::WRITABLE);
                    self.let_go(lane);
                }
            }
            Done::Accepted(result) => self.accepted(lane, last, result),
            Done::Ready(token, ready) => self.told.push((token, ready)),
        }
    }

    #[inline]
    fn tell(&mut self, lane: Lane, ready: Ready) {
        let bits = self.entries[lane.index()].token;
        if bits == NOBODY {
            return;
        }
        match self.told.last_mut() {
            Some((token, before)) if token.bits() == bits => *before |= ready,
            _ => self.told.push((Token::from_bits(bits), ready)),
        }
    }

    #[inline]
    fn received(&mut self, lane: Lane, last: bool, result: io::Result<EvBuffer>) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return;
        };
        let cancelling = matches!(entry.inward, Inward::Cancelling { .. });
        let again = entry.inward == Inward::Cancelling { again: true };
        let ended = match result {
            Ok(bytes) if bytes.is_empty() => Some(Ending::Eof),
            Ok(mut bytes) => {
                if entry.arrived.is_empty() {
                    entry.arrived_in = self.turn;
                }
                if entry.token == NOBODY {
                    self.trash.push(bytes);
                } else if let Err(error) = entry.arrived.append(&mut bytes) {
                    entry.ending = Some(Ending::Failed(io::Error::other(error)));
                }
                None
            }
            Err(error) if cancelling && is_cancelled(&error) => None,
            Err(error) => Some(Ending::Failed(error)),
        };
        let most = if entry.arrived_in == self.turn {
            BURST
        } else {
            READ_AHEAD
        };
        let ended = ended.or(entry.ending.take());
        if let Some(ending) = ended {
            entry.ending = Some(ending);
            if last {
                entry.inward = Inward::Ended;
            } else {
                self.cancel_inward(lane, Verb::Receive);
            }
        } else if last {
            entry.inward = Inward::Idle;
            if again {
                self.receive(lane);
            }
        } else if entry.arrived.len() >= most && !cancelling {
            self.cancel_inward(lane, Verb::Receive);
        }
        self.tell(lane, Ready::READABLE);
        if last {
            self.let_go(lane);
        }
    }

    #[inline]
    fn sent(&mut self, lane: Lane, mut bytes: EvBuffer, sent: usize, result: io::Result<()>) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            self.trash.push(bytes);
            return;
        };
        let all = sent >= bytes.len();
        match result {
            _ if all => {
                entry.outward = Outward::Idle;
                self.trash.push(bytes);
            }
            Err(error) if !is_transient(&error) => {
                entry.outward = Outward::Idle;
                self.trash.push(bytes);
                // Nobody is left to be told of what a cancelled send of a lane without a bufferevent did not send.
                entry.send_error = Some(error);
                entry.news = true;
            }
            Ok(()) | Err(_) => {
                let mut out = EvBuffer::new();
                bytes.drain_into(sent, &mut out);
                self.trash.push(out);
                entry.outward = Outward::Staged(self.sends.len() as u32);
                entry.news |= !mem::replace(&mut entry.slow, true);
                self.sends.push(StagedSend {
                    lane,
                    bytes,
                    quiet: false,
                });
            }
        }
        let mut ready = Ready::EMPTY;
        if entry.outward == Outward::Idle {
            entry.news |= mem::take(&mut entry.slow);
            if mem::take(&mut entry.waits) {
                ready |= Ready::WRITABLE;
            }
        }
        if entry.news {
            ready |= Ready::ERROR;
        }
        let idle = entry.outward == Outward::Idle;
        let alone = entry.token == NOBODY;
        if !ready.is_empty() {
            self.tell(lane, ready);
        }
        if idle && alone {
            self.let_go(lane);
        }
    }

    /// A send takes long: its bufferevent is to know, unless it knows.
    fn slow(&mut self, lane: Lane) {
        if let Some(entry) = self.entries.get_mut(lane.index())
            && !mem::replace(&mut entry.slow, true)
        {
            entry.news = true;
            self.tell(lane, Ready::ERROR);
        }
    }

    fn accepted(&mut self, lane: Lane, last: bool, result: io::Result<Socket>) {
        let Some(entry) = self.entries.get_mut(lane.index()) else {
            return;
        };
        let again = entry.inward == Inward::Cancelling { again: true };
        let cancelled = matches!(&result, Err(error) if is_cancelled(error));
        if last {
            entry.inward = Inward::Idle;
        }
        if !cancelled && entry.token != NOBODY {
            let accepted = entry.accepted.get_or_insert_default();
            accepted.0.push_back(result);
            if accepted.0.len() >= MAX_ACCEPTED && !last {
                self.cancel_inward(lane, Verb::Accept);
            }
        }
        self.tell(lane, Ready::READABLE);
        if last && again {
            self.accept(lane);
        }
        if last {
            self.let_go(lane);
        }
    }

    /// Forgets a lane that nobody has any more and on which nothing is under way; its descriptor is closed by that.
    fn let_go(&mut self, lane: Lane) {
        let gone = self
            .entries
            .get(lane.index())
            .is_some_and(|entry| entry.token == NOBODY && is_quiet(entry));
        if gone {
            let entry = &mut self.entries[lane.index()];
            self.timers.extend(entry.linger.take().map(|timer| *timer));
            if entry.socket.is_some() || self.closed {
                self.remove(lane);
            } else if !mem::replace(&mut entry.closing, true) {
                // Its number is used again when the driver has heard of this.
                self.operations.push(Operation::Close { lane });
            }
        }
    }

    fn remove(&mut self, lane: Lane) {
        let entry = self.entries.remove(lane.index());
        self.orphans -= usize::from(entry.token == NOBODY);
        self.trash.push(entry.arrived);
    }

    /// Lanes that are in use.
    pub(crate) fn lanes(&self) -> usize {
        self.entries.len()
    }
}

/// Whether no operation is under way or about to be.
fn is_quiet(entry: &Entry) -> bool {
    matches!(entry.inward, Inward::Idle | Inward::Ended)
        && entry.outward == Outward::Idle
        && !matches!(entry.link, Link::Running)
}

pub(crate) fn raw(socket: Option<&Socket>) -> RawSource {
    #[cfg(unix)]
    return socket.map_or(NO_SOURCE, std::os::fd::AsRawFd::as_raw_fd);
    #[cfg(windows)]
    return socket.map_or(NO_SOURCE, std::os::windows::io::AsRawSocket::as_raw_socket);
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, evreactor_core::LoopClosed)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// What the system calls an operation that ended because it was told to: `ECANCELED`, `ERROR_OPERATION_ABORTED`.
pub(crate) const CANCELLED: i32 = if cfg!(windows) { 995 } else { 125 };

fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(CANCELLED)
}
