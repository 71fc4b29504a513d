//! Names whose addresses are written down: for tests, and to pin some.
//!
//! # Invariants
//! - Names are compared as the DNS compares them: `EXAMPLE.org.` is `example.org`.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bufferevent_core::resolve::{
    Family, Lookup, Question, Reply, Resolve, ResolveError, ResolveFailure,
};
use evreactor_core::sync::Arc;

use crate::name;

/// A table of names. What is not in it does not exist, or is another resolver's business.
///
/// ```
/// use bufferevent_dns::{Static, System};
/// let mut table = Static::from_hosts("192.0.2.7 db.internal db # and a comment")?;
/// table.pin("example.org", ["192.0.2.8".parse()?, "2001:db8::8".parse()?])?;
/// let resolver = table.otherwise(System::new());
/// # let _ = resolver;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Static {
    names: HashMap<String, Vec<SocketAddr>>,
    otherwise: Option<Arc<dyn Resolve>>,
}

impl Static {
    /// A table without names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The table that `text` is, in the form of `/etc/hosts`: an address and its names on each line, comments after `#`.
    ///
    /// # Errors
    /// [`BadLine`]: which line has no address, or what is no name.
    pub fn from_hosts(text: &str) -> Result<Self, BadLine> {
        let mut table = Self::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("");
            let bad = |why: String| BadLine {
                number: index + 1,
                why,
            };
            let mut words = line.split_whitespace();
            let Some(address) = words.next() else {
                continue;
            };
            let address: IpAddr = address
                .parse()
                .map_err(|_| bad(format!("`{}` is no address", address.escape_debug())))?;
            for word in words {
                table
                    .pin(word, [address])
                    .map_err(|_| bad(format!("`{}` is no host name", word.escape_debug())))?;
            }
        }
        Ok(table)
    }

    /// Adds addresses to those of `host`.
    ///
    /// # Errors
    /// [`ResolveFailure::BadName`]; nothing was added.
    pub fn pin(
        &mut self,
        host: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), ResolveError> {
        let question = Question::new(host, Family::Any);
        let known = self.names.entry(key(&question)?).or_default();
        known.extend(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)));
        Ok(())
    }

    /// The same table, with `other` for the names that are not in it.
    #[must_use]
    pub fn otherwise(mut self, other: impl Resolve) -> Self {
        self.otherwise = Some(Arc::new(other));
        self
    }
}

fn key(question: &Question) -> Result<String, ResolveError> {
    let mut name = name::ascii(question)?;
    if name.ends_with('.') {
        name.pop();
    }
    Ok(name)
}

impl Resolve for Static {
    fn resolve(&self, question: &Question, reply: Reply) -> Lookup {
        let known = key(question).map(|name| self.names.get(&name));
        let found = match (known, &self.otherwise) {
            (Err(error), _) => Err(error),
            (Ok(None), Some(other)) => return other.resolve(question, reply),
            (Ok(None), None) => Err(question.failed(ResolveFailure::NotFound)),
            (Ok(Some(addresses)), _) => {
                let wanted = |address: &&SocketAddr| question.family().has(address);
                let found: Vec<_> = addresses.iter().filter(wanted).copied().collect();
                if found.is_empty() {
                    Err(question.failed(ResolveFailure::NoAddress))
                } else {
                    Ok(found)
                }
            }
        };
        reply.answer(Family::Any, found);
        Lookup::done()
    }
}

impl fmt::Debug for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Static")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// A line of a table that makes no sense.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadLine {
    number: usize,
    why: String,
}

impl BadLine {
    /// Which line, counted from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.why)
    }
}

impl Error for BadLine {}
