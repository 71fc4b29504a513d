//! The polls: each looks at the bufferevent, and leaves a waker where it has to wait.
//!
//! # Invariants
//! - One look at the bufferevent is one entry into its domain: what it answers was all true at once.
//! - No answer is `WouldBlock` or `Interrupted`: who has to wait is pending.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use evbuffer::EvBuffer;
use futures_io::{AsyncRead, AsyncWrite};

use super::{AsyncBev, Elapsed};
use crate::buffers::refused;
use crate::core::{Core, Facts};
use crate::direction::{Direction, Directions};
use crate::error::{Error, Kind};
use crate::node::{End, Flags, Index, Link, NONE, Node};
use crate::options::Mode;
use crate::task::proceed;

/// Whether a look is the last one before the wait: only then is it worth asking to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    First,
    Last,
}

type Looked<T> = Poll<Result<T, Error>>;

impl AsyncBev {
    /// Looks; where there is nothing, leaves the waker, and looks again: what came in between has found no waker.
    pub(super) fn poll_by<T>(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut look: impl FnMut(&mut Self, Look) -> Looked<T>,
    ) -> Poll<io::Result<T>> {
        ready!(proceed(cx));
        if let Poll::Ready(done) = look(self, Look::First) {
            return Poll::Ready(done.map_err(told));
        }
        let woken = self.waiting.wait(direction, cx.waker());
        if let Poll::Ready(done) = look(self, Look::Last) {
            return Poll::Ready(done.map_err(told));
        }
        if let Some(deadline) = self.waiting.take_passed(direction) {
            self.go_on(direction);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                Elapsed(deadline),
            )));
        }
        if woken {
            return Poll::Pending;
        }
        // Not freed, else the look had found that: its handler is another's now, or went with the loop.
        let closed = self
            .bev
            .on("poll", |core, _| Ok(core.facts.contains(Facts::CLOSED)));
        let error = closed.map_or_else(
            |error| error,
            |closed| {
                let kind = if closed {
                    Kind::LoopClosed
                } else {
                    Kind::Misuse
                };
                Error::new(kind, "async", "poll")
            },
        );
        Poll::Ready(Err(told(error)))
    }

    /// A timeout disables its direction; who goes on after it means to.
    fn go_on(&self, direction: Direction) {
        // Freed, or ended: the next look tells.
        let _ = self.bev.own("poll", |core, index| {
            let node = core.node(index);
            let (end, what) = match direction {
                Direction::Read => (node.read_end, Directions::READ),
                Direction::Write => (node.write_end, Directions::WRITE),
            };
            if matches!(end, End::Open | End::Wanted) && !node.enabled.contains(what) {
                node.enabled.insert(what);
                core.opened(index, what);
            }
            Ok(())
        });
    }

    fn try_read(&self, bytes: &mut [u8]) -> Looked<usize> {
        let mut trash = EvBuffer::new();
        let looked = self.bev.own("read", |core, index| {
            let node = core.nodes.node(index);
            if node.flags.contains(Flags::INPUT_LENT) {
                return Err(Error::new(Kind::Busy, node.name(), "read"));
            }
            if !node.input.is_empty() {
                let count = node.input.copy_out(bytes);
                let count = node.input.drain_into(count, &mut trash);
                core.lost_input(index, count);
                return Ok(Some(count));
            }
            match node.read_end {
                End::Open | End::Wanted => Ok(None),
                End::Done => Ok(Some(0)),
                End::Failed => Err(read_failure(node)),
            }
        });
        // Shared memory with an owner of the user's is dropped here, outside.
        trash.forget_empty();
        looked.transpose_poll()
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>], look: Look) -> Looked<usize> {
        let looked = self.bev.own("write", |core, index| {
            let node = core.nodes.node(index);
            match node.write_end {
                End::Open => {}
                End::Failed => return Err(write_failure(node)),
                End::Wanted | End::Done => {
                    return Err(Error::new(Kind::Ended, node.name(), "write"));
                }
            }
            let max = match &node.extras {
                Some(extras) if extras.max_output != 0 => extras.max_output,
                _ => usize::MAX,
            };
            let limit = node.write_mark.limit().min(max);
            let mut room = limit.saturating_sub(node.output.len());
            if room == 0 {
                // Falling below its mark is told; falling below `max_output` is not.
                if look == Look::Last && max < node.write_mark.limit() {
                    core.tell_sent(index);
                }
                return Ok(None);
            }
            let mut count = 0;
            for slice in slices {
                let taken = &slice[..slice.len().min(room)];
                match node.output.append_slice(taken) {
                    Ok(()) => {}
                    Err(_) if count > 0 => break,
                    Err(error) => return Err(refused("write", error)),
                }
                count += taken.len();
                room -= taken.len();
            }
            core.gained_output(index, count);
            Ok(Some(count))
        });
        self.unflushed |= matches!(looked, Ok(Some(_)));
        looked.transpose_poll()
    }

    fn try_flush(&mut self, look: Look) -> Looked<()> {
        if self.unflushed {
            self.unflushed = false;
            let _moved = self.bev.flush(Direction::Write, Mode::Flush)?;
        }
        let looked = self.bev.own("flush", |core, index| {
            let node = core.nodes.node(index);
            if node.write_end == End::Failed {
                return Err(write_failure(node));
            }
            if core.all_sent(index) {
                return Ok(Some(()));
            }
            if look == Look::Last {
                core.tell_sent(index);
            }
            Ok(None)
        });
        looked.transpose_poll()
    }

    fn try_close(&mut self) -> Looked<()> {
        if !self.closing {
            self.closing = true;
            match self.bev.finish() {
                // Ended by another handle, or failed: the look tells which.
                Err(error) if error.kind() != Kind::Ended => return Poll::Ready(Err(error)),
                _ => {}
            }
        }
        let looked = self.bev.own("close", |core, index| core.end_sent(index));
        looked.transpose_poll()
    }

    pub(super) fn try_connected(&mut self) -> Looked<()> {
        let looked = self.bev.own("connect", |core, index| {
            let node = core.nodes.node(index);
            match (node.read_end, node.link) {
                (End::Failed, Link::Idle | Link::Connecting) => Err(read_failure(node)),
                (_, Link::Open) => Ok(Some(())),
                (_, Link::Idle | Link::Connecting) => Ok(None),
            }
        });
        looked.transpose_poll()
    }
}

impl Core {
    /// Whether the end mark of a whole stack is out.
    fn end_sent(&self, top: Index) -> Result<Option<()>, Error> {
        let mut index = top;
        while let Some(node) = self.get(index) {
            match node.write_end {
                End::Open | End::Wanted => return Ok(None),
                End::Failed => return Err(write_failure(node)),
                End::Done if node.flags.contains(Flags::ENDS_ALONE) => return Ok(Some(())),
                End::Done => index = node.below,
            }
        }
        debug_assert_eq!(index, NONE);
        Ok(Some(()))
    }
}

/// Why nothing more can be read.
fn read_failure(node: &Node) -> Error {
    let error = node
        .extras
        .as_ref()
        .and_then(|extras| extras.read_error.clone());
    error.unwrap_or_else(|| Error::new(Kind::Ended, node.name(), "read"))
}

/// Why nothing more can be written. A connection that never stood has failed in one place for both directions.
fn write_failure(node: &Node) -> Error {
    let error = node.extras.as_ref().and_then(|extras| {
        let error = extras.write_error.as_ref();
        error.or(extras.read_error.as_ref()).cloned()
    });
    error.unwrap_or_else(|| Error::new(Kind::Ended, node.name(), "write"))
}

/// An error as the traits of async/await have it.
fn told(error: Error) -> io::Error {
    match error.kind() {
        // Would be `WouldBlock`, which says "wait" to those who wait by hand.
        Kind::Busy | Kind::Full => io::Error::new(io::ErrorKind::ResourceBusy, error),
        _ => error.into(),
    }
}

/// "Nothing yet" as a poll has it.
trait TransposePoll<T> {
    fn transpose_poll(self) -> Looked<T>;
}

impl<T> TransposePoll<T> for Result<Option<T>, Error> {
    fn transpose_poll(self) -> Looked<T> {
        match self {
            Ok(Some(value)) => Poll::Ready(Ok(value)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for AsyncBev {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        this.poll_by(cx, Direction::Read, |this, _| this.try_read(bytes))
    }
}

impl AsyncWrite for AsyncBev {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        this.poll_by(cx, Direction::Write, |this, look| {
            this.try_write(slices, look)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_by(cx, Direction::Write, Self::try_flush)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_by(cx, Direction::Write, |this, _| this.try_close())
    }
}
