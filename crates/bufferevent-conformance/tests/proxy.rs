//! The suite over the PROXY protocol: each end sends a header and takes the other's off.

use bufferevent_conformance::{Joint, Pairs, Stacks, check_all};
use bufferevent_filter::FilterExt as _;
use bufferevent_filter::proxy::{Header, ProxyReceive, ProxySend, Version};

fn proxy_on(below: Box<dyn Joint>, version: Version) -> Box<dyn Joint> {
    let source = "192.0.2.7:4711".parse().expect("an address");
    let destination = "198.51.100.1:443".parse().expect("an address");
    let header = Header::of_addresses(version, source, destination);
    let stacks = Stacks::of("proxy", below, move |bev, _, options| {
        let top = bev.filter(options, ProxySend::new(&header))?;
        top.set_write_watermark(0, 16 * 1024)?;
        top.filter(options, ProxyReceive::new())
    });
    Box::new(stacks.holding(2 * 80 * 1024).shaking_hands())
}

#[test]
fn headers_on_a_pair() {
    check_all(&|| proxy_on(Box::new(Pairs::on_virtual_loop()), Version::V1));
    check_all(&|| proxy_on(Box::new(Pairs::on_virtual_loop()), Version::V2));
}

#[test]
fn headers_on_a_socket() {
    use bufferevent_conformance::Sockets;
    check_all(&|| {
        proxy_on(
            Box::new(Sockets::tcp(evreactor::DEFAULT_BACKEND)),
            Version::V2,
        )
    });
    #[cfg(unix)]
    check_all(&|| proxy_on(Box::new(Sockets::unix("polling")), Version::V1));
}
