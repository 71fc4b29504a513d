//! `AsyncBev`: a bufferevent as `AsyncRead` and `AsyncWrite`, for code that is written for async/await.
//!
//! It takes the place of the handler: what a callback would be called for, a waiting future is woken for. Everything else is as it
//! was: layers, marks, timeouts, limits, from the handle that [`bev`](AsyncBev::bev) returns.
//!
//! # Invariants
//! - Whether bytes can move is asked of the bufferevent at each poll and not stored here; a waker is all that is kept. So an event
//!   that is told late, or twice, changes nothing.
//! - No wake-up is lost: a poll leaves its waker behind *first* and then looks a last time, also where another thread polls.
//! - A future that waits is woken by what ends its wait, or by the end of the handler: freed, replaced, loop gone. Nothing is polled in
//!   vain.
//! - Bytes that came before an end are read before it; an error stays, and never turns into a clean end of the stream.

mod poll;
mod wait;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use evreactor_core::sync::{Arc, Mutex};
use evreactor_core::{Phase, Ready, Target};

use crate::bev::Bev;
use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::error::{Error, Kind};
use crate::event::Deadline;
use crate::handler::{Handler, Interest};
use crate::node::{End, Flags, Index, Pending};
use wait::{Rouse, Waiting};

/// The high marks that a bufferevent gets where it has none, in bytes: what waits to be read, and what waits to be written in each layer of
/// its stack. One read of a transport.
pub const DEFAULT_MARK: usize = 64 * 1024;

/// How long what was written may take to leave after an [`AsyncBev`] was dropped, unless [`Deadline::Drain`] was set.
pub const LINGER: Duration = Duration::from_secs(30);

/// A bufferevent for async/await.
///
/// - A **read** waits until the read low mark is reached or the stream has ended, and takes what is there. The read high mark bounds what
///   waits to be read.
/// - A **write** takes what fits below the write high mark, and waits where nothing does.
/// - A **flush** has every layer send what it holds, and waits until the transport has taken all.
/// - A **close** ends the stream gracefully: each layer's own end mark behind the last byte (zlib's end, TLS's close_notify), then
///   a half-close; it waits until that is out. Reading goes on.
/// - A **timeout** of the bufferevent is an error of kind `TimedOut` with [`Elapsed`] inside, once; then the direction goes on.
/// - **Dropping** it gives the bufferevent up: what was written still leaves, within [`LINGER`]. Without a close before, no layer's
///   end mark is sent, so that the peer of a TLS or zlib stack can tell a stream that broke off from one that ended.
///
/// ```
/// use bufferevent_core::AsyncBev;
/// use bufferevent_core::task::spawn_local;
/// use futures_util::io::{AsyncReadExt, AsyncWriteExt};
/// # let events = bufferevent_testkit::Loop::new();
/// # let (near, far) = bufferevent_pair::pair(&events)?;
/// let mut near = AsyncBev::new(near)?;
/// let mut far = AsyncBev::new(far)?;
/// let echo = spawn_local(&events, async move {
///     let mut line = [0; 5];
///     far.read_exact(&mut line).await?;
///     far.write_all(&line).await?;
///     far.close().await
/// })?;
/// let asked = spawn_local(&events, async move {
///     near.write_all(b"hello").await?;
///     let mut answer = String::new();
///     near.read_to_string(&mut answer).await?;
///     std::io::Result::Ok(answer)
/// })?;
/// # let answer = std::rc::Rc::new(std::cell::OnceCell::new());
/// # let got = answer.clone();
/// # spawn_local(&events, async move { got.set(asked.await.unwrap().unwrap()).unwrap() })?;
/// # events.run();
/// # assert!(echo.is_over());
/// # assert_eq!(answer.get().unwrap(), "hello");
/// # Ok::<(), bufferevent_core::Error>(())
/// ```
pub struct AsyncBev {
    bev: Bev,
    waiting: Arc<Waiting>,
    /// Bytes were written that no flush was asked for.
    unflushed: bool,
    /// The end of the output was asked for.
    closing: bool,
    /// The bufferevent goes on without this.
    kept: bool,
}

/// A deadline of a bufferevent has passed: what is inside an I/O error of kind `TimedOut`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Elapsed(pub Deadline);

impl AsyncBev {
    /// Takes a bufferevent over: replaces its handler, enables reading, and sets a high mark of [`DEFAULT_MARK`] wherever its stack has none.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn new(bev: Bev) -> Result<Self, Error> {
        let waiting = Arc::new(Waiting::default());
        bev.set_handler(Rouse(waiting.clone()))?;
        bev.own("async", |core, index| {
            core.bound(index);
            let node = core.node(index);
            if node.read_end == End::Open {
                node.enabled.insert(Directions::READ);
                node.flags.remove(Flags::DISCARD);
                core.opened(index, Directions::READ);
            }
            Ok(())
        })?;
        Ok(Self {
            bev,
            waiting,
            unflushed: true,
            closing: false,
            kept: false,
        })
    }

    /// The bufferevent: for its marks, timeouts, layers. Whoever sets another handler, or frees it, ends the waits here with an error.
    #[must_use]
    pub fn bev(&self) -> &Bev {
        &self.bev
    }

    /// Gives the bufferevent back, without a handler, with what is unread and unsent.
    #[must_use]
    pub fn into_inner(mut self) -> Bev {
        self.kept = true;
        // Freed or covered meanwhile: then there is no handler to remove.
        let _ = self.bev.replace_handler(None);
        let _ = self.bev.own("into_inner", |core, index| {
            core.untell(index);
            Ok(())
        });
        self.bev.clone()
    }

    /// Waits until the connection that was asked for stands, and the handshake of its topmost layer is done; at once where it does. Not
    /// needed before reads and writes, which wait as well.
    ///
    /// # Errors
    /// Why there will be no connection.
    pub async fn connected(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_connected(cx)).await
    }

    /// As [`connected`](Self::connected).
    ///
    /// # Errors
    /// As `connected`.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_by(cx, Direction::Write, |this, _| this.try_connected())
    }
}

impl Core {
    /// Sets a high mark wherever a stack has none: without one, a peer that does not read has it grow without end.
    fn bound(&mut self, top: Index) {
        let read = &mut self.node(top).read_mark;
        if read.high() == 0 {
            *read = read.bounded(DEFAULT_MARK);
        }
        let mut index = top;
        while let Some(node) = self.get_mut(index) {
            let below = node.below;
            if node.write_mark.high() == 0 {
                node.write_mark = node.write_mark.bounded(DEFAULT_MARK);
                self.opened(index, Directions::WRITE);
            }
            index = below;
        }
    }
}

impl Core {
    /// The next handler is told what the last one was told of, and nobody has taken: unread bytes, and ends.
    fn untell(&mut self, index: Index) {
        let node = self.node(index);
        if !node.input.is_empty() {
            node.flags.insert(Flags::FRESH);
        }
        if node.read_end != End::Open {
            node.flags.remove(Flags::END_TOLD);
            node.pending.insert(Pending::READ_END);
        }
        if node.write_end == End::Failed && !node.extras().connect_failed {
            node.pending.insert(Pending::WRITE_END);
        }
    }
}

impl AsRef<Bev> for AsyncBev {
    fn as_ref(&self) -> &Bev {
        &self.bev
    }
}

impl fmt::Debug for AsyncBev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncBev").field(&self.bev).finish()
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Deadline::Read => "nothing was read within the read timeout",
            Deadline::Write => "nothing could be written within the write timeout",
            Deadline::Idle => "nothing moved within the idle timeout",
            Deadline::Resolve => "the address was not found in time",
            Deadline::Connect => "there was no connection in time",
            Deadline::Handshake => "the handshake did not end in time",
            Deadline::HalfClosed => {
                "one direction has ended, and nothing moved in the other for too long"
            }
            Deadline::Drain => "not all of the output was out in time",
            Deadline::Close => "the graceful close did not end in time",
        })
    }
}

impl std::error::Error for Elapsed {}

impl Drop for AsyncBev {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let bev = self.bev.clone();
        let refused = give_up(&bev).is_err_and(|error| error.kind() == Kind::WrongThread);
        if refused {
            // On a closed loop the bufferevent goes with its last handle.
            let host = bev.host();
            let _ = host.schedule(Phase::Turn, Arc::new(GiveUp(Mutex::new(Some(bev)))), 0);
        }
    }
}

/// Leaves a bufferevent to itself: it is freed when what was written is out, or [`LINGER`] has passed.
fn give_up(bev: &Bev) -> Result<(), Error> {
    bev.replace_handler(Some(Box::new(Abandoned)))?;
    let ends = bev.own("drop", |core, index| {
        Ok(matches!(
            core.node(index).write_end,
            End::Wanted | End::Done
        ))
    })?;
    if ends {
        // The end mark is on its way. A transport that is closed while the peer still sends resets the connection, and the end mark
        // is lost: so the peer's end is waited for, and what comes is thrown away.
        let trash = bev.own("drop", |core, index| {
            let node = core.node(index);
            node.enabled.remove(Directions::READ);
            Ok(if node.flags.contains(Flags::INPUT_LENT) {
                Default::default()
            } else {
                let trash = std::mem::take(&mut node.input);
                core.lost_input(index, trash.len());
                trash
            })
        })?;
        drop(trash); // Another's memory may be in it.
        return bev.close(LINGER);
    }
    bev.disable(Directions::READ)?;
    if bev.deadline(Deadline::Drain).is_none() {
        bev.set_deadline(Deadline::Drain, Some(LINGER))?;
    }
    bev.free_when_written()
}

/// Frees at whatever happens but an EOF, which does not keep what was written from leaving.
struct Abandoned;

impl Handler for Abandoned {
    fn interest(&self) -> Interest {
        Interest::EVENT
    }
}

/// Gives a bufferevent up on its loop's thread.
struct GiveUp(Mutex<Option<Bev>>);

impl Target for GiveUp {
    fn run(&self, _key: u64) {
        let bev = self.0.lock().take();
        if let Some(bev) = bev {
            // Freed or covered meanwhile: then it is another's.
            let _ = give_up(&bev);
        }
    }

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {}
}
