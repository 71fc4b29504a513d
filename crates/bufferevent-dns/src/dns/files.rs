//! The system's two files: `/etc/resolv.conf` and `/etc/hosts`, however odd they are.
//!
//! # Invariants
//! - Reading never blocks: what is no ordinary file is refused, a pipe that nobody writes to among them.
//! - No more than [`MAX_FILE`] is read, [`MAX_SERVERS`] and [`MAX_SEARCH`] are used; times and numbers are kept where glibc keeps them.
//! - A file that is missing is an empty one.
//!
//! Source: resolv.conf(5), hosts(5).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::proto::rr::Name;

/// Bytes of a file. Lists of a hundred thousand names fit; reading and parsing them takes a fraction of a second.
pub(crate) const MAX_FILE: u64 = 8 << 20;

/// Name servers that are asked; glibc takes three.
pub(crate) const MAX_SERVERS: usize = 8;

/// Domains that are tried behind a short name; glibc takes six.
pub(crate) const MAX_SEARCH: usize = 8;

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) search: Vec<Name>,
    pub(crate) ndots: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: usize,
}

/// The contents of an ordinary file, or `None` if there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not an ordinary file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        let why = format!("larger than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Some(bytes))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options.open(path)
}

pub(crate) fn parse_resolv_conf(bytes: &[u8]) -> ResolvConf {
    let (conf, errors) = resolv_conf::Config::parse_with_errors(bytes);
    for error in errors {
        tracing::warn!(%error, "a line of resolv.conf makes no sense");
    }
    let servers = conf.get_nameservers_or_local();
    let servers = servers
        .iter()
        .map(|ip| SocketAddr::new(IpAddr::from(ip), DOMAIN_PORT))
        .take(MAX_SERVERS);
    let search = conf
        .get_last_search_or_domain()
        .filter_map(|domain| Name::from_str_relaxed(domain).ok())
        .take(MAX_SEARCH);
    ResolvConf {
        servers: servers.collect(),
        search: search.collect(),
        ndots: conf.ndots.min(15) as usize,
        timeout: Duration::from_secs(conf.timeout.clamp(1, 30).into()),
        attempts: conf.attempts.clamp(1, 5) as usize,
    }
}

/// The port of name servers.
pub(crate) const DOMAIN_PORT: u16 = 53;

pub(crate) fn parse_hosts(bytes: &[u8]) -> Hosts {
    let mut hosts = Hosts::default();
    // Names in other encodings are none; the other lines hold.
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = hosts.read_hosts_conf(text.as_bytes()) {
        tracing::warn!(%error, "the rest of the hosts file makes no sense");
    }
    hosts
}
