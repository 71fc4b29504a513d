//! Layers in addresses: tunnels of our own, and the peers of others: `openssl s_client`, `openssl s_server`, `curl`, `gzip`.
//!
//! Services are ended by signals, which is why this is for Unix.
#![cfg(unix)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use bufferevent_testkit::fault;
use support::{BACKENDS, Service, bev, data, finish, receive_all, run, send_all};
use tempfile::TempDir;

/// A folder with ca.pem, cert.pem and key.pem, as `bev cert` makes them.
fn certificates(names: &[&str]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let out = path(&folder, "");
    let mut arguments = vec!["cert", "--out", &out];
    arguments.extend(names);
    let ended = run(&arguments);
    assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
    folder
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("text").to_string()
}

fn server_layer(folder: &TempDir) -> String {
    format!(
        "+tls,cert={},key={}",
        path(folder, "cert.pem"),
        path(folder, "key.pem")
    )
}

/// Runs a program of somebody else with this on its standard input, and gives what it wrote.
fn tool(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    std::thread::spawn(move || {
        // It may have ended already.
        let _ = stdin.write_all(&input);
    });
    finish(child).stdout
}

#[test]
fn a_tunnel_of_two_relays_carries_every_byte_and_the_ends() {
    let folder = certificates(&[]);
    for &backend in BACKENDS {
        for layers in ["+tls", "+zlib", "+tls+zlib", "+zlib,format=gzip+tls"] {
            let both = |tls: &str| layers.replace("+tls", tls);
            let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
            let listen = format!("tcp:127.0.0.1:0{}", both(&server_layer(&folder)));
            let exit = Service::start(&["relay", &listen, &echo.address, "--backend", backend]);
            let ca = format!("+tls,ca={}", path(&folder, "ca.pem"));
            let connect = format!("{}{}", exit.address, both(&ca));
            let entry =
                Service::start(&["relay", "tcp:127.0.0.1:0", &connect, "--backend", backend]);
            let stream = entry.connect();
            let mut bytes = data(7, 1 << 20);
            bytes.extend(std::iter::repeat_n(b'z', 1 << 20));
            send_all(
                stream.try_clone().expect("a clone"),
                bytes.clone(),
                |stream| {
                    stream.shutdown(Shutdown::Write).expect("half-closed");
                },
            );
            assert!(
                receive_all(stream) == bytes,
                "{layers} on {backend}: other bytes came back"
            );
            for service in [entry, exit, echo] {
                let ended = service.terminate();
                assert_eq!(
                    (ended.code, ended.stderr),
                    (Some(0), vec![]),
                    "{layers} on {backend}"
                );
            }
        }
    }
}

#[test]
fn openssl_and_curl_talk_to_a_listening_side() {
    let folder = certificates(&[]);
    let ca = path(&folder, "ca.pem");
    // A web server that knows one answer, behind a relay that takes the TLS off.
    let web = TcpListener::bind("127.0.0.1:0").expect("bound");
    let upstream = format!("tcp:{}", web.local_addr().expect("an address"));
    let serving = std::thread::spawn(move || {
        for _ in 0..3 {
            let (stream, _) = web.accept().expect("a connection");
            let mut lines = BufReader::new(&stream).lines();
            while !lines.next().expect("a line").expect("text").is_empty() {}
            let mut stream = &stream;
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n",
                )
                .expect("sent");
        }
    });
    let listen = format!("tcp:127.0.0.1:0{},alpn=http/1.1", server_layer(&folder));
    let relay = Service::start(&["relay", &listen, &upstream]);
    let port = relay.socket_addr().port().to_string();
    let at = format!("127.0.0.1:{port}");
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            "s_client",
            "-connect",
            &at,
            "-CAfile",
            &ca,
            "-verify_return_error",
            "-quiet",
            version,
        ];
        let answer = tool(
            "openssl",
            &arguments,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
        assert!(
            answer.ends_with(b"hello\n"),
            "{version}: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    let url = format!("https://localhost:{port}/");
    let resolve = format!("localhost:{port}:127.0.0.1");
    let answer = tool(
        "curl",
        &["-sS", "--cacert", &ca, "--resolve", &resolve, &url],
        b"",
    );
    assert_eq!(answer, b"hello\n");
    serving.join().expect("served");
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn cat_reaches_an_openssl_server_and_says_why_it_cannot() {
    let folder = certificates(&["localhost"]);
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
        .args(["-cert", &path(&folder, "cert.pem")])
        .args(["-key", &path(&folder, "key.pem")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("openssl is needed for this test: {error}"));
    // It says where it listens once it does. What it says later must have a reader.
    let mut said = BufReader::new(server.stdout.take().expect("piped")).lines();
    let accepts = |line: &String| line.starts_with("ACCEPT ");
    let line = said.by_ref().map_while(Result::ok).find(accepts);
    let port = line.as_deref().and_then(|line| line.rsplit(':').next());
    let port = port.expect("openssl s_server listens").to_string();
    std::thread::spawn(move || said.for_each(drop));
    let ca = path(&folder, "ca.pem");
    let cat = |options: &str| {
        let address = format!("tcp:127.0.0.1:{port}+tls{options}");
        let mut child = bev(&["cat", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("taken");
        (child, stdin)
    };
    // The page first, then our end: a server that closes with that end unread resets the connection, and what is on its way is gone.
    let shows_its_page = |options: &str| {
        let (mut child, stdin) = cat(options);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let page = lines.any(|line| line.expect("text").contains("Ciphers supported"));
        drop(stdin);
        lines.for_each(drop);
        assert!(page, "{options}: {:?}", finish(child).stderr);
    };
    shows_its_page(&format!(",ca={ca},name=localhost"));
    for (options, reason) in [
        (format!(",ca={ca},name=example.org"), "name"),
        (format!(",ca={ca}"), "name"), // The address is not in the certificate.
        (String::from(",name=localhost"), "nobody that is trusted"),
    ] {
        let (child, stdin) = cat(&options);
        drop(stdin);
        let ended = finish(child);
        assert_eq!(ended.code, Some(3), "{options}: {:?}", ended.stderr);
        let [line] = &ended.stderr[..] else {
            panic!("{options}: {:?}", ended.stderr)
        };
        assert!(
            line.contains("tls") && line.contains(reason),
            "{options}: {line}"
        );
    }
    shows_its_page(",name=localhost,verify=none");
    server.kill().expect("ended");
    server.wait().expect("waited for");
}

#[test]
fn a_peer_that_speaks_no_tls_is_told_apart_on_both_sides() {
    let folder = certificates(&[]);
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    // Our client, their plain server: what it sent comes back and is no ServerHello.
    let ended = run(&[
        "cat",
        &format!("{}+tls,name=localhost,verify=none", echo.address),
    ]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr[0].contains("tls"), "{:?}", ended.stderr);
    // Their plain client, our server.
    let listen = format!("tcp:127.0.0.1:0{}", server_layer(&folder));
    let relay = Service::start(&["relay", &listen, &echo.address]);
    let mut stream = relay.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
    let line = relay.wait_for_log("refused");
    assert!(line.contains("tls") && line.contains("HTTP"), "{line}");
    let mut rest = Vec::new();
    // The end, or a reset, but no more than an alert before it.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 16, "{rest:?}");
}

#[test]
fn a_client_shows_its_certificate_where_it_has_to() {
    let folder = certificates(&[]);
    let (ca, cert, key) = (
        path(&folder, "ca.pem"),
        path(&folder, "cert.pem"),
        path(&folder, "key.pem"),
    );
    let listen = format!("tcp:127.0.0.1:0{},ca={ca}", server_layer(&folder));
    let echo = Service::start(&["echo", &listen]);
    let with = format!("{}+tls,ca={ca},cert={cert},key={key}", echo.address);
    assert_eq!(run(&["cat", &with]).code, Some(0));
    let without = run(&["cat", &format!("{}+tls,ca={ca}", echo.address)]);
    assert_ne!(without.code, Some(0));
    assert!(
        without.stderr[0].contains("CertificateRequired"),
        "{:?}",
        without.stderr
    );
}

#[test]
fn what_gzip_made_is_read_and_what_we_made_gzip_reads() {
    let text = b"a line that repeats itself\n".repeat(5000);
    let folder = TempDir::new().expect("a folder");
    let socket = path(&folder, "s");
    let sink = Service::start(&["echo", &format!("unix:{socket}+zlib,format=gzip")]);
    let mut stream =
        std::os::unix::net::UnixStream::connect(Path::new(&socket)).expect("connected");
    let packed = tool("gzip", &["-c"], &text);
    stream.write_all(&packed).expect("taken");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("all came");
    assert!(back.len() < text.len() / 10, "{} bytes", back.len());
    assert!(
        tool("gzip", &["-dc"], &back) == text,
        "gzip reads something else"
    );
    assert_eq!(sink.terminate().code, Some(0));
}

#[test]
fn bad_layers_are_told_in_one_line() {
    fault!(F97);
    let folder = certificates(&[]);
    let other = certificates(&[]);
    let (cert, key) = (path(&folder, "cert.pem"), path(&other, "key.pem"));
    let nowhere = path(&folder, "nowhere.pem");
    for (layers, reason) in [
        (format!("+tls,cert={cert},key={key}"), "key"),
        (format!("+tls,cert={nowhere},key={key}"), "cannot read"),
        (format!("+tls,cert={key},key={key}"), "no certificate"),
        (format!("+tls,cert={cert},key={cert}"), "key"),
        (String::from("+tls"), "cert="),
    ] {
        let ended = run(&["echo", &format!("tcp:127.0.0.1:0{layers}")]);
        assert_eq!(ended.code, Some(2), "{layers}: {:?}", ended.stderr);
        assert_eq!(ended.stderr.len(), 1, "{layers}: {:?}", ended.stderr);
        assert!(
            ended.stderr[0].contains(reason),
            "{layers}: {:?}",
            ended.stderr
        );
    }
    let ended = run(&["cat", "unix:/nowhere+tls"]);
    assert!(ended.stderr[0].contains("name="), "{:?}", ended.stderr);
    // Nothing is overwritten.
    let again = run(&["cert", "--out", &path(&folder, "")]);
    assert_eq!(again.code, Some(2));
    assert!(
        again.stderr[0].contains("there already"),
        "{:?}",
        again.stderr
    );
}
