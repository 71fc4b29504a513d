//! Completion sockets: on the system's completion backend, and on a driver that has no system.

use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::{Bev, Options};
use bufferevent_iocp::{BACKEND, BACKEND_FAKE, Builder, CompletionExt as _, Fake};
use evreactor_core::{AsHost, Host};
use socket2::{Domain, Socket, Type};

use crate::joint::{Joint, Place, place_of};
use crate::real_loop::RealLoop;

/// What is asked of the system for each of a socket's buffers, in bytes: little, so that they fill quickly.
const SYSTEM_BUFFER: usize = 16 * 1024;

/// What lies between two ends at most, in bytes: the system's buffers, what is handed over, and what was received ahead.
const ABSORBED: usize = 1024 * 1024;

/// Completion sockets over the loopback device, or joined in memory.
pub struct Completions {
    events: RealLoop,
    system: bool,
}

impl Completions {
    /// TCP on the system's completion backend.
    ///
    /// # Panics
    /// If the system has none.
    #[must_use]
    pub fn tcp() -> Self {
        bufferevent_iocp::register();
        Self {
            events: RealLoop::new(BACKEND),
            system: true,
        }
    }

    /// Joined in memory.
    #[must_use]
    pub fn fake() -> Self {
        bufferevent_iocp::register_fake();
        Self {
            events: RealLoop::new(BACKEND_FAKE),
            system: false,
        }
    }
}

fn streams() -> (Socket, Socket) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    listener
        .set_recv_buffer_size(SYSTEM_BUFFER)
        .expect("before it listens");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("there is a port");
    listener.listen(1).expect("it is bound");
    let address = listener.local_addr().expect("it is bound");
    let near = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    near.set_recv_buffer_size(SYSTEM_BUFFER)
        .expect("before it is connected");
    near.connect(&address).expect("it listens");
    let (far, _) = listener.accept().expect("it was connected to");
    (near, far)
}

impl Joint for Completions {
    fn kind(&self) -> &str {
        "completion"
    }

    fn backend(&self) -> &str {
        self.events.backend()
    }

    fn make(&self, options: Options) -> (Bev, Bev) {
        if !self.system {
            return Fake::pair(self.events.handle(), options).expect("the loop's driver is a fake");
        }
        let (near, far) = streams();
        let bev = |socket: Socket| {
            socket
                .set_send_buffer_size(SYSTEM_BUFFER)
                .expect("any size is taken");
            let builder = Builder::new(self.events.handle())
                .options(options)
                .nodelay(true);
            builder.stream(socket).expect("a connected stream")
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
        self.system
    }

    fn has_causes(&self) -> bool {
        true
    }

    #[allow(
        clippy::unnecessary_cast,
        reason = "descriptors are numbers of another width elsewhere"
    )]
    fn place(&self, bev: &Bev) -> Option<Place> {
        let text = |address: socket2::SockAddr| format!("{:?}", address.as_socket());
        place_of(
            bev.fd().map(|fd| fd as u64),
            bev.local_addr().map(text),
            bev.peer_addr().map(text),
        )
    }

    fn moves(&self) -> bool {
        false
    }
}
