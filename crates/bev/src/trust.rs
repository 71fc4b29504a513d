//! Whose PROXY headers are believed.
//!
//! Whoever may send a header may claim to be anybody. So a route that takes headers can say which networks its proxies are in; a
//! connection from elsewhere is refused before a byte of it is read. It is not passed on without the layer: its bytes may well be a header, and the
//! upstream may be one that believes it.
//!
//! # Invariants
//! - An IPv4 address is the same whether it came to an IPv4 socket or, mapped, to an IPv6 one.
//! - Who came by a Unix-domain path is trusted: the path's permissions say who may.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use bufferevent::Address;
use ipnet::IpNet;

/// Networks whose proxies are believed; all, where none are said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Trust(Option<Vec<IpNet>>);

/// Why a header was not read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untrusted;

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender is in none of the networks of proxy-trust")
    }
}

impl Error for Untrusted {}

impl Trust {
    pub(crate) fn of(networks: Vec<IpNet>) -> Self {
        Self(Some(networks))
    }

    /// Whether a header of this peer is believed.
    pub(crate) fn covers(&self, peer: &Address) -> bool {
        let (Some(networks), Address::Tcp(peer)) = (&self.0, peer) else {
            return true;
        };
        let ip = peer.ip().to_canonical();
        networks.iter().any(|network| network.contains(&ip))
    }
}

/// A network, `10.0.0.0/8`, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map_err(|_| {
        format!("`{text}` is no network; expected one such as 10.0.0.0/8, fd00::/8 or 192.0.2.7")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> Address {
        Address::Tcp((ip.parse::<IpAddr>().expect(ip), 4711).into())
    }

    #[test]
    fn networks_cover_their_addresses_and_no_others() {
        let all = ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1/128"];
        let networks = all.map(|text| network(text).expect(text)).to_vec();
        let trust = Trust::of(networks);
        for ip in [
            "10.255.0.1",
            "192.0.2.7",
            "fd12::7",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(trust.covers(&peer(ip)), "{ip}");
        }
        for ip in [
            "11.0.0.1",
            "192.0.2.8",
            "fe80::1",
            "::2",
            "127.0.0.1",
            "::10.0.0.1",
        ] {
            assert!(!trust.covers(&peer(ip)), "{ip}");
        }
        assert!(trust.covers(&Address::Unix("/run/x.sock".into())));
        assert!(
            Trust::default().covers(&peer("203.0.113.1")),
            "nothing is said"
        );
        assert!(
            !Trust::of(Vec::new()).covers(&peer("127.0.0.1")),
            "none is said"
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::/129",
            "localhost",
            "10.0.0.0/8 ",
            "10.0.0.0-10.0.0.9",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
