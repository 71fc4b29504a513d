//! Out of descriptors: accepting pauses, costs nothing, and goes on. Alone in its process, whose limit it lowers.

#![cfg(target_os = "linux")]

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bufferevent_core::Bev;
use bufferevent_socket::Listener;
use bufferevent_testkit::{fault, record, spec};
use evreactor::EventLoop;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

/// Connections that have to wait.
const WAITING: usize = 5;

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::from_secs(time.tv_sec.cast_unsigned())
        + Duration::from_nanos(time.tv_nsec.cast_unsigned())
}

/// Counts what is said of accepting.
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        *about.level() <= tracing::Level::WARN && about.target() == "bufferevent_socket::listener"
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

fn check(backend: &str) {
    spec!(S7);
    fault!(F20);
    let events = EventLoop::builder().backend(backend).build().unwrap();
    let accepted: Arc<Mutex<Vec<Bev>>> = Arc::default();
    let keep = accepted.clone();
    let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
        keep.lock().unwrap().push(bev)
    })
    .unwrap();
    let refusals = Arc::new(Mutex::new(0));
    let counted = refusals.clone();
    listener.on_error(move |error| {
        let code = error.io_error().and_then(std::io::Error::raw_os_error);
        assert_eq!(code, Some(libc::EMFILE), "{error}");
        *counted.lock().unwrap() += 1;
    });
    let address: std::net::SocketAddr = listener.local_addr().unwrap().to_string().parse().unwrap();
    // One that is there before: it must not be harmed.
    let mut before = TcpStream::connect(address).unwrap();
    while accepted.lock().unwrap().is_empty() {
        events.poll().unwrap();
    }
    let one = accepted.lock().unwrap()[0].clone();
    one.enable(bufferevent_core::READ).unwrap();
    let clients: Vec<Socket> = (0..WAITING)
        .map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .collect();

    let limit = getrlimit(Resource::Nofile);
    let restore = Restore(limit);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(3),
            maximum: limit.maximum,
        },
    )
    .unwrap();
    for client in &clients {
        client.connect(&address.into()).unwrap();
    }
    let (cpu, turns) = (cpu_time(), events.stats().turns);
    std::io::Write::write_all(&mut before, b"unharmed").unwrap();
    events.exit_after(Duration::from_secs(2)).unwrap();
    let lines = Arc::new(AtomicUsize::new(0));
    let since = Instant::now();
    tracing::subscriber::with_default(Lines(lines.clone()), || events.run()).unwrap();
    let seconds = since.elapsed().as_secs() as usize;
    let lines = lines.load(Ordering::Relaxed);
    assert!(
        (1..=1 + seconds).contains(&lines),
        "{lines} lines in {seconds} seconds"
    );
    let attempts = *refusals.lock().unwrap();
    // 50 ms, doubling: after 0, 50, 150, 350, 750 and 1,550 ms.
    assert!(
        (4..=7).contains(&attempts),
        "{attempts} attempts in two seconds"
    );
    assert!(
        events.stats().turns - turns < 30,
        "{} turns",
        events.stats().turns - turns
    );
    let spent = cpu_time() - cpu;
    assert!(
        spent < Duration::from_millis(20),
        "{spent:?} is more than 1 % of a core"
    );
    assert_eq!((accepted.lock().unwrap().len(), one.input().len()), (1, 8));

    // Descriptors again: all that waited come in, within a second.
    drop(restore);
    events.exit_after(Duration::from_millis(1500)).unwrap();
    events.run().unwrap();
    assert_eq!(accepted.lock().unwrap().len(), 1 + WAITING);
}

#[test]
fn out_of_descriptors_accepting_pauses_and_recovers() {
    for backend in ["mio", "polling"] {
        record::within("tcp", backend, || check(backend));
    }
}
