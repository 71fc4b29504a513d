//! What a hostile or broken peer sends, to the filter as a function.

mod common;

use bufferevent_core::{Kind, Mode};
use bufferevent_filter::{Filter, Verdict};
use bufferevent_testkit::fault;
use bufferevent_tls::{
    Failure, MAX_HANDSHAKE, MAX_IDLE_RECORDS, Reason, Spoken, Tls, TlsServer, Versions,
};
use common::*;

/// Floods are this long, in records, where no more is asked for: the row says a million, which an unoptimised build takes a minute for.
const FLOOD: u32 = 50_000;

/// The environment variable that asks for more.
const FLOOD_VARIABLE: &str = "BUFFEREVENT_FLOOD";

fn flood() -> u32 {
    std::env::var(FLOOD_VARIABLE).map_or(FLOOD, |count| count.parse().unwrap())
}

fn fresh() -> (Tls, Tls) {
    Setup::new().filters(Versions::Tls12AndTls13)
}

/// How each of the two takes `bytes` as the first thing that it hears, and the end after them.
fn first_heard(bytes: &[u8]) -> [Option<Reason>; 2] {
    let (client, server) = fresh();
    [client, server].map(|tls| {
        let mut end = End::new(tls);
        end.hear(bytes, Mode::Finished);
        assert!(end.take().is_empty());
        end.reason()
    })
}

#[test]
fn what_is_no_tls_is_told_as_what_it_is() {
    fault!(F38);
    let ssl2: &[u8] = &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80];
    for (bytes, spoken) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], Spoken::Http),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Spoken::Http),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Spoken::Ssh),
        (b"220 mail.example ESMTP\r\n", Spoken::Greeting),
        (ssl2, Spoken::Ssl2),
        (&[0; 100], Spoken::Unknown),
        (&[0xff; 100_000], Spoken::Unknown),
        (b"x", Spoken::Unknown),
    ] {
        let reason = Some(Reason::NotTls(spoken));
        assert_eq!(first_heard(bytes), [reason, reason]);
    }
    for seed in 0..200 {
        for reason in first_heard(&noise(300, seed)) {
            assert!(reason.is_some(), "noise is no handshake");
        }
    }
}

#[test]
fn an_alert_goes_out_before_all_is_over() {
    let (_, server) = fresh();
    let mut server = End::new(server);
    server.hear(b"GET / HTTP/1.1\r\n\r\n", Mode::Normal);
    assert!(server.tls.wants().write);
    assert!(server.write(usize::MAX, Mode::Normal).is_err());
    assert_eq!(records(&bytes_of(&mut server.sent)), [(21, 2)]);
    assert!(!server.tls.wants().write && !server.tls.wants().read);
}

/// Every prefix of what either side sends in the handshake, followed by the end of the stream.
#[test]
fn a_handshake_that_is_cut_anywhere_is_truncated() {
    fault!(F40);
    let setup = Setup::new();
    for versions in VERSIONS {
        let (client, server) = setup.filters(versions);
        let (mut client, mut server) = (End::new(client), End::new(server));
        let hello = client.emit(Mode::Normal);
        server.hear(&hello, Mode::Normal);
        let flight = server.emit(Mode::Normal);
        let cut = |tls: Tls, spoken: bool, bytes: &[u8]| {
            let mut end = End::new(tls);
            if spoken {
                end.emit(Mode::Normal);
            }
            end.hear(bytes, Mode::Finished);
            let error = end.input.unwrap().unwrap_err();
            assert_eq!(error.operation(), "handshake");
            (error.kind(), Failure::of(&error).unwrap().reason())
        };
        for length in 0..hello.len() {
            let told = cut(setup.filters(versions).1, false, &hello[..length]);
            assert_eq!(told, (Kind::Truncated, Reason::EndInHandshake), "{length}");
        }
        // What another server says does not fit this client's keys, so it is cut from the one that it fits.
        for length in 0..flight.len() {
            let (client, server) = setup.filters(versions);
            let (mut client, mut server) = (End::new(client), End::new(server));
            server.hear(&client.emit(Mode::Normal), Mode::Normal);
            let own = server.emit(Mode::Normal);
            client.hear(&own[..length.min(own.len() - 1)], Mode::Finished);
            assert_eq!(client.reason(), Some(Reason::EndInHandshake), "{length}");
        }
    }
}

#[test]
fn a_close_right_after_the_hello_ends_it_and_nothing_spins() {
    fault!(F41);
    let setup = Setup::new();
    for versions in VERSIONS {
        for close in [[1, 0], [2, 0]] {
            let (client, server) = setup.filters(versions);
            let (mut client, mut server) = (End::new(client), End::new(server));
            server.hear(&client.emit(Mode::Normal), Mode::Normal);
            server.hear(&[21, 3, 3, 0, 2, close[0], close[1]], Mode::Finished);
            assert!(matches!(server.input, Some(Err(_))));
            assert!(server.tls.handshaking());
            let _ = server.write(usize::MAX, Mode::Finished);
            assert!(!server.tls.wants().read && !server.tls.wants().write);
        }
    }
}

#[test]
fn records_that_are_too_long_are_refused() {
    fault!(F48);
    let setup = Setup::new();
    for versions in VERSIONS {
        for length in [16_384_u16 + 2048 + 1, 0xffff] {
            for joined_first in [false, true] {
                let (client, server) = setup.filters(versions);
                let mut server = if joined_first {
                    joined(client, server).1
                } else {
                    End::new(server)
                };
                let [high, low] = length.to_be_bytes();
                let kind = if joined_first { 23 } else { 22 };
                let mut bytes = vec![kind, 3, 3, high, low];
                bytes.resize(5 + usize::from(length), 7);
                server.hear(&bytes, Mode::Normal);
                assert_eq!(server.reason(), Some(Reason::Protocol), "{length}");
                assert!(server.take().is_empty());
            }
        }
        // One byte more than a record may hold, as a record of its own that does not decrypt either.
        let (client, server) = setup.filters(versions);
        let (_, mut server) = joined(client, server);
        let mut bytes = vec![23, 3, 3, 0x41, 0x01];
        bytes.resize(5 + 16_384 + 257, 7);
        server.hear(&bytes, Mode::Normal);
        assert!(matches!(server.input, Some(Err(_))));
        assert!(server.take().is_empty());
    }
}

#[test]
fn a_handshake_without_end_is_cut_off() {
    fault!(F49);
    // A message that says it has 16 MiB; one that has 64 KiB and one byte.
    for length in [0x00ff_ffff_u32, 0x0001_0000] {
        let [_, a, b, c] = length.to_be_bytes();
        let (_, server) = fresh();
        let mut server = End::new(server);
        let mut message = vec![1, a, b, c];
        message.resize(70_000, 0);
        for piece in message.chunks(16_000) {
            let [high, low] = (piece.len() as u16).to_be_bytes();
            server.arrived.append_slice(&[22, 3, 1, high, low]).unwrap();
            server.arrived.append_slice(piece).unwrap();
        }
        server.read(usize::MAX, Mode::Normal);
        assert_eq!(server.reason(), Some(Reason::HandshakeTooLong));
    }
    // A message of the allowed length that never ends, in records of one byte.
    let (_, server) = fresh();
    let mut server = End::new(server);
    server.hear(&[22, 3, 1, 0, 4, 1, 0, 0xff, 0], Mode::Normal);
    let mut fed = 0;
    while server.reason().is_none() {
        server.hear(&[22, 3, 1, 0, 1, 0], Mode::Normal);
        fed += 6;
        assert!(fed < 2 * MAX_HANDSHAKE, "nothing stops it");
    }
    let error = server.input.clone().unwrap().unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit | Kind::Peer));
}

#[test]
fn a_chain_of_a_hundred_certificates_is_taken_or_refused_by_length() {
    fault!(F49);
    let setup = Setup::new();
    let chain = |count: usize| {
        let extra = setup.authority.issue(&["filler.example"]).chain;
        setup.leaf.chain.clone() + &extra.repeat(count - 1)
    };
    for (count, passes) in [(100, true), (400, false)] {
        let server = TlsServer::new(chain(count).as_bytes(), setup.leaf.key.as_bytes()).unwrap();
        for versions in VERSIONS {
            let client = setup.client().versions(versions).build().unwrap();
            let mut client = End::new(client.filter().unwrap());
            let mut server = End::new(server.filter().unwrap());
            talk(&mut client, &mut server);
            assert_eq!(!client.tls.handshaking(), passes, "{:?}", client.input);
            if !passes {
                assert_eq!(client.reason(), Some(Reason::HandshakeTooLong));
            }
        }
    }
}

#[test]
fn a_flood_of_one_byte_records_stays_within_its_room() {
    fault!(F51);
    const ROOM: usize = 1000;
    let (client, server) = fresh();
    let (mut client, mut server) = joined(client, server);
    let mut received = 0;
    let mut sent = 0;
    while received < flood() as usize {
        for _ in 0..ROOM {
            client.written.append_slice(b"x").unwrap();
            let record = client.emit(Mode::Normal);
            server.arrived.append_slice(&record).unwrap();
        }
        sent += ROOM;
        // With room for half of it, half of it is taken, and the rest is not even read.
        let mut sink = bufferevent_filter::Sink::new(&mut server.got, ROOM / 2);
        let verdict = server
            .tls
            .input(&mut server.arrived, &mut sink, Mode::Normal);
        assert_eq!(verdict.unwrap(), Verdict::Full);
        assert_eq!(server.got.len(), ROOM / 2);
        assert!(server.arrived.len() >= (ROOM / 2 - 1) * 23);
        server.read(usize::MAX, Mode::Normal);
        received += server.take().len();
    }
    assert_eq!(received, sent);
}

#[test]
fn a_flood_of_empty_records_is_a_limit_that_is_reached() {
    fault!(F52);
    let setup = Setup::new();
    let (_, mut server) = setup.forgeable();
    let empty = null::record(23, b"");
    // Thirty are no flood, over and over, as long as something comes between them.
    for _ in 0..20 {
        server.hear(&empty.repeat(30), Mode::Normal);
        server.hear(&null::record(23, b"x"), Mode::Normal);
        assert!(
            matches!(server.input, Some(Ok(Verdict::NeedInput))),
            "{:?}",
            server.input
        );
    }
    assert_eq!(server.take(), [b'x'; 20]);
    server.hear(&empty.repeat(flood() as usize), Mode::Normal);
    // rustls counts these itself, and is the first to refuse them.
    assert_eq!(server.reason(), Some(Reason::Protocol));
    let read = flood() as usize * empty.len() - server.arrived.len();
    assert!(read <= (MAX_IDLE_RECORDS as usize + 1) * empty.len());
}

/// Session tickets without end: each is taken, and the flood of them is a limit that is reached.
#[test]
fn a_flood_of_tickets_is_a_limit_that_is_reached() {
    fault!(F53);
    let setup = Setup::new();
    let (mut client, _) = setup.forgeable();
    // NewSessionTicket: lifetime, age, nonce, ticket, extensions.
    let ticket = [4, 0, 0, 15, 0, 0, 0, 9, 0, 0, 0, 1, 1, 7, 0, 1, 7, 0, 0];
    let tickets = null::record(22, &ticket).repeat(1000);
    client.hear(&tickets, Mode::Normal);
    let error = client.input.clone().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert_eq!(client.reason(), Some(Reason::IdleRecords));
    let read = tickets.len() - client.arrived.len();
    assert!(read <= (MAX_IDLE_RECORDS as usize + 1) * (tickets.len() / 1000));
}

/// Key updates, change_cipher_specs and alerts without end: refused soon, and never answered one for one.
#[test]
fn floods_of_what_is_no_data_are_cut_off() {
    fault!(F53);
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = joined(client, server);
    let mut answered = 0;
    for _ in 0..1000 {
        client.tls.refresh_traffic_keys().unwrap();
        let update = client.emit(Mode::Normal);
        server.hear(&update, Mode::Normal);
        if server.reason().is_some() {
            break;
        }
        answered += server.emit(Mode::Normal).len();
    }
    assert_eq!(
        server.reason(),
        Some(Reason::Protocol),
        "{:?}",
        server.input
    );
    assert!(answered < 4096, "{answered} bytes of answers");

    for versions in VERSIONS {
        for record in [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 90]] {
            // In the handshake, where neither is encrypted.
            let (client, server) = setup.filters(versions);
            let (mut client, mut server) = (End::new(client), End::new(server));
            server.hear(&client.emit(Mode::Normal), Mode::Normal);
            server.hear(&record.repeat(flood() as usize), Mode::Normal);
            assert!(matches!(server.input, Some(Err(_))));
            // And behind it, encrypted.
            let (_, mut server) = setup.forgeable();
            let inner = null::record(record[0], &record[5..]);
            server.hear(&inner.repeat(1000), Mode::Normal);
            assert!(matches!(server.input, Some(Err(_))));
            // And as it is, where it has to be encrypted.
            let (client, server) = setup.filters(versions);
            let (_, mut server) = joined(client, server);
            server.hear(record, Mode::Normal);
            assert!(matches!(server.input, Some(Err(_))));
        }
    }
}

/// Asking for a new handshake over and over, which TLS 1.2 can: refused, in plain text or not.
#[test]
fn renegotiation_is_refused() {
    fault!(F53);
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls12);
    let (mut client, mut server) = joined(client, server);
    let (other, _) = setup.filters(Versions::Tls12);
    server.hear(&End::new(other).emit(Mode::Normal), Mode::Normal);
    assert!(matches!(server.input, Some(Err(_))), "a second hello");
    client.hear(&[22, 3, 3, 0, 4, 0, 0, 0, 0], Mode::Normal);
    assert!(matches!(client.input, Some(Err(_))), "a hello request");
}

#[test]
fn nothing_behind_a_damaged_record_is_delivered() {
    fault!(F54);
    let setup = Setup::new();
    for versions in VERSIONS {
        for damaged in [5, 20, 60] {
            let (client, server) = setup.filters(versions);
            let (mut client, mut server) = joined(client, server);
            let mut bytes = Vec::new();
            let mut second = 0;
            for text in [&[b'a'; 50], &[b'b'; 50], &[b'c'; 50]] {
                client.written.append_slice(text).unwrap();
                let record = client.emit(Mode::Normal);
                second = record.len();
                bytes.extend(record);
            }
            bytes[second + damaged] ^= 1;
            server.hear(&bytes, Mode::Normal);
            assert_eq!(server.take(), [b'a'; 50], "what came before is told");
            assert_eq!(server.reason(), Some(Reason::BadRecord));
            assert!(server.write(usize::MAX, Mode::Normal).is_err());
            assert!(!server.sent.is_empty(), "an alert says so");
            client.arrived.append(&mut server.sent).unwrap();
            client.read(usize::MAX, Mode::Normal);
            assert_eq!(client.reason(), Some(Reason::Alert(20)), "bad_record_mac");
        }
    }
}
