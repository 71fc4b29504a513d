//! What `bev relay` tells of its clients, to the upstream and to the access log, and what it holds them to.
//!
//! Services are ended by signals, which is why this is for Unix.
#![cfg(unix)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bufferevent_testkit::fault;
use support::files::{Files, address_of, upstream};
use support::{PATIENCE, Service, ask, bev, connect, receive_all};

#[test]
fn the_access_log_says_who_how_long_how_much_and_why() {
    let files = Files::new("");
    files.certify();
    let echo = upstream("");
    let listen = format!(
        "tcp:127.0.0.1:0+tls,cert={},key={}",
        files.text("cert.pem"),
        files.text("key.pem")
    );
    let (log, plain) = (files.text("access"), files.text("plain"));
    let relay = Service::start(&[
        "relay",
        &listen,
        &echo,
        "--access-log",
        &log,
        "--access-format",
        "json",
    ]);
    let to = format!(
        "{}+tls,name=localhost,ca={}",
        relay.address,
        files.text("ca.pem")
    );
    let mut cat = bev(&["cat", &to])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    cat.stdin
        .take()
        .expect("piped")
        .write_all(&[b'x'; 5000])
        .expect("sent");
    let mut back = Vec::new();
    cat.stdout
        .take()
        .expect("piped")
        .read_to_end(&mut back)
        .expect("read");
    assert!(cat.wait().expect("ends").success() && back.len() == 5000);
    let line = files.wait_for_line("access", |_| true);
    let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&json["bytes_up"], &json["bytes_down"]),
        (&5000.into(), &5000.into())
    );
    assert_eq!(
        (&json["end"], &json["upstream"]),
        (&"done".into(), &echo.as_str().into())
    );
    assert!(
        json["client"]
            .as_str()
            .expect("text")
            .starts_with("tcp:127.0.0.1:")
    );
    assert!(json["seconds"].as_f64().expect("a number") < 30.0);
    let layers = &json["client_layers"];
    assert_eq!(
        (&layers[0]["layer"], &layers[1]["layer"]),
        (&"socket".into(), &"tls".into())
    );
    assert_eq!(
        (&layers[1]["read"], &layers[1]["written"]),
        (&5000.into(), &5000.into())
    );
    assert!(
        layers[0]["read"].as_u64().expect("a number") > 5000,
        "ciphertext is more"
    );
    assert_eq!(json["upstream_layers"][0]["written"], 5000);
    // One that speaks no TLS, and one that is cut.
    relay
        .connect()
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("sent");
    files.wait_for_line("access", |line| line.contains("client refused: tls"));
    // The file was moved away: a reload makes a new one.
    std::fs::rename(files.path("access"), files.path("access.1")).expect("moved");
    relay.signal("HUP");
    files.wait_for("access", "the log was not opened anew", |_| true);
    drop(relay);

    let common = ["relay", "tcp:127.0.0.1:0", &echo, "--access-log", &plain];
    let relay =
        Service::start(&[&common[..], &["--drain", "0.1", "--idle-timeout", "0.3"]].concat());
    let mut stream = relay.connect();
    ask(&mut stream, b"12345");
    assert_eq!(receive_all(stream), b"");
    let line = files.wait_for_line("plain", |_| true);
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words[1], "tcp:127.0.0.1:0", "the route: {line}");
    assert_eq!(
        &words[5..9],
        ["5", "5", "client[socket=5/5]", "upstream[socket=5/5]"],
        "{line}"
    );
    assert!(line.ends_with("\"timeout: idle\""), "{line}");
}

#[test]
fn connections_that_are_cut_at_the_end_have_their_bytes_in_the_log() {
    let echo = upstream("");
    let files = Files::new("");
    let log = files.text("access");
    let mut relay = Service::start(&[
        "relay",
        "tcp:127.0.0.1:0",
        &echo,
        "tcp:127.0.0.1:0+proxy",
        &echo,
        "--workers",
        "3",
        "--access-log",
        &log,
        "--drain",
        "0.1",
        "--stats",
        "0.05",
        "--json",
    ]);
    let line: serde_json::Value = serde_json::from_str(&relay.line()).expect("JSON");
    let with_header = address_of(line["address"].as_str().expect("text"));
    let mut clients: Vec<_> = (0..12).map(|_| relay.connect()).collect();
    for client in &mut clients {
        ask(client, b"12345");
    }
    // One whose header never comes is cut too.
    let silent = connect(with_header);
    ask(&mut clients[0], b"in the meantime");
    relay.wait_for_stats("all of them", |stats| stats["active"] == 13);
    let ended = relay.terminate();
    assert_eq!(ended.code, Some(5));
    drop((clients, silent));
    let text = files.read("access");
    let ends = |end: &str| {
        let end = format!("{end} \"cut\"");
        text.lines().filter(|line| line.ends_with(&end)).count()
    };
    let passed = |bytes: &str| {
        let bytes = format!("socket={bytes}/{bytes}");
        ends(&format!("client[{bytes}] upstream[{bytes}]"))
    };
    assert_eq!((passed("5"), passed("20")), (11, 1), "{text}");
    let silent = ends("client[socket=0/0 proxy=0/0] upstream[]");
    assert_eq!((silent, text.lines().count()), (1, 13), "{text}");
}

#[test]
fn the_address_of_the_client_is_passed_on_and_is_believed_only_where_asked_for() {
    for (version, begins) in [
        ("", &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..]),
        (",version=1", b"PROXY TCP4 127.0.0.1 127.0.0.1 "),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let to = format!(
            "tcp:{}+proxy{version}",
            listener.local_addr().expect("an address")
        );
        let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &to]);
        let mut client = relay.connect();
        let (mut server, _) = listener.accept().expect("accepted");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // It comes though the client says nothing: the server may be the one to speak first.
        let mut start = vec![0; begins.len()];
        server.read_exact(&mut start).expect("a header");
        assert_eq!(start, begins);
        let (own, there) = (client.local_addr().expect("own"), relay.socket_addr());
        let rest = if version.is_empty() {
            [
                &[127, 0, 0, 1, 127, 0, 0, 1][..],
                &own.port().to_be_bytes(),
                &there.port().to_be_bytes(),
            ]
            .concat()
        } else {
            format!("{} {}\r\n", own.port(), there.port()).into_bytes()
        };
        client.write_all(b"behind").expect("sent");
        let mut got = vec![0; rest.len() + 6];
        server.read_exact(&mut got).expect("the rest");
        assert_eq!(got, [rest, b"behind".to_vec()].concat());
    }

    // Taken on one side, and sent on on the other.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let plain = format!("tcp:{}", listener.local_addr().expect("an address"));
    let to = format!("{plain}+proxy,version=1");
    let files = Files::new("");
    let log = files.text("access");
    let relay = Service::start(&[
        "relay",
        "tcp:127.0.0.1:0+proxy",
        &to,
        "--access-log",
        &log,
        "--handshake-timeout",
        "0.4",
    ]);
    let mut client = relay.connect();
    client
        .write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhello")
        .expect("sent");
    let (mut server, _) = listener.accept().expect("accepted");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut got = [0; 44 + 5];
    server.read_exact(&mut got).expect("all of it");
    assert_eq!(&got, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhello");
    drop((client, server));
    files.wait_for_line("access", |line| {
        line.contains("tcp:192.0.2.7:4711[via tcp:127.0.0.1:")
    });

    // Without a header, with a wrong one, or with nothing at all in time: no connection upstream.
    listener.set_nonblocking(true).expect("non-blocking");
    for said in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY ",
        b"",
    ] {
        let mut client = relay.connect();
        client.write_all(said).expect("sent");
        let mut rest = Vec::new();
        // Closed or reset: nothing comes either way.
        let _ = client.read_to_end(&mut rest);
        assert_eq!(rest, b"");
        listener.accept().expect_err("nobody was let through");
    }
    // Nor is a header looked for where nobody asked for one.
    listener.set_nonblocking(false).expect("blocking");
    let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &plain]);
    relay
        .connect()
        .write_all(b"PROXY UNKNOWN\r\n")
        .expect("sent");
    let (server, _) = listener.accept().expect("accepted");
    assert_eq!(receive_all(server), b"PROXY UNKNOWN\r\n");
}

#[test]
fn a_silent_client_holds_its_place_no_longer_than_the_deadline() {
    fault!(F50);
    let files = Files::new("");
    files.certify();
    let echo = upstream("");
    let tls = format!(
        "+tls,cert={},key={}",
        files.text("cert.pem"),
        files.text("key.pem")
    );
    for layers in [tls.as_str(), "+proxy"] {
        let listen = format!("tcp:127.0.0.1:0{layers}");
        let common = ["relay", &listen, &echo, "--max-connections", "1"];
        let relay = Service::start(&[&common[..], &["--handshake-timeout", "0.4"]].concat());
        let since = Instant::now();
        let mut silent: Vec<_> = (0..3).map(|_| relay.connect()).collect();
        // One after the other is let in, and cut; a byte now and then does not help.
        for stream in &mut silent {
            let _ = stream.write_all(if layers == "+proxy" { b"P" } else { b"\x16" });
        }
        for stream in silent {
            let mut rest = Vec::new();
            let mut stream = stream;
            let _ = stream.read_to_end(&mut rest);
        }
        assert!(
            since.elapsed() >= Duration::from_millis(1200),
            "{:?}",
            since.elapsed()
        );
        relay.wait_for_log("refused: timeout: handshake");
        assert_eq!(relay.terminate().code, Some(0));
    }
}

#[test]
fn logs_that_nobody_reads_and_disks_that_are_full_hold_up_nobody() {
    fault!(F98);
    let echo = upstream("");
    // Every connection logs several lines, on a standard error that is a full pipe and into an access log that takes nothing.
    let log = if std::path::Path::new("/dev/full").exists() {
        "/dev/full"
    } else {
        "/dev/null"
    };
    let mut command = bev(&[
        "relay",
        "tcp:127.0.0.1:0",
        &echo,
        "--log",
        "trace",
        "--access-log",
        log,
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    let at = address_of(&line);
    // Longer than any pipe.
    for _ in 0..300 {
        ask(&mut connect(at), b"served all the same");
    }
    let status = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
    let since = Instant::now();
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(since.elapsed() < PATIENCE / 2, "{:?}", since.elapsed());
}

#[test]
fn rates_hold_for_each_client_and_for_all_together() {
    let echo = upstream("");
    for (flags, clients) in [(["--rate", "200KiB"], 2), (["--rate-total", "400KiB"], 4)] {
        let common = ["relay", "tcp:127.0.0.1:0", &echo, "--workers", "2"];
        let relay = Service::start(&[&common[..], &flags].concat());
        let since = Instant::now();
        let all: Vec<_> = (0..clients)
            .map(|_| {
                let mut stream = relay.connect();
                let count = 1600 * 1024 / 2 / clients;
                thread::spawn(move || ask(&mut stream, &vec![7; count]))
            })
            .collect();
        for one in all {
            one.join().expect("all came back");
        }
        // Each way has a second's worth at once, and what is above it takes its time.
        assert!(
            since.elapsed() >= Duration::from_millis(900),
            "{flags:?}: {:?}",
            since.elapsed()
        );
    }
}
