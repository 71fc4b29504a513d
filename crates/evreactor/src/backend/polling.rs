//! The backend over polling: epoll, kqueue, event ports, poll(2), and Windows' AFD.
//!
//! # Invariants
//! - Where the system has edges, sources are edge-triggered; elsewhere they are one-shot: the loop arms again what a report left out, and whoever
//!   met would-block arms both directions.
//! - Early close is not known here: polling does not tell a half-closed stream from a readable one. Users
//!   of this backend read until would-block.
//!
//! The unsafe code is what polling asks for because it keeps raw descriptors: see each block.

#![allow(unsafe_code)]

#[cfg(unix)]
use std::os::fd::BorrowedFd as BorrowedSource;
#[cfg(windows)]
use std::os::windows::io::BorrowedSocket as BorrowedSource;

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use evreactor_core::Ready;
use polling::PollMode;

use super::{Backend, EVENTS_PER_WAIT, Events, Features, Interest, Registrar};
use crate::source::{RawSource, Token};

pub(super) struct Polling {
    shared: Arc<Shared>,
    events: polling::Events,
}

struct Shared {
    poller: polling::Poller,
    mode: PollMode,
}

impl Polling {
    pub(super) fn new() -> io::Result<Self> {
        let poller = polling::Poller::new()?;
        let mode = if poller.supports_edge() {
            PollMode::Edge
        } else {
            PollMode::Oneshot
        };
        let room = NonZeroUsize::new(EVENTS_PER_WAIT).expect("the constant is not zero");
        Ok(Self {
            shared: Arc::new(Shared { poller, mode }),
            events: polling::Events::with_capacity(room),
        })
    }
}

impl Backend for Polling {
    fn registrar(&self) -> Arc<dyn Registrar> {
        self.shared.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        self.events.clear();
        self.shared.poller.wait(&mut self.events, timeout)?;
        for event in self.events.iter() {
            events.push(Token::from_bits(event.key), ready(&event));
        }
        Ok(())
    }
}

fn ready(event: &polling::Event) -> Ready {
    let mut ready = Ready::EMPTY;
    if event.readable {
        ready |= Ready::READABLE;
    }
    if event.writable {
        ready |= Ready::WRITABLE;
    }
    if event.is_interrupt() {
        ready |= Ready::READ_CLOSED | Ready::WRITE_CLOSED;
    }
    if event.is_err() == Some(true) {
        ready |= Ready::ERROR;
    }
    if event.is_priority() {
        ready |= Ready::PRIORITY;
    }
    ready
}

fn event(token: Token, interest: Interest) -> polling::Event {
    polling::Event::new(token.bits(), interest.is_read(), interest.is_write())
}

impl Shared {
    /// Lends the source to polling for the length of one call.
    fn with<R>(&self, source: RawSource, call: impl FnOnce(BorrowedSource<'_>) -> R) -> R {
        // SAFETY:
        // - The number is not the one that means "none": the loop passes on only what it took from an `AsSource`
        //   in `LoopHandle::register`.
        // - It was open then, and `register`'s contract has its owner keep it open until the `Registration` is
        //   gone. Should the owner break that, nothing is read, written or closed through the number: the call
        //   fails or changes what this poller reports, and what it reports is a hint by the contract of `Ready`.
        call(unsafe { BorrowedSource::borrow_raw(source) })
    }
}

impl Registrar for Shared {
    fn features(&self) -> Features {
        match self.mode {
            PollMode::Edge => Features::NONE.with_edges(),
            PollMode::Oneshot | PollMode::Level | PollMode::EdgeOneshot | _ => Features::NONE,
        }
    }

    fn register(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        // SAFETY: polling asks that the source is deleted before it is closed. `Registration` does that when it is dropped, and
        // `register`'s contract puts that drop before the close; a broken contract is as harmless as in `with`.
        unsafe {
            self.poller
                .add_with_mode(source, event(token, interest), self.mode)
        }
    }

    fn modify(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        self.with(source, |source| {
            self.poller
                .modify_with_mode(source, event(token, interest), self.mode)
        })
    }

    fn deregister(&self, source: RawSource, _token: Token) -> io::Result<()> {
        self.with(source, |source| self.poller.delete(source))
    }

    fn wake(&self) -> io::Result<()> {
        self.poller.notify()
    }
}
