//! Questions asked without a socket.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bufferevent_core::resolve::{Answers, Found};
use bufferevent_dns::{Family, Lookup, Question, Resolve, ResolveFailure};
use bufferevent_testkit::record;
use evreactor::{EventLoop, LoopHandle, Ready};
use evreactor_core::Target;

/// How long something that has to come is waited for, in real time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a check on a loop of each backend.
pub(crate) fn on_backends(check: fn(&EventLoop)) {
    for backend in evreactor::backend_names() {
        record::within("dns", backend, || {
            let events = EventLoop::builder().backend(backend).build().unwrap();
            check(&events);
            assert_eq!(events.stats().panics, 0, "on {backend}");
        });
    }
}

/// One that is only there to be woken for.
struct Woken;

impl Target for Woken {
    fn run(&self, _key: u64) {}
    fn expired(&self, _key: u64) {}
    fn ready(&self, _key: u64, _ready: Ready) {}
}

/// A question that was asked.
pub(crate) struct Asked {
    answers: Answers,
    pub(crate) lookup: Option<Lookup>,
    target: Option<Arc<Woken>>,
    family: Family,
    pub(crate) found: Vec<(Family, Found)>,
}

pub(crate) fn ask(
    events: &LoopHandle,
    resolver: &impl Resolve,
    host: &str,
    family: Family,
) -> Asked {
    let question = Question::new(host, family);
    let target = Arc::new(Woken);
    let weak = Arc::downgrade(&target);
    let (answers, reply) = Answers::to(question.clone(), events.host(), weak, 0);
    let lookup = Some(resolver.resolve(&question, reply));
    Asked {
        answers,
        lookup,
        target: Some(target),
        family,
        found: Vec::new(),
    }
}

impl Asked {
    /// Takes what has come. Whether that is all.
    pub(crate) fn look(&mut self) -> bool {
        self.found.extend(self.answers.take());
        let has = |family: Family| self.found.iter().any(|(of, _)| of.wants(family));
        [Family::V4, Family::V6]
            .into_iter()
            .all(|family| !self.family.wants(family) || has(family))
    }

    pub(crate) fn found_of(&self, family: Family) -> Option<&Found> {
        let mut of = self.found.iter().filter(|(of, _)| of.wants(family));
        of.next().map(|(_, found)| found)
    }

    /// All addresses, or what tells most of why there are none.
    pub(crate) fn outcome(&self) -> Result<BTreeSet<IpAddr>, ResolveFailure> {
        let mut addresses = BTreeSet::new();
        let mut failure = None;
        for (_, found) in &self.found {
            match found {
                Ok(found) => addresses.extend(found.iter().map(SocketAddr::ip)),
                Err(error) if failure.is_none_or(|known| known == ResolveFailure::NoAddress) => {
                    failure = Some(error.failure());
                }
                Err(_) => {}
            }
        }
        match failure {
            Some(failure) if addresses.is_empty() => Err(failure),
            _ => Ok(addresses),
        }
    }

    /// Gives up, as one that is freed does.
    pub(crate) fn give_up(mut self) {
        drop(self.lookup.take());
        drop(self.target.take());
    }
}

/// Runs the loop until `done`.
#[track_caller]
pub(crate) fn until(events: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let late = Arc::new(Mutex::new(false));
    let mark = late.clone();
    let _timer = events
        .after(PATIENCE, move || *mark.lock().unwrap() = true)
        .unwrap();
    while !done() {
        assert!(!*late.lock().unwrap(), "in vain: {what}");
        events.run_once().unwrap();
    }
}

/// Asks, and runs the loop until all is answered.
#[track_caller]
pub(crate) fn resolve(
    events: &EventLoop,
    resolver: &impl Resolve,
    host: &str,
    family: Family,
) -> Result<BTreeSet<IpAddr>, ResolveFailure> {
    let mut asked = ask(events, resolver, host, family);
    until(events, host, || asked.look());
    asked.outcome()
}
