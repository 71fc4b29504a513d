//! A proxy: what one connection brings goes to the other, both ways, moved and not copied.
//!
//! ```text
//! cargo run --example proxy -- 127.0.0.1:7000 127.0.0.1:8080
//! ```
//!
//! Source: libevent book, "Bufferevents: concepts and basics", `read_callback_proxy`. Two things are added: the end of
//! one direction leaves the other alone, and a slow reader stops the other side's reading (see `bev relay` for the rest).

use bufferevent::{
    Bev, Builder, Error, Event, EventLoop, Handler, Listener, LoopHandle, Pressure, READ,
};

/// Bytes that may wait for a slow reader, and that are read ahead for it.
const HIGH_MARK: usize = 256 * 1024;

/// One side of a proxied connection.
struct Side {
    other: Bev,
}

impl Handler for Side {
    fn on_read(&mut self, bev: &Bev) {
        // A refusal means that the other side has ended; its event callback hears of that.
        let _ = self.other.output().append_from(&bev.input());
        if self.other.room() == 0 {
            let _ = bev.suspend(READ);
        }
    }

    fn on_pressure(&mut self, _bev: &Bev, pressure: Pressure) {
        if pressure == Pressure::Eased {
            let _ = self.other.resume(READ);
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        // Freed or ended already is just as well, here and below.
        let _ = match event {
            Event::Connected | Event::Written => Ok(()),
            // The end of this side's data is the end of the other side's output.
            Event::Eof if self.other.enabled().contains(READ) => self.other.finish(),
            Event::Eof => {
                // The other side had ended before: once both outputs are out, it is over.
                let _ = self.other.finish();
                let _ = self.other.free_when_written();
                bev.free_when_written()
            }
            _ => {
                let _ = self.other.free_when_written();
                bev.free().map(drop)
            }
        };
    }
}

/// Joins an accepted connection to a new one.
fn join(events: &LoopHandle, near: &Bev, upstream: &str) -> Result<(), Error> {
    let far = Builder::new(events)
        .handler(Side {
            other: near.clone(),
        })
        .connect(upstream)?;
    near.set_handler(Side { other: far.clone() })?;
    for side in [near, &far] {
        side.set_read_watermark(0, HIGH_MARK)?;
        side.set_write_watermark(0, HIGH_MARK)?;
        side.enable(READ)?;
    }
    Ok(())
}

/// Listens at `address`, for connections to `upstream`.
pub(crate) fn listen(
    events: &LoopHandle,
    address: &str,
    upstream: &str,
) -> Result<Listener, Error> {
    let (handle, upstream) = (events.clone(), upstream.to_owned());
    Listener::bind(events, address, move |near, _peer| {
        join(&handle, &near, &upstream)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".into());
    let upstream = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let events = EventLoop::new()?;
    let listener = listen(&events, &address, &upstream)?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
