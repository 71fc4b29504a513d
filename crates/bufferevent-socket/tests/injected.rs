//! System calls that fail on purpose: interrupted again and again, connections that are gone before they are accepted.
//!
//! Linux alone has what it takes: see `injected/linux.rs`.

#[cfg(target_os = "linux")]
#[path = "injected/linux.rs"]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
