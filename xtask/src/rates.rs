//! `cargo xtask rates`: rate limits on real sockets, for long enough that what is promised can be measured.
//!
//! The same tests run with every `cargo test` for a second each, with wider bounds.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

/// How long each measurement lasts unless told otherwise, in seconds.
const SECONDS: u32 = 10;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let seconds = arguments.value::<u32>("--seconds")?.unwrap_or(SECONDS);
    arguments.finish()?;
    // One at a time: they measure time.
    let test = [
        "test",
        "--release",
        "-p",
        "bufferevent",
        "--test",
        "rates",
        "--",
        "--nocapture",
        "--test-threads=1",
    ];
    workspace::run(workspace::cargo(test).env("RATE_SECONDS", seconds.to_string()))
}
