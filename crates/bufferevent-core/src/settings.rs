//! What can be set on a bufferevent at any time: directions, marks, deadlines, limits, priority.
//!
//! # Invariants
//! - A setting takes effect at once: whatever it makes possible is queued by `Core::opened`.
//! - A refused call changes nothing.

use std::time::Duration;

use evreactor_core::Priority;

use crate::bev::Bev;
use crate::direction::{Direction, Directions, Reasons};
use crate::error::{Error, Kind};
use crate::event::Deadline;
use crate::handler::Interest;
use crate::node::{End, Flags, Link, Node, Pending};
use crate::published::Published;
use crate::pump;
use crate::watermark::Watermark;

impl Bev {
    /// Enables directions. Enabling WRITE on a connected, idle bufferevent runs the write callback once: the writer's start.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`]; [`Kind::Ended`] for a direction that has ended.
    #[doc(alias = "bufferevent_enable")]
    pub fn enable(&self, directions: Directions) -> Result<(), Error> {
        self.told_own("enable", move |core, index| {
            let node = core.node(index);
            let mut directions = directions;
            let mut ended = false;
            if directions.contains(Directions::READ) && node.read_end != End::Open {
                directions.remove(Directions::READ);
                ended = true;
            }
            if directions.contains(Directions::WRITE) && node.write_end == End::Failed {
                directions.remove(Directions::WRITE);
                ended = true;
            }
            node.enabled.insert(directions);
            if directions.contains(Directions::READ) {
                node.flags.remove(Flags::DISCARD);
            }
            let starts = directions.contains(Directions::WRITE)
                && node.write_end == End::Open
                && node.output.len() <= node.write_mark.low();
            let link = node.link;
            if starts && link != Link::Open {
                node.flags.insert(Flags::START_WRITER);
            }
            core.opened(index, directions);
            if starts && link == Link::Open && core.node(index).interest.contains(Interest::WRITE) {
                core.tell(index, Pending::WRITE);
            }
            if ended {
                let node = core.node(index);
                return Err(Error::new(Kind::Ended, node.name(), "enable"));
            }
            Ok(())
        })
    }

    /// Disables directions: no application data moves, and a data callback that is queued for them does not run.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_disable")]
    pub fn disable(&self, directions: Directions) -> Result<(), Error> {
        self.told_own("disable", move |core, index| {
            core.node(index).enabled.remove(directions);
            core.cancel_callbacks(index, directions);
            core.maybe_reap(index);
            Ok(())
        })
    }

    /// The directions that are enabled.
    #[doc(alias = "bufferevent_get_enabled")]
    #[must_use]
    pub fn enabled(&self) -> Directions {
        self.peek(|node| node.enabled, Published::enabled)
            .unwrap_or(Directions::EMPTY)
    }

    /// Holds directions up without disabling them; they move again after [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_suspend_read_")]
    #[doc(alias = "bufferevent_suspend_write_")]
    pub fn suspend(&self, directions: Directions) -> Result<(), Error> {
        self.told_on("suspend", move |core, index| {
            core.hold(index, directions, Reasons::APPLICATION, true);
            Ok(())
        })
    }

    /// Lets go of directions that [`suspend`](Self::suspend) holds up.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_unsuspend_read_")]
    #[doc(alias = "bufferevent_unsuspend_write_")]
    pub fn resume(&self, directions: Directions) -> Result<(), Error> {
        self.told_on("resume", move |core, index| {
            core.hold(index, directions, Reasons::APPLICATION, false);
            Ok(())
        })
    }

    /// The reasons for which a direction is held up.
    #[must_use]
    pub fn suspended(&self, direction: Direction) -> Reasons {
        self.peek(
            |node| match direction {
                Direction::Read => node.held_read,
                Direction::Write => node.held_write,
            },
            |published| published.held(direction),
        )
        .unwrap_or(Reasons::EMPTY)
    }

    /// Sets a direction's marks, in bytes; a high mark of 0 means unlimited. Takes effect at once.
    ///
    /// # Errors
    /// [`Kind::Misuse`] if the low mark is above the high one; [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_setwatermark")]
    pub fn set_watermark(
        &self,
        direction: Direction,
        low: usize,
        high: usize,
    ) -> Result<(), Error> {
        let mark = Watermark::new(low, high)?;
        self.told_on("set_watermark", move |core, index| {
            let node = core.node(index);
            match direction {
                Direction::Read => node.read_mark = mark,
                Direction::Write => node.write_mark = mark,
            }
            core.opened(index, direction.into());
            Ok(())
        })
    }

    /// The read marks: see [`set_watermark`](Self::set_watermark).
    ///
    /// # Errors
    /// As `set_watermark`.
    pub fn set_read_watermark(&self, low: usize, high: usize) -> Result<(), Error> {
        self.set_watermark(Direction::Read, low, high)
    }

    /// The write marks: see [`set_watermark`](Self::set_watermark).
    ///
    /// # Errors
    /// As `set_watermark`.
    pub fn set_write_watermark(&self, low: usize, high: usize) -> Result<(), Error> {
        self.set_watermark(Direction::Write, low, high)
    }

    /// A direction's marks.
    #[doc(alias = "bufferevent_getwatermark")]
    #[must_use]
    pub fn watermark(&self, direction: Direction) -> Watermark {
        self.peek(
            |node| match direction {
                Direction::Read => node.read_mark,
                Direction::Write => node.write_mark,
            },
            |published| published.watermark(direction),
        )
        .unwrap_or_default()
    }

    /// Sets the read and write timeouts; `None` removes. A timeout counts while its direction wants to make progress; when
    /// it expires, the direction is disabled and the event callback runs.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_timeouts")]
    #[doc(alias = "bufferevent_settimeout")]
    pub fn set_timeouts(
        &self,
        read: Option<Duration>,
        write: Option<Duration>,
    ) -> Result<(), Error> {
        self.told_on("set_timeouts", move |core, index| {
            core.set_deadlines(index, &[(Deadline::Read, read), (Deadline::Write, write)]);
            Ok(())
        })
    }

    /// The read and write timeouts.
    #[must_use]
    pub fn timeouts(&self) -> (Option<Duration>, Option<Duration>) {
        (
            self.deadline(Deadline::Read),
            self.deadline(Deadline::Write),
        )
    }

    /// Has [`Timeout`](crate::Event::Timeout) told, with the name of the deadline, when `span` has passed; `None` removes.
    ///
    /// | deadline | counts while | starts again | afterwards |
    /// |---|---|---|---|
    /// | [`Read`](Deadline::Read) | reading is wanted and there is room | when bytes come in | reading is disabled |
    /// | [`Write`](Deadline::Write) | output waits | when bytes go out | writing is disabled |
    /// | [`Idle`](Deadline::Idle) | the connection stands | when bytes move | told again after as long again |
    /// | [`Resolve`](Deadline::Resolve) | a host's address is looked up | | |
    /// | [`Connect`](Deadline::Connect) | a connection is under way, handshakes included | | |
    /// | [`Handshake`](Deadline::Handshake) | a layer shakes hands over what is connected | | |
    /// | [`HalfClosed`](Deadline::HalfClosed) | one direction has ended | when bytes move | told again after as long again |
    /// | [`Drain`](Deadline::Drain) | output waits that is the last: after `finish`, `close`, `free_when_written` | | writing is disabled; who lives for it is freed |
    /// | [`Close`](Deadline::Close) | a graceful close is under way, whose `deadline` this is | | it is freed |
    ///
    /// Setting one starts its time. What has no direction changes nothing by itself, and is told once, until what it is about
    /// begins anew. On top of a stack, a connection, handshake or drain is that of the whole stack.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bufferevent_core::{Bev, Deadline, Error};
    /// /// What a server may ask of a client that it does not know.
    /// fn guard(bev: &Bev) -> Result<(), Error> {
    ///     bev.set_deadline(Deadline::Handshake, Some(Duration::from_secs(10)))?;
    ///     bev.set_deadline(Deadline::Idle, Some(Duration::from_secs(300)))?;
    ///     bev.set_deadline(Deadline::HalfClosed, Some(Duration::from_secs(30)))?;
    ///     bev.set_deadline(Deadline::Drain, Some(Duration::from_secs(30)))
    /// }
    /// # let _ = guard;
    /// ```
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn set_deadline(&self, deadline: Deadline, span: Option<Duration>) -> Result<(), Error> {
        self.told_on("set_deadline", move |core, index| {
            core.set_deadlines(index, &[(deadline, span)]);
            Ok(())
        })
    }

    /// How long a deadline lasts; `None` where it is not set.
    #[must_use]
    pub fn deadline(&self, deadline: Deadline) -> Option<Duration> {
        self.peek(
            |node| node.extras.as_ref()?.timers.get(deadline),
            |published| published.deadline(deadline),
        )
        .flatten()
    }

    /// [`set_deadline`](Self::set_deadline) of [`Deadline::Idle`].
    ///
    /// # Errors
    /// As `set_deadline`.
    pub fn set_idle_timeout(&self, span: Option<Duration>) -> Result<(), Error> {
        self.set_deadline(Deadline::Idle, span)
    }

    /// [`set_deadline`](Self::set_deadline) of [`Deadline::Connect`].
    ///
    /// # Errors
    /// As `set_deadline`.
    pub fn set_connect_timeout(&self, span: Option<Duration>) -> Result<(), Error> {
        self.set_deadline(Deadline::Connect, span)
    }

    /// Limits the output: a `write` that would make it longer answers [`Kind::Full`] and takes nothing. In bytes; 0 means
    /// unlimited.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    pub fn set_max_output(&self, bytes: usize) -> Result<(), Error> {
        self.told_on("set_max_output", move |core, index| {
            core.node(index).extras().max_output = bytes;
            Ok(())
        })
    }

    /// Limits what is read in one turn of the loop, in bytes; 0 restores the default of 256 KiB.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_max_single_read")]
    pub fn set_max_single_read(&self, bytes: usize) -> Result<(), Error> {
        self.told_on("set_max_single_read", move |core, index| {
            core.node(index).extras().max_single_read = bytes.min(u32::MAX as usize);
            Ok(())
        })
    }

    /// Limits what is written in one turn of the loop, in bytes; 0 restores the default of 256 KiB.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_set_max_single_write")]
    pub fn set_max_single_write(&self, bytes: usize) -> Result<(), Error> {
        self.told_on("set_max_single_write", move |core, index| {
            core.node(index).extras().max_single_write = bytes.min(u32::MAX as usize);
            Ok(())
        })
    }

    /// What may be read in one turn of the loop, in bytes.
    #[doc(alias = "bufferevent_get_max_single_read")]
    #[must_use]
    pub fn max_single_read(&self) -> usize {
        self.peek(Node::max_single_read, |published| {
            published.max_single(Direction::Read)
        })
        .unwrap_or(0)
    }

    /// What may be written in one turn of the loop, in bytes.
    #[doc(alias = "bufferevent_get_max_single_write")]
    #[must_use]
    pub fn max_single_write(&self) -> usize {
        self.peek(Node::max_single_write, |published| {
            published.max_single(Direction::Write)
        })
        .unwrap_or(0)
    }

    /// How urgent its callbacks are to the loop.
    #[doc(alias = "bufferevent_get_priority")]
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.peek(Node::priority, Published::priority)
            .unwrap_or_default()
    }

    /// Sets how urgent its callbacks are to the loop, those of its transport too.
    ///
    /// # Errors
    /// [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_priority_set")]
    pub fn set_priority(&self, priority: Priority) -> Result<(), Error> {
        const OPERATION: &str = "set_priority";
        match self.0.domain().hold(OPERATION) {
            Ok(_hold) => self.set_priority_now(priority),
            Err(error) if error.kind() != Kind::Busy => Err(error),
            Err(_) => self.post(
                OPERATION,
                Box::new(move |bev| bev.set_priority_now(priority)),
            ),
        }
    }

    fn set_priority_now(&self, priority: Priority) -> Result<(), Error> {
        let cell = self.0.domain().hold("set_priority")?;
        let transport = self.on("set_priority", |core, index| {
            let mut index = index;
            loop {
                let node = core.node(index);
                node.extras().priority = priority;
                if core
                    .get(core.get(index).map_or(index, |node| node.below))
                    .is_none()
                {
                    return Ok((index, core.node(index).generation));
                }
                index = core.node(index).below;
            }
        })?;
        if let Some(mut layer) = pump::take_layer(&cell, transport.0, transport.1) {
            layer.set_priority(priority);
            pump::put_back(&cell, transport.0, transport.1, layer);
        }
        Ok(())
    }
}
