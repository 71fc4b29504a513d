//! Token buckets: how much a bufferevent, or a group of them, may move.
//!
//! # Rules
//! 1. A bucket begins with one tick's rate, gains as much per tick, and holds at most the burst. Moving may take it below zero: the
//!    debt is repaid first.
//! 2. A direction whose bucket is empty is held up, and looked at again each tick.
//! 3. A group's members share its bucket equally, but none gets less than the minimum share. When it is empty each is held up as soon
//!    as it wants to move; all go on when it holds a minimum share.
//! 4. Limits of one's own and of the group hold both; without either, `max_single_read` and `max_single_write` do.
//!
//! # Invariants
//! - Time is the loop's, in whole ticks since the loop began.

use std::cell::Cell;
use std::ffi::{c_int, c_short};
use std::time::Duration;

use bufferevent_core::Rate as Refilling;
use evreactor_core::Moment;
use parking_lot::Mutex;

use crate::bufferevent::{Bev, DEFAULT_MAX_SINGLE, HELD_BY_GROUP, HELD_BY_RATE};
use crate::event::base::{Base, Wait};
use crate::event::create::{assign, unassigned};
use crate::event::layout::{EV_PERSIST, EV_TIMEOUT, Event};
use crate::ffi::{Opaque, Out, Ref, Value, code};
use crate::util::time::{TimeVal, duration, timeval};

/// No limit, as C's functions say it; also the greatest rate.
const UNLIMITED: isize = isize::MAX;

/// Bytes of a group's bucket that each member gets at least.
const DEFAULT_MIN_SHARE: usize = 64;

/// `struct ev_token_bucket_cfg`.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    read: Refilling,
    write: Refilling,
    tick: TimeVal,
    tick_ms: u32,
}

/// A rate or a burst, which [`Refilling`] keeps within what an `isize` holds.
fn signed(bytes: u64) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

impl Config {
    fn tick_at(&self, now: Moment) -> u64 {
        now.as_nanos() / 1_000_000 / u64::from(self.tick_ms)
    }
}

/// Two buckets, and when they were filled last.
#[derive(Clone, Copy, Default)]
struct Buckets {
    read: isize,
    write: isize,
    tick: u64,
}

impl Buckets {
    fn new(config: &Config, now: Moment) -> Self {
        Self {
            read: signed(config.read.per_tick()),
            write: signed(config.write.per_tick()),
            tick: config.tick_at(now),
        }
    }

    /// Clipped to other limits.
    fn clip(&mut self, config: &Config, now: Moment) {
        self.read = self.read.min(signed(config.read.burst()));
        self.write = self.write.min(signed(config.write.burst()));
        self.tick = config.tick_at(now);
    }

    fn refill(&mut self, config: &Config, now: Moment) {
        let tick = config.tick_at(now);
        let ticks = tick.saturating_sub(self.tick);
        // As wide as each other: the interface is that of 64 bits.
        self.read = config.read.refill(self.read as i64, ticks) as isize;
        self.write = config.write.refill(self.write as i64, ticks) as isize;
        self.tick = tick.max(self.tick);
    }
}

/// What limits one bufferevent.
pub(crate) struct Rate {
    config: Option<Ref<Config>>,
    buckets: Buckets,
    refill: Event,
    group: Option<Ref<Group>>,
}

/// `struct bufferevent_rate_limit_group`.
///
/// # Locks
/// The group's lock may be taken by who holds a member's. Who holds the group's only tries for a member's, and is content to try again in
/// a tick. So nobody waits for another in a circle.
pub(crate) struct Group {
    base: Ref<Base>,
    refill: Event,
    shared: Mutex<Shared>,
}

/// What all threads see of a group.
struct Shared {
    config: Config,
    buckets: Buckets,
    members: Vec<Ref<Bev>>,
    read: Held,
    write: Held,
    min_share: usize,
    /// What was asked for, before it was cut to the rates.
    wanted_share: usize,
    read_total: u64,
    written_total: u64,
}

/// Whether a direction of the group is held up: each member finds that out when it wants to move, and waits then.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    No,
    Yes,
    /// It is not any more, but members may not have been told.
    Owed,
}

/// One of the two directions, so that nothing is written twice.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Read,
    Write,
}

impl Way {
    fn of(self, buckets: &mut Buckets) -> &mut isize {
        match self {
            Self::Read => &mut buckets.read,
            Self::Write => &mut buckets.write,
        }
    }

    fn hold(self, bev: Ref<Bev>, why: u16) {
        match self {
            Self::Read => bev.hold_read(why),
            Self::Write => bev.hold_write(why),
        }
    }

    fn let_go_on(self, bev: Ref<Bev>, why: u16) {
        match self {
            Self::Read => bev.let_read(why),
            Self::Write => bev.let_write(why),
        }
    }

    fn held(self, shared: &mut Shared) -> &mut Held {
        match self {
            Self::Read => &mut shared.read,
            Self::Write => &mut shared.write,
        }
    }
}

impl Shared {
    fn level(&mut self, way: Way) -> isize {
        *way.of(&mut self.buckets)
    }

    fn share(&self) -> isize {
        isize::try_from(self.min_share).unwrap_or(isize::MAX)
    }

    /// Looks whether a direction is to be held up, or is no longer; whether members are owed a word.
    fn judge(&mut self, way: Way) -> bool {
        let (level, share) = (self.level(way), self.share());
        let held = way.held(self);
        *held = match *held {
            _ if level <= 0 => Held::Yes,
            Held::Yes if level >= share => Held::Owed,
            same => same,
        };
        *held == Held::Owed
    }

    fn set_share(&mut self, wanted: usize) {
        let (read, write) = (self.config.read.per_tick(), self.config.write.per_tick());
        let most = usize::try_from(read.min(write)).unwrap_or(usize::MAX);
        self.wanted_share = wanted;
        self.min_share = wanted.min(most);
    }
}

impl Group {
    /// Takes from the bucket, or puts back.
    fn charge(&self, way: Way, count: isize, total: u64) {
        let owed = {
            let mut shared = self.shared.lock();
            let level = way.of(&mut shared.buckets);
            *level = level.saturating_sub(count);
            let sum = match way {
                Way::Read => &mut shared.read_total,
                Way::Write => &mut shared.written_total,
            };
            *sum = sum.saturating_add(total);
            shared.judge(way)
        };
        if owed {
            let _guard = self.base.guard();
            self.base.activate(Ref::of(&self.refill), EV_TIMEOUT, 1);
        }
    }

    /// What a member may move; `None` while the group is held up.
    fn limit(&self, way: Way) -> Option<isize> {
        let mut shared = self.shared.lock();
        if *way.held(&mut shared) == Held::Yes {
            return None;
        }
        let members = shared.members.len().max(1) as isize;
        Some((shared.level(way) / members).max(shared.share()))
    }

    fn start_refilling(&self) {
        let tick = self.shared.lock().config.tick;
        let _guard = self.base.guard();
        self.base.add(Ref::of(&self.refill), Some(tick));
    }

    /// Lets all members go whose locks are free; whether those were all.
    fn part_with_members(&self) -> bool {
        let mut shared = self.shared.lock();
        shared.members.retain(|member| {
            let Some(_guard) = member.try_guard() else {
                return true;
            };
            if let Some(rate) = member.rate.borrow_mut().as_mut() {
                rate.group = None;
            }
            for way in [Way::Read, Way::Write] {
                way.let_go_on(*member, HELD_BY_GROUP);
            }
            false
        });
        shared.members.is_empty()
    }

    /// Tells members that a direction goes on. One whose lock is held by another thread is told in a tick.
    fn tell_owed(&self, shared: &mut Shared, way: Way) {
        if *way.held(shared) != Held::Owed {
            return;
        }
        let mut all = true;
        for member in &shared.members {
            match member.try_guard() {
                Some(_guard) => way.let_go_on(*member, HELD_BY_GROUP),
                None => all = false,
            }
        }
        if all {
            *way.held(shared) = Held::No;
        }
    }
}

extern "C" fn refill_group(_fd: c_int, _what: c_short, group: Opaque) {
    // SAFETY: the argument of a group's own event, which is deleted before the group goes.
    let Some(group) = (unsafe { std::mem::transmute::<Opaque, Option<Ref<Group>>>(group) }) else {
        return;
    };
    let now = group.base.now();
    let mut shared = group.shared.lock();
    let config = shared.config;
    shared.buckets.refill(&config, now);
    for way in [Way::Read, Way::Write] {
        shared.judge(way);
        group.tell_owed(&mut shared, way);
    }
}

extern "C" fn refill_own(_fd: c_int, _what: c_short, bev: Opaque) {
    let Some(bev) = super::of_argument(bev) else {
        return;
    };
    let _guard = bev.guard();
    let Some((buckets, _)) = bev.refill() else {
        return;
    };
    let mut again = false;
    for (way, level) in [(Way::Read, buckets.read), (Way::Write, buckets.write)] {
        if level > 0 {
            way.let_go_on(bev, HELD_BY_RATE);
        } else {
            again = true;
        }
    }
    if again {
        bev.refill_in_a_tick();
    }
}

impl Ref<Bev> {
    fn now(self) -> Moment {
        self.base.get().map_or(Moment::ZERO, |base| base.now())
    }

    /// Own buckets, filled up to now.
    fn refill(self) -> Option<(Buckets, Ref<Config>)> {
        let now = self.now();
        let mut rate = self.rate.borrow_mut();
        let rate = rate.as_mut()?;
        let config = rate.config?;
        rate.buckets.refill(&config, now);
        Some((rate.buckets, config))
    }

    fn group(self) -> Option<Ref<Group>> {
        self.rate.borrow().as_ref()?.group
    }

    fn refill_in_a_tick(self) {
        let (Some(base), Some((_, config))) = (self.base.get(), self.refill()) else {
            return;
        };
        let event = self
            .rate
            .borrow()
            .as_ref()
            .map(|rate| Ref::of(&rate.refill));
        if let Some(event) = event {
            let _guard = base.guard();
            base.add(event, Some(config.tick));
        }
    }

    #[inline(always)]
    fn limit(self, way: Way, single: usize) -> usize {
        if self.rate.borrow().is_none() {
            return single;
        }
        self.limit_by_rate(way, single)
    }

    #[inline(never)]
    fn limit_by_rate(self, way: Way, single: usize) -> usize {
        let own = self.refill().map(|(mut buckets, _)| *way.of(&mut buckets));
        let mut limit = own.unwrap_or_else(|| isize::try_from(single).unwrap_or(isize::MAX));
        if let Some(group) = self.group() {
            match group.limit(way) {
                Some(share) => limit = limit.min(share),
                None => {
                    way.hold(self, HELD_BY_GROUP);
                    limit = 0;
                }
            }
        }
        usize::try_from(limit).unwrap_or(0)
    }

    /// Bytes that one read may bring.
    pub(crate) fn read_limit(self) -> usize {
        self.limit(Way::Read, self.max_single_read.get())
    }

    /// Bytes that one write may take.
    pub(crate) fn write_limit(self) -> usize {
        self.limit(Way::Write, self.max_single_write.get())
    }

    #[inline(always)]
    fn charge(self, way: Way, count: isize) {
        if self.rate.borrow().is_some() {
            self.charge_rate(way, count);
        }
    }

    #[inline(never)]
    fn charge_rate(self, way: Way, count: isize) {
        self.charge_own(way, count);
        if let Some(group) = self.group() {
            group.charge(way, count, u64::try_from(count).unwrap_or(0));
        }
    }

    /// Takes from the own bucket; whether there is one.
    fn charge_own(self, way: Way, count: isize) -> bool {
        let level = {
            let mut rate = self.rate.borrow_mut();
            let Some(rate) = rate.as_mut().filter(|rate| rate.config.is_some()) else {
                return false;
            };
            let level = way.of(&mut rate.buckets);
            *level = level.saturating_sub(count);
            *level
        };
        if level <= 0 {
            way.hold(self, HELD_BY_RATE);
            self.refill_in_a_tick();
        } else {
            way.let_go_on(self, HELD_BY_RATE);
        }
        true
    }

    pub(crate) fn charge_read(self, count: usize) {
        self.charge(Way::Read, count as isize);
    }

    pub(crate) fn charge_write(self, count: usize) {
        self.charge(Way::Write, count as isize);
    }

    fn with_rate(self, body: impl FnOnce(&mut Rate)) {
        let mut rate = self.rate.borrow_mut();
        let rate = rate.get_or_insert_with(|| {
            Box::new(Rate {
                config: None,
                buckets: Buckets::default(),
                refill: unassigned(),
                group: None,
            })
        });
        if rate.refill.base.get().is_none() {
            let event = Ref::of(&rate.refill);
            assign(
                event,
                self.base.get(),
                -1,
                0,
                Some(refill_own),
                self.address().cast(),
            );
        }
        body(rate);
    }

    /// Leaves its group and has no limits any more.
    pub(crate) fn leave_rates(self) {
        self.leave_group();
        let rate = self.rate.take();
        if let (Some(rate), Some(base)) = (rate, self.base.get()) {
            let _guard = base.guard();
            base.delete(Ref::of(&rate.refill), Wait::No);
            crate::event::forget(Ref::of(&rate.refill));
        }
    }

    fn leave_group(self) {
        let group = self
            .rate
            .borrow_mut()
            .as_mut()
            .and_then(|rate| rate.group.take());
        if let Some(group) = group {
            let mut shared = group.shared.lock();
            shared.members.retain(|member| *member != self);
            drop(shared);
            for way in [Way::Read, Way::Write] {
                way.let_go_on(self, HELD_BY_GROUP);
            }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn ev_token_bucket_cfg_new(
    read_rate: usize,
    read_burst: usize,
    write_rate: usize,
    write_burst: usize,
    tick: Value<TimeVal>,
) -> Option<Ref<Config>> {
    let tick = tick
        .get()
        .unwrap_or_else(|| timeval(Duration::from_secs(1)));
    let span = duration(tick);
    let tick_ms = u32::try_from(span.as_millis())
        .ok()
        .filter(|ms| *ms > 0 && i32::try_from(*ms).is_ok())?;
    let rate = |rate: usize, burst: usize| Refilling::new(rate as u64, burst as u64, span).ok();
    Ref::make(Config {
        read: rate(read_rate, read_burst)?,
        write: rate(write_rate, write_burst)?,
        tick,
        tick_ms,
    })
}

#[unsafe(no_mangle)]
extern "C" fn ev_token_bucket_cfg_free(config: Option<Ref<Config>>) {
    if let Some(config) = config {
        // SAFETY: it came from `ev_token_bucket_cfg_new`, and C promises that no bufferevent uses it any more.
        unsafe { config.free() };
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_set_rate_limit(
    bev: Option<Ref<Bev>>,
    config: Option<Ref<Config>>,
) -> c_int {
    let Some(bev) = bev.map(Ref::carrier) else {
        return -1;
    };
    let _guard = bev.guard();
    let now = bev.now();
    let Some(config) = config else {
        if bev.rate.borrow().is_some() {
            bev.with_rate(|rate| rate.config = None);
            bev.let_read(HELD_BY_RATE);
            bev.let_write(HELD_BY_RATE);
        }
        return 0;
    };
    bev.with_rate(|rate| {
        match rate.config {
            Some(_) => rate.buckets.clip(&config, now),
            None => rate.buckets = Buckets::new(&config, now),
        }
        rate.config = Some(config);
    });
    let levels = bev.rate.borrow().as_ref().map(|rate| rate.buckets);
    for (way, level) in levels
        .into_iter()
        .flat_map(|levels| [(Way::Read, levels.read), (Way::Write, levels.write)])
    {
        if level > 0 {
            way.let_go_on(bev, HELD_BY_RATE);
        } else {
            way.hold(bev, HELD_BY_RATE);
            bev.refill_in_a_tick();
        }
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_new(
    base: Option<Ref<Base>>,
    config: Option<Ref<Config>>,
) -> Option<Ref<Group>> {
    let (base, config) = (base?, config?);
    let mut shared = Shared {
        config: *config,
        buckets: Buckets::new(&config, base.now()),
        members: Vec::new(),
        read: Held::No,
        write: Held::No,
        min_share: 0,
        wanted_share: 0,
        read_total: 0,
        written_total: 0,
    };
    shared.set_share(DEFAULT_MIN_SHARE);
    let group = Ref::make(Group {
        base,
        refill: unassigned(),
        shared: Mutex::new(shared),
    })?;
    let argument = group.address().cast();
    assign(
        Ref::of(&group.refill),
        Some(base),
        -1,
        EV_PERSIST,
        Some(refill_group),
        argument,
    );
    group.start_refilling();
    Some(group)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_set_cfg(
    group: Option<Ref<Group>>,
    config: Option<Ref<Config>>,
) -> c_int {
    let (Some(group), Some(config)) = (group, config) else {
        return -1;
    };
    {
        let mut shared = group.shared.lock();
        shared.buckets.clip(&config, group.base.now());
        shared.config = *config;
        let wanted = shared.wanted_share;
        shared.set_share(wanted);
    }
    group.start_refilling();
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_set_min_share(
    group: Option<Ref<Group>>,
    share: usize,
) -> c_int {
    let Some(group) = group.filter(|_| isize::try_from(share).is_ok()) else {
        return -1;
    };
    group.shared.lock().set_share(share);
    0
}

/// Frees a group; its members go on without it.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_free(group: Option<Ref<Group>>) {
    let Some(group) = group else { return };
    while !group.part_with_members() {
        std::thread::yield_now(); // Others hold the locks of some.
    }
    {
        let _guard = group.base.guard();
        group.base.delete(Ref::of(&group.refill), Wait::No);
    }
    crate::event::forget(Ref::of(&group.refill));
    // SAFETY: it came from `bufferevent_rate_limit_group_new`, C gives it up, and no member knows it any more.
    unsafe { group.free() };
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_add_to_rate_limit_group(
    bev: Option<Ref<Bev>>,
    group: Option<Ref<Group>>,
) -> c_int {
    let Some(bev) = bev.map(Ref::carrier) else {
        return -1;
    };
    let _guard = bev.guard();
    if bev.group() == group {
        return 0;
    }
    bev.leave_group();
    let Some(group) = group else { return 0 };
    bev.with_rate(|rate| rate.group = Some(group));
    group.shared.lock().members.push(bev);
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_remove_from_rate_limit_group(bev: Option<Ref<Bev>>) -> c_int {
    let Some(bev) = bev.map(Ref::carrier) else {
        return -1;
    };
    let _guard = bev.guard();
    bev.leave_group();
    0
}

fn set_single(place: &Cell<usize>, size: usize) -> c_int {
    let size = if size == 0 || size > isize::MAX as usize {
        DEFAULT_MAX_SINGLE
    } else {
        size
    };
    place.set(size);
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_set_max_single_read(bev: Option<Ref<Bev>>, size: usize) -> c_int {
    bev.map(Ref::carrier).map_or(-1, |bev| {
        let _guard = bev.guard();
        set_single(&bev.max_single_read, size)
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_set_max_single_write(bev: Option<Ref<Bev>>, size: usize) -> c_int {
    bev.map(Ref::carrier).map_or(-1, |bev| {
        let _guard = bev.guard();
        set_single(&bev.max_single_write, size)
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_max_single_read(bev: Option<Ref<Bev>>) -> isize {
    bev.map(Ref::carrier)
        .map_or(-1, |bev| bev.max_single_read.get() as isize)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_max_single_write(bev: Option<Ref<Bev>>) -> isize {
    bev.map(Ref::carrier)
        .map_or(-1, |bev| bev.max_single_write.get() as isize)
}

fn level(bev: Option<Ref<Bev>>, way: Way) -> isize {
    let Some(bev) = bev.map(Ref::carrier) else {
        return -1;
    };
    let _guard = bev.guard();
    bev.refill()
        .map_or(UNLIMITED, |(mut buckets, _)| *way.of(&mut buckets))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_read_limit(bev: Option<Ref<Bev>>) -> isize {
    level(bev, Way::Read)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_write_limit(bev: Option<Ref<Bev>>) -> isize {
    level(bev, Way::Write)
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_max_to_read(bev: Option<Ref<Bev>>) -> isize {
    bev.map(Ref::carrier).map_or(-1, |bev| {
        let _guard = bev.guard();
        bev.read_limit() as isize
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_max_to_write(bev: Option<Ref<Bev>>) -> isize {
    bev.map(Ref::carrier).map_or(-1, |bev| {
        let _guard = bev.guard();
        bev.write_limit() as isize
    })
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_get_token_bucket_cfg(bev: Option<Ref<Bev>>) -> Option<Ref<Config>> {
    bev.map(Ref::carrier)?.rate.borrow().as_ref()?.config
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_get_read_limit(group: Option<Ref<Group>>) -> isize {
    group.map_or(-1, |group| group.shared.lock().level(Way::Read))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_get_write_limit(group: Option<Ref<Group>>) -> isize {
    group.map_or(-1, |group| group.shared.lock().level(Way::Write))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_decrement_read_limit(bev: Option<Ref<Bev>>, count: isize) -> c_int {
    let Some(bev) = bev.map(Ref::carrier) else {
        return -1;
    };
    let _guard = bev.guard();
    code(bev.charge_own(Way::Read, count))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_decrement_write_limit(bev: Option<Ref<Bev>>, count: isize) -> c_int {
    let Some(bev) = bev.map(Ref::carrier) else {
        return -1;
    };
    let _guard = bev.guard();
    code(bev.charge_own(Way::Write, count))
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_decrement_read(
    group: Option<Ref<Group>>,
    count: isize,
) -> c_int {
    let Some(group) = group else { return -1 };
    group.charge(Way::Read, count, 0);
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_decrement_write(
    group: Option<Ref<Group>>,
    count: isize,
) -> c_int {
    let Some(group) = group else { return -1 };
    group.charge(Way::Write, count, 0);
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_get_totals(
    group: Option<Ref<Group>>,
    read: Out<u64>,
    written: Out<u64>,
) {
    if let Some(group) = group {
        let shared = group.shared.lock();
        read.set(shared.read_total);
        written.set(shared.written_total);
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_rate_limit_group_reset_totals(group: Option<Ref<Group>>) {
    if let Some(group) = group {
        let mut shared = group.shared.lock();
        shared.read_total = 0;
        shared.written_total = 0;
    }
}
