//! Lending: the two buffers that a layer moves bytes between are out of their nodes while code that is not the core's works on
//! them, and come back by themselves.
//!
//! # Invariants
//! - What was taken out and put in is found from the lengths before and after, and handed to `wake.rs`: nobody can forget to
//!   wake anybody.
//! - The buffers come back also when the borrower panics; if a node was freed meanwhile, its buffer is dropped with nothing borrowed.
//! - What arrived in a node meanwhile goes behind.
//! - What comes into an input that throws everything away is dropped with nothing borrowed, before the buffer goes back.

use std::cell::{RefCell, RefMut};
use std::mem::ManuallyDrop;

use evbuffer::EvBuffer;

use crate::core::Core;
use crate::node::{Flags, Index, NONE, Node};

/// Which way bytes go through a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// From the input below to the own input.
    Up,
    /// From the own output to the output below.
    Down,
}

impl Way {
    #[inline(always)]
    fn buffer(self, node: &mut Node) -> &mut EvBuffer {
        match self {
            Self::Up => &mut node.input,
            Self::Down => &mut node.output,
        }
    }

    pub(crate) const fn lent(self) -> Flags {
        match self {
            Self::Up => Flags::INPUT_LENT,
            Self::Down => Flags::OUTPUT_LENT,
        }
    }
}

/// A buffer that is lent, and where it belongs.
pub(crate) struct Lent {
    pub(crate) index: Index,
    pub(crate) generation: u32,
    /// How many bytes were in it.
    before: usize,
    pub(crate) buffer: ManuallyDrop<EvBuffer>,
}

impl Lent {
    /// An empty buffer, which belongs to nobody.
    #[inline(always)]
    const fn nobodys() -> Self {
        Self {
            index: NONE,
            generation: 0,
            before: 0,
            buffer: ManuallyDrop::new(EvBuffer::new()),
        }
    }

    /// Takes a buffer out of its node, at most so many bytes of it; `false` if it is lent already.
    #[inline(always)]
    fn take(&mut self, node: &mut Node, index: Index, way: Way, most: usize) -> bool {
        if node.flags.intersects(way.lent()) {
            return false;
        }
        node.flags.insert(way.lent());
        self.index = index;
        self.generation = node.generation;
        let buffer = way.buffer(node);
        if most < buffer.len() {
            self.take_part(buffer, most);
        } else {
            self.buffer.swap_with(buffer);
        }
        self.before = self.buffer.len();
        true
    }

    /// Takes the first `most` bytes. What stays is put behind what comes back.
    #[inline(never)]
    fn take_part(&mut self, buffer: &mut EvBuffer, most: usize) {
        // Where memory lacks to part a segment, all of it is lent.
        if buffer.move_to(most, &mut self.buffer).is_err() {
            self.buffer.swap_with(buffer);
        }
    }

    /// Puts the buffer back into its node, before what arrived there meanwhile.
    #[inline(always)]
    fn return_to(&mut self, node: &mut Node, way: Way) {
        node.flags.remove(way.lent());
        self.index = NONE;
        let place = way.buffer(node);
        if place.is_bare() {
            self.buffer.swap_with(place);
        } else {
            self.join(place);
        }
    }

    #[inline(never)]
    fn join(&mut self, place: &mut EvBuffer) {
        // Sums of lengths that fitted before fit again.
        let _ = self.buffer.append(place);
        self.buffer.swap_with(place);
    }

    /// Bytes that came in.
    #[inline]
    fn gained(&self) -> usize {
        self.buffer.len().saturating_sub(self.before)
    }

    /// Bytes that left.
    #[inline]
    fn lost(&self) -> usize {
        self.before.saturating_sub(self.buffer.len())
    }
}

/// Two buffers that are lent to a layer: one to take from, and one to add to. Whoever has it ends it.
pub(crate) struct Loan {
    pub(crate) way: Way,
    /// What comes into the second is not wanted.
    discards: bool,
    /// Bytes that fit into the second.
    pub(crate) room: usize,
    /// Nobody's, and empty, if there is nothing to take from.
    pub(crate) source: Lent,
    /// Nobody's while nothing is lent.
    pub(crate) sink: Lent,
}

impl Loan {
    /// A loan of nothing yet.
    #[inline(always)]
    pub(crate) fn new(way: Way) -> Self {
        Self {
            way,
            discards: false,
            room: 0,
            source: Lent::nobodys(),
            sink: Lent::nobodys(),
        }
    }

    /// Takes the buffer to take from out of its node, of at most so many bytes; `false` if it is lent already. `way` is the loan's.
    #[inline(always)]
    pub(crate) fn take_source(
        &mut self,
        node: &mut Node,
        index: Index,
        way: Way,
        most: usize,
    ) -> bool {
        self.source.take(node, index, way, most)
    }

    /// Takes the buffer to add to out of its node; `false` if it is lent already.
    #[inline(always)]
    pub(crate) fn take_sink(&mut self, node: &mut Node, index: Index, way: Way) -> bool {
        self.discards = way == Way::Up && node.flags.contains(Flags::DISCARD);
        self.sink.take(node, index, way, usize::MAX)
    }

    /// Whether the buffers are out.
    #[inline]
    pub(crate) fn is_out(&self) -> bool {
        self.sink.index != NONE
    }

    /// Whether both buffers are out, these are the nodes that they belong to, and bytes went the way that they are to go.
    #[inline(always)]
    pub(crate) fn is_of(&self, from: &Node, to: &Node) -> bool {
        self.is_out()
            && (self.source.index == NONE || self.source.generation == from.generation)
            && self.sink.generation == to.generation
            && self.source.buffer.len() <= self.source.before
            && self.sink.buffer.len() >= self.sink.before
    }

    /// Bytes that left the buffer to take from.
    #[inline]
    pub(crate) fn lost(&self) -> usize {
        self.source.lost()
    }

    /// Bytes that came into the buffer to add to.
    #[inline]
    pub(crate) fn gained(&self) -> usize {
        self.sink.gained()
    }

    /// Bytes that left the one or came into the other, whichever are more.
    #[inline]
    pub(crate) fn moved(&self) -> usize {
        self.lost().max(self.gained())
    }

    /// Puts both buffers back, `from` and `to` being the nodes that they come from.
    #[inline(always)]
    pub(crate) fn return_to(&mut self, from: &mut Node, to: &mut Node, way: Way) {
        if self.source.index != NONE {
            self.source.return_to(from, way);
        }
        self.sink.return_to(to, way);
    }

    /// Gives the buffers back, and hands the state on for what follows.
    #[inline(never)]
    pub(crate) fn end<'a>(&mut self, cell: &'a RefCell<Core>) -> RefMut<'a, Core> {
        if self.discards {
            self.sink.buffer.clear();
        }
        let mut core = cell.borrow_mut();
        give_back(&mut core, self.way, &mut self.source);
        give_back(&mut core, self.way, &mut self.sink);
        if self.source.buffer.is_bare() && self.sink.buffer.is_bare() {
            return core;
        }
        // What belonged to nodes that are gone.
        drop(core);
        for lent in [&mut self.source, &mut self.sink] {
            drop(ManuallyDrop::into_inner(std::mem::take(&mut lent.buffer)));
        }
        cell.borrow_mut()
    }
}

/// Gives a buffer back, if it is somebody's, and tells what became of it. If its node was freed meanwhile it stays where it is, to be
/// dropped outside of the borrow.
fn give_back(core: &mut Core, way: Way, lent: &mut Lent) {
    let (index, gained, lost) = (lent.index, lent.gained(), lent.lost());
    lent.index = NONE;
    let Some(node) = core.nodes.find_mut(index, lent.generation) else {
        return;
    };
    lent.return_to(node, way);
    match way {
        Way::Up => {
            core.lost_input(index, lost);
            core.gained_input(index, gained);
        }
        Way::Down => {
            core.lost_output(index, lost);
            core.gained_output(index, gained);
        }
    }
}

/// A loan that ends where this is dropped.
pub(crate) struct Scoped<'a> {
    pub(crate) cell: &'a RefCell<Core>,
    pub(crate) loan: Loan,
}

impl Drop for Scoped<'_> {
    fn drop(&mut self) {
        drop(self.loan.end(self.cell));
    }
}
