//! The pump: runs a domain's steps until none is left, and no deeper than one call.
//!
//! # Rules
//! 1. At most one pump is active per thread. An operation inside a handler changes state and lists its domain; the
//!    pump that is active gets to it. So a callback may do anything, and any chain of domains runs in constant stack.
//! 2. The pump runs one domain's queue to its end, then the next listed domain. A domain that takes more than
//!    [`STEPS_PER_RUN`] steps, and a thread that runs more than [`RUNS_PER_TURN`] domains, go on in the loop's next turn.
//! 3. A layer is taken out of its node for the length of one call, with nothing borrowed, and put back if the node is
//!    still there. If it was freed meanwhile, the layer hears of it now.
//! 4. A transport's push comes when nothing else is queued, so that what callbacks write leaves in one system call.
//! 5. A panic in a layer or a handler frees its bufferevent and nothing else; the loop counts it.
//! 6. The list is worked off with no lock of the pump's held: there, and only there, callbacks can run unlocked.

use std::any::Any;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evbuffer::EvBuffer;
use evreactor_core::Ready;
use evreactor_core::sync::{self, Arc};

use crate::bev::Handle;
use crate::context::Context;
use crate::core::{Core, Facts};
use crate::deliver;
use crate::direction::Direction;
use crate::domain::{Domain, directions};
use crate::inbox::Taken;
use crate::layer::{Bufferevent, Step};
use crate::life;
use crate::limits::Offer;
use crate::lone;
use crate::node::{End, Flags, Index, Link, NONE, Node, Steps};
use crate::options::Mode;
use crate::stacked;

/// Steps of one domain before the loop gets its turn.
pub(crate) const STEPS_PER_RUN: u32 = 4096;

/// Domains run by one thread before the loop gets its turn.
const RUNS_PER_TURN: u32 = 16 * 1024;

/// What waits for the thread's pump.
pub(crate) enum Listed {
    /// A domain with work.
    Run(Arc<Domain>),
    /// A bufferevent whose last user handle went.
    Orphan(Arc<Handle>),
    /// A round of deferred callbacks that run with the lock let go.
    Unlocked(Arc<Domain>, Index, u32),
}

sync::thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    /// How many are listed: cheaper to ask than the list.
    static WAITING: Cell<usize> = const { Cell::new(0) };
    static LISTED: RefCell<VecDeque<Listed>> = const { RefCell::new(VecDeque::new()) };
}

/// Marks the thread's pump as active until dropped, also by unwinding.
pub(crate) struct Active(());

impl Active {
    /// `None` if it is active already.
    #[inline]
    pub(crate) fn begin() -> Option<Self> {
        // Made only where it is handed out: its drop ends the activity.
        ACTIVE.with(|active| (!active.replace(true)).then(|| Self(())))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.with(|active| active.set(false));
    }
}

/// Whether a pump is active on this thread.
pub(crate) fn is_active() -> bool {
    ACTIVE.with(Cell::get)
}

/// Adds to the thread's list, and works the list off if no pump is active.
pub(crate) fn list(listed: Listed) {
    // At the end of a thread its list is gone already, and with it whatever could still be done here.
    let added = LISTED
        .try_with(|list| list.borrow_mut().push_back(listed))
        .is_ok();
    WAITING.with(|count| count.set(count.get() + usize::from(added)));
    if added && let Some(active) = Active::begin() {
        drain(&active);
    }
}

/// Works the thread's list off, unless a pump is active and does.
pub(crate) fn run_listed() {
    if let Some(active) = Active::begin() {
        drain(&active);
    }
}

/// Changes the domain's state and pumps it: the way in for the loop.
pub(crate) fn run(domain: &Domain, change: impl FnOnce(&mut Core)) {
    change(&mut domain.lock().borrow_mut());
    match Active::begin() {
        Some(active) => {
            run_domain(domain);
            drain(&active);
        }
        // The loop calls at depth 0, so this is a loop driven from within a handler: the active pump goes on.
        None => relist(domain),
    }
}

/// As [`run`], for a source that became ready.
#[inline]
pub(crate) fn run_ready(domain: &Domain, index: Index, generation: u32, ready: Ready) {
    let active = Active::begin();
    let lock = domain.lock();
    // What a layer has to know beyond "try it" is rare.
    if !ready.without(Ready::READABLE | Ready::WRITABLE).is_empty()
        && let Some(mut layer) = take_layer(&lock, index, generation)
    {
        let mut cx = Context::new(&lock, index, generation, Mode::Normal);
        layer.ready(&mut cx, ready);
        put_back(&lock, index, generation, layer);
    }
    let mut core = lock.borrow_mut();
    if core.find(index, generation).is_some() {
        core.became_ready(index, directions(ready));
    }
    let Some(active) = active else {
        // A loop that is driven from within a handler: the active pump goes on.
        drop(core);
        return relist(domain);
    };
    if domain.is_behind() {
        drop(core);
        domain.catch_up(&lock);
        core = lock.borrow_mut();
    }
    run_steps_of(&lock, core);
    drop(lock);
    drain(&active);
}

/// Has what is taken from the inbox done, and pumps the domain with the same hold of its lock: what is put there meanwhile has its own
/// turn. `false`, with nothing taken, if the lock cannot be had, or was had before.
pub(crate) fn run_posted(domain: &Domain, take: impl FnOnce() -> Taken) -> bool {
    let active = Active::begin();
    let Some(lock) = domain.lock_unless_holding() else {
        return false;
    };
    // What is done lists nothing: it is pumped here.
    let listed = std::mem::replace(&mut lock.borrow_mut().listed, true);
    if !domain.carry_out(&lock, take) {
        lock.borrow_mut().listed = listed;
        return false;
    }
    let Some(active) = active else {
        drop(lock);
        relist(domain);
        return true;
    };
    run_steps(&lock);
    drop(lock);
    drain(&active);
    true
}

fn relist(domain: &Domain) {
    let arc = {
        let cell = domain.lock();
        let mut core = cell.borrow_mut();
        if core.running {
            return;
        }
        // Also if it is marked already: the mark may be that of the very call that comes from the loop now.
        core.listed = true;
        core.domain_arc()
    };
    if let Some(domain) = arc {
        list(Listed::Run(domain));
    }
}

/// Works the thread's list off, within its bound.
#[inline]
fn drain(active: &Active) {
    if WAITING.with(Cell::get) > 0 {
        drain_listed(active);
    }
}

fn drain_listed(_: &Active) {
    let mut runs = 0;
    while let Some(next) = LISTED.with(|list| list.borrow_mut().pop_front()) {
        WAITING.with(|count| count.set(count.get() - 1));
        match next {
            Listed::Run(domain) if runs < RUNS_PER_TURN => {
                runs += 1;
                match domain.lock_unless_holding() {
                    Some(lock) => {
                        domain.catch_up(&lock);
                        run_steps(&lock);
                    }
                    None => domain.schedule_run(),
                }
            }
            Listed::Run(domain) => domain.schedule_run(),
            Listed::Orphan(handle) => match handle.domain().lock_unless_holding() {
                Some(lock) => {
                    let (index, generation) = (handle.index(), handle.generation());
                    life::orphaned(&mut lock.borrow_mut(), index, generation);
                    run_steps(&lock);
                }
                // A closed loop looks after its own.
                None => drop(handle.orphaned_later()),
            },
            // Comes from the loop's deferred queue, once per scheduling: that is its bound.
            Listed::Unlocked(domain, index, generation) => {
                deliver::deliver_unlocked(&domain, index, generation);
            }
        }
    }
}

#[inline(never)]
pub(crate) fn run_domain(domain: &Domain) {
    let lock = domain.lock();
    domain.catch_up(&lock);
    run_steps(&lock);
}

/// The state of the domain that is pumped, borrowed. A step lets go of it around a call of a layer or a handler, and hands the next
/// one on: a step that follows another borrows nothing anew.
pub(crate) type Borrowed<'a> = RefMut<'a, Core>;

/// Runs one domain until it has no work, or has had its share.
#[inline(always)]
fn run_steps(cell: &RefCell<Core>) {
    run_steps_of(cell, cell.borrow_mut());
}

/// As [`run_steps`], of the state that is borrowed.
#[inline(always)]
fn run_steps_of<'a>(cell: &'a RefCell<Core>, mut core: Borrowed<'a>) {
    /// Ends the run by unwinding too.
    struct Running<'a>(&'a RefCell<Core>);
    impl Drop for Running<'_> {
        #[cold]
        fn drop(&mut self) {
            if let Ok(mut core) = self.0.try_borrow_mut() {
                core.running = false;
            }
        }
    }

    if core.facts.contains(Facts::RESTING) {
        return;
    }
    core.listed = false;
    core.running = true;
    core.spent_reading = 0;
    core.spent_writing = 0;
    let running = Running(cell);
    let mut steps = 0;
    let more = loop {
        core = match lone::steps(cell, core, &mut steps) {
            Ok(done) if !done.settles() => {
                core = done;
                break false;
            }
            Ok(core) | Err(core) => core,
        };
        core = match core.next_step() {
            Some((index, step)) => any_step(cell, core, index, step),
            None if core.settles() => {
                drop(core);
                life::settle(cell);
                cell.borrow_mut()
            }
            None => break false,
        };
        steps += 1;
        if steps >= STEPS_PER_RUN {
            break true;
        }
    };
    std::mem::forget(running);
    core.running = false;
    core.publish_if_shared();
    if more || core.share_used {
        drop(core);
        go_on_later(cell);
    }
}

#[inline(never)]
fn any_step<'a>(
    cell: &'a RefCell<Core>,
    core: Borrowed<'a>,
    index: Index,
    step: Steps,
) -> Borrowed<'a> {
    match step {
        Steps::PULL => stacked::pull(cell, core, index)
            .unwrap_or_else(|core| pull_step(cell, core, index, Mode::Normal)),
        Steps::PUSH => stacked::push(cell, core, index)
            .unwrap_or_else(|core| push_step(cell, core, index, Mode::Normal)),
        _ => deliver::deliver(cell, core, index),
    }
}

/// Leaves the rest of a domain's work to the loop's next turn. A domain that had its share is not run again in this one, whoever
/// asks or whatever becomes ready.
#[cold]
fn go_on_later(cell: &RefCell<Core>) {
    let again = {
        let mut core = cell.borrow_mut();
        if std::mem::take(&mut core.share_used) {
            core.facts.insert(Facts::RESTING);
            core.requeue_postponed();
        }
        let again = !core.listed;
        core.listed = true;
        if again { core.domain_arc() } else { None }
    };
    if let Some(domain) = again {
        domain.schedule_run();
    }
}

/// Takes a layer out of its node for a call.
pub(crate) fn take_layer(
    cell: &RefCell<Core>,
    index: Index,
    generation: u32,
) -> Option<Box<dyn Bufferevent>> {
    cell.borrow_mut().find_mut(index, generation)?.layer.take()
}

/// Puts a layer back after a call; tells it if its node was freed meanwhile.
pub(crate) fn put_back(
    cell: &RefCell<Core>,
    index: Index,
    generation: u32,
    mut layer: Box<dyn Bufferevent>,
) {
    let close = {
        let mut core = cell.borrow_mut();
        if let Some(node) = core.find_mut(index, generation) {
            node.layer = Some(layer);
            return;
        }
        let freed = &mut core.rare().freed_out;
        let entry = freed
            .iter()
            .position(|(i, g, _)| (*i, *g) == (index, generation));
        entry.is_some_and(|entry| freed.swap_remove(entry).2)
    };
    let mut cx = Context::new(cell, index, generation, Mode::Normal);
    layer.freed(&mut cx, close);
}

/// Calls user code; a panic in it frees the node.
#[inline(always)]
pub(crate) fn guarded<R>(
    cell: &RefCell<Core>,
    index: Index,
    generation: u32,
    what: &'static str,
    call: impl FnOnce() -> R,
) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Some(result),
        Err(payload) => {
            panicked(cell, index, generation, what, payload);
            None
        }
    }
}

/// As [`guarded`], for a step of a layer to which buffers are lent: they are back before its node is freed.
#[inline(always)]
pub(crate) fn guarded_step<'a>(
    cx: &mut Context<'a>,
    what: &'static str,
    call: impl FnOnce(&mut Context<'a>) -> Step,
) -> Option<Step> {
    match catch_unwind(AssertUnwindSafe(|| call(cx))) {
        Ok(step) => Some(step),
        Err(payload) => {
            let (cell, key) = cx.with_buffers_back();
            panicked(cell, key.index, key.generation, what, payload);
            None
        }
    }
}

#[cold]
pub(crate) fn panicked(
    cell: &RefCell<Core>,
    index: Index,
    generation: u32,
    what: &'static str,
    payload: Box<dyn Any + Send>,
) {
    let host = cell.borrow().host();
    host.caught_panic(what, &*payload);
    life::free(cell, index, generation);
}

/// One pull of a node, in the given mode.
pub(crate) fn pull(cell: &RefCell<Core>, index: Index, mode: Mode) {
    drop(pull_step(cell, cell.borrow_mut(), index, mode));
}

pub(crate) fn pull_step<'a>(
    cell: &'a RefCell<Core>,
    mut borrowed: Borrowed<'a>,
    index: Index,
    mode: Mode,
) -> Borrowed<'a> {
    let core = &mut *borrowed;
    let Some(node) = core.nodes.get(index) else {
        return borrowed;
    };
    let connected = node.flags.contains(Flags::BELOW_CONNECTED);
    let wants = connected || (!node.flags.contains(Flags::DRY) && core.takes(node));
    if mode == Mode::Normal && !wants {
        return borrowed;
    }
    let mut share = None;
    if node.below == NONE && mode == Mode::Normal {
        let left = node
            .max_single_read()
            .saturating_sub(core.spent_reading as usize);
        let room = node.read_limit().saturating_sub(node.input.len());
        share = Some(room.min(left.max(1)));
        // The turn's share is used up, and something asked again since: it is heard in the next turn.
        if left == 0 && !connected && core.postpone(index, Steps::LATER_PULL) {
            return borrowed;
        }
    }
    let mut node = core.nodes.node(index);
    let mut allowed = usize::MAX;
    if node.extras.is_some() {
        allowed = core.may_bring(index);
        node = core.nodes.node(index);
        // What a layer reads for itself it reads all the same.
        if allowed == 0 && !connected && !node.flags.contains(Flags::WANTS_READ) {
            return borrowed;
        }
    }
    let generation = node.generation;
    let Some(mut layer) = node.layer.take() else {
        return borrowed;
    };
    node.flags.remove(Flags::BELOW_CONNECTED);
    drop(borrowed);
    let mut cx = Context::of_pull(cell, index, generation, mode, share);
    cx.allow(allowed);
    let step = guarded(cell, index, generation, "pull", || {
        if connected {
            layer.below_connected(&mut cx);
            if !cell.borrow().wants_pull(index) {
                return Step::Done;
            }
        }
        layer.pull(&mut cx)
    });
    let moved = cx.moved();
    finish_pull(
        cell,
        cell.borrow_mut(),
        index,
        generation,
        layer,
        step,
        moved,
    )
}

/// Puts the layer back after a pull, and notes what came of it.
#[inline(never)]
pub(crate) fn pulled<'a>(
    cell: &'a RefCell<Core>,
    borrowed: Borrowed<'a>,
    index: Index,
    generation: u32,
    layer: Box<dyn Bufferevent>,
    step: Option<Step>,
    moved: usize,
) -> Borrowed<'a> {
    finish_pull(cell, borrowed, index, generation, layer, step, moved)
}

#[inline(always)]
fn finish_pull<'a>(
    cell: &'a RefCell<Core>,
    mut borrowed: Borrowed<'a>,
    index: Index,
    generation: u32,
    layer: Box<dyn Bufferevent>,
    step: Option<Step>,
    moved: usize,
) -> Borrowed<'a> {
    let core = &mut *borrowed;
    let Some(node) = core.nodes.find_mut(index, generation) else {
        drop(borrowed);
        put_back(cell, index, generation, layer);
        return cell.borrow_mut();
    };
    node.layer = Some(layer);
    let discards = node.flags.contains(Flags::DISCARD);
    let limited = node.extras.is_some();
    let below = node.below;
    if step == Some(Step::Blocked) {
        node.flags.insert(Flags::DRY);
    }
    if below == NONE {
        core.spent_reading = spent(core.spent_reading, moved);
        core.share_used |= core.spent_reading as usize >= node.max_single_read();
    } else if step != Some(Step::Again) && core.get(below).is_some_and(Node::is_drained) {
        // Nothing to read until the one below says so.
        core.node(index).flags.insert(Flags::DRY);
    }
    if moved > 0 && step == Some(Step::Again) {
        core.queue_pull(index);
    }
    if limited {
        core.step_over(index, Direction::Read, moved);
    }
    if discards {
        let trash = std::mem::take(&mut core.node(index).input);
        core.lost_input(index, trash.len());
        // The user's memory may be in it: dropped with nothing borrowed.
        drop(borrowed);
        drop(trash);
        return cell.borrow_mut();
    }
    borrowed
}

/// What is spent of a turn's share, in bytes; a share is far below 4 GiB.
#[inline]
pub(crate) fn spent(before: u32, moved: usize) -> u32 {
    before.saturating_add(moved.min(u32::MAX as usize) as u32)
}

/// One push of a node, in the given mode.
pub(crate) fn push(cell: &RefCell<Core>, index: Index, mode: Mode) {
    drop(push_step(cell, cell.borrow_mut(), index, mode));
}

/// What a push knew of its node when it began.
#[derive(Clone, Copy)]
pub(crate) struct Pushing {
    pub(crate) index: Index,
    pub(crate) generation: u32,
    /// The output is out of the node.
    pub(crate) lends: bool,
    /// The connection had yet to stand.
    pub(crate) connecting: bool,
    /// A rate kept some of the output back.
    pub(crate) cut: bool,
}

pub(crate) fn push_step<'a>(
    cell: &'a RefCell<Core>,
    mut borrowed: Borrowed<'a>,
    index: Index,
    mode: Mode,
) -> Borrowed<'a> {
    let core = &mut *borrowed;
    let Some(node) = core.nodes.get(index) else {
        return borrowed;
    };
    let bottom = node.below == NONE;
    let connecting = node.link == Link::Connecting;
    let wants = node.wants_push_at_bottom() && (bottom || core.has_room_below(node));
    if !connecting && !wants {
        return borrowed;
    }
    let mut left = 0;
    if bottom {
        let spent = core.spent_writing as usize;
        left = node.max_single_write().saturating_sub(spent);
        if left == 0 && mode == Mode::Normal && core.postpone(index, Steps::LATER_PUSH) {
            return borrowed;
        }
    }
    let mut node = core.nodes.node(index);
    let mut offer = Offer::ALL;
    if node.extras.is_some() && !connecting {
        offer = core.may_send(index);
        node = core.nodes.node(index);
        // What a layer has to say for itself it says all the same.
        if offer.allowed == 0 && !node.flags.contains(Flags::WANTS_WRITE) {
            return borrowed;
        }
    }
    let generation = node.generation;
    let Some(mut layer) = node.layer.take() else {
        return borrowed;
    };
    let mode = if node.write_end == End::Wanted && node.gives() && !offer.cut {
        Mode::Finished
    } else if node.flags.contains(Flags::OWES_FLUSH) {
        Mode::Flush
    } else {
        // A flush that finishes the top says so of this one when all from above has come, and its own end is wanted.
        mode.min(Mode::Flush)
    };
    let settled = node.link == Link::Open && node.write_end == End::Open;
    let pushing = Pushing {
        index,
        generation,
        lends: bottom && !node.flags.contains(Flags::OUTPUT_LENT),
        connecting,
        cut: offer.cut,
    };
    let mut output = EvBuffer::new();
    if pushing.lends {
        node.flags.insert(Flags::OUTPUT_LENT);
        // Where memory lacks to part a segment, all of it goes: the limit has a debt then.
        if !offer.cut || node.output.move_to(offer.allowed, &mut output).is_err() {
            std::mem::swap(&mut output, &mut node.output);
        }
    }
    drop(borrowed);
    let lent = pushing.lends.then_some((left.max(1), &mut output));
    let mut cx = Context::of_push(cell, index, generation, mode, lent, settled);
    cx.allow(offer.allowed);
    let step = guarded(cell, index, generation, "push", || layer.push(&mut cx));
    let moved = cx.moved();
    finish_push(cell, cell.borrow_mut(), pushing, layer, output, step, moved)
}

/// Puts the layer, and the output that was lent to it, back after a push, and notes what came of it.
#[inline(never)]
pub(crate) fn pushed<'a>(
    cell: &'a RefCell<Core>,
    borrowed: Borrowed<'a>,
    pushing: Pushing,
    layer: Box<dyn Bufferevent>,
    output: EvBuffer,
    step: Option<Step>,
    moved: usize,
) -> Borrowed<'a> {
    finish_push(cell, borrowed, pushing, layer, output, step, moved)
}

#[inline(always)]
fn finish_push<'a>(
    cell: &'a RefCell<Core>,
    mut borrowed: Borrowed<'a>,
    pushing: Pushing,
    layer: Box<dyn Bufferevent>,
    mut output: EvBuffer,
    step: Option<Step>,
    moved: usize,
) -> Borrowed<'a> {
    let Pushing {
        index,
        generation,
        lends,
        connecting,
        cut,
    } = pushing;
    let core = &mut *borrowed;
    let Some(node) = core.nodes.find_mut(index, generation) else {
        drop(borrowed);
        put_back(cell, index, generation, layer);
        drop(output);
        return cell.borrow_mut();
    };
    node.layer = Some(layer);
    if step == Some(Step::Blocked) {
        node.flags.insert(Flags::BLOCKED);
    }
    if lends {
        node.flags.remove(Flags::OUTPUT_LENT);
        if !node.output.is_bare() {
            // Sums of lengths that fitted before fit again.
            let _ = output.append(&mut node.output);
        }
        // Usually all is out, and an empty buffer is there already.
        output.swap_with(&mut node.output);
    }
    if node.below == NONE {
        core.spent_writing = spent(core.spent_writing, moved);
        core.share_used |= core.spent_writing as usize >= node.max_single_write();
    }
    let goes_on = moved > 0 && step == Some(Step::Again);
    // A layer that goes on may hold more than its output shows.
    let owes = node.flags.contains(Flags::OWES_FLUSH) && node.output.is_empty() && !goes_on;
    // What was written before the connection stood was lent to the call that found it standing: nobody could ask for it.
    let stands = connecting && node.link == Link::Open;
    if lends {
        core.lost_output(index, moved);
    }
    output.forget_empty();
    if goes_on || stands {
        core.queue_push(index);
    }
    if owes {
        core.flush_passed(index);
    }
    if core.nodes.node(index).extras.is_some() {
        if cut && moved == 0 && step != Some(Step::Blocked) {
            core.starved(index);
        }
        core.step_over(index, Direction::Write, moved);
    }
    borrowed
}

impl Core {
    /// Keeps a transport's step for the next turn. `false` if no run is under way at whose end it would be queued: then it just goes on.
    fn postpone(&mut self, index: Index, later: Steps) -> bool {
        if self.running {
            self.node(index).queued.insert(later);
            self.share_used = true;
        }
        self.running
    }

    /// Queues what was kept for the next turn.
    fn requeue_postponed(&mut self) {
        for index in self.indices() {
            let Some(node) = self.get_mut(index) else {
                continue;
            };
            let later = node.queued;
            node.queued
                .remove(Steps::LATER_PULL.union(Steps::LATER_PUSH));
            if later.contains(Steps::LATER_PULL) {
                self.queue_pull(index);
            }
            if later.contains(Steps::LATER_PUSH) {
                self.queue_push(index);
            }
        }
    }

    /// A flush has passed this node, whose output is empty: the one below owes it now.
    fn flush_passed(&mut self, index: Index) {
        let node = self.node(index);
        node.flags.remove(Flags::OWES_FLUSH);
        let below = node.below;
        self.owe_flush(below);
    }

    /// The node is to send all that it holds, past its marks.
    pub(crate) fn owe_flush(&mut self, index: Index) {
        let Some(node) = self.get_mut(index) else {
            return;
        };
        // A transport holds nothing but its output, which it sends anyway.
        if node.below != NONE && matches!(node.write_end, End::Open | End::Wanted) {
            node.flags.insert(Flags::OWES_FLUSH);
        }
        self.queue_push(index);
    }
}
