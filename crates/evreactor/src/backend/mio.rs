//! The backend over mio: epoll on Linux, kqueue on the BSDs and macOS, always edge-triggered.
//!
//! # Invariants
//! - A source is registered by its number alone; mio keeps no state for it.
//! - On Linux, urgent data is asked for too: without it, a read that stops at the urgent mark looks like a drained
//!   source, and there is no further edge.
//!
//! No unsafe code is needed: mio takes raw descriptors in safe functions, because a wrong number can only lead
//! to an error or to readiness of another file, and readiness is a hint.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use evreactor_core::Ready;
use mio::unix::SourceFd;

use super::{Backend, EVENTS_PER_WAIT, Events, Features, Interest, Registrar};
use crate::source::{RawSource, Token};

/// No source has this token: see [`Token`].
const WAKER: mio::Token = mio::Token(usize::MAX);

pub(super) struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    shared: Arc<Shared>,
}

struct Shared {
    registry: mio::Registry,
    waker: mio::Waker,
}

impl Mio {
    pub(super) fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = mio::Waker::new(&registry, WAKER)?;
        Ok(Self {
            poll,
            events: mio::Events::with_capacity(EVENTS_PER_WAIT),
            shared: Arc::new(Shared { registry, waker }),
        })
    }
}

impl Backend for Mio {
    fn registrar(&self) -> Arc<dyn Registrar> {
        self.shared.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        self.poll.poll(&mut self.events, timeout)?;
        for event in &self.events {
            if event.token() != WAKER {
                events.push(Token::from_bits(event.token().0), ready(event));
            }
        }
        Ok(())
    }
}

fn ready(event: &mio::event::Event) -> Ready {
    let mut ready = Ready::EMPTY;
    if event.is_readable() {
        ready |= Ready::READABLE;
    }
    if event.is_writable() {
        ready |= Ready::WRITABLE;
    }
    // The end of the stream is something to read, also where the system does not say "readable" with it.
    if event.is_read_closed() {
        ready |= Ready::READ_CLOSED | Ready::READABLE;
    }
    if event.is_write_closed() {
        ready |= Ready::WRITE_CLOSED | Ready::WRITABLE;
    }
    // An error is fetched by either operation.
    if event.is_error() {
        ready |= Ready::ERROR | Ready::READABLE | Ready::WRITABLE;
    }
    if event.is_priority() {
        ready |= Ready::PRIORITY;
    }
    ready
}

fn interests(interest: Interest) -> mio::Interest {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let read = mio::Interest::READABLE | mio::Interest::PRIORITY;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let read = mio::Interest::READABLE;
    match (interest.is_read(), interest.is_write()) {
        (true, true) => read | mio::Interest::WRITABLE,
        (false, true) => mio::Interest::WRITABLE,
        (_, false) => read,
    }
}

impl Registrar for Shared {
    fn features(&self) -> Features {
        Features::NONE.with_edges().with_early_close()
    }

    fn register(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        self.registry.register(
            &mut SourceFd(&source),
            mio::Token(token.bits()),
            interests(interest),
        )
    }

    fn modify(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        self.registry.reregister(
            &mut SourceFd(&source),
            mio::Token(token.bits()),
            interests(interest),
        )
    }

    fn deregister(&self, source: RawSource, _token: Token) -> io::Result<()> {
        self.registry.deregister(&mut SourceFd(&source))
    }

    fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }
}
