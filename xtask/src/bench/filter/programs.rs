//! The two programs of the benchmark of the filters, built, and the files that they share.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Contender, Program};
use crate::bench::peers::{self, Peers};
use crate::bench::tools;
use crate::failure::Failure;
use crate::workspace;

/// glibc copies with `rep movsb` from 2 KiB on, which some AMD processors do at a third of the speed where the addresses happen to lie
/// badly: without this, a result depends on where the buffers are, and a length of messages looks like a cliff. For all contenders.
const COPIES: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.x86_rep_movsb_threshold=1073741824",
);

/// Built, and ready to run on one core.
pub(super) struct Programs {
    /// Ours, tokio-rustls and the bare libraries.
    rust: PathBuf,
    libevent: PathBuf,
    /// Certificates, a key, and the text.
    material: PathBuf,
    core: usize,
}

impl Programs {
    pub(super) fn build() -> Result<Self, Failure> {
        let core = tools::cores()?.server;
        tools::require_libevent()?;
        tools::require_header("openssl/ssl.h", "libssl-dev")?;
        tools::require_header("zlib.h", "zlib1g-dev")?;
        let target = workspace::target_folder()?;
        let libraries = [
            "-levent_openssl",
            "-levent_core",
            "-lssl",
            "-lcrypto",
            "-lz",
        ];
        let libevent = peers::compile(&target, "filters_libevent", &libraries)?;
        let rust = peers::build_rust(&target, "bench-filters")?.join("bench-filters");
        let material = target.join("bench-filters");
        std::fs::create_dir_all(&material).map_err(Failure::during(material.display()))?;
        workspace::run(Command::new(&rust).arg("material").arg(&material))?;
        Ok(Self {
            rust,
            libevent,
            material,
            core,
        })
    }

    pub(super) fn core(&self) -> usize {
        self.core
    }

    /// One measurement of `contender`.
    pub(super) fn run(&self, contender: &Contender, seconds: f64) -> Result<Value, Failure> {
        let words = [contender.operation, &seconds.to_string()];
        match contender.program {
            Program::Rust => self.ours(&words, &[contender.provider]),
            Program::Libevent => self.output(&self.libevent, &words, &[]),
        }
    }

    /// Runs the Rust program: operation and seconds, then the folder, then the `rest`.
    pub(super) fn ours(&self, words: &[&str], rest: &[&str]) -> Result<Value, Failure> {
        self.output(&self.rust, words, rest)
    }

    fn output(&self, program: &Path, words: &[&str], rest: &[&str]) -> Result<Value, Failure> {
        let mut command = Command::new("taskset");
        command
            .args(["-c", &self.core.to_string()])
            .arg(program)
            .args(words)
            .arg(&self.material)
            .args(rest)
            .envs(tools::ALLOCATOR)
            .envs([COPIES]);
        let line = workspace::output(&mut command)?;
        serde_json::from_str(&line).map_err(Failure::during(program.display()))
    }

    /// Our echo server with each of these filters on its sockets, under the load generator.
    pub(super) fn echo_servers(&self, filters: &[&'static str]) -> Result<Peers, Failure> {
        let program = self.rust.display().to_string();
        let server = |filter: &&'static str| {
            let command = vec![program.clone(), "echo".into(), (*filter).into()];
            peers::Server::new(filter, command)
        };
        peers::with_servers(filters.iter().map(server).collect())
    }
}
