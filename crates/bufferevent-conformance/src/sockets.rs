//! Sockets, TCP and Unix-domain, on real loops whose time is moved by hand.

use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::{Bev, Options};
use bufferevent_socket::Builder;
use evreactor_core::{AsHost, Host};
use socket2::{Domain, Socket, Type};

use crate::joint::Joint;
use crate::real_loop::RealLoop;

/// What is asked of the system for each of a socket's buffers, in bytes: little, so that they fill quickly.
const SYSTEM_BUFFER: usize = 16 * 1024;

/// What the system's buffers of one direction hold at most, in bytes, with that.
const ABSORBED: usize = 512 * 1024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    Tcp,
    #[cfg(unix)]
    Unix,
}

/// Sockets of one family.
pub struct Sockets {
    events: RealLoop,
    family: Family,
}

impl Sockets {
    /// TCP over the loopback device.
    ///
    /// # Panics
    /// If there is no such backend.
    #[must_use]
    pub fn tcp(backend: &str) -> Self {
        Self {
            events: RealLoop::new(backend),
            family: Family::Tcp,
        }
    }

    /// Unix-domain streams.
    ///
    /// # Panics
    /// If there is no such backend.
    #[cfg(unix)]
    #[must_use]
    pub fn unix(backend: &str) -> Self {
        Self {
            events: RealLoop::new(backend),
            family: Family::Unix,
        }
    }

    fn streams(&self) -> (Socket, Socket) {
        match self.family {
            #[cfg(unix)]
            Family::Unix => {
                let (near, far) = UnixStream::pair().expect("there are descriptors");
                (near.into(), far.into())
            }
            Family::Tcp => {
                let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
                listener
                    .set_recv_buffer_size(SYSTEM_BUFFER)
                    .expect("before it listens");
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                listener.bind(&any.into()).expect("there is a port");
                listener.listen(1).expect("it is bound");
                let address = listener.local_addr().expect("it is bound");
                let near = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
                near.set_recv_buffer_size(SYSTEM_BUFFER)
                    .expect("before it is connected");
                near.connect(&address).expect("it listens");
                let (far, _) = listener.accept().expect("it was connected to");
                near.set_tcp_nodelay(true).expect("it is TCP");
                far.set_tcp_nodelay(true).expect("it is TCP");
                (near, far)
            }
        }
    }
}

impl Joint for Sockets {
    fn kind(&self) -> &str {
        match self.family {
            Family::Tcp => "tcp",
            #[cfg(unix)]
            Family::Unix => "unix",
        }
    }

    fn backend(&self) -> &str {
        self.events.backend()
    }

    fn make(&self, options: Options) -> (Bev, Bev) {
        let (near, far) = self.streams();
        let bev = |socket: Socket| {
            socket
                .set_send_buffer_size(SYSTEM_BUFFER)
                .expect("any size is taken");
            let made = Builder::new(self.events.handle())
                .options(options)
                .stream(socket);
            made.expect("a connected stream")
        };
        (bev(near), bev(far))
    }

    fn host(&self) -> Arc<dyn Host> {
        self.events.handle().as_host()
    }

    fn turn(&self) -> bool {
        self.events.turn()
    }

    fn advance(&self, span: Duration) {
        self.events.advance(self, span);
    }

    fn absorbs(&self) -> usize {
        ABSORBED
    }

    fn panics(&self) -> u64 {
        self.events.panics()
    }

    fn has_descriptor(&self) -> bool {
        true
    }
}
