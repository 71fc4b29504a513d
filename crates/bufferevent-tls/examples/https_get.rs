//! Gets a page by https, by hand: `cargo run -p bufferevent-tls --example https_get -- example.org [/path] [address:port] [ca.pem]`.
//!
//! Without an address the system's resolver is asked, which blocks; without a CA the platform's roots are trusted.

use std::error::Error as StdError;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;
use std::{env, fs};

use bufferevent_core::{Bev, Event, Handler, Options, READ};
use bufferevent_filter::FilterExt as _;
use bufferevent_socket::Socket;
use bufferevent_tls::{Failure, Tls, TlsClient};
use evreactor::EventLoop;

const PATIENCE: Duration = Duration::from_secs(10);

/// Prints what comes, and says on the other stream what became of the connection.
struct Page;

impl Handler for Page {
    fn on_read(&mut self, bev: &Bev) {
        let mut bytes = vec![0; bev.input().len()];
        let read = bev.read(&mut bytes).unwrap_or(0);
        // Who has closed our output wants no more of the page.
        if io::stdout().write_all(&bytes[..read]).is_err() {
            let _ = bev.free();
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match event {
            Event::Connected => {
                let told = bev.filter_of::<Tls>().and_then(|tls| {
                    tls.with(|tls| (tls.protocol_version(), tls.cipher_suite()))
                        .ok()
                });
                if let Some((Some(version), Some(suite))) = told {
                    eprintln!("connected: {version:?}, {suite:?}");
                }
                return;
            }
            Event::Error { error, .. } => match Failure::of(error) {
                Some(failure) => eprintln!("{error}: {failure}"),
                None => eprintln!("{error}"),
            },
            Event::Timeout(deadline) => eprintln!("too late: {deadline:?}"),
            _ => {}
        }
        let _ = bev.free();
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().ok_or("which server?")?;
    let path = arguments.next().unwrap_or_else(|| "/".to_owned());
    let address: SocketAddr = match arguments.next() {
        Some(address) => address.parse()?,
        None => (name.as_str(), 443)
            .to_socket_addrs()?
            .next()
            .ok_or("the name has no address")?,
    };
    let mut client = TlsClient::builder(&name).alpn(["http/1.1"]);
    if let Some(roots) = arguments.next() {
        client = client.roots_pem(&fs::read(roots)?);
    }

    let events = EventLoop::new()?;
    let below = Socket::connect_to(&events, address)?;
    let bev = below.filter(Options::CLOSE_ON_FREE, client.build()?.filter()?)?;
    bev.set_connect_timeout(Some(PATIENCE))?;
    bev.set_handler(Page)?;
    bev.write(
        format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    bev.enable(READ)?;
    events.run()?;
    Ok(())
}
