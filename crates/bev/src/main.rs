//! Relay, cat and echo for TCP and Unix-domain sockets, built on bufferevents.
//!
//! One event loop on one thread; a relay can have more of both. Each command is a file of its own; what they share is the command line (`cli`), addresses
//! (`address`), signals (`signals`) and how the program ends (`exit`).

#![forbid(unsafe_code)]

mod access;
mod address;
mod cat;
mod cert;
mod cli;
mod config;
mod data;
mod demo;
mod descriptors;
mod echo;
mod exit;
mod files;
mod gate;
mod layers;
mod limits;
mod meter;
mod names;
mod output;
mod relay;
mod service;
mod session;
mod signals;
mod sockets;
mod stats;
mod systemd;
mod trust;
mod worker;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use bufferevent::EventLoop;
use bufferevent::evreactor::{self, BuildError};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Common};
use crate::exit::{Chain, Code, Failure};
use crate::output::{FLUSH_WITHIN, LogWriter, Sink, Spool, UNREAD_LINES};
use crate::systemd::Given;

/// Connections that the system may keep waiting: a thousand clients may connect at once.
const BACKLOG: u16 = 4096;

fn main() -> ExitCode {
    match Cli::of_process().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody reads it: the code still says.
            let _ = writeln!(std::io::stderr(), "bev: {failure}");
            failure.exit_code()
        }
    }
}

fn run(cli: Option<Cli>) -> Result<(), Failure> {
    let Some(Cli { command, common }) = cli else {
        return Ok(());
    };
    // First of all: nothing else has a descriptor yet.
    let given = Given::of_process()?;
    let log = start_log(&common)?;
    descriptors::raise();
    let result = start(&common, &command, given);
    log.flush(FLUSH_WITHIN);
    result
}

fn start(common: &Common, command: &Command, given: Given) -> Result<(), Failure> {
    let events = || event_loop(common);
    match command {
        Command::Cert(options) => cert::run(common, options),
        Command::Demo(options) => demo::run(&events()?, common, options),
        Command::Cat(options) => cat::run(&events()?, common, options),
        Command::Relay(options) => service::run(given, loops(common), common, options),
        Command::Echo(options) => echo::run(&events()?, common, options),
    }
}

/// The log goes to standard error, so that standard output is the program's own. Nobody waits for whoever reads it.
fn start_log(common: &Common) -> Result<Spool, Failure> {
    let filter = EnvFilter::builder().parse(&common.log).map_err(|error| {
        Failure::because(Code::Usage, format_args!("--log {}", common.log), &error)
    })?;
    let spool = Spool::when_needed(Sink::Stderr, UNREAD_LINES)
        .map_err(Failure::during("starting the log"))?;
    let writer = LogWriter(spool.clone());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(std::io::stderr().is_terminal());
    if common.json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(spool)
}

/// How loops are made.
fn loops(common: &Common) -> evreactor::Builder {
    sockets::loops(common.backend.as_deref())
}

fn event_loop(common: &Common) -> Result<EventLoop, Failure> {
    loops(common).build().map_err(|error| match error {
        BuildError::UnknownBackend { .. } => Failure::new(Code::Usage, Chain(&error).to_string()),
        error => Failure::because(Code::Runtime, "the event loop", &error),
    })
}
