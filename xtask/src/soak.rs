//! `cargo xtask soak`: two relays joined crosswise, four threads, random operations, for a minute over each transport.
//!
//! The same tests run with every `cargo test` for a second or two each. They are built as tests are, so that the checks of debug builds hold:
//! the order of locks among them.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

/// How long each of them lasts unless told otherwise, in seconds.
const SECONDS: u32 = 60;

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let seconds = arguments.value::<u32>("--seconds")?.unwrap_or(SECONDS);
    arguments.finish()?;
    // One at a time: each has four threads.
    let test = [
        "test",
        "-p",
        "bufferevent-conformance",
        "--test",
        "crosswise",
        "--",
        "--nocapture",
        "--test-threads=1",
    ];
    let seconds = seconds.to_string();
    workspace::run(workspace::cargo(test).env("BUFFEREVENT_CROSSWISE_SECONDS", seconds))
}
