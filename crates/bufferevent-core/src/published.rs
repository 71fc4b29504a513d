//! What of a THREADSAFE bufferevent can be seen without its lock.
//!
//! Its lengths, marks, enabled directions and the like are stored here whenever the lock is let go, and before each callback. Who asks while
//! another thread holds the lock gets these; nobody waits to look. So the operations under one lock are one to those who look, too.
//!
//! # Invariants
//! - Written under the domain's lock alone, except for `posted`, to which is added under that of the inbox.
//! - Before a handler of the domain is called, what it is called for stands here: whoever has heard from that handler, by whatever
//!   lock or channel, sees it. (Two relays that stop and start each other across loops rely on it.)
//! - Each value is right by itself; two of them may be of different moments.
//! - What a bufferevent is and stands on never changes: that needs no lock at all.

use std::any::{Any, TypeId};
use std::sync::OnceLock;
use std::time::Duration;

use evreactor_core::Priority;
use evreactor_core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use evreactor_core::sync::{Mutex, Weak};

use crate::bev::{Bev, Handle, Stats};
use crate::core::{Core, Facts};
use crate::direction::{Direction, Directions, Reasons};
use crate::event::Deadline;
use crate::group::RateGroup;
use crate::handler::Interest;
use crate::limits::Limits;
use crate::node::{End, Extras, Flags, Index, MAX_SINGLE, Node};
use crate::options::Options;
use crate::rate::Bucket;
use crate::resolve::ResolveError;
use crate::set::set;
use crate::tally::Tally;
use crate::watermark::Watermark;

set! {
    /// What is so, or not.
    pub(crate) struct Is(u8) {
        FREED = 1;
        COVERED = 2;
        /// The output stands at or above its high mark, as the handler was told or will be.
        FULL = 4;
        /// Nothing can be written any more.
        ENDED = 8;
    }
}

/// Not set.
const NEVER: u64 = u64::MAX;

/// How a limited bufferevent stands.
pub(crate) struct Rates {
    buckets: [Option<Bucket>; 2],
    /// What the group lets pass, in bytes.
    shares: [usize; 2],
    pub(crate) group: Option<RateGroup>,
}

impl Rates {
    fn of(limits: &Limits) -> Self {
        let member = limits.member.as_ref();
        let share = |direction| member.map_or(usize::MAX, |member| member.peek(direction));
        Self {
            buckets: [limits.read, limits.write],
            shares: [share(Direction::Read), share(Direction::Write)],
            group: member.map(|member| member.group().clone()),
        }
    }

    pub(crate) fn bucket(&self, direction: Direction) -> Option<Bucket> {
        self.buckets[direction as usize]
    }

    pub(crate) fn share(&self, direction: Direction) -> usize {
        self.shares[direction as usize]
    }
}

pub(crate) struct Published {
    /// The type of the layer.
    pub(crate) kind: TypeId,
    pub(crate) below: Weak<Handle>,
    /// Small sets, a byte each: see `pack`.
    facts: AtomicU64,
    input: AtomicUsize,
    output: AtomicUsize,
    /// Bytes that wait in the domain's inbox.
    pub(crate) posted: Tally,
    read_low: AtomicUsize,
    read_limit: AtomicUsize,
    write_low: AtomicUsize,
    write_limit: AtomicUsize,
    max_output: AtomicUsize,
    max_single_read: AtomicUsize,
    max_single_write: AtomicUsize,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    /// Nanoseconds.
    deadlines: [AtomicU64; Deadline::ALL.len()],
    resolve_error: OnceLock<ResolveError>,
    /// `None` without limits. A lock of its own, which is a leaf.
    rates: Mutex<Option<Box<Rates>>>,
}

impl Published {
    pub(crate) fn new(kind: TypeId, below: Weak<Handle>) -> Self {
        Self {
            kind,
            below,
            facts: AtomicU64::new(0),
            input: AtomicUsize::new(0),
            output: AtomicUsize::new(0),
            posted: Tally::new(),
            read_low: AtomicUsize::new(0),
            read_limit: AtomicUsize::new(usize::MAX),
            write_low: AtomicUsize::new(0),
            write_limit: AtomicUsize::new(usize::MAX),
            max_output: AtomicUsize::new(0),
            max_single_read: AtomicUsize::new(MAX_SINGLE),
            max_single_write: AtomicUsize::new(MAX_SINGLE),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            deadlines: std::array::from_fn(|_| AtomicU64::new(NEVER)),
            resolve_error: OnceLock::new(),
            rates: Mutex::new(None),
        }
    }

    /// Stores how the node stands.
    fn store(&self, node: &Node) {
        const R: Ordering = Ordering::Relaxed;
        self.facts.store(pack(node), R);
        self.input.store(node.input.len(), R);
        // Behind what was taken off the tally of what is posted: nobody sees the same bytes in both.
        self.output.store(node.output.len(), Ordering::Release);
        self.read_low.store(node.read_mark.low(), R);
        self.read_limit.store(node.read_mark.limit(), R);
        self.write_low.store(node.write_mark.low(), R);
        self.write_limit.store(node.write_mark.limit(), R);
        self.bytes_read.store(node.bytes_read, R);
        self.bytes_written.store(node.bytes_written, R);
        // Who has none never had any, and what was made with this stands.
        if let Some(extras) = node.extras.as_deref() {
            self.store_extras(node, extras);
        }
    }

    /// Stores what few bufferevents have.
    #[inline(never)]
    fn store_extras(&self, node: &Node, extras: &Extras) {
        const R: Ordering = Ordering::Relaxed;
        self.max_single_read.store(node.max_single_read(), R);
        self.max_single_write.store(node.max_single_write(), R);
        self.max_output.store(extras.max_output, R);
        for (place, deadline) in self.deadlines.iter().zip(Deadline::ALL) {
            let nanos = extras.timers.get(deadline).map_or(NEVER, |span| {
                u64::try_from(span.as_nanos()).unwrap_or(NEVER - 1)
            });
            place.store(nanos, R);
        }
        let rates = extras
            .limits
            .as_ref()
            .map(|limits| Box::new(Rates::of(limits)));
        let before = std::mem::replace(&mut *self.rates.lock(), rates);
        drop(before); // With the lock let go.
        if let Some(error) = node.resolve_error() {
            self.resolve_error.get_or_init(|| error.clone());
        }
    }

    /// The bufferevent is gone.
    pub(crate) fn freed(&self) {
        let facts = u64::from(Is::FREED.union(Is::ENDED).bits());
        self.facts.store(facts, Ordering::Relaxed);
        self.input.store(0, Ordering::Relaxed);
        self.output.store(0, Ordering::Relaxed);
        let rates = self.rates.lock().take();
        drop(rates);
    }

    fn byte(&self, place: u32) -> u8 {
        (self.facts.load(Ordering::Relaxed) >> (8 * place)) as u8
    }

    pub(crate) fn is(&self, what: Is) -> bool {
        Is::from_bits(self.byte(0)).intersects(what)
    }

    pub(crate) fn enabled(&self) -> Directions {
        Directions::from_bits(self.byte(1))
    }

    pub(crate) fn interest(&self) -> Interest {
        Interest::from_bits(self.byte(2))
    }

    pub(crate) fn options(&self) -> Options {
        Options::from_bits(self.byte(3))
    }

    pub(crate) fn held(&self, direction: Direction) -> Reasons {
        Reasons::from_bits(match direction {
            Direction::Read => self.byte(4),
            Direction::Write => self.byte(5),
        })
    }

    pub(crate) fn priority(&self) -> Priority {
        Priority(self.byte(6))
    }

    pub(crate) fn input(&self) -> usize {
        self.input.load(Ordering::Relaxed)
    }

    /// Without what is posted.
    pub(crate) fn output(&self) -> usize {
        self.output.load(Ordering::Acquire)
    }

    pub(crate) fn posted(&self) -> usize {
        self.posted.waiting()
    }

    /// How many bytes may still be added before the limit on the output.
    pub(crate) fn max_output_left(&self) -> usize {
        match self.max_output.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => limit.saturating_sub(self.output() + self.posted()),
        }
    }

    pub(crate) fn watermark(&self, direction: Direction) -> Watermark {
        let (low, limit) = match direction {
            Direction::Read => (&self.read_low, &self.read_limit),
            Direction::Write => (&self.write_low, &self.write_limit),
        };
        let limit = limit.load(Ordering::Relaxed);
        // They may be of two moments.
        let low = low.load(Ordering::Relaxed).min(limit);
        let high = if limit == usize::MAX { 0 } else { limit };
        Watermark::new(low, high).unwrap_or_default()
    }

    pub(crate) fn max_single(&self, direction: Direction) -> usize {
        match direction {
            Direction::Read => &self.max_single_read,
            Direction::Write => &self.max_single_write,
        }
        .load(Ordering::Relaxed)
    }

    pub(crate) fn deadline(&self, deadline: Deadline) -> Option<Duration> {
        let nanos = self.deadlines[deadline.place()].load(Ordering::Relaxed);
        (nanos != NEVER).then(|| Duration::from_nanos(nanos))
    }

    /// A look at the limits, if there are any.
    pub(crate) fn rates<R>(&self, look: impl FnOnce(&Rates) -> Option<R>) -> Option<R> {
        look(self.rates.lock().as_deref()?)
    }

    pub(crate) fn resolve_error(&self) -> Option<ResolveError> {
        self.resolve_error.get().cloned()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            read: self.bytes_read.load(Ordering::Relaxed),
            written: self.bytes_written.load(Ordering::Relaxed),
            input: self.input(),
            output: self.output(),
        }
    }
}

/// The small sets of a node, a byte each.
fn pack(node: &Node) -> u64 {
    let mut is = Is::EMPTY;
    if node.covered() {
        is.insert(Is::COVERED);
    }
    if node.flags.contains(Flags::FULL) {
        is.insert(Is::FULL);
    }
    if node.write_end != End::Open {
        is.insert(Is::ENDED);
    }
    u64::from_le_bytes([
        is.bits(),
        node.enabled.bits(),
        node.interest.bits(),
        node.options.bits(),
        node.held_read.bits(),
        node.held_write.bits(),
        node.priority().0,
        0,
    ])
}

impl Node {
    /// Why the host's name could not be looked up.
    pub(crate) fn resolve_error(&self) -> Option<&ResolveError> {
        let error = self.extras.as_ref()?.read_error.as_ref()?;
        error.resolve_error()
    }

    fn publish(&self) {
        self.with_published(|published| published.store(self));
    }

    /// It is taken out of the arena.
    pub(crate) fn publish_freed(&self) {
        self.with_published(Published::freed);
    }

    fn with_published(&self, store: impl FnOnce(&Published)) {
        match &self.me {
            Some(me) => {
                me.published().map(store);
            }
            // Out with the handler.
            None => {
                if let Some(handle) = self.own.upgrade() {
                    handle.published().map(store);
                }
            }
        }
    }
}

impl Core {
    /// What is to show how a node stands, whose handle is being made.
    pub(crate) fn to_publish(&self, index: Index) -> Published {
        let node = self.get(index);
        let layer = node.and_then(|node| node.layer.as_deref());
        let kind = layer.map_or(TypeId::of::<()>(), |layer| (layer as &dyn Any).type_id());
        let below = node.and_then(|node| self.get(node.below));
        let published = Published::new(kind, below.map_or(Weak::new(), |below| below.own.clone()));
        if let Some(node) = node {
            published.store(node);
        }
        published
    }

    /// Shows how the bufferevents of a THREADSAFE domain stand.
    #[inline(never)]
    pub(crate) fn publish(&self) {
        for index in self.indices() {
            if let Some(node) = self.get(index) {
                node.publish();
            }
        }
    }

    /// The lock is about to be let go: shows how all stands, unless it stays held further up.
    pub(crate) fn publish_when_let_go(&self) {
        if !self.running && !self.facts.contains(Facts::KEPT) {
            self.publish();
        }
    }

    /// A run of the pump is over: as [`publish_when_let_go`](Self::publish_when_let_go), where others may look.
    #[inline]
    pub(crate) fn publish_if_shared(&self) {
        if self.facts.contains(Facts::SHARED) {
            self.publish_when_let_go();
        }
    }

    /// A handler is about to be called, whose own handle is `me`.
    #[inline]
    pub(crate) fn publish_for(&self, me: &Bev) {
        let Some(published) = me.published() else {
            return;
        };
        // Its handle is out with its handler, and at hand here.
        let alone = self.nodes.is_lone();
        match self.find(me.0.index(), me.0.generation()) {
            Some(node) if alone => published.store(node),
            _ => self.publish(),
        }
    }
}
