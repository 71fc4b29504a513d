//! The suite over completion sockets: on the fake driver, and on the system's where there is one.

use bufferevent_conformance::{Completions, Stacks, check_all};
#[cfg(any(target_os = "linux", windows))]
use bufferevent_iocp::BACKEND;
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

#[cfg(any(target_os = "linux", windows))]
#[test]
fn tcp_on_the_systems_backend() {
    record::within("completion", BACKEND, || {
        spec!(I3);
        check_all(&|| Box::new(Completions::tcp()));
        // The other half of the row, io_uring, is proved by the same test on Linux.
        #[cfg(windows)]
        spec!(I1);
    });
}

#[cfg(any(target_os = "linux", windows))]
#[test]
fn stacks_on_the_systems_backend() {
    check_all(&|| Box::new(Stacks::on(Box::new(Completions::tcp()))));
}
