//! Sockets as the loop's backend has them: over readiness, or over completions.
//!
//! Everything above a transport is the same for both, so this is all that knows of the two.
//!
//! # Invariants
//! - Which of the two is a matter of the loop alone: whoever asks for a bufferevent or a listener gets the loop's own kind.
//! - A backend that the system does not have is told once, with the reason, and the default one is used.

use bufferevent::evreactor::{self, BACKEND_VARIABLE, DEFAULT_BACKEND};
use bufferevent::iocp::{self, Port, SockAddr};
use bufferevent::resolve::race::Pace;
use bufferevent::{
    Address, Bev, Builder, Error, EventLoop, Family, Kind, Listener, LoopHandle, Resolve,
};

#[cfg(not(unix))]
use std::net::TcpListener as GivenSocket;
#[cfg(unix)]
use std::os::fd::OwnedFd as GivenSocket;

use crate::BACKLOG;
use crate::address::Endpoint;

/// How loops are made whose backend was asked for by `name`, or by the environment.
pub(crate) fn loops(name: Option<&str>) -> evreactor::Builder {
    iocp::register();
    let builder = EventLoop::builder();
    let by_environment = || std::env::var(BACKEND_VARIABLE).ok();
    let name = name.map(String::from).or_else(by_environment);
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return builder;
    };
    if name == iocp::BACKEND
        && let Err(why) = iocp::available()
    {
        let why = crate::exit::Chain(&why);
        tracing::warn!("no backend {name} here ({why}); using {DEFAULT_BACKEND}");
        return builder.backend(DEFAULT_BACKEND);
    }
    builder.backend(name)
}

/// Whether a loop completes operations.
fn completes(events: &LoopHandle) -> bool {
    Port::of(events).is_some()
}

/// Begins to connect to `endpoint`, without delay of small segments; where that is a name, its addresses are tried at this pace.
pub(crate) fn connect(
    events: &LoopHandle,
    endpoint: &Endpoint,
    resolver: &(impl Resolve + ?Sized),
    pace: Pace,
) -> Result<Bev, Error> {
    let readiness = || Builder::new(events).nodelay(true).pace(pace);
    let completion = || iocp::Builder::new(events).nodelay(true).pace(pace);
    match endpoint {
        Endpoint::Tcp(address) if completes(events) => completion().connect(*address),
        Endpoint::Tcp(address) => readiness().connect(*address),
        Endpoint::Unix(path) if completes(events) => completion().connect(unix(path, "connect")?),
        Endpoint::Unix(path) => readiness().connect(path.clone()),
        Endpoint::Name { host, port } if completes(events) => {
            completion().connect_hostname(resolver, Family::Any, host, *port)
        }
        Endpoint::Name { host, port } => {
            readiness().connect_hostname(resolver, Family::Any, host, *port)
        }
        // Addresses to connect to have none.
        Endpoint::Given(_) => Err(Error::new(Kind::Unsupported, "socket", "connect")),
    }
}

/// The local address of the socket below a bufferevent.
pub(crate) fn local_addr(bev: &Bev) -> Result<Address, Error> {
    if bev.layer::<iocp::Socket>().is_some() {
        return iocp::CompletionExt::local_addr(bev).map(|address| address_of(&address));
    }
    bufferevent::SocketExt::local_addr(bev)
}

/// What accepts, on one loop.
#[derive(Debug)]
pub(crate) enum Listening {
    Readiness(Listener),
    Completion(iocp::Listener),
}

impl Listening {
    pub(crate) fn enable(&self) {
        match self {
            Self::Readiness(listener) => listener.enable(),
            Self::Completion(listener) => listener.enable(),
        }
    }

    pub(crate) fn disable(&self) {
        match self {
            Self::Readiness(listener) => listener.disable(),
            Self::Completion(listener) => listener.disable(),
        }
    }

    pub(crate) fn local_addr(&self) -> Result<Address, Error> {
        match self {
            Self::Readiness(listener) => listener.local_addr(),
            Self::Completion(listener) => listener.local_addr().map(|address| address_of(&address)),
        }
    }
}

/// Where a listener gets its connections from.
pub(crate) enum From {
    Address(Address),
    /// A socket that listens already.
    Given(GivenSocket),
}

/// Listens for all of the loops: `accept` is called with the index of the one that a connection belongs to, on its thread.
pub(crate) fn listen_each(
    (first, others): (&LoopHandle, &[LoopHandle]),
    from: From,
    enabled: bool,
    accept: impl Fn(usize, Bev, Address) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<Vec<Listening>, Error> {
    let builder = Listener::builder(first)
        .backlog(BACKLOG)
        .nodelay(true)
        .replace_stale(true)
        .enabled(enabled);
    let builder = match (&from, completes(first)) {
        (_, false) => builder,
        // Where nobody can wait for the readiness of a listening socket, the system accepts, one at a time. Elsewhere it would accept all
        // that come, and the gate could keep nobody out: so we accept, and have the connections on completions.
        (From::Address(address), true) if cfg!(windows) && others.is_empty() => {
            let accept = move |bev, peer: SockAddr| accept(0, bev, address_of(&peer));
            let listener = iocp::Listener::builder(first)
                .backlog(BACKLOG)
                .nodelay(true)
                .replace_stale(true)
                .enabled(enabled)
                .bind(system_address(address)?, accept)?;
            return Ok(vec![Listening::Completion(listener)]);
        }
        (From::Address(_) | From::Given(_), true) => builder.made_by(|events, options, socket| {
            iocp::Builder::new(events)
                .options(options)
                .nodelay(true)
                .stream(socket)
        }),
    };
    let listeners = match from {
        From::Address(address) => builder.bind_each(others, address, accept),
        From::Given(socket) => builder
            .listen_each(others, socket, accept)
            .map(|one| vec![one]),
    };
    Ok(listeners?.into_iter().map(Listening::Readiness).collect())
}

fn unix(path: &std::path::Path, operation: &'static str) -> Result<SockAddr, Error> {
    SockAddr::unix(path)
        .map_err(|source| Error::new(Kind::Misuse, "socket", operation).with_source(source))
}

fn system_address(address: &Address) -> Result<SockAddr, Error> {
    match address {
        Address::Tcp(address) => Ok((*address).into()),
        Address::Unix(path) => unix(path, "bind"),
        _ => Err(Error::new(Kind::Misuse, "socket", "bind")),
    }
}

fn address_of(address: &SockAddr) -> Address {
    if let Some(address) = address.as_socket() {
        return Address::Tcp(address);
    }
    #[cfg(unix)]
    if let Some(path) = address.as_pathname() {
        return Address::Unix(path.to_path_buf());
    }
    Address::Unnamed
}
