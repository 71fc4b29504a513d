//! The steps of a layer, as most of them are: bytes go up from the bufferevent below, or down to it, and nothing else is to be seen to.
//!
//! The plain versions are `pull_step` and `push_step` in `pump.rs`, with the buffers that [`Context::lift`] and [`Context::lower`] take
//! out for as long as a closure runs. Here both buffers are out from the step's beginning to its end, unless the layer asks its context
//! for anything else that may hang on them: so layer and buffers leave their nodes together, and come back together.
//!
//! # Invariants
//! - A step here does what the plain one does, and no more.
//! - What is rare (a rate limit, a flush, an end that is wanted, a connection below to tell of, an input that is thrown away) is left to
//!   the plain step, before it began; or to its second half, when it arose meanwhile.

use std::cell::RefCell;

use evbuffer::EvBuffer;

use crate::context::Context;
use crate::core::Core;
use crate::direction::Directions;
use crate::layer::Step;
use crate::lent::{Loan, Way};
use crate::node::{End, Flags, Index, Link, NONE, Node, put_back};
use crate::pump::{self, Borrowed, Pushing, guarded_step};

/// What leaves a pull to the plain version.
const RARE_ABOVE: Flags = Flags::INPUT_LENT
    .union(Flags::BELOW_CONNECTED)
    .union(Flags::DISCARD);

/// What leaves a push to it.
const RARE_BELOW: Flags = Flags::OUTPUT_LENT.union(Flags::OWES_FLUSH);

/// The state after a step: `Err` when the plain one is to be taken instead.
type After<'a> = Result<Borrowed<'a>, Borrowed<'a>>;

/// Moves bytes up from the node below.
#[inline]
pub(crate) fn pull<'a>(
    cell: &'a RefCell<Core>,
    mut borrowed: Borrowed<'a>,
    index: Index,
) -> After<'a> {
    let core = &mut *borrowed;
    let Some(node) = core.nodes.get(index) else {
        return Ok(borrowed);
    };
    if node.below == NONE || node.flags.intersects(RARE_ABOVE) || node.is_limited() {
        return Err(borrowed);
    }
    if node.flags.contains(Flags::DRY) || !core.takes(node) {
        return Ok(borrowed);
    }
    let (below, generation) = (node.below, node.generation);
    let mut loan = Loan::new(Way::Up);
    let Some((under, node)) = core.nodes.two(below, index) else {
        return Err(borrowed);
    };
    if under.read_end != End::Open || under.flags.contains(Flags::INPUT_LENT) {
        return Err(borrowed);
    }
    let Some(mut layer) = node.layer.take() else {
        return Ok(borrowed);
    };
    if node.reads() {
        loan.room = node.read_limit().saturating_sub(node.input.len());
    }
    let settled = node.is_settled();
    loan.take_source(under, below, Way::Up, usize::MAX);
    loan.take_sink(node, index, Way::Up);
    drop(borrowed);
    let (step, moved) = {
        let mut cx = Context::of_layer(cell, index, generation, &mut loan, settled);
        let step = guarded_step(&mut cx, "pull", |cx| layer.pull(cx));
        (step, cx.moved())
    };

    let mut borrowed = cell.borrow_mut();
    let core = &mut *borrowed;
    if let Some((under, node)) = core.nodes.two(below, index)
        && loan.is_of(under, node)
        && node.generation == generation
        && !node.flags.intersects(RARE_ABOVE.without(Flags::INPUT_LENT))
        && !node.is_limited()
    {
        put_back(&mut node.layer, layer);
        let again = step == Some(Step::Again);
        let (lost, gained) = (loan.lost(), loan.gained());
        loan.return_to(under, node, Way::Up);
        if step == Some(Step::Blocked) || (!again && under.is_drained()) {
            // Nothing to read until the one below says so.
            node.flags.insert(Flags::DRY);
        }
        core.lost_input(below, lost);
        core.gained_input(index, gained);
        if again && moved > 0 {
            core.queue_pull(index);
        }
        return Ok(borrowed);
    }
    drop(borrowed);
    let borrowed = loan.end(cell);
    Ok(pump::pulled(
        cell, borrowed, index, generation, layer, step, moved,
    ))
}

/// Moves bytes down to the node below.
#[inline]
pub(crate) fn push<'a>(
    cell: &'a RefCell<Core>,
    mut borrowed: Borrowed<'a>,
    index: Index,
) -> After<'a> {
    let core = &mut *borrowed;
    let Some(node) = core.nodes.get(index) else {
        return Ok(borrowed);
    };
    let rare = node.below == NONE
        || node.write_end != End::Open
        || node.flags.intersects(RARE_BELOW)
        || node.is_limited();
    if rare || !node.wants_push_at_bottom() {
        return Err(borrowed);
    }
    let (below, generation) = (node.below, node.generation);
    let mut loan = Loan::new(Way::Down);
    let Some((under, node)) = core.nodes.two(below, index) else {
        return Err(borrowed);
    };
    loan.room = under.write_mark.room(under.output.len());
    if under.write_end != End::Open || loan.room == 0 || under.flags.contains(Flags::OUTPUT_LENT) {
        return Err(borrowed);
    }
    let Some(mut layer) = node.layer.take() else {
        return Ok(borrowed);
    };
    let connecting = node.link == Link::Connecting;
    let settled = node.is_settled();
    if node.gives() {
        loan.take_source(node, index, Way::Down, usize::MAX);
    }
    loan.take_sink(under, below, Way::Down);
    drop(borrowed);
    let (step, moved) = {
        let mut cx = Context::of_layer(cell, index, generation, &mut loan, settled);
        let step = guarded_step(&mut cx, "push", |cx| layer.push(cx));
        (step, cx.moved())
    };

    let mut borrowed = cell.borrow_mut();
    let core = &mut *borrowed;
    if let Some((node, under)) = core.nodes.two(index, below)
        && loan.is_of(node, under)
        && node.generation == generation
        && !node
            .flags
            .intersects(RARE_BELOW.without(Flags::OUTPUT_LENT))
        && !node.is_limited()
    {
        put_back(&mut node.layer, layer);
        if step == Some(Step::Blocked) {
            node.flags.insert(Flags::BLOCKED);
        }
        let (lost, gained) = (loan.lost(), loan.gained());
        loan.return_to(node, under, Way::Down);
        core.lost_output(index, lost);
        core.gained_output(below, gained);
        if step == Some(Step::Again) && moved > 0 {
            core.queue_push(index);
        }
        return Ok(borrowed);
    }
    drop(borrowed);
    let borrowed = loan.end(cell);
    let pushing = Pushing {
        index,
        generation,
        lends: false,
        connecting,
        cut: false,
    };
    let nothing = EvBuffer::new();
    Ok(pump::pushed(
        cell, borrowed, pushing, layer, nothing, step, moved,
    ))
}

impl Node {
    /// Whether the user's bytes may come up: reading is enabled and not held up.
    #[inline]
    pub(crate) fn reads(&self) -> bool {
        self.enabled.contains(Directions::READ) && self.held_read.is_empty()
    }

    /// Whether nobody has to ask for a connection that is under way, or for an end that is wanted.
    #[inline]
    fn is_settled(&self) -> bool {
        self.link == Link::Open && self.write_end == End::Open
    }

    /// Whether nothing can be read from it now, neither bytes nor an end.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.input.is_empty() && self.read_end == End::Open
    }

    /// Whether a rate holds for it.
    #[inline]
    fn is_limited(&self) -> bool {
        self.extras
            .as_ref()
            .is_some_and(|extras| extras.limits.is_some())
    }
}
