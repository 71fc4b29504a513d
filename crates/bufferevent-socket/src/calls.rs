//! The two system calls of a message, and how many of them a thread's sockets made: what a program's cost per message is mostly made of.
//!
//! On Linux they go to the kernel directly (by rustix): in a program of several threads the C library makes each of them a point where the
//! thread can be cancelled, which costs 120 instructions per message, and no Rust thread is ever cancelled.
//!
//! # Invariants
//! - Every attempt counts, those that would block or were interrupted among them.
//! - A send never raises SIGPIPE.

use std::cell::Cell;
use std::io;

use socket2::Socket;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(crate) const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(crate) const SEND_FLAGS: i32 = 0;

/// `recv`, once.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline(always)]
pub(crate) fn receive(socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    match rustix::net::recv(socket, bytes, rustix::net::RecvFlags::empty()) {
        Ok((_, count)) => Ok(count),
        Err(errno) => Err(failed(errno)),
    }
}

/// `send`, once.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline(always)]
pub(crate) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
        Ok(count) => Ok(count),
        Err(errno) => Err(failed(errno)),
    }
}

/// Apart: most calls do not fail.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[cold]
#[inline(never)]
fn failed(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}

/// `recv`, once.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn receive(mut socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut socket, bytes)
}

/// `send`, once.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, SEND_FLAGS)
}

thread_local! {
    static CALLS: Cell<Calls> = const { Cell::new(Calls { receives: 0, sends: 0 }) };
}

/// System calls that moved, or tried to move, bytes of socket bufferevents.
///
/// ```
/// let before = bufferevent_socket::Calls::of_thread();
/// // … run the loop …
/// let after = bufferevent_socket::Calls::of_thread();
/// assert_eq!(after.sends - before.sends, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Calls {
    /// `recv` and its like.
    pub receives: u64,
    /// `send`, `sendmsg`, `sendfile` and their like.
    pub sends: u64,
}

impl Calls {
    /// Those of the calling thread so far.
    #[must_use]
    pub fn of_thread() -> Self {
        CALLS.get()
    }
}

#[inline]
pub(crate) fn count_receive() {
    let calls = CALLS.get();
    CALLS.set(Calls {
        receives: calls.receives + 1,
        ..calls
    });
}

#[inline]
pub(crate) fn count_send() {
    let calls = CALLS.get();
    CALLS.set(Calls {
        sends: calls.sends + 1,
        ..calls
    });
}
