//! Answers each line with its length, and waits for no client longer than it has to: not for a line, not for somebody who takes the answers,
//! not for the end.
//!
//! ```text
//! cargo run --example patience -- 127.0.0.1:7000
//! ```
//!
//! Each deadline names itself, so that what follows fits it: who is silent is told, who takes nothing is not.

use std::time::Duration;

use bufferevent::evbuffer::Eol;
use bufferevent::{
    Bev, Deadline, Error, Event, EventLoop, Handler, Interest, Listener, LoopHandle, Pressure, READ,
};

/// The longest line, in bytes.
const MAX_LINE: usize = 1024;

/// Bytes that may wait in each direction of a connection, apart from one read.
const MARK: usize = 16 * 1024;

/// How long is waited, for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the next line, or a part of it.
    pub(crate) line: Duration,
    /// For the client to take something of what waits for it.
    pub(crate) answer: Duration,
    /// From a good-bye until the client has read it and ended too.
    pub(crate) farewell: Duration,
}

/// One connection.
struct Client<R> {
    patience: Patience,
    report: R,
    /// It was told good-bye, or has ended itself: nothing more is read.
    is_leaving: bool,
}

impl<R: FnMut(String)> Client<R> {
    /// Answers the lines that are there, as long as there is room for answers.
    fn answer(&mut self, bev: &Bev) -> Result<(), Error> {
        while !self.is_leaving && bev.room() > 0 {
            let Some(line) = bev.input().read_line(Eol::Crlf, MAX_LINE)? else {
                break;
            };
            bev.write(format!("{}\n", line.len()).as_bytes())?;
        }
        Ok(())
    }

    /// Sends what waits, and frees the connection at the client's end, or when that takes too long.
    fn leave(&mut self, bev: &Bev) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_leaving, true) {
            // No line is waited for any more, but the end, and that has a time of its own.
            bev.set_deadline(Deadline::Read, None)?;
            bev.close(self.patience.farewell)?;
        }
        Ok(())
    }

    fn event(&mut self, bev: &Bev, event: &Event) -> Result<(), Error> {
        match event {
            Event::Timeout(Deadline::Read) => {
                (self.report)("no line came".into());
                bev.write(b"good-bye: no line came\n")?;
                self.leave(bev)
            }
            Event::Timeout(Deadline::Write) => {
                (self.report)("nobody takes the answers".into());
                bev.free().map(drop)
            }
            // The bufferevent is freed already.
            Event::Timeout(Deadline::Close) => {
                (self.report)("no farewell".into());
                Ok(())
            }
            // Of one that was told good-bye it is what is waited for; the bufferevent frees itself.
            Event::Eof if !self.is_leaving => {
                (self.report)("the client has ended".into());
                self.answer(bev)?;
                self.leave(bev)
            }
            Event::Error { error, .. } => {
                (self.report)(error.to_string());
                bev.free().map(drop)
            }
            _ => Ok(()),
        }
    }
}

impl<R: FnMut(String) + Send + 'static> Handler for Client<R> {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    fn on_read(&mut self, bev: &Bev) {
        if self.answer(bev).is_err() {
            // A line without an end, or freed already.
            let _ = bev.free();
        }
    }

    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        match pressure {
            // Who does not read answers asks nothing more. Nothing is waited for then, so the read deadline rests.
            Pressure::Full => drop(bev.suspend(READ)),
            Pressure::Eased => {
                let _ = bev.resume(READ);
                self.on_read(bev);
            }
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        if self.event(bev, event).is_err() {
            let _ = bev.free();
        }
    }
}

/// Listens at `address`; `report` gets a line for each end that was not asked for.
pub(crate) fn listen(
    events: &LoopHandle,
    address: &str,
    patience: Patience,
    report: impl FnMut(String) + Clone + Send + 'static,
) -> Result<Listener, Error> {
    Listener::bind(events, address, move |bev, _peer| {
        bev.set_read_watermark(0, MARK)?;
        bev.set_write_watermark(0, MARK)?;
        bev.set_deadline(Deadline::Read, Some(patience.line))?;
        bev.set_deadline(Deadline::Write, Some(patience.answer))?;
        bev.set_handler(Client {
            patience,
            report: report.clone(),
            is_leaving: false,
        })?;
        bev.enable(READ)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7000".into());
    let patience = Patience {
        line: Duration::from_secs(30),
        answer: Duration::from_secs(10),
        farewell: Duration::from_secs(5),
    };
    let events = EventLoop::new()?;
    let listener = listen(&events, &address, patience, |why| println!("{why}"))?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
