//! The signals that ask the program to end.
//!
//! SIGPIPE is ignored: the Rust runtime does so before `main`, and a broken pipe is an error of the write that met it.

use bufferevent::LoopHandle;

use crate::exit::Failure;

/// Watches SIGTERM and SIGINT for as long as this lives.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Signals {
    _watches: [bufferevent::evreactor::Signal; 2],
}

/// Where there are no signals, nothing is watched and the console ends the process.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct Signals;

/// Calls `notice` on the loop's thread for each SIGTERM and SIGINT.
#[cfg(unix)]
pub(crate) fn on_termination(
    events: &LoopHandle,
    notice: impl Fn() + Clone + Send + 'static,
) -> Result<Signals, Failure> {
    let watch = |number| {
        let notice = notice.clone();
        events
            .signal(number, notice)
            .map_err(Failure::during("watching signals"))
    };
    Ok(Signals {
        _watches: [watch(SIGTERM)?, watch(SIGINT)?],
    })
}

#[cfg(not(unix))]
pub(crate) fn on_termination(
    _events: &LoopHandle,
    _notice: impl Fn() + Clone + Send + 'static,
) -> Result<Signals, Failure> {
    Ok(Signals)
}

/// The same numbers on every Unix.
#[cfg(unix)]
const SIGINT: i32 = 2;
#[cfg(unix)]
const SIGTERM: i32 = 15;
