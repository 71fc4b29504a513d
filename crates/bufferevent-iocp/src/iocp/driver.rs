//! The port: what is started, and what packets mean.
//!
//! ```text
//! receive   Rest --wait--> no bytes lent, a packet when there are --> a block lent --> told --> Rest
//! accept    a socket lent --> told, the next lent --> ...
//! send, connect   lent --> told
//! ```
//!
//! # Invariants
//! - A socket's key is its lane, and a packet's address is the operation's: it is compared with those under way on that lane and never
//!   followed, so a packet that is nobody's harms nobody.
//! - Memory that is lent is a [`Lent`]: dropped while it is out, it is leaked.
//! - Nothing is started but in [`Driver::wait`], so no lock of the desk is held around a call of the system.
//! - What goes on without a packet (a receive that has brought bytes, a full batch of accepts) goes on in the next wait: a cancellation
//!   comes in between, and no peer keeps a wait from ending.
//! - When the driver goes, every operation is cancelled and waited for, at most [`LAST_WAIT`]; what the system has then is leaked.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evbuffer::{BLOCK_LEN, Block, EvBuffer};
use evreactor::RawSource;
use socket2::{SockAddr, Socket};

use super::buffers::Buffers;
use super::calls::{self, Accepting, Batch, Begun, CompletionPort, Packet};
use super::detect::{Functions, functions};
use super::lent::Lent;
use super::sends::{Outgoing, Sends};
use crate::desk::{CANCELLED, NO_SOURCE};
use crate::driver::{Completion, Done, Driver, Lane, Operation, Verb, Waker};
use crate::unavailable::Unavailable;

/// Batches of packets that are dequeued before the loop has its turn.
const BATCHES: usize = 8;

/// Connections that one listener accepts before the loop has its turn.
const ACCEPTS: usize = 64;

/// How long receives without memory for a block wait before they try again.
const DRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a driver that goes waits for what it has cancelled.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The longest wait that is asked for at once: below what stands for "for ever".
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A receive, from its submission to its last completion.
struct Receiving {
    /// With a block, bytes are fetched; without, they are waited for.
    lent: Lent<Option<Block>>,
    /// It was told to end: nothing of it is started any more.
    cancelled: bool,
    /// There are likely to be more bytes: they need not be waited for.
    more: bool,
}

/// An accept, from its submission to its last completion.
struct Listening {
    lent: Option<Lent<Accepting>>,
    cancelled: bool,
}

/// What is under way on one socket.
struct Row {
    socket: RawSource,
    /// Why the socket has no place here.
    refused: Option<i32>,
    /// What succeeds at once posts no packet.
    skips: bool,
    receive: Option<Box<Receiving>>,
    accept: Option<Box<Listening>>,
    send: Option<Lent<Outgoing>>,
    connect: Option<Lent<SockAddr>>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            socket: NO_SOURCE,
            refused: None,
            skips: false,
            receive: None,
            accept: None,
            send: None,
            connect: None,
        }
    }
}

/// The driver. See the module.
pub(crate) struct Iocp {
    rows: Vec<Row>,
    port: Arc<CompletionPort>,
    functions: Functions,
    buffers: Buffers,
    sends: Sends,
    /// Submitted, and started by the next wait.
    staged: Vec<Operation>,
    /// What the next wait goes on with.
    again: Vec<(Lane, Verb)>,
    /// Receives that found no memory for a block.
    dry: Vec<Lane>,
    done: Vec<Completion>,
    /// Operations that the system has memory of.
    under_way: usize,
    batch: Batch,
    packets: Vec<Packet>,
    closing: bool,
}

impl Waker for CompletionPort {
    fn wake(&self) -> io::Result<()> {
        self.ring()
    }
}

impl Iocp {
    /// A port of its own.
    pub(crate) fn new() -> Result<Self, Unavailable> {
        let functions = functions()?;
        let port = CompletionPort::new().map_err(|source| {
            let hint = "the system has no resources left for it";
            Unavailable::new("no completion port could be made", hint, Some(source))
        })?;
        Ok(Self {
            rows: Vec::new(),
            port: Arc::new(port),
            functions,
            buffers: Buffers::new(),
            sends: Sends::new(),
            staged: Vec::new(),
            again: Vec::new(),
            dry: Vec::new(),
            done: Vec::new(),
            under_way: 0,
            batch: Batch::new(),
            packets: Vec::new(),
            closing: false,
        })
    }

    fn tell(&mut self, lane: Lane, last: bool, done: Done) {
        self.done.push(Completion { lane, last, done });
    }

    /// The row of a socket, which comes here from now on.
    fn open(&mut self, lane: Lane, socket: RawSource) {
        if self.rows.len() <= lane.index() {
            self.rows.resize_with(lane.index() + 1, Row::default);
        }
        let row = &mut self.rows[lane.index()];
        debug_assert!(
            row.receive.is_none() && row.send.is_none(),
            "a lane is used again when nothing is under way"
        );
        let refused = self.port.associate(socket, lane.index()).err();
        if let Some(error) = &refused {
            tracing::warn!(%error, "a socket could not be taken over");
        }
        *row = Row {
            socket,
            refused: refused.map(|error| error.raw_os_error().unwrap_or(NOT_SUPPORTED)),
            skips: self.functions.skips && calls::skip_on_success(socket),
            ..Row::default()
        };
    }

    /// Why nothing can be started on a lane, if so.
    fn refused(&self, lane: Lane) -> Option<io::Error> {
        match self.rows.get(lane.index()) {
            Some(row) => row.refused.map(io::Error::from_raw_os_error),
            None => Some(io::ErrorKind::NotConnected.into()),
        }
    }

    fn start(&mut self, operation: Operation) {
        match operation {
            Operation::Open { lane, socket } => self.open(lane, socket),
            Operation::Receive { lane, .. } => match self.refused(lane) {
                Some(error) => self.tell(lane, true, Done::Received(Err(error))),
                None => {
                    self.rows[lane.index()].receive = Some(Box::new(Receiving {
                        lent: Lent::new(None),
                        cancelled: false,
                        more: false,
                    }));
                    self.receive(lane);
                }
            },
            Operation::Send { lane, bytes, .. } => self.send(lane, bytes),
            Operation::Connect { lane, address, .. } => {
                if let Err(error) = self.connect(lane, address) {
                    self.tell(lane, true, Done::Connected(Err(error)));
                }
            }
            Operation::Accept { lane, .. } => match self.refused(lane) {
                Some(error) => self.tell(lane, true, Done::Accepted(Err(error))),
                None => {
                    self.rows[lane.index()].accept = Some(Box::new(Listening {
                        lent: None,
                        cancelled: false,
                    }));
                    self.accept(lane);
                }
            },
            Operation::Cancel { lane, verb } => self.cancel(lane, verb),
            // Every lane has a socket here: the desk ends and closes it. `watches` says no.
            Operation::Finish { .. }
            | Operation::Close { .. }
            | Operation::Watch { .. }
            | Operation::Unwatch { .. } => {}
        }
    }

    /// Goes on with what is at rest.
    fn go_on(&mut self) {
        let (again, dry) = (mem::take(&mut self.again), mem::take(&mut self.dry));
        for (lane, verb) in again {
            match verb {
                Verb::Receive => self.receive(lane),
                Verb::Accept => self.accept(lane),
                Verb::Send | Verb::Connect => {}
            }
        }
        for lane in dry {
            self.receive(lane);
        }
    }

    // ---- receiving ----

    /// Waits for bytes, or fetches those that are there.
    fn receive(&mut self, lane: Lane) {
        let row = &mut self.rows[lane.index()];
        let Some(receiving) = &mut row.receive else {
            return;
        };
        if receiving.lent.is_out() {
            return;
        }
        if !receiving.more {
            match calls::receive(row.socket, &mut receiving.lent, row.skips) {
                Ok(Begun::Pending) => {
                    self.under_way += 1;
                    return;
                }
                Ok(Begun::Over(_)) => receiving.more = true,
                Err(error) => return self.end_receive(lane, Err(error)),
            }
        }
        self.fetch(lane);
    }

    /// Fetches bytes, or an end.
    fn fetch(&mut self, lane: Lane) {
        let row = &mut self.rows[lane.index()];
        let Some(receiving) = &mut row.receive else {
            return;
        };
        let Ok(block) = self.buffers.take() else {
            receiving.more = true;
            return self.dry.push(lane);
        };
        *receiving.lent.payload() = Some(block);
        match calls::receive(row.socket, &mut receiving.lent, row.skips) {
            Ok(Begun::Pending) => self.under_way += 1,
            Ok(Begun::Over(length)) => self.fetched(lane, length),
            Err(error) => self.end_receive(lane, Err(error)),
        }
    }

    /// So many bytes have come.
    fn fetched(&mut self, lane: Lane, length: usize) {
        let Some(receiving) = &mut self.rows[lane.index()].receive else {
            return;
        };
        let Some(block) = receiving.lent.payload().take() else {
            return;
        };
        if length == 0 {
            return self.end_receive(lane, Ok(EvBuffer::new()));
        }
        match Buffers::filled(block, length) {
            Err(error) => self.end_receive(lane, Err(io::Error::other(error))),
            Ok(bytes) if receiving.cancelled => self.end_receive(lane, Ok(bytes)),
            Ok(bytes) => {
                receiving.more = length == BLOCK_LEN;
                self.again.push((lane, Verb::Receive));
                self.tell(lane, false, Done::Received(Ok(bytes)));
            }
        }
    }

    fn end_receive(&mut self, lane: Lane, result: io::Result<EvBuffer>) {
        self.rows[lane.index()].receive = None;
        self.tell(lane, true, Done::Received(result));
    }

    // ---- sending ----

    fn send(&mut self, lane: Lane, bytes: EvBuffer) {
        let outgoing = match self.refused(lane) {
            Some(error) => Err((bytes, error)),
            None => self.sends.outgoing(bytes),
        };
        let outgoing = match outgoing {
            Ok(outgoing) => outgoing,
            Err((bytes, error)) => {
                let (sent, result) = (0, Err(error));
                return self.tell(lane, true, sent_of(bytes, sent, result));
            }
        };
        let row = &mut self.rows[lane.index()];
        let mut lent = Lent::new(outgoing);
        match calls::send(row.socket, &mut lent, row.skips) {
            Ok(Begun::Pending) => {
                row.send = Some(lent);
                self.under_way += 1;
                self.tell(lane, false, Done::Slow);
            }
            Ok(Begun::Over(length)) => self.end_send(lane, lent, Ok(length)),
            Err(error) => self.end_send(lane, lent, Err(error)),
        }
    }

    fn end_send(&mut self, lane: Lane, mut lent: Lent<Outgoing>, result: io::Result<usize>) {
        let bytes = mem::take(&mut lent.payload().bytes);
        let (sent, result) = match result {
            Ok(0) => (0, Err(io::ErrorKind::WriteZero.into())),
            Ok(sent) => (sent.min(bytes.len()), Ok(())),
            Err(error) => (0, Err(error)),
        };
        self.tell(lane, true, sent_of(bytes, sent, result));
    }

    // ---- connecting ----

    fn connect(&mut self, lane: Lane, address: SockAddr) -> io::Result<()> {
        if let Some(error) = self.refused(lane) {
            return Err(error);
        }
        let row = &mut self.rows[lane.index()];
        calls::bind_anywhere(row.socket, &address)?;
        let mut lent = Lent::new(address);
        match calls::connect(&self.functions, row.socket, &mut lent, row.skips)? {
            Begun::Pending => {
                row.connect = Some(lent);
                self.under_way += 1;
            }
            Begun::Over(_) => {
                let result = calls::update_connected(row.socket);
                self.tell(lane, true, Done::Connected(result));
            }
        }
        Ok(())
    }

    // ---- accepting ----

    /// Accepts what waits already, and leaves one accept under way.
    fn accept(&mut self, lane: Lane) {
        for _ in 0..ACCEPTS {
            let row = &mut self.rows[lane.index()];
            let Some(listening) = &mut row.accept else {
                return;
            };
            if listening.lent.is_some() {
                return;
            }
            let begun = calls::fresh_for(row.socket).and_then(|socket| {
                let lent = listening.lent.insert(Lent::new(Accepting::new(socket)));
                calls::accept(&self.functions, row.socket, lent, row.skips)
            });
            match begun {
                Ok(Begun::Pending) => {
                    self.under_way += 1;
                    return;
                }
                Ok(Begun::Over(_)) => self.accepted(lane, Ok(0)),
                Err(error) => return self.accepted(lane, Err(error)),
            }
        }
        self.again.push((lane, Verb::Accept));
    }

    /// A connection was accepted, or could not be; an error ends the operation.
    fn accepted(&mut self, lane: Lane, result: io::Result<usize>) {
        let row = &mut self.rows[lane.index()];
        let Some(listening) = &mut row.accept else {
            return;
        };
        let cancelled = listening.cancelled;
        let result = match (result, listening.lent.take()) {
            (Ok(_), Some(lent)) => welcome(lent, row.socket),
            (Ok(_), None) => return,
            (Err(error), _) => Err(error),
        };
        let last = cancelled || result.is_err();
        if last {
            row.accept = None;
        }
        self.tell(lane, last, Done::Accepted(result));
    }

    // ---- ending ----

    fn cancel(&mut self, lane: Lane, verb: Verb) {
        let Some(row) = self.rows.get_mut(lane.index()) else {
            return;
        };
        match verb {
            Verb::Receive => {
                let Some(receiving) = &mut row.receive else {
                    return;
                };
                receiving.cancelled = true;
                if receiving.lent.is_out() {
                    return calls::cancel(row.socket, &receiving.lent);
                }
                // At rest between two calls.
                self.again.retain(|waits| *waits != (lane, verb));
                self.dry.retain(|waits| *waits != lane);
                self.end_receive(lane, Err(cancelled()));
            }
            Verb::Accept => {
                let Some(listening) = &mut row.accept else {
                    return;
                };
                listening.cancelled = true;
                if let Some(lent) = &listening.lent {
                    return calls::cancel(row.socket, lent);
                }
                self.again.retain(|waits| *waits != (lane, verb));
                self.accepted(lane, Err(cancelled()));
            }
            Verb::Send => {
                if let Some(lent) = &row.send {
                    calls::cancel(row.socket, lent);
                }
            }
            Verb::Connect => {
                if let Some(lent) = &row.connect {
                    calls::cancel(row.socket, lent);
                }
            }
        }
    }

    // ---- packets ----

    fn complete(&mut self, packet: &Packet) {
        let lane = Lane::new(packet.key());
        let Some(row) = self.rows.get_mut(lane.index()) else {
            return tracing::error!("a packet came that is nobody's");
        };
        let socket = row.socket;
        if let Some(receiving) = row.receive.as_mut().filter(|op| packet.is_of(&op.lent)) {
            self.under_way -= 1;
            let result = calls::outcome(socket, &mut receiving.lent, packet);
            let fetches = receiving.lent.payload().is_some();
            let cancelled = receiving.cancelled;
            return match result {
                Err(error) => self.end_receive(lane, Err(as_cancelled(error, cancelled))),
                Ok(length) if fetches => self.fetched(lane, length),
                Ok(_) if cancelled || self.closing => {
                    self.end_receive(lane, Err(self::cancelled()));
                }
                Ok(_) => self.fetch(lane),
            };
        }
        if let Some(lent) = row.send.take_if(|lent| packet.is_of(lent)) {
            self.under_way -= 1;
            let mut lent = lent;
            let result = calls::outcome(socket, &mut lent, packet);
            return self.end_send(lane, lent, result);
        }
        if let Some(listening) = &mut row.accept
            && let Some(lent) = listening.lent.as_mut().filter(|lent| packet.is_of(lent))
        {
            self.under_way -= 1;
            let result = calls::outcome(socket, lent, packet);
            let cancelled = listening.cancelled;
            self.accepted(lane, result.map_err(|error| as_cancelled(error, cancelled)));
            self.again.push((lane, Verb::Accept));
            return;
        }
        if let Some(mut lent) = row.connect.take_if(|lent| packet.is_of(lent)) {
            self.under_way -= 1;
            let result = calls::outcome(socket, &mut lent, packet)
                .and_then(|_| calls::update_connected(socket));
            return self.tell(lane, true, Done::Connected(result));
        }
        tracing::error!("a packet came that is nobody's");
    }

    /// Dequeues what is there, after a wait of so many milliseconds at most.
    fn dequeue(&mut self, milliseconds: u32) -> io::Result<()> {
        let mut milliseconds = milliseconds;
        for _ in 0..BATCHES {
            let mut packets = mem::take(&mut self.packets);
            let more = self
                .port
                .dequeue(milliseconds, &mut self.batch, &mut packets);
            for packet in packets.drain(..) {
                self.complete(&packet);
            }
            self.packets = packets;
            if !more? {
                break;
            }
            milliseconds = 0;
        }
        Ok(())
    }
}

/// For `GetQueuedCompletionStatusEx`: rounded up, as a timer is never early.
fn milliseconds(timeout: Option<Duration>) -> u32 {
    timeout.map_or(u32::MAX, |timeout| {
        timeout.min(LONGEST_WAIT).as_nanos().div_ceil(1_000_000) as u32
    })
}

/// What stands for a refusal that the system gave no number: `WSAEOPNOTSUPP`.
const NOT_SUPPORTED: i32 = 10045;

fn sent_of(bytes: EvBuffer, sent: usize, result: io::Result<()>) -> Done {
    Done::Sent {
        bytes,
        sent,
        result,
    }
}

/// The socket of an accept that has succeeded.
fn welcome(mut lent: Lent<Accepting>, listener: RawSource) -> io::Result<Socket> {
    calls::update_accepted(&lent.payload().socket, listener)?;
    Ok(lent.into_payload().socket)
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(CANCELLED)
}

/// Systems have several numbers for what was told to end.
fn as_cancelled(error: io::Error, was_cancelled: bool) -> io::Error {
    if was_cancelled { cancelled() } else { error }
}

impl Driver for Iocp {
    fn submit(&mut self, operation: Operation) {
        self.staged.push(operation);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // First what was submitted: a cancellation finds what is at rest.
        let mut staged = mem::take(&mut self.staged);
        for operation in staged.drain(..) {
            self.start(operation);
        }
        self.staged = staged;
        self.go_on();
        let limit = if !self.done.is_empty() || !self.again.is_empty() {
            Some(Duration::ZERO)
        } else if !self.dry.is_empty() {
            Some(timeout.map_or(DRY_PAUSE, |timeout| timeout.min(DRY_PAUSE)))
        } else {
            timeout
        };
        self.dequeue(milliseconds(limit))
    }

    fn reap(&mut self, told: &mut dyn FnMut(Completion)) {
        self.done.drain(..).for_each(told);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.port.clone()
    }
}

impl Drop for Iocp {
    fn drop(&mut self) {
        self.closing = true;
        for row in &mut self.rows {
            if let Some(receiving) = &mut row.receive {
                receiving.cancelled = true;
                calls::cancel(row.socket, &receiving.lent);
            }
            if let Some(listening) = &mut row.accept {
                listening.cancelled = true;
                if let Some(lent) = &listening.lent {
                    calls::cancel(row.socket, lent);
                }
            }
            if let Some(lent) = &row.send {
                calls::cancel(row.socket, lent);
            }
            if let Some(lent) = &row.connect {
                calls::cancel(row.socket, lent);
            }
        }
        let start = Instant::now();
        while self.under_way > 0 && start.elapsed() < LAST_WAIT {
            if let Err(error) = self.dequeue(milliseconds(Some(DRY_PAUSE))) {
                tracing::error!(%error, "the completion port cannot be waited on any more");
                break;
            }
            self.done.clear();
        }
        if self.under_way > 0 {
            // A `Lent` that is dropped while it is out leaks what it names.
            tracing::error!(
                operations = self.under_way,
                "the system did not end what was under way; its memory is leaked"
            );
        }
    }
}
