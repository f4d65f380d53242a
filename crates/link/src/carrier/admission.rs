//! Places for strangers: connections that have not shown yet whose phone they are. A listener gives each new connection one,
//! and takes no connection without: strangers can use up no more than these, whatever they send.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Of a listener.
    pub all: usize,
    /// Of one address: of an IPv4 address, or of an IPv6 network of 64 bits, which one customer of a provider has.
    pub per_address: usize,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            all: 512,
            per_address: 64,
        }
    }
}

/// The places of one listener. Clones share them.
#[derive(Clone)]
pub struct Admission {
    places: Places,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<u64, usize>,
}

impl Admission {
    /// All places are free.
    pub fn new(places: Places) -> Admission {
        Admission {
            places,
            taken: Arc::default(),
        }
    }

    /// A place for a connection from this address; `None` when there is none left for it.
    pub fn enter(&self, from: IpAddr) -> Option<Place> {
        let address = network_of(from);
        let mut taken = lock(&self.taken);
        let here = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.places.all || here >= self.places.per_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, here + 1);
        Some(Place {
            address,
            taken: Arc::clone(&self.taken),
        })
    }
}

/// One place. Free again when it is dropped: the connection is closed, or its phone is known.
pub struct Place {
    address: u64,
    taken: Arc<Mutex<Taken>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all = taken.all.saturating_sub(1);
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// The address as its first 64 bits. IPv4 addresses have a prefix of their own, in which no IPv6 network is.
fn network_of(address: IpAddr) -> u64 {
    const IPV4: u64 = 0xffff_ffff_0000_0000;
    match address.to_canonical() {
        IpAddr::V4(v4) => IPV4 | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_takes_its_own_places_only() {
        let admission = Admission::new(Places {
            all: 4,
            per_address: 2,
        });
        let first = admission.enter(ip("192.0.2.1")).unwrap();
        let _second = admission.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(admission.enter(ip("192.0.2.1")).is_none());
        let _other = admission.enter(ip("192.0.2.2")).unwrap();
        drop(first);
        assert!(admission.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one() {
        let admission = Admission::new(Places {
            all: 4,
            per_address: 1,
        });
        let _first = admission.enter(ip("2001:db8::1")).unwrap();
        assert!(admission.enter(ip("2001:db8::ffff")).is_none());
        assert!(admission.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn all_addresses_together_take_no_more_than_all_places() {
        let admission = Admission::new(Places {
            all: 2,
            per_address: 2,
        });
        let first = admission.enter(ip("192.0.2.1"));
        let second = admission.enter(ip("192.0.2.2"));
        assert!(admission.enter(ip("192.0.2.3")).is_none());
        drop((first, second));
        assert!(admission.enter(ip("192.0.2.3")).is_some());
        assert!(lock(&admission.taken).by_address.is_empty());
    }
}
