//! `/etc/resolv.conf` and `/etc/hosts` as they are found in the wild, and the DNS resolver that is made of them.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

use bufferevent_dns::{Dns, Family, ResolveFailure};
use bufferevent_testkit::fault;
use common::{PATIENCE, Script, ask, message, on_backends, resolve, until, v4, v6};

fn set<const N: usize>(addresses: [IpAddr; N]) -> BTreeSet<IpAddr> {
    addresses.into()
}

#[test]
fn files_that_are_missing_or_strange_are_taken_as_far_as_they_go() {
    on_backends(|events| {
        fault!(F81);
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("resolv.conf");
        let build = || Dns::builder(events).resolv_conf(&conf).build();
        // Missing, empty, or without a server: this machine is asked.
        build().unwrap();
        let long = format!(
            "nameserver 127.0.0.1\nsearch {}\n",
            "a.example ".repeat(100)
        );
        let servers = "nameserver 127.0.0.1\n".repeat(100);
        for text in [
            "",
            "\0\u{1}\u{fffd}",
            "nameserver\nnameserver x\nsearch\noptions ndots:x timeout: attempts:-1\n",
            "options ndots:4294967295 timeout:4294967295 attempts:4294967295\nnameserver ::1",
            "nameserver fe80::1%lo\r\nsearch -- .. a..b\r\ndomain\t\r\n",
            &long,
            &servers,
        ] {
            fs::write(&conf, text).unwrap();
            build().unwrap_or_else(|error| panic!("{error}: {text:?}"));
        }
        fs::write(&conf, [0xff; 4096]).unwrap();
        build().unwrap();
    });
}

#[test]
fn files_that_cannot_be_read_are_refused_at_once_and_with_the_reason() {
    on_backends(|events| {
        fault!(F81);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let refused = |kind: io::ErrorKind| {
            for error in [
                Dns::builder(events).resolv_conf(&path).build().unwrap_err(),
                Dns::builder(events)
                    .name_server(([127, 0, 0, 1], 53))
                    .hosts_file(&path)
                    .build()
                    .unwrap_err(),
            ] {
                assert!(error.to_string().contains("file"), "{error}");
                assert_eq!(error.io_error().map(io::Error::kind), Some(kind));
            }
        };
        // Larger than anybody's.
        fs::write(&path, vec![b'\n'; (8 << 20) + 1]).unwrap();
        refused(io::ErrorKind::InvalidData);
        fs::remove_file(&path).unwrap();
        #[cfg(unix)]
        {
            // A pipe that nobody ever writes to.
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
            refused(io::ErrorKind::InvalidInput);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            refused(io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_set_up_that_makes_no_sense_is_refused() {
    on_backends(|events| {
        let error = Dns::builder(events).build().unwrap_err();
        assert!(error.to_string().contains("0 name servers"), "{error}");
        let mut builder = Dns::builder(events);
        for _ in 0..9 {
            builder = builder.name_server(([127, 0, 0, 1], 53));
        }
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains("9 name servers"), "{error}");
        let builder = Dns::builder(events).name_server(([127, 0, 0, 1], 53));
        let error = builder.clone().search("a..b").build().unwrap_err();
        assert!(error.to_string().contains("`a..b`"), "{error}");
        let mut builder = builder;
        for _ in 0..9 {
            builder = builder.search("example.org");
        }
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains("9 search"), "{error}");
    });
}

#[test]
fn hosts_are_found_before_anybody_is_asked() {
    on_backends(|events| {
        fault!(F81);
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        let text = "\u{feff}# a comment\n192.0.2.1 One.example one # another\n2001:db8::1 one.example\n\
                    nonsense\n192.0.2.300 bad.example\n192.0.2.2\n\n192.0.2.3 one.example\tlast.example";
        let mut bytes = text.as_bytes().to_vec();
        bytes.extend_from_slice(b"\n192.0.2.4 \xff\xfe.example\n192.0.2.5 behind.example\n");
        fs::write(&hosts, bytes).unwrap();
        let script = Script::new(events, |query| {
            message(&query.code(hickory_resolver::proto::op::ResponseCode::NXDomain))
        });
        let resolver = script.builder(events).hosts_file(&hosts).build().unwrap();
        let found = |host: &str| resolve(events, &resolver, host, Family::Any);
        assert_eq!(found("one.example"), Ok(set([v4(1), v4(3), v6(1)])));
        assert_eq!(found("ONE.example."), Ok(set([v4(1), v4(3), v6(1)])));
        assert_eq!(script.asked().len(), 0);
        assert_eq!(found("last.example"), Ok(set([v4(3)])));
        assert_eq!(found("behind.example"), Ok(set([v4(5)])));
        assert_eq!(found("bad.example"), Err(ResolveFailure::NotFound));
    });
}

#[test]
fn files_are_read_again_while_questions_are_under_way() {
    on_backends(|events| {
        fault!(F81);
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, "192.0.2.1 one.example\n").unwrap();
        let script = Script::new(events, |_| Vec::new());
        let resolver = script
            .builder(events)
            .timeout(PATIENCE)
            .hosts_file(&hosts)
            .build()
            .unwrap();
        let mut under_way = ask(events, &resolver, "slow.example", Family::V4);
        until(events, "asked", || !script.asked().is_empty());
        fs::write(&hosts, "192.0.2.2 one.example slow.example\n").unwrap();
        resolver.reload().unwrap();
        let found = resolve(events, &resolver, "one.example", Family::V4);
        assert_eq!(found, Ok(set([v4(2)])));
        let found = resolve(events, &resolver, "slow.example", Family::V4);
        assert_eq!(found, Ok(set([v4(2)])));
        assert!(!under_way.look(), "it goes on as it was asked");
        assert_eq!(resolver.under_way(), 1);
        // What cannot be read changes nothing.
        fs::remove_file(&hosts).unwrap();
        fs::create_dir(&hosts).unwrap();
        if cfg!(unix) {
            resolver.reload().unwrap_err();
            let found = resolve(events, &resolver, "one.example", Family::V4);
            assert_eq!(found, Ok(set([v4(2)])));
        }
        under_way.give_up();
        assert_eq!(resolver.under_way(), 0);
    });
}
