//! Rates on real sockets and a real clock: they hold, and members on several loops share a group alike.
//!
//! About a second by default, with bounds that a busy machine keeps. `cargo xtask rates` runs it for ten (`RATE_SECONDS=10`), with the
//! bounds that are promised: 5 % for a rate, 10 % between members, on whichever loop.

#![cfg(feature = "socket")]

use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bufferevent::{Bev, Builder, Direction, EventLoop, READ, Rate, RateGroup, on_read};
use bufferevent_testkit::{record, spec};
use bytes::Bytes;

/// How long to measure, and how far from what is right it may be.
struct Measure {
    time: Duration,
    rate: f64,
    share: f64,
    /// Long enough for loops to be compared.
    long: bool,
}

impl Measure {
    fn asked_for() -> Self {
        match std::env::var("RATE_SECONDS") {
            Err(_) => Self {
                time: Duration::from_secs(1),
                rate: 0.15,
                share: 0.4,
                long: false,
            },
            Ok(seconds) => Self {
                time: Duration::from_secs(seconds.parse().expect("a number of seconds")),
                rate: 0.05,
                share: 0.1,
                long: true,
            },
        }
    }
}

/// Two connected ends, the far one of which throws away what it reads.
fn ends(events: &EventLoop) -> (Bev, Bev) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let near = Builder::new(events).stream(near).unwrap();
    let far = Builder::new(events).stream(far).unwrap();
    far.set_handler(on_read(|bev: &Bev| {
        drop(bev.input().drain(usize::MAX));
    }))
    .unwrap();
    far.enable(READ).unwrap();
    (near, far)
}

/// Fills the outputs with more than can leave, runs the loop for that long, and answers how many bytes came at each far end.
fn pour(events: &EventLoop, ends: &[(Bev, Bev)], flood: &Bytes, measure: &Measure) -> Vec<u64> {
    for (near, _) in ends {
        near.output().append_bytes(flood.clone()).unwrap();
    }
    events.exit_after(measure.time).unwrap();
    events.run_until_exit().unwrap();
    ends.iter().map(|(_, far)| far.stats().read).collect()
}

/// Whether this is Wine, which brings its own programs along.
fn is_wine() -> bool {
    cfg!(windows) && std::path::Path::new(r"C:\windows\system32\winecfg.exe").is_file()
}

fn assert_near(what: &str, got: f64, wanted: f64, bound: f64) {
    let off = got / wanted - 1.0;
    println!("{what}: {got:.0}, {:+.2} % of {wanted:.0}", off * 100.0);
    assert!(off.abs() <= bound, "{what}: {got:.0}, not {wanted:.0}");
}

#[test]
fn a_rate_holds_on_a_socket() {
    const RATE: u64 = 4_000_000;
    let measure = Measure::asked_for();
    for direction in [Direction::Read, Direction::Write] {
        for backend in bufferevent::evreactor::backend_names() {
            record::within("tcp", backend, || {
                spec!(R1);
                let events = EventLoop::builder().backend(backend).build().unwrap();
                let (near, far) = ends(&events);
                let limited = match direction {
                    Direction::Read => &far,
                    Direction::Write => &near,
                };
                let rate = Some(Rate::per_second(RATE).unwrap());
                limited.set_rate_limit(direction, rate).unwrap();
                let flood = RATE as usize * (measure.time.as_secs() as usize + 2);
                let flood = Bytes::from(vec![7; flood]);
                let started = Instant::now();
                let got = pour(&events, &[(near, far)], &flood, &measure)[0] as f64;
                let wanted = RATE as f64 * started.elapsed().as_secs_f64();
                assert_near(&format!("{direction:?}"), got, wanted, measure.rate);
            });
        }
    }
}

#[test]
fn fifty_members_on_two_loops_share_a_group() {
    if is_wine() {
        return; // Its readiness collapses with a hundred sockets.
    }
    const RATE: u64 = 5_000_000;
    const EACH: usize = 25;
    let measure = Measure::asked_for();
    spec!(R1);
    let main = EventLoop::new().unwrap();
    let group = RateGroup::new(&main);
    group.set_rate(Direction::Write, Some(Rate::per_second(RATE).unwrap()));
    let ready = Barrier::new(2);
    let run = || {
        let events = EventLoop::new().unwrap();
        let ends: Vec<_> = (0..EACH).map(|_| ends(&events)).collect();
        for (near, _) in &ends {
            near.join_rate_group(&group).unwrap();
        }
        let flood = Bytes::from(vec![7; RATE as usize]);
        ready.wait();
        // What has added up is taken away again: whoever comes first would have it all.
        if let Some(level) = group.level(Direction::Write) {
            group.charge(Direction::Write, level);
        }
        let started = Instant::now();
        let got = pour(&events, &ends, &flood, &measure);
        (got, started.elapsed())
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(group.members(), 0, "they went with their loops");
    let longest = results.iter().map(|(_, time)| *time).max().unwrap();
    let got: Vec<f64> = results
        .iter()
        .flat_map(|(got, _)| got)
        .map(|bytes| *bytes as f64)
        .collect();
    let total: f64 = got.iter().sum();
    assert_near(
        "all",
        total,
        RATE as f64 * longest.as_secs_f64(),
        measure.rate,
    );
    // On a busy machine one of the loops may have to stand still for long in so short a time.
    let compared = if measure.long { got.len() } else { EACH };
    for got in got.chunks(compared) {
        let mean = got.iter().sum::<f64>() / got.len() as f64;
        let least = got.iter().copied().fold(f64::MAX, f64::min);
        let most = got.iter().copied().fold(0.0, f64::max);
        assert_near("least", least, mean, measure.share);
        assert_near("most", most, mean, measure.share);
    }
}
