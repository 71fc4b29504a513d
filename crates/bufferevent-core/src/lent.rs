//! Lending: a buffer is out of its node while code that is not the core's works on it, and comes back by itself.
//!
//! # Invariants
//! - What was taken out and put in is found from the lengths before and after, and handed to `wake.rs`: nobody can forget to
//!   wake anybody.
//! - The buffer comes back also when the borrower panics; if its node was freed meanwhile, it is dropped with nothing borrowed.
//! - What arrived in the node meanwhile goes behind.
//! - What comes into an input that throws everything away is dropped with nothing borrowed, before the buffer goes back.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use evbuffer::EvBuffer;

use crate::core::Core;
use crate::node::{Flags, Index, Node};

/// One of a node's buffers.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Side {
    Input,
    Output,
}

/// Which buffer, of which node.
pub(crate) type Place = (Index, Side);

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

/// Where a lent buffer belongs, and what was in it.
#[derive(Clone, Copy)]
struct Home {
    place: Place,
    generation: u32,
    before: usize,
}

/// Two buffers that are lent to somebody, and go back when this is dropped: one to take from, and one to add to.
pub(crate) struct Loan<'a> {
    cell: &'a RefCell<Core>,
    /// `None`: there is nothing to take from, and an empty buffer stands for it.
    from: Option<Home>,
    /// `None`: nothing is lent.
    to: Option<Home>,
    /// What comes into the second is not wanted.
    discards: bool,
    source: ManuallyDrop<EvBuffer>,
    sink: ManuallyDrop<EvBuffer>,
}

/// Marks a buffer as lent and says where it belongs; `None` if it is lent already, or its node gone.
#[inline(always)]
fn mark(core: &mut Core, place: Place) -> Option<Home> {
    let (index, side) = place;
    let node = core.nodes.get_mut(index)?;
    if node.flags.intersects(side.lent()) {
        return None;
    }
    node.flags.insert(side.lent());
    Some(Home {
        place,
        generation: node.generation,
        before: side.of(node).len(),
    })
}

impl<'a> Loan<'a> {
    /// A loan of nothing yet.
    #[inline(always)]
    pub(crate) fn new(cell: &'a RefCell<Core>) -> Self {
        Self {
            cell,
            from: None,
            to: None,
            discards: false,
            source: ManuallyDrop::new(EvBuffer::new()),
            sink: ManuallyDrop::new(EvBuffer::new()),
        }
    }

    /// Takes the buffers out of their nodes, of the first so many bytes at most, `core` being the state in the cell; `false` if one of
    /// them cannot be had: then nothing is lent.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        core: &mut Core,
        from: Option<(Place, usize)>,
        to: Place,
    ) -> bool {
        if let Some((place, _)) = from {
            self.from = mark(core, place);
            if self.from.is_none() {
                return false;
            }
        }
        self.to = mark(core, to);
        if self.to.is_none() {
            if let Some(Home { place, .. }) = self.from.take() {
                core.node(place.0).flags.remove(place.1.lent());
            }
            return false;
        }
        let (index, side) = to;
        let node = core.nodes.node(index);
        self.discards = side == Side::Input && node.flags.contains(Flags::DISCARD);
        self.sink.swap_with(side.of(node));
        if let Some(((index, side), most)) = from {
            let buffer = side.of(core.nodes.node(index));
            if most < buffer.len() {
                self.take_part(buffer, most);
            } else {
                self.source.swap_with(buffer);
            }
        }
        true
    }

    /// Takes the first `most` bytes. What stays is put behind what comes back.
    #[inline(never)]
    fn take_part(&mut self, buffer: &mut EvBuffer, most: usize) {
        // Where memory lacks to part a segment, all of it is lent.
        if buffer.move_to(most, &mut self.source).is_err() {
            self.source.swap_with(buffer);
        }
        if let Some(home) = &mut self.from {
            home.before = self.source.len();
        }
    }

    /// The buffers: one to take from, and one to add to.
    #[inline]
    pub(crate) fn buffers(&mut self) -> (&mut EvBuffer, &mut EvBuffer) {
        (&mut self.source, &mut self.sink)
    }

    /// Bytes that left the one or came into the other, whichever are more.
    #[inline]
    pub(crate) fn moved(&self) -> usize {
        let before = |home: Option<Home>| home.map_or(0, |home| home.before);
        let lost = before(self.from).saturating_sub(self.source.len());
        lost.max(self.sink.len().saturating_sub(before(self.to)))
    }
}

impl Drop for Loan<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.discards {
            self.sink.clear();
        }
        if let Some(to) = self.to {
            let mut core = self.cell.borrow_mut();
            if let Some(from) = self.from {
                put_back(&mut core, from, &mut self.source);
            }
            put_back(&mut core, to, &mut self.sink);
        }
        // Usually both are as new now: finding that out costs less than having them dropped.
        for buffer in [&mut self.source, &mut self.sink] {
            if !buffer.is_bare() {
                drop(ManuallyDrop::into_inner(std::mem::take(buffer)));
            }
        }
    }
}

/// Puts a buffer back where it belongs. If its node was freed meanwhile it stays where it is, to be dropped outside of the borrow.
fn put_back(core: &mut Core, home: Home, buffer: &mut EvBuffer) {
    let gained = buffer.len().saturating_sub(home.before);
    let lost = home.before.saturating_sub(buffer.len());
    let (index, side) = home.place;
    let Some(node) = core.nodes.find_mut(index, home.generation) else {
        return;
    };
    node.flags.remove(side.lent());
    let place = side.of(node);
    if !place.is_empty() {
        // Sums of lengths that fitted before fit again.
        let _ = buffer.append(place);
    }
    buffer.swap_with(place);
    match side {
        Side::Input => {
            core.lost_input(index, lost);
            core.gained_input(index, gained);
        }
        Side::Output => {
            core.lost_output(index, lost);
            core.gained_output(index, gained);
        }
    }
}
