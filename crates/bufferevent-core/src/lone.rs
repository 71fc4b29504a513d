//! The steps of a bufferevent that is alone and has nothing unusual about it: most steps of most programs.
//!
//! The plain versions are `pull_step` and `push_step` in `pump.rs`, and `deliver` in `deliver.rs`. What they look at one by one is
//! looked at here together, by [`Node::is_ordinary`](crate::node::Node::is_ordinary): before the first step, and again whenever the
//! layer or the handler comes back, since anything may have been done meanwhile.
//!
//! # Invariants
//! - A step here does to such a node what the plain one does, and no more.
//! - What comes back to a node that is not so any more, or gone, is handed to the second half of the plain step.

use std::cell::RefCell;
use std::mem::ManuallyDrop;

use evbuffer::EvBuffer;

use crate::context::Context;
use crate::core::{Core, Nodes};
use crate::deliver;
use crate::layer::Step;
use crate::node::{Flags, Handling, Index, MAX_SINGLE, Node, Pending, Steps, put_back};
use crate::options::Mode;
use crate::pump::{self, Borrowed, Pushing, STEPS_PER_RUN, guarded, spent};

/// The place of a node that is alone.
const LONE: Index = 0;

/// The state after a step: `Ok` while the node is an ordinary one, `Err` when somebody else has to look.
type After<'a> = Result<Borrowed<'a>, Borrowed<'a>>;

impl Nodes {
    /// The node, if it is alone and has this generation.
    #[inline(always)]
    fn lone_of(&mut self, generation: u32) -> Option<&mut Node> {
        match self.lone() {
            Some(node) if node.generation == generation => Some(node),
            _ => None,
        }
    }
}

/// Takes the steps of a node that is alone as long as it is an ordinary one, and counts them. `Ok` when there are no more, `Err` when
/// somebody else has to look.
#[inline(always)]
pub(crate) fn steps<'a>(
    cell: &'a RefCell<Core>,
    mut core: Borrowed<'a>,
    steps: &mut u32,
) -> After<'a> {
    if !core.nodes.lone().is_some_and(|node| node.is_ordinary()) {
        return Err(core);
    }
    while *steps < STEPS_PER_RUN {
        let Some(node) = core.nodes.lone() else {
            return Err(core);
        };
        // In the order of `Steps::first_work`.
        let queued = node.queued;
        *steps += 1;
        core = if queued.contains(Steps::DELIVER) {
            node.queued.remove(Steps::DELIVER);
            deliver(cell, core)?
        } else if queued.contains(Steps::PULL) {
            node.queued.remove(Steps::PULL);
            pull(cell, core)?
        } else if queued.contains(Steps::PUSH) {
            node.queued.remove(Steps::PUSH);
            push(cell, core)?
        } else {
            return Ok(core);
        };
    }
    Err(core)
}

#[inline(always)]
fn pull<'a>(cell: &'a RefCell<Core>, mut borrowed: Borrowed<'a>) -> After<'a> {
    let core = &mut *borrowed;
    let left = MAX_SINGLE.saturating_sub(core.spent_reading as usize);
    let Some(node) = core.nodes.lone() else {
        return Err(borrowed);
    };
    let room = node.read_mark.room(node.input.len());
    if node.flags.contains(Flags::DRY) || room == 0 {
        return Ok(borrowed);
    }
    if left == 0 {
        return Err(pump::pull_step(cell, borrowed, LONE, Mode::Normal));
    }
    let generation = node.generation;
    let Some(mut layer) = node.layer.take() else {
        return Ok(borrowed);
    };
    drop(borrowed);
    let mut cx = Context::of_pull(cell, LONE, generation, Mode::Normal, Some(room.min(left)));
    let step = guarded(cell, LONE, generation, "pull", || layer.pull(&mut cx));
    let moved = cx.moved();

    let mut borrowed = cell.borrow_mut();
    let core = &mut *borrowed;
    let Some(node) = core.nodes.lone_of(generation) else {
        return Err(pump::pulled(
            cell, borrowed, LONE, generation, layer, step, moved,
        ));
    };
    if !node.is_ordinary() {
        return Err(pump::pulled(
            cell, borrowed, LONE, generation, layer, step, moved,
        ));
    }
    put_back(&mut node.layer, layer);
    if step == Some(Step::Blocked) {
        node.flags.insert(Flags::DRY);
    }
    core.spent_reading = spent(core.spent_reading, moved);
    core.share_used |= core.spent_reading as usize >= MAX_SINGLE;
    if step == Some(Step::Again) && moved > 0 {
        core.queue_pull(LONE);
    }
    Ok(borrowed)
}

#[inline(always)]
fn push<'a>(cell: &'a RefCell<Core>, mut borrowed: Borrowed<'a>) -> After<'a> {
    let core = &mut *borrowed;
    let left = MAX_SINGLE.saturating_sub(core.spent_writing as usize);
    let Some(node) = core.nodes.lone() else {
        return Err(borrowed);
    };
    if node.flags.contains(Flags::BLOCKED) || node.output.is_empty() {
        return Ok(borrowed);
    }
    if left == 0 {
        return Err(pump::push_step(cell, borrowed, LONE, Mode::Normal));
    }
    let generation = node.generation;
    let Some(mut layer) = node.layer.take() else {
        return Ok(borrowed);
    };
    node.flags.insert(Flags::OUTPUT_LENT);
    // Usually all of it goes out: finding that out costs less than a drop that does.
    let mut output = ManuallyDrop::new(std::mem::take(&mut node.output));
    drop(borrowed);
    let lent = Some((left, &mut *output));
    let mut cx = Context::of_push(cell, LONE, generation, Mode::Normal, lent, true);
    let step = guarded(cell, LONE, generation, "push", || layer.push(&mut cx));
    let moved = cx.moved();

    let mut borrowed = cell.borrow_mut();
    let core = &mut *borrowed;
    let ordinary = match core.nodes.lone_of(generation) {
        Some(node) => {
            node.flags.remove(Flags::OUTPUT_LENT);
            node.is_ordinary().then_some(node)
        }
        None => None,
    };
    let Some(node) = ordinary else {
        let pushing = Pushing {
            index: LONE,
            generation,
            lends: true,
            connecting: false,
            cut: false,
        };
        let output = ManuallyDrop::into_inner(output);
        return Err(pump::pushed(
            cell, borrowed, pushing, layer, output, step, moved,
        ));
    };
    put_back(&mut node.layer, layer);
    if step == Some(Step::Blocked) {
        node.flags.insert(Flags::BLOCKED);
    }
    if !(output.is_bare() && node.output.is_bare()) {
        return_output(&mut node.output, ManuallyDrop::into_inner(output));
    }
    core.spent_writing = spent(core.spent_writing, moved);
    core.share_used |= core.spent_writing as usize >= MAX_SINGLE;
    core.lost_lone_output(moved);
    if step == Some(Step::Again) && moved > 0 {
        core.queue_push(LONE);
    }
    Ok(borrowed)
}

/// Puts what was not sent before what came meanwhile.
#[inline(never)]
fn return_output(place: &mut EvBuffer, mut output: EvBuffer) {
    // Sums of lengths that fitted before fit again.
    let _ = output.append(place);
    *place = output;
}

#[inline(always)]
fn deliver<'a>(cell: &'a RefCell<Core>, mut core: Borrowed<'a>) -> After<'a> {
    let Some(node) = core.nodes.lone() else {
        return Err(core);
    };
    // Most rounds are one read; whatever else there is to tell takes the long way.
    if node.deliverable() != Pending::READ || !node.read_due() {
        return Err(deliver::deliver(cell, core, LONE));
    }
    let Some(mut handler) = node.take_handler() else {
        return Ok(core);
    };
    let me = node
        .me
        .take()
        .expect("the own handle is out only while the handler is");
    node.pending.remove(Pending::READ);
    node.flags.remove(Flags::FRESH);
    let generation = node.generation;
    core.publish_for(&me);
    drop(core);
    // A panic frees the node.
    guarded(cell, LONE, generation, "handler", || handler.on_read(&me));

    core = cell.borrow_mut();
    if let Some(node) = core.nodes.lone_of(generation)
        && node.handling == Handling::Running
    {
        node.handling = Handling::Idle;
        if node.is_ordinary() && node.pending.is_empty() && !node.flags.contains(Flags::FRESH) {
            put_back(&mut node.handler, handler);
            put_back(&mut node.me, me);
            core.reap_if(false);
            return Ok(core);
        }
        node.handling = Handling::Running;
    }
    let next = Pending::READ.next();
    Err(deliver::go_on(
        cell, core, LONE, generation, next, handler, me,
    ))
}
