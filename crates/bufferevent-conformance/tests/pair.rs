//! The suite over pairs: on the virtual loop and on both backends.

use bufferevent_conformance::{Pairs, Stacks, check_all};

#[test]
fn pairs_on_the_virtual_loop() {
    check_all(&|| Box::new(Pairs::on_virtual_loop()));
}

#[cfg(unix)]
#[test]
fn pairs_on_mio() {
    check_all(&|| Box::new(Pairs::on("mio")));
}

#[test]
fn pairs_on_polling() {
    check_all(&|| Box::new(Pairs::on("polling")));
}

#[test]
fn stacks_on_pairs() {
    check_all(&|| Box::new(Stacks::on(Box::new(Pairs::on_virtual_loop()))));
}
