//! What the program says on standard output: one line at a time, as text or as JSON.
//!
//! # Invariants
//! - Each line is flushed at once, so that whoever started the program can wait for it.
//! - A standard output that is closed or full stops nothing: these lines are told to whoever listens.

use std::io::Write as _;

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
