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
use evreactor_core::sync::Arc;
use evreactor_core::sync::atomic::{AtomicU32, Ordering};
use evreactor_core::{Host, Phase};

use crate::buffers::{Addition, Input, Output};
use crate::core::{Core, Facts};
use crate::direction::Directions;
use crate::domain::{Call, Domain, Key, Lock};
use crate::error::{Error, Kind};
use crate::event::Deadline;
use crate::life;
use crate::node::{End, Flags, Index, Node};
use crate::options::Options;
use crate::published::{Is, Published};
use crate::pump::{self, Listed};
use crate::resolve::ResolveError;

/// What a handle points to: where a node is, and how many hold on to it.
///
/// Each connection has one. What only a THREADSAFE bufferevent needs makes another kind of it, so that it costs the others nothing.
pub(crate) enum Handle {
    Confined {
        domain: Arc<Domain>,
        index: Index,
        generation: u32,
        /// The node's own and the users'.
        holders: AtomicU32,
    },
    Shared {
        seen: Box<Seen>,
        index: Index,
        generation: u32,
        /// As above.
        holders: AtomicU32,
    },
}

/// Of a THREADSAFE bufferevent: its domain, and what can be seen without the lock.
pub(crate) struct Seen {
    domain: Arc<Domain>,
    published: Published,
}

impl Handle {
    #[inline]
    pub(crate) fn domain(&self) -> &Arc<Domain> {
        match self {
            Self::Confined { domain, .. } => domain,
            Self::Shared { seen, .. } => &seen.domain,
        }
    }

    #[inline]
    pub(crate) fn index(&self) -> Index {
        match self {
            Self::Confined { index, .. } | Self::Shared { index, .. } => *index,
        }
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        match self {
            Self::Confined { generation, .. } | Self::Shared { generation, .. } => *generation,
        }
    }

    /// Index and generation.
    #[inline]
    pub(crate) fn place(&self) -> (Index, u32) {
        (self.index(), self.generation())
    }

    #[inline]
    fn holders(&self) -> &AtomicU32 {
        match self {
            Self::Confined { holders, .. } | Self::Shared { holders, .. } => holders,
        }
    }

    #[inline]
    pub(crate) fn published(&self) -> Option<&Published> {
        match self {
            Self::Confined { .. } => None,
            Self::Shared { seen, .. } => Some(&seen.published),
        }
    }

    /// Has the loop see whether the node has lost its last user. `false` if the loop is gone.
    pub(crate) fn orphaned_later(&self) -> bool {
        let (index, generation) = self.place();
        let key = Key {
            call: Call::Orphan,
            index,
            generation,
        };
        let domain = self.domain();
        let scheduled = domain
            .host()
            .schedule(Phase::Turn, domain.clone(), key.pack());
        scheduled.is_ok()
    }
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

impl Clone for Bev {
    #[inline]
    fn clone(&self) -> Self {
        self.0.holders().fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl Drop for Bev {
    #[inline]
    fn drop(&mut self) {
        // The node's own handle is left: nobody holds on to it from outside.
        if self.0.holders().fetch_sub(1, Ordering::AcqRel) == 2 {
            self.last_user_left();
        }
    }
}

impl fmt::Debug for Bev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bev")
            .field("index", &self.0.index())
            .field("generation", &self.0.generation())
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
        let holders = AtomicU32::new(2);
        let handle = Arc::new(if domain.threadsafe() {
            let published = core.to_publish(index);
            Handle::Shared {
                seen: Box::new(Seen { domain, published }),
                index,
                generation,
                holders,
            }
        } else {
            Handle::Confined {
                domain,
                index,
                generation,
                holders,
            }
        });
        let node = core.node(index);
        node.own = Arc::downgrade(&handle);
        node.me = Some(Self(handle.clone()));
        Self(handle)
    }

    /// Another handle of a node, also while its own is out because its handler runs.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        Some(Self::user_of(node.own.upgrade()?))
    }

    /// Another handle of what `handle` names.
    pub(crate) fn user_of(handle: Arc<Handle>) -> Self {
        handle.holders().fetch_add(1, Ordering::Relaxed);
        Self(handle)
    }

    /// How many user handles there are.
    pub(crate) fn users(&self) -> u32 {
        self.0.holders().load(Ordering::Acquire).saturating_sub(1)
    }

    #[cold]
    fn last_user_left(&self) {
        let domain = self.0.domain();
        if domain.on_loop_thread() {
            pump::list(Listed::Orphan(self.0.clone()));
            return;
        }
        if !self.0.orphaned_later() {
            let (index, generation) = self.0.place();
            // The loop is gone and nothing runs any more, so nobody is in there for long, and waits: free it from here.
            let cell = domain.keep(domain.lock_in_order());
            life::free(&cell, index, generation);
        }
    }

    /// Enters the domain for an operation on this node.
    pub(crate) fn on<R>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Core, Index) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (index, generation) = self.0.place();
        self.0.domain().operate(operation, |core| {
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
        let (index, generation) = self.0.place();
        self.0.domain().operate(operation, |core| {
            match core.nodes.find_mut(index, generation) {
                None => Err(Error::new(Kind::Freed, "bufferevent", operation)),
                Some(node) if node.covered() => {
                    Err(Error::new(Kind::Covered, node.name(), operation))
                }
                Some(_) => change(core, index),
            }
        })?
    }

    /// A look at the node, or `None` where it is gone. While another thread is in the domain, a look at what was published.
    ///
    /// # Panics
    /// On another thread than the loop's, without THREADSAFE.
    #[inline]
    pub(crate) fn peek<R>(
        &self,
        look: impl FnOnce(&Node) -> R,
        busy: impl FnOnce(&Published) -> R,
    ) -> Option<R> {
        match self.glance() {
            Some(cell) => {
                let core = cell.borrow();
                core.find(self.0.index(), self.0.generation()).map(look)
            }
            None => {
                let published = self.published()?;
                (!published.is(Is::FREED)).then(|| busy(published))
            }
        }
    }

    /// The lock, for a look; `None` while another thread has it, and for a visitor, to whom all is published: so the loop never finds
    /// the lock with somebody who only looks.
    ///
    /// # Panics
    /// On another thread than the loop's, without THREADSAFE.
    #[inline]
    pub(crate) fn glance(&self) -> Option<Lock<'_>> {
        self.assert_thread();
        let domain = self.0.domain();
        if domain.is_visited() {
            return None;
        }
        domain.try_lock()
    }

    /// # Panics
    /// On another thread than the loop's, without THREADSAFE.
    #[inline]
    pub(crate) fn assert_thread(&self) {
        assert!(
            self.0.domain().may_enter(),
            "a bufferevent was looked at from a thread that is not its loop's; make it with Options::THREADSAFE"
        );
    }

    #[inline]
    pub(crate) fn published(&self) -> Option<&Published> {
        self.0.published()
    }

    /// The loop it runs on.
    #[doc(alias = "bufferevent_get_base")]
    #[must_use]
    pub fn host(&self) -> Arc<dyn Host> {
        self.0.domain().host().clone()
    }

    /// Whether it was freed.
    ///
    /// # Panics
    /// On another thread than the loop's, without THREADSAFE. So do all looks that answer a plain value.
    #[must_use]
    pub fn is_freed(&self) -> bool {
        self.peek(|_| (), |_| ()).is_none()
    }

    /// Frees the bufferevent: no callback of it begins from here on, queued output is dropped, and with
    /// [`Options::CLOSE_ON_FREE`] the bufferevents below go too. Legal inside any callback. Returns how many bytes were
    /// never sent.
    ///
    /// From another thread than the loop's (THREADSAFE) it is done in the loop's next turn; no callback begins until then either, but
    /// for one that is due before this call is heard of, if the thread holds another bufferevent's lock and this one is busy.
    ///
    /// # Errors
    /// [`Kind::Freed`] if it is gone already; [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_free")]
    #[doc(alias = "bufferevent_decref")]
    pub fn free(&self) -> Result<usize, Error> {
        let (index, generation) = self.0.place();
        let domain = self.0.domain();
        let freed = || Error::new(Kind::Freed, "bufferevent", "free");
        let lock = match domain.enter("free") {
            Ok(lock) => lock,
            Err(error) if error.kind() == Kind::Busy => return self.free_later(),
            Err(error) => return Err(error),
        };
        let cell = domain.keep(lock);
        // What waited is in the output now, unless this is called from inside: then it will find that this is gone.
        let posted = self.posted();
        if !domain.on_loop_thread() {
            let (unsent, closed) = self.on("free", |core, index| {
                let unsent = core.node(index).output.len();
                core.doom(index);
                Ok((unsent, core.facts.contains(Facts::CLOSED)))
            })?;
            // Nothing runs on a closed loop, so nobody else is in there: freed from here.
            if !closed {
                return Ok(unsent + posted);
            }
        }
        let unsent = life::free(&cell, index, generation).ok_or_else(freed)?;
        drop(cell);
        // What the freeing made possible elsewhere in the domain: the partner's EOF, the one below uncovered.
        domain.operate("free", |_| ())?;
        Ok(unsent + posted)
    }

    /// The domain is busy, and this thread cannot wait: the loop frees it.
    #[cold]
    fn free_later(&self) -> Result<usize, Error> {
        let unsent = self.published().map_or(0, Published::output) + self.posted();
        self.post("free", Box::new(|bev| bev.free().map(drop)))?;
        Ok(unsent)
    }

    /// Frees the bufferevent once all its output is out, whatever else goes on.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn free_when_written(&self) -> Result<(), Error> {
        self.told_on("free_when_written", |core, index| {
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
        self.told_own("close", move |core, index| {
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
        self.output().grow("write", Addition::Copied(bytes))
    }

    /// Queues all of `buffer` for writing, moved and not copied.
    ///
    /// # Errors
    /// As [`write`](Self::write); `buffer` keeps its bytes then.
    #[doc(alias = "bufferevent_write_buffer")]
    pub fn write_buffer(&self, buffer: &mut EvBuffer) -> Result<(), Error> {
        self.output().grow("write_buffer", Addition::Moved(buffer))
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
        let Some(cell) = self.glance() else {
            return Published::room(&self.0);
        };
        let core = cell.borrow();
        let mut index = self.0.index();
        if core.find(index, self.0.generation()).is_none() {
            return 0;
        }
        let mut queued = self.posted();
        while let Some(node) = core.get(index) {
            queued = queued.saturating_add(node.output.len());
            if node.write_mark.high() != 0 {
                return node.write_mark.room(queued);
            }
            index = node.below;
        }
        usize::MAX
    }

    /// Whether the output stands at or above its write high-water mark, as [`Pressure::Full`](crate::Pressure::Full) tells: then
    /// [`Pressure::Eased`](crate::Pressure::Eased) will follow. For a relay across loops: who sees this and stops will hear when to go on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let domain = self.0.domain();
        // What this thread has written counts, if it can be seen now what comes of it.
        if domain.is_visited()
            && let Some(lock) = domain.try_lock()
        {
            domain.catch_up(&lock);
        }
        self.peek(
            |node| node.flags.contains(Flags::FULL),
            |published| published.is(Is::FULL),
        )
        .unwrap_or(false)
    }

    /// What has passed through, and what waits.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = self.peek(
            |node| Stats {
                read: node.bytes_read,
                written: node.bytes_written,
                input: node.input.len(),
                output: node.output.len(),
            },
            Published::stats,
        );
        let mut stats = stats.unwrap_or_default();
        stats.output += self.posted();
        stats
    }

    /// Why the host's name could not be looked up, where that ended a connection by name; `None` where it was no such error.
    ///
    /// The same is in the event's error: [`Error::resolve_error`].
    #[doc(alias = "bufferevent_socket_get_dns_error")]
    #[must_use]
    pub fn dns_error(&self) -> Option<ResolveError> {
        self.peek(
            |node| node.resolve_error().cloned(),
            Published::resolve_error,
        )
        .flatten()
    }

    /// Whether the options include `option`.
    #[must_use]
    pub fn has_option(&self, option: Options) -> bool {
        self.peek(
            |node| node.options.contains(option),
            |published| published.options().contains(option),
        )
        .unwrap_or(false)
    }
}
