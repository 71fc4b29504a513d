//! Thousands of peers that ask for much and read nothing, against a budget of memory.
//!
//! Linux alone has what it takes: see `slow_readers/linux.rs`.

#[cfg(target_os = "linux")]
#[path = "slow_readers/linux.rs"]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
