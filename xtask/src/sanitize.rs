//! `cargo xtask sanitize`: the suite under AddressSanitizer with LeakSanitizer, and under ThreadSanitizer.
//!
//! The stable toolchain is enough: RUSTC_BOOTSTRAP lets it take the flags of instrumentation.
//!
//! # What is instrumented, and what is not
//! - Address: every Rust crate, ours and others'. Not the standard library (its allocations and frees are seen all the same), not what is
//!   written in C or assembly (ring's cryptography), and not the programs that tests talk to. Use of a stack frame after its return is not
//!   looked for: it takes frames off the stack, and tests measure how deep that gets. Tests that judge how much memory a process has leave
//!   that one judgement out.
//! - Left out: the C programs of `bufferevent-capi` ([`WITHOUT`]), which the C compiler links without the sanitizer's runtime.
//! - Thread: the standard library has to be instrumented as well, or its locks and channels look like races. That needs its source
//!   (`rustup component add rust-src`). Without it the command says that threads were not checked.
//!
//! # Invariants
//! - There are no suppressions: options from outside are not handed on, and none are set here.
//! - A sanitizer has to find planted faults (`xtask/planted`) before its silence counts.
//! - What is built here lies in a folder of its own; the ordinary builds stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace::{
    cargo, output, root, run as run_command, run_reading, shown, target_folder,
};

/// One sanitizer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sanitizer {
    /// Memory errors and leaks.
    Address,
    /// Data races.
    Thread,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Thread => "thread",
        }
    }

    /// What it has to find, and by which words it tells.
    fn planted(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Address => &[
                ("use-after-free", "heap-use-after-free"),
                ("leak", "LeakSanitizer: detected memory leaks"),
            ],
            Self::Thread => &[("race", "ThreadSanitizer: data race")],
        }
    }

    /// The environment variable of its options, and their values.
    fn options(self) -> (&'static str, &'static str) {
        match self {
            Self::Address => (
                "ASAN_OPTIONS",
                "detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=0:check_initialization_order=1",
            ),
            Self::Thread => ("TSAN_OPTIONS", "halt_on_error=0:second_deadlock_stack=1"),
        }
    }
}

/// Options that suppress, or switch off, when they come from outside.
const FOREIGN_OPTIONS: [&str; 4] = [
    "ASAN_OPTIONS",
    "LSAN_OPTIONS",
    "TSAN_OPTIONS",
    "RUST_TEST_THREADS",
];

/// Packages that are not checked. xtask is this program, and tests no product. The tests of the C interface are C programs, linked by the
/// C compiler to a library in which the sanitizer's runtime is not.
const WITHOUT: [&str; 2] = ["xtask", "bufferevent-capi"];

/// Runs one sanitizer, or both; over all crates, or those named with `--package`.
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Failure::new(
            "sanitize: the leak checker is at its best on Linux on x86-64, and the command is written for it",
        ));
    }
    let mut packages = Vec::new();
    while let Some(package) = arguments.value::<String>("--package")? {
        packages.push(package);
    }
    let asked = arguments.positional();
    arguments.finish()?;
    let host = host()?;
    match asked.as_deref() {
        Some("address") => check(Sanitizer::Address, &host, &packages),
        Some("thread") => match source()? {
            Some(_) => check(Sanitizer::Thread, &host, &packages),
            None => Err(Failure::new(WITHOUT_SOURCE)),
        },
        Some(other) => Err(Failure::new(format!(
            "sanitize: address or thread, not `{other}`"
        ))),
        None => {
            check(Sanitizer::Address, &host, &packages)?;
            if source()?.is_some() {
                return check(Sanitizer::Thread, &host, &packages);
            }
            println!("{WITHOUT_SOURCE}");
            Ok(())
        }
    }
}

/// How many bufferevents end with operations under way, on each driver, unless told otherwise.
const RACES: u64 = 1_000_000;

/// `cargo xtask races`: the races of `bufferevent-iocp`, a million times, under AddressSanitizer.
pub(crate) fn races(mut arguments: Arguments) -> Result<(), Failure> {
    let count = arguments.value::<u64>("--count")?.unwrap_or(RACES);
    arguments.finish()?;
    let sanitizer = Sanitizer::Address;
    let host = host()?;
    let folder = target_folder()?.join("sanitize/races");
    std::fs::create_dir_all(&folder).map_err(Failure::during(folder.display()))?;
    find_planted(sanitizer, &host, &folder)?;
    let mut command = cargo(["test", "--package", "bufferevent-iocp", "--test", "races"]);
    command
        .args(["--target", &host, "--", "--nocapture"])
        .env("CARGO_TARGET_DIR", &folder)
        // A million, within minutes.
        .env("CARGO_PROFILE_TEST_OPT_LEVEL", "2")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
        .env("BUFFEREVENT_RACES", count.to_string());
    instrumented(&mut command, sanitizer);
    run_command(&mut command)?;
    println!("races: {count} on each driver, none harmed");
    Ok(())
}

const WITHOUT_SOURCE: &str = "sanitize: threads were NOT checked: the standard library's source is not at hand, and without it ThreadSanitizer reports \
                              races that are none (`rustup component add rust-src`)";

/// The triple of this machine: naming it keeps build scripts and macros without instrumentation.
fn host() -> Result<String, Failure> {
    let told = output(Command::new(rustc()).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| Failure::new("sanitize: rustc does not tell its host"))
}

/// Where the standard library's source is, if it is there.
fn source() -> Result<Option<PathBuf>, Failure> {
    let sysroot = output(Command::new(rustc()).args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    Ok(library.join("std/Cargo.toml").is_file().then_some(library))
}

fn rustc() -> PathBuf {
    std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)
}

/// A command with the instrumentation of `sanitizer`, and no options but ours.
fn instrumented(command: &mut Command, sanitizer: Sanitizer) {
    for foreign in FOREIGN_OPTIONS {
        command.env_remove(foreign);
    }
    let (name, value) = sanitizer.options();
    let flags = format!(
        "-Zsanitizer={} -Cforce-frame-pointers=yes",
        sanitizer.name()
    );
    command
        .env(name, value)
        .env("RUSTC_BOOTSTRAP", "1")
        // Most of a process's memory is the sanitizer's: tests that judge it leave that out.
        .env("BUFFEREVENT_SANITIZED", "1")
        // Line numbers for reports; more would double the time of linking.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("RUSTFLAGS", &flags)
        .env("RUSTDOCFLAGS", &flags);
}

fn check(sanitizer: Sanitizer, host: &str, packages: &[String]) -> Result<(), Failure> {
    let folder = target_folder()?.join("sanitize").join(sanitizer.name());
    std::fs::create_dir_all(&folder).map_err(Failure::during(folder.display()))?;
    find_planted(sanitizer, host, &folder)?;
    println!(
        "sanitize: {}: not instrumented: the standard library's own code, C and assembly; not run: {}",
        sanitizer.name(),
        WITHOUT.join(", ")
    );
    for kinds in [&["--tests", "--examples"][..], &["--doc"]] {
        if kinds == ["--doc"]
            && !packages.is_empty()
            && !packages.iter().any(|name| is_library(name))
        {
            continue;
        }
        let mut command = cargo(["test", "--no-fail-fast", "--target", host]);
        command.env("CARGO_TARGET_DIR", &folder).args(kinds);
        if packages.is_empty() {
            command.arg("--workspace");
            for without in WITHOUT {
                command.args(["--exclude", without]);
            }
        }
        for package in packages {
            command.args(["--package", package]);
        }
        if sanitizer == Sanitizer::Thread {
            command.arg("-Zbuild-std");
        }
        instrumented(&mut command, sanitizer);
        let mut tests = 0;
        run_reading(&mut command, |line| tests += passed(line))?;
        println!(
            "sanitize: {}: {tests} tests without a report ({})",
            sanitizer.name(),
            kinds.join(" ")
        );
    }
    Ok(())
}

/// Whether a package has a library, whose documentation can be tested.
fn is_library(package: &str) -> bool {
    let folder = root().join("crates").join(package);
    folder.join("src/lib.rs").is_file()
}

/// How many tests a line of cargo says have passed.
fn passed(line: &str) -> u64 {
    line.strip_prefix("test result: ok. ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or(0)
}

/// Compiles the planted faults, and sees the sanitizer find each.
fn find_planted(sanitizer: Sanitizer, host: &str, folder: &Path) -> Result<(), Failure> {
    let program = folder.join("planted");
    let mut compile = Command::new(rustc());
    compile
        .args(["--edition", "2024", "--target", host])
        .arg(format!("-Zsanitizer={}", sanitizer.name()))
        .arg(root().join("xtask/planted/faults.rs"))
        .arg("-o")
        .arg(&program);
    if sanitizer == Sanitizer::Thread {
        // The planted race is between plain writes; the standard library around it may stay as it is.
        compile.arg("-Cunsafe-allow-abi-mismatch=sanitizer");
    }
    instrumented(&mut compile, sanitizer);
    run_command(&mut compile)?;
    for (fault, words) in sanitizer.planted() {
        let mut command = Command::new(&program);
        command.arg(fault);
        instrumented(&mut command, sanitizer);
        let told = command.output().map_err(Failure::during(shown(&command)))?;
        let found = String::from_utf8_lossy(&told.stderr).contains(words);
        if told.status.success() || !found {
            return Err(Failure::new(format!(
                "sanitize: {}: the planted fault `{fault}` was not found, so silence would mean nothing",
                sanitizer.name()
            )));
        }
    }
    println!(
        "sanitize: {}: {} planted faults found",
        sanitizer.name(),
        sanitizer.planted().len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_passed_are_counted() {
        assert_eq!(
            passed("test result: ok. 12 passed; 0 failed; 0 ignored"),
            12
        );
        assert_eq!(passed("test result: FAILED. 12 passed; 1 failed"), 0);
        assert_eq!(passed("running 12 tests"), 0);
    }

    #[test]
    fn a_program_has_no_documentation_to_test() {
        assert!(is_library("evbuffer") && !is_library("bev"));
    }

    #[test]
    fn no_option_suppresses_anything() {
        for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
            let (name, value) = sanitizer.options();
            assert!(!value.contains("suppress"), "{name}");
            assert!(FOREIGN_OPTIONS.contains(&name), "{name}");
        }
    }
}
