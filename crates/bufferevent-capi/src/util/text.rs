//! Strings and numbers, whatever the locale.

use std::cmp::Ordering;
use std::ffi::{c_char, c_int, c_longlong};

use crate::ffi::{Room, Text};

/// Writes a string with its final 0, cut to what there is room for.
pub(crate) fn put(text: &[u8], place: &Room<'_>, len: usize) {
    let room = place.bytes(len, text.len() + 1);
    let Some((last, room)) = room.split_last_mut() else {
        return;
    };
    room.copy_from_slice(&text[..room.len()]);
    *last = 0;
}

fn compare(a: Text<'_>, b: Text<'_>, most: usize) -> c_int {
    let lower = |text: Text<'_>| {
        let bytes = text.get().map_or(&[][..], |text| text.to_bytes());
        bytes[..bytes.len().min(most)].to_ascii_lowercase()
    };
    match lower(a).cmp(&lower(b)) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_ascii_strcasecmp(a: Text<'_>, b: Text<'_>) -> c_int {
    compare(a, b, usize::MAX)
}

#[unsafe(no_mangle)]
extern "C" fn evutil_ascii_strncasecmp(a: Text<'_>, b: Text<'_>, most: usize) -> c_int {
    // No more than `most` bytes may be looked at: they need not end with a 0.
    let bytes = |text: Text<'_>| -> Vec<u8> {
        let start = text.address().cast::<u8>();
        (0..most)
            .map_while(|at| {
                // SAFETY: C's promise: `most` bytes, or fewer and a 0, behind which nothing is looked at.
                let byte = unsafe { start.add(at).read() };
                (byte != 0).then_some(byte.to_ascii_lowercase())
            })
            .collect()
    };
    if a.address().is_null() || b.address().is_null() {
        return compare(a, b, most);
    }
    match bytes(a).cmp(&bytes(b)) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evutil_strtoll(
    text: *const c_char,
    end: *mut *mut c_char,
    base: c_int,
) -> c_longlong {
    // SAFETY: C's promise: a string, and null or a place for a pointer: the same contract.
    unsafe { libc::strtoll(text, end, base) }
}
