//! Rate limits: how much a bufferevent may move now, by its own bucket and its group's, and who lets it go on.
//!
//! A limit counts what passes the buffers of the bufferevent that it is set on: on the top of a TLS stack plaintext, on the bottom
//! ciphertext. The pump asks before each step ([`Core::may_bring`], [`Core::may_send`]) and offers a type no more than that; what
//! moved is charged where it is counted anyway.
//!
//! # Invariants
//! - Nothing is asked, and nothing stored, of a bufferevent without limits but whether it has any.
//! - A direction is held up ([`Reasons::RATE`]) only when it has something to move and may not, and then the timer is armed for when
//!   it may. So a limit that is not reached costs no timer, and no suspended direction is forgotten.
//! - What a type moved beyond what the rate has brought is a debt, and repaid first. It is offered more than that only where it takes nothing
//!   of less, and then less than twice what it takes.
//! - A member of a group holds a grant only while a step is queued that can use it.
//! - An end mark behind the last byte costs nothing. It is not emitted before that byte was let through.

use evreactor_core::Moment;

use crate::bev::Bev;
use crate::core::Core;
use crate::direction::{Direction, Directions, Reasons};
use crate::domain::Call;
use crate::error::{Error, Kind};
use crate::group::{Member, RateGroup};
use crate::node::{Index, Link, Node, Steps};
use crate::rate::{Bucket, Rate};

/// A bufferevent's limits.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) read: Option<Bucket>,
    pub(crate) write: Option<Bucket>,
    pub(crate) member: Option<Member>,
    /// What a layer is offered of its output at least, though the rate has not brought as much: it has taken nothing of less. 0: no such
    /// thing is known.
    least: usize,
    /// What it was offered last, where there was more.
    offered: usize,
}

impl Limits {
    fn bucket(&mut self, direction: Direction) -> &mut Option<Bucket> {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn is_empty(&self) -> bool {
        self.read.is_none() && self.write.is_none() && self.member.is_none()
    }

    /// What may move now, in bytes. A member of a group stands in line from here on if it is nothing.
    fn allowed(&mut self, direction: Direction, now: Moment) -> usize {
        let own = match self.bucket(direction) {
            None => usize::MAX,
            Some(bucket) => {
                bucket.advance(now);
                bytes(bucket.level())
            }
        };
        match &self.member {
            Some(member) if own > 0 => own.min(member.ask(direction)),
            Some(_) | None => own,
        }
    }

    /// When a direction that may not move now is to be looked at again.
    fn due(&mut self, direction: Direction, now: Moment) -> Moment {
        if let Some(bucket) = self.bucket(direction)
            && bucket.level() <= 0
        {
            return bucket.due(1);
        }
        match &self.member {
            Some(member) => now + member.wait(direction),
            None => now,
        }
    }
}

/// A level as bytes that may move.
fn bytes(level: i64) -> usize {
    usize::try_from(level.max(0)).unwrap_or(usize::MAX)
}

/// What one step of a layer may take of its own output.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    /// Bytes.
    pub(crate) allowed: usize,
    /// There is more than that.
    pub(crate) cut: bool,
}

impl Offer {
    /// No limit.
    pub(crate) const ALL: Self = Self {
        allowed: usize::MAX,
        cut: false,
    };
}

impl Node {
    fn limits(&mut self) -> Option<&mut Limits> {
        self.extras.as_mut()?.limits.as_deref_mut()
    }

    fn held(&self, direction: Direction) -> Reasons {
        match direction {
            Direction::Read => self.held_read,
            Direction::Write => self.held_write,
        }
    }

    /// Whether what waits in the output leaves by itself: at once, or when its rate lets it.
    pub(crate) fn will_give(&self) -> bool {
        self.enabled.contains(Directions::WRITE)
            && self.held_write.without(Reasons::RATE).is_empty()
    }
}

impl Core {
    fn is_limited(&self, index: Index) -> bool {
        self.get(index)
            .and_then(|node| node.extras.as_ref())
            .is_some_and(|extras| extras.limits.is_some())
    }

    fn allowed(&mut self, index: Index, direction: Direction) -> usize {
        if !self.is_limited(index) {
            return usize::MAX;
        }
        let now = self.host().now();
        let limits = self.node(index).limits();
        limits.map_or(usize::MAX, |limits| limits.allowed(direction, now))
    }

    /// How many bytes may come into the input in one step. With 0, reading is held up until it may be more.
    #[inline(never)]
    pub(crate) fn may_bring(&mut self, index: Index) -> usize {
        let Some(node) = self.get(index) else {
            return 0;
        };
        // What the layer reads for itself is not counted: it does not come into the input.
        if !node.enabled.contains(Directions::READ) || !node.held_read.is_empty() {
            return usize::MAX;
        }
        let allowed = self.allowed(index, Direction::Read);
        if allowed == 0 {
            self.hold_up(index, Direction::Read);
        }
        allowed
    }

    /// How many bytes may leave the output in one step. With 0, writing is held up until it may be more.
    #[inline(never)]
    pub(crate) fn may_send(&mut self, index: Index) -> Offer {
        let Some(node) = self.get(index) else {
            return Offer::ALL;
        };
        let length = node.output.len();
        if length == 0 || !node.gives() {
            return Offer::ALL;
        }
        let allowed = self.allowed(index, Direction::Write);
        if allowed == 0 {
            self.hold_up(index, Direction::Write);
        } else if allowed < length
            && let Some(limits) = self.node(index).limits()
        {
            let allowed = allowed.max(limits.least);
            limits.offered = allowed;
            return Offer {
                allowed,
                cut: allowed < length,
            };
        }
        Offer {
            allowed,
            cut: allowed < length,
        }
    }

    fn hold_up(&mut self, index: Index, direction: Direction) {
        self.hold(index, direction.into(), Reasons::RATE, true);
        self.arm(index);
    }

    /// Bytes moved: they are counted, and the times of those who wait for them start again.
    pub(crate) fn moved(&mut self, index: Index, direction: Direction, count: usize) {
        self.timer_progress(index, direction);
        let Some(limits) = self.node(index).limits() else {
            return;
        };
        if direction == Direction::Write {
            limits.least = 0;
        }
        if let Some(bucket) = limits.bucket(direction) {
            bucket.charge(i64::try_from(count).unwrap_or(i64::MAX));
        }
        if let Some(member) = &limits.member {
            member.moved(direction, count);
        }
    }

    /// A step is over in which `moved` bytes passed a bufferevent that may be limited. What the limit left behind is asked for
    /// again, and what it granted for nothing is given back.
    #[inline(never)]
    pub(crate) fn step_over(&mut self, index: Index, direction: Direction, moved: usize) {
        if !self.is_limited(index) {
            return;
        }
        match direction {
            _ if moved == 0 => {}
            Direction::Read => self.queue_pull(index),
            Direction::Write => self.queue_push(index),
        }
        self.give_back(index, direction);
    }

    /// A layer took nothing of the part that it was offered: the next time it is offered twice as much, until it takes something. So it
    /// gets the least that it can use (a block, say) and less than that again, and owes for it: not all that waits.
    pub(crate) fn starved(&mut self, index: Index) {
        // A handshake takes nothing of the user's, however much it is offered.
        let node = self.node(index);
        if node.link == Link::Open
            && node.gives()
            && let Some(limits) = node.limits()
        {
            limits.least = limits.offered.saturating_mul(2);
            self.hold_up(index, Direction::Write);
        }
    }

    fn give_back(&mut self, index: Index, direction: Direction) {
        let step = match direction {
            Direction::Read => Steps::PULL,
            Direction::Write => Steps::PUSH,
        };
        let node = self.node(index);
        if !node.queued.contains(step)
            && let Some(limits) = node.limits()
            && let Some(member) = &limits.member
        {
            member.release(direction);
        }
    }

    /// When a direction that is held up by its rate is to be looked at again.
    pub(crate) fn rate_due(&mut self, index: Index) -> Option<Moment> {
        if !self.is_limited(index) {
            return None;
        }
        let now = self.host().now();
        let node = self.node(index);
        let held = [Direction::Read, Direction::Write].map(|direction| {
            node.held(direction)
                .contains(Reasons::RATE)
                .then_some(direction)
        });
        let limits = node.limits()?;
        held.into_iter()
            .flatten()
            .map(|direction| limits.due(direction, now))
            .min()
    }

    /// A rate may let go of what it holds up: looks, and has it go on.
    pub(crate) fn refilled(&mut self, index: Index) {
        for direction in [Direction::Read, Direction::Write] {
            let held = self
                .get(index)
                .is_some_and(|node| node.held(direction).contains(Reasons::RATE));
            if held && self.allowed(index, direction) > 0 {
                self.hold(index, direction.into(), Reasons::RATE, false);
                self.give_back(index, direction);
            }
        }
        self.arm(index);
    }

    /// Changes the limits, and looks what is possible with the new ones.
    fn change_limits(&mut self, index: Index, change: impl FnOnce(&mut Limits)) {
        let extras = self.node(index).extras();
        let mut limits = extras.limits.take().unwrap_or_default();
        change(&mut limits);
        if !limits.is_empty() {
            extras.limits = Some(limits);
        }
        self.refilled(index);
    }
}

/// Rate limits.
impl Bev {
    /// Limits how many bytes move in a direction; `None` lifts the limit. Works on every type, and on any layer of a
    /// stack: it counts what passes this bufferevent's own buffers. A new limit starts with one tick's bytes.
    ///
    /// What may not move yet waits: the direction is suspended ([`Reasons::RATE`]) and goes on by itself, its timeout does not count
    /// meanwhile. When a limit is changed, what the old one has brought stays, up to the new burst, and so does a debt. A
    /// flush, a finish and a graceful close keep to the limit too.
    ///
    /// ```
    /// # use bufferevent_core::{Bev, Direction, Error, Rate};
    /// /// Sends at most 64 KiB a second, and not more than 16 KiB at once.
    /// fn slow_down(bev: &Bev) -> Result<(), Error> {
    ///     let rate = Rate::per_second(64 * 1024)?.with_burst(16 * 1024)?;
    ///     bev.set_rate_limit(Direction::Write, Some(rate))
    /// }
    /// # let _ = slow_down;
    /// ```
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_rate_limit")]
    pub fn set_rate_limit(&self, direction: Direction, rate: Option<Rate>) -> Result<(), Error> {
        self.told_on("set_rate_limit", move |core, index| {
            let now = core.host().now();
            core.change_limits(index, |limits| match (limits.bucket(direction), rate) {
                (Some(bucket), Some(rate)) => bucket.set_rate(rate, now),
                (bucket, rate) => *bucket = rate.map(|rate| Bucket::new(rate, now)),
            });
            Ok(())
        })
    }

    /// A direction's own limit, if it has one.
    #[doc(alias = "bufferevent_get_token_bucket_cfg")]
    #[must_use]
    pub fn rate_limit(&self, direction: Direction) -> Option<Rate> {
        self.bucket(direction).map(|bucket| bucket.rate())
    }

    /// How many bytes a direction's own limit lets pass now; below zero, what has to be repaid first. `None` without a limit.
    #[doc(alias = "bufferevent_get_read_limit")]
    #[doc(alias = "bufferevent_get_write_limit")]
    #[must_use]
    pub fn rate_level(&self, direction: Direction) -> Option<i64> {
        let now = self.host().now();
        let mut bucket = self.bucket(direction)?;
        bucket.advance(now);
        Some(bucket.level())
    }

    fn bucket(&self, direction: Direction) -> Option<Bucket> {
        self.peek(
            |node| {
                let limits = node.extras.as_ref()?.limits.as_ref()?;
                match direction {
                    Direction::Read => limits.read,
                    Direction::Write => limits.write,
                }
            },
            |published| published.rates(|rates| rates.bucket(direction)),
        )
        .flatten()
    }

    /// Charges a direction's own limit for bytes that moved elsewhere; a negative number gives some back, up to the burst.
    ///
    /// # Errors
    /// [`Kind::Misuse`] without a limit; [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_decrement_read_limit")]
    #[doc(alias = "bufferevent_decrement_write_limit")]
    pub fn charge_rate_limit(&self, direction: Direction, bytes: i64) -> Result<(), Error> {
        const OPERATION: &str = "charge_rate_limit";
        self.on(OPERATION, |core, index| {
            let now = core.host().now();
            let node = core.node(index);
            let name = node.name();
            let bucket = node
                .limits()
                .and_then(|limits| limits.bucket(direction).as_mut());
            let bucket = bucket.ok_or_else(|| Error::new(Kind::Misuse, name, OPERATION))?;
            bucket.advance(now);
            bucket.charge(bytes);
            core.refilled(index);
            Ok(())
        })
    }

    /// How many bytes may move in a direction now, by its own limit, its group's and what is moved in one turn of the loop at most.
    #[doc(alias = "bufferevent_get_max_to_read")]
    #[doc(alias = "bufferevent_get_max_to_write")]
    #[must_use]
    pub fn may_move(&self, direction: Direction) -> usize {
        let own = self.rate_level(direction).map_or(usize::MAX, bytes);
        self.peek(
            |node| {
                let single = match direction {
                    Direction::Read => node.max_single_read(),
                    Direction::Write => node.max_single_write(),
                };
                let limits = node
                    .extras
                    .as_ref()
                    .and_then(|extras| extras.limits.as_ref());
                let member = limits.and_then(|limits| limits.member.as_ref());
                let group = member.map_or(usize::MAX, |member| member.peek(direction));
                single.min(own).min(group)
            },
            |published| {
                let group = published.rates(|rates| Some(rates.share(direction)));
                let single = published.max_single(direction);
                single.min(own).min(group.unwrap_or(usize::MAX))
            },
        )
        .unwrap_or(0)
    }

    /// Has this bufferevent share the rates of `group`, and leave the group that it was in. Its own limits hold besides.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_add_to_rate_limit_group")]
    pub fn join_rate_group(&self, group: &RateGroup) -> Result<(), Error> {
        self.change_member("join_rate_group", Some(group))
    }

    /// Has this bufferevent leave its group, if it is in one.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_remove_from_rate_limit_group")]
    pub fn leave_rate_group(&self) -> Result<(), Error> {
        self.change_member("leave_rate_group", None)
    }

    /// The group that it is in.
    #[must_use]
    pub fn rate_group(&self) -> Option<RateGroup> {
        self.peek(
            |node| {
                let limits = node.extras.as_ref()?.limits.as_ref()?;
                limits.member.as_ref().map(|member| member.group().clone())
            },
            |published| published.rates(|rates| rates.group.clone()),
        )
        .flatten()
    }

    fn change_member(
        &self,
        operation: &'static str,
        group: Option<&RateGroup>,
    ) -> Result<(), Error> {
        let left = self.on(operation, |core, index| {
            let key = core.key_of(index, Call::Refilled);
            let member = group
                .zip(key)
                .map(|(group, (domain, key))| group.seat(domain, key));
            let mut left = None;
            core.change_limits(index, |limits| {
                left = std::mem::replace(&mut limits.member, member);
            });
            Ok(left)
        })?;
        // Its last handle may be in it: dropped with nothing borrowed.
        drop(left);
        Ok(())
    }
}
