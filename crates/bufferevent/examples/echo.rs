//! The smallest server: what comes in goes out, moved and not copied.
//!
//! ```text
//! cargo run --example echo -- 127.0.0.1:7000
//! ```

use bufferevent::{EventLoop, Listener, READ, on_read};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let events = EventLoop::new()?;
    let listener = Listener::bind(&events, address.as_str(), |bev, _peer| {
        bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
        bev.enable(READ)
    })?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
