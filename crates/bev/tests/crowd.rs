//! Thousands of clients that read nothing, or send a byte now and then, beside some that are served: memory, and the time of an answer.
//!
//! The crowd, and an upstream that pours data, are children of this program: each has descriptors of its own. The number is small by
//! default; `cargo xtask bench relay` runs it with 9,000, on the optimised program, and has the times judged.

#[cfg(target_os = "linux")]
mod support;

#[cfg(target_os = "linux")]
#[path = "crowd/linux.rs"]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
