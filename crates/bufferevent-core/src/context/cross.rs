//! Bytes that cross a layer: between the buffers of a bufferevent and those of the one below it.

use evbuffer::EvBuffer;

use super::Context;
use crate::core::Core;
use crate::lent::{Loan, Scoped, Way};
use crate::node::Flags;
use crate::options::Mode;

impl Context<'_> {
    /// Lends the input of the one below and the own input: for a layer to move bytes up. The closure also gets the
    /// room, and answers how many bytes it moved.
    ///
    /// Both are away until the closure is over. In a step of an ordinary stack they are from its beginning to its end, or until the
    /// layer asks for anything else that may hang on them.
    #[inline]
    pub fn lift(&mut self, up: impl FnOnce(&mut EvBuffer, &mut EvBuffer, usize) -> usize) -> usize {
        self.cross(Way::Up, up)
    }

    /// Lends the own output and the output of the one below: for a layer to move bytes down. The closure also gets the
    /// room below, and answers how many bytes it moved. They are away as long as those of [`lift`](Self::lift).
    ///
    /// While writing is disabled or held up, an empty buffer stands for the own output: the user's bytes stay, the layer's own
    /// may go. With a rate limit it is the part of the own output that may pass.
    #[inline]
    pub fn lower(
        &mut self,
        down: impl FnOnce(&mut EvBuffer, &mut EvBuffer, usize) -> usize,
    ) -> usize {
        self.cross(Way::Down, down)
    }

    #[inline(always)]
    fn cross(
        &mut self,
        way: Way,
        step: impl FnOnce(&mut EvBuffer, &mut EvBuffer, usize) -> usize,
    ) -> usize {
        let mut scoped = None;
        if !self.has_lent(way) {
            let lent = scoped.insert(Scoped {
                cell: self.cell,
                loan: Loan::new(way),
            });
            if self.lend(&mut lent.loan).is_none() {
                return 0;
            }
        }
        let loan = match (&mut scoped, &mut self.loan) {
            (Some(scoped), _) => &mut scoped.loan,
            (None, Some(loan)) => loan,
            (None, None) => return 0,
        };
        let before = loan.moved();
        let room = loan.room.saturating_sub(loan.gained());
        let moved = step(&mut loan.source.buffer, &mut loan.sink.buffer, room);
        let count = loan.moved().saturating_sub(before);
        self.moved.set(self.moved.get() + count);
        moved
    }

    /// Whether the buffers of this way are out for the length of the step.
    #[inline]
    fn has_lent(&self, way: Way) -> bool {
        self.loan
            .as_ref()
            .is_some_and(|loan| loan.way == way && loan.is_out())
    }

    /// Whether buffers are out for the length of the step: what is below had not ended when it began.
    #[inline]
    pub(super) fn is_lent(&self) -> bool {
        self.loan.as_ref().is_some_and(|loan| loan.is_out())
    }

    /// Takes the buffers out of their nodes; `None`: one of them cannot be had.
    #[inline(never)]
    fn lend(&mut self, loan: &mut Loan) -> Option<()> {
        let mut core = self.state();
        match loan.way {
            Way::Up => self.lend_up(&mut core, loan),
            Way::Down => self.lend_down(&mut core, loan),
        }
    }

    fn lend_up(&self, core: &mut Core, loan: &mut Loan) -> Option<()> {
        loan.room = self.room_in(core);
        let below = core.find(self.index, self.generation)?.below;
        let under = core.nodes.get_mut(below)?;
        let both = loan.take_source(under, below, Way::Up, usize::MAX)
            && loan.take_sink(core.node(self.index), self.index, Way::Up);
        both.then_some(())
    }

    fn lend_down(&self, core: &mut Core, loan: &mut Loan) -> Option<()> {
        let node = core.find(self.index, self.generation)?;
        let (below, gives) = (node.below, node.gives());
        let flushes = node.flags.contains(Flags::OWES_FLUSH);
        let under = core.nodes.get_mut(below)?;
        loan.room = match self.mode {
            Mode::Normal | Mode::Finished if !flushes => under.write_mark.room(under.output.len()),
            Mode::Normal | Mode::Finished | Mode::Flush => usize::MAX,
        };
        let allowed = self.allowed.saturating_sub(self.moved.get());
        let both = loan.take_sink(under, below, Way::Down)
            && (!gives || loan.take_source(core.node(self.index), self.index, Way::Down, allowed));
        both.then_some(())
    }
}
