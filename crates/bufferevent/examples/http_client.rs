//! A client of the first HTTP (0.9: a request is one line, the answer ends with the connection), by host name.
//!
//! ```text
//! cargo run --example http_client -- localhost / 8080
//! ```
//!
//! Names are looked up by the standard library, which blocks; so that is done in a thread of its own, which posts the
//! addresses to the loop. Not how a real HTTP client is made.
//!
//! Source: libevent book, "Bufferevents: concepts and basics", the example of `bufferevent_socket_connect_hostname`.

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::vec;

use bufferevent::{Bev, Builder, Error, Event, EventLoop, Handler, LoopHandle, READ};

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
) {
    let place = (host.to_owned(), port);
    let mut client = Client {
        events: events.clone(),
        addresses: Vec::new().into_iter(),
        request: format!("GET {resource}\r\n"),
        answered: false,
        tell: Box::new(tell),
    };
    // While the name is looked up the loop has nothing else to wait for.
    let hold = events.hold();
    std::thread::spawn(move || {
        let found = (place.0.as_str(), place.1).to_socket_addrs();
        let events = client.events.clone();
        // A loop that is gone has nobody left to tell.
        let _ = events.post(move || {
            match found {
                Ok(addresses) => {
                    client.addresses = addresses.collect::<Vec<_>>().into_iter();
                    client.try_next("no address");
                }
                Err(error) => client.end(Told::Failed(error.to_string())),
            }
            drop(hold);
        });
    });
}

/// The handler of one attempt. It goes along to the next address if this one cannot be reached.
struct Client {
    events: LoopHandle,
    /// Those that were not tried yet.
    addresses: vec::IntoIter<SocketAddr>,
    request: String,
    answered: bool,
    tell: Tell,
}

impl Client {
    /// Connects to the next address; if there is none left, `why` the last one failed is told.
    fn try_next(mut self, why: &str) {
        let Some(address) = self.addresses.next() else {
            return self.end(Told::Failed(why.into()));
        };
        let events = self.events.clone();
        let request = self.request.clone();
        let begun = Builder::new(&events)
            .handler(self)
            .connect(address)
            .and_then(|bev| {
                bev.enable(READ)?;
                bev.write(request.as_bytes()) // Sent once connected.
            });
        if let Err(error) = begun {
            eprintln!("cannot begin to connect to {address}: {error}");
            events.exit();
        }
    }

    fn end(&mut self, told: Told) {
        (self.tell)(told);
        self.events.exit();
    }

    /// The same client without its part in this attempt.
    fn next_attempt(&mut self) -> Self {
        Self {
            events: self.events.clone(),
            addresses: std::mem::take(&mut self.addresses),
            request: std::mem::take(&mut self.request),
            answered: false,
            tell: std::mem::replace(&mut self.tell, Box::new(|_| {})),
        }
    }
}

impl Handler for Client {
    fn on_read(&mut self, bev: &Bev) {
        self.answered = true;
        let mut bytes = vec![0; bev.input().len()];
        let count = bev.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        (self.tell)(Told::Bytes(bytes));
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match event {
            Event::Connected => return,
            Event::Eof => self.end(Told::Complete),
            // There never was a connection.
            Event::Error {
                direction: None,
                error,
            } => {
                self.next_attempt().try_next(&cause(error));
            }
            Event::Error { error, .. } => self.end(Told::Failed(cause(error))),
            other => self.end(Told::Failed(format!("{other:?}"))),
        }
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
    });
    events.run()?;
    Ok(())
}
