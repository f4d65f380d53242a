//! Token buckets, and where they are kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::Time;

/// Buckets of one kind that are kept at the most, by what they are of.
pub(crate) const MAX_KEPT: usize = 65_536;

/// How fast a token bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub per_s: u64,
    pub burst: u64,
}

impl Rate {
    /// The time in which a bucket gets this many tokens.
    fn ns(self, tokens: u64) -> u64 {
        let ns = u128::from(tokens) * 1_000_000_000 / u128::from(self.per_s.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// A token bucket, in eight bytes: the time at which it is full again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes tokens, which may be more than there are. Returns the time from which on none are owed: not after `now` when there
    /// were enough.
    pub fn charge(&mut self, tokens: u64, rate: Rate, now: Time) -> Time {
        let full_at_ns = self.full_at_ns.max(ns(now));
        self.full_at_ns = full_at_ns.saturating_add(rate.ns(tokens));
        self.owes_until(rate)
    }

    /// The time from which on no tokens are owed.
    pub fn owes_until(self, rate: Rate) -> Time {
        Duration::from_nanos(self.full_at_ns.saturating_sub(rate.ns(rate.burst)))
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, rate: Rate, now: Time) -> bool {
        let before = *self;
        let has_one = self.charge(1, rate, now) <= now;
        if !has_one {
            *self = before;
        }
        has_one
    }

    fn is_full(self, now: Time) -> bool {
        self.full_at_ns <= ns(now)
    }
}

fn ns(time: Time) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `N` buckets for each key. They do not depend on whether the one that they are of is there, so that leaving and coming again
/// gives nobody a full one. Only buckets that are not full are worth their memory.
pub(crate) struct Buckets<K, const N: usize> {
    kept: HashMap<K, [Bucket; N]>,
    most: usize,
}

impl<K: Eq + Hash, const N: usize> Default for Buckets<K, N> {
    fn default() -> Buckets<K, N> {
        Buckets::at_most(MAX_KEPT)
    }
}

impl<K: Eq + Hash, const N: usize> Buckets<K, N> {
    fn at_most(most: usize) -> Buckets<K, N> {
        let kept = HashMap::new();
        Buckets { kept, most }
    }

    /// The buckets of this key, which are full when none are kept.
    pub fn of(&mut self, key: K, now: Time) -> &mut [Bucket; N] {
        if self.kept.len() >= self.most && !self.kept.contains_key(&key) {
            self.sweep(now);
        }
        self.kept.entry(key).or_insert([Bucket::default(); N])
    }

    /// The buckets of this key, if any are kept.
    pub fn get(&self, key: &K) -> Option<&[Bucket; N]> {
        self.kept.get(key)
    }

    /// Forgets those that are full; all when that is less than half of them, so that a sweep is rare.
    fn sweep(&mut self, now: Time) {
        let is_full = |buckets: &[Bucket; N]| buckets.iter().all(|bucket| bucket.is_full(now));
        self.kept.retain(|_, buckets| !is_full(buckets));
        if self.kept.len() > self.most / 2 {
            self.kept.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_s: 10,
        burst: 20,
    };

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let at = Duration::from_secs;
        assert!(bucket.charge(20, RATE, at(5)) <= at(5));
        assert_eq!(bucket.charge(10, RATE, at(5)), at(6));
        assert_eq!(bucket.charge(10, RATE, at(6)), at(7));
        assert!(bucket.charge(20, RATE, at(100)) <= at(100));
        assert!(bucket.charge(u64::MAX, RATE, at(100)) > at(1_000_000));
    }

    #[test]
    fn a_token_that_is_not_there_is_not_taken() {
        let mut bucket = Bucket::default();
        let at = Duration::from_millis;
        let taken = (0..50).filter(|_| bucket.take(RATE, at(0))).count();
        assert_eq!(taken, 20);
        assert!(bucket.take(RATE, at(100)));
        assert!(!bucket.take(RATE, at(100)));
    }

    #[test]
    fn only_buckets_that_are_not_full_are_kept_and_no_more_than_a_bound() {
        let at = Duration::from_secs;
        let mut buckets = Buckets::<u32, 1>::at_most(8);
        let mut charge = |key, tokens, now| {
            let [bucket] = buckets.of(key, now);
            (bucket.charge(tokens, RATE, now), buckets.kept.len())
        };
        for key in 0..8 {
            charge(key, if key < 2 { 100 } else { 1 }, at(0));
        }
        assert_eq!(charge(8, 1, at(1)), (at(0), 3), "full ones are forgotten");
        let (owes_until, _) = charge(0, 1, at(1));
        assert!(owes_until > at(8), "the others are kept: {owes_until:?}");
        for key in 10..1_000 {
            let (_, kept) = charge(key, 100, at(1));
            assert!(kept <= 8);
        }
    }
}
