//! Out of descriptors, over completions: accepting pauses, says so once a second, and goes on. Alone in its process, whose limit it lowers.

#![cfg(target_os = "linux")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferevent_core::Bev;
use bufferevent_iocp::{BACKEND, Listener};
use bufferevent_testkit::{fault, record};
use common::{system, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Connections that have to wait.
const WAITING: usize = 5;

/// Counts what is said of accepting.
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        *about.level() <= tracing::Level::WARN && about.target() == "bufferevent_iocp::listener"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Puts the process's limit back, also when the check fails.
struct Restore(Rlimit);

impl Drop for Restore {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).expect("it was so before");
    }
}

#[test]
fn out_of_descriptors_accepting_pauses_and_recovers() {
    let events = system();
    record::within("completion", BACKEND, || {
        fault!(F20);
        let accepted: Arc<Mutex<Vec<Bev>>> = Arc::default();
        let keep = accepted.clone();
        let local: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind(&events, local, move |bev, _| keep.lock().unwrap().push(bev));
        let listener = listener.unwrap();
        let refusals = Arc::new(AtomicUsize::new(0));
        let counted = refusals.clone();
        listener.on_error(move |error| {
            let code = error.io_error().and_then(std::io::Error::raw_os_error);
            assert_eq!(
                code,
                Some(rustix::io::Errno::MFILE.raw_os_error()),
                "{error}"
            );
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let clients: Vec<Socket> = (0..WAITING)
            .map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
            .collect();
        let limit = getrlimit(Resource::Nofile);
        let restore = Restore(limit);
        let few = Rlimit {
            current: Some(3),
            ..limit
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let address = listener.local_addr().unwrap();
        for client in &clients {
            client.connect(&address).unwrap();
        }
        let (turns, since) = (events.stats().turns, Instant::now());
        let lines = Arc::new(AtomicUsize::new(0));
        events.exit_after(Duration::from_secs(2)).unwrap();
        tracing::subscriber::with_default(Lines(lines.clone()), || events.run()).unwrap();
        let seconds = since.elapsed().as_secs() as usize;
        // 50 ms, doubling: after 0, 50, 150, 350, 750 and 1,550 ms.
        let attempts = refusals.load(Ordering::Relaxed);
        assert!((4..=7).contains(&attempts), "{attempts} attempts");
        let lines = lines.load(Ordering::Relaxed);
        assert!((1..=1 + seconds).contains(&lines), "{lines} lines");
        let turns = events.stats().turns - turns;
        assert!(turns < 50, "{turns} turns");
        // Who connects is not accepted and thrown away: as many as there were connect in the end.
        drop(restore);
        until(&events, "all come in", || {
            accepted.lock().unwrap().len() == WAITING
        });
    });
}
