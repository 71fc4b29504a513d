//! Bytes that the kernel sends from.
//!
//! # Invariants
//! - An [`Outgoing`] is boxed, and out of reach of safe code that could change it, from its submission until it is taken back: the addresses in
//!   its entry, its slices and its header stay good. The kernel only reads from it.
//! - Of a file region a block at a time is read into memory; the block is a part of the [`Outgoing`].

#![allow(unsafe_code, reason = "the header of a vectored send holds pointers")]

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use evbuffer::{Block, EvBuffer, Pool};
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

/// Slices per send.
const SLICES: usize = 64;

/// Blocks that file regions are read into and that wait for their next use: 256 KiB.
const IDLE_BLOCKS: usize = 4;

/// A send that is under way.
pub(super) struct Outgoing {
    pub(super) bytes: EvBuffer,
    /// How many of them are offered in this operation.
    pub(super) offered: usize,
    /// No completion comes if all of it goes.
    pub(super) quiet: bool,
    slices: Vec<libc::iovec>,
    header: libc::msghdr,
    block: Option<Block>,
    /// With zero copy: what the kernel has sent, while it still reads.
    pub(super) sent: Option<io::Result<usize>>,
}

// SAFETY: the pointers within point into `bytes` and `block`, which go along.
unsafe impl Send for Outgoing {}

/// Sends under way, by lane, and boxes for the next.
pub(super) struct Sends {
    by_lane: Vec<Option<Box<Outgoing>>>,
    #[expect(
        clippy::vec_box,
        reason = "the kernel has their addresses while they are in use"
    )]
    spare: Vec<Box<Outgoing>>,
    pool: Pool,
    /// From this many bytes on the kernel sends without copying.
    zero_copy: usize,
    pub(super) under_way: usize,
}

/// Boxes that wait for the next send: as many as one turn is likely to need.
const SPARE: usize = 256;

impl Sends {
    pub(super) fn new(zero_copy: Option<usize>) -> Self {
        Self {
            by_lane: Vec::new(),
            spare: Vec::new(),
            pool: Pool::new(IDLE_BLOCKS),
            zero_copy: zero_copy.unwrap_or(usize::MAX),
            under_way: 0,
        }
    }

    /// Keeps `bytes` and makes the entry that sends them; the flag tells whether it will be quiet. Or gives them back.
    pub(super) fn begin(
        &mut self,
        lane: usize,
        socket: RawFd,
        bytes: EvBuffer,
        quiet: bool,
    ) -> Result<(Entry, bool), (EvBuffer, io::Error)> {
        let mut outgoing = self.spare.pop().unwrap_or_else(Outgoing::empty);
        outgoing.bytes = bytes;
        if let Err(error) = outgoing.prepare(&self.pool) {
            return Err((std::mem::take(&mut outgoing.bytes), error));
        }
        let whole = outgoing.offered == outgoing.bytes.len();
        let zero_copy = outgoing.offered >= self.zero_copy;
        let quiet = quiet && whole && !zero_copy;
        outgoing.quiet = quiet;
        let entry = outgoing.entry(socket, quiet, zero_copy);
        if self.by_lane.len() <= lane {
            self.by_lane.resize_with(lane + 1, || None);
        }
        debug_assert!(self.by_lane[lane].is_none(), "one send at a time");
        self.by_lane[lane] = Some(outgoing);
        self.under_way += 1;
        Ok((entry, quiet))
    }

    pub(super) fn get_mut(&mut self, lane: usize) -> Option<&mut Outgoing> {
        self.by_lane.get_mut(lane)?.as_deref_mut()
    }

    /// Takes a send back of which the kernel has let go: its bytes, and how many were offered.
    pub(super) fn end(&mut self, lane: usize) -> Option<(EvBuffer, usize)> {
        let mut outgoing = self.by_lane.get_mut(lane)?.take()?;
        self.under_way -= 1;
        let bytes = std::mem::take(&mut outgoing.bytes);
        let offered = outgoing.offered;
        outgoing.block = None;
        outgoing.sent = None;
        if self.spare.len() < SPARE {
            self.spare.push(outgoing);
        }
        Some((bytes, offered))
    }
}

impl Outgoing {
    fn empty() -> Box<Self> {
        Box::new(Self {
            bytes: EvBuffer::new(),
            offered: 0,
            quiet: false,
            slices: Vec::new(),
            // SAFETY: a header without name, slices and control data is all zeros.
            header: unsafe { std::mem::zeroed() },
            block: None,
            sent: None,
        })
    }

    /// Finds out what is to be sent.
    fn prepare(&mut self, pool: &Pool) -> io::Result<()> {
        self.slices.clear();
        if let Some(region) = self.bytes.front_file() {
            let mut block = pool.take().map_err(io::Error::other)?;
            let length = region.len().min(block.len());
            let filled = self.bytes.copy_out(&mut block[..length]);
            if filled < length {
                let why = "the file is shorter than the range that was to be sent of it";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            self.offered = length;
            self.slices.push(slice(&block[..length]));
            self.block = Some(block);
            return Ok(());
        }
        let first = self.bytes.chunk();
        if first.len() == self.bytes.len() {
            self.offered = first.len();
            self.slices.push(slice(first));
            return Ok(());
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = self.bytes.io_slices(&mut slices);
        self.offered = slices[..filled].iter().map(|piece| piece.len()).sum();
        self.slices
            .extend(slices[..filled].iter().map(|piece| slice(piece)));
        Ok(())
    }

    fn entry(&mut self, socket: RawFd, quiet: bool, zero_copy: bool) -> Entry {
        // All of it, however often the socket fills up; a quiet one may not wait for that, and tells what is left.
        let mut flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        if quiet {
            flags |= libc::MSG_DONTWAIT;
        }
        let fd = types::Fd(socket);
        let entry = if let [one] = self.slices[..] {
            let (base, length) = (one.iov_base.cast_const().cast(), one.iov_len as u32);
            if zero_copy {
                opcode::SendZc::new(fd, base, length).flags(flags).build()
            } else {
                opcode::Send::new(fd, base, length).flags(flags).build()
            }
        } else {
            self.header.msg_iov = self.slices.as_mut_ptr();
            self.header.msg_iovlen = self.slices.len() as _;
            if zero_copy {
                opcode::SendMsgZc::new(fd, &raw const self.header)
                    .flags(flags as u32)
                    .build()
            } else {
                opcode::SendMsg::new(fd, &raw const self.header)
                    .flags(flags as u32)
                    .build()
            }
        };
        if quiet {
            entry.flags(Flags::SKIP_SUCCESS)
        } else {
            entry
        }
    }
}

fn slice(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}
