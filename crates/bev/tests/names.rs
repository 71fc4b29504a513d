//! Host names in addresses, and who is asked for them.

#![cfg(unix)] // Programs are ended by a signal.

mod support;

use std::io::Write as _;
use std::net::TcpListener;

use support::{BACKENDS, Service, ask, run};

/// A file of names: `text`.
fn table(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

#[test]
fn every_address_of_a_name_is_tried_for_each_connection() {
    // Nobody listens at the first one, where the system has such an address at all.
    let table = table("127.0.0.3 service.example\n127.0.0.1 service.example # there\n");
    let table = table.path().to_str().expect("text");
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let port = echo.socket_addr().port();
    let upstream = format!("tcp:service.example:{port}");
    for &backend in BACKENDS {
        let common = ["--resolver", table, "--backend", backend];
        let relay = ["relay", "tcp:127.0.0.1:0", &upstream];
        let relay = Service::start(&[&relay[..], &common].concat());
        for _ in 0..3 {
            ask(&mut relay.connect(), b"by way of the relay");
        }
        assert_eq!(relay.terminate().code, Some(0), "{backend}");
    }
}

#[test]
fn the_systems_resolver_and_the_dns_know_this_machine() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let upstream = format!("tcp:localhost:{}", echo.socket_addr().port());
    // The DNS resolver knows this name without asking anybody.
    let choices: &[&str] = if cfg!(unix) {
        &["system", "dns"]
    } else {
        &["system"]
    };
    for &backend in BACKENDS {
        for choice in choices {
            let common = ["--resolver", choice, "--backend", backend];
            let relay = ["relay", "tcp:127.0.0.1:0", &upstream];
            let relay = Service::start(&[&relay[..], &common].concat());
            ask(&mut relay.connect(), b"by name");
            assert_eq!(relay.terminate().code, Some(0), "{choice} on {backend}");
        }
    }
}

#[test]
fn a_name_that_nobody_knows_is_told() {
    let table = table("");
    let table = table.path().to_str().expect("text");
    for &backend in BACKENDS {
        let cat = ["cat", "tcp:missing.example:80", "--resolver", table];
        let ended = run(&[&cat[..], &["--backend", backend]].concat());
        assert_eq!(ended.code, Some(3), "{backend}");
        let [line] = &ended.stderr[..] else {
            panic!("{:?}", ended.stderr)
        };
        let reason = "cannot look up `missing.example`: no such host";
        assert!(
            line.contains("cannot connect to tcp:missing.example:80") && line.contains(reason),
            "{line}"
        );
    }
    // A relay goes on, and says it of each connection.
    let relay = Service::start(&[
        "relay",
        "tcp:127.0.0.1:0",
        "tcp:missing.example:80",
        "--resolver",
        table,
    ]);
    drop(relay.connect());
    let line = relay.wait_for_log("cannot look up");
    assert!(line.contains("tcp:missing.example:80"), "{line}");
    drop(relay.terminate());
}

#[test]
fn a_resolver_that_is_none_is_refused() {
    let bad = table("nonsense here\n");
    for (choice, reason) in [
        ("no/such/file", "no/such/file"),
        (
            bad.path().to_str().expect("text"),
            "line 1: `nonsense` is no address",
        ),
        (".", "system, dns, or a file"),
    ] {
        let ended = run(&["cat", "tcp:127.0.0.1:1", "--resolver", choice]);
        assert_eq!(ended.code, Some(2), "{choice}");
        let line = ended.stderr.join(" ");
        assert!(
            line.contains("--resolver") && line.contains(reason),
            "{line}"
        );
    }
}

#[test]
fn a_relay_to_itself_by_name_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr());
    let port = port.expect("a free port").port();
    let here = format!("tcp:127.0.0.1:{port}");
    let ended = run(&["relay", &here, &format!("tcp:localhost:{port}")]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr[0].contains("would relay to itself"),
        "{:?}",
        ended.stderr
    );
}
