//! Connects to 127.0.0.1:8080 and says what came of it.
//!
//! ```text
//! cargo run --example connect -- 127.0.0.1:8080
//! ```
//!
//! Source: libevent book, "Bufferevents: concepts and basics", the example of `bufferevent_socket_connect`.

use bufferevent::{Bev, Builder, Error, Event, EventLoop, LoopHandle, on_event};

/// Begins to connect. `report` gets one line, and then the loop ends.
pub(crate) fn connect(
    events: &LoopHandle,
    address: &str,
    mut report: impl FnMut(String) + Send + 'static,
) -> Result<Bev, Error> {
    let stop = events.clone();
    Builder::new(events)
        .handler(on_event(move |bev, event| {
            match event {
                // Here one would begin to read and write.
                Event::Connected => report("connected".into()),
                Event::Error { error, .. } => report(format!("{error}")),
                other => report(format!("{other:?}")),
            }
            // Freed already is just as well.
            let _ = bev.free();
            stop.exit();
        }))
        .connect(address)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8080".into());
    let events = EventLoop::new()?;
    let _bev = connect(&events, &address, |line| println!("{line}"))?;
    events.run()?;
    Ok(())
}
