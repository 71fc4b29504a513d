//! Sockets to name servers: datagrams and streams on the loop, as hickory wants them.
//!
//! # Invariants
//! - An operation is tried first; what would block waits for the loop's word, which wakes the task that asked last.
//! - A stream on which nothing moves for twice the time that a question may take is at its end: no server's connection keeps a loop from ending for long.
//! - The registration is dropped before the descriptor.

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use evreactor::{AsSource, Interest, LoopHandle, Priority, Ready, Registration};
use evreactor_core::Target;
use evreactor_core::sync::{Arc, Mutex};
use futures_io::{AsyncRead, AsyncWrite};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, Time as _};
use socket2::{Domain, Protocol, Socket, Type};

use super::runtime::{Sleep, Timer};

/// How long a connection to a server may take where hickory does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// Datagrams without a sender that are passed over at once. More of them are a flood, and fail the question.
const CUT_IN_A_ROW: usize = 64;

/// Whether a datagram was longer than the room for it. Windows says no more of it (`WSAEMSGSIZE`), not even who has sent it: an answer of the server's is
/// as lost as if it had not come, and a stranger's ends no question. Other systems hand the front of it over, with the sender's address.
fn is_cut(error: &io::Error) -> bool {
    cfg!(windows) && error.raw_os_error() == Some(10_040)
}

/// Who waits for a socket.
#[derive(Default)]
struct Waiting {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Target for Waiting {
    fn run(&self, _key: u64) {}

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {
        // Both: an error or a hang-up is for whoever waits.
        let wakers = [self.reader.lock().take(), self.writer.lock().take()];
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }

    fn closed(&self) {
        let wakers = [self.reader.lock().take(), self.writer.lock().take()];
        drop(wakers);
    }
}

/// A socket on the loop.
struct Watched<S> {
    // Dropped before the descriptor is closed.
    registration: Registration,
    waiting: Arc<Waiting>,
    socket: S,
}

impl<S: AsSource> Watched<S> {
    fn new(events: &LoopHandle, socket: S) -> io::Result<Self> {
        let waiting = Arc::new(Waiting::default());
        let target = waiting.clone();
        let registration =
            events.register(&socket, Interest::BOTH, Priority::default(), target, 0)?;
        Ok(Self {
            registration,
            waiting,
            socket,
        })
    }
}

impl<S> Watched<S> {
    fn attempt<T>(
        &self,
        cx: &Context<'_>,
        waiting: &Mutex<Option<Waker>>,
        mut operation: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match operation(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                result => return Poll::Ready(result),
            }
        }
        let old = waiting.lock().replace(cx.waker().clone());
        drop(old);
        match self.registration.rearm() {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn reading<T>(
        &self,
        cx: &Context<'_>,
        operation: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.attempt(cx, &self.waiting.reader, operation)
    }

    fn writing<T>(
        &self,
        cx: &Context<'_>,
        operation: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.attempt(cx, &self.waiting.writer, operation)
    }
}

/// A datagram socket, for one question.
pub(crate) struct Udp(Watched<UdpSocket>);

impl Udp {
    pub(crate) fn bind(events: &LoopHandle, local: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        Watched::new(events, socket).map(Self)
    }
}

impl DnsUdpSocket for Udp {
    type Time = Timer;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.0.reading(cx, |socket| {
            // The bound keeps a flood from keeping the loop.
            for _ in 1..CUT_IN_A_ROW {
                match socket.recv_from(buf) {
                    Err(error) if is_cut(&error) => {}
                    other => return other,
                }
            }
            socket.recv_from(buf)
        })
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.0.writing(cx, |socket| socket.send_to(buf, target))
    }
}

/// A stream to a server.
pub(crate) struct Tcp {
    stream: Watched<Socket>,
    idle: Sleep,
}

impl Tcp {
    pub(crate) async fn connect(
        events: &LoopHandle,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> io::Result<Self> {
        let timeout = timeout.unwrap_or(CONNECT);
        let socket = Socket::new(
            Domain::for_address(server),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(local) = local {
            socket.bind(&local.into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let stream = Watched::new(events, socket)?;
        let connected = async move {
            poll_fn(|cx| {
                stream.writing(cx, |socket| {
                    if let Some(error) = socket.take_error()? {
                        return Err(error);
                    }
                    match socket.peer_addr() {
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                            Err(io::ErrorKind::WouldBlock.into())
                        }
                        result => result.map(drop),
                    }
                })
            })
            .await?;
            io::Result::Ok(stream)
        };
        let stream = Timer::timeout(timeout, connected).await??;
        Ok(Self {
            stream,
            idle: Sleep::new(timeout.saturating_mul(2)),
        })
    }

    /// Something moved.
    fn moved<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.idle.restart();
        }
        polled
    }
}

fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::EINPROGRESS);
    #[cfg(not(unix))]
    return error.kind() == io::ErrorKind::WouldBlock;
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = this.stream.reading(cx, |mut socket| socket.read(buf));
        if polled.is_pending() && Pin::new(&mut this.idle).poll(cx).is_ready() {
            return Poll::Ready(Ok(0));
        }
        this.moved(polled)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = this.stream.writing(cx, |mut socket| socket.write(buf));
        this.moved(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.socket.shutdown(Shutdown::Write))
    }
}

impl DnsTcpStream for Tcp {
    type Time = Timer;
}
