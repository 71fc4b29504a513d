//! An operation's memory, as one allocation that the system has from the call that begins the operation until its packet is dequeued.
//!
//! # Invariants
//! - While it is *out*, no reference to it exists and none can be made: [`Lent::payload`] refuses, and dropping the handle leaks what it names.
//! - It comes back by [`Lent::take_back`] alone, whose caller vouches that the system has let go.
//! - Its address does not change, so a packet's address names the operation.

#![allow(unsafe_code, reason = "memory that is shared with the system")]

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use windows_sys::Win32::System::IO::OVERLAPPED;

/// The block of control stands first: its address is the frame's.
#[repr(C)]
struct Frame<T> {
    overlapped: UnsafeCell<OVERLAPPED>,
    payload: UnsafeCell<T>,
}

/// See the module.
pub(super) struct Lent<T> {
    frame: NonNull<Frame<T>>,
    out: bool,
}

// SAFETY: the frame is owned by this handle and, while it is out, by the system; neither cares about threads.
unsafe impl<T: Send> Send for Lent<T> {}

impl<T> Lent<T> {
    pub(super) fn new(payload: T) -> Self {
        let frame = Box::new(Frame {
            overlapped: UnsafeCell::default(),
            payload: UnsafeCell::new(payload),
        });
        Self {
            frame: NonNull::from(Box::leak(frame)),
            out: false,
        }
    }

    /// Whether the system has it.
    pub(super) fn is_out(&self) -> bool {
        self.out
    }

    /// What the packet of this operation is known by, and what cancels it.
    pub(super) fn address(&self) -> *mut OVERLAPPED {
        self.frame.as_ptr().cast()
    }

    /// What goes with the operation.
    ///
    /// # Panics
    /// While the system has it.
    pub(super) fn payload(&mut self) -> &mut T {
        assert!(!self.out, "the system has this memory");
        // SAFETY: the frame is allocated until this handle is dropped; it is not out, and this handle is borrowed for as long.
        unsafe { &mut *self.frame.as_ref().payload.get() }
    }

    /// What went with an operation that is over.
    ///
    /// # Panics
    /// While the system has it.
    pub(super) fn into_payload(self) -> T {
        assert!(!self.out, "the system has this memory");
        let this = ManuallyDrop::new(self);
        // SAFETY: allocated by `new` as a box, taken apart once: `this` is not dropped; the system does not have it.
        let frame = unsafe { Box::from_raw(this.frame.as_ptr()) };
        frame.payload.into_inner()
    }

    /// Gives it to the system: the cleared block of control for the call that begins an operation.
    ///
    /// # Panics
    /// While the system has it.
    pub(super) fn lend(&mut self) -> *mut OVERLAPPED {
        assert!(!self.out, "one operation at a time");
        let at = self.address();
        // SAFETY: allocated, aligned, and ours: not out.
        unsafe { at.write(OVERLAPPED::default()) };
        self.out = true;
        at
    }

    /// It is ours again.
    ///
    /// # Safety
    /// The packet of the operation that it was lent for has been dequeued, or the call that began it has returned so that no packet comes.
    pub(super) unsafe fn take_back(&mut self) {
        self.out = false;
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        if !self.out {
            // SAFETY: allocated by `new` as a box, dropped once; the system does not have it.
            drop(unsafe { Box::from_raw(self.frame.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Lent;

    #[test]
    fn what_is_out_is_leaked_and_what_is_back_is_dropped() {
        let witness = Arc::new(());
        let mut lent = Lent::new(witness.clone());
        lent.lend();
        drop(lent);
        assert_eq!(Arc::strong_count(&witness), 2, "leaked, as it must be");
        let mut lent = Lent::new(witness.clone());
        lent.lend();
        // SAFETY: nothing was begun.
        unsafe { lent.take_back() };
        drop(lent);
        assert_eq!(Arc::strong_count(&witness), 2, "dropped");
    }

    #[test]
    #[should_panic(expected = "the system has this memory")]
    fn what_is_out_cannot_be_looked_at() {
        let mut lent = Lent::new(1);
        lent.lend();
        lent.payload();
    }
}
