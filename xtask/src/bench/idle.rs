//! Resident memory per idle accepted connection.
//!
//! The client opens one connection and echoes over it, so that what a server allocates once is there; then
//! its resident set is read, the other connections are opened, and it is read again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::peers::{Load, OURS, Peers, Server, Service};
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use crate::failure::Failure;

/// So many that a page more or less is nothing, and few enough for one process's descriptors.
const LOAD: Load = Load {
    connections: 9_000,
    message_bytes: 64,
};

/// What one may cost on readiness.
const LIMIT_BYTES: f64 = 512.0;

/// What one may cost on completions: what is under way is written down, too.
const COMPLETING_LIMIT_BYTES: f64 = 700.0;

pub(super) fn measure(
    peers: &Peers,
    completes: bool,
    judgement: &mut Judgement,
) -> Result<Value, Failure> {
    let limit = if completes {
        COMPLETING_LIMIT_BYTES
    } else {
        LIMIT_BYTES
    };
    println!(
        "\nresident bytes per idle connection, {} of them",
        LOAD.connections
    );
    let mut results = BTreeMap::new();
    for server in &peers.servers {
        let bytes = bytes_each(peers, server)?;
        println!("  {:<10}{bytes:>8.0}", server.name);
        if server.name == OURS {
            let spread = Spread {
                median: bytes,
                low: bytes,
                high: bytes,
            };
            judgement.judge(
                "resident bytes per idle connection",
                spread,
                Some(Limit::AtMost(limit)),
            );
        }
        results.insert(server.name, bytes);
    }
    Ok(json!(results))
}

fn bytes_each(peers: &Peers, server: &Server) -> Result<f64, Failure> {
    let running = server.start(Service::Echo, peers.cores.server, &[])?;
    let mut client = peers.idle(&running, LOAD)?;
    client.expect("warm")?;
    let before = resident_bytes(running.pid())?;
    client.go_on()?;
    client.expect("held")?;
    let after = resident_bytes(running.pid())?;
    Ok((after as f64 - before as f64) / (LOAD.connections - 1) as f64)
}

/// The resident set from `smaps_rollup`, which is exact; `status` lags by some pages on several cores.
fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(Failure::during(&path))?;
    parse(&text).ok_or_else(|| Failure::new(format!("{path} has no Rss")))
}

fn parse(smaps: &str) -> Option<u64> {
    let kib = smaps.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    kib.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read() {
        assert_eq!(
            parse("55d0-7ffe ---p [rollup]\nRss:                1884 kB\nPss:  5 kB\n"),
            Some(1884 * 1024)
        );
        assert_eq!(parse("Pss: 5 kB\n"), None);
    }
}
