//! Blocks of one size that are used again and again: what sockets are read into.
//!
//! A read does not know how much will come, so it wants much room; a connection at rest wants
//! none. Both are had when the room is borrowed for the read and the few bytes that came are
//! copied out of it, or, when many came, the block itself becomes a segment without a copy.
//!
//! # Invariants
//! - Every byte of a block is initialised: a block is zeroed when it is made and never again.
//! - A block goes back to the pool it came from, from whatever thread drops it.
//! - A pool keeps at most its limit of idle blocks; those above are freed.
//! - Memory is allocated and freed outside of the lock.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};

use crate::error::{Error, ErrorKind};
use crate::sync::{Arc, Mutex, lock};

/// Length of a [`Block`] in bytes: the largest read that pays, and what one TCP segment offload brings.
pub const BLOCK_LEN: usize = 64 * 1024;

/// Idle blocks that [`Pool::default`] keeps: 1 MiB, enough for a loop that reads one connection at a time.
pub const DEFAULT_IDLE_BLOCKS: usize = 16;

/// A stock of [`Block`]s, shared by its clones.
///
/// # Examples
/// ```
/// use evbuffer::{BLOCK_LEN, EvBuffer, Pool};
///
/// let pool = Pool::new(4);
/// let mut block = pool.take()?;
/// assert_eq!(block.len(), BLOCK_LEN);
/// block[..5].copy_from_slice(b"hello"); // A read would do this.
/// let mut buffer = EvBuffer::new();
/// buffer.append_block(block, 5)?; // No copy.
/// assert_eq!(buffer.drain(5), 5);
/// assert_eq!(pool.idle(), 1, "drained blocks go back");
/// # Ok::<(), evbuffer::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    max_idle_blocks: usize,
    idle: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    /// Makes a pool that keeps up to `max_idle_blocks` blocks for the next taker. It starts with none.
    #[must_use]
    pub fn new(max_idle_blocks: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max_idle_blocks,
                idle: Mutex::new(Vec::new()),
            }),
        }
    }

    /// Takes a block: an idle one, with whatever bytes its last user left in it, or a new one, zeroed.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when there is no idle block and no memory for a new one.
    pub fn take(&self) -> Result<Block, Error> {
        let idle = lock(&self.shared.idle).pop();
        let bytes = match idle {
            Some(bytes) => bytes,
            None => zeroed(BLOCK_LEN, "take")?.into_boxed_slice(),
        };
        Ok(Block {
            bytes,
            pool: self.shared.clone(),
        })
    }

    /// How many blocks wait for a taker.
    #[must_use]
    pub fn idle(&self) -> usize {
        lock(&self.shared.idle).len()
    }

    /// The most blocks that may wait.
    #[must_use]
    pub fn max_idle_blocks(&self) -> usize {
        self.shared.max_idle_blocks
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(DEFAULT_IDLE_BLOCKS)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.idle())
            .field("max_idle_blocks", &self.max_idle_blocks())
            .finish()
    }
}

/// [`BLOCK_LEN`] initialised bytes on loan from a [`Pool`]; dropping the block gives them back.
#[must_use = "a block that is dropped at once was taken for nothing"]
pub struct Block {
    bytes: Box<[u8]>,
    pool: Arc<Shared>,
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        let mut idle = lock(&self.pool.idle);
        if idle.len() < self.pool.max_idle_blocks && idle.try_reserve(1).is_ok() {
            idle.push(bytes);
        } else {
            drop(idle); // The lock first: freeing may be slow.
            drop(bytes);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// `len` zeroed bytes, or the error that there is no memory for them.
pub(crate) fn zeroed(len: usize, during: &'static str) -> Result<Vec<u8>, Error> {
    let mut bytes = storage(len, during)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// An empty vector with room for `len` bytes, or the error that there is no memory for them.
#[inline]
pub(crate) fn storage(len: usize, during: &'static str) -> Result<Vec<u8>, Error> {
    if len > crate::MAX_LEN {
        return Err(Error::new(ErrorKind::TooLong, during));
    }
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(Error::out_of_memory(during))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_zeroed_once_and_reused_as_it_is() {
        let pool = Pool::new(1);
        let mut block = pool.take().unwrap();
        assert!(block.iter().all(|&byte| byte == 0));
        block[7] = 9;
        drop(block);
        assert_eq!(pool.take().unwrap()[7], 9);
    }

    #[test]
    fn idle_blocks_stay_within_the_limit() {
        let pool = Pool::new(2);
        let blocks: Vec<Block> = (0..5).map(|_| pool.take().unwrap()).collect();
        assert_eq!(pool.idle(), 0);
        drop(blocks);
        assert_eq!(pool.idle(), 2);
        let none = Pool::new(0);
        drop(none.take().unwrap());
        assert_eq!(none.idle(), 0);
    }

    #[test]
    fn a_block_goes_home_from_another_thread_and_survives_its_pool() {
        let pool = Pool::new(1);
        let block = pool.take().unwrap();
        std::thread::spawn(move || drop(block)).join().unwrap();
        assert_eq!(pool.idle(), 1);
        let orphan = pool.take().unwrap();
        drop(pool);
        assert_eq!(orphan.len(), BLOCK_LEN);
    }
}
