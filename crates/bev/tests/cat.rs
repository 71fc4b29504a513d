//! `bev cat`: standard input and output joined to a connection.

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::process::Stdio;
#[cfg(target_os = "linux")]
use std::thread;
#[cfg(target_os = "linux")]
use std::time::Duration;

use support::{BACKENDS, Service, bev, data, finish, receive_all, send_all};

#[test]
fn a_file_goes_through_and_comes_back() {
    for &backend in BACKENDS {
        let echo = Service::start(&["echo", "tcp:127.0.0.1:0", "--backend", backend]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("input");
        std::fs::write(&path, data(1, 4 << 20)).expect("written");
        let cat = bev(&["cat", &echo.address, "--backend", backend])
            .stdin(File::open(&path).expect("opened"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let ended = finish(cat);
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
        assert!(
            ended.stdout == data(1, 4 << 20),
            "{backend}: other bytes came back"
        );
    }
}

#[test]
fn a_name_leads_to_its_addresses() {
    // Nobody listens at the first one, where the system has such an address at all.
    let folder = tempfile::tempdir().expect("a folder");
    let table = folder.path().join("names");
    let names = "127.0.0.3 service.example\n127.0.0.1 service.example # there\n";
    std::fs::write(&table, names).expect("written");
    let table = table.to_str().expect("text");
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let address = format!("tcp:service.example:{}", echo.socket_addr().port());
    for &backend in BACKENDS {
        let common = ["--resolver", table, "--backend", backend];
        let mut cat = bev(&[&["cat", &address][..], &common].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = cat.stdin.take().expect("piped");
        stdin.write_all(b"hello").expect("sent");
        drop(stdin);
        let ended = finish(cat);
        assert_eq!((ended.code, &ended.stderr), (Some(0), &vec![]), "{backend}");
        assert_eq!(ended.stdout, b"hello", "{backend}");
    }
}

#[test]
fn a_pipe_goes_through_and_comes_back() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let mut cat = bev(&["cat", &echo.address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = cat.stdin.take().expect("piped");
    let mut stdout = cat.stdout.take().expect("piped");
    // One round trip while the input stays open: nothing waits for a full buffer.
    stdin.write_all(b"hello\n").expect("sent");
    let mut hello = [0; 6];
    stdout.read_exact(&mut hello).expect("answered");
    assert_eq!(&hello, b"hello\n");
    send_all(stdin, data(2, 4 << 20), |_| ());
    assert!(receive_all(stdout) == data(2, 4 << 20));
    assert_eq!(finish(cat).code, Some(0));
}

#[test]
fn it_waits_for_the_peers_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    let cat = bev(&["cat", &address])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let (mut server, _) = listener.accept().expect("accepted");
    // Standard input has ended: so has the connection's half.
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).expect("ended");
    assert_eq!(rest, b"");
    server.write_all(b"a late answer").expect("sent");
    drop(server);
    let ended = finish(cat);
    assert_eq!(
        (ended.code, ended.stdout.as_slice()),
        (Some(0), &b"a late answer"[..])
    );
}

#[test]
fn the_peers_end_does_not_stop_what_is_still_to_be_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    let mut cat = bev(&["cat", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let (server, _) = listener.accept().expect("accepted");
    server.shutdown(Shutdown::Write).expect("half-closed");
    let stdin = cat.stdin.take().expect("piped");
    send_all(stdin, data(3, 1 << 20), |_| ());
    assert!(receive_all(server) == data(3, 1 << 20));
    assert_eq!(finish(cat).code, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_slow_standard_output_bounds_memory_and_loses_nothing() {
    const LIMIT: usize = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    let mut cat = bev(&["cat", &address])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let (mut server, _) = listener.accept().expect("accepted");
    let written = support::write_until_stalled(&mut server, Duration::from_millis(300), LIMIT);
    assert!(written < LIMIT, "all {LIMIT} bytes were taken");
    let status = std::fs::read_to_string(format!("/proc/{}/status", cat.id())).expect("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    let resident: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    assert!(
        resident < 16 * 1024 || !bufferevent_testkit::judges_memory(),
        "{resident} KiB"
    );
    drop(server);
    let stdout = cat.stdout.take().expect("piped");
    let reader = thread::spawn(move || receive_all(stdout).len());
    assert_eq!(reader.join().expect("read"), written);
    assert_eq!(finish(cat).code, Some(0));
}

#[test]
fn a_closed_standard_output_is_an_error_and_not_a_signal() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    let mut cat = bev(&["cat", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(cat.stdout.take());
    let (mut server, _) = listener.accept().expect("accepted");
    server.write_all(b"nobody reads this").expect("sent");
    let ended = finish(cat);
    assert_eq!(ended.code, Some(1), "{:?}", ended.stderr);
    assert_eq!(ended.stderr.len(), 1, "{:?}", ended.stderr);
    assert!(
        ended.stderr[0].starts_with("bev: cannot write standard output: "),
        "{:?}",
        ended.stderr
    );
}

#[test]
#[cfg(unix)]
fn a_standard_input_that_cannot_be_read_is_an_error() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let folder = tempfile::tempdir().expect("a folder");
    let cat = bev(&["cat", &echo.address])
        .stdin(File::open(folder.path()).expect("opened"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let ended = finish(cat);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr.len(), 1, "{:?}", ended.stderr);
    assert!(
        ended.stderr[0].starts_with("bev: cannot read standard input: "),
        "{:?}",
        ended.stderr
    );
}
