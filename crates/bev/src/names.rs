//! Names to connect to: who is asked for their addresses, and when.
//!
//! # Invariants
//! - A name is looked up for each connection, on its loop, which does not wait; all its addresses are tried.
//! - A name to listen at is looked up once, off the loops: `address.rs`, `relay.rs`.
//! - A resolver is never changed: a reload makes new ones, and who has asked an old one keeps it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bufferevent::resolve::race::Pace;
use bufferevent::{Bev, Dns, Error, LoopHandle, Resolve, Static, System};

use crate::address::Endpoint;
use crate::exit::{Code, Failure};
use crate::files;
use crate::sockets;

/// What `--resolver` chooses.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// The system's `getaddrinfo`.
    System,
    /// The name servers of `/etc/resolv.conf`.
    Dns,
    /// A file like `/etc/hosts`, and nobody else.
    Table(PathBuf),
}

/// Bytes of a file of names. More is a file of something else.
const MAX_FILE: u64 = 8 << 20;

impl Choice {
    /// `system`, `dns`, or the path of a file, which can be used now.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self::System),
            "dns" => Ok(Self::Dns),
            path => {
                table(Path::new(path))?;
                Ok(Self::Table(path.into()))
            }
        }
    }

    /// The resolvers for connections on each of `loops`, with what the files say now. This reads them, so it may block.
    pub(crate) fn on_each(&self, loops: &[LoopHandle]) -> Result<Vec<Names>, Failure> {
        let for_all = |resolver: Arc<dyn Resolve>| vec![Names(resolver); loops.len()];
        match self {
            Self::System => Ok(for_all(Arc::new(System::new()))),
            Self::Table(path) => {
                let table = table(path).map_err(|why| {
                    let what = format!("--resolver {}: {why}", path.display());
                    Failure::new(Code::Usage, what)
                })?;
                Ok(for_all(Arc::new(table)))
            }
            Self::Dns => {
                let each = loops.iter().map(|events| {
                    let resolver = Dns::of_system(events).map_err(|error| {
                        Failure::because(Code::Runtime, format_args!("--resolver dns"), &error)
                    })?;
                    Ok(Names(Arc::new(resolver)))
                });
                each.collect()
            }
        }
    }

    /// The resolver for connections on one loop.
    pub(crate) fn on(&self, events: &LoopHandle) -> Result<Names, Failure> {
        let names = self.on_each(std::slice::from_ref(events))?;
        Ok(names.into_iter().next().expect("one for the one loop"))
    }
}

/// The names that a file has.
fn table(path: &Path) -> Result<Static, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    Static::from_hosts(&text).map_err(|error| error.to_string())
}

fn read(path: &Path) -> std::io::Result<String> {
    // Whoever wrote `sytem` is told what there is; a file that is none is not waited for.
    if !std::fs::metadata(path)?.is_file() {
        let why = "no file of names; there are system, dns, or a file like /etc/hosts";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    files::read_text(path, MAX_FILE)
}

/// One loop's resolver.
#[derive(Clone)]
pub(crate) struct Names(Arc<dyn Resolve>);

impl Names {
    /// Begins to connect to `endpoint`; where that is a name, its addresses are tried at this pace.
    pub(crate) fn connect(
        &self,
        events: &LoopHandle,
        endpoint: &Endpoint,
        pace: Pace,
    ) -> Result<Bev, Error> {
        sockets::connect(events, endpoint, &*self.0, pace)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
