//! Runs the real program and talks to it, with a limit on every wait.

#![allow(dead_code, reason = "each test file uses its part")]

#[cfg(unix)]
pub(crate) mod files;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The backends that every relay test runs on.
pub(crate) const BACKENDS: &[&str] = if cfg!(target_os = "linux") {
    &["mio", "polling", "uring"]
} else if cfg!(windows) {
    &["polling", "iocp"]
} else {
    &["mio", "polling"]
};

/// The program, not yet started.
pub(crate) fn bev(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bev"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A running program that has said where it listens.
pub(crate) struct Service {
    child: Option<Child>,
    stdout: BufReader<ChildStdout>,
    stderr: Receiver<String>,
    /// As the program wrote it.
    pub(crate) address: String,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<String>,
}

impl Service {
    /// Starts it and waits for its first line.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_command(bev(arguments))
    }

    /// The same, for a command that leads to the program.
    pub(crate) fn start_command(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = lines(child.stderr.take().expect("piped"));
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a first line");
        let address = match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(listening) => listening["address"].as_str().map(String::from),
            Err(_) => line.trim().rsplit(' ').next().map(String::from),
        };
        let address = address.expect("an address");
        Self {
            child: Some(child),
            stdout,
            stderr,
            address,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        self.address
            .strip_prefix("tcp:")
            .expect("a TCP address")
            .parse()
            .expect("numeric")
    }

    /// A connection that gives up after [`PATIENCE`].
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.socket_addr())
    }

    /// The next line on standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line
    }

    /// Waits for statistics that are as `wanted`; the program was started with `--stats` and `--json`.
    pub(crate) fn wait_for_stats(
        &mut self,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats: serde_json::Value =
                serde_json::from_str(&self.line()).expect("a JSON object");
            assert_eq!(stats["event"], "stats");
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{what}: {stats}");
        }
    }

    /// Waits for a line on standard error that contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(PATIENCE).expect(text);
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args([
                "-c",
                "kill -s \"$1\" \"$2\"",
                "sh",
                name,
                &self.pid().to_string(),
            ])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let child = self.child.take().expect("running");
        let code = exit_code(child);
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).expect("output");
        Ended {
            code,
            stdout,
            stderr: self.stderr.iter().collect(),
        }
    }

    /// Asks it to end and waits for that.
    pub(crate) fn terminate(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }

    /// Resident memory in KiB.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn exit_code(mut child: Child) -> Option<i32> {
    let pid = child.id();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // Nobody waits any more if the test has failed.
        let _ = sender.send(child.wait().expect("a status").code());
    });
    receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("process {pid} does not end"))
}

/// Runs a program that ends by itself.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    finish(
        bev(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts"),
    )
}

/// Collects what a program says, and waits for its end.
pub(crate) fn finish(mut child: Child) -> Ended {
    let stderr = child.stderr.take().map(lines);
    let stdout = child.stdout.take().map(|mut stdout| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).expect("output");
            bytes
        })
    });
    let code = exit_code(child);
    Ended {
        code,
        stdout: stdout
            .map(|stdout| stdout.join().expect("read"))
            .unwrap_or_default(),
        stderr: stderr
            .map(|lines| lines.iter().collect())
            .unwrap_or_default(),
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Bytes that a seed determines.
pub(crate) fn data(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Sends `bytes` and the end from a thread of its own.
pub(crate) fn send_all<S: Write + Send + 'static>(
    mut stream: S,
    bytes: Vec<u8>,
    end: impl FnOnce(&S) + Send + 'static,
) {
    thread::spawn(move || {
        stream.write_all(&bytes).expect("sent");
        end(&stream);
    });
}

/// Reads to the end.
pub(crate) fn receive_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("received");
    bytes
}

/// Says something and waits for the answer.
pub(crate) fn ask(stream: &mut TcpStream, question: &[u8]) {
    stream.write_all(question).expect("sent");
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(answer, question);
}

/// Writes until nothing is taken for `quiet`, at most `limit` bytes; returns how many were.
pub(crate) fn write_until_stalled(stream: &mut TcpStream, quiet: Duration, limit: usize) -> usize {
    stream.set_write_timeout(Some(quiet)).expect("a timeout");
    let piece = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while written < limit {
        match stream.write(&piece) {
            Ok(count) => written += count,
            Err(error) => {
                let stalled = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                assert!(stalled.contains(&error.kind()), "{error}");
                return written;
            }
        }
    }
    written
}
