//! C programs against the library: each is compiled with `cc` against our headers and the archive, and run.

#![cfg(target_os = "linux")]

mod common;

use bufferevent_testkit::fault;
use common::{passes, run};

#[test]
fn buffers() {
    fault!(
        F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15, F17
    );
    passes("buffer");
}

#[test]
fn events_and_the_loop() {
    fault!(F89);
    passes("loop");
}

#[test]
fn utilities() {
    passes("util");
}

#[test]
fn threads() {
    passes("threads");
}

#[test]
fn locks_and_memory_of_the_programs_own() {
    passes("own_locks");
}

#[test]
fn debug_mode_ends_a_program_that_misuses_events() {
    passes("debug_mode");
    for misuse in ["late", "unassigned", "twice", "given up"] {
        let output = run("debug_mode", &[misuse]);
        assert_eq!(output.status.code(), Some(7), "{misuse}");
    }
}

#[test]
fn bufferevents_listeners_and_names() {
    passes("bufferevent");
}

#[test]
fn pairs_filters_rates_and_locks() {
    passes("stack");
}

#[test]
fn misuse_stays_contained() {
    passes("misuse");
}
