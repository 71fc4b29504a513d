//! One bufferevent as its domain keeps it: two buffers, marks, ends, and what is owed.
//!
//! # Invariants
//! - A node is changed through the functions of `wake.rs`, which also queue every step that the change can
//!   make possible. Nobody else queues.
//! - `layer` is `None` only while the pump or a closure of the user has it; it comes back or the node is gone.
//! - Whether bytes may move is never stored: it follows from lengths, marks, reasons and ends.
//! - `read_end` and `write_end` only go forward.

use evbuffer::EvBuffer;
use evreactor_core::Priority;
use evreactor_core::sync::Weak;

use crate::bev::{Bev, Handle};
use crate::direction::{Directions, Reasons};
use crate::error::Error;
use crate::event::EventFlags;
use crate::handler::{Handler, Interest};
use crate::layer::Bufferevent;
use crate::limits::Limits;
use crate::options::Options;
use crate::set::set;
use crate::timers::Timers;
use crate::watermark::Watermark;

/// Where a node stands in its domain's arena.
pub(crate) type Index = u32;

/// No node.
pub(crate) const NONE: Index = Index::MAX;

/// What a covered bufferevent without a high mark of its own reads ahead of the layer above it, in bytes.
/// One read of a transport: more would only move the queue from the kernel into memory.
pub(crate) const READ_AHEAD: usize = 64 * 1024;

/// What a transport may read, and write, in one turn of its loop unless told otherwise, in bytes: four
/// full reads, so that a fast peer neither starves the others nor pays a wait per read.
pub(crate) const MAX_SINGLE: usize = 256 * 1024;

/// How far a connection has come about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    /// Nobody has asked for one.
    Idle,
    /// It was asked for.
    Connecting,
    /// It stands.
    Open,
}

/// How far a direction has come to its end.
///
/// Open --finish--> Wanted --end mark out--> Done        (write)
/// Open --end of the stream--> Done                      (read)
/// any --failure--> Failed
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Open,
    Wanted,
    Done,
    Failed,
}

set! {
    /// The steps that are queued for a node.
    pub(crate) struct Steps(u8) {
        DELIVER = 1;
        PULL = 2;
        PUSH = 4;
        /// A deferred delivery is scheduled with the loop.
        DEFERRED = 8;
        /// A pull waits for the next turn's share.
        LATER_PULL = 0x10;
        /// A push does.
        LATER_PUSH = 0x20;
        /// What the pump takes.
        WORK = 7;
    }
}

impl Steps {
    /// The first step that the pump is to take.
    #[inline]
    pub(crate) fn first_work(self) -> Option<Self> {
        let work = self.0 & Self::WORK.0;
        (work != 0).then(|| Self(work & work.wrapping_neg()))
    }
}

set! {
    /// What a handler has yet to be told. The bits stand in the order of a delivery round.
    pub(crate) struct Pending(u16) {
        CONNECTED = 1;
        READ = 1 << 1;
        /// READ, whatever the mark says.
        FORCED_READ = 1 << 2;
        WRITE = 1 << 3;
        /// WRITE, whatever the mark says.
        FORCED_WRITE = 1 << 4;
        PRESSURE = 1 << 5;
        TIMEOUT_READ = 1 << 6;
        TIMEOUT_WRITE = 1 << 7;
        /// The other deadlines; `Timers` has which.
        TIMEOUT = 1 << 8;
        TRIGGERED = 1 << 9;
        SENT = 1 << 10;
        WRITTEN = 1 << 11;
        READ_END = 1 << 12;
        WRITE_END = 1 << 13;
        READS = (1 << 1) | (1 << 2);
        WRITES = (1 << 3) | (1 << 4);
        EVENTS = 1 | (0xff << 6);
        ENDS = (1 << 12) | (1 << 13);
    }
}

impl Pending {
    /// The first thing to tell that stands at or behind `from`.
    #[inline]
    pub(crate) fn first_from(self, from: Self) -> Option<Self> {
        let left = self.0 & !(from.0.wrapping_sub(1));
        (left != 0).then(|| Self(left & left.wrapping_neg()))
    }

    /// The place behind this one in the round; nothing stands behind the last.
    #[inline]
    pub(crate) fn next(self) -> Self {
        Self(self.0 << 1)
    }
}

set! {
    /// What is so about a node, each by itself.
    pub(crate) struct Flags(u32) {
        /// The transport would block on a read, or the one below has nothing to read.
        DRY = 1;
        /// The transport would block on a write.
        BLOCKED = 1 << 1;
        /// Bytes came that no handler was told of.
        FRESH = 1 << 2;
        /// The layer needs bytes from below for itself.
        WANTS_READ = 1 << 3;
        /// The layer has bytes of its own to send down.
        WANTS_WRITE = 1 << 4;
        /// The input is lent out.
        INPUT_LENT = 1 << 5;
        /// The output is lent out.
        OUTPUT_LENT = 1 << 6;
        /// The output is at or above its high mark, and the handler was told so or will be.
        FULL = 1 << 7;
        /// To be freed once all output is out.
        FREE_WHEN_WRITTEN = 1 << 8;
        /// A graceful close is under way.
        CLOSING = 1 << 9;
        /// The handler asked for the writer to be started before the connection stood.
        START_WRITER = 1 << 10;
        /// A flush is owed downwards.
        OWES_FLUSH = 1 << 11;
        /// The last user handle is gone.
        ORPHAN = 1 << 12;
        /// The deadline of a graceful close has passed, or that of the output which it waits for.
        CLOSED = 1 << 13;
        /// The one below has connected, and the layer is to be told.
        BELOW_CONNECTED = 1 << 14;
        /// What comes in during a graceful close is thrown away: reading was not enabled.
        DISCARD = 1 << 15;
        /// To be freed at once, asked for from another thread.
        FREE_NOW = 1 << 16;
        /// The partner has ended its output.
        END_ARRIVED = 1 << 17;
        /// The handler was told of the end of the input.
        END_TOLD = 1 << 18;
        /// The end of the output is this layer's alone: what is below goes on.
        ENDS_ALONE = 1 << 19;
        /// The layer has a handshake of its own: its CONNECTED is not that of the one below.
        SHAKES_HANDS = 1 << 20;
        /// Of the connection that is under way, the address is being looked up.
        RESOLVING = 1 << 21;
        /// The handler is to be told when all output is out.
        TELLS_SENT = 1 << 22;
        /// What has a bufferevent freed that still has users, or hangs on the same: on all output being out.
        ENDS_LIFE = (1 << 8) | (1 << 9) | (1 << 16) | (1 << 22);
        /// What comes and goes while nothing unusual happens.
        ORDINARY = 1 | (1 << 1) | (1 << 2) | (1 << 7) | (1 << 12);
    }
}

/// Where the handler is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Handling {
    /// In its place, if there is one.
    Idle,
    /// Taken out, running.
    Running,
    /// Taken out and running; what is in its place now, or nothing, is its replacement.
    Replaced,
}

/// What most bufferevents never need.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) read_error: Option<Error>,
    pub(crate) write_error: Option<Error>,
    /// `None`: the connection failed, not one direction.
    pub(crate) connect_failed: bool,
    pub(crate) triggered: EventFlags,
    /// Bytes; 0 means unlimited.
    pub(crate) max_output: usize,
    /// Bytes per turn; 0 means the default.
    pub(crate) max_single_read: usize,
    pub(crate) max_single_write: usize,
    pub(crate) timers: Timers,
    pub(crate) limits: Option<Box<Limits>>,
    pub(crate) priority: Priority,
}

/// The order of the fields is kept, so that what [`Node::is_ordinary`] looks at lies together.
#[repr(C)]
pub(crate) struct Node {
    pub(crate) input: EvBuffer,
    pub(crate) output: EvBuffer,
    pub(crate) read_mark: Watermark,
    pub(crate) write_mark: Watermark,
    pub(crate) layer: Option<Box<dyn Bufferevent>>,
    pub(crate) handler: Option<Box<dyn Handler + Send>>,
    /// The node's own handle. Taken out during a delivery.
    pub(crate) me: Option<Bev>,
    /// What that handle points to, for more of them to be made at any time.
    pub(crate) own: Weak<Handle>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) below: Index,
    pub(crate) above: Index,
    pub(crate) generation: u32,
    pub(crate) pending: Pending,
    /// What of `pending` the handler has callbacks for.
    pub(crate) heard: Pending,
    pub(crate) flags: Flags,
    pub(crate) queued: Steps,
    pub(crate) enabled: Directions,
    pub(crate) held_read: Reasons,
    pub(crate) held_write: Reasons,
    pub(crate) handling: Handling,
    pub(crate) link: Link,
    pub(crate) read_end: End,
    pub(crate) write_end: End,
    /// What was enabled when a layer was put on top.
    pub(crate) enabled_before: Directions,
    pub(crate) interest: Interest,
    pub(crate) options: Options,
}

impl Node {
    pub(crate) fn new(options: Options, generation: u32, layer: Box<dyn Bufferevent>) -> Self {
        Self {
            input: EvBuffer::new(),
            output: EvBuffer::new(),
            read_mark: Watermark::default(),
            write_mark: Watermark::default(),
            layer: Some(layer),
            handler: None,
            me: None,
            own: Weak::new(),
            extras: None,
            bytes_read: 0,
            bytes_written: 0,
            below: NONE,
            above: NONE,
            generation,
            pending: Pending::EMPTY,
            heard: Pending::EMPTY,
            flags: Flags::EMPTY,
            queued: Steps::EMPTY,
            enabled: Directions::WRITE,
            held_read: Reasons::EMPTY,
            held_write: Reasons::EMPTY,
            handling: Handling::Idle,
            link: Link::Open,
            read_end: End::Open,
            write_end: End::Open,
            enabled_before: Directions::EMPTY,
            interest: Interest::EMPTY,
            options,
        }
    }

    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn covered(&self) -> bool {
        self.above != NONE
    }

    /// Whether nothing is unusual about a node that is alone: it is connected, both directions are enabled, and neither is held
    /// up or has ended; its handler does not run, nothing is lent out or owed, no time is counted and no end of its life is in
    /// sight.
    #[inline(always)]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.standing() == Self::standing_of(Handling::Idle) && self.has_nothing_on()
    }

    /// As [`is_ordinary`](Self::is_ordinary), while its handler runs.
    #[inline(always)]
    pub(crate) fn is_handled(&self) -> bool {
        self.standing() == Self::standing_of(Handling::Running) && self.has_nothing_on()
    }

    #[inline(always)]
    fn has_nothing_on(&self) -> bool {
        self.flags.without(Flags::ORDINARY).is_empty() && self.extras.is_none()
    }

    /// How it stands, as one number that is compared at once.
    #[inline(always)]
    fn standing(&self) -> u64 {
        u64::from_ne_bytes([
            self.enabled.bits(),
            self.held_read.bits(),
            self.held_write.bits(),
            self.handling as u8,
            self.link as u8,
            self.read_end as u8,
            self.write_end as u8,
            self.enabled_before.bits(),
        ])
    }

    /// How an ordinary one stands.
    const fn standing_of(handling: Handling) -> u64 {
        u64::from_ne_bytes([
            Directions::BOTH.bits(),
            0,
            0,
            handling as u8,
            Link::Open as u8,
            End::Open as u8,
            End::Open as u8,
            0,
        ])
    }

    /// Takes the handler out to run it; `None` if there is none, or it runs.
    #[inline]
    pub(crate) fn take_handler(&mut self) -> Option<Box<dyn Handler + Send>> {
        match self.handling {
            Handling::Idle => {
                let handler = self.handler.take()?;
                self.handling = Handling::Running;
                Some(handler)
            }
            Handling::Running | Handling::Replaced => None,
        }
    }

    /// Puts the handler back after it ran. Returns it if it was replaced meanwhile, for the caller to drop.
    #[inline]
    pub(crate) fn return_handler(
        &mut self,
        handler: Option<Box<dyn Handler + Send>>,
    ) -> Option<Box<dyn Handler + Send>> {
        match std::mem::replace(&mut self.handling, Handling::Idle) {
            Handling::Replaced => handler,
            Handling::Idle | Handling::Running => {
                self.handler = handler;
                None
            }
        }
    }

    /// Puts another handler in. Returns the one that was there and is not running.
    pub(crate) fn replace_handler(
        &mut self,
        handler: Option<Box<dyn Handler + Send>>,
    ) -> Option<Box<dyn Handler + Send>> {
        if self.handling == Handling::Running {
            self.handling = Handling::Replaced;
        }
        std::mem::replace(&mut self.handler, handler)
    }

    /// The name of the type, for errors. While the layer is out its name is not known.
    pub(crate) fn name(&self) -> &'static str {
        self.layer
            .as_deref()
            .map_or("bufferevent", Bufferevent::name)
    }

    /// The length at which reading stops.
    #[inline]
    pub(crate) fn read_limit(&self) -> usize {
        if self.covered() && self.read_mark.high() == 0 {
            READ_AHEAD
        } else {
            self.read_mark.limit()
        }
    }

    /// Whether a push of a node with none below can move anything.
    #[inline(always)]
    pub(crate) fn wants_push_at_bottom(&self) -> bool {
        !self.flags.contains(Flags::BLOCKED) && self.has_to_send()
    }

    /// Whether the output stands on the other side of its high mark than was last noticed.
    #[inline]
    pub(crate) fn crosses_mark(&self) -> bool {
        let full = self.output.len() >= self.write_mark.limit();
        full != self.flags.contains(Flags::FULL)
    }

    /// Whether it has no user left that could keep it, or is to be freed when something comes about.
    #[inline]
    pub(crate) fn may_end(&self) -> bool {
        let hears = || self.enabled.contains(Directions::READ) && self.read_end == End::Open;
        self.flags.intersects(Flags::ENDS_LIFE.union(Flags::ORPHAN))
            && (self.flags.intersects(Flags::ENDS_LIFE) || !hears())
    }

    /// Whether this bufferevent takes bytes from below: for the user above it, or for itself.
    #[inline]
    pub(crate) fn takes(&self) -> bool {
        self.takes_up_to(self.read_limit())
    }

    #[inline(always)]
    fn takes_up_to(&self, limit: usize) -> bool {
        self.read_end == End::Open
            && (self.flags.contains(Flags::WANTS_READ)
                || (self.enabled.contains(Directions::READ)
                    && self.held_read.is_empty()
                    && self.input.len() < limit))
    }

    /// Whether application data may leave this bufferevent's output.
    #[inline]
    pub(crate) fn gives(&self) -> bool {
        self.enabled.contains(Directions::WRITE) && self.held_write.is_empty()
    }

    /// Whether there is anything to send down: data, the end mark, or the layer's own.
    #[inline(always)]
    pub(crate) fn has_to_send(&self) -> bool {
        let own = Flags::OWES_FLUSH.union(Flags::WANTS_WRITE);
        // Usually all that there was is out.
        if self.output.is_empty() && self.write_end == End::Open && !self.flags.intersects(own) {
            return false;
        }
        match self.write_end {
            End::Open | End::Wanted => {
                let owes = !self.output.is_empty()
                    || self.write_end == End::Wanted
                    || self.flags.contains(Flags::OWES_FLUSH);
                (owes && self.gives()) || self.flags.contains(Flags::WANTS_WRITE)
            }
            End::Done | End::Failed => false,
        }
    }

    /// Whether the one below has connected, and nobody on top was told.
    pub(crate) fn keeps_connected(&self) -> bool {
        let own = self.flags.contains(Flags::SHAKES_HANDS);
        (self.pending.contains(Pending::CONNECTED) && !own)
            || self.flags.contains(Flags::BELOW_CONNECTED)
    }

    /// Whether bytes or an end have yet to leave, also such as only a layer knows of.
    pub(crate) fn owes(&self) -> bool {
        let within = Flags::OWES_FLUSH.union(Flags::WANTS_WRITE);
        match self.write_end {
            End::Open => !self.output.is_empty() || self.flags.intersects(within),
            End::Wanted => true,
            End::Done => !self.output.is_empty(),
            End::Failed => false,
        }
    }

    /// What the handler is to be told, of that which it has callbacks for.
    #[inline]
    pub(crate) fn deliverable(&self) -> Pending {
        self.pending.and(self.heard)
    }

    /// Notes which callbacks the handler has.
    pub(crate) fn set_interest(&mut self, interest: Interest) {
        let interest = if self.flags.contains(Flags::FREE_NOW) {
            Interest::EMPTY
        } else {
            interest
        };
        self.interest = interest;
        self.heard = Pending::EMPTY;
        for (callback, what) in [
            (Interest::READ, Pending::READS),
            (Interest::WRITE, Pending::WRITES),
            (Interest::EVENT, Pending::EVENTS),
            (Interest::PRESSURE, Pending::PRESSURE),
        ] {
            if interest.contains(callback) {
                self.heard.insert(what);
            }
        }
    }

    /// Whether the read callback is due.
    #[inline]
    pub(crate) fn read_due(&self) -> bool {
        self.flags.contains(Flags::FRESH)
            && !self.input.is_empty()
            && self.input.len() >= self.read_mark.low()
    }

    /// Whether the read callback is the next thing to tell, and is due; it is no longer then.
    #[inline]
    pub(crate) fn takes_read(&mut self) -> bool {
        let first = self.deliverable().first_from(Pending::CONNECTED);
        let takes = first == Some(Pending::READ) && self.read_due();
        if takes {
            self.pending.remove(Pending::READ);
            self.flags.remove(Flags::FRESH);
        }
        takes
    }

    pub(crate) fn max_single_read(&self) -> usize {
        match &self.extras {
            Some(extras) if extras.max_single_read != 0 => extras.max_single_read,
            _ => MAX_SINGLE,
        }
    }

    pub(crate) fn max_single_write(&self) -> usize {
        match &self.extras {
            Some(extras) if extras.max_single_write != 0 => extras.max_single_write,
            _ => MAX_SINGLE,
        }
    }

    pub(crate) fn priority(&self) -> Priority {
        self.extras
            .as_ref()
            .map_or(Priority::default(), |extras| extras.priority)
    }
}

/// Puts back what was taken out. Nobody has put anything else there meanwhile, so nothing has to be dropped.
#[inline(always)]
pub(crate) fn put_back<T>(place: &mut Option<T>, piece: T) {
    let before = place.replace(piece);
    debug_assert!(before.is_none(), "a piece is in its place only once");
    std::mem::forget(before);
}
