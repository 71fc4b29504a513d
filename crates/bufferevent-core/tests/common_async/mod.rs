//! What the tests of futures share: running one on the virtual loop, and counting how often it is polled.

#![allow(dead_code, reason = "each test program uses its part")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bufferevent_core::task::{Task, spawn_local};
use bufferevent_testkit::Loop;

/// A result that a future left behind.
pub(crate) struct Left<T>(Rc<RefCell<Option<T>>>, Task<()>);

impl<T> Left<T> {
    /// The result, which must be there.
    #[track_caller]
    pub(crate) fn take(&self) -> T {
        let result = self.0.borrow_mut().take();
        result.expect("the future is over")
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(crate) fn cancel(&self) {
        self.1.cancel();
    }
}

/// Spawns `future`, and keeps what it results in.
pub(crate) fn start<T: 'static>(
    events: &Loop,
    future: impl Future<Output = T> + 'static,
) -> Left<T> {
    let place = Rc::new(RefCell::new(None));
    let result = place.clone();
    let task = spawn_local(events, async move {
        let value = future.await;
        *result.borrow_mut() = Some(value);
    });
    Left(place, task.unwrap())
}

/// Runs `future` to its end, with nothing but time passing beside.
#[track_caller]
pub(crate) fn run<T: 'static>(events: &Loop, future: impl Future<Output = T> + 'static) -> T {
    let left = start(events, future);
    events.run_until(|| left.is_there());
    left.take()
}

/// A future that counts how often it is polled.
pub(crate) struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Rc<Cell<usize>>,
}

pub(crate) fn counted<F: Future>(future: F) -> (Counted<F>, Rc<Cell<usize>>) {
    let polls = Rc::new(Cell::new(0));
    let counted = Counted {
        future: Box::pin(future),
        polls: polls.clone(),
    };
    (counted, polls)
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.set(self.polls.get() + 1);
        self.future.as_mut().poll(cx)
    }
}
