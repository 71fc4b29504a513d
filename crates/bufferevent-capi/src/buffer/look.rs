//! Looking without taking: positions, searches, ends of lines, extents.
//!
//! # Invariants
//! - A `struct evbuffer_ptr` is an offset. The rest of it only tells C whether it stands at the end, so one that outlived
//!   a change is a wrong offset and nothing worse.

use std::ffi::{c_int, c_void};

use evbuffer::Eol;

use crate::buffer::Buffer;
use crate::buffer::add::Extent;
use crate::ffi::{In, Out, Ref, Value};

/// `struct evbuffer_ptr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Pointer {
    pub(crate) pos: isize,
    chain: *const c_void,
    pos_in_chain: usize,
}

/// `EVBUFFER_PTR_SET` and `EVBUFFER_PTR_ADD`.
const PTR_SET: c_int = 0;
const PTR_ADD: c_int = 1;

const NOT_FOUND: Pointer = Pointer {
    pos: -1,
    chain: std::ptr::null(),
    pos_in_chain: 0,
};

impl Pointer {
    fn at(buffer: Ref<Buffer>, offset: usize) -> Self {
        let at_end = offset >= buffer.len();
        Self {
            pos: offset as isize,
            chain: if at_end {
                std::ptr::null()
            } else {
                buffer.address().cast()
            },
            pos_in_chain: 0,
        }
    }
}

/// What an `enum evbuffer_eol_style` means; anything else is `EVBUFFER_EOL_ANY`.
pub(crate) fn style(eol: c_int) -> Eol {
    match eol {
        1 => Eol::Crlf,
        2 => Eol::CrlfStrict,
        3 => Eol::Lf,
        4 => Eol::Nul,
        _ => Eol::Any,
    }
}

/// Where the line that begins at `from` ends, and how long its end is.
pub(crate) fn eol_at(buffer: Ref<Buffer>, from: usize, eol: Eol) -> Option<(usize, usize)> {
    buffer.with(|own| {
        let found = own.position(from).ok()?.find_eol(eol).ok()??;
        Some((found.position.offset(), found.len))
    })
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_search_eol(
    buffer: Option<Ref<Buffer>>,
    start: Value<Pointer>,
    eol_len: Out<usize>,
    eol: c_int,
) -> Pointer {
    eol_len.set(0);
    let Some(buffer) = buffer else {
        return NOT_FOUND;
    };
    let _guard = buffer.guard();
    let Ok(from) = usize::try_from(start.get().map_or(0, |start| start.pos)) else {
        return NOT_FOUND;
    };
    match eol_at(buffer, from, style(eol)) {
        Some((at, len)) => {
            eol_len.set(len);
            Pointer::at(buffer, at)
        }
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_search_range(
    buffer: Option<Ref<Buffer>>,
    what: In<'_>,
    len: usize,
    start: Value<Pointer>,
    end: Value<Pointer>,
) -> Pointer {
    let (Some(buffer), Some(what)) = (buffer, what.bytes(len)) else {
        return NOT_FOUND;
    };
    let _guard = buffer.guard();
    let whole = buffer.len();
    let Ok(from) = usize::try_from(start.get().map_or(0, |start| start.pos)) else {
        return NOT_FOUND;
    };
    let to = match end.get() {
        Some(end) => usize::try_from(end.pos).unwrap_or(whole).min(whole),
        None => whole,
    };
    if len == 0 && from <= whole {
        return Pointer::at(buffer, from);
    }
    if from > to {
        return NOT_FOUND;
    }
    let found = buffer.with(|own| {
        let found = own.search_range(what, from..to).ok()?;
        found.map(|found| found.offset())
    });
    found.map_or(NOT_FOUND, |at| Pointer::at(buffer, at))
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_search(
    buffer: Option<Ref<Buffer>>,
    what: In<'_>,
    len: usize,
    start: Value<Pointer>,
) -> Pointer {
    evbuffer_search_range(buffer, what, len, start, Value::none())
}

/// Where in the buffer, made contiguous, the bytes are; null if they are not.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_find(buffer: Option<Ref<Buffer>>, what: In<'_>, len: usize) -> *mut u8 {
    let nothing = std::ptr::null_mut();
    let (Some(buffer), Some(what)) = (buffer, what.bytes(len)) else {
        return nothing;
    };
    let _guard = buffer.guard();
    buffer.with(|own| {
        let found = own.search(what).ok().flatten().map(|found| found.offset());
        let (Some(at), whole) = (found, own.len()) else {
            return nothing;
        };
        match own.pull_up(whole) {
            Ok(bytes) => bytes[at..].as_ptr().cast_mut(),
            Err(_) => nothing,
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_ptr_set(
    buffer: Option<Ref<Buffer>>,
    pointer: Option<Ref<Pointer>>,
    offset: usize,
    how: c_int,
) -> c_int {
    let (Some(buffer), Some(pointer)) = (buffer, pointer) else {
        return -1;
    };
    let _guard = buffer.guard();
    let to = match how {
        PTR_SET => Some(offset),
        PTR_ADD => usize::try_from(pointer.pos)
            .ok()
            .and_then(|pos| pos.checked_add(offset)),
        _ => None,
    };
    match to.filter(|to| *to <= buffer.len()) {
        Some(to) => {
            pointer.write(Pointer::at(buffer, to));
            0
        }
        None => {
            pointer.write(NOT_FOUND);
            -1
        }
    }
}

/// Shows the bytes from `start` on, without taking them: how many extents `len` bytes need, and as many of those as there is room for.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_peek(
    buffer: Option<Ref<Buffer>>,
    len: isize,
    start: Value<Pointer>,
    extents: Out<Extent>,
    count: c_int,
) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    let room = usize::try_from(count).unwrap_or(0);
    let Ok(mut skip) = usize::try_from(start.get().map_or(0, |start| start.pos)) else {
        return -1;
    };
    buffer.with(|own| {
        if skip > own.len() {
            return -1;
        }
        // With no length and no room, all of it is counted; with no length, as much as there is room for.
        let wanted = match usize::try_from(len) {
            Ok(len) => len.min(own.len() - skip),
            Err(_) => own.len() - skip,
        };
        let only_room = len < 0 && room > 0;
        let in_memory: usize = own.segments().map(<[u8]>::len).sum();
        if skip + wanted > in_memory && own.pull_up(skip + wanted).is_err() {
            return -1;
        }
        let (mut needed, mut seen) = (0, 0);
        for segment in own.segments() {
            if seen >= wanted || (only_room && needed == room) {
                break;
            }
            let Some(bytes) = segment.get(skip..).filter(|bytes| !bytes.is_empty()) else {
                skip -= segment.len();
                continue;
            };
            skip = 0;
            if needed < room {
                extents.set_at(
                    needed,
                    Extent {
                        base: bytes.as_ptr().cast_mut().cast(),
                        len: bytes.len(),
                    },
                );
            }
            seen += bytes.len();
            needed += 1;
        }
        c_int::try_from(needed).unwrap_or(c_int::MAX)
    })
}
