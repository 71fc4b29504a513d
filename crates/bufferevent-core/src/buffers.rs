//! The two buffers of a bufferevent, each through a handle that can do only what is allowed: [`Input`] takes from the
//! front, [`Output`] adds at the back.
//!
//! # Invariants
//! - No call here drops the user's own memory (a shared segment with an owner) inside the domain: it is carried out
//!   and dropped there.
//! - While a buffer is lent to user code further up the call stack, removals answer `Busy`; additions wait behind.

use bytes::Bytes;
use evbuffer::{Eol, EvBuffer, FileRegion};

use crate::bev::Bev;
use crate::core::Core;
use crate::domain::Lock;
use crate::error::{Error, Kind};
use crate::held;
use crate::node::{End, Flags, Index, Node};
use crate::published::Published;

/// What is added to an output.
pub(crate) enum Addition<'a> {
    Copied(&'a [u8]),
    Shared(Bytes),
    File(FileRegion),
    /// All of a buffer.
    Moved(&'a mut EvBuffer),
}

impl Addition<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::File(region) => region.len(),
            Self::Moved(buffer) => buffer.len(),
        }
    }

    #[inline(always)]
    pub(crate) fn add_to(self, output: &mut EvBuffer) -> Result<(), evbuffer::Error> {
        match self {
            Self::Copied(bytes) => output.append_slice(bytes),
            Self::Shared(bytes) => output.append_bytes(bytes),
            Self::File(region) => output.append_file(region),
            Self::Moved(buffer) => output.append(buffer),
        }
    }
}

/// Whether the limit on an output has yet to be asked.
#[derive(Clone, Copy)]
enum Limit {
    Ahead,
    /// The bytes were taken from somewhere that they cannot go back to.
    Passed,
}

/// The input buffer of a bufferevent: bytes are only taken from it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub(crate) &'a Bev);

/// The output buffer of a bufferevent: bytes are only added to it.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a>(pub(crate) &'a Bev);

impl Input<'_> {
    /// Bytes that wait. 0 also after the bufferevent was freed.
    #[doc(alias = "evbuffer_get_length")]
    #[doc(alias = "EVBUFFER_LENGTH")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0
            .peek(|node| node.input.len(), Published::input)
            .unwrap_or(0)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the input from the front; what leaves it is found from the lengths.
    #[inline]
    fn shrink<R>(
        &self,
        operation: &'static str,
        take: impl FnOnce(&mut EvBuffer) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.0.own(operation, |core, index| {
            let node = core.nodes.node(index);
            if node.flags.contains(Flags::INPUT_LENT) {
                return Err(Error::new(Kind::Busy, node.name(), operation));
            }
            let before = node.input.len();
            let result = take(&mut node.input);
            let lost = before - node.input.len();
            core.lost_input(index, lost);
            result
        })
    }

    /// Throws away up to `count` bytes from the front; returns how many.
    ///
    /// # Errors
    /// [`Kind::Busy`], [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "evbuffer_drain")]
    pub fn drain(&self, count: usize) -> Result<usize, Error> {
        let mut trash = EvBuffer::new();
        let drained = self.shrink("drain", |input| Ok(input.drain_into(count, &mut trash)));
        trash.forget_empty();
        drained
    }

    /// Takes bytes into `bytes`; returns how many.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    #[doc(alias = "evbuffer_remove")]
    pub fn remove(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut trash = EvBuffer::new();
        let removed = self.shrink("read", |input| {
            let count = input.copy_out(bytes);
            Ok(input.drain_into(count, &mut trash))
        });
        trash.forget_empty();
        removed
    }

    /// Moves up to `count` bytes behind what `buffer` holds, without copying; returns how many.
    ///
    /// # Errors
    /// As [`drain`](Self::drain); [`Kind::OutOfMemory`] where a segment had to be split.
    #[doc(alias = "evbuffer_remove_buffer")]
    #[doc(alias = "evbuffer_add_buffer")]
    pub fn move_to(&self, count: usize, buffer: &mut EvBuffer) -> Result<usize, Error> {
        self.shrink("read_buffer", |input| {
            input
                .move_to(count, buffer)
                .map_err(|error| refused("read_buffer", error))
        })
    }

    /// Copies bytes from the front without taking them; returns how many.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    #[doc(alias = "evbuffer_copyout")]
    pub fn copy_out(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        self.shrink("copy_out", |input| Ok(input.copy_out(bytes)))
    }

    /// Takes a line without its end; `None` when no whole line is there.
    ///
    /// # Errors
    /// [`Kind::Peer`] when more than `max_len` bytes came without an end of line, and the rest as [`drain`](Self::drain).
    /// Nothing is taken then.
    #[doc(alias = "evbuffer_readln")]
    #[doc(alias = "evbuffer_readline")]
    pub fn read_line(&self, eol: Eol, max_len: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut trash = EvBuffer::new();
        self.shrink("read_line", |input| {
            let found = input
                .find_eol(eol)
                .map_err(|error| refused("read_line", error))?
                .map(|end| (end.position.offset(), end.len));
            let Some((length, end)) = found.filter(|(length, _)| *length <= max_len) else {
                if found.is_some() || input.len() > max_len {
                    return Err(Error::new(Kind::Peer, "bufferevent", "read_line"));
                }
                return Ok(None);
            };
            let mut line = vec![0; length];
            input.copy_out(&mut line);
            input.drain_into(length + end, &mut trash);
            Ok(Some(line))
        })
    }

    /// The offset of the first `needle`, in bytes from the front.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    #[doc(alias = "evbuffer_search")]
    #[doc(alias = "evbuffer_find")]
    pub fn find(&self, needle: &[u8]) -> Result<Option<usize>, Error> {
        self.shrink("find", |input| {
            let found = input
                .search(needle)
                .map_err(|error| refused("find", error))?;
            Ok(found.map(|position| position.offset()))
        })
    }

    /// Runs `look` on the first `count` bytes in one piece, or all if there are fewer. Meanwhile they are lent:
    /// a removal from inside answers [`Kind::Busy`].
    ///
    /// # Errors
    /// As [`drain`](Self::drain), and [`Kind::OutOfMemory`].
    #[doc(alias = "evbuffer_pullup")]
    #[doc(alias = "evbuffer_peek")]
    #[doc(alias = "EVBUFFER_DATA")]
    pub fn with_contiguous<R>(
        &self,
        count: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Error> {
        self.0.lend_input("with_contiguous", |input| {
            let count = count.min(input.len());
            match input.pull_up(count) {
                Ok(bytes) => Ok(look(&bytes[..count])),
                Err(error) => Err(refused("with_contiguous", error)),
            }
        })?
    }
}

impl Output<'_> {
    /// Bytes that wait to be sent. 0 also after the bufferevent was freed.
    #[must_use]
    pub fn len(&self) -> usize {
        let queued = self
            .0
            .peek(|node| node.output.len(), Published::output)
            .unwrap_or(0);
        queued + self.0.posted()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds at the back.
    #[inline]
    pub(crate) fn grow(
        &self,
        operation: &'static str,
        addition: Addition<'_>,
    ) -> Result<(), Error> {
        self.grow_up_to(operation, addition, Limit::Ahead)
    }

    #[inline(always)]
    fn grow_up_to(
        &self,
        operation: &'static str,
        addition: Addition<'_>,
        limit: Limit,
    ) -> Result<(), Error> {
        match self.0.0.domain().enter_to_add(operation)? {
            Some(lock) => self.grow_within(lock, operation, addition),
            None => self.grow_later(operation, addition, limit),
        }
    }

    /// Adds at the back, with the lock held.
    #[inline(always)]
    fn grow_within(
        &self,
        lock: Lock<'_>,
        operation: &'static str,
        addition: Addition<'_>,
    ) -> Result<(), Error> {
        self.0.0.domain().change(lock, |core| {
            let index = self.0.top_node_of(core, operation)?;
            let count = addition.len();
            core.may_write(index, operation, count)?;
            let added = addition.add_to(&mut core.node(index).output);
            added.map_err(|error| refused(operation, error))?;
            core.gained_output(index, count);
            Ok(())
        })
    }

    /// Adds at the back when the lock is free: by the inbox, if that takes it in.
    fn grow_later(
        &self,
        operation: &'static str,
        addition: Addition<'_>,
        limit: Limit,
    ) -> Result<(), Error> {
        let limited = match limit {
            Limit::Ahead => addition.len(),
            Limit::Passed => 0,
        };
        match self.0.may_post(operation, limited) {
            Ok(()) => return self.0.post_bytes(operation, addition),
            Err(error) if held::anything() => return Err(error),
            // Or so it looks from outside. Who holds nothing can wait, and hear how it is.
            Err(_) => {}
        }
        match self.0.0.domain().enter_unless_busy(operation)? {
            Some(lock) => self.grow_within(lock, operation, addition),
            None => Err(Error::new(Kind::Busy, "bufferevent", operation)),
        }
    }

    /// Adds a copy of `bytes`. The same as [`Bev::write`].
    ///
    /// # Errors
    /// As [`Bev::write`].
    #[doc(alias = "evbuffer_add")]
    pub fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        self.0.write(bytes)
    }

    /// Adds shared bytes without copying.
    ///
    /// # Errors
    /// As [`Bev::write`].
    #[doc(alias = "evbuffer_add_reference")]
    pub fn append_bytes(&self, bytes: Bytes) -> Result<(), Error> {
        self.grow("append_bytes", Addition::Shared(bytes))
    }

    /// Adds a range of a file. A socket sends it without it ever entering this process, where the system can.
    ///
    /// # Errors
    /// As [`Bev::write`].
    #[doc(alias = "evbuffer_add_file")]
    #[doc(alias = "evbuffer_add_file_segment")]
    pub fn append_file(&self, region: FileRegion) -> Result<(), Error> {
        self.grow("append_file", Addition::File(region))
    }

    /// Moves all that waits in `input` behind what is here, without copying; returns how many bytes. `input` may be
    /// this bufferevent's own, or another's.
    ///
    /// ```
    /// # fn echo(bev: &bufferevent_core::Bev) -> Result<(), bufferevent_core::Error> {
    /// bev.output().append_from(&bev.input())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Bev::write`] for here, as [`Input::drain`] for there. Nothing was moved then.
    #[doc(alias = "evbuffer_add_buffer")]
    #[doc(alias = "bufferevent_read_buffer")]
    pub fn append_from(&self, input: &Input<'_>) -> Result<usize, Error> {
        const OPERATION: &str = "append_from";
        let (here, there) = (&self.0.0, &input.0.0);
        if std::sync::Arc::ptr_eq(here, there) {
            return self.turn_around(OPERATION);
        }
        if std::sync::Arc::ptr_eq(here.domain(), there.domain()) {
            return self.0.own(OPERATION, |core, to| {
                let Some(source) = core.find_mut(there.index(), there.generation()) else {
                    return Err(Error::new(Kind::Freed, "bufferevent", OPERATION));
                };
                let refusal = if source.covered() {
                    Some(Kind::Covered)
                } else if source.flags.contains(Flags::INPUT_LENT) {
                    Some(Kind::Busy)
                } else {
                    None
                };
                if let Some(kind) = refusal {
                    return Err(Error::new(kind, source.name(), OPERATION));
                }
                let count = source.input.len();
                core.may_write(to, OPERATION, count)?;
                let mut moving = std::mem::take(&mut core.node(there.index()).input);
                if let Err(error) = core.node(to).output.append(&mut moving) {
                    core.node(there.index()).input = moving;
                    return Err(refused(OPERATION, error));
                }
                core.lost_input(there.index(), count);
                core.gained_output(to, count);
                Ok(count)
            });
        }
        // Another domain: asked first, so that what was taken out there need not go back.
        let waiting = input.len();
        let may = self
            .0
            .own(OPERATION, |core, to| core.may_write(to, OPERATION, waiting));
        match may {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Busy => self.0.may_post(OPERATION, waiting)?,
            Err(error) => return Err(error),
        }
        let mut moving = EvBuffer::new();
        let count = input.move_to(waiting, &mut moving)?;
        let grown = self.grow_up_to(OPERATION, Addition::Moved(&mut moving), Limit::Passed);
        if let Err(error) = grown {
            input.give_back(&mut moving);
            return Err(error);
        }
        Ok(count)
    }
}

impl Output<'_> {
    /// Moves this bufferevent's own input to its output: an echo.
    fn turn_around(&self, operation: &'static str) -> Result<usize, Error> {
        let here = &self.0.0;
        here.domain().operate(operation, |core| {
            if let Some(node) = core.nodes.lone()
                && node.generation == here.generation()
                && node.is_handled()
            {
                let count = node.input.len();
                node.output
                    .append(&mut node.input)
                    .map_err(|error| refused(operation, error))?;
                if node.turned_around() {
                    core.check_pressure(here.index());
                }
                return Ok(count);
            }
            core.turn_around(here.index(), here.generation(), operation)
        })?
    }
}

impl Bev {
    /// Adds bytes that were posted: whatever the limit on the output says, they were taken in.
    pub(crate) fn write_posted(
        &self,
        operation: &'static str,
        bytes: &mut EvBuffer,
    ) -> Result<(), Error> {
        self.own(operation, |core, index| {
            let node = core.node(index);
            if node.write_end != End::Open {
                return Err(Error::new(Kind::Ended, node.name(), operation));
            }
            let count = bytes.len();
            let added = node.output.append(bytes);
            added.map_err(|error| refused(operation, error))?;
            core.gained_output(index, count);
            Ok(())
        })
    }
}

impl Core {
    /// Moves a node's own input to its output, whatever else is to be looked at.
    #[inline(never)]
    fn turn_around(
        &mut self,
        index: Index,
        generation: u32,
        operation: &'static str,
    ) -> Result<usize, Error> {
        let Some(node) = self.find_mut(index, generation) else {
            return Err(Error::new(Kind::Freed, "bufferevent", operation));
        };
        let refusal = if node.covered() {
            Some(Kind::Covered)
        } else if node.flags.contains(Flags::INPUT_LENT) {
            Some(Kind::Busy)
        } else {
            None
        };
        if let Some(kind) = refusal {
            return Err(Error::new(kind, node.name(), operation));
        }
        let count = node.input.len();
        node.may_write(operation, count)?;
        let Node { input, output, .. } = node;
        output
            .append(input)
            .map_err(|error| refused(operation, error))?;
        self.lost_input(index, count);
        self.gained_output(index, count);
        Ok(count)
    }
}

impl Input<'_> {
    /// Puts bytes back to the front that were taken and could not be delivered.
    fn give_back(&self, bytes: &mut EvBuffer) {
        let mut bytes = std::mem::take(bytes);
        // Freed meanwhile: then there is no place to give them back to.
        let _ = self.0.told_on("append_from", move |core, index| {
            core.node(index)
                .input
                .prepend(&mut bytes)
                .map_err(|error| refused("append_from", error))
        });
    }
}

impl Core {
    /// Whether `count` bytes may be added to the output now.
    fn may_write(
        &mut self,
        index: Index,
        operation: &'static str,
        count: usize,
    ) -> Result<(), Error> {
        self.node(index).may_write(operation, count)
    }
}

impl Node {
    /// Whether `count` bytes may be added to the output now.
    #[inline]
    fn may_write(&self, operation: &'static str, count: usize) -> Result<(), Error> {
        if self.write_end != End::Open {
            return Err(Error::new(Kind::Ended, self.name(), operation));
        }
        if let Some(extras) = &self.extras
            && extras.max_output != 0
            && self.output.len().saturating_add(count) > extras.max_output
        {
            return Err(Error::new(Kind::Full, self.name(), operation));
        }
        Ok(())
    }
}

/// What a refusal of the buffer means here.
pub(crate) fn refused(operation: &'static str, error: evbuffer::Error) -> Error {
    let kind = match error.kind() {
        evbuffer::ErrorKind::OutOfMemory => Kind::OutOfMemory,
        evbuffer::ErrorKind::Io => Kind::System,
        _ => Kind::Misuse,
    };
    Error::new(kind, "evbuffer", operation).with_source(error)
}
