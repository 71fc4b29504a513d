//! Where C's pointers become Rust's references, and the only place where they do.
//!
//! # The contract with C
//! C promises, for every call, what libevent's documentation asks: an object pointer is null, or came from the function
//! that makes such objects and was not freed; a pointer with a length has that many bytes; a string ends with 0; an
//! object without a lock is used by one thread at a time. The types below carry that promise. A function that takes
//! a [`Ref`] or an [`In`] therefore needs no `unsafe` of its own, and cannot be called from Rust code outside of this crate.
//!
//! # Invariants
//! - What a [`Ref`] points to is only ever borrowed shared; objects keep their state in cells.
//! - Nothing here keeps a pointer longer than the call, but for [`Ref`]s of objects whose owner takes care.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use crate::memory;

/// An object that C holds a pointer to. `Option<Ref<T>>` is such a pointer, which may be null.
#[repr(transparent)]
pub(crate) struct Ref<T>(NonNull<T>);

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Ref<T> {}

impl<T> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it came from C as an object pointer, or from `Ref::make`; C's promise is that it is alive, and the library's own
        // objects drop the `Ref`s that they keep before they free what those point to.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Ref<T> {
    /// An object in memory of the program's allocator; none when that has none left.
    pub(crate) fn make(value: T) -> Option<Self> {
        let place = NonNull::new(memory::allocate(size_of::<T>()).cast::<T>())?;
        debug_assert!(align_of::<T>() <= align_of::<libc::max_align_t>());
        // SAFETY: the place was just allocated, is large enough, and aligned as malloc aligns.
        unsafe { place.write(value) };
        Some(Self(place))
    }

    /// Writes an object into the caller's memory, whatever was there.
    pub(crate) fn write(self, value: T) {
        // SAFETY: C's promise: the memory is the caller's and large enough; what was there needs no drop, it may be anything.
        unsafe { self.0.write(value) };
    }

    /// Drops the object and gives its memory back.
    ///
    /// # Safety
    /// It came from [`Ref::make`], nobody keeps a `Ref` of it, and no reference to it is alive.
    pub(crate) unsafe fn free(self) {
        // SAFETY: it was made by `make` and nobody else will touch it: the caller's contract.
        unsafe { self.0.drop_in_place() };
        memory::release(self.0.as_ptr().cast());
    }

    pub(crate) fn address(self) -> *mut T {
        self.0.as_ptr()
    }

    /// The same address as another type's.
    ///
    /// # Safety
    /// A `U` is at that address.
    pub(crate) unsafe fn cast<U>(self) -> Ref<U> {
        Ref(self.0.cast())
    }

    /// The object whose part `part` is.
    pub(crate) fn of(part: &T) -> Self {
        Self(NonNull::from(part))
    }
}

/// A pointer to where an answer goes, or null where nobody wants it.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn set(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: C's promise: room for one `T`, which may be uninitialised.
            unsafe { self.0.write(value) };
        }
    }

    /// Writes one of several.
    pub(crate) fn set_at(&self, index: usize, value: T) {
        if !self.0.is_null() {
            // SAFETY: C's promise: room for as many as were announced, and callers count.
            unsafe { self.0.add(index).write(value) };
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A pointer to a value to read, or null.
#[repr(transparent)]
pub(crate) struct Value<T>(*const T);

impl<T: Copy> Value<T> {
    pub(crate) fn get(&self) -> Option<T> {
        // SAFETY: C's promise: null, or a valid value.
        (!self.0.is_null()).then(|| unsafe { self.0.read() })
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn address(&self) -> *const T {
        self.0
    }

    /// The first `count` of several.
    pub(crate) fn slice(&self, count: usize) -> &[T] {
        if self.0.is_null() || count == 0 {
            return &[];
        }
        // SAFETY: C's promise: so many valid values.
        unsafe { std::slice::from_raw_parts(self.0, count) }
    }
}

/// Bytes to read: a pointer, whose length is another parameter.
#[repr(transparent)]
pub(crate) struct In<'a>(*const c_void, PhantomData<&'a [u8]>);

impl<'a> In<'a> {
    /// The bytes, if the length is one that memory can have.
    pub(crate) fn bytes(&self, len: usize) -> Option<&'a [u8]> {
        if len == 0 {
            return Some(&[]);
        }
        if self.0.is_null() || len > isize::MAX as usize {
            return None;
        }
        // SAFETY: C's promise: `len` readable bytes, which stay as they are during the call.
        Some(unsafe { std::slice::from_raw_parts(self.0.cast(), len) })
    }

    pub(crate) fn address(&self) -> *const c_void {
        self.0
    }
}

/// Room to write bytes to: a pointer, whose length is another parameter.
#[repr(transparent)]
pub(crate) struct Room<'a>(*mut c_void, PhantomData<&'a mut [u8]>);

impl<'a> Room<'a> {
    /// The room, cut to `at_most`, which is what will be written at most.
    pub(crate) fn bytes(&self, len: usize, at_most: usize) -> &'a mut [u8] {
        let len = len.min(at_most);
        if len == 0 || self.0.is_null() {
            return &mut [];
        }
        // SAFETY: C's promise: room for at least `len` bytes, which nobody else looks at during the call. What is in them is only
        // overwritten.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast(), len) }
    }
}

/// A string that ends with 0, or null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text<'a>(*const c_char, PhantomData<&'a CStr>);

impl<'a> Text<'a> {
    pub(crate) fn get(&self) -> Option<&'a CStr> {
        // SAFETY: C's promise: null, or a string that ends with 0.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) })
    }
}

/// A descriptor that the program passed.
pub(crate) fn descriptor(fd: c_int) -> Option<BorrowedFd<'static>> {
    // SAFETY: -1 is excluded. A number that is no open descriptor makes system calls answer EBADF, which is what C expects.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Leaves a system call's error where C looks for it.
pub(crate) fn system<T>(result: rustix::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            set_errno(error.raw_os_error());
            None
        }
    }
}

/// The same for errors of the standard library.
pub(crate) fn set_errno(code: c_int) {
    // SAFETY: the C library's own variable of this thread.
    unsafe { *libc::__errno_location() = code };
}

pub(crate) fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// 0 for what was done, -1 for what was not.
pub(crate) fn code(done: bool) -> c_int {
    if done { 0 } else { -1 }
}

/// A pointer that C gave to be given back: the library never looks behind it.
pub(crate) type Opaque = *mut c_void;

impl<T> Out<T> {
    /// Nobody wants it.
    pub(crate) fn none() -> Self {
        Self(std::ptr::null_mut())
    }
}

impl<T> Value<T> {
    /// There is none.
    pub(crate) fn none() -> Self {
        Self(std::ptr::null())
    }
}

impl<T: Copy> Out<T> {
    /// What is there, where the place serves both ways.
    pub(crate) fn get(&self) -> Option<T> {
        // SAFETY: C's promise, for such a place: null, or a valid value.
        (!self.0.is_null()).then(|| unsafe { self.0.read() })
    }
}

impl Room<'_> {
    pub(crate) fn address(&self) -> *const c_void {
        self.0
    }
}

impl Text<'_> {
    pub(crate) fn address(&self) -> *const c_char {
        self.0
    }
}

impl<T> Value<T> {
    /// A value of our own, as the program would pass it.
    pub(crate) fn at(place: *const T) -> Self {
        Self(place)
    }
}

impl<'a> Text<'a> {
    /// A string of our own, as the program would pass it.
    pub(crate) fn of(text: &'a CStr) -> Self {
        Self(text.as_ptr(), PhantomData)
    }
}

impl Text<'_> {
    /// No string.
    pub(crate) fn none() -> Self {
        Self(std::ptr::null(), PhantomData)
    }
}

impl<T> Out<T> {
    /// A place of our own, as the program would pass it.
    pub(crate) fn to(place: &mut T) -> Self {
        Self(place)
    }
}
