//! What a relay is to do: from the command line, from a file, or both.
//!
//! A file has the flags' names as keys. What it does not say, the flags say; what they do not say, the program's defaults do.
//!
//! ```toml
//! max-connections = 10000
//! drain = 30
//!
//! [defaults]                      # for every route
//! idle-timeout = 300
//!
//! [[route]]
//! name = "web"
//! listen = "tcp:0.0.0.0:443+tls,cert=cert.pem,key=key.pem"
//! connect = "tcp:127.0.0.1:8080"
//! max-connections = 5000
//! ```
//!
//! # Invariants
//! - A key that is not known is an error, and so is a value that cannot be used: nothing is ignored.
//! - Every error names the file, and the line or the route.
//! - Loading changes nothing. What it gives is whole: files are read, names are looked up.

use std::collections::BTreeSet;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bufferevent::Rate;
use clap::Args;
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::access::Format;
use crate::address::{Endpoint, Place};
use crate::cli::{self, RelayOptions};
use crate::exit::{Code, Failure};
use crate::files;
use crate::limits::Limits;
use crate::relay::Prepared;
use crate::trust::{self, Trust};

/// How long connections may take to end after a signal, unless told otherwise.
const DRAIN: Duration = Duration::from_secs(10);

/// The most bytes that a file may have: one that is longer is no configuration.
const MAX_FILE: u64 = 16 << 20;

/// What can be said of a route, by flags for all or by keys for one.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RouteSettings {
    /// Bytes that may wait per connection and direction [default: 256KiB]
    #[arg(long, value_name = "BYTES", value_parser = cli::buffer)]
    #[serde(deserialize_with = "toml_buffer")]
    pub(crate) buffer: Option<NonZeroUsize>,
    /// Bytes in a second that a client may send, and as many that it may be sent
    #[arg(long, value_name = "BYTES", value_parser = cli::rate)]
    #[serde(deserialize_with = "toml_rate")]
    pub(crate) rate: Option<Rate>,
    /// Gives up on an upstream whose name is not looked up in so long; the time is a part of the next one
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) resolve_timeout: Option<Duration>,
    /// Gives up on an upstream that is not connected, with all its layers, in so long [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) connect_timeout: Option<Duration>,
    /// Cuts a client whose layers have not shaken hands in so long, TLS or a PROXY header [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) handshake_timeout: Option<Duration>,
    /// Cuts a connection on which nothing moves for so long
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) idle_timeout: Option<Duration>,
    /// Cuts a connection that has ended in one direction and on which nothing moves in the other for so long
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) half_closed_timeout: Option<Duration>,
    /// Cuts a connection whose peer takes nothing for so long of what waits for it
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) write_timeout: Option<Duration>,
    /// Cuts a connection if what was sent before its end is not delivered so long after it
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    #[serde(deserialize_with = "toml_seconds")]
    pub(crate) finish_timeout: Option<Duration>,
    /// Where +proxy takes headers, the networks whose proxies are believed, `,` between them; who comes from elsewhere is refused [default:
    /// all are believed]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = trust::network)]
    #[serde(deserialize_with = "toml_networks")]
    pub(crate) proxy_trust: Option<Vec<IpNet>>,
}

impl RouteSettings {
    /// The error names the key.
    fn of_table(table: toml::Table) -> Result<Self, String> {
        let of = |table| Self::deserialize(toml::Value::Table(table));
        for (key, value) in &table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = of(alone) {
                return Err(match error.message() {
                    unknown if unknown.contains("unknown field") => format!(
                        "{unknown}, and of a route `name`, `listen`, `connect`, `max-connections`"
                    ),
                    why => format!("{key}: {why}"),
                });
            }
        }
        of(table).map_err(|error| error.message().to_owned())
    }

    /// Sets what is said here.
    fn set_on(&self, limits: &mut Limits) {
        limits.buffer = self.buffer.unwrap_or(limits.buffer);
        limits.rate = self.rate.or(limits.rate);
        if let Some(networks) = &self.proxy_trust {
            limits.trust = Trust::of(networks.clone());
        }
        for (said, limit) in [
            (self.resolve_timeout, &mut limits.resolve),
            (self.connect_timeout, &mut limits.connect),
            (self.handshake_timeout, &mut limits.handshake),
            (self.idle_timeout, &mut limits.idle),
            (self.half_closed_timeout, &mut limits.half_closed),
            (self.write_timeout, &mut limits.write),
            (self.finish_timeout, &mut limits.finish),
        ] {
            if said.is_some() {
                *limit = said;
            }
        }
    }
}

/// A file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    #[serde(default, deserialize_with = "toml_workers")]
    workers: Option<NonZeroUsize>,
    max_connections: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "toml_rate")]
    rate_total: Option<Rate>,
    #[serde(default, deserialize_with = "toml_seconds")]
    drain: Option<Duration>,
    access_log: Option<PathBuf>,
    access_format: Option<Format>,
    defaults: Option<RouteSettings>,
    #[serde(default)]
    route: Vec<toml::Table>,
}

/// What a relay is to do.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) workers: NonZeroUsize,
    /// Over all routes.
    pub(crate) max_connections: Option<NonZeroU64>,
    /// Of all clients together.
    pub(crate) rate_total: Option<Rate>,
    pub(crate) drain: Duration,
    pub(crate) access: Option<(PathBuf, Format)>,
    pub(crate) routes: Vec<Route>,
}

/// One route, as it is said.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) listen: Place,
    pub(crate) connect: Place,
    pub(crate) limits: Limits,
}

impl Config {
    /// Reads what the options say, and the file that they name.
    pub(crate) fn read(options: &RelayOptions) -> Result<Self, Failure> {
        let config = match &options.config {
            Some(path) => Self::of_file(path, options)?,
            None => Self::of_line(options)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Opens what the routes name, and looks up where to listen, but for places that are `held` already.
    pub(crate) fn prepare(&self, held: &[Endpoint]) -> Result<Vec<Prepared>, Failure> {
        let prepared = self.routes.iter().map(|route| Prepared::of(route, held));
        prepared.collect()
    }

    fn of_line(options: &RelayOptions) -> Result<Self, Failure> {
        let usage = |why: String| Failure::new(Code::Usage, why);
        let (pairs, odd) = options.addresses.as_chunks::<2>();
        if pairs.is_empty() || !odd.is_empty() {
            return Err(usage(
                "expected LISTEN CONNECT, once or more, or --config FILE".into(),
            ));
        }
        let mut limits = Limits::default();
        options.settings.set_on(&mut limits);
        let routes = pairs.iter().map(|[listen, connect]| {
            let place = |text: &String, parsed: Result<Place, _>| {
                parsed.map_err(|error| usage(format!("'{text}': {error}")))
            };
            Ok(Route {
                name: listen_name(listen),
                listen: place(listen, Place::listen(listen))?,
                connect: place(connect, Place::connect(connect))?,
                limits: limits.clone(),
            })
        });
        Ok(Self {
            workers: options.workers.unwrap_or(NonZeroUsize::MIN),
            max_connections: options.max_connections,
            rate_total: options.rate_total,
            drain: options.drain.unwrap_or(DRAIN),
            access: options.access(),
            routes: routes.collect::<Result<_, Failure>>()?,
        })
    }

    fn of_file(path: &Path, options: &RelayOptions) -> Result<Self, Failure> {
        let failed = |why: String| Failure::new(Code::Usage, format!("{}: {why}", path.display()));
        if !options.addresses.is_empty() {
            return Err(failed(
                "the routes come from this file: leave LISTEN CONNECT out".into(),
            ));
        }
        let text = read(path)?;
        let written: Written = toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text[..span.start].matches('\n').count() + 1);
            match line {
                Some(line) => failed(format!("line {line}: {}", error.message())),
                None => failed(error.message().into()),
            }
        })?;
        let mut limits = Limits::default();
        options.settings.set_on(&mut limits);
        if let Some(defaults) = &written.defaults {
            defaults.set_on(&mut limits);
        }
        let routes = written.route.into_iter().enumerate().map(|(nth, table)| {
            Route::of_table(table, nth, limits.clone())
                .map_err(|why| failed(format!("route {}{why}", nth + 1)))
        });
        let flags = options.access();
        let access = match (written.access_log, flags) {
            (Some(path), _) => Some((path, written.access_format.unwrap_or(options.access_format))),
            (None, flags) => flags,
        };
        Ok(Self {
            workers: written
                .workers
                .or(options.workers)
                .unwrap_or(NonZeroUsize::MIN),
            max_connections: written.max_connections.or(options.max_connections),
            rate_total: written.rate_total.or(options.rate_total),
            drain: written.drain.or(options.drain).unwrap_or(DRAIN),
            access,
            routes: routes.collect::<Result<_, _>>()?,
        })
    }

    /// What no single route can see.
    fn check(&self) -> Result<(), Failure> {
        let usage = |why: String| Err(Failure::new(Code::Usage, why));
        if self.routes.is_empty() {
            return usage("there is no route: a [[route]] has listen and connect".into());
        }
        let mut names = BTreeSet::new();
        for (nth, route) in self.routes.iter().enumerate() {
            if !names.insert(&route.name) && !has_any_port(&route.listen) {
                return usage(format!("two routes have the name `{}`", route.name));
            }
            let same = |other: &&Route| other.listen.endpoint == route.listen.endpoint;
            if !has_any_port(&route.listen) && self.routes[..nth].iter().any(|other| same(&other)) {
                return usage(format!("two routes listen on {}", route.listen.endpoint));
            }
        }
        Ok(())
    }
}

/// Whether the system chooses the port: of that there may be several.
fn has_any_port(place: &Place) -> bool {
    match &place.endpoint {
        Endpoint::Tcp(address) => address.port() == 0,
        Endpoint::Name { port, .. } => *port == 0,
        Endpoint::Unix(_) | Endpoint::Given(_) => false,
    }
}

/// What a route is called that has no name: where it listens, without its layers.
fn listen_name(listen: &str) -> String {
    let listen = listen.strip_prefix("listen:").unwrap_or(listen);
    listen.split('+').next().unwrap_or(listen).to_owned()
}

impl Route {
    /// The error continues "route 1".
    fn of_table(mut table: toml::Table, nth: usize, mut limits: Limits) -> Result<Self, String> {
        let mut text = |key: &str| match table.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!(
                ": {key}: expected a text, not a value of type {}",
                other.type_str()
            )),
        };
        let (name, listen, connect) = (text("name")?, text("listen")?, text("connect")?);
        let called = name
            .as_ref()
            .map_or(String::new(), |name| format!(" (`{name}`)"));
        let missing = |key| format!("{called}: `{key}` is missing");
        let (listen, connect) = (
            listen.ok_or_else(|| missing("listen"))?,
            connect.ok_or_else(|| missing("connect"))?,
        );
        let max_connections = match table.remove("max-connections") {
            None => None,
            Some(value) => Some(
                NonZeroU64::deserialize(value)
                    .map_err(|error| format!("{called}: max-connections: {}", error.message()))?,
            ),
        };
        let settings = RouteSettings::of_table(table).map_err(|why| format!("{called}: {why}"))?;
        settings.set_on(&mut limits);
        limits.max_connections = max_connections;
        let wrong = |key, error| format!("{called}: {key}: {error}");
        let listen_text = listen.clone();
        let listen = Place::listen(&listen).map_err(|error| wrong("listen", error))?;
        if settings.proxy_trust.is_some() && !listen.takes_proxy() {
            return Err(format!(
                "{called}: proxy-trust says whose PROXY headers are believed, and `listen` takes none: it has no +proxy"
            ));
        }
        let name = name.unwrap_or_else(|| listen_name(&listen_text));
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!(
                ": `{name}` is no name for route {}: it is one word",
                nth + 1
            ));
        }
        Ok(Self {
            listen,
            connect: Place::connect(&connect).map_err(|error| wrong("connect", error))?,
            name,
            limits,
        })
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    files::read_text(path, MAX_FILE).map_err(|error| {
        let what = format_args!("cannot read {}", path.display());
        Failure::because(Code::Usage, what, &error)
    })
}

/// A value that may be a number or a text, as the command line would have it.
fn spelled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!(
            "expected a number or a text, not a value of type {}",
            other.type_str()
        ))),
    }
}

fn toml_buffer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroUsize>, D::Error> {
    let text = spelled(from)?;
    cli::buffer(&text).map(Some).map_err(D::Error::custom)
}

fn toml_rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Rate>, D::Error> {
    let text = spelled(from)?;
    cli::rate(&text).map(Some).map_err(D::Error::custom)
}

fn toml_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = spelled(from)?;
    cli::seconds(&text).map(Some).map_err(D::Error::custom)
}

fn toml_networks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let networks = texts.iter().map(|text| trust::network(text));
    networks
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(D::Error::custom)
}

fn toml_workers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroUsize>, D::Error> {
    let text = spelled(from)?;
    cli::workers(&text).map(Some).map_err(D::Error::custom)
}
