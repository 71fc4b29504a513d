//! The suite: all checks, and how they are run.
//!
//! Invariant: a check that fails keeps none of the others from running.

use bufferevent_testkit::record;

use crate::joint::Joint;
use crate::{anatomy, callbacks, end, flush, general, life, marks, rates, threads, timeouts};

/// Says which check it was, on what.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the check was {}", self.0);
        }
    }
}

/// Runs every check of the suite, each on a joint of its own.
///
/// # Panics
/// If a check fails; all are run, and the names of those that failed are in the message.
pub fn check_all(make: &dyn Fn() -> Box<dyn Joint>) {
    let suites = [
        anatomy::CHECKS,
        callbacks::CHECKS,
        marks::CHECKS,
        end::CHECKS,
        general::CHECKS,
        timeouts::CHECKS,
        flush::CHECKS,
        life::CHECKS,
        rates::CHECKS,
        threads::CHECKS,
    ];
    let mut failed = Vec::new();
    for (name, check) in suites.into_iter().flatten() {
        let joint = make();
        let (kind, backend) = (joint.kind().to_owned(), joint.backend().to_owned());
        let running = Running(format!("{name} on {kind} over {backend}"));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let running = running;
            record::within(&kind, &backend, || check(&*joint));
            drop(running);
        }));
        if result.is_err() {
            failed.push(*name);
        }
    }
    assert!(
        failed.is_empty(),
        "{} checks failed: {}",
        failed.len(),
        failed.join(", ")
    );
}
