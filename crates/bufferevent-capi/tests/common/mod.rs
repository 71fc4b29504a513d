//! Compiling C programs against the library, and running them.
//!
//! A program says which check failed and ends with 1. `CAPI_RUNNER` names a command to run each under (`cargo xtask capi --test` sets valgrind).
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A program that takes longer than this, in seconds, hangs.
const LONGEST_S: &str = "60";

pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this test's own executable is, and what cargo built with it.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a name");
    test.parent().expect("and a folder").to_path_buf()
}

/// The archive that cargo built last; it lies beside the tests under a name with a hash.
pub(crate) fn archive() -> PathBuf {
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
pub(crate) fn library() -> &'static Path {
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
pub(crate) fn succeeded(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compiles a program of `tests/c`.
pub(crate) fn compile(name: &str, folder: &Path) -> PathBuf {
    let source = here().join("tests/c").join(name).with_extension("c");
    compile_file(&source, &["-Wextra"], folder)
}

/// Compiles a program, with these flags too.
pub(crate) fn compile_file(source: &Path, flags: &[&str], folder: &Path) -> PathBuf {
    compile_files(&[source.to_path_buf()], flags, folder)
}

/// Compiles a program of several files, which has the name of the first.
pub(crate) fn compile_files(sources: &[PathBuf], flags: &[&str], folder: &Path) -> PathBuf {
    let name = sources[0].file_stem().expect("a file's name");
    let program = folder.join(name);
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Werror", "-g"])
        .args(flags)
        .arg("-o")
        .arg(&program)
        .args(sources)
        .arg("-I")
        .arg(here().join("include"))
        .arg(library())
        .arg("-lpthread")
        .output()
        .expect("cc runs");
    succeeded(&name.to_string_lossy(), &compiled);
    program
}

pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = compile(name, folder.path());
    command(&program, arguments).output().expect("timeout runs")
}

/// The command that runs a compiled program: under the runner, with our library, and not for ever.
pub(crate) fn command(program: &Path, arguments: &[&str]) -> Command {
    let runner = std::env::var("CAPI_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let mut command = Command::new("timeout");
    command
        .arg(LONGEST_S)
        .args(words.by_ref())
        .arg(program)
        .args(arguments)
        .env("LD_LIBRARY_PATH", library().parent().expect("a folder"));
    command
}

#[track_caller]
pub(crate) fn passes(name: &str) {
    succeeded(name, &run(name, &[]));
}
