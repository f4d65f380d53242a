//! What the phone has learned about the ways to its host: which of them did not work on which network, so that they are tried last
//! there.
//!
//! It is a cache: without it each link begins a little later. Addresses and networks are stored as hashes, which show them only to
//! somebody who guesses them.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};

/// Networks that are remembered, the latest.
const MOST_NETWORKS: usize = 16;
/// Addresses that are remembered of a network: more than a pairing code has.
const MOST_ADDRESSES: usize = 64;
/// After this a way that did not work is tried in its turn again, in seconds: the network's firewall may have changed.
const FAILED_FOR_S: u64 = 24 * 60 * 60;

/// See the module. The network with the empty name is that of a phone whose platform does not name networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// The latest first.
    networks: VecDeque<OnNetwork>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OnNetwork {
    network: String,
    /// When an address did not work, in seconds since 1970.
    failed_unix_s: BTreeMap<String, u64>,
}

impl Ways {
    /// Reads what [`Ways::to_bytes`] wrote; nothing is remembered of what cannot be read.
    pub fn from_bytes(bytes: &[u8]) -> Ways {
        let mut ways: Ways = serde_json::from_slice(bytes).unwrap_or_default();
        ways.networks.truncate(MOST_NETWORKS);
        let many = |it: &OnNetwork| it.failed_unix_s.len() > MOST_ADDRESSES;
        ways.networks.retain(|it| !many(it));
        ways
    }

    /// For the phone's directory.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The order in which addresses are tried on a network, as indices: as they stand in the pairing code, which has the best first,
    /// but those that did not work there at the end.
    pub fn order(&self, network: &str, addresses: &[String], now_unix_s: u64) -> Vec<usize> {
        let here = self.networks.iter().find(|it| it.network == name(network));
        let has_failed = |address: &String| {
            let failed_unix_s = here.and_then(|here| here.failed_unix_s.get(&name(address)));
            // A time in the future is of another clock.
            failed_unix_s.is_some_and(|at| (*at..at + FAILED_FOR_S).contains(&now_unix_s))
        };
        let mut order: Vec<_> = (0..addresses.len()).collect();
        order.sort_by_key(|way| has_failed(&addresses[*way]));
        order
    }

    /// Remembers that on a network `worked` did, and that those that were tried before it did not. Returns whether anything is new.
    pub fn learn<'a>(
        &mut self,
        network: &str,
        worked: &str,
        failed: impl Iterator<Item = &'a String>,
        now_unix_s: u64,
    ) -> bool {
        let network = name(network);
        let known = self.networks.iter().position(|it| it.network == network);
        let before = known.and_then(|at| self.networks.remove(at));
        let was_known = before.is_some();
        let mut here = before.clone().unwrap_or_else(|| OnNetwork {
            network,
            ..OnNetwork::default()
        });
        here.failed_unix_s.remove(&name(worked));
        for address in failed.take(MOST_ADDRESSES) {
            let failed_unix_s = here.failed_unix_s.entry(name(address));
            failed_unix_s
                .and_modify(|at| {
                    if now_unix_s.abs_diff(*at) >= FAILED_FOR_S {
                        *at = now_unix_s;
                    }
                })
                .or_insert(now_unix_s);
        }
        if here.failed_unix_s.len() > MOST_ADDRESSES {
            here.failed_unix_s.clear();
        }
        let is_new =
            before.as_ref() != Some(&here) && (was_known || !here.failed_unix_s.is_empty());
        if was_known || is_new {
            self.networks.push_front(here);
            self.networks.truncate(MOST_NETWORKS);
        }
        is_new
    }

    /// Remembers that on a network this address led to a link that was lost at once. What was known of the others came of it, and is
    /// forgotten.
    pub fn distrust(&mut self, network: &str, address: &str, now_unix_s: u64) {
        let network = name(network);
        self.networks.retain(|it| it.network != network);
        self.networks.push_front(OnNetwork {
            network,
            failed_unix_s: BTreeMap::from([(name(address), now_unix_s)]),
        });
        self.networks.truncate(MOST_NETWORKS);
    }
}

/// The first 64 bits of a hash.
fn name(text: &str) -> String {
    let digest = sha256::Hash::hash(text.as_bytes()).to_string();
    digest.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn addresses() -> Vec<String> {
        let addresses = ["grpcs://a:1", "wss://a:1", "mailbox+wss://b:1"];
        addresses.map(str::to_owned).to_vec()
    }

    #[test]
    fn a_way_that_did_not_work_is_tried_last_on_that_network_for_a_day() {
        let (mut ways, all) = (Ways::default(), addresses());
        assert_eq!(ways.order("home", &all, NOW), [0, 1, 2]);
        assert!(ways.learn("work", &all[2], all[..2].iter(), NOW));
        assert_eq!(ways.order("work", &all, NOW), [2, 0, 1]);
        assert_eq!(ways.order("home", &all, NOW), [0, 1, 2]);
        assert_eq!(ways.order("work", &all, NOW + FAILED_FOR_S), [0, 1, 2]);
        assert_eq!(ways.order("work", &all, NOW - 1), [0, 1, 2]);
        // The better way works again.
        assert!(ways.learn("work", &all[0], [].iter(), NOW));
        assert_eq!(ways.order("work", &all, NOW), [0, 2, 1]);
    }

    #[test]
    fn a_way_over_which_a_link_was_lost_at_once_is_tried_last_and_the_others_as_at_first() {
        let (mut ways, all) = (Ways::default(), addresses());
        ways.learn("work", &all[2], all[..2].iter(), NOW);
        ways.distrust("work", &all[2], NOW);
        assert_eq!(ways.order("work", &all, NOW), [0, 1, 2]);
        ways.distrust("work", &all[0], NOW);
        assert_eq!(ways.order("work", &all, NOW), [1, 2, 0]);
    }

    #[test]
    fn what_is_known_already_is_not_written_again() {
        let (mut ways, all) = (Ways::default(), addresses());
        assert!(!ways.learn("home", &all[0], [].iter(), NOW));
        assert!(ways.learn("home", &all[1], all[..1].iter(), NOW));
        assert!(!ways.learn("home", &all[1], all[..1].iter(), NOW + 60));
    }

    #[test]
    fn it_survives_its_file_shows_no_place_and_takes_no_bad_one() {
        let (mut ways, all) = (Ways::default(), addresses());
        for network in 0..2 * MOST_NETWORKS {
            ways.learn(&network.to_string(), &all[1], all[..1].iter(), NOW);
        }
        assert_eq!(ways.networks.len(), MOST_NETWORKS);
        let bytes = ways.to_bytes();
        assert!(!String::from_utf8_lossy(&bytes).contains("grpcs"));
        assert_eq!(Ways::from_bytes(&bytes), ways);
        assert_eq!(Ways::from_bytes(&bytes[1..]), Ways::default());
    }
}
