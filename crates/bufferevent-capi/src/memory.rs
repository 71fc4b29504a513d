//! The program's allocator: malloc and its kin, or what `event_set_mem_functions` put in their place.
//!
//! # Invariants
//! - Whatever C frees itself (lines) or owns as an object comes from here. What is inside of objects (segments, queues) is Rust's.
//! - Functions are to be replaced before anything was allocated; who does it later mixes allocators, as with libevent.

use std::ffi::c_void;
use std::mem::transmute;
use std::sync::atomic::{AtomicPtr, Ordering};

type Malloc = extern "C" fn(usize) -> *mut c_void;
type Realloc = extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Free = extern "C" fn(*mut c_void);

static MALLOC: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static REALLOC: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static FREE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// A function's address, or null.
pub(crate) fn address<F>(function: Option<F>) -> *mut c_void {
    const { assert!(size_of::<Option<F>>() == size_of::<*mut c_void>()) };
    // SAFETY: an optional function pointer is a pointer; null is none.
    unsafe { std::mem::transmute_copy(&function) }
}

pub(crate) fn allocate(size: usize) -> *mut c_void {
    let replaced = MALLOC.load(Ordering::Acquire);
    if size == 0 {
        return std::ptr::null_mut();
    }
    if replaced.is_null() {
        // SAFETY: malloc takes any size.
        return unsafe { libc::malloc(size) };
    }
    // SAFETY: what is stored there is a `Malloc`, by `event_set_mem_functions`.
    let malloc = unsafe { transmute::<*mut c_void, Malloc>(replaced) };
    malloc(size)
}

pub(crate) fn release(place: *mut c_void) {
    let replaced = FREE.load(Ordering::Acquire);
    if replaced.is_null() {
        // SAFETY: it came from `allocate`, and nothing was replaced.
        unsafe { libc::free(place) };
    } else {
        // SAFETY: what is stored there is a `Free`.
        let free = unsafe { transmute::<*mut c_void, Free>(replaced) };
        free(place);
    }
}

/// The bytes and a 0 behind them, for C to free; null when there is no memory.
pub(crate) fn string(bytes: &[u8]) -> *mut c_void {
    let place = allocate(bytes.len().saturating_add(1));
    if !place.is_null() {
        // SAFETY: the place has one byte more than there are.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast(), bytes.len());
            place.cast::<u8>().add(bytes.len()).write(0);
        }
    }
    place
}

#[unsafe(no_mangle)]
extern "C" fn event_set_mem_functions(
    malloc: Option<Malloc>,
    realloc: Option<Realloc>,
    free: Option<Free>,
) {
    MALLOC.store(address(malloc), Ordering::Release);
    REALLOC.store(address(realloc), Ordering::Release);
    FREE.store(address(free), Ordering::Release);
}
