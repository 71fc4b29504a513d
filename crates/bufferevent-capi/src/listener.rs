//! Listeners: descriptors that connections come to.
//!
//! # Invariants
//! - A callback may disable or free its listener: the listener lives until the accepting that called it has ended.
//! - Where no descriptor or memory is left, accepting rests for [`REST_MS`], so that the loop does not spin.

use std::cell::Cell;
use std::ffi::{c_int, c_short, c_uint};
use std::sync::Arc;
use std::time::Duration;

use crate::event::base::{Base, Wait};
use crate::event::create::{assign, unassigned};
use crate::event::layout::{EV_PERSIST, EV_READ, Event};
use crate::ffi::{Opaque, Ref, code, errno, set_errno};
use crate::lock::{Guard, Lock};
use crate::log;
use crate::util::address::SockAddr;
use crate::util::socket::{
    evutil_closesocket, evutil_make_listen_socket_ipv6only, evutil_make_listen_socket_not_ipv6only,
    evutil_make_listen_socket_reuseable, evutil_make_listen_socket_reuseable_port,
    evutil_make_tcp_listen_socket_deferred, evutil_set_tcp_keepalive,
};
use crate::util::time::timeval;

/// How long accepting rests when the system has no descriptor or memory, in milliseconds.
const REST_MS: u64 = 50;

/// How many connections wait to be accepted, where the program leaves it to us.
const DEFAULT_BACKLOG: c_int = 128;

/// How long a connection may be silent before the peer is asked whether it is there, in seconds.
const KEEPALIVE_S: c_int = 300;

/// `LEV_OPT_*`.
const LEAVE_SOCKETS_BLOCKING: c_uint = 1;
const CLOSE_ON_FREE: c_uint = 2;
const CLOSE_ON_EXEC: c_uint = 4;
const REUSEABLE: c_uint = 8;
const THREADSAFE: c_uint = 16;
const DISABLED: c_uint = 32;
const DEFERRED_ACCEPT: c_uint = 64;
const REUSEABLE_PORT: c_uint = 128;
const BIND_IPV6ONLY: c_uint = 256;
const BIND_IPV4_AND_IPV6: c_uint = 512;

type AcceptFunction = extern "C" fn(Ref<Listener>, c_int, *const libc::sockaddr, c_int, Opaque);
type ErrorFunction = extern "C" fn(Ref<Listener>, Opaque);

/// `struct evconnlistener`.
pub(crate) struct Listener {
    base: Ref<Base>,
    event: Event,
    rest: Event,
    lock: Option<Arc<Lock>>,
    on_accept: Cell<Option<AcceptFunction>>,
    on_error: Cell<Option<ErrorFunction>>,
    argument: Cell<Opaque>,
    options: c_uint,
    users: Cell<u32>,
    enabled: Cell<bool>,
}

impl Ref<Listener> {
    fn guard(self) -> Guard {
        Guard::new(self.lock.as_ref())
    }

    fn listen(self, on: bool) -> bool {
        let _guard = self.base.guard();
        if on {
            self.base.add(Ref::of(&self.event), None)
        } else {
            self.base.delete(Ref::of(&self.rest), Wait::No);
            self.base.delete(Ref::of(&self.event), Wait::No);
            true
        }
    }

    fn let_go(self) {
        let users = self.users.get() - 1;
        self.users.set(users);
        if users > 0 {
            return;
        }
        self.listen(false);
        crate::event::forget(Ref::of(&self.event));
        crate::event::forget(Ref::of(&self.rest));
        if self.options & CLOSE_ON_FREE != 0 {
            evutil_closesocket(self.event.fd.get());
        }
        // SAFETY: it was made by `evconnlistener_new`, and nobody counts on it any more.
        unsafe { self.free() };
    }

    /// Accepts until nobody waits.
    fn accept(self) {
        let mut flags = libc::SOCK_NONBLOCK;
        if self.options & LEAVE_SOCKETS_BLOCKING != 0 {
            flags = 0;
        }
        if self.options & CLOSE_ON_EXEC != 0 {
            flags |= libc::SOCK_CLOEXEC;
        }
        while self.enabled.get() && self.users.get() > 1 {
            // SAFETY: all zeros are an address of no family.
            let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_storage>() };
            let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let place = (&raw mut address).cast::<libc::sockaddr>();
            // SAFETY: room for an address of any family, and its length.
            let fd = unsafe { libc::accept4(self.event.fd.get(), place, &raw mut len, flags) };
            if fd < 0 {
                self.refused(errno());
                return;
            }
            let Some(function) = self.on_accept.get() else {
                evutil_closesocket(fd);
                return;
            };
            let argument = self.argument.get();
            Guard::unlocked(self.lock.as_ref(), || {
                function(self, fd, place.cast_const(), len as c_int, argument);
            });
        }
    }

    fn refused(self, error: c_int) {
        match error {
            libc::EAGAIN | libc::EINTR | libc::ECONNABORTED | libc::EPROTO => return,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => self.take_a_rest(),
            _ => {}
        }
        match self.on_error.get() {
            Some(function) => {
                set_errno(error);
                let argument = self.argument.get();
                Guard::unlocked(self.lock.as_ref(), || function(self, argument));
            }
            None => log::warn("evconnlistener: a connection could not be accepted"),
        }
    }

    fn take_a_rest(self) {
        let _guard = self.base.guard();
        self.base.delete(Ref::of(&self.event), Wait::No);
        let rest = timeval(Duration::from_millis(REST_MS));
        self.base.add(Ref::of(&self.rest), Some(rest));
    }
}

fn of_argument(argument: Opaque) -> Option<Ref<Listener>> {
    // SAFETY: the argument of a listener's own events, which are deleted before it goes.
    unsafe { std::mem::transmute::<Opaque, Option<Ref<Listener>>>(argument) }
}

extern "C" fn acceptable(_fd: c_int, _what: c_short, listener: Opaque) {
    let Some(listener) = of_argument(listener) else {
        return;
    };
    let guard = listener.guard();
    listener.users.set(listener.users.get() + 1);
    listener.accept();
    listener.let_go();
    drop(guard);
}

extern "C" fn rested(_fd: c_int, _what: c_short, listener: Opaque) {
    if let Some(listener) = of_argument(listener)
        && listener.enabled.get()
    {
        listener.listen(true);
    }
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_new(
    base: Option<Ref<Base>>,
    on_accept: Option<AcceptFunction>,
    argument: Opaque,
    options: c_uint,
    backlog: c_int,
    fd: c_int,
) -> Option<Ref<Listener>> {
    let base = base?;
    let backlog = if backlog < 0 {
        DEFAULT_BACKLOG
    } else {
        backlog
    };
    // SAFETY: numbers only.
    if backlog > 0 && unsafe { libc::listen(fd, backlog) } < 0 {
        return None;
    }
    let lock = if options & THREADSAFE != 0 {
        Lock::new()
    } else {
        None
    };
    let listener = Ref::make(Listener {
        base,
        event: unassigned(),
        rest: unassigned(),
        lock,
        on_accept: Cell::new(on_accept),
        on_error: Cell::new(None),
        argument: Cell::new(argument),
        options,
        users: Cell::new(1),
        enabled: Cell::new(false),
    })?;
    let own = listener.address().cast();
    let (event, rest) = (Ref::of(&listener.event), Ref::of(&listener.rest));
    assign(
        event,
        Some(base),
        fd,
        EV_READ | EV_PERSIST,
        Some(acceptable),
        own,
    );
    assign(rest, Some(base), -1, 0, Some(rested), own);
    if options & DISABLED == 0 {
        evconnlistener_enable(Some(listener));
    }
    Some(listener)
}

/// Sets the options of a socket that is to listen; whether all could be set.
fn prepare(fd: c_int, family: c_int, options: c_uint) -> bool {
    let asked =
        |option: c_uint, set: extern "C" fn(c_int) -> c_int| options & option == 0 || set(fd) == 0;
    let keeps = family == libc::AF_UNIX || evutil_set_tcp_keepalive(fd, 1, KEEPALIVE_S) == 0;
    // On a path it changes nothing, but programs ask for it there too.
    keeps
        && asked(REUSEABLE, evutil_make_listen_socket_reuseable)
        && asked(REUSEABLE_PORT, evutil_make_listen_socket_reuseable_port)
        && asked(DEFERRED_ACCEPT, evutil_make_tcp_listen_socket_deferred)
        && (family != libc::AF_INET6
            || (asked(BIND_IPV6ONLY, evutil_make_listen_socket_ipv6only)
                && asked(BIND_IPV4_AND_IPV6, evutil_make_listen_socket_not_ipv6only)))
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_new_bind(
    base: Option<Ref<Base>>,
    on_accept: Option<AcceptFunction>,
    argument: Opaque,
    options: c_uint,
    backlog: c_int,
    address: SockAddr,
    len: c_int,
) -> Option<Ref<Listener>> {
    if backlog == 0 {
        return None;
    }
    let family = address
        .get()
        .map_or(libc::AF_UNSPEC, |raw| c_int::from(raw.sa_family));
    let mut kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    if options & CLOSE_ON_EXEC != 0 {
        kind |= libc::SOCK_CLOEXEC;
    }
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return None;
    }
    let bound = prepare(fd, family, options)
        && (address.is_null()
            // SAFETY: C's promise: an address of that length.
            || unsafe { libc::bind(fd, address.address(), len as libc::socklen_t) } == 0);
    let listener = if bound {
        evconnlistener_new(base, on_accept, argument, options, backlog, fd)
    } else {
        None
    };
    if listener.is_none() {
        let error = errno();
        evutil_closesocket(fd);
        set_errno(error);
    }
    listener
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_free(listener: Option<Ref<Listener>>) {
    let Some(listener) = listener else { return };
    let guard = listener.guard();
    listener.on_accept.set(None);
    listener.on_error.set(None);
    listener.enabled.set(false);
    listener.listen(false);
    listener.let_go();
    drop(guard);
}

fn set_enabled(listener: Option<Ref<Listener>>, on: bool) -> c_int {
    let Some(listener) = listener else { return -1 };
    let _guard = listener.guard();
    listener.enabled.set(on);
    // Without a callback nobody would take what comes.
    let listens = on && listener.on_accept.get().is_some();
    code(listener.listen(listens))
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_enable(listener: Option<Ref<Listener>>) -> c_int {
    set_enabled(listener, true)
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_disable(listener: Option<Ref<Listener>>) -> c_int {
    set_enabled(listener, false)
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_get_base(listener: Option<Ref<Listener>>) -> Option<Ref<Base>> {
    listener.map(|listener| listener.base)
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_get_fd(listener: Option<Ref<Listener>>) -> c_int {
    listener.map_or(-1, |listener| listener.event.fd.get())
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_set_cb(
    listener: Option<Ref<Listener>>,
    on_accept: Option<AcceptFunction>,
    argument: Opaque,
) {
    let Some(listener) = listener else { return };
    let _guard = listener.guard();
    let begins = listener.enabled.get() && listener.on_accept.get().is_none();
    listener.on_accept.set(on_accept);
    listener.argument.set(argument);
    if begins {
        set_enabled(Some(listener), true);
    }
}

#[unsafe(no_mangle)]
extern "C" fn evconnlistener_set_error_cb(
    listener: Option<Ref<Listener>>,
    on_error: Option<ErrorFunction>,
) {
    let Some(listener) = listener else { return };
    let _guard = listener.guard();
    listener.on_error.set(on_error);
}
