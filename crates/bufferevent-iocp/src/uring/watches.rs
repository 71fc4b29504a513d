//! Readiness of descriptors that are not sockets of ours, by multishot polls: signals, and readiness bufferevents on the same loop.
//!
//! A multishot poll is edge-triggered: it reports what is ready at first, and then each change, with all that is ready then.
//!
//! # Invariants
//! - A watch has one poll under way at most. A place in the table is used again when the last completion of its poll has come, so
//!   a late one is never taken for a newer one's.

use std::collections::HashMap;
use std::os::fd::RawFd;

use evreactor::{Interest, Ready, Token};
use slab::Slab;

struct Watch {
    token: Token,
    source: RawFd,
    interest: Interest,
    under_way: bool,
    /// Asked for anew while the last poll is being removed.
    again: bool,
    wanted: bool,
}

/// What is to be submitted for a watch.
pub(super) enum Ask {
    Poll(usize, RawFd, u32),
    Remove(usize),
}

/// The table.
#[derive(Default)]
pub(super) struct Watches {
    rows: Slab<Watch>,
    by_token: HashMap<Token, usize>,
}

impl Watches {
    pub(super) fn watch(&mut self, token: Token, source: RawFd, interest: Interest) -> Option<Ask> {
        let index = *self.by_token.entry(token).or_insert_with(|| {
            self.rows.insert(Watch {
                token,
                source,
                interest,
                under_way: false,
                again: false,
                wanted: true,
            })
        });
        let row = &mut self.rows[index];
        row.interest = interest;
        if row.under_way {
            row.again = true;
            return Some(Ask::Remove(index));
        }
        row.under_way = true;
        Some(Ask::Poll(index, row.source, events(interest)))
    }

    pub(super) fn unwatch(&mut self, token: Token) -> Option<Ask> {
        let index = self.by_token.remove(&token)?;
        let row = &mut self.rows[index];
        row.wanted = false;
        row.again = false;
        if row.under_way {
            return Some(Ask::Remove(index));
        }
        self.rows.remove(index);
        None
    }

    /// A poll has reported, and is over unless there is `more`: what is to be told, and what to be asked next.
    pub(super) fn complete(
        &mut self,
        index: usize,
        result: i32,
        more: bool,
    ) -> (Option<(Token, Ready)>, Option<Ask>) {
        let Some(row) = self.rows.get_mut(index) else {
            return (None, None);
        };
        row.under_way = more;
        if !row.wanted {
            if !more {
                self.rows.remove(index);
            }
            return (None, None);
        }
        // A poll that failed is told as an error: whoever looks at the descriptor finds out.
        let told = match u32::try_from(result) {
            Ok(bits) => Some(ready(bits)),
            Err(_) if result == -libc::ECANCELED => None,
            Err(_) => Some(Ready::ERROR | Ready::READABLE | Ready::WRITABLE),
        };
        // One that failed would fail again; one that the kernel ended for its own reasons goes on.
        let goes_on = result >= 0 || std::mem::take(&mut row.again);
        let ask = (!more && goes_on).then(|| {
            row.under_way = true;
            row.again = false;
            Ask::Poll(index, row.source, events(row.interest))
        });
        (told.map(|told| (row.token, told)), ask)
    }
}

fn events(interest: Interest) -> u32 {
    let mut events = 0;
    if interest.is_read() {
        events |= libc::POLLIN | libc::POLLRDHUP | libc::POLLPRI;
    }
    if interest.is_write() {
        events |= libc::POLLOUT;
    }
    events as u32
}

fn ready(bits: u32) -> Ready {
    let has = |bit: i16| bits & bit as u32 != 0;
    let mut ready = Ready::EMPTY;
    if has(libc::POLLIN) {
        ready |= Ready::READABLE;
    }
    if has(libc::POLLOUT) {
        ready |= Ready::WRITABLE;
    }
    if has(libc::POLLRDHUP) || has(libc::POLLHUP) {
        ready |= Ready::READ_CLOSED | Ready::READABLE;
    }
    if has(libc::POLLHUP) {
        ready |= Ready::WRITE_CLOSED | Ready::WRITABLE;
    }
    if has(libc::POLLERR) || has(libc::POLLNVAL) {
        ready |= Ready::ERROR | Ready::READABLE | Ready::WRITABLE;
    }
    if has(libc::POLLPRI) {
        ready |= Ready::PRIORITY;
    }
    ready
}
