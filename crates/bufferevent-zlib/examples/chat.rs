//! A compressed chat: what one says all others read, line by line, each line there as soon as it was said.
//!
//! ```text
//! cargo run -p bufferevent-zlib --example chat -- serve 127.0.0.1:7000
//! cargo run -p bufferevent-zlib --example chat -- join 127.0.0.1:7000
//! ```
//!
//! Every connection is a socket with a zlib filter on it; neither the room nor a member does anything about compression but
//! put the filter there.

use std::io::BufRead as _;
use std::sync::{Arc, Mutex, PoisonError};

use bufferevent_core::{Bev, Error, Event, Handler, Options, READ};
use bufferevent_filter::FilterExt as _;
use bufferevent_socket::{Builder, Listener};
use bufferevent_zlib::Zlib;
use evbuffer::Eol;
use evreactor::{EventLoop, LoopHandle};

/// The longest line in bytes. Who says more at once has to go.
const MAX_LINE: usize = 4 * 1024;

/// Bytes that may wait for a member who does not read. Who is further behind has to go.
const MAX_BEHIND: usize = 256 * 1024;

/// The one filter of both programs: flushed after each burst, so that a line is not delayed.
fn filter() -> Zlib {
    Zlib::default()
}

/// Takes the whole lines of an input out of it.
fn lines(bev: &Bev, mut each: impl FnMut(&str)) -> Result<(), Error> {
    while let Some(line) = bev.input().read_line(Eol::Lf, MAX_LINE)? {
        each(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

/// Who is there.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Bev>>>);

impl Room {
    fn members(&self) -> Vec<Bev> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn enter(&self, bev: &Bev) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.push(bev.clone());
    }

    fn leave(&self, bev: &Bev) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member != bev);
        drop(members);
        // Freed already is just as well.
        let _ = bev.free();
    }

    /// Everybody but `speaker` gets the line.
    fn say(&self, speaker: &Bev, line: &str) {
        for member in self.members().iter().filter(|member| *member != speaker) {
            if member.write(format!("{line}\n").as_bytes()).is_err() {
                self.leave(member);
            }
        }
    }
}

/// One member, as the room sees it.
struct Seat(Room);

impl Handler for Seat {
    fn on_read(&mut self, bev: &Bev) {
        if lines(bev, |line| self.0.say(bev, line)).is_err() {
            self.0.leave(bev);
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match event {
            Event::Connected | Event::Written => {}
            _ => self.0.leave(bev),
        }
    }
}

/// Opens a room at `address`.
pub(crate) fn serve(events: &LoopHandle, address: &str) -> Result<Listener, Error> {
    let room = Room::default();
    Listener::bind(events, address, move |socket, _peer| {
        let bev = socket.filter(Options::CLOSE_ON_FREE, filter())?;
        bev.set_max_output(MAX_BEHIND)?;
        bev.set_handler(Seat(room.clone()))?;
        room.enter(&bev);
        bev.enable(READ)
    })
}

/// A member, as it sees the room.
struct Ear<F>(F, LoopHandle);

impl<F: FnMut(&str) + Send + 'static> Handler for Ear<F> {
    fn on_read(&mut self, bev: &Bev) {
        if lines(bev, &mut self.0).is_err() {
            self.1.exit();
        }
    }

    fn on_event(&mut self, _: &Bev, event: &Event) {
        match event {
            Event::Connected | Event::Written => {}
            _ => self.1.exit(), // The room is closed, or cannot be reached.
        }
    }
}

/// Joins the room at `address`. `hear` gets each line that another says; what is written to the bufferevent, from any thread, is said.
pub(crate) fn join(
    events: &LoopHandle,
    address: &str,
    hear: impl FnMut(&str) + Send + 'static,
) -> Result<Bev, Error> {
    let socket = Builder::new(events)
        .options(Options::THREADSAFE)
        .connect(address)?;
    let options = Options::CLOSE_ON_FREE | Options::THREADSAFE;
    let bev = socket.filter(options, filter())?;
    bev.set_handler(Ear(hear, events.clone()))?;
    bev.enable(READ)?;
    Ok(bev)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let events = EventLoop::new()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address] => {
            let listener = serve(&events, address)?;
            println!("the room is at {}", listener.local_addr()?);
            events.run()?;
        }
        ["join", address] => {
            let bev = join(&events, address, |line| println!("{line}"))?;
            std::thread::spawn(move || {
                for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                    if bev.write(format!("{line}\n").as_bytes()).is_err() {
                        break;
                    }
                }
                // All has been said; the room is left when that is out. Ended already is just as well.
                let _ = bev.finish();
            });
            events.run()?;
        }
        _ => return Err("usage: chat serve ADDRESS | chat join ADDRESS".into()),
    }
    Ok(())
}
