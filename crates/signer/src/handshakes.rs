//! Handshakes with peers that the node dials (BOLT 8): whom the owner wants to connect to, and how many there were. In memory, since neither
//! has to outlive the phone's process.

use std::collections::VecDeque;

use bitcoin::secp256k1::PublicKey;

/// The most peers that the owner wants to connect to; the oldest is forgotten.
const MOST_WANTED: usize = 64;
/// So many handshakes may come at once. A phone whose link drops again and again has one with each of its peers each time.
const BURST: u64 = 512;
/// After that one may come in so many seconds.
const PACE_S: u64 = 4;

/// See the module.
#[derive(Default)]
pub(crate) struct Handshakes {
    wanted: VecDeque<PublicKey>,
    /// The time that the handshakes so far take at the pace of [`PACE_S`], as far as it has not passed.
    debt_s: u64,
    /// When `debt_s` was counted, in seconds since 1970.
    counted_unix_s: u64,
}

impl Handshakes {
    /// The owner wants to connect to this peer.
    pub fn want(&mut self, peer: PublicKey) {
        self.wanted.retain(|wanted| *wanted != peer);
        self.wanted.push_back(peer);
        if self.wanted.len() > MOST_WANTED {
            self.wanted.pop_front();
        }
    }

    /// Whether the owner wants to connect to this peer.
    pub fn is_wanted(&self, peer: &PublicKey) -> bool {
        self.wanted.contains(peer)
    }

    /// Whether one more handshake is not too many.
    pub fn has_room(&self, now_unix_s: u64) -> bool {
        self.debt_s(now_unix_s) <= (BURST - 1) * PACE_S
    }

    /// One more was carried out.
    pub fn count(&mut self, now_unix_s: u64) {
        // No more, where the owner lets the rule warn: it would refuse for long when it refuses again.
        self.debt_s = (BURST * PACE_S).min(self.debt_s(now_unix_s) + PACE_S);
        self.counted_unix_s = now_unix_s;
    }

    fn debt_s(&self, now_unix_s: u64) -> u64 {
        match now_unix_s.checked_sub(self.counted_unix_s) {
            Some(passed_s) => self.debt_s.saturating_sub(passed_s),
            // The phone's clock was set back, which no host can do.
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    fn peer(number: u8) -> PublicKey {
        let secret = SecretKey::from_slice(&[number; 32]).unwrap();
        secret.public_key(&Secp256k1::new())
    }

    #[test]
    fn after_a_burst_one_handshake_may_come_in_four_seconds() {
        let mut handshakes = Handshakes::default();
        for _ in 0..BURST {
            assert!(handshakes.has_room(1_000));
            handshakes.count(1_000);
        }
        assert!(!handshakes.has_room(1_000) && !handshakes.has_room(1_003));
        assert!(handshakes.has_room(1_004));
        handshakes.count(1_004);
        assert!(!handshakes.has_room(1_007) && handshakes.has_room(1_008));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut handshakes = Handshakes::default();
        (0..BURST).for_each(|_| handshakes.count(1_000));
        assert!(!handshakes.has_room(1_000) && handshakes.has_room(999));
    }

    #[test]
    fn a_rule_that_refuses_again_after_it_has_warned_does_so_for_four_seconds() {
        let mut handshakes = Handshakes::default();
        (0..10 * BURST).for_each(|_| handshakes.count(1_000));
        assert!(!handshakes.has_room(1_003) && handshakes.has_room(1_004));
    }

    #[test]
    fn the_last_64_peers_that_the_owner_wants_are_remembered() {
        let mut handshakes = Handshakes::default();
        for number in 1..=64 {
            handshakes.want(peer(number));
        }
        handshakes.want(peer(1));
        handshakes.want(peer(65));
        assert!(handshakes.is_wanted(&peer(1)) && handshakes.is_wanted(&peer(65)));
        assert!(!handshakes.is_wanted(&peer(2)) && handshakes.is_wanted(&peer(3)));
    }
}
