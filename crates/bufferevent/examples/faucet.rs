//! Pours bytes on everybody who connects: so many a second on each, and so many on all together, whoever takes more.
//!
//! ```text
//! cargo run --example faucet -- 127.0.0.1:7000     # and: nc 127.0.0.1 7000 | pv >/dev/null
//! ```
//!
//! The limits are the library's: the handler writes as much as there is room for, and what may not leave yet waits. So it is written as
//! if there were none.

use std::time::Duration;

use bufferevent::{
    BadRate, Bev, Direction, Error, Event, EventLoop, Handler, Interest, Listener, LoopHandle,
    Rate, RateGroup,
};

/// Bytes that may wait for a client.
const MARK: usize = 16 * 1024;

/// Bytes a second, with a tenth of a second's worth at once after a pause.
pub(crate) fn per_second(bytes: u64) -> Result<Rate, BadRate> {
    Rate::per_second(bytes)?.with_burst((bytes / 10).max(1))
}

/// One client.
struct Pours;

impl Pours {
    fn fill(bev: &Bev) {
        // Freed already: nobody wants it then.
        let _ = bev.write(&vec![b'.'; bev.room()]);
    }
}

impl Handler for Pours {
    fn interest(&self) -> Interest {
        Interest::WRITE | Interest::EVENT
    }

    /// Half of it has left, or nothing was there yet.
    fn on_write(&mut self, bev: &Bev) {
        Self::fill(bev);
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        if matches!(event, Event::Error { .. } | Event::Eof) {
            let _ = bev.free();
        }
    }
}

/// Listens at `address`. The rate of all can be changed at any time, and says how much has passed.
pub(crate) fn listen(
    events: &LoopHandle,
    address: &str,
    each: Rate,
    all: Rate,
) -> Result<(Listener, RateGroup), Error> {
    let group = RateGroup::new(events);
    group.set_rate(Direction::Write, Some(all));
    let members = group.clone();
    let listener = Listener::bind(events, address, move |bev, _peer| {
        bev.set_write_watermark(MARK / 2, MARK)?;
        bev.set_rate_limit(Direction::Write, Some(each))?;
        bev.join_rate_group(&members)?;
        bev.set_handler(Pours)?;
        Pours::fill(&bev);
        Ok(())
    })?;
    Ok((listener, group))
}

/// Says each second what has passed.
fn watch(events: &LoopHandle, group: RateGroup, before: u64) {
    let next = events.clone();
    let timer = events.after(Duration::from_secs(1), move || {
        let (_, written) = group.totals();
        println!(
            "{} clients, {} KiB/s",
            group.members(),
            (written - before) >> 10
        );
        watch(&next, group, written);
    });
    // A closed loop has nothing to watch.
    if let Ok(timer) = timer {
        timer.detach();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7000".into());
    let events = EventLoop::new()?;
    let (listener, group) = listen(
        &events,
        &address,
        per_second(1 << 20)?,
        per_second(4 << 20)?,
    )?;
    println!("listening on {}", listener.local_addr()?);
    watch(&events, group, 0);
    events.run()?;
    Ok(())
}
