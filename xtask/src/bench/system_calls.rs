//! System calls per message, counted by `strace -f -c`.
//!
//! A server is run twice under strace, for N messages and for 2 N; the difference is what N messages of the
//! steady state cost. Starting and accepting fall out, and the connections are still open when the count
//! ends, so a single `epoll_ctl` that is left over is one too many.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::peers::{Load, OURS, Peers, Server, Service};
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use crate::failure::Failure;
use crate::workspace;

const LOAD: Load = Load {
    connections: 64,
    message_bytes: 64,
};

/// N: long enough that the turn more or less that the loop takes at the start is nothing.
const MESSAGES: u32 = 20_000;

/// Calls by name.
type Counts = BTreeMap<String, i64>;

pub(super) fn measure(peers: &Peers, judgement: &mut Judgement) -> Result<Value, Failure> {
    println!("\nsystem calls per message, 64 x 64 B echo");
    let mut results = BTreeMap::new();
    for server in &peers.servers {
        let once = count(peers, server, MESSAGES)?;
        let steady = difference(&count(peers, server, 2 * MESSAGES)?, &once);
        let each = |calls: i64| calls as f64 / f64::from(MESSAGES);
        let total = each(steady.values().sum());
        let told: Vec<String> = steady
            .iter()
            .filter(|(_, calls)| each(**calls).abs() >= 0.005)
            .map(|(name, calls)| format!("{name} {:.2}", each(*calls)))
            .collect();
        println!("  {:<10}{total:>6.2}  ({})", server.name, told.join(", "));
        if server.name == OURS {
            let exactly = |value: f64| Spread {
                median: value,
                low: value,
                high: value,
            };
            judgement.judge(
                "system calls per message",
                exactly(total),
                Some(Limit::AtMost(2.1)),
            );
            let control = steady.get("epoll_ctl").copied().unwrap_or(0);
            judgement.judge(
                "epoll_ctl in the steady state",
                exactly(control as f64),
                Some(Limit::AtMost(0.0)),
            );
        }
        results.insert(
            server.name,
            json!({"total": total, "calls": steady, "messages": MESSAGES}),
        );
    }
    Ok(json!(results))
}

fn count(peers: &Peers, server: &Server, messages: u32) -> Result<Counts, Failure> {
    let file = workspace::target_folder()?
        .join("bench-c")
        .join("strace.txt");
    let path = file.display().to_string();
    // `-I 2`: end when asked to, and write what was counted.
    let tracer = ["strace", "-I", "2", "-f", "-c", "-o", &path];
    let running = server.start(Service::Echo, peers.cores.server, &tracer)?;
    let client = peers.echo(&running, LOAD, messages)?;
    running.end()?;
    drop(client);
    let summary = std::fs::read_to_string(&file).map_err(Failure::during(&path))?;
    let counts = parse(&summary);
    if counts.is_empty() {
        return Err(Failure::new(
            "strace counted nothing: it may not trace here (ptrace is denied?)",
        ));
    }
    Ok(counts)
}

/// strace's table: `% time  seconds  usecs/call  calls  [errors]  syscall`.
fn parse(summary: &str) -> Counts {
    summary
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, calls) = (words.last()?, words.get(3)?);
            (*name != "total").then_some(())?;
            Some((name.to_string(), calls.parse().ok()?))
        })
        .collect()
}

/// What the second run has more of than the first.
fn difference(more: &Counts, less: &Counts) -> Counts {
    let names = more.keys().chain(less.keys());
    let of = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or(0);
    names
        .map(|name| (name.clone(), of(more, name) - of(less, name)))
        .filter(|(_, calls)| *calls != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.90    0.001300           1      1000           recvfrom
 38.10    0.000800           1       900        12 sendto
  0.00    0.000000           0        66           epoll_ctl
------ ----------- ----------- --------- --------- ----------------
100.00    0.002100           1      1966        12 total
";

    #[test]
    fn the_table_is_read() {
        let counts = parse(SUMMARY);
        assert_eq!(counts["recvfrom"], 1000);
        assert_eq!(counts["sendto"], 900, "the column of errors is optional");
        assert_eq!(counts.len(), 3);
    }

    #[test]
    fn what_both_runs_did_once_falls_out() {
        let once = parse(SUMMARY);
        let twice = parse(&SUMMARY.replace("1000 ", "2000 "));
        assert_eq!(
            difference(&twice, &once),
            Counts::from([("recvfrom".into(), 1000)])
        );
    }
}
