//! Reports to a phone which network this machine is on, and when it was suspended.
//!
//! The addresses of the machine's interfaces come from the operating system as events (on Linux: rtnetlink), so that nothing is
//! polled.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use if_watch::tokio::IfWatcher;
use ipnet::IpNet;
use longhand_base::system::suspensions;
use longhand_phone::Phone;
use tokio::task::AbortHandle;

/// The time within which the operating system lists the addresses that there are.
const LIST_TIMEOUT: Duration = Duration::from_millis(20);

/// Reports until it is dropped.
pub(super) struct Reports(AbortHandle);

impl Drop for Reports {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reports the network that the machine is on now, and from then on each change. Without the operating system's events the phone
/// finds out about another network when its link is dead.
pub(super) async fn report(phone: &Phone) -> Option<Reports> {
    let mut watcher = match IfWatcher::new() {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "changes of the network are not noticed");
            return None;
        }
    };
    while let Ok(Some(_)) = tokio::time::timeout(LIST_TIMEOUT, watcher.next()).await {}
    let seen = Addresses::of(&watcher);
    // A machine without addresses may have its host on itself: only one that had some and lost them has no network.
    phone.network_changed(Some(&seen.network().unwrap_or_default()));
    let phone = phone.clone();
    let task = tokio::spawn(async move { follow(&phone, watcher, seen).await });
    Some(Reports(task.abort_handle()))
}

async fn follow(phone: &Phone, mut watcher: IfWatcher, mut seen: Addresses) {
    let mut suspensions = suspensions();
    loop {
        let is_suspension = tokio::select! {
            event = watcher.next() => match event {
                Some(Ok(_)) => false,
                Some(Err(error)) => {
                    tracing::warn!(%error, "a change of the network was not noticed");
                    continue;
                }
                None => return,
            },
            Some(()) = suspensions.recv() => true,
        };
        // Events that come together are one change.
        while let Some(Some(_)) = watcher.next().now_or_never() {}
        let now = Addresses::of(&watcher);
        if is_suspension || now != seen {
            tracing::info!(
                is_suspension,
                "the network may be another one: dialling anew"
            );
            phone.network_changed(now.network().as_deref());
        }
        seen = now;
    }
}

/// The machine's addresses through which it may reach a host elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Addresses(BTreeSet<IpNet>);

impl Addresses {
    fn of(watcher: &IfWatcher) -> Addresses {
        Addresses::from(watcher.iter().copied())
    }

    fn from(all: impl Iterator<Item = IpNet>) -> Addresses {
        let reaches_others = |net: &IpNet| match net.addr() {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let all = all.filter(reaches_others);
        // The last half of an IPv6 address changes each day (RFC 8981); connections over the old one go on.
        let stable = all.map(|net| match net {
            IpNet::V4(_) => net,
            IpNet::V6(_) => net.trunc(),
        });
        Addresses(stable.collect())
    }

    /// The name of the network: another lease of an address there makes no other one. `None` without any address.
    fn network(&self) -> Option<String> {
        let networks: BTreeSet<_> = self.0.iter().map(|net| net.trunc().to_string()).collect();
        let name = networks.into_iter().collect::<Vec<_>>().join(" ");
        (!name.is_empty()).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(all: &[&str]) -> Addresses {
        Addresses::from(all.iter().map(|net| net.parse().unwrap()))
    }

    #[test]
    fn another_lease_is_a_change_and_the_same_network() {
        let before = addresses(&["127.0.0.1/8", "192.168.1.5/24", "::1/128", "fe80::1/64"]);
        let after = addresses(&["127.0.0.1/8", "192.168.1.6/24"]);
        assert_ne!(before, after);
        assert_eq!(before.network().as_deref(), Some("192.168.1.0/24"));
        assert_eq!(after.network(), before.network());
        let mobile = addresses(&["10.1.2.3/32", "2001:db8::1234/64"]);
        assert_ne!(mobile.network(), before.network());
    }

    #[test]
    fn a_machine_with_loopback_alone_has_no_network() {
        assert_eq!(addresses(&["127.0.0.1/8", "::1/128"]).network(), None);
    }

    #[test]
    fn a_new_private_address_of_ipv6_is_no_change() {
        let monday = addresses(&["2001:db8::1111/64"]);
        assert_eq!(monday, addresses(&["2001:db8::2222/64"]));
        assert_ne!(monday, addresses(&["2001:db8:0:1::1111/64"]));
    }
}
