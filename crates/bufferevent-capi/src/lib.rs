//! libevent's C interface, for programs that were written for libevent 2.1.
//!
//! There is nothing here for Rust: the crate is an archive of C functions, and headers. `cargo xtask capi --prefix DIR` installs both,
//! with shared objects of libevent's names.
//!
//! # How it is built
//! A C function is an `extern "C" fn` whose parameters are already what they mean: an object is an
//! `Option<Ref<T>>`, bytes are `In`. Taking pointers apart happens in `ffi`, and nowhere else.
//!
//! # Invariants
//! - A panic never unwinds into C: it ends at the `extern "C"` function with an abort that names its place.
//! - No Rust borrow of an object's state is alive while a function of the program runs. Callbacks, cleanups and
//!   allocators may call anything here.
//! - A null where libevent would crash answers as an error does.
//! - Linux only, as the binary interface that it keeps.

#![cfg(target_os = "linux")]

mod buffer;
mod bufferevent;
mod dns;
mod event;
mod ffi;
mod listener;
mod lock;
mod log;
mod memory;
mod util;
