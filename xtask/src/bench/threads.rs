//! `cargo xtask bench threads`: what THREADSAFE costs, writes from another thread, and two loops on two cores.
//!
//! Our programs are `bench/rust/threads`, libevent's is `bench/c/threads_libevent.c`; each says what it does.
//!
//! # Invariants
//! - What is judged is a ratio within a round, or a rate that the issue names as such.
//! - A writer and its loop have both cores, as has the receiver of what they send: nothing is pinned. The same holds for two loops and
//!   their client.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::peers::{self, Load, Peers, Server, Service};
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use super::{tools, write_json};
use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

/// Fewer rounds than this are a trial and no result.
const LEAST_ROUNDS: usize = 5;

const SMALL: Load = Load {
    connections: 64,
    message_bytes: 64,
};

const LARGE: Load = Load {
    connections: 64,
    message_bytes: 16 * 1024,
};

/// The servers, in the order in which they stand in [`Peers::servers`].
const CONFINED: usize = 0;
const THREADSAFE: usize = 1;
const ONE_LOOP: usize = 2;
const TWO_LOOPS: usize = 3;

/// What of a server is measured.
const RATE: &str = "messages_per_s";
const CPU: &str = "server_cpu_ns_per_message";

/// The rounds of each measurement, by name.
type Rounds = BTreeMap<String, Vec<f64>>;

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let rounds = arguments.value("--rounds")?.unwrap_or(9_usize).max(1);
    let seconds = arguments.value("--seconds")?.unwrap_or(1.0_f64);
    let file = arguments.value::<PathBuf>("--json")?;
    arguments.finish()?;
    tools::require_libevent()?;
    let target = workspace::target_folder()?;
    let libraries = ["-levent_core", "-levent_pthreads", "-lpthread", "-ldl"];
    let libevent = peers::compile(&target, "threads_libevent", &libraries)?;
    let ours = peers::build_rust(&target, "bench-threads")?.join("bench-threads");
    let peers = servers(&ours)?;
    let both = format!("{},{}", peers.cores.server, peers.cores.client);

    println!("{rounds} rounds of {seconds} s; cores {both}; median (range)");
    if rounds < LEAST_ROUNDS {
        println!("fewer than {LEAST_ROUNDS} rounds: a trial, no result");
    }
    let mut measured = Rounds::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        echoes(&peers, round, seconds, &mut measured)?;
        writes(&both, &ours, &libevent, round, seconds, &mut measured)?;
        loops(&peers, &both, round, seconds, &mut measured)?;
    }

    let mut judgement = Judgement::default();
    judge(&measured, &mut judgement);
    let results = json!({
        "rounds": rounds,
        "seconds": seconds,
        "measured": measured,
        "targets": judgement.json(),
    });
    write_json(file.as_deref(), &results)?;
    judgement.close("bench threads")
}

fn servers(ours: &Path) -> Result<Peers, Failure> {
    let server = |name, words: &[&str]| {
        let program = std::iter::once(ours.display().to_string());
        let words = words.iter().map(|word| (*word).to_owned());
        Server::new(name, program.chain(words).collect())
    };
    peers::with_servers(vec![
        server("confined", &["echo", "confined"]),
        server("THREADSAFE", &["echo", "threadsafe"]),
        server("one loop", &["workers", "1"]),
        server("two loops", &["workers", "2"]),
    ])
}

/// One round's value of one measurement.
fn add(measured: &mut Rounds, name: String, value: f64) {
    measured.entry(name).or_default().push(value);
}

/// The number under `key` of what a program measured.
fn number(sample: &Value, key: &str) -> Result<f64, Failure> {
    sample[key]
        .as_f64()
        .ok_or_else(|| Failure::new(format!("bench threads: a program measured no `{key}`")))
}

/// Echo servers on one core, their client on the other. Who comes first changes with the round.
fn echoes(peers: &Peers, round: usize, seconds: f64, measured: &mut Rounds) -> Result<(), Failure> {
    for load in [SMALL, LARGE] {
        for turn in 0..2 {
            let contender = [CONFINED, THREADSAFE][(turn + round) % 2];
            let server = &peers.servers[contender];
            let running = server.start(Service::Echo, peers.cores.server, &[])?;
            let sample = peers.measure(&running, load, seconds, "echo")?;
            for key in [RATE, CPU] {
                let name = name_of(server.name, load, key);
                add(measured, name, number(&sample, key)?);
            }
        }
    }
    Ok(())
}

fn name_of(server: &str, load: Load, key: &str) -> String {
    format!(
        "{server}, {} x {} B: {key}",
        load.connections, load.message_bytes
    )
}

/// Writes from another thread, ours and libevent's in turn.
fn writes(
    cores: &str,
    ours: &Path,
    libevent: &Path,
    round: usize,
    seconds: f64,
    measured: &mut Rounds,
) -> Result<(), Failure> {
    for turn in 0..2 {
        let (name, program, words): (_, _, &[&str]) = match (turn + round) % 2 {
            0 => ("ours", ours, &["write"]),
            _ => ("libevent", libevent, &[]),
        };
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(program).args(words);
        command.arg(seconds.to_string()).envs(tools::ALLOCATOR);
        let line = workspace::output(&mut command)?;
        let sample: Value =
            serde_json::from_str(&line).map_err(Failure::during("what a writer measured"))?;
        let writes = number(&sample, "writes")?;
        let rate = writes / number(&sample, "wall_s")?;
        add(measured, format!("{name}: writes/s"), rate);
        for call in ["sends", "waits", "wakes"] {
            let each = number(&sample, call)? / writes;
            add(
                measured,
                format!("{name}: {call} per 1,000 writes"),
                each * 1e3,
            );
        }
    }
    Ok(())
}

/// One loop and two, with their client on the same two cores.
fn loops(
    peers: &Peers,
    both: &str,
    round: usize,
    seconds: f64,
    measured: &mut Rounds,
) -> Result<(), Failure> {
    for turn in 0..2 {
        let server = &peers.servers[[ONE_LOOP, TWO_LOOPS][(turn + round) % 2]];
        let running = server.start_on(Service::Echo, both, &[])?;
        let sample = peers.measure_beside(both, &running, SMALL, seconds)?;
        for key in [RATE, CPU] {
            let name = name_of(server.name, SMALL, key);
            add(measured, name, number(&sample, key)?);
        }
    }
    Ok(())
}

/// What is asked for, and what is only told.
fn judge(measured: &Rounds, judgement: &mut Judgement) {
    let of = |name: &str| -> &[f64] { measured.get(name).map_or(&[], |rounds| rounds) };
    println!("\nwhat THREADSAFE costs on the loop's own thread");
    for load in [SMALL, LARGE] {
        for (key, limit) in [(RATE, Some(Limit::AtLeast(0.97))), (CPU, None)] {
            let ratio = Spread::of_ratios(
                of(&name_of("THREADSAFE", load, key)),
                of(&name_of("confined", load, key)),
            );
            let what = format!(
                "{} x {} B echo: {key} / confined's",
                load.connections, load.message_bytes
            );
            judgement.judge(&what, ratio, limit);
        }
    }
    println!("\n100-byte writes from another thread into one connection");
    let rates = of("ours: writes/s");
    let million = Spread::of(rates).scaled(1e-6);
    judgement.judge("million writes/s", million, Some(Limit::AtLeast(1.0)));
    let theirs = of("libevent: writes/s");
    judgement.judge(
        "libevent's million writes/s",
        Spread::of(theirs).scaled(1e-6),
        None,
    );
    let ratio = Spread::of_ratios(rates, theirs);
    judgement.judge("writes/s / libevent's", ratio, Some(Limit::AtLeast(3.0)));
    for name in ["ours", "libevent"] {
        for call in ["sends", "waits", "wakes"] {
            let what = format!("{name}: {call} per 1,000 writes");
            judgement.judge(&what, Spread::of(of(&what)), None);
        }
    }
    println!("\ntwo loops on two cores, the client on the same; 64 x 64 B echo");
    for key in [RATE, CPU] {
        let ratio = Spread::of_ratios(
            of(&name_of("two loops", SMALL, key)),
            of(&name_of("one loop", SMALL, key)),
        );
        judgement.judge(&format!("{key} / one loop's"), ratio, None);
    }
}
