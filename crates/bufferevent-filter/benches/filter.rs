//! What a filter costs that changes nothing, as a plain program: one JSON object with the figure's name and its value.
//!
//! - `crossing`: nanoseconds that a round trip over a pair takes longer with ten filters on one end, for each time that its
//!   byte crosses one.
//! - `echo_64`, `echo_16K`, `echo_stream`: the throughput of an echo server with one filter on its socket, as a ratio to the same
//!   without: messages of 64 bytes and of 16 KiB that wait for their answer, and 64 KiB writes that do not.
//! - `work_64`, `work_16K`, `work_stream`: the CPU time that the server's thread takes for it, system calls included, as a ratio to
//!   the same without.
//!
//! # Units
//! Ratios are medians over interleaved rounds. On other systems than Linux, wall time stands for CPU time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bufferevent_core::{Bev, Options, READ, on_read};
use bufferevent_filter::{FilterExt, Identity};
use bufferevent_pair::pair;
use bufferevent_socket::Builder;
use evreactor::EventLoop;

const ROUNDS: usize = 9;
const STEPS: usize = 100_000;
const FILTERS: usize = 10;

fn main() {
    let plain = best(|| ping_pong(0));
    let filtered = best(|| ping_pong(FILTERS));
    let crossings = 2.0 * (STEPS * FILTERS) as f64;
    let crossing = (filtered - plain) / crossings * 1e9;
    let mut figures = vec![format!("\"crossing\": {crossing:.1}")];
    for (name, length, ahead, count) in [
        ("64", 64, 1, 30_000),
        ("16K", 16 * 1024, 1, 20_000),
        ("stream", 64 * 1024, 8, 8_000),
    ] {
        let (work, wall) = ratios(|filters| echo(filters, length, ahead, count));
        figures.push(format!("\"echo_{name}\": {:.3}", 1.0 / wall));
        figures.push(format!("\"work_{name}\": {work:.3}"));
    }
    println!("{{{}}}", figures.join(", "));
}

fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| run()).fold(f64::MAX, f64::min)
}

/// What a run without a filter took, and one with it: CPU time and wall time.
type Round = ((f64, f64), (f64, f64));

/// The median ratios of the CPU time, and of the wall time, with one filter to those with none.
fn ratios(mut run: impl FnMut(usize) -> (f64, f64)) -> (f64, f64) {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (run(0), run(1))).collect();
    let median = |ratio: fn(&Round) -> f64| {
        let mut ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ROUNDS / 2]
    };
    (
        median(|(plain, filtered)| filtered.0 / plain.0),
        median(|(plain, filtered)| filtered.1 / plain.1),
    )
}

/// Seconds of CPU time that this thread has had.
fn cpu() -> f64 {
    #[cfg(target_os = "linux")]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::time::{SystemTime, UNIX_EPOCH};
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_secs_f64()
    }
}

fn stacked(mut bev: Bev, filters: usize) -> Bev {
    for _ in 0..filters {
        bev = bev
            .filter(Options::CLOSE_ON_FREE, Identity)
            .expect("nothing is on it");
    }
    bev
}

/// Seconds for `STEPS` round trips of a byte over a pair, with so many filters on one end.
fn ping_pong(filters: usize) -> f64 {
    let events = EventLoop::new().expect("a loop");
    let (near, far) = pair(&events).expect("a pair");
    let near = stacked(near, filters);
    let left = Arc::new(AtomicUsize::new(STEPS));
    let rest = left.clone();
    far.set_handler(on_read(|bev: &Bev| {
        let _ = bev.output().append_from(&bev.input());
    }))
    .expect("it is there");
    near.set_handler(on_read(move |bev: &Bev| {
        rest.fetch_sub(1, Ordering::Relaxed);
        if rest.load(Ordering::Relaxed) > 0 {
            let _ = bev.output().append_from(&bev.input());
        }
    }))
    .expect("it is there");
    near.enable(READ).expect("it is there");
    far.enable(READ).expect("it is there");
    let before = cpu();
    near.write(b"x").expect("it is there");
    while left.load(Ordering::Relaxed) > 0 {
        events.poll().expect("it turns");
    }
    cpu() - before
}

/// Seconds of CPU time, and of wall time, of an echo server for `count` messages of `length` bytes, `ahead` of them on their way at a time.
fn echo(filters: usize, length: usize, ahead: usize, count: usize) -> (f64, f64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let client = std::thread::spawn(move || {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        let mut writer = stream.try_clone().expect("a descriptor");
        let mut reader = stream;
        let message = vec![b'x'; length];
        let mut answer = vec![0; length];
        for _ in 0..ahead {
            writer.write_all(&message).expect("the server reads");
        }
        for sent in ahead..count + ahead {
            reader.read_exact(&mut answer).expect("the server answers");
            if sent < count {
                writer.write_all(&message).expect("the server reads");
            }
        }
    });
    let (stream, _) = listener.accept().expect("the client connects");
    stream.set_nodelay(true).expect("a socket");
    let events = EventLoop::new().expect("a loop");
    let socket = Builder::new(&events).stream(stream).expect("a socket");
    let server = stacked(socket, filters);
    server
        .set_handler(
            on_read(|bev: &Bev| {
                let _ = bev.output().append_from(&bev.input());
            })
            .on_event(|bev, _| {
                let _ = bev.free();
            }),
        )
        .expect("it is there");
    server.enable(READ).expect("it is there");
    let (start, before) = (Instant::now(), cpu());
    events.run().expect("it turns");
    let took = (cpu() - before, start.elapsed().as_secs_f64());
    client.join().expect("it ends");
    took
}
