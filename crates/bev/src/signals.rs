//! The signals that ask the program to end, or to read its files anew.
//!
//! SIGPIPE is ignored: the Rust runtime does so before `main`, and a broken pipe is an error of the write that met it.

use bufferevent::LoopHandle;

use crate::exit::Failure;

/// Watches signals for as long as this lives.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Signals {
    _watches: Vec<bufferevent::evreactor::Signal>,
}

/// Where there are no signals, nothing is watched and the console ends the process.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct Signals;

/// Calls `notice` on the loop's thread for each SIGTERM and SIGINT.
pub(crate) fn on_termination(
    events: &LoopHandle,
    notice: impl Fn() + Clone + Send + 'static,
) -> Result<Signals, Failure> {
    watch(events, &[SIGTERM, SIGINT], notice)
}

/// Calls `notice` on the loop's thread for each SIGHUP.
pub(crate) fn on_reload(
    events: &LoopHandle,
    notice: impl Fn() + Clone + Send + 'static,
) -> Result<Signals, Failure> {
    watch(events, &[SIGHUP], notice)
}

#[cfg(unix)]
fn watch(
    events: &LoopHandle,
    signals: &[i32],
    notice: impl Fn() + Clone + Send + 'static,
) -> Result<Signals, Failure> {
    let watches = signals.iter().map(|number| {
        events
            .signal(*number, notice.clone())
            .map_err(Failure::during("watching signals"))
    });
    Ok(Signals {
        _watches: watches.collect::<Result<_, _>>()?,
    })
}

#[cfg(not(unix))]
fn watch(
    _events: &LoopHandle,
    _signals: &[i32],
    _notice: impl Fn() + Clone + Send + 'static,
) -> Result<Signals, Failure> {
    Ok(Signals)
}

/// The same numbers on every Unix.
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
