//! Drains what connections bring, and counts it: the read callback runs only when 128 bytes are there.
//!
//! ```text
//! cargo run --example drain_count -- 127.0.0.1:7000
//! ```
//!
//! Source: libevent book, "Bufferevents: concepts and basics", the example of `bufferevent_setwatermark`.

use bufferevent::{Bev, Error, Event, EventLoop, Handler, Listener, LoopHandle, READ};

/// Bytes that must be there before the read callback runs.
const LOW_MARK: usize = 128;

/// Counts one connection. Each line of the account goes to `report`.
struct Count<R> {
    name: String,
    drained: usize,
    report: R,
}

impl<R: FnMut(String) + Send + 'static> Handler for Count<R> {
    fn on_read(&mut self, bev: &Bev) {
        let count = bev.input().drain(usize::MAX).unwrap_or(0);
        self.drained += count;
        (self.report)(format!("drained {count} bytes from {}", self.name));
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        let Self { name, drained, .. } = self;
        let line = match event {
            Event::Eof => {
                // What came last may have been too little for the callback.
                let left = bev.input().len();
                format!("{name} closed: {drained} bytes drained, {left} left")
            }
            Event::Error { error, .. } => format!("{name} failed: {error}"),
            _ => return,
        };
        (self.report)(line);
        // Freed already is just as well.
        let _ = bev.free();
    }
}

/// Listens at `address`.
pub(crate) fn listen(
    events: &LoopHandle,
    address: &str,
    report: impl FnMut(String) + Clone + Send + 'static,
) -> Result<Listener, Error> {
    Listener::bind(events, address, move |bev, peer| {
        bev.set_read_watermark(LOW_MARK, 0)?;
        bev.set_handler(Count {
            name: peer.to_string(),
            drained: 0,
            report: report.clone(),
        })?;
        bev.enable(READ)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let events = EventLoop::new()?;
    let listener = listen(&events, &address, |line| println!("{line}"))?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
