//! Looking names up: what whoever connects by name asks of a resolver, and how it is answered.
//!
//! A [`Question`] goes to a [`Resolve`] together with a [`Reply`], the resolver's end of a small mailbox. The asker keeps the other end,
//! [`Answers`], and the [`Lookup`], whose drop calls the search off. Each family is answered once; a resolver that asks for both side by side answers
//! each as it comes.
//!
//! # Invariants
//! - No name is looked up here, and nobody waits: an answer is posted to the asker's loop, whichever thread gives it.
//! - Every question is answered: a [`Reply`] that is dropped answers [`ResolveFailure::Cancelled`] for what is left.
//! - An asker that is gone costs nothing: its mailbox takes no more.
//!
//! # Why here
//! Transports ask and resolvers answer, and neither imports the other.
//!
//! Source: libevent `bufferevent_sock.c`, `bufferevent_socket_connect_hostname`; RFC 8305.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;

use evreactor_core::sync::{Arc, Mutex, Weak};
use evreactor_core::{Host, Phase, Target};

pub mod hunt;
pub mod race;

/// Which addresses of a host are wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum Family {
    /// Those of IPv4 and of IPv6.
    #[default]
    #[doc(alias = "AF_UNSPEC")]
    Any,
    /// IPv4 alone.
    #[doc(alias = "AF_INET")]
    V4,
    /// IPv6 alone.
    #[doc(alias = "AF_INET6")]
    V6,
}

impl Family {
    /// Whether this family, or one of these, is `other`.
    #[must_use]
    pub const fn wants(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Any, _) | (Self::V4, Self::V4) | (Self::V6, Self::V6)
        )
    }

    /// Whether `address` is of this family, or of one of these.
    #[must_use]
    pub const fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// A name, and which of its addresses are wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    host: Arc<str>,
    family: Family,
}

impl Question {
    /// Asks for `host`'s addresses of `family`.
    pub fn new(host: impl Into<Arc<str>>, family: Family) -> Self {
        Self {
            host: host.into(),
            family,
        }
    }

    /// The name as the asker wrote it: any text, checked by nobody yet.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Which addresses are wanted.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// An error that says that this question has no answer.
    #[must_use]
    pub fn failed(&self, failure: ResolveFailure) -> ResolveError {
        ResolveError {
            failure,
            host: self.host.clone(),
            source: None,
        }
    }
}

/// Who knows the addresses of names: the system, the DNS, a table.
///
/// ```
/// use std::net::{Ipv6Addr, SocketAddr};
/// use bufferevent_core::resolve::{Family, Lookup, Question, Reply, Resolve, ResolveFailure};
///
/// /// Knows one name.
/// struct Home;
///
/// impl Resolve for Home {
///     fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
///         let found = match question.host() {
///             "home" => Ok(vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 0))]),
///             _ => Err(question.failed(ResolveFailure::NotFound)),
///         };
///         reply.answer(Family::Any, found);
///         Lookup::done()
///     }
/// }
/// ```
#[doc(alias = "evdns_base")]
pub trait Resolve: Send + Sync + 'static {
    /// Begins to look `question` up. The answer goes into `reply`, at once or later, from any thread; ports are ignored.
    ///
    /// Called on the asker's loop, so it must not block. Dropping the [`Lookup`] calls the search off.
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup;
}

impl<R: Resolve + ?Sized> Resolve for Arc<R> {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        (**self).resolve(question, reply)
    }
}

impl<R: Resolve + ?Sized> Resolve for Box<R> {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        (**self).resolve(question, reply)
    }
}

/// A search that is under way. Dropping it calls the search off.
#[doc(alias = "evdns_getaddrinfo_cancel")]
#[must_use = "dropping a lookup calls it off"]
pub struct Lookup {
    _guard: Option<Box<dyn Guard>>,
}

/// Something that is there to be dropped.
trait Guard: Send {}

impl<T: Send> Guard for T {}

impl Lookup {
    /// A search that is over already, or cannot be called off.
    pub fn done() -> Self {
        Self { _guard: None }
    }

    /// A search that the drop of `guard` calls off.
    pub fn until_dropped(guard: impl Send + 'static) -> Self {
        Self {
            _guard: Some(Box::new(guard)),
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

/// What a resolver found for one family, or for both.
pub type Found = Result<Vec<SocketAddr>, ResolveError>;

struct Mailbox {
    answers: Vec<(Family, Found)>,
    v4: bool,
    v6: bool,
}

struct Post {
    mailbox: Mutex<Mailbox>,
    question: Question,
    host: Arc<dyn Host>,
    target: Weak<dyn Target>,
    key: u64,
}

/// The resolver's end of a question: answers go in here.
///
/// Dropping it answers [`ResolveFailure::Cancelled`] for what was not answered.
pub struct Reply(Arc<Post>);

/// The asker's end of a question: answers come out here.
#[derive(Clone)]
pub struct Answers(Arc<Post>);

impl Answers {
    /// The two ends of `question`. When something was answered, `host` runs `target` with `key`, in its next turn.
    pub fn to(
        question: Question,
        host: Arc<dyn Host>,
        target: Weak<dyn Target>,
        key: u64,
    ) -> (Self, Reply) {
        let post = Arc::new(Post {
            mailbox: Mutex::new(Mailbox {
                answers: Vec::new(),
                v4: !question.family.wants(Family::V4),
                v6: !question.family.wants(Family::V6),
            }),
            question,
            host,
            target,
            key,
        });
        (Self(post.clone()), Reply(post))
    }

    /// What was answered since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<(Family, Found)> {
        std::mem::take(&mut self.0.mailbox.lock().answers)
    }
}

impl Reply {
    /// Says what there is of `family`; [`Family::Any`] stands for all that was asked for. What comes for a family that has been answered is
    /// ignored.
    pub fn answer(&self, family: Family, found: Found) {
        let Some(target) = self.0.target.upgrade() else {
            return;
        };
        let mut mailbox = self.0.mailbox.lock();
        let news = match family {
            Family::Any => !mailbox.v4 || !mailbox.v6,
            Family::V4 => !mailbox.v4,
            Family::V6 => !mailbox.v6,
        };
        if !news {
            return;
        }
        mailbox.v4 |= family.wants(Family::V4);
        mailbox.v6 |= family.wants(Family::V6);
        mailbox.answers.push((family, found));
        drop(mailbox);
        // A closed loop asks no more.
        let _ = self.0.host.schedule(Phase::Turn, target, self.0.key);
    }

    /// Whether anybody still waits for the answer.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.target.strong_count() > 0
    }

    /// What was asked.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.0.question
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let left = self.0.question.failed(ResolveFailure::Cancelled);
        self.answer(Family::Any, Err(left));
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.0.question).finish()
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answers").field(&self.0.question).finish()
    }
}

/// Why a name has no address.
///
/// Source: what libevent tells by `evutil_gai_strerror`.
#[derive(Clone, Debug)]
pub struct ResolveError {
    failure: ResolveFailure,
    host: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What a program can act on when a name has no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum ResolveFailure {
    /// The text cannot be a name: empty, too long, an address that was mistyped, characters that no name has.
    BadName,
    /// There is no such name.
    NotFound,
    /// The name exists, without an address of the family that was asked for.
    NoAddress,
    /// The servers could not find out. Another time they may.
    ServerFailed,
    /// The servers will not say.
    Refused,
    /// The servers' answer makes no sense: broken, or a chain of aliases without an end.
    Malformed,
    /// Nobody answered in time.
    Timeout,
    /// The resolver has as many questions as it takes. Another time it may have room.
    Busy,
    /// The resolver is gone, or gave the question up.
    Cancelled,
    /// The operating system refused; `source()` is an [`io::Error`](std::io::Error).
    System,
}

impl ResolveError {
    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What a program can act on.
    #[must_use]
    pub fn failure(&self) -> ResolveFailure {
        self.failure
    }

    /// The name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.failure {
            ResolveFailure::BadName => "not a host name",
            ResolveFailure::NotFound => "no such host; check the name",
            ResolveFailure::NoAddress => {
                "the host is known and has no address of the family that was asked for"
            }
            ResolveFailure::ServerFailed => "the name servers failed; try again later",
            ResolveFailure::Refused => "the name servers refuse to say; ask others",
            ResolveFailure::Malformed => "the name servers' answer makes no sense; ask others",
            ResolveFailure::Timeout => {
                "the name servers did not answer in time; check that they can be reached"
            }
            ResolveFailure::Busy => {
                "the resolver has as many questions as it takes; try again later"
            }
            ResolveFailure::Cancelled => "the resolver is gone",
            ResolveFailure::System => "the system refused",
        };
        // A name may be as long and as odd as anybody likes.
        let mut shown: String = self.host.escape_debug().take(MAX_SHOWN).collect();
        if shown.len() < self.host.len() {
            shown.push('…');
        }
        write!(f, "cannot look up `{shown}`: {why}")
    }
}

/// Characters of a name that an error shows.
const MAX_SHOWN: usize = 255;

impl StdError for ResolveError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
