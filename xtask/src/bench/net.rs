//! `cargo xtask bench net`: echo and sink servers under load, system calls per message, memory per idle connection.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::peers::{self, LIBURING, Load, OURS, Ours, Peers, READINESS, Service};
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use super::{idle, system_calls, tools, write_json};
use crate::arguments::Arguments;
use crate::failure::Failure;

/// Fewer rounds than this are a trial and no result.
const LEAST_ROUNDS: usize = 5;

/// One row of the table.
struct Row {
    name: &'static str,
    service: Service,
    load: Load,
    /// What our figures are held against.
    ratios: &'static [Ratio],
    /// And what besides, on a backend that completes operations.
    completing: &'static [Ratio],
}

/// A quantity of ours over the same of a peer's, and what is asked of it.
struct Ratio {
    peer: &'static str,
    quantity: Quantity,
    limit: Option<Limit>,
}

/// What a load measures of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quantity {
    MessagesPerS,
    GibPerS,
    CpuNsPerMessage,
    LatencyP50Us,
}

impl Quantity {
    /// Its name in what the load generator prints.
    fn key(self) -> &'static str {
        match self {
            Self::MessagesPerS => "messages_per_s",
            Self::GibPerS => "gib_per_s",
            Self::CpuNsPerMessage => "server_cpu_ns_per_message",
            Self::LatencyP50Us => "latency_p50_us",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::MessagesPerS => "messages/s",
            Self::GibPerS => "GiB/s",
            Self::CpuNsPerMessage => "CPU per message",
            Self::LatencyP50Us => "median latency",
        }
    }
}

const QUANTITIES: [Quantity; 4] = [
    Quantity::MessagesPerS,
    Quantity::GibPerS,
    Quantity::CpuNsPerMessage,
    Quantity::LatencyP50Us,
];

const fn ratio(peer: &'static str, quantity: Quantity, limit: Option<Limit>) -> Ratio {
    Ratio {
        peer,
        quantity,
        limit,
    }
}

const CPU_OF_EPOLL: Ratio = ratio(
    "epoll",
    Quantity::CpuNsPerMessage,
    Some(Limit::AtMost(1.10)),
);
const CPU_OF_TOKIO: Ratio = ratio("tokio", Quantity::CpuNsPerMessage, Some(Limit::AtMost(1.0)));

const SMALL_ECHO: &[Ratio] = &[
    ratio(
        "libevent",
        Quantity::MessagesPerS,
        Some(Limit::AtLeast(1.45)),
    ),
    CPU_OF_EPOLL,
    CPU_OF_TOKIO,
];
const LARGE_ECHO: &[Ratio] = &[
    ratio(
        "libevent",
        Quantity::MessagesPerS,
        Some(Limit::AtLeast(5.0)),
    ),
    CPU_OF_EPOLL,
    CPU_OF_TOKIO,
];
const PING_PONG: &[Ratio] = &[
    ratio("libevent", Quantity::MessagesPerS, None),
    ratio("epoll", Quantity::CpuNsPerMessage, None),
    CPU_OF_TOKIO,
];
const SINK: &[Ratio] = &[
    ratio("libevent", Quantity::GibPerS, None),
    ratio("epoll", Quantity::GibPerS, Some(Limit::AtLeast(0.95))),
    ratio("epoll", Quantity::CpuNsPerMessage, None),
    CPU_OF_TOKIO,
];

/// As cheap as by hand, and worth it.
const COMPLETING_SMALL: &[Ratio] = &[
    ratio(
        LIBURING,
        Quantity::CpuNsPerMessage,
        Some(Limit::AtMost(1.05)),
    ),
    ratio(
        READINESS,
        Quantity::CpuNsPerMessage,
        Some(Limit::AtMost(1.0)),
    ),
];
/// Noted for the reader.
const COMPLETING: &[Ratio] = &[
    ratio(LIBURING, Quantity::CpuNsPerMessage, None),
    ratio(READINESS, Quantity::CpuNsPerMessage, None),
];
const COMPLETING_SINK: &[Ratio] = &[
    ratio(LIBURING, Quantity::GibPerS, None),
    ratio(READINESS, Quantity::GibPerS, None),
];

const fn row(
    name: &'static str,
    service: Service,
    connections: usize,
    message_bytes: usize,
    ratios: &'static [Ratio],
    completing: &'static [Ratio],
) -> Row {
    Row {
        name,
        service,
        load: Load {
            connections,
            message_bytes,
        },
        ratios,
        completing,
    }
}

const ROWS: &[Row] = &[
    row(
        "64 x 64 B echo",
        Service::Echo,
        64,
        64,
        SMALL_ECHO,
        COMPLETING_SMALL,
    ),
    row(
        "1000 x 64 B echo",
        Service::Echo,
        1_000,
        64,
        SMALL_ECHO,
        COMPLETING_SMALL,
    ),
    row(
        "64 x 16 KiB echo",
        Service::Echo,
        64,
        16 * 1024,
        LARGE_ECHO,
        COMPLETING,
    ),
    row(
        "1000 x 16 KiB echo",
        Service::Echo,
        1_000,
        16 * 1024,
        LARGE_ECHO,
        COMPLETING,
    ),
    row(
        "1 x 64 B ping-pong",
        Service::Echo,
        1,
        64,
        PING_PONG,
        COMPLETING,
    ),
    row(
        "sink, 64 KiB writes",
        Service::Discard,
        1,
        64 * 1024,
        SINK,
        COMPLETING_SINK,
    ),
];

/// What was measured: by row, by server (in the order of the contenders), by round.
type Samples = Vec<Vec<Vec<Value>>>;

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let rounds = arguments.value("--rounds")?.unwrap_or(7_usize).max(1);
    let seconds = arguments.value("--seconds")?.unwrap_or(1.0_f64);
    let json = arguments.value::<PathBuf>("--json")?;
    let ours = Ours::take(&mut arguments)?;
    arguments.finish()?;
    tools::require("strace", "strace")?;
    let peers = peers::build(&ours)?;

    println!(
        "{rounds} rounds of {seconds} s; server on core {}, load on core {}; backend {}; median (range)",
        peers.cores.server,
        peers.cores.client,
        ours.backend()
    );
    if rounds < LEAST_ROUNDS {
        println!("fewer than {LEAST_ROUNDS} rounds: a trial, no result");
    }
    let samples = measure(&peers, rounds, seconds)?;
    let mut judgement = Judgement::default();
    for (row, samples) in ROWS.iter().zip(&samples) {
        show(row, &peers, samples, ours.completes(), &mut judgement);
    }
    let system_calls = system_calls::measure(&peers, &mut judgement)?;
    let idle = idle::measure(&peers, ours.completes(), &mut judgement)?;
    let results = json!({
        "rounds": rounds,
        "seconds": seconds,
        "backend": ours.backend(),
        "rows": rows_json(&peers, &samples),
        "system_calls_per_message": system_calls,
        "resident_bytes_per_idle_connection": idle,
        "targets": judgement.json(),
    });
    write_json(json.as_deref(), &results)?;
    judgement.close("bench net")
}

/// Every round runs every server on every row; who comes first rotates.
fn measure(peers: &Peers, rounds: usize, seconds: f64) -> Result<Samples, Failure> {
    let mut samples: Samples = vec![vec![Vec::new(); peers.servers.len()]; ROWS.len()];
    for round in 0..rounds {
        for (at, row) in ROWS.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}", round + 1, row.name);
            for turn in 0..peers.servers.len() {
                let contender = (turn + round + at) % peers.servers.len();
                let server =
                    peers.servers[contender].start(row.service, peers.cores.server, &[])?;
                let mode = match row.service {
                    Service::Echo => "echo",
                    Service::Discard => "sink",
                };
                samples[at][contender].push(peers.measure(&server, row.load, seconds, mode)?);
            }
        }
    }
    Ok(samples)
}

/// One quantity of one server, by round.
fn series(samples: &[Value], quantity: Quantity) -> Vec<f64> {
    samples
        .iter()
        .map(|sample| sample[quantity.key()].as_f64().unwrap_or(f64::NAN))
        .collect()
}

fn show(
    row: &Row,
    peers: &Peers,
    samples: &[Vec<Value>],
    completes: bool,
    judgement: &mut Judgement,
) {
    println!("\n{}", row.name);
    println!(
        "  {:<10}{:>28}{:>24}{:>26}{:>30}",
        "", "messages/s", "GiB/s", "CPU us/message", "latency p50 us"
    );
    for (server, samples) in peers.servers.iter().zip(samples) {
        let spread = |quantity| Spread::of(&series(samples, quantity));
        let latency = match row.service {
            Service::Echo => format!("{:>30.1}", spread(Quantity::LatencyP50Us)),
            Service::Discard => String::new(),
        };
        println!(
            "  {:<10}{:>28.0}{:>24.3}{:>26.2}{latency}",
            server.name,
            spread(Quantity::MessagesPerS),
            spread(Quantity::GibPerS),
            spread(Quantity::CpuNsPerMessage).scaled(1e-3),
        );
    }
    let of = |name: &str, quantity| {
        let at = peers.servers.iter().position(|server| server.name == name);
        series(&samples[at.expect("ratios name contenders")], quantity)
    };
    let completing = if completes { row.completing } else { &[] };
    for ratio in row.ratios.iter().chain(completing) {
        let spread = Spread::of_ratios(&of(OURS, ratio.quantity), &of(ratio.peer, ratio.quantity));
        let what = format!(
            "{}: {} / {}'s",
            row.name,
            ratio.quantity.title(),
            ratio.peer
        );
        judgement.judge(&what, spread, ratio.limit);
    }
}

fn rows_json(peers: &Peers, samples: &Samples) -> Value {
    let row = |samples: &Vec<Vec<Value>>| -> Value {
        let server = |samples: &Vec<Value>| -> Value {
            let quantity = |quantity: Quantity| {
                let values = series(samples, quantity);
                (
                    quantity.key().to_string(),
                    json!({"spread": Spread::of(&values).json(), "rounds": values}),
                )
            };
            QUANTITIES.map(quantity).into_iter().collect()
        };
        let named = peers.servers.iter().zip(samples);
        named
            .map(|(contender, samples)| (contender.name.to_string(), server(samples)))
            .collect()
    };
    ROWS.iter()
        .zip(samples)
        .map(|(of, samples)| (of.name.to_string(), row(samples)))
        .collect()
}
