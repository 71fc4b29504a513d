//! Addresses of stream sockets: TCP over IPv4 and IPv6, and Unix-domain paths.
//!
//! # Invariants
//! - No name is looked up here: text that is not a numeric address is refused with an error that says so.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use bufferevent_core::{Error, Kind};
use socket2::{Domain, SockAddr};

/// Where a stream socket is, or what it is connected to.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix-domain path.
    Unix(PathBuf),
    /// A Unix-domain socket without a name, as the connecting side has.
    Unnamed,
}

impl Address {
    pub(crate) fn domain(&self) -> Domain {
        match self {
            Self::Tcp(SocketAddr::V4(_)) => Domain::IPV4,
            Self::Tcp(SocketAddr::V6(_)) => Domain::IPV6,
            Self::Unix(_) | Self::Unnamed => Domain::UNIX,
        }
    }

    pub(crate) fn to_sockaddr(&self, operation: &'static str) -> Result<SockAddr, Error> {
        match self {
            Self::Tcp(address) => Ok(SockAddr::from(*address)),
            // Too long, or with a NUL in it: the caller's mistake, not the system's.
            Self::Unix(path) => SockAddr::unix(path)
                .map_err(|source| Error::new(Kind::Misuse, NAME, operation).with_source(source)),
            Self::Unnamed => Err(Error::new(Kind::Misuse, NAME, operation)),
        }
    }

    pub(crate) fn from_sockaddr(address: &SockAddr) -> Self {
        if let Some(address) = address.as_socket() {
            return Self::Tcp(address);
        }
        #[cfg(unix)]
        if let Some(path) = address.as_pathname() {
            return Self::Unix(path.to_path_buf());
        }
        Self::Unnamed
    }
}

use crate::NAME;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Unnamed => f.write_str("(unnamed)"),
        }
    }
}

/// What can be given as an address: an [`Address`], a `SocketAddr`, `(IpAddr, u16)`, a path, or numeric text such as
/// `"127.0.0.1:7000"` and `"[::1]:7000"`.
pub trait IntoAddress {
    /// The address.
    ///
    /// # Errors
    /// [`Kind::Misuse`] for text that is not a numeric address and port.
    fn into_address(self) -> Result<Address, Error>;
}

impl IntoAddress for Address {
    fn into_address(self) -> Result<Address, Error> {
        Ok(self)
    }
}

impl IntoAddress for &Address {
    fn into_address(self) -> Result<Address, Error> {
        Ok(self.clone())
    }
}

impl IntoAddress for SocketAddr {
    fn into_address(self) -> Result<Address, Error> {
        Ok(Address::Tcp(self))
    }
}

impl IntoAddress for (IpAddr, u16) {
    fn into_address(self) -> Result<Address, Error> {
        Ok(Address::Tcp(self.into()))
    }
}

impl IntoAddress for &Path {
    fn into_address(self) -> Result<Address, Error> {
        Ok(Address::Unix(self.to_path_buf()))
    }
}

impl IntoAddress for PathBuf {
    fn into_address(self) -> Result<Address, Error> {
        Ok(Address::Unix(self))
    }
}

impl IntoAddress for &str {
    fn into_address(self) -> Result<Address, Error> {
        self.parse().map(Address::Tcp).map_err(|_| {
            let why = format!("{self:?} is not a numeric address with a port");
            Error::new(Kind::Misuse, NAME, "address")
                .with_source(io::Error::new(io::ErrorKind::InvalidInput, why))
        })
    }
}
