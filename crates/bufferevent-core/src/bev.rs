//! `Bev`: the handle to a bufferevent of any type, with every operation that is the same for all.
//!
//! A handle is cheap to clone and to drop, and holds nothing open: it names a node of a domain by index and
//! generation. After the bufferevent was freed, every operation answers [`Kind::Freed`].
//!
//! # Invariants
//! - The node's own handle counts as one; every other is a user's. When the last user's goes, the bufferevent lives on
//!   only while it has something to do (see `life.rs`).
//! - Dropping a handle enters no domain on a foreign thread and none inside a pump: it posts.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use evbuffer::EvBuffer;
use evreactor_core::sync::atomic::{AtomicU32, Ordering};
use evreactor_core::sync::{Arc, ReentrantMutexGuard};
use evreactor_core::{Host, Phase, Priority};

use crate::buffers::{Input, Output};
use crate::core::Core;
use crate::direction::{Direction, Directions, Reasons};
use crate::domain::{Call, Domain, Key};
use crate::error::{Error, Kind};
use crate::event::EventFlags;
use crate::handler::{Handler, Interest};
use crate::life;
use crate::local::Local;
use crate::node::{End, Flags, Handling, Index, Link, Node, Pending};
use crate::options::{Options, TriggerOptions};
use crate::pump::{self, Listed};
use crate::watermark::Watermark;

/// What a handle points to: where a node is, and how many hold on to it.
pub(crate) struct Handle {
    pub(crate) domain: Arc<Domain>,
    pub(crate) index: Index,
    pub(crate) generation: u32,
    /// The node's own and the users'.
    holders: AtomicU32,
}

/// A handle to a bufferevent.
///
/// Source: libevent's `struct bufferevent *`.
#[doc(alias = "bufferevent")]
#[doc(alias = "bufferevent_incref")]
#[doc(alias = "bufferevent_decref")]
pub struct Bev(pub(crate) Arc<Handle>);

/// What has passed through a bufferevent, and what waits in it, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Came into the input so far.
    pub read: u64,
    /// Left the output so far.
    pub written: u64,
    /// Waits in the input.
    pub input: usize,
    /// Waits in the output.
    pub output: usize,
}

/// Holds the lock of a bufferevent's whole stack or pair. Not held against its own thread.
#[must_use = "the lock is released when this is dropped"]
pub struct Guard<'a> {
    _lock: ReentrantMutexGuard<'a, std::cell::RefCell<Core>>,
}

impl Clone for Bev {
    #[inline]
    fn clone(&self) -> Self {
        self.0.holders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Drop for Bev {
    #[inline]
    fn drop(&mut self) {
        // The node's own handle is left: nobody holds on to it from outside.
        if self.0.holders.fetch_sub(1, Ordering::AcqRel) == 2 {
            self.last_user_left();
        }
    }
}

impl fmt::Debug for Bev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bev")
            .field("index", &self.0.index)
            .field("generation", &self.0.generation)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Bev {
    /// Whether both name the same bufferevent.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Bev {}

/// Handles: how they are made and go.
impl Bev {
    /// The first handle of a node, and the node's own.
    pub(crate) fn first(domain: Arc<Domain>, core: &mut Core, index: Index) -> Self {
        let generation = core.node(index).generation;
        let handle = Arc::new(Handle { domain, index, generation, holders: AtomicU32::new(2) });
        core.node(index).me = Some(Self(handle.clone()));
        Self(handle)
    }

    /// How many user handles there are.
    pub(crate) fn users(&self) -> u32 {
        self.0.holders.load(Ordering::Acquire).saturating_sub(1)
    }

    #[cold]
    fn last_user_left(&self) {
        let domain = &self.0.domain;
        if domain.on_loop_thread() {
            pump::list(Listed::Orphan(self.0.clone()));
            return;
        }
        let Handle { index, generation, .. } = *self.0;
        let key = Key { call: Call::Orphan, index, generation }.pack();
        if domain.host.schedule(Phase::Turn, domain.clone(), key).is_err() {
            // The loop is gone and nothing runs any more, so nobody else is in there: free it from here.
            let cell = domain.lock();
            life::free(&cell, index, generation);
        }
    }

    /// Enters the domain for an operation on this node.
    pub(crate) fn on<R>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Core, Index) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let Handle { index, generation, .. } = *self.0;
        self.0.domain.operate(operation, |core| {
            if core.find(index, generation).is_none() {
                return Err(Error::new(Kind::Freed, "bufferevent", operation));
            }
            change(core, index)
        })?
    }

    /// As [`Bev::on`], for what only the top of a stack may do.
    pub(crate) fn own<R>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Core, Index) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.on(operation, |core, index| {
            let node = core.node(index);
            if node.covered() {
                return Err(Error::new(Kind::Covered, node.name(), operation));
            }
            change(core, index)
        })
    }

    /// A look at the node, or `None` where it is gone or not to be entered from this thread.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Node) -> R) -> Option<R> {
        if !self.0.domain.may_enter() {
            return None;
        }
        let cell = self.0.domain.lock();
        let core = cell.borrow();
        core.find(self.0.index, self.0.generation).map(look)
    }

    /// The loop it runs on.
    #[doc(alias = "bufferevent_get_base")]
    #[must_use]
    pub fn host(&self) -> Arc<dyn Host> {
        self.0.domain.host.clone()
    }

    /// Whether it was freed.
    #[must_use]
    pub fn is_freed(&self) -> bool {
        self.0.domain.may_enter() && self.peek(|_| ()).is_none()
    }

    /// Takes the lock of the whole stack or pair: several operations under it are one to other threads. Recursive.
    /// Without THREADSAFE it only checks the thread.
    ///
    /// # Errors
    /// [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_lock")]
    #[doc(alias = "bufferevent_unlock")]
    pub fn lock(&self) -> Result<Guard<'_>, Error> {
        if !self.0.domain.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", "lock"));
        }
        Ok(Guard { _lock: self.0.domain.lock() })
    }

    /// Frees the bufferevent: no callback of it begins from here on, queued output is dropped, and with
    /// [`Options::CLOSE_ON_FREE`] the bufferevents below go too. Legal inside any callback. Returns how many bytes were
    /// never sent.
    ///
    /// From another thread than the loop's (THREADSAFE) it is done in the loop's next turn.
    ///
    /// # Errors
    /// [`Kind::Freed`] if it is gone already; [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_free")]
    #[doc(alias = "bufferevent_decref")]
    pub fn free(&self) -> Result<usize, Error> {
        let Handle { index, generation, .. } = *self.0;
        let domain = &self.0.domain;
        if !domain.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", "free"));
        }
        let freed = || Error::new(Kind::Freed, "bufferevent", "free");
        if !domain.on_loop_thread() {
            let unsent = self.peek(|node| node.output.len()).ok_or_else(freed)?;
            let key = Key { call: Call::Free, index, generation }.pack();
            if domain.host.schedule(Phase::Turn, domain.clone(), key).is_ok() {
                return Ok(unsent);
            }
        }
        let unsent = {
            let cell = domain.lock();
            life::free(&cell, index, generation).ok_or_else(freed)?
        };
        // What the freeing made possible elsewhere in the domain: the partner's EOF, the one below uncovered.
        domain.operate("free", |_| ())?;
        Ok(unsent)
    }

    /// Frees the bufferevent once all its output is out, whatever else goes on.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn free_when_written(&self) -> Result<(), Error> {
        self.on("free_when_written", |core, index| {
            core.node(index).flags.insert(Flags::FREE_WHEN_WRITTEN);
            core.maybe_reap(index);
            Ok(())
        })
    }

    /// Closes gracefully: finishes all layers, sends what is queued, half-closes, waits for the peer's end, and frees
    /// the bufferevent, all of it within `deadline`. [`Event::Written`](crate::Event::Written) tells that all is out; then comes the peer's
    /// EOF, or `Timeout(Close)`. Bytes that still come in are told if reading is enabled, else thrown away.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "evutil_closesocket")]
    pub fn close(&self, deadline: Duration) -> Result<(), Error> {
        self.own("close", |core, index| {
            let at = core.host().now() + deadline;
            let node = core.node(index);
            node.flags.insert(Flags::CLOSING);
            if !node.enabled.contains(Directions::READ) && node.read_end == End::Open {
                node.flags.insert(Flags::DISCARD);
                node.enabled.insert(Directions::READ);
            }
            node.enabled.insert(Directions::WRITE);
            node.extras().timers.close_at = Some(at);
            core.want_end(index);
            core.opened(index, Directions::BOTH);
            core.arm(index);
            core.maybe_reap(index);
            Ok(())
        })
    }
}

/// Callbacks.
impl Bev {
    /// Sets the handler, in place of the one there is. What is waiting to be told is told to the new one.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_setcb")]
    pub fn set_handler(&self, handler: impl Handler + Send) -> Result<(), Error> {
        self.replace_handler(Some(Box::new(handler))).map(drop)
    }

    /// As [`set_handler`](Self::set_handler), for a handler that must stay on this thread, the loop's.
    ///
    /// # Errors
    /// [`Kind::WrongThread`] from another thread, THREADSAFE or not; the rest as `set_handler`.
    pub fn set_local_handler(&self, handler: impl Handler) -> Result<(), Error> {
        if !self.0.domain.on_loop_thread() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", "set_local_handler"));
        }
        let local = Local::keep(self.host(), Box::new(handler));
        self.replace_handler(Some(Box::new(local))).map(drop)
    }

    /// Sets another handler, or none, and returns the one there was; `None` also while that one is running.
    ///
    /// # Errors
    /// As [`set_handler`](Self::set_handler); the handler is dropped.
    pub fn replace_handler(
        &self,
        handler: Option<Box<dyn Handler + Send>>,
    ) -> Result<Option<Box<dyn Handler + Send>>, Error> {
        let mut handler = handler;
        let interest = handler.as_ref().map_or(Interest::EMPTY, |handler| handler.interest());
        self.own("set_handler", |core, index| {
            let node = core.node(index);
            node.set_interest(interest);
            let old = node.replace_handler(handler.take());
            core.tell_unread(index);
            core.queue_deliver(index);
            Ok(old)
        })
    }

    /// Which callbacks the current handler has.
    #[doc(alias = "bufferevent_getcb")]
    #[must_use]
    pub fn interest(&self) -> Interest {
        self.peek(|node| node.interest).unwrap_or(Interest::EMPTY)
    }

    /// Looks at the current handler, if it is an `H`.
    ///
    /// # Errors
    /// [`Kind::Busy`] while it runs; [`Kind::Misuse`] if there is none or it is not an `H`; [`Kind::Covered`], [`Kind::Freed`],
    /// [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_getcb")]
    pub fn with_handler<H: Handler, R>(&self, look: impl FnOnce(&mut H) -> R) -> Result<R, Error> {
        let mut handler = self.own("with_handler", |core, index| {
            let node = core.node(index);
            node.take_handler().ok_or_else(|| {
                let runs = node.handling != Handling::Idle;
                let kind = if runs { Kind::Busy } else { Kind::Misuse };
                Error::new(kind, node.name(), "with_handler")
            })
        })?;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let any: &mut dyn Any = &mut *handler;
            if let Some(local) = any.downcast_mut::<Local>() {
                return local
                    .with(|handler| {
                        let any: &mut dyn Any = handler;
                        any.downcast_mut::<H>().map(look)
                    })
                    .flatten();
            }
            any.downcast_mut::<H>().map(look)
        }));
        let mut handler = Some(handler);
        // Freed meanwhile: the handler is dropped here, outside.
        let _ = self.on("with_handler", |core, index| {
            handler = core.node(index).return_handler(handler.take());
            core.queue_deliver(index);
            Ok(())
        });
        match result {
            Ok(result) => result
                .ok_or_else(|| Error::new(Kind::Misuse, "bufferevent", "with_handler")),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Runs data callbacks by hand: those of `directions`, if their mark is reached or `options` ignore it.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_trigger")]
    pub fn trigger(&self, directions: Directions, options: TriggerOptions) -> Result<(), Error> {
        self.own("trigger", |core, index| {
            let node = core.node(index);
            let always = options.contains(TriggerOptions::IGNORE_WATERMARKS);
            let mut what = Pending::EMPTY;
            if directions.contains(Directions::READ)
                && (always || node.input.len() >= node.read_mark.low())
            {
                what.insert(Pending::FORCED_READ);
            }
            if directions.contains(Directions::WRITE)
                && (always || node.output.len() <= node.write_mark.low())
            {
                what.insert(Pending::FORCED_WRITE);
            }
            core.trigger(index, what, options);
            Ok(())
        })
    }

    /// Runs the event callback by hand, with [`Event::Triggered`](crate::Event::Triggered).
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_trigger_event")]
    pub fn trigger_event(&self, what: EventFlags, options: TriggerOptions) -> Result<(), Error> {
        self.own("trigger_event", |core, index| {
            core.node(index).extras().triggered.insert(what);
            core.trigger(index, Pending::TRIGGERED, options);
            Ok(())
        })
    }
}

impl Core {
    fn trigger(&mut self, index: Index, what: Pending, options: TriggerOptions) {
        if what.is_empty() {
            return;
        }
        let node = self.node(index);
        node.pending.insert(what);
        if node.deliverable().is_empty() {
            return;
        }
        if options.contains(TriggerOptions::DEFER_CALLBACKS) {
            self.queue_deferred(index);
        } else {
            self.queue_deliver(index);
        }
    }
}

/// Directions, marks, deadlines, limits.
impl Bev {
    /// Enables directions. Enabling WRITE on a connected, idle bufferevent runs the write callback once: the writer's start.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`]; [`Kind::Ended`] for a direction that has ended.
    #[doc(alias = "bufferevent_enable")]
    pub fn enable(&self, directions: Directions) -> Result<(), Error> {
        self.own("enable", |core, index| {
            let node = core.node(index);
            let mut directions = directions;
            let mut ended = false;
            if directions.contains(Directions::READ) && node.read_end != End::Open {
                directions.remove(Directions::READ);
                ended = true;
            }
            if directions.contains(Directions::WRITE) && node.write_end == End::Failed {
                directions.remove(Directions::WRITE);
                ended = true;
            }
            node.enabled.insert(directions);
            if directions.contains(Directions::READ) {
                node.flags.remove(Flags::DISCARD);
            }
            let starts = directions.contains(Directions::WRITE)
                && node.write_end == End::Open
                && node.output.len() <= node.write_mark.low();
            let link = node.link;
            if starts && link != Link::Open {
                node.flags.insert(Flags::START_WRITER);
            }
            core.opened(index, directions);
            if starts && link == Link::Open && core.node(index).interest.contains(Interest::WRITE) {
                core.tell(index, Pending::WRITE);
            }
            if ended {
                let node = core.node(index);
                return Err(Error::new(Kind::Ended, node.name(), "enable"));
            }
            Ok(())
        })
    }

    /// Disables directions: no application data moves, and a data callback that is queued for them does not run.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_disable")]
    pub fn disable(&self, directions: Directions) -> Result<(), Error> {
        self.own("disable", |core, index| {
            core.node(index).enabled.remove(directions);
            core.cancel_callbacks(index, directions);
            core.maybe_reap(index);
            Ok(())
        })
    }

    /// The directions that are enabled.
    #[doc(alias = "bufferevent_get_enabled")]
    #[must_use]
    pub fn enabled(&self) -> Directions {
        self.peek(|node| node.enabled).unwrap_or(Directions::EMPTY)
    }

    /// Holds directions up without disabling them; they move again after [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_suspend_read_")]
    #[doc(alias = "bufferevent_suspend_write_")]
    pub fn suspend(&self, directions: Directions) -> Result<(), Error> {
        self.on("suspend", |core, index| {
            core.hold(index, directions, Reasons::APPLICATION, true);
            Ok(())
        })
    }

    /// Lets go of directions that [`suspend`](Self::suspend) holds up.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_unsuspend_read_")]
    #[doc(alias = "bufferevent_unsuspend_write_")]
    pub fn resume(&self, directions: Directions) -> Result<(), Error> {
        self.on("resume", |core, index| {
            core.hold(index, directions, Reasons::APPLICATION, false);
            Ok(())
        })
    }

    /// The reasons for which a direction is held up.
    #[must_use]
    pub fn suspended(&self, direction: Direction) -> Reasons {
        self.peek(|node| match direction {
            Direction::Read => node.held_read,
            Direction::Write => node.held_write,
        })
        .unwrap_or(Reasons::EMPTY)
    }

    /// Sets a direction's marks, in bytes; a high mark of 0 means unlimited. Takes effect at once.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if the low mark is above the high one; [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_setwatermark")]
    pub fn set_watermark(&self, direction: Direction, low: usize, high: usize) -> Result<(), Error> {
        let mark = Watermark::new(low, high)?;
        self.on("set_watermark", |core, index| {
            let node = core.node(index);
            match direction {
                Direction::Read => node.read_mark = mark,
                Direction::Write => node.write_mark = mark,
            }
            core.opened(index, direction.into());
            Ok(())
        })
    }

    /// The read marks: see [`set_watermark`](Self::set_watermark).
    ///
    /// # Errors
    /// As `set_watermark`.
    pub fn set_read_watermark(&self, low: usize, high: usize) -> Result<(), Error> {
        self.set_watermark(Direction::Read, low, high)
    }

    /// The write marks: see [`set_watermark`](Self::set_watermark).
    ///
    /// # Errors
    /// As `set_watermark`.
    pub fn set_write_watermark(&self, low: usize, high: usize) -> Result<(), Error> {
        self.set_watermark(Direction::Write, low, high)
    }

    /// A direction's marks.
    #[doc(alias = "bufferevent_getwatermark")]
    #[must_use]
    pub fn watermark(&self, direction: Direction) -> Watermark {
        self.peek(|node| match direction {
            Direction::Read => node.read_mark,
            Direction::Write => node.write_mark,
        })
        .unwrap_or_default()
    }

    /// Sets the read and write timeouts; `None` removes. A timeout counts while its direction wants to make progress; when
    /// it expires, the direction is disabled and the event callback runs.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_timeouts")]
    #[doc(alias = "bufferevent_settimeout")]
    pub fn set_timeouts(
        &self,
        read: Option<Duration>,
        write: Option<Duration>,
    ) -> Result<(), Error> {
        self.on("set_timeouts", |core, index| {
            let timers = &mut core.node(index).extras().timers;
            timers.read = read;
            timers.write = write;
            core.timers_reset(index);
            Ok(())
        })
    }

    /// The read and write timeouts.
    #[must_use]
    pub fn timeouts(&self) -> (Option<Duration>, Option<Duration>) {
        self.peek(|node| {
            node.extras.as_ref().map(|extras| (extras.timers.read, extras.timers.write))
        })
        .flatten()
        .unwrap_or_default()
    }

    /// Has `Timeout(Idle)` told when nothing moved in either direction for `span`; `None` removes.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn set_idle_timeout(&self, span: Option<Duration>) -> Result<(), Error> {
        self.on("set_idle_timeout", |core, index| {
            core.node(index).extras().timers.idle = span;
            core.timers_reset(index);
            Ok(())
        })
    }

    /// Has `Timeout(Connect)` told when a connection that was asked for does not stand after `span`; `None` removes.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn set_connect_timeout(&self, span: Option<Duration>) -> Result<(), Error> {
        self.on("set_connect_timeout", |core, index| {
            core.node(index).extras().timers.connect = span;
            core.timers_reset(index);
            Ok(())
        })
    }

    /// Limits the output: a `write` that would make it longer answers [`Kind::Full`] and takes nothing. In bytes; 0 means
    /// unlimited.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn set_max_output(&self, bytes: usize) -> Result<(), Error> {
        self.on("set_max_output", |core, index| {
            core.node(index).extras().max_output = bytes;
            Ok(())
        })
    }

    /// Limits what is read in one turn of the loop, in bytes; 0 restores the default of 256 KiB.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_max_single_read")]
    pub fn set_max_single_read(&self, bytes: usize) -> Result<(), Error> {
        self.on("set_max_single_read", |core, index| {
            core.node(index).extras().max_single_read = bytes.min(u32::MAX as usize);
            Ok(())
        })
    }

    /// Limits what is written in one turn of the loop, in bytes; 0 restores the default of 256 KiB.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_max_single_write")]
    pub fn set_max_single_write(&self, bytes: usize) -> Result<(), Error> {
        self.on("set_max_single_write", |core, index| {
            core.node(index).extras().max_single_write = bytes.min(u32::MAX as usize);
            Ok(())
        })
    }

    /// What may be read in one turn of the loop, in bytes.
    #[doc(alias = "bufferevent_get_max_single_read")]
    #[must_use]
    pub fn max_single_read(&self) -> usize {
        self.peek(Node::max_single_read).unwrap_or(0)
    }

    /// What may be written in one turn of the loop, in bytes.
    #[doc(alias = "bufferevent_get_max_single_write")]
    #[must_use]
    pub fn max_single_write(&self) -> usize {
        self.peek(Node::max_single_write).unwrap_or(0)
    }

    /// How urgent its callbacks are to the loop.
    #[doc(alias = "bufferevent_get_priority")]
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.peek(Node::priority).unwrap_or_default()
    }

    /// Sets how urgent its callbacks are to the loop, those of its transport too.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_priority_set")]
    pub fn set_priority(&self, priority: Priority) -> Result<(), Error> {
        let transport = self.on("set_priority", |core, index| {
            let mut index = index;
            loop {
                let node = core.node(index);
                node.extras().priority = priority;
                if core.get(core.get(index).map_or(index, |node| node.below)).is_none() {
                    return Ok((index, core.node(index).generation));
                }
                index = core.node(index).below;
            }
        })?;
        let cell = self.0.domain.lock();
        if let Some(mut layer) = pump::take_layer(&cell, transport.0, transport.1) {
            layer.set_priority(priority);
            pump::put_back(&cell, transport.0, transport.1, layer);
        }
        Ok(())
    }
}

/// Bytes.
impl Bev {
    /// The input: what was read, to be taken from the front.
    #[doc(alias = "bufferevent_get_input")]
    #[doc(alias = "EVBUFFER_INPUT")]
    #[must_use]
    pub fn input(&self) -> Input<'_> {
        Input(self)
    }

    /// The output: what is to be written, added at the back.
    #[doc(alias = "bufferevent_get_output")]
    #[doc(alias = "EVBUFFER_OUTPUT")]
    #[must_use]
    pub fn output(&self) -> Output<'_> {
        Output(self)
    }

    /// Queues a copy of `bytes` for writing. It does not refuse for a watermark; see [`room`](Self::room).
    ///
    /// # Errors
    /// [`Kind::Ended`] after a finish or a failure; [`Kind::Full`] past `set_max_output`; [`Kind::Covered`], [`Kind::Freed`],
    /// [`Kind::WrongThread`], [`Kind::OutOfMemory`]. Nothing is taken then.
    #[doc(alias = "bufferevent_write")]
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        self.output().grow("write", bytes.len(), |output| output.append_slice(bytes))
    }

    /// Queues all of `buffer` for writing, moved and not copied.
    ///
    /// # Errors
    /// As [`write`](Self::write); `buffer` keeps its bytes then.
    #[doc(alias = "bufferevent_write_buffer")]
    pub fn write_buffer(&self, buffer: &mut EvBuffer) -> Result<(), Error> {
        self.output().grow("write_buffer", buffer.len(), |output| output.append(buffer))
    }

    /// Takes bytes from the input into `bytes`; returns how many, 0 when it is empty.
    ///
    /// # Errors
    /// [`Kind::Busy`], [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_read")]
    pub fn read(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        self.input().remove(bytes)
    }

    /// Moves the whole input behind what `buffer` holds; returns how many bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[doc(alias = "bufferevent_read_buffer")]
    pub fn read_buffer(&self, buffer: &mut EvBuffer) -> Result<usize, Error> {
        self.input().move_to(usize::MAX, buffer)
    }

    /// How many bytes may be added to the output until the next write high-water mark at or below this bufferevent is reached;
    /// `usize::MAX` where none is set.
    #[must_use]
    pub fn room(&self) -> usize {
        if !self.0.domain.may_enter() {
            return 0;
        }
        let cell = self.0.domain.lock();
        let core = cell.borrow();
        let mut index = self.0.index;
        if core.find(index, self.0.generation).is_none() {
            return 0;
        }
        let mut queued = 0_usize;
        while let Some(node) = core.get(index) {
            queued = queued.saturating_add(node.output.len());
            if node.write_mark.high() != 0 {
                return node.write_mark.room(queued);
            }
            index = node.below;
        }
        usize::MAX
    }

    /// What has passed through, and what waits.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.peek(|node| Stats {
            read: node.bytes_read,
            written: node.bytes_written,
            input: node.input.len(),
            output: node.output.len(),
        })
        .unwrap_or_default()
    }

    /// Whether the options include `option`.
    #[must_use]
    pub fn has_option(&self, option: Options) -> bool {
        self.peek(|node| node.options.contains(option)).unwrap_or(false)
    }
}
