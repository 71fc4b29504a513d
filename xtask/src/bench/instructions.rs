//! `cargo xtask bench instructions`: user instructions per 64 B echo, counted by callgrind.
//!
//! A server is run twice under callgrind, for N echoes and for 2 N; the difference over N is one echo. The
//! count is nearly the same every time, on any machine, so unlike a time it can gate.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::peers::{self, Load, OURS, Ours, Peers, Server, Service};
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use super::{tools, write_json};
use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

const LOAD: Load = Load {
    connections: 64,
    message_bytes: 64,
};

/// N.
const ECHOES: u32 = 20_000;

const LIMIT: Limit = Limit::AtMost(1_500.0);

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let file = arguments.value::<PathBuf>("--json")?;
    let ours = Ours::take(&mut arguments)?;
    arguments.finish()?;
    tools::require("valgrind", "valgrind")?;
    let peers = peers::build(&ours)?;
    println!(
        "user instructions per 64 B echo, {} connections, backend {}",
        LOAD.connections,
        ours.backend()
    );
    let mut judgement = Judgement::default();
    let results = measure(&peers, &mut judgement)?;
    write_json(
        file.as_deref(),
        &json!({"instructions_per_echo": results, "targets": judgement.json()}),
    )?;
    judgement.close("bench instructions")
}

/// Counts for every server, and judges ours.
pub(super) fn measure(peers: &Peers, judgement: &mut Judgement) -> Result<Value, Failure> {
    let mut results = serde_json::Map::new();
    for server in &peers.servers {
        let once = count(peers, server, ECHOES)?;
        let each = (count(peers, server, 2 * ECHOES)? - once) / f64::from(ECHOES);
        println!("  {:<10}{each:>8.0}", server.name);
        if server.name == OURS {
            let spread = Spread {
                median: each,
                low: each,
                high: each,
            };
            judgement.judge("instructions per echo", spread, Some(LIMIT));
        }
        results.insert(server.name.into(), json!(each));
    }
    Ok(Value::Object(results))
}

/// All user instructions of a server's life that serves `echoes`.
fn count(peers: &Peers, server: &Server, echoes: u32) -> Result<f64, Failure> {
    let file = workspace::target_folder()?
        .join("bench-c")
        .join("callgrind.out");
    let out = format!("--callgrind-out-file={}", file.display());
    let tracer = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--collect-atstart=yes",
        &out,
    ];
    let running = server.start(Service::Echo, peers.cores.server, &tracer)?;
    drop(peers.echo(&running, LOAD, echoes)?);
    running.end()?;
    let profile = std::fs::read_to_string(&file).map_err(Failure::during(file.display()))?;
    total(&profile).ok_or_else(|| Failure::new(format!("{} has no total", file.display())))
}

/// The line `totals: N` that ends a callgrind profile.
fn total(profile: &str) -> Option<f64> {
    profile
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read() {
        assert_eq!(
            total("events: Ir\nfn=(1) main\n3 5\ntotals: 123456\n"),
            Some(123_456.0)
        );
        assert_eq!(total("events: Ir\n"), None);
    }
}
