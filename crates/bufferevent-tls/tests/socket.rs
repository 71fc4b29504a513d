//! The filter on real sockets: against OpenSSL and curl, and against a peer that resets the connection.

#![cfg(unix)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use bufferevent_core::{Bev, Direction, Event, Kind, Options, READ, on_event, on_read};
use bufferevent_filter::{FilterExt, Filtering};
use bufferevent_socket::{Builder, Listener, Socket};
use bufferevent_testkit::{Log, Told, fault, record, spec};
use bufferevent_tls::{TlsServer, Versions};
use common::*;
use evbuffer::Eol;
use evreactor::EventLoop;
use tempfile::TempDir;

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the loop until `done`, or fails.
fn until(events: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        events.poll().unwrap();
        thread::yield_now();
    }
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files that a program is given: the authority, and the server's certificate and key.
struct Files {
    folder: TempDir,
}

impl Files {
    fn of(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("ca.pem", &setup.authority.pem()),
            ("chain.pem", &setup.leaf.chain),
            ("key.pem", &setup.leaf.key),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// Starts a program with what it says and hears piped. `None`: it is not installed here.
fn start(program: &str, arguments: &[&str]) -> Option<Running> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match child {
        Ok(child) => Some(Running(child)),
        Err(error) => {
            eprintln!("{program} does not run here, so nothing was tested with it: {error}");
            None
        }
    }
}

/// What a stream of a program has said so far; it is read on a thread of its own until its end.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn by(mut stream: impl std::io::Read + Send + 'static) -> Self {
        let said = Self::default();
        let into = said.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                into.0.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        said
    }

    fn has(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Serves one greeting and an echo in upper case over TLS, and ends when it hears `quit`.
fn upper_case_server(events: &EventLoop, server: &TlsServer) -> (Listener, SocketAddr) {
    let server = server.clone();
    let listener = Listener::bind(events, "127.0.0.1:0", move |bev, _| {
        let top = bev.filter(
            Options::CLOSE_ON_FREE,
            server.filter().expect("it was built"),
        )?;
        top.set_connect_timeout(Some(PATIENCE))?;
        top.write(b"hello from the server\n")?;
        top.set_handler(on_read(|bev| {
            while let Ok(Some(line)) = bev.input().read_line(Eol::Any, 1000) {
                if line == b"quit" {
                    bev.finish().unwrap();
                } else {
                    bev.write(&line.to_ascii_uppercase()).unwrap();
                    bev.write(b"\n").unwrap();
                }
            }
        }))?;
        top.enable(READ)
    })
    .unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

#[test]
fn openssl_as_the_client() {
    record::within("tls", "tcp", || {
        let setup = Setup::new();
        let files = Files::of(&setup);
        for version in ["-tls1_2", "-tls1_3"] {
            let events = EventLoop::new().unwrap();
            let server = setup.server().alpn(["upper"]).build().unwrap();
            let (_listener, address) = upper_case_server(&events, &server);
            let Some(mut openssl) = start(
                "openssl",
                &[
                    "s_client",
                    "-connect",
                    &address.to_string(),
                    "-servername",
                    NAME,
                    "-verify_hostname",
                    NAME,
                    "-verify_return_error",
                    "-CAfile",
                    &files.path("ca.pem"),
                    "-alpn",
                    "upper",
                    version,
                ],
            ) else {
                return;
            };
            spec!(F6);
            let said = Said::by(openssl.0.stdout.take().unwrap());
            let errors = Said::by(openssl.0.stderr.take().unwrap());
            let mut stdin = openssl.0.stdin.take().unwrap();
            until(&events, "the greeting", || {
                assert!(!errors.has("error"), "{}", errors.text());
                said.has("hello from the server")
            });
            assert!(said.has("Verify return code: 0 (ok)"), "{}", said.text());
            assert!(said.has("ALPN protocol: upper"), "{}", said.text());
            stdin.write_all(b"shout\n").unwrap();
            until(&events, "the echo", || said.has("SHOUT"));
            stdin.write_all(b"quit\n").unwrap();
            until(&events, "its end", || {
                openssl.0.try_wait().unwrap().is_some()
            });
            assert!(openssl.0.try_wait().unwrap().unwrap().success());
        }
    });
}

/// The port that OpenSSL's server listens at: it chose it itself, and prints it.
fn port_of(said: &Said) -> u16 {
    let start = Instant::now();
    loop {
        let text = said.text();
        let port = text
            .lines()
            .find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next())
            .and_then(|port| port.trim().parse().ok());
        if let (Some(port), true) = (port, text.contains('\n')) {
            return port;
        }
        assert!(start.elapsed() < PATIENCE, "no port: {text}");
        thread::yield_now();
    }
}

#[test]
fn openssl_as_the_server() {
    record::within("tls", "tcp", || {
        let setup = Setup::new();
        let files = Files::of(&setup);
        for versions in VERSIONS {
            let Some(mut openssl) = start(
                "openssl",
                &[
                    "s_server",
                    "-accept",
                    "127.0.0.1:0",
                    "-cert",
                    &files.path("chain.pem"),
                    "-key",
                    &files.path("key.pem"),
                    "-rev",
                    "-naccept",
                    "2",
                ],
            ) else {
                return;
            };
            spec!(F6);
            let said = Said::by(openssl.0.stdout.take().unwrap());
            let port = port_of(&said);
            let events = EventLoop::new().unwrap();
            let client = setup.client().versions(versions).build().unwrap();
            for resumed in [false, true] {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                let below = Socket::connect_to(&events, address).unwrap();
                let top = below
                    .filter(Options::CLOSE_ON_FREE, client.filter().unwrap())
                    .unwrap();
                let log = Log::new();
                top.set_handler(log.take_all()).unwrap();
                top.enable(READ).unwrap();
                top.write(b"live\n").unwrap();
                until(&events, "the line back to front", || {
                    log.received_len() >= 5
                });
                assert_eq!(log.received(), b"evil\n");
                assert_eq!(log.events(), [Told::Connected]);
                let is_resumed = top
                    .filter_of::<bufferevent_tls::Tls>()
                    .unwrap()
                    .with(|tls| tls.is_resumed());
                assert_eq!(is_resumed.unwrap(), resumed);
                top.write(b"CLOSE\n").unwrap();
                until(&events, "its end", || log.has(&Told::Eof));
                top.free().unwrap();
            }
        }
    });
}

#[test]
fn curl_as_the_client() {
    record::within("tls", "tcp", || {
        let setup = Setup::new();
        let files = Files::of(&setup);
        let body = "a page\n".repeat(50_000);
        for (version, most) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
            let events = EventLoop::new().unwrap();
            let server = setup.server().alpn(["http/1.1"]).build().unwrap();
            let page = body.clone();
            let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
                let filter = server.filter().expect("it was built");
                let top = bev.filter(Options::CLOSE_ON_FREE, filter)?;
                let page = page.clone();
                top.set_handler(on_read(move |bev| {
                    if bev.input().find(b"\r\n\r\n").unwrap().is_some() {
                        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                        bev.write(head.as_bytes()).unwrap();
                        bev.write(page.as_bytes()).unwrap();
                        bev.finish().unwrap();
                    }
                }))?;
                top.enable(READ)
            })
            .unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let port = address.rsplit(':').next().unwrap();
            let Some(mut curl) = start(
                "curl",
                &[
                    "--silent",
                    "--show-error",
                    "--noproxy",
                    "*",
                    version,
                    "--tls-max",
                    most,
                    "--cacert",
                    &files.path("ca.pem"),
                    "--resolve",
                    &format!("{NAME}:{port}:127.0.0.1"),
                    &format!("https://{NAME}:{port}/"),
                ],
            ) else {
                return;
            };
            spec!(F6);
            let said = Said::by(curl.0.stdout.take().unwrap());
            let errors = Said::by(curl.0.stderr.take().unwrap());
            until(&events, "the page", || {
                assert_eq!(errors.text(), "");
                curl.0.try_wait().unwrap().is_some() && said.text().len() >= body.len()
            });
            assert!(curl.0.try_wait().unwrap().unwrap().success());
            assert!(said.text() == body);
        }
    });
}

/// A server that speaks as much SMTP as `openssl s_client -starttls smtp` needs, and puts TLS on.
#[test]
fn openssl_upgrades_by_starttls() {
    record::within("tls", "tcp", || {
        let setup = Setup::new();
        let files = Files::of(&setup);
        let events = EventLoop::new().unwrap();
        let tls = setup.server().build().unwrap();
        let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
            let tls = tls.clone();
            bev.write(b"220 mail.example ESMTP\r\n")?;
            bev.set_handler(on_read(move |bev| {
                while let Ok(Some(line)) = bev.input().read_line(Eol::Crlf, 1000) {
                    if line.starts_with(b"EHLO") {
                        bev.write(b"250-mail.example\r\n250 STARTTLS\r\n").unwrap();
                    } else if line == b"STARTTLS" {
                        bev.write(b"220 go ahead\r\n").unwrap();
                        let layer = Filtering::new(tls.filter().expect("it was built"));
                        let top = bev.put_on(Options::CLOSE_ON_FREE, layer).unwrap();
                        top.set_handler(on_read(|bev: &Bev| {
                            while let Ok(Some(line)) = bev.input().read_line(Eol::Any, 1000) {
                                bev.write(&[b"250 under TLS: ", &line[..], b"\r\n"].concat())
                                    .unwrap();
                            }
                        }))
                        .unwrap();
                        return;
                    }
                }
            }))?;
            bev.enable(READ)
        })
        .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let Some(mut openssl) = start(
            "openssl",
            &[
                "s_client",
                "-starttls",
                "smtp",
                "-quiet",
                "-verify_return_error",
                "-verify_hostname",
                NAME,
                "-CAfile",
                &files.path("ca.pem"),
                "-connect",
                &address,
            ],
        ) else {
            return;
        };
        spec!(F6, F7);
        let said = Said::by(openssl.0.stdout.take().unwrap());
        let mut stdin = openssl.0.stdin.take().unwrap();
        stdin.write_all(b"NOOP\n").unwrap();
        until(&events, "an answer under TLS", || {
            said.has("250 under TLS: NOOP")
        });
    });
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

/// A connection that is reset, in the handshake and after it: the socket's own error, never a clean end.
#[test]
fn a_reset_is_an_error_and_no_end() {
    fault!(F43);
    let setup = Setup::new();
    for shaken in [false, true] {
        let events = EventLoop::new().unwrap();
        let (near, mut far) = connected();
        let (client, server) = setup.filters(Versions::Tls13);
        let below = Builder::new(&events).stream(near).unwrap();
        let top = below.filter(Options::CLOSE_ON_FREE, server).unwrap();
        let heard = Log::new();
        let (log, failed) = (heard.clone(), Arc::new(Mutex::new(None)));
        let kept = failed.clone();
        top.set_handler(on_event(move |_, event: &Event| {
            log.add(Told::from(event));
            if let Event::Error { direction, error } = event {
                *kept.lock().unwrap() = Some((*direction, error.clone()));
            }
        }))
        .unwrap();
        top.enable(READ).unwrap();
        let mut client = End::new(client);
        far.write_all(&client.emit(bufferevent_core::Mode::Normal))
            .unwrap();
        if shaken {
            far.set_nonblocking(true).unwrap();
            until(&events, "the handshake", || {
                let mut piece = [0; 4096];
                if let Ok(length) = far.read(&mut piece) {
                    client.hear(&piece[..length], bufferevent_core::Mode::Normal);
                    let more = client.emit(bufferevent_core::Mode::Normal);
                    far.write_all(&more).unwrap();
                }
                heard.has(&Told::Connected)
            });
        } else {
            until(&events, "the answer to the hello", || {
                top.stats().read == 0 && below.stats().written > 0
            });
        }
        // What is unread when a socket is closed makes a reset of the end.
        socket_reset(&far);
        drop(far);
        until(&events, "the error", || failed.lock().unwrap().is_some());
        let (direction, error) = failed.lock().unwrap().clone().unwrap();
        assert_eq!(error.kind(), Kind::Peer, "{error:?}");
        assert!(!heard.has(&Told::Eof));
        assert_eq!(heard.has(&Told::Connected), shaken);
        if !shaken {
            assert_eq!(direction, None::<Direction>);
        }
    }
}

fn socket_reset(stream: &TcpStream) {
    socket2::SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
