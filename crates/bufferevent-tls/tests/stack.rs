//! The filter in its place: over pairs on a virtual clock, over another filter, put on and taken off.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::{Bev, Deadline, Direction, Kind, Mode, Options, READ, on_read};
use bufferevent_filter::{FilterExt, Filtering, Identity};
use bufferevent_pair::pair;
use bufferevent_testkit::{Log, Loop, Told, fault, record, spec};
use bufferevent_tls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use bufferevent_tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use bufferevent_tls::rustls::{
    self, ClientConfig, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
};
use bufferevent_tls::{Failure, Reason, Tls, TlsClient, Versions};
use common::*;
use evbuffer::Eol;

/// Handshakes in a row where no more is asked for: the row says 50,000.
const HANDSHAKES: u32 = 500;

/// The environment variable that asks for more.
const HANDSHAKES_VARIABLE: &str = "BUFFEREVENT_HANDSHAKES";

fn joined_over_pair(setup: &Setup, versions: Versions) -> Joined {
    let (client, server) = setup.filters(versions);
    Joined::new(client, server)
}

#[test]
fn the_tls_filter_is_what_the_specification_says() {
    record::within("tls", "virtual", || {
        spec!(F6);
        let setup = Setup::new();
        for versions in VERSIONS {
            connected_comes_after_the_handshake(&setup, versions);
            ends_are_clean_or_truncated(&setup, versions);
            a_slow_peer_bounds_the_whole_stack(&setup, versions);
        }
        what_was_agreed_upon_is_found_from_the_top(&setup);
        wrong_certificates_fail_the_connection(&setup);
    });
}

/// Reading is disabled on both: the handshake runs all the same, and early writes go out after it.
fn connected_comes_after_the_handshake(setup: &Setup, versions: Versions) {
    let joined = joined_over_pair(setup, versions);
    joined.client.write(b"early").unwrap();
    joined.events.run();
    assert_eq!(joined.client_heard.events(), [Told::Connected]);
    assert_eq!(joined.server_heard.events(), [Told::Connected]);
    assert_eq!(joined.client_heard.told()[0], Told::Connected);
    assert!(
        joined.server.input().is_empty(),
        "a disabled direction moves no data"
    );
    joined.server.enable(READ).unwrap();
    joined.events.run();
    assert_eq!(contents(&joined.server), b"early");
    joined.client.enable(READ).unwrap();
    let text = noise(300_000, 6);
    joined.server.write(&text).unwrap();
    joined.events.run();
    assert!(contents(&joined.client) == text);
}

fn ends_are_clean_or_truncated(setup: &Setup, versions: Versions) {
    let joined = joined_over_pair(setup, versions);
    joined.server.enable(READ).unwrap();
    joined.client.write(b"to the end").unwrap();
    joined.client.finish().unwrap();
    joined.events.run();
    assert_eq!(contents(&joined.server), b"to the end");
    assert_eq!(
        joined.server_heard.events(),
        [Told::Connected, Told::Eof],
        "a close_notify is a clean end"
    );
    // The other direction goes on.
    joined.client.enable(READ).unwrap();
    joined.server.write(b"an answer").unwrap();
    joined.server.finish().unwrap();
    joined.events.run();
    assert_eq!(contents(&joined.client), b"an answer");
    assert!(joined.client_heard.has(&Told::Eof));

    let (client, _) = setup.filters(versions);
    let server = setup.server().build().unwrap().filter().unwrap();
    let joined = Joined::new(client, server);
    joined.server.enable(READ).unwrap();
    joined.events.run();
    joined.client.write(b"to be cut").unwrap();
    joined.events.run();
    // Torn off below, without a close_notify.
    let below = joined.client.tear_off().unwrap().bev;
    below.finish().unwrap();
    joined.events.run();
    assert_eq!(
        joined.server_heard.events(),
        [
            Told::Connected,
            Told::Error(Some(Direction::Read), Kind::Truncated)
        ]
    );
    assert_eq!(contents(&joined.server), b"to be cut");
}

/// The peer's plain end takes nothing: what is above holds no more than the mark and a record.
fn a_slow_peer_bounds_the_whole_stack(setup: &Setup, versions: Versions) {
    const MARK: usize = 20_000;
    const MARGIN: usize = 17_000;
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_write_watermark(0, MARK).unwrap();
    far.set_read_watermark(0, MARK).unwrap();
    let (client, server) = setup.filters(versions);
    let top = near.filter(Options::CLOSE_ON_FREE, client).unwrap();
    let far = far.filter(Options::CLOSE_ON_FREE, server).unwrap();
    far.set_read_watermark(0, MARK).unwrap();
    let text = noise(500_000, 4);
    events.run();
    top.write(&text).unwrap();
    events.run();
    assert!(near.stats().output <= MARK, "{}", near.stats().output);
    assert!(top.stats().output > text.len() - 2 * (MARK + MARGIN));
    let mut got = Vec::new();
    far.enable(READ).unwrap();
    while got.len() < text.len() {
        events.run();
        assert!(near.stats().output <= MARK && far.input().len() <= MARK);
        let more = contents(&far);
        assert!(!more.is_empty(), "stuck at {}", got.len());
        got.extend(more);
    }
    assert!(got == text);
}

fn what_was_agreed_upon_is_found_from_the_top(setup: &Setup) {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let client = setup.client().alpn(["h2"]).build().unwrap();
    let server = setup.server().alpn(["h2"]).build().unwrap();
    let near = near
        .filter(Options::CLOSE_ON_FREE, client.filter().unwrap())
        .and_then(|bev| bev.filter(Options::CLOSE_ON_FREE, Identity))
        .unwrap();
    let far = far
        .filter(Options::CLOSE_ON_FREE, server.filter().unwrap())
        .unwrap();
    events.run();
    let tls = near.filter_of::<Tls>().unwrap();
    let told = tls
        .with(|tls| {
            let alpn = tls.alpn().map(<[u8]>::to_vec);
            let peer = tls.peer_certificates().map(<[_]>::len);
            (alpn, peer, tls.protocol_version())
        })
        .unwrap();
    let version = Some(ProtocolVersion::TLSv1_3);
    assert_eq!(told, (Some(b"h2".to_vec()), Some(1), version));
    let name = far
        .filter_of::<Tls>()
        .unwrap()
        .with(|tls| tls.server_name().map(str::to_owned));
    assert_eq!(name.unwrap().as_deref(), Some(NAME));
    // A request made from the top goes out by itself, and new keys are used.
    far.enable(READ).unwrap();
    tls.with(Tls::refresh_traffic_keys).unwrap().unwrap();
    near.write(b"new keys").unwrap();
    events.run();
    assert_eq!(contents(&far), b"new keys");
}

fn wrong_certificates_fail_the_connection(setup: &Setup) {
    let client = TlsClient::builder("other.example");
    let client = client.roots_pem(setup.authority.pem().as_bytes());
    let client = client.build().unwrap().filter().unwrap();
    let joined = Joined::new(client, setup.server().build().unwrap().filter().unwrap());
    // The handshake was over, and lost, when the second filter was put on.
    let late = joined.client.write(b"never sent").unwrap_err();
    assert_eq!(late.kind(), Kind::Ended);
    joined.events.run();
    assert_eq!(
        joined.client_heard.events(),
        [Told::Error(None, Kind::Peer)]
    );
    let reason = |log: &Log| Failure::of(&log.errors()[0]).unwrap().reason();
    assert_eq!(reason(&joined.client_heard), Reason::WrongName);
    // The alert has reached the server.
    assert_eq!(
        joined.server_heard.events(),
        [Told::Error(None, Kind::Peer)]
    );
    assert!(matches!(reason(&joined.server_heard), Reason::Alert(_)));
}

/// A peer that sends a byte each second does not push the deadline away.
#[test]
fn a_handshake_that_stalls_or_dribbles_meets_its_deadline() {
    fault!(F50);
    let setup = Setup::new();
    for (dribbles, deadline) in [
        (false, Deadline::Connect),
        (true, Deadline::Connect),
        (false, Deadline::Handshake),
        (true, Deadline::Handshake),
    ] {
        let (client, server) = setup.filters(Versions::Tls13);
        let hello = End::new(client).emit(Mode::Normal);
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let top = far.filter(Options::CLOSE_ON_FREE, server).unwrap();
        let heard = Log::new();
        top.set_handler(heard.watch()).unwrap();
        top.enable(READ).unwrap();
        let ten = Some(Duration::from_secs(10));
        top.set_deadline(deadline, ten).unwrap();
        for second in 0..9 {
            if dribbles {
                near.write(&hello[second..=second]).unwrap();
            }
            events.advance(Duration::from_secs(1));
            assert_eq!(heard.events(), []);
        }
        events.advance(Duration::from_secs(1));
        assert_eq!(heard.events(), [Told::Timeout(deadline)]);
    }
}

/// Many writes before the handshake: none goes out, and with little room below nothing is lost.
#[test]
fn early_writes_wait_and_the_high_mark_holds() {
    fault!(F55);
    let setup = Setup::new();
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    near.set_write_watermark(0, 100).unwrap();
    far.set_read_watermark(0, 100).unwrap();
    far.set_write_watermark(0, 100).unwrap();
    let (client, server) = setup.filters(Versions::Tls13);
    let top = near.filter(Options::CLOSE_ON_FREE, client).unwrap();
    let text = noise(200_000, 9);
    for piece in text.chunks(1000) {
        top.write(piece).unwrap();
    }
    events.run();
    assert_eq!(
        top.output().len(),
        text.len(),
        "no byte before the handshake"
    );
    assert!(near.stats().output + far.stats().input <= 200);
    let other = far.filter(Options::CLOSE_ON_FREE, server).unwrap();
    let heard = Log::new();
    other.set_handler(heard.take_all()).unwrap();
    other.enable(READ).unwrap();
    events.run();
    assert!(heard.received() == text);
}

/// Calls something in the middle of the handshake, when the certificate is verified.
struct Calling(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Calling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calling")
    }
}

impl ServerCertVerifier for Calling {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call {
            call();
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}

#[test]
fn freed_in_the_middle_of_the_handshake() {
    fault!(F56);
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = (End::new(client), End::new(server));
    let hello = client.emit(Mode::Normal);
    server.hear(&hello, Mode::Normal);
    let length = server.emit(Mode::Normal).len();
    // After each part of what the peer says, on each side.
    for heard in (0..length).step_by(5) {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        far.enable(READ).unwrap();
        let (client, server) = setup.filters(Versions::Tls13);
        let top = near.filter(Options::CLOSE_ON_FREE, client).unwrap();
        events.run();
        let mut peer = End::new(server);
        peer.hear(&contents(&far), Mode::Normal);
        let flight = peer.emit(Mode::Normal);
        far.write(&flight[..heard.min(flight.len() - 1)]).unwrap();
        events.run();
        top.free().unwrap();
        events.run();
        assert!(top.is_freed() && near.is_freed());
        assert_eq!(events.panics(), 0);

        let (near, far) = pair(&events).unwrap();
        let (_, server) = setup.filters(Versions::Tls13);
        let top = far.filter(Options::CLOSE_ON_FREE, server).unwrap();
        near.write(&hello[..heard.min(hello.len() - 1)]).unwrap();
        events.run();
        top.free().unwrap();
        events.run();
        assert!(top.is_freed() && far.is_freed());
        assert_eq!(events.panics(), 0);
    }
}

#[test]
fn freed_in_the_verifier() {
    fault!(F56);
    let setup = Setup::new();
    let events = Loop::new();
    let verifier = Arc::new(Calling(Mutex::new(None)));
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
    let client = TlsClient::from_config(Arc::new(config), NAME).unwrap();
    let options = Options::CLOSE_ON_FREE | Options::THREADSAFE;
    let (near, far) = bufferevent_pair::pair_with(&events, options).unwrap();
    let top = near.filter(options, client.filter().unwrap()).unwrap();
    let doomed = top.clone();
    *verifier.0.lock().unwrap() = Some(Box::new(move || {
        doomed.free().unwrap();
    }));
    let server = setup.server().build().unwrap().filter().unwrap();
    let far = far.filter(options, server).unwrap();
    let heard = Log::new();
    far.set_handler(heard.watch()).unwrap();
    events.run();
    assert!(top.is_freed());
    assert_eq!(events.panics(), 0);
    assert!(
        heard
            .events()
            .iter()
            .any(|told| matches!(told, Told::Error(..)))
    );
}

#[test]
fn thousands_of_handshakes_in_a_row() {
    fault!(F58);
    let setup = Setup::new();
    let client = setup.client().build().unwrap();
    let server = setup.server().build().unwrap();
    let whole = setup.client().without_resumption().build().unwrap();
    let count =
        std::env::var(HANDSHAKES_VARIABLE).map_or(HANDSHAKES, |count| count.parse().unwrap());
    for n in 0..count {
        let client = if n % 2 == 0 { &client } else { &whole };
        let joined = Joined::new(client.filter().unwrap(), server.filter().unwrap());
        joined.server.enable(READ).unwrap();
        // Tickets come behind the handshake, to who reads.
        joined.client.enable(READ).unwrap();
        joined.client.write(&n.to_be_bytes()).unwrap();
        joined.client.finish().unwrap();
        joined.events.run();
        assert_eq!(contents(&joined.server), n.to_be_bytes());
        assert_eq!(joined.server_heard.events(), [Told::Connected, Told::Eof]);
        joined.client.free().unwrap();
        joined.server.free().unwrap();
        joined.events.run();
        assert!(joined.events.is_idle());
    }
    // What the two remember is bounded, whatever the number.
    let resumed = client.filter().unwrap();
    let (resumed, _) = common::joined(resumed, server.filter().unwrap());
    assert!(resumed.tls.is_resumed());
}

/// A pair, a filter on each end of it, TLS on each of those.
const ENDS: usize = 6;

/// Every order of the numbers below `count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = orders(count - 1);
    let place = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, count - 1);
        order
    };
    shorter
        .iter()
        .flat_map(|order| (0..count).map(move |at| place(order, at)))
        .collect()
}

#[test]
fn freed_in_any_order_over_a_filter_over_a_pair() {
    fault!(F59);
    let setup = Setup::new();
    let client = setup.client().build().unwrap();
    let server = setup.server().build().unwrap();
    for options in [Options::EMPTY, Options::CLOSE_ON_FREE] {
        for order in orders(ENDS) {
            let events = Loop::new();
            let (near, far) = pair(&events).unwrap();
            let near_filter = near.filter(options, Identity).unwrap();
            let far_filter = far.filter(options, Identity).unwrap();
            let near_tls = near_filter
                .filter(options, client.filter().unwrap())
                .unwrap();
            let far_tls = far_filter
                .filter(options, server.filter().unwrap())
                .unwrap();
            near_tls.write(b"on its way").unwrap();
            let all = [near, near_filter, near_tls, far, far_filter, far_tls];
            for one in order {
                // With CLOSE_ON_FREE those below are gone by now.
                let _ = all[one].free();
                events.turn();
            }
            events.run();
            assert!(all.iter().all(Bev::is_freed));
            assert_eq!(events.panics(), 0);
            assert!(events.is_idle());
        }
    }
}

/// STARTTLS over a pair: the command, what came with it, the handshake, and back to plain text by close_notify both ways.
#[test]
fn tls_is_put_on_a_live_stream_and_comes_off_it() {
    spec!(F6, F7);
    fault!(F57);
    let setup = Setup::new();
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let (client, server) = setup.filters(Versions::Tls13);
    let (near_heard, far_heard) = (Log::new(), Log::new());
    let covered = Arc::new(Mutex::new(None));
    let (top, log) = (covered.clone(), far_heard.clone());
    let mut server = Some(server);
    far.enable(READ).unwrap();
    far.set_handler(on_read(move |bev| {
        if let Some(line) = bev.input().read_line(Eol::Crlf, 100).unwrap() {
            assert_eq!(line, b"STARTTLS");
            bev.write(b"220 go ahead\r\n").unwrap();
            let layer = Filtering::new(server.take().unwrap());
            let covering = bev.put_on(Options::EMPTY, layer).unwrap();
            covering.set_handler(log.watch()).unwrap();
            *top.lock().unwrap() = Some(covering);
        }
    }))
    .unwrap();

    // The hello comes in the same piece as the command, and the answer to it behind the 220.
    let mut client = End::new(client);
    let hello = client.emit(Mode::Normal);
    near.enable(READ).unwrap();
    near.write(&[&b"STARTTLS\r\n"[..], &hello].concat())
        .unwrap();
    events.run();
    let line = near.input().read_line(Eol::Crlf, 100).unwrap();
    assert_eq!(line.unwrap(), b"220 go ahead");
    assert!(
        !near.input().is_empty(),
        "the server's part of the handshake"
    );
    let near_top = near
        .put_on(Options::EMPTY, Filtering::new(client.tls))
        .unwrap();
    near_top.set_handler(near_heard.watch()).unwrap();
    events.run();
    let far_top = covered.lock().unwrap().take().unwrap();
    near_top.write(b"in secret").unwrap();
    events.run();
    assert_eq!(contents(&far_top), b"in secret");
    assert_eq!(near_heard.events(), [Told::Connected]);
    assert_eq!(far_heard.events(), [Told::Connected]);

    // Plain text may follow the close_notify at once.
    near_top.write(b"goodbye").unwrap();
    near_top.finish_layer().unwrap();
    assert_eq!(near_top.take_off().unwrap_err().kind(), Kind::Misuse);
    far_top.finish_layer().unwrap();
    events.run();
    assert!(near_heard.has(&Told::Eof) && far_heard.has(&Told::Eof));
    let plain = near_top.take_off().unwrap();
    assert_eq!(plain, near);
    plain.write(b", in public").unwrap();
    events.run();
    let other = far_top.take_off().unwrap();
    assert_eq!(other, far);
    events.run();
    assert_eq!(contents(&far), b"goodbye, in public");
}
