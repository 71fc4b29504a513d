//! The families of sockets, the backends, and a loop whose time is moved by hand.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, READ};
use bufferevent_socket::{Address, Builder, Listener};
use bufferevent_testkit::{ManualClock, record};
use evreactor::{EventLoop, RawSource};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// How long something that has to come is waited for, in real time.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    Tcp,
    Unix,
}

/// A family of sockets on a loop.
pub(crate) struct Net {
    pub(crate) events: EventLoop,
    pub(crate) family: Family,
    pub(crate) clock: ManualClock,
    folder: TempDir,
}

/// What this system has.
const FAMILIES: &[Family] = if cfg!(unix) {
    &[Family::Tcp, Family::Unix]
} else {
    &[Family::Tcp]
};

/// Runs a check over all families on all backends.
pub(crate) fn everywhere(check: fn(&Net)) {
    for family in FAMILIES {
        on_backends(*family, check);
    }
}

/// The number of a socket.
pub(crate) fn raw(socket: &Socket) -> RawSource {
    #[cfg(unix)]
    return std::os::fd::AsRawFd::as_raw_fd(socket);
    #[cfg(windows)]
    return std::os::windows::io::AsRawSocket::as_raw_socket(socket);
}

/// Runs a check over one family on all backends.
pub(crate) fn on_backends(family: Family, check: fn(&Net)) {
    for backend in evreactor::backend_names() {
        let kind = match family {
            Family::Tcp => "tcp",
            Family::Unix => "unix",
        };
        record::within(kind, backend, || {
            let net = Net::new(family, backend);
            check(&net);
            assert_eq!(net.events.stats().panics, 0, "{kind} on {backend}");
        });
    }
}

impl Net {
    pub(crate) fn new(family: Family, backend: &str) -> Self {
        let clock = ManualClock::default();
        let events = EventLoop::builder()
            .backend(backend)
            .clock(Arc::new(clock.clone()))
            .build()
            .unwrap();
        Self {
            events,
            family,
            clock,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Somewhere to bind.
    pub(crate) fn any_address(&self) -> Address {
        match self.family {
            Family::Tcp => Address::Tcp(([127, 0, 0, 1], 0).into()),
            Family::Unix => {
                static NUMBER: std::sync::atomic::AtomicUsize =
                    std::sync::atomic::AtomicUsize::new(0);
                let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Address::Unix(self.folder.path().join(format!("socket{number}")))
            }
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// A plain listening socket, without the loop.
    pub(crate) fn plain_listener(&self) -> (Socket, Address) {
        let address = self.any_address();
        let socket = self.plain_socket();
        let bound = match &address {
            Address::Unix(path) => socket.bind(&socket2::SockAddr::unix(path).unwrap()),
            Address::Tcp(address) => socket.bind(&(*address).into()),
            other => panic!("{other} cannot be bound"),
        };
        bound.unwrap();
        socket.listen(16).unwrap();
        let local = match address {
            Address::Tcp(_) => Address::Tcp(socket.local_addr().unwrap().as_socket().unwrap()),
            other => other,
        };
        (socket, local)
    }

    pub(crate) fn plain_socket(&self) -> Socket {
        let domain = match self.family {
            Family::Tcp => Domain::IPV4,
            Family::Unix => Domain::UNIX,
        };
        Socket::new(domain, Type::STREAM, None).unwrap()
    }

    pub(crate) fn sockaddr(address: &Address) -> socket2::SockAddr {
        match address {
            Address::Unix(path) => socket2::SockAddr::unix(path).unwrap(),
            Address::Tcp(address) => (*address).into(),
            other => panic!("{other} cannot be connected to"),
        }
    }

    /// Two plain sockets, connected and blocking.
    pub(crate) fn plain_pair(&self) -> (Socket, Socket) {
        let (listener, address) = self.plain_listener();
        let near = self.plain_socket();
        near.connect(&Self::sockaddr(&address)).unwrap();
        let (far, _) = listener.accept().unwrap();
        (near, far)
    }

    /// A bufferevent, and a plain socket at the other end, which blocks.
    pub(crate) fn bev_and_plain(&self) -> (Bev, Socket) {
        let (near, far) = self.plain_pair();
        (Builder::new(&self.events).stream(near).unwrap(), far)
    }

    /// A listener that echoes.
    pub(crate) fn echo(&self) -> (Listener, Address) {
        let listener = Listener::bind(&self.events, self.any_address(), |bev, _| {
            bev.set_handler(bufferevent_core::on_read(|bev| {
                drop(bev.output().append_from(&bev.input()));
            }))?;
            bev.enable(READ)
        })
        .unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    pub(crate) fn turn(&self) -> bool {
        let calls = || {
            let stats = self.events.stats();
            stats.events + stats.timers + stats.deferred + stats.tasks
        };
        let before = calls();
        self.events.poll().unwrap();
        calls() != before
    }

    /// Runs until nothing more happens by itself.
    pub(crate) fn settle(&self) {
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if self.turn() { 0 } else { quiet + 1 };
        }
    }

    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            if !self.turn() {
                assert!(start.elapsed() < PATIENCE, "in vain: {what}");
                std::thread::yield_now();
            }
        }
    }
}

/// Has a socket answer its close with a reset.
pub(crate) fn reset(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}
