//! What somebody tries first who does not trust a relay yet: odd files, names that change, neighbours that take all, strangers that lie,
//! a system that has no more to give.
//!
//! Services are ended by signals, which is why this is for Unix.
#![cfg(unix)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;

use bufferevent_testkit::fault;
use support::files::{Files, address_of, hear, upstream};
use support::{BACKENDS, PATIENCE, Service, ask, bev, connect, finish, run};

/// The end that a client sees which is not let in: an end or a reset, and not a byte.
fn turned_away(mut client: TcpStream) {
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn a_header_is_believed_from_trusted_networks_alone() {
    let (one, header) = (
        upstream("one"),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    );
    let files = Files::new("");
    let log = files.text("access");
    let file = |trust: &str| {
        format!(
            "[[route]]\nname = \"web\"\nlisten = \"tcp:127.0.0.1:0+proxy\"\nconnect = \"{one}\"\nproxy-trust = [{trust}]\n"
        )
    };
    files.write("bev.toml", &file("\"127.0.0.0/8\", \"::1\""));
    let relay = files.start(&["--access-log", &log]);
    let mut client = relay.connect();
    client.write_all(header).expect("sent");
    hear(&mut client, "one");
    drop(client);
    files.wait_for_line("access", |line| line.contains(" tcp:192.0.2.7:4711[via "));

    // From now on a stranger: it is not let in, and what it says of itself stands nowhere.
    files.write("bev.toml", &file("\"10.0.0.0/8\""));
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    let mut client = relay.connect();
    let _ = client.write_all(header);
    turned_away(client);
    let line = files.wait_for_line("access", |line| line.contains("proxy-trust"));
    assert!(
        line.contains(" tcp:127.0.0.1:") && !line.contains("192.0.2.7"),
        "{line}"
    );
    assert!(
        line.contains("upstream[] \"client refused: proxy: "),
        "{line}"
    );
    assert_eq!(relay.terminate().code, Some(0));

    // The same by a flag, with several networks, over IPv6 where it is there.
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        println!("no IPv6 here");
        return;
    };
    drop(listener);
    for (trust, believed) in [("127.0.0.1,::1/128", true), ("127.0.0.1,fd00::/8", false)] {
        let relay = Service::start(&["relay", "tcp:[::1]:0+proxy", &one, "--proxy-trust", trust]);
        let mut client = relay.connect();
        let _ = client.write_all(header);
        if believed {
            hear(&mut client, "one");
        } else {
            turned_away(client);
        }
    }
}

#[test]
fn a_route_that_takes_no_headers_has_nobody_to_trust() {
    fault!(F97);
    let route = "[[route]]\nname = \"web\"\nconnect = \"tcp:127.0.0.1:1+proxy\"\n";
    for (rest, reason) in [
        (
            "listen = \"tcp:127.0.0.1:0\"\nproxy-trust = [\"::1\"]\n",
            "it has no +proxy",
        ),
        (
            "listen = \"tcp:127.0.0.1:0+proxy\"\nproxy-trust = [\"::1/129\"]\n",
            "`::1/129` is no network",
        ),
        (
            "listen = \"tcp:127.0.0.1:0+proxy\"\nproxy-trust = \"::1\"\n",
            "expected a sequence",
        ),
    ] {
        let files = Files::new(&format!("{route}{rest}"));
        let ended = run(&["relay", "--config", &files.text("bev.toml")]);
        assert_eq!(
            (ended.code, ended.stderr.len()),
            (Some(2), 1),
            "{:?}",
            ended.stderr
        );
        let line = &ended.stderr[0];
        assert!(
            line.contains("route 1 (`web`)") && line.contains(reason),
            "{line}"
        );
    }
    let ended = run(&[
        "relay",
        "tcp:127.0.0.1:0+proxy",
        "tcp:127.0.0.1:1",
        "--proxy-trust",
        "all",
    ]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr[0].contains("`all` is no network"),
        "{:?}",
        ended.stderr
    );
}

#[test]
fn names_of_any_script_are_looked_up_and_are_whom_a_certificate_is_for() {
    let files = Files::new("");
    files.write("names", "127.0.0.1 bücher.example\n");
    let ended = run(&["cert", "--out", &files.text(""), "Bücher.example"]);
    assert_eq!(ended.code, Some(0), "{:?}", ended.stderr);
    let echo = upstream("");
    let listen = format!(
        "tcp:127.0.0.1:0+tls,cert={},key={}",
        files.text("cert.pem"),
        files.text("key.pem")
    );
    let relay = Service::start(&["relay", &listen, &echo]);
    let port = relay.socket_addr().port();
    let names = files.text("names");
    for (host, name) in [
        ("bücher.example", ""),
        ("BÜCHER.example", ""),
        ("xn--bcher-kva.example", ""),
        ("127.0.0.1", ",name=bücher.example"),
    ] {
        let to = format!("tcp:{host}:{port}+tls,ca={}{name}", files.text("ca.pem"));
        let mut cat = bev(&["cat", &to, "--resolver", &names])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = cat.stdin.take().expect("piped");
        stdin.write_all(b"hello").expect("sent");
        drop(stdin);
        let ended = finish(cat);
        assert_eq!(
            (ended.code, &ended.stdout[..]),
            (Some(0), &b"hello"[..]),
            "{host}: {:?}",
            ended.stderr
        );
    }
}

#[test]
fn a_reload_reads_the_names_anew_or_changes_nothing() {
    fault!(F98);
    // Whoever is asked for is at the same port of another address.
    let one = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = one.local_addr().expect("an address").port();
    let files = Files::new(&format!(
        "[[route]]\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"tcp:service.example:{port}\"\nconnect-timeout = 2\n"
    ));
    files.write("names", "127.0.0.1 service.example\n");
    let relay = files.start(&["--resolver", &files.text("names"), "--workers", "2"]);
    let reaches = |expected: bool| {
        for _ in 0..3 {
            let mut client = relay.connect();
            if expected {
                let (mut server, _) = one.accept().expect("accepted");
                server.write_all(b"one").expect("sent");
                hear(&mut client, "one");
            } else {
                turned_away(client);
            }
        }
    };
    reaches(true);
    files.write("names", "nonsense\n");
    relay.signal("HUP");
    let line = relay.wait_for_log("not reloaded");
    assert!(
        line.contains("names: line 1: `nonsense` is no address"),
        "{line}"
    );
    reaches(true);
    files.write("names", "127.0.0.1 another.example\n");
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    reaches(false);
    files.write("names", "127.0.0.1 service.example\n");
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    reaches(true);
}

#[test]
fn a_route_with_many_clients_keeps_no_other_out() {
    /// Clients of the route that has too many.
    const CROWD: usize = 6;
    let (crowded, quiet) = (upstream("one"), upstream("two"));
    let mut relay = Service::start(&[
        "relay",
        "tcp:127.0.0.1:0",
        &crowded,
        "tcp:127.0.0.1:0",
        &quiet,
        "--max-connections",
        "1",
    ]);
    let other = address_of(&relay.line());
    let mut inside = relay.connect();
    hear(&mut inside, "one");
    let (sender, served) = channel();
    let wait = |mut client: TcpStream| {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut said = [0; 3];
            client.read_exact(&mut said).expect("it is its turn");
            // The test lets it go: then the next one has its turn.
            sender.send((said, client)).expect("the test waits");
        });
    };
    (0..CROWD).for_each(|_| wait(relay.connect()));
    wait(connect(other));
    // The loop has had turns with all of them.
    (0..10).for_each(|_| ask(&mut inside, b"still here"));
    drop(inside);
    let mut order = Vec::new();
    for _ in 0..=CROWD {
        let (said, client) = served.recv_timeout(PATIENCE).expect("the next one");
        order.push(said);
        client.shutdown(Shutdown::Both).expect("ended");
    }
    let turn = order.iter().position(|said| said == b"two");
    assert!(
        turn.is_some_and(|turn| turn <= 2),
        "served as number {turn:?}"
    );
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn files_that_have_no_end_are_refused() {
    fault!(F97);
    if !std::path::Path::new("/dev/zero").exists() {
        return;
    }
    let tls = "tcp:127.0.0.1:0+tls,cert=/dev/zero,key=/dev/zero";
    for arguments in [
        &["relay", "--config", "/dev/zero"][..],
        &["relay", tls, "tcp:127.0.0.1:1"],
        &["cat", "tcp:127.0.0.1:1", "--resolver", "/dev/zero"],
    ] {
        let ended = run(arguments);
        assert_eq!(
            (ended.code, ended.stderr.len()),
            (Some(2), 1),
            "{:?}",
            ended.stderr
        );
        assert!(ended.stderr[0].contains("/dev/zero"), "{:?}", ended.stderr);
    }
}

#[test]
fn a_pipe_is_read_as_a_file_is_and_nobody_is_waited_for_without_an_end() {
    fault!(F97);
    fault!(F98);
    let (one, two) = (upstream("one"), upstream("two"));
    let config = |upstream: &str| {
        format!("[[route]]\nlisten = \"tcp:127.0.0.1:0\"\nconnect = \"{upstream}\"\n")
    };
    let files = Files::new("");
    for name in ["pipe", "log"] {
        let made = std::process::Command::new("mkfifo")
            .arg(files.path(name))
            .status();
        assert!(made.expect("mkfifo runs").success());
    }
    // As the shell's <(…) has it: somebody writes, once.
    let write = |text: String| {
        let path = files.path("pipe");
        thread::spawn(move || std::fs::write(path, text).expect("written"))
    };
    let writer = write(config(&one));
    let pipe = files.text("pipe");
    let relay = Service::start(&["relay", "--config", &pipe, "--log", "info"]);
    writer.join().expect("all of it was read");
    hear(&mut relay.connect(), "one");
    // Nobody writes any more: the reload fails, and the next one does not wait behind it for ever.
    relay.signal("HUP");
    let line = relay.wait_for_log("not reloaded");
    assert!(line.contains(&pipe) && line.contains("a pipe"), "{line}");
    hear(&mut relay.connect(), "one");
    let writer = write(config(&two));
    relay.signal("HUP");
    relay.wait_for_log("reloaded");
    writer.join().expect("all of it was read");
    hear(&mut relay.connect(), "two");
    assert_eq!(relay.terminate().code, Some(0));

    let log = files.text("log");
    let ended = run(&["relay", "tcp:127.0.0.1:0", &one, "--access-log", &log]);
    assert_eq!(ended.code, Some(2));
    let [line] = &ended.stderr[..] else {
        panic!("{:?}", ended.stderr)
    };
    assert!(
        line.contains(&log) && line.contains("a pipe that nobody reads"),
        "{line}"
    );
}

/// Starts a relay that may have so many descriptors.
fn start_with_descriptors(count: u64, arguments: &[&str]) -> Service {
    let mut command = std::process::Command::new("sh");
    let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_bev"), "relay"]);
    command.args(arguments).stdin(Stdio::null());
    Service::start_command(command)
}

#[test]
fn a_relay_lets_no_more_in_than_it_has_descriptors_for() {
    fault!(F98);
    let echo = upstream("");
    let enough = ["--max-connections", "1000"];
    let both = |backend| [(&[][..], "1", backend), (&enough, "2", backend)];
    for (asked, workers, backend) in BACKENDS.iter().copied().flat_map(both) {
        let arguments = [
            "tcp:127.0.0.1:0",
            &echo,
            "--workers",
            workers,
            "--backend",
            backend,
        ];
        let relay = start_with_descriptors(64, &[&arguments, asked].concat());
        if !asked.is_empty() {
            let line = relay.wait_for_log("max-connections = 1000");
            assert!(line.contains("there are 64 descriptors"), "{line}");
            assert!(line.contains("LimitNOFILE"), "{line}");
        }
        // More than there is room for, all at once: who is not let in waits, and none is turned away.
        let mut clients: Vec<_> = (0..100).map(|_| relay.connect()).collect();
        for client in &mut clients {
            client.write_all(b"my turn").expect("sent");
        }
        let waiting = clients.into_iter().map(|mut client| {
            thread::spawn(move || {
                let mut answer = [0; 7];
                client.read_exact(&mut answer).expect("it is its turn");
                assert_eq!(&answer, b"my turn");
            })
        });
        let waiting: Vec<_> = waiting.collect();
        for client in waiting {
            client.join().expect("answered");
        }
        let ended = relay.terminate();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.is_empty(), "{:?}", ended.stderr);
    }
}

/// The limit is changed from outside, while the relay runs.
#[cfg(target_os = "linux")]
#[test]
fn a_relay_whose_descriptors_are_taken_away_waits_and_goes_on() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    fault!(F98);
    let echo = upstream("");
    let relay = Service::start(&["relay", "tcp:127.0.0.1:0", &echo]);
    let before = getrlimit(Resource::Nofile);
    let set = |current| {
        let pid = Pid::from_raw(relay.pid().cast_signed());
        let limit = Rlimit { current, ..before };
        prlimit(pid, Resource::Nofile, limit).expect("it is a child of this process")
    };
    let mut inside = relay.connect();
    ask(&mut inside, b"served");
    let given = set(Some(3));
    let clients: Vec<_> = (0..5).map(|_| relay.connect()).collect();
    relay.wait_for_log("oo many open files");
    ask(&mut inside, b"those who are there go on");
    set(given.current);
    for mut client in clients {
        ask(&mut client, b"who has waited is served");
    }
    drop(inside);
    let ended = relay.terminate();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
