//! The state of a domain: an arena of nodes, the work they wait for, and nothing that runs.
//!
//! # Invariants
//! - A step is in the queue at most once: the node's `queued` bit says so.
//! - The first node and five entries of work lie inline, because most domains have one node and never more work.
//! - Generations are never reused within a domain, so a stale handle never meets another node.

use std::collections::VecDeque;

use evreactor_core::sync::{Arc, Weak};
use evreactor_core::{Host, Phase, Target};

use crate::domain::{Call, Domain, Key};
use crate::layer::Bufferevent;
use crate::node::{Index, NONE, Node, Steps};
use crate::options::Options;

pub(crate) struct Core {
    first: Option<Node>,
    rare: Option<Box<Rare>>,
    work: Work,
    /// The transport whose push comes after all else, so that what callbacks write leaves together.
    late: Index,
    next_generation: u32,
    domain: Weak<Domain>,
    /// Bytes the transport has read in this run of the pump.
    pub(crate) spent_reading: usize,
    /// Bytes the transport has written in this run of the pump.
    pub(crate) spent_writing: usize,
    /// What ran out of budget: steps of one node that wait for the next turn.
    pub(crate) postponed: Steps,
    pub(crate) postponed_node: Index,
    /// The domain is on a ready list or scheduled with its loop.
    pub(crate) listed: bool,
    /// The pump is in this domain.
    pub(crate) running: bool,
    /// Some node may have come to the end of its life.
    pub(crate) settle: bool,
}

/// What a domain of one socket never needs.
#[derive(Default)]
pub(crate) struct Rare {
    /// The nodes from the second on.
    more: Vec<Option<Node>>,
    /// Nodes that were freed while their layer was out, and whether it is to close what it borrowed.
    pub(crate) freed_out: Vec<(Index, u32, bool)>,
}

impl Core {
    pub(crate) fn new(domain: Weak<Domain>) -> Self {
        Self {
            first: None,
            rare: None,
            work: Work::default(),
            late: NONE,
            next_generation: 0,
            domain,
            spent_reading: 0,
            spent_writing: 0,
            postponed: Steps::EMPTY,
            postponed_node: NONE,
            listed: false,
            running: false,
            settle: false,
        }
    }

    pub(crate) fn add(&mut self, options: Options, layer: Box<dyn Bufferevent>) -> Index {
        self.next_generation = self.next_generation.wrapping_add(1);
        let node = Node::new(options, self.next_generation, layer);
        if self.first.is_none() {
            self.first = Some(node);
            return 0;
        }
        let more = &mut self.rare().more;
        let place = match more.iter().position(Option::is_none) {
            Some(place) => {
                more[place] = Some(node);
                place
            }
            None => {
                more.push(Some(node));
                more.len() - 1
            }
        };
        Index::try_from(place + 1).expect("a domain has fewer than 2^32 nodes")
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Takes a node out of the arena; from here on its handles are stale.
    pub(crate) fn remove(&mut self, index: Index) -> Option<Node> {
        if self.late == index {
            self.late = NONE;
        }
        if self.postponed_node == index {
            self.postponed_node = NONE;
            self.postponed = Steps::EMPTY;
        }
        match index {
            0 => self.first.take(),
            _ => self.rare.as_mut()?.more.get_mut(index as usize - 1)?.take(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: Index) -> Option<&Node> {
        match index {
            0 => self.first.as_ref(),
            _ => self.rare.as_ref()?.more.get((index as usize).wrapping_sub(1))?.as_ref(),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Node> {
        match index {
            0 => self.first.as_mut(),
            _ => self.rare.as_mut()?.more.get_mut((index as usize).wrapping_sub(1))?.as_mut(),
        }
    }

    #[inline]
    pub(crate) fn find(&self, index: Index, generation: u32) -> Option<&Node> {
        self.get(index).filter(|node| node.generation == generation)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, index: Index, generation: u32) -> Option<&mut Node> {
        self.get_mut(index).filter(|node| node.generation == generation)
    }

    /// A node that is known to be there: its index came from this domain and nothing was freed since.
    #[inline]
    pub(crate) fn node(&mut self, index: Index) -> &mut Node {
        self.get_mut(index).expect("the index names a live node of this domain")
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = Index> + use<> {
        let more = self.rare.as_ref().map_or(0, |rare| rare.more.len());
        0..=Index::try_from(more).unwrap_or(NONE - 1)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty() || self.late != NONE
    }

    /// Queues a step once. A transport's push goes last.
    #[inline]
    pub(crate) fn queue(&mut self, index: Index, step: Steps) {
        let Some(node) = self.get_mut(index) else { return };
        if node.queued.contains(step) {
            return;
        }
        node.queued.insert(step);
        let transport = node.below == NONE;
        if transport && step == Steps::PUSH && self.late == NONE {
            self.late = index;
        } else {
            self.work.push(Item::new(index, step));
        }
    }

    /// The next step to take; its `queued` bit is cleared.
    #[inline]
    pub(crate) fn next_step(&mut self) -> Option<(Index, Steps)> {
        loop {
            let (index, step) = match self.work.pop() {
                Some(item) => (item.index(), item.step()),
                None if self.late != NONE => (std::mem::replace(&mut self.late, NONE), Steps::PUSH),
                None => return None,
            };
            // A freed node leaves its entries behind; a new node in its place has its own.
            if let Some(node) = self.get_mut(index)
                && node.queued.contains(step)
            {
                node.queued.remove(step);
                return Some((index, step));
            }
        }
    }

    /// Whether a push waits in this node or below it.
    pub(crate) fn push_waits(&self, mut index: Index) -> bool {
        while let Some(node) = self.get(index) {
            if node.queued.contains(Steps::PUSH) {
                return true;
            }
            index = node.below;
        }
        false
    }

    /// Takes a queued step out of turn. Its entry in the queue finds nothing to do later.
    pub(crate) fn take_step(&mut self, index: Index, step: Steps) -> bool {
        if self.late == index && step == Steps::PUSH {
            self.late = NONE;
        }
        let node = self.node(index);
        let queued = node.queued.contains(step);
        node.queued.remove(step);
        queued
    }

    /// Whether the domain has one node alone.
    pub(crate) fn is_single(&self) -> bool {
        self.rare.as_ref().is_none_or(|rare| rare.more.is_empty())
    }

    /// The node on top of the stack that `index` belongs to.
    pub(crate) fn top_of(&self, mut index: Index) -> Index {
        while let Some(node) = self.get(index)
            && node.above != NONE
        {
            index = node.above;
        }
        index
    }

    /// The domain that this is the state of.
    pub(crate) fn domain_arc(&self) -> Option<Arc<Domain>> {
        self.domain.upgrade()
    }

    /// The loop. There as long as anybody is in the domain.
    pub(crate) fn host(&self) -> Arc<dyn Host> {
        self.domain_arc().expect("whoever is in a domain holds it").host.clone()
    }

    /// What the loop is given to call this node back: the domain, and a key.
    pub(crate) fn target(&self, index: Index, call: Call) -> Option<(Arc<dyn Target>, u64)> {
        let generation = self.get(index)?.generation;
        Some((self.domain.upgrade()?, Key { call, index, generation }.pack()))
    }

    /// Has the loop deliver this node's callbacks from its deferred queue.
    pub(crate) fn schedule_deferred(&mut self, index: Index) {
        let Some((target, key)) = self.target(index, Call::Deliver) else { return };
        let phase = Phase::Deferred(self.node(index).priority());
        // A closed loop tells nobody anything any more.
        let _ = self.host().schedule(phase, target, key);
    }
}

/// One queued step in 32 bits: the node's index and which step.
#[derive(Clone, Copy)]
struct Item(u32);

impl Item {
    fn new(index: Index, step: Steps) -> Self {
        let code = match step {
            Steps::PULL => 0,
            Steps::PUSH => 1,
            _ => 2,
        };
        Self(index << 2 | code)
    }

    fn index(self) -> Index {
        self.0 >> 2
    }

    fn step(self) -> Steps {
        match self.0 & 3 {
            0 => Steps::PULL,
            1 => Steps::PUSH,
            _ => Steps::DELIVER,
        }
    }
}

/// How many entries lie inline.
const INLINE: usize = 5;

/// A first-in, first-out queue of steps: a small ring inline, and a heap queue while that is too small.
#[derive(Default)]
struct Work {
    ring: [u32; INLINE],
    head: u8,
    len: u8,
    #[expect(clippy::box_collection, reason = "a pointer inline instead of four words: every idle connection has one")]
    spilled: Option<Box<VecDeque<u32>>>,
}

impl Work {
    #[inline]
    fn is_empty(&self) -> bool {
        self.len == 0 && self.spilled.is_none()
    }

    #[inline]
    fn push(&mut self, item: Item) {
        if let Some(spilled) = &mut self.spilled {
            spilled.push_back(item.0);
        } else if (self.len as usize) < INLINE {
            let tail = (self.head as usize + self.len as usize) % INLINE;
            self.ring[tail] = item.0;
            self.len += 1;
        } else {
            self.spilled.insert(Box::default()).push_back(item.0);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Item> {
        if self.len > 0 {
            let item = Item(self.ring[self.head as usize]);
            self.head = ((self.head as usize + 1) % INLINE) as u8;
            self.len -= 1;
            return Some(item);
        }
        let spilled = self.spilled.as_mut()?;
        let item = spilled.pop_front();
        if spilled.is_empty() {
            self.spilled = None;
        }
        item.map(Item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_keeps_its_order_across_the_spill() {
        let mut work = Work::default();
        let mut expected = VecDeque::new();
        for round in 0..100_u32 {
            for n in 0..(round % 13) {
                work.push(Item::new(round * 100 + n, Steps::PULL));
                expected.push_back(round * 100 + n);
            }
            for _ in 0..(round % 11) {
                assert_eq!(work.pop().map(Item::index), expected.pop_front());
            }
        }
        while let Some(next) = expected.pop_front() {
            assert_eq!(work.pop().map(Item::index), Some(next));
        }
        assert!(work.is_empty());
    }
}
