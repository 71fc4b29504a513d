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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    extern "C" fn fails() {
        panic!("an invariant of the library");
    }

    /// Runs itself once more, for the process that ends.
    #[test]
    fn a_panic_ends_the_process_and_names_its_place() {
        const CHILD: &str = "CAPI_PANICS";
        if std::env::var_os(CHILD).is_some() {
            let outcome = std::panic::catch_unwind(|| fails());
            unreachable!("it came back: {}", outcome.is_err());
        }
        let test = std::env::current_exe().expect("this program has a name");
        let output = Command::new(test)
            .args([
                "--exact",
                "tests::a_panic_ends_the_process_and_names_its_place",
            ])
            .arg("--nocapture")
            .env(CHILD, "yes")
            .output()
            .expect("it runs again");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("an invariant of the library"), "{said}");
        assert!(said.contains("src/lib.rs"), "{said}");
        assert!(!said.contains("it came back"), "{said}");
    }
}
