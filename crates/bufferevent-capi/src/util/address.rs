//! Addresses: between text, bytes and `struct sockaddr`.

use std::ffi::{CString, c_int, c_uint, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::ffi::{Out, Room, Text, Value};

/// A `struct sockaddr` that the program passed, whose length depends on its family.
pub(crate) type SockAddr = Value<libc::sockaddr>;

/// An address in the system's form.
pub(crate) enum Raw {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Raw {
    pub(crate) fn new(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: all numbers, and zero is one for each.
                let mut raw = unsafe { std::mem::zeroed::<libc::sockaddr_in>() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                Self::V4(raw)
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above.
                let mut raw = unsafe { std::mem::zeroed::<libc::sockaddr_in6>() };
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                Self::V6(raw)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::V4(_) => size_of::<libc::sockaddr_in>(),
            Self::V6(_) => size_of::<libc::sockaddr_in6>(),
        }
    }

    pub(crate) fn address(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(raw) => (&raw const *raw).cast(),
            Self::V6(raw) => (&raw const *raw).cast(),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the address is that of a plain structure of so many bytes, none of them padding that was never written: it was
        // zeroed first.
        unsafe { std::slice::from_raw_parts(self.address().cast::<u8>(), self.len()) }
    }
}

/// What a `struct sockaddr` of a family that is known here says.
pub(crate) fn socket_addr(address: &SockAddr) -> Option<SocketAddr> {
    match c_int::from(address.get()?.sa_family) {
        libc::AF_INET => {
            // SAFETY: its family says that it is a `sockaddr_in`.
            let raw = unsafe {
                address
                    .address()
                    .cast::<libc::sockaddr_in>()
                    .read_unaligned()
            };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: its family says that it is a `sockaddr_in6`.
            let raw = unsafe {
                address
                    .address()
                    .cast::<libc::sockaddr_in6>()
                    .read_unaligned()
            };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_inet_ntop(
    family: c_int,
    from: *const c_void,
    to: Room<'_>,
    len: usize,
) -> *const c_void {
    if from.is_null() {
        return std::ptr::null();
    }
    let text = match family {
        libc::AF_INET => {
            // SAFETY: C's promise: a `struct in_addr`.
            Ipv4Addr::from(unsafe { from.cast::<[u8; 4]>().read() }).to_string()
        }
        libc::AF_INET6 => {
            // SAFETY: C's promise: a `struct in6_addr`.
            Ipv6Addr::from(unsafe { from.cast::<[u8; 16]>().read() }).to_string()
        }
        _ => return std::ptr::null(),
    };
    if text.len() >= len {
        return std::ptr::null();
    }
    super::text::put(text.as_bytes(), &to, len);
    to.address()
}

/// An IPv6 address and the number of the interface behind a `%`.
fn scoped(text: &str) -> Option<(Ipv6Addr, u32)> {
    let Some((ip, scope)) = text.split_once('%') else {
        return Some((text.parse().ok()?, 0));
    };
    let ip = ip.parse().ok()?;
    if let Ok(number) = scope.parse() {
        return Some((ip, number));
    }
    let name = CString::new(scope).ok()?;
    // SAFETY: the name ends with 0.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some((ip, index)),
    }
}

/// Answers 1 for an address, 0 for something else, -1 for a family that is not known.
#[unsafe(no_mangle)]
extern "C" fn evutil_inet_pton_scope(
    family: c_int,
    from: Text<'_>,
    to: *mut c_void,
    index: Out<c_uint>,
) -> c_int {
    let text = from.get().and_then(|text| text.to_str().ok());
    index.set(0);
    match family {
        libc::AF_INET => match text.and_then(|text| text.parse::<Ipv4Addr>().ok()) {
            Some(ip) => {
                // SAFETY: C's promise: room for a `struct in_addr`.
                unsafe { to.cast::<[u8; 4]>().write(ip.octets()) };
                1
            }
            None => 0,
        },
        libc::AF_INET6 => match text.and_then(scoped) {
            Some((ip, scope)) if scope == 0 || !index.is_null() => {
                // SAFETY: C's promise: room for a `struct in6_addr`.
                unsafe { to.cast::<[u8; 16]>().write(ip.octets()) };
                index.set(scope);
                1
            }
            Some(_) | None => 0,
        },
        _ => -1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_inet_pton(family: c_int, from: Text<'_>, to: *mut c_void) -> c_int {
    evutil_inet_pton_scope(family, from, to, Out::none())
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`; a port is from 1 to 65535.
fn parse(text: &str) -> Option<SocketAddr> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let v6 = |text: &str, port| {
        let (ip, scope) = scoped(text)?;
        Some(SocketAddr::from(SocketAddrV6::new(ip, port, 0, scope)))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let number = match rest.strip_prefix(':') {
            Some(number) => port(number)?,
            None if rest.is_empty() => 0,
            None => return None,
        };
        return v6(ip, number);
    }
    if text.bytes().filter(|byte| *byte == b':').count() > 1 {
        return v6(text, 0);
    }
    let (ip, number) = match text.split_once(':') {
        Some((ip, number)) => (ip, port(number)?),
        None => (text, 0),
    };
    let ip: Ipv4Addr = ip.parse().ok()?;
    Some(SocketAddr::new(IpAddr::V4(ip), number))
}

#[unsafe(no_mangle)]
extern "C" fn evutil_parse_sockaddr_port(from: Text<'_>, to: Room<'_>, len: Out<c_int>) -> c_int {
    let text = from.get().and_then(|text| text.to_str().ok());
    let (Some(address), Some(room)) = (text.and_then(parse), len.get()) else {
        return -1;
    };
    let raw = Raw::new(&address);
    if usize::try_from(room).map_or(true, |room| room < raw.len()) {
        return -1;
    }
    to.bytes(raw.len(), raw.len()).copy_from_slice(raw.bytes());
    len.set(raw.len() as c_int);
    0
}

/// An order of addresses: by family, then by address, and by port if that is to count.
#[unsafe(no_mangle)]
extern "C" fn evutil_sockaddr_cmp(a: SockAddr, b: SockAddr, with_port: c_int) -> c_int {
    let family = |address: &SockAddr| address.get().map_or(0, |raw| c_int::from(raw.sa_family));
    let by_family = family(&a) - family(&b);
    if by_family != 0 {
        return by_family;
    }
    let (Some(a), Some(b)) = (socket_addr(&a), socket_addr(&b)) else {
        return 1; // Of another family: they cannot be compared.
    };
    let order = a.ip().cmp(&b.ip());
    let order = if with_port != 0 {
        order.then(a.port().cmp(&b.port()))
    } else {
        order
    };
    order as c_int
}
