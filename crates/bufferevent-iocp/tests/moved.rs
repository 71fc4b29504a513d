//! A socket that one loop has given back goes onto another.

#![cfg(any(target_os = "linux", windows))]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bufferevent_core::READ;
use bufferevent_iocp::{BACKEND, Builder, CompletionExt as _};
use bufferevent_testkit::{Log, record};
use common::{PATIENCE, system, until};

#[test]
fn a_socket_goes_from_loop_to_loop() {
    record::within("completion", BACKEND, || {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = TcpListener::bind(any).unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut socket = listener.accept().unwrap().0.into();
        for number in 0..3_u8 {
            let events = system();
            let log = Log::new();
            let bev = Builder::new(&events)
                .handler(log.take_all())
                .stream(socket)
                .unwrap();
            bev.enable(READ).unwrap();
            far.write_all(&[number]).unwrap();
            bev.write(&[number]).unwrap();
            if number > 0 && cannot_move() {
                until(&events, "a refusal", || !log.errors().is_empty());
                return;
            }
            until(&events, "a byte", || log.received() == [number]);
            let mut answer = [9];
            far.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [number]);
            socket = bev.into_transport().unwrap().stream;
        }
    });
}

/// Windows moves a socket from port to port since 8.1. Wine 8 cannot, and the crate says so.
#[cfg(windows)]
#[expect(unsafe_code, reason = "asking the system for a function of a library")]
fn cannot_move() -> bool {
    use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
    // SAFETY: both names end in a zero and live through the calls; `ntdll` is in every process and never unloaded. The function is not called.
    unsafe {
        let library = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        !library.is_null() && GetProcAddress(library, c"wine_get_version".as_ptr().cast()).is_some()
    }
}

#[cfg(not(windows))]
fn cannot_move() -> bool {
    false
}
