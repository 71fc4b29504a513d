//! `bev relay` as a service: routes from a file, reloads, a service manager, logs that nobody reads.
//!
//! Services are ended by signals, which is why this is for Unix.
#![cfg(unix)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bufferevent_testkit::fault;
use support::files::{Files, address_of, hear, upstream};
use support::{PATIENCE, Service, ask, connect, run};

/// Two ports that nobody had a moment ago.
fn free_ports() -> [u16; 2] {
    let sockets = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").expect("bound"));
    sockets.map(|socket| socket.local_addr().expect("an address").port())
}

#[test]
fn several_routes_come_from_the_command_line_or_from_a_file() {
    let (one, two) = (upstream("one"), upstream("two"));
    let file = Files::new(&format!(
        "workers = 2\n\
         [defaults]\nbuffer = \"64KiB\"\nidle-timeout = 30\n\
         [[route]]\nname = \"first\"\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"{one}\"\n\
         [[route]]\nname = \"second\"\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"{two}\"\n\
         buffer = 8192\nidle-timeout = 0.5\nmax-connections = 1\n"
    ));
    let any = "tcp:127.0.0.1:0";
    let line = ["relay", any, &one, any, &two, "--workers", "2"];
    for (mut relay, from_file) in [
        (Service::start(&line), false),
        (file.start(&["--stats", "0.05", "--json"]), true),
    ] {
        let second = relay.line();
        let second = match serde_json::from_str::<serde_json::Value>(&second) {
            Ok(line) => address_of(line["address"].as_str().expect("text")),
            Err(_) => address_of(&second),
        };
        for _ in 0..3 {
            let mut stream = relay.connect();
            hear(&mut stream, "one");
            ask(&mut stream, b"question");
        }
        let mut stream = connect(second);
        hear(&mut stream, "two");
        ask(&mut stream, b"question");
        if from_file {
            // Its own limits: one connection, and half a second.
            let since = Instant::now();
            let mut waits = connect(second);
            hear(&mut waits, "two");
            assert!(since.elapsed() >= Duration::from_millis(400));
            drop(waits);
            let stats = relay.wait_for_stats("both routes", |stats| {
                stats["routes"][0]["accepted"] == 3 && stats["routes"][1]["accepted"] == 2
            });
            assert_eq!(stats["routes"][1]["route"], "second");
            assert_eq!(stats["accepted"], 5);
            let workers = stats["workers"].as_array().expect("a list").len();
            assert_eq!(workers, 2);
        }
        drop(stream);
        let ended = relay.terminate();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_the_place_and_the_reason() {
    fault!(F97);
    let route = "[[route]]\nname = \"web\"\nlisten = \"tcp:127.0.0.1:7000\"\n";
    let whole = format!("{route}connect = \"tcp:127.0.0.1:1\"\n");
    for (text, reason) in [
        ("drain = \n".to_string(), "line 1: "),
        ("\n\nnonsense = 1\n".into(), "line 3: unknown field `nonsense`"),
        ("drain = -1\n".into(), "expected more than 0 seconds"),
        ("drain = [1]\n".into(), "not a value of type array"),
        ("workers = 5000\n".into(), "expected auto"),
        ("max-connections = 0\n".into(), "nonzero"),
        ("[defaults]\nidle-timeout = \"soon\"\n".into(), "expected seconds"),
        ("[defaults]\nlisten = \"x\"\n".into(), "unknown field `listen`"),
        ("route = 1\n".into(), "line 1"),
        (String::new(), "there is no route"),
        (route.into(), "route 1 (`web`): `connect` is missing"),
        (format!("{route}connect = 7\n"), "route 1: connect: expected a text"),
        (format!("{route}connect = \"7\"\n"), "route 1 (`web`): connect: expected tcp:"),
        (format!("{whole}conect = \"x\"\n"), "route 1 (`web`): unknown field `conect`"),
        (format!("{whole}max-connection = 1\n"), "`connect`, `max-connections`"),
        (format!("{whole}rate = \"many\"\n"), "route 1 (`web`): rate: "),
        (format!("{whole}idle-timeout = 0\n"), "route 1 (`web`): idle-timeout: "),
        (format!("{whole}buffer = 1\n"), "route 1 (`web`): buffer: a buffer has from 4KiB"),
        (format!("{whole}{whole}"), "two routes"),
        (
            format!("{whole}[[route]]\nlisten = \"tcp:127.0.0.1:7000+zlib\"\nconnect = \"tcp:127.0.0.1:1\"\n"),
            "two routes listen on tcp:127.0.0.1:7000",
        ),
        (
            "[[route]]\nlisten = \"tcp:127.0.0.1:7000+tls,cert=/none.pem,key=/none.pem\"\nconnect = \"tcp:127.0.0.1:1\"\n".into(),
            "cannot read /none.pem",
        ),
        (
            "[[route]]\nlisten = \"fd:web\"\nconnect = \"tcp:127.0.0.1:1\"\n".into(),
            "no fd:web was handed over; there is no socket",
        ),
        (
            "[[route]]\nname = \"a b\"\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"tcp:127.0.0.1:1\"\n".into(),
            "is no name",
        ),
    ] {
        if cfg!(not(target_os = "linux")) && text.contains("fd:web") {
            continue;
        }
        let files = Files::new(&text);
        let ended = run(&["relay", "--config", &files.text("bev.toml")]);
        assert_eq!(ended.code, Some(2), "{text}: {:?}", ended.stderr);
        assert_eq!(ended.stderr.len(), 1, "{text}: {:?}", ended.stderr);
        assert!(ended.stderr[0].contains(reason), "{text}: {:?}", ended.stderr);
    }
    let missing = run(&["relay", "--config", "/no/such/file"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr[0].contains("cannot read /no/such/file"));
    let both = run(&[
        "relay",
        "tcp:127.0.0.1:0",
        "tcp:127.0.0.1:1",
        "--config",
        "x",
    ]);
    assert!(
        both.stderr[0].contains("leave LISTEN CONNECT out"),
        "{both:?}"
    );
    let log = run(&[
        "relay",
        "tcp:127.0.0.1:0",
        "tcp:127.0.0.1:1",
        "--access-log",
        "/no/such/log",
    ]);
    assert_eq!(log.code, Some(2));
    assert!(log.stderr[0].contains("/no/such/log"), "{log:?}");
}

#[test]
fn a_reload_takes_new_routes_and_leaves_connections_alone() {
    fault!(F98);
    let (one, two) = (upstream("one"), upstream("two"));
    let [first, second] = free_ports();
    let route = |port: u16, to: &str| {
        format!("[[route]]\nlisten = \"tcp:127.0.0.1:{port}\"\nconnect = \"{to}\"\n")
    };
    let files = Files::new(&(String::from("workers = 2\ndrain = 0.2\n") + &route(first, &one)));
    let relay = files.start(&[]);
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut old = connect(at(first));
    hear(&mut old, "one");

    // Another upstream, and a second place.
    files.write("bev.toml", &(route(first, &two) + &route(second, &one)));
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    hear(&mut connect(at(first)), "two");
    hear(&mut connect(at(second)), "one");
    ask(&mut old, b"the old one goes on");

    // One place is gone; what came in there stays.
    let mut there = connect(at(first));
    hear(&mut there, "two");
    files.write("bev.toml", &route(second, &two));
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    TcpStream::connect(at(first)).expect_err("nobody listens there any more");
    hear(&mut connect(at(second)), "two");
    ask(&mut old, b"still there");
    ask(&mut there, b"still there");
    drop((old, there));
    let ended = relay.terminate();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_reload_that_cannot_be_changes_nothing_and_says_why() {
    fault!(F98);
    let (one, two) = (upstream("one"), upstream("two"));
    let [port, other] = free_ports();
    let route =
        |listen: &str, to: &str| format!("[[route]]\nlisten = \"{listen}\"\nconnect = \"{to}\"\n");
    let here = format!("tcp:127.0.0.1:{port}");
    let files = Files::new(&route(&here, &one));
    let occupied = TcpListener::bind(("127.0.0.1", other)).expect("bound");
    let relay = files.start(&[]);
    for (text, reason) in [
        ("nonsense".to_string(), "line 1"),
        (
            route(&here, &two) + &route("tcp:127.0.0.1:0+tls,cert=/none,key=/none", &two),
            "cannot read /none",
        ),
        // One of two places is taken: the other is not changed either.
        (
            route(&here, &two) + &route(&format!("tcp:127.0.0.1:{other}"), &two),
            "cannot listen on",
        ),
        (route(&here, &here), "would relay to itself"),
    ] {
        files.write("bev.toml", &text);
        relay.signal("HUP");
        let line = relay.wait_for_log("not reloaded, all is as it was");
        assert!(line.contains(reason), "{line}");
        hear(&mut relay.connect(), "one");
    }
    drop(occupied);
    files.write(
        "bev.toml",
        &(route(&here, &two) + &route(&format!("tcp:127.0.0.1:{other}"), &one)),
    );
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    hear(&mut relay.connect(), "two");
    hear(
        &mut connect(SocketAddr::from(([127, 0, 0, 1], other))),
        "one",
    );
}

/// The certificate that a TLS server shows, as `openssl` prints it.
fn certificate(address: SocketAddr) -> String {
    let output = Command::new("sh")
        .args([
            "-c",
            "openssl s_client -connect \"$1\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint",
            "sh",
            &address.to_string(),
        ])
        .output()
        .expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("ingerprint"), "{text}");
    text
}

#[test]
fn a_reload_shows_new_certificates_and_keeps_the_old_ones_when_they_are_bad() {
    fault!(F98);
    let files = Files::new("");
    files.certify();
    let echo = upstream("");
    let listen = format!(
        "tcp:127.0.0.1:0+tls,cert={},key={}",
        files.text("cert.pem"),
        files.text("key.pem")
    );
    // Also without a file of routes.
    let relay = Service::start(&["relay", &listen, &echo, "--log", "info", "--workers", "2"]);
    let old = certificate(relay.socket_addr());
    let key = files.read("key.pem");
    files.write("key.pem", "not a key");
    relay.signal("HUP");
    assert!(relay.wait_for_log("not reloaded").contains("key.pem"));
    assert_eq!(certificate(relay.socket_addr()), old);
    files.certify();
    let new_key = files.read("key.pem");
    files.write("key.pem", &key);
    relay.signal("HUP");
    relay.wait_for_log("not reloaded");
    assert_eq!(
        certificate(relay.socket_addr()),
        old,
        "a key of another certificate"
    );
    files.write("key.pem", &new_key);
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    for _ in 0..4 {
        assert_ne!(certificate(relay.socket_addr()), old, "on every worker");
    }
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn a_storm_of_reloads_is_a_few_and_harms_nobody() {
    fault!(F98);
    let one = upstream("one");
    let files = Files::new(&format!(
        "[[route]]\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"{one}\"\n"
    ));
    let relay = files.start(&[]);
    let mut stream = relay.connect();
    hear(&mut stream, "one");
    let since = Instant::now();
    for _ in 0..12 {
        // Twenty at a time: each call of `kill` is a process.
        let pid = relay.pid().to_string();
        let storm =
            "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -HUP $1; done";
        let status = Command::new("sh").args(["-c", storm, "sh", &pid]).status();
        assert!(status.expect("sh runs").success());
        ask(&mut stream, b"served meanwhile");
    }
    // The last one is heeded too.
    let two = upstream("two");
    files.write(
        "bev.toml",
        &format!("[[route]]\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"{two}\"\n"),
    );
    relay.signal("HUP");
    let mut count = 0;
    loop {
        // The log fails the test if the last reload is missing.
        relay.wait_for_log("reloaded");
        count += 1;
        let mut stream = relay.connect();
        let mut said = [0; 3];
        stream.read_exact(&mut said).expect("it speaks");
        if &said == b"two" {
            break;
        }
    }
    let lasted = since.elapsed().as_secs();
    drop(stream);
    let ended = relay.terminate();
    assert_eq!(ended.code, Some(0));
    let after = ended.stderr.iter();
    count += after.filter(|line| line.contains("reloaded")).count() as u64;
    assert!(
        (1..=lasted + 3).contains(&count),
        "{count} in {lasted} seconds"
    );
}

#[test]
fn an_upstream_that_is_down_at_the_start_is_no_failure() {
    fault!(F98);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let upstream = listener.local_addr().expect("an address");
    drop(listener);
    let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &format!("tcp:{upstream}")]);
    let mut rest = Vec::new();
    let _ = relay.connect().read_to_end(&mut rest);
    relay.wait_for_log("cannot connect to");
    let listener = TcpListener::bind(upstream).expect("bound again");
    let mut client = relay.connect();
    client.write_all(b"now").expect("sent");
    let (mut server, _) = listener.accept().expect("accepted");
    let mut got = [0; 3];
    server.read_exact(&mut got).expect("received");
    drop((client, server));
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_service_manager_hands_over_sockets_and_is_told() {
    let one = upstream("one");
    let files = Files::new("");
    let notify = files.path("notify");
    let manager = UnixDatagram::bind(&notify).expect("bound");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = |wanted: &str| {
        let mut text = [0; 512];
        let count = manager.recv(&mut text).expect(wanted);
        let text = String::from_utf8_lossy(&text[..count]);
        assert!(text.contains(wanted), "{text} instead of {wanted}");
    };
    // What a service manager does: sockets from 3 on, and the environment.
    let script = "import os, socket, sys\n\
        a = socket.create_server(('127.0.0.1', 0)); b = socket.create_server(('127.0.0.1', 0))\n\
        c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        for n, s in enumerate([a, b, c]): os.dup2(os.dup(s.fileno()), 20 + n)\n\
        for n in range(3): os.dup2(20 + n, 3 + n, inheritable=True)\n\
        os.environ.update(LISTEN_FDS='3', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web:other:datagram')\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let start = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command
            .args(["-c", script, env!("CARGO_BIN_EXE_bev"), "relay"])
            .args(arguments);
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null());
        command
    };
    for workers in ["1", "2"] {
        let mut relay = Service::start_command(start(&[
            "fd:web",
            &one,
            "fd:1",
            &one,
            "--workers",
            workers,
            "--log",
            "info",
        ]));
        let other = address_of(&relay.line());
        told("READY=1");
        for at in [relay.socket_addr(), other] {
            for _ in 0..3 {
                hear(&mut connect(at), "one");
            }
        }
        relay.signal("HUP");
        told("RELOADING=1");
        told("READY=1");
        hear(&mut relay.connect(), "one");
        relay.wait_for_log("reloaded");
        let ended = relay.terminate();
        assert!(matches!(ended.code, Some(0 | 5)), "{ended:?}");
        told("STOPPING=1");
        told("STOPPING=1");
    }
    for (name, reason) in [
        ("fd:no", "there is fd:web, fd:other, fd:datagram"),
        ("fd:datagram", "cannot listen"),
    ] {
        let output = start(&[name, &one]).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(2 | 3)), "{text}");
        assert!(text.contains(reason), "{text}");
    }
}

/// The files that the guide is about.
fn share(name: &str) -> String {
    let path = format!("{}/share/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect(name)
}

#[test]
fn the_files_for_systemd_are_what_the_program_takes() {
    let files = Files::new("");
    files.certify();
    // The example, at places where a test may listen.
    let config = share("bev.toml")
        .replace("/etc/bev/", &files.text(""))
        .replace("/var/log/bev/", &files.text(""))
        .replace("0.0.0.0:8443", "127.0.0.1:0")
        .replace("fd:inner", "tcp:127.0.0.1:0");
    files.write("bev.toml", &config);
    let mut relay = files.start(&[]);
    assert_ne!(address_of(&relay.line()), relay.socket_addr());
    assert_eq!(relay.terminate().code, Some(0));

    let (unit, socket) = (share("bev.service"), share("bev.socket"));
    let value = |text: &str, key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.expect(key).to_owned()
    };
    let command = value(&unit, "ExecStart");
    let arguments: Vec<_> = command.split(' ').skip(1).collect();
    let arguments: Vec<_> = arguments
        .into_iter()
        .map(|word| match word {
            "/etc/bev/bev.toml" => files.text("bev.toml"),
            other => other.to_owned(),
        })
        .collect();
    let relay = Service::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(relay.terminate().code, Some(0));
    assert_eq!(
        format!("fd:{}", value(&socket, "FileDescriptorName")),
        "fd:inner"
    );
    assert!(share("bev.toml").contains("fd:inner"));
    let stop: u64 = value(&unit, "TimeoutStopSec").parse().expect("seconds");
    let drain: toml::Table = share("bev.toml").parse().expect("TOML");
    assert!(
        stop > drain["drain"]
            .as_integer()
            .expect("a number")
            .unsigned_abs()
    );
}

#[test]
fn the_configuration_of_the_guide_is_one() {
    let guide = format!("{}/../../docs/guide/service.md", env!("CARGO_MANIFEST_DIR"));
    let Ok(guide) = std::fs::read_to_string(guide) else {
        println!("packaged alone: there is no guide here");
        return;
    };
    let (_, from) = guide.split_once("```toml\n").expect("a configuration");
    let (config, _) = from.split_once("```").expect("its end");
    let files = Files::new("");
    files.certify();
    let config = config
        .replace("/etc/bev/", &files.text(""))
        .replace("/var/log/bev/", &files.text(""))
        .replace("0.0.0.0:8443", "127.0.0.1:0");
    files.write("bev.toml", &config);
    let relay = files.start(&[]);
    assert_eq!(relay.terminate().code, Some(0));
}
