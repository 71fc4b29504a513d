//! How a loop is made: which backend, how many priorities, whose clock.

use std::error::Error;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use evreactor_core::{Clock, Monotonic};

use crate::backend::{BACKEND_VARIABLE, DEFAULT_BACKEND, backend_names, find_backend};
use crate::event_loop::EventLoop;

/// Deferred calls per turn: at four polls per thousand calls, the polls are lost in the noise, and yet no burst of deferred
/// callbacks keeps ready sources waiting for long. (libevent takes 32.)
const DEFERRED_PER_TURN: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Options of an [`EventLoop`] to be.
///
/// ```
/// use evreactor::EventLoop;
/// let events = EventLoop::builder().backend("polling").priorities(3).build()?;
/// assert_eq!(events.backend(), "polling");
///
/// let error = EventLoop::builder().backend("kpoll").build().unwrap_err();
/// assert!(error.to_string().contains("polling"), "the error names those that there are");
/// # Ok::<(), evreactor::BuildError>(())
/// ```
#[doc(alias = "event_config")]
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    backend: Option<String>,
    priorities: u8,
    clock: Arc<dyn Clock>,
    deferred_per_turn: NonZeroUsize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            backend: None,
            priorities: 1,
            clock: Arc::new(Monotonic::new()),
            deferred_per_turn: DEFERRED_PER_TURN,
        }
    }

    /// Chooses the backend by name. Without this, the environment variable [`BACKEND_VARIABLE`] chooses, and without that it
    /// is [`DEFAULT_BACKEND`].
    #[doc(alias = "event_config_avoid_method")]
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.backend = Some(name.into());
        self
    }

    /// Sets the number of priorities: `Priority(0)` to `Priority(count - 1)`. One by default.
    ///
    /// With more than one, a turn serves the ready sources of the most urgent priority that has any, and looks for new
    /// events before it serves the next: less urgent sources can starve.
    ///
    /// Source: libevent's `event_process_active`.
    #[doc(alias = "event_base_priority_init")]
    pub fn priorities(mut self, count: u8) -> Self {
        self.priorities = count;
        self
    }

    /// Sets where the loop takes the time from. By default a [`Monotonic`] clock that starts now.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how many deferred calls a turn makes at most; the rest waits for the next turn. 256 by default.
    #[doc(alias = "event_config_set_max_dispatch_interval")]
    pub fn max_deferred_per_turn(mut self, calls: NonZeroUsize) -> Self {
        self.deferred_per_turn = calls;
        self
    }

    /// Makes the loop. It belongs to the calling thread.
    ///
    /// # Errors
    /// [`BuildError`]: a backend of this name is not known, the system refuses to make one, or there are no priorities.
    #[doc(alias = "event_base_new_with_config")]
    pub fn build(self) -> Result<EventLoop, BuildError> {
        if self.priorities == 0 {
            return Err(BuildError::NoPriorities);
        }
        let asked = self
            .backend
            .or_else(|| std::env::var(BACKEND_VARIABLE).ok());
        let asked = asked.as_deref().unwrap_or(DEFAULT_BACKEND);
        let Some((name, construct)) = find_backend(asked) else {
            return Err(BuildError::UnknownBackend {
                name: asked.to_string(),
                known: backend_names(),
            });
        };
        let backend = construct().map_err(|source| BuildError::Backend { name, source })?;
        let priorities = usize::from(self.priorities);
        Ok(EventLoop::assemble(
            name,
            backend,
            self.clock,
            priorities,
            self.deferred_per_turn,
        ))
    }
}

/// Why a loop could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// No backend of that name is registered.
    UnknownBackend {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// The backend could not be made: for example, no descriptors are left.
    Backend {
        /// The backend's name.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Zero priorities were asked for.
    NoPriorities,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownBackend { name, known } => {
                write!(
                    f,
                    "no backend is named {name:?}; there are: {}",
                    known.join(", ")
                )
            }
            Self::Backend { name, .. } => write!(f, "cannot make the backend {name:?}"),
            Self::NoPriorities => f.write_str("a loop needs at least one priority"),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend { source, .. } => Some(source),
            Self::UnknownBackend { .. } | Self::NoPriorities => None,
        }
    }
}

impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        let kind = match &error {
            BuildError::Backend { source, .. } => source.kind(),
            BuildError::UnknownBackend { .. } | BuildError::NoPriorities => {
                io::ErrorKind::InvalidInput
            }
        };
        Self::new(kind, error)
    }
}
