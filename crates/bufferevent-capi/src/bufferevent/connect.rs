//! Connecting: to an address, and by name.
//!
//! # Invariants
//! - What comes of a connection is told once, never from inside the call that began it.
//! - A lookup holds both directions up and keeps the bufferevent alive, until it is answered or given up.

use std::ffi::{c_int, c_void};

use crate::bufferevent::{Bev, DEFER_CALLBACKS, ERROR, HELD_BY_LOOKUP, Kind};
use crate::dns::{self, DnsBase};
use crate::event::layout::{EV_READ, EV_WRITE};
use crate::ffi::{Opaque, Ref, Text, Value, code, errno, set_errno};
use crate::util::address::SockAddr;
use crate::util::socket::evutil_closesocket;

/// How `connect` began.
enum Began {
    UnderWay,
    Refused,
    Failed,
}

fn begin(fd: c_int, address: &SockAddr, len: c_int) -> Began {
    // SAFETY: C's promise: an address of that length.
    let result = unsafe { libc::connect(fd, address.address(), len as libc::socklen_t) };
    if result == 0 {
        return Began::UnderWay; // Its success is told as any other's.
    }
    match errno() {
        libc::EINPROGRESS | libc::EINTR => Began::UnderWay,
        libc::ECONNREFUSED => Began::Refused,
        _ => Began::Failed,
    }
}

/// The socket that is to connect: the bufferevent itself, or the one that was made with it.
fn socket_of(bev: Option<Ref<Bev>>) -> Option<Ref<Bev>> {
    bev.map(Ref::carrier)
        .filter(|bev| matches!(bev.kind, Kind::Socket))
}

impl Ref<Bev> {
    /// Connects; without an address, to what the descriptor is already being connected to.
    pub(crate) fn connect(self, address: &SockAddr, len: c_int) -> bool {
        let own = self.socket_descriptor() < 0;
        let fd = if own {
            let Some(raw) = address.get() else {
                return false;
            };
            let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: numbers only.
            unsafe { libc::socket(c_int::from(raw.sa_family), kind, 0) }
        } else {
            self.socket_descriptor()
        };
        if fd < 0 {
            return false;
        }
        let began = if address.is_null() {
            Began::UnderWay
        } else {
            begin(fd, address, len)
        };
        match began {
            Began::UnderWay => {
                self.connecting.set(true);
                self.set_socket_descriptor(fd);
                self.start_socket(EV_WRITE)
            }
            Began::Refused => {
                self.set_socket_descriptor(fd);
                set_errno(libc::ECONNREFUSED);
                self.tell_event(ERROR, DEFER_CALLBACKS);
                self.disable(EV_READ | EV_WRITE);
                true
            }
            Began::Failed => {
                if own {
                    let error = errno();
                    evutil_closesocket(fd);
                    set_errno(error);
                }
                false
            }
        }
    }

    /// Gives up the lookup that is under way, if one is.
    pub(crate) fn cancel_lookup(self) {
        if let Some(request) = self.lookup.take() {
            dns::evdns_getaddrinfo_cancel(Some(request));
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_socket_connect(
    bev: Option<Ref<Bev>>,
    address: SockAddr,
    len: c_int,
) -> c_int {
    let Some(bev) = socket_of(bev) else {
        return -1;
    };
    let _guard = bev.guard();
    code(bev.connect(&address, len))
}

/// A lookup was answered.
extern "C" fn resolved(error: c_int, list: *mut libc::addrinfo, bev: Opaque) {
    let Some(bev) = super::of_argument(bev) else {
        return;
    };
    let _guard = bev.guard();
    bev.lookup.set(None);
    bev.let_write(HELD_BY_LOOKUP);
    bev.let_read(HELD_BY_LOOKUP);
    if error == crate::util::resolve::EAI_CANCEL {
        bev.let_go();
        return;
    }
    if error == 0 && !list.is_null() {
        // SAFETY: a list of the resolver's, with at least one entry, which is ours until it is freed below.
        let (address, len) =
            unsafe { (Value::at((*list).ai_addr.cast_const()), (*list).ai_addrlen) };
        if !bev.connect(&address, len as c_int) {
            bev.tell_event(ERROR, 0);
        }
        crate::util::resolve::evutil_freeaddrinfo(list);
    } else {
        bev.dns_error.set(error);
        bev.tell_event(ERROR, 0);
    }
    bev.let_go();
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_socket_connect_hostname_hints(
    bev: Option<Ref<Bev>>,
    resolver: Option<Ref<DnsBase>>,
    hints: Value<libc::addrinfo>,
    name: Text<'_>,
    port: c_int,
) -> c_int {
    let Some(bev) = socket_of(bev) else {
        return -1;
    };
    if name.get().is_none() || !(1..=65535).contains(&port) {
        return -1;
    }
    let service = std::ffi::CString::new(port.to_string()).unwrap_or_default();
    let service = Text::of(&service);
    let _guard = bev.guard();
    bev.dns_error.set(0);
    bev.cancel_lookup();
    bev.hold_write(HELD_BY_LOOKUP);
    bev.hold_read(HELD_BY_LOOKUP);
    bev.retain(); // Until it is answered.
    let argument: *mut c_void = bev.address().cast();
    match resolver {
        Some(_) => {
            let request =
                dns::evdns_getaddrinfo(resolver, name, service, hints, Some(resolved), argument);
            bev.lookup.set(request);
        }
        None => {
            let (error, list) = dns::look_up(name, service, &hints);
            resolved(error, list, argument);
        }
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_socket_connect_hostname(
    bev: Option<Ref<Bev>>,
    resolver: Option<Ref<DnsBase>>,
    family: c_int,
    name: Text<'_>,
    port: c_int,
) -> c_int {
    if !matches!(family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNSPEC) {
        return -1;
    }
    let hints = dns::stream_hints(family);
    bufferevent_socket_connect_hostname_hints(
        bev,
        resolver,
        Value::at(&raw const hints),
        name,
        port,
    )
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_socket_get_dns_error(bev: Option<Ref<Bev>>) -> c_int {
    bev.map(Ref::carrier).map_or(0, |bev| {
        let _guard = bev.guard();
        bev.dns_error.get()
    })
}

/// As libevent 1.4 made them, on the base that `event_init` made last.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_new(
    fd: c_int,
    on_read: Option<super::DataFunction>,
    on_write: Option<super::DataFunction>,
    on_event: Option<super::EventsFunction>,
    argument: Opaque,
) -> Option<Ref<Bev>> {
    let base = crate::event::create::current();
    let bev = super::socket::bufferevent_socket_new(base, fd, 0)?;
    bev.set_callbacks(on_read, on_write, on_event, argument);
    Some(bev)
}
