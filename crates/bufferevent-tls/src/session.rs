//! The one place that calls a rustls connection: bytes of records in, bytes of records out, plaintext at the other side.
//!
//! # Invariants
//! - Nothing is fed while plaintext waits, so the connection's own buffer for it never holds more than one record's.
//! - Nothing is encrypted while records wait, so the connection holds one record of output, and what it has to say for itself.
//! - Every loop ends with the first call that moves nothing, whatever the connection says it wants.
//!
//! Source: rustls `ConnectionCommon`; for the last invariant CVE-2024-32650, where a peer's close_notify made such a loop spin.

use std::io::{self, BufRead as _, IoSlice, Read, Write as _};

use bufferevent_filter::Sink;
use evbuffer::EvBuffer;
use rustls::Connection;

/// What is encrypted at a time, in bytes: the most that one record holds (RFC 8446, section 5.1). It bounds what a connection
/// keeps while the layer below has no room.
const RECORD: usize = 1 << 14;

/// Pieces that go into one record without having been put together first.
const PIECES: usize = 16;

#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// Bytes of plaintext that the connection holds.
    held: usize,
}

/// At most so many bytes of the front of a buffer.
struct Front<'a> {
    source: &'a mut EvBuffer,
    left: usize,
}

impl Read for Front<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let length = room.len().min(self.left);
        let read = self.source.remove(&mut room[..length]);
        self.left -= read;
        Ok(read)
    }
}

impl Session {
    pub(crate) fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(RECORD));
        Self {
            connection,
            held: 0,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether there are records to be sent.
    pub(crate) fn has_records(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether there is plaintext to be taken.
    pub(crate) fn has_plaintext(&self) -> bool {
        self.held > 0
    }

    /// Takes `length` bytes, of one record, from `source`. `Err` of the first kind: the connection has no room for them.
    pub(crate) fn feed(
        &mut self,
        source: &mut EvBuffer,
        length: usize,
    ) -> io::Result<Result<Fed, rustls::Error>> {
        let mut front = Front {
            source,
            left: length,
        };
        while front.left > 0 && self.connection.read_tls(&mut front)? > 0 {}
        let state = match self.connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => return Ok(Err(error)),
        };
        self.held = state.plaintext_bytes_to_read();
        Ok(Ok(if state.peer_has_closed() {
            Fed::Closed
        } else {
            Fed::Open
        }))
    }

    /// Moves plaintext into `sink`, as far as there is room.
    pub(crate) fn take_plaintext(&mut self, sink: &mut Sink<'_>) {
        let mut reader = self.connection.reader();
        while self.held > 0 {
            // An error can only say that there is nothing, or no more.
            let taken = sink.append_slice(reader.fill_buf().unwrap_or(&[]));
            if taken == 0 {
                return;
            }
            reader.consume(taken);
            self.held = self.held.saturating_sub(taken);
        }
    }

    /// Moves records into `sink`, as far as there is room.
    pub(crate) fn take_records(&mut self, sink: &mut Sink<'_>) {
        while self.connection.wants_write() && sink.room() > 0 {
            // A sink has no errors: what it does not take it says.
            if self.connection.write_tls(sink).unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// Makes one record, as full as can be, of the front of `source`, which holds no file there. Returns how many bytes went.
    pub(crate) fn encrypt(&mut self, source: &mut EvBuffer) -> Result<usize, evbuffer::Error> {
        let whole = source.len().min(RECORD);
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = source.io_slices(&mut pieces);
        let at_hand: usize = pieces[..count].iter().map(|piece| piece.len()).sum();
        let written = if at_hand >= whole {
            self.connection.writer().write_vectored(&pieces[..count])
        } else {
            let record = source.pull_up(whole)?;
            self.connection.writer().write(record)
        };
        // The connection's writer has no errors.
        Ok(source.drain(written.unwrap_or(0)))
    }

    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

/// How the peer's direction stands after bytes were fed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fed {
    Open,
    /// A close_notify has come.
    Closed,
}
