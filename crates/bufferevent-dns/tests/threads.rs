//! Resolvers that need no name server: the system's, any function that blocks, and tables.

#[path = "common/asking.rs"]
mod asking;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use asking::{PATIENCE, ask, resolve, until};
use bufferevent_dns::{Blocking, Family, ResolveFailure, Static, System};
use bufferevent_testkit::fault;
use evreactor::EventLoop;

fn one(last: u8) -> Result<BTreeSet<IpAddr>, ResolveFailure> {
    Ok(BTreeSet::from([Ipv4Addr::new(192, 0, 2, last).into()]))
}

/// A function that blocks until the test lets it go on, and how often it was begun and ended.
struct Gate {
    pass: Sender<()>,
    begun: Receiver<()>,
}

impl Gate {
    fn blocking(threads: usize, waiting: usize) -> (Self, Blocking) {
        let (pass, gate) = channel();
        let gate = Mutex::new(gate);
        let (tell, begun) = channel();
        let resolver = Blocking::with_limits(
            move |_, _| {
                let _ = tell.send(());
                // An end of the test lets everybody pass.
                let _ = gate.lock().unwrap().recv();
                Ok(vec![([192, 0, 2, 1], 0).into()])
            },
            NonZeroUsize::new(threads).unwrap(),
            waiting,
        );
        (Self { pass, begun }, resolver)
    }

    /// Waits until so many more were begun.
    fn begun(&self, count: usize) {
        for _ in 0..count {
            self.begun.recv_timeout(PATIENCE).expect("a thread begins");
        }
    }
}

#[test]
fn the_system_knows_this_machine_and_refuses_what_is_no_name() {
    fault!(F79);
    let events = EventLoop::new().unwrap();
    let resolver = System::new();
    let found = resolve(&events, &resolver, "localhost", Family::V4);
    assert_eq!(found, Ok(BTreeSet::from([Ipv4Addr::LOCALHOST.into()])));
    let found = resolve(&events, &resolver, "LOCALHOST", Family::Any).unwrap();
    assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    let (long, longer) = ("a".repeat(255), "a.".repeat(128));
    for host in ["", "[::1", "a\0b", "127.1", "a b", &long, &longer] {
        let found = resolve(&events, &resolver, host, Family::Any);
        assert_eq!(found, Err(ResolveFailure::BadName), "{host:?}");
    }
}

#[test]
fn threads_and_the_queue_have_limits_and_places_are_given_up() {
    let events = EventLoop::new().unwrap();
    let (gate, resolver) = Gate::blocking(2, 3);
    let mut asked: Vec<_> = (0..5)
        .map(|number| ask(&events, &resolver, &format!("h{number}"), Family::V4))
        .collect();
    gate.begun(2);
    let mut refused = ask(&events, &resolver, "too-many", Family::V4);
    assert!(refused.look());
    assert_eq!(refused.outcome(), Err(ResolveFailure::Busy));
    assert!(
        format!("{resolver:?}").contains("threads: 2"),
        "{resolver:?}"
    );
    // One that waits is called off; its place is free, and nobody ever looks it up.
    asked.remove(3).give_up();
    let mut last = ask(&events, &resolver, "in-its-place", Family::V4);
    assert!(!last.look());
    // One that a thread is at is called off: the thread is not to be had for that, and goes on later.
    asked.remove(0).give_up();
    asked.push(last);
    for _ in 0..5 {
        gate.pass.send(()).unwrap();
    }
    until(&events, "all answered", || {
        asked.iter_mut().all(|asked| asked.look())
    });
    assert!(asked.iter().all(|asked| asked.outcome() == one(1)));
    gate.begun(3);
    let more = gate.begun.try_recv();
    assert!(more.is_err(), "the one that was called off was not begun");
}

#[test]
fn a_resolver_that_goes_answers_what_waits_and_is_not_waited_for() {
    fault!(F80);
    let events = EventLoop::new().unwrap();
    let (gate, resolver) = Gate::blocking(1, 8);
    let mut at_work = ask(&events, &resolver, "at-work", Family::V4);
    let mut waits = ask(&events, &resolver, "waits", Family::V4);
    gate.begun(1);
    drop(resolver);
    assert!(waits.look());
    assert_eq!(waits.outcome(), Err(ResolveFailure::Cancelled));
    assert!(!at_work.look());
    gate.pass.send(()).unwrap();
    until(&events, "what was at work is answered", || at_work.look());
    assert_eq!(at_work.outcome(), one(1));
    // A loop that goes while a thread is at it.
    let (gate, resolver) = Gate::blocking(1, 8);
    let other = EventLoop::new().unwrap();
    let asked = ask(&other, &resolver, "example", Family::V4);
    gate.begun(1);
    drop(other);
    gate.pass.send(()).unwrap();
    drop(asked);
}

#[test]
fn a_function_that_panics_loses_one_question() {
    let events = EventLoop::new().unwrap();
    let resolver = Blocking::with_limits(
        |question, ascii| {
            assert_ne!(question.host(), "Bad", "on purpose");
            assert_eq!(ascii, "good");
            Ok(vec![([192, 0, 2, 9], 0).into()])
        },
        NonZeroUsize::MIN,
        8,
    );
    let found = resolve(&events, &resolver, "Bad", Family::V4);
    assert_eq!(found, Err(ResolveFailure::Cancelled));
    assert_eq!(resolve(&events, &resolver, "GOOD", Family::V4), one(9));
}

#[test]
fn a_table_answers_at_once_and_leaves_the_rest_to_another() {
    let events = EventLoop::new().unwrap();
    let mut table =
        Static::from_hosts("192.0.2.1 One.example\n\n# no\n192.0.2.2 two two.example.").unwrap();
    table
        .pin("bücher.example", [Ipv4Addr::new(192, 0, 2, 3).into()])
        .unwrap();
    let found = |host: &str, family| resolve(&events, &table, host, family);
    assert_eq!(found("ONE.EXAMPLE.", Family::Any), one(1));
    assert_eq!(found("two", Family::V4), one(2));
    assert_eq!(found("xn--bcher-kva.example", Family::V4), one(3));
    assert_eq!(found("two", Family::V6), Err(ResolveFailure::NoAddress));
    assert_eq!(found("three", Family::Any), Err(ResolveFailure::NotFound));
    assert_eq!(found("1.2.3", Family::Any), Err(ResolveFailure::BadName));
    assert!(table.pin("a b", []).is_err());
    let both = table.otherwise(Blocking::new(|_, _| Ok(vec![([192, 0, 2, 4], 0).into()])));
    assert_eq!(resolve(&events, &both, "two", Family::V4), one(2));
    assert_eq!(resolve(&events, &both, "three", Family::V4), one(4));
}

#[test]
fn a_bad_line_of_a_table_is_named() {
    for (text, number, why) in [
        ("nonsense one", 1, "`nonsense` is no address"),
        ("\n127.0.0.1 a\n127.0.0.1 a..b", 3, "`a..b` is no host name"),
        ("127.0.0.1 1.2.3.4", 1, "`1.2.3.4` is no host name"),
    ] {
        let error = Static::from_hosts(text).unwrap_err();
        assert_eq!(error.number(), number);
        assert_eq!(error.to_string(), format!("line {number}: {why}"));
    }
}
