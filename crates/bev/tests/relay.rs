//! `bev relay`: data both ways, ends, marks and limits.
//!
//! Services are ended by signals, which is why this is for Unix.
#![cfg(unix)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::{BACKENDS, PATIENCE, Service, ask, data, receive_all, send_all};

/// An upstream of the test's own.
fn upstream() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("accepted");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("half-closed");
}

#[test]
fn both_directions_carry_all_bytes_at_once() {
    for &backend in BACKENDS {
        let (listener, address) = upstream();
        let relay = Service::start(&[
            "relay",
            "listen:tcp:127.0.0.1:0",
            &address,
            "--backend",
            backend,
        ]);
        let client = relay.connect();
        let server = accept(&listener);
        let (up, down) = (data(1, 8 << 20), data(2, 9 << 20));
        send_all(client.try_clone().expect("a clone"), up.clone(), half_close);
        send_all(
            server.try_clone().expect("a clone"),
            down.clone(),
            half_close,
        );
        let received = thread::spawn(move || receive_all(server));
        assert!(receive_all(client) == down, "{backend}: downwards");
        assert!(
            received.join().expect("received") == up,
            "{backend}: upwards"
        );
        assert_eq!(relay.terminate().code, Some(0));
    }
}

#[test]
fn an_end_closes_one_direction_and_the_other_goes_on() {
    let (listener, address) = upstream();
    let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &address]);

    // The client ends first.
    let mut client = relay.connect();
    let mut server = accept(&listener);
    client.write_all(b"question").expect("sent");
    half_close(&client);
    let mut question = String::new();
    server.read_to_string(&mut question).expect("received");
    assert_eq!(question, "question");
    server.write_all(&data(3, 1 << 20)).expect("sent");
    drop(server);
    assert!(receive_all(client) == data(3, 1 << 20));

    // The server ends first.
    let mut client = relay.connect();
    let mut server = accept(&listener);
    server.write_all(b"greeting").expect("sent");
    half_close(&server);
    assert_eq!(
        receive_all(client.try_clone().expect("a clone")),
        b"greeting"
    );
    client.write_all(&data(4, 1 << 20)).expect("sent");
    half_close(&client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).expect("received");
    assert!(received == data(4, 1 << 20));
}

#[test]
fn unix_paths_work_on_both_sides() {
    use std::os::unix::net::{UnixListener, UnixStream};
    for &backend in BACKENDS {
        let folder = tempfile::tempdir().expect("a folder");
        let (front, back) = (folder.path().join("front"), folder.path().join("back"));
        let listener = UnixListener::bind(&back).expect("bound");
        let listen = format!("listen:unix:{}", front.display());
        let connect = format!("unix:{}", back.display());
        let relay = Service::start(&["relay", &listen, &connect, "--backend", backend]);
        let client = UnixStream::connect(&front).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        let end = |stream: &UnixStream| stream.shutdown(Shutdown::Write).expect("half-closed");
        send_all(client.try_clone().expect("a clone"), data(5, 4 << 20), end);
        assert!(receive_all(server.try_clone().expect("a clone")) == data(5, 4 << 20));
        send_all(server, data(6, 4 << 20), end);
        assert!(receive_all(client) == data(6, 4 << 20));
        assert_eq!(relay.terminate().code, Some(0));
        assert!(!front.exists(), "the path goes with the listener");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn readers_that_stop_bound_memory_by_the_marks() {
    const CLIENTS: usize = 8;
    const LIMIT: usize = 64 << 20;
    for &backend in BACKENDS {
        let (listener, address) = upstream();
        let relay = Service::start(&[
            "relay",
            "tcp:127.0.0.1:0",
            &address,
            "--buffer",
            "64KiB",
            "--backend",
            backend,
        ]);
        let mut pairs: Vec<_> = (0..CLIENTS)
            .map(|_| (relay.connect(), accept(&listener)))
            .collect();
        let before = relay.resident_kib();
        // One waits until nothing is taken any more; the others have as long.
        let stalled: Vec<_> = pairs
            .iter()
            .map(|(client, _)| {
                let mut client = client.try_clone().expect("a clone");
                thread::spawn(move || {
                    support::write_until_stalled(&mut client, Duration::from_millis(300), LIMIT)
                })
            })
            .collect();
        let written: Vec<_> = stalled
            .into_iter()
            .map(|thread| thread.join().expect("stalled"))
            .collect();
        assert!(
            written.iter().all(|count| *count < LIMIT),
            "{backend}: {written:?}"
        );
        let grown = relay.resident_kib().saturating_sub(before);
        // A mark and one read in each output, and what the blocks of the thread's pool take. On completions also what arrived ahead, which is a
        // turn's ring of blocks at most, and what is under way.
        let lent = if backend == "uring" { 1024 + 256 } else { 0 };
        let allowed = CLIENTS as u64 * (64 + 64 + lent) + 4 * 1024;
        assert!(
            grown < allowed || !bufferevent_testkit::judges_memory(),
            "{backend}: {grown} KiB for {CLIENTS} connections, {allowed} allowed"
        );
        // Reading goes on where it stopped, and not a byte is missing.
        for ((client, server), count) in pairs.drain(..).zip(written) {
            half_close(&client);
            assert_eq!(receive_all(server).len(), count);
        }
    }
}

#[test]
fn at_the_limit_further_connections_wait() {
    for &backend in BACKENDS {
        let (listener, address) = upstream();
        let relay = Service::start(&[
            "relay",
            "tcp:127.0.0.1:0",
            &address,
            "--max-connections",
            "1",
            "--backend",
            backend,
        ]);
        let mut first = relay.connect();
        let mut first_server = accept(&listener);
        let mut second = relay.connect();
        second.write_all(b"second").expect("sent");
        // The loop has had turns since, and took nobody else.
        for _ in 0..10 {
            first.write_all(b"ping").expect("sent");
            let mut ping = [0; 4];
            first_server.read_exact(&mut ping).expect("received");
        }
        listener.set_nonblocking(true).expect("non-blocking");
        let nobody = listener.accept().expect_err("one connection at a time");
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
        listener.set_nonblocking(false).expect("blocking");
        drop((first, first_server));
        let mut server = accept(&listener);
        let mut said = [0; 6];
        server.read_exact(&mut said).expect("received");
        assert_eq!(&said, b"second");
    }
}

#[test]
fn an_idle_connection_is_cut() {
    let (listener, address) = upstream();
    let relay = Service::start(&[
        "relay",
        "tcp:127.0.0.1:0",
        &address,
        "--idle-timeout",
        "0.3",
        "--log",
        "info",
    ]);
    let mut client = relay.connect();
    let mut server = accept(&listener);
    ask_through(&mut client, &mut server);
    let since = Instant::now();
    assert_eq!(receive_all(client), b"");
    assert_eq!(receive_all(server), b"");
    assert!(
        since.elapsed() >= Duration::from_millis(250),
        "after {:?}",
        since.elapsed()
    );
    relay.wait_for_log("cut: timeout: idle");
    assert_eq!(relay.terminate().code, Some(0));
}

fn ask_through(client: &mut TcpStream, server: &mut TcpStream) {
    let mut said = [0; 5];
    client.write_all(b"hello").expect("sent");
    server.read_exact(&mut said).expect("received");
    server.write_all(&said).expect("sent");
    client.read_exact(&mut said).expect("received");
    assert_eq!(&said, b"hello");
}

#[test]
fn a_refused_upstream_closes_the_client_and_says_one_line() {
    for &backend in BACKENDS {
        let (listener, address) = upstream();
        drop(listener);
        let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &address, "--backend", backend]);
        for _ in 0..3 {
            let mut client = relay.connect();
            let mut rest = Vec::new();
            // Closed or reset: nothing comes either way.
            let _ = client.read_to_end(&mut rest);
            assert_eq!(rest, b"");
        }
        let ended = relay.terminate();
        assert_eq!(ended.code, Some(0));
        assert_eq!(ended.stderr.len(), 3, "{:?}", ended.stderr);
        let expected = format!("cannot connect to {address}");
        assert!(
            ended.stderr.iter().all(|line| line.contains(&expected)),
            "{:?}",
            ended.stderr
        );
    }
}

#[test]
fn a_missing_path_is_unreachable_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("unix:{}", folder.path().join("nobody").display());
    let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &address]);
    let mut rest = Vec::new();
    let _ = relay.connect().read_to_end(&mut rest);
    assert!(relay.wait_for_log("cannot connect").contains(&address));
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn what_a_broken_side_has_sent_is_still_delivered() {
    let (listener, address) = upstream();
    let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &address, "--log", "info"]);
    let mut client = relay.connect();
    let mut server = accept(&listener);
    ask_through(&mut client, &mut server);
    // Unread bytes make the close a reset.
    server.write_all(b"never read").expect("sent");
    client.peek(&mut [0; 1]).expect("it has come");
    client.write_all(b"last words").expect("sent");
    let mut words = [0; 10];
    server.read_exact(&mut words).expect("delivered");
    drop(client);
    assert_eq!(receive_all(server), b"");
    relay.wait_for_log("broken");
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn statistics_come_as_json() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let mut relay = Service::start(&["relay", "tcp:127.0.0.1:0", &echo.address, "--stats", "0.05"]);
    let mut client = relay.connect();
    ask(&mut client, &data(7, 1000));
    let line = relay.line();
    assert!(line.contains("active") && line.contains("/s"), "{line}");
    drop(relay);

    let mut relay = support::bev(&[
        "relay",
        "tcp:127.0.0.1:0",
        &echo.address,
        "--stats",
        "0.05",
        "--json",
    ]);
    let mut child = relay
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let mut next = || -> serde_json::Value {
        serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
    };
    let listening = next();
    let address = listening["address"]
        .as_str()
        .expect("text")
        .strip_prefix("tcp:")
        .expect("tcp")
        .to_string();
    let mut client = support::connect(address.parse().expect("numeric"));
    ask(&mut client, &data(8, 1000));
    let stats = loop {
        let stats = next();
        assert_eq!(stats["event"], "stats");
        if stats["bytes_down"] == 1000 {
            break stats;
        }
    };
    assert_eq!(
        (&stats["bytes_up"], &stats["active"]),
        (&1000.into(), &1.into())
    );
    child.kill().expect("killed");
    child.wait().expect("reaped");
}
