//! `Bev`: the handle to a bufferevent of any type, with every operation that is the same for all.
//!
//! A handle is cheap to clone and to drop, and holds nothing open: it names a node of a domain by index and
//! generation. After the bufferevent was freed, every operation answers [`Kind::Freed`].
//!
//! # Invariants
//! - The node's own handle counts as one; every other is a user's. When the last user's goes, the bufferevent lives on
//!   only while it has something to do (see `life.rs`).
//! - Dropping a handle enters no domain on a foreign thread and none inside a pump: it posts.

use std::fmt;
use std::time::Duration;

use evbuffer::EvBuffer;
use evreactor_core::sync::atomic::{AtomicU32, Ordering};
use evreactor_core::sync::{Arc, ReentrantMutexGuard};
use evreactor_core::{Host, Phase};

use crate::buffers::{Input, Output};
use crate::core::{Core, Facts};
use crate::direction::Directions;
use crate::domain::{Call, Domain, Key};
use crate::error::{Error, Kind};
use crate::event::Deadline;
use crate::life;
use crate::node::{End, Flags, Index, Node};
use crate::options::Options;
use crate::pump::{self, Listed};
use crate::resolve::ResolveError;

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
        let handle = Arc::new(Handle {
            domain,
            index,
            generation,
            holders: AtomicU32::new(2),
        });
        let node = core.node(index);
        node.own = Arc::downgrade(&handle);
        node.me = Some(Self(handle.clone()));
        Self(handle)
    }

    /// Another handle of a node, also while its own is out because its handler runs.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let handle = node.own.upgrade()?;
        handle.holders.fetch_add(1, Ordering::Relaxed);
        Some(Self(handle))
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
        let Handle {
            index, generation, ..
        } = *self.0;
        let key = Key {
            call: Call::Orphan,
            index,
            generation,
        }
        .pack();
        if domain
            .host
            .schedule(Phase::Turn, domain.clone(), key)
            .is_err()
        {
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
        let Handle {
            index, generation, ..
        } = *self.0;
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
        let Handle {
            index, generation, ..
        } = *self.0;
        self.0.domain.operate(operation, |core| {
            match core.nodes.find_mut(index, generation) {
                None => Err(Error::new(Kind::Freed, "bufferevent", operation)),
                Some(node) if node.covered() => {
                    Err(Error::new(Kind::Covered, node.name(), operation))
                }
                Some(_) => change(core, index),
            }
        })?
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
        Ok(Guard {
            _lock: self.0.domain.lock(),
        })
    }

    /// Frees the bufferevent: no callback of it begins from here on, queued output is dropped, and with
    /// [`Options::CLOSE_ON_FREE`] the bufferevents below go too. Legal inside any callback. Returns how many bytes were
    /// never sent.
    ///
    /// From another thread than the loop's (THREADSAFE) it is done in the loop's next turn; no callback begins until then either.
    ///
    /// # Errors
    /// [`Kind::Freed`] if it is gone already; [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_free")]
    #[doc(alias = "bufferevent_decref")]
    pub fn free(&self) -> Result<usize, Error> {
        let Handle {
            index, generation, ..
        } = *self.0;
        let domain = &self.0.domain;
        if !domain.may_enter() {
            return Err(Error::new(Kind::WrongThread, "bufferevent", "free"));
        }
        let freed = || Error::new(Kind::Freed, "bufferevent", "free");
        if !domain.on_loop_thread() {
            let (unsent, closed) = self.on("free", |core, index| {
                let unsent = core.node(index).output.len();
                core.doom(index);
                Ok((unsent, core.facts.contains(Facts::CLOSED)))
            })?;
            // Nothing runs on a closed loop, so nobody else is in there: freed from here.
            if !closed {
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
            // What a layer holds back is output too.
            core.owe_flush(index);
            core.mark(index, Flags::FREE_WHEN_WRITTEN);
            core.deadline_started(index, Deadline::Drain);
            core.maybe_reap(index);
            Ok(())
        })
    }

    /// Has [`Event::Sent`](crate::Event::Sent) told, once, when all that was written has left the stack: at once if it has. What a layer
    /// holds back is sent for it, as by a flush; writing goes on.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn tell_when_sent(&self) -> Result<(), Error> {
        self.own("tell_when_sent", |core, index| {
            core.owe_flush(index);
            core.tell_sent(index);
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
            core.mark(index, Flags::CLOSING);
            let node = core.node(index);
            if !node.enabled.contains(Directions::READ) && node.read_end == End::Open {
                node.flags.insert(Flags::DISCARD);
                node.enabled.insert(Directions::READ);
            }
            node.enabled.insert(Directions::WRITE);
            core.want_end(index);
            core.opened(index, Directions::BOTH);
            core.set_deadlines(index, &[(Deadline::Close, Some(deadline))]);
            core.maybe_reap(index);
            Ok(())
        })
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
        self.output()
            .grow("write", bytes.len(), |output| output.append_slice(bytes))
    }

    /// Queues all of `buffer` for writing, moved and not copied.
    ///
    /// # Errors
    /// As [`write`](Self::write); `buffer` keeps its bytes then.
    #[doc(alias = "bufferevent_write_buffer")]
    pub fn write_buffer(&self, buffer: &mut EvBuffer) -> Result<(), Error> {
        self.output()
            .grow("write_buffer", buffer.len(), |output| output.append(buffer))
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

    /// Why the host's name could not be looked up, where that ended a connection by name; `None` where it was no such error.
    ///
    /// The same is in the event's error: [`Error::resolve_error`].
    #[doc(alias = "bufferevent_socket_get_dns_error")]
    #[must_use]
    pub fn dns_error(&self) -> Option<ResolveError> {
        self.peek(|node| {
            let error = node.extras.as_ref()?.read_error.as_ref()?;
            error.resolve_error().cloned()
        })
        .flatten()
    }

    /// Whether the options include `option`.
    #[must_use]
    pub fn has_option(&self, option: Options) -> bool {
        self.peek(|node| node.options.contains(option))
            .unwrap_or(false)
    }
}
