//! The suite over the zlib filter, on pairs, on sockets and on completions.
//!
//! Level 0: the suite fills the way between two ends with one letter again and again, and means to fill it. What is not compressed goes
//! through the same blocks, flushes, checksums and ends as what is.

use bufferevent_conformance::{Completions, Joint, Pairs, Stacks, check_all};
use bufferevent_filter::FilterExt as _;
use bufferevent_zlib::{Format, Zlib};

/// Bytes that a flush may bring at once, and what its blocks cost: more than the filters of both ends hold.
const STAGED: usize = 2 * 256 * 1024;

fn zlib_on(format: Format, below: Box<dyn Joint>) -> Box<dyn Joint> {
    let stacks = Stacks::of(format.name(), below, move |bev, _end, options| {
        bev.filter(options, Zlib::builder().format(format).level(0).build()?)
    });
    Box::new(stacks.holding(STAGED).marking_the_end().rewriting())
}

#[test]
fn zlib_on_pairs() {
    check_all(&|| zlib_on(Format::Zlib, Box::new(Pairs::on_virtual_loop())));
}

#[test]
fn gzip_on_pairs() {
    check_all(&|| zlib_on(Format::Gzip, Box::new(Pairs::on_virtual_loop())));
}

#[test]
fn deflate_on_pairs() {
    check_all(&|| zlib_on(Format::Deflate, Box::new(Pairs::on_virtual_loop())));
}

#[test]
fn zlib_on_sockets() {
    use bufferevent_conformance::Sockets;
    #[cfg(unix)]
    check_all(&|| zlib_on(Format::Zlib, Box::new(Sockets::tcp("mio"))));
    check_all(&|| zlib_on(Format::Zlib, Box::new(Sockets::tcp("polling"))));
}

#[test]
fn zlib_on_completions() {
    check_all(&|| zlib_on(Format::Zlib, Box::new(Completions::fake())));
    #[cfg(any(target_os = "linux", windows))]
    check_all(&|| zlib_on(Format::Zlib, Box::new(Completions::tcp())));
}
