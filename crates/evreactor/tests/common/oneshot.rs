//! A backend of a user's own: no edges, so its sources must be re-armed. It joins through the public trait alone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use evreactor::{Backend, Events, Features, Interest, RawSource, Ready, Registrar, Token};
use polling::{Event, Poller};

pub(crate) struct Oneshot {
    shared: Arc<Shared>,
    events: polling::Events,
}

struct Shared(Poller);

impl Oneshot {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared(Poller::new()?)),
            events: polling::Events::new(),
        })
    }
}

impl Backend for Oneshot {
    fn registrar(&self) -> Arc<dyn Registrar> {
        self.shared.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        self.events.clear();
        self.shared.0.wait(&mut self.events, timeout)?;
        for event in self.events.iter() {
            let mut ready = Ready::EMPTY;
            if event.readable {
                ready |= Ready::READABLE;
            }
            if event.writable {
                ready |= Ready::WRITABLE;
            }
            events.push(Token::from_bits(event.key), ready);
        }
        Ok(())
    }
}

fn event(token: Token, interest: Interest) -> Event {
    Event::new(token.bits(), interest.is_read(), interest.is_write())
}

impl Registrar for Shared {
    fn features(&self) -> Features {
        Features::NONE
    }

    fn register(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        // SAFETY: the tests drop a registration before its source, or look at what happens otherwise.
        unsafe { self.0.add(source, event(token, interest)) }
    }

    fn modify(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        // SAFETY: as above; the number is an open descriptor's.
        let source = unsafe { BorrowedFd::borrow_raw(source) };
        self.0.modify(source, event(token, interest))
    }

    fn deregister(&self, source: RawSource, _token: Token) -> io::Result<()> {
        // SAFETY: as above.
        self.0.delete(unsafe { BorrowedFd::borrow_raw(source) })
    }

    fn wake(&self) -> io::Result<()> {
        self.0.notify()
    }
}
