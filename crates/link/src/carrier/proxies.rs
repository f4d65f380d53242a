//! Reverse proxies in front of a listener. From one of their networks, and from no other, `X-Forwarded-For` says whose
//! connection it is.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The networks of a listener's reverse proxies. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Reads networks, or single addresses, with commas between them: `10.0.0.0/8,127.0.0.1`.
    ///
    /// # Errors
    /// One line for a person with the part that is no network.
    pub fn parse(text: &str) -> Result<Proxies, String> {
        let networks = text.split(',').map(|part| network(part.trim()));
        networks.collect::<Result<_, _>>().map(Proxies)
    }

    /// Whether a connection from this address is one of a proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address that a connection of `proxy` is for: the last one in the values of `X-Forwarded-For` that is not a proxy's,
    /// since each proxy appends the address that it was connected from, and all before that may be invented. Without one it is
    /// the proxy's own; so it is when that entry is no address.
    pub fn source<'a>(
        &self,
        proxy: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let entries = forwarded.rev().flat_map(|value| value.rsplit(','));
        let mut addresses = entries.map(|entry| address(entry.trim()));
        let is_proxy = |found: &Option<IpAddr>| found.is_some_and(|it| self.contains(it));
        let first = addresses.find(|found| !is_proxy(found));
        first.flatten().unwrap_or(proxy)
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>();
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    parsed.or_else(|_| single()).map_err(|_| {
        format!("\"{text}\" in proxies is no network: write it as proxies=10.0.0.0/8,127.0.0.1/32")
    })
}

/// Some proxies write the port too, and IPv6 addresses in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let alone = bare.unwrap_or(text).parse::<IpAddr>();
    let with_port = || text.parse::<SocketAddr>().map(|it| it.ip());
    alone.or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "127.0.0.1";

    fn source(forwarded: &[&str]) -> String {
        let proxies = Proxies::parse("10.0.0.0/8, 127.0.0.1,fd00::/8").unwrap();
        let proxy = PROXY.parse().unwrap();
        proxies.source(proxy, forwarded.iter().copied()).to_string()
    }

    #[test]
    fn the_last_address_that_is_not_a_proxys_counts() {
        assert_eq!(source(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(source(&["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(source(&["203.0.113.9, 10.1.2.3 ,fd00::1"]), "203.0.113.9");
        assert_eq!(source(&["198.51.100.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(source(&["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(source(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(source(&["[2001:db8::1]:4711"]), "2001:db8::1");
    }

    #[test]
    fn without_such_an_address_it_is_the_proxys_own() {
        for forwarded in [&[][..], &["10.1.2.3"], &[""], &["203.0.113.9, unknown"]] {
            assert_eq!(source(forwarded), PROXY, "{forwarded:?}");
        }
    }

    #[test]
    fn a_proxy_is_known_by_its_network() {
        let proxies = Proxies::parse("10.0.0.0/8").unwrap();
        assert!(proxies.contains("10.255.0.1".parse().unwrap()));
        assert!(proxies.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!proxies.contains("11.0.0.1".parse().unwrap()));
        assert!(!Proxies::default().contains("127.0.0.1".parse().unwrap()));
        let refused = Proxies::parse("10.0.0.0/8,my-proxy").unwrap_err();
        assert!(refused.contains("my-proxy"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_header_has_a_source(values in prop::collection::vec("\\PC{0,40}", 0..4)) {
            let proxies = Proxies::parse("10.0.0.0/8").unwrap();
            let proxy = "10.0.0.1".parse().unwrap();
            let found = proxies.source(proxy, values.iter().map(String::as_str));
            prop_assert!(found == proxy || !proxies.contains(found));
        }
    }
}
