//! Rate groups: bufferevents that share a rate, on any number of loops.
//!
//! The group's bucket is dealt out in shares. Who has something to move and finds nothing stands in line; what the ticks bring goes
//! to those in line, to the one that was served least first; what a member does not use at once goes back, to the next in line.
//! That is deficit round robin, but for where a member comes in again that has used its share: not behind whoever happened to be
//! faster, but where what it was served puts it (start-time fair queueing).
//!
//! ```text
//!              ask, nothing there               dealt a share
//!   (idle) ----------------------> in line ----------------------> has a grant
//!      ^   `-------------------- ask, something there ----------------^   |
//!      `--------------- has no step left to use it in -------------------'
//! ```
//!
//! # Invariants
//! - What the bucket holds and what is granted never exceed the burst together: the group moves no more in any span of time than its
//!   burst and what the ticks of that span bring.
//! - A member that moved more than it was granted repays that from its next shares, before it moves again. Nobody else pays for it.
//! - The lock is a leaf: it is held for no call of a loop, a domain, or anything of the user's, and a member asks with its own
//!   domain's lock held. So no two locks are ever taken in both orders.
//! - The group outlives its members' loops, and they its handles; a member that goes gives back what it held.
//!
//! # Why members have timers, and the group has none
//! A group belongs to no loop: one that closes must not stop the others. Each member in line has its own timer for the next tick;
//! whichever fires first deals for all.
//!
//! Source: libevent `bufferevent_ratelim.c`, `struct bufferevent_rate_limit_group`. Differences: a share is dealt and not guessed, so
//! that the rate holds exactly, and members that use little leave the rest to others.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use evreactor_core::sync::{Arc, Mutex, Weak};
use evreactor_core::{AsHost, Host, Moment, Phase, Target};

use crate::direction::Direction;
use crate::domain::Domain;
use crate::rate::{Bucket, Rate};

/// The least that a member is dealt unless the group says otherwise, in bytes; libevent's.
const MIN_SHARE: u64 = 64;

/// Bufferevents that share a rate in each direction, fairly. A handle: clones name the same group.
///
/// ```
/// use bufferevent_core::{Bev, Direction, Error, Rate, RateGroup};
/// # use evreactor_core::AsHost;
///
/// /// All clients together get a megabyte a second.
/// fn limit(events: &impl AsHost) -> Result<RateGroup, Error> {
///     let group = RateGroup::new(events);
///     group.set_rate(Direction::Write, Some(Rate::per_second(1_000_000)?));
///     Ok(group)
/// }
/// fn accepted(bev: &Bev, group: &RateGroup) -> Result<(), Error> {
///     bev.join_rate_group(group)
/// }
/// # let _ = accepted;
/// # let _ = |host: std::sync::Arc<dyn evreactor_core::Host>| limit(&host);
/// ```
///
/// Dropping the last handle lifts no limit: the group lasts as long as it has members.
#[derive(Clone)]
#[doc(alias = "bufferevent_rate_limit_group")]
#[doc(alias = "bufferevent_rate_limit_group_free")]
pub struct RateGroup(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    /// For its clock, which any thread may read.
    host: Arc<dyn Host>,
    state: Mutex<State>,
}

struct State {
    read: Side,
    write: Side,
    seats: Vec<Option<Seat>>,
    vacant: Vec<usize>,
    min_share: u64,
}

/// One direction of a group.
#[derive(Default)]
struct Side {
    /// What is not granted; `None` where there is no limit.
    bucket: Option<Bucket>,
    /// All grants above zero.
    granted: i64,
    /// Who is in line, by what they were served.
    line: BTreeSet<(u64, usize)>,
    /// What the last one that was dealt a share had been served before.
    served: u64,
    /// Bytes so far.
    total: u64,
    /// Ticks so far.
    ticks: u64,
    /// Members that moved something since the last tick, and in the one before it.
    active: usize,
    were_active: usize,
}

/// A member, as its group knows it.
struct Seat {
    domain: Weak<Domain>,
    /// What the domain is called back with.
    key: u64,
    read: Turn,
    write: Turn,
}

/// How a member stands in one direction.
#[derive(Default)]
struct Turn {
    /// Bytes that it may move; below zero, what it owes.
    grant: i64,
    /// Bytes that it was served. Who comes in anew is level with whoever was served last: nobody saves up by staying away.
    served: u64,
    in_line: bool,
    /// When its own timer fires, by the group's clock.
    alarm: Moment,
    /// The tick in which it moved something last, from 1 on.
    active_in: u64,
}

impl Seat {
    fn turn(&mut self, direction: Direction) -> &mut Turn {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

/// Members that are to look again, called when the group's lock is free.
#[must_use]
#[derive(Default)]
struct Wakes(Vec<(Weak<Domain>, u64)>);

impl Wakes {
    fn add(&mut self, seat: &Seat) {
        self.0.push((seat.domain.clone(), seat.key));
    }

    fn ring(self) {
        for (domain, key) in self.0 {
            if let Some(domain) = domain.upgrade() {
                let host = domain.host().clone();
                let target: Arc<dyn Target> = domain;
                // On a closed loop nothing moves any more.
                let _ = host.schedule(Phase::Turn, target, key);
            }
        }
    }
}

impl Side {
    /// What each is dealt: the same for all who are in line, or were active lately, but the last may get a rest.
    fn share(&self, min_share: u64) -> i64 {
        let level = self.bucket.as_ref().map_or(0, Bucket::level);
        let claims = self.line.len().max(self.active).max(self.were_active);
        let claims = i64::try_from(claims.max(1)).unwrap_or(i64::MAX);
        let least = i64::try_from(min_share).unwrap_or(i64::MAX);
        (level / claims).max(least)
    }

    /// Adds what the ticks up to `now` have brought.
    fn advance(&mut self, now: Moment) {
        let Some(bucket) = &mut self.bucket else {
            return;
        };
        let ticks = bucket.advance(now);
        if ticks > 0 {
            self.were_active = if ticks == 1 { self.active } else { 0 };
            self.active = 0;
            self.ticks += ticks;
            self.clip();
        }
    }

    /// What is granted counts towards the burst.
    fn clip(&mut self) {
        if let Some(bucket) = &mut self.bucket {
            let burst = i64::try_from(bucket.rate().burst()).unwrap_or(i64::MAX);
            bucket.clip(burst.saturating_sub(self.granted).max(0));
        }
    }

    /// Changes what a member may move.
    fn grant(&mut self, turn: &mut Turn, more: i64) {
        let before = turn.grant.max(0);
        turn.grant = turn.grant.saturating_add(more);
        self.granted += turn.grant.max(0) - before;
    }

    /// Has a member stand in line.
    fn queue(&mut self, turn: &mut Turn, place: usize) {
        turn.in_line = true;
        turn.served = turn.served.max(self.served);
        self.line.insert((turn.served, place));
    }

    /// Takes back what a member was granted, and puts it down to the group if it owes something.
    fn settle(&mut self, turn: &mut Turn) {
        let rest = turn.grant;
        turn.served = turn.served.saturating_sub(rest.max(0).unsigned_abs());
        self.grant(turn, rest.saturating_neg());
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(rest.saturating_neg());
        }
    }
}

impl State {
    fn parts(&mut self, direction: Direction) -> (&mut Side, &mut Vec<Option<Seat>>, u64) {
        let side = match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        };
        (side, &mut self.seats, self.min_share)
    }

    /// Deals what is there to those in line. `asker` sees for itself; others are woken, unless their own timer is due.
    fn deal(&mut self, direction: Direction, now: Moment, asker: Option<usize>) -> Wakes {
        let (side, seats, min_share) = self.parts(direction);
        let mut wakes = Wakes::default();
        let share = side.share(min_share);
        while let Some(bucket) = &mut side.bucket
            && bucket.level() > 0
            && let Some((served, place)) = side.line.pop_first()
        {
            side.served = served;
            let Some(seat) = seats.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            let turn = seat.turn(direction);
            let dealt = share.min(bucket.level());
            turn.served = turn.served.saturating_add(dealt.unsigned_abs());
            bucket.charge(dealt);
            side.grant(turn, dealt);
            if turn.grant <= 0 {
                side.queue(turn, place);
                continue;
            }
            turn.in_line = false;
            if asker != Some(place) && turn.alarm > now {
                wakes.add(seat);
            }
        }
        wakes
    }

    /// Those in line are to look again: what they wait for is another now.
    fn wake_line(&mut self, direction: Direction, wakes: &mut Wakes) {
        let (side, seats, _) = self.parts(direction);
        for (_, place) in &side.line {
            if let Some(seat) = &seats[*place] {
                wakes.add(seat);
            }
        }
    }
}

impl Shared {
    /// What a member may move, in bytes; with 0 it stands in line. `usize::MAX`: there is no limit.
    fn ask(&self, place: usize, direction: Direction) -> usize {
        let mut state = self.state.lock();
        let now = self.host.clock_now();
        let (side, seats, _) = state.parts(direction);
        if side.bucket.is_none() {
            return usize::MAX;
        }
        side.advance(now);
        let Some(seat) = seats.get_mut(place).and_then(Option::as_mut) else {
            return usize::MAX;
        };
        let turn = seat.turn(direction);
        if turn.grant <= 0 && !turn.in_line {
            side.queue(turn, place);
        }
        let wakes = state.deal(direction, now, Some(place));
        let (side, seats, _) = state.parts(direction);
        let mut grant = 0;
        if let (Some(seat), Some(bucket)) = (&mut seats[place], &side.bucket) {
            let turn = seat.turn(direction);
            grant = turn.grant;
            if grant <= 0 {
                turn.alarm = bucket.due(1);
            }
        }
        drop(state);
        wakes.ring();
        usize::try_from(grant.max(0)).unwrap_or(usize::MAX)
    }

    /// As [`ask`](Self::ask), with nothing changed.
    fn peek(&self, place: usize, direction: Direction) -> usize {
        let mut state = self.state.lock();
        let now = self.host.clock_now();
        let (side, seats, min_share) = state.parts(direction);
        if side.bucket.is_none() {
            return usize::MAX;
        }
        side.advance(now);
        let level = side.bucket.as_ref().map_or(0, Bucket::level);
        let share = side.share(min_share).min(level);
        let free = side.line.is_empty() && share > 0;
        let Some(seat) = seats.get_mut(place).and_then(Option::as_mut) else {
            return usize::MAX;
        };
        let mut bytes = seat.turn(direction).grant;
        if bytes <= 0 && free {
            bytes = bytes.saturating_add(share);
        }
        usize::try_from(bytes.max(0)).unwrap_or(usize::MAX)
    }

    /// How long a member in line has to wait.
    fn wait(&self, place: usize, direction: Direction) -> Duration {
        let mut state = self.state.lock();
        let now = self.host.clock_now();
        let (_, seats, _) = state.parts(direction);
        let seat = seats.get_mut(place).and_then(Option::as_mut);
        seat.map_or(Duration::ZERO, |seat| seat.turn(direction).alarm - now)
    }

    /// A member moved so many bytes.
    fn moved(&self, place: usize, direction: Direction, bytes: usize) {
        let mut state = self.state.lock();
        let (side, seats, _) = state.parts(direction);
        side.total = side.total.saturating_add(bytes as u64);
        let Some(seat) = seats.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if side.bucket.is_some() {
            let turn = seat.turn(direction);
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            side.grant(turn, bytes.saturating_neg());
            if turn.active_in != side.ticks + 1 {
                turn.active_in = side.ticks + 1;
                side.active += 1;
            }
        }
    }

    /// A member has no use for what it was granted.
    fn release(&self, place: usize, direction: Direction) {
        let mut state = self.state.lock();
        let (side, seats, _) = state.parts(direction);
        let Some(seat) = seats.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let turn = seat.turn(direction);
        if turn.grant <= 0 {
            return;
        }
        side.settle(turn);
        if side.line.is_empty() {
            return;
        }
        let now = self.host.clock_now();
        let wakes = state.deal(direction, now, None);
        drop(state);
        wakes.ring();
    }

    fn leave(&self, place: usize) {
        let mut state = self.state.lock();
        let Some(mut seat) = state.seats.get_mut(place).and_then(Option::take) else {
            return;
        };
        state.vacant.push(place);
        let now = self.host.clock_now();
        let mut wakes = Vec::with_capacity(2);
        for direction in [Direction::Read, Direction::Write] {
            let (side, _, _) = state.parts(direction);
            let turn = seat.turn(direction);
            if turn.in_line {
                side.line.remove(&(turn.served, place));
            }
            side.settle(turn);
            wakes.push(state.deal(direction, now, None));
        }
        drop(state);
        wakes.into_iter().for_each(Wakes::ring);
    }
}

impl RateGroup {
    /// A group without members or limits, which goes by the clock of the loop `host`. Its members may live on other loops.
    #[doc(alias = "bufferevent_rate_limit_group_new")]
    #[must_use]
    pub fn new(host: &impl AsHost) -> Self {
        Self(Arc::new(Shared {
            host: host.as_host(),
            state: Mutex::new(State {
                read: Side::default(),
                write: Side::default(),
                seats: Vec::new(),
                vacant: Vec::new(),
                min_share: MIN_SHARE,
            }),
        }))
    }

    /// Sets the rate that the members share in a direction; `None` lifts the limit. Takes effect at once. What the old
    /// rate has brought stays, up to the new burst, and so does a debt; the first rate starts with one tick's bytes.
    #[doc(alias = "bufferevent_rate_limit_group_set_cfg")]
    pub fn set_rate(&self, direction: Direction, rate: Option<Rate>) {
        let mut state = self.0.state.lock();
        let now = self.0.host.clock_now();
        let (side, seats, _) = state.parts(direction);
        match (&mut side.bucket, rate) {
            (Some(bucket), Some(rate)) => {
                bucket.set_rate(rate, now);
                side.clip();
            }
            (bucket, rate) => {
                *bucket = rate.map(|rate| Bucket::new(rate, now));
                side.granted = 0;
                for seat in seats.iter_mut().flatten() {
                    seat.turn(direction).grant = 0;
                }
            }
        }
        let mut wakes = state.deal(direction, now, None);
        state.wake_line(direction, &mut wakes);
        let (side, seats, _) = state.parts(direction);
        if side.bucket.is_none() {
            for (_, place) in std::mem::take(&mut side.line) {
                if let Some(seat) = &mut seats[place] {
                    seat.turn(direction).in_line = false;
                }
            }
        }
        drop(state);
        wakes.ring();
    }

    /// The rate of a direction; `None` where there is no limit.
    #[must_use]
    pub fn rate(&self, direction: Direction) -> Option<Rate> {
        let mut state = self.0.state.lock();
        let (side, _, _) = state.parts(direction);
        side.bucket.as_ref().map(Bucket::rate)
    }

    /// Bytes that the group may move now, in all; below zero, what it has to repay first. `None` where there is no limit.
    #[doc(alias = "bufferevent_rate_limit_group_get_read_limit")]
    #[doc(alias = "bufferevent_rate_limit_group_get_write_limit")]
    #[must_use]
    pub fn level(&self, direction: Direction) -> Option<i64> {
        let mut state = self.0.state.lock();
        let now = self.0.host.clock_now();
        let (side, _, _) = state.parts(direction);
        side.advance(now);
        let level = side.bucket.as_ref()?.level();
        Some(level.saturating_add(side.granted))
    }

    /// Charges the group for bytes that moved elsewhere; a negative number gives some back, up to the burst. Without a
    /// limit nothing is charged.
    #[doc(alias = "bufferevent_rate_limit_group_decrement_read")]
    #[doc(alias = "bufferevent_rate_limit_group_decrement_write")]
    pub fn charge(&self, direction: Direction, bytes: i64) {
        let mut state = self.0.state.lock();
        let now = self.0.host.clock_now();
        let (side, _, _) = state.parts(direction);
        side.advance(now);
        if let Some(bucket) = &mut side.bucket {
            bucket.charge(bytes);
            side.clip();
        }
        let wakes = state.deal(direction, now, None);
        drop(state);
        wakes.ring();
    }

    /// What a member is dealt at least at a time, in bytes: with many members, some then wait for a later tick instead of all
    /// moving a few bytes. The last of a tick may get what is left. 64 at first.
    #[doc(alias = "bufferevent_rate_limit_group_set_min_share")]
    pub fn set_min_share(&self, bytes: u64) {
        self.0.state.lock().min_share = bytes.max(1);
    }

    /// See [`set_min_share`](Self::set_min_share).
    #[must_use]
    pub fn min_share(&self) -> u64 {
        self.0.state.lock().min_share
    }

    /// Bytes that its members have read and written since the group was made, or the totals were reset.
    #[doc(alias = "bufferevent_rate_limit_group_get_totals")]
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let state = self.0.state.lock();
        (state.read.total, state.write.total)
    }

    /// Counts the totals from zero again.
    #[doc(alias = "bufferevent_rate_limit_group_reset_totals")]
    pub fn reset_totals(&self) {
        let mut state = self.0.state.lock();
        state.read.total = 0;
        state.write.total = 0;
    }

    /// How many bufferevents are in it.
    #[must_use]
    pub fn members(&self) -> usize {
        let state = self.0.state.lock();
        state.seats.len() - state.vacant.len()
    }

    /// Takes a bufferevent in.
    pub(crate) fn seat(&self, domain: Weak<Domain>, key: u64) -> Member {
        let mut state = self.0.state.lock();
        let seat = Some(Seat {
            domain,
            key,
            read: Turn::default(),
            write: Turn::default(),
        });
        let place = match state.vacant.pop() {
            Some(place) => {
                state.seats[place] = seat;
                place
            }
            None => {
                state.seats.push(seat);
                state.seats.len() - 1
            }
        };
        drop(state);
        Member {
            group: self.clone(),
            place,
        }
    }
}

impl PartialEq for RateGroup {
    /// Whether both name the same group.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RateGroup {}

impl fmt::Debug for RateGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateGroup")
            .field("members", &self.members())
            .finish_non_exhaustive()
    }
}

/// A bufferevent's place in a group, which it leaves when this is dropped.
pub(crate) struct Member {
    group: RateGroup,
    place: usize,
}

impl Member {
    pub(crate) fn group(&self) -> &RateGroup {
        &self.group
    }

    pub(crate) fn ask(&self, direction: Direction) -> usize {
        self.group.0.ask(self.place, direction)
    }

    pub(crate) fn peek(&self, direction: Direction) -> usize {
        self.group.0.peek(self.place, direction)
    }

    pub(crate) fn wait(&self, direction: Direction) -> Duration {
        self.group.0.wait(self.place, direction)
    }

    pub(crate) fn moved(&self, direction: Direction, bytes: usize) {
        self.group.0.moved(self.place, direction, bytes);
    }

    pub(crate) fn release(&self, direction: Direction) {
        self.group.0.release(self.place, direction);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.group.0.leave(self.place);
    }
}
