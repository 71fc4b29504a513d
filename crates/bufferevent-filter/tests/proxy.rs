//! The PROXY protocol: every cut, every kind of garbage, and not a byte behind the header lost.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bufferevent_core::{Bev, Deadline, Error, Event, Kind, Options, READ, on_event};
use bufferevent_filter::FilterExt;
use bufferevent_filter::proxy::{
    Addresses, BadHeader, CRC32C, Header, MAX_HEADER, Parsed, ProxyReceive, ProxySend, Version,
    parse,
};
use bufferevent_pair::pair;
use bufferevent_testkit::Loop;
use std::sync::{Arc, Mutex};
use support::contents;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A version 2 header of these parts.
fn block(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
    let length = u16::try_from(behind.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, behind].concat()
}

fn v4_block() -> Vec<u8> {
    vec![192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb]
}

/// Right headers, with what they say.
fn right() -> Vec<(Vec<u8>, Addresses)> {
    let inet = |source, destination| Addresses::Inet {
        source: address(source),
        destination: address(destination),
    };
    let v4 = inet("192.0.2.7:4711", "198.51.100.1:443");
    let v6 = inet("[2001:db8::7]:65535", "[2001:db8::1]:0");
    let mut paths = vec![0; 216];
    paths[..4].copy_from_slice(b"/a/b");
    paths[108..110].copy_from_slice(b"/c");
    let with_field = [&v4_block()[..], &[0x02, 0, 3, b'a', b'.', b'b']].concat();
    vec![
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
            v4.clone(),
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n".to_vec(),
            v6.clone(),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Addresses::Unknown),
        (
            b"PROXY UNKNOWN ffff:f...f:ffff 65535 \xc3\xa9\r\n".to_vec(),
            Addresses::Unknown,
        ),
        (
            Header::of_addresses(
                Version::V2,
                address("192.0.2.7:4711"),
                address("198.51.100.1:443"),
            )
            .to_bytes(),
            v4.clone(),
        ),
        (
            Header::of_addresses(
                Version::V2,
                address("[2001:db8::7]:65535"),
                address("[2001:db8::1]:0"),
            )
            .to_bytes(),
            v6,
        ),
        (
            block(0x21, 0x31, &paths),
            Addresses::Unix {
                source: b"/a/b".to_vec(),
                destination: b"/c".to_vec(),
            },
        ),
        // A health check of the proxy's own, with something behind that is not to be looked at.
        (block(0x20, 0x00, b""), Addresses::Unknown),
        (block(0x20, 0x11, &[0xff; 20]), Addresses::Unknown),
        (block(0x21, 0x00, &[0xff; 7]), Addresses::Unknown),
        (block(0x21, 0x12, &v4_block()), Addresses::Unknown),
        (block(0x21, 0x11, &with_field), v4),
    ]
}

#[test]
fn right_headers_say_what_they_say_and_every_shorter_part_is_partial() {
    for (bytes, addresses) in right() {
        for cut in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..cut]),
                Ok(Parsed::Partial),
                "{cut} of {bytes:?}"
            );
        }
        for behind in [&b""[..], b"\r\n", b"PROXY UNKNOWN\r\n", &[0xff; 5000]] {
            let all = [&bytes, behind].concat();
            let Ok(Parsed::Whole { header, length }) = parse(&all) else {
                panic!("{bytes:?}: {:?}", parse(&all));
            };
            assert_eq!((header.addresses(), length), (&addresses, bytes.len()));
        }
    }
}

#[test]
fn what_is_emitted_is_read_again() {
    for version in [Version::V1, Version::V2] {
        for (source, destination) in [
            ("192.0.2.7:4711", "198.51.100.1:443"),
            ("[2001:db8::7]:1", "[::1]:65535"),
            ("192.0.2.7:0", "[::1]:443"),
            (
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ] {
            let header = Header::of_addresses(version, address(source), address(destination));
            let bytes = header.to_bytes();
            let length = bytes.len();
            assert!(length <= 107, "{length}");
            assert_eq!(parse(&bytes), Ok(Parsed::Whole { header, length }));
        }
        let header = Header::unknown(version);
        let bytes = header.to_bytes();
        let length = bytes.len();
        assert_eq!(parse(&bytes), Ok(Parsed::Whole { header, length }));
    }
    let mixed = Header::of_addresses(Version::V1, address("192.0.2.7:5"), address("[::1]:443"));
    assert_eq!(mixed.source(), Some(address("[::ffff:192.0.2.7]:5")));
    assert_eq!(mixed.destination(), Some(address("[::1]:443")));
}

/// Bytes that are no header, and why.
fn wrong() -> Vec<(Vec<u8>, BadHeader)> {
    let line = |text: &str| format!("{text}\r\n").into_bytes();
    let mut summed = [&v4_block()[..], &[CRC32C, 0, 4, 1, 2, 3, 4]].concat();
    let too_far = [&v4_block()[..], &[0x02, 0, 9, 1]].concat();
    let half = [&v4_block()[..], &[0x02, 0]].concat();
    let short_sum = [&v4_block()[..], &[CRC32C, 0, 2, 0, 0]].concat();
    summed[0] = 1;
    vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), BadHeader::NotProxy),
        (b"\x16\x03\x01\x02\x00".to_vec(), BadHeader::NotProxy),
        (b"\0".to_vec(), BadHeader::NotProxy),
        (b"PROXY\tTCP4".to_vec(), BadHeader::NotProxy),
        (b"proxy TCP4".to_vec(), BadHeader::NotProxy),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), BadHeader::NotProxy),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
            BadHeader::Line("it ends in CR LF"),
        ),
        (
            b"PROXY TCP4 1.2.3.4\r 1.2.3.4 1 2\r\n".to_vec(),
            BadHeader::Line("it ends in CR LF"),
        ),
        (line("PROXY "), BadHeader::Line("an address is missing")),
        (
            line("PROXY UDP4 1.2.3.4 1.2.3.4 1 2"),
            BadHeader::Line("neither TCP4, TCP6 nor UNKNOWN"),
        ),
        (line("PROXY TCP4"), BadHeader::Line("an address is missing")),
        (
            line("PROXY TCP4 1.2.3.4"),
            BadHeader::Line("an address is missing"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4"),
            BadHeader::Line("a port is missing"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4 1"),
            BadHeader::Line("a port is missing"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536"),
            BadHeader::Line("a port is no number from 0 to 65535"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2"),
            BadHeader::Line("a port is no number from 0 to 65535"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4 01 2"),
            BadHeader::Line("a port is no number from 0 to 65535"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4  2"),
            BadHeader::Line("a port is no number from 0 to 65535"),
        ),
        (
            line("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 "),
            BadHeader::Line("something stands behind the ports"),
        ),
        (
            line("PROXY TCP4 1.2.3.04 1.2.3.4 1 2"),
            BadHeader::Line("an address is not of its family"),
        ),
        (
            line("PROXY TCP4 ::1 ::1 1 2"),
            BadHeader::Line("an address is not of its family"),
        ),
        (
            line("PROXY TCP6 1.2.3.4 1.2.3.4 1 2"),
            BadHeader::Line("an address is not of its family"),
        ),
        (
            line("PROXY TCP4  1.2.3.4 1.2.3.4 1 2"),
            BadHeader::Line("an address is not of its family"),
        ),
        (
            b"PROXY \xff\xfe\r\n".to_vec(),
            BadHeader::Line("it is no text"),
        ),
        (
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
            BadHeader::TooLong {
                length: 108,
                limit: 107,
            },
        ),
        (
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\n".to_vec()].concat(),
            BadHeader::TooLong {
                length: 108,
                limit: 107,
            },
        ),
        (block(0x11, 0x11, &v4_block()), BadHeader::Command(0x11)),
        (block(0x22, 0x11, &v4_block()), BadHeader::Command(0x22)),
        (block(0x21, 0x41, &v4_block()), BadHeader::Family(0x41)),
        (block(0x21, 0x13, &v4_block()), BadHeader::Family(0x13)),
        (block(0x20, 0xff, &v4_block()), BadHeader::Family(0xff)),
        (block(0x21, 0x11, &v4_block()[..11]), BadHeader::Short),
        (block(0x21, 0x21, &v4_block()), BadHeader::Short),
        (block(0x21, 0x11, &too_far), BadHeader::Short),
        (block(0x21, 0x11, &half), BadHeader::Short),
        (block(0x21, 0x11, &summed), BadHeader::Checksum),
        (block(0x21, 0x11, &short_sum), BadHeader::Checksum),
        (
            block(0x21, 0x11, &[0; MAX_HEADER]),
            BadHeader::TooLong {
                length: MAX_HEADER + 16,
                limit: MAX_HEADER,
            },
        ),
        (
            block(0x20, 0x00, &[0; 65535]),
            BadHeader::TooLong {
                length: 65551,
                limit: MAX_HEADER,
            },
        ),
    ]
}

#[test]
fn wrong_headers_are_refused_with_the_reason_however_much_follows() {
    for (bytes, reason) in wrong() {
        assert_eq!(parse(&bytes), Err(reason), "{bytes:?}");
        assert_eq!(parse(&[&bytes, &b"more"[..]].concat()), Err(reason));
        assert!(!reason.to_string().is_empty());
    }
}

#[test]
fn a_right_checksum_is_believed_and_any_bit_that_turns_is_seen() {
    // The specification's polynomial, over the header with zeros for the sum.
    let mut behind = [&v4_block()[..], &[CRC32C, 0, 4, 0, 0, 0, 0]].concat();
    let sum = {
        let bytes = block(0x21, 0x11, &behind);
        let mut sum = u32::MAX;
        for bit in bytes
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1))
        {
            let low = (sum & 1) as u8 ^ bit;
            sum = sum >> 1 ^ if low == 1 { 0x82f6_3b78 } else { 0 };
        }
        !sum
    };
    behind[15..].copy_from_slice(&sum.to_be_bytes());
    let right = block(0x21, 0x11, &behind);
    let Ok(Parsed::Whole { header, .. }) = parse(&right) else {
        panic!("{:?}", parse(&right));
    };
    assert_eq!(header.extensions()[0].kind, CRC32C);
    for at in 16..right.len() {
        let mut turned = right.clone();
        turned[at] ^= 0x10;
        // A field's kind or length that turns makes another field of it, or none.
        if !(28..31).contains(&at) {
            assert_eq!(parse(&turned), Err(BadHeader::Checksum), "byte {at}");
        }
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Event>>>);

impl Heard {
    fn on(bev: &Bev) -> Self {
        let heard = Self::default();
        let events = heard.clone();
        bev.set_handler(on_event(move |_, event| {
            events.0.lock().unwrap().push(event.clone())
        }))
        .unwrap();
        heard
    }

    /// What was told, in short: C for connected, T for a timeout, E for an end, or the error.
    fn told(&self) -> (String, Option<Error>) {
        let mut text = String::new();
        let mut failure = None;
        for event in self.0.lock().unwrap().iter() {
            match event {
                Event::Connected => text.push('C'),
                Event::Timeout(_) => text.push('T'),
                Event::Eof => text.push('E'),
                Event::Error { error, .. } => {
                    text.push('!');
                    failure = Some(error.clone());
                }
                _ => {}
            }
        }
        (text, failure)
    }
}

#[test]
fn nothing_behind_a_header_is_lost_however_it_is_cut() {
    const BEHIND: &[u8] = b"PROXY TCP4 is what this stream begins with\r\n";
    for (bytes, addresses) in right() {
        let all = [&bytes, BEHIND].concat();
        for cut in 0..=all.len() {
            let events = Loop::new();
            let (near, far) = pair(&events).unwrap();
            // Some of it is there before the filter is.
            near.write(&all[..cut]).unwrap();
            far.enable(READ).unwrap();
            events.run();
            let far = far
                .filter(Options::CLOSE_ON_FREE, ProxyReceive::new())
                .unwrap();
            let heard = Heard::on(&far);
            events.run();
            assert_eq!(heard.told().0.len(), usize::from(cut >= bytes.len()));
            near.write(&all[cut..]).unwrap();
            events.run();
            assert_eq!(heard.told().0, "C", "while reading is disabled");
            far.enable(READ).unwrap();
            near.finish().unwrap();
            events.run();
            assert_eq!(contents(&far), BEHIND);
            assert_eq!(heard.told().0, "CE");
            let told = far.filter_of::<ProxyReceive>().unwrap();
            let told = told.with(|proxy| proxy.header().cloned()).unwrap().unwrap();
            assert_eq!(told.addresses(), &addresses);
        }
    }
}

#[test]
fn a_stream_that_ends_in_its_header_is_truncated_at_every_byte() {
    for (bytes, _) in right() {
        for cut in 0..bytes.len() {
            let events = Loop::new();
            let (near, far) = pair(&events).unwrap();
            let far = far
                .filter(Options::CLOSE_ON_FREE, ProxyReceive::new())
                .unwrap();
            let heard = Heard::on(&far);
            near.write(&bytes[..cut]).unwrap();
            near.finish().unwrap();
            events.run();
            let (told, failure) = heard.told();
            assert_eq!(told, "!", "{cut} of {bytes:?}");
            assert_eq!(
                failure.unwrap().kind(),
                Kind::Truncated,
                "{cut} of {bytes:?}"
            );
        }
    }
}

#[test]
fn garbage_is_a_failed_connection_and_nothing_of_it_goes_up() {
    for (bytes, reason) in wrong() {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let far = far
            .filter(Options::CLOSE_ON_FREE, ProxyReceive::new())
            .unwrap();
        let heard = Heard::on(&far);
        far.enable(READ).unwrap();
        far.write(b"not for somebody who did not say who it is")
            .unwrap();
        for byte in &bytes[..bytes.len().min(5000)] {
            if near.write(&[*byte]).is_err() {
                break;
            }
            events.run();
        }
        let (told, failure) = heard.told();
        assert_eq!(told, "!", "{bytes:?}");
        let failure = failure.unwrap();
        let too_long = matches!(reason, BadHeader::TooLong { .. });
        assert_eq!(
            failure.kind(),
            if too_long { Kind::Limit } else { Kind::Peer }
        );
        let cause = std::error::Error::source(&failure).unwrap();
        assert_eq!(cause.downcast_ref::<BadHeader>(), Some(&reason));
        assert!(far.input().is_empty() && near.input().is_empty());
    }
}

#[test]
fn limits_and_versions_are_heeded() {
    let (v1, v2) = (&right()[0].0, &right()[4].0);
    let told = |filter: ProxyReceive, bytes: &[u8]| {
        let events = Loop::new();
        let (near, far) = pair(&events).unwrap();
        let far = far.filter(Options::CLOSE_ON_FREE, filter).unwrap();
        let heard = Heard::on(&far);
        near.write(bytes).unwrap();
        events.run();
        heard.told().1.map(|error| error.kind())
    };
    for (bytes, version, other) in [
        (v1, Version::V1, Version::V2),
        (v2, Version::V2, Version::V1),
    ] {
        assert_eq!(told(ProxyReceive::new().only(version), bytes), None);
        assert_eq!(
            told(ProxyReceive::new().only(other), bytes),
            Some(Kind::Peer)
        );
        let exact = bytes.len();
        assert_eq!(told(ProxyReceive::new().max_header(exact), bytes), None);
        assert_eq!(
            told(ProxyReceive::new().max_header(exact - 1), bytes),
            Some(Kind::Limit)
        );
    }
    let most = block(0x21, 0x00, &[0; MAX_HEADER - 16]);
    assert_eq!(
        told(ProxyReceive::new().max_header(usize::MAX), &most),
        None
    );
}

#[test]
fn a_client_that_says_nothing_is_met_by_the_deadline() {
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let far = far
        .filter(Options::CLOSE_ON_FREE, ProxyReceive::new())
        .unwrap();
    let heard = Heard::on(&far);
    far.set_connect_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    near.write(b"PROXY TCP4 ").unwrap();
    events.run();
    events.advance(Duration::from_secs(5));
    events.run();
    assert_eq!(heard.told().0, "T");
    let first = heard.0.lock().unwrap().first().cloned();
    assert!(matches!(first, Some(Event::Timeout(Deadline::Connect))));
}

#[test]
fn a_header_is_emitted_first_and_once_through_any_room() {
    for version in [Version::V1, Version::V2] {
        let header = Header::of_addresses(
            version,
            address("192.0.2.7:4711"),
            address("198.51.100.1:443"),
        );
        for mark in 1..=60 {
            let events = Loop::new();
            let (near, far) = pair(&events).unwrap();
            near.set_write_watermark(0, mark).unwrap();
            let near = near
                .filter(Options::CLOSE_ON_FREE, ProxySend::new(&header))
                .unwrap();
            far.enable(READ).unwrap();
            near.enable(READ).unwrap();
            far.write(b"greeting").unwrap();
            events.run();
            // Whoever waits for the server to speak has sent it too.
            assert_eq!(contents(&far), header.to_bytes());
            near.write(b"and what follows").unwrap();
            near.finish().unwrap();
            events.run();
            assert_eq!(contents(&far), b"and what follows");
            assert_eq!(contents(&near), b"greeting");
        }
    }
}

#[test]
fn both_sides_over_each_other_are_no_layer_to_the_user() {
    let header = Header::unknown(Version::V2);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let near = near
        .filter(Options::CLOSE_ON_FREE, ProxySend::new(&header))
        .unwrap();
    let far = far
        .filter(Options::CLOSE_ON_FREE, ProxyReceive::new())
        .unwrap();
    near.enable(READ).unwrap();
    far.enable(READ).unwrap();
    // Written before the header has come, sent behind it.
    far.write(b"down").unwrap();
    near.write(b"up").unwrap();
    near.finish().unwrap();
    events.run();
    assert_eq!(
        (contents(&far), contents(&near)),
        (b"up".to_vec(), b"down".to_vec())
    );
}
