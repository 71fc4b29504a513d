//! What the Rust peers share: the command line, the listening socket and the line that says where it listens.
//!
//! The same as `bench/c/peer.h` does for the C peers: a free port of 127.0.0.1, `TCP_NODELAY` set
//! on the listener (accepted sockets inherit it on Linux), a backlog for a thousand clients at
//! once, and `127.0.0.1:PORT` as the first line.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Bytes of one read: what the other peers and the product use.
pub const READ_BYTES: usize = 64 * 1024;

/// What a peer does with what arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// Sends it back.
    Echo,
    /// Throws it away.
    Discard,
}

impl Service {
    /// The service that the command line asks for.
    pub fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Self::Echo,
            ["--discard"] => Self::Discard,
            _ => {
                eprintln!("the only argument is --discard");
                std::process::exit(2)
            }
        }
    }
}

/// Listens on a free loopback port, without blocking, and prints it.
pub fn listen_and_print() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    Ok(listener)
}
