//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/` one after the other, each for so many seconds.
//!
//! # Invariants
//! - One line for each target, with what libFuzzer counted; what it printed is in a log in the target directory.
//! - A crash ends the command, with the input that caused it and the command that shows it again.
//! - Corpus and crashes are written to `fuzz/corpus` and `fuzz/artifacts`, which git ignores; the seeds are only read.
//! - The stable toolchain is enough: RUSTC_BOOTSTRAP lets it take the flags of instrumentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace::{cargo, root, run as run_command, shown, target_folder};

/// What is run where nothing else is asked for, in this order.
const TARGETS: [&str; 5] = ["evbuffer", "filter_stack", "inflate", "proxy", "tls"];

/// Seconds for each target where nothing else is asked for.
const SECONDS: u64 = 60;

/// The longest input in bytes. Every target is bounded by its input, and longer ones only make it slower.
const MAX_LEN: u32 = 4096;

/// Seconds that one input may take; every one that is not a hang takes milliseconds.
const TIMEOUT: u32 = 20;

/// Memory in MiB that a target may take, most of it the sanitizer's and the corpus.
const MEMORY: u32 = 2048;

/// Lines of a failed target's log that are shown.
const SHOWN: usize = 30;

/// Runs all targets, or those named.
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let seconds = arguments.value("--seconds")?.unwrap_or(SECONDS);
    let mut targets = Vec::new();
    while let Some(name) = arguments.positional() {
        let known = TARGETS.iter().find(|target| **target == name);
        targets.push(*known.ok_or_else(|| {
            let all = TARGETS.join(", ");
            Failure::new(format!("no fuzz target `{name}`; there are {all}"))
        })?);
    }
    arguments.finish()?;
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    let fuzz = Fuzz::new(seconds)?;
    for target in &targets {
        fuzz.build(target)?;
    }
    for target in &targets {
        println!("{}", fuzz.run(target)?);
    }
    Ok(())
}

struct Fuzz {
    seconds: u64,
    /// Where the instrumented programs are built, and the logs are.
    built: PathBuf,
}

impl Fuzz {
    fn new(seconds: u64) -> Result<Self, Failure> {
        let there = cargo(["fuzz", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !there.is_ok_and(|status| status.success()) {
            return Err(Failure::new(
                "cargo-fuzz is not there: `cargo install cargo-fuzz --locked` (it needs a C++ compiler, and Linux or macOS)",
            ));
        }
        let built = target_folder()?.join("fuzz");
        fs::create_dir_all(&built).map_err(Failure::during(built.display()))?;
        Ok(Self { seconds, built })
    }

    /// `cargo fuzz VERB TARGET`, as it can also be typed.
    fn command(&self, verb: &str, target: &str) -> Command {
        let mut command = cargo(["fuzz", verb, "--target-dir"]);
        command
            .arg(&self.built)
            .arg(target)
            .env("RUSTC_BOOTSTRAP", "1");
        // What cargo has told this program about its own package would have build scripts run anew, here and then when the
        // command is typed.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
                command.env_remove(name);
            }
        }
        command
    }

    fn build(&self, target: &str) -> Result<(), Failure> {
        run_command(&mut self.command("build", target))
    }

    /// Runs one target; the line that says what came of it.
    fn run(&self, target: &str) -> Result<String, Failure> {
        let corpus = root().join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus).map_err(Failure::during(corpus.display()))?;
        let path = self.built.join(format!("{target}.log"));
        let log = fs::File::create(&path).map_err(Failure::during(path.display()))?;
        let mut command = self.command("run", target);
        command
            .arg(&corpus)
            .arg(root().join("fuzz/seeds").join(target))
            .arg("--")
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-max_len={MAX_LEN}"))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .arg("-print_final_stats=1")
            .stdout(Stdio::null())
            .stderr(log);
        let status = command.status().map_err(Failure::during(shown(&command)))?;
        let log = fs::read(&path).map_err(Failure::during(path.display()))?;
        let log = String::from_utf8_lossy(&log);
        if status.success() {
            let counted = Counted::read(&log).ok_or_else(|| {
                Failure::new(format!("{target}: no statistics in {}", path.display()))
            })?;
            return Ok(format!("{target:<13} {}", counted.line()));
        }
        for line in tail(&log, SHOWN) {
            eprintln!("{line}");
        }
        Err(crashed(target, &log, &path))
    }
}

/// The failure of a target: where the input is, and how to see it again.
fn crashed(target: &str, log: &str, path: &Path) -> Failure {
    let built = path.parent().unwrap_or(path).display();
    match artifact(log) {
        Some(artifact) => Failure::new(format!(
            "{target} crashed on {artifact}; again: RUSTC_BOOTSTRAP=1 cargo fuzz run --target-dir {built} {target} {artifact}"
        )),
        None => Failure::new(format!("{target} failed; see {}", path.display())),
    }
}

/// The input that a crash has left: `Test unit written to PATH`, behind some words about where.
fn artifact(log: &str) -> Option<&str> {
    let lines = log.lines();
    let mut paths = lines.filter_map(|line| Some(line.split_once("Test unit written to ")?.1));
    paths.next().map(str::trim)
}

fn tail(log: &str, lines: usize) -> impl Iterator<Item = &str> {
    let skipped = log.lines().count().saturating_sub(lines);
    log.lines().skip(skipped)
}

/// What libFuzzer counted, from its last line of progress and its statistics.
#[derive(Debug, Eq, PartialEq)]
struct Counted {
    executions: u64,
    per_second: u64,
    /// Edges of the program that were taken.
    coverage: u64,
    /// Edges, and how often they were taken.
    features: u64,
    /// Inputs that are kept.
    corpus: u64,
}

impl Counted {
    fn read(log: &str) -> Option<Self> {
        let statistic = |name: &str| {
            let line = log.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().last()?.parse().ok()
        };
        // `#4096  pulse  cov: 812 ft: 2311 corp: 77/4096b lim: 80 exec/s: 2048 rss: 52Mb`
        let progress = log.lines().rfind(|line| line.contains(" cov: "))?;
        let after = |name: &str| {
            let mut words = progress.split_whitespace();
            words.find(|word| *word == name)?;
            words.next()?.split('/').next()?.parse().ok()
        };
        Some(Self {
            executions: statistic("stat::number_of_executed_units:")?,
            per_second: statistic("stat::average_exec_per_sec:")?,
            coverage: after("cov:")?,
            features: after("ft:")?,
            corpus: after("corp:")?,
        })
    }

    fn line(&self) -> String {
        format!(
            "ok: {} runs, {} per second; coverage {} edges, {} features; corpus {}",
            self.executions, self.per_second, self.coverage, self.features, self.corpus
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
#0\tREAD units: 3
#3\tINITED cov: 700 ft: 900 corp: 3/90b exec/s: 0 rss: 50Mb
#4096\tpulse  cov: 812 ft: 2311 corp: 77/4096b lim: 80 exec/s: 2048 rss: 52Mb
#9000\tDONE   cov: 813 ft: 2320 corp: 78/4100b lim: 80 exec/s: 2250 rss: 52Mb
stat::number_of_executed_units: 9000
stat::average_exec_per_sec:     2250
";

    #[test]
    fn the_last_counts_are_read() {
        let counted = Counted {
            executions: 9000,
            per_second: 2250,
            coverage: 813,
            features: 2320,
            corpus: 78,
        };
        assert_eq!(Counted::read(LOG), Some(counted));
        assert_eq!(Counted::read("nothing was counted"), None);
    }

    #[test]
    fn a_crash_names_its_input() {
        let log = "artifact_prefix='fuzz/artifacts/tls/'; Test unit written to fuzz/artifacts/tls/crash-1\n";
        assert_eq!(artifact(log), Some("fuzz/artifacts/tls/crash-1"));
        assert_eq!(artifact(LOG), None);
        let failure = crashed("tls", log, Path::new("built/tls.log")).to_string();
        let again = "cargo fuzz run --target-dir built tls fuzz/artifacts/tls/crash-1";
        assert!(failure.ends_with(again), "{failure}");
        assert!(
            crashed("tls", LOG, Path::new("log"))
                .to_string()
                .ends_with("see log")
        );
    }

    #[test]
    fn every_target_has_a_program_and_seeds() {
        for target in TARGETS {
            let program = root().join(format!("fuzz/fuzz_targets/{target}.rs"));
            assert!(program.is_file(), "{target}");
            assert!(root().join("fuzz/seeds").join(target).is_dir(), "{target}");
        }
    }
}
