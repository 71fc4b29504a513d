//! Change callbacks, and frozen ends: what a buffer has that most buffers do not.
//!
//! # Invariants
//! - A callback runs when the operation that it hears of is complete; no operation runs it half-way.
//! - A callback is out of its slot while it runs, and goes back only if its slot is still there, also
//!   when it unwinds. Its number is never used again in this process, so that it cannot come back to
//!   another's slot, not even if it exchanged the buffer it was lent for another.
//! - Callbacks never nest: what one of them changes is told in the next round of the same loop, and
//!   after [`MAX_ROUNDS`] rounds it waits for the next operation. The stack does not grow.
//! - Every change is counted once for every callback, however many operations it is told in.
//!
//! # Why a callback has its own counters
//! libevent keeps one pair for all; with it a callback that hears at once can be told the same bytes
//! again when a deferred one hears. Two numbers for each, and the question does not arise.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::EvBuffer;
use crate::sync::Arc;

/// How many rounds of callbacks one operation runs at most. A callback that changes the buffer each
/// time it hears of a change would go on for ever; one that refills a buffer needs two.
pub const MAX_ROUNDS: usize = 16;

/// One of the two ends of a buffer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum End {
    /// Where bytes are drained, removed and prepended.
    Front,
    /// Where bytes are appended.
    Back,
}

/// What became of a buffer since its callback heard last.
#[doc(alias = "evbuffer_cb_info")]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Length before, in bytes.
    pub original: usize,
    /// Bytes that were added since.
    pub added: usize,
    /// Bytes that were deleted since.
    pub deleted: usize,
}

/// When a callback hears of a change.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Delivery {
    /// At the end of each operation.
    #[doc(alias = "EVBUFFER_CB_NODEFER")]
    AtOnce,
    /// When the owner of the buffer calls [`deliver_changes`](EvBuffer::deliver_changes): many changes are one then.
    Deferred,
}

/// Names a callback of a buffer, to remove it by.
#[doc(alias = "evbuffer_cb_entry")]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallbackId(u64);

type Callback = Box<dyn FnMut(&mut EvBuffer, Change) + Send>;

/// The slot of one callback.
struct Watcher {
    id: CallbackId,
    delivery: Delivery,
    enabled: bool,
    added: usize,
    deleted: usize,
    /// Out while it runs.
    run: Option<Callback>,
}

/// Callbacks and frozen ends of one buffer. Gone when it has neither.
#[derive(Default)]
pub(crate) struct Extras {
    /// Oldest first; they run newest first.
    watchers: Vec<Watcher>,
    /// A loop further up the stack is running these callbacks. It shares the mark, to take it away
    /// also when a callback has put these extras somewhere else, by exchanging whole buffers.
    running: Arc<AtomicBool>,
    frozen_front: bool,
    frozen_back: bool,
}

impl Extras {
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.watchers.capacity() * size_of::<Watcher>()
    }

    fn frozen(&mut self, end: End) -> &mut bool {
        match end {
            End::Front => &mut self.frozen_front,
            End::Back => &mut self.frozen_back,
        }
    }

    fn watcher(&mut self, id: CallbackId) -> Option<&mut Watcher> {
        self.watchers.iter_mut().find(|watcher| watcher.id == id)
    }

    fn is_needed(&self) -> bool {
        !self.watchers.is_empty()
            || self.running.load(Ordering::Relaxed)
            || self.frozen_front
            || self.frozen_back
    }
}

impl EvBuffer {
    /// Calls `callback` with the buffer and what changed, after operations that add or delete bytes.
    ///
    /// Callbacks run newest first. A callback may change the buffer, add callbacks and remove callbacks,
    /// itself too. What it changes is told to the callbacks in another round, up to [`MAX_ROUNDS`] for one
    /// operation; a change left over is told with the next.
    ///
    /// # Examples
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use evbuffer::{Delivery, EvBuffer};
    ///
    /// let seen = Arc::new(Mutex::new(Vec::new()));
    /// let mut buffer = EvBuffer::new();
    /// let log = seen.clone();
    /// let id = buffer.add_callback(Delivery::AtOnce, move |_, change| {
    ///     log.lock().unwrap().push((change.original, change.added, change.deleted));
    /// });
    /// buffer.append_slice(b"hello")?;
    /// buffer.drain(2);
    /// assert_eq!(*seen.lock().unwrap(), [(0, 5, 0), (5, 0, 2)]);
    /// assert!(buffer.remove_callback(id));
    /// # Ok::<(), evbuffer::Error>(())
    /// ```
    /// Source: libevent `evbuffer_add_cb`, `evbuffer_run_callbacks`.
    #[doc(alias = "evbuffer_add_cb")]
    #[doc(alias = "evbuffer_setcb")]
    #[doc(alias = "evbuffer_defer_callbacks")]
    pub fn add_callback(
        &mut self,
        delivery: Delivery,
        callback: impl FnMut(&mut EvBuffer, Change) + Send + 'static,
    ) -> CallbackId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = CallbackId(NEXT.fetch_add(1, Ordering::Relaxed));
        let run: Option<Callback> = Some(Box::new(callback));
        let watcher = Watcher {
            id,
            delivery,
            enabled: true,
            added: 0,
            deleted: 0,
            run,
        };
        self.extras_mut().watchers.push(watcher);
        id
    }

    /// Removes a callback, also from inside itself; returns whether it was there.
    #[doc(alias = "evbuffer_remove_cb")]
    #[doc(alias = "evbuffer_remove_cb_entry")]
    pub fn remove_callback(&mut self, id: CallbackId) -> bool {
        let Some(extras) = self.extras() else {
            return false;
        };
        let Some(at) = extras.watchers.iter().position(|watcher| watcher.id == id) else {
            return false;
        };
        let watcher = extras.watchers.remove(at);
        self.drop_idle_extras();
        drop(watcher); // What it captured may run code of its own: last.
        true
    }

    /// Lets a callback hear again; returns whether it was there. What happened meanwhile it does not hear.
    #[doc(alias = "evbuffer_cb_set_flags")]
    #[doc(alias = "EVBUFFER_CB_ENABLED")]
    pub fn enable_callback(&mut self, id: CallbackId) -> bool {
        self.extras()
            .and_then(|extras| extras.watcher(id))
            .map(|watcher| watcher.enabled = true)
            .is_some()
    }

    /// Stops telling a callback, without removing it; returns whether it was there. Untold changes are forgotten.
    #[doc(alias = "evbuffer_cb_clear_flags")]
    pub fn disable_callback(&mut self, id: CallbackId) -> bool {
        let watcher = self.extras().and_then(|extras| extras.watcher(id));
        watcher
            .map(|watcher| (watcher.enabled, watcher.added, watcher.deleted) = (false, 0, 0))
            .is_some()
    }

    /// Whether a callback has something to hear in [`deliver_changes`](Self::deliver_changes).
    #[must_use]
    pub fn has_untold_changes(&self) -> bool {
        let extras = self.rest.as_ref().and_then(|rest| rest.extras.as_ref());
        extras.is_some_and(|extras| {
            extras
                .watchers
                .iter()
                .any(|watcher| watcher.added > 0 || watcher.deleted > 0)
        })
    }

    /// Tells all callbacks, deferred ones too, what they have not heard; at most [`MAX_ROUNDS`] rounds.
    pub fn deliver_changes(&mut self) {
        self.tell(&[Delivery::AtOnce, Delivery::Deferred]);
    }

    /// Refuses operations at one end with [`ErrorKind::Frozen`](crate::ErrorKind::Frozen) until it is unfrozen.
    ///
    /// The front: drain, remove, prepend, move out. The back: append, reserve, move in.
    #[doc(alias = "evbuffer_freeze")]
    pub fn freeze(&mut self, end: End) {
        *self.extras_mut().frozen(end) = true;
    }

    /// Allows operations at one end again.
    #[doc(alias = "evbuffer_unfreeze")]
    pub fn unfreeze(&mut self, end: End) {
        if let Some(extras) = self.extras() {
            *extras.frozen(end) = false;
            self.drop_idle_extras();
        }
    }

    /// Whether an end is frozen.
    #[must_use]
    pub fn is_frozen(&self, end: End) -> bool {
        let extras = self.rest.as_ref().and_then(|rest| rest.extras.as_ref());
        extras.is_some_and(|extras| match end {
            End::Front => extras.frozen_front,
            End::Back => extras.frozen_back,
        })
    }

    /// The end of every operation that adds or deletes: counts the change, and tells who wants to hear at once.
    #[inline]
    pub(crate) fn changed(&mut self, added: usize, deleted: usize) {
        if let Some(rest) = &self.rest
            && rest.extras.is_some()
        {
            self.count_and_tell(added, deleted);
        }
    }

    fn count_and_tell(&mut self, added: usize, deleted: usize) {
        if added == 0 && deleted == 0 {
            return;
        }
        let Some(extras) = self.extras() else { return };
        for watcher in extras.watchers.iter_mut().filter(|watcher| watcher.enabled) {
            watcher.added = watcher.added.saturating_add(added);
            watcher.deleted = watcher.deleted.saturating_add(deleted);
        }
        self.tell(&[Delivery::AtOnce]);
    }

    /// Runs rounds until nobody has anything to hear, or [`MAX_ROUNDS`] were run.
    fn tell(&mut self, who: &[Delivery]) {
        let Some(extras) = self.extras() else { return };
        if extras.watchers.is_empty() || extras.running.swap(true, Ordering::Relaxed) {
            return; // The loop that runs takes this change along.
        }
        let running = extras.running.clone();
        let round = Round {
            buffer: self,
            running,
        };
        for _ in 0..MAX_ROUNDS {
            if !round.buffer.run_round(who) {
                break;
            }
        }
    }

    /// Each callback once, newest first; returns whether one had something to hear.
    fn run_round(&mut self, who: &[Delivery]) -> bool {
        let mut told = false;
        let mut before = None;
        while let Some(lent) = self.next_to_tell(who, before) {
            told = true;
            before = Some(lent.id);
            lent.call();
        }
        told
    }

    /// Takes out the newest callback older than `before` that has something to hear.
    fn next_to_tell(&mut self, who: &[Delivery], before: Option<CallbackId>) -> Option<Lent<'_>> {
        let len = self.len();
        let watcher = self.extras()?.watchers.iter_mut().rev().find(|watcher| {
            before.is_none_or(|before| watcher.id < before)
                && (watcher.added > 0 || watcher.deleted > 0)
                && who.contains(&watcher.delivery)
        })?;
        let original = len
            .saturating_add(watcher.deleted)
            .saturating_sub(watcher.added);
        let change = Change {
            original,
            added: watcher.added,
            deleted: watcher.deleted,
        };
        (watcher.added, watcher.deleted) = (0, 0);
        let (id, run) = (watcher.id, watcher.run.take());
        Some(Lent {
            buffer: self,
            id,
            change,
            run,
        })
    }

    fn extras(&mut self) -> Option<&mut Extras> {
        self.rest.as_mut()?.extras.as_deref_mut()
    }

    fn extras_mut(&mut self) -> &mut Extras {
        self.rest_mut().extras.get_or_insert_default()
    }

    fn drop_idle_extras(&mut self) {
        if self.extras().is_some_and(|extras| !extras.is_needed()) {
            self.rest_mut().extras = None;
            if self.is_empty() {
                self.rest_after_emptying();
            }
        }
    }
}

/// The running of callbacks: marked in the buffer, and unmarked also on unwind.
struct Round<'a> {
    buffer: &'a mut EvBuffer,
    running: Arc<AtomicBool>,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        self.buffer.drop_idle_extras();
    }
}

/// A callback that is out of its slot.
struct Lent<'a> {
    buffer: &'a mut EvBuffer,
    id: CallbackId,
    change: Change,
    run: Option<Callback>,
}

impl Lent<'_> {
    fn call(mut self) {
        if let Some(run) = &mut self.run {
            run(self.buffer, self.change);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let id = self.id;
        if let Some(watcher) = self.buffer.extras().and_then(|extras| extras.watcher(id)) {
            watcher.run = self.run.take();
        }
    }
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras")
            .field("callbacks", &self.watchers.len())
            .field("frozen_front", &self.frozen_front)
            .field("frozen_back", &self.frozen_back)
            .finish_non_exhaustive()
    }
}
