//! The workspace on disk, and the programs run in it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// The toolchain's cargo, in the root.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// `cargo metadata`, with the graph of all dependencies where `with_graph` says so.
pub(crate) fn metadata(graph: Graph) -> Result<Value, Failure> {
    let mut command = cargo(["metadata", "--format-version", "1"]);
    if graph == Graph::MembersOnly {
        command.arg("--no-deps");
    }
    serde_json::from_str(&output(&mut command)?).map_err(Failure::during("cargo metadata"))
}

/// How much of the dependency graph to resolve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Graph {
    /// The workspace's own crates; nothing is fetched.
    MembersOnly,
    /// Every crate that any of them needs.
    Whole,
}

/// Where cargo builds.
pub(crate) fn target_folder() -> Result<PathBuf, Failure> {
    let metadata = metadata(Graph::MembersOnly)?;
    let folder = metadata["target_directory"].as_str();
    folder
        .map(PathBuf::from)
        .ok_or_else(|| Failure::new("cargo metadata names no target directory"))
}

/// Runs `command` with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(Failure::during(shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{}`: {status}", shown(command))))
    }
}

/// Runs `command` and returns what it wrote to standard output; standard error goes to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(Failure::during(shown(command)))?;
    if !done.status.success() {
        return Err(Failure::new(format!(
            "`{}`: {}",
            shown(command),
            done.status
        )));
    }
    String::from_utf8(done.stdout).map_err(Failure::during(shown(command)))
}

/// Runs `command` with its output on the terminal, and shows each line of standard output to `line` too.
pub(crate) fn run_reading(
    command: &mut Command,
    mut line: impl FnMut(&str),
) -> Result<(), Failure> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::during(shown(command)))?;
    let stdout = child.stdout.take().expect("standard output is piped above");
    for read in BufReader::new(stdout).lines() {
        let read = read.map_err(Failure::during(shown(command)))?;
        println!("{read}");
        line(&read);
    }
    let status = child.wait().map_err(Failure::during(shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{}`: {status}", shown(command))))
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_stem()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The executables that a cargo command with `--message-format=json` says it made, each with its package's folder. Programs that tests
/// only call are not among them.
pub(crate) fn executables(messages: &str) -> Vec<(PathBuf, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            let is_program = message["target"]["kind"][0] == "bin";
            !is_program || message["profile"]["test"] == true
        })
        .filter_map(|message| {
            let executable = PathBuf::from(message["executable"].as_str()?);
            let manifest = Path::new(message["manifest_path"].as_str()?);
            Some((executable, manifest.parent()?.to_path_buf()))
        })
        .collect()
}
