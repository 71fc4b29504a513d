//! Random bytes: the system's.

use std::ffi::{c_int, c_void};

use crate::ffi::{In, Room, Text};
use crate::log;

#[unsafe(no_mangle)]
extern "C" fn evutil_secure_rng_get_bytes(buffer: Room<'_>, len: usize) {
    let mut room = buffer.bytes(len, len);
    while !room.is_empty() {
        let place = room.as_mut_ptr().cast::<c_void>();
        // SAFETY: the room is that long.
        let got = unsafe { libc::getrandom(place, room.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => room = &mut room[got..],
            Err(_) if crate::ffi::errno() == libc::EINTR => {}
            Err(_) => log::fatal("the system gives no random bytes"),
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_secure_rng_init() -> c_int {
    0
}

/// No file is read: the system is asked.
#[unsafe(no_mangle)]
extern "C" fn evutil_secure_rng_set_urandom_device_file(_name: Text<'_>) -> c_int {
    0
}

/// The system's generator needs nothing from here.
#[unsafe(no_mangle)]
extern "C" fn evutil_secure_rng_add_bytes(_data: In<'_>, _len: usize) {}
