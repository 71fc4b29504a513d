//! The system's own resolver: `getaddrinfo`, on threads.
//!
//! # Invariants
//! - What the system is set up to look at holds, in its order: files, NSS, the DNS; and so does the order of its answer (RFC 6724).

use std::fmt;
use std::io;
use std::num::NonZeroUsize;

use bufferevent_core::resolve::{Family, Found, Lookup, Question, Reply, Resolve, ResolveFailure};
use dns_lookup::{AddrFamily, AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

use crate::blocking::Blocking;

/// The system's resolver, `getaddrinfo`, on a few threads.
///
/// A look-up that is called off goes on in the system and holds its thread up for as long; nobody hears of it. Where that is too
/// much, [`Dns`](crate::Dns) really stops.
#[doc(alias = "evutil_getaddrinfo_async_")]
pub struct System(Blocking);

impl System {
    /// With up to 4 threads, and up to 256 questions waiting.
    #[must_use]
    pub fn new() -> Self {
        Self(Blocking::new(look_up))
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(threads: NonZeroUsize, waiting: usize) -> Self {
        Self(Blocking::with_limits(look_up, threads, waiting))
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolve for System {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        self.0.resolve(question, reply)
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("System").field(&self.0).finish()
    }
}

fn look_up(question: &Question, name: &str) -> Found {
    let hints = AddrInfoHints {
        address: match question.family() {
            Family::Any => 0,
            Family::V4 => AddrFamily::Inet.into(),
            Family::V6 => AddrFamily::Inet6.into(),
        },
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let failed = |error: LookupError| {
        let failure = failure(&error);
        question.failed(failure).with_source(io::Error::from(error))
    };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(failed)?;
    Ok(found.flatten().map(|found| found.sockaddr).collect())
}

fn failure(error: &LookupError) -> ResolveFailure {
    match error.kind() {
        LookupErrorKind::NoName => ResolveFailure::NotFound,
        LookupErrorKind::NoData | LookupErrorKind::Family => ResolveFailure::NoAddress,
        LookupErrorKind::Again | LookupErrorKind::Fail => ResolveFailure::ServerFailed,
        // glibc's EAI_ADDRFAMILY: the name is known, for the other family.
        _ if error.error_num() == -9 && cfg!(target_os = "linux") => ResolveFailure::NoAddress,
        _ => ResolveFailure::System,
    }
}
