//! `cargo xtask bench net | buffer | filter | threads | relay | instructions | capi`: the product against its peers, in one run.
//!
//! Only ratios from one interleaved run mean anything on a shared machine, so every round runs every
//! contender, in an order that rotates, and a ratio is taken within its round. What is judged is the
//! median over the rounds.
//!
//! # Invariants
//! - Every target is judged aloud: met, missed, or not measured; the command succeeds only when all are met.
//! - A tool that is missing is one line with the name of the package that has it.

mod buffer;
mod capi;
mod filter;
mod idle;
mod instructions;
mod net;
mod peers;
mod relay;
mod statistics;
mod system_calls;
mod target;
mod threads;
mod tools;

use std::path::Path;

use serde_json::Value;

use crate::arguments::Arguments;
use crate::failure::Failure;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    if !cfg!(target_os = "linux") {
        return Err(Failure::new(
            "bench: the peers are written for epoll, so benchmarks run on Linux only",
        ));
    }
    match arguments.positional().as_deref() {
        Some("net") => net::run(arguments),
        Some("buffer") => buffer::run(arguments),
        Some("filter") => filter::run(arguments),
        Some("threads") => threads::run(arguments),
        Some("relay") => relay::run(arguments),
        Some("instructions") => instructions::run(arguments),
        Some("capi") => capi::run(arguments),
        _ => Err(Failure::new(
            "bench: which? net, buffer, filter, threads, relay, instructions or capi",
        )),
    }
}

/// Writes what `--json FILE` asks for.
fn write_json(file: Option<&Path>, results: &Value) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let text = format!("{results:#}\n");
    std::fs::write(file, text).map_err(Failure::during(file.display()))
}
