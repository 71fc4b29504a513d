//! Certificates made on the spot, and two filters joined without anything below them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod null;

use std::error::Error as _;

use bufferevent_core::{Bev, Error, Kind, Mode, Options};
use bufferevent_filter::{Filter, FilterExt, Sink, Verdict};
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop};
use bufferevent_tls::{
    ClientBuilder, Failure, Reason, ServerBuilder, Tls, TlsClient, TlsServer, Versions,
};
use evbuffer::EvBuffer;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

pub(crate) const NAME: &str = "server.example";

pub(crate) const VERSIONS: [Versions; 2] = [Versions::Tls12, Versions::Tls13];

/// Calls for one piece of work before a filter counts as spinning.
const MAX_CALLS: usize = 1 << 20;

/// An authority of one test.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) serial: Option<rcgen::SerialNumber>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("an authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `names`, with whatever `change` makes different.
    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let serial = params.serial_number.clone();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Leaf {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_with(names, |_| {})
    }
}

/// An authority, a server's certificate by it, and builders that fit.
pub(crate) struct Setup {
    pub(crate) authority: Authority,
    pub(crate) leaf: Leaf,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let leaf = authority.issue(&[NAME]);
        Self { authority, leaf }
    }

    pub(crate) fn server(&self) -> ServerBuilder {
        serving(&self.leaf)
    }

    pub(crate) fn client(&self) -> ClientBuilder {
        TlsClient::builder(NAME).roots_pem(self.authority.pem().as_bytes())
    }

    /// Two ends that have agreed to encrypt nothing.
    pub(crate) fn forgeable(&self) -> (End, End) {
        let client = self.client().versions(Versions::Tls13);
        let server = self.server().versions(Versions::Tls13);
        let client = client.provider(null::provider()).build().unwrap();
        let server = server.provider(null::provider()).build().unwrap();
        joined(client.filter().unwrap(), server.filter().unwrap())
    }

    /// A client's and a server's filter that fit.
    pub(crate) fn filters(&self, versions: Versions) -> (Tls, Tls) {
        let client = self.client().versions(versions).build().unwrap();
        let server = self.server().build().unwrap();
        (client.filter().unwrap(), server.filter().unwrap())
    }
}

pub(crate) fn serving(leaf: &Leaf) -> ServerBuilder {
    TlsServer::builder().certificate(leaf.chain.as_bytes(), leaf.key.as_bytes())
}

/// One end of a stream in memory: a filter, what came for it, what it has to say, what its user got and wrote.
pub(crate) struct End {
    pub(crate) tls: Tls,
    pub(crate) arrived: EvBuffer,
    pub(crate) sent: EvBuffer,
    pub(crate) got: EvBuffer,
    pub(crate) written: EvBuffer,
    pub(crate) input: Option<Result<Verdict, Error>>,
}

impl End {
    pub(crate) fn new(tls: Tls) -> Self {
        Self {
            tls,
            arrived: EvBuffer::new(),
            sent: EvBuffer::new(),
            got: EvBuffer::new(),
            written: EvBuffer::new(),
            input: None,
        }
    }

    /// Runs the input side until it wants more than room, as the layer would; an alert follows.
    pub(crate) fn read(&mut self, limit: usize, mode: Mode) {
        for _ in 0..MAX_CALLS {
            let here = (self.arrived.len(), self.got.len());
            let mut sink = Sink::new(&mut self.got, limit);
            match self.tls.input(&mut self.arrived, &mut sink, mode) {
                Ok(Verdict::Full) => {
                    assert!(
                        (self.arrived.len(), self.got.len()) != here,
                        "full, and nothing came"
                    );
                }
                other => {
                    self.input = Some(other);
                    return;
                }
            }
        }
        panic!("it spins");
    }

    /// Runs the output side until all is out.
    pub(crate) fn write(&mut self, limit: usize, mode: Mode) -> Result<Verdict, Error> {
        for _ in 0..MAX_CALLS {
            let here = (self.written.len(), self.sent.len());
            let mut sink = Sink::new(&mut self.sent, limit);
            let mut none = EvBuffer::new();
            let source = if self.tls.handshaking() {
                &mut none
            } else {
                &mut self.written
            };
            match self.tls.output(source, &mut sink, mode)? {
                Verdict::Full => {
                    assert!(
                        (self.written.len(), self.sent.len()) != here,
                        "full, and nothing went"
                    );
                }
                verdict => return Ok(verdict),
            }
        }
        panic!("it spins");
    }

    /// Runs the output side without a limit; it must not fail.
    pub(crate) fn emit(&mut self, mode: Mode) -> Vec<u8> {
        let _ = self.write(usize::MAX, mode).unwrap();
        bytes_of(&mut self.sent)
    }

    /// Gives bytes that came to the input side, without a limit.
    pub(crate) fn hear(&mut self, bytes: &[u8], mode: Mode) {
        self.arrived.append_slice(bytes).unwrap();
        self.read(usize::MAX, mode);
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        bytes_of(&mut self.got)
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        match &self.input {
            Some(Err(error)) => Failure::of(error).map(Failure::reason),
            _ => None,
        }
    }
}

pub(crate) fn bytes_of(buffer: &mut EvBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    assert_eq!(buffer.remove(&mut bytes), bytes.len());
    bytes
}

/// Lets two ends talk until neither has anything to say.
pub(crate) fn talk(a: &mut End, b: &mut End) {
    talk_by(a, b, usize::MAX);
}

/// The same, with so many bytes of each carried at a time.
pub(crate) fn talk_by(a: &mut End, b: &mut End, step: usize) {
    loop {
        let _ = a.write(usize::MAX, Mode::Normal);
        let _ = b.write(usize::MAX, Mode::Normal);
        if a.sent.is_empty() && b.sent.is_empty() {
            return;
        }
        a.sent.move_to(step, &mut b.arrived).unwrap();
        b.sent.move_to(step, &mut a.arrived).unwrap();
        for end in [&mut *a, &mut *b] {
            if !end.arrived.is_empty() && !matches!(end.input, Some(Err(_) | Ok(Verdict::End))) {
                end.read(usize::MAX, Mode::Normal);
            } else {
                end.arrived.clear();
            }
        }
    }
}

/// Two ends whose handshake is over.
pub(crate) fn joined(client: Tls, server: Tls) -> (End, End) {
    let (mut client, mut server) = (End::new(client), End::new(server));
    talk(&mut client, &mut server);
    assert!(!client.tls.handshaking(), "{:?}", client.input);
    assert!(!server.tls.handshaking(), "{:?}", server.input);
    (client, server)
}

/// How a handshake that fails ends: what the client says, and the server.
pub(crate) fn refused(
    client: &ClientBuilder,
    server: &ServerBuilder,
) -> (Option<Reason>, Option<Reason>) {
    let mut client = End::new(client.build().unwrap().filter().unwrap());
    let mut server = End::new(server.build().unwrap().filter().unwrap());
    talk(&mut client, &mut server);
    for end in [&client, &server] {
        if let Some(Err(error)) = &end.input {
            assert_eq!(error.kind(), Kind::Peer);
            assert!(error.source().is_some());
        }
    }
    (client.reason(), server.reason())
}

/// TLS on both ends of a pair, and what each end hears.
pub(crate) struct Joined {
    pub(crate) events: Loop,
    pub(crate) client: Bev,
    pub(crate) server: Bev,
    pub(crate) client_heard: Log,
    pub(crate) server_heard: Log,
}

impl Joined {
    pub(crate) fn new(client: Tls, server: Tls) -> Self {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let client = near.filter(Options::CLOSE_ON_FREE, client).unwrap();
        let server = far.filter(Options::CLOSE_ON_FREE, server).unwrap();
        let (client_heard, server_heard) = (Log::new(), Log::new());
        client.set_handler(client_heard.watch()).unwrap();
        server.set_handler(server_heard.watch()).unwrap();
        Self {
            events,
            client,
            server,
            client_heard,
            server_heard,
        }
    }
}

pub(crate) fn contents(bev: &Bev) -> Vec<u8> {
    let mut bytes = vec![0; bev.input().len()];
    assert_eq!(bev.read(&mut bytes).unwrap(), bytes.len());
    bytes
}

/// Bytes that differ from place to place.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}

/// The lengths of the records that `bytes` consist of, and their types.
pub(crate) fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        found.push((*kind, length));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    found
}
