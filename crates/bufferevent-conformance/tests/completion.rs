//! The suite over completion sockets: on the fake driver, and on the system's where there is one.

use bufferevent_conformance::{Completions, Stacks, check_all};
use bufferevent_testkit::{record, spec};

#[test]
fn on_the_fake_driver() {
    record::within("completion", "fake", || {
        spec!(I3);
        check_all(&|| Box::new(Completions::fake()));
    });
}

#[test]
fn stacks_on_the_fake_driver() {
    check_all(&|| Box::new(Stacks::on(Box::new(Completions::fake()))));
}

#[cfg(target_os = "linux")]
#[test]
fn tcp_on_uring() {
    record::within("completion", "uring", || {
        spec!(I3);
        check_all(&|| Box::new(Completions::tcp()));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn stacks_on_uring() {
    check_all(&|| Box::new(Stacks::on(Box::new(Completions::tcp()))));
}
