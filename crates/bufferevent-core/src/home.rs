//! Where a domain lives: on which loop, who may come in, and where others wait.
//!
//! A confined domain needs nothing of its own for that: those of a loop share one home, which its thread remembers. A THREADSAFE domain has
//! a home to itself, since it has an inbox.
//!
//! # Invariants
//! - What is here never changes, but for what is in the inbox: it is looked at without a lock.
//! - Only a home with an inbox is entered by other threads than the loop's.

use std::cell::RefCell;

use evreactor_core::Host;
use evreactor_core::sync::{self, Arc, ThreadNumber, Weak, thread_number};

use crate::inbox::Inbox;

sync::thread_local! {
    /// The home of confined domains that was asked for last: a thread has one loop, mostly.
    static LAST: RefCell<Weak<Home>> = const { RefCell::new(Weak::new()) };
}

pub(crate) struct Home {
    host: Arc<dyn Host>,
    /// The loop's.
    thread: ThreadNumber,
    /// What other threads put here when they could not wait. With THREADSAFE only.
    inbox: Option<Inbox>,
}

impl Home {
    /// The home of a domain on this loop.
    pub(crate) fn on(host: Arc<dyn Host>, threadsafe: bool) -> Arc<Self> {
        if threadsafe {
            let inbox = Inbox::new(host.thread());
            return Self::new(host, Some(inbox));
        }
        // At the end of a thread there is nothing to remember it in.
        let last = LAST.try_with(|last| last.borrow().clone());
        if let Ok(last) = last
            && let Some(home) = last.upgrade()
            && Arc::ptr_eq(&home.host, &host)
        {
            return home;
        }
        let home = Self::new(host, None);
        let _ = LAST.try_with(|last| last.replace(Arc::downgrade(&home)));
        home
    }

    fn new(host: Arc<dyn Host>, inbox: Option<Inbox>) -> Arc<Self> {
        let thread = host.thread();
        Arc::new(Self {
            host,
            thread,
            inbox,
        })
    }

    pub(crate) fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    #[inline]
    pub(crate) fn is_own_thread(&self) -> bool {
        self.thread == thread_number()
    }

    /// `None` in a home of confined domains.
    #[inline]
    pub(crate) fn inbox(&self) -> Option<&Inbox> {
        self.inbox.as_ref()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use bufferevent_testkit::Loop;
    use evreactor_core::AsHost;

    use super::*;

    #[test]
    fn confined_domains_of_a_loop_share_a_home_and_others_have_their_own() {
        let (one, other) = (Loop::new().as_host(), Loop::new().as_host());
        let home = Home::on(one.clone(), false);
        assert!(Arc::ptr_eq(&home, &Home::on(one.clone(), false)));
        let elsewhere = Home::on(other.clone(), false);
        assert!(Arc::ptr_eq(elsewhere.host(), &other));
        let threadsafe = Home::on(other.clone(), true);
        assert!(!Arc::ptr_eq(&threadsafe, &elsewhere));
        assert!(threadsafe.inbox().is_some() && elsewhere.inbox().is_none());
    }
}
