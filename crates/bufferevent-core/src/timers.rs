//! Deadlines of a bufferevent: read, write, idle, connect, close, on one lazily armed timer.
//!
//! Progress stores a time and nothing else. The one timer of a bufferevent is armed for the earliest deadline that was
//! known when it was armed; when it fires, the deadlines are computed from what was stored since, and either one
//! has passed or the timer is armed again. So a busy connection touches the loop's timers once per timeout, not once per message.
//!
//! # Invariants
//! - A direction's time counts only while it wants to make progress: [`Core::counts`].
//! - No deadline passes before its time; the timer is never later than the earliest one that counts.
//!
//! Source: libevent `bufferevent.c`, `bufferevent_generic_adj_timeouts_`.

use std::time::Duration;

use evreactor_core::{Moment, TimerKey};

use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::domain::Call;
use crate::event::Deadline;
use crate::node::{End, Flags, Index, Link, Pending};

/// A bufferevent's deadlines.
#[derive(Default)]
pub(crate) struct Timers {
    pub(crate) read: Option<Duration>,
    pub(crate) write: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) connect: Option<Duration>,
    pub(crate) close_at: Option<Moment>,
    read_since: Moment,
    write_since: Moment,
    idle_since: Moment,
    connect_since: Moment,
    armed: Option<(TimerKey, Moment)>,
}

impl Timers {
    fn any(&self) -> bool {
        self.read.is_some()
            || self.write.is_some()
            || self.idle.is_some()
            || self.connect.is_some()
            || self.close_at.is_some()
    }

    /// The timer to cancel when the bufferevent goes.
    pub(crate) fn take_armed(&mut self) -> Option<TimerKey> {
        self.armed.take().map(|(key, _)| key)
    }
}

impl Core {
    /// Bytes moved: the direction's time starts again.
    pub(crate) fn timer_progress(&mut self, index: Index, direction: Direction) {
        let now = match &self.node(index).extras {
            Some(extras) if extras.timers.any() => self.host().now(),
            _ => return,
        };
        let timers = &mut self.node(index).extras().timers;
        timers.idle_since = now;
        match direction {
            Direction::Read => timers.read_since = now,
            Direction::Write => timers.write_since = now,
        }
    }

    /// A direction may want to make progress from now on: its time starts, and the timer is armed for it.
    pub(crate) fn timer_started(&mut self, index: Index, direction: Direction) {
        let now = match &self.node(index).extras {
            Some(extras) if extras.timers.any() => self.host().now(),
            _ => return,
        };
        let timers = &mut self.node(index).extras().timers;
        match direction {
            Direction::Read => timers.read_since = now,
            Direction::Write => timers.write_since = now,
        }
        self.arm(index);
    }

    /// All times start again: the deadlines were set anew.
    pub(crate) fn timers_reset(&mut self, index: Index) {
        let now = self.host().now();
        let timers = &mut self.node(index).extras().timers;
        timers.read_since = now;
        timers.write_since = now;
        timers.idle_since = now;
        timers.connect_since = now;
        self.arm(index);
    }

    /// A connection was asked for.
    pub(crate) fn connect_started(&mut self, index: Index) {
        if self.node(index).extras.is_some() {
            let now = self.host().now();
            let timers = &mut self.node(index).extras().timers;
            timers.connect_since = now;
            timers.write_since = now;
            self.arm(index);
        }
    }

    /// Whether a direction's time counts: whether it wants to make progress.
    fn counts(&self, index: Index, direction: Direction) -> bool {
        let Some(node) = self.get(index) else {
            return false;
        };
        match direction {
            Direction::Read => {
                node.link == Link::Open
                    && node.read_end == End::Open
                    && node.enabled.contains(Directions::READ)
                    && node.held_read.is_empty()
                    && node.input.len() < node.read_limit()
                    && self.get(node.above).is_none_or(|above| above.takes())
            }
            Direction::Write => {
                node.write_end != End::Failed
                    && node.gives()
                    && (!node.output.is_empty() || node.link == Link::Connecting)
            }
        }
    }

    /// The deadlines that count, each with its time.
    fn deadlines(&self, index: Index) -> [(Deadline, Option<Moment>); 5] {
        let after = |since: Moment, span: Option<Duration>, counts: bool| {
            span.filter(|_| counts).map(|span| since + span)
        };
        let none = [
            Deadline::Read,
            Deadline::Write,
            Deadline::Idle,
            Deadline::Connect,
            Deadline::Close,
        ];
        let Some((node, timers)) = self
            .get(index)
            .and_then(|node| Some((node, &node.extras.as_ref()?.timers)))
        else {
            return none.map(|deadline| (deadline, None));
        };
        let reads = self.counts(index, Direction::Read);
        let writes = self.counts(index, Direction::Write);
        let connecting = node.link == Link::Connecting;
        let open =
            node.link == Link::Open && (node.read_end == End::Open || node.write_end == End::Open);
        [
            (Deadline::Read, after(timers.read_since, timers.read, reads)),
            (
                Deadline::Write,
                after(timers.write_since, timers.write, writes),
            ),
            (Deadline::Idle, after(timers.idle_since, timers.idle, open)),
            (
                Deadline::Connect,
                after(timers.connect_since, timers.connect, connecting),
            ),
            (
                Deadline::Close,
                timers
                    .close_at
                    .filter(|_| !node.flags.contains(Flags::CLOSED)),
            ),
        ]
    }

    /// Sees to it that the timer fires no later than the earliest deadline that counts.
    pub(crate) fn arm(&mut self, index: Index) {
        let Some(due) = self.deadlines(index).iter().filter_map(|(_, at)| *at).min() else {
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
        for (deadline, at) in self.deadlines(index) {
            if at.is_some_and(|at| at <= now) {
                self.deadline_passed(index, deadline);
            }
        }
        self.arm(index);
    }

    fn deadline_passed(&mut self, index: Index, deadline: Deadline) {
        let now = self.host().now();
        let node = self.node(index);
        let what = match deadline {
            Deadline::Read => {
                node.enabled.remove(Directions::READ);
                Pending::TIMEOUT_READ
            }
            Deadline::Write => {
                node.enabled.remove(Directions::WRITE);
                Pending::TIMEOUT_WRITE
            }
            Deadline::Idle => {
                // Told again only after as long again.
                node.extras().timers.idle_since = now;
                Pending::TIMEOUT_IDLE
            }
            Deadline::Connect => {
                node.extras().timers.connect = None;
                Pending::TIMEOUT_CONNECT
            }
            Deadline::Close => {
                node.flags.insert(Flags::CLOSED);
                Pending::TIMEOUT_CLOSE
            }
        };
        let top = self.top_of(index);
        self.tell(top, what);
        self.maybe_reap(top);
    }
}
