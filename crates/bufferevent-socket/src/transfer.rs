//! The two system calls that move bytes: one receive into a pooled block, one vectored send or sendfile.
//!
//! # Invariants
//! - An interrupted call is made again, at most [`INTERRUPTIONS`] times in a row.
//! - A receive takes one block of 64 KiB at most; up to [`SMALL_READ`] bytes are copied out of it, so that short messages
//!   hold no block, and the block stays for the next receive of this thread.
//! - A send never raises SIGPIPE.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;

use bufferevent_core::Context;
use evbuffer::{Block, EvBuffer, FileRegion, Pool};
use socket2::Socket;

use crate::calls::{self, count_receive, count_send};

/// Interruptions in a row after which a call is reported as failed.
const INTERRUPTIONS: u32 = 1000;

/// Reads up to this many bytes are copied out of the block: a copy is cheaper than a block's worth of cache lines.
const SMALL_READ: usize = 2 * 1024;

/// Segments per vectored send.
const SLICES: usize = 64;

/// Blocks that a thread keeps for its next reads: 1 MiB.
const IDLE_BLOCKS: usize = 16;

struct Scratch {
    pool: Pool,
    block: Option<Block>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(IDLE_BLOCKS));
}

impl Scratch {
    fn new(idle_blocks: usize) -> Self {
        Self {
            pool: Pool::new(idle_blocks),
            block: None,
        }
    }
}

#[inline(always)]
fn again<T>(count: fn(), mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    count();
    match call() {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => once_more(count, call),
        result => result,
    }
}

#[cold]
fn once_more<T>(count: fn(), mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut interruptions = 1;
    loop {
        count();
        match call() {
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && interruptions < INTERRUPTIONS =>
            {
                interruptions += 1;
            }
            result => return result,
        }
    }
}

/// What a receive brought.
pub(crate) struct Received {
    /// Bytes; 0 is the end of the stream.
    pub(crate) count: usize,
    /// Less than was asked for.
    pub(crate) short: bool,
}

/// Receives once into the bufferevent's input, at most `room` bytes (which is not 0).
#[inline(always)]
pub(crate) fn receive(socket: &Socket, room: usize, cx: &mut Context<'_>) -> io::Result<Received> {
    let received = SCRATCH.try_with(|scratch| {
        let mut scratch = scratch.try_borrow_mut().ok()?;
        Some(receive_by(&mut scratch, socket, room, cx))
    });
    match received {
        Ok(Some(received)) => received,
        Ok(None) | Err(_) => receive_apart(socket, room, cx),
    }
}

/// The thread is ending, its scratch gone, or it is in use further up the stack: one of its own must do.
#[cold]
fn receive_apart(socket: &Socket, room: usize, cx: &mut Context<'_>) -> io::Result<Received> {
    receive_by(&mut Scratch::new(0), socket, room, cx)
}

#[inline(always)]
fn receive_by(
    scratch: &mut Scratch,
    socket: &Socket,
    room: usize,
    cx: &mut Context<'_>,
) -> io::Result<Received> {
    let block = match &mut scratch.block {
        Some(block) => block,
        empty @ None => empty.insert(scratch.pool.take().map_err(|_| out_of_memory())?),
    };
    let asked = room.min(block.len());
    let count = again(count_receive, || {
        calls::receive(socket, &mut block[..asked])
    })?;
    if count <= SMALL_READ {
        cx.add_input(&block[..count]).map_err(|_| out_of_memory())?;
    } else {
        hand_over(scratch, count, cx)?;
    }
    Ok(Received {
        count,
        short: count < asked,
    })
}

/// The block itself, with `count` bytes in it, becomes a part of the input.
#[inline(never)]
fn hand_over(scratch: &mut Scratch, count: usize, cx: &mut Context<'_>) -> io::Result<()> {
    match scratch.block.take() {
        Some(block) => cx
            .add_input_block(block, count)
            .map_err(|_| out_of_memory()),
        None => Ok(()),
    }
}

#[cold]
fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

/// What a send took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sent {
    /// All that there was.
    All,
    /// All that was offered; there is more.
    Offered,
    /// Less than was offered.
    Short,
}

/// Sends once from the front of `output`, at most `share` bytes, and drains what was sent.
#[inline(always)]
pub(crate) fn send(socket: &Socket, output: &mut EvBuffer, share: usize) -> io::Result<Sent> {
    let first = output.chunk();
    // Usually all there is lies in one piece.
    if first.len() != output.len() || first.len() > share {
        return send_part(socket, output, share);
    }
    let offered = first.len();
    match again(count_send, || calls::send(socket, first)) {
        Ok(count) if count == offered => {
            output.clear();
            Ok(Sent::All)
        }
        result => after(output, result.map(|count| Taken { count, offered })),
    }
}

#[inline(never)]
fn send_part(socket: &Socket, output: &mut EvBuffer, share: usize) -> io::Result<Sent> {
    let taken = if let Some(region) = output.front_file() {
        send_file(socket, region, share)
    } else {
        send_slices(socket, output, share)
    };
    after(output, taken)
}

/// Drains what was sent.
#[inline(never)]
fn after(output: &mut EvBuffer, taken: io::Result<Taken>) -> io::Result<Sent> {
    let Ok(taken) = taken else {
        output.compact();
        return taken.map(|_| Sent::Short);
    };
    output.drain(taken.count);
    if output.is_empty() {
        return Ok(Sent::All);
    }
    if taken.count < taken.offered {
        // What stays may stay for long: it should not hold blocks that it hardly uses.
        output.compact();
        return Ok(Sent::Short);
    }
    Ok(Sent::Offered)
}

/// What one system call took of what it was offered, in bytes.
struct Taken {
    count: usize,
    offered: usize,
}

fn send_slices(socket: &Socket, output: &EvBuffer, share: usize) -> io::Result<Taken> {
    let first = output.chunk();
    if first.len() >= share {
        let offered = share;
        let first = &first[..offered];
        let count = again(count_send, || calls::send(socket, first))?;
        return Ok(Taken { count, offered });
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = output.io_slices(&mut slices);
    let mut offered = 0;
    let mut used = 0;
    for slice in &slices[..filled] {
        // Whole segments only, but at least one: the share is a bound for fairness, not a contract.
        if used > 0 && offered + slice.len() > share {
            break;
        }
        offered += slice.len();
        used += 1;
    }
    let count = again(count_send, || {
        socket.send_vectored_with_flags(&slices[..used], calls::SEND_FLAGS)
    })?;
    Ok(Taken { count, offered })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_file(socket: &Socket, region: &FileRegion, share: usize) -> io::Result<Taken> {
    let offered = region.len().min(share);
    let offset = usize::try_from(region.offset()).map_err(io::Error::other)?;
    let length = NonZeroUsize::new(offered);
    let count = again(count_send, || {
        socket.sendfile(&**region.file(), offset, length)
    })?;
    if count == 0 && offered > 0 {
        let why = "the file is shorter than the range that was to be sent of it";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    Ok(Taken { count, offered })
}

/// Without a system call for it: a block of the file at a time, by a positioned read.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn send_file(socket: &Socket, region: &FileRegion, share: usize) -> io::Result<Taken> {
    let _ = NonZeroUsize::MIN;
    let mut block = Pool::new(0)
        .take()
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    let offered = region.len().min(share).min(block.len());
    let mut one = EvBuffer::new();
    one.append_file(region.clone()).map_err(io::Error::other)?;
    let filled = one.copy_out(&mut block[..offered]);
    if filled < offered {
        let why = "the file is shorter than the range that was to be sent of it";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    let count = again(count_send, || calls::send(socket, &block[..offered]))?;
    Ok(Taken { count, offered })
}
