//! The programs that benchmarks need beyond the toolchain, and the two cores they run on.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// Memory that was freed is kept, on all sides: else a result depends on what ran before it, and a length of messages on whether
/// the allocator gives such pieces back to the system.
pub(super) const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
];

/// Whether `program` can be run; else the line that says which package has it.
pub(super) fn require(program: &str, package: &str) -> Result<(), Failure> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&folders).any(|folder| folder.join(program).is_file()) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{program} is missing: apt-get install {package}"
    )))
}

/// The C compiler: `$CC`, or `cc`.
pub(super) fn c_compiler() -> PathBuf {
    std::env::var_os("CC").map_or_else(|| "cc".into(), PathBuf::from)
}

/// Whether libevent's headers are installed.
pub(super) fn require_libevent() -> Result<(), Failure> {
    require_header("event2/event.h", "libevent-dev")
}

/// Whether the C compiler finds `header`; else the line that says which package has it.
pub(super) fn require_header(header: &str, package: &str) -> Result<(), Failure> {
    let mut preprocess = Command::new(c_compiler());
    preprocess.args(["-E", "-include", header, "-x", "c", "/dev/null"]);
    preprocess.stdout(Stdio::null()).stderr(Stdio::null());
    match preprocess.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::new(format!(
            "the header {header} is missing: apt-get install {package}"
        ))),
        Err(error) => Err(Failure::new(format!(
            "the C compiler does not run ({error}): apt-get install gcc"
        ))),
    }
}

/// Where the server runs, and where its load comes from: never the same core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Cores {
    pub(super) server: usize,
    pub(super) client: usize,
}

/// Two of the cores this process may use.
pub(super) fn cores() -> Result<Cores, Failure> {
    require("taskset", "util-linux")?;
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(Failure::during("/proc/self/status"))?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    match parse_list(allowed.unwrap_or_default())[..] {
        [server, client, ..] => Ok(Cores { server, client }),
        _ => Err(Failure::new(
            "bench: two cores are needed, one for the server and one for its load",
        )),
    }
}

/// The kernel's notation for sets: `0-2,5`.
fn parse_list(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cores_are_read() {
        assert_eq!(parse_list("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("3"), [3]);
        assert_eq!(parse_list(""), [0_usize; 0]);
    }

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let failure = require("no-such-program-anywhere", "some-package").unwrap_err();
        assert_eq!(
            failure.to_string(),
            "no-such-program-anywhere is missing: apt-get install some-package"
        );
    }
}
