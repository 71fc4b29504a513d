//! One address for several loops: each gets its share of the connections, and keeps them.
//!
//! | way | how | where |
//! |---|---|---|
//! | [`Queues`](Sharing::Queues) | each loop has a listening socket of its own; the kernel chooses by a hash of the addresses | TCP on Linux and Android |
//! | [`HandOut`](Sharing::HandOut) | one loop accepts, and hands the sockets to the loops in turn | everywhere |
//!
//! Elsewhere SO_REUSEPORT exists too, but sends all connections to one of the sockets (BSD, macOS) or does not exist (Windows):
//! that spreads nothing, so connections are handed out there.
//!
//! # Invariants
//! - A port that somebody else listens on is refused: the first socket is bound without SO_REUSEPORT, and gets it only then.
//! - A loop has at most [`HANDED_OUT`] connections that it was handed and did not take yet; further ones go to others, in the end
//!   to the loop that accepts, which is evidently awake.
//! - A bufferevent is made on the loop that it stays on. After the listener was dropped, none is made any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bufferevent_core::accept::{ACCEPTS_PER_TURN, introduce};
use bufferevent_core::{Bev, Error};
use evreactor::{LoopHandle, Phase, Ready, Target};
use evreactor_core::Host as _;
use evreactor_core::sync::{Arc, Mutex};
use socket2::Socket;

use crate::NAME;
use crate::address::{Address, IntoAddress};

use super::{Accepted, Listener, ListenerBuilder, OnAccept, Terms, share_port};

/// Connections that a loop was handed and did not take yet: one turn's accepts.
const HANDED_OUT: usize = ACCEPTS_PER_TURN;

/// Whether the kernel spreads connections over the sockets of one TCP port.
const QUEUES_SPREAD: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// How several loops share an address. See [`ListenerBuilder::bind_each`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Sharing {
    /// A listening socket per loop where the system spreads connections over them; else as [`HandOut`](Self::HandOut). No loop
    /// has to wake another one. Which loop gets a connection is a matter of hashing: with few connections, some get none.
    #[default]
    Queues,
    /// One loop accepts and hands out, strictly in turn.
    HandOut,
}

type OnEach = Arc<dyn Fn(usize, Bev, Address) -> Option<Error> + Send + Sync>;

impl ListenerBuilder<'_> {
    /// How [`bind_each`](Self::bind_each) shares the address; [`Sharing::Queues`] by default.
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Binds once for several loops: the builder's own, which has index 0, and `others`, from 1 on. `accept` is called with the index
    /// of the loop that a connection belongs to from then on, on that loop's thread; on several at once.
    ///
    /// There is one [`Listener`] per loop, in this order, or a single one that hands out ([`Sharing`] says when). They belong together:
    /// stop and drop all of them. For port 0 the system chooses one port for all.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Examples
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use bufferevent_socket::Listener;
    /// use evreactor::LoopPool;
    ///
    /// let pool = LoopPool::builder(NonZeroUsize::new(2).unwrap()).start()?;
    /// let [first, others @ ..] = pool.handles() else { unreachable!() };
    /// let listeners = Listener::builder(first).bind_each(others, "127.0.0.1:0", |index, bev, _peer| {
    ///     bev.write(format!("served by loop {index}\n").as_bytes())?;
    ///     bev.free_when_written()
    /// })?;
    /// let address = listeners[0].local_addr()?;
    /// # let bufferevent_socket::Address::Tcp(address) = address else { unreachable!() };
    /// let answer = std::io::read_to_string(std::net::TcpStream::connect(address)?)?;
    /// assert!(answer.starts_with("served by loop "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "LEV_OPT_REUSEABLE_PORT")]
    pub fn bind_each<R: Accepted>(
        mut self,
        others: &[LoopHandle],
        address: impl IntoAddress,
        accept: impl Fn(usize, Bev, Address) -> R + Send + Sync + 'static,
    ) -> Result<Vec<Listener>, Error> {
        self.own = true;
        let address = address.into_address()?;
        let accept: OnEach = Arc::new(move |index, bev, peer| accept(index, bev, peer).failure());
        let first = self.bound(&address, self.reuse_port)?;
        let further = match (self.sharing, &address) {
            (Sharing::Queues, Address::Tcp(_)) if QUEUES_SPREAD => {
                self.further(&first, others.len())
            }
            (Sharing::Queues | Sharing::HandOut, _) => None,
        };
        match further {
            Some(further) => self.start_each(others, first, further, &accept),
            None => {
                self.listening(&first)?;
                let unlink = self.unlink(address);
                let spread = Spread::new(others, self.terms, &accept);
                let own: OnAccept<_> = Box::new(move |bev, peer| accept(0, bev, peer));
                Ok(vec![self.start(first, own, Some(spread), unlink)?])
            }
        }
    }

    /// As [`bind_each`](Self::bind_each), over a socket that listens already: one that a service manager hands over, say. There is one
    /// such socket, so its connections are handed out.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn listen_each<R: Accepted>(
        self,
        others: &[LoopHandle],
        socket: impl Into<Socket>,
        accept: impl Fn(usize, Bev, Address) -> R + Send + Sync + 'static,
    ) -> Result<Listener, Error> {
        let accept: OnEach = Arc::new(move |index, bev, peer| accept(index, bev, peer).failure());
        let spread = Spread::new(others, self.terms, &accept);
        let own: OnAccept<_> = Box::new(move |bev, peer| accept(0, bev, peer));
        let socket = socket.into();
        super::check(&socket)?;
        self.start(socket, own, Some(spread), None)
    }

    /// More sockets, bound to where `first` is; none if the system does not want that after all.
    fn further(&self, first: &Socket, count: usize) -> Option<Vec<Socket>> {
        let bound = || {
            share_port(first).map_err(|source| Error::io(NAME, "reuse_port", source))?;
            let address = first
                .local_addr()
                .map_err(|source| Error::io(NAME, "local_addr", source))?;
            let address = Address::from_sockaddr(&address);
            (0..count).map(|_| self.bound(&address, true)).collect()
        };
        let bound: Result<_, Error> = bound();
        bound
            .inspect_err(
                |error| tracing::info!(%error, "a port is not shared: connections are handed out"),
            )
            .ok()
    }

    fn start_each(
        self,
        others: &[LoopHandle],
        first: Socket,
        further: Vec<Socket>,
        accept: &OnEach,
    ) -> Result<Vec<Listener>, Error> {
        let sockets: Vec<_> = std::iter::once(first).chain(further).collect();
        // All listen before the first accepts, so that the kernel knows all of them from the first connection on.
        for socket in &sockets {
            self.listening(socket)?;
        }
        let loops = std::iter::once(self.events).chain(others);
        let listeners = sockets.into_iter().zip(loops).enumerate();
        listeners
            .map(|(index, (socket, events))| {
                let accept = accept.clone();
                let own: OnAccept<_> = Box::new(move |bev, peer| accept(index, bev, peer));
                ListenerBuilder { events, ..self }.start(socket, own, None, None)
            })
            .collect()
    }
}

/// Who gets connections from a listener that hands out, besides itself.
pub(super) struct Spread {
    seats: Vec<Arc<Seat>>,
    /// The seat whose turn it is; the number of seats means the listener's own loop.
    next: AtomicUsize,
}

/// One loop that is handed connections.
struct Seat {
    index: usize,
    events: LoopHandle,
    terms: Terms,
    accept: OnEach,
    /// Handed out, and not taken yet.
    waiting: AtomicUsize,
    open: AtomicBool,
}

impl Spread {
    fn new(others: &[LoopHandle], terms: Terms, accept: &OnEach) -> Self {
        let seat = |(index, events): (usize, &LoopHandle)| {
            Arc::new(Seat {
                index: index + 1,
                events: events.clone(),
                terms,
                accept: accept.clone(),
                waiting: AtomicUsize::new(0),
                open: AtomicBool::new(true),
            })
        };
        let seats: Vec<_> = others.iter().enumerate().map(seat).collect();
        Self {
            next: AtomicUsize::new(seats.len()),
            seats,
        }
    }

    /// Gives a connection to the loop whose turn it is, or to the next that can take it, or back for the own loop.
    pub(super) fn hand_out(&self, mut contents: (Socket, Address)) -> Option<(Socket, Address)> {
        // In one round the own loop comes at the latest.
        for _ in 0..=self.seats.len() {
            // Only the listener's loop is here, so this need not be one atomic step.
            let turn = self.next.load(Ordering::Relaxed);
            let next = (turn + 1) % (self.seats.len() + 1);
            self.next.store(next, Ordering::Relaxed);
            let Some(seat) = self.seats.get(turn) else {
                break;
            };
            match seat.give(contents) {
                Ok(()) => return None,
                Err(back) => contents = back,
            }
        }
        Some(contents)
    }

    /// What was handed out and not taken yet is closed, when its turn comes.
    pub(super) fn close(&self) {
        for seat in &self.seats {
            seat.open.store(false, Ordering::Release);
        }
    }
}

impl Seat {
    /// Has the loop take a connection in its next turn. Gives it back if the loop has too many already, or is gone.
    fn give(self: &Arc<Self>, contents: (Socket, Address)) -> Result<(), (Socket, Address)> {
        // Only the listener's loop adds, so the limit holds.
        if self.waiting.load(Ordering::Relaxed) >= HANDED_OUT {
            return Err(contents);
        }
        let parcel = Arc::new(Parcel {
            seat: self.clone(),
            contents: Mutex::new(Some(contents)),
        });
        self.waiting.fetch_add(1, Ordering::Relaxed);
        match self.events.schedule(Phase::Turn, parcel.clone(), 0) {
            Ok(()) => Ok(()),
            Err(_closed) => match parcel.take() {
                Some(contents) => Err(contents),
                None => Ok(()),
            },
        }
    }
}

/// A connection on its way to its loop.
struct Parcel {
    seat: Arc<Seat>,
    contents: Mutex<Option<(Socket, Address)>>,
}

impl Parcel {
    fn take(&self) -> Option<(Socket, Address)> {
        let contents = self.contents.lock().take();
        self.seat.waiting.fetch_sub(1, Ordering::Relaxed);
        contents
    }
}

impl Target for Parcel {
    fn run(&self, _key: u64) {
        let Some((socket, peer)) = self.take() else {
            return;
        };
        let seat = &self.seat;
        if !seat.open.load(Ordering::Acquire) {
            return;
        }
        match seat.terms.make(&seat.events, socket) {
            Ok(bev) => {
                let accept = |bev, peer| (seat.accept)(seat.index, bev, peer);
                if let Some(error) = introduce(&seat.events, bev, peer, accept) {
                    tracing::warn!(%error, "an accepted connection was refused");
                }
            }
            Err(error) => tracing::warn!(%error, "a connection that was handed out is lost"),
        }
    }

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {}
}
