//! TLS of the C interface: a C program with itself, and with OpenSSL's client and server.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bufferevent_testkit::fault;
use common::{command, compile, compile_file, here, succeeded};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

const CLIENTS_SERIAL: u64 = 7;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("the folder can be written to");
}

fn issue(folder: &Path, by: &Authority, name: &str, files: [&str; 2], serial: u64) {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.serial_number = Some(serial.into());
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("a certificate");
    write(folder, files[0], &certificate.pem());
    write(folder, files[1], &key.serialize_pem());
}

fn revoking(by: &Authority, serial: SerialNumber) -> String {
    let revoked = RevokedCertParams {
        serial_number: serial,
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2044, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(by).expect("a list");
    list.pem().expect("a list can be written down")
}

/// A folder with what the program reads.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ca, other) = (authority("an authority"), authority("another"));
    let path = folder.path();
    write(path, "ca.pem", &ca.pem());
    write(path, "other-ca.pem", &other.pem());
    issue(path, &ca, "localhost", ["chain.pem", "key.pem"], 6);
    let files = ["client.pem", "client-key.pem"];
    issue(path, &ca, "client", files, CLIENTS_SERIAL);
    write(path, "revoked.pem", &revoking(&ca, CLIENTS_SERIAL.into()));
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// A peer that goes with its test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program whose output is read here.
fn start(command: &mut Command) -> (Peer, BufReader<impl std::io::Read + use<>>) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let said = BufReader::new(child.stdout.take().expect("its output is piped"));
    (Peer(child), said)
}

/// The number behind `before`, on the first line that has it.
fn number_behind(said: &mut impl std::io::BufRead, before: &str) -> u16 {
    let line = said.lines().map_while(Result::ok).find_map(|line| {
        let rest = line.split_once(before)?.1;
        rest.trim().parse().ok()
    });
    line.expect("it says its port")
}

#[test]
fn two_ends_in_one_program() {
    fault!(F41, F42, F44, F46, F47, F56);
    let (folder, programs) = (certificates(), tempfile::tempdir().expect("a folder"));
    let program = compile("tls", programs.path());
    let output = command(&program, &[text(folder.path())]).output();
    succeeded("tls", &output.expect("it runs"));
}

#[test]
fn openssl_as_the_client() {
    let (folder, programs) = (certificates(), tempfile::tempdir().expect("a folder"));
    let program = compile("tls", programs.path());
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [text(folder.path()), "serve"];
        let (mut server, mut said) = start(&mut command(&program, &arguments));
        let port = number_behind(&mut said, "");
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-quiet", "-verify_return_error"])
            .args(["-servername", "localhost", "-verify_hostname", "localhost"])
            .args(["-alpn", "upper", version])
            .arg("-connect")
            .arg(format!("127.0.0.1:{port}"))
            .arg("-CAfile")
            .arg(folder.path().join("ca.pem"))
            .stderr(Stdio::null());
        let (mut client, mut said) = start(&mut openssl);
        let mut stdin = client.0.stdin.take().expect("its input is piped");
        let mut line = String::new();
        writeln!(stdin, "shout").expect("it listens");
        said.read_line(&mut line).expect("it speaks");
        assert_eq!(line, "SHOUT by upper\n");
        writeln!(stdin, "quit").expect("it listens");
        line.clear();
        said.read_line(&mut line).expect("it speaks");
        assert_eq!(line, "QUIT by upper\n");
        assert_eq!(said.read_to_string(&mut line).expect("it ends"), 0);
        assert!(client.0.wait().expect("it ends").success());
        let ended = server.0.wait().expect("it ends");
        assert!(ended.success(), "{version}: {ended}");
    }
}

#[test]
fn openssl_as_the_server() {
    let (folder, programs) = (certificates(), tempfile::tempdir().expect("a folder"));
    let program = compile("tls", programs.path());
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-rev",
            "-naccept",
            "2",
        ])
        .arg("-cert")
        .arg(folder.path().join("chain.pem"))
        .arg("-key")
        .arg(folder.path().join("key.pem"))
        .stderr(Stdio::null());
    let (_server, mut said) = start(&mut openssl);
    let port = number_behind(&mut said, "ACCEPT 127.0.0.1:").to_string();
    let arguments = [text(folder.path()), "ask", &port];
    let output = command(&program, &arguments).output();
    succeeded("ask", &output.expect("it runs"));
}

#[test]
fn the_example_fetches_a_page() {
    let (folder, programs) = (certificates(), tempfile::tempdir().expect("a folder"));
    let source = here().join("examples/tls_get.c");
    let program = compile_file(&source, &["-Wextra"], programs.path());
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
        .arg("-cert")
        .arg(folder.path().join("chain.pem"))
        .arg("-key")
        .arg(folder.path().join("key.pem"))
        .stderr(Stdio::null());
    let (_server, mut said) = start(&mut openssl);
    let port = number_behind(&mut said, "ACCEPT 127.0.0.1:").to_string();
    let roots = folder.path().join("ca.pem");
    let output = command(&program, &["localhost", &port, "/", text(&roots)]).output();
    let output = output.expect("it runs");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(page.starts_with("HTTP/1.0 200 ok"), "{page}");
    assert!(page.contains("New, TLSv1.3"), "{page}");
    succeeded("tls_get", &output);
    // Without its roots the server is a stranger.
    let output = command(&program, &["localhost", &port, "/"]).output();
    let output = output.expect("it runs");
    let why = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.contains("issued by nobody that is trusted"), "{why}");
}
