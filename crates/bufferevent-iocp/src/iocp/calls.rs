//! The calls of the system, each once: what they are given, and what their answer means.
//!
//! # Invariants
//! - An overlapped call takes a [`Lent`] that is not out, and leaves it out exactly if a packet will come.
//! - Every pointer that outlives a call points into that [`Lent`], or into memory that is its payload's own.

#![allow(unsafe_code, reason = "calls of the system")]

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::windows::io::{
    AsRawHandle as _, AsRawSocket as _, BorrowedSocket, FromRawHandle as _, OwnedHandle,
};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use evbuffer::Block;
use evreactor::RawSource;
use socket2::{SockAddr, SockRef, Socket, Type};
use windows_sys::Wdk::Storage::FileSystem::{
    FILE_COMPLETION_INFORMATION, FileReplaceCompletionInformation, NtSetInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_INVALID_PARAMETER, HANDLE, INVALID_HANDLE_VALUE, WAIT_TIMEOUT,
};
use windows_sys::Win32::Networking::WinSock::{
    SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT, SOCKADDR_STORAGE, SOCKET, SOL_SOCKET,
    WSA_IO_PENDING, WSABUF, WSAEINVAL, WSAGetLastError, WSAGetOverlappedResult, WSARecv, WSASend,
    setsockopt,
};
use windows_sys::Win32::Storage::FileSystem::SetFileCompletionNotificationModes;
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatusEx, IO_STATUS_BLOCK,
    OVERLAPPED_ENTRY, PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::WindowsProgramming::FILE_SKIP_COMPLETION_PORT_ON_SUCCESS;

use super::detect::Functions;
use super::lent::Lent;
use super::sends::{Outgoing, SLICES};

/// Packets that are dequeued by one call.
const BATCH: usize = 256;

/// The key of packets that wake.
const BELL: usize = usize::MAX;

/// What `AcceptEx` needs for each of two addresses.
const ADDRESS: usize = size_of::<SOCKADDR_STORAGE>() + 16;

/// How a call began its operation.
pub(super) enum Begun {
    /// A packet will come.
    Pending,
    /// It is over already, with so many bytes, and no packet comes.
    Over(usize),
}

/// A packet that was dequeued: the proof that the system has let go of an operation's memory. Only [`CompletionPort::dequeue`] makes one.
pub(super) struct Packet {
    key: usize,
    /// A number: it is compared and never followed.
    address: usize,
    length: usize,
}

/// Room for a batch of packets.
pub(super) struct Batch(Box<[OVERLAPPED_ENTRY; BATCH]>);

// SAFETY: what is in it is read by the call that has written it, and by nobody later.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn new() -> Self {
        Self(Box::new([OVERLAPPED_ENTRY::default(); BATCH]))
    }
}

impl Packet {
    /// Under which key the socket was associated.
    pub(super) fn key(&self) -> usize {
        self.key
    }

    /// Whether it is about this operation.
    pub(super) fn is_of<T>(&self, lent: &Lent<T>) -> bool {
        lent.is_out() && self.address == lent.address().addr()
    }
}

/// What an accept takes along.
pub(super) struct Accepting {
    pub(super) socket: Socket,
    addresses: [u8; 2 * ADDRESS],
}

impl Accepting {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            addresses: [0; 2 * ADDRESS],
        }
    }
}

/// The port, closed with the last who has it.
pub(super) struct CompletionPort {
    handle: OwnedHandle,
    /// A packet that wakes is queued.
    rung: AtomicBool,
}

pub(super) fn last_error() -> io::Error {
    // SAFETY: it reads a number of this thread's.
    io::Error::from_raw_os_error(unsafe { WSAGetLastError() })
}

impl CompletionPort {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new port is made, for one thread at a time.
        let handle = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, 1) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else has it.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        Ok(Self {
            handle,
            rung: AtomicBool::new(false),
        })
    }

    fn raw(&self) -> HANDLE {
        self.handle.as_raw_handle()
    }

    /// Has the packets of a socket come here, under `key`.
    pub(super) fn associate(&self, socket: RawSource, key: usize) -> io::Result<()> {
        // SAFETY: both handles are open: the desk keeps a socket until its last completion. No memory is handed over.
        let result = unsafe { CreateIoCompletionPort(socket as HANDLE, self.raw(), key, 0) };
        if !result.is_null() {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(ERROR_INVALID_PARAMETER as i32) {
            // It has a port already: that of a loop which has given it back.
            return self.take_over(socket, key).map_err(|source| {
                let why = format!("the socket belongs to another completion port ({source})");
                io::Error::new(io::ErrorKind::Unsupported, why)
            });
        }
        Err(error)
    }

    fn take_over(&self, socket: RawSource, key: usize) -> io::Result<()> {
        let information = FILE_COMPLETION_INFORMATION {
            Port: self.raw(),
            Key: key as *mut _,
        };
        let mut status = IO_STATUS_BLOCK::default();
        // SAFETY: the call reads a structure whose size it is told and writes the status; both live through it.
        let result = unsafe {
            NtSetInformationFile(
                socket as HANDLE,
                &raw mut status,
                (&raw const information).cast(),
                size_of::<FILE_COMPLETION_INFORMATION>() as u32,
                FileReplaceCompletionInformation,
            )
        };
        if result < 0 {
            return Err(io::Error::other(format!("status {result:#010x}")));
        }
        Ok(())
    }

    /// Ends the wait that is going on, or the next one. Rung again before that, it says nothing new.
    pub(super) fn ring(&self) -> io::Result<()> {
        if self.rung.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: no memory is handed over.
        let posted = unsafe { PostQueuedCompletionStatus(self.raw(), 0, BELL, ptr::null()) };
        if posted == 0 {
            self.rung.store(false, Ordering::Release);
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits for packets, `milliseconds` at most, and adds them to `packets`. Tells whether there may be more.
    pub(super) fn dequeue(
        &self,
        milliseconds: u32,
        batch: &mut Batch,
        packets: &mut Vec<Packet>,
    ) -> io::Result<bool> {
        let mut count = 0;
        // SAFETY: at most `BATCH` entries are written, to that many; the wait is not alertable.
        let got = unsafe {
            GetQueuedCompletionStatusEx(
                self.raw(),
                batch.0.as_mut_ptr(),
                BATCH as u32,
                &raw mut count,
                milliseconds,
                0,
            )
        };
        if got == 0 {
            // `count` means nothing then.
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(WAIT_TIMEOUT as i32) {
                Ok(false)
            } else {
                Err(error)
            };
        }
        let count = (count as usize).min(BATCH);
        for entry in &batch.0[..count] {
            if entry.lpCompletionKey == BELL {
                self.rung.store(false, Ordering::Release);
            } else {
                packets.push(Packet {
                    key: entry.lpCompletionKey,
                    address: entry.lpOverlapped.addr(),
                    length: entry.dwNumberOfBytesTransferred as usize,
                });
            }
        }
        Ok(count == BATCH)
    }
}

/// Has operations of a socket that succeed at once post no packet. Tells whether they do not.
pub(super) fn skip_on_success(socket: RawSource) -> bool {
    let modes = FILE_SKIP_COMPLETION_PORT_ON_SUCCESS as u8;
    // SAFETY: no memory is handed over.
    unsafe { SetFileCompletionNotificationModes(socket as HANDLE, modes) != 0 }
}

/// Makes sense of what an overlapped call has answered. `skips`: no packet comes for what has succeeded.
fn begun<T>(lent: &mut Lent<T>, succeeded: bool, length: u32, skips: bool) -> io::Result<Begun> {
    if succeeded {
        if !skips {
            return Ok(Begun::Pending);
        }
        // SAFETY: the operation is over, and such a socket posts no packet for that.
        unsafe { lent.take_back() };
        return Ok(Begun::Over(length as usize));
    }
    let error = last_error();
    if error.raw_os_error() == Some(WSA_IO_PENDING) {
        return Ok(Begun::Pending);
    }
    // SAFETY: the call has begun nothing, so no packet comes.
    unsafe { lent.take_back() };
    Err(error)
}

/// Receives into the block of `lent`, or waits for bytes or an end where there is none.
pub(super) fn receive(
    socket: RawSource,
    lent: &mut Lent<Option<Block>>,
    skips: bool,
) -> io::Result<Begun> {
    let room = lent.payload().as_mut().map_or(
        WSABUF {
            len: 0,
            buf: ptr::null_mut(),
        },
        |block| WSABUF {
            len: block.len() as u32,
            buf: block.as_mut_ptr(),
        },
    );
    let (mut length, mut flags) = (0, 0);
    // SAFETY: the buffer is the payload's, the block of control the frame's, and both are lent until the packet or `take_back`. The list of one
    // buffer, length and flags are used during the call alone. The socket is open: the desk keeps it until the last completion.
    let result = unsafe {
        WSARecv(
            socket as SOCKET,
            &raw const room,
            1,
            &raw mut length,
            &raw mut flags,
            lent.lend(),
            None,
        )
    };
    begun(lent, result == 0, length, skips)
}

/// Sends what is in `lent`.
pub(super) fn send(socket: RawSource, lent: &mut Lent<Outgoing>, skips: bool) -> io::Result<Begun> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = lent.payload().slices(&mut slices);
    let pieces = slices.map(|slice| WSABUF {
        len: slice.len() as u32,
        buf: slice.as_ptr().cast_mut(),
    });
    let mut length = 0;
    // SAFETY: the pieces are the payload's, which is lent and not changed until the packet or `take_back`; they are only read. The list of
    // them and the length are used during the call alone. The socket is open, as above.
    let result = unsafe {
        WSASend(
            socket as SOCKET,
            pieces.as_ptr(),
            count as u32,
            &raw mut length,
            0,
            lent.lend(),
            None,
        )
    };
    begun(lent, result == 0, length, skips)
}

/// A look at a socket that the desk keeps open.
fn with_socket<R>(socket: RawSource, look: impl FnOnce(SockRef<'_>) -> R) -> R {
    // SAFETY: the socket is open until its last completion, by the driver's contract, so through this call.
    let borrowed = unsafe { BorrowedSocket::borrow_raw(socket) };
    look(SockRef::from(&borrowed))
}

/// A socket that a listener's next connection can become.
pub(super) fn fresh_for(listener: RawSource) -> io::Result<Socket> {
    let domain = with_socket(listener, |listener| listener.local_addr())?.domain();
    Socket::new(domain, Type::STREAM, None)
}

/// Binds a socket to no address in particular, which `ConnectEx` wants. One that is bound stays so.
pub(super) fn bind_anywhere(socket: RawSource, peer: &SockAddr) -> io::Result<()> {
    let any: SocketAddr = if peer.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    with_socket(socket, |socket| match socket.bind(&any.into()) {
        Err(error) if error.raw_os_error() == Some(WSAEINVAL) => Ok(()),
        other => other,
    })
}

/// Connects to the address in `lent`. The socket is bound.
pub(super) fn connect(
    functions: &Functions,
    socket: RawSource,
    lent: &mut Lent<SockAddr>,
    skips: bool,
) -> io::Result<Begun> {
    let connect = functions.connect.ok_or(io::ErrorKind::Unsupported)?;
    let address = lent.payload();
    let (name, length) = (address.as_ptr(), address.len());
    // SAFETY: the address is the payload's and lent; nothing is sent along. The socket is open, as above.
    let result = unsafe {
        connect(
            socket as SOCKET,
            name.cast(),
            length,
            ptr::null(),
            0,
            ptr::null_mut(),
            lent.lend(),
        )
    };
    begun(lent, result != 0, 0, skips)
}

/// Accepts a connection as the socket in `lent`.
pub(super) fn accept(
    functions: &Functions,
    listener: RawSource,
    lent: &mut Lent<Accepting>,
    skips: bool,
) -> io::Result<Begun> {
    let accept = functions.accept.ok_or(io::ErrorKind::Unsupported)?;
    let accepting = lent.payload();
    let socket = accepting.socket.as_raw_socket() as SOCKET;
    let addresses = accepting.addresses.as_mut_ptr();
    let mut length = 0;
    // SAFETY: the addresses are written to the payload, which is lent and as long as is said; no bytes are received along. Both sockets
    // are open: one is the payload's, the other as above. The length is used during the call alone.
    let result = unsafe {
        accept(
            listener as SOCKET,
            socket,
            addresses.cast(),
            0,
            ADDRESS as u32,
            ADDRESS as u32,
            &raw mut length,
            lent.lend(),
        )
    };
    begun(lent, result != 0, 0, skips)
}

/// The connection stands: the socket is to know.
pub(super) fn update_connected(socket: RawSource) -> io::Result<()> {
    update(socket, SO_UPDATE_CONNECT_CONTEXT, &[])
}

/// A connection was accepted: its socket is to know of whom.
pub(super) fn update_accepted(accepted: &Socket, listener: RawSource) -> io::Result<()> {
    let listener = (listener as SOCKET).to_ne_bytes();
    update(
        accepted.as_raw_socket(),
        SO_UPDATE_ACCEPT_CONTEXT,
        &listener,
    )
}

fn update(socket: RawSource, what: i32, value: &[u8]) -> io::Result<()> {
    let at = if value.is_empty() {
        ptr::null()
    } else {
        value.as_ptr()
    };
    // SAFETY: as many bytes as are said are read during the call.
    let result = unsafe { setsockopt(socket as SOCKET, SOL_SOCKET, what, at, value.len() as i32) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

/// Asks the system to end an operation. One that is over has its packet queued already.
pub(super) fn cancel<T>(socket: RawSource, lent: &Lent<T>) {
    if lent.is_out() {
        // SAFETY: the address only names the operation; the frame is allocated while it is out.
        unsafe { CancelIoEx(socket as HANDLE, lent.address()) };
    }
}

/// What came of the operation of a packet. Its memory is ours again.
///
/// # Panics
/// If the packet is another's.
pub(super) fn outcome<T>(
    socket: RawSource,
    lent: &mut Lent<T>,
    packet: &Packet,
) -> io::Result<usize> {
    assert!(packet.is_of(lent), "a packet tells of its own operation");
    let (mut length, mut flags) = (0, 0);
    // SAFETY: the system writes nothing to the block of control any more; the call reads it.
    let good = unsafe {
        WSAGetOverlappedResult(
            socket as SOCKET,
            lent.address(),
            &raw mut length,
            0,
            &raw mut flags,
        )
    };
    // Before anything else can change it.
    let error = last_error();
    // SAFETY: the operation's packet was dequeued: here it is, and each is made once.
    unsafe { lent.take_back() };
    if good != 0 {
        Ok(packet.length)
    } else {
        Err(error)
    }
}
