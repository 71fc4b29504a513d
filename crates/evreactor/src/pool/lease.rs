//! Who has how much to do: leases of a pool's loops.
//!
//! # Invariants
//! - A load is the number of its leases that are held. Choosing and counting are one step, so a burst of choices spreads.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handle::LoopHandle;

/// The number of leases of each loop.
#[derive(Debug)]
pub(super) struct Loads(Mutex<Vec<usize>>);

impl Loads {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new(vec![0; count]))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> Vec<usize> {
        self.lock().clone()
    }

    /// Counts one more for the loop with the fewest, of several the first from `first` on.
    pub(super) fn take_least(&self, first: usize) -> usize {
        let mut loads = self.lock();
        let count = loads.len();
        let indices = (0..count).map(|nth| (first % count + nth) % count);
        let least = indices.min_by_key(|&index| loads[index]);
        let index = least.expect("a pool has a loop");
        loads[index] += 1;
        index
    }
}

/// A loop of a pool, counted as in use until this is dropped. It goes wherever what runs on the loop goes, and is dropped with it.
#[must_use = "dropping the lease gives the place back"]
pub struct Lease {
    loads: Arc<Loads>,
    index: usize,
    handle: LoopHandle,
}

impl Lease {
    pub(super) fn new(loads: Arc<Loads>, index: usize, handle: LoopHandle) -> Self {
        Self {
            loads,
            index,
            handle,
        }
    }

    /// Which loop of the pool it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }
}

impl Deref for Lease {
    type Target = LoopHandle;

    fn deref(&self) -> &LoopHandle {
        &self.handle
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.loads.lock()[self.index] -= 1;
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
