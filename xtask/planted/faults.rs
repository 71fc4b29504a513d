//! Faults on purpose, for `cargo xtask sanitize`: each sanitizer has to find its own before its silence means anything.
//!
//! Not part of any crate. It is compiled by the command with the flags of a sanitizer, and run once for each fault.

use std::hint::black_box;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("use-after-free") => use_after_free(),
        Some("leak") => leak(),
        Some("race") => race(),
        _ => panic!("which fault?"),
    }
}

fn use_after_free() {
    let place = Box::into_raw(Box::new(7_u32));
    // SAFETY: none. The second line reads what the first one freed: that is the fault.
    unsafe {
        drop(Box::from_raw(place));
        black_box(place.read());
    }
}

fn leak() {
    for _ in 0..100 {
        std::mem::forget(black_box(Box::new([7_u8; 1000])));
    }
}

fn race() {
    static mut PLACE: u64 = 0;
    let both = std::sync::Barrier::new(2);
    let write = || {
        for _ in 0..1_000 {
            both.wait(); // At the same time, each time.
            // SAFETY: none. Two threads write without any order: that is the fault.
            unsafe { (&raw mut PLACE).write(black_box(1)) };
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(write);
        write();
    });
}
