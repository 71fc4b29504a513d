//! How a relay ends: SIGTERM stops accepting and waits, its deadline cuts, a second signal ends at once.
#![cfg(unix)]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{BACKENDS, Service, ask};

fn relay_with_client(log: &str, arguments: &[&str]) -> (Service, Service, TcpStream) {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let arguments = [
        &["relay", "tcp:127.0.0.1:0", &echo.address, "--log", log],
        arguments,
    ]
    .concat();
    let relay = Service::start(&arguments);
    let mut client = relay.connect();
    ask(&mut client, b"before");
    (echo, relay, client)
}

#[test]
fn a_signal_lets_connections_end_and_takes_no_new_ones() {
    bufferevent_testkit::fault!(F98);
    for &backend in BACKENDS {
        for signal in ["TERM", "INT"] {
            let (_echo, relay, mut client) =
                relay_with_client("info", &["--drain", "60", "--backend", backend]);
            relay.signal(signal);
            relay.wait_for_log("draining");
            assert!(
                TcpStream::connect(relay.socket_addr()).is_err(),
                "{signal}: still listening"
            );
            ask(&mut client, b"after");
            drop(client);
            let ended = relay.ended();
            assert_eq!(
                (ended.code, ended.stderr),
                (Some(0), vec![]),
                "{signal} on {backend}"
            );
        }
    }
}

#[test]
fn the_deadline_cuts_what_is_left() {
    let (_echo, relay, client) = relay_with_client("info", &["--drain", "0.2"]);
    let since = Instant::now();
    let ended = relay.terminate();
    assert!(
        since.elapsed() >= Duration::from_millis(200),
        "after {:?}",
        since.elapsed()
    );
    assert_eq!(ended.code, Some(5));
    assert_eq!(
        ended.stderr.last().map(String::as_str),
        Some("bev: 1 connection cut")
    );
    drop(client);
}

#[test]
fn a_second_signal_ends_at_once() {
    bufferevent_testkit::fault!(F98);
    let (_echo, relay, client) = relay_with_client("info", &["--drain", "3600"]);
    relay.signal("TERM");
    relay.wait_for_log("draining");
    relay.signal("TERM");
    assert_eq!(relay.ended().code, Some(5));
    drop(client);
}

#[test]
fn without_connections_there_is_nothing_to_wait_for() {
    let (_echo, relay, client) = relay_with_client("debug", &["--drain", "3600"]);
    drop(client);
    relay.wait_for_log("ended");
    assert_eq!(relay.terminate().code, Some(0));
}
