//! The access log: one line for each connection, when it has ended.
//!
//! Text is `TIME ROUTE CLIENT UPSTREAM SECONDS UP DOWN LAYERS END`, with a space between; JSON has the same under names. What only some
//! lines have stands in brackets or quotes, so a line can be taken apart.
//!
//! # Invariants
//! - A connection has one line, however it ends.
//! - Writing waits for nobody: see [`Spool`].

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bufferevent::{Address, Bev};
use serde_json::{Value, json};

use crate::address::{Endpoint, Written};
use crate::layers::Stack;
use crate::output::{Sink, Spool, UNREAD_LINES};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Words with spaces between.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Where lines of the access log go.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    pub(crate) path: PathBuf,
    pub(crate) spool: Spool,
    pub(crate) format: Format,
}

/// What passed one layer of a connection, in bytes: taken in from below, and given out to below.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LayerBytes {
    layer: &'static str,
    read: u64,
    written: u64,
}

/// One connection that has ended.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) route: &'a str,
    /// Who connected here.
    pub(crate) peer: &'a Address,
    /// Who that is in truth, as a proxy in front says.
    pub(crate) proxied: Option<SocketAddr>,
    pub(crate) upstream: &'a Endpoint,
    pub(crate) lasted: Duration,
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// The layers of either side, the bottom first; empty where the side was never there.
    pub(crate) client: &'a [LayerBytes],
    pub(crate) server: &'a [LayerBytes],
    /// Why it ended.
    pub(crate) end: &'a str,
}

impl AccessLog {
    /// Opens a file, or `-` for standard output.
    pub(crate) fn open(path: &Path, format: Format) -> io::Result<Self> {
        let sink = if path.as_os_str() == "-" {
            Sink::Stdout
        } else {
            Sink::File(path.into())
        };
        Ok(Self {
            path: path.into(),
            spool: Spool::start(sink, UNREAD_LINES)?,
            format,
        })
    }

    pub(crate) fn write(&self, record: &Record<'_>) {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut line = match self.format {
            Format::Text => record.text(time),
            Format::Json => record.json(time).to_string(),
        };
        line.push('\n');
        self.spool.say(line.into_bytes());
    }
}

impl LayerBytes {
    /// What passed the layers of `top`, which `stack` has made, and its transport. Empty if it was freed.
    pub(crate) fn of(top: &Bev, stack: &Stack) -> Vec<Self> {
        let names = stack.meters().map(|meter| meter.name);
        let mut names: Vec<_> = std::iter::once("socket").chain(names).collect();
        let mut layers = Vec::with_capacity(names.len());
        let mut next = Some(top.clone());
        while let (Some(bev), Some(layer)) = (next, names.pop()) {
            let stats = bev.stats();
            layers.push(Self {
                layer,
                read: stats.read,
                written: stats.written,
            });
            next = bev.underlying();
        }
        layers.reverse();
        layers
    }

    fn json(layers: &[Self]) -> Value {
        let each = layers
            .iter()
            .map(|one| json!({"layer": one.layer, "read": one.read, "written": one.written}));
        each.collect()
    }
}

impl Record<'_> {
    fn text(&self, time: Duration) -> String {
        let mut line = format!("{}.{:03} ", time.as_secs(), time.subsec_millis());
        // Writing to a text does not fail.
        let _ = write!(line, "{} ", self.route);
        if let Some(proxied) = self.proxied {
            let _ = write!(line, "tcp:{proxied}[via {}] ", Written(self.peer));
        } else {
            let _ = write!(line, "{} ", Written(self.peer));
        }
        let _ = write!(
            line,
            "{} {:.3} {} {} ",
            self.upstream,
            self.lasted.as_secs_f64(),
            self.up,
            self.down
        );
        for (side, layers) in [("client", self.client), ("upstream", self.server)] {
            let _ = write!(line, "{side}[");
            for (nth, one) in layers.iter().enumerate() {
                let gap = if nth == 0 { "" } else { " " };
                let _ = write!(line, "{gap}{}={}/{}", one.layer, one.read, one.written);
            }
            line.push_str("] ");
        }
        // What peers caused stands in quotes, on one line.
        let _ = write!(line, "{:?}", self.end);
        line
    }

    fn json(&self, time: Duration) -> Value {
        json!({
            "event": "connection",
            "time": time.as_millis() as f64 / 1e3,
            "route": self.route,
            "client": self.proxied.map_or_else(
                || Written(self.peer).to_string(),
                |proxied| format!("tcp:{proxied}"),
            ),
            "via": self.proxied.map(|_| Written(self.peer).to_string()),
            "upstream": self.upstream.to_string(),
            "seconds": self.lasted.as_millis() as f64 / 1e3,
            "bytes_up": self.up,
            "bytes_down": self.down,
            "client_layers": LayerBytes::json(self.client),
            "upstream_layers": LayerBytes::json(self.server),
            "end": self.end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_the_peer_has_caused() {
        let layers = [LayerBytes {
            layer: "socket",
            read: 7,
            written: 9,
        }];
        let peer = Address::Tcp(([127, 0, 0, 1], 1).into());
        let record = Record {
            route: "web",
            peer: &peer,
            proxied: Some(([192, 0, 2, 7], 4711).into()),
            upstream: &Endpoint::Tcp(([127, 0, 0, 1], 1).into()),
            lasted: Duration::from_millis(1250),
            up: 5,
            down: 6,
            client: &layers,
            server: &[],
            end: "client broken: \"x\"\n2",
        };
        let time = Duration::from_millis(1_764_000_000_042);
        assert_eq!(
            record.text(time),
            "1764000000.042 web tcp:192.0.2.7:4711[via tcp:127.0.0.1:1] tcp:127.0.0.1:1 1.250 5 6 client[socket=7/9] upstream[] \
             \"client broken: \\\"x\\\"\\n2\""
        );
        let json = record.json(time);
        assert_eq!(json["client"], "tcp:192.0.2.7:4711");
        assert_eq!(json["via"], "tcp:127.0.0.1:1");
        assert_eq!(json["client_layers"][0]["read"], 7);
        assert_eq!(json["seconds"], 1.25);
    }
}
