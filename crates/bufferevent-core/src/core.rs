//! The state of a domain: an arena of nodes, the work they wait for, and nothing that runs.
//!
//! # Invariants
//! - A step is in the queue at most once: the node's `queued` bit says so.
//! - Most domains have one node: it lies inline, and its `queued` bits are its queue. The order of steps of several
//!   nodes is kept in [`Rare`].
//! - Generations are never reused within a domain, so a stale handle never meets another node.

use std::collections::VecDeque;

use evreactor_core::sync::{Arc, Weak};
use evreactor_core::{Host, Phase, Target};

use crate::domain::{Call, Domain, Key};
use crate::layer::Bufferevent;
use crate::node::{Index, NONE, Node, Steps};
use crate::options::Options;
use crate::set::set;

set! {
    /// What is so about a domain. One byte: each connection has it, and the next would cost sixteen.
    pub(crate) struct Facts(u8) {
        /// The loop is gone: nothing comes from outside any more. For good.
        CLOSED = 1;
        /// There are, or were, two transports: the life of a stack may hang on what happens in the other. For good.
        PAIRED = 2;
        /// Other threads may look and enter. For good.
        SHARED = 4;
        /// The lock of a shared one is kept while code of others runs.
        KEPT = 8;
        /// Some node is to be freed when something comes about, or has neither a user nor anything to hear; in a pair, also one
        /// that has no user.
        MARKED = 0x10;
        /// Some node may have come to the end of its life.
        SETTLE = 0x20;
        /// The transport had its share, and rests until the loop's next turn runs it.
        RESTING = 0x40;
        /// The loop has a source of a transport here, and tells when it closes. For good.
        SOURCED = 0x80;
    }
}

/// Each connection has one, within its domain.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Core>() <= 280);

pub(crate) struct Core {
    /// Apart from the rest, so that a step can hold a node and count what it spends.
    pub(crate) nodes: Nodes,
    domain: Weak<Domain>,
    next_generation: u32,
    /// Bytes the transport has read in this run of the pump.
    pub(crate) spent_reading: u32,
    /// Bytes the transport has written in this run of the pump.
    pub(crate) spent_writing: u32,
    /// The transport has had its share of this turn.
    pub(crate) share_used: bool,
    /// The domain is on a ready list or scheduled with its loop.
    pub(crate) listed: bool,
    /// The pump is in this domain.
    pub(crate) running: bool,
    pub(crate) facts: Facts,
}

/// The nodes of a domain, and the steps that are queued for them.
pub(crate) struct Nodes {
    first: Option<Node>,
    rare: Option<Box<Rare>>,
}

/// What a domain of one bufferevent never needs.
pub(crate) struct Rare {
    /// The nodes from the second on.
    more: Vec<Option<Node>>,
    /// The order in which steps were queued.
    work: VecDeque<Item>,
    /// The transport whose push comes after all else, so that what callbacks write leaves together.
    late: Index,
    /// Nodes that were freed while their layer was out, and whether it is to close what it borrowed.
    pub(crate) freed_out: Vec<(Index, u32, bool)>,
}

impl Core {
    pub(crate) fn new(domain: Weak<Domain>, shared: bool) -> Self {
        Self {
            nodes: Nodes {
                first: None,
                rare: None,
            },
            domain,
            next_generation: 0,
            spent_reading: 0,
            spent_writing: 0,
            share_used: false,
            listed: false,
            running: false,
            facts: if shared { Facts::SHARED } else { Facts::EMPTY },
        }
    }

    pub(crate) fn add(&mut self, options: Options, layer: Box<dyn Bufferevent>) -> Index {
        self.next_generation = self.next_generation.wrapping_add(1);
        let node = Node::new(options, self.next_generation, layer);
        if self.nodes.first.is_none() {
            self.nodes.first = Some(node);
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

    /// The rarer half, made when first needed. From then on the order of steps is kept there.
    pub(crate) fn rare(&mut self) -> &mut Rare {
        let Nodes { first, rare } = &mut self.nodes;
        rare.get_or_insert_with(|| {
            let queued = first.as_ref().map_or(Steps::EMPTY, |node| node.queued);
            let mut work = VecDeque::new();
            for step in [Steps::DELIVER, Steps::PULL] {
                if queued.contains(step) {
                    work.push_back(Item::new(0, step));
                }
            }
            let late = if queued.contains(Steps::PUSH) {
                0
            } else {
                NONE
            };
            Box::new(Rare {
                more: Vec::new(),
                work,
                late,
                freed_out: Vec::new(),
            })
        })
    }

    /// Takes a node out of the arena; from here on its handles are stale.
    pub(crate) fn remove(&mut self, index: Index) -> Option<Node> {
        if let Some(rare) = &mut self.nodes.rare
            && rare.late == index
        {
            rare.late = NONE;
        }
        let removed = match index {
            0 => self.nodes.first.take(),
            _ => self
                .nodes
                .rare
                .as_mut()?
                .more
                .get_mut(index as usize - 1)?
                .take(),
        };
        if let Some(node) = &removed {
            node.publish_freed();
        }
        removed
    }

    #[inline]
    pub(crate) fn get(&self, index: Index) -> Option<&Node> {
        self.nodes.get(index)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Node> {
        self.nodes.get_mut(index)
    }

    #[inline]
    pub(crate) fn find(&self, index: Index, generation: u32) -> Option<&Node> {
        self.nodes.find(index, generation)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, index: Index, generation: u32) -> Option<&mut Node> {
        self.nodes.find_mut(index, generation)
    }

    /// A node that is known to be there: its index came from this domain and nothing was freed since.
    #[inline]
    pub(crate) fn node(&mut self, index: Index) -> &mut Node {
        self.nodes.node(index)
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = Index> + use<> {
        let more = self.nodes.rare.as_ref().map_or(0, |rare| rare.more.len());
        0..=Index::try_from(more).unwrap_or(NONE - 1)
    }

    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.nodes.has_work()
    }

    /// Queues a step once. A transport's push goes last.
    #[inline]
    pub(crate) fn queue(&mut self, index: Index, step: Steps) {
        self.nodes.queue(index, step);
    }

    /// The next step to take; its `queued` bit is cleared.
    #[inline]
    pub(crate) fn next_step(&mut self) -> Option<(Index, Steps)> {
        self.nodes.next_step()
    }

    /// Whether some node may have come to the end of its life.
    #[inline]
    pub(crate) fn settles(&self) -> bool {
        self.facts.contains(Facts::SETTLE)
    }

    /// Whether the life of some node hangs on something.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.facts.contains(Facts::MARKED)
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
        if let Some(rare) = &mut self.nodes.rare
            && rare.late == index
            && step == Steps::PUSH
        {
            rare.late = NONE;
        }
        let node = self.node(index);
        let queued = node.queued.contains(step);
        node.queued.remove(step);
        queued
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
        self.domain_arc()
            .expect("whoever is in a domain holds it")
            .host()
            .clone()
    }

    /// What the loop is given to call this node back: the domain, and a key.
    pub(crate) fn target(&self, index: Index, call: Call) -> Option<(Arc<dyn Target>, u64)> {
        let generation = self.get(index)?.generation;
        Some((
            self.domain.upgrade()?,
            Key {
                call,
                index,
                generation,
            }
            .pack(),
        ))
    }

    /// As [`target`](Self::target), without keeping the domain alive.
    pub(crate) fn key_of(&self, index: Index, call: Call) -> Option<(Weak<Domain>, u64)> {
        let generation = self.get(index)?.generation;
        let key = Key {
            call,
            index,
            generation,
        };
        Some((self.domain.clone(), key.pack()))
    }

    /// Has the loop deliver this node's callbacks from its deferred queue.
    pub(crate) fn schedule_deferred(&mut self, index: Index) {
        let Some((target, key)) = self.target(index, Call::Deliver) else {
            return;
        };
        let phase = Phase::Deferred(self.node(index).priority());
        // A closed loop tells nobody anything any more.
        let _ = self.host().schedule(phase, target, key);
    }
}

impl Nodes {
    #[inline]
    pub(crate) fn get(&self, index: Index) -> Option<&Node> {
        match index {
            0 => self.first.as_ref(),
            _ => self
                .rare
                .as_ref()?
                .more
                .get((index as usize).wrapping_sub(1))?
                .as_ref(),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Node> {
        match index {
            0 => self.first.as_mut(),
            _ => self
                .rare
                .as_mut()?
                .more
                .get_mut((index as usize).wrapping_sub(1))?
                .as_mut(),
        }
    }

    #[inline]
    pub(crate) fn find(&self, index: Index, generation: u32) -> Option<&Node> {
        self.get(index).filter(|node| node.generation == generation)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, index: Index, generation: u32) -> Option<&mut Node> {
        self.get_mut(index)
            .filter(|node| node.generation == generation)
    }

    /// Two nodes at once, of a domain that has several.
    #[inline(always)]
    pub(crate) fn two(&mut self, one: Index, other: Index) -> Option<(&mut Node, &mut Node)> {
        let more = &mut self.rare.as_mut()?.more;
        let place = |index: Index| (index as usize).wrapping_sub(1);
        if one == 0 {
            Some((self.first.as_mut()?, more.get_mut(place(other))?.as_mut()?))
        } else if other == 0 {
            Some((more.get_mut(place(one))?.as_mut()?, self.first.as_mut()?))
        } else {
            let places = [place(one), place(other)];
            let [one, other] = more.get_disjoint_mut(places).ok()?;
            Some((one.as_mut()?, other.as_mut()?))
        }
    }

    /// A node that is known to be there: its index came from this domain and nothing was freed since.
    #[inline]
    pub(crate) fn node(&mut self, index: Index) -> &mut Node {
        self.get_mut(index)
            .expect("the index names a live node of this domain")
    }

    /// The node of a domain that has never had another.
    #[inline(always)]
    pub(crate) fn lone(&mut self) -> Option<&mut Node> {
        match self.rare {
            None => self.first.as_mut(),
            Some(_) => None,
        }
    }

    /// Whether there is one node alone, or none.
    #[inline]
    pub(crate) fn is_lone(&self) -> bool {
        self.rare.as_ref().is_none_or(|rare| rare.more.is_empty())
    }

    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        match &self.rare {
            None => self
                .first
                .as_ref()
                .is_some_and(|node| node.queued.intersects(Steps::WORK)),
            Some(rare) => !rare.work.is_empty() || rare.late != NONE,
        }
    }

    /// Queues a step once. A transport's push goes last.
    #[inline]
    pub(crate) fn queue(&mut self, index: Index, step: Steps) {
        let Some(node) = self.get_mut(index) else {
            return;
        };
        if node.queued.contains(step) {
            return;
        }
        node.queued.insert(step);
        if step == Steps::PUSH && node.below == NONE {
            self.order_late(index);
        } else {
            self.order_last(index, step);
        }
    }

    /// Puts a step whose `queued` bit was just set behind the others: not the push of a transport.
    #[inline]
    pub(crate) fn order_last(&mut self, index: Index, step: Steps) {
        if let Some(rare) = &mut self.rare {
            rare.work.push_back(Item::new(index, step));
        }
    }

    /// As [`order_last`](Self::order_last), for the push of a transport.
    #[inline]
    pub(crate) fn order_late(&mut self, index: Index) {
        if let Some(rare) = &mut self.rare {
            if rare.late == NONE {
                rare.late = index;
            } else {
                rare.work.push_back(Item::new(index, Steps::PUSH));
            }
        }
    }

    /// The next step to take; its `queued` bit is cleared.
    ///
    /// A node that is alone needs no queue: its bits say all. It delivers, then reads, and sends at the end.
    #[inline(always)]
    pub(crate) fn next_step(&mut self) -> Option<(Index, Steps)> {
        if self.rare.is_some() {
            return self.next_of_many();
        }
        let node = self.first.as_mut()?;
        let step = node.queued.first_work()?;
        node.queued.remove(step);
        Some((0, step))
    }

    fn next_of_many(&mut self) -> Option<(Index, Steps)> {
        let rare = self.rare.as_mut()?;
        loop {
            let (index, step) = match rare.work.pop_front() {
                Some(item) => (item.index(), item.step()),
                None if rare.late != NONE => (std::mem::replace(&mut rare.late, NONE), Steps::PUSH),
                None => return None,
            };
            let node = match index.checked_sub(1) {
                None => self.first.as_mut(),
                Some(place) => rare.more.get_mut(place as usize).and_then(Option::as_mut),
            };
            // A freed node leaves its entries behind; a new node in its place has its own.
            if let Some(node) = node
                && node.queued.contains(step)
            {
                node.queued.remove(step);
                return Some((index, step));
            }
        }
    }
}

/// One queued step in 32 bits: the node's index and which step.
#[derive(Clone, Copy)]
struct Item(u32);

impl Item {
    fn new(index: Index, step: Steps) -> Self {
        Self(index << 3 | u32::from(step.bits()))
    }

    fn index(self) -> Index {
        self.0 >> 3
    }

    fn step(self) -> Steps {
        Steps::from_bits(self.0 as u8 & Steps::WORK.bits())
    }
}
