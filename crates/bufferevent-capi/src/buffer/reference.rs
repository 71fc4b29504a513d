//! Memory of the program's as part of a buffer, and when its cleanup function runs.
//!
//! # Invariants
//! - A cleanup function runs once, when the last buffer that shows its memory has let go.
//! - It never runs while a buffer is borrowed: what is dropped meanwhile waits in a queue of the thread.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::buffer::{Buffer, End};
use crate::ffi::{self, In, Opaque, Ref};

type Cleanup = extern "C" fn(*const c_void, usize, Opaque);

thread_local! {
    static STATE: State = const { State { borrowed: Cell::new(0), some_wait: Cell::new(false) } };
    static WAITING: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// What every look at a buffer needs to know; apart from the queue, so that a look finds it by one address.
struct State {
    /// Buffers that are borrowed now.
    borrowed: Cell<u32>,
    some_wait: Cell<bool>,
}

/// Whether the program ever gave memory or a file to a buffer: until then nothing can have to be cleaned up.
static LENT: AtomicBool = AtomicBool::new(false);

/// What the program lends, as bytes for a buffer. `owner` is dropped when nobody shows them any more.
pub(crate) fn lent(owner: impl AsRef<[u8]> + Send + 'static) -> Bytes {
    LENT.store(true, Ordering::Relaxed);
    Bytes::from_owner(owner)
}

/// Calls `body`, in which buffers are borrowed. What is to run is kept until the outermost one has returned.
#[inline(always)]
pub(crate) fn while_borrowed<R>(body: impl FnOnce() -> R) -> R {
    // Whoever reaches a buffer with lent memory in it has seen this: the lender, and who was given the buffer by him.
    if !LENT.load(Ordering::Relaxed) {
        return body();
    }
    while_lent_borrowed(body)
}

fn while_lent_borrowed<R>(body: impl FnOnce() -> R) -> R {
    let (result, run) = STATE.with(|state| {
        state.borrowed.set(state.borrowed.get() + 1);
        let result = body();
        let left = state.borrowed.get() - 1;
        state.borrowed.set(left);
        (result, left == 0 && state.some_wait.get())
    });
    if run {
        run_waiting();
    }
    result
}

#[cold]
fn run_waiting() {
    STATE.with(|state| state.some_wait.set(false));
    while let Some(run) = WAITING.with(|waiting| {
        let mut waiting = waiting.borrow_mut();
        (!waiting.is_empty()).then(|| waiting.remove(0))
    }) {
        run();
    }
}

/// Runs code of the program's now, or as soon as no buffer is borrowed.
pub(crate) fn run_unborrowed(run: impl FnOnce() + 'static) {
    let waits = STATE.with(|state| {
        let waits = state.borrowed.get() > 0;
        state.some_wait.set(state.some_wait.get() || waits);
        waits
    });
    if waits {
        WAITING.with(|waiting| waiting.borrow_mut().push(Box::new(run)));
    } else {
        run();
    }
}

/// The program's memory, shown by segments.
struct Theirs {
    data: *const c_void,
    len: usize,
    /// Of `data`, what the buffer shows begins here.
    offset: usize,
    cleanup: Option<Cleanup>,
    argument: Opaque,
}

// SAFETY: C's promise: the memory is readable from any thread that uses the buffer, until the cleanup function ran; that function may
// be called from any of them.
unsafe impl Send for Theirs {}
// SAFETY: as above; nothing here writes.
unsafe impl Sync for Theirs {}

impl AsRef<[u8]> for Theirs {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 || self.data.is_null() {
            return &[];
        }
        // SAFETY: C's promise: `len` bytes that stay until the cleanup function ran, which is when this is dropped.
        let all = unsafe { std::slice::from_raw_parts(self.data.cast::<u8>(), self.len) };
        &all[self.offset..]
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        if let Some(cleanup) = self.cleanup {
            let (data, len, argument) = (self.data, self.len, self.argument);
            run_unborrowed(move || cleanup(data, len, argument));
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_reference_with_offset(
    buffer: Option<Ref<Buffer>>,
    data: In<'_>,
    offset: usize,
    len: usize,
    cleanup: Option<Cleanup>,
    argument: Opaque,
) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let whole = offset
        .checked_add(len)
        .filter(|whole| *whole <= isize::MAX as usize);
    let Some(whole) = whole else { return -1 };
    let fits = (len == 0 || !data.address().is_null()) && len <= evbuffer::MAX_LEN - buffer.len();
    if !fits || buffer.is_frozen(End::Back) {
        return -1; // Without calling the cleanup function: the memory was not taken.
    }
    let bytes = lent(Theirs {
        data: data.address(),
        len: whole,
        offset,
        cleanup,
        argument,
    });
    ffi::code(buffer.change(End::Back, |own| own.append_bytes(bytes).is_ok()))
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_reference(
    buffer: Option<Ref<Buffer>>,
    data: In<'_>,
    len: usize,
    cleanup: Option<Cleanup>,
    argument: Opaque,
) -> c_int {
    evbuffer_add_reference_with_offset(buffer, data, 0, len, cleanup, argument)
}
