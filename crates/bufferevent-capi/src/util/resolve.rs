//! Names to addresses, as the system's resolver does it.

use std::ffi::{c_char, c_int};

use crate::ffi::{Out, Text, Value};

/// `EVUTIL_EAI_CANCEL`: the request was given up.
pub(crate) const EAI_CANCEL: c_int = -90001;

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_getaddrinfo(
    node: Text<'_>,
    service: Text<'_>,
    hints: Value<libc::addrinfo>,
    result: Out<*mut libc::addrinfo>,
) -> c_int {
    let mut list = std::ptr::null_mut();
    let (node, service) = (node.address(), service.address());
    // SAFETY: strings or null, hints or null, as C promised; the list is ours to fill.
    let code = unsafe { libc::getaddrinfo(node, service, hints.address(), &raw mut list) };
    if code == 0 {
        result.set(list);
    }
    code
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evutil_freeaddrinfo(list: *mut libc::addrinfo) {
    if !list.is_null() {
        // SAFETY: C's promise: it came from `evutil_getaddrinfo`.
        unsafe { libc::freeaddrinfo(list) };
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_gai_strerror(code: c_int) -> *const c_char {
    match code {
        0 => c"No error".as_ptr(),
        EAI_CANCEL => c"Request canceled".as_ptr(),
        // SAFETY: any number is answered by a string that stays.
        code => unsafe { libc::gai_strerror(code) },
    }
}
