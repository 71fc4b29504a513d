//! The descriptor under a socket bufferevent: ours, or borrowed.
//!
//! # Invariants
//! - An owned socket is closed when this is dropped; a borrowed one only by [`Descriptor::close`].
//! - This is the crate's only file with unsafe code: taking in a raw descriptor that someone else owns, and one option for which no
//!   library has a call.

#![allow(unsafe_code, reason = "raw descriptors come in here and nowhere else")]

use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpStream;

#[cfg(unix)]
use std::os::fd::{FromRawFd as _, RawFd as RawSource};
#[cfg(windows)]
use std::os::windows::io::{FromRawSocket as _, RawSocket as RawSource};

use socket2::{Domain, Socket, Type};

/// A stream socket, and whether it is ours to close.
#[derive(Debug)]
pub(crate) enum Descriptor {
    Owned(Socket),
    Borrowed(ManuallyDrop<Socket>),
}

impl Descriptor {
    /// Borrows a raw descriptor.
    ///
    /// # Safety
    /// `raw` is an open socket, and stays open until this is dropped or [`close`](Self::close)d.
    pub(crate) unsafe fn borrow(raw: RawSource) -> Self {
        // SAFETY: open, by the caller's contract; `ManuallyDrop` keeps it from being closed by a drop, so its owner stays
        // the owner until `close` takes over.
        Self::Borrowed(ManuallyDrop::new(unsafe {
            Socket::from_raw_fd_or_socket(raw)
        }))
    }

    #[inline]
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Owned(socket) => socket,
            Self::Borrowed(socket) => socket,
        }
    }

    /// Makes the socket non-blocking.
    pub(crate) fn nonblocking(self) -> io::Result<Self> {
        match self {
            // By std, which makes one call of the system for it; socket2 makes two.
            Self::Owned(socket) => {
                let stream = TcpStream::from(socket);
                stream.set_nonblocking(true)?;
                Ok(Self::Owned(stream.into()))
            }
            Self::Borrowed(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Self::Borrowed(socket))
            }
        }
    }

    /// Closes the socket, whoever's it is.
    pub(crate) fn close(self) {
        match self {
            Self::Owned(socket) => drop(socket),
            Self::Borrowed(socket) => drop(ManuallyDrop::into_inner(socket)),
        }
    }

    /// The socket itself, if it is ours.
    pub(crate) fn into_owned(self) -> Result<Socket, Self> {
        match self {
            Self::Owned(socket) => Ok(socket),
            borrowed @ Self::Borrowed(_) => Err(borrowed),
        }
    }
}

/// A new stream socket that does not block.
pub(crate) fn new_stream(domain: Domain) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    return Socket::new(domain, Type::STREAM.nonblocking(), None);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Two Unix-domain stream sockets, connected to each other, that do not block.
#[cfg(unix)]
pub(crate) fn new_pair() -> io::Result<(Socket, Socket)> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    return Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let ends = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        ends.0.set_nonblocking(true)?;
        ends.1.set_nonblocking(true)?;
        Ok(ends)
    }
}

/// One name for the two systems' constructors.
trait FromRaw {
    /// # Safety
    /// `raw` is an open socket that the result may be responsible for.
    unsafe fn from_raw_fd_or_socket(raw: RawSource) -> Self;
}

impl FromRaw for Socket {
    unsafe fn from_raw_fd_or_socket(raw: RawSource) -> Self {
        #[cfg(unix)]
        // SAFETY: this function's own contract.
        unsafe {
            Self::from_raw_fd(raw)
        }
        #[cfg(windows)]
        // SAFETY: this function's own contract.
        unsafe {
            Self::from_raw_socket(raw)
        }
    }
}

/// Has the system keep TCP connections until there is something to read, for about `span`. Nothing where a socket or a system knows no such
/// thing.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn defer_accept(socket: &Socket, span: std::time::Duration) -> std::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    if !matches!(
        socket.domain()?,
        socket2::Domain::IPV4 | socket2::Domain::IPV6
    ) {
        return Ok(());
    }
    let seconds = libc::c_int::try_from(span.as_secs().max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY:
    // - The descriptor is open: `socket` owns it and is borrowed for the call.
    // - The option's value is a `c_int`; pointer and length are those of `seconds`, which lives through the call, and the kernel only
    //   reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn defer_accept(_socket: &Socket, _span: std::time::Duration) -> std::io::Result<()> {
    Ok(())
}
