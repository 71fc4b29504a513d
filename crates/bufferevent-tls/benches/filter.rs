//! What the filter costs over bare rustls, in memory: `cargo bench -p bufferevent-tls`.
//!
//! The same bytes go through two bare connections (one slice in, records in a `Vec`, one slice out) and through two filters (a
//! buffer of 64 KiB segments in, a buffer between, a buffer out), in turns. Only the ratio of one run means anything. With
//! `--features aws-lc-rs` the other provider is measured.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use bufferevent_core::Mode;
use bufferevent_filter::{Filter as _, Sink, Verdict};
use bufferevent_tls::rustls::{ClientConnection, Connection, ServerConnection};
use bufferevent_tls::{Tls, TlsClient, TlsServer, Versions};
use bytes::Bytes;
use evbuffer::EvBuffer;

const NAME: &str = "server.example";
const LENGTH: usize = 4 << 20;
const SEGMENT: usize = 64 * 1024;
const ROUNDS: usize = 61;
const HANDSHAKES: u32 = 200;

fn setup(versions: Versions) -> (TlsClient, TlsServer) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("the name is one");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let client = TlsClient::builder(NAME)
        .roots_pem(chain.as_bytes())
        .versions(versions)
        .without_resumption()
        .build();
    let server = TlsServer::builder().certificate(chain.as_bytes(), key.as_bytes());
    let server = server.without_resumption().build();
    (
        client.expect("it can be trusted"),
        server.expect("the key is its"),
    )
}

/// Bare connections whose handshake is over.
fn bare((client, server): &(TlsClient, TlsServer)) -> (Connection, Connection) {
    let name = NAME.try_into().expect("the name is one");
    let mut client =
        Connection::Client(ClientConnection::new(client.config().clone(), name).expect("built"));
    let mut server =
        Connection::Server(ServerConnection::new(server.config().clone()).expect("built"));
    client.set_buffer_limit(None);
    while client.is_handshaking() || server.is_handshaking() {
        carry(&mut client, &mut server);
        carry(&mut server, &mut client);
    }
    carry(&mut server, &mut client);
    (client, server)
}

fn carry(from: &mut Connection, to: &mut Connection) {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("a Vec takes all");
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).expect("there is room");
        to.process_new_packets().expect("it is a good peer");
    }
}

/// `LENGTH` bytes through bare connections, a segment at a time.
fn run_bare(client: &mut Connection, server: &mut Connection, text: &[u8]) -> Duration {
    let mut wire = Vec::with_capacity(SEGMENT * 2);
    let mut plain = vec![0; SEGMENT];
    let start = Instant::now();
    for piece in text.chunks(SEGMENT) {
        client.writer().write_all(piece).expect("it takes all");
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a Vec takes all");
        }
        let mut rest = wire.as_slice();
        let mut got = 0;
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("there is room");
            let state = server.process_new_packets().expect("it is a good peer");
            if state.plaintext_bytes_to_read() > 0 {
                got += server.reader().read(&mut plain[got..]).expect("it said so");
            }
        }
        assert_eq!(black_box(&plain[..got]).len(), piece.len());
    }
    start.elapsed()
}

struct Filters {
    client: Tls,
    server: Tls,
    wire: EvBuffer,
    out: EvBuffer,
}

impl Filters {
    fn new((client, server): &(TlsClient, TlsServer)) -> Self {
        let mut filters = Self {
            client: client.filter().expect("it was built"),
            server: server.filter().expect("it was built"),
            wire: EvBuffer::new(),
            out: EvBuffer::new(),
        };
        while filters.client.handshaking() || filters.server.handshaking() {
            filters.step(&mut EvBuffer::new());
            let Filters {
                client,
                server,
                wire,
                out,
            } = &mut filters;
            let mut none = EvBuffer::new();
            one(server.output(&mut none, &mut Sink::new(wire, usize::MAX), Mode::Normal));
            one(client.input(wire, &mut Sink::new(out, usize::MAX), Mode::Normal));
        }
        filters
    }

    /// All of `source` from the client to the server.
    fn step(&mut self, source: &mut EvBuffer) {
        let Self {
            client,
            server,
            wire,
            out,
        } = self;
        one(client.output(source, &mut Sink::new(wire, usize::MAX), Mode::Normal));
        one(server.input(wire, &mut Sink::new(out, usize::MAX), Mode::Normal));
    }
}

fn one(verdict: Result<Verdict, bufferevent_core::Error>) {
    assert_eq!(verdict.expect("it is a good peer"), Verdict::NeedInput);
}

fn run_filters(filters: &mut Filters, text: &Bytes) -> Duration {
    let start = Instant::now();
    for at in (0..text.len()).step_by(SEGMENT) {
        let mut source = EvBuffer::new();
        let piece = text.slice(at..at + SEGMENT);
        source.append_bytes(piece).expect("there is memory");
        filters.step(&mut source);
        assert_eq!(black_box(&filters.out).len(), SEGMENT);
        filters.out.clear();
    }
    start.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let text: Bytes = (0..LENGTH).map(|n| ((n * 31) >> 3) as u8).collect();
    for versions in [Versions::Tls12, Versions::Tls13] {
        let ends = setup(versions);
        let (mut ratios, mut speeds) = (Vec::new(), Vec::new());
        let mut suite = None;
        for _ in 0..ROUNDS {
            // Anew each time: where buffers happen to lie changes what a copy costs by half.
            let (mut client, mut server) = bare(&ends);
            let mut filters = Filters::new(&ends);
            suite = filters.client.cipher_suite();
            let bare = run_bare(&mut client, &mut server, &text);
            let ours = run_filters(&mut filters, &text);
            ratios.push(bare.as_secs_f64() / ours.as_secs_f64());
            speeds.push(LENGTH as f64 / ours.as_secs_f64() / f64::from(1 << 20));
        }
        let start = Instant::now();
        for _ in 0..HANDSHAKES {
            black_box(Filters::new(&ends));
        }
        let each = start.elapsed() / HANDSHAKES;
        println!(
            "{versions:?} {suite:?}: filter over bare rustls {:.2}, {:.0} MiB/s both ends on one core; {each:?} a whole handshake",
            median(ratios),
            median(speeds),
        );
    }
}
