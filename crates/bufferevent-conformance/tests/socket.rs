//! The suite over sockets: TCP and Unix-domain, on both backends.

#![cfg(unix)]

use bufferevent_conformance::{Sockets, Stacks, check_all};

#[test]
fn tcp_on_mio() {
    check_all(&|| Box::new(Sockets::tcp("mio")));
}

#[test]
fn tcp_on_polling() {
    check_all(&|| Box::new(Sockets::tcp("polling")));
}

#[test]
fn unix_on_mio() {
    check_all(&|| Box::new(Sockets::unix("mio")));
}

#[test]
fn unix_on_polling() {
    check_all(&|| Box::new(Sockets::unix("polling")));
}

#[test]
fn stacks_on_sockets() {
    check_all(&|| Box::new(Stacks::on(Box::new(Sockets::tcp("mio")))));
}
