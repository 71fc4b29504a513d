//! From buffer to buffer.

use std::ffi::c_int;

use crate::buffer::{Buffer, End};
use crate::ffi::{Ref, code};

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evbuffer_add_buffer(
    to: Option<Ref<Buffer>>,
    from: Option<Ref<Buffer>>,
) -> c_int {
    let (Some(to), Some(from)) = (to, from) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    if to == from || from.is_empty() {
        return 0;
    }
    if to.is_frozen(End::Back) || from.is_frozen(End::Front) {
        return -1;
    }
    code(to.move_all(from).is_some())
}

impl Buffer {
    /// Moves all of another buffer behind what is here, whatever is frozen; answers how many bytes.
    pub(crate) fn move_all(&self, from: Ref<Buffer>) -> Option<usize> {
        self.move_some(from, usize::MAX)
    }

    /// Moves up to `count` bytes from another buffer, whatever is frozen; answers how many. The source's callbacks run first.
    pub(crate) fn move_some(&self, from: Ref<Buffer>, count: usize) -> Option<usize> {
        let moved = self.with(|to| from.with(|from| from.move_to(count, to)).ok())?;
        from.changed(0, moved);
        self.changed(moved, 0);
        Some(moved)
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_remove_buffer(
    from: Option<Ref<Buffer>>,
    to: Option<Ref<Buffer>>,
    count: usize,
) -> c_int {
    let (Some(from), Some(to)) = (from, to) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    if count == 0 || to == from {
        return 0;
    }
    if to.is_frozen(End::Back) || from.is_frozen(End::Front) {
        return -1;
    }
    match to.move_some(from, count.min(c_int::MAX as usize)) {
        Some(moved) => moved as c_int,
        None => -1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_prepend_buffer(to: Option<Ref<Buffer>>, from: Option<Ref<Buffer>>) -> c_int {
    let (Some(to), Some(from)) = (to, from) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    let count = from.len();
    if to == from || count == 0 {
        return 0;
    }
    if to.is_frozen(End::Front) || from.is_frozen(End::Front) {
        return -1;
    }
    let done = to.with(|to| from.with(|from| to.prepend(from)).is_ok());
    if done {
        from.changed(0, count);
        to.changed(count, 0);
    }
    code(done)
}

/// Adds another buffer's bytes without moving or copying them.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_buffer_reference(
    to: Option<Ref<Buffer>>,
    from: Option<Ref<Buffer>>,
) -> c_int {
    let (Some(to), Some(from)) = (to, from) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    let count = from.len();
    if count == 0 && to != from {
        return 0;
    }
    if to == from || to.is_frozen(End::Back) {
        return -1;
    }
    let done = to.with(|to| from.with(|from| to.add_reference_of(from)).is_ok());
    if done {
        to.changed(count, 0);
    }
    code(done)
}
