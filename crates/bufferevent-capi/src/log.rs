//! What the library has to say: to the program's log callback, else to the standard error stream.
//!
//! # Invariants
//! - A fatal error calls the program's fatal callback once; if that returns, or there is none, the process ends.

use std::ffi::{CString, c_char, c_int};
use std::sync::Mutex;
use std::sync::PoisonError;

type LogCallback = extern "C" fn(c_int, *const c_char);
type FatalCallback = extern "C" fn(c_int);

/// `EVENT_LOG_DEBUG` and the others.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Severity {
    Warning = 2,
    Error = 3,
}

/// The number that stands for a programming error found inside the library: `EVENT_ERR_ABORT_`.
const ERR_ABORT: c_int = 0xdead_dead_u32 as c_int;

static LOG: Mutex<Option<LogCallback>> = Mutex::new(None);
static FATAL: Mutex<Option<FatalCallback>> = Mutex::new(None);

fn get<T: Copy>(place: &Mutex<Option<T>>) -> Option<T> {
    *place.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(severity: Severity, message: &str) {
    match get(&LOG) {
        Some(callback) => {
            let text = CString::new(message).unwrap_or_default();
            callback(severity as c_int, text.as_ptr());
        }
        None => {
            let name = match severity {
                Severity::Warning => "warn",
                Severity::Error => "err",
            };
            eprintln!("[{name}] {message}");
        }
    }
}

pub(crate) fn warn(message: &str) {
    say(Severity::Warning, message);
}

/// Ends the process, by the program's own means if it has some.
pub(crate) fn fatal(message: &str) -> ! {
    say(Severity::Error, message);
    if let Some(callback) = get(&FATAL) {
        callback(ERR_ABORT);
    }
    std::process::abort();
}

#[unsafe(no_mangle)]
extern "C" fn event_set_log_callback(callback: Option<LogCallback>) {
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = callback;
}

#[unsafe(no_mangle)]
extern "C" fn event_set_fatal_callback(callback: Option<FatalCallback>) {
    *FATAL.lock().unwrap_or_else(PoisonError::into_inner) = callback;
}

/// Nothing is logged below a warning, whatever is asked for.
#[unsafe(no_mangle)]
extern "C" fn event_enable_debug_logging(_which: u32) {}
