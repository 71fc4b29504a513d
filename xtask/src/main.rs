//! The project's own checks and benchmarks: `cargo xtask COMMAND`.
//!
//! One file for each command; what several share is beside them (`workspace`, `records`, `rows`).
//!
//! # Invariants
//! - A command ends with success only when everything that it promises was checked; what is missing is a failure, in one line.
//! - Checks need nothing but the Rust toolchain and a C compiler. Only `bench` and `fuzz` need more, and say
//!   what, with the name of the package that has it.
//! - Nothing is written outside the target directory (but for `bench --json FILE` and `--plot FILE`, the prefix of `capi`, and what `fuzz` keeps in `fuzz/`).

#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod capi;
mod capi_exports;
mod capi_headers;
mod capi_programs;
mod ci;
mod conformance;
mod failure;
mod fuzz;
mod layers;
mod loom;
mod mutants;
mod proved;
mod rates;
mod records;
mod rows;
mod sanitize;
mod soak;
mod windows;
mod workspace;

use std::process::ExitCode;

use arguments::Arguments;
use failure::Failure;

const USAGE: &str = "\
usage: cargo xtask COMMAND

checks
  ci                         everything below that gates, in order; stops at the first failure
  layers                     who may import whom, against `cargo metadata`
  spec [--missing]           which rows of the specification have a passing record
  faults [--missing]         which faults have a passing record
  conformance                the matrix row x type and backend
  loom [--mutants]           the models of what threads do; or that they fail when something is planted
  mutants [--quick] [NAME]   applies the checked-in mutations; each must turn a check red

  spec, faults and conformance run the tests first, or read what `--records DIR` holds.

the C interface (Linux; needs a C compiler, and valgrind for --test)
  capi --prefix DIR          builds it and installs it as libevent is installed
  capi --test                the C tests, each program under valgrind; and what --programs does
  capi --programs            tmux, fstrm_capture and memcached, as they were built for libevent, on it

threads, for long
  soak [--seconds N]         two relays joined crosswise over two loops, random operations: a minute over pairs, a minute over sockets

the clock (on a machine that does nothing else)
  rates [--seconds N]        rate limits on sockets for 10 seconds each, within 5 %; 50 members share a group within 10 %

fuzzing (needs cargo-fuzz and a C++ compiler; see fuzz/)
  fuzz [--seconds N] [TARGET..]   each target for N seconds: evbuffer, filter_stack, inflate, proxy, tls

sanitizers (Linux on x86-64)
  sanitize [address|thread] [--package NAME]..   the suite under AddressSanitizer with LeakSanitizer, and under ThreadSanitizer where the
                             standard library's source is installed

  races [--count N]          N bufferevents (a million) end with operations under way, on io_uring and on the fake driver, under AddressSanitizer

Windows, from Unix (needs its Rust target, mingw-w64 and Wine: says which are missing)
  windows [--check]          clippy, the tests of all crates and the demo, under Wine; or the type check alone

benchmarks (Linux; see bench/)
  bench net [--rounds N] [--seconds S] [--json FILE] [--backend mio|polling|uring] [--ours COMMAND]
  bench buffer [--rounds N] [--json FILE]
  bench filter [--rounds N] [--seconds S] [--json FILE] [--plot FILE]
  bench threads [--rounds N] [--seconds S] [--json FILE]
  bench relay [--clients N]
  bench capi [--rounds N] [--seconds S] [--json FILE]
  bench instructions [--json FILE] [--backend mio|polling|uring] [--ours COMMAND]
";

fn main() -> ExitCode {
    match run(Arguments::from_command_line()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let command = arguments.positional();
    match command.as_deref() {
        Some("ci") => ci::run(arguments),
        Some("layers") => layers::run(arguments),
        Some("spec") => proved::run(rows::Book::Spec, arguments),
        Some("faults") => proved::run(rows::Book::Faults, arguments),
        Some("conformance") => conformance::run(arguments),
        Some("loom") => loom::run(arguments),
        Some("soak") => soak::run(arguments),
        Some("mutants") => mutants::run(arguments),
        Some("fuzz") => fuzz::run(arguments),
        Some("capi") => capi::run(arguments),
        Some("sanitize") => sanitize::run(arguments),
        Some("races") => sanitize::races(arguments),
        Some("rates") => rates::run(arguments),
        Some("windows") => windows::run(arguments),
        Some("bench") => bench::run(arguments),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(Failure::new(format!(
            "no command `{other}`; `cargo xtask help` lists them"
        ))),
        None => Err(Failure::new("which command? `cargo xtask help` lists them")),
    }
}
