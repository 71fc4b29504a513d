//! The futures of a thread: those of every loop that lives on it.
//!
//! # Invariants
//! - A future is out of the table while it is polled, and dropped with the table free for others.
//! - Each loop that has a future here has been asked to tell when it closes; then its futures go.
//! - What is left when the thread ends is dropped with the table.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::Waker;

use evreactor_core::sync::{Arc, Weak};
use evreactor_core::{Host, LoopClosed, Ready, Target};

use super::ticket::{Ticket, discard};

/// A future, and who polls it.
pub(super) struct Entry {
    pub(super) future: Pin<Box<dyn Future<Output = ()>>>,
    pub(super) ticket: Arc<Ticket>,
    /// Made of the ticket, once.
    pub(super) waker: Waker,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    /// The loops that will tell when they close, and whom they tell.
    loops: Vec<Arc<Closing>>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// Takes a future in.
pub(super) fn adopt(
    ticket: &Arc<Ticket>,
    future: Pin<Box<dyn Future<Output = ()>>>,
) -> Result<(), LoopClosed> {
    let host = Arc::downgrade(&ticket.host);
    let known = TABLE.with_borrow(|table| table.loops.iter().any(|known| same(&known.0, &host)));
    if !known {
        let closing = Arc::new(Closing(host));
        let told: Arc<dyn Target> = closing.clone();
        ticket.host.tell_closed(Arc::downgrade(&told))?;
        TABLE.with_borrow_mut(|table| table.loops.push(closing));
    }
    let entry = Entry {
        future,
        ticket: ticket.clone(),
        waker: Waker::from(ticket.clone()),
    };
    put_back(ticket.key, entry);
    Ok(())
}

/// Takes a future out. At the end of the thread the table is gone already.
pub(super) fn take(key: u64) -> Option<Entry> {
    TABLE
        .try_with(|table| table.borrow_mut().entries.remove(&key))
        .ok()
        .flatten()
}

pub(super) fn put_back(key: u64, entry: Entry) {
    TABLE.with_borrow_mut(|table| table.entries.insert(key, entry));
}

fn same(one: &Weak<dyn Host>, other: &Weak<dyn Host>) -> bool {
    std::ptr::addr_eq(one.as_ptr(), other.as_ptr())
}

/// Told when a loop closes. It has the loop's name, which no other loop gets while it is here.
struct Closing(Weak<dyn Host>);

impl Target for Closing {
    fn run(&self, _key: u64) {}

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {}

    fn closed(&self) {
        let of_this_loop = |entry: &Entry| same(&Arc::downgrade(&entry.ticket.host), &self.0);
        let over: Vec<_> = TABLE.with_borrow_mut(|table| {
            table.loops.retain(|known| !same(&known.0, &self.0));
            table
                .entries
                .extract_if(|_, entry| of_this_loop(entry))
                .collect()
        });
        for (_, entry) in over {
            let host = entry.ticket.host.clone();
            discard(&*host, entry);
        }
    }
}
