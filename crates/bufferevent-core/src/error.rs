//! Errors: what went wrong, in which layer, during which operation, and on whose account.
//!
//! # Invariants
//! - An error owns all that it says; it can be kept, cloned and sent to another thread.
//! - `Display` does not repeat the source: walk [`source`](std::error::Error::source) for it.
//! - A peer can cause neither [`Kind::Misuse`] nor a panic.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::resolve::{ResolveError, ResolveFailure};

/// Why an operation was refused or a bufferevent stopped.
///
/// Opaque on purpose: match on [`kind`](Self::kind), print with `Display`, walk `source()`.
///
/// One word: results that carry it cost nothing where all goes well.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    layer: &'static str,
    operation: &'static str,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What a program can act on. New kinds may be added in a minor release.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The bufferevent was freed; the handle names nothing any more.
    Freed,
    /// Another bufferevent is stacked on this one and owns its data.
    Covered,
    /// The piece that the call needs is lent to user code further up the call stack; or another thread is in there, and this one cannot wait,
    /// since it holds the lock of another stack.
    Busy,
    /// A confined bufferevent, or what stays on the loop's thread of any, was used from another thread.
    WrongThread,
    /// The direction has ended: the stream was finished, or has failed.
    Ended,
    /// The output holds as much as `set_max_output` allows; nothing was taken.
    Full,
    /// The operation has no meaning for this type; nothing was changed.
    Unsupported,
    /// The call or its arguments are wrong. Never caused by a peer.
    Misuse,
    /// The event loop is gone.
    LoopClosed,
    /// Memory for the bytes could not be had.
    OutOfMemory,
    /// The peer refused, broke or violated the stream.
    Peer,
    /// The stream broke off before its own end mark: bytes may be missing.
    Truncated,
    /// The peer's stream went past a limit that guards this host: a decompression bomb, an endless line.
    Limit,
    /// The operating system refused; `source()` is an [`io::Error`].
    System,
    /// The host's name could not be looked up; `source()` is a [`ResolveError`].
    Resolve,
    /// User code that the stack runs panicked.
    Panicked,
}

/// On whose account an error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Blame {
    /// The other end of the stream.
    Peer,
    /// This host: its memory, its descriptors, its network.
    Local,
    /// This program called in the wrong order or from the wrong place.
    Misuse,
}

impl Error {
    /// An error of `kind` in the layer named `layer` during `operation`.
    #[cold]
    #[must_use]
    pub fn new(kind: Kind, layer: &'static str, operation: &'static str) -> Self {
        Self(Box::new(Inner {
            kind,
            layer,
            operation,
            source: None,
        }))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What an I/O error of the system means to a stream: broken by the peer, or refused here.
    #[must_use]
    pub fn io(layer: &'static str, operation: &'static str, source: io::Error) -> Self {
        use io::ErrorKind as K;
        let kind = match source.kind() {
            K::ConnectionReset
            | K::ConnectionAborted
            | K::ConnectionRefused
            | K::BrokenPipe
            | K::NotConnected => Kind::Peer,
            K::OutOfMemory => Kind::OutOfMemory,
            _ => Kind::System,
        };
        Self::new(kind, layer, operation).with_source(source)
    }

    /// What a program can act on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The layer in which it happened: `"socket"`, `"pair"`, the name of a type of your own.
    #[must_use]
    pub fn layer(&self) -> &'static str {
        self.0.layer
    }

    /// The operation that failed: `"read"`, `"write"`, `"connect"`, …
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// On whose account it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self.0.kind {
            Kind::Peer | Kind::Truncated | Kind::Limit => Blame::Peer,
            Kind::System | Kind::OutOfMemory | Kind::LoopClosed | Kind::Resolve => Blame::Local,
            Kind::Freed
            | Kind::Covered
            | Kind::Busy
            | Kind::WrongThread
            | Kind::Ended
            | Kind::Full
            | Kind::Unsupported
            | Kind::Misuse
            | Kind::Panicked => Blame::Misuse,
        }
    }

    /// The cause as an error of the operating system, if it is one.
    ///
    /// Source: libevent's `EVUTIL_SOCKET_ERROR()`.
    #[doc(alias = "EVUTIL_SOCKET_ERROR")]
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// The cause as a failed look-up of a name, if it is one.
    #[must_use]
    pub fn resolve_error(&self) -> Option<&ResolveError> {
        self.0.source.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            layer,
            operation,
            source,
        } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("layer", layer)
            .field("operation", operation)
            .field("source", source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.0.kind {
            Kind::Freed => "the bufferevent was freed",
            Kind::Covered => "another bufferevent is stacked on this one",
            Kind::Busy => {
                "in use: lent to code further up the call stack, or by another thread while this one holds another stack's lock"
            }
            Kind::WrongThread => {
                "used from a thread that is not its loop's; make it with Options::THREADSAFE, or post the call to its loop"
            }
            Kind::Ended => "this direction has ended",
            Kind::Full => "the output is full",
            Kind::Unsupported => "not supported by this type",
            Kind::Misuse => "wrong call or arguments",
            Kind::LoopClosed => "the event loop is closed",
            Kind::OutOfMemory => "out of memory",
            Kind::Peer => "the peer broke the stream",
            Kind::Truncated => "the stream broke off before its end",
            Kind::Limit => "the stream went past a limit",
            Kind::System => "the system refused",
            Kind::Resolve => "looking up the host has failed",
            Kind::Panicked => "user code panicked",
        };
        write!(f, "{}: {}: {why}", self.layer(), self.operation())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as K;
        let kind = match error.0.kind {
            Kind::Ended => K::BrokenPipe,
            Kind::Unsupported => K::Unsupported,
            Kind::Misuse => K::InvalidInput,
            Kind::OutOfMemory => K::OutOfMemory,
            Kind::Truncated => K::UnexpectedEof,
            Kind::Limit => K::InvalidData,
            Kind::Busy | Kind::Full => K::WouldBlock,
            Kind::Peer | Kind::System => error.io_error().map_or(K::Other, io::Error::kind),
            Kind::Resolve => match error.resolve_error().map(ResolveError::failure) {
                Some(ResolveFailure::NotFound | ResolveFailure::NoAddress) => K::NotFound,
                Some(ResolveFailure::BadName) => K::InvalidInput,
                Some(ResolveFailure::Timeout) => K::TimedOut,
                Some(ResolveFailure::Busy) => K::WouldBlock,
                Some(_) | None => K::Other,
            },
            Kind::Freed | Kind::Covered | Kind::WrongThread | Kind::LoopClosed | Kind::Panicked => {
                K::Other
            }
        };
        Self::new(kind, error)
    }
}
