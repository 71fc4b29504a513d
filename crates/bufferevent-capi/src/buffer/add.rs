//! Putting bytes in: copies at either end, room that is filled by the program.
//!
//! # Invariants
//! - Room that was reserved is storage apart from the buffer, so operations between reserve and commit cannot hurt it; committed bytes
//!   come behind all that is there then.
//! - What was not handed out last, or is longer than it was, is not committed.

use std::ffi::{c_int, c_void};

use evbuffer::EvBuffer;

use crate::buffer::{Buffer, End};
use crate::ffi::{self, In, Out, Ref, Value};

/// Committed bytes up to here are copied, so that long room is not kept for short data.
const COMMIT_COPY_MAX: usize = 2 * 1024;

/// Room that is handed out where the program asks for none in particular, in bytes.
const LEAST_ROOM: usize = 512;

/// `struct evbuffer_iovec`, which is the system's `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) base: *mut c_void,
    pub(crate) len: usize,
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_add(buffer: Option<Ref<Buffer>>, data: In<'_>, len: usize) -> c_int {
    let (Some(buffer), Some(bytes)) = (buffer, data.bytes(len)) else {
        return -1;
    };
    ffi::code(buffer.add(bytes))
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_prepend(buffer: Option<Ref<Buffer>>, data: In<'_>, len: usize) -> c_int {
    let (Some(buffer), Some(bytes)) = (buffer, data.bytes(len)) else {
        return -1;
    };
    ffi::code(buffer.change(End::Front, |own| own.prepend_slice(bytes).is_ok()))
}

/// Adds several extents; answers how many bytes, and stops at the first that cannot be added.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_iovec(
    buffer: Option<Ref<Buffer>>,
    extents: Value<Extent>,
    count: c_int,
) -> usize {
    let Some(buffer) = buffer else { return 0 };
    let _guard = buffer.guard();
    let mut sum = 0;
    for extent in extents.slice(usize::try_from(count).unwrap_or(0)) {
        // SAFETY: an extent's base is a pointer as any other parameter: so long, says its length.
        let data = unsafe { std::mem::transmute::<*mut c_void, In<'_>>(extent.base) };
        if evbuffer_add(Some(buffer), data, extent.len) != 0 {
            break;
        }
        sum += extent.len;
    }
    sum
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_expand(buffer: Option<Ref<Buffer>>, len: usize) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    ffi::code(buffer.with(|own| own.expand(len).is_ok()))
}

/// Hands out one extent of at least `size` bytes, whatever number of extents is asked for.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_reserve_space(
    buffer: Option<Ref<Buffer>>,
    size: isize,
    extents: Out<Extent>,
    count: c_int,
) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let Ok(size) = usize::try_from(size) else {
        return -1;
    };
    let _guard = buffer.guard();
    if buffer.is_frozen(End::Back) || count < 1 || extents.is_null() {
        return -1;
    }
    if size > evbuffer::MAX_LEN - buffer.len() {
        return -1;
    }
    let mut room = Vec::new();
    let len = size.max(LEAST_ROOM);
    if room.try_reserve_exact(len).is_err() {
        return -1;
    }
    room.resize(len, 0_u8);
    extents.set(Extent {
        base: room.as_mut_ptr().cast(),
        len,
    });
    *buffer.reserved.borrow_mut() = room;
    1
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_commit_space(
    buffer: Option<Ref<Buffer>>,
    extents: Value<Extent>,
    count: c_int,
) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    if buffer.is_frozen(End::Back) {
        return -1;
    }
    let Some(extent) = extents.slice(usize::try_from(count).unwrap_or(0)).first() else {
        return 0;
    };
    let ours = {
        let room = buffer.reserved.borrow();
        count == 1 && extent.len <= room.len() && extent.base.cast_const() == room.as_ptr().cast()
    };
    if !ours || (extent.len > evbuffer::MAX_LEN - buffer.len()) {
        return -1;
    }
    let mut room = std::mem::take(&mut *buffer.reserved.borrow_mut());
    room.truncate(extent.len);
    ffi::code(buffer.change(End::Back, |own| {
        if room.len() <= COMMIT_COPY_MAX {
            own.append_slice(&room).is_ok()
        } else {
            own.append(&mut EvBuffer::from(room)).is_ok()
        }
    }))
}
