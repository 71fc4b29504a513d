//! Addresses on the command line: `tcp:HOST:PORT`, `unix:PATH`, with `listen:` in front where one listens, and layers behind.
//!
//! # Grammar
//! ```text
//! address   = [ "listen:" ] transport { "+" layer }        the bottom first
//! transport = "tcp:" host ":" port | "unix:" path | "fd:" name     the last one to listen at, from the service manager
//! host      = IPv4 | "[" IPv6 "]" | name                                         in any script
//! layer     = ( "tls" | "zlib" | "proxy" ) { "," key "=" value }
//! ```
//! as in `tcp:127.0.0.1:7001+tls,ca=ca.pem+zlib,level=6`. Nothing is escaped: no path, name or value has a `+` or a `,` in it. What
//! the options of a layer are is in `layers.rs`.
//!
//! # Invariants
//! - Parsing asks nobody: it is a function of the text.
//! - A host name is held as the DNS has it, in ASCII: so it is looked up, shown, and compared with certificates.
//! - A name to listen at is looked up once, when its route begins; IPv4 comes before IPv6, and the first address is taken. What becomes of one to
//!   connect to, `names.rs` says.
//!
//! # Why not the library's `Address`
//! The library takes numeric addresses alone, on purpose: a look-up blocks. Before the loop runs, it may.

use std::error::Error;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use bufferevent::Address;
use bufferevent::dns::ascii_host;

use crate::exit::{Code, Failure};
use crate::layers::Layer;

/// What an address on the command line is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Listen,
    Connect,
}

/// A place to listen at or to connect to, and the layers on what comes of it, the bottom first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    pub(crate) layers: Vec<Layer>,
}

/// The transport of a place, as written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    /// TCP at a numeric address.
    Tcp(SocketAddr),
    /// TCP at a name that is still to be looked up; in ASCII.
    Name { host: String, port: u16 },
    /// A Unix-domain path.
    Unix(PathBuf),
    /// A socket that listens already and came with the process, by its name or number.
    Given(String),
}

/// Why a text is not an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BadAddress(pub(crate) String);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for BadAddress {}

pub(crate) fn bad<T>(why: impl Into<String>) -> Result<T, BadAddress> {
    Err(BadAddress(why.into()))
}

impl Place {
    /// An address to listen at; `listen:` may be left out.
    pub(crate) fn listen(text: &str) -> Result<Self, BadAddress> {
        Self::parse(text, Side::Listen)
    }

    /// An address to connect to.
    pub(crate) fn connect(text: &str) -> Result<Self, BadAddress> {
        Self::parse(text, Side::Connect)
    }

    /// Whether what comes there begins with PROXY headers.
    pub(crate) fn takes_proxy(&self) -> bool {
        self.layers.iter().any(Layer::takes_proxy)
    }

    fn parse(text: &str, side: Side) -> Result<Self, BadAddress> {
        let text = match (text.strip_prefix("listen:"), side) {
            (Some(rest), Side::Listen) => rest,
            (Some(_), Side::Connect) => {
                return bad("`listen:` where an address to connect to is needed");
            }
            (None, _) => text,
        };
        let (transport, layers) = match text.split_once('+') {
            Some((transport, layers)) => (transport, layers.split('+').collect()),
            None => (text, Vec::new()),
        };
        let endpoint = Endpoint::parse(transport, side)?;
        let layers = layers.into_iter().map(|layer| Layer::parse(layer, side));
        Ok(Self {
            endpoint,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }
}

impl Endpoint {
    fn parse(text: &str, side: Side) -> Result<Self, BadAddress> {
        if text.contains(',') {
            return bad("options after `,` belong to a layer: tcp:HOST:PORT+tls,name=NAME");
        }
        match text.split_once(':') {
            Some(("tcp", rest)) => Self::parse_tcp(rest, side),
            Some(("unix", path)) => Self::parse_unix(path),
            Some(("fd", name)) => Self::parse_given(name, side),
            Some((scheme, _)) => bad(format!(
                "`{scheme}:` is no transport; there are tcp: and unix:"
            )),
            None => bad("expected tcp:HOST:PORT or unix:PATH"),
        }
    }

    fn parse_tcp(text: &str, side: Side) -> Result<Self, BadAddress> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return bad("the port is missing: tcp:HOST:PORT");
        };
        let number: u16 = match port.parse() {
            // `parse` takes a sign; a port has none.
            Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return bad(format!("`{port}` is no port from 0 to 65535")),
        };
        if number == 0 && side == Side::Connect {
            return bad("nobody can be reached at port 0");
        }
        if host.is_empty() {
            return bad("the host is missing: tcp:HOST:PORT");
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let name = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || !byte.is_ascii()
        };
        if host.contains(':') && !host.starts_with('[') {
            return bad(format!("an IPv6 address goes in brackets: [{host}]"));
        }
        match ascii_host(host) {
            Ok(ascii) if host.bytes().all(name) => Ok(Self::Name {
                host: ascii,
                port: number,
            }),
            Ok(_) | Err(_) => bad(format!(
                "`{host}` is neither a numeric address nor a host name"
            )),
        }
    }

    fn parse_unix(path: &str) -> Result<Self, BadAddress> {
        if path.is_empty() {
            return bad("the path is missing: unix:PATH");
        }
        if path.contains('\0') {
            return bad("a path cannot contain a NUL");
        }
        #[cfg(unix)]
        if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
            return bad("the path is too long for a socket");
        }
        Ok(Self::Unix(path.into()))
    }

    fn parse_given(name: &str, side: Side) -> Result<Self, BadAddress> {
        match (name, side) {
            (_, Side::Connect) => bad("`fd:` is a socket to listen at"),
            ("", Side::Listen) => bad("the name is missing: fd:NAME, or fd:0 for the first"),
            (name, Side::Listen) => Ok(Self::Given(name.into())),
        }
    }

    /// The address to listen at; looks a name up, which may block.
    pub(crate) fn resolve(&self) -> Result<Address, Failure> {
        match self {
            Self::Tcp(address) => Ok(Address::Tcp(*address)),
            Self::Unix(path) => Ok(Address::Unix(path.clone())),
            Self::Given(name) => Err(Failure::new(
                Code::Usage,
                format!("fd:{name} is for `bev relay`, started by a service manager"),
            )),
            Self::Name { host, port } => {
                let failed = |error: &dyn Error| {
                    Failure::because(
                        Code::Unreachable,
                        format_args!("cannot look up `{host}`"),
                        error,
                    )
                };
                let found: Vec<_> = (host.as_str(), *port)
                    .to_socket_addrs()
                    .map_err(|error| failed(&error))?
                    .collect();
                let first = found
                    .iter()
                    .find(|address| address.is_ipv4())
                    .or(found.first());
                match first {
                    Some(address) => Ok(Address::Tcp(*address)),
                    None => Err(Failure::new(
                        Code::Unreachable,
                        format!("`{host}` has no address"),
                    )),
                }
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint)?;
        for layer in &self.layers {
            write!(f, "+{}", layer.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Name { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Given(name) => write!(f, "fd:{name}"),
        }
    }
}

/// An address of the library as it is written on the command line.
#[derive(Debug)]
pub(crate) struct Written<'a>(pub(crate) &'a Address);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Tcp(address) => write!(f, "tcp:{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Place::connect(text).expect_err(text).to_string()
    }

    #[test]
    fn what_is_written_comes_back() {
        for text in [
            "tcp:127.0.0.1:7001",
            "tcp:[::1]:65535",
            "tcp:[fe80::1%2]:80",
            "tcp:localhost:1",
            "tcp:a-b_c.example:80",
            "unix:/run/x.sock",
            "unix:relative:with:colons",
        ] {
            assert_eq!(Place::connect(text).expect(text).to_string(), text);
            let listening = format!("listen:{text}");
            assert_eq!(Place::listen(&listening).expect(text).to_string(), text);
            assert_eq!(Place::listen(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn names_of_any_script_are_what_the_dns_calls_them() {
        for (text, shown) in [
            ("tcp:BÜCHER.example:80", "tcp:xn--bcher-kva.example:80"),
            ("tcp:日本語。jp:443", "tcp:xn--wgv71a119e.jp:443"),
            ("tcp:LocalHost:1", "tcp:localhost:1"),
        ] {
            assert_eq!(Place::connect(text).expect(text).to_string(), shown);
            assert_eq!(Place::listen(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn port_0_is_for_listening() {
        assert!(Place::listen("tcp:127.0.0.1:0").is_ok());
        assert!(refusal("tcp:127.0.0.1:0").contains("port 0"));
    }

    #[test]
    fn odd_texts_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "expected tcp:"),
            ("7000", "expected tcp:"),
            ("127.0.0.1:7000", "is no transport"),
            ("udp:127.0.0.1:7000", "`udp:` is no transport"),
            ("TCP:127.0.0.1:7000", "`TCP:` is no transport"),
            (" tcp:127.0.0.1:7000", "is no transport"),
            ("tcp:", "port is missing"),
            ("tcp:127.0.0.1", "port is missing"),
            ("tcp::7000", "host is missing"),
            ("tcp:127.0.0.1:", "`` is no port"),
            ("tcp:127.0.0.1:65536", "`65536` is no port"),
            ("tcp:127.0.0.1:-1", "`-1` is no port"),
            ("tcp:127.0.0.1:+1", "`` is no port"),
            ("tcp:127.0.0.1:http", "`http` is no port"),
            ("tcp:127.0.0.1:7000 ", "is no port"),
            ("tcp:127.0.0.256:7000", "neither a numeric"),
            ("tcp:1.2.3:7000", "neither a numeric"),
            ("tcp:[::1:7000", "neither a numeric"),
            ("tcp:[::g]:7000", "neither a numeric"),
            ("tcp:::1:7000", "brackets: [::1]"),
            ("tcp:ho st:7000", "neither a numeric"),
            ("tcp:a..b:7000", "neither a numeric"),
            ("tcp:127.1:7000", "neither a numeric"),
            ("tcp:１２７.0.0.1:7000", "neither a numeric"),
            ("tcp:a\u{202e}b:7000", "neither a numeric"),
            ("tcp:xn--a:7000", "neither a numeric"),
            ("tcp:[127.0.0.1]:7000", "neither a numeric"),
            ("unix:", "path is missing"),
            ("unix:/a\0b", "NUL"),
            ("listen:tcp:127.0.0.1:7000", "`listen:` where"),
            ("tcp:127.0.0.1:7001+", "there are +tls, +zlib and +proxy"),
            ("tcp:127.0.0.1:7001+proxy,version=3", "expected 1 or 2"),
            (
                "tcp:127.0.0.1:7001+proxy,from=x",
                "`from` is no option of proxy",
            ),
            ("fd:web", "to listen at"),
            ("tcp:127.0.0.1:7001+ssl", "`+ssl` is no layer"),
            ("unix:/x+zlib,level", "`level` is no option"),
            ("unix:/x+zlib,level=ten", "level"),
            ("unix:/x+zlib,level=6,level=6", "twice"),
            ("unix:/x+zlib,name=x", "`name` is no option of zlib"),
            ("unix:/x+zlib,format=zip", "zlib, deflate or gzip"),
            ("unix:/x+tls,verify=perhaps", "required, optional or none"),
            ("unix:/x+tls,verify=optional", "a server"),
            ("tcp:127.0.0.1:1+tls,cert=a.pem", "key="),
            ("tcp:127.0.0.1:1+tls,ca=a.pem,verify=none", "verify=none"),
            ("tcp:127.0.0.1:7001,nodelay=1", "options"),
        ] {
            let why = refusal(text);
            assert!(why.contains(reason), "{text:?} is refused with {why:?}");
        }
        assert!(Place::listen("listen:listen:tcp:127.0.0.1:0").is_err());
    }
}
