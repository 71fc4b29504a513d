//! The command line: what can be asked for, and how it is refused.
//!
//! # Invariants
//! - A wrong command line is told in one line; the long help is for those who ask for it.
//! - Sizes and times are checked here, so the rest of the program sees no value it cannot use.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bufferevent::Rate;
use clap::{Args, Parser, Subcommand};

use crate::access::Format;
use crate::address::Place;
use crate::config::RouteSettings;
use crate::exit::{Code, Failure, TABLE};
use crate::names::Choice;

/// Bytes that one connection may have waiting in each direction, unless told otherwise.
const BUFFER: &str = "256KiB";

/// Relay, cat and echo for TCP and Unix-domain sockets, with TLS and zlib on them.
///
/// An address is tcp:HOST:PORT or unix:PATH, with listen: in front where one listens (it may be left out where the position
/// says so). An IPv6 address goes in brackets: `tcp:[::1]:7000`. A host name is looked up for each connection, and all its
/// addresses are tried; one to listen at is looked up once, when its route begins. Names may be in any script. Port 0 takes a free port; the first line of output says which.
///
/// Layers go behind the address, the bottom first, each with options: `tcp:example.org:443+tls,alpn=http/1.1`,
/// `tcp:127.0.0.1:7001+tls,ca=ca.pem,name=localhost+zlib,level=6`, `listen:tcp:0.0.0.0:8443+tls,cert=cert.pem,key=key.pem`.
/// +tls takes ca=, cert=, key= (PEM files), name= (whom the server must be; else the host), alpn= (`:` between several),
/// verify=required|optional|none. +zlib takes level=0 to 9 and format=zlib|deflate|gzip. +proxy is a PROXY header, taken or sent;
/// version=1|2.
#[derive(Debug, Parser)]
#[command(name = "bev", version, after_long_help = TABLE, after_help = "See --help for addresses and exit codes.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// How the loop waits: mio (Unix), polling, uring (completions; Linux), or iocp (completions; Windows) [default: $REACTOR_BACKEND, else mio, on Windows polling]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// What is logged to standard error: off, error, warn, info, debug, trace, or filters such as bev=debug,warn
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: String,
    /// Who is asked for the addresses of names to connect to: system, dns (the servers of /etc/resolv.conf), or a file like /etc/hosts
    #[arg(long, global = true, value_name = "system|dns|FILE", default_value = "system", value_parser = Choice::parse)]
    pub(crate) resolver: Choice,
    /// Writes one JSON object per line, on standard output and in the log
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Joins each accepted connection to a new one
    ///
    /// SIGTERM or SIGINT stops accepting and waits for the connections that are there to end; a second one ends
    /// at once. SIGHUP reads the file, the certificates and the files of names anew, and opens the access log anew; what cannot be used
    /// changes nothing. Sockets of a service manager are listened at by fd:NAME.
    Relay(Box<RelayOptions>),
    /// Joins an address to standard input and output
    ///
    /// At the end of standard input the connection is half-closed; the program ends with the peer's end.
    Cat(CatOptions),
    /// Sends back what comes in, or throws it away
    Echo(EchoOptions),
    /// Pushes data through a tunnel of two relays to an echo service and back, all in this process, and checks every byte
    Demo(DemoOptions),
    /// Makes a certificate authority and a certificate issued by it, for trying things
    Cert(CertOptions),
}

/// `bev relay`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RelayOptions {
    /// Where to listen and where to connect to, for each route
    #[arg(value_name = "LISTEN CONNECT")]
    pub(crate) addresses: Vec<String>,
    /// Takes the routes from a TOML file: a `[[route]]` for each, with name, listen, connect. What the file does not say, the other flags say
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: RouteSettings,
    /// Connections at once, over all routes and workers; more wait, and come in in their order, each route in its turn
    #[arg(long, value_name = "N", value_parser = connections)]
    pub(crate) max_connections: Option<NonZeroU64>,
    /// Bytes in a second that all clients together may send, and as many that they may be sent, shared fairly
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    pub(crate) rate_total: Option<Rate>,
    /// Threads that relay, each with a loop of its own: a number, or auto (also 0) for as many as this machine has cores. A connection
    /// stays with its thread [default: 1]
    #[arg(long, value_name = "N", value_parser = workers)]
    pub(crate) workers: Option<NonZeroUsize>,
    /// How long connections may take to end after a signal [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) drain: Option<Duration>,
    /// Prints what passed, each so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) stats: Option<Duration>,
    /// Writes a line for each connection that has ended to this file, or to standard output if it is -
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// How those lines look
    #[arg(long, value_enum, default_value_t)]
    pub(crate) access_format: Format,
}

impl RelayOptions {
    pub(crate) fn access(&self) -> Option<(PathBuf, Format)> {
        let path = self.access_log.clone()?;
        Some((path, self.access_format))
    }
}

/// `bev cat`.
#[derive(Debug, Args)]
pub(crate) struct CatOptions {
    /// Where to connect to
    #[arg(value_name = "ADDR", value_parser = Place::connect)]
    pub(crate) connect: Place,
    /// Bytes that may wait per direction
    #[arg(long, value_name = "BYTES", default_value = BUFFER, value_parser = buffer)]
    pub(crate) buffer: NonZeroUsize,
    /// Gives up if the connection does not come about in so long
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) connect_timeout: Duration,
    /// Gives up if the name is not looked up in so long; the time is a part of the other one
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) resolve_timeout: Option<Duration>,
}

/// `bev echo`.
#[derive(Debug, Args)]
pub(crate) struct EchoOptions {
    /// Where to listen
    #[arg(value_parser = Place::listen)]
    pub(crate) listen: Place,
    /// Throws away what comes in
    #[arg(long)]
    pub(crate) discard: bool,
    /// Bytes that may wait per connection and direction
    #[arg(long, value_name = "BYTES", default_value = BUFFER, value_parser = buffer)]
    pub(crate) buffer: NonZeroUsize,
}

/// `bev demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// Bytes to push there and back, over all connections
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = bytes)]
    pub(crate) bytes: u64,
    /// Connections to push them over
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) connections: NonZeroUsize,
    /// What the data is made from
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// The layers between the two relays, the bottom first; an empty text for none
    #[arg(long, value_name = "LAYERS", default_value = "tls+zlib")]
    pub(crate) layers: String,
    /// Bytes that may wait per connection and direction
    #[arg(long, value_name = "BYTES", default_value = BUFFER, value_parser = buffer)]
    pub(crate) buffer: NonZeroUsize,
}

/// `bev cert`.
#[derive(Debug, Args)]
pub(crate) struct CertOptions {
    /// Names and addresses that the certificate is for [default: localhost 127.0.0.1 ::1]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// The folder for ca.pem, cert.pem and key.pem
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
}

impl Cli {
    /// The command line of this process. `Ok(None)`: it asked for help or the version, which was printed.
    pub(crate) fn of_process() -> Result<Option<Self>, Failure> {
        match Self::try_parse() {
            Ok(cli) => Ok(Some(cli)),
            Err(error) if !error.use_stderr() => {
                // Nobody reads it: nothing to be done about that.
                let _ = error.print();
                Ok(None)
            }
            Err(error) => Err(refusal(&error)),
        }
    }
}

/// The first paragraph of what clap says, which is the reason; tips and usage are left out.
fn refusal(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let reason = text.split("\n\n").next().unwrap_or(&text);
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Code::Usage, "a command is missing; see bev --help");
    }
    Failure::new(Code::Usage, reason)
}

/// A number of bytes: `4096`, `64KiB`, `1GiB`, `10MB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => {
            return Err(format!(
                "`{other}` is no unit of bytes; there are KiB, MiB, GiB, KB, MB, GB"
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| String::from("expected a number of bytes, such as 64KiB"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| String::from("more bytes than can be counted"))
}

/// The size of a buffer. At least a page, so that a connection moves at all; at most 1 GiB, which is a mistake already.
pub(crate) fn buffer(text: &str) -> Result<NonZeroUsize, String> {
    let bytes = bytes(text)?;
    if !(4096..=1 << 30).contains(&bytes) {
        return Err("a buffer has from 4KiB to 1GiB".into());
    }
    usize::try_from(bytes)
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| "too large for this machine".into())
}

/// A rate: bytes in a second. `1MiB`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let bytes = bytes(text)?;
    if bytes == 0 {
        return Err(
            "a rate is one byte in a second at least; without a rate there is no limit".into(),
        );
    }
    Rate::per_second(bytes).map_err(|error| error.to_string())
}

/// A number of connections.
fn connections(text: &str) -> Result<NonZeroU64, String> {
    text.parse()
        .map_err(|_| String::from("expected how many connections may be there at once, from 1 on"))
}

/// More threads than this are a mistake.
const MAX_WORKERS: usize = 1024;

/// A number of workers: `4`, or `auto` and `0` for one per core.
pub(crate) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let number = match text {
        "auto" => return Ok(cores()),
        number => number.parse().ok().filter(|number| *number <= MAX_WORKERS),
    };
    match number.map(NonZeroUsize::new) {
        Some(Some(number)) => Ok(number),
        Some(None) => Ok(cores()),
        None => Err(format!("expected auto, or a number up to {MAX_WORKERS}")),
    }
}

/// A time in seconds: `10`, `0.5`. Not zero, and at most a year.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| String::from("expected seconds, such as 10 or 0.5"))?;
    if !(seconds > 0.0 && seconds <= 366.0 * 86_400.0) {
        return Err("expected more than 0 seconds and at most a year".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bytes_have_units() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("1G", 1 << 30),
            ("2MB", 2_000_000),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "KiB",
            "-1",
            "1.5M",
            "1 parsec",
            "99999999999999999999",
            "18446744073709551615K",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn workers_are_counted_or_as_many_as_cores() {
        assert_eq!(workers("3").map(NonZeroUsize::get), Ok(3));
        assert_eq!(workers("1024").map(NonZeroUsize::get), Ok(1024));
        assert_eq!(workers("auto"), workers("0"));
        for text in ["", "-1", "1.5", "1025", "all", "99999999999999999999"] {
            assert!(workers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["", "0", "-1", "inf", "NaN", "1e300", "ten"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
