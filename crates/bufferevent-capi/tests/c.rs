//! C programs against the library: each is compiled with `cc` against our headers and the archive, and run.
//!
//! A program says which check failed and ends with 1. `CAPI_RUNNER` names a command to run each under (`cargo xtask capi --test` sets valgrind).

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use bufferevent_testkit::fault;

/// A program that takes longer than this, in seconds, hangs.
const LONGEST_S: &str = "60";

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this test's own executable is, and what cargo built with it.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a name");
    test.parent().expect("and a folder").to_path_buf()
}

/// The archive that cargo built last; it lies beside the tests under a name with a hash.
fn archive() -> PathBuf {
    let entries = std::fs::read_dir(built()).expect("the folder of this test can be read");
    let archives = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libbufferevent_capi") && name.ends_with(".a")
    });
    let newest =
        archives.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    newest.expect("cargo built the archive").path()
}

/// Links the archive once into a shared object, so that programs link fast.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_folder, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let library = folder.path().join("libevent_tested.so");
        let linked = Command::new("cc")
            .arg("-shared")
            .arg("-o")
            .arg(&library)
            .arg("-Wl,--whole-archive")
            .arg(archive())
            .arg("-Wl,--no-whole-archive")
            .args(["-lpthread", "-ldl", "-lm"])
            .output()
            .expect("cc runs");
        succeeded("linking", &linked);
        (folder, library)
    });
    library
}

#[track_caller]
fn succeeded(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compiles a program of `tests/c`.
fn compile(name: &str, folder: &Path) -> PathBuf {
    let program = folder.join(name);
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .arg(&program)
        .arg(here().join("tests/c").join(name).with_extension("c"))
        .arg("-I")
        .arg(here().join("include"))
        .arg(library())
        .arg("-lpthread")
        .output()
        .expect("cc runs");
    succeeded(name, &compiled);
    program
}

fn run(name: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = compile(name, folder.path());
    let runner = std::env::var("CAPI_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let mut command = Command::new("timeout");
    command.arg(LONGEST_S).args(words.by_ref()).arg(&program);
    command
        .args(arguments)
        .env("LD_LIBRARY_PATH", library().parent().expect("a folder"))
        .output()
        .expect("timeout runs")
}

#[track_caller]
fn passes(name: &str) {
    succeeded(name, &run(name, &[]));
}

#[test]
fn buffers() {
    fault!(
        F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15, F17
    );
    passes("buffer");
}

#[test]
fn events_and_the_loop() {
    fault!(F89);
    passes("loop");
}

#[test]
fn utilities() {
    passes("util");
}

#[test]
fn threads() {
    passes("threads");
}

#[test]
fn locks_and_memory_of_the_programs_own() {
    passes("own_locks");
}

#[test]
fn debug_mode_ends_a_program_that_misuses_events() {
    passes("debug_mode");
    for misuse in ["late", "unassigned", "twice", "given up"] {
        let output = run("debug_mode", &[misuse]);
        assert_eq!(output.status.code(), Some(7), "{misuse}");
    }
}

#[test]
fn bufferevents_listeners_and_names() {
    passes("bufferevent");
}

#[test]
fn pairs_filters_rates_and_locks() {
    passes("stack");
}
