//! Events: all that happens to a bufferevent apart from bytes.
//!
//! # Invariants
//! - Of one delivery round's events [`Event::Connected`] comes first and an end or error last.
//! - An event owns what it says.
//!
//! Source: libevent's `bufferevent_event_cb` and its `BEV_EVENT_*` flags.

use crate::direction::Direction;
use crate::error::Error;
use crate::set::set;

/// What happened to a bufferevent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection that was asked for stands.
    #[doc(alias = "BEV_EVENT_CONNECTED")]
    Connected,
    /// A deadline passed. Its direction, where it has one, is disabled; no bytes were lost.
    #[doc(alias = "BEV_EVENT_TIMEOUT")]
    #[doc(alias = "BEV_TIMEOUT")]
    #[doc(alias = "EVBUFFER_TIMEOUT")]
    Timeout(Deadline),
    /// All that was written is out, and the end mark behind it.
    Written,
    /// All that was written has left the stack: what [`tell_when_sent`](crate::Bev::tell_when_sent) asked for.
    Sent,
    /// The peer ended its direction; what came before can still be read.
    #[doc(alias = "BEV_EVENT_EOF")]
    #[doc(alias = "EVBUFFER_EOF")]
    Eof,
    /// A direction failed, or both. What came before can still be read.
    #[doc(alias = "BEV_EVENT_ERROR")]
    #[doc(alias = "EVBUFFER_ERROR")]
    Error {
        /// The direction that failed; `None` where there was no connection yet.
        direction: Option<Direction>,
        /// What failed, where and why.
        error: Error,
    },
    /// What [`trigger_event`](crate::Bev::trigger_event) was called with.
    Triggered(EventFlags),
}

/// Which deadline passed. Each but [`Close`](Self::Close) is set by [`Bev::set_deadline`](crate::Bev::set_deadline).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// Nothing was read for as long as the read timeout.
    Read,
    /// Nothing could be written for as long as the write timeout.
    Write,
    /// Nothing moved in either direction for as long as the idle timeout.
    Idle,
    /// The address of the host was not found in time.
    Resolve,
    /// The connection did not come about in time: all of it, from the asking to the last layer's handshake.
    Connect,
    /// A layer's handshake did not end in time, counted from when what is below it was connected.
    Handshake,
    /// One direction has ended, and nothing moved in the other for so long.
    HalfClosed,
    /// The output was ended, or is all that a bufferevent lives for, and not all of it was out in time.
    Drain,
    /// A graceful close did not end in time.
    Close,
}

set! {
    /// An event as libevent's flags.
    #[doc(alias = "bufferevent_event_cb")]
    #[doc(alias = "everrorcb")]
    pub struct EventFlags(u16) {
        /// It happened while reading.
        #[doc(alias = "BEV_EVENT_READING")]
        READING = 0x01;
        /// It happened while writing.
        #[doc(alias = "BEV_EVENT_WRITING")]
        #[doc(alias = "BEV_EVENT_WRITE")]
        WRITING = 0x02;
        /// The end of the stream.
        EOF = 0x10;
        /// An error.
        ERROR = 0x20;
        /// A deadline.
        TIMEOUT = 0x40;
        /// Connected.
        CONNECTED = 0x80;
        /// All of a graceful close is out (not in libevent).
        WRITTEN = 0x100;
    }
}

impl Event {
    /// The event as flags, a direction among them where it has one.
    ///
    /// ```
    /// use bufferevent_core::{Deadline, Event, EventFlags};
    /// let flags = Event::Timeout(Deadline::Read).flags();
    /// assert_eq!(flags, EventFlags::TIMEOUT | EventFlags::READING);
    /// ```
    #[must_use]
    pub fn flags(&self) -> EventFlags {
        match self {
            Self::Connected => EventFlags::CONNECTED,
            Self::Timeout(Deadline::Read) => EventFlags::TIMEOUT | EventFlags::READING,
            Self::Timeout(Deadline::Write | Deadline::Drain) => {
                EventFlags::TIMEOUT | EventFlags::WRITING
            }
            Self::Timeout(
                Deadline::Idle
                | Deadline::Resolve
                | Deadline::Connect
                | Deadline::Handshake
                | Deadline::HalfClosed
                | Deadline::Close,
            ) => EventFlags::TIMEOUT,
            Self::Written => EventFlags::WRITTEN | EventFlags::WRITING,
            Self::Sent => EventFlags::WRITING,
            Self::Eof => EventFlags::EOF | EventFlags::READING,
            Self::Error {
                direction: Some(Direction::Read),
                ..
            } => EventFlags::ERROR | EventFlags::READING,
            Self::Error {
                direction: Some(Direction::Write),
                ..
            } => EventFlags::ERROR | EventFlags::WRITING,
            Self::Error {
                direction: None, ..
            } => EventFlags::ERROR,
            Self::Triggered(flags) => *flags,
        }
    }
}
