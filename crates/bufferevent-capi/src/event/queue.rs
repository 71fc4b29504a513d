//! A queue of callbacks, linked through themselves: adding and removing anywhere takes no memory and constant time.
//!
//! # Invariants
//! - A callback is in one queue at most; its flags say in which.

use std::cell::Cell;

use crate::event::layout::Callback;
use crate::ffi::Ref;

#[derive(Default)]
pub(crate) struct Queue {
    first: Cell<Option<Ref<Callback>>>,
    last: Cell<Option<Ref<Callback>>>,
}

impl Queue {
    pub(crate) fn first(&self) -> Option<Ref<Callback>> {
        self.first.get()
    }

    pub(crate) fn push(&self, callback: Ref<Callback>) {
        callback.next.set(None);
        callback.prev.set(self.last.get());
        match self.last.replace(Some(callback)) {
            Some(last) => last.next.set(Some(callback)),
            None => self.first.set(Some(callback)),
        }
    }

    pub(crate) fn remove(&self, callback: Ref<Callback>) {
        let (prev, next) = (callback.prev.take(), callback.next.take());
        match prev {
            Some(prev) => prev.next.set(next),
            None => self.first.set(next),
        }
        match next {
            Some(next) => next.prev.set(prev),
            None => self.last.set(prev),
        }
    }
}
