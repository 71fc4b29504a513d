//! The crowd itself, where there is `/proc`.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bufferevent_testkit::fault;

use crate::support::{PATIENCE, Service, connect};

/// Clients of a crowd, unless the environment says otherwise.
const CROWD: usize = 300;

/// Clients that are served.
const SERVED: usize = 100;

/// Answers that each of them gets.
const ROUNDS: usize = 10;

/// What a direction of a connection may have waiting, in KiB.
const BUFFER_KIB: usize = 16;

/// What one who reads nothing may cost, in KiB: the buffer, one read, and what two sockets and a session cost.
const SLOW_KIB: usize = BUFFER_KIB + 64 + 4;

/// What one who sends a byte now and then may cost, in KiB: two sockets and a session.
const DRIBBLE_KIB: usize = 4;

/// What the program may grow by whoever comes, in KiB: pools of blocks, tables.
const SLACK_KIB: usize = 8 * 1024;

/// A child in one of the roles of [`child`].
struct Other {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Other {
    fn start(arguments: &[&str]) -> Self {
        let me = std::env::current_exe().expect("a path");
        let mut child = unlimited(me.to_str().expect("text"), arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that may have as many descriptors as the system allows.
fn unlimited(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n $(ulimit -Hn); exec \"$@\"", "sh", program])
        .args(arguments);
    command
}

/// What is said to this child: a line, and the end.
fn orders() -> Receiver<()> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    orders
}

fn child(role: &str, argument: &str, count: usize) {
    let orders = orders();
    let join = |at: &str| -> Vec<TcpStream> {
        let streams = (0..count).map(|_| TcpStream::connect(at).expect("it listens"));
        streams.collect()
    };
    match role {
        // Connects, and reads nothing.
        "slow" => {
            let streams = join(argument);
            println!("connected");
            while orders.recv().is_ok() {}
            drop(streams);
        }
        // Connects, and sends a byte now and then.
        "dribble" => {
            let mut streams = join(argument);
            println!("connected");
            while goes_on(&orders, Duration::from_millis(200)) {
                for stream in &mut streams {
                    stream.write_all(b"d").expect("it is there");
                }
            }
        }
        // Listens, and sends each client as much as it takes.
        _ => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            // With the 128 of the standard library the system forgets some of so many, and whoever connected and says nothing never learns.
            rustix::net::listen(&listener, 4096).expect("it listens");
            println!("{}", listener.local_addr().expect("an address"));
            let mut streams = Vec::new();
            for stream in listener.incoming().take(count) {
                let stream = stream.expect("accepted");
                stream.set_nonblocking(true).expect("non-blocking");
                streams.push(stream);
            }
            println!("accepted");
            let bytes = vec![9; 64 * 1024];
            while goes_on(&orders, Duration::from_millis(20)) {
                for stream in &mut streams {
                    match stream.write(&bytes) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }
}

/// Lets so much time pass, unless it is over: then `false`, at once.
fn goes_on(orders: &Receiver<()>, pause: Duration) -> bool {
    orders.recv_timeout(pause) != Err(RecvTimeoutError::Disconnected)
}

/// The times of answers.
struct Times(Vec<Duration>);

impl Times {
    /// Has each of `served` ask in turn.
    fn of(served: &mut [TcpStream]) -> Self {
        let mut times = Vec::with_capacity(served.len() * ROUNDS);
        for _ in 0..ROUNDS {
            for stream in &mut *served {
                let since = Instant::now();
                let mut answer = [0; 64];
                stream.write_all(&[7; 64]).expect("sent");
                stream.read_exact(&mut answer).expect("answered");
                times.push(since.elapsed());
            }
        }
        times.sort_unstable();
        Self(times)
    }

    fn part(&self, of_100: usize) -> Duration {
        self.0[(self.0.len() * of_100 / 100).min(self.0.len() - 1)]
    }

    fn told(&self) -> String {
        let (half, most) = (self.part(50), self.part(99));
        format!("half within {half:.0?}, 99 of 100 within {most:.0?}")
    }
}

/// Processor time of a process, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, numbers) = stat.rsplit_once(')').expect("a name in brackets");
    let number = |nth: usize| -> u64 {
        let word = numbers.split_whitespace().nth(nth);
        word.and_then(|word| word.parse().ok()).expect("a number")
    };
    number(11) + number(12)
}

/// Holds what the relay has grown by against what it may.
fn judge_memory(what: &str, before: u64, now: u64, count: usize, each_kib: usize) {
    let grown = usize::try_from(now.saturating_sub(before)).expect("fits");
    let allowed = count * each_kib + SLACK_KIB;
    println!("{what}: {grown} KiB for {count} clients, {allowed} KiB allowed");
    assert!(grown <= allowed, "{what}: {grown} of {allowed} KiB");
}

/// While a crowd is there answers may take a little longer. On a machine that does other things, nobody can say how much.
fn judge_times(what: &str, before: &Times, now: &Times) {
    println!("{what}: {}", now.told());
    if std::env::var_os("BEV_CROWD_JUDGE").is_some() {
        let allowed = 3 * before.part(99) + Duration::from_millis(2);
        assert!(
            now.part(99) <= allowed,
            "{what}: {:?} of {allowed:?}",
            now.part(99)
        );
    }
}

fn relay(routes: &[&str]) -> Service {
    let buffer = format!("{BUFFER_KIB}KiB");
    let options = ["--buffer", &buffer, "--stats", "0.2", "--json"];
    let arguments = [&["relay"], routes, &options[..]].concat();
    Service::start_command(unlimited(env!("CARGO_BIN_EXE_bev"), &arguments))
}

fn next_address(relay: &mut Service) -> SocketAddr {
    let line: serde_json::Value = serde_json::from_str(&relay.line()).expect("JSON");
    let text = line["address"]
        .as_str()
        .and_then(|text| text.strip_prefix("tcp:"));
    text.expect("TCP").parse().expect("numeric")
}

fn check(count: usize) {
    let echo = Service::start_command(unlimited(
        env!("CARGO_BIN_EXE_bev"),
        &["echo", "tcp:127.0.0.1:0"],
    ));
    let mut pours = Other::start(&["--child", "pour", "-", &count.to_string()]);
    let pouring = format!("tcp:{}", pours.line());
    let any = "tcp:127.0.0.1:0";
    let mut relay = relay(&[any, &echo.address, any, &pouring]);
    let poured = next_address(&mut relay);
    let mut served: Vec<_> = (0..SERVED).map(|_| connect(relay.socket_addr())).collect();
    drop(Times::of(&mut served));
    let alone = Times::of(&mut served);
    println!("alone: {}", alone.told());
    let before = relay.resident_kib();
    {
        fault!(F92);
        let at = relay.socket_addr().to_string();
        let mut dribbling = Other::start(&["--child", "dribble", &at, &count.to_string()]);
        assert_eq!(dribbling.line(), "connected");
        let stats = relay.wait_for_stats("all of them", |stats| stats["active"] == count + SERVED);
        let up = stats["bytes_up"].as_u64().expect("a number");
        let all = up + 5 * count as u64;
        relay.wait_for_stats("five bytes of each", |stats| {
            stats["bytes_up"].as_u64().is_some_and(|up| up >= all)
        });
        judge_memory(
            "dribblers",
            before,
            relay.resident_kib(),
            count,
            DRIBBLE_KIB,
        );
        judge_times("beside dribblers", &alone, &Times::of(&mut served));
    }
    relay.wait_for_stats("the dribblers are gone", |stats| stats["active"] == SERVED);
    let before = relay.resident_kib();
    {
        fault!(F91);
        let at = poured.to_string();
        let mut slow = Other::start(&["--child", "slow", &at, &count.to_string()]);
        assert_eq!(
            (slow.line(), pours.line()),
            ("connected".into(), "accepted".into())
        );
        // Until nothing moves any more: all stand against their marks.
        let (mut still, mut passed) = (0, serde_json::Value::Null);
        let deadline = Instant::now() + 2 * PATIENCE;
        while still < 5 {
            let stats =
                relay.wait_for_stats("all of them", |stats| stats["active"] == count + SERVED);
            still = if stats["bytes_down"] == passed {
                still + 1
            } else {
                0
            };
            passed = stats["bytes_down"].clone();
            assert!(Instant::now() < deadline, "it goes on and on: {stats}");
        }
        judge_memory(
            "slow readers",
            before,
            relay.resident_kib(),
            count,
            SLOW_KIB,
        );
        // What the kernel still had to move may take a moment; what spins never rests.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spent = ticks(relay.pid());
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(1) {
                relay.wait_for_stats("a further line", |_| true);
            }
            let spent = ticks(relay.pid()) - spent;
            if spent <= 1 {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{spent} hundredths of a second while nothing moves"
            );
        }
        judge_times("beside slow readers", &alone, &Times::of(&mut served));
    }
    drop(pours);
    relay.wait_for_stats("the slow are gone", |stats| stats["active"] == SERVED);
    drop(served);
    assert_eq!(relay.terminate().code, Some(0));
}

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, role, argument, count] = &arguments[..]
        && flag == "--child"
    {
        child(role, argument, count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("crowd: test");
        return ExitCode::SUCCESS;
    }
    let count = std::env::var("BEV_CROWD").ok();
    let count = count.map_or(CROWD, |count| count.parse().expect("a number"));
    check(count);
    println!("test crowd ... ok");
    ExitCode::SUCCESS
}
