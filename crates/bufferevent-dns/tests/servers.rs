//! The DNS resolver against name servers that answer, fail, say nothing, or do so in turn.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bufferevent_core::{Event, READ, on_event};
use bufferevent_dns::{Dns, Family, ResolveFailure};
use bufferevent_socket::{Builder, Listener, SocketExt as _};
use bufferevent_testkit::{Log, Told, fault, spec};
use common::dns_server::{Back, Over, serve, zone};
use common::{
    PATIENCE, SHORT, Script, alias, ask, message, name, on_backends, resolve, until, v4, v6,
};
use evreactor::{EventLoop, LoopHandle};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;

fn set<const N: usize>(addresses: [IpAddr; N]) -> BTreeSet<IpAddr> {
    addresses.into()
}

#[test]
fn both_families_are_asked_for_at_once_and_the_right_one_alone() {
    on_backends(|events| {
        let script = Script::new(events, |query| {
            message(&query.addresses(60, &[v4(1), v6(1), v4(2)]))
        });
        let resolver = script.resolver(events);
        let found = resolve(events, &resolver, "example.org", Family::Any);
        assert_eq!(found, Ok(set([v4(1), v4(2), v6(1)])));
        let kinds: Vec<_> = script.asked().iter().map(common::Query::kind).collect();
        assert_eq!(
            kinds,
            [RecordType::AAAA, RecordType::A],
            "IPv6 goes out first"
        );

        let found = resolve(events, &resolver, "four.example.org", Family::V4);
        assert_eq!(found, Ok(set([v4(1), v4(2)])));
        let found = resolve(events, &resolver, "six.example.org", Family::V6);
        assert_eq!(found, Ok(set([v6(1)])));
        let kinds: Vec<_> = script.asked().iter().map(common::Query::kind).collect();
        assert_eq!(kinds[2..], [RecordType::A, RecordType::AAAA]);
        assert_eq!(resolver.under_way(), 0);
    });
}

#[test]
fn failures_are_told_apart() {
    on_backends(|events| {
        fault!(F71);
        let script = Script::new(events, |query| match query.name().as_str() {
            "missing.example." => message(&query.code(ResponseCode::NXDomain)),
            "failing.example." => message(&query.code(ResponseCode::ServFail)),
            "refused.example." => message(&query.code(ResponseCode::Refused)),
            "strange.example." => message(&query.code(ResponseCode::NotImp)),
            "empty.example." => message(&query.response()),
            "four.example." => message(&query.addresses(60, &[v4(1)])),
            other => panic!("asked for {other}"),
        });
        let resolver = script.resolver(events);
        for (host, failure) in [
            ("missing.example", ResolveFailure::NotFound),
            ("failing.example", ResolveFailure::ServerFailed),
            ("refused.example", ResolveFailure::Refused),
            ("strange.example", ResolveFailure::ServerFailed),
            ("empty.example", ResolveFailure::NoAddress),
        ] {
            let found = resolve(events, &resolver, host, Family::Any);
            assert_eq!(found, Err(failure), "{host}");
        }
        let found = resolve(events, &resolver, "four.example", Family::V6);
        assert_eq!(found, Err(ResolveFailure::NoAddress));
        let found = resolve(events, &resolver, "four.example", Family::Any);
        assert_eq!(found, Ok(set([v4(1)])));
    });
}

#[test]
fn a_server_that_fails_is_followed_by_the_next() {
    on_backends(|events| {
        fault!(F71);
        for code in [ResponseCode::ServFail, ResponseCode::Refused] {
            let bad = Script::new(events, move |query| message(&query.code(code)));
            let good = Script::new(events, |query| message(&query.addresses(60, &[v4(1)])));
            let resolver = Dns::builder(events)
                .name_server(bad.address())
                .name_server(good.address())
                .timeout(PATIENCE)
                .attempts(0)
                .cache(0)
                .build()
                .unwrap();
            for _ in 0..10 {
                let found = resolve(events, &resolver, "example.org", Family::V4);
                assert_eq!(found, Ok(set([v4(1)])));
            }
        }
    });
}

#[test]
fn servers_that_say_nothing_are_given_up_and_one_that_answers_is_found() {
    on_backends(|events| {
        fault!(F72);
        let silent = [
            Script::new(events, |_| Vec::new()),
            Script::new(events, |_| Vec::new()),
        ];
        let builder = Dns::builder(events)
            .name_server(silent[0].address())
            .name_server(silent[1].address())
            .timeout(SHORT)
            .attempts(1);
        let resolver = builder.clone().build().unwrap();
        let start = Instant::now();
        let found = resolve(events, &resolver, "example.org", Family::Any);
        assert_eq!(found, Err(ResolveFailure::Timeout));
        // A loop's time is that of the beginning of a turn.
        assert!(
            start.elapsed() >= SHORT * 3 / 2,
            "each attempt has its time"
        );
        for script in &silent {
            assert!(script.asked().len() >= 2, "it is asked more than once");
        }
        let good = Script::new(events, |query| message(&query.addresses(60, &[v4(1)])));
        let resolver = builder
            .name_server(good.address())
            .attempts(5)
            .build()
            .unwrap();
        let found = resolve(events, &resolver, "example.org", Family::V4);
        assert_eq!(found, Ok(set([v4(1)])));
    });
}

#[test]
fn a_server_that_comes_and_goes_is_asked_again() {
    on_backends(|events| {
        fault!(F72);
        let count = Arc::new(AtomicUsize::new(0));
        let script = Script::new(events, move |query| {
            match count.fetch_add(1, Ordering::Relaxed) % 3 {
                2 => message(&query.addresses(0, &[v4(1)])),
                _ => Vec::new(),
            }
        });
        let resolver = script
            .builder(events)
            .timeout(SHORT)
            .attempts(5)
            .cache(0)
            .build()
            .unwrap();
        for _ in 0..3 {
            let found = resolve(events, &resolver, "example.org", Family::V4);
            assert_eq!(found, Ok(set([v4(1)])));
        }
    });
}

#[test]
fn answers_that_come_twice_or_too_late_change_nothing() {
    on_backends(|events| {
        fault!(F72);
        let mut kept: Vec<Back> = Vec::new();
        let script = Script::new(events, move |query| {
            // What is right, again what is right, and what was right for the last question.
            let right = message(&query.addresses(0, &[v4(query.name().len() as u8)]));
            let all = [right.clone(), right.clone(), kept.clone()].concat();
            kept = right;
            all
        });
        let resolver = script.builder(events).cache(0).build().unwrap();
        for round in 0..20 {
            let host = "a".repeat(1 + round % 7) + ".example";
            let found = resolve(events, &resolver, &host, Family::V4);
            assert_eq!(found, Ok(set([v4(host.len() as u8 + 1)])));
        }
    });
}

#[test]
fn what_does_not_fit_comes_by_tcp() {
    on_backends(|events| {
        fault!(F75);
        let script = Script::new(events, |query| {
            let mut answer = query.addresses(60, &[v4(1), v4(2), v4(3)]);
            if matches!(query.over, Over::Udp(_)) {
                answer.answers.truncate(1);
                answer.metadata.truncation = true;
            }
            message(&answer)
        });
        let resolver = script.resolver(events);
        let found = resolve(events, &resolver, "example.org", Family::V4);
        assert_eq!(found, Ok(set([v4(1), v4(2), v4(3)])));
        // The connection is used again.
        let found = resolve(events, &resolver, "other.example.org", Family::V4);
        assert_eq!(found.map(|found| found.len()), Ok(3));
        let over: Vec<_> = script.asked().iter().map(|query| query.over).collect();
        assert_eq!(over.iter().filter(|over| **over == Over::Tcp).count(), 2);
    });
}

#[test]
fn tcp_that_stalls_breaks_off_or_lies_about_lengths_fails_in_time() {
    on_backends(|events| {
        fault!(F75);
        type Lie = fn(Vec<u8>) -> Vec<Back>;
        let lies: [Lie; 6] = [
            |_| Vec::new(),
            |_| vec![Back::End],
            |_| vec![Back::Raw(vec![0])],
            |_| vec![Back::Raw(vec![0, 0]), Back::End],
            |right| {
                let mut long = (right.len() as u16 + 100).to_be_bytes().to_vec();
                long.extend_from_slice(&right);
                vec![Back::Raw(long)]
            },
            |right| {
                let mut short = (right.len() as u16 / 2).to_be_bytes().to_vec();
                short.extend_from_slice(&right);
                vec![Back::Raw(short), Back::End]
            },
        ];
        for lie in lies {
            let script = Script::new(events, move |query| {
                let mut answer = query.addresses(60, &[v4(1)]);
                if query.over == Over::Tcp {
                    return lie(answer.to_vec().unwrap());
                }
                answer.metadata.truncation = true;
                message(&answer)
            });
            let resolver = script.builder(events).timeout(SHORT).build().unwrap();
            let start = Instant::now();
            let found = resolve(events, &resolver, "example.org", Family::V4);
            let failure = found.expect_err("nothing was answered");
            assert!(
                matches!(
                    failure,
                    ResolveFailure::Timeout
                        | ResolveFailure::ServerFailed
                        | ResolveFailure::Malformed
                ),
                "{failure:?}"
            );
            assert!(start.elapsed() < PATIENCE / 2);
        }
    });
}

#[test]
fn an_idle_connection_to_a_server_does_not_keep_the_loop_for_long() {
    on_backends(|events| {
        let other = EventLoop::builder()
            .backend(events.backend())
            .build()
            .unwrap();
        let script = Script::new(&other, |query| {
            let mut answer = query.addresses(60, &[v4(1)]);
            answer.metadata.truncation = query.over != Over::Tcp;
            message(&answer)
        });
        // The server is on a loop of its own, which this thread drives until the answer is there.
        let resolver = script.builder(events).timeout(SHORT * 4).build().unwrap();
        let mut asked = ask(events, &resolver, "example.org", Family::V4);
        let start = Instant::now();
        while !asked.look() {
            events.poll().unwrap();
            other.poll().unwrap();
            assert!(start.elapsed() < PATIENCE);
        }
        assert!(asked.outcome().is_ok());
        let start = Instant::now();
        events.run().unwrap();
        assert!(start.elapsed() < PATIENCE);
    });
}

/// A resolver that soon gives up: on Windows a datagram that is longer than the room for it has no sender, and is as if it had not come.
fn brief(script: &Script, events: &LoopHandle) -> Dns {
    let brief = script.builder(events).timeout(SHORT).attempts(0);
    brief.build().unwrap()
}

#[test]
fn aliases_are_followed_and_chains_and_loops_end() {
    on_backends(|events| {
        fault!(F74);
        let script = Script::new(events, |query| {
            let asked = query.name();
            let asked = asked.trim_end_matches('.');
            let mut answer = query.response();
            if asked == "inside.example" {
                // The whole chain in one answer.
                answer.add_answer(alias("inside.example", "a.example"));
                answer.add_answer(alias("a.example", "b.example"));
                let mut last = query.addresses(60, &[v4(7)]).answers.remove(0);
                last.name = name("b.example");
                answer.add_answer(last);
            } else if let Some(rest) = asked.strip_prefix("chain") {
                // One link for each question.
                let (number, _) = rest.split_once('.').unwrap();
                let number: u32 = number.parse().unwrap();
                if number == 0 {
                    return message(&query.addresses(60, &[v4(8)]));
                }
                let target = format!("chain{}.example", number - 1);
                answer.add_answer(alias(asked, &target));
            } else if asked == "long.example" {
                // Sixty-four links in one answer.
                answer.add_answer(alias("long.example", "l0.example"));
                for link in 0..63 {
                    let target = format!("l{}.example", link + 1);
                    answer.add_answer(alias(&format!("l{link}.example"), &target));
                }
            } else if asked == "self.example" {
                answer.add_answer(alias(asked, asked));
            } else if asked == "ring.example" {
                answer.add_answer(alias("ring.example", "ring2.example"));
                answer.add_answer(alias("ring2.example", "ring.example"));
            } else {
                // Each points to the other.
                let other = if asked == "ping.example" {
                    "pong"
                } else {
                    "ping"
                };
                answer.add_answer(alias(asked, &format!("{other}.example")));
            }
            message(&answer)
        });
        let resolver = script.resolver(events);
        let found = resolve(events, &resolver, "inside.example", Family::V4);
        assert_eq!(found, Ok(set([v4(7)])));
        let found = resolve(events, &resolver, "chain3.example", Family::V4);
        assert_eq!(found, Ok(set([v4(8)])));
        // The sixty-four links are longer than the room for them: see `brief`.
        let resolver = if cfg!(windows) {
            brief(&script, events)
        } else {
            resolver
        };
        for endless in [
            "chain64.example",
            "long.example",
            "self.example",
            "ring.example",
            "ping.example",
        ] {
            let before = script.asked().len();
            let found = resolve(events, &resolver, endless, Family::V4);
            assert!(found.is_err(), "{endless}");
            let questions = script.asked().len() - before;
            assert!(questions < 40, "{endless}: {questions} questions");
        }
    });
}

/// An answer with a record for each of `addresses`, made by hand: no encoder makes one so large.
fn with_records(query: &common::Query, owner: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
    let mut bytes = query.response().to_vec().unwrap();
    let count = u16::try_from(addresses.len()).unwrap();
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    for address in addresses {
        let IpAddr::V4(address) = address else {
            panic!("{address} is not of IPv4")
        };
        bytes.extend_from_slice(owner);
        bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend_from_slice(&address.octets());
    }
    bytes
}

#[test]
fn huge_answers_are_taken_or_refused_and_never_more() {
    on_backends(|events| {
        fault!(F78);
        // As many as a message of 64 KiB holds.
        let many: Vec<IpAddr> = (0..4090_u16)
            .map(|number| IpAddr::from([10, 0, (number >> 8) as u8, number as u8]))
            .collect();
        let all: BTreeSet<_> = many.iter().copied().collect();
        let script = Script::new(events, move |query| {
            let over_tcp = query.over == Over::Tcp;
            if query.name().starts_with("big.") {
                // Sixty-four KiB in one datagram, whatever size was asked for.
                let mut bytes = with_records(query, &[0xc0, 12], &many);
                bytes.truncate(65_000);
                vec![Back::Message(bytes)]
            } else if over_tcp && query.name().starts_with("other.") {
                // More of them, and nobody's.
                let more = [&many[..], &many[..6]].concat();
                assert_eq!(more.len(), 4096);
                vec![Back::Message(with_records(query, &[0], &more))]
            } else if over_tcp {
                vec![Back::Message(with_records(query, &[0xc0, 12], &many))]
            } else {
                let mut answer = query.response();
                answer.metadata.truncation = true;
                message(&answer)
            }
        });
        let resolver = script.resolver(events);
        let found = resolve(events, &resolver, "many.example", Family::V4);
        assert!(
            found.as_ref() == Ok(&all),
            "{:?}",
            found.map(|found| found.len())
        );
        let found = resolve(events, &resolver, "other.example", Family::V4);
        assert_eq!(found, Err(ResolveFailure::NoAddress));
        // On Windows one that is longer than the room for it has no sender: as if it had not come.
        let (resolver, failure) = if cfg!(windows) {
            (brief(&script, events), ResolveFailure::Timeout)
        } else {
            (resolver, ResolveFailure::Malformed)
        };
        let found = resolve(events, &resolver, "big.example", Family::V4);
        assert_eq!(found, Err(failure));
    });
}

#[test]
fn answers_are_kept_as_long_as_they_say_within_bounds() {
    on_backends(|events| {
        let ttl = Arc::new(AtomicUsize::new(3600));
        let of_server = ttl.clone();
        let script = Script::new(events, move |query| {
            let ttl = of_server.load(Ordering::Relaxed) as u32;
            message(&query.addresses(ttl, &[v4(1)]))
        });
        let questions = |resolver: &Dns| {
            let before = script.asked().len();
            for _ in 0..3 {
                let found = resolve(events, resolver, "example.org", Family::V4);
                assert!(found.is_ok());
            }
            script.asked().len() - before
        };
        let resolver = script.resolver(events);
        assert_eq!(questions(&resolver), 1);
        assert_eq!(questions(&resolver), 0);
        resolver.forget();
        assert_eq!(questions(&resolver), 1);
        resolver.reload().unwrap();
        assert_eq!(questions(&resolver), 1);
        assert_eq!(
            questions(&script.builder(events).cache(0).build().unwrap()),
            3
        );
        // The upper bound, then the lower.
        let longest = Duration::ZERO..=Duration::ZERO;
        let resolver = script.builder(events).ttl(longest).build().unwrap();
        assert_eq!(questions(&resolver), 3);
        ttl.store(0, Ordering::Relaxed);
        assert_eq!(questions(&script.resolver(events)), 3);
        let shortest = Duration::from_secs(60)..=Duration::from_secs(60);
        let resolver = script.builder(events).ttl(shortest).build().unwrap();
        assert_eq!(questions(&resolver), 1);
    });
}

#[test]
fn short_names_are_tried_behind_the_search_domains() {
    on_backends(|events| {
        let script = Script::new(events, |query| match query.name().as_str() {
            "db.two.example." => message(&query.addresses(60, &[v4(2)])),
            "far.away.example." => message(&query.addresses(60, &[v4(3)])),
            _ => message(&query.code(ResponseCode::NXDomain)),
        });
        let resolver = script
            .builder(events)
            .search("one.example")
            .search("two.example")
            .build()
            .unwrap();
        let asked = |host: &str| {
            let before = script.asked().len();
            let found = resolve(events, &resolver, host, Family::V4);
            let asked = script.asked().split_off(before);
            (
                found,
                asked.iter().map(common::Query::name).collect::<Vec<_>>(),
            )
        };
        let (found, order) = asked("db");
        assert_eq!(found, Ok(set([v4(2)])));
        assert_eq!(order, ["db.one.example.", "db.two.example."]);
        let (found, order) = asked("far.away.example");
        assert_eq!((found, order.len()), (Ok(set([v4(3)])), 1));
        let (found, order) = asked("db.");
        assert_eq!(found, Err(ResolveFailure::NotFound));
        assert_eq!(order, ["db."], "with a dot at its end it is whole");
    });
}

#[test]
fn a_family_that_is_never_answered_does_not_hold_the_other_up() {
    on_backends(|events| {
        spec!(S4);
        fault!(F82);
        let listener = Listener::bind(events, "127.0.0.1:0", |bev, _| bev.enable(READ)).unwrap();
        let port = match listener.local_addr().unwrap() {
            bufferevent_socket::Address::Tcp(address) => address.port(),
            other => panic!("{other}"),
        };
        let script = Script::new(events, |query| match query.kind() {
            RecordType::A => message(&query.addresses(60, &["127.0.0.1".parse().unwrap()])),
            _ => Vec::new(),
        });
        let resolver = script.resolver(events);
        let log = Log::new();
        let start = Instant::now();
        let bev = Builder::new(events)
            .handler(log.take_all())
            .connect_hostname(&resolver, Family::Any, "example.org", port)
            .unwrap();
        until(events, "connected", || log.has(&Told::Connected));
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(50), "{took:?}");
        assert!(took < PATIENCE / 4, "{took:?}");
        assert_eq!(resolver.under_way(), 0, "the other question is called off");
        assert!(bev.peer_addr().is_ok());
    });
}

#[test]
fn a_stack_connects_by_name_and_an_error_names_the_name() {
    on_backends(|events| {
        spec!(S4);
        let listener = Listener::bind(events, "127.0.0.1:0", |bev, _| {
            bev.set_handler(bufferevent_core::on_read(|bev| {
                drop(bev.output().append_from(&bev.input()));
            }))?;
            bev.enable(READ)
        })
        .unwrap();
        let bufferevent_socket::Address::Tcp(at) = listener.local_addr().unwrap() else {
            panic!("not TCP")
        };
        let script = Script::new(events, move |query| match query.name().as_str() {
            "xn--bcher-kva.example." => message(&query.addresses(60, &[at.ip()])),
            _ => message(&query.code(ResponseCode::NXDomain)),
        });
        let resolver = Arc::new(script.resolver(events));
        let log = Log::new();
        let bev = Builder::new(events)
            .handler(log.take_all())
            .connect_hostname(&resolver, Family::Any, "Bücher.example", at.port())
            .unwrap();
        bev.enable(READ).unwrap();
        bev.write(b"there and back").unwrap();
        until(events, "the echo", || log.received() == b"there and back");
        assert_eq!(log.events(), [Told::Connected]);

        let log = Log::new();
        let bev = Builder::new(events)
            .handler(log.take_all())
            .connect_hostname(&resolver, Family::Any, "missing.example", 1)
            .unwrap();
        until(events, "an error", || !log.events().is_empty());
        let error = bev.dns_error().unwrap();
        assert_eq!(error.failure(), ResolveFailure::NotFound);
        assert_eq!(
            error.to_string(),
            "cannot look up `missing.example`: no such host; check the name"
        );
        assert!(std::error::Error::source(&error).is_some());
    });
}

#[test]
fn questions_are_called_off_in_any_order() {
    on_backends(|events| {
        fault!(F80);
        let script = Script::new(events, |_| Vec::new());
        let resolver = script.resolver(events);
        // The one who asked goes first.
        let asked = ask(events, &resolver, "example.org", Family::Any);
        until(events, "asked", || script.asked().len() >= 2);
        assert_eq!(resolver.under_way(), 1);
        asked.give_up();
        assert_eq!(resolver.under_way(), 0);
        // The resolver goes first.
        let mut asked = ask(events, &resolver, "example.org", Family::Any);
        events.poll().unwrap();
        drop(resolver);
        assert!(asked.look());
        assert_eq!(asked.outcome(), Err(ResolveFailure::Cancelled));
        drop(asked.lookup.take());
        // The loop goes first, with questions under way, by UDP and by TCP; then the others, in both orders.
        for resolver_first in [true, false] {
            for truncated in [true, false] {
                let other = EventLoop::builder()
                    .backend(events.backend())
                    .build()
                    .unwrap();
                let script = Script::new(&other, move |query| {
                    let mut answer = query.response();
                    answer.metadata.truncation = true;
                    if truncated && query.over != Over::Tcp {
                        message(&answer)
                    } else {
                        Vec::new()
                    }
                });
                let resolver = script.resolver(&other);
                let mut asked = ask(&other, &resolver, "example.org", Family::Any);
                let count = if truncated { 4 } else { 2 };
                until(&other, "asked", || script.asked().len() >= count);
                drop(script);
                drop(other);
                if resolver_first {
                    drop(resolver);
                    assert!(asked.look());
                    asked.give_up();
                } else {
                    asked.give_up();
                    assert_eq!(resolver.under_way(), 0);
                }
            }
        }
        // From a callback that the answer causes.
        let script = Script::new(events, |query| message(&query.code(ResponseCode::NXDomain)));
        let resolver = Arc::new(std::sync::Mutex::new(Some(script.resolver(events))));
        let of_callback = resolver.clone();
        let stop = Arc::new(AtomicUsize::new(0));
        let told = stop.clone();
        let bev = Builder::new(events)
            .handler(on_event(move |bev, event| {
                assert!(matches!(event, Event::Error { .. }));
                drop(of_callback.lock().unwrap().take());
                bev.free().unwrap();
                told.fetch_add(1, Ordering::Relaxed);
            }))
            .unconnected()
            .unwrap();
        {
            let resolver = resolver.lock().unwrap();
            let resolver = resolver.as_ref().unwrap();
            bev.connect_hostname(resolver, Family::Any, "example.org", 1)
                .unwrap();
        }
        until(events, "told", || stop.load(Ordering::Relaxed) == 1);
        assert!(bev.is_freed());
    });
}

#[test]
fn no_more_questions_than_the_limit_says_are_under_way() {
    on_backends(|events| {
        let script = Script::new(events, |_| Vec::new());
        let resolver = script.builder(events).questions(3).build().unwrap();
        let mut asked: Vec<_> = (0..4)
            .map(|number| {
                ask(
                    events,
                    &resolver,
                    &format!("h{number}.example"),
                    Family::Any,
                )
            })
            .collect();
        let mut last = asked.pop().unwrap();
        assert!(last.look());
        assert_eq!(last.outcome(), Err(ResolveFailure::Busy));
        assert!(asked.iter_mut().all(|asked| !asked.look()));
        asked.pop().unwrap().give_up();
        let mut next = ask(events, &resolver, "next.example", Family::Any);
        assert!(!next.look(), "a place that is given up is taken again");
    });
}

#[test]
fn names_that_are_none_are_refused_before_anybody_is_asked() {
    on_backends(|events| {
        fault!(F79);
        let script = Script::new(events, |query| message(&query.addresses(60, &[v4(1)])));
        let resolver = script.resolver(events);
        let too_long = ["a".repeat(255), "a".repeat(256), "a.".repeat(128)];
        for host in ["", "a\0b", "[::1", "::1]", "a b", "1.2.3"]
            .into_iter()
            .chain(too_long.iter().map(String::as_str))
        {
            let log = Log::new();
            let bev = Builder::new(events)
                .handler(log.take_all())
                .connect_hostname(&resolver, Family::Any, host, 1)
                .unwrap();
            assert_eq!(log.told(), []);
            until(events, "refused", || !log.told().is_empty());
            let failure = bev.dns_error().unwrap().failure();
            assert_eq!(failure, ResolveFailure::BadName, "{host:?}");
            assert_eq!(log.events().len(), 1);
        }
        assert_eq!(script.asked().len(), 0);
    });
}

#[test]
fn the_example_serves_what_its_file_says() {
    on_backends(|events| {
        let many: String = (0..100)
            .map(|last| format!("192.0.2.{last} many.example\n"))
            .collect();
        let text = format!("192.0.2.1 one.example # a comment\n2001:db8::1 one.example\n{many}");
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let server = serve(events, at, zone(&text).unwrap()).unwrap();
        let resolver = Dns::builder(events)
            .name_server(server.address)
            .timeout(PATIENCE)
            .attempts(0)
            .build()
            .unwrap();
        let found = |host: &str, family| resolve(events, &resolver, host, family);
        assert_eq!(found("one.example", Family::Any), Ok(set([v4(1), v6(1)])));
        assert_eq!(
            found("many.example", Family::V4).map(|found| found.len()),
            Ok(100)
        );
        assert_eq!(
            found("many.example", Family::V6),
            Err(ResolveFailure::NoAddress)
        );
        assert_eq!(
            found("missing.example", Family::Any),
            Err(ResolveFailure::NotFound)
        );
    });
}
