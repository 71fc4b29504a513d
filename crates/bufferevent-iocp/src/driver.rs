//! The completion trait: operations go in as values, completions come out as values.
//!
//! Whatever an operation lends to the system is *inside* of the value that is handed in, so it belongs to the driver from then on,
//! and comes back inside of the completion. There is no other way to it: no pointer, no handle, nothing to drop too early.
//!
//! # Invariants
//! - Every operation but [`Operation::Open`], [`Operation::Cancel`], [`Operation::Unwatch`], [`Operation::Finish`] and [`Operation::Close`] is answered: by one completion that
//!   is the [`last`](Completion::last), and for [`Operation::Receive`] and [`Operation::Accept`] by any number before it.
//! - Of each kind, a lane has one operation under way at most, and its number is not given to another socket before the last
//!   completion of the last one. So a lane and a kind name an operation; no driver needs generations.
//! - A driver lives on its loop's thread and is called by nobody else. Its [`Waker`] is for everybody.
//! - A driver that is dropped ends every operation first. Memory that the system may still write to is leaked rather than freed.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use evbuffer::EvBuffer;
use evreactor::{Interest, RawSource, Ready, Token};
use socket2::{SockAddr, Socket};

/// One socket, as the driver knows it: a small number that is used again once nothing is under way on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Lane(u32);

impl Lane {
    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a process has fewer than 2^32 descriptors"))
    }

    /// The number.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Kinds of operation that can be cancelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Verb {
    /// [`Operation::Receive`].
    Receive,
    /// [`Operation::Send`].
    Send,
    /// [`Operation::Connect`].
    Connect,
    /// [`Operation::Accept`].
    Accept,
}

/// What a driver can be asked to start.
#[derive(Debug)]
pub enum Operation {
    /// A lane has a socket, open until the lane is given to another: its first operation comes next. Not answered.
    Open {
        /// Whose.
        lane: Lane,
        /// The socket.
        socket: RawSource,
    },
    /// Receive, once or again and again until it is cancelled or ends.
    Receive {
        /// Whose.
        lane: Lane,
        /// The socket, open until the last completion.
        socket: RawSource,
    },
    /// Send the bytes, in order, all or as far as it goes.
    Send {
        /// Whose.
        lane: Lane,
        /// The socket, open until the last completion.
        socket: RawSource,
        /// What is sent. Never empty.
        bytes: EvBuffer,
        /// Nobody waits for the completion: it may be told whenever the next wait ends for another reason.
        quiet: bool,
    },
    /// Connect to an address.
    Connect {
        /// Whose.
        lane: Lane,
        /// The socket, open until the last completion.
        socket: RawSource,
        /// Where to.
        address: SockAddr,
    },
    /// Accept connections until it is cancelled.
    Accept {
        /// Whose.
        lane: Lane,
        /// The listening socket, open until the last completion.
        socket: RawSource,
    },
    /// End an operation that is under way; what came of it is told as ever. One that is over already is not there to be cancelled.
    Cancel {
        /// Whose.
        lane: Lane,
        /// Which.
        verb: Verb,
    },
    /// Report on the readiness of a descriptor by [`Done::Ready`]: what is ready now, and then each change. Asked for again, it
    /// reports anew.
    Watch {
        /// What it is reported as.
        token: Token,
        /// The descriptor.
        source: RawSource,
        /// Which readiness.
        interest: Interest,
    },
    /// Report no more.
    Unwatch {
        /// What it was reported as.
        token: Token,
    },
    /// End the output of a lane that has no descriptor, behind all that was sent.
    Finish {
        /// Whose.
        lane: Lane,
    },
    /// A lane without a descriptor has gone.
    Close {
        /// Whose.
        lane: Lane,
    },
}

/// What came of an operation.
#[derive(Debug)]
pub enum Done {
    /// Bytes were received; none is the end of the stream.
    Received(io::Result<EvBuffer>),
    /// A send is over.
    Sent {
        /// What was lent, whole.
        bytes: EvBuffer,
        /// How many of the bytes are out, from the front.
        sent: usize,
        /// Why it is not all of them, if something failed. [`WouldBlock`](io::ErrorKind::WouldBlock) and
        /// [`Interrupted`](io::ErrorKind::Interrupted) ask to be tried again.
        result: io::Result<()>,
    },
    /// A send has not gone at once: it takes as long as the peer does. Optional, and not the last.
    Slow,
    /// A connection stands, or will not.
    Connected(io::Result<()>),
    /// A connection was accepted.
    Accepted(io::Result<Socket>),
    /// A watched descriptor is ready.
    Ready(Token, Ready),
}

/// One answer.
#[derive(Debug)]
pub struct Completion {
    /// Whose. Of no meaning for [`Done::Ready`].
    pub lane: Lane,
    /// Whether the operation is over, and all that was lent for it is back.
    pub last: bool,
    /// What came of it.
    pub done: Done,
}

/// Ends the wait of a driver, from any thread.
pub trait Waker: Send + Sync {
    /// Ends the wait that is going on, or the next one.
    ///
    /// # Errors
    /// What the system says.
    fn wake(&self) -> io::Result<()>;
}

/// A system's way to complete operations.
pub trait Driver: Any + Send {
    /// Starts an operation, now or at the latest in the next [`wait`](Self::wait).
    fn submit(&mut self, operation: Operation);

    /// Waits for completions, a wake-up, or `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// What the system says. [`Interrupted`](io::ErrorKind::Interrupted) is taken for an early end.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Hands out what has completed.
    fn reap(&mut self, told: &mut dyn FnMut(Completion));

    /// What ends its waits.
    fn waker(&self) -> Arc<dyn Waker>;

    /// Whether it can [`Watch`](Operation::Watch) descriptors, edge-triggered and with early close.
    fn watches(&self) -> bool {
        false
    }
}
