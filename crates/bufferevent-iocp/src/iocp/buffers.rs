//! Blocks that the system receives into.
//!
//! # Invariants
//! - A block is lent only while a receive of bytes is under way, so an idle connection has none.
//! - A block of which more than [`SMALL`] bytes are used becomes a segment without a copy; fewer bytes are copied out, and the block goes back
//!   to the pool at once.

use evbuffer::{Block, Error, EvBuffer, Pool};

/// Up to this many bytes are copied out: a copy is cheaper than a block's worth of cache lines.
const SMALL: usize = 2 * 1024;

/// Blocks that wait for their next use: 4 MiB.
const IDLE_BLOCKS: usize = 64;

/// Where blocks come from.
pub(super) struct Buffers {
    pool: Pool,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            pool: Pool::new(IDLE_BLOCKS),
        }
    }

    pub(super) fn take(&self) -> Result<Block, Error> {
        self.pool.take()
    }

    /// The first `length` bytes of a block, which the system has filled and let go of.
    pub(super) fn filled(block: Block, length: usize) -> Result<EvBuffer, Error> {
        let mut bytes = EvBuffer::new();
        if length <= SMALL {
            bytes.append_slice(&block[..length])?;
        } else {
            bytes.append_block(block, length)?;
        }
        Ok(bytes)
    }
}
