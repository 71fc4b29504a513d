//! The suite over filters: one, and ten on each other, over pairs and over sockets.

use bufferevent_conformance::{Pairs, Stacks, check_all};

#[test]
fn a_filter_on_a_pair() {
    check_all(&|| Box::new(Stacks::filter_on(Box::new(Pairs::on_virtual_loop()))));
}

#[test]
fn ten_filters_on_a_pair() {
    check_all(&|| Box::new(Stacks::ten_filters_on(Box::new(Pairs::on_virtual_loop()))));
}

#[test]
fn a_filter_on_a_socket() {
    use bufferevent_conformance::Sockets;
    check_all(&|| {
        Box::new(Stacks::filter_on(Box::new(Sockets::tcp(
            evreactor::DEFAULT_BACKEND,
        ))))
    });
    #[cfg(unix)]
    check_all(&|| Box::new(Stacks::filter_on(Box::new(Sockets::unix("polling")))));
}

#[test]
fn ten_filters_on_a_socket() {
    use bufferevent_conformance::Sockets;
    check_all(&|| {
        Box::new(Stacks::ten_filters_on(Box::new(Sockets::tcp(
            evreactor::DEFAULT_BACKEND,
        ))))
    });
}
