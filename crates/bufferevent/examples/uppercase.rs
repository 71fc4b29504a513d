//! Sends back what comes in, in upper case, in pieces of 128 bytes.
//!
//! ```text
//! cargo run --example uppercase -- 127.0.0.1:7000
//! ```
//!
//! Source: libevent book, "Bufferevents: concepts and basics", `read_callback_uppercase`.

use bufferevent::{Bev, Error, EventLoop, Listener, LoopHandle, READ, on_read};

/// Bytes taken from the input at a time.
const PIECE: usize = 128;

/// The read callback.
fn shout(bev: &Bev) {
    let mut piece = [0; PIECE];
    loop {
        let count = match bev.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let piece = &mut piece[..count];
        piece.make_ascii_uppercase();
        if bev.write(piece).is_err() {
            return; // The stream has ended; the event callback hears of that.
        }
    }
}

/// Listens at `address`.
pub(crate) fn listen(events: &LoopHandle, address: &str) -> Result<Listener, Error> {
    Listener::bind(events, address, |bev, _peer| {
        bev.set_handler(on_read(shout))?;
        bev.enable(READ)
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
