//! What a filter that changes nothing costs an echo server on sockets.
//!
//! # Invariants
//! - What is judged is messages for the server's CPU time: its throughput when it has its core for itself, and nothing of who else
//!   had it. Messages per second on the clock are shown beside it.

use serde_json::{Value, json};

use super::number;
use super::programs::Programs;
use crate::bench::peers::{Load, Service};
use crate::bench::statistics::Spread;
use crate::bench::target::{Judgement, Limit};
use crate::failure::Failure;

/// Without the filter, and with it.
const FILTERS: [&str; 2] = ["plain", "identity"];

/// Name and length of the messages.
const MESSAGES: [(&str, usize); 2] = [("64 x 64 B", 64), ("64 x 16 KiB", 16 * 1024)];

const CONNECTIONS: usize = 64;

pub(super) fn measure(
    programs: &Programs,
    rounds: usize,
    seconds: f64,
    judgement: &mut Judgement,
) -> Result<Value, Failure> {
    let peers = programs.echo_servers(&FILTERS)?;
    let mut results = serde_json::Map::new();
    println!("\nidentity on echo sockets");
    for (name, message_bytes) in MESSAGES {
        let load = Load {
            connections: CONNECTIONS,
            message_bytes,
        };
        // Messages per second of CPU time, and on the clock, by server.
        let (mut by_cpu, mut by_clock) = ([vec![], vec![]], [vec![], vec![]]);
        for round in 0..rounds {
            eprintln!("round {} of {rounds}: echo {name}", round + 1);
            for turn in 0..FILTERS.len() {
                let at = (turn + round) % FILTERS.len();
                let server = peers.servers[at].start(Service::Echo, peers.cores.server, &[])?;
                let measured = peers.measure(&server, load, seconds, "echo")?;
                by_cpu[at].push(1e9 / number(&measured, "server_cpu_ns_per_message"));
                by_clock[at].push(number(&measured, "messages_per_s"));
            }
        }
        for (filter, rates) in FILTERS.iter().zip(&by_cpu) {
            println!(
                "  {name} {filter:<10} {:.0} messages/s of CPU",
                Spread::of(rates)
            );
        }
        let ratio = |rates: &[Vec<f64>; 2]| Spread::of_ratios(&rates[1], &rates[0]);
        let what = format!("{name} echo: identity / plain, by CPU time");
        judgement.judge(&what, ratio(&by_cpu), Some(Limit::AtLeast(0.95)));
        let what = format!("{name} echo: identity / plain, by the clock");
        judgement.judge(&what, ratio(&by_clock), None);
        results.insert(name.into(), json!({"by_cpu": by_cpu, "by_clock": by_clock}));
    }
    Ok(results.into())
}
