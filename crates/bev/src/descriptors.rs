//! Descriptors: how many the system lets this process have, and how many connections that is room for.
//!
//! A relay that runs out of descriptors has accepted clients for which it cannot open an upstream: it could only close them. So it lets
//! no more in than there is room for, and the others wait in the system's queue, as at any limit of connections.
//!
//! # Invariants
//! - The limit of this process is the highest that it may have without more rights.
//! - What is not a connection's (files that are read anew, names that are looked up, addresses that race) has descriptors of its own, [`spare`].

use std::num::NonZeroU64;

/// A relayed connection has a client and an upstream.
const OF_A_CONNECTION: u64 = 2;

/// What a worker may have of a route beside its connections: a listener, and a client that was accepted and waits.
const OF_A_WORKER: u64 = 2;

/// Descriptors that are kept for whatever else comes, of so many.
fn spare(limit: u64) -> u64 {
    (limit / 16).clamp(8, 256)
}

/// Raises this process's limit as far as that is allowed. Where it is not, it stays as it is.
pub(crate) fn raise() {
    system::raise();
}

/// What the program itself has open, before its routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    own: u64,
}

impl Descriptors {
    /// Counts those that are open now.
    pub(crate) fn in_use() -> Self {
        Self {
            own: system::open(),
        }
    }

    /// How many connections may be there at once if `wanted` are, with so many routes and workers: fewer where there is no room. The log
    /// says so.
    pub(crate) fn connections(
        self,
        wanted: Option<NonZeroU64>,
        routes: usize,
        workers: usize,
    ) -> Option<NonZeroU64> {
        // It may have been changed from outside since the start.
        raise();
        let Some(limit) = system::limit() else {
            return wanted;
        };
        let workers = u64::try_from(routes.saturating_mul(workers)).unwrap_or(u64::MAX);
        let room = room(limit, self.own, workers);
        match wanted {
            Some(wanted) if wanted <= room => return Some(wanted),
            Some(wanted) => tracing::warn!(
                "there are {limit} descriptors, too few for max-connections = {wanted}: {room} at once, the others wait; raise the limit of \
                 descriptors (ulimit -n, LimitNOFILE=) or lower max-connections"
            ),
            None => tracing::info!("{limit} descriptors: {room} connections at once"),
        }
        Some(room)
    }
}

/// The connections for which there is room. One at least: it is tried.
fn room(limit: u64, own: u64, workers: u64) -> NonZeroU64 {
    let others = own
        .saturating_add(workers.saturating_mul(OF_A_WORKER))
        .saturating_add(spare(limit));
    NonZeroU64::new(limit.saturating_sub(others) / OF_A_CONNECTION).unwrap_or(NonZeroU64::MIN)
}

#[cfg(unix)]
mod system {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// More are not given on macOS, whatever its limit says.
    const MOST: Option<u64> = if cfg!(target_vendor = "apple") {
        Some(10_240)
    } else {
        None
    };

    pub(super) fn raise() {
        let limit = getrlimit(Resource::Nofile);
        let Some(current) = limit.current else { return };
        let most = limit.maximum.into_iter().chain(MOST).min();
        if most.is_some_and(|most| most <= current) {
            return;
        }
        let raised = Rlimit {
            current: most,
            ..limit
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
        }
    }

    pub(super) fn limit() -> Option<u64> {
        getrlimit(Resource::Nofile).current
    }

    pub(super) fn open() -> u64 {
        /// Where that cannot be seen.
        const ABOUT: usize = 32;
        let open = std::fs::read_dir("/dev/fd").map_or(ABOUT, Iterator::count);
        u64::try_from(open).unwrap_or(u64::MAX)
    }
}

/// Where sockets are no descriptors, they have no such limit.
#[cfg(not(unix))]
mod system {
    pub(super) fn raise() {}

    pub(super) fn limit() -> Option<u64> {
        None
    }

    pub(super) fn open() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all_that_a_connection_needs_and_something_is_spare() {
        for (limit, own, workers, connections) in [
            (64, 12, 1, 21),
            (1024, 12, 1, 473),
            (32_768, 20, 8, 16_238),
            (24, 12, 1, 1),
            (0, u64::MAX, u64::MAX, 1),
            (u64::MAX, 12, 1, u64::MAX / 2 - 135),
        ] {
            let room = room(limit, own, workers).get();
            assert_eq!(room, connections, "{limit} {own} {workers}");
        }
    }
}
