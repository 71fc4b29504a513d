//! The DNS resolver against a real name server: dnsmasq, on this machine alone.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bufferevent_core::{Error, Event, Family, READ, on_event};
use bufferevent_dns::{Dns, ResolveFailure};
use bufferevent_socket::{Address, Builder, Listener, SocketExt as _};
use bufferevent_testkit::{Log, Told, fault, spec};
use common::dns_server::Back;
use common::{PATIENCE, SHORT, Script, alias, message, on_backends, resolve, until, v4, v6};
use evreactor::EventLoop;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;

/// A dnsmasq that is ended with the test.
struct Dnsmasq {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Dnsmasq {
    fn start(records: &[String]) -> Self {
        // Another program may take the port meanwhile: then the next one.
        for _ in 0..20 {
            let port = free_port();
            if let Some(started) = Self::start_at(port, records) {
                return started;
            }
        }
        panic!("dnsmasq does not start; is it installed (Debian: dnsmasq-base)?");
    }

    fn start_at(port: u16, records: &[String]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("conf");
        let mut text = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-poll\n\
             log-facility=-\nedns-packet-max=1232\nlocal=/example/\nlocal-ttl=60\n"
        );
        for record in records {
            text.push_str(record);
            text.push('\n');
        }
        fs::write(&conf, text).unwrap();
        // It changes to this user, which exists everywhere, where it is started by root.
        let mut child = Command::new("dnsmasq")
            .arg("--keep-in-foreground")
            .arg("--conf-file")
            .arg(format!("--conf-file={}", conf.display()))
            .args(["--user=", "--group=", "--pid-file="])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("dnsmasq starts; it is Debian's package dnsmasq-base");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        for line in log.lines() {
            if line.expect("text").contains("started") {
                return Some(Self {
                    child,
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    _folder: folder,
                });
            }
        }
        let _ = child.wait();
        None
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free for both.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn a_real_server_answers_everything_that_it_knows() {
    on_backends(|events| {
        spec!(S4);
        let many: Vec<IpAddr> = (0..200).map(v4).collect();
        let mut records = vec![
            "host-record=one.example,192.0.2.1,2001:db8::1".to_owned(),
            "host-record=four.example,192.0.2.4".to_owned(),
            "host-record=xn--bcher-kva.example,192.0.2.5".to_owned(),
            "host-record=here.example,127.0.0.1".to_owned(),
            "cname=alias.example,one.example".to_owned(),
            "cname=alias2.example,alias.example".to_owned(),
        ];
        records.extend(
            many.iter()
                .map(|at| format!("host-record=many.example,{at}")),
        );
        let server = Dnsmasq::start(&records);
        let resolver = Dns::builder(events)
            .name_server(server.address)
            .search("example")
            .timeout(PATIENCE)
            .attempts(0)
            .build()
            .unwrap();
        let found = |host: &str| resolve(events, &resolver, host, Family::Any);
        assert_eq!(found("one.example"), Ok(BTreeSet::from([v4(1), v6(1)])));
        assert_eq!(found("four.example"), Ok(BTreeSet::from([v4(4)])));
        assert_eq!(found("bücher.example"), Ok(BTreeSet::from([v4(5)])));
        assert_eq!(found("alias.example"), Ok(BTreeSet::from([v4(1), v6(1)])));
        assert_eq!(found("alias2.example"), Ok(BTreeSet::from([v4(1), v6(1)])));
        assert_eq!(
            found("four"),
            Ok(BTreeSet::from([v4(4)])),
            "by the search domain"
        );
        // More than fits into a datagram: by TCP.
        assert_eq!(found("many.example"), Ok(many.iter().copied().collect()));
        assert_eq!(found("missing.example"), Err(ResolveFailure::NotFound));
        let four = resolve(events, &resolver, "four.example", Family::V6);
        assert_eq!(four, Err(ResolveFailure::NoAddress));
        // It has nobody to ask for names that are not its own.
        let foreign = resolve(events, &resolver, "foreign.test.", Family::V4);
        assert_eq!(foreign, Err(ResolveFailure::Refused));

        let listener = Listener::bind(events, "127.0.0.1:0", |bev, _| bev.enable(READ)).unwrap();
        let Address::Tcp(at) = listener.local_addr().unwrap() else {
            panic!("not TCP")
        };
        let log = Log::new();
        let bev = Builder::new(events)
            .handler(log.take_all())
            .connect_hostname(&resolver, Family::Any, "here.example", at.port())
            .unwrap();
        until(events, "connected", || log.has(&Told::Connected));
        assert_eq!(bev.peer_addr().unwrap().to_string(), at.to_string());
        drop(server);
    });
}

#[test]
fn what_a_real_server_cannot_say_is_told_as_what_it_is() {
    on_backends(|events| {
        spec!(S4);
        fault!(F71);
        let listener = Listener::bind(events, "127.0.0.1:0", |bev, _| bev.enable(READ)).unwrap();
        let Address::Tcp(at) = listener.local_addr().unwrap() else {
            panic!("not TCP")
        };
        // Whom dnsmasq asks for what it does not know itself.
        let beyond = Script::new(events, move |query| match query.name().as_str() {
            "failing.test." => message(&query.code(ResponseCode::ServFail)),
            "refused.test." => message(&query.code(ResponseCode::Refused)),
            "missing.test." => message(&query.code(ResponseCode::NXDomain)),
            "ring.test." => {
                let mut answer = query.response();
                answer.add_answer(alias("ring.test", "ring2.test"));
                answer.add_answer(alias("ring2.test", "ring.test"));
                message(&answer)
            }
            "broken.test." => {
                let mut bytes = query.addresses(60, &[v4(1)]).to_vec().unwrap();
                bytes.truncate(bytes.len().saturating_sub(3));
                vec![Back::Message(bytes)]
            }
            // One family is never answered.
            "half.test." if query.kind() == RecordType::A => {
                message(&query.addresses(60, &[at.ip()]))
            }
            _ => Vec::new(),
        });
        let server = Dnsmasq::start(&[
            format!("server=/test/127.0.0.1#{}", beyond.address().port()),
            "host-record=four.example,192.0.2.4".to_owned(),
        ]);
        let builder = Dns::builder(events).name_server(server.address).attempts(0);
        let patient = builder.clone().timeout(PATIENCE).build().unwrap();
        // For what no answer comes to.
        let soon = builder.timeout(SHORT).build().unwrap();
        let again = "try again later";
        for (host, family, failed, why, what_to_do) in [
            (
                "missing.example",
                Family::Any,
                ResolveFailure::NotFound,
                "no such host",
                "check the name",
            ),
            (
                "missing.test",
                Family::Any,
                ResolveFailure::NotFound,
                "no such host",
                "check the name",
            ),
            (
                "four.example",
                Family::V6,
                ResolveFailure::NoAddress,
                "has no address of the family",
                "that was asked for",
            ),
            (
                "failing.test",
                Family::Any,
                ResolveFailure::ServerFailed,
                "the name servers failed",
                again,
            ),
            (
                "refused.test",
                Family::Any,
                ResolveFailure::Refused,
                "the name servers refuse to say",
                "ask others",
            ),
            (
                "silent.test",
                Family::Any,
                ResolveFailure::Timeout,
                "did not answer in time",
                "check that they can be reached",
            ),
        ] {
            let resolver = if host == "silent.test" {
                &soon
            } else {
                &patient
            };
            let error = failure(events, resolver, host, family);
            let cause = error.resolve_error().expect("of the look-up");
            assert!(cause.failure() == failed, "{host}: {cause}");
            let told = cause.to_string();
            assert!(told.contains(host), "{told}");
            assert!(told.contains(why) && told.contains(what_to_do), "{told}");
            assert_eq!(
                error.to_string(),
                "socket: resolve: looking up the host has failed"
            );
        }
        // What makes no sense is no address, whoever of the two notices.
        for host in ["ring.test", "broken.test"] {
            let error = failure(events, &soon, host, Family::Any);
            assert!(error.resolve_error().is_some(), "{host}: {error}");
        }
        let log = Log::new();
        let bev = Builder::new(events)
            .handler(log.take_all())
            .connect_hostname(&patient, Family::Any, "half.test", at.port())
            .unwrap();
        until(events, "connected", || log.has(&Told::Connected));
        assert_eq!(bev.peer_addr().unwrap().to_string(), at.to_string());
        drop(server);
    });
}

/// The one error of a connection to a name.
fn failure(events: &EventLoop, resolver: &Dns, host: &str, family: Family) -> Error {
    let told: Arc<Mutex<Vec<Error>>> = Arc::default();
    let tell = told.clone();
    let bev = Builder::new(events)
        .handler(on_event(move |_, event| match event {
            Event::Error { error, .. } => tell.lock().unwrap().push(error.clone()),
            other => panic!("{other:?}"),
        }))
        .connect_hostname(resolver, family, host, 1)
        .unwrap();
    until(events, host, || !told.lock().unwrap().is_empty());
    bev.free().unwrap();
    let mut told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{host}");
    told.remove(0)
}
