//! The handler of a bufferevent: set, replaced, looked at, run by hand.
//!
//! # Invariants
//! - What waits to be told stays when the handler changes, and is told to the new one.
//! - A handler that runs is replaced when it returns, never under its own feet.

use std::any::Any;

use crate::bev::Bev;
use crate::core::Core;
use crate::direction::Directions;
use crate::error::{Error, Kind};
use crate::event::EventFlags;
use crate::handler::{Handler, Interest};
use crate::local::Local;
use crate::node::{Handling, Index, Pending};
use crate::options::TriggerOptions;
use crate::published::Published;

impl Bev {
    /// Sets the handler, in place of the one there is. What is waiting to be told is told to the new one.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_setcb")]
    pub fn set_handler(&self, handler: impl Handler + Send) -> Result<(), Error> {
        self.put_handler(Box::new(handler))
    }

    fn put_handler(&self, handler: Box<dyn Handler + Send>) -> Result<(), Error> {
        const OPERATION: &str = "set_handler";
        let interest = handler.interest();
        let domain = self.0.domain();
        let Some(lock) = domain.enter_unless_busy(OPERATION)? else {
            let operation = move |bev: &Bev| bev.replace_handler(Some(handler)).map(drop);
            return self.post(OPERATION, Box::new(operation));
        };
        let old = domain.change(lock, |core| {
            let index = self.top_node_of(core, OPERATION)?;
            Ok(core.replace_handler(index, interest, Some(handler)))
        });
        old.map(drop)
    }

    /// As [`set_handler`](Self::set_handler), for a handler that must stay on this thread, the loop's.
    ///
    /// # Errors
    /// [`Kind::WrongThread`] from another thread, THREADSAFE or not; the rest as `set_handler`.
    pub fn set_local_handler(&self, handler: impl Handler) -> Result<(), Error> {
        if !self.0.domain().on_loop_thread() {
            return Err(Error::new(
                Kind::WrongThread,
                "bufferevent",
                "set_local_handler",
            ));
        }
        let local = Local::keep(self.host(), Box::new(handler));
        self.put_handler(Box::new(local))
    }

    /// Sets another handler, or none, and returns the one there was; `None` also while that one is running.
    ///
    /// # Errors
    /// As [`set_handler`](Self::set_handler); the handler is dropped.
    pub fn replace_handler(
        &self,
        handler: Option<Box<dyn Handler + Send>>,
    ) -> Result<Option<Box<dyn Handler + Send>>, Error> {
        let mut handler = handler;
        let interest = handler
            .as_ref()
            .map_or(Interest::EMPTY, |handler| handler.interest());
        self.own("set_handler", |core, index| {
            Ok(core.replace_handler(index, interest, handler.take()))
        })
    }

    /// Which callbacks the current handler has.
    #[doc(alias = "bufferevent_getcb")]
    #[must_use]
    pub fn interest(&self) -> Interest {
        self.peek(|node| node.interest, Published::interest)
            .unwrap_or(Interest::EMPTY)
    }

    /// Looks at the current handler, if it is an `H`.
    ///
    /// # Errors
    /// [`Kind::Busy`] while it runs; [`Kind::Misuse`] if there is none or it is not an `H`; [`Kind::Covered`], [`Kind::Freed`],
    /// [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_getcb")]
    pub fn with_handler<H: Handler, R>(&self, look: impl FnOnce(&mut H) -> R) -> Result<R, Error> {
        let mut handler = self.own("with_handler", |core, index| {
            let node = core.node(index);
            node.take_handler().ok_or_else(|| {
                let runs = node.handling != Handling::Idle;
                let kind = if runs { Kind::Busy } else { Kind::Misuse };
                Error::new(kind, node.name(), "with_handler")
            })
        })?;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let any: &mut dyn Any = &mut *handler;
            if let Some(local) = any.downcast_mut::<Local>() {
                return local
                    .with(|handler| {
                        let any: &mut dyn Any = handler;
                        any.downcast_mut::<H>().map(look)
                    })
                    .flatten();
            }
            any.downcast_mut::<H>().map(look)
        }));
        let mut handler = Some(handler);
        // Freed meanwhile: the handler is dropped here, outside.
        let _ = self.on("with_handler", |core, index| {
            handler = core.node(index).return_handler(handler.take());
            core.queue_deliver(index);
            Ok(())
        });
        match result {
            Ok(result) => {
                result.ok_or_else(|| Error::new(Kind::Misuse, "bufferevent", "with_handler"))
            }
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Runs data callbacks by hand: those of `directions`, if their mark is reached or `options` ignore it.
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_trigger")]
    pub fn trigger(&self, directions: Directions, options: TriggerOptions) -> Result<(), Error> {
        self.told_own("trigger", move |core, index| {
            let node = core.node(index);
            let always = options.contains(TriggerOptions::IGNORE_WATERMARKS);
            let mut what = Pending::EMPTY;
            if directions.contains(Directions::READ)
                && (always || node.input.len() >= node.read_mark.low())
            {
                what.insert(Pending::FORCED_READ);
            }
            if directions.contains(Directions::WRITE)
                && (always || node.output.len() <= node.write_mark.low())
            {
                what.insert(Pending::FORCED_WRITE);
            }
            core.trigger(index, what, options);
            Ok(())
        })
    }

    /// Runs the event callback by hand, with [`Event::Triggered`](crate::Event::Triggered).
    ///
    /// # Errors
    /// [`Kind::Covered`], [`Kind::Freed`], [`Kind::WrongThread`].
    #[doc(alias = "bufferevent_trigger_event")]
    pub fn trigger_event(&self, what: EventFlags, options: TriggerOptions) -> Result<(), Error> {
        self.told_own("trigger_event", move |core, index| {
            core.node(index).extras().triggered.insert(what);
            core.trigger(index, Pending::TRIGGERED, options);
            Ok(())
        })
    }
}

impl Core {
    /// Puts another handler in. Returns the one that was there and is not running, for the caller to drop.
    fn replace_handler(
        &mut self,
        index: Index,
        interest: Interest,
        handler: Option<Box<dyn Handler + Send>>,
    ) -> Option<Box<dyn Handler + Send>> {
        let node = self.node(index);
        node.set_interest(interest);
        let old = node.replace_handler(handler);
        self.tell_unread(index);
        self.queue_deliver(index);
        old
    }

    fn trigger(&mut self, index: Index, what: Pending, options: TriggerOptions) {
        if what.is_empty() {
            return;
        }
        let node = self.node(index);
        node.pending.insert(what);
        if node.deliverable().is_empty() {
            return;
        }
        if options.contains(TriggerOptions::DEFER_CALLBACKS) {
            self.queue_deferred(index);
        } else {
            self.queue_deliver(index);
        }
    }
}
