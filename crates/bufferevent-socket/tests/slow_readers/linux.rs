//! Thousands of peers that ask for much and read nothing, against a budget of memory.
//!
//! The peers are a child of this program: each side has its own descriptors. The number is moderate by default, so that it
//! fits the usual limits; `SLOW_READERS=9000` is the number of the fault.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, Handler, Pressure, READ, WRITE};
use bufferevent_socket::Listener;
use bufferevent_testkit::{fault, record};
use evreactor::EventLoop;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Peers, unless the environment says otherwise.
const PEERS: usize = 9000;

/// What each bufferevent may queue, in bytes.
const MARK: usize = 16 * 1024;

/// What the process may grow by for each peer: its mark, a block of slack, and what a connection costs.
const BUDGET: usize = MARK + 16 * 1024;

/// Writes as much as there is room for, for ever.
struct Pours(Arc<AtomicUsize>);

impl Pours {
    fn pour(&self, bev: &Bev) {
        while bev.room() >= 1024 {
            if bev.write(&[9; 1024]).is_err() {
                return;
            }
        }
    }
}

impl Handler for Pours {
    fn on_write(&mut self, bev: &Bev) {
        self.pour(bev);
    }
    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        match pressure {
            Pressure::Full => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Pressure::Eased => self.pour(bev),
        }
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the maximum is allowed");
}

/// The peers: connect, read nothing, and when told to, read a little from each.
fn child(address: &str, count: usize) {
    raise_limit();
    let mut peers: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(address).expect("it listens"))
        .collect();
    println!("connected");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("the parent is there");
    let mut bytes = vec![0; 4096];
    for peer in &mut peers {
        peer.read_exact(&mut bytes).expect("there is much to read");
        assert!(bytes.iter().all(|byte| *byte == 9));
    }
    println!("read");
    std::io::stdin()
        .read_line(&mut line)
        .expect("the parent is there");
}

fn check(backend: &str, count: usize) {
    fault!(F91);
    raise_limit();
    let events = EventLoop::builder().backend(backend).build().unwrap();
    let full = Arc::new(AtomicUsize::new(0));
    let counted = full.clone();
    let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
        bev.set_handler(Pours(counted.clone()))?;
        bev.set_write_watermark(0, MARK)?;
        bev.enable(READ | WRITE)
    })
    .unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let before = resident();
    let me = std::env::current_exe().unwrap();
    let mut peers = Command::new(me)
        .args(["--child", &address, &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(peers.stdout.take().unwrap());
    let hear = events.clone();
    let hearing = std::thread::spawn(move || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "connected\n");
        hear.exit();
        said
    });
    events.run().unwrap();
    let mut said = hearing.join().unwrap();
    // All of them stand against their mark.
    let start = Instant::now();
    while full.load(Ordering::Relaxed) < count {
        events.poll().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{full:?} of {count} are full"
        );
    }
    let grown = resident().saturating_sub(before);
    assert!(
        grown <= count * BUDGET || !bufferevent_testkit::judges_memory(),
        "{} bytes for each of {count}",
        grown / count
    );
    // Nothing turns while nobody reads.
    let turns = events.stats().turns;
    events.exit_after(Duration::from_millis(300)).unwrap();
    events.run().unwrap();
    assert!(
        events.stats().turns - turns < 20,
        "{} turns for nothing",
        events.stats().turns - turns
    );
    // And everyone is served who begins to read.
    let mut tell = peers.stdin.take().unwrap();
    tell.write_all(b"read\n").unwrap();
    let stop = events.clone();
    let hearing = std::thread::spawn(move || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "read\n");
        stop.exit();
    });
    events.run().unwrap();
    hearing.join().unwrap();
    drop(tell);
    assert!(peers.wait().unwrap().success());
    println!(
        "{backend}: {} bytes for each of {count} slow readers",
        grown / count
    );
}

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, address, count] = &arguments[..]
        && flag == "--child"
    {
        child(address, count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("slow_readers: test");
        return ExitCode::SUCCESS;
    }
    let count = std::env::var("SLOW_READERS")
        .ok()
        .and_then(|count| count.parse().ok());
    for backend in ["mio", "polling"] {
        record::within("tcp", backend, || check(backend, count.unwrap_or(PEERS)));
    }
    println!("test slow_readers ... ok");
    ExitCode::SUCCESS
}
