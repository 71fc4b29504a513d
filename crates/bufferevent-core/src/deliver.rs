//! Delivery: one round of telling a handler what happened.
//!
//! The order of a round is the order of the bits in [`Pending`]: Connected, read, write, pressure, timeouts, Written,
//! then an end. Each is told at most once per round; what arises meanwhile comes in the next.
//!
//! # Invariants
//! - The handler and the node's own handle are out of the node for the length of the round, and nothing is borrowed while
//!   a callback runs.
//! - A callback's condition is looked at when it is about to run, not when it was queued.
//! - An end is told when no bytes are left to tell of and nothing that callbacks wrote waits for a push: a `free` in the
//!   event callback throws no reply away.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bev::Bev;
use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::domain::Domain;
use crate::event::{Deadline, Event};
use crate::handler::{Handler, Pressure};
use crate::held::LetGo;
use crate::node::{End, Flags, Index, NONE, Node, Pending, Steps};
use crate::options::Mode;
use crate::pump::{self, Borrowed};

/// One callback that is due.
enum Call {
    Read,
    Write,
    Pressure(Pressure),
    Event(Event),
}

/// Runs one delivery round of a node: calls what is due, in order, each once.
pub(crate) fn deliver<'a>(
    cell: &'a RefCell<Core>,
    mut core: Borrowed<'a>,
    index: Index,
) -> Borrowed<'a> {
    let Some(node) = core.get_mut(index) else {
        return core;
    };
    let due = node.deliverable();
    if node.covered() || due.is_empty() {
        return core;
    }
    if due.without(Pending::ENDS).is_empty() && core.push_waits(index) {
        drop(core);
        push_before_end(cell, index);
        return cell.borrow_mut();
    }
    let node = core.node(index);
    // Running already, further up this stack: the bits stay and are told after it.
    let Some(mut handler) = node.take_handler() else {
        return core;
    };
    let me = node
        .me
        .take()
        .expect("the own handle is out only while the handler is");
    let generation = node.generation;
    let mut place = Pending::CONNECTED;
    // By itself, since it is what most rounds are.
    if node.takes_read() {
        place = Pending::READ.next();
        core.publish_for(&me);
        drop(core);
        // A panic frees the node, and the round ends below.
        pump::guarded(cell, index, generation, "handler", || handler.on_read(&me));
        core = cell.borrow_mut();
    }
    go_on(cell, core, index, generation, place, handler, me)
}

/// Calls what is due at or behind `place`, and ends the round.
pub(crate) fn go_on<'a>(
    cell: &'a RefCell<Core>,
    mut core: Borrowed<'a>,
    index: Index,
    generation: u32,
    mut place: Pending,
    mut handler: Box<dyn Handler + Send>,
    me: Bev,
) -> Borrowed<'a> {
    while let Some(call) = next_call(&mut core, index, generation, &mut place) {
        core.publish_for(&me);
        drop(core);
        let done = pump::guarded(cell, index, generation, "handler", || {
            call.make(&mut *handler, &me);
        });
        core = cell.borrow_mut();
        if done.is_none() {
            break;
        }
    }
    finish(cell, core, index, generation, handler, me)
}

/// Runs one delivery round of a node with the lock let go while a callback runs. `domain` is not locked by this thread.
///
/// Meanwhile anybody may change the node, replace the handler or have it all freed; nobody else runs the handler, which is out.
pub(crate) fn deliver_unlocked(domain: &Domain, index: Index, generation: u32) {
    // What was written so far goes first: an end is told behind it.
    pump::run_domain(domain);
    let taken = {
        let cell = domain.lock();
        let mut core = cell.borrow_mut();
        core.find_mut(index, generation).and_then(|node| {
            let handler = node.take_handler()?;
            Some((handler, node.me.take()?))
        })
    };
    let Some((mut handler, me)) = taken else {
        return;
    };
    let mut place = Pending::CONNECTED;
    loop {
        let next = {
            let cell = domain.lock();
            let mut core = cell.borrow_mut();
            let next = next_call(&mut core, index, generation, &mut place);
            core.publish_for(&me);
            next
        };
        let Some(call) = next else { break };
        let told = {
            let _let_go = LetGo::begin();
            catch_unwind(AssertUnwindSafe(|| call.make(&mut *handler, &me)))
        };
        if let Err(payload) = told {
            pump::panicked(&domain.lock(), index, generation, "handler", payload);
            break;
        }
    }
    {
        let cell = domain.lock();
        drop(finish(
            &cell,
            cell.borrow_mut(),
            index,
            generation,
            handler,
            me,
        ));
    }
    pump::run_domain(domain);
}

impl Call {
    #[inline(always)]
    fn make(self, handler: &mut (dyn Handler + Send), bev: &Bev) {
        match self {
            Self::Read => handler.on_read(bev),
            Self::Write => handler.on_write(bev),
            Self::Pressure(pressure) => handler.on_pressure(bev, pressure),
            Self::Event(event) => handler.on_event(bev, &event),
        }
    }
}

/// The next callback of a round that is due at or behind `place`, which moves on; `None` at the round's end, which also
/// comes when a callback freed or covered the bufferevent.
#[inline(always)]
fn next_call(core: &mut Core, index: Index, generation: u32, place: &mut Pending) -> Option<Call> {
    loop {
        let node = core.nodes.find_mut(index, generation)?;
        if node.covered() {
            return None;
        }
        let what = node.deliverable().first_from(*place)?;
        *place = what.next();
        if what.intersects(Pending::ENDS) && core.push_waits(index) {
            return None;
        }
        let node = core.nodes.node(index);
        node.pending.remove(what);
        if let Some(call) = call_of(node, what) {
            // Several deadlines may have passed; each is told in this round.
            if what == Pending::TIMEOUT && node.pending.contains(what) {
                *place = what;
            }
            return Some(call);
        }
    }
}

/// Only an end is left to tell and a push waits: does the push first.
#[cold]
fn push_before_end(cell: &RefCell<Core>, index: Index) {
    let mut below = index;
    while below != NONE {
        let waits = {
            let mut core = cell.borrow_mut();
            core.get(below).is_some() && core.take_step(below, Steps::PUSH)
        };
        if waits {
            pump::push(cell, below, Mode::Normal);
        }
        below = cell.borrow().get(below).map_or(NONE, |node| node.below);
    }
    cell.borrow_mut().queue_deliver(index);
}

/// Whether a callback's condition still holds, and with what it is called.
fn call_of(node: &mut Node, what: Pending) -> Option<Call> {
    match what {
        Pending::READ => {
            if !node.read_due() {
                return None;
            }
            node.flags.remove(Flags::FRESH);
            Some(Call::Read)
        }
        Pending::FORCED_READ => {
            node.flags.remove(Flags::FRESH);
            Some(Call::Read)
        }
        Pending::WRITE => (node.output.len() <= node.write_mark.low()).then_some(Call::Write),
        Pending::FORCED_WRITE => Some(Call::Write),
        Pending::PRESSURE => Some(Call::Pressure(if node.flags.contains(Flags::FULL) {
            Pressure::Full
        } else {
            Pressure::Eased
        })),
        _ => event(node, what).map(Call::Event),
    }
}

fn event(node: &mut Node, what: Pending) -> Option<Event> {
    match what {
        Pending::CONNECTED => Some(Event::Connected),
        Pending::TIMEOUT_READ => Some(Event::Timeout(Deadline::Read)),
        Pending::TIMEOUT_WRITE => Some(Event::Timeout(Deadline::Write)),
        Pending::TIMEOUT => {
            let (deadline, more) = node.extras().timers.take_passed()?;
            if more {
                node.pending.insert(Pending::TIMEOUT);
            }
            Some(Event::Timeout(deadline))
        }
        Pending::TRIGGERED => Some(Event::Triggered(std::mem::take(
            &mut node.extras().triggered,
        ))),
        Pending::SENT => Some(Event::Sent),
        Pending::WRITTEN => Some(Event::Written),
        Pending::READ_END if node.read_end == End::Done => {
            node.flags.insert(Flags::END_TOLD);
            Some(Event::Eof)
        }
        Pending::READ_END => {
            node.flags.insert(Flags::END_TOLD);
            let extras = node.extras();
            let direction = (!extras.connect_failed).then_some(Direction::Read);
            let error = extras.read_error.clone()?;
            Some(Event::Error { direction, error })
        }
        Pending::WRITE_END => {
            let error = node.extras().write_error.clone()?;
            Some(Event::Error {
                direction: Some(Direction::Write),
                error,
            })
        }
        _ => None,
    }
}

/// Puts the handler back, or its replacement in, and has the next round run if one is due.
#[inline(always)]
fn finish<'a>(
    cell: &'a RefCell<Core>,
    mut core: Borrowed<'a>,
    index: Index,
    generation: u32,
    handler: Box<dyn Handler + Send>,
    me: Bev,
) -> Borrowed<'a> {
    let Some(node) = core.find_mut(index, generation) else {
        // Freed: the handler is user code, dropped with nothing borrowed.
        drop(core);
        drop((handler, me));
        return cell.borrow_mut();
    };
    node.me = Some(me);
    let old = node.return_handler(Some(handler));
    let may_end = node.may_end();
    if !node.pending.is_empty() || node.flags.contains(Flags::FRESH) {
        core.tell_unread(index);
        core.queue_deliver(index);
    }
    core.reap_if(may_end);
    if old.is_some() {
        drop(core);
        drop(old);
        return cell.borrow_mut();
    }
    core
}

impl Core {
    /// The user does not want this direction any more: what was queued for it is not told.
    pub(crate) fn cancel_callbacks(&mut self, index: Index, directions: Directions) {
        let node = self.node(index);
        if directions.contains(Directions::READ) {
            node.pending.remove(Pending::READS);
        }
        if directions.contains(Directions::WRITE) {
            node.pending.remove(Pending::WRITES);
        }
    }
}
