//! The descriptor under a socket bufferevent: ours, or borrowed.
//!
//! # Invariants
//! - An owned socket is closed when this is dropped; a borrowed one only by [`Descriptor::close`].
//! - This is the crate's only file with unsafe code: taking in a raw descriptor that someone else owns.

#![allow(unsafe_code, reason = "raw descriptors come in here and nowhere else")]

use std::mem::ManuallyDrop;

#[cfg(unix)]
use std::os::fd::{FromRawFd as _, RawFd as RawSource};
#[cfg(windows)]
use std::os::windows::io::{FromRawSocket as _, RawSocket as RawSource};

use socket2::Socket;

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
