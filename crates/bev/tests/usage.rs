//! What is wrong on the command line, or with an address: an exit code, and one line that says why.

mod support;

use std::net::TcpListener;

use bufferevent_testkit::fault;

use support::{Ended, run};

/// The program ended with `code`, nothing on standard output, and one line that contains `reason`.
fn assert_refused(arguments: &[&str], code: i32, reason: &str) {
    let Ended {
        code: found,
        stdout,
        stderr,
    } = run(arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {stderr:?}");
    assert_eq!(stdout, b"", "{arguments:?}");
    assert_eq!(stderr.len(), 1, "{arguments:?}: {stderr:?}");
    assert!(
        stderr[0].starts_with("bev: ") && stderr[0].contains(reason),
        "{arguments:?}: {stderr:?}"
    );
}

#[test]
fn wrong_flags_and_arguments() {
    fault!(F97);
    for (arguments, reason) in [
        (&[][..], "a command is missing"),
        (&["frobnicate"], "'frobnicate'"),
        (&["relay"], "expected LISTEN CONNECT"),
        (&["relay", "tcp:127.0.0.1:0"], "expected LISTEN CONNECT"),
        (&["echo", "tcp:127.0.0.1:0", "--nonsense"], "'--nonsense'"),
        (
            &["echo", "tcp:127.0.0.1:0", "--discard", "--discard"],
            "'--discard'",
        ),
        (&["echo", "tcp:127.0.0.1:0", "--buffer", "12"], "4KiB"),
        (&["echo", "tcp:127.0.0.1:0", "--buffer", "x"], "`x`"),
        (&["echo", "tcp:127.0.0.1:0", "--buffer"], "--buffer"),
        (
            &["echo", "tcp:127.0.0.1:0", "--backend", "kpoll"],
            if cfg!(unix) {
                "mio, polling"
            } else {
                "polling, iocp"
            },
        ),
        (&["echo", "tcp:127.0.0.1:0", "--log", "bev=loud"], "--log"),
        (
            &[
                "relay",
                "tcp:127.0.0.1:0",
                "tcp:127.0.0.1:1",
                "--max-connections",
                "0",
            ],
            "'0'",
        ),
        (
            &[
                "relay",
                "tcp:127.0.0.1:0",
                "tcp:127.0.0.1:1",
                "--idle-timeout",
                "-1",
            ],
            "'-1'",
        ),
        (
            &[
                "relay",
                "tcp:127.0.0.1:0",
                "tcp:127.0.0.1:1",
                "--drain",
                "soon",
            ],
            "'soon'",
        ),
        (
            &[
                "relay",
                "tcp:127.0.0.1:0",
                "tcp:127.0.0.1:1",
                "--workers",
                "some",
            ],
            "expected auto",
        ),
        (&["demo", "--bytes", "many"], "'many'"),
    ] {
        assert_refused(arguments, 2, reason);
    }
}

#[test]
fn wrong_addresses() {
    fault!(F97);
    for (address, reason) in [
        ("7000", "expected tcp:"),
        ("tcp:127.0.0.1", "the port is missing"),
        ("tcp:127.0.0.1:99999", "`99999` is no port"),
        ("tcp:::1:80", "brackets"),
        ("udp:127.0.0.1:7000", "`udp:`"),
        (
            "tcp:127.0.0.1:7000+tls,cert=c.pem,key=k.pem",
            "cannot read c.pem",
        ),
        ("unix:", "the path is missing"),
    ] {
        assert_refused(&["echo", address], 2, reason);
    }
    assert_refused(&["cat", "tcp:127.0.0.1:0"], 2, "port 0");
    assert_refused(&["cat", "listen:tcp:127.0.0.1:7000"], 2, "`listen:`");
    #[cfg(unix)]
    assert_refused(
        &["echo", &format!("unix:/{}", "x".repeat(200))],
        2,
        "too long",
    );
}

#[test]
fn a_relay_to_itself_is_refused() {
    fault!(F97);
    for (listen, connect) in [
        ("tcp:127.0.0.1:7000", "tcp:127.0.0.1:7000"),
        ("tcp:0.0.0.0:7000", "tcp:127.0.0.1:7000"),
        ("unix:/nowhere/x", "unix:/nowhere/x"),
    ] {
        assert_refused(&["relay", listen, connect], 2, "to itself");
    }
}

#[test]
fn a_port_in_use() {
    fault!(F97);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    assert_refused(
        &["echo", &address],
        3,
        &format!("cannot listen on {address}"),
    );
    assert_refused(
        &["relay", &address, "tcp:127.0.0.1:1"],
        3,
        &format!("cannot listen on {address}"),
    );
}

#[test]
fn nobody_to_connect_to() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    drop(listener);
    assert_refused(
        &["cat", &address],
        3,
        &format!("cannot connect to {address}"),
    );
}

#[test]
#[cfg(unix)]
fn paths_that_cannot_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = format!("unix:{}/no/such/folder/x.sock", folder.path().display());
    assert_refused(&["echo", &missing], 3, "cannot listen on");
    assert_refused(&["cat", &missing], 3, "cannot connect to");

    let file = folder.path().join("file");
    std::fs::write(&file, b"precious").expect("written");
    let address = format!("unix:{}", file.display());
    assert_refused(&["echo", &address], 3, "cannot listen on");
    assert_eq!(std::fs::read(&file).expect("still there"), b"precious");
}

#[test]
#[cfg(unix)]
fn a_path_that_nobody_listens_on_any_more_is_taken_over() {
    use std::os::unix::net::UnixListener;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.sock");
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "left behind");
    let address = format!("unix:{}", path.display());
    let echo = support::Service::start(&["echo", &address]);
    // And one that somebody listens on is not.
    assert_refused(&["echo", &address], 3, "cannot listen on");
    assert_eq!(echo.terminate().code, Some(0));
}

#[test]
fn help_and_version_are_no_failures() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr), (Some(0), vec![]));
    let text = String::from_utf8(help.stdout).expect("text");
    for code in 0..=5 {
        assert!(
            text.contains(&format!("\n  {code}  ")),
            "exit code {code} is not in the help"
        );
    }
    assert_eq!(run(&["--version"]).code, Some(0));
    for command in ["relay", "cat", "echo", "demo", "cert"] {
        assert_eq!(run(&[command, "--help"]).code, Some(0), "{command}");
    }
}
