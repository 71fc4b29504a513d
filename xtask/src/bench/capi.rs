//! `cargo xtask bench capi`: libevent's echo peer, the same file compiled against libevent and against our C interface.
//!
//! Both run the same loads in turns; what is judged is the ratio within a round. The C interface is installed into the target directory first.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::peers::{self, Load, OURS, Peers, Server, Service};
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use super::{instructions, system_calls, tools, write_json};
use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::{capi, workspace};

/// Fewer rounds than this are a trial and no result.
const LEAST_ROUNDS: usize = 5;

/// A load, and how many times libevent's messages per second are asked for.
const ROWS: [(&str, Load, Limit); 2] = [
    (
        "64 x 64 B echo",
        Load {
            connections: 64,
            message_bytes: 64,
        },
        Limit::AtLeast(1.4),
    ),
    (
        "64 x 16 KiB echo",
        Load {
            connections: 64,
            message_bytes: 16 * 1024,
        },
        Limit::AtLeast(4.0),
    ),
];

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let rounds = arguments.value("--rounds")?.unwrap_or(7_usize).max(1);
    let seconds = arguments.value("--seconds")?.unwrap_or(1.0_f64);
    let file = arguments.value::<PathBuf>("--json")?;
    arguments.finish()?;
    tools::require("strace", "strace")?;
    tools::require("valgrind", "valgrind")?;
    tools::require_libevent()?;
    let peers = build()?;
    println!(
        "{rounds} rounds of {seconds} s; server on core {}, load on core {}; median (range)",
        peers.cores.server, peers.cores.client
    );
    if rounds < LEAST_ROUNDS {
        println!("fewer than {LEAST_ROUNDS} rounds: a trial, no result");
    }
    let mut judgement = Judgement::default();
    let mut rows = serde_json::Map::new();
    for (name, load, limit) in ROWS {
        rows.insert(
            name.into(),
            row(&peers, name, load, limit, rounds, seconds, &mut judgement)?,
        );
    }
    let calls = system_calls::measure(&peers, &mut judgement)?;
    println!("\nuser instructions per 64 B echo");
    let instructions = instructions::measure(&peers, &mut judgement)?;
    let results = json!({
        "rounds": rounds,
        "seconds": seconds,
        "rows": rows,
        "system_calls_per_message": calls,
        "instructions_per_echo": instructions,
        "targets": judgement.json(),
    });
    write_json(file.as_deref(), &results)?;
    judgement.close("bench capi")
}

/// The same program twice: with our headers and library, and with libevent's.
fn build() -> Result<Peers, Failure> {
    let target = workspace::target_folder()?;
    let prefix = target.join("capi");
    capi::install(&prefix)?;
    let library = prefix.join("lib").display().to_string();
    let include = format!("-I{}", prefix.join("include").display());
    let flags = [
        include.as_str(),
        &format!("-L{library}"),
        &format!("-Wl,-rpath,{library}"),
        "-levent_core",
    ];
    let ours = peers::compile_as(&target, "echo_libevent", "echo_capi", &flags)?;
    let theirs = peers::compile(&target, "echo_libevent", &["-levent_core"])?;
    let server = |name, program: PathBuf| Server::new(name, vec![program.display().to_string()]);
    peers::with_servers(vec![server(OURS, ours), server("libevent", theirs)])
}

fn row(
    peers: &Peers,
    name: &str,
    load: Load,
    limit: Limit,
    rounds: usize,
    seconds: f64,
    judgement: &mut Judgement,
) -> Result<Value, Failure> {
    const QUANTITIES: [(&str, &str); 2] = [
        ("messages_per_s", "messages/s"),
        ("server_cpu_ns_per_message", "CPU per message"),
    ];
    let mut samples: Vec<Vec<Value>> = vec![Vec::new(); peers.servers.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}: {name}", round + 1);
        for turn in 0..peers.servers.len() {
            let at = (turn + round) % peers.servers.len();
            let server = peers.servers[at].start(Service::Echo, peers.cores.server, &[])?;
            samples[at].push(peers.measure(&server, load, seconds, "echo")?);
        }
    }
    println!("\n{name}");
    let series = |samples: &[Value], key: &str| -> Vec<f64> {
        let values = samples.iter().map(|sample| sample[key].as_f64());
        values.map(|value| value.unwrap_or(f64::NAN)).collect()
    };
    let mut row = serde_json::Map::new();
    for (server, samples) in peers.servers.iter().zip(&samples) {
        let rate = Spread::of(&series(samples, "messages_per_s"));
        println!("  {:<10}{rate:>28.0} messages/s", server.name);
        row.insert(server.name.into(), json!(samples));
    }
    for (key, title) in QUANTITIES {
        let ratio = Spread::of_ratios(&series(&samples[0], key), &series(&samples[1], key));
        let limit = Some(limit).filter(|_| key == "messages_per_s");
        judgement.judge(&format!("{name}: {title} / libevent's"), ratio, limit);
    }
    Ok(Value::Object(row))
}
