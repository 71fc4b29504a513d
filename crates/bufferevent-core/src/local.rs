//! Handlers that must not leave their thread.
//!
//! A bufferevent may be dropped on any thread, so the handler in it is `Send`. One that is not (it holds an `Rc`) stays
//! behind in a slab of its loop's thread, and the bufferevent holds its key.
//!
//! # Invariants
//! - A local handler is called and dropped on the thread that set it, and on no other.
//! - A key dropped elsewhere posts the drop to that thread's loop; if the loop is gone, the slab goes with its thread.

use std::cell::RefCell;
use std::collections::HashMap;

use evreactor_core::sync::{Arc, ThreadNumber, thread_number};
use evreactor_core::{Host, Phase, Ready, Target};

use crate::bev::Bev;
use crate::event::Event;
use crate::handler::{Handler, Interest, Pressure};

#[derive(Default)]
struct Locals {
    next: u64,
    handlers: HashMap<u64, Box<dyn Handler>>,
}

thread_local! {
    static LOCALS: RefCell<Locals> = RefCell::default();
}

/// The `Send` stand-in of a handler that is not.
pub(crate) struct Local {
    key: u64,
    interest: Interest,
    thread: ThreadNumber,
    host: Arc<dyn Host>,
}

impl Local {
    /// Keeps `handler` on the calling thread, which is `host`'s.
    pub(crate) fn keep(host: Arc<dyn Host>, handler: Box<dyn Handler>) -> Self {
        let interest = handler.interest();
        let key = LOCALS.with_borrow_mut(|locals| {
            locals.next += 1;
            locals.handlers.insert(locals.next, handler);
            locals.next
        });
        Self {
            key,
            interest,
            thread: thread_number(),
            host,
        }
    }

    /// Runs `call` on the handler, which is out of the slab meanwhile.
    pub(crate) fn with<R>(&mut self, call: impl FnOnce(&mut dyn Handler) -> R) -> Option<R> {
        struct Back(u64, Option<Box<dyn Handler>>);
        impl Drop for Back {
            fn drop(&mut self) {
                if let Some(handler) = self.1.take() {
                    LOCALS.with_borrow_mut(|locals| locals.handlers.insert(self.0, handler));
                }
            }
        }
        let handler = LOCALS.with_borrow_mut(|locals| locals.handlers.remove(&self.key))?;
        let mut back = Back(self.key, Some(handler));
        back.1.as_deref_mut().map(call)
    }
}

impl Handler for Local {
    fn interest(&self) -> Interest {
        self.interest
    }

    fn on_read(&mut self, bev: &Bev) {
        self.with(|handler| handler.on_read(bev));
    }

    fn on_write(&mut self, bev: &Bev) {
        self.with(|handler| handler.on_write(bev));
    }

    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        self.with(|handler| handler.on_pressure(bev, pressure));
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.with(|handler| handler.on_event(bev, event));
    }
}

/// Drops a local handler on its own thread.
struct DropThere;

impl Target for DropThere {
    fn run(&self, key: u64) {
        forget(key);
    }
    fn expired(&self, _: u64) {}
    fn ready(&self, _: u64, _: Ready) {}
}

fn forget(key: u64) {
    // The thread may be ending, its slab with it. The handler is dropped with the slab free for others.
    let _handler = LOCALS.try_with(|locals| locals.borrow_mut().handlers.remove(&key));
}

impl Drop for Local {
    fn drop(&mut self) {
        if thread_number() == self.thread {
            forget(self.key);
        } else {
            // A closed loop runs nothing any more; then the handler stays until its thread ends.
            let _ = self
                .host
                .schedule(Phase::Turn, Arc::new(DropThere), self.key);
        }
    }
}
