//! The packages that wait for broadcast, by node: which is sent next, and which are kept.
//!
//! New packages are sent before refused ones are tried again, and the nodes take turns: a node waits for one package of
//! each other node, however many those have. The waiting packages of a node are bounded, and beyond that its oldest
//! refused packages are dropped first: LDK broadcasts again what is still needed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Transaction, Txid};

/// Packages of one node that may wait: a hub can lose a thousand channels in an hour.
pub(super) const MAX_PACKAGES: usize = 1_000;
/// Serialized size of all packages of one node that may wait, in bytes: ten transactions of the largest size that is
/// relayed.
pub(super) const MAX_BYTES: usize = 4_000_000;

/// A package that is not known to the source yet.
#[derive(Debug, PartialEq)]
pub(super) struct Pending {
    pub package: Vec<Transaction>,
    /// Id of the last transaction, the child for which the package is sent.
    pub txid: Txid,
    /// Blocks since it was queued.
    pub blocks: u32,
    bytes: usize,
    /// It was refused before.
    is_retry: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Packages {
    /// Nodes without packages have no entry.
    lanes: BTreeMap<PublicKey, Lane>,
    /// The node whose turn was last.
    last: Option<PublicKey>,
}

/// The packages of one node. Each list is in the order in which they were queued, since a package may spend another.
#[derive(Default)]
struct Lane {
    new: VecDeque<Pending>,
    /// Refused before, and to be tried again now.
    due: VecDeque<Pending>,
    /// Refused, until the next block.
    refused: VecDeque<Pending>,
}

impl Packages {
    /// Queues a package. The same package is kept once: one that was refused is tried again now, as an old one.
    /// Returns the ids of packages that were dropped because the node has too many.
    pub fn add(&mut self, node: PublicKey, package: Vec<Transaction>) -> Vec<Txid> {
        let Some(txid) = package.last().map(Transaction::compute_txid) else {
            return vec![];
        };
        let bytes = package.iter().map(Transaction::total_size).sum();
        let lane = self.lanes.entry(node).or_default();
        if lane
            .new
            .iter()
            .chain(&lane.due)
            .any(|it| it.package == package)
        {
            return vec![];
        }
        if let Some(at) = lane.refused.iter().position(|it| it.package == package) {
            lane.due.extend(lane.refused.remove(at));
            return vec![];
        }
        lane.new.push_back(Pending {
            package,
            txid,
            blocks: 0,
            bytes,
            is_retry: false,
        });
        let dropped = lane.shrink();
        self.forget_if_empty(&node);
        dropped
    }

    /// A block was connected: every package that waits for it is due.
    pub fn block_connected(&mut self) {
        for lane in self.lanes.values_mut() {
            let refused = std::mem::take(&mut lane.refused);
            lane.due.extend(refused);
            for pending in lane.new.iter_mut().chain(&mut lane.due) {
                pending.blocks = pending.blocks.saturating_add(1);
            }
        }
    }

    /// The package to send now, and its node; it is no longer in the queue.
    pub fn next(&mut self) -> Option<(PublicKey, Pending)> {
        let node = self
            .next_node(|lane| !lane.new.is_empty())
            .or_else(|| self.next_node(|lane| !lane.due.is_empty()))?;
        let lane = self.lanes.get_mut(&node)?;
        let pending = lane.new.pop_front().or_else(|| lane.due.pop_front())?;
        self.forget_if_empty(&node);
        self.last = Some(node);
        Some((node, pending))
    }

    /// The source has refused a package: it is due with the next block.
    pub fn refused(&mut self, node: PublicKey, mut pending: Pending) {
        let lane = self.lanes.entry(node).or_default();
        // It may have been queued again meanwhile.
        lane.new.retain(|other| other.package != pending.package);
        pending.is_retry = true;
        lane.refused.push_back(pending);
        // It was counted when it was queued: what is dropped now has been refused already, which was logged.
        lane.shrink();
        self.forget_if_empty(&node);
    }

    /// The source was down: the package is the first of its node again.
    pub fn put_back(&mut self, node: PublicKey, pending: Pending) {
        let lane = self.lanes.entry(node).or_default();
        lane.new.retain(|other| other.package != pending.package);
        if pending.is_retry {
            lane.due.push_front(pending);
        } else {
            lane.new.push_front(pending);
        }
    }

    /// The first node after the last one that has such packages.
    fn next_node(&self, has: impl Fn(&Lane) -> bool) -> Option<PublicKey> {
        let after = self.last.map_or(Unbounded, Excluded);
        let later = self.lanes.range((after, Unbounded));
        let mut in_turn = later.chain(&self.lanes);
        in_turn.find(|(_, lane)| has(lane)).map(|(node, _)| *node)
    }

    fn forget_if_empty(&mut self, node: &PublicKey) {
        if self.lanes.get(node).is_some_and(Lane::is_empty) {
            self.lanes.remove(node);
        }
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.new.len() + self.due.len() + self.refused.len()
    }

    fn bytes(&self) -> usize {
        let all = self.new.iter().chain(&self.due).chain(&self.refused);
        all.map(|it| it.bytes).sum()
    }

    /// Drops packages until the node is within its bounds: refused ones first, the oldest of them first.
    fn shrink(&mut self) -> Vec<Txid> {
        let mut dropped = vec![];
        let mut bytes = self.bytes();
        while self.len() > MAX_PACKAGES || bytes > MAX_BYTES {
            let oldest = self
                .due
                .pop_front()
                .or_else(|| self.refused.pop_front())
                .or_else(|| self.new.pop_front());
            let Some(oldest) = oldest else { break };
            bytes = bytes.saturating_sub(oldest.bytes);
            dropped.push(oldest.txid);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bitcoin::absolute::LockTime;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, TxOut};

    use super::*;

    fn node(n: u8) -> PublicKey {
        let secret = SecretKey::from_slice(&[n; 32]).unwrap();
        PublicKey::from_secret_key(&Secp256k1::new(), &secret)
    }

    fn package(n: u32) -> Vec<Transaction> {
        vec![Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(n),
            input: vec![],
            output: vec![],
        }]
    }

    fn txid(n: u32) -> Txid {
        package(n)[0].compute_txid()
    }

    /// Refuses the next package; its id.
    fn refuse(packages: &mut Packages) -> Txid {
        let (node, pending) = packages.next().unwrap();
        let txid = pending.txid;
        packages.refused(node, pending);
        txid
    }

    #[test]
    fn a_new_package_goes_before_those_that_were_refused() {
        let mut packages = Packages::default();
        packages.add(node(1), package(1));
        refuse(&mut packages);
        packages.block_connected();
        packages.add(node(1), package(2));
        let order = [refuse(&mut packages), refuse(&mut packages)];
        assert_eq!(order, [txid(2), txid(1)]);
    }

    #[test]
    fn a_refused_package_waits_for_the_next_block() {
        let mut packages = Packages::default();
        packages.add(node(1), package(1));
        refuse(&mut packages);
        assert_eq!(packages.next(), None);
        packages.block_connected();
        let (_, pending) = packages.next().unwrap();
        assert_eq!((pending.txid, pending.blocks), (txid(1), 1));
    }

    #[test]
    fn nodes_take_turns_however_many_packages_one_of_them_has() {
        let mut packages = Packages::default();
        for n in 0..100 {
            packages.add(node(1), package(n));
        }
        packages.add(node(2), package(1_000));
        packages.add(node(3), package(2_000));
        let first: Vec<_> = (0..3).map(|_| refuse(&mut packages)).collect();
        assert!(first.contains(&txid(1_000)) && first.contains(&txid(2_000)));
        // And so they do when refused packages are tried again.
        while packages.next().is_some() {}
        packages.block_connected();
        let again: Vec<_> = (0..3).map(|_| refuse(&mut packages)).collect();
        assert!(again.contains(&txid(1_000)) && again.contains(&txid(2_000)));
    }

    #[test]
    fn a_package_that_is_queued_again_is_kept_once_and_stays_an_old_one() {
        let mut packages = Packages::default();
        packages.add(node(1), package(1));
        packages.add(node(1), package(1));
        refuse(&mut packages);
        packages.add(node(1), package(1));
        packages.add(node(1), package(2));
        let order = [refuse(&mut packages), refuse(&mut packages)];
        assert_eq!(order, [txid(2), txid(1)]);
        assert_eq!(packages.next(), None);
    }

    #[test]
    fn a_package_that_met_a_source_that_is_down_is_the_first_again() {
        let mut packages = Packages::default();
        packages.add(node(1), package(1));
        packages.add(node(1), package(2));
        let (node, pending) = packages.next().unwrap();
        packages.put_back(node, pending);
        let order = [refuse(&mut packages), refuse(&mut packages)];
        assert_eq!(order, [txid(1), txid(2)]);
    }

    #[test]
    fn a_node_with_too_many_packages_loses_its_oldest_refused_one_and_no_other_node_does() {
        let mut packages = Packages::default();
        packages.add(node(2), package(9_999));
        refuse(&mut packages);
        let count = u32::try_from(MAX_PACKAGES).unwrap();
        packages.add(node(1), package(0));
        refuse(&mut packages);
        for n in 1..count {
            assert_eq!(packages.add(node(1), package(n)), []);
        }
        assert_eq!(packages.add(node(1), package(count)), [txid(0)]);
        packages.block_connected();
        let mut left = vec![];
        while let Some((_, pending)) = packages.next() {
            left.push(pending.txid);
        }
        assert_eq!(left.len(), MAX_PACKAGES + 1);
        assert!(left.contains(&txid(9_999)));
    }

    #[test]
    fn large_packages_are_bounded_by_their_size() {
        let mut packages = Packages::default();
        let large = |n| {
            let mut package = package(n);
            package[0].output.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(vec![0; MAX_BYTES / 3]),
            });
            package
        };
        assert_eq!(packages.add(node(1), large(1)), []);
        assert_eq!(packages.add(node(1), large(2)), []);
        let dropped = packages.add(node(1), large(3));
        assert_eq!(dropped, [large(1)[0].compute_txid()]);
    }
}
