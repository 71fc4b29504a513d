//! Bytes that the system sends from.
//!
//! # Invariants
//! - An [`Outgoing`] is the payload of a [`Lent`](super::lent::Lent): what its slices point to is neither changed nor moved while a send is under
//!   way. The system only reads from it.
//! - Of a file region a block at a time is read into memory; the block is a part of the [`Outgoing`].

use std::io::{self, IoSlice};

use evbuffer::{Block, EvBuffer, Pool};

/// Slices per send.
pub(super) const SLICES: usize = 64;

/// Blocks that file regions are read into and that wait for their next use: 256 KiB.
const IDLE_BLOCKS: usize = 4;

/// What a send takes along.
pub(super) struct Outgoing {
    pub(super) bytes: EvBuffer,
    block: Option<(Block, usize)>,
}

/// What sends have in common.
pub(super) struct Sends {
    pool: Pool,
}

impl Sends {
    pub(super) fn new() -> Self {
        Self {
            pool: Pool::new(IDLE_BLOCKS),
        }
    }

    /// Makes ready what is to be sent, or gives it back.
    pub(super) fn outgoing(&self, bytes: EvBuffer) -> Result<Outgoing, (EvBuffer, io::Error)> {
        match self.read_file(&bytes) {
            Ok(block) => Ok(Outgoing { bytes, block }),
            Err(error) => Err((bytes, error)),
        }
    }

    fn read_file(&self, bytes: &EvBuffer) -> io::Result<Option<(Block, usize)>> {
        let Some(region) = bytes.front_file() else {
            return Ok(None);
        };
        let mut block = self.pool.take().map_err(io::Error::other)?;
        let length = region.len().min(block.len());
        let filled = bytes.copy_out(&mut block[..length]);
        if filled < length {
            let why = "the file is shorter than the range that was to be sent of it";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(Some((block, length)))
    }
}

impl Outgoing {
    /// Fills `slices` with what is to be sent, and tells how many there are.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        match &self.block {
            Some((block, length)) => {
                slices[0] = IoSlice::new(&block[..*length]);
                1
            }
            None => self.bytes.io_slices(slices),
        }
    }
}
