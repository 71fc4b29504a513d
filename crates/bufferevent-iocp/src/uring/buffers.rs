//! Blocks that the kernel receives into: a ring of them that it shares with us, and takes from as bytes arrive.
//!
//! # Invariants
//! - The block of an entry that the kernel has belongs to the kernel: it is out of reach of safe code, as a pointer, from
//!   [`Buffers::offer`] until the completion that names it.
//! - A block of which [`WORTH_IT`] bytes or more are used becomes a segment without a copy, and another from the pool takes its place; fewer bytes
//!   are copied out, and the block goes back at once. So who holds received bytes for long never holds up the ring, nor more than four times
//!   their memory.
//! - There are [`FIRST_BLOCKS`] blocks at first; twice as many when they did not suffice and there are more receives than blocks; and [`MOST_BLOCKS`]
//!   at most. So one turn brings a block per receive, however much a single one could bring.
//! - The memory of ring and blocks is freed only by [`Buffers::release`], when the kernel is known to have let go; else it is leaked.

#![allow(unsafe_code, reason = "memory that is shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use evbuffer::{BLOCK_LEN, Block, EvBuffer, Pool};
use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The group under which the kernel knows the ring.
pub(super) const GROUP: u16 = 0;

/// From so many bytes on a block is not copied: a quarter of it.
const WORTH_IT: usize = BLOCK_LEN / 4;

/// Blocks at first: 1 MiB.
const FIRST_BLOCKS: u16 = 16;

/// Blocks at most: 32 MiB, for one that is in use by each of as many bursts at once.
const MOST_BLOCKS: u16 = 512;

/// Blocks that wait for their next use outside of the ring: 4 MiB.
const IDLE_BLOCKS: usize = 64;

/// What the kernel wants the ring aligned to.
const PAGE: usize = 4096;

/// The ring, and what is in it.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    /// By number; the kernel has those that are `true` in `lent`. `MaybeUninit`, so that moving this claims nothing about bytes that the kernel
    /// may be writing to.
    blocks: Vec<MaybeUninit<Block>>,
    lent: Vec<bool>,
    tail: u16,
    pool: Pool,
    /// Numbers without a block, for want of memory.
    missing: Vec<u16>,
}

// SAFETY: the memory behind `entries` is owned by this alone, and shared with the kernel only.
unsafe impl Send for Buffers {}

impl Buffers {
    fn layout() -> Layout {
        Layout::from_size_align(usize::from(MOST_BLOCKS) * size_of::<BufRingEntry>(), PAGE)
            .expect("a page is a power of two, and the ring is short")
    }

    /// Makes the ring and has the kernel know it.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let layout = Self::layout();
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout);
        };
        // SAFETY: the memory is page-aligned, zeroed, as long as the ring, and outlives the registration: it is freed in
        // `release`, after that was ended, or never.
        let registered = unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, MOST_BLOCKS, GROUP, 0)
        };
        if let Err(error) = registered {
            // SAFETY: allocated above with this layout; the kernel has refused it.
            unsafe { dealloc(memory, layout) };
            return Err(error);
        }
        let mut buffers = Self {
            entries,
            blocks: Vec::with_capacity(usize::from(MOST_BLOCKS)),
            lent: Vec::with_capacity(usize::from(MOST_BLOCKS)),
            tail: 0,
            pool: Pool::new(IDLE_BLOCKS),
            missing: Vec::new(),
        };
        buffers.grow_to(FIRST_BLOCKS);
        Ok(buffers)
    }

    /// The ring ran dry while so many receives were under way: more blocks, if it is short of them, up to the limit.
    pub(super) fn grow(&mut self, receives: usize) {
        if receives <= self.blocks.len() {
            return;
        }
        let more = (self.blocks.len() as u16).saturating_mul(2);
        self.grow_to(more.min(MOST_BLOCKS));
    }

    fn grow_to(&mut self, count: u16) {
        for number in self.blocks.len() as u16..count {
            self.blocks.push(MaybeUninit::uninit());
            self.lent.push(false);
            self.missing.push(number);
        }
        self.refill();
    }

    /// Fills the places that lack a block. Returns whether the kernel has any.
    pub(super) fn refill(&mut self) -> bool {
        while let Some(number) = self.missing.pop() {
            let Ok(block) = self.pool.take() else {
                self.missing.push(number);
                break;
            };
            self.offer(number, block);
        }
        self.lent.contains(&true)
    }

    /// Whether all places are filled: the usual case, in which nothing need be looked at.
    pub(super) fn is_full(&self) -> bool {
        self.missing.is_empty()
    }

    /// Gives a block to the kernel.
    fn offer(&mut self, number: u16, mut block: Block) {
        let at = usize::from(number);
        let address = block.as_mut_ptr() as u64;
        self.blocks[at].write(block);
        self.lent[at] = true;
        self.publish(number, address);
    }

    fn publish(&mut self, number: u16, address: u64) {
        let slot = usize::from(self.tail % MOST_BLOCKS);
        // SAFETY: `slot` is within the ring. The kernel reads entries up to the published tail only, and there are never more
        // published than the ring is long, as each number is published once until it is named by a completion. So this entry is
        // ours. Fields are set one by one: the tail lies in the first entry's last two bytes, which no setter touches.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(address);
            entry.set_len(BLOCK_LEN as u32);
            entry.set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the registered ring's base, page-aligned and initialised; its tail is a `u16` within, aligned, and
        // written by us alone. The release makes the entry visible before the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Takes what the kernel wrote: `length` bytes in block `number`, which a completion has just named.
    pub(super) fn take(&mut self, number: u16, length: usize) -> EvBuffer {
        let at = usize::from(number);
        let lent = self.lent.get_mut(at).is_some_and(std::mem::take);
        assert!(
            lent,
            "the kernel named block {number}, which it did not have"
        );
        assert!(
            length <= BLOCK_LEN,
            "the kernel filled {length} bytes of a block"
        );
        // SAFETY: written by `offer`, which set `lent`; cleared above, so this is read once. The completion says that the kernel
        // has let go of it.
        let block = unsafe { self.blocks[at].assume_init_read() };
        if length < WORTH_IT {
            let mut bytes = EvBuffer::new();
            if bytes.append_slice(&block[..length]).is_err() {
                tracing::error!("no memory for {length} bytes that were received");
            }
            self.offer(number, block);
            return bytes;
        }
        match self.pool.take() {
            Ok(other) => self.offer(number, other),
            Err(_) => self.missing.push(number),
        }
        let mut bytes = EvBuffer::new();
        // One segment goes into an empty buffer without an allocation.
        let _ = bytes.append_block(block, length);
        bytes
    }

    /// Reads once from a socket, into a block that is not the kernel's. No bytes are the end of the stream.
    pub(super) fn read(&mut self, socket: RawFd) -> io::Result<EvBuffer> {
        let mut block = self.pool.take().map_err(io::Error::other)?;
        // SAFETY: the block is ours, and as long as is said; the kernel has written to it when this returns, and does not later.
        let length = unsafe {
            libc::recv(
                socket,
                block.as_mut_ptr().cast(),
                block.len(),
                libc::MSG_DONTWAIT,
            )
        };
        let Ok(length) = usize::try_from(length) else {
            return Err(io::Error::last_os_error());
        };
        let mut bytes = EvBuffer::new();
        if length < WORTH_IT {
            bytes
                .append_slice(&block[..length])
                .map_err(io::Error::other)?;
        } else {
            let _ = bytes.append_block(block, length);
        }
        Ok(bytes)
    }

    /// Frees ring and blocks.
    ///
    /// # Safety
    /// No receive is under way any more, and none will be.
    pub(super) unsafe fn release(self, submitter: &Submitter<'_>) {
        let this = ManuallyDrop::new(self);
        if submitter.unregister_buf_ring(GROUP).is_err() {
            return; // It is the kernel's still: leaked.
        }
        for (block, &lent) in this.blocks.iter().zip(&this.lent) {
            if lent {
                // SAFETY: `lent` says that it was written and not read since; no receive is under way, by the contract, and each is read
                // once here.
                drop(unsafe { block.assume_init_read() });
            }
        }
        // SAFETY: allocated by `register` with this layout, and the kernel has forgotten it.
        unsafe { dealloc(this.entries.as_ptr().cast(), Self::layout()) };
        // SAFETY: `this` is not dropped or used again; each field is read once.
        unsafe {
            drop(std::ptr::read(&this.blocks));
            drop(std::ptr::read(&this.lent));
            drop(std::ptr::read(&this.missing));
            drop(std::ptr::read(&this.pool));
        }
    }
}
