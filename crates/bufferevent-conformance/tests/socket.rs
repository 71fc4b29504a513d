//! The suite over sockets: TCP and Unix-domain, on every backend that the system has.

use bufferevent_conformance::{Sockets, Stacks, check_all};
use evreactor::DEFAULT_BACKEND;

#[cfg(unix)]
#[test]
fn tcp_on_mio() {
    check_all(&|| Box::new(Sockets::tcp("mio")));
}

#[test]
fn tcp_on_polling() {
    check_all(&|| Box::new(Sockets::tcp("polling")));
}

#[cfg(unix)]
#[test]
fn unix_on_mio() {
    check_all(&|| Box::new(Sockets::unix("mio")));
}

#[cfg(unix)]
#[test]
fn unix_on_polling() {
    check_all(&|| Box::new(Sockets::unix("polling")));
}

#[test]
fn stacks_on_sockets() {
    check_all(&|| Box::new(Stacks::on(Box::new(Sockets::tcp(DEFAULT_BACKEND)))));
}
