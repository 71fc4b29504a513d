//! The two directions of a bufferevent, and the reasons for which one may be held up.

use crate::set::set;

/// One direction of a bufferevent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Direction {
    /// From the transport into the input buffer.
    Read,
    /// From the output buffer into the transport.
    Write,
}

set! {
    /// A set of directions, for [`enable`](crate::Bev::enable) and its like.
    ///
    /// Source: libevent's `EV_READ` and `EV_WRITE`.
    #[doc(alias = "EVBUFFER_READ")]
    #[doc(alias = "EVBUFFER_WRITE")]
    pub struct Directions(u8) {
        /// Reading.
        READ = 1;
        /// Writing.
        WRITE = 2;
        /// Both.
        BOTH = 3;
    }
}

/// Reading, for `bev.enable(READ)`.
#[doc(alias = "EV_READ")]
pub const READ: Directions = Directions::READ;
/// Writing, for `bev.enable(WRITE)`.
#[doc(alias = "EV_WRITE")]
pub const WRITE: Directions = Directions::WRITE;

impl From<Direction> for Directions {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Read => Self::READ,
            Direction::Write => Self::WRITE,
        }
    }
}

set! {
    /// Why a direction is held up although it is enabled. Reasons add up: the direction moves again
    /// when the last one is gone.
    ///
    /// Watermarks are not among them: whether a buffer has room is computed from its length each time.
    ///
    /// Source: libevent `bufferevent-internal.h`, `bufferevent_suspend_flags`.
    #[doc(alias = "bufferevent_suspend_read_")]
    pub struct Reasons(u8) {
        /// The application asked for it.
        APPLICATION = 1;
        /// The type that implements the bufferevent asked for it.
        LAYER = 2;
        /// A rate limit, its own or its group's, lets nothing pass now. It goes on by itself.
        #[doc(alias = "bufferevent_suspend_write_")]
        RATE = 4;
    }
}
