//! What a type of bufferevent sees of its node while one of its calls runs.
//!
//! Buffers are *lent*: taken out of the node for the length of a closure and put back with what arrived meanwhile behind.
//! Nothing is borrowed while the closure runs, so it may make system calls, run filters of the user's, and drop what
//! it drains.
//!
//! # Invariants
//! - What a closure took out and put in is found from the lengths before and after, and handed to `wake.rs`: a type cannot
//!   forget to wake anybody.
//! - A buffer comes back also when the closure panics; only a transport's own output, lent by [`Context::send`], goes with the
//!   bufferevent, which a panic of its type frees.
//! - While it is lent, a second removal from it is refused (`Busy`), and additions wait behind.

mod ask;
mod cross;

use std::cell::{Cell, RefCell, RefMut};

use evbuffer::EvBuffer;
use evreactor_core::{Moment, Phase};

use crate::core::Core;
use crate::direction::{Direction, Directions, Reasons};
use crate::domain::Call;
use crate::error::Error;
use crate::lent::{Loan, Way};
use crate::node::{End, Flags, Index, Link, NONE, Node};
use crate::options::Mode;

/// A node of this domain, as a type may keep it: the partner of a pair end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NodeKey {
    pub(crate) index: Index,
    pub(crate) generation: u32,
}

/// How what is below has ended.
#[derive(Clone, Debug)]
pub enum BelowEnd {
    /// At its end, cleanly.
    Eof,
    /// By an error.
    Failed(Error),
}

/// A type's view of its own node, and of the one below or beside it.
pub struct Context<'a> {
    cell: &'a RefCell<Core>,
    index: Index,
    generation: u32,
    mode: Mode,
    moved: Cell<usize>,
    /// What the pump knew when the call began, so that the type need not look again: bytes that fit in,
    /// or may go out, in this step.
    share: Option<usize>,
    /// Bytes that a rate lets pass in this step.
    allowed: usize,
    /// The own output, taken out for the length of a transport's push.
    output: Option<&'a mut EvBuffer>,
    /// The buffers that bytes cross a layer between, if they are out for the length of the step: until it is over, or looks at or
    /// changes anything else.
    loan: Option<&'a mut Loan>,
    /// Whether this call may find an end wanted, or a connection under way: if not, nobody need look.
    unsettled: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn new(cell: &'a RefCell<Core>, index: Index, generation: u32, mode: Mode) -> Self {
        Self {
            cell,
            index,
            generation,
            mode,
            moved: Cell::new(0),
            share: None,
            allowed: usize::MAX,
            output: None,
            loan: None,
            unsettled: true,
        }
    }

    /// A context for a pull of a transport, which may bring `share` bytes.
    #[inline]
    pub(crate) fn of_pull(
        cell: &'a RefCell<Core>,
        index: Index,
        generation: u32,
        mode: Mode,
        share: Option<usize>,
    ) -> Self {
        Self {
            cell,
            index,
            generation,
            mode,
            moved: Cell::new(0),
            share,
            allowed: usize::MAX,
            output: None,
            loan: None,
            unsettled: true,
        }
    }

    /// A context for a push. A transport may send `share` bytes of `output`, which is its node's. A bufferevent is settled that is
    /// connected and whose output nobody has ended.
    #[inline]
    pub(crate) fn of_push(
        cell: &'a RefCell<Core>,
        index: Index,
        generation: u32,
        mode: Mode,
        lent: Option<(usize, &'a mut EvBuffer)>,
        settled: bool,
    ) -> Self {
        let (share, output) = lent.unzip();
        Self {
            cell,
            index,
            generation,
            mode,
            moved: Cell::new(0),
            share,
            allowed: usize::MAX,
            output,
            loan: None,
            unsettled: !settled,
        }
    }

    /// A context for a step of a layer, to which two buffers are lent; what is below has not ended.
    #[inline]
    pub(crate) fn of_layer(
        cell: &'a RefCell<Core>,
        index: Index,
        generation: u32,
        loan: &'a mut Loan,
        settled: bool,
    ) -> Self {
        Self {
            cell,
            index,
            generation,
            mode: Mode::Normal,
            moved: Cell::new(0),
            share: None,
            allowed: usize::MAX,
            output: None,
            loan: Some(loan),
            unsettled: !settled,
        }
    }

    /// A rate lets so many bytes pass in this step.
    #[inline]
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.allowed = bytes;
        self.share = self.share.map(|share| share.min(bytes));
    }

    /// What is lent for the length of the step is back. Answers whose step it is.
    pub(crate) fn with_buffers_back(&mut self) -> (&'a RefCell<Core>, NodeKey) {
        drop(self.state());
        (self.cell, self.key())
    }

    /// Bytes that this call has moved so far.
    pub(crate) fn moved(&self) -> usize {
        self.moved.get()
    }

    fn count(&self, bytes: usize) {
        self.moved.set(self.moved.get() + bytes);
    }

    /// The state of the domain, with all buffers in their places.
    #[inline(always)]
    fn state(&mut self) -> RefMut<'a, Core> {
        match &mut self.loan {
            Some(loan) if loan.is_out() => loan.end(self.cell),
            Some(_) | None => self.cell.borrow_mut(),
        }
    }

    fn with<R>(&mut self, change: impl FnOnce(&mut Core, Index) -> R) -> Option<R> {
        let mut core = self.state();
        core.find(self.index, self.generation)?;
        Some(change(&mut core, self.index))
    }

    fn read<R>(&self, look: impl FnOnce(&Node) -> R) -> Option<R> {
        self.cell
            .borrow()
            .find(self.index, self.generation)
            .map(look)
    }

    /// The loop's time.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.cell.borrow().host().now()
    }

    /// How far the user asked this call to go.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the output is to end behind its last byte.
    #[must_use]
    pub fn finishing(&self) -> bool {
        self.unsettled
            && self.output.as_ref().is_none_or(|output| output.is_empty())
            && self
                .loan
                .as_ref()
                .is_none_or(|loan| loan.source.buffer.is_empty())
            && self
                .read(|node| {
                    node.write_end == End::Wanted && node.output.is_empty() && node.gives()
                })
                .unwrap_or(false)
    }

    /// Whether the own output is to end, or has ended, behind its last byte.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.read(|node| matches!(node.write_end, End::Wanted | End::Done))
            .unwrap_or(false)
    }

    /// Whether the connection was asked for and does not stand yet.
    #[must_use]
    pub fn connecting(&self) -> bool {
        self.unsettled
            && self
                .read(|node| node.link == Link::Connecting)
                .unwrap_or(false)
    }

    /// How many bytes the own input may take now: up to the high mark, what a rate limit lets pass and, for a transport, what is
    /// left of this turn's share. A flush reads past the mark. None while reading is disabled or held up.
    #[must_use]
    pub fn room(&self) -> usize {
        if let Some(share) = self.share {
            return share.saturating_sub(self.moved.get());
        }
        match &self.loan {
            Some(loan) if loan.is_out() && loan.way == Way::Up => {
                loan.room.saturating_sub(loan.gained())
            }
            Some(_) | None => self.room_in(&self.cell.borrow()),
        }
    }

    fn room_in(&self, core: &Core) -> usize {
        let Some(node) = core.find(self.index, self.generation) else {
            return 0;
        };
        // A layer that reads for itself while the user does not: the user's bytes stay below.
        if !node.enabled.contains(Directions::READ) || !node.held_read.is_empty() {
            return 0;
        }
        let marked = match self.mode {
            Mode::Normal => node.read_limit().saturating_sub(node.input.len()),
            Mode::Flush | Mode::Finished => usize::MAX,
        };
        let share = if node.below == NONE {
            node.max_single_read()
                .saturating_sub(core.spent_reading as usize)
                .max(1)
        } else {
            usize::MAX
        };
        let allowed = self.allowed.saturating_sub(self.moved.get());
        marked.min(share).min(allowed)
    }

    /// How many bytes may be sent in this step: what is left of this turn's share.
    #[must_use]
    pub fn share(&self) -> usize {
        if let Some(share) = self.share {
            return share.saturating_sub(self.moved.get());
        }
        let core = self.cell.borrow();
        let Some(node) = core.find(self.index, self.generation) else {
            return 0;
        };
        node.max_single_write()
            .saturating_sub(core.spent_writing as usize)
            .max(1)
    }

    /// Adds a copy of `bytes` to the own input: what a transport has read.
    ///
    /// # Errors
    /// What [`EvBuffer::append_slice`] answers: nothing was added.
    #[inline(always)]
    pub fn add_input(&mut self, bytes: &[u8]) -> Result<(), evbuffer::Error> {
        let mut core = self.cell.borrow_mut();
        match core.nodes.lone() {
            Some(node) if node.generation == self.generation && node.notices_by_itself() => {
                node.input.append_slice(bytes)?;
                node.gained_lone_input(bytes.len());
                self.count(bytes.len());
                Ok(())
            }
            _ => {
                drop(core);
                self.add_any_input(bytes)
            }
        }
    }

    #[inline(never)]
    fn add_any_input(&mut self, bytes: &[u8]) -> Result<(), evbuffer::Error> {
        self.grow_any_input(bytes.len(), |input| input.append_slice(bytes))
    }

    /// Adds a block that a transport has read into, without copying.
    ///
    /// # Errors
    /// What [`EvBuffer::append_block`] answers: nothing was added.
    pub fn add_input_block(
        &mut self,
        block: evbuffer::Block,
        length: usize,
    ) -> Result<(), evbuffer::Error> {
        self.grow_input(length, |input| input.append_block(block, length))
    }

    /// Moves up to `room` bytes of `bytes`, which a transport has received already, to the own input. Returns how many.
    #[inline]
    pub fn add_input_from(&mut self, bytes: &mut EvBuffer, room: usize) -> usize {
        let mut core = self.state();
        if core.find(self.index, self.generation).is_none() {
            return 0;
        }
        let moved = core.arrive(self.index, bytes, room);
        self.count(moved);
        moved
    }

    #[inline(always)]
    fn grow_input(
        &mut self,
        count: usize,
        add: impl FnOnce(&mut EvBuffer) -> Result<(), evbuffer::Error>,
    ) -> Result<(), evbuffer::Error> {
        let mut core = self.cell.borrow_mut();
        if let Some(node) = core.nodes.lone()
            && node.generation == self.generation
            && node.notices_by_itself()
        {
            add(&mut node.input)?;
            node.gained_lone_input(count);
            self.count(count);
            return Ok(());
        }
        drop(core);
        self.grow_any_input(count, add)
    }

    #[inline(never)]
    fn grow_any_input(
        &mut self,
        count: usize,
        add: impl FnOnce(&mut EvBuffer) -> Result<(), evbuffer::Error>,
    ) -> Result<(), evbuffer::Error> {
        let mut core = self.state();
        let Some(node) = core.nodes.find_mut(self.index, self.generation) else {
            return Ok(());
        };
        add(&mut node.input)?;
        core.gained_input(self.index, count);
        self.count(count);
        Ok(())
    }

    /// Lends the own output, for a transport to send from. What is gone from it afterwards was sent.
    #[inline(always)]
    pub fn send<R>(&mut self, send: impl FnOnce(&mut EvBuffer) -> R) -> Option<R> {
        let mut taken = None;
        let lent = self.output.is_some();
        let output = match self.output.as_deref_mut() {
            Some(output) => output,
            None => taken.insert(self.take_out()?),
        };
        let before = output.len();
        // If this panics the bufferevent is freed, and its output with it.
        let result = send(output);
        // One that adds instead has sent nothing.
        let sent = before.saturating_sub(output.len());
        self.moved.set(self.moved.get() + sent);
        if !lent && let Some(output) = taken {
            self.bring_back(output, sent);
        }
        Some(result)
    }

    /// Takes the own output out of the node; `None` if somebody else has it.
    #[cold]
    fn take_out(&self) -> Option<EvBuffer> {
        let mut core = self.cell.borrow_mut();
        let node = core.find_mut(self.index, self.generation)?;
        if node.flags.contains(Flags::OUTPUT_LENT) {
            return None;
        }
        node.flags.insert(Flags::OUTPUT_LENT);
        Some(std::mem::take(&mut node.output))
    }

    /// Puts the own output back, from which so many bytes were sent.
    #[cold]
    fn bring_back(&self, mut output: EvBuffer, sent: usize) {
        let mut core = self.cell.borrow_mut();
        if let Some(node) = core.find_mut(self.index, self.generation) {
            node.flags.remove(Flags::OUTPUT_LENT);
            if !node.output.is_empty() {
                // Sums of lengths that fitted before fit again.
                let _ = output.append(&mut node.output);
            }
            std::mem::swap(&mut node.output, &mut output);
            core.lost_output(self.index, sent);
        }
        // What is left, of a node that is gone, is dropped with nothing borrowed.
        drop(core);
    }

    /// Moves the own output to the input of `partner`, in the same domain, as far as that takes it: for one end of a pair.
    pub fn pass(&mut self, partner: NodeKey) -> usize {
        let mut core = self.state();
        let Some(node) = core.find(partner.index, partner.generation) else {
            return 0;
        };
        // A flush goes past marks of its own side only.
        let discards = node.flags.contains(Flags::DISCARD);
        let limited = node.extras.is_some();
        let mut room = core.room_of_input(partner.index, Mode::Normal);
        let Some(output) = &mut self.output else {
            return 0;
        };
        if limited && room > 0 && !output.is_empty() {
            room = room.min(core.may_bring(partner.index));
        }
        if discards {
            // What is thrown away may be the user's memory: dropped with nothing borrowed.
            drop(core);
            let moved = output.drain(room);
            self.count(moved);
            return moved;
        }
        let moved = core.arrive(partner.index, output, room);
        if !output.is_empty() {
            // The partner fetches the rest when it has room again.
            core.node(partner.index).flags.remove(Flags::DRY);
        }
        if limited {
            core.step_over(partner.index, Direction::Read, moved);
        }
        self.moved.set(self.moved.get() + moved);
        moved
    }

    /// Moves what `partner`, in the same domain, has to give to the own input: for one end of a pair.
    pub fn fetch(&mut self, partner: NodeKey) -> usize {
        let mut core = self.state();
        let mut room = core.room_of_input(self.index, self.mode).min(self.allowed);
        let Some(node) = core.find_mut(partner.index, partner.generation) else {
            return 0;
        };
        if room == 0 || !node.gives() || node.flags.contains(Flags::OUTPUT_LENT) {
            return 0;
        }
        let limited = node.extras.is_some();
        if limited {
            room = room.min(core.may_send(partner.index).allowed);
        }
        let mut output = std::mem::take(&mut core.node(partner.index).output);
        let moved = core.arrive(self.index, &mut output, room);
        output.swap_with(&mut core.node(partner.index).output);
        core.lost_output(partner.index, moved);
        if limited {
            core.step_over(partner.index, Direction::Write, moved);
        }
        self.count(moved);
        moved
    }

    /// Tells `partner`, in the same domain, that this end has finished or gone: the end of its input, behind what is still in
    /// flight. The partner's own [`pull`](crate::Bufferevent::pull) finds it by [`end_arrived`](Self::end_arrived).
    pub fn send_end(&mut self, partner: NodeKey) {
        let mut core = self.state();
        if let Some(node) = core.find_mut(partner.index, partner.generation) {
            node.flags.insert(Flags::END_ARRIVED);
            node.flags.remove(Flags::DRY);
            core.queue_pull(partner.index);
            // What it still has to give may have nowhere to go any more.
            core.queue_push(partner.index);
        }
    }

    /// Whether a partner has sent its end.
    #[must_use]
    pub fn end_arrived(&self) -> bool {
        self.read(|node| node.flags.contains(Flags::END_ARRIVED))
            .unwrap_or(false)
    }

    /// Whether `partner` has bytes that wait to be passed on.
    #[must_use]
    pub fn has_output(&self, partner: NodeKey) -> bool {
        self.cell
            .borrow()
            .find(partner.index, partner.generation)
            .is_some_and(|node| !node.output.is_empty())
    }

    /// Whether `partner` is still there.
    #[must_use]
    pub fn is_there(&self, partner: NodeKey) -> bool {
        self.cell
            .borrow()
            .find(partner.index, partner.generation)
            .is_some()
    }

    /// The transport has nothing to read until it becomes ready.
    pub fn wait_readable(&mut self) {
        self.with(|core, index| core.node(index).flags.insert(Flags::DRY));
    }

    /// Whether a node of this domain is still there and has a user, bytes to send, or something to do.
    #[must_use]
    pub fn partner_active(&self, partner: NodeKey) -> bool {
        let core = self.cell.borrow();
        let Some(node) = core.find(partner.index, partner.generation) else {
            return false;
        };
        let top = core.top_of(partner.index);
        let held = core
            .get(top)
            .is_some_and(|top| top.me.as_ref().is_none_or(|me| me.users() > 0));
        held || !node.output.is_empty() || core.get(top).is_some_and(|top| !top.output.is_empty())
    }

    /// The own key, for a partner to keep.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        NodeKey {
            index: self.index,
            generation: self.generation,
        }
    }

    /// How what is below has ended, once nothing of it is left to take.
    #[must_use]
    pub fn below_end(&self) -> Option<BelowEnd> {
        if self.is_lent() {
            return None;
        }
        let core = self.cell.borrow();
        let below = core.get(core.find(self.index, self.generation)?.below)?;
        match below.read_end {
            End::Open | End::Wanted => None,
            _ if !below.input.is_empty() => None,
            End::Done => Some(BelowEnd::Eof),
            End::Failed => below
                .extras
                .as_ref()?
                .read_error
                .clone()
                .map(BelowEnd::Failed),
        }
    }

    /// Ends the own input as what is below has ended, if it has and nothing of it is left.
    pub fn inherit_end(&mut self) {
        match self.below_end() {
            None => {}
            Some(BelowEnd::Eof) => self.end_input(),
            Some(BelowEnd::Failed(error)) => self.fail(Direction::Read, error),
        }
    }

    /// The input has ended behind its last byte.
    pub fn end_input(&mut self) {
        self.with(|core, index| core.ended_input(index, None));
    }

    /// The end mark of the output is out.
    pub fn end_output(&mut self) {
        self.with(|core, index| core.ended_output(index));
    }

    /// A direction has failed. Bytes that came before stay readable; the user hears after them.
    pub fn fail(&mut self, direction: Direction, error: Error) {
        self.with(|core, index| match direction {
            Direction::Read => core.ended_input(index, Some(error)),
            Direction::Write => core.failed_output(index, &error),
        });
    }

    /// A connection was asked for: nothing moves until [`Context::connected`] or [`Context::connect_failed`].
    pub fn connect_begun(&mut self) {
        self.with(|core, index| core.connect_begun(index));
    }

    /// As [`connect_begun`](Self::connect_begun), where the address has yet to be found. A second call changes nothing.
    pub fn resolve_begun(&mut self) {
        self.with(|core, index| core.resolve_begun(index));
    }

    /// The address is found, or the first of several: the time for finding it is over. What follows is part of
    /// the same connection.
    pub fn resolve_ended(&mut self) {
        self.with(|core, index| core.node(index).flags.remove(Flags::RESOLVING));
    }

    /// There is no transport yet: nothing moves until there is.
    pub fn disconnected(&mut self) {
        self.with(|core, index| {
            let node = core.node(index);
            node.link = Link::Idle;
            node.flags.remove(Flags::RESOLVING);
            node.flags.insert(Flags::DRY);
            node.flags.insert(Flags::BLOCKED);
        });
    }

    /// The connection stands; the user is told.
    pub fn connected(&mut self) {
        self.with(|core, index| core.connected(index, true));
    }

    /// As [`became_ready`](Self::became_ready), but in the loop's next turn: for what must not be told from inside the
    /// user's call.
    pub fn ready_later(&mut self) {
        let asked = self.with(|core, index| {
            core.target(index, Call::Ready)
                .map(|target| (core.host(), target))
        });
        if let Some(Some((host, (target, key)))) = asked {
            // A closed loop has no next turn, and nothing is told any more.
            let _ = host.schedule(Phase::Turn, target, key);
        }
    }

    /// There is a transport now, connected; nobody is told.
    pub fn connected_quietly(&mut self) {
        self.with(|core, index| core.connected_quietly(index));
    }

    /// Takes all that waits in the own output: for whoever is to send it by other means.
    pub fn take_output(&mut self) -> EvBuffer {
        if let Some(output) = &mut self.output {
            return std::mem::take(output);
        }
        self.with(|core, index| std::mem::take(&mut core.node(index).output))
            .unwrap_or_default()
    }

    /// Puts bytes in front of the own input that were read from the same stream earlier, and not taken.
    pub fn restore_input(&mut self, bytes: &mut EvBuffer) {
        let count = bytes.len();
        self.with(|core, index| {
            // Their sum fitted where they come from.
            if core.node(index).input.prepend(bytes).is_ok() {
                core.gained_input(index, count);
            }
        });
    }

    /// The connection stands, which nobody asked to be told: it shows as one write callback.
    pub fn connected_silently(&mut self) {
        self.with(|core, index| core.connected(index, false));
    }

    /// There will be no connection: both directions have failed, which is told as one error.
    pub fn connect_failed(&mut self, error: Error) {
        self.with(|core, index| core.failed_connect(index, &error));
    }

    /// The transport may move again, found out by other means than [`Bufferevent::ready`](crate::Bufferevent::ready).
    pub fn became_ready(&mut self, directions: Directions) {
        self.with(|core, index| core.became_ready(index, directions));
    }

    /// What the layer needs for itself, whatever the user has enabled: bytes from below, or to send some down.
    pub fn set_wants(&mut self, read: bool, write: bool) {
        self.with(|core, index| {
            let node = core.node(index);
            if read && !node.flags.contains(Flags::WANTS_READ) {
                // What the layer has within may do, though nothing below is to be read.
                node.flags.remove(Flags::DRY);
            }
            let wrote = node.flags.contains(Flags::WANTS_WRITE);
            node.flags.remove(Flags::WANTS_READ);
            node.flags.remove(Flags::WANTS_WRITE);
            if read {
                node.flags.insert(Flags::WANTS_READ);
            }
            if write {
                node.flags.insert(Flags::WANTS_WRITE);
            }
            core.wants_changed(index);
            if wrote && !write {
                // Some life may have hung on that.
                core.emptied_output(index);
            }
        });
    }

    /// Holds a direction up, or lets it go, on the layer's account.
    pub fn hold(&mut self, directions: Directions, held: bool) {
        self.with(|core, index| core.hold(index, directions, Reasons::LAYER, held));
    }
}

impl Core {
    /// Moves up to `room` bytes of `output` to a node's input.
    #[inline]
    fn arrive(&mut self, index: Index, output: &mut EvBuffer, room: usize) -> usize {
        // A segment that would have to be split and cannot be, for want of memory, stays where it is.
        let moved = output
            .move_to(room, &mut self.nodes.node(index).input)
            .unwrap_or(0);
        self.gained_input(index, moved);
        moved
    }

    /// How many bytes a node's input takes from beside now.
    pub(crate) fn room_of_input(&self, index: Index, mode: Mode) -> usize {
        let Some(node) = self.get(index) else {
            return 0;
        };
        // While the input is lent out nobody knows how full it is; whoever has it asks again.
        let lent = node.flags.contains(Flags::INPUT_LENT);
        if lent || node.read_end != End::Open || !self.takes_at_all(index) {
            return 0;
        }
        match mode {
            // What is thrown away needs no room.
            Mode::Normal if !node.flags.contains(Flags::DISCARD) => {
                node.read_limit().saturating_sub(node.input.len())
            }
            Mode::Normal | Mode::Flush | Mode::Finished => usize::MAX,
        }
    }

    fn takes_at_all(&self, index: Index) -> bool {
        let Some(node) = self.get(index) else {
            return false;
        };
        match self.get(node.above) {
            None => node.enabled.contains(Directions::READ) && node.held_read.is_empty(),
            Some(above) => above.takes() && node.held_read.is_empty(),
        }
    }

    /// Adds or takes away a reason to hold a direction up.
    pub(crate) fn hold(
        &mut self,
        index: Index,
        directions: Directions,
        reason: Reasons,
        held: bool,
    ) {
        let node = self.node(index);
        for (direction, reasons) in [
            (Directions::READ, &mut node.held_read),
            (Directions::WRITE, &mut node.held_write),
        ] {
            if directions.contains(direction) {
                if held {
                    reasons.insert(reason);
                } else {
                    reasons.remove(reason);
                }
            }
        }
        if !held {
            self.opened(index, directions);
        }
    }
}
