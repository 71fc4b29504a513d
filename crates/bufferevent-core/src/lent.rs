//! Lending: a buffer is out of its node while code that is not the core's works on it, and comes back by itself.
//!
//! # Invariants
//! - What was taken out and put in is found from the lengths before and after, and handed to `wake.rs`: nobody can forget to
//!   wake anybody.
//! - The buffer comes back also when the borrower panics; if its node was freed meanwhile, it is dropped with nothing borrowed.
//! - What arrived in the node meanwhile goes behind.

use std::cell::RefCell;

use evbuffer::EvBuffer;

use crate::core::Core;
use crate::node::{Flags, Index, Node};

/// One of a node's buffers.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Side {
    Input,
    Output,
}

impl Side {
    fn of(self, node: &mut Node) -> &mut EvBuffer {
        match self {
            Self::Input => &mut node.input,
            Self::Output => &mut node.output,
        }
    }

    fn lent(self) -> Flags {
        match self {
            Self::Input => Flags::INPUT_LENT,
            Self::Output => Flags::OUTPUT_LENT,
        }
    }
}

/// A buffer that is out of its node, and goes back when this is dropped.
pub(crate) struct Lent<'a> {
    cell: &'a RefCell<Core>,
    index: Index,
    generation: u32,
    side: Side,
    pub(crate) buffer: EvBuffer,
    before: usize,
    /// It was given back already.
    back: bool,
}

impl<'a> Lent<'a> {
    pub(crate) fn take(
        cell: &'a RefCell<Core>,
        core: &mut Core,
        index: Index,
        side: Side,
    ) -> Option<Self> {
        let node = core.get_mut(index)?;
        if node.flags.intersects(side.lent()) {
            return None;
        }
        node.flags.insert(side.lent());
        let buffer = std::mem::take(side.of(node));
        let before = buffer.len();
        Some(Self {
            cell,
            index,
            generation: node.generation,
            side,
            buffer,
            before,
            back: false,
        })
    }

    pub(crate) fn gained(&self) -> usize {
        self.buffer.len().saturating_sub(self.before)
    }

    pub(crate) fn lost(&self) -> usize {
        self.before.saturating_sub(self.buffer.len())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.back {
            let cell = self.cell;
            self.give_back(&mut cell.borrow_mut());
        }
    }
}

impl Lent<'_> {
    /// Gives the buffer back. Dropping does that too; this is for whoever is in the domain anyway.
    #[inline]
    pub(crate) fn give_back(&mut self, core: &mut Core) {
        self.back = true;
        let (gained, lost) = (self.gained(), self.lost());
        // Freed meanwhile: the bytes go with the buffer, outside of the borrow.
        let Some(node) = core.find_mut(self.index, self.generation) else {
            return;
        };
        node.flags.remove(self.side.lent());
        let place = self.side.of(node);
        if !place.is_empty() {
            // Sums of lengths that fitted before fit again.
            let _ = self.buffer.append(place);
        }
        std::mem::swap(place, &mut self.buffer);
        match self.side {
            Side::Input => {
                core.lost_input(self.index, lost);
                core.gained_input(self.index, gained);
            }
            Side::Output => {
                core.lost_output(self.index, lost);
                core.gained_output(self.index, gained);
            }
        }
    }
}
