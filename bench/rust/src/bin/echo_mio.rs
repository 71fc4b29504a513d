//! The limit of readiness I/O in Rust: an echo or sink server by hand on mio, edge-triggered.
//!
//! # Invariants
//! - A connection is registered once, for both directions: no system call but wait, read and write in the steady state.
//! - While a connection has bytes waiting it is not read: its memory is bounded by one read.
//! - A short read means drained, unless the event said that the peer has closed.

use std::io::{self, ErrorKind, Read as _, Write as _};

use bench_peers::{READ_BYTES, Service, listen_and_print};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX - 1);
const EVENTS: usize = 1024;

struct Connection {
    stream: TcpStream,
    /// What the socket has not taken yet.
    waiting: Vec<u8>,
}

fn main() -> io::Result<()> {
    let service = Service::from_arguments();
    let mut listener = TcpListener::from_std(listen_and_print()?);
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    let mut block = vec![0; READ_BYTES];
    let mut events = Events::with_capacity(EVENTS);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&poll, &listener, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(event.token().0)
                && connection.serve(event, service, &mut block).is_err()
            {
                connections.remove(event.token().0);
            }
        }
    }
}

fn accept_all(
    poll: &Poll,
    listener: &TcpListener,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    while let Ok((mut stream, _)) = listener.accept() {
        let entry = connections.vacant_entry();
        poll.registry().register(
            &mut stream,
            Token(entry.key()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Connection {
            stream,
            waiting: Vec::new(),
        });
    }
    Ok(())
}

impl Connection {
    /// Everything that one event allows. An error is the connection's end, a clean one included.
    fn serve(&mut self, event: &Event, service: Service, block: &mut [u8]) -> io::Result<()> {
        loop {
            while !self.waiting.is_empty() {
                let sent = nothing_if_blocked(self.stream.write(&self.waiting))?;
                if sent == 0 {
                    return Ok(());
                }
                self.waiting.drain(..sent);
            }
            let length = match self.stream.read(block) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if service == Service::Echo {
                let sent = nothing_if_blocked(self.stream.write(&block[..length]))?;
                self.waiting.extend_from_slice(&block[sent..length]);
            }
            let closing = event.is_read_closed() || event.is_error();
            if length < block.len() && !closing && self.waiting.is_empty() {
                return Ok(());
            }
        }
    }
}

/// A socket that is full took nothing; that is no error.
fn nothing_if_blocked(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
