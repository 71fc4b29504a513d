//! How a bufferevent's life ends: freed by hand, by its last user's leaving, by a graceful close.
//!
//! # Rules
//! 1. Freeing takes the node out of the arena at once: every handle is stale from then on, and no callback of it begins.
//! 2. What was in the node (layer, handler, buffers) is told and dropped with nothing borrowed.
//! 3. A freed bufferevent with CLOSE_ON_FREE takes the one below along, and so on down; without it the one
//!    below is uncovered, with its unread bytes and what was enabled before.
//! 4. One that loses its layer below hears of it as an error; one whose partner goes, as an EOF.
//! 5. When the loop closes, handlers are dropped, and what has no user then is freed; the rest, when its last user leaves.
//!    What waits to be told that all output is out hangs on the same look.
//! 6. Without a user, a bufferevent lives while it is connecting, can still hear, has output to send, or has something
//!    to tell its handler. That is looked at when an end was seen or an output emptied, not at every step.

use std::cell::RefCell;

use crate::context::Context;
use crate::core::{Core, Facts};
use crate::direction::Directions;
use crate::handler::{Handler, Interest};
use crate::node::{End, Flags, Handling, Index, Link, NONE, Node, Pending};
use crate::options::{Mode, Options};
use crate::pump;

/// The last user handle of a node may be gone.
pub(crate) fn orphaned(core: &mut Core, index: Index, generation: u32) {
    // While a layer covers it, its life is the layer's.
    if let Some(node) = core.find_mut(index, generation)
        && !node.covered()
    {
        node.flags.insert(Flags::ORPHAN);
        core.facts.insert(Facts::MARKED);
        core.facts.insert(Facts::SETTLE);
    }
}

/// Frees a node, and what it owns below. Returns how many bytes were never sent, or `None` if it is gone already.
pub(crate) fn free(cell: &RefCell<Core>, index: Index, generation: u32) -> Option<usize> {
    let (removed, timers, host) = {
        let mut core = cell.borrow_mut();
        core.find(index, generation)?;
        let removed = take_out(&mut core, index);
        let timers: Vec<_> = Vec::new();
        (removed, timers, core.host())
    };
    let mut unsent = 0;
    let mut timers = timers;
    for (index, mut node, close) in removed {
        unsent += node.output.len();
        if let Some(extras) = &mut node.extras {
            timers.extend(extras.timers.take_armed());
        }
        if let Some(mut layer) = node.layer.take() {
            let generation = node.generation;
            pump::guarded(cell, index, generation, "freed", || {
                let mut cx = Context::new(cell, index, generation, Mode::Normal);
                layer.freed(&mut cx, close);
            });
        }
        // Handler, buffers and layer are dropped here, with nothing borrowed.
        pump::guarded(cell, index, node.generation, "drop", || drop(node));
    }
    for timer in timers {
        host.disarm(timer);
    }
    Some(unsent)
}

/// Takes a node and those it closes out of the arena. The flag tells whether a borrowed transport is to be closed.
fn take_out(core: &mut Core, index: Index) -> Vec<(Index, Node, bool)> {
    let mut removed = Vec::with_capacity(1);
    let above = core.node(index).above;
    if above != NONE {
        core.lost_below(above);
    }
    let mut index = index;
    let mut close = false;
    while let Some(node) = core.remove(index) {
        close |= node.options.contains(Options::CLOSE_ON_FREE);
        let below = node.below;
        let untold = node.keeps_connected();
        if node.layer.is_none() {
            core.rare().freed_out.push((index, node.generation, close));
        }
        removed.push((index, node, close));
        if below != NONE && !close {
            if untold && let Some(under) = core.get_mut(below) {
                under.pending.insert(Pending::CONNECTED);
            }
            uncover(core, below);
            break;
        }
        index = below;
    }
    removed
}

/// Gives a bufferevent back to its users: the layer on it is gone.
pub(crate) fn uncover(core: &mut Core, index: Index) {
    let Some(node) = core.get_mut(index) else {
        return;
    };
    node.above = NONE;
    node.enabled = node.enabled_before;
    if node.me.as_ref().is_some_and(|me| me.users() == 0) {
        core.mark(index, Flags::ORPHAN);
    }
    let node = core.node(index);
    if node.read_end != End::Open {
        node.enabled.remove(Directions::READ);
        if !node.flags.contains(Flags::END_TOLD) {
            node.pending.insert(Pending::READ_END);
        }
    }
    if node.write_end == End::Failed {
        node.enabled.remove(Directions::WRITE);
    }
    core.opened(index, Directions::BOTH);
    core.queue_deliver(index);
    core.maybe_reap(index);
}

/// Frees every node whose time has come.
pub(crate) fn settle(cell: &RefCell<Core>) {
    let indices = {
        let mut core = cell.borrow_mut();
        core.facts.remove(Facts::SETTLE);
        core.indices()
    };
    for index in indices {
        let Some(generation) = cell.borrow().get(index).map(|node| node.generation) else {
            continue;
        };
        if is_over(cell, index) {
            free(cell, index, generation);
        }
    }
    let mut core = cell.borrow_mut();
    if core.any_marked() {
        core.facts.insert(Facts::MARKED);
    } else {
        core.facts.remove(Facts::MARKED);
    }
}

/// Whether nothing keeps this node alive any more.
fn is_over(cell: &RefCell<Core>, index: Index) -> bool {
    let hearing = {
        let mut core = cell.borrow_mut();
        let flags = core.node(index).flags;
        if flags.contains(Flags::FREE_NOW) {
            return true;
        }
        if flags.contains(Flags::TELLS_SENT) && core.all_sent(index) {
            core.node(index).flags.remove(Flags::TELLS_SENT);
            core.tell(index, Pending::SENT);
        }
        if core.node(index).covered() || core.node(index).handling != Handling::Idle {
            return false;
        }
        if flags.contains(Flags::FREE_WHEN_WRITTEN) && core.is_written(index) {
            return true;
        }
        if flags.contains(Flags::CLOSING) && core.is_closed(index) {
            return true;
        }
        let node = core.node(index);
        if !flags.contains(Flags::ORPHAN) {
            return false;
        }
        if node.me.as_ref().is_none_or(|me| me.users() > 0) {
            node.flags.remove(Flags::ORPHAN);
            return false;
        }
        if core.facts.contains(Facts::CLOSED) {
            return true;
        }
        if core.is_busy(index) {
            return false;
        }
        core.node(index).enabled.contains(Directions::READ)
            && core.node(index).read_end == End::Open
    };
    !hearing || !transport_hears(cell, index)
}

/// Asks the transport at the bottom of a stack whether anything can still come.
fn transport_hears(cell: &RefCell<Core>, top: Index) -> bool {
    let (index, generation) = {
        let core = cell.borrow();
        let mut index = top;
        while let Some(node) = core.get(index)
            && node.below != NONE
        {
            index = node.below;
        }
        let Some(node) = core.get(index) else {
            return false;
        };
        (index, node.generation)
    };
    let Some(layer) = pump::take_layer(cell, index, generation) else {
        return true;
    };
    let cx = Context::new(cell, index, generation, Mode::Normal);
    let hears = layer.hears(&cx);
    pump::put_back(cell, index, generation, layer);
    hears
}

impl Core {
    /// Takes all handlers out that do not run just now, for the caller to drop.
    pub(crate) fn take_handlers(&mut self) -> Vec<Box<dyn Handler + Send>> {
        let indices = self.indices();
        let take = |index| {
            let node = self.get_mut(index)?;
            node.set_interest(Interest::EMPTY);
            node.replace_handler(None)
        };
        indices.filter_map(take).collect()
    }

    /// A look is due at each bufferevent: the post that says that a user left it on another thread goes with the loop.
    pub(crate) fn orphan_all(&mut self) {
        for index in self.indices() {
            if let Some(node) = self.get_mut(index)
                && !node.covered()
            {
                node.flags.insert(Flags::ORPHAN);
            }
        }
    }

    /// An output has become empty: some life may hang on that.
    pub(crate) fn emptied_output(&mut self, index: Index) {
        let top = self.top_of(index);
        self.maybe_reap(top);
    }

    /// Whether any node of the domain may come to its end by itself.
    fn any_marked(&self) -> bool {
        let orphans = self.facts.contains(Facts::PAIRED);
        self.indices().any(|index| {
            self.get(index).is_some_and(|node| {
                node.may_end() || (orphans && node.flags.contains(Flags::ORPHAN))
            })
        })
    }

    /// Marks a node to be freed when `why` comes about.
    pub(crate) fn mark(&mut self, index: Index, why: Flags) {
        self.node(index).flags.insert(why);
        self.facts.insert(Facts::MARKED);
    }

    /// Has the handler told once all output is out.
    pub(crate) fn tell_sent(&mut self, index: Index) {
        self.mark(index, Flags::TELLS_SENT);
        self.facts.insert(Facts::SETTLE);
    }

    /// Has the loop free a node, whose handler is told nothing any more.
    pub(crate) fn doom(&mut self, index: Index) {
        let node = self.node(index);
        node.flags.insert(Flags::FREE_NOW);
        node.set_interest(Interest::EMPTY);
        self.facts.insert(Facts::MARKED);
        self.facts.insert(Facts::SETTLE);
    }

    /// Has the pump look whether this node is at its end, if it may be.
    pub(crate) fn maybe_reap(&mut self, index: Index) {
        let may_end = self.get(index).is_some_and(Node::may_end);
        self.reap_if(may_end);
    }

    /// As [`maybe_reap`](Self::maybe_reap), for who has looked whether the node may end.
    #[inline]
    pub(crate) fn reap_if(&mut self, may_end: bool) {
        if may_end || self.is_marked() {
            self.look_for_ends(may_end);
        }
    }

    #[cold]
    fn look_for_ends(&mut self, may_end: bool) {
        if may_end {
            self.facts.insert(Facts::MARKED);
        }
        // The partner in a pair lives by what is in flight here.
        if may_end || self.facts.contains(Facts::PAIRED) {
            self.facts.insert(Facts::SETTLE);
        }
    }

    /// Whether all output of the stack below and including `index` is out, or can never be.
    pub(crate) fn all_sent(&self, mut index: Index) -> bool {
        while let Some(node) = self.get(index) {
            if node.owes() {
                return false;
            }
            index = node.below;
        }
        true
    }

    /// Whether one that lives for its output has nothing left to live for, or no more time, and told so.
    fn is_written(&self, index: Index) -> bool {
        let gave_up =
            |node: &Node| node.flags.contains(Flags::CLOSED) && node.deliverable().is_empty();
        self.all_sent(index) || self.get(index).is_some_and(gave_up)
    }

    /// Whether a graceful close has come to its end and told so.
    fn is_closed(&self, index: Index) -> bool {
        let Some(node) = self.get(index) else {
            return false;
        };
        let over = node.flags.contains(Flags::CLOSED)
            || node.write_end == End::Failed
            || (node.read_end != End::Open && self.all_sent(index));
        over && node.deliverable().is_empty()
    }

    /// Whether something is under way that does not need the outside to speak first.
    fn is_busy(&self, top: Index) -> bool {
        if self
            .get(top)
            .is_some_and(|node| !node.deliverable().is_empty())
        {
            return true;
        }
        let mut index = top;
        while let Some(node) = self.get(index) {
            if node.link == Link::Connecting || (node.owes() && node.will_give()) {
                return true;
            }
            index = node.below;
        }
        false
    }
}
