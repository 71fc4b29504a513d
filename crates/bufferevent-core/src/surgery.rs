//! Layers put on and taken off while the stack runs.
//!
//! ```text
//!     put_on      plain --------> plain + layer     STARTTLS, a compression that was agreed upon
//!     take_off    plain + layer -> plain            at the layer's end, both ways
//!     tear_off    plain + layer -> plain            at once, whatever the layer still holds
//! ```
//!
//! # Invariants
//! - No byte changes its place in the stream. Put on: what is unread is the layer's first, what is unsent goes out as it is,
//!   before anything of the layer's. Taken off: what the layer had brought up and nobody took stands in front of what it
//!   had not taken.
//! - Marks and enabled directions are those of whoever is on top: they are handed over.
//! - What was written to a layer and did not pass it never reaches the one below: it was not meant to be seen there.

use evbuffer::EvBuffer;

use crate::bev::Bev;
use crate::core::Core;
use crate::direction::{Direction, Directions};
use crate::error::{Error, Kind};
use crate::layer::Bufferevent;
use crate::life;
use crate::node::{End, Flags, Index, NONE};
use crate::options::Options;
use crate::watermark::Watermark;

/// What is left of a layer that was torn off.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct TornOff {
    /// The bufferevent that it stood on, its user's again.
    pub bev: Bev,
    /// What had been written to the layer and had not passed it. What the layer itself still held is lost.
    pub unsent: EvBuffer,
}

impl Bev {
    /// Puts a layer on top of this bufferevent while it runs. As [`over`](Self::over), and the new one takes over what is
    /// enabled and the marks; this one's marks are taken back.
    ///
    /// Legal in a callback of this very bufferevent, which is then the last one that runs before the layer is taken off
    /// again. The new one has no handler yet.
    ///
    /// # Errors
    /// As [`over`](Self::over); nothing is changed then.
    pub fn put_on(&self, options: Options, layer: impl Bufferevent) -> Result<Self, Error> {
        // One operation to other threads, the loop's among them.
        let _hold = self.0.domain().hold("put_on")?;
        let enabled = self.enabled();
        let read = self.watermark(Direction::Read);
        let write = self.watermark(Direction::Write);
        let top = self.over(options, layer)?;
        self.on("put_on", |core, index| {
            core.set_marks(index, Watermark::default(), Watermark::default());
            Ok(())
        })?;
        top.on("put_on", |core, index| {
            let node = core.node(index);
            // A layer that found its end when it was attached has its say.
            if node.read_end == End::Open {
                node.enabled.insert(enabled.and(Directions::READ));
            }
            if !enabled.contains(Directions::WRITE) {
                node.enabled.remove(Directions::WRITE);
            }
            core.set_marks(index, read, write);
            Ok(())
        })?;
        Ok(top)
    }

    /// Ends this layer's output behind its last byte, and not that of what it stands on: a stream end of zlib, a close_notify.
    /// [`Event::Written`](crate::Event::Written) tells that the end mark has been given to the one below. Reading goes on.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a transport; [`Kind::Ended`] if its output has ended already; [`Kind::Covered`], [`Kind::Freed`],
    /// [`Kind::WrongThread`].
    pub fn finish_layer(&self) -> Result<(), Error> {
        const OPERATION: &str = "finish_layer";
        self.own(OPERATION, |core, index| {
            let node = core.node(index);
            if node.below == NONE {
                return Err(Error::new(Kind::Unsupported, node.name(), OPERATION));
            }
            if node.write_end != End::Open {
                return Err(Error::new(Kind::Ended, node.name(), OPERATION));
            }
            core.want_end(index);
            core.node(index).flags.insert(Flags::ENDS_ALONE);
            Ok(())
        })
    }

    /// Takes this layer off at its end, and answers the bufferevent below it, whose handler is called again.
    ///
    /// Its end: the peer's layer has ended (its EOF may still wait to be told) and this one's end mark is out; see
    /// [`finish_layer`](Self::finish_layer). Unread bytes of this one stand in front of those of the one below. Marks and enabled
    /// directions are handed over; reading, which the layer's end has disabled, is enabled. This bufferevent is freed; its
    /// CLOSE_ON_FREE is not heeded.
    ///
    /// # Errors
    /// [`Kind::Misuse`] before its end; [`Kind::Busy`] while a buffer of either is lent out, or the layer is at work;
    /// [`Kind::Unsupported`] for a transport; [`Kind::Covered`], [`Kind::Freed`]; [`Kind::WrongThread`] on any other thread than the
    /// loop's. Nothing is changed then.
    pub fn take_off(&self) -> Result<Self, Error> {
        const OPERATION: &str = "take_off";
        let torn = self.come_off(OPERATION, |core, index| {
            let node = core.node(index);
            if node.read_end != End::Done || node.write_end != End::Done {
                return Err(Error::new(Kind::Misuse, node.name(), OPERATION));
            }
            Ok(())
        })?;
        Ok(torn.bev)
    }

    /// Takes this layer off at once, wherever it is in its stream. As [`take_off`](Self::take_off) otherwise; what was
    /// written and had not passed the layer is answered, what the layer holds is lost.
    ///
    /// # Errors
    /// As [`take_off`](Self::take_off), but for the end.
    pub fn tear_off(&self) -> Result<TornOff, Error> {
        self.come_off("tear_off", |_, _| Ok(()))
    }

    fn come_off(
        &self,
        operation: &'static str,
        may: impl FnOnce(&mut Core, Index) -> Result<(), Error>,
    ) -> Result<TornOff, Error> {
        let domain = self.0.domain();
        if !domain.on_loop_thread() {
            return Err(only_there(operation));
        }
        let (index, generation) = self.0.place();
        let torn = {
            let cell = domain.hold(operation)?;
            // Nothing runs between the handing over and the freeing: a step of the layer would take its own bytes for new ones.
            let torn = {
                let mut core = cell.borrow_mut();
                let Some(node) = core.find(index, generation) else {
                    return Err(Error::new(Kind::Freed, "bufferevent", operation));
                };
                if node.covered() {
                    return Err(Error::new(Kind::Covered, node.name(), operation));
                }
                if node.below == NONE {
                    return Err(Error::new(Kind::Unsupported, node.name(), operation));
                }
                may(&mut core, index)?;
                core.part(index, operation)?
            };
            life::free(&cell, index, generation);
            torn
        };
        domain.operate(operation, |_| ())?;
        Ok(torn)
    }
}

impl Core {
    /// Both marks of a node, and all that their moving makes possible.
    fn set_marks(&mut self, index: Index, read: Watermark, write: Watermark) {
        let node = self.node(index);
        node.read_mark = read;
        node.write_mark = write;
        self.opened(index, Directions::BOTH);
    }

    /// Hands over what a layer leaves to the one below, which is there. The layer is to be freed next.
    fn part(&mut self, index: Index, operation: &'static str) -> Result<TornOff, Error> {
        const LENT: Flags = Flags::INPUT_LENT.union(Flags::OUTPUT_LENT);
        let top = self.node(index);
        let (below, name) = (top.below, top.name());
        let busy = top.layer.is_none() || top.flags.intersects(LENT);
        let under = self.node(below);
        if busy || under.layer.is_none() || under.flags.intersects(LENT) {
            return Err(Error::new(Kind::Busy, name, operation));
        }
        let gone = || Error::new(Kind::Freed, name, operation);
        let bev = Bev::of(under).ok_or_else(gone)?;
        let top = self.node(index);
        let mut unread = std::mem::take(&mut top.input);
        let unsent = std::mem::take(&mut top.output);
        let mut enabled = top.enabled;
        if top.read_end == End::Done {
            // The end of the layer's stream disabled it, not the user.
            enabled.insert(Directions::READ);
        }
        let marks = (top.read_mark, top.write_mark);
        // What is below stays, whatever freeing would do with it.
        top.options.remove(Options::CLOSE_ON_FREE);
        let under = self.node(below);
        under.enabled_before = enabled;
        (under.read_mark, under.write_mark) = marks;
        if !unread.is_empty() {
            // Sums of lengths that fitted before fit again.
            let _ = under.input.prepend(&mut unread);
            under.flags.insert(Flags::FRESH);
        }
        Ok(TornOff { bev, unsent })
    }
}

/// Why a layer does not come off elsewhere.
#[derive(Debug)]
struct OnlyThere;

impl std::fmt::Display for OnlyThere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "a layer comes off on its loop's thread alone, THREADSAFE or not: post the call there",
        )
    }
}

impl std::error::Error for OnlyThere {}

fn only_there(operation: &'static str) -> Error {
    Error::new(Kind::WrongThread, "bufferevent", operation).with_source(OnlyThere)
}
