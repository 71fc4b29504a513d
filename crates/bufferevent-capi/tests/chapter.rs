//! The C examples of libevent's chapter on bufferevents, unchanged, each against a real peer. What they leave open, a program around them
//! (`drive_*.c`) adds.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use common::{command, compile_files, here, succeeded};

/// Compiles files of `tests/chapter` as they are.
fn example(files: &[&str], folder: &Path) -> PathBuf {
    let sources: Vec<_> = files
        .iter()
        .map(|name| here().join("tests/chapter").join(name))
        .collect();
    compile_files(&sources, &["-Wno-sign-compare"], folder)
}

/// A listener that is reached by every address of this host, where the system has both families.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    (listener, port.to_string())
}

/// Starts a server of `drive_callbacks.c`.
fn serve(arguments: &[&str], folder: &Path) -> (Child, TcpStream) {
    let program = example(&["drive_callbacks.c"], folder);
    let mut child = command(&program, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it says its port");
    let port: u16 = line.trim().parse().expect("a port");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    (child, stream)
}

#[test]
fn connecting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = example(&["drive_connect.c", "redirect.c"], folder.path());
    let (listener, port) = listener();
    let output = command(&program, &[]).env("CHAPTER_PORT", &port).output();
    succeeded("connect", &output.expect("it runs"));
    listener.accept().expect("it connected");
    drop(listener); // Refused: the example says so by ending as well.
    let output = command(&program, &[]).env("CHAPTER_PORT", &port).output();
    succeeded("connect, refused", &output.expect("it runs"));
}

#[test]
fn a_trivial_http_client() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = example(&["http_client.c", "redirect.c"], folder.path());
    for host in ["localhost", "127.0.0.1"] {
        let (listener, port) = listener();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            let mut request = [0; 11];
            stream.read_exact(&mut request).expect("it asks");
            stream
                .write_all(&b"a page\n".repeat(1000))
                .expect("it reads");
            request
        });
        let output = command(&program, &[host, "/page"])
            .env("CHAPTER_PORT", &port)
            .output()
            .expect("it runs");
        succeeded("http_client", &output);
        let request = server.join().expect("the server ends");
        assert_eq!(request.as_slice(), b"GET /page\r\n");
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("Connect okay.\n{}Closing\n", "a page\n".repeat(1000));
        assert_eq!(said, expected);
    }
    let output = command(&program, &["no.such.name.invalid", "/"]).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with("DNS error: ") && said.ends_with("Closing\n"),
        "{said}"
    );
}

#[test]
fn draining_above_a_mark() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = example(&["drive_drain.c"], folder.path());
    for (sent, expected) in [
        (
            100, // Below the mark: nobody is called, and the bytes stay.
            "Got a close from buffer 1.  We drained 0 bytes from it, and have 100 left.\n",
        ),
        (
            200,
            "Drained 200 bytes from buffer 1\n\
             Got a close from buffer 1.  We drained 200 bytes from it, and have 0 left.\n",
        ),
    ] {
        let (listener, port) = listener();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            stream.write_all(&vec![b'x'; sent]).expect("it reads");
        });
        let output = command(&program, &[&port]).output().expect("it runs");
        server.join().expect("the server ends");
        succeeded("drain", &output);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

#[test]
fn upper_case() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut child, mut stream) = serve(&["uppercase"], folder.path());
    let text = "all of this is written in small letters; ".repeat(500);
    stream.write_all(text.as_bytes()).expect("it reads");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(answer, text.to_uppercase().as_bytes());
    drop(stream);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_proxy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (listener, port) = listener();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        let mut bytes = vec![0; 100_000];
        stream.read_exact(&mut bytes).expect("it sends");
        stream.write_all(&bytes).expect("it reads");
    });
    let (mut child, mut stream) = serve(&["proxy", &port], folder.path());
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&bytes).expect("it reads");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("it sends back");
    assert_eq!(back, bytes);
    stream.shutdown(Shutdown::Both).expect("it is open");
    assert!(child.wait().expect("it ends").success());
    server.join().expect("the server ends");
}

#[test]
fn fibonacci_for_whoever_reads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut child, mut stream) = serve(&["fibonacci"], folder.path());
    let mut start = [0; 20_000];
    stream.read_exact(&mut start).expect("it never ends");
    let (mut last, mut expected) = ([0_u64, 1], String::new());
    while expected.len() < start.len() {
        last = [last[1], last[0].wrapping_add(last[1])];
        expected += &last[1].to_string();
    }
    assert_eq!(start.as_slice(), &expected.as_bytes()[..start.len()]);
    drop(stream);
    assert!(child.wait().expect("it ends").success());
}
