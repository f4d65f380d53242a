//! Which addresses the host connects to for owners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::HostConfig;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks outside the public internet: IANA's special-purpose registry (RFC 6890), multicast and class E.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// The part of IPv6 that is routed; NAT64, which leads to IPv4 addresses, is outside.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// Networks inside of it that are not routed, or lead to IPv4 addresses: IETF protocols with Teredo, documentation, 6to4.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    v6(0x2002, 0, 16),
    v6(0x3fff, 0, 20),
];

/// The addresses that the host connects to for owners: an owner may be a stranger to the operator, and an address that only
/// this machine reaches, such as its own services or a cloud's metadata, must not be reached through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All. On regtest, where everything is on one machine.
    Everywhere,
    /// The public internet, and these networks.
    Public(Vec<IpNet>),
}

impl Reach {
    /// As configured: `peer.allow_networks` beside the public internet; everywhere on regtest.
    pub fn of(config: &HostConfig) -> Reach {
        match config.network {
            bitcoin::Network::Regtest => Reach::Everywhere,
            _ => Reach::Public(config.peer.allow_networks.clone()),
        }
    }

    /// Whether the host connects to this address: it is within reach, and not this machine's own.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Reach::Everywhere => true,
            Reach::Public(_) => self.includes(address) && !self.is_own(address),
        }
    }

    /// An allowed network may have this machine's own addresses.
    fn is_own(&self, address: IpAddr) -> bool {
        is_public(address) && is_own(address)
    }

    /// Whether an address is in these networks.
    pub fn includes(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Reach::Everywhere => true,
            Reach::Public(allowed) => {
                is_public(address) || allowed.iter().any(|net| net.contains(&address))
            }
        }
    }
}

/// Whether this machine has the address: a connection to it does not pass a firewall outside. Asks the operating system's routing
/// table, and sends nothing.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let route = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Any port.
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    route.is_ok_and(|local| local.ip() == address)
}

/// Whether an address is one of the public internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|net| net.contains(&v4)),
        IpAddr::V6(v6) => {
            GLOBAL_V6.contains(&v6) && !SPECIAL_V6.iter().any(|net| net.contains(&v6))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn public() -> Reach {
        Reach::Public(Vec::new())
    }

    #[test]
    fn addresses_that_only_this_machine_or_its_network_reach_are_refused() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:0:a00:1::",
            "2002:7f00:1::1",
        ] {
            assert!(!public().includes(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_reached() {
        for address in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "::ffff:8.8.8.8",
            "2a00::1",
        ] {
            assert!(public().includes(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_operator_can_allow_a_network() {
        let reach = Reach::Public(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(reach.includes("10.1.2.3".parse().unwrap()));
        assert!(reach.includes("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!reach.includes("10.2.0.1".parse().unwrap()));
    }

    #[test]
    fn the_own_address_of_a_machine_is_known_by_its_route() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn everything_is_reached_on_regtest_alone() {
        let mut config = HostConfig::default();
        assert_eq!(Reach::of(&config), Reach::Everywhere);
        config.network = bitcoin::Network::Signet;
        assert_eq!(Reach::of(&config), public());
    }
}
