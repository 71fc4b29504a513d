//! What has to be asked of this system before anything is started.
//!
//! # Invariants
//! - Every answer names what was refused, and what to do about it.

#![allow(unsafe_code, reason = "functions of the system that come as pointers")]

use std::ffi::c_void;
use std::io;
use std::mem;
use std::os::windows::io::AsRawSocket as _;
use std::sync::OnceLock;

use socket2::{Domain, Socket, Type};
use windows_sys::Win32::Networking::WinSock::{
    LPFN_ACCEPTEX, LPFN_CONNECTEX, SIO_GET_EXTENSION_FUNCTION_POINTER, SO_PROTOCOL_INFOW, SOCKET,
    SOL_SOCKET, WSAID_ACCEPTEX, WSAID_CONNECTEX, WSAIoctl, WSAPROTOCOL_INFOW, XP1_IFS_HANDLES,
    getsockopt,
};
use windows_sys::core::GUID;

use crate::unavailable::Unavailable;

/// What the sockets of this system can do beyond the calls that every one has.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    pub(super) accept: LPFN_ACCEPTEX,
    pub(super) connect: LPFN_CONNECTEX,
    /// Sockets are the system's own handles: what completes at once may go without a packet. Layered providers lose it.
    pub(super) skips: bool,
}

/// Asks once per process.
pub(super) fn functions() -> Result<Functions, Unavailable> {
    static KNOWN: OnceLock<Functions> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let found = ask().map_err(|source| {
        Unavailable::new(
            "the system has no overlapped sockets",
            "ConnectEx and AcceptEx are needed; use the default backend",
            Some(source),
        )
    })?;
    Ok(*KNOWN.get_or_init(|| found))
}

fn ask() -> io::Result<Functions> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, None))?;
    let raw = socket.as_raw_socket() as SOCKET;
    let accept = pointer(raw, &WSAID_ACCEPTEX)?;
    let connect = pointer(raw, &WSAID_CONNECTEX)?;
    Ok(Functions {
        // SAFETY: the system answers this name with a function of this type, or with none.
        accept: unsafe { mem::transmute::<*mut c_void, LPFN_ACCEPTEX>(accept) },
        // SAFETY: likewise.
        connect: unsafe { mem::transmute::<*mut c_void, LPFN_CONNECTEX>(connect) },
        skips: is_native(raw),
    })
}

fn pointer(socket: SOCKET, name: &GUID) -> io::Result<*mut c_void> {
    let mut found: *mut c_void = std::ptr::null_mut();
    let mut length = 0;
    // SAFETY: the call reads a GUID and writes a pointer, whose sizes it is told; both live through it. It is not overlapped.
    let result = unsafe {
        WSAIoctl(
            socket,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw const *name).cast(),
            size_of::<GUID>() as u32,
            (&raw mut found).cast(),
            size_of::<*mut c_void>() as u32,
            &raw mut length,
            std::ptr::null_mut(),
            None,
        )
    };
    if result != 0 {
        return Err(super::calls::last_error());
    }
    if found.is_null() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(found)
}

fn is_native(socket: SOCKET) -> bool {
    let mut info = WSAPROTOCOL_INFOW::default();
    let mut length = size_of::<WSAPROTOCOL_INFOW>() as i32;
    // SAFETY: at most `length` bytes are written to a plain structure of that size.
    let result = unsafe {
        getsockopt(
            socket,
            SOL_SOCKET,
            SO_PROTOCOL_INFOW,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    result == 0 && info.dwServiceFlags1 & XP1_IFS_HANDLES != 0
}
