//! The benchmark of the filters: ours, tokio-rustls, and the bare libraries, as one program with one operation per run.
//!
//! ```text
//! filters material FOLDER                        writes certificates, a key, and text to send
//! filters OPERATION SECONDS FOLDER [WORD …]      measures; prints one line of JSON
//! filters echo plain|identity                    serves echoes until it is ended
//! ```
//!
//! # Invariants
//! - Both ends of a connection live on one thread, and what is measured is that thread's CPU time, system calls included: work of
//!   other processes on the same machine is not counted.
//! - What is sent first is compared when it arrives; a fast wrong filter is no result.
//! - All operations that send a stream keep [`stream::WINDOW`] bytes on their way, and no more, so that all work in the
//!   same part of the caches. `bench/c/filters_libevent.c` does the same.

#![forbid(unsafe_code)]

mod bare;
mod clock;
mod echo;
mod handshakes;
mod material;
mod ours;
mod records;
mod stream;
mod tokio_tls;

use std::error::Error;
use std::path::Path;

use clock::Measured;
use material::{Material, Resuming};
use ours::{Below, Stack};

/// Anything that goes wrong ends the program with its reason.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["material", folder] => material::write(Path::new(folder)),
        ["echo", filter] => echo::serve(filter),
        [operation, seconds, folder, ref rest @ ..] => {
            let material = Material::read(Path::new(folder))?;
            println!("{}", measure(operation, seconds.parse()?, &material, rest)?);
            Ok(())
        }
        _ => Err("usage: filters OPERATION …; main.rs lists the operations".into()),
    }
}

/// Runs one operation for about `seconds` of CPU time.
fn measure(operation: &str, seconds: f64, material: &Material, rest: &[&str]) -> Outcome<String> {
    let provider = || material::provider(rest.first().copied().unwrap_or_default());
    let tls = |resuming| material.tls(provider()?, resuming);
    let one = |measured: Measured| Ok(measured.to_string());
    match operation {
        "tls-socket" => one(ours::stream(
            material,
            &tls(Resuming::Never)?,
            Below::Socket,
            Stack::Tls,
            seconds,
        )?),
        "tls-memory" => one(ours::stream(
            material,
            &tls(Resuming::Never)?,
            Below::Pair,
            Stack::Tls,
            seconds,
        )?),
        "tls-tokio" => one(tokio_tls::stream(
            material,
            &tls(Resuming::Never)?,
            seconds,
        )?),
        "tls-bare" => one(bare::tls(material, &tls(Resuming::Never)?, seconds)?),
        "zlib" => one(ours::stream(
            material,
            &tls(Resuming::Never)?,
            Below::Pair,
            Stack::Zlib,
            seconds,
        )?),
        "zlib-bare" => one(bare::zlib(material, seconds)?),
        "full" => one(handshakes::ours(&tls(Resuming::Never)?, seconds)?),
        "full-tokio" => one(tokio_tls::handshakes(&tls(Resuming::Never)?, seconds)?),
        "full-bare" => one(bare::handshakes(&tls(Resuming::Never)?, seconds)?),
        "resumed" => one(handshakes::ours(&tls(Resuming::Sessions)?, seconds)?),
        "resumed-tokio" => one(tokio_tls::handshakes(&tls(Resuming::Sessions)?, seconds)?),
        "resumed-bare" => one(bare::handshakes(&tls(Resuming::Sessions)?, seconds)?),
        "sweep" => {
            let [stack] = rest else {
                return Err("sweep: of which stack?".into());
            };
            let tls = material.tls(material::provider("ring")?, Resuming::Never)?;
            ours::sweep(material, &tls, stack.parse()?, seconds)
        }
        "records" => records::count(&tls(Resuming::Never)?),
        "text-ratio" => bare::text_ratio(material),
        _ => Err(format!("no operation `{operation}`").into()),
    }
}
