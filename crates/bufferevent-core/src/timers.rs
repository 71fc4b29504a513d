//! Deadlines of a bufferevent, all of them on one lazily armed timer.
//!
//! Progress stores a time and nothing else. The one timer of a bufferevent is armed for the earliest deadline that was
//! known when it was armed; when it fires, the deadlines are computed from what was stored since, and either one
//! has passed or the timer is armed again. So a busy connection touches the loop's timers once per timeout, not once per message.
//!
//! # Invariants
//! - A deadline counts only while [`Core::counts`] says so; whatever may make it count starts its time and sees to the timer.
//! - No deadline passes before its time; the timer is never later than the earliest one that counts.
//! - A deadline of something that happens once (a connection, a drain) passes once, until that begins anew.
//! - The timer is that of a rate limit too, which holds a direction up until it fires: see `limits.rs`.
//! - What is below belongs to a stack: a deadline of connecting or draining, set at any layer, is that of all from there down.
//!
//! Source: libevent `bufferevent.c`, `bufferevent_generic_adj_timeouts_`.

use std::time::Duration;

use evreactor_core::{Moment, TimerKey};

use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::domain::Call;
use crate::event::Deadline;
use crate::node::{End, Flags, Index, Link, Node, Pending};
use crate::set::set;

set! {
    /// A set of deadlines; each has the bit of its place in [`Deadline::ALL`].
    struct Which(u16) {}
}

impl Which {
    fn of(deadline: Deadline) -> Self {
        Self(1 << deadline.place())
    }
}

impl Deadline {
    /// All of them, in the order in which they are told.
    pub(crate) const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Idle,
        Self::Resolve,
        Self::Connect,
        Self::Handshake,
        Self::HalfClosed,
        Self::Drain,
        Self::Close,
    ];

    /// Where it stands in [`Deadline::ALL`].
    pub(crate) const fn place(self) -> usize {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Idle => 2,
            Self::Resolve => 3,
            Self::Connect => 4,
            Self::Handshake => 5,
            Self::HalfClosed => 6,
            Self::Drain => 7,
            Self::Close => 8,
        }
    }

    /// What is told of it.
    fn pending(self) -> Pending {
        match self {
            Self::Read => Pending::TIMEOUT_READ,
            Self::Write => Pending::TIMEOUT_WRITE,
            Self::Idle
            | Self::Resolve
            | Self::Connect
            | Self::Handshake
            | Self::HalfClosed
            | Self::Drain
            | Self::Close => Pending::TIMEOUT,
        }
    }
}

/// One deadline's time.
#[derive(Clone, Copy, Default)]
struct Span {
    /// From when it counts.
    since: Moment,
    /// How long it lasts, in nanoseconds: 584 years at most.
    nanos: u64,
}

/// A bufferevent's deadlines.
#[derive(Default)]
pub(crate) struct Timers {
    spans: [Span; Deadline::ALL.len()],
    /// Those that are set.
    set: Which,
    /// Those that passed, of what happens once.
    over: Which,
    /// Those that passed and have yet to be told.
    passed: Which,
    armed: Option<(TimerKey, Moment)>,
}

impl Timers {
    fn has(&self, deadline: Deadline) -> bool {
        self.set.contains(Which::of(deadline))
    }

    /// How long a deadline lasts, if it is set.
    pub(crate) fn get(&self, deadline: Deadline) -> Option<Duration> {
        self.has(deadline)
            .then(|| Duration::from_nanos(self.spans[deadline.place()].nanos))
    }

    fn put(&mut self, deadline: Deadline, span: Option<Duration>) {
        let which = Which::of(deadline);
        self.over.remove(which);
        match span {
            None => self.set.remove(which),
            Some(span) => {
                self.set.insert(which);
                let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
                self.spans[deadline.place()].nanos = nanos;
            }
        }
    }

    fn start(&mut self, deadline: Deadline, now: Moment) {
        self.spans[deadline.place()].since = now;
    }

    /// When a deadline that counts passes.
    fn due(&self, deadline: Deadline) -> Option<Moment> {
        let span = self.spans[deadline.place()];
        let lives = self.has(deadline) && !self.over.contains(Which::of(deadline));
        lives.then(|| span.since + Duration::from_nanos(span.nanos))
    }

    /// The first deadline that has passed and was not told, and whether there are more.
    pub(crate) fn take_passed(&mut self) -> Option<(Deadline, bool)> {
        let of = |deadline: &Deadline| Which::of(*deadline);
        let first = Deadline::ALL
            .into_iter()
            .find(|deadline| self.passed.contains(of(deadline)))?;
        self.passed.remove(of(&first));
        Some((first, !self.passed.is_empty()))
    }

    /// The timer to cancel when the bufferevent goes.
    pub(crate) fn take_armed(&mut self) -> Option<TimerKey> {
        self.armed.take().map(|(key, _)| key)
    }
}

/// How far a stack is from being connected.
#[derive(Clone, Copy, Default)]
struct Coming {
    /// The address of its transport is being looked up.
    resolving: bool,
    /// Something in it is not connected that is to be.
    connecting: bool,
    /// A layer shakes hands over one that is connected.
    shaking: bool,
}

impl Node {
    /// The direction's deadline.
    fn of_direction(direction: Direction) -> Deadline {
        match direction {
            Direction::Read => Deadline::Read,
            Direction::Write => Deadline::Write,
        }
    }

    fn has_deadlines(&self) -> bool {
        self.extras
            .as_ref()
            .is_some_and(|extras| !extras.timers.set.is_empty())
    }

    fn has_deadline(&self, deadline: Deadline) -> bool {
        self.extras
            .as_ref()
            .is_some_and(|extras| extras.timers.has(deadline))
    }

    /// Whether one direction has ended and the other goes on.
    fn is_half_closed(&self) -> bool {
        let over = |end: End| matches!(end, End::Done | End::Failed);
        self.link == Link::Open && over(self.read_end) != over(self.write_end)
    }

    /// Whether its output is to be all.
    fn is_draining(&self) -> bool {
        self.write_end != End::Open || self.flags.contains(Flags::FREE_WHEN_WRITTEN)
    }
}

impl Core {
    /// Sets or removes deadlines; their times start again.
    pub(crate) fn set_deadlines(
        &mut self,
        index: Index,
        deadlines: &[(Deadline, Option<Duration>)],
    ) {
        let now = self.host().now();
        let timers = &mut self.node(index).extras().timers;
        for (deadline, span) in deadlines {
            timers.put(*deadline, *span);
            timers.start(*deadline, now);
        }
        self.arm(index);
    }

    /// Bytes moved: the direction's time starts again, and those of both.
    pub(crate) fn timer_progress(&mut self, index: Index, direction: Direction) {
        if !self.node(index).has_deadlines() {
            return;
        }
        let now = self.host().now();
        let timers = &mut self.node(index).extras().timers;
        timers.start(Node::of_direction(direction), now);
        timers.start(Deadline::Idle, now);
        timers.start(Deadline::HalfClosed, now);
    }

    /// A direction may want to make progress from now on: its time starts, and the timer is armed for it.
    pub(crate) fn timer_started(&mut self, index: Index, direction: Direction) {
        if self.node(index).has_deadlines() {
            let now = self.host().now();
            let deadline = Node::of_direction(direction);
            self.node(index).extras().timers.start(deadline, now);
            self.arm(index);
        }
    }

    /// What a deadline is about has begun at this node: its time starts, and the timer is armed for it.
    pub(crate) fn deadline_started(&mut self, index: Index, deadline: Deadline) {
        if self.node(index).has_deadline(deadline) {
            let now = self.host().now();
            let timers = &mut self.node(index).extras().timers;
            timers.over.remove(Which::of(deadline));
            timers.start(deadline, now);
            self.arm(index);
        }
    }

    /// As [`deadline_started`](Self::deadline_started), for this node and all above it.
    pub(crate) fn deadline_started_above(&mut self, index: Index, deadline: Deadline) {
        let mut index = index;
        while let Some(node) = self.get(index) {
            let above = node.above;
            self.deadline_started(index, deadline);
            index = above;
        }
    }

    /// How far the stack from `index` down is from being connected.
    fn coming(&self, index: Index) -> Coming {
        let mut coming = Coming::default();
        let mut index = index;
        while let Some(node) = self.get(index) {
            let below = self.get(node.below);
            if node.link == Link::Connecting {
                coming.connecting = true;
                coming.resolving |= node.flags.contains(Flags::RESOLVING);
                coming.shaking |= below.is_some_and(|below| below.link == Link::Open);
            }
            index = node.below;
        }
        coming
    }

    /// Whether a deadline's time counts now.
    fn counts(&self, index: Index, deadline: Deadline) -> bool {
        let Some(node) = self.get(index) else {
            return false;
        };
        let ends = || node.read_end == End::Open || node.write_end == End::Open;
        match deadline {
            Deadline::Read => {
                node.link == Link::Open
                    && node.read_end == End::Open
                    && node.enabled.contains(Directions::READ)
                    && node.held_read.is_empty()
                    && node.input.len() < node.read_limit()
                    && self.get(node.above).is_none_or(|above| above.takes())
            }
            Deadline::Write => {
                node.write_end != End::Failed
                    && node.gives()
                    && (!node.output.is_empty() || node.link == Link::Connecting)
            }
            Deadline::Idle => node.link == Link::Open && ends(),
            Deadline::Resolve => self.coming(index).resolving,
            Deadline::Connect => self.coming(index).connecting,
            Deadline::Handshake => self.coming(index).shaking,
            Deadline::HalfClosed => node.is_half_closed(),
            Deadline::Drain => node.is_draining() && !self.all_sent(index),
            Deadline::Close => node.flags.contains(Flags::CLOSING),
        }
    }

    /// When a deadline passes, if it counts.
    fn due(&self, index: Index, deadline: Deadline) -> Option<Moment> {
        let due = self.get(index)?.extras.as_ref()?.timers.due(deadline)?;
        self.counts(index, deadline).then_some(due)
    }

    /// Sees to it that the timer fires no later than the earliest deadline that counts.
    pub(crate) fn arm(&mut self, index: Index) {
        let due = Deadline::ALL.map(|deadline| self.due(index, deadline));
        let rate = self.rate_due(index);
        let Some(due) = due.into_iter().flatten().chain(rate).min() else {
            return;
        };
        let armed = self.node(index).extras().timers.armed;
        if armed.is_some_and(|(_, at)| at <= due) {
            return;
        }
        let host = self.host();
        if let Some((key, _)) = armed
            && host.rearm(key, due)
        {
            self.node(index).extras().timers.armed = Some((key, due));
            return;
        }
        let Some((target, key)) = self.target(index, Call::Expired) else {
            return;
        };
        // A closed loop has no timers: nothing happens on it any more.
        let armed = host.arm(due, target, key).ok().map(|timer| (timer, due));
        self.node(index).extras().timers.armed = armed;
    }

    /// The timer fired: what has passed is told, and the timer is armed for the rest.
    pub(crate) fn timer_fired(&mut self, index: Index) {
        if self.node(index).extras.is_none() {
            return;
        }
        self.node(index).extras().timers.armed = None;
        let now = self.host().now();
        // Looked up before the first is told: one that passes does not keep another from being told.
        let passed = Deadline::ALL.map(|deadline| {
            let due = self.due(index, deadline)?;
            (due <= now).then_some(deadline)
        });
        for deadline in passed.into_iter().flatten() {
            self.deadline_passed(index, deadline, now);
        }
        self.refilled(index);
    }

    fn deadline_passed(&mut self, index: Index, deadline: Deadline, now: Moment) {
        let node = self.node(index);
        let timers = &mut node.extras().timers;
        match deadline {
            Deadline::Read => node.enabled.remove(Directions::READ),
            Deadline::Write => node.enabled.remove(Directions::WRITE),
            // Told again only after as long again.
            Deadline::Idle | Deadline::HalfClosed => timers.start(deadline, now),
            Deadline::Resolve | Deadline::Connect | Deadline::Handshake => {
                timers.over.insert(Which::of(deadline));
            }
            Deadline::Drain => {
                timers.over.insert(Which::of(deadline));
                node.enabled.remove(Directions::WRITE);
                // Whoever lives only for the rest of its output does no longer.
                if node
                    .flags
                    .intersects(Flags::FREE_WHEN_WRITTEN.union(Flags::CLOSING))
                {
                    node.flags.insert(Flags::CLOSED);
                }
            }
            Deadline::Close => {
                timers.over.insert(Which::of(deadline));
                node.flags.insert(Flags::CLOSED);
            }
        }
        let top = self.top_of(index);
        let what = deadline.pending();
        if what == Pending::TIMEOUT {
            let timers = &mut self.node(top).extras().timers;
            timers.passed.insert(Which::of(deadline));
        }
        self.tell(top, what);
        self.maybe_reap(top);
    }
}
