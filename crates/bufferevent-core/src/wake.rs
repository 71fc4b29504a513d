//! Who asks again: for each kind of change, one function that queues every step that it can make possible.
//!
//! | change | steps |
//! |---|---|
//! | bytes into an input | pull above, or deliver |
//! | bytes out of an input | pull here **and below** |
//! | bytes into an output | push here |
//! | bytes out of an output | push above, or deliver; the end mark here |
//! | a direction enabled, released, or its mark moved | pull here and below; push here and above |
//! | an end seen | pull above, or deliver |
//!
//! # Invariants
//! - No other file queues a step, and no function here looks further than one layer away (further would be
//!   quadratic in the depth of a stack), except for failures, which travel to the top once in a life.
//! - A step whose condition does not hold is not queued: the conditions are [`Core::wants_pull`] and
//!   [`Core::wants_push`], computed from the state as it stands. Only the pull of a transport that became ready is queued
//!   unasked: the step looks itself, and asking twice costs more than a step in vain.

use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::error::{Error, Kind};
use crate::event::Deadline;
use crate::handler::Interest;
use crate::node::{End, Flags, Index, Link, NONE, Node, Pending, Steps};
use crate::options::Options;

impl Core {
    /// Whether a pull of this node can move anything, or tell it of an end.
    #[inline]
    pub(crate) fn wants_pull(&self, index: Index) -> bool {
        self.get(index)
            .is_some_and(|node| !node.flags.contains(Flags::DRY) && self.takes(node))
    }

    /// Whether what a pull of this node brings has a place.
    #[inline(always)]
    pub(crate) fn takes(&self, node: &Node) -> bool {
        if node.read_end != End::Open {
            return false;
        }
        match self.get(node.above) {
            None => node.takes(),
            // What it needs for itself comes whether or not anybody above reads.
            Some(above) => {
                node.held_read.is_empty()
                    && (node.flags.contains(Flags::WANTS_READ)
                        || (above.takes() && node.input.len() < node.read_limit()))
            }
        }
    }

    /// Whether a push of this node can move anything.
    #[inline]
    pub(crate) fn wants_push(&self, index: Index) -> bool {
        self.get(index)
            .is_some_and(|node| node.wants_push_at_bottom() && self.has_room_below(node))
    }

    /// Whether what a push of this node sends has a place.
    #[inline]
    pub(crate) fn has_room_below(&self, node: &Node) -> bool {
        match self.get(node.below) {
            None => true,
            Some(below) => {
                below.write_end == End::Open
                    && (below.output.len() < below.write_mark.limit()
                        || node.flags.contains(Flags::OWES_FLUSH))
            }
        }
    }

    /// Queues a pull if it can move anything. Usually there is nothing to be had, and no more is looked at.
    #[inline]
    pub(crate) fn queue_pull(&mut self, index: Index) {
        if index != NONE
            && let Some(node) = self.get(index)
            && !node.flags.contains(Flags::DRY)
            && !node.queued.contains(Steps::PULL)
        {
            self.queue_pull_that_has_room(index);
        }
    }

    #[inline(never)]
    fn queue_pull_that_has_room(&mut self, index: Index) {
        if self.get(index).is_some_and(|node| self.takes(node)) {
            self.queue(index, Steps::PULL);
        }
    }

    /// Queues a push if it can move anything. Usually there is nothing to be sent, and no more is looked at.
    #[inline]
    pub(crate) fn queue_push(&mut self, index: Index) {
        if index != NONE
            && let Some(node) = self.get(index)
            && node.wants_push_at_bottom()
            && !node.queued.contains(Steps::PUSH)
        {
            self.queue_push_that_has_room(index);
        }
    }

    #[inline(never)]
    fn queue_push_that_has_room(&mut self, index: Index) {
        if self
            .get(index)
            .is_some_and(|node| self.has_room_below(node))
        {
            self.queue(index, Steps::PUSH);
        }
    }

    /// Queues a delivery if the handler is to be told anything.
    #[inline]
    pub(crate) fn queue_deliver(&mut self, index: Index) {
        let Some(node) = self.get(index) else { return };
        if node.covered() || node.deliverable().is_empty() {
            return;
        }
        // A deferred delivery that is scheduled takes along what arises until then: no callback overtakes another.
        if node.options.contains(Options::DEFER_CALLBACKS) || node.queued.contains(Steps::DEFERRED)
        {
            self.queue_deferred(index);
        } else {
            self.queue(index, Steps::DELIVER);
        }
    }

    /// Schedules a delivery from the loop's deferred queue, once.
    pub(crate) fn queue_deferred(&mut self, index: Index) {
        let node = self.node(index);
        if node.queued.contains(Steps::DEFERRED) {
            return;
        }
        node.queued.insert(Steps::DEFERRED);
        self.schedule_deferred(index);
    }

    /// Something is to be told: remembers it, and has it told if somebody listens.
    pub(crate) fn tell(&mut self, index: Index, what: Pending) {
        self.node(index).pending.insert(what);
        self.queue_deliver(index);
    }

    /// Tells of bytes that the handler has not heard of, if the mark is reached.
    #[inline(always)]
    pub(crate) fn tell_read(&mut self, index: Index) {
        let node = self.node(index);
        if !node.heard.contains(Pending::READ) || !node.read_due() || node.covered() {
            return;
        }
        node.pending.insert(Pending::READ);
        if node.options.contains(Options::DEFER_CALLBACKS) {
            return self.queue_deferred(index);
        }
        if !node
            .queued
            .intersects(Steps::DELIVER.union(Steps::DEFERRED))
        {
            node.queued.insert(Steps::DELIVER);
            self.nodes.order_last(index, Steps::DELIVER);
        }
    }

    /// As [`tell_read`](Self::tell_read), for bytes that came earlier: not while the user has reading disabled. What an end has
    /// disabled is another matter.
    pub(crate) fn tell_unread(&mut self, index: Index) {
        let node = self.node(index);
        if node.enabled.contains(Directions::READ) || node.read_end != End::Open {
            self.tell_read(index);
        }
    }

    /// `count` bytes came into the input.
    #[inline(always)]
    pub(crate) fn gained_input(&mut self, index: Index, count: usize) {
        if count == 0 {
            return;
        }
        let node = self.nodes.node(index);
        node.bytes_read += count as u64;
        node.flags.insert(Flags::FRESH);
        let above = node.above;
        if node.extras.is_some() {
            self.moved(index, Direction::Read, count);
        }
        if above == NONE {
            self.tell_read(index);
        } else {
            self.node(above).flags.remove(Flags::DRY);
            self.queue_pull(above);
        }
    }

    /// `count` bytes left the input.
    #[inline(always)]
    pub(crate) fn lost_input(&mut self, index: Index, count: usize) {
        if count == 0 {
            return;
        }
        let node = self.nodes.node(index);
        let (below, above) = (node.below, node.above);
        let ended = node.read_end != End::Open && node.input.is_empty();
        if node.extras.is_some() {
            self.time_from_room(index, count);
        }
        self.queue_pull(index);
        self.queue_pull(below);
        if ended {
            self.queue_pull(above);
        }
    }

    /// `count` bytes left an input that may have been at its limit: its time begins again.
    #[inline(never)]
    fn time_from_room(&mut self, index: Index, count: usize) {
        let node = self.node(index);
        let limit = node.read_limit();
        let length = node.input.len();
        if length < limit && length + count >= limit {
            self.timer_started(index, Direction::Read);
        }
    }

    /// `count` bytes came into the output.
    #[inline(always)]
    pub(crate) fn gained_output(&mut self, index: Index, count: usize) {
        if count == 0 {
            return;
        }
        let mut node = self.nodes.node(index);
        if node.extras.is_some() || node.crosses_mark() {
            self.notice_output(index, count);
            node = self.nodes.node(index);
        }
        if node.below != NONE {
            return self.queue_push(index);
        }
        if node.wants_push_at_bottom() && !node.queued.contains(Steps::PUSH) {
            node.queued.insert(Steps::PUSH);
            self.nodes.order_late(index);
        }
    }

    /// Bytes came into an output that counts time, or has crossed its mark.
    #[inline(never)]
    fn notice_output(&mut self, index: Index, count: usize) {
        let node = self.node(index);
        if node.extras.is_some() && node.output.len() == count {
            self.timer_started(index, Direction::Write);
        }
        self.check_pressure(index);
    }

    /// `count` bytes left the output, towards the peer.
    #[inline(always)]
    pub(crate) fn lost_output(&mut self, index: Index, count: usize) {
        if count == 0 {
            return;
        }
        let node = self.nodes.node(index);
        node.bytes_written += count as u64;
        let above = node.above;
        let quiet = node.extras.is_none()
            && node.write_end == End::Open
            && !node.crosses_mark()
            && !node.may_end()
            && !(above == NONE && node.heard.contains(Pending::WRITE));
        // In a pair, the partner's life may hang on it.
        if !(quiet && (self.nodes.is_lone() || !self.is_marked())) {
            self.tell_lost_output(index, count);
        }
        self.queue_push(above);
    }

    /// As [`lost_output`](Self::lost_output), for an ordinary node that is alone.
    #[inline(always)]
    pub(crate) fn lost_lone_output(&mut self, count: usize) {
        let node = self.nodes.node(0);
        node.bytes_written += count as u64;
        if count > 0 && (node.heard.contains(Pending::WRITE) || node.crosses_mark()) {
            self.tell_lost_output(0, count);
        }
    }

    /// Bytes left an output, and somebody may want to know.
    #[inline(never)]
    fn tell_lost_output(&mut self, index: Index, count: usize) {
        let node = self.node(index);
        let empty = node.output.is_empty();
        let wanted = node.write_end == End::Wanted;
        let tells = node.above == NONE
            && node.heard.contains(Pending::WRITE)
            && node.output.len() <= node.write_mark.low();
        let crossed = node.crosses_mark();
        let may_end = node.may_end();
        if node.extras.is_some() {
            self.moved(index, Direction::Write, count);
        }
        if crossed {
            self.check_pressure(index);
        }
        if tells {
            self.tell_written(index);
        }
        if empty && wanted {
            self.queue_push(index);
        }
        if empty && (may_end || self.is_marked()) {
            self.emptied_output(index);
        }
    }

    /// Tells that enough was written: not before there is a connection, which a layer need not wait for to pass bytes down.
    fn tell_written(&mut self, index: Index) {
        let node = self.node(index);
        if node.below != NONE && node.link != Link::Open {
            node.flags.insert(Flags::START_WRITER);
        } else {
            self.tell(index, Pending::WRITE);
        }
    }

    /// The output crossed its high mark, in one way or the other: tells, once per crossing.
    pub(crate) fn check_pressure(&mut self, index: Index) {
        let node = self.node(index);
        if !node.crosses_mark() {
            return;
        }
        if node.flags.contains(Flags::FULL) {
            node.flags.remove(Flags::FULL);
        } else {
            node.flags.insert(Flags::FULL);
        }
        if node.interest.contains(Interest::PRESSURE) && !node.covered() {
            self.tell(index, Pending::PRESSURE);
        }
    }

    /// A direction was enabled, released, or its mark moved: all that this may make possible.
    pub(crate) fn opened(&mut self, index: Index, directions: Directions) {
        let (below, above) = {
            let node = self.node(index);
            (node.below, node.above)
        };
        if directions.contains(Directions::READ) {
            if self.node(index).extras.is_some() {
                self.timer_started(index, Direction::Read);
            }
            self.tell_unread(index);
            self.queue_pull(index);
            self.queue_pull(below);
        }
        if directions.contains(Directions::WRITE) {
            if self.node(index).extras.is_some() {
                self.timer_started(index, Direction::Write);
            }
            self.check_pressure(index);
            self.queue_push(index);
            self.queue_push(above);
        }
    }

    /// What a layer says it needs for itself changed.
    pub(crate) fn wants_changed(&mut self, index: Index) {
        let below = self.node(index).below;
        self.queue_pull(index);
        self.queue_pull(below);
        self.queue_push(index);
    }

    /// The transport may move again.
    #[inline(always)]
    pub(crate) fn became_ready(&mut self, index: Index, directions: Directions) {
        let node = self.node(index);
        if node.link == Link::Connecting {
            node.flags.remove(Flags::BLOCKED);
            self.queue(index, Steps::PUSH);
            return;
        }
        let blocked = node.flags.contains(Flags::BLOCKED);
        if directions.contains(Directions::READ) {
            node.flags.remove(Flags::DRY);
            // The step itself looks whether it is wanted.
            if !node.queued.contains(Steps::PULL) {
                node.queued.insert(Steps::PULL);
                self.nodes.order_last(index, Steps::PULL);
            }
        }
        // Not blocked: then whatever there is to send has its step already.
        if directions.contains(Directions::WRITE) && blocked {
            self.node(index).flags.remove(Flags::BLOCKED);
            self.queue_push(index);
        }
    }

    /// A connection was asked for, or, of a layer, its handshake.
    pub(crate) fn connect_begun(&mut self, index: Index) {
        let node = self.node(index);
        let news = node.link != Link::Connecting;
        node.link = Link::Connecting;
        let below = node.below;
        if below == NONE {
            // A read would take the error that tells why there is no connection.
            node.flags.insert(Flags::DRY);
        } else {
            node.flags.insert(Flags::SHAKES_HANDS);
        }
        self.timer_started(index, Direction::Write);
        if news {
            self.deadline_started_above(index, Deadline::Connect);
        }
        if self.get(below).is_some_and(|node| node.link == Link::Open) {
            self.deadline_started_above(index, Deadline::Handshake);
        }
    }

    /// A connection was asked for whose address has yet to be found.
    pub(crate) fn resolve_begun(&mut self, index: Index) {
        if self.node(index).flags.contains(Flags::RESOLVING) {
            return;
        }
        self.node(index).flags.insert(Flags::RESOLVING);
        self.connect_begun(index);
        self.deadline_started_above(index, Deadline::Resolve);
    }

    /// The connection stands.
    pub(crate) fn connected(&mut self, index: Index, told: bool) {
        let node = self.node(index);
        if node.link == Link::Open {
            return;
        }
        node.link = Link::Open;
        node.flags
            .remove(Flags::DRY.union(Flags::BLOCKED).union(Flags::RESOLVING));
        let starts = node.flags.contains(Flags::START_WRITER);
        node.flags.remove(Flags::START_WRITER);
        let above = node.above;
        self.opened(index, Directions::BOTH);
        self.deadline_started(index, Deadline::Idle);
        if above != NONE {
            self.deadline_started_above(above, Deadline::Handshake);
            self.node(above).flags.insert(Flags::BELOW_CONNECTED);
            self.queue(above, Steps::PULL);
            return;
        }
        if told {
            self.tell(index, Pending::CONNECTED);
        }
        if (starts || !told) && self.node(index).interest.contains(Interest::WRITE) {
            self.tell(index, Pending::WRITE);
        }
    }

    /// A layer was put on a bufferevent whose user had yet to be told that it is connected: who is on top now is told, unless the
    /// layer has a handshake of its own to tell of.
    pub(crate) fn hand_up_connected(&mut self, index: Index, generation: u32) {
        let Some(node) = self.find(index, generation) else {
            return;
        };
        let (below, link) = (node.below, node.link);
        let Some(below) = self.get_mut(below) else {
            return;
        };
        if below.pending.contains(Pending::CONNECTED) && link == Link::Open {
            below.pending.remove(Pending::CONNECTED);
            self.tell(index, Pending::CONNECTED);
        }
    }

    /// There is a transport now, connected, and nobody asked to be told: the layers on it stand as well, up to one that
    /// has a handshake of its own.
    pub(crate) fn connected_quietly(&mut self, index: Index) {
        let mut index = index;
        loop {
            let node = self.node(index);
            node.link = Link::Open;
            node.flags.remove(Flags::RESOLVING);
            let starts = node.flags.contains(Flags::START_WRITER);
            node.flags.remove(Flags::START_WRITER);
            let (above, below) = (node.above, node.below);
            if starts && above == NONE && below != NONE {
                self.tell(index, Pending::WRITE);
            }
            self.deadline_started(index, Deadline::Idle);
            match self.get(above).map(|node| node.link) {
                Some(Link::Idle) => index = above,
                Some(Link::Connecting) => {
                    return self.deadline_started_above(above, Deadline::Handshake);
                }
                Some(Link::Open) | None => return,
            }
        }
    }

    /// The input has ended behind its last byte: cleanly, or by `error`.
    pub(crate) fn ended_input(&mut self, index: Index, error: Option<Error>) {
        let node = self.node(index);
        if node.read_end != End::Open {
            return;
        }
        node.read_end = if error.is_some() {
            End::Failed
        } else {
            End::Done
        };
        if let Some(error) = error {
            node.extras().read_error = Some(error);
        }
        node.enabled.remove(Directions::READ);
        let above = node.above;
        self.deadline_started(index, Deadline::HalfClosed);
        if above != NONE {
            self.node(above).flags.remove(Flags::DRY);
        }
        if above == NONE {
            self.tell(index, Pending::READ_END);
            self.maybe_reap(index);
        } else {
            self.queue_pull(above);
        }
    }

    /// The end mark is out: what is below is to finish too, or all is written.
    pub(crate) fn ended_output(&mut self, index: Index) {
        let node = self.node(index);
        if node.write_end != End::Wanted {
            return;
        }
        node.write_end = End::Done;
        let below = node.below;
        let alone = node.flags.contains(Flags::ENDS_ALONE);
        self.deadline_started(index, Deadline::HalfClosed);
        if alone {
            self.tell(index, Pending::WRITTEN);
        } else if below == NONE {
            self.all_written(index);
        } else {
            self.want_end(below);
        }
    }

    /// The output is to end behind its last byte.
    pub(crate) fn want_end(&mut self, index: Index) {
        let node = self.node(index);
        let alone = node.flags.contains(Flags::ENDS_ALONE);
        // Who ended a layer alone, and now wants the whole stack to end.
        node.flags.remove(Flags::ENDS_ALONE);
        match node.write_end {
            End::Open => {
                node.write_end = End::Wanted;
                self.deadline_started(index, Deadline::Drain);
                self.queue_push(index);
            }
            End::Done if alone => {
                let below = node.below;
                self.want_end(below);
            }
            End::Wanted | End::Done | End::Failed => {}
        }
    }

    /// The transport has sent the end mark: tells the one on top, if the end came from there.
    fn all_written(&mut self, transport: Index) {
        let mut index = transport;
        while let Some(node) = self.get(index) {
            if node.write_end != End::Done {
                return;
            }
            if node.above == NONE {
                self.tell(index, Pending::WRITTEN);
                self.maybe_reap(index);
                return;
            }
            index = node.above;
        }
    }

    /// Nothing can be sent any more, here or above. Told on top.
    pub(crate) fn failed_output(&mut self, index: Index, error: &Error) {
        let mut index = index;
        // With the end mark out of the failing one all has been told. One above may have sent its own end mark, which fails here.
        let all_out = self.node(index).write_end == End::Done;
        loop {
            let node = self.node(index);
            let told = node.write_end == End::Failed || (node.write_end == End::Done && all_out);
            if told && node.above == NONE {
                return;
            }
            node.write_end = End::Failed;
            node.enabled.remove(Directions::WRITE);
            node.extras().write_error = Some(error.clone());
            let above = node.above;
            self.deadline_started(index, Deadline::HalfClosed);
            if above == NONE {
                break;
            }
            index = above;
        }
        self.tell(index, Pending::WRITE_END);
        self.maybe_reap(index);
    }

    /// There will be no connection: both directions fail, here and above, with one event.
    pub(crate) fn failed_connect(&mut self, index: Index, error: &Error) {
        let mut index = index;
        loop {
            let node = self.node(index);
            node.link = Link::Idle;
            node.flags.remove(Flags::RESOLVING);
            node.read_end = End::Failed;
            node.write_end = End::Failed;
            node.enabled = Directions::EMPTY;
            let extras = node.extras();
            extras.read_error = Some(error.clone());
            extras.connect_failed = true;
            if node.above == NONE {
                break;
            }
            index = node.above;
        }
        self.tell(index, Pending::READ_END);
        self.maybe_reap(index);
    }

    /// The bufferevent below was freed by hand.
    pub(crate) fn lost_below(&mut self, index: Index) {
        let error = Error::new(Kind::Freed, self.node(index).name(), "underlying");
        self.node(index).below = NONE;
        self.failed_output(index, &error);
        self.ended_input(index, Some(error));
    }
}

impl Node {
    /// Whether what comes in concerns nobody but its own handler, who hears of it in the run of the pump that is on.
    #[inline(always)]
    pub(crate) fn notices_by_itself(&self) -> bool {
        self.is_ordinary() && !self.options.contains(Options::DEFER_CALLBACKS)
    }

    /// As [`Core::gained_input`], for a node that is alone and [notices by itself](Self::notices_by_itself).
    #[inline(always)]
    pub(crate) fn gained_lone_input(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.bytes_read += count as u64;
        self.flags.insert(Flags::FRESH);
        if self.heard.contains(Pending::READ) && self.read_due() {
            self.pending.insert(Pending::READ);
            if !self.queued.contains(Steps::DEFERRED) {
                self.queued.insert(Steps::DELIVER);
            }
        }
    }

    /// All of the input of an ordinary node that is alone, and whose handler runs, went to its output. Answers whether that crossed
    /// the output's high mark.
    #[inline(always)]
    pub(crate) fn turned_around(&mut self) -> bool {
        if !self.flags.contains(Flags::DRY) {
            self.queued.insert(Steps::PULL);
        }
        if !self.flags.contains(Flags::BLOCKED) && !self.output.is_empty() {
            self.queued.insert(Steps::PUSH);
        }
        self.crosses_mark()
    }
}
