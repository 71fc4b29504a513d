//! `bev echo`: what comes back, what is thrown away, and what a client that never reads costs.
//!
//! Services are ended by signals, which is why this is for Unix.
#![cfg(unix)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use support::{BACKENDS, Service, data, receive_all, send_all, write_until_stalled};

#[test]
fn what_goes_in_comes_back_in_order_and_then_the_end() {
    for &backend in BACKENDS {
        let echo = Service::start(&["echo", "listen:tcp:127.0.0.1:0", "--backend", backend]);
        let stream = echo.connect();
        let bytes = data(1, 4 << 20);
        send_all(
            stream.try_clone().expect("a clone"),
            bytes.clone(),
            |stream| {
                stream.shutdown(Shutdown::Write).expect("half-closed");
            },
        );
        assert!(
            receive_all(stream) == bytes,
            "{backend}: other bytes came back"
        );
        let ended = echo.terminate();
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
    }
}

#[test]
fn discarding_answers_nothing_but_the_end() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0", "--discard"]);
    let mut stream = echo.connect();
    stream.write_all(&data(2, 1 << 20)).expect("taken");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(receive_all(stream), b"");
}

#[test]
fn the_bound_port_is_told_as_json_too() {
    let mut echo = support::bev(&["echo", "tcp:[::1]:0", "--json"]);
    let mut child = echo
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(said["event"], "listening");
    let address = said["address"]
        .as_str()
        .expect("text")
        .strip_prefix("tcp:")
        .expect("tcp");
    let mut stream = support::connect(address.parse().expect("numeric"));
    support::ask(&mut stream, b"hello");
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_never_reads_is_not_read_any_more() {
    const LIMIT: usize = 256 << 20;
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let mut stream = echo.connect();
    let written = write_until_stalled(&mut stream, Duration::from_millis(300), LIMIT);
    assert!(written < LIMIT, "all {LIMIT} bytes were taken");
    let resident = echo.resident_kib();
    assert!(
        resident < 16 * 1024 || !bufferevent_testkit::judges_memory(),
        "{resident} KiB for one connection"
    );
    // What was taken is not lost: it comes once the client reads.
    let mut taken = vec![0; written];
    stream.read_exact(&mut taken).expect("all of it");
}

#[test]
fn a_unix_path_is_left_when_the_service_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    let echo = Service::start(&["echo", &format!("unix:{}", path.display())]);
    assert_eq!(echo.address, format!("unix:{}", path.display()));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("connected");
    stream.write_all(b"hello").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(receive_all(stream), b"hello");
    assert_eq!(echo.terminate().code, Some(0));
    assert!(!path.exists());
}
