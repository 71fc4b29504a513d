//! `bev relay --workers`: several loops behind one address, told apart by the statistics.
#![cfg(unix)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{BACKENDS, PATIENCE, Service, ask, data, receive_all, run, send_all};

/// So many that each of four workers gets some: that one gets none, 4 * (3/4)^96, happens once in 10^11.
const MANY: usize = 96;

const FOUR: [&str; 5] = ["--workers", "4", "--stats", "0.05", "--json"];

/// A relay with four workers to an echo service.
fn relay_to_echo(backend: &str, arguments: &[&str]) -> (Service, Service) {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0", "--backend", backend]);
    let common = [
        "relay",
        "tcp:127.0.0.1:0",
        &echo.address,
        "--backend",
        backend,
    ];
    let relay = Service::start(&[&common, &FOUR[..], arguments].concat());
    (echo, relay)
}

/// One number of each worker.
fn each(stats: &Value, name: &str) -> Vec<u64> {
    let workers = stats["workers"].as_array().expect("a list");
    let number = |worker: &Value| worker[name].as_u64().expect("a number");
    workers.iter().map(number).collect()
}

/// All numbers of the workers add up to those of the relay.
fn assert_sums(stats: &Value) {
    for name in ["active", "accepted", "bytes_up", "bytes_down"] {
        let sum: u64 = each(stats, name).iter().sum();
        assert_eq!(stats[name], sum, "{name}: {stats}");
    }
}

#[test]
fn connections_spread_over_the_workers_and_the_numbers_add_up() {
    for &backend in BACKENDS {
        let (_echo, mut relay) = relay_to_echo(backend, &[]);
        let mut clients: Vec<_> = (0..MANY).map(|_| relay.connect()).collect();
        for (seed, client) in clients.iter_mut().enumerate() {
            ask(client, &data(seed as u64, 1000));
        }
        let bytes = 1000 * MANY as u64;
        let stats = relay.wait_for_stats("all bytes", |stats| stats["bytes_down"] == bytes);
        assert_sums(&stats);
        assert_eq!(stats["bytes_up"], bytes);
        assert_eq!(stats["active"], MANY);
        let accepted = each(&stats, "accepted");
        assert_eq!(accepted.len(), 4);
        assert!(
            accepted.iter().all(|&count| count > 0),
            "{backend}: {accepted:?}"
        );
        drop(clients);
        let stats = relay.wait_for_stats("all ends", |stats| stats["active"] == 0);
        assert_sums(&stats);
        assert_eq!(stats["accepted"], MANY);
        assert_eq!(relay.terminate().code, Some(0));
    }
}

#[test]
fn all_workers_at_once_carry_all_bytes() {
    const CLIENTS: u64 = 16;
    for &backend in BACKENDS {
        let (_echo, relay) = relay_to_echo(backend, &[]);
        let clients = (0..CLIENTS).map(|seed| {
            let client = relay.connect();
            thread::spawn(move || {
                let bytes = data(seed, 1 << 20);
                let half_close =
                    |stream: &TcpStream| stream.shutdown(std::net::Shutdown::Write).expect("ended");
                send_all(
                    client.try_clone().expect("a clone"),
                    bytes.clone(),
                    half_close,
                );
                receive_all(client) == bytes
            })
        });
        let clients: Vec<_> = clients.collect();
        for client in clients {
            assert!(client.join().expect("received"), "{backend}: other bytes");
        }
        assert_eq!(relay.terminate().code, Some(0));
    }
}

#[test]
fn connections_to_a_path_are_handed_out_in_turn() {
    for &backend in BACKENDS {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("front");
        let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
        let listen = format!("unix:{}", path.display());
        let common = ["relay", &listen, &echo.address, "--backend", backend];
        let mut relay = Service::start(&[&common, &FOUR[..]].concat());
        let mut clients: Vec<_> = (0..12)
            .map(|_| UnixStream::connect(&path).expect("connected"))
            .collect();
        for client in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            client.write_all(b"question").expect("sent");
            let mut answer = [0; 8];
            client.read_exact(&mut answer).expect("answered");
            assert_eq!(&answer, b"question");
        }
        let stats = relay.wait_for_stats("all", |stats| stats["bytes_down"] == 8 * 12);
        assert_eq!(each(&stats, "accepted"), [3, 3, 3, 3], "{backend}");
        drop(clients);
        assert_eq!(relay.terminate().code, Some(0));
        assert!(!path.exists(), "the path goes with the listener");
    }
}

/// What the test needs of a client, whatever it is connected by.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The next connection, if it comes in time.
fn accept(listener: &UnixListener) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("blocking");
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "nobody has come");
        thread::yield_now();
    }
}

/// An upstream that counts who is there: over `clients` connections, never more than `limit` at once, and all come in.
fn limited(backend: &str, listen: &str, limit: usize, clients: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let back = folder.path().join("back");
    let upstream = UnixListener::bind(&back).expect("bound");
    upstream.set_nonblocking(true).expect("non-blocking");
    let connect = format!("unix:{}", back.display());
    let listen = listen.replace("FOLDER", &folder.path().display().to_string());
    let limit_text = limit.to_string();
    let common = ["relay", &listen, &connect, "--backend", backend];
    let limited = ["--max-connections", &limit_text];
    let mut relay = Service::start(&[&common, &FOUR[..], &limited].concat());
    let mut waiting: Vec<Box<dyn Stream>> = (0..clients)
        .map(|_| -> Box<dyn Stream> {
            match relay.address.strip_prefix("unix:") {
                Some(path) => Box::new(UnixStream::connect(path).expect("connected")),
                None => Box::new(relay.connect()),
            }
        })
        .collect();
    for (index, client) in waiting.iter_mut().enumerate() {
        client.write_all(&[index as u8]).expect("sent");
    }
    let mut waiting: Vec<_> = waiting.into_iter().map(Some).collect();
    let mut served = Vec::new();
    let mut inside = Vec::new();
    for _ in 0..clients {
        // A client says who it is; the one that came first ends when the limit is reached.
        if inside.len() == limit {
            let stats = relay.wait_for_stats("the limit", |stats| stats["active"] == limit);
            assert_sums(&stats);
            let nobody = upstream.accept().expect_err("the limit");
            assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
            let (index, server): (usize, UnixStream) = inside.remove(0);
            drop((waiting[index].take(), server));
        }
        let mut server = accept(&upstream);
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut index = [0];
        server.read_exact(&mut index).expect("it says who it is");
        served.push(index[0]);
        inside.push((usize::from(index[0]), server));
    }
    served.sort_unstable();
    let all: Vec<_> = (0..clients).map(|index| index as u8).collect();
    assert_eq!(served, all, "{backend}: each once");
    drop((waiting, inside));
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn the_limit_is_for_all_workers_together() {
    for &backend in BACKENDS {
        limited(backend, "tcp:127.0.0.1:0", 3, 24);
        limited(backend, "tcp:127.0.0.1:0", 1, 8);
        limited(backend, "unix:FOLDER/front", 3, 24);
    }
}

#[test]
fn a_signal_reaches_every_worker_and_connections_may_end() {
    for &backend in BACKENDS {
        let (_echo, mut relay) = relay_to_echo(backend, &["--drain", "60", "--log", "info"]);
        let mut clients: Vec<_> = (0..MANY).map(|_| relay.connect()).collect();
        for client in &mut clients {
            ask(client, b"before");
        }
        relay.wait_for_stats("all", |stats| {
            each(stats, "active").iter().all(|&count| count > 0)
        });
        relay.signal("TERM");
        relay.wait_for_log("draining");
        for _ in 0..8 {
            // Each worker's listener is closed.
            TcpStream::connect(relay.socket_addr()).expect_err("still listening");
        }
        for client in &mut clients {
            ask(client, b"after");
        }
        drop(clients);
        let ended = relay.ended();
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]), "{backend}");
    }
}

#[test]
fn a_second_signal_and_the_deadline_cut_the_connections_of_all_workers() {
    for &backend in BACKENDS {
        for (drain, signals) in [("3600", 2), ("0.1", 1)] {
            let (_echo, relay) = relay_to_echo(backend, &["--drain", drain, "--log", "info"]);
            let mut clients: Vec<_> = (0..MANY).map(|_| relay.connect()).collect();
            for client in &mut clients {
                ask(client, b"before");
            }
            relay.signal("TERM");
            if signals == 2 {
                relay.wait_for_log("draining");
                relay.signal("TERM");
            }
            let ended = relay.ended();
            assert_eq!(ended.code, Some(5), "{backend}: {:?}", ended.stderr);
            let last = format!("bev: {MANY} connections cut");
            assert_eq!(ended.stderr.last(), Some(&last));
            for mut client in clients {
                // Ended or reset, but not left hanging.
                let _ = client.read(&mut [0; 1]);
            }
        }
    }
}

#[test]
fn connections_that_the_limit_keeps_out_do_not_hold_up_the_end() {
    let (_echo, relay) = relay_to_echo("mio", &["--max-connections", "1", "--log", "info"]);
    let mut first = relay.connect();
    ask(&mut first, b"before");
    let others: Vec<_> = (0..16).map(|_| relay.connect()).collect();
    relay.signal("TERM");
    relay.wait_for_log("draining");
    drop(first);
    assert_eq!(relay.ended().code, Some(0));
    for mut other in others {
        let mut rest = Vec::new();
        // Ended or reset: nobody has served it.
        let _ = other.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
}

#[test]
fn a_port_that_other_workers_listen_on_is_refused() {
    let (echo, relay) = relay_to_echo("mio", &[]);
    let ended = run(&["relay", &relay.address, &echo.address, "--workers", "2"]);
    assert_eq!(ended.code, Some(3), "{:?}", ended.stderr);
    assert!(
        ended.stderr[0].contains("cannot listen on"),
        "{:?}",
        ended.stderr
    );
}

#[test]
fn what_passed_the_layers_adds_up_too() {
    for &backend in BACKENDS {
        let echo = Service::start(&["echo", "tcp:127.0.0.1:0+zlib"]);
        let connect = format!("{}+zlib", echo.address);
        let common = ["relay", "tcp:127.0.0.1:0", &connect, "--backend", backend];
        let mut relay = Service::start(&[&common, &FOUR[..]].concat());
        let mut clients: Vec<_> = (0..MANY).map(|_| relay.connect()).collect();
        for client in &mut clients {
            ask(client, &[b'a'; 1000]);
        }
        let bytes = 1000 * MANY as u64;
        let stats = relay.wait_for_stats("all bytes", |stats| stats["bytes_down"] == bytes);
        let layers = stats["layers"].as_array().expect("a list");
        assert_eq!(layers.len(), 1, "{stats}");
        let layer = &layers[0];
        assert_eq!(
            (&layer["side"], &layer["layer"]),
            (&"connect".into(), &"zlib".into())
        );
        assert_eq!(
            (&layer["down"]["taken"], &layer["up"]["made"]),
            (&bytes.into(), &bytes.into())
        );
        let made = layer["down"]["made"].as_u64().expect("a number");
        assert!((1..bytes / 5).contains(&made), "{made} of {bytes}");
        drop(clients);
        assert_eq!(relay.terminate().code, Some(0));
    }
}

#[test]
fn statistics_that_nobody_reads_hold_up_no_connection() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let common = ["relay", "tcp:127.0.0.1:0", &echo.address];
    let relay = Service::start(&[&common[..], &["--stats", "0.001", "--json"]].concat());
    let mut client = relay.connect();
    // Long enough to fill a pipe of 64 KiB several times over.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        ask(&mut client, b"question");
    }
    drop(client);
    assert_eq!(relay.terminate().code, Some(0));
}

#[test]
fn as_many_workers_as_cores_may_be_asked_for() {
    let echo = Service::start(&["echo", "tcp:127.0.0.1:0"]);
    let cores = thread::available_parallelism().expect("known").get();
    for text in ["0", "auto"] {
        let common = ["relay", "tcp:127.0.0.1:0", &echo.address];
        let options = ["--workers", text, "--stats", "0.05", "--json"];
        let mut relay = Service::start(&[&common[..], &options].concat());
        let stats = relay.wait_for_stats("any", |_| true);
        assert_eq!(each(&stats, "accepted").len(), cores);
        assert_eq!(relay.terminate().code, Some(0));
    }
}
