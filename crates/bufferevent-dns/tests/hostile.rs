//! The DNS resolver against answers that do not belong, lie, or are broken in every place.

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use bufferevent_dns::{Family, ResolveFailure};
use bufferevent_testkit::fault;
use common::dns_server::{Back, Over};
use common::{PATIENCE, SHORT, Script, message, on_backends, resolve, v4};
use hickory_resolver::proto::op::Query as Question;
use hickory_resolver::proto::rr::RecordType;

fn set<const N: usize>(addresses: [IpAddr; N]) -> BTreeSet<IpAddr> {
    addresses.into()
}

/// A way to answer that nobody may believe.
type Forge = fn(&common::Query) -> Vec<Back>;

#[test]
fn what_does_not_belong_to_the_question_is_not_believed() {
    on_backends(|events| {
        fault!(F76);
        let wrong_id: Forge = |query| {
            let mut answer = query.addresses(60, &[v4(66)]);
            (1..=200_u16)
                .flat_map(|step| {
                    answer.metadata.id = query.message.metadata.id.wrapping_add(step);
                    message(&answer)
                })
                .collect()
        };
        let wrong_name: Forge = |query| {
            let mut answer = query.addresses(60, &[v4(66)]);
            let other = Question::query(common::name("other.example"), RecordType::A);
            answer.queries = vec![other];
            message(&answer)
        };
        let wrong_kind: Forge = |query| {
            let mut answer = query.addresses(60, &[v4(66)]);
            answer.queries[0].set_query_type(RecordType::TXT);
            message(&answer)
        };
        let two_questions: Forge = |query| {
            let mut answer = query.addresses(60, &[v4(66)]);
            let other = Question::query(common::name("other.example"), RecordType::A);
            answer.queries.push(other);
            message(&answer)
        };
        let wrong_port: Forge = |query| {
            let Over::Udp(from) = query.over else {
                panic!("it was not asked for by TCP")
            };
            let forger = UdpSocket::bind("127.0.0.1:0").unwrap();
            let answer = query.addresses(60, &[v4(66)]).to_vec().unwrap();
            forger.send_to(&answer, from).unwrap();
            Vec::new()
        };
        let wrong_host: Forge = |query| {
            let Over::Udp(from) = query.over else {
                panic!("it was not asked for by TCP")
            };
            let forger = UdpSocket::bind("127.0.0.2:0").unwrap();
            let answer = query.addresses(60, &[v4(66)]).to_vec().unwrap();
            forger.send_to(&answer, from).unwrap();
            Vec::new()
        };
        let too_short: Forge = |_| vec![Back::Message(Vec::new()), Back::Message(vec![0])];
        let mut forges = vec![
            wrong_id,
            wrong_name,
            wrong_kind,
            two_questions,
            wrong_port,
            too_short,
        ];
        // Elsewhere the loopback interface has one address.
        if cfg!(target_os = "linux") {
            forges.push(wrong_host);
        }
        for (number, forge) in forges.into_iter().enumerate() {
            // Alone it is as if nobody had answered; before the right one it changes nothing.
            let script = Script::new(events, forge);
            let resolver = script.builder(events).timeout(SHORT).build().unwrap();
            let found = resolve(events, &resolver, "example.org", Family::V4);
            assert_eq!(found, Err(ResolveFailure::Timeout), "forgery {number}");
            let script = Script::new(events, move |query| {
                let right = message(&query.addresses(60, &[v4(1)]));
                [forge(query), right].concat()
            });
            let resolver = script.resolver(events);
            let found = resolve(events, &resolver, "example.org", Family::V4);
            assert_eq!(found, Ok(set([v4(1)])), "forgery {number}");
        }
    });
}

#[test]
fn on_tcp_the_question_is_compared_too() {
    on_backends(|events| {
        fault!(F76);
        let script = Script::new(events, |query| {
            let mut answer = query.addresses(60, &[v4(66)]);
            if query.over == Over::Tcp {
                let other = Question::query(common::name("other.example"), RecordType::A);
                answer.queries = vec![other];
            } else {
                answer.metadata.truncation = true;
            }
            message(&answer)
        });
        let resolver = script.resolver(events);
        let found = resolve(events, &resolver, "example.org", Family::V4);
        assert_eq!(found, Err(ResolveFailure::Malformed));
    });
}

#[test]
fn identifiers_and_ports_are_random() {
    on_backends(|events| {
        fault!(F76);
        const QUESTIONS: usize = 64;
        let script = Script::new(events, |query| message(&query.addresses(60, &[v4(1)])));
        let resolver = script.resolver(events);
        for number in 0..QUESTIONS {
            let host = format!("h{number}.example");
            assert!(resolve(events, &resolver, &host, Family::V4).is_ok());
        }
        let asked = script.asked();
        let ids: Vec<u16> = asked
            .iter()
            .map(|query| query.message.metadata.id)
            .collect();
        let ports: Vec<u16> = asked
            .iter()
            .filter_map(|query| match query.over {
                Over::Udp(from) => Some(from.port()),
                Over::Tcp => None,
            })
            .collect();
        for numbers in [ids, ports] {
            let different: BTreeSet<u16> = numbers.iter().copied().collect();
            // Of 64 out of 64,512, more than six that were there before come once in 10^14 runs.
            assert!(different.len() > QUESTIONS - 7, "{different:?}");
            // In order they come never: neither counted up nor down.
            assert!(!numbers.is_sorted() && !numbers.iter().rev().is_sorted());
            // Both halves of the range are used.
            let high = numbers.iter().filter(|number| **number >= 32_768).count();
            assert!((8..=56).contains(&high), "{high} of {QUESTIONS} are high");
        }
    });
}

#[test]
fn names_in_random_case_come_back_so_or_are_asked_for_by_tcp() {
    on_backends(|events| {
        fault!(F76);
        let host = "a-name-long-enough-for-chance.example";
        for keeps in [true, false] {
            let script = Script::new(events, move |query| {
                let mut answer = query.addresses(60, &[v4(1)]);
                if !keeps && query.over != Over::Tcp {
                    let lower = query.message.queries[0].name().to_lowercase();
                    answer.queries[0].set_name(lower);
                }
                message(&answer)
            });
            let resolver = script.builder(events).random_case(true).build().unwrap();
            let found = resolve(events, &resolver, host, Family::V4);
            assert_eq!(found, Ok(set([v4(1)])));
            let asked = script.asked();
            assert_ne!(asked[0].name(), format!("{host}."), "in random case");
            let by_tcp = asked.iter().any(|query| query.over == Over::Tcp);
            assert_eq!(by_tcp, !keeps);
        }
    });
}

/// What may be found where one answer was damaged and the right one follows.
fn is_sane(found: &Result<BTreeSet<IpAddr>, ResolveFailure>) -> bool {
    match found {
        Ok(addresses) => addresses.len() <= 2,
        Err(failure) => matches!(
            failure,
            ResolveFailure::Malformed
                | ResolveFailure::NoAddress
                | ResolveFailure::NotFound
                | ResolveFailure::Refused
                | ResolveFailure::ServerFailed
        ),
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_survived() {
    on_backends(|events| {
        fault!(F77);
        // The damage is numbered: first how many bytes are left, then which bit is flipped.
        let (ask, damage) = std::sync::mpsc::channel();
        let script = Script::new(events, move |query| {
            let right = query.addresses(60, &[v4(1), v4(2)]).to_vec().unwrap();
            let mut broken = right.clone();
            let number: usize = damage.try_recv().unwrap_or(usize::MAX);
            if number < right.len() {
                broken.truncate(number);
            } else if let Some(bit) = number.checked_sub(right.len())
                && bit < 8 * right.len()
            {
                broken[bit / 8] ^= 1 << (bit % 8);
            }
            vec![Back::Message(broken), Back::Message(right)]
        });
        let resolver = script.builder(events).cache(0).build().unwrap();
        let host = "ab.example";
        let found = resolve(events, &resolver, host, Family::V4);
        assert_eq!(found, Ok(set([v4(1), v4(2)])));
        let length = script.asked()[0]
            .addresses(60, &[v4(1), v4(2)])
            .to_vec()
            .unwrap()
            .len();
        for number in 0..9 * length {
            ask.send(number).unwrap();
            let found = resolve(events, &resolver, host, Family::V4);
            assert!(is_sane(&found), "damage {number}: {found:?}");
        }
        let found = resolve(events, &resolver, host, Family::V4);
        assert_eq!(found, Ok(set([v4(1), v4(2)])), "nothing is left of it");
    });
}

#[test]
fn names_that_point_to_themselves_forward_or_in_circles_are_refused() {
    on_backends(|events| {
        fault!(F73);
        // Behind the header of 12 bytes: the question's name, and an answer whose name is only a pointer.
        type Pointers = fn(question: usize, at: usize) -> Vec<u8>;
        let owners: [(&str, Pointers); 6] = [
            ("to itself", |_, at| pointer(at).to_vec()),
            ("forward", |_, at| pointer(at + 20).to_vec()),
            ("behind the end", |_, _| pointer(0x3fff).to_vec()),
            ("into the header", |_, _| pointer(0).to_vec()),
            ("in a circle", |_, at| {
                let mut name = vec![1, b'a'];
                name.extend_from_slice(&pointer(at));
                name
            }),
            ("without an end", |_, at| {
                // Each label points to the one before, for longer than a name may be.
                let mut name = Vec::new();
                for _ in 0..40 {
                    name.extend_from_slice(&[7, b'l', b'a', b'b', b'e', b'l', b'l', b's']);
                }
                name.extend_from_slice(&pointer(at));
                name
            }),
        ];
        for (what, owner) in owners {
            let script = Script::new(events, move |query| {
                let mut bytes = query.response().to_vec().unwrap();
                bytes[6..8].copy_from_slice(&1_u16.to_be_bytes());
                let name = owner(12, bytes.len());
                bytes.extend_from_slice(&name);
                bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 66]);
                vec![Back::Message(bytes)]
            });
            let resolver = script.resolver(events);
            let found = resolve(events, &resolver, "example.org", Family::V4);
            let failure = found.expect_err(what);
            assert!(
                matches!(
                    failure,
                    ResolveFailure::Malformed | ResolveFailure::NoAddress
                ),
                "{what}: {failure:?}"
            );
        }
    });
}

fn pointer(target: usize) -> [u8; 2] {
    [0xc0 | (target >> 8) as u8, target as u8]
}

#[test]
fn counts_and_lengths_that_lie_cost_nothing() {
    on_backends(|events| {
        fault!(F77);
        type Lie = fn(&mut Vec<u8>);
        let lies: [(&str, Lie); 4] = [
            ("65,535 answers that are not there", |bytes| {
                bytes[6..8].copy_from_slice(&[0xff, 0xff]);
            }),
            ("65,535 of everything", |bytes| {
                bytes[6..12].copy_from_slice(&[0xff; 6]);
            }),
            ("an address of 65,535 bytes", |bytes| {
                let at = bytes.len() - 6;
                bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            }),
            ("an address of no bytes", |bytes| {
                let at = bytes.len() - 6;
                bytes[at..at + 2].copy_from_slice(&[0, 0]);
            }),
        ];
        for (what, lie) in lies {
            let script = Script::new(events, move |query| {
                let mut bytes = query.addresses(60, &[v4(66)]).to_vec().unwrap();
                lie(&mut bytes);
                vec![Back::Message(bytes)]
            });
            let resolver = script.resolver(events);
            let found = resolve(events, &resolver, "example.org", Family::V4);
            assert!(found.is_err(), "{what}: {found:?}");
        }
    });
}

#[test]
fn nobody_at_the_servers_port_is_as_silence() {
    on_backends(|events| {
        fault!(F72);
        // Both ports of a server that was.
        let at: SocketAddr = {
            let script = Script::new(events, |_| Vec::new());
            script.address()
        };
        let resolver = bufferevent_dns::Dns::builder(events)
            .name_server(at)
            .timeout(SHORT)
            .attempts(0)
            .build()
            .unwrap();
        let start = std::time::Instant::now();
        let found = resolve(events, &resolver, "example.org", Family::Any);
        assert_eq!(found, Err(ResolveFailure::Timeout));
        assert!(start.elapsed() < PATIENCE);
        assert!(start.elapsed() >= Duration::from_millis(100));
    });
}
