//! Descriptors and their options.

use std::ffi::{c_int, c_void};

use crate::ffi::{Out, code, descriptor, set_errno, system};

/// How many probes of a silent peer are lost before it counts as gone.
const KEEPALIVE_PROBES: c_int = 3;

#[unsafe(no_mangle)]
extern "C" fn evutil_socketpair(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    pair: Out<[c_int; 2]>,
) -> c_int {
    if pair.is_null() {
        set_errno(libc::EINVAL);
        return -1;
    }
    let mut made = [-1; 2];
    // SAFETY: the array has room for the two.
    let result = unsafe { libc::socketpair(family, kind, protocol, made.as_mut_ptr()) };
    if result == 0 {
        pair.set(made);
    }
    result
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_socket_nonblocking(fd: c_int) -> c_int {
    let done = descriptor(fd).and_then(|fd| system(rustix::io::ioctl_fionbio(fd, true)));
    code(done.is_some())
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_socket_closeonexec(fd: c_int) -> c_int {
    let done = descriptor(fd).and_then(|fd| {
        let flags = system(rustix::io::fcntl_getfd(fd))?;
        system(rustix::io::fcntl_setfd(
            fd,
            flags | rustix::io::FdFlags::CLOEXEC,
        ))
    });
    code(done.is_some())
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_closesocket(fd: c_int) -> c_int {
    // SAFETY: the program, or the object that owns the descriptor, gives it up.
    unsafe { libc::close(fd) }
}

/// Sets an option that is a number.
pub(crate) fn set_option(fd: c_int, level: c_int, name: c_int, value: c_int) -> bool {
    let size = size_of::<c_int>() as libc::socklen_t;
    let place = (&raw const value).cast::<c_void>();
    // SAFETY: the place holds a value of that size.
    unsafe { libc::setsockopt(fd, level, name, place, size) == 0 }
}

/// Asks for an option that is a number.
pub(crate) fn option(fd: c_int, level: c_int, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut size = size_of::<c_int>() as libc::socklen_t;
    let place = (&raw mut value).cast::<c_void>();
    // SAFETY: the place has room for a value of that size.
    let result = unsafe { libc::getsockopt(fd, level, name, place, &raw mut size) };
    (result == 0).then_some(value)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_listen_socket_reuseable(fd: c_int) -> c_int {
    code(set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_listen_socket_reuseable_port(fd: c_int) -> c_int {
    code(set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_listen_socket_ipv6only(fd: c_int) -> c_int {
    code(set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_listen_socket_not_ipv6only(fd: c_int) -> c_int {
    code(set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_make_tcp_listen_socket_deferred(fd: c_int) -> c_int {
    code(set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_set_tcp_keepalive(fd: c_int, on: c_int, timeout: c_int) -> c_int {
    let on = c_int::from(on != 0);
    if !set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, on) {
        return -1;
    }
    if on == 0 || timeout <= 0 {
        return 0;
    }
    let interval = (timeout / KEEPALIVE_PROBES).max(1);
    let set = |name, value| set_option(fd, libc::IPPROTO_TCP, name, value);
    code(
        set(libc::TCP_KEEPIDLE, timeout)
            && set(libc::TCP_KEEPCNT, KEEPALIVE_PROBES)
            && set(libc::TCP_KEEPINTVL, interval),
    )
}
