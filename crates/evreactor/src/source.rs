//! Sources: the table of what a loop watches, and the registrations that name its rows.
//!
//! # Invariants
//! - A [`Token`] is a row and that row's generation; a report for an older generation is ignored, so a late event never
//!   reaches whoever got the row, or the descriptor's number, next.
//! - No token has all bits set, nor all but the last: backends keep those for their wakers.
//! - A descriptor number belongs to at most one row (`owners`). Registering a number that a row still has means that its
//!   owner closed it without a word: the old row lets go of the number, and its registration only frees the row.
//! - The table never drops a target: it hands it out, and whoever holds the lock drops it after letting go of the lock.

use std::fmt;
use std::io;
use std::sync::Arc;

#[cfg(unix)]
pub use std::os::fd::{AsFd as AsSource, RawFd as RawSource};
#[cfg(windows)]
pub use std::os::windows::io::{AsSocket as AsSource, RawSocket as RawSource};

use evreactor_core::{Priority, Ready, Target};

use crate::agenda::Item;
use crate::backend::{Features, Interest, Registrar};
use crate::shared::{Call, Shared};

/// The number of no descriptor: -1, or Windows' `INVALID_SOCKET`.
const NO_SOURCE: RawSource = !0;

/// Low bits of a token that hold the row, the others hold its generation: 40 and 14 of the 24, on 32-bit systems 20 and 12.
const ROW_BITS: u32 = usize::BITS / 8 * 5;
const ROW_MASK: usize = (1 << ROW_BITS) - 1;
/// Rows per loop. Below `ROW_MASK`, so that no token is all ones.
const MAX_ROWS: usize = if ROW_MASK < u32::MAX as usize {
    ROW_MASK - 1
} else {
    u32::MAX as usize - 1
};
/// Ends the list of unused rows; stands for "no row" in `owners`.
const NONE: u32 = u32::MAX;

/// Names a source between a loop and its backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Token(usize);

impl Token {
    /// The token of these bits, as a backend got them from [`bits`](Self::bits).
    #[must_use]
    pub const fn from_bits(bits: usize) -> Self {
        Self(bits)
    }

    /// Bits for a backend to hand to the system. Never `usize::MAX` or `usize::MAX - 1`.
    #[must_use]
    pub const fn bits(self) -> usize {
        self.0
    }

    fn new(row: u32, generation: u32) -> Self {
        Self((generation as usize) << ROW_BITS | row as usize)
    }
}

/// One watched source. 32 bytes on 64-bit Unix: each connection has one.
struct Row {
    /// `None` while the row is unused.
    target: Option<Arc<dyn Target>>,
    /// The target's key; in an unused row, the next unused one.
    key: u64,
    raw: RawSource,
    state: RowState,
}

/// The small parts of a row, in four bytes.
#[derive(Clone, Copy)]
struct RowState(u32);

/// Where a part lies in a [`RowState`]: its lowest bit, and how many it has.
type Part = (u32, u32);

impl RowState {
    /// Wraps: a stale report lives for a few turns, not for thousands of registrations of one row.
    const GENERATION: Part = (0, if usize::BITS == 64 { 14 } else { 12 });
    const PRIORITY: Part = (14, u8::BITS);
    /// What waits for the row's priority to be served.
    const PENDING: Part = (22, Ready::ALL.bits().count_ones());
    /// What is asked for.
    const INTEREST: Part = (28, 2);
    /// Without edges: what was asked for and has not been reported yet.
    const ARMED: Part = (30, 2);

    #[inline(always)]
    const fn get(self, (at, length): Part) -> u32 {
        self.0 >> at & ((1 << length) - 1)
    }

    /// Bits of `value` that do not fit are lost.
    const fn set(&mut self, (at, length): Part, value: u32) {
        let mask = (1 << length) - 1;
        self.0 = self.0 & !(mask << at) | (value & mask) << at;
    }

    #[inline(always)]
    fn generation(self) -> u32 {
        self.get(Self::GENERATION)
    }

    fn interest(self) -> Interest {
        Interest::from_bits(self.get(Self::INTEREST) as u8)
    }

    fn armed(self) -> Interest {
        Interest::from_bits(self.get(Self::ARMED) as u8)
    }

    fn pending(self) -> Ready {
        Ready::from_bits(self.get(Self::PENDING) as u8)
    }

    fn priority(self) -> u8 {
        self.get(Self::PRIORITY) as u8
    }

    fn ask(&mut self, interest: Interest) {
        self.set(Self::INTEREST, interest.bits().into());
        self.set_armed(interest);
    }

    fn set_armed(&mut self, interest: Interest) {
        self.set(Self::ARMED, interest.bits().into());
    }

    fn set_pending(&mut self, ready: Ready) {
        self.set(Self::PENDING, ready.bits().into());
    }

    fn set_priority(&mut self, priority: Priority) {
        self.set(Self::PRIORITY, priority.0.into());
    }

    /// The row is unused: reports of what it was are stale from here on.
    fn age(&mut self) {
        self.set_pending(Ready::EMPTY);
        self.set(Self::GENERATION, self.generation() + 1);
    }
}

#[cfg(all(unix, target_pointer_width = "64"))]
const _: () = assert!(size_of::<Row>() <= 32);
const _: () = assert!(size_of::<Registration>() <= 16);

/// The table of one loop.
pub(crate) struct Sources {
    rows: Vec<Row>,
    free: u32,
    live: usize,
    closed: bool,
    owners: Owners,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            free: NONE,
            live: 0,
            closed: false,
            owners: Owners::default(),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whom an event of `token` goes to.
    #[inline]
    pub(crate) fn call_for(&self, token: Token) -> Option<Call> {
        let row = self.row(token)?;
        Some(Call {
            target: row.target.clone()?,
            key: row.key,
        })
    }

    /// Remembers an event until its priority is served. Answers that priority if the source is not waiting already.
    pub(crate) fn defer(&mut self, token: Token, ready: Ready) -> Option<u8> {
        let row = self.row_mut(token)?;
        let waiting = row.state.pending();
        row.state.set_pending(waiting | ready);
        waiting.is_empty().then(|| row.state.priority())
    }

    /// Takes what [`defer`](Self::defer) remembered.
    pub(crate) fn take_deferred(&mut self, token: Token) -> Option<(Call, Ready)> {
        let call = self.call_for(token)?;
        let row = self.row_mut(token)?;
        let ready = row.state.pending();
        row.state.set_pending(Ready::EMPTY);
        Some((call, ready))
    }

    /// Without edges a report of one direction ends the watch of both: the other one is asked for again.
    pub(crate) fn keep_armed(&mut self, registrar: &dyn Registrar, reported: &[(Token, Ready)]) {
        for &(token, ready) in reported {
            let Some(row) = self.row_mut(token) else {
                continue;
            };
            let armed = row.state.armed().unreported(ready);
            row.state.set_armed(armed);
            if armed != Interest::NONE && row.raw != NO_SOURCE {
                // A source that cannot be watched any more has reported so.
                if let Err(error) = registrar.modify(row.raw, token, armed) {
                    tracing::debug!(%error, "a source could not be armed again");
                }
            }
        }
    }

    /// From here on nothing is registered; hands out all targets.
    pub(crate) fn close(&mut self) -> Vec<Arc<dyn Target>> {
        self.closed = true;
        self.live = 0;
        self.owners = Owners::default();
        self.free = NONE;
        std::mem::take(&mut self.rows)
            .into_iter()
            .filter_map(|row| row.target)
            .collect()
    }

    fn row(&self, token: Token) -> Option<&Row> {
        let row = self.rows.get(token.0 & ROW_MASK)?;
        (Token::new((token.0 & ROW_MASK) as u32, row.state.generation()) == token).then_some(row)
    }

    fn row_mut(&mut self, token: Token) -> Option<&mut Row> {
        let row = self.rows.get_mut(token.0 & ROW_MASK)?;
        (Token::new((token.0 & ROW_MASK) as u32, row.state.generation()) == token).then_some(row)
    }

    /// Fills a row.
    fn insert(&mut self, call: Call, interest: Interest, priority: Priority) -> io::Result<Token> {
        if self.closed {
            return Err(closed());
        }
        if self.free == NONE {
            if self.rows.len() >= MAX_ROWS {
                return Err(io::Error::other("the loop's table of sources is full"));
            }
            self.rows.push(Row {
                target: None,
                key: u64::from(NONE),
                raw: NO_SOURCE,
                state: RowState(0),
            });
            self.free = (self.rows.len() - 1) as u32;
        }
        let index = self.free;
        let row = &mut self.rows[index as usize];
        self.free = row.key as u32;
        row.target = Some(call.target);
        row.key = call.key;
        row.state.ask(interest);
        row.state.set_priority(priority);
        self.live += 1;
        Ok(Token::new(index, row.state.generation()))
    }

    /// Gives a row its descriptor; whoever had the number loses it.
    fn own(&mut self, token: Token, raw: RawSource) {
        let index = (token.0 & ROW_MASK) as u32;
        if let Some(former) = self.owners.replace(raw, index) {
            self.rows[former as usize].raw = NO_SOURCE;
        }
        self.rows[index as usize].raw = raw;
    }

    /// Empties a row: its target, for the caller to drop outside the lock, and the descriptor that it still had.
    fn remove(&mut self, token: Token) -> Option<(Arc<dyn Target>, RawSource)> {
        let free = self.free;
        let row = self.row_mut(token)?;
        let target = row.target.take()?;
        let raw = std::mem::replace(&mut row.raw, NO_SOURCE);
        row.key = u64::from(free);
        row.state.age();
        self.free = (token.0 & ROW_MASK) as u32;
        self.live -= 1;
        if raw != NO_SOURCE {
            self.owners.forget(raw);
        }
        Some((target, raw))
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, evreactor_core::LoopClosed)
}

/// Which row has which descriptor. Descriptors are small numbers on Unix: four bytes for each up to the largest.
#[cfg(unix)]
#[derive(Default)]
struct Owners(Vec<u32>);

#[cfg(unix)]
impl Owners {
    fn replace(&mut self, raw: RawSource, row: u32) -> Option<u32> {
        let index = usize::try_from(raw).expect("an open descriptor is not negative");
        if self.0.len() <= index {
            self.0.resize(index + 1, NONE);
        }
        let former = std::mem::replace(&mut self.0[index], row);
        (former != NONE).then_some(former)
    }

    fn forget(&mut self, raw: RawSource) {
        self.0[raw as usize] = NONE;
    }
}

#[cfg(not(unix))]
#[derive(Default)]
struct Owners(std::collections::HashMap<RawSource, u32>);

#[cfg(not(unix))]
impl Owners {
    fn replace(&mut self, raw: RawSource, row: u32) -> Option<u32> {
        self.0.insert(raw, row)
    }

    fn forget(&mut self, raw: RawSource) {
        self.0.remove(&raw);
    }
}

#[cfg(unix)]
pub(crate) fn raw_of(source: &impl AsSource) -> RawSource {
    use std::os::fd::AsRawFd as _;
    source.as_fd().as_raw_fd()
}

#[cfg(windows)]
pub(crate) fn raw_of(source: &impl AsSource) -> RawSource {
    use std::os::windows::io::AsRawSocket as _;
    source.as_socket().as_raw_socket()
}

/// A source that a loop watches, until this is dropped.
///
/// # Order
/// Drop the registration *before* the descriptor is closed: in a struct that has both, declare it first. After a wrong order
/// nothing unsound happens: the loop notices when the number comes back, and no event goes to the wrong
/// target. But if a duplicate of the descriptor is still open, the system may go on reporting for it in vain.
#[doc(alias = "event")]
#[doc(alias = "event_free")]
#[must_use = "dropping the registration ends it"]
pub struct Registration {
    shared: Arc<Shared>,
    token: Token,
}

impl Registration {
    /// Registers `raw`, or, with `None`, a source that has no descriptor.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        raw: Option<RawSource>,
        interest: Interest,
        priority: Priority,
        call: Call,
    ) -> io::Result<Self> {
        // Keeps a refused target alive until the lock is released: locals are dropped in reverse order.
        let _target = call.target.clone();
        let mut sources = shared.sources.lock();
        let token = sources.insert(call, interest, priority)?;
        if let Some(raw) = raw {
            if let Err(error) = shared.registrar.register(raw, token, interest) {
                sources.remove(token);
                return Err(error);
            }
            sources.own(token, raw);
        }
        shared.agenda.note(Item::Sources, true);
        drop(sources);
        Ok(Self {
            shared: shared.clone(),
            token,
        })
    }

    /// What the loop's backend can do: whether [`rearm`](Self::rearm) is needed, whether a short read means "drained".
    #[must_use]
    #[inline]
    pub fn features(&self) -> Features {
        self.shared.features
    }

    /// The name under which the backend knows this source.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Has the source reported again, after an operation said would-block. Costs nothing on an edge-triggered backend.
    ///
    /// # Errors
    /// What the system says.
    #[inline]
    pub fn rearm(&self) -> io::Result<()> {
        if self.shared.features.edge_triggered {
            return Ok(());
        }
        let interest = self
            .shared
            .sources
            .lock()
            .row(self.token)
            .map(|row| row.state.interest());
        interest.map_or(Ok(()), |interest| self.set_interest(interest))
    }

    /// Changes what is asked for; what is ready now is reported anew.
    ///
    /// # Errors
    /// What the system says, or `NotConnected` if the descriptor's number was registered by someone else since, or the loop is gone.
    pub fn set_interest(&self, interest: Interest) -> io::Result<()> {
        let mut sources = self.shared.sources.lock();
        let row = sources.row_mut(self.token).ok_or_else(closed)?;
        row.state.ask(interest);
        if row.raw == NO_SOURCE {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the source has no descriptor",
            ));
        }
        self.shared.registrar.modify(row.raw, self.token, interest)
    }

    /// Sets how urgent the source's events are, from the next event on.
    #[doc(alias = "event_priority_set")]
    pub fn set_priority(&self, priority: Priority) {
        if let Some(row) = self.shared.sources.lock().row_mut(self.token) {
            row.state.set_priority(priority);
        }
    }

    /// Ends the registration: what dropping does, with a name.
    #[doc(alias = "event_del")]
    pub fn deregister(self) {}
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sources = self.shared.sources.lock();
        let Some((target, raw)) = sources.remove(self.token) else {
            return;
        };
        self.shared.agenda.note(Item::Sources, !sources.is_empty());
        if raw != NO_SOURCE
            && let Err(error) = self.shared.registrar.deregister(raw, self.token)
        {
            // The descriptor was closed first; the system has forgotten it by itself.
            tracing::debug!(%error, source = raw, "a descriptor was gone before its registration");
        }
        drop(sources);
        drop(target);
        self.shared.ring();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_row_is_by_itself() {
        let mut state = RowState(0);
        state.ask(Interest::BOTH);
        state.set_armed(Interest::WRITE);
        state.set_priority(Priority(u8::MAX));
        state.set_pending(Ready::ALL);
        assert_eq!(state.generation(), 0);
        assert_eq!(
            (state.interest(), state.armed(), state.priority()),
            (Interest::BOTH, Interest::WRITE, u8::MAX)
        );
        assert_eq!(state.pending(), Ready::ALL);
        for generation in 1..=1_u32 << RowState::GENERATION.1 {
            state.age();
            let (_, length) = RowState::GENERATION;
            assert_eq!(state.generation(), generation % (1 << length));
        }
        assert_eq!(
            (state.interest(), state.armed(), state.priority()),
            (Interest::BOTH, Interest::WRITE, u8::MAX)
        );
        assert_eq!(state.pending(), Ready::EMPTY);
    }
}
