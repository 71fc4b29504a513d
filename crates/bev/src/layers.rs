//! Layers on the command line: what `+tls`, `+zlib` and `+proxy` say, and the filters that come of it.
//!
//! | option | of | on | says |
//! |---|---|---|---|
//! | `cert=`, `key=` | tls | both sides | the certificate chain and private key to show, PEM files |
//! | `ca=` | tls | both sides | whom to trust, a PEM file; without it a client trusts what this machine does |
//! | `name=` | tls | connect | whom the server must be; without it the host of the address |
//! | `alpn=` | tls | both sides | application protocols, `:` between them, the best first |
//! | `verify=` | tls | both sides | `required`, `optional` or `none`: whether the peer must show who it is |
//! | `version=` | proxy | both sides | `1` or `2`: listening, which PROXY header is taken, else either; connecting, which one is sent, else 2 |
//! | `level=`, `format=` | zlib | both sides | 0 to 9; `zlib`, `deflate` or `gzip` |
//!
//! # Invariants
//! - Parsing opens no file; [`Stack::prepare`] opens them all, once, when the program starts.
//! - A PROXY header is read where `+proxy` stands, and is required there; nowhere else is one looked for.
//! - A stack that was prepared puts its layers on any number of connections, each with filters of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bufferevent::dns::ascii_host;
use bufferevent::filter::proxy::{Header, ProxyReceive, ProxySend, Version};
use bufferevent::tls::{TlsClient, TlsServer};
use bufferevent::zlib::Format;
use bufferevent::{Bev, Error, FilterExt as _, Kind, Options, Zlib};

use crate::address::{BadAddress, Endpoint, Place, Side, bad};
use crate::cert::Identity;
use crate::exit::{Code, Failure};
use crate::files;
use crate::meter::{Meter, Metered};

/// Bytes of a PEM file. The roots of a whole system are a few hundred KiB.
const MAX_PEM: u64 = 16 << 20;

/// A layer, as written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Layer {
    Tls(TlsOptions),
    Zlib(ZlibOptions),
    Proxy(ProxyOptions),
}

/// What is said of a TLS layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TlsOptions {
    side: Side,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    name: Option<String>,
    alpn: Vec<String>,
    verify: Verify,
}

/// Whether a peer must show who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verify {
    Required,
    Optional,
    None,
}

/// What is said of a zlib layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ZlibOptions {
    level: Option<u32>,
    format: Format,
}

/// What is said of a PROXY header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProxyOptions {
    side: Side,
    version: Option<Version>,
}

/// The options of one layer, each at most once.
struct Given<'a> {
    layer: &'static str,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Given<'a> {
    fn parse(
        layer: &'static str,
        known: &[&str],
        options: impl Iterator<Item = &'a str>,
    ) -> Result<Self, BadAddress> {
        let mut seen = BTreeSet::new();
        let mut given = Vec::new();
        for option in options {
            let Some((key, value)) = option.split_once('=') else {
                return bad(format!(
                    "`{option}` is no option of {layer}: expected KEY=VALUE"
                ));
            };
            if !known.contains(&key) {
                let known = known.join(", ");
                return bad(format!(
                    "`{key}` is no option of {layer}; there are {known}"
                ));
            }
            if value.is_empty() {
                return bad(format!("`{key}=` of {layer} has no value"));
            }
            if !seen.insert(key) {
                return bad(format!("`{key}` of {layer} is there twice"));
            }
            given.push((key, value));
        }
        Ok(Self {
            layer,
            options: given,
        })
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.options.iter().find(|(given, _)| *given == key);
        found.map(|(_, value)| *value)
    }
}

impl Layer {
    /// What stands between one `+` and the next.
    pub(crate) fn parse(text: &str, side: Side) -> Result<Self, BadAddress> {
        let mut parts = text.split(',');
        match parts.next() {
            Some("tls") => {
                let known = ["ca", "cert", "key", "name", "alpn", "verify"];
                TlsOptions::of(&Given::parse("tls", &known, parts)?, side).map(Self::Tls)
            }
            Some("zlib") => {
                let given = Given::parse("zlib", &["level", "format"], parts)?;
                ZlibOptions::of(&given).map(Self::Zlib)
            }
            Some("proxy") => {
                let given = Given::parse("proxy", &["version"], parts)?;
                ProxyOptions::of(&given, side).map(Self::Proxy)
            }
            name => bad(format!(
                "`+{}` is no layer; there are +tls, +zlib and +proxy",
                name.unwrap_or_default()
            )),
        }
    }

    /// Whether it takes PROXY headers.
    pub(crate) fn takes_proxy(&self) -> bool {
        match self {
            Self::Proxy(options) => options.side == Side::Listen,
            Self::Tls(_) | Self::Zlib(_) => false,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Zlib(_) => "zlib",
            Self::Proxy(_) => "proxy",
        }
    }
}

impl ProxyOptions {
    fn of(given: &Given<'_>, side: Side) -> Result<Self, BadAddress> {
        let version = match given.get("version") {
            None => None,
            Some("1") => Some(Version::V1),
            Some("2") => Some(Version::V2),
            Some(_) => return bad("version= of proxy: expected 1 or 2"),
        };
        Ok(Self { side, version })
    }

    fn maker(self) -> Maker {
        match self.side {
            Side::Listen => Maker::ProxyFrom(self.version),
            Side::Connect => Maker::ProxyTo(self.version.unwrap_or(Version::V2)),
        }
    }
}

impl TlsOptions {
    fn of(given: &Given<'_>, side: Side) -> Result<Self, BadAddress> {
        let identity = match (given.get("cert"), given.get("key")) {
            (Some(chain), Some(key)) => Some((chain.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => {
                return bad("cert= of tls needs key=, the private key that goes with it");
            }
            (None, Some(_)) => {
                return bad("key= of tls needs cert=, the certificate that goes with it");
            }
        };
        let ca = given.get("ca").map(PathBuf::from);
        let verify = match given.get("verify") {
            Some("required") => Verify::Required,
            Some("optional") => Verify::Optional,
            Some("none") => Verify::None,
            None if side == Side::Connect || ca.is_some() => Verify::Required,
            None => Verify::None,
            Some(other) => {
                return bad(format!(
                    "`verify={other}` of {}: expected required, optional or none",
                    given.layer
                ));
            }
        };
        match (side, verify) {
            (Side::Connect, Verify::Optional) => {
                return bad("verify=optional is for a server: a client verifies or does not");
            }
            (Side::Listen, Verify::Required | Verify::Optional) if ca.is_none() => {
                return bad(
                    "verify= of a tls server needs ca=, who may have issued the clients' certificates",
                );
            }
            (Side::Connect | Side::Listen, Verify::None) if ca.is_some() => {
                return bad("ca= of tls has no meaning with verify=none");
            }
            (Side::Listen, _) if identity.is_none() => {
                return bad("a tls server needs cert= and key=; bev cert makes some for trying");
            }
            (Side::Listen, _) if given.get("name").is_some() => {
                return bad("name= of tls is for the connecting side");
            }
            (Side::Connect | Side::Listen, _) => {}
        }
        Ok(Self {
            side,
            ca,
            identity,
            name: given.get("name").map(server_name).transpose()?,
            alpn: given
                .get("alpn")
                .map_or_else(Vec::new, |all| all.split(':').map(str::to_owned).collect()),
            verify,
        })
    }
}

/// Whom a server must be: an address, or a name, as certificates have it.
fn server_name(text: &str) -> Result<String, BadAddress> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.into());
    }
    match ascii_host(text) {
        Ok(name) => Ok(name),
        Err(_) => bad(format!(
            "name= of tls: `{text}` is neither a host name nor an address"
        )),
    }
}

impl ZlibOptions {
    fn of(given: &Given<'_>) -> Result<Self, BadAddress> {
        let level = match given.get("level").map(str::parse) {
            None => None,
            Some(Ok(level @ 0..=9)) => Some(level),
            Some(_) => return bad("level= of zlib: expected 0 to 9"),
        };
        let format = match given.get("format") {
            None | Some("zlib") => Format::Zlib,
            Some("deflate") => Format::Deflate,
            Some("gzip") => Format::Gzip,
            Some(other) => {
                return bad(format!(
                    "`format={other}` of {}: expected zlib, deflate or gzip",
                    given.layer
                ));
            }
        };
        Ok(Self { level, format })
    }
}

/// The layers of a place, ready to be put on connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stack {
    layers: Vec<(Maker, Arc<Meter>)>,
}

/// What makes the filters of one layer.
#[derive(Clone, Debug)]
enum Maker {
    Client(TlsClient),
    Server(TlsServer),
    Zlib(ZlibOptions),
    /// Takes a header off: of this version, or either.
    ProxyFrom(Option<Version>),
    /// Sends a header.
    ProxyTo(Version),
}

/// The two ends of a tunnel through the layers in `text`, as they stand in an address: who connects, and who listens. TLS has
/// no options here; both sides use `identity`.
pub(crate) fn tunnel(text: &str, identity: &Identity) -> Result<(Stack, Stack), Failure> {
    let (mut near, mut far) = (Stack::default(), Stack::default());
    for layer in text.split('+').filter(|layer| !layer.is_empty()) {
        let (client, server) = match layer {
            "tls" => identity.both_sides()?,
            other => match Layer::parse(other, Side::Connect) {
                Ok(Layer::Zlib(zlib)) => (Maker::Zlib(zlib), Maker::Zlib(zlib)),
                Ok(Layer::Proxy(_)) => {
                    let why = "+proxy tells addresses, which a tunnel of the demo has none of";
                    return Err(Failure::new(Code::Usage, why));
                }
                Ok(Layer::Tls(_)) => {
                    let why =
                        "+tls has no options in a tunnel: its certificates are made at the start";
                    return Err(Failure::new(Code::Usage, why));
                }
                Err(error) => return Err(Failure::because(Code::Usage, "--layers", &error)),
            },
        };
        let name = match &client {
            Maker::Client(_) | Maker::Server(_) => "tls",
            Maker::Zlib(_) => "zlib",
            Maker::ProxyFrom(_) | Maker::ProxyTo(_) => "proxy",
        };
        near.layers.push((client, Arc::new(Meter::new(name))));
        far.layers.push((server, Arc::new(Meter::new(name))));
    }
    Ok((near, far))
}

impl Identity {
    /// A client that trusts it, and a server that shows it.
    fn both_sides(&self) -> Result<(Maker, Maker), Failure> {
        let failed = |error| Failure::because(Code::Runtime, "tls", &error);
        let client = TlsClient::builder("localhost").roots_pem(self.ca.as_bytes());
        let server = TlsServer::new(self.chain.as_bytes(), self.key.as_bytes());
        Ok((
            Maker::Client(client.build().map_err(failed)?),
            Maker::Server(server.map_err(failed)?),
        ))
    }
}

impl Stack {
    /// Opens what the layers of a place name.
    pub(crate) fn prepare(place: &Place) -> Result<Self, Failure> {
        let prepared = place.layers.iter().map(|layer| {
            let maker = match layer {
                Layer::Tls(options) => options.prepare(&place.endpoint)?,
                Layer::Zlib(options) => Maker::Zlib(*options),
                Layer::Proxy(options) => options.maker(),
            };
            Ok((maker, Arc::new(Meter::new(layer.name()))))
        });
        Ok(Self {
            layers: prepared.collect::<Result<_, Failure>>()?,
        })
    }

    /// The same layers for another thread, with meters of their own.
    pub(crate) fn for_another_thread(&self) -> Self {
        let layers = self.layers.iter().map(|(maker, meter)| {
            let meter = Meter::new(meter.name);
            (maker.clone(), Arc::new(meter))
        });
        Self {
            layers: layers.collect(),
        }
    }

    /// The same layers as before a reload, as far as their names go, count on where those have stopped.
    pub(crate) fn counting_on(mut self, former: &Self) -> Self {
        let names = |stack: &Self| stack.meters().map(|meter| meter.name).collect::<Vec<_>>();
        if names(&self) == names(former) {
            for ((_, meter), (_, before)) in self.layers.iter_mut().zip(&former.layers) {
                *meter = before.clone();
            }
        }
        self
    }

    /// Whether a layer has to hear something from the peer before bytes can pass.
    pub(crate) fn shakes_hands(&self) -> bool {
        self.layers.iter().any(|(maker, _)| match maker {
            Maker::Client(_) | Maker::Server(_) | Maker::ProxyFrom(_) => true,
            Maker::Zlib(_) | Maker::ProxyTo(_) => false,
        })
    }

    /// Which PROXY header it sends, if it does.
    pub(crate) fn proxy_version(&self) -> Option<Version> {
        self.layers.iter().find_map(|(maker, _)| match maker {
            Maker::ProxyTo(version) => Some(*version),
            Maker::Client(_) | Maker::Server(_) | Maker::Zlib(_) | Maker::ProxyFrom(_) => None,
        })
    }

    /// Whether it takes a PROXY header.
    pub(crate) fn takes_proxy(&self) -> bool {
        let takes = |(maker, _): &(Maker, _)| matches!(maker, Maker::ProxyFrom(_));
        self.layers.iter().any(takes)
    }

    /// The PROXY header that a connection with these layers has sent, if they take one.
    pub(crate) fn proxy_header(&self, top: &Bev) -> Option<Header> {
        if !self.takes_proxy() {
            return None;
        }
        let filter = top.filter_of::<Metered<ProxyReceive>>()?;
        filter.with(|filter| filter.get().header().cloned()).ok()?
    }

    /// Whether there is no layer.
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// What passed each layer, the bottom first, on all its connections together.
    pub(crate) fn meters(&self) -> impl Iterator<Item = &Arc<Meter>> {
        self.layers.iter().map(|(_, meter)| meter)
    }

    /// Puts the layers on a connection, which is freed with the top of them. If one cannot be put on, all are freed. `header` is
    /// sent if one of them sends a PROXY header; without it, one that says nothing.
    pub(crate) fn put_on(&self, transport: &Bev, header: Option<&Header>) -> Result<Bev, Error> {
        let mut top = transport.clone();
        for (maker, meter) in &self.layers {
            let meter = meter.clone();
            let options = Options::CLOSE_ON_FREE;
            let put = match maker {
                Maker::Client(client) => {
                    top.filter(options, Metered::new(tls(client.filter())?, meter))
                }
                Maker::Server(server) => {
                    top.filter(options, Metered::new(tls(server.filter())?, meter))
                }
                Maker::Zlib(zlib) => top.filter(options, Metered::new(zlib.filter()?, meter)),
                Maker::ProxyFrom(version) => {
                    let filter = ProxyReceive::new();
                    let filter = match version {
                        Some(version) => filter.only(*version),
                        None => filter,
                    };
                    top.filter(options, Metered::new(filter, meter))
                }
                Maker::ProxyTo(version) => {
                    let nothing = Header::unknown(*version);
                    let filter = ProxySend::new(header.unwrap_or(&nothing));
                    top.filter(options, Metered::new(filter, meter))
                }
            };
            // One that cannot go on takes those below along.
            top = put.inspect_err(|_| drop(top.free()))?;
        }
        Ok(top)
    }
}

/// A filter, or the error of a stack that has none.
fn tls<F>(made: Result<F, bufferevent::tls::SetupError>) -> Result<F, Error> {
    made.map_err(|error| Error::new(Kind::Misuse, "tls", "filter").with_source(error))
}

impl ZlibOptions {
    fn filter(self) -> Result<Zlib, Error> {
        let builder = Zlib::builder().format(self.format);
        match self.level {
            Some(level) => builder.level(level),
            None => builder,
        }
        .build()
    }
}

impl TlsOptions {
    /// Reads the files and checks that they fit together.
    fn prepare(&self, endpoint: &Endpoint) -> Result<Maker, Failure> {
        let ca = self.ca.as_deref().map(read).transpose()?;
        let identity = match &self.identity {
            Some((chain, key)) => Some((read(chain)?, read(key)?)),
            None => None,
        };
        let made = match self.side {
            Side::Connect => self.client(endpoint, ca.as_deref(), identity.as_ref())?,
            Side::Listen => self.server(ca.as_deref(), identity.as_ref()),
        };
        made.map_err(|error| Failure::because(Code::Usage, self, &error))
    }

    fn client(
        &self,
        endpoint: &Endpoint,
        ca: Option<&[u8]>,
        identity: Option<&(Vec<u8>, Vec<u8>)>,
    ) -> Result<Result<Maker, bufferevent::tls::SetupError>, Failure> {
        let name = match (&self.name, endpoint) {
            (Some(name), _) => name.clone(),
            (None, Endpoint::Tcp(address)) => address.ip().to_string(),
            (None, Endpoint::Name { host, .. }) => host.clone(),
            (None, Endpoint::Unix(_) | Endpoint::Given(_)) => {
                let why = "tls over a path needs name=, whom the server must be";
                return Err(Failure::new(Code::Usage, why));
            }
        };
        let mut builder = TlsClient::builder(&name).alpn(&self.alpn);
        if let Some(ca) = ca {
            builder = builder.roots_pem(ca);
        }
        if let Some((chain, key)) = identity {
            builder = builder.certificate(chain, key);
        }
        if self.verify == Verify::None {
            builder = builder.dangerous_accept_any_certificate();
        }
        Ok(builder.build().map(Maker::Client))
    }

    fn server(
        &self,
        ca: Option<&[u8]>,
        identity: Option<&(Vec<u8>, Vec<u8>)>,
    ) -> Result<Maker, bufferevent::tls::SetupError> {
        let mut builder = TlsServer::builder().alpn(&self.alpn);
        if let Some((chain, key)) = identity {
            builder = builder.certificate(chain, key);
        }
        builder = match (self.verify, ca) {
            (Verify::Required, Some(ca)) => builder.require_client_certificate(ca),
            (Verify::Optional, Some(ca)) => builder.ask_for_client_certificate(ca),
            (Verify::Required | Verify::Optional | Verify::None, _) => builder,
        };
        builder.build().map(Maker::Server)
    }
}

impl fmt::Display for TlsOptions {
    /// Which layer it is, with the files that it names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tls")?;
        if let Some(ca) = &self.ca {
            write!(f, ",ca={}", ca.display())?;
        }
        if let Some((chain, key)) = &self.identity {
            write!(f, ",cert={},key={}", chain.display(), key.display())?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    files::read(path, MAX_PEM).map_err(|error| {
        let what = format_args!("cannot read {}", path.display());
        Failure::because(Code::Usage, what, &error)
    })
}
