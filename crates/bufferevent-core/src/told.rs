//! Operations that need no answer, and locks by hand.
//!
//! # Invariants
//! - An operation that needs no answer is done now, or is in the inbox of its domain when its call returns; see `inbox.rs`.
//! - It is put there only if this domain is busy, and the thread holds another one or comes from outside to write.

use std::any::Any;

use evbuffer::EvBuffer;

use crate::bev::{Bev, Handle};
use crate::buffers::{Addition, refused};
use crate::core::Core;
use crate::domain::{Hold, Lock};
use crate::error::{Error, Kind};
use crate::held::{self, Holder};
use crate::inbox::{self, Operation};
use crate::node::{End, Index, Pending};
use crate::published::{Is, Published};
use crate::pump;

/// Holds the lock of a bufferevent's whole stack or pair. Not held against its own thread.
#[must_use = "the lock is released when this is dropped"]
pub struct Guard<'a> {
    _hold: Hold<'a>,
}

impl<'a> Guard<'a> {
    #[track_caller]
    fn new(bev: &'a Bev, lock: Lock<'a>) -> Self {
        Self {
            _hold: bev.0.domain().keep_as(lock, Holder::Hand),
        }
    }
}

impl Bev {
    /// Takes the lock of the whole stack or pair: several operations under it are one to other threads. Recursive.
    /// Without THREADSAFE it only checks the thread.
    ///
    /// While it is held, this thread waits for nobody: operations on another stack that is busy just then are done later by that one's
    /// loop, or answer [`Kind::Busy`] if they need an answer. Do not run a loop, or wait for one, meanwhile.
    ///
    /// # Errors
    /// [`Kind::WrongThread`]; [`Kind::Busy`] if another thread has it and this one holds the lock of another stack.
    ///
    /// # Panics
    /// In debug builds, if this thread holds another stack by hand: see [`lock_both`](Self::lock_both).
    #[doc(alias = "bufferevent_lock")]
    #[doc(alias = "bufferevent_unlock")]
    #[track_caller]
    pub fn lock(&self) -> Result<Guard<'_>, Error> {
        held::check_by_hand(self.0.domain().address());
        Ok(Guard::new(self, self.0.domain().enter("lock")?))
    }

    /// Takes the locks of this bufferevent and of another, which may be on another loop: operations on both are one to other threads.
    /// Whoever takes two locks takes them by this call, which has an order, so that no two threads wait for each other.
    ///
    /// # Errors
    /// [`Kind::WrongThread`]; [`Kind::Busy`] if another thread has one of them and this thread holds the lock of a third.
    ///
    /// # Panics
    /// In debug builds, if this thread holds a third by hand.
    #[track_caller]
    pub fn lock_both<'a>(&'a self, other: &'a Self) -> Result<(Guard<'a>, Guard<'a>), Error> {
        const OPERATION: &str = "lock_both";
        let (here, there) = (self.0.domain(), other.0.domain());
        held::check_by_hand(here.address());
        held::check_by_hand(there.address());
        if !here.may_enter() || !there.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", OPERATION));
        }
        let (first, second) = if here.address() <= there.address() {
            (here, there)
        } else {
            (there, here)
        };
        let (lower, higher) = if held::anything() {
            (first.enter(OPERATION)?, second.enter(OPERATION)?)
        } else {
            (first.lock_in_order(), second.lock_in_order())
        };
        first.catch_up(&lower);
        second.catch_up(&higher);
        let (mine, others) = if here.address() <= there.address() {
            (lower, higher)
        } else {
            (higher, lower)
        };
        Ok((Guard::new(self, mine), Guard::new(other, others)))
    }

    /// An operation that needs no answer.
    pub(crate) fn told_on(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Core, Index) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        self.told(operation, Self::node_of, change)
    }

    /// As [`told_on`](Self::told_on), for what only the top of a stack may do.
    pub(crate) fn told_own(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Core, Index) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        self.told(operation, Self::top_node_of, change)
    }

    #[inline]
    fn told(
        &self,
        operation: &'static str,
        find: impl Fn(&Self, &Core, &'static str) -> Result<Index, Error> + Send + 'static,
        change: impl FnOnce(&mut Core, Index) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let found = move |bev: &Self, core: &mut Core| {
            find(bev, core, operation).and_then(|index| change(core, index))
        };
        let domain = self.0.domain();
        match domain.enter_unless_busy(operation)? {
            Some(lock) => domain.change(lock, |core| found(self, core)),
            None => {
                let later =
                    move |bev: &Self| bev.0.domain().operate(operation, |core| found(bev, core))?;
                self.post(operation, Box::new(later))
            }
        }
    }

    /// The node that this handle names.
    #[inline]
    pub(crate) fn node_of(&self, core: &Core, operation: &'static str) -> Result<Index, Error> {
        let (index, generation) = self.0.place();
        match core.find(index, generation) {
            Some(_) => Ok(index),
            None => Err(Error::new(Kind::Freed, "bufferevent", operation)),
        }
    }

    /// The node that this handle names, if nothing covers it.
    #[inline]
    pub(crate) fn top_node_of(&self, core: &Core, operation: &'static str) -> Result<Index, Error> {
        let (index, generation) = self.0.place();
        match core.find(index, generation) {
            None => Err(Error::new(Kind::Freed, "bufferevent", operation)),
            Some(node) if node.covered() => Err(Error::new(Kind::Covered, node.name(), operation)),
            Some(_) => Ok(index),
        }
    }

    /// Puts an operation into the domain's inbox.
    #[cold]
    pub(crate) fn post(&self, name: &'static str, operation: Operation) -> Result<(), Error> {
        self.may_post(name, 0)?;
        inbox::post(self, name, operation)
    }

    /// Puts bytes for the output into the domain's inbox, which was found to take them.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`], [`Kind::LoopClosed`].
    pub(crate) fn post_bytes(
        &self,
        name: &'static str,
        addition: Addition<'_>,
    ) -> Result<(), Error> {
        if let Addition::Copied(bytes) = addition {
            return inbox::post_bytes(self, name, bytes.len(), |waiting| {
                waiting.append_slice(bytes)
            });
        }
        // Made outside of the inbox: a buffer of the user's may tell the user what leaves it.
        let mut bytes = EvBuffer::new();
        let added = addition.add_to(&mut bytes);
        added.map_err(|error| refused(name, error))?;
        inbox::post_bytes(self, name, bytes.len(), |waiting| {
            waiting.append(&mut bytes)
        })
    }

    /// What can be said of an operation at once, and whether the inbox takes it.
    pub(crate) fn may_post(&self, name: &'static str, bytes: usize) -> Result<(), Error> {
        let refusal = |kind| Err(Error::new(kind, "bufferevent", name));
        let (Some(inbox), Some(published)) = (self.0.domain().inbox(), self.published()) else {
            return refusal(Kind::Busy);
        };
        if published.is(Is::FREED) {
            return refusal(Kind::Freed);
        }
        if bytes > 0 && published.is(Is::COVERED) {
            return refusal(Kind::Covered);
        }
        if bytes > 0 && published.is(Is::ENDED) {
            return refusal(Kind::Ended);
        }
        if bytes > published.max_output_left() || !inbox.takes(bytes) {
            return refusal(Kind::Full);
        }
        Ok(())
    }

    /// Bytes of output that wait in the inbox.
    #[inline]
    pub(crate) fn posted(&self) -> usize {
        self.published().map_or(0, Published::posted)
    }

    /// An operation that was taken in has failed: the handler hears of it.
    #[cold]
    pub(crate) fn refused_later(&self, bytes: usize, error: Error) {
        // That it was freed, the handler knows or cannot hear. An end is told by itself, but not that bytes were lost by it.
        let told = error.kind() == Kind::Freed || (error.kind() == Kind::Ended && bytes == 0);
        if !told {
            // Freed meanwhile: then nobody hears.
            let _ = self.on("posted", |core, index| {
                core.refused_later(index, error);
                Ok(())
            });
        }
    }

    /// User code in an operation that was taken in has panicked: a drop.
    #[cold]
    pub(crate) fn panicked_later(&self, payload: Box<dyn Any + Send>) {
        let (index, generation) = self.0.place();
        if let Ok(cell) = self.0.domain().hold("posted") {
            pump::panicked(&cell, index, generation, "posted operation", payload);
        }
    }
}

impl Core {
    /// Tells that an operation that was taken in has failed. Without memory for its bytes the output has a gap, and has failed too.
    fn refused_later(&mut self, index: Index, error: Error) {
        let open = self.node(index).write_end == End::Open;
        if error.kind() == Kind::OutOfMemory && open {
            return self.failed_output(index, &error);
        }
        let top = self.top_of(index);
        let node = self.node(top);
        if node.write_end != End::Failed {
            node.extras().write_error = Some(error);
            self.tell(top, Pending::WRITE_END);
        }
    }
}

impl Published {
    /// As [`Bev::room`], of what is published.
    pub(crate) fn room(handle: &Handle) -> usize {
        let mut queued = 0_usize;
        let mut next = None;
        loop {
            let at: &Handle = next.as_deref().unwrap_or(handle);
            let Some(published) = at.published().filter(|here| !here.is(Is::FREED)) else {
                return if next.is_some() { usize::MAX } else { 0 };
            };
            queued = queued
                .saturating_add(published.output())
                .saturating_add(published.posted());
            let mark = published.watermark(crate::Direction::Write);
            if mark.high() != 0 {
                return mark.room(queued);
            }
            let below = published.below.upgrade();
            if below.is_none() {
                return usize::MAX;
            }
            next = below;
        }
    }
}
