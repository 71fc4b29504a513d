//! An echo over completions: receives and sends are under way in the kernel, and nothing waits for readiness.
//!
//! `cargo run -p bufferevent-iocp --example completion_echo -- [ADDRESS] [--discard]`, then `nc 127.0.0.1 7000`. The address it listens at is its
//! first line. Where the system completes no operations it says why, and ends with 1.

use std::error::Error;
use std::net::SocketAddr;

use bufferevent_core::{Bev, Event, Handler, Interest, Pressure, READ};
use bufferevent_iocp::Listener;

/// Bytes that may wait in either direction of a connection.
const MARK: usize = 256 * 1024;

struct Echo {
    discard: bool,
}

impl Handler for Echo {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    fn on_read(&mut self, bev: &Bev) {
        if self.discard {
            let _ = bev.input().drain(usize::MAX);
        } else {
            // Moved, not copied. A refusal means that the stream has ended; the event says so too.
            let _ = bev.output().append_from(&bev.input());
        }
    }

    // A client that does not read is not read from.
    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        let _ = match pressure {
            Pressure::Full => bev.suspend(READ),
            Pressure::Eased => bev.resume(READ),
        };
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        if matches!(event, Event::Eof | Event::Error { .. }) {
            // What was handed to the kernel still leaves.
            let _ = bev.free();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut address: SocketAddr = "127.0.0.1:7000".parse()?;
    let mut discard = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--discard" => discard = true,
            text => address = text.parse()?,
        }
    }
    bufferevent_iocp::available()?;
    let events = bufferevent_iocp::builder()?.build()?;
    let listener = Listener::builder(&events)
        .backlog(4096)
        .nodelay(true)
        .bind(address, move |bev, _peer| {
            bev.set_handler(Echo { discard })?;
            bev.set_read_watermark(0, MARK)?;
            bev.set_write_watermark(0, MARK)?;
            bev.enable(READ)
        })?;
    if let Some(address) = listener.local_addr()?.as_socket() {
        println!("{address}");
    }
    events.run_until_exit()?;
    Ok(())
}
