//! Names to connect to: who is asked for their addresses, and when.
//!
//! # Invariants
//! - A name is looked up for each connection, on its loop, which does not wait; all its addresses are tried.
//! - A name to listen at is looked up once, before the loop runs: `address.rs`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bufferevent::{Bev, Dns, Error, LoopHandle, Resolve, Static, System};

use crate::address::Endpoint;
use crate::exit::{Code, Failure};
use crate::sockets;

/// What `--resolver` chooses.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// The system's `getaddrinfo`.
    System,
    /// The name servers of `/etc/resolv.conf`.
    Dns,
    /// A file like `/etc/hosts`, and nobody else.
    Table(Static),
}

/// Bytes of a file of names. More is a file of something else.
const MAX_FILE: u64 = 8 << 20;

impl Choice {
    /// `system`, `dns`, or the path of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self::System),
            "dns" => Ok(Self::Dns),
            path => {
                let table = read(Path::new(path)).map_err(|error| error.to_string())?;
                let table = Static::from_hosts(&table).map_err(|error| error.to_string())?;
                Ok(Self::Table(table))
            }
        }
    }

    /// The resolver, for connections on `events`.
    pub(crate) fn on(&self, events: &LoopHandle) -> Result<Names, Failure> {
        let resolver: Arc<dyn Resolve> = match self {
            Self::System => Arc::new(System::new()),
            Self::Dns => {
                let resolver = Dns::of_system(events).map_err(|error| {
                    Failure::because(Code::Runtime, format_args!("--resolver dns"), &error)
                })?;
                Arc::new(resolver)
            }
            Self::Table(table) => Arc::new(table.clone()),
        };
        Ok(Names(resolver))
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() || about.len() > MAX_FILE {
        let why = "no file of names; there are system, dns, or a file like /etc/hosts";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    std::fs::read_to_string(path)
}

/// One loop's resolver.
#[derive(Clone)]
pub(crate) struct Names(Arc<dyn Resolve>);

impl Names {
    /// Begins to connect to `endpoint`.
    pub(crate) fn connect(&self, events: &LoopHandle, endpoint: &Endpoint) -> Result<Bev, Error> {
        sockets::connect(events, endpoint, &*self.0)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
