//! Places for connections of those who could open any number: strangers that have not shown yet who they are, or one owner of
//! many. A listener gives each new connection one, and takes no connection without: nobody can use up more than these.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Of all together.
    pub all: usize,
    /// Of one of them.
    pub each: usize,
}

impl Places {
    /// For strangers at one listener, by their [`SourceNetwork`].
    pub const STRANGERS: Places = Places { all: 512, each: 64 };
}

/// Where a connection comes from: an IPv4 address, or an IPv6 network of 64 bits, which one customer of a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceNetwork(u64);

impl From<IpAddr> for SourceNetwork {
    /// The first 64 bits. IPv4 addresses have a prefix of their own, in which no IPv6 network is.
    fn from(address: IpAddr) -> SourceNetwork {
        const IPV4: u64 = 0xffff_ffff_0000_0000;
        SourceNetwork(match address.to_canonical() {
            IpAddr::V4(v4) => IPV4 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        })
    }
}

/// Free and taken places, by the key of those who take them. Clones share them.
#[derive(Clone)]
pub struct Admission<K: Eq + Hash> {
    places: Places,
    taken: Arc<Mutex<Taken<K>>>,
}

struct Taken<K> {
    all: usize,
    by_key: HashMap<K, usize>,
}

impl<K: Eq + Hash + Copy> Admission<K> {
    /// All places are free.
    pub fn new(places: Places) -> Admission<K> {
        let taken = Taken {
            all: 0,
            by_key: HashMap::new(),
        };
        Admission {
            places,
            taken: Arc::new(Mutex::new(taken)),
        }
    }

    /// A place; `None` when there is none left for this key.
    pub fn enter(&self, key: impl Into<K>) -> Option<Place<K>> {
        let mut place = self.enter_unknown()?;
        place.is_of(key).then_some(place)
    }

    /// A place of one who is not known yet; `None` when there is none left. It counts among all places, and for a key from
    /// [`Place::is_of`] on.
    pub fn enter_unknown(&self) -> Option<Place<K>> {
        let mut taken = lock(&self.taken);
        if taken.all >= self.places.all {
            return None;
        }
        taken.all += 1;
        Some(Place {
            key: None,
            each: self.places.each,
            taken: Arc::clone(&self.taken),
            held: Arc::new(()),
        })
    }
}

/// One place. Free again when it is dropped.
pub struct Place<K: Eq + Hash> {
    key: Option<K>,
    each: usize,
    taken: Arc<Mutex<Taken<K>>>,
    held: Arc<()>,
}

/// Knows whether a place is taken, without taking it.
#[derive(Clone)]
pub struct PlaceWatch(Weak<()>);

impl PlaceWatch {
    /// Whether the place is taken.
    pub fn is_taken(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl<K: Eq + Hash + Copy> Place<K> {
    /// The key of the one who has it; `None` while it is not known.
    pub fn key(&self) -> Option<K> {
        self.key
    }

    /// Counts the place for this key, unless it has one already. Whether there was one left for the key.
    #[must_use]
    pub fn is_of(&mut self, key: impl Into<K>) -> bool {
        if self.key.is_some() {
            return true;
        }
        let key = key.into();
        let mut taken = lock(&self.taken);
        let here = taken.by_key.get(&key).copied().unwrap_or_default();
        if here >= self.each {
            return false;
        }
        taken.by_key.insert(key, here + 1);
        self.key = Some(key);
        true
    }

    /// Watches this place.
    pub fn watch(&self) -> PlaceWatch {
        PlaceWatch(Arc::downgrade(&self.held))
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all = taken.all.saturating_sub(1);
        if let Some(key) = &self.key
            && let Some(here) = taken.by_key.get_mut(key)
        {
            *here = here.saturating_sub(1);
            if *here == 0 {
                taken.by_key.remove(key);
            }
        }
    }
}

fn lock<K>(taken: &Mutex<Taken<K>>) -> MutexGuard<'_, Taken<K>> {
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
        let admission = Admission::<SourceNetwork>::new(Places { all: 4, each: 2 });
        let first = admission.enter(ip("192.0.2.1")).unwrap();
        let _second = admission.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(admission.enter(ip("192.0.2.1")).is_none());
        let _other = admission.enter(ip("192.0.2.2")).unwrap();
        drop(first);
        assert!(admission.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one() {
        let admission = Admission::<SourceNetwork>::new(Places { all: 4, each: 1 });
        let _first = admission.enter(ip("2001:db8::1")).unwrap();
        assert!(admission.enter(ip("2001:db8::ffff")).is_none());
        assert!(admission.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_place_of_one_who_is_not_known_yet_counts_among_all_and_for_its_key_once_that_is_known() {
        let admission = Admission::<SourceNetwork>::new(Places { all: 3, each: 1 });
        let mut proxied = [(); 3].map(|()| admission.enter_unknown().unwrap());
        assert!(admission.enter_unknown().is_none());
        let [first, second, third] = &mut proxied;
        assert!(first.is_of(ip("192.0.2.1")));
        assert!(!second.is_of(ip("192.0.2.1")), "its place is taken");
        assert!(third.is_of(ip("192.0.2.2")));
        assert_eq!(first.key(), Some(ip("192.0.2.1").into()));
        drop(proxied);
        assert!(lock(&admission.taken).by_key.is_empty());
    }

    #[test]
    fn all_addresses_together_take_no_more_than_all_places() {
        let admission = Admission::<SourceNetwork>::new(Places { all: 2, each: 2 });
        let first = admission.enter(ip("192.0.2.1"));
        let second = admission.enter(ip("192.0.2.2"));
        assert!(admission.enter(ip("192.0.2.3")).is_none());
        drop((first, second));
        assert!(admission.enter(ip("192.0.2.3")).is_some());
        assert!(lock(&admission.taken).by_key.is_empty());
    }
}
