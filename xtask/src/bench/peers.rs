//! The contenders: building them, starting a server, and putting load on it.
//!
//! Every server is started alike (`bench/c/peer.h` says how): it prints its address on the first line and
//! runs until it is ended.
//!
//! # Invariants
//! - A server runs on one core and the load generator on another.
//! - A started server is ended and reaped when its [`Running`] is dropped, whatever else fails.
//! - The process id of a [`Running`] is the server's own: the shell and `taskset` replace themselves by it.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::tools::{self, Cores};
use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

/// What a server does with what arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Service {
    Echo,
    Discard,
}

/// A program that serves.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    program: Vec<String>,
    backend: Option<String>,
}

/// All contenders, built.
pub(super) struct Peers {
    pub(super) cores: Cores,
    /// Ours first.
    pub(super) servers: Vec<Server>,
    load_generator: PathBuf,
}

/// The name under which the product runs in every table.
pub(super) const OURS: &str = "ours";

/// The product on its default backend, beside itself on one that completes operations.
pub(super) const READINESS: &str = "ours, mio";

/// The limit of completion I/O, by hand.
pub(super) const LIBURING: &str = "liburing";

/// The backends that complete operations, by their names.
const COMPLETIONS: [&str; 1] = ["uring"];

/// What is to be measured as ours: `--ours COMMAND`, or `bev echo` built now; on `--backend NAME`.
pub(super) struct Ours {
    command: Option<String>,
    backend: Option<String>,
}

impl Ours {
    pub(super) fn take(arguments: &mut Arguments) -> Result<Self, Failure> {
        Ok(Self {
            command: arguments.value("--ours")?,
            backend: arguments.value("--backend")?,
        })
    }

    pub(super) fn backend(&self) -> &str {
        self.backend.as_deref().unwrap_or("default")
    }

    /// Whether its backend completes operations: then it is held against the limit of that, and against itself on readiness.
    pub(super) fn completes(&self) -> bool {
        COMPLETIONS.contains(&self.backend())
    }
}

/// Builds every contender.
pub(super) fn build(ours: &Ours) -> Result<Peers, Failure> {
    let cores = tools::cores()?;
    tools::require_libevent()?;
    let target = workspace::target_folder()?;
    let load_generator = compile(&target, "loadgen", &[])?;
    let rust = build_rust(&target, "bench-peers")?;
    let own = match &ours.command {
        Some(command) => command.split_whitespace().map(String::from).collect(),
        None => build_bev(&target)?,
    };
    let server = |name, program: PathBuf| Server::new(name, vec![display(&program)]);
    let mut servers = vec![
        Server {
            name: OURS,
            program: own,
            backend: ours.backend.clone(),
        },
        server(
            "libevent",
            compile(&target, "echo_libevent", &["-levent_core"])?,
        ),
        server("epoll", compile(&target, "echo_epoll", &[])?),
        server("tokio", rust.join("echo_tokio")),
        server("mio", rust.join("echo_mio")),
    ];
    if ours.completes() {
        tools::require_header("liburing.h", "liburing-dev")?;
        let by_hand = compile(&target, "echo_uring", &["-luring"])?;
        servers.push(server(LIBURING, by_hand));
        servers.push(Server::new(READINESS, build_bev(&target)?));
    }
    Ok(Peers {
        cores,
        servers,
        load_generator,
    })
}

/// The load generator with these servers alone.
pub(super) fn with_servers(servers: Vec<Server>) -> Result<Peers, Failure> {
    Ok(Peers {
        cores: tools::cores()?,
        servers,
        load_generator: compile(&workspace::target_folder()?, "loadgen", &[])?,
    })
}

/// Compiles `bench/c/NAME.c`.
pub(super) fn compile(target: &Path, name: &str, libraries: &[&str]) -> Result<PathBuf, Failure> {
    compile_as(target, name, name, libraries)
}

/// Compiles `bench/c/NAME.c` into another program of that name: `program`.
pub(super) fn compile_as(
    target: &Path,
    name: &str,
    program: &str,
    libraries: &[&str],
) -> Result<PathBuf, Failure> {
    let folder = target.join("bench-c");
    std::fs::create_dir_all(&folder).map_err(Failure::during(folder.display()))?;
    let program = folder.join(program);
    let source = workspace::root()
        .join("bench/c")
        .join(name)
        .with_extension("c");
    let mut command = Command::new(tools::c_compiler());
    command
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(source)
        .args(libraries);
    workspace::run(&mut command)?;
    Ok(program)
}

/// Builds one package of `bench/rust`, a workspace of its own, and returns the folder of its programs.
pub(super) fn build_rust(target: &Path, package: &str) -> Result<PathBuf, Failure> {
    let target = target.join("bench-rust");
    let mut command = workspace::cargo(["build", "--release", "--quiet", "--locked"]);
    command
        .args(["--package", package])
        .current_dir(workspace::root().join("bench/rust"))
        .env("CARGO_TARGET_DIR", &target);
    workspace::run(&mut command)?;
    Ok(target.join("release"))
}

fn build_bev(target: &Path) -> Result<Vec<String>, Failure> {
    workspace::run(&mut workspace::cargo([
        "build",
        "--release",
        "--quiet",
        "--package",
        "bev",
    ]))?;
    let program = display(&target.join("release/bev"));
    Ok([&program, "echo", "listen:tcp:127.0.0.1:0"]
        .map(String::from)
        .to_vec())
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// A server at work.
pub(super) struct Running {
    child: Child,
    pub(super) port: u16,
    /// Kept open, or the server's next line would end it.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// A program that serves, with its arguments; on the default backend.
    pub(super) fn new(name: &'static str, program: Vec<String>) -> Self {
        Self {
            name,
            program,
            backend: None,
        }
    }

    /// Starts it on `core`, under `tracer` (a program with its arguments) where that is not empty.
    pub(super) fn start(
        &self,
        service: Service,
        core: usize,
        tracer: &[&str],
    ) -> Result<Running, Failure> {
        self.start_on(service, &core.to_string(), tracer)
    }

    /// As [`start`](Self::start), on several cores: `0,2`.
    pub(super) fn start_on(
        &self,
        service: Service,
        cores: &str,
        tracer: &[&str],
    ) -> Result<Running, Failure> {
        let mut command = Command::new("sh");
        // A server of thousands of connections needs as many descriptors as the system lets it have.
        command.args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$@\"", "sh"]);
        command
            .args(["taskset", "-c", cores])
            .args(tracer)
            .args(&self.program);
        if service == Service::Discard {
            command.arg("--discard");
        }
        if let Some(backend) = &self.backend {
            command.env("REACTOR_BACKEND", backend);
        }
        let during = |error: std::io::Error| Failure::new(format!("server {}: {error}", self.name));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(during)?;
        let mut stdout =
            BufReader::new(child.stdout.take().expect("standard output is piped above"));
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        let mut running = Running {
            child,
            port: 0,
            _stdout: stdout,
        };
        read.map_err(during)?;
        running.port = port_of(&line).ok_or_else(|| {
            Failure::new(format!(
                "server {}: `{}` is no address",
                self.name,
                line.trim()
            ))
        })?;
        Ok(running)
    }
}

/// The port of an address at the end of a line.
fn port_of(line: &str) -> Option<u16> {
    line.trim().rsplit_once(':')?.1.parse().ok()
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has, so that a tracer around it writes what it saw.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        let pid = self.pid().to_string();
        workspace::run(Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]))?;
        self.child
            .wait()
            .map_err(Failure::during("waiting for a server"))?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One load: how many connections, how long their messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) message_bytes: usize,
}

impl Peers {
    /// The load generator on its core; its modes are documented in `bench/c/loadgen.c`.
    pub(super) fn load(&self, server: &Running, load: Load, amount: f64, mode: &str) -> Command {
        self.load_on(&self.cores.client.to_string(), server, load, amount, mode)
    }

    /// As [`load`](Self::load), on these cores.
    fn load_on(
        &self,
        cores: &str,
        server: &Running,
        load: Load,
        amount: f64,
        mode: &str,
    ) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(&self.load_generator);
        let numbers = [server.port as usize, load.connections, load.message_bytes];
        command.args(numbers.map(|number| number.to_string()));
        command.args([amount.to_string(), server.pid().to_string(), mode.into()]);
        command
    }

    /// Runs a timed load and returns what it measured.
    pub(super) fn measure(
        &self,
        server: &Running,
        load: Load,
        seconds: f64,
        mode: &str,
    ) -> Result<Value, Failure> {
        let line = workspace::output(&mut self.load(server, load, seconds, mode))?;
        serde_json::from_str(&line).map_err(Failure::during("what the load generator measured"))
    }

    /// Runs a timed load of echoes beside the server, on the same cores.
    pub(super) fn measure_beside(
        &self,
        cores: &str,
        server: &Running,
        load: Load,
        seconds: f64,
    ) -> Result<Value, Failure> {
        let line = workspace::output(&mut self.load_on(cores, server, load, seconds, "echo"))?;
        serde_json::from_str(&line).map_err(Failure::during("what the load generator measured"))
    }

    /// Runs exactly `messages` echoes. The connections stay open until the client is dropped.
    pub(super) fn echo(
        &self,
        server: &Running,
        load: Load,
        messages: u32,
    ) -> Result<Client, Failure> {
        let mut client = Client::start(&mut self.load(server, load, messages.into(), "count"))?;
        client.expect("done")?;
        Ok(client)
    }

    /// Opens `load`'s connections in two steps: see the mode `idle` of the load generator.
    pub(super) fn idle(&self, server: &Running, load: Load) -> Result<Client, Failure> {
        Client::start(&mut self.load(server, load, 0.0, "idle"))
    }
}

/// A load generator that holds its connections until it is dropped.
pub(super) struct Client {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(Failure::during("the load generator"))?;
        let stdout = child.stdout.take().expect("standard output is piped above");
        Ok(Self {
            child,
            said: BufReader::new(stdout).lines(),
        })
    }

    /// Waits until it says `word`; it ends without it when something failed, and has told what.
    pub(super) fn expect(&mut self, word: &str) -> Result<(), Failure> {
        match self.said.next() {
            Some(Ok(line)) if line == word => Ok(()),
            _ => Err(Failure::new(
                "the load generator gave up; its line above says why",
            )),
        }
    }

    /// Lets it go on with its next step.
    pub(super) fn go_on(&mut self) -> Result<(), Failure> {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .expect("standard input is piped and only closed by dropping");
        stdin
            .write_all(b"\n")
            .map_err(Failure::during("the load generator"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // Its standard input ends: it closes its connections and exits.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_ends_the_first_line() {
        assert_eq!(port_of("127.0.0.1:4242\n"), Some(4242));
        assert_eq!(port_of("listening on tcp:[::1]:80\n"), Some(80));
        assert_eq!(port_of(""), None);
    }
}
