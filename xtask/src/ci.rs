//! `cargo xtask ci`: everything that gates a change, in order; it stops at the first failure.
//!
//! # Invariants
//! - Nothing but the Rust toolchain and a C compiler is needed to build; the [`PEERS`] of others are needed to test, on Unix. The
//!   first step says which are missing.
//! - The tests run once: the gates over specification and faults read the records that this run left.
//! - xtask is built alone, as `cargo xtask` builds it: on Windows a running program cannot be replaced.
//! - An ignored test is a failure: there is no check that nobody runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::rows::Book;
use crate::workspace::{cargo, run as run_command, run_reading, target_folder};
use crate::{layers, loom, mutants, proved, records, windows};

/// Programs of others that tests talk to.
const PEERS: [&str; 4] = ["openssl", "curl", "gzip", "python3"];

/// One that is talked to on Linux alone; Debian has it in dnsmasq-base.
const NAME_SERVER: &str = "dnsmasq";

/// Runs every step.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.finish()?;
    let mut ci = Ci {
        began: Instant::now(),
        steps: 0,
        tests: TestCount::default(),
    };
    let records = records::fresh_folder()?;

    if cfg!(unix) {
        ci.step("peers", |_| peers())?;
    }
    ci.step("format", |_| {
        run_command(&mut cargo(["fmt", "--all", "--check"]))
    })?;
    ci.step("layers", |_| layers::check())?;
    ci.step("clippy", |_| {
        run_command(&mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    ci.step("type check for Windows", |_| windows::quick())?;
    ci.step("tests of xtask", |tests| {
        tests.count(&mut cargo(["test", "--package", "xtask"]))
    })?;
    ci.step("tests and doctests", |tests| {
        let mut command = cargo(["test", "--workspace", "--exclude", "xtask"]);
        tests.count(records::recording(&mut command, &records))
    })?;
    // Rows speak of descriptors, signals and Unix-domain sockets too: elsewhere they cannot all be proved.
    if cfg!(unix) {
        ci.step("specification", |_| {
            proved::gate_folder(Book::Spec, &records)
        })?;
        ci.step("faults", |_| proved::gate_folder(Book::Faults, &records))?;
    }
    // The row that Linux alone cannot prove: its other half is completion ports.
    if cfg!(windows) {
        ci.step("completion ports", |_| windows::suite_ran(&records))?;
    }
    ci.step("documentation", |_| {
        let mut command = cargo(["doc", "--workspace", "--no-deps"]);
        run_command(command.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    ci.step("packages", |_| packages())?;
    ci.step("mutants, short form", |_| mutants::check_quick())?;
    ci.step("loom", |_| loom::check())?;
    ci.step("release build", |_| {
        run_command(&mut cargo(["build", "--release", "--package", "bev"]))
    })?;
    ci.step("demo", |_| {
        let program = target_folder()?
            .join("release")
            .join(format!("bev{}", std::env::consts::EXE_SUFFIX));
        demo(&program)
    })?;
    ci.close()
}

/// Whether the peers of tests are there.
fn peers() -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there =
        |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing: Vec<_> = PEERS
        .iter()
        .chain(cfg!(target_os = "linux").then_some(&NAME_SERVER))
        .filter(|program| !there(program))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Failure::new(format!(
        "tests talk to programs that are not here: install {missing}"
    )))
}

/// The product itself on real data: 64 MiB through a relay and back, every byte checked.
fn demo(program: &Path) -> Result<(), Failure> {
    run_command(Command::new(program).args(["demo", "--bytes", "64MiB"]))
}

struct Ci {
    began: Instant,
    steps: usize,
    tests: TestCount,
}

impl Ci {
    fn step(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut TestCount) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.steps += 1;
        println!("\n== {}. {name}", self.steps);
        let began = Instant::now();
        let result = body(&mut self.tests);
        println!(
            "== {}. {name}: {:.1} s",
            self.steps,
            began.elapsed().as_secs_f32()
        );
        result.map_err(Failure::during(format!(
            "ci stopped at step {} ({name})",
            self.steps
        )))
    }

    /// The last line has the form of cargo's own, summed over all test programs.
    fn close(self) -> Result<(), Failure> {
        println!(
            "\n== ci: {} steps passed in {:.0} s",
            self.steps,
            self.began.elapsed().as_secs_f32()
        );
        println!("test result: ok. {}", self.tests);
        Ok(())
    }
}

/// The closing lines of all test programs, summed.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct TestCount {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl fmt::Display for TestCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            ignored,
        } = self;
        write!(f, "{passed} passed; {failed} failed; {ignored} ignored")
    }
}

impl TestCount {
    /// Runs `command`, a `cargo test`, and counts what it ran.
    pub(crate) fn count(&mut self, command: &mut Command) -> Result<(), Failure> {
        run_reading(command, |line| self.read(line))?;
        if self.ignored > 0 {
            return Err(Failure::new(format!("{} tests are ignored", self.ignored)));
        }
        Ok(())
    }

    /// Takes one line of output: `test result: ok. 12 passed; 0 failed; 0 ignored; …`.
    fn read(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((n, "passed")) => self.passed += n.parse().unwrap_or(0),
                Some((n, "failed")) => self.failed += n.parse().unwrap_or(0),
                Some((n, "ignored")) => self.ignored += n.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Packages every crate and builds each from its package, against the packages of the others.
///
/// cargo takes a package of a name and version for the same for ever. So what an earlier run unpacked and built is taken away first:
/// it would stand for the packages of now.
fn packages() -> Result<(), Failure> {
    let target = target_folder()?.join("packages");
    remove(&target)?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let unpacked = home.map(|home| std::fs::read_dir(home.join("registry").join("src")));
    for registry in unpacked.into_iter().flatten().flatten().flatten() {
        // That of a folder has no host before its hash.
        if registry.file_name().to_string_lossy().starts_with('-') {
            remove(&registry.path())?;
        }
    }
    let mut command = cargo(["package", "--workspace", "--quiet", "--allow-dirty"]);
    run_command(command.arg("--target-dir").arg(&target))
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed() {
        let mut count = TestCount::default();
        count.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        count.read("running 12 tests");
        count.read("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(
            count,
            TestCount {
                passed: 14,
                failed: 1,
                ignored: 1
            }
        );
    }
}
