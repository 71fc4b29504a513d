//! What the program says on standard output: one line at a time, as text or as JSON.
//!
//! # Invariants
//! - Each line is flushed at once, so that whoever started the program can wait for it.
//! - A standard output that is closed stops nothing: these lines are told to whoever listens.
//! - A loop that has connections does not wait for a reader: what comes again and again goes through a [`Teller`].

use std::io::{self, Write as _};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Lines that may wait for a reader. Those that come when as many wait are left out: the next one says more.
const UNREAD_LINES: usize = 4;

/// Says lines on a thread of its own, which may wait for whoever reads them. It ends with the program.
#[derive(Clone, Debug)]
pub(crate) struct Teller(SyncSender<String>);

impl Teller {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, lines) = sync_channel::<String>(UNREAD_LINES);
        std::thread::Builder::new()
            .name("output".into())
            .spawn(move || lines.iter().for_each(|line| say(&line)))?;
        Ok(Self(sender))
    }

    /// Says a line, or leaves it out.
    pub(crate) fn say(&self, line: String) {
        if self.0.try_send(line).is_err() {
            tracing::debug!("nobody reads the statistics");
        }
    }
}

/// Says a line.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more; the service goes on.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Says where the program listens.
pub(crate) fn listening(json: bool, address: &str) {
    if json {
        say(&serde_json::json!({"event": "listening", "address": address}).to_string());
    } else {
        say(&format!("listening on {address}"));
    }
}
