//! Debian's programs on our C interface: `tmux`, `fstrm_capture` and `memcached`, as they were built for libevent, with `LD_LIBRARY_PATH` on
//! our shared objects.
//!
//! # Invariants
//! - That ours was loaded is proved by the process's own map of memory, not supposed.
//! - Every wait is bounded by [`PATIENCE`]. Nothing that was started outlives its check.
//! - Traffic stays in the target directory's sockets and on the loopback.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::workspace;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at something that another process does.
const PAUSE: Duration = Duration::from_millis(10);

/// Programs, and Debian's packages that have them.
const NEEDED: [(&str, &str); 4] = [
    ("tmux", "tmux"),
    ("fstrm_capture", "fstrm-bin"),
    ("fstrm_replay", "fstrm-bin"),
    ("memcached", "memcached"),
];

/// Where the programs run, and our shared objects.
struct Place {
    folder: PathBuf,
    library: PathBuf,
}

/// Runs each program; `prefix` is where the C interface is installed.
pub(crate) fn run(prefix: &Path) -> Result<(), Failure> {
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!(
            "capi: programs are missing: apt-get install {}",
            missing.join(" ")
        )));
    }
    let folder = workspace::target_folder()?.join("capi-programs");
    let _ = fs::remove_dir_all(&folder); // It may not be there.
    fs::create_dir_all(&folder).map_err(Failure::during(folder.display()))?;
    let library = prefix.join("lib");
    let library = fs::canonicalize(&library).map_err(Failure::during(library.display()))?;
    let place = Place { folder, library };
    tmux(&place)?;
    fstrm(&place)?;
    memcached(&place)
}

fn is_there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// A process that goes with its check.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Asks it to end, and waits until it has.
    fn end(mut self, what: &str) -> Result<(), Failure> {
        let pid = self.0.id().to_string();
        workspace::run(Command::new("kill").arg(&pid))?;
        until(what, || Ok(self.0.try_wait().ok().flatten()))?;
        Ok(())
    }
}

impl Place {
    /// A command in the folder, with our library or the system's.
    fn command(&self, program: &str, ours: bool) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        if ours {
            command.env("LD_LIBRARY_PATH", &self.library);
        }
        command
    }

    fn start(&self, command: &mut Command) -> Result<Process, Failure> {
        let child = command.stdout(Stdio::null()).spawn();
        child
            .map(Process)
            .map_err(Failure::during(workspace::shown(command)))
    }

    /// Whether a process has our library mapped, and no other libevent.
    fn check_loaded(&self, what: &str, pid: u32) -> Result<(), Failure> {
        let maps =
            fs::read_to_string(format!("/proc/{pid}/maps")).map_err(Failure::during(what))?;
        let libraries = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .filter(|path| path.contains("libevent"));
        let (ours, others): (Vec<_>, Vec<_>) =
            libraries.partition(|path| Path::new(path).starts_with(&self.library));
        match (ours.is_empty(), others.first()) {
            (false, None) => Ok(()),
            (true, _) => Err(Failure::new(format!("{what}: our library is not loaded"))),
            (false, Some(other)) => Err(Failure::new(format!("{what}: {other} is loaded too"))),
        }
    }
}

/// Looks again until there is something.
fn until<T>(
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err(Failure::new(format!("{what}: it does not come")));
        }
        thread::sleep(PAUSE);
    }
}

/// A server without a terminal: windows, a pane that a program draws in and that is typed into.
fn tmux(place: &Place) -> Result<(), Failure> {
    let tmux = |arguments: &[&str]| -> Result<String, Failure> {
        let mut command = place.command("tmux", true);
        command
            .args(["-S", "tmux.sock", "-f", "/dev/null"])
            .args(arguments);
        workspace::output(&mut command)
    };
    tmux(&[
        "new-session",
        "-d",
        "-s",
        "one",
        "-x",
        "80",
        "-y",
        "24",
        "cat",
    ])?;
    let checked = (|| {
        let pid = tmux(&["display-message", "-p", "#{pid}"])?;
        let pid = pid.trim().parse().map_err(Failure::during("tmux's pid"))?;
        place.check_loaded("tmux", pid)?;
        for number in 1..=5 {
            let drawn = format!("printf 'window {number} of tmux'; exec cat");
            tmux(&["new-window", "-d", "-t", "one", &drawn])?;
        }
        let windows = tmux(&["list-windows", "-t", "one"])?;
        if windows.lines().count() != 6 {
            return Err(Failure::new(format!("tmux: not six windows: {windows}")));
        }
        let shows = |window: &str, text: &str| {
            until(&format!("tmux: {text:?}"), || {
                let pane = tmux(&["capture-pane", "-p", "-t", window])?;
                Ok(pane.contains(text).then_some(()))
            })
        };
        for number in 1..=5 {
            shows(
                &format!("one:{number}"),
                &format!("window {number} of tmux"),
            )?;
        }
        tmux(&["send-keys", "-t", "one:0", "typed by hand", "Enter"])?;
        // Once by the terminal's echo, once by cat.
        shows("one:0", "typed by hand\ntyped by hand")
    })();
    let ended = tmux(&["kill-server"]);
    checked?;
    ended?;
    println!("capi: tmux runs: 6 windows, panes captured");
    Ok(())
}

/// The content type of what is captured.
const CONTENT: &[u8] = b"protobuf:dnstap.Dnstap";
const FRAMES: u32 = 20_000;

/// A file of frames, as `fstrm_replay` reads it.
fn frames() -> Vec<u8> {
    let number = |bytes: &mut Vec<u8>, number: u32| bytes.extend_from_slice(&number.to_be_bytes());
    let (start, stop, content_type) = (2, 3, 1);
    let mut bytes = Vec::new();
    for one in [
        0,
        12 + CONTENT.len() as u32,
        start,
        content_type,
        CONTENT.len() as u32,
    ] {
        number(&mut bytes, one);
    }
    bytes.extend_from_slice(CONTENT);
    for frame in 0..FRAMES {
        let length = 1 + frame.wrapping_mul(2_654_435_761) % 1500;
        number(&mut bytes, length);
        bytes.extend((0..length).map(|at| (at ^ frame) as u8));
    }
    for one in [0, 4, stop] {
        number(&mut bytes, one);
    }
    bytes
}

/// What a capture writes, with our library and with the system's.
fn fstrm(place: &Place) -> Result<(), Failure> {
    let at = |name: &str| place.folder.join(name);
    fs::write(at("sent.fstrm"), frames()).map_err(Failure::during("sent.fstrm"))?;
    let content = String::from_utf8_lossy(CONTENT);
    let mut captured = Vec::new();
    for ours in [true, false] {
        let name = if ours {
            "ours.fstrm"
        } else {
            "libevents.fstrm"
        };
        let _ = fs::remove_file(at("fstrm.sock")); // The first one's.
        let mut capture = place.command("fstrm_capture", ours);
        capture.args(["-t", &content, "-u", "fstrm.sock", "-w", name]);
        let capture = place.start(&mut capture)?;
        until("fstrm_capture listens", || {
            Ok(at("fstrm.sock").exists().then_some(()))
        })?;
        if ours {
            place.check_loaded("fstrm_capture", capture.0.id())?;
        }
        let mut replay = place.command("fstrm_replay", false);
        replay.args(["-t", &content, "-r", "sent.fstrm", "-u", "fstrm.sock"]);
        workspace::output(&mut replay)?;
        capture.end("fstrm_capture ends")?;
        captured.push(fs::read(at(name)).map_err(Failure::during(name))?);
    }
    let frames_end = captured[0].len().saturating_sub(12);
    if captured[0] != captured[1] {
        return Err(Failure::new(
            "fstrm_capture: not what it writes with libevent",
        ));
    }
    if !frames().starts_with(&captured[0][..frames_end]) || captured[0].len() < FRAMES as usize {
        return Err(Failure::new("fstrm_capture: not what was sent"));
    }
    println!(
        "capi: fstrm_capture runs: {} bytes in {FRAMES} frames, as with libevent",
        captured[0].len()
    );
    Ok(())
}

const CLIENTS: usize = 8;
const VALUES: usize = 5_000;

fn value(client: usize, at: usize) -> String {
    let length = (at * 7919 + client) % 4000;
    format!("{client}/{at}/{}", "v".repeat(length))
}

/// A load of sets and gets, by clients that send ahead.
fn memcached(place: &Place) -> Result<(), Failure> {
    let mut command = place.command("memcached", true);
    command
        .args([
            "-l",
            "127.0.0.1",
            "-p",
            "-1",
            "-U",
            "0",
            "-m",
            "256",
            "-t",
            "2",
            "-u",
            "root",
        ])
        .env("MEMCACHED_PORT_FILENAME", "memcached.port");
    let server = place.start(&mut command)?;
    let port: u16 = until("memcached's port", || {
        let text = fs::read_to_string(place.folder.join("memcached.port")).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("TCP INET: "));
        Ok(line.and_then(|port| port.trim().parse().ok()))
    })?;
    place.check_loaded("memcached", server.0.id())?;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| thread::spawn(move || load(client, port)))
        .collect();
    for client in clients {
        let ended = client.join();
        ended.map_err(|_| Failure::new("memcached: a client panicked"))??;
    }
    server.end("memcached ends")?;
    println!(
        "capi: memcached runs: {} sets and gets",
        2 * CLIENTS * VALUES
    );
    Ok(())
}

fn load(client: usize, port: u16) -> Result<(), Failure> {
    let wrong = |what: String| Failure::new(format!("memcached: {what}"));
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(Failure::during("memcached"))?;
    let patience = stream.set_read_timeout(Some(PATIENCE));
    patience.map_err(Failure::during("memcached"))?;
    let mut writer = stream.try_clone().map_err(Failure::during("memcached"))?;
    let sender = thread::spawn(move || {
        for at in 0..VALUES {
            let value = value(client, at);
            let set = format!("set {client}.{at} 0 0 {}\r\n{value}\r\n", value.len());
            writer.write_all(set.as_bytes())?;
            writer.write_all(format!("get {client}.{at}\r\n").as_bytes())?;
        }
        Ok::<(), std::io::Error>(())
    });
    let mut lines = BufReader::new(stream).lines();
    let mut line = || -> Result<String, Failure> {
        let line = lines.next().ok_or_else(|| wrong("it hung up".into()))?;
        line.map_err(Failure::during("memcached"))
    };
    for at in 0..VALUES {
        let expected = value(client, at);
        let head = format!("VALUE {client}.{at} 0 {}", expected.len());
        for expected in ["STORED", &head, &expected, "END"] {
            let line = line()?;
            if line != expected {
                return Err(wrong(format!("{line:?} and not {expected:?}")));
            }
        }
    }
    let sent = sender
        .join()
        .map_err(|_| wrong("a sender panicked".into()))?;
    sent.map_err(Failure::during("memcached"))
}
