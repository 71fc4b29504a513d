//! The filter as two functions: handshakes, data, ends, in pieces of any size.

mod common;

use bufferevent_core::{Kind, Mode};
use bufferevent_filter::{Filter, Verdict};
use bufferevent_testkit::{fault, spec};
use bufferevent_tls::{Failure, Reason, Versions};
use common::*;
use evbuffer::EvBuffer;

#[test]
fn a_handshake_and_a_megabyte_each_way() {
    spec!(F6);
    let setup = Setup::new();
    for versions in VERSIONS {
        let (client, server) = setup.filters(versions);
        let (mut client, mut server) = joined(client, server);
        let (up, down) = (noise(1 << 20, 1), noise(1 << 20, 2));
        client.written.append_slice(&up).unwrap();
        server.written.append_slice(&down).unwrap();
        talk(&mut client, &mut server);
        assert!(server.take() == up);
        assert!(client.take() == down);
        let expected = match versions {
            Versions::Tls12 => bufferevent_tls::rustls::ProtocolVersion::TLSv1_2,
            _ => bufferevent_tls::rustls::ProtocolVersion::TLSv1_3,
        };
        assert_eq!(client.tls.protocol_version(), Some(expected));
        assert_eq!(server.tls.protocol_version(), Some(expected));
        assert_eq!(client.tls.cipher_suite(), server.tls.cipher_suite());
        assert_eq!(server.tls.server_name(), Some(NAME));
        assert_eq!(client.tls.peer_certificates().unwrap().len(), 1);
        assert_eq!(server.tls.peer_certificates(), None);
    }
}

/// One byte per segment; one byte of room; and every record of the handshake cut into records of one byte.
#[test]
fn handshakes_and_data_in_the_smallest_pieces() {
    fault!(F39);
    let setup = Setup::new();
    for versions in VERSIONS {
        let (client, server) = setup.filters(versions);
        let (mut client, mut server) = (End::new(client), End::new(server));
        talk_by(&mut client, &mut server, 1);
        assert!(!client.tls.handshaking() && !server.tls.handshaking());
        let text = noise(70_000, 3);
        client.written.append_slice(&text).unwrap();
        assert_eq!(client.write(1, Mode::Normal).unwrap(), Verdict::NeedInput);
        server.arrived.append(&mut client.sent).unwrap();
        server.read(1, Mode::Normal);
        assert!(server.take() == text);
    }
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = (End::new(client), End::new(server));
    let hello = client.emit(Mode::Normal);
    assert_eq!(records(&hello).len(), 1);
    for byte in &hello[5..] {
        server
            .arrived
            .append_slice(&[22, 3, 1, 0, 1, *byte])
            .unwrap();
        server.read(usize::MAX, Mode::Normal);
        assert_eq!(server.input.take().unwrap().unwrap(), Verdict::NeedInput);
    }
    talk(&mut client, &mut server);
    assert!(!client.tls.handshaking() && !server.tls.handshaking());
}

#[test]
fn many_small_writes_are_one_record_and_large_ones_are_full() {
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = joined(client, server);
    for n in 0..1000_u16 {
        let piece = n.to_be_bytes();
        client.written.append_slice(&piece).unwrap();
    }
    let bytes = client.emit(Mode::Normal);
    assert_eq!(records(&bytes).len(), 1);
    server.arrived.append_slice(&bytes).unwrap();

    // Segments that cannot be one: each with storage of its own.
    for n in 0..1000_u16 {
        let mut other = EvBuffer::new();
        other.append_slice(&n.to_be_bytes().repeat(10)).unwrap();
        client.written.append(&mut other).unwrap();
    }
    let bytes = client.emit(Mode::Normal);
    let lengths: Vec<usize> = records(&bytes).iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [16384 + 17, 20_000 - 16_384 + 17]);
    server.arrived.append_slice(&bytes).unwrap();
    server.read(usize::MAX, Mode::Normal);
    assert_eq!(server.take().len(), 2000 + 20_000);
}

#[test]
fn without_room_one_record_waits_and_no_more() {
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, _) = joined(client, server);
    client.written.append_slice(&noise(100_000, 5)).unwrap();
    let mut sink = bufferevent_filter::Sink::new(&mut client.sent, 10);
    let verdict = client
        .tls
        .output(&mut client.written, &mut sink, Mode::Normal);
    assert_eq!(verdict.unwrap(), Verdict::Full);
    assert_eq!(client.sent.len(), 10);
    assert_eq!(client.written.len(), 100_000 - 16_384);
    assert!(client.tls.wants().write);
}

#[test]
fn a_close_notify_is_an_end_and_without_one_there_is_none() {
    spec!(F6);
    fault!(F42);
    let setup = Setup::new();
    for versions in VERSIONS {
        let (client, server) = setup.filters(versions);
        let (mut client, mut server) = joined(client, server);
        client.written.append_slice(b"last words").unwrap();
        let verdict = client.write(usize::MAX, Mode::Finished).unwrap();
        assert_eq!(verdict, Verdict::End);
        server.arrived.append(&mut client.sent).unwrap();
        server.read(usize::MAX, Mode::Normal);
        assert!(matches!(server.input, Some(Ok(Verdict::End))));
        assert_eq!(server.take(), b"last words");

        let (client, server) = setup.filters(versions);
        let (mut client, mut server) = joined(client, server);
        client.written.append_slice(b"cut off").unwrap();
        let bytes = client.emit(Mode::Normal);
        server.hear(&bytes, Mode::Finished);
        assert_eq!(server.take(), b"cut off", "what came is told first");
        let error = server.input.as_ref().unwrap().as_ref().unwrap_err();
        assert_eq!(error.kind(), Kind::Truncated);
        assert_eq!(server.reason(), Some(Reason::NoCloseNotify));
    }
}

#[test]
fn a_dirty_shutdown_can_be_allowed_but_not_within_a_record() {
    fault!(F42);
    let setup = Setup::new();
    for cut in [0, 1, 4, 9] {
        let client = setup.client().build().unwrap();
        let server = setup.server().allow_dirty_shutdown().build().unwrap();
        let (mut client, mut server) = joined(client.filter().unwrap(), server.filter().unwrap());
        client.written.append_slice(b"whole").unwrap();
        let one = client.emit(Mode::Normal);
        client.written.append_slice(b"half of it").unwrap();
        let other = client.emit(Mode::Normal);
        server.arrived.append_slice(&one).unwrap();
        server.arrived.append_slice(&other[..cut]).unwrap();
        server.read(usize::MAX, Mode::Finished);
        assert_eq!(server.take(), b"whole");
        match cut {
            0 => assert!(matches!(server.input, Some(Ok(Verdict::NeedInput)))),
            _ => assert_eq!(server.reason(), Some(Reason::NoCloseNotify)),
        }
    }
}

#[test]
fn what_follows_a_close_notify_stays_below_and_half_closed_writing_goes_on() {
    fault!(F57);
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = joined(client, server);
    let bytes = client.emit(Mode::Finished);
    server.arrived.append_slice(&bytes).unwrap();
    server.arrived.append_slice(b"plain text again").unwrap();
    server.read(usize::MAX, Mode::Normal);
    assert!(matches!(server.input, Some(Ok(Verdict::End))));
    assert_eq!(bytes_of(&mut server.arrived), b"plain text again");
    assert!(server.take().is_empty());
    let answer = noise(100_000, 8);
    server.written.append_slice(&answer).unwrap();
    let bytes = server.emit(Mode::Finished);
    client.hear(&bytes, Mode::Normal);
    assert!(client.take() == answer);
    assert!(matches!(client.input, Some(Ok(Verdict::End))));
}

#[test]
fn keys_are_refreshed_on_request_with_tls13_alone() {
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = joined(client, server);
    client.tls.refresh_traffic_keys().unwrap();
    assert!(client.tls.wants().write, "the request goes out at once");
    talk(&mut client, &mut server);
    client.written.append_slice(b"new keys").unwrap();
    server.written.append_slice(b"here too").unwrap();
    talk(&mut client, &mut server);
    assert_eq!(server.take(), b"new keys");
    assert_eq!(client.take(), b"here too");
    let (client, server) = setup.filters(Versions::Tls12);
    let (mut client, _) = joined(client, server);
    let error = client.tls.refresh_traffic_keys().unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse);
}

#[test]
fn keys_are_not_refreshed_behind_an_alert() {
    let setup = Setup::new();
    let (client, server) = setup.filters(Versions::Tls13);
    let (mut client, mut server) = joined(client, server);
    client.emit(Mode::Finished);
    server.hear(
        &[
            23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
        ],
        Mode::Normal,
    );
    assert!(
        server.write(usize::MAX, Mode::Normal).is_err(),
        "the record does not decrypt"
    );
    for end in [&mut client, &mut server] {
        let error = end.tls.refresh_traffic_keys().unwrap_err();
        assert_eq!(error.kind(), Kind::Ended);
        assert!(!end.tls.wants().write, "nothing is said any more");
    }
}

#[test]
fn sessions_are_resumed_unless_they_are_not_to_be() {
    spec!(F6);
    let setup = Setup::new();
    for versions in VERSIONS {
        let client = setup.client().versions(versions).build().unwrap();
        let server = setup.server().build().unwrap();
        for resumed in [false, true, true] {
            let (client, server) = (client.filter().unwrap(), server.filter().unwrap());
            let (client, server) = joined(client, server);
            assert_eq!(client.tls.is_resumed(), resumed);
            assert_eq!(server.tls.is_resumed(), resumed);
        }
        let never = setup.server().without_resumption().build().unwrap();
        for _ in 0..2 {
            let (client, server) = joined(client.filter().unwrap(), never.filter().unwrap());
            assert!(!client.tls.is_resumed() && !server.tls.is_resumed());
        }
    }
}

/// No byte of the user's before the handshake is over.
#[test]
fn what_is_written_early_waits_for_the_handshake() {
    fault!(F55);
    let setup = Setup::new();
    let (mut client, _) = setup.filters(Versions::Tls13);
    let (mut source, mut out) = (EvBuffer::from(&b"secret"[..]), EvBuffer::new());
    let mut sink = bufferevent_filter::Sink::new(&mut out, usize::MAX);
    let verdict = client.output(&mut source, &mut sink, Mode::Finished);
    assert_eq!(verdict.unwrap(), Verdict::NeedInput);
    assert_eq!(source.len(), 6);
    assert_eq!(records(&bytes_of(&mut out)).len(), 1, "the hello alone");
}

#[test]
fn a_failure_says_why_and_stays() {
    let setup = Setup::new();
    let (_, server) = setup.filters(Versions::Tls13);
    let mut server = End::new(server);
    server
        .arrived
        .append_slice(b"GET / HTTP/1.1\r\n\r\n")
        .unwrap();
    server.read(usize::MAX, Mode::Normal);
    let error = server.input.clone().unwrap().unwrap_err();
    assert_eq!(
        Failure::of(&error).unwrap().to_string(),
        "the peer does not speak TLS: it speaks HTTP as plain text"
    );
    assert!(Failure::of(&error).unwrap().rustls().is_some());
    assert!(server.write(usize::MAX, Mode::Finished).is_err());
    server.read(usize::MAX, Mode::Normal);
    assert!(matches!(server.input, Some(Err(_))));
}
