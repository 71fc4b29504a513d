//! What is decided when a bufferevent is made, and how flushing and triggering are asked for.

use std::fmt;

use crate::error::{Error, Kind};
use crate::set::set;

set! {
    /// Options at creation.
    ///
    /// Source: libevent's `enum bufferevent_options`.
    pub struct Options(u8) {
        /// Freeing the bufferevent closes a borrowed transport too: the descriptor, or the
        /// bufferevent below (and so on down).
        #[doc(alias = "BEV_OPT_CLOSE_ON_FREE")]
        CLOSE_ON_FREE = 1;
        /// Any thread may use it, under one recursive lock per stack or pair. Without it, use from another
        /// thread is refused with [`Kind::WrongThread`](crate::Kind::WrongThread).
        #[doc(alias = "BEV_OPT_THREADSAFE")]
        THREADSAFE = 2;
        /// Callbacks are queued on the loop and run after its ordinary ones, never on the stack of
        /// whoever caused them.
        #[doc(alias = "BEV_OPT_DEFER_CALLBACKS")]
        DEFER_CALLBACKS = 4;
        /// The lock is let go while a callback runs: other threads may use the bufferevent meanwhile, and the
        /// callback may wait for them. Needs [`DEFER_CALLBACKS`](Self::DEFER_CALLBACKS): only where callbacks begin on an empty stack is
        /// nobody further up who relies on the lock.
        #[doc(alias = "BEV_OPT_UNLOCK_CALLBACKS")]
        UNLOCK_CALLBACKS = 8;
    }
}

/// Why options contradict each other.
#[derive(Debug)]
struct UnlockWithoutDefer;

impl fmt::Display for UnlockWithoutDefer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UNLOCK_CALLBACKS needs DEFER_CALLBACKS")
    }
}

impl std::error::Error for UnlockWithoutDefer {}

impl Options {
    /// Refuses what contradicts itself.
    pub(crate) fn check(self, layer: &'static str, operation: &'static str) -> Result<(), Error> {
        if self.contains(Self::UNLOCK_CALLBACKS) && !self.contains(Self::DEFER_CALLBACKS) {
            return Err(Error::new(Kind::Misuse, layer, operation).with_source(UnlockWithoutDefer));
        }
        Ok(())
    }
}

/// How far a flush goes.
///
/// Source: libevent's `enum bufferevent_flush_mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[doc(alias = "bufferevent_flush_mode")]
pub enum Mode {
    /// The layers' ordinary work, now.
    #[doc(alias = "BEV_NORMAL")]
    Normal,
    /// Past low marks and write high-water; each layer emits all that it holds.
    #[doc(alias = "BEV_FLUSH")]
    Flush,
    /// As `Flush`, then the end mark behind all queued bytes.
    #[doc(alias = "BEV_FINISHED")]
    Finished,
}

/// What a flush did during the call. What had to wait completes by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[must_use]
pub enum Flushed {
    /// Nothing left this bufferevent's buffer or layer.
    Nothing,
    /// At least one byte did.
    Some,
}

set! {
    /// How [`trigger`](crate::Bev::trigger) runs a callback.
    #[doc(alias = "bufferevent_trigger_options")]
    pub struct TriggerOptions(u8) {
        /// Whatever the marks say.
        #[doc(alias = "BEV_TRIG_IGNORE_WATERMARKS")]
        IGNORE_WATERMARKS = 1;
        /// From the loop's deferred queue.
        #[doc(alias = "BEV_TRIG_DEFER_CALLBACKS")]
        DEFER_CALLBACKS = 2;
    }
}
