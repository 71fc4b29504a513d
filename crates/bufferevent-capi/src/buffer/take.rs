//! Taking bytes out, copying them, and lines.

use std::ffi::{c_char, c_int, c_void};

use evbuffer::EvBuffer;

use crate::buffer::look::{Pointer, eol_at, style};
use crate::buffer::{Buffer, End};
use crate::ffi::{Out, Ref, Room, code};
use crate::memory;

#[unsafe(no_mangle)]
extern "C" fn evbuffer_get_length(buffer: Option<Ref<Buffer>>) -> usize {
    buffer.map_or(0, |buffer| {
        let _guard = buffer.guard();
        buffer.len()
    })
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_get_contiguous_space(buffer: Option<Ref<Buffer>>) -> usize {
    buffer.map_or(0, |buffer| {
        let _guard = buffer.guard();
        buffer.with(|own| own.chunk().len())
    })
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_drain(buffer: Option<Ref<Buffer>>, len: usize) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    if len == 0 || buffer.is_empty() {
        return 0;
    }
    code(buffer.change(End::Front, |own| {
        own.drain(len);
        true
    }))
}

/// Bytes that one call can answer for.
fn at_most(len: usize) -> usize {
    len.min(c_int::MAX as usize)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evbuffer_remove(
    buffer: Option<Ref<Buffer>>,
    data: Room<'_>,
    len: usize,
) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    let room = data.bytes(at_most(len), buffer.len());
    let mut count = 0;
    let done = buffer.change(End::Front, |own| {
        let removed = own.try_remove(room);
        count = removed.as_ref().map_or(0, |count| *count);
        removed.is_ok()
    });
    if done { count as c_int } else { -1 }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_copyout_from(
    buffer: Option<Ref<Buffer>>,
    from: Option<Ref<Pointer>>,
    data: Room<'_>,
    len: usize,
) -> isize {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    let whole = buffer.len();
    let offset = match &from {
        Some(from) => match usize::try_from(from.pos) {
            Ok(offset) if offset <= whole => offset,
            Ok(_) | Err(_) => return -1,
        },
        None => 0,
    };
    let room = data.bytes(len, whole - offset);
    if room.is_empty() {
        return 0;
    }
    if buffer.is_frozen(End::Front) {
        return -1;
    }
    let copied = buffer.with(|own| own.copy_out_from(offset, room));
    copied.map_or(-1, |count| count as isize)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_copyout(buffer: Option<Ref<Buffer>>, data: Room<'_>, len: usize) -> isize {
    evbuffer_copyout_from(buffer, None, data, len)
}

/// The first bytes in one piece; all of them for a negative size.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_pullup(buffer: Option<Ref<Buffer>>, size: isize) -> *mut u8 {
    let Some(buffer) = buffer else {
        return std::ptr::null_mut();
    };
    let _guard = buffer.guard();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    buffer.with(|own| {
        let size = if size == usize::MAX { own.len() } else { size };
        match own.pull_up(size) {
            Ok(bytes) if !bytes.is_empty() => bytes.as_ptr().cast_mut(),
            Ok(_) | Err(_) => std::ptr::null_mut(),
        }
    })
}

/// The first line, without its end, in memory for the caller to free.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_readln(
    buffer: Option<Ref<Buffer>>,
    length: Out<usize>,
    eol: c_int,
) -> *mut c_char {
    length.set(0);
    let Some(buffer) = buffer else {
        return std::ptr::null_mut();
    };
    let _guard = buffer.guard();
    if buffer.is_frozen(End::Front) {
        return std::ptr::null_mut();
    }
    let Some((line, end)) = eol_at(buffer, 0, style(eol)) else {
        return std::ptr::null_mut();
    };
    let text = buffer.with(|own| match own.pull_up(line) {
        Ok(bytes) => memory::string(bytes),
        Err(_) => std::ptr::null_mut::<c_void>(),
    });
    if !text.is_null() {
        length.set(line);
        buffer.change(End::Front, |own| take_line(own, line + end));
    }
    text.cast()
}

fn take_line(own: &mut EvBuffer, len: usize) -> bool {
    own.drain(len) == len
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_readline(buffer: Option<Ref<Buffer>>) -> *mut c_char {
    evbuffer_readln(buffer, Out::none(), 0)
}
