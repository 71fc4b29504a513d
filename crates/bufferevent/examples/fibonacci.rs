//! Sends Fibonacci numbers, one per line, for as long as the peer reads: whenever the output has drained, it puts another
//! KiB into it.
//!
//! ```text
//! cargo run --example fibonacci -- 127.0.0.1:7000
//! ```
//!
//! Source: libevent book, "Bufferevents: concepts and basics", `write_callback_fibonacci`.

use std::fmt::Write as _;

use bufferevent::evbuffer::EvBuffer;
use bufferevent::{Bev, Error, EventLoop, Listener, LoopHandle, WRITE, on_write};

/// Bytes put into the output at a time.
const REFILL: usize = 1024;

/// The write callback: it runs when the output is empty.
fn writer() -> impl FnMut(&Bev) + Send {
    let mut last = (0_u64, 1_u64);
    move |bev| {
        let mut lines = EvBuffer::new();
        while lines.len() < REFILL {
            if writeln!(lines, "{}", last.1).is_err() {
                break; // No memory: what there is must do.
            }
            // The numbers soon outgrow 64 bits, and wrap around, as they do in C.
            last = (last.1, last.0.wrapping_add(last.1));
        }
        // A refusal means that the stream has ended; the event callback hears of that.
        let _ = bev.write_buffer(&mut lines);
    }
}

/// Listens at `address`.
pub(crate) fn listen(events: &LoopHandle, address: &str) -> Result<Listener, Error> {
    Listener::bind(events, address, |bev, _peer| {
        bev.set_handler(on_write(writer()))?;
        bev.enable(WRITE) // Starts the writer.
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let events = EventLoop::new()?;
    let listener = listen(&events, &address)?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
