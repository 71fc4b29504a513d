//! A client of the first HTTP (0.9: a request is one line, the answer ends with the connection), by host name.
//!
//! ```text
//! cargo run -p bufferevent --features dns --example http_client -- localhost / 8080
//! ```
//!
//! The system is asked for the name's addresses, on a thread that is not the loop's; all of them are tried. Not how a
//! real HTTP client is made.
//!
//! Source: libevent book, "Bufferevents: concepts and basics", the example of `bufferevent_socket_connect_hostname`.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bufferevent::{
    Bev, Builder, Deadline, Error, Event, EventLoop, Family, Handler, LoopHandle, READ, System,
};

/// How long it may take from the name to the connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the fetching comes to, piece by piece.
pub(crate) enum Told {
    /// The name cannot be looked up, or none of its addresses can be reached.
    Failed(String),
    /// Bytes of the answer.
    Bytes(Vec<u8>),
    /// The answer is complete.
    Complete,
}

type Tell = Box<dyn FnMut(Told) + Send>;

/// Asks `host` for `resource`. The loop ends with the last thing told.
pub(crate) fn fetch(
    events: &LoopHandle,
    (host, port): (&str, u16),
    resource: &str,
    tell: impl FnMut(Told) + Send + 'static,
) -> Result<(), Error> {
    // A program has one for all that it connects to.
    let resolver = Arc::new(System::new());
    let client = Client {
        events: events.clone(),
        tell: Box::new(tell),
        _resolver: resolver.clone(),
    };
    let bev = Builder::new(events).handler(client).connect_hostname(
        &resolver,
        Family::Any,
        host,
        port,
    )?;
    bev.set_deadline(Deadline::Connect, Some(PATIENCE))?;
    bev.enable(READ)?;
    bev.write(format!("GET {resource}\r\n").as_bytes()) // Sent once connected.
}

/// The handler of the connection.
struct Client {
    events: LoopHandle,
    tell: Tell,
    /// Without it the question would be called off.
    _resolver: Arc<System>,
}

impl Handler for Client {
    fn on_read(&mut self, bev: &Bev) {
        let mut bytes = vec![0; bev.input().len()];
        let count = bev.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        (self.tell)(Told::Bytes(bytes));
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        (self.tell)(match event {
            Event::Connected => return,
            Event::Eof => Told::Complete,
            Event::Error { error, .. } => Told::Failed(match bev.dns_error() {
                Some(name) => name.to_string(),
                None => cause(error),
            }),
            other => Told::Failed(format!("{other:?}")),
        });
        self.events.exit();
        // Freed already is just as well.
        let _ = bev.free();
    }
}

/// An error with what the system said, if it did.
fn cause(error: &Error) -> String {
    match error.io_error() {
        Some(system) => format!("{error}: {system}"),
        None => error.to_string(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, resource, port @ ..] = arguments.as_slice() else {
        return Err("expected: HOST RESOURCE [PORT], such as localhost / 8080".into());
    };
    let port = port.first().map_or(Ok(80), |port| port.parse())?;
    let events = EventLoop::new()?;
    fetch(&events, (host, port), resource, |told| match told {
        Told::Failed(why) => eprintln!("failed: {why}"),
        Told::Bytes(bytes) => {
            // Nobody reads it: then the rest is not for anybody either.
            let _ = io::stdout().write_all(&bytes);
        }
        Told::Complete => eprintln!("closing"),
    })?;
    events.run()?;
    Ok(())
}
