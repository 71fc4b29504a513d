//! Upstreams that say who they are, and folders with a configuration.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use super::{PATIENCE, Service, run};

/// An upstream that answers each connection with a text, and then echoes.
pub(crate) fn upstream(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = format!("tcp:{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            thread::spawn(move || {
                // The peer may be gone at any time.
                let _ = stream.write_all(text.as_bytes());
                let mut from = stream.try_clone().expect("a clone");
                let _ = std::io::copy(&mut from, &mut stream);
            });
        }
    });
    address
}

/// What an upstream that says who it is says first.
pub(crate) fn hear(stream: &mut TcpStream, expected: &str) {
    let mut said = vec![0; expected.len()];
    stream.read_exact(&mut said).expect(expected);
    assert_eq!(String::from_utf8_lossy(&said), expected);
}

/// A folder with a configuration.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new(config: &str) -> Self {
        let files = Self(TempDir::new().expect("a folder"));
        files.write("bev.toml", config);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").into()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("read")
    }

    /// Makes ca.pem, cert.pem, key.pem anew.
    pub(crate) fn certify(&self) {
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        let ended = run(&["cert", "--out", &self.text("")]);
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
    }

    pub(crate) fn start(&self, further: &[&str]) -> Service {
        let config = self.text("bev.toml");
        let common = ["relay", "--config", &config, "--log", "info"];
        Service::start(&[&common, further].concat())
    }

    /// Waits until a file has a line that the test wants, and gives it.
    pub(crate) fn wait_for_line(&self, name: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        self.wait_for(name, "no such line", |text| {
            // The last line may not be whole yet.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            found = whole.lines().find(|line| wanted(line)).map(str::to_owned);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// Waits until a file is there, and what it says is as wanted. A file has no event that all systems know: it is looked at again and
    /// again, and others get the core in between.
    pub(crate) fn wait_for(&self, name: &str, what: &str, mut wanted: impl FnMut(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.path(name));
            if text.as_ref().is_ok_and(|text| wanted(text)) {
                return;
            }
            assert!(Instant::now() < deadline, "{name}: {what}: {text:?}");
            thread::yield_now();
        }
    }
}

pub(crate) fn address_of(line: &str) -> SocketAddr {
    let (_, address) = line.trim().rsplit_once("tcp:").expect("an address");
    address.parse().expect("numeric")
}
