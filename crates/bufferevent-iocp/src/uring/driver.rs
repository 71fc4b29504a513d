//! The ring: what is submitted, and what completions mean.
//!
//! # Invariants
//! - An entry's name (`user_data`) is its kind and its lane, so a completion finds its operation without a table.
//! - A send is reported when the kernel has let go of its bytes: see the folder's rules.
//! - The queue of submissions is never overrun: when it is full, what is in it is submitted first. Completions are never lost: the kernel keeps
//!   those that do not fit, and they are fetched before a quiet send is believed.
//! - What completions give rise to is queued behind the last of them: entries of this turn are not begun within it, and bring nothing that the
//!   desk has not asked for. So a quiet send is believed when the queue is empty, and a lane moves in one turn what one turn allows.
//! - A receive that found no block is begun again when there are blocks. While there is no memory for any, that is tried every
//!   [`DRY_PAUSE`], and nothing spins.
//! - When the driver goes, every operation is cancelled and waited for, at most [`LAST_WAIT`]; memory that the kernel may still have then is leaked.

#![allow(
    unsafe_code,
    reason = "what is submitted points to memory that is lent"
)]

use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evbuffer::BLOCK_LEN;
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use socket2::{SockAddr, Socket};

use super::buffers::{Buffers, GROUP};
use super::detect::{check, refused, setup};
use super::receives::{Receiving, Way};
use super::sends::Sends;
use super::watches::{Ask, Watches};
use crate::driver::{Completion, Done, Driver, Lane, Operation, Verb, Waker};
use crate::unavailable::Unavailable;

/// Entries of the submission queue. More are submitted in several calls.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue: what one turn of a busy loop brings.
const COMPLETIONS: u32 = 8192;

/// How long a ring without a block, and without memory for one, waits before it tries again.
const DRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a driver that goes waits for what it has cancelled.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Reads of a lane of bulk in a row, so that it starves no other: 128 KiB.
const BULK_READS: usize = 2;

/// Calls that submit the rest of a queue before the loop goes on with what has completed.
const SUBMIT_CALLS: u32 = 64;

/// `IORING_ENTER_GETEVENTS`, which the crate keeps to itself.
const ENTER_GETEVENTS: u32 = 1;

const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CONNECT: u64 = 3;
const ACCEPT: u64 = 4;
const WATCH: u64 = 5;
const BELL: u64 = 6;
const POLL: u64 = 7;
/// What nobody waits for: cancellations.
const FORGOTTEN: u64 = 0;

fn name(kind: u64, index: usize) -> u64 {
    kind << 56 | index as u64
}

/// The driver. See the module.
pub(crate) struct Uring {
    /// `None` only while it is dropped.
    buffers: Option<Buffers>,
    sends: ManuallyDrop<Sends>,
    /// Addresses of connections under way, by lane.
    addresses: Vec<Option<Box<SockAddr>>>,
    ring: ManuallyDrop<IoUring>,
    bell: Arc<Bell>,
    watches: Watches,
    /// Lanes of quiet sends in the queue, and of those that were submitted.
    quiet: Vec<Lane>,
    /// By lane.
    receives: Vec<Receiving>,
    /// Receives that found no block.
    dry: Vec<Lane>,
    /// The ring ran dry since it was last looked after.
    ran_dry: bool,
    /// Operations under way that lend something to the kernel.
    under_way: usize,
    /// Completions are being read: entries wait in `later`.
    reading: bool,
    later: Vec<Entry>,
    /// Answers that came up while something was being submitted.
    early: Vec<Completion>,
}

/// Wakes by an eventfd that the ring polls.
struct Bell(OwnedFd);

impl Waker for Bell {
    fn wake(&self) -> io::Result<()> {
        let one = 1_u64;
        // SAFETY: eight initialised bytes are read.
        let written = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        match written {
            8 => Ok(()),
            // A counter that is full has rung, and nobody came yet.
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl Uring {
    /// A ring with so many entries, that sends without copying from `zero_copy` bytes on.
    pub(crate) fn new(
        submissions: Option<u32>,
        completions: Option<u32>,
        zero_copy: Option<usize>,
    ) -> Result<Self, Unavailable> {
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_cqsize(completions.unwrap_or(COMPLETIONS))
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(submissions.unwrap_or(SUBMISSIONS))
            .map_err(setup)?;
        check(&ring)?;
        // SAFETY: an eventfd is made, and nothing else.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(setup(io::Error::last_os_error()));
        }
        // SAFETY: just made, and nobody else has it.
        let bell = Arc::new(Bell(unsafe { OwnedFd::from_raw_fd(raw) }));
        let buffers = Buffers::register(&ring.submitter())
            .map_err(|source| refused("a ring of receive buffers was refused", source))?;
        let mut this = Self {
            buffers: Some(buffers),
            sends: ManuallyDrop::new(Sends::new(zero_copy)),
            addresses: Vec::new(),
            ring: ManuallyDrop::new(ring),
            bell,
            watches: Watches::default(),
            quiet: Vec::new(),
            receives: Vec::new(),
            dry: Vec::new(),
            ran_dry: false,
            under_way: 0,
            reading: false,
            later: Vec::new(),
            early: Vec::new(),
        };
        this.watch_bell();
        Ok(this)
    }

    fn watch_bell(&mut self) {
        let poll =
            opcode::PollAdd::new(Fd(self.bell.0.as_raw_fd()), libc::POLLIN as u32).multi(true);
        self.push(&poll.build().user_data(name(BELL, 0)));
    }

    /// Queues an entry whose memory is lent by the rules of the folder.
    fn push(&mut self, entry: &Entry) {
        if self.reading {
            self.later.push(entry.clone());
            return;
        }
        for _ in 0..SUBMIT_CALLS {
            // SAFETY: an entry is made by `begin`-like functions of this file and of `sends.rs`, from memory that is kept until its completion.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            if let Err(error) = self.ring.submit() {
                // Completions that the kernel holds back are fetched first.
                tracing::debug!(%error, "a full queue could not be submitted");
                self.stash();
            }
        }
        tracing::error!("the kernel takes no more submissions; an operation is lost");
    }

    /// Makes room for completions that the kernel holds back.
    fn stash(&mut self) {
        let mut early = mem::take(&mut self.early);
        self.drain_queue(&mut |completion| early.push(completion));
        self.early = early;
    }

    /// Begins to receive, the way that suits the lane.
    fn receive(&mut self, lane: Lane, socket: RawFd, way: Way) {
        if self.receives.len() <= lane.index() {
            self.receives.resize(lane.index() + 1, Receiving::default());
        }
        self.receives[lane.index()] = Receiving::begin(socket, way);
        match way {
            Way::Ring | Way::Leaving => self.receive_into_ring(lane.index()),
            Way::Bulk => self.poll(lane.index()),
        }
    }

    fn receive_into_ring(&mut self, index: usize) {
        let entry = opcode::RecvMulti::new(Fd(self.receives[index].socket), GROUP).build();
        self.push(&entry.user_data(name(RECEIVE, index)));
        self.under_way += 1;
    }

    fn poll(&mut self, index: usize) {
        let readable = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fd(self.receives[index].socket), readable).build();
        self.push(&entry.user_data(name(POLL, index)));
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Poll(index, source, events) => {
                let poll = opcode::PollAdd::new(Fd(source), events).multi(true).build();
                self.push(&poll.user_data(name(WATCH, index)));
            }
            Ask::Remove(index) => {
                let remove = opcode::PollRemove::new(name(WATCH, index)).build();
                self.push(&remove.user_data(name(FORGOTTEN, 0)));
            }
        }
    }

    /// Blocks for the ring, and receives that wait for some.
    fn moisten(&mut self) -> bool {
        let Some(buffers) = &mut self.buffers else {
            return false;
        };
        // Once, however many found it dry.
        if mem::take(&mut self.ran_dry) {
            buffers.grow(self.under_way + self.dry.len());
        }
        let any = buffers.is_full() || buffers.refill();
        if any && !self.dry.is_empty() {
            for lane in mem::take(&mut self.dry) {
                self.receive_into_ring(lane.index());
            }
        }
        any
    }

    /// Queues what completions gave rise to.
    fn catch_up(&mut self) {
        if self.later.is_empty() {
            return;
        }
        let mut later = mem::take(&mut self.later);
        for entry in later.drain(..) {
            self.push(&entry);
        }
        // Further ones, if the queue was full and completions were read to make room.
        later.append(&mut self.later);
        self.later = later;
    }

    /// Reads the completion queue to its end.
    fn drain_queue(&mut self, told: &mut dyn FnMut(Completion)) {
        self.reading = true;
        loop {
            let Some(entry) = self.ring.completion().next() else {
                self.reading = false;
                return;
            };
            let bits = entry.user_data();
            let index = (bits & INDEX_MASK) as usize;
            let (result, flags) = (entry.result(), entry.flags());
            match bits >> 56 {
                RECEIVE => self.received(index, result, flags, told),
                SEND => self.sent(index, result, flags, told),
                CONNECT => {
                    self.under_way -= 1;
                    if let Some(address) = self.addresses.get_mut(index) {
                        *address = None;
                    }
                    let done = Done::Connected(outcome(result).map(drop));
                    told(answer(index, true, done));
                }
                ACCEPT => {
                    // SAFETY: the completion hands over a new descriptor, once.
                    let socket =
                        outcome(result).map(|fd| unsafe { Socket::from_raw_fd(fd as RawFd) });
                    let last = !cqueue::more(flags);
                    told(answer(index, last, Done::Accepted(socket)));
                }
                WATCH => {
                    let (ready, ask) = self.watches.complete(index, result, cqueue::more(flags));
                    if let Some((token, ready)) = ready {
                        told(answer(0, false, Done::Ready(token, ready)));
                    }
                    if let Some(ask) = ask {
                        self.ask(ask);
                    }
                }
                POLL => self.read_bulk(index, result, told),
                BELL if !cqueue::more(flags) => self.watch_bell(),
                _ => {}
            }
        }
    }

    fn received(
        &mut self,
        index: usize,
        result: i32,
        flags: u32,
        told: &mut dyn FnMut(Completion),
    ) {
        let last = !cqueue::more(flags);
        self.under_way -= usize::from(last);
        let block = cqueue::buffer_select(flags);
        let bytes = match (block, &mut self.buffers) {
            (Some(number), Some(buffers)) => {
                // A number comes also with an end, or with an error.
                buffers.take(number, usize::try_from(result).unwrap_or(0))
            }
            (None, _) | (_, None) => evbuffer::EvBuffer::new(),
        };
        let receiving = &mut self.receives[index];
        let cancelled = receiving.cancelled;
        let leaves = receiving.way == Way::Leaving && last && !cancelled;
        let nothing = result == -libc::ENOBUFS || (leaves && result == -libc::ECANCELED);
        self.ran_dry |= result == -libc::ENOBUFS;
        if nothing && cancelled {
            return told(answer(index, true, Done::Received(Err(was_cancelled()))));
        }
        if result > 0 && receiving.should_change(result as usize) && !cancelled {
            receiving.way = Way::Leaving;
            if !last {
                let cancel = CancelBuilder::user_data(name(RECEIVE, index));
                let entry = opcode::AsyncCancel2::new(cancel).build();
                self.push(&entry.user_data(name(FORGOTTEN, 0)));
            }
        }
        let leaves = leaves && (nothing || result > 0);
        if leaves {
            self.receives[index].way = Way::Bulk;
            self.poll(index);
        } else if nothing {
            self.dry.push(Lane::new(index));
        }
        if !nothing {
            let done = Done::Received(outcome(result).map(|_| bytes));
            told(answer(index, last && !leaves, done));
        }
    }

    /// Reads what a lane of bulk has, within a turn's bound, and has it polled again.
    fn read_bulk(&mut self, index: usize, result: i32, told: &mut dyn FnMut(Completion)) {
        let end = |told: &mut dyn FnMut(Completion), result| {
            told(answer(index, true, Done::Received(result)));
        };
        if self.receives[index].cancelled {
            return end(told, Err(was_cancelled()));
        }
        if let Err(error) = outcome(result) {
            return end(told, Err(error));
        }
        let mut changes = false;
        for _ in 0..BULK_READS {
            let Some(buffers) = &mut self.buffers else {
                break;
            };
            match buffers.read(self.receives[index].socket) {
                Ok(bytes) if bytes.is_empty() => return end(told, Ok(bytes)),
                Ok(bytes) => {
                    let length = bytes.len();
                    changes |= self.receives[index].should_change(length);
                    told(answer(index, false, Done::Received(Ok(bytes))));
                    // The rest, and an end behind it, is found by the next poll.
                    if length < BLOCK_LEN {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                Err(error) => return end(told, Err(error)),
            }
        }
        if changes {
            self.receives[index].way = Way::Ring;
            self.receive_into_ring(index);
        } else {
            self.poll(index);
        }
    }

    fn sent(&mut self, index: usize, result: i32, flags: u32, told: &mut dyn FnMut(Completion)) {
        if cqueue::more(flags) {
            // Sent without copying: the kernel still reads, and says when it does no more.
            if let Some(outgoing) = self.sends.get_mut(index) {
                outgoing.sent = Some(outcome(result));
            }
            return;
        }
        let result = if cqueue::notif(flags) {
            self.sends
                .get_mut(index)
                .and_then(|outgoing| outgoing.sent.take())
                .unwrap_or(Ok(0))
        } else {
            outcome(result)
        };
        self.end_send(index, result, told);
    }

    fn end_send(
        &mut self,
        index: usize,
        result: io::Result<usize>,
        told: &mut dyn FnMut(Completion),
    ) {
        let Some((bytes, offered)) = self.sends.end(index) else {
            return;
        };
        let (sent, result) = match result {
            Ok(0) if offered > 0 => (0, Err(io::ErrorKind::WriteZero.into())),
            Ok(sent) => (sent.min(offered), Ok(())),
            Err(error) => (0, Err(error)),
        };
        let done = Done::Sent {
            bytes,
            sent,
            result,
        };
        told(answer(index, true, done));
    }

    /// Whether nothing waits to be submitted, and the kernel holds no completion back.
    fn is_settled(&mut self) -> bool {
        let mut queue = self.ring.submission();
        queue.sync();
        queue.is_empty() && !queue.cq_overflow()
    }

    /// Has every operation end, and waits for that. Returns whether all have.
    fn end_all(&mut self) -> bool {
        let start = Instant::now();
        let mut asked = false;
        loop {
            let mut dropped = Vec::new();
            // What comes back is dropped behind the loop, at leisure.
            self.settle(&mut |completion| dropped.push(completion));
            self.catch_up();
            if self.under_way == 0 && self.sends.under_way == 0 {
                return true;
            }
            if start.elapsed() > LAST_WAIT {
                return false;
            }
            if !asked {
                let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
                self.push(&all.user_data(name(FORGOTTEN, 0)));
                asked = true;
            }
            let moment = Timespec::new().nsec(10_000_000);
            let arguments = SubmitArgs::new().timespec(&moment);
            let _ = self.ring.submitter().submit_with_args(1, &arguments);
        }
    }

    /// Reads all completions there are, and then believes the quiet sends.
    fn settle(&mut self, told: &mut dyn FnMut(Completion)) {
        mem::take(&mut self.early).into_iter().for_each(&mut *told);
        self.drain_queue(told);
        for _ in 0..SUBMIT_CALLS {
            if self.quiet.is_empty() || self.is_settled() {
                break;
            }
            let _ = self.ring.submit();
            self.drain_queue(told);
        }
        if self.quiet.is_empty() || !self.is_settled() {
            return;
        }
        let mut quiet = mem::take(&mut self.quiet);
        for lane in quiet.drain(..) {
            // One that has failed was answered, and is none any more.
            if let Some(outgoing) = self.sends.get_mut(lane.index())
                && outgoing.quiet
            {
                let all = outgoing.offered;
                self.end_send(lane.index(), Ok(all), told);
            }
        }
        self.quiet = quiet;
    }
}

const INDEX_MASK: u64 = 0xffff_ffff;

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// What an operation ends with that was told to end.
fn was_cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

fn answer(index: usize, last: bool, done: Done) -> Completion {
    Completion {
        lane: Lane::new(index),
        last,
        done,
    }
}

impl Driver for Uring {
    fn submit(&mut self, operation: Operation) {
        // What is to be cancelled must have been begun.
        self.catch_up();
        match operation {
            Operation::Receive { lane, socket } => self.receive(lane, socket, Way::Ring),
            Operation::Send {
                lane,
                socket,
                bytes,
                quiet,
            } => match self.sends.begin(lane.index(), socket, bytes, quiet) {
                Ok((entry, quiet)) => {
                    self.push(&entry.user_data(name(SEND, lane.index())));
                    if quiet {
                        self.quiet.push(lane);
                    }
                }
                Err((bytes, error)) => self.early.push(Completion {
                    lane,
                    last: true,
                    done: Done::Sent {
                        bytes,
                        sent: 0,
                        result: Err(error),
                    },
                }),
            },
            Operation::Connect {
                lane,
                socket,
                address,
            } => {
                let address = Box::new(address);
                let entry =
                    opcode::Connect::new(Fd(socket), address.as_ptr().cast(), address.len());
                if self.addresses.len() <= lane.index() {
                    self.addresses.resize_with(lane.index() + 1, || None);
                }
                self.addresses[lane.index()] = Some(address);
                self.under_way += 1;
                self.push(&entry.build().user_data(name(CONNECT, lane.index())));
            }
            Operation::Accept { lane, socket } => {
                let entry = opcode::AcceptMulti::new(Fd(socket))
                    .flags(libc::SOCK_CLOEXEC)
                    .build();
                self.push(&entry.user_data(name(ACCEPT, lane.index())));
            }
            Operation::Cancel { lane, verb } => {
                let kind = match verb {
                    Verb::Receive => RECEIVE,
                    Verb::Send => SEND,
                    Verb::Connect => CONNECT,
                    Verb::Accept => ACCEPT,
                };
                self.cancel(kind, lane);
            }
            Operation::Watch {
                token,
                source,
                interest,
            } => {
                if let Some(ask) = self.watches.watch(token, source, interest) {
                    self.ask(ask);
                }
            }
            Operation::Unwatch { token } => {
                if let Some(ask) = self.watches.unwatch(token) {
                    self.ask(ask);
                }
            }
            // Every lane here has a descriptor: the desk ends and closes it.
            Operation::Open { .. } | Operation::Finish { .. } | Operation::Close { .. } => {}
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut timeout = timeout;
        if !self.moisten() {
            timeout = Some(timeout.map_or(DRY_PAUSE, |timeout| timeout.min(DRY_PAUSE)));
        }
        if !self.early.is_empty() {
            timeout = Some(Duration::ZERO);
        }
        let waits = timeout.is_none_or(|timeout| !timeout.is_zero());
        if !waits {
            let queue = self.ring.submission();
            let nothing = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
            drop(queue);
            if nothing {
                return Ok(());
            }
        }
        let queued = self.ring.submission().len();
        let submitter = self.ring.submitter();
        let result = match timeout {
            None => submitter.submit_and_wait(1),
            // Not waiting, but looking: what descriptors have ready comes by the task's own work, which this runs.
            Some(timeout) if timeout.is_zero() => {
                let staged = queued as u32;
                // SAFETY: no argument is given, and so many entries are queued.
                unsafe { submitter.enter::<()>(staged, 0, ENTER_GETEVENTS, None) }
            }
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; or completions are held back and are read first.
                Some(libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, told: &mut dyn FnMut(Completion)) {
        self.settle(told);
        self.catch_up();
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.bell.clone()
    }

    fn watches(&self) -> bool {
        true
    }
}

impl Uring {
    fn cancel(&mut self, kind: u64, lane: Lane) {
        if kind == RECEIVE {
            if let Some(receiving) = self.receives.get_mut(lane.index()) {
                receiving.cancelled = true;
            }
            // One that waits for a block is not under way.
            let before = self.dry.len();
            self.dry.retain(|dry| *dry != lane);
            if self.dry.len() < before {
                let done = Done::Received(Err(was_cancelled()));
                self.early.push(answer(lane.index(), true, done));
                return;
            }
        }
        let bulk = |one: &Receiving| one.way == Way::Bulk;
        let kind = match kind {
            RECEIVE if self.receives.get(lane.index()).is_some_and(bulk) => POLL,
            kind => kind,
        };
        let cancel = CancelBuilder::user_data(name(kind, lane.index()));
        let entry = opcode::AsyncCancel2::new(cancel).build();
        self.push(&entry.user_data(name(FORGOTTEN, 0)));
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.dry.clear();
        if self.end_all() {
            if let Some(buffers) = self.buffers.take() {
                // SAFETY: every operation that lends something is over, receives among them, and none begins any more.
                unsafe { buffers.release(&self.ring.submitter()) };
            }
            // SAFETY: not used again; nothing of it is lent.
            unsafe { ManuallyDrop::drop(&mut self.sends) };
        } else {
            tracing::error!(
                operations = self.under_way + self.sends.under_way,
                "the kernel did not end what was under way; its memory is leaked"
            );
            // Blocks, bytes and addresses that the kernel may still have stay where they are.
            mem::forget(self.buffers.take());
            mem::forget(mem::take(&mut self.addresses));
        }
        // SAFETY: not used again.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}
