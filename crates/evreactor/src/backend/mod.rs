//! Backends: how a loop waits, and the names under which they can be chosen.
//!
//! A backend is two objects. The [`Backend`] itself waits; it stays on the loop's thread. Its [`Registrar`] is shared with every
//! thread: it registers sources and wakes the waiting one.
//!
//! What each backend must supply is these two traits and a name:
//!
//! | file | name | systems | edges | early close |
//! |---|---|---|---|---|
//! | `mio.rs` | `mio` | Unix | yes | yes |
//! | `polling.rs` | `polling` | all | where the system has them, else one-shot | no |
//!
//! Backends of other crates (completion ports, io_uring) join by [`register_backend`]. Such a backend tells of a completion
//! as of readiness: it reports the token of a source that was made with
//! [`LoopHandle::attach`](crate::LoopHandle::attach), which has no descriptor; what was completed stays between the backend's
//! crate and the target.
//!
//! # Invariants
//! - The table only grows: a name, once registered, keeps its meaning.
//! - Nothing outside this folder names mio or polling, and all of the crate's unsafe code is in this folder.

#[cfg(unix)]
mod mio;
mod polling;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use evreactor_core::Ready;

use crate::source::{RawSource, Token};

/// The environment variable that names the backend of loops that were not told which to use.
///
/// Source: libevent's `EVENT_NOEPOLL` and its likes.
pub const BACKEND_VARIABLE: &str = "REACTOR_BACKEND";

/// The backend of loops that nobody chose one for.
#[cfg(unix)]
pub const DEFAULT_BACKEND: &str = "mio";
/// The backend of loops that nobody chose one for.
#[cfg(not(unix))]
pub const DEFAULT_BACKEND: &str = "polling";

/// Events that a backend takes from the system in one wait: 12 KiB of room on Linux. More stay with the system for the next turn.
pub(crate) const EVENTS_PER_WAIT: usize = 1024;

/// What a loop waits with. Lives on the loop's thread.
pub trait Backend: 'static {
    /// The half that other threads may use.
    fn registrar(&self) -> Arc<dyn Registrar>;

    /// Waits until something is ready, someone called [`Registrar::wake`], or `timeout` has passed (`None`: for ever).
    ///
    /// A wake-up that came before the wait ends it at once. A wait may end early and report nothing, but
    /// a time-out is never shortened by rounding.
    ///
    /// # Errors
    /// What the system says. [`Interrupted`](io::ErrorKind::Interrupted) is taken for an early end.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()>;
}

/// The shared half of a backend.
///
/// The loop calls it with its table of sources locked; it must not call back into the loop.
pub trait Registrar: Any + Send + Sync {
    /// What this backend can do on this system.
    fn features(&self) -> Features;

    /// Starts reporting on a source.
    ///
    /// # Errors
    /// What the system says, for example that the source is already registered.
    fn register(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes what is reported on a source, and reports anew what is ready now.
    ///
    /// # Errors
    /// What the system says.
    fn modify(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()>;

    /// Stops reporting on a source.
    ///
    /// # Errors
    /// What the system says; the loop forgets the source all the same.
    fn deregister(&self, source: RawSource, token: Token) -> io::Result<()>;

    /// Ends the wait that is going on, or the next one.
    ///
    /// # Errors
    /// What the system says; the wait may then last until something else ends it.
    fn wake(&self) -> io::Result<()>;
}

/// What a backend can do.
#[doc(alias = "event_base_get_features")]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Features {
    /// Reports each change once; otherwise a source is reported once and then not until it is re-armed.
    #[doc(alias = "EV_FEATURE_ET")]
    pub edge_triggered: bool,
    /// Reports [`Ready::READ_CLOSED`] with the data that came before the end, so a short read without that bit has drained the source.
    #[doc(alias = "EV_FEATURE_EARLY_CLOSE")]
    pub early_close: bool,
}

impl Features {
    /// Edge-triggered or not, with early close or not: `Features::NONE.with_edges()`.
    pub const NONE: Self = Self {
        edge_triggered: false,
        early_close: false,
    };

    /// The same, edge-triggered.
    #[must_use]
    pub const fn with_edges(mut self) -> Self {
        self.edge_triggered = true;
        self
    }

    /// The same, with early close.
    #[must_use]
    pub const fn with_early_close(mut self) -> Self {
        self.early_close = true;
        self
    }
}

/// Which readiness of a source is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// Whether a read can make progress.
    #[doc(alias = "EV_READ")]
    pub const READ: Self = Self(1);
    /// Whether a write can make progress.
    #[doc(alias = "EV_WRITE")]
    pub const WRITE: Self = Self(2);
    /// Both: what an edge-triggered stream asks for, once.
    pub const BOTH: Self = Self(3);

    /// Neither: nothing is left to be reported.
    pub(crate) const NONE: Self = Self(0);

    /// What is left to be reported after `ready` was.
    pub(crate) fn unreported(self, ready: Ready) -> Self {
        let told = |of: Ready, bit: u8| if ready.intersects(of) { bit } else { 0 };
        let read = Ready::READABLE | Ready::READ_CLOSED | Ready::PRIORITY | Ready::ERROR;
        let write = Ready::WRITABLE | Ready::WRITE_CLOSED | Ready::ERROR;
        Self(self.0 & !(told(read, Self::READ.0) | told(write, Self::WRITE.0)))
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::BOTH.0)
    }

    /// Whether reading is asked for.
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether writing is asked for.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0 & 2 != 0
    }
}

/// What one wait reported.
#[derive(Debug, Default)]
pub struct Events {
    pub(crate) list: Vec<(Token, Ready)>,
}

impl Events {
    /// Reports that the source of `token` may be able to move.
    #[inline]
    pub fn push(&mut self, token: Token, ready: Ready) {
        self.list.push((token, ready));
    }
}

type Constructor = Arc<dyn Fn() -> io::Result<Box<dyn Backend>> + Send + Sync>;

/// Names in the order in which they were registered. A plain standard lock: the table is part of no loop's protocol.
static TABLE: OnceLock<Mutex<Vec<(&'static str, Constructor)>>> = OnceLock::new();

fn with_table<R>(body: impl FnOnce(&mut Vec<(&'static str, Constructor)>) -> R) -> R {
    let table = TABLE.get_or_init(|| {
        let polling: Constructor = Arc::new(|| Ok(Box::new(polling::Polling::new()?)));
        #[cfg(not(unix))]
        let names = vec![("polling", polling)];
        #[cfg(unix)]
        let mio: Constructor = Arc::new(|| Ok(Box::new(mio::Mio::new()?)));
        #[cfg(unix)]
        let names = vec![("mio", mio), ("polling", polling)];
        Mutex::new(names)
    });
    // A panic cannot leave the table half-changed: the only change is one `push`.
    body(&mut table.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Makes a backend known by a name, for every loop of the process that is built from now on.
///
/// # Errors
/// [`NameTaken`] if the name has a backend already; nothing changes.
pub fn register_backend(
    name: &'static str,
    constructor: impl Fn() -> io::Result<Box<dyn Backend>> + Send + Sync + 'static,
) -> Result<(), NameTaken> {
    with_table(|table| {
        if table.iter().any(|(taken, _)| *taken == name) {
            return Err(NameTaken { name });
        }
        table.push((name, Arc::new(constructor)));
        Ok(())
    })
}

/// The names that a loop can be built with, in the order in which they were registered.
///
/// ```
/// assert!(evreactor::backend_names().contains(&"polling"));
/// ```
#[doc(alias = "event_get_supported_methods")]
#[must_use]
pub fn backend_names() -> Vec<&'static str> {
    with_table(|table| table.iter().map(|(name, _)| *name).collect())
}

/// The registered name equal to `name`, and what makes that backend.
pub(crate) fn find_backend(name: &str) -> Option<(&'static str, Constructor)> {
    with_table(|table| table.iter().find(|(known, _)| *known == name).cloned())
}

/// A backend of that name is registered already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NameTaken {
    name: &'static str,
}

impl fmt::Display for NameTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a backend named {:?} is registered already", self.name)
    }
}

impl Error for NameTaken {}
