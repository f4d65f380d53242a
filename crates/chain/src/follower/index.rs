//! The index of everything that subscribers watch, and the matching of a block against it. Sans-IO.
//!
//! Each transaction of a block is looked up once, whatever the number of subscribers.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, Txid};

use crate::WatchList;

/// Identifies a subscriber.
pub(crate) type SubscriberId = u64;

/// How many spends in a chain are followed from block to block without being watched.
const MAX_STEPS: u8 = 2;

/// Subscribers by the outpoints, scripts and transaction ids that they watch.
#[derive(Debug, Default)]
pub(crate) struct Index {
    outpoints: Watched<OutPoint>,
    scripts: Watched<ScriptBuf>,
    txids: Watched<Txid>,
    followed: Followed,
}

impl Index {
    pub(super) fn outpoint(&mut self, subscriber: SubscriberId, outpoint: OutPoint) {
        self.outpoints.add(subscriber, outpoint);
    }

    pub(super) fn script(&mut self, subscriber: SubscriberId, script: ScriptBuf) {
        self.scripts.add(subscriber, script);
    }

    pub(super) fn txid(&mut self, subscriber: SubscriberId, txid: Txid) {
        self.txids.add(subscriber, txid);
    }

    pub(crate) fn add(&mut self, subscriber: SubscriberId, list: WatchList) {
        list.outpoints
            .into_iter()
            .for_each(|outpoint| self.outpoint(subscriber, outpoint));
        list.scripts
            .into_iter()
            .for_each(|script| self.script(subscriber, script));
        list.txids
            .into_iter()
            .for_each(|txid| self.txid(subscriber, txid));
    }

    /// Removes a subscriber, and every entry that only it watched.
    pub(super) fn remove(&mut self, subscriber: SubscriberId) {
        self.outpoints.remove(subscriber);
        self.scripts.remove(subscriber);
        self.txids.remove(subscriber);
        self.followed.remove(subscriber);
    }

    /// For each of `members` the indices of the transactions that it watches, in order: those with one of its ids, to
    /// one of its scripts, from one of its outpoints, and from an output of any earlier match in this block.
    ///
    /// Spends of matches in earlier blocks match too, for a while (see [`Index::synced`]): a subscriber that has not
    /// processed those blocks yet could not watch their outputs.
    pub(crate) fn matches(
        &mut self,
        block: &Block,
        members: &HashSet<SubscriberId>,
    ) -> BTreeMap<SubscriberId, Vec<usize>> {
        let mut found: BTreeMap<SubscriberId, Vec<usize>> = BTreeMap::new();
        // For each transaction of this block, the subscribers that follow it, and after how many steps.
        let mut here: HashMap<Txid, BTreeMap<SubscriberId, u8>> = HashMap::new();
        for (index, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            let mut matched: BTreeMap<SubscriberId, u8> = BTreeMap::new();
            for (subscriber, steps) in self.matches_of(tx, &txid, &here) {
                if members.contains(&subscriber) {
                    let least = matched.entry(subscriber).or_insert(steps);
                    *least = steps.min(*least);
                }
            }
            for subscriber in matched.keys() {
                found.entry(*subscriber).or_default().push(index);
            }
            if !matched.is_empty() {
                here.insert(txid, matched);
            }
        }
        for (txid, subscribers) in here {
            self.followed.add(txid, subscribers);
        }
        found
    }

    fn matches_of(
        &self,
        tx: &Transaction,
        txid: &Txid,
        here: &HashMap<Txid, BTreeMap<SubscriberId, u8>>,
    ) -> Vec<(SubscriberId, u8)> {
        let mut matched: Vec<(SubscriberId, u8)> = vec![];
        matched.extend(self.txids.of(txid).map(|subscriber| (subscriber, 0)));
        for output in &tx.output {
            let watched = self.scripts.of(output.script_pubkey.as_script());
            matched.extend(watched.map(|subscriber| (subscriber, 0)));
        }
        for input in &tx.input {
            let parent = input.previous_output.txid;
            matched.extend(
                self.outpoints
                    .of(&input.previous_output)
                    .map(|subscriber| (subscriber, 0)),
            );
            matched.extend(
                here.get(&parent)
                    .into_iter()
                    .flatten()
                    .map(|(id, steps)| (*id, *steps)),
            );
            matched.extend(self.followed.of(&parent).map(|(id, steps)| (id, steps + 1)));
        }
        matched
    }

    /// To be called when `Synced` is sent to a subscriber: spends of what matched before its previous `Synced` are no
    /// longer followed. Since then it had a whole batch of blocks to watch the outputs that it wants.
    pub(super) fn synced(&mut self, subscriber: SubscriberId) {
        self.followed.next_generation(subscriber);
    }
}

/// Transactions that matched recently, whose spends match as well.
#[derive(Debug, Default)]
struct Followed {
    by_txid: HashMap<Txid, BTreeMap<SubscriberId, u8>>,
    /// For each subscriber: those since its last `Synced`, and those since the one before.
    generations: HashMap<SubscriberId, [HashSet<Txid>; 2]>,
}

impl Followed {
    fn add(&mut self, txid: Txid, subscribers: BTreeMap<SubscriberId, u8>) {
        for (subscriber, steps) in subscribers {
            let [newest, _] = self.generations.entry(subscriber).or_default();
            newest.insert(txid);
            self.by_txid
                .entry(txid)
                .or_default()
                .insert(subscriber, steps);
        }
    }

    fn of(&self, txid: &Txid) -> impl Iterator<Item = (SubscriberId, u8)> + '_ {
        let followers = self.by_txid.get(txid).into_iter().flatten();
        followers
            .filter(|(_, steps)| **steps < MAX_STEPS)
            .map(|(id, steps)| (*id, *steps))
    }

    fn next_generation(&mut self, subscriber: SubscriberId) {
        let Some([newest, older]) = self.generations.get_mut(&subscriber) else {
            return;
        };
        let oldest = std::mem::replace(older, std::mem::take(newest));
        let over: Vec<Txid> = oldest.difference(older).copied().collect();
        let is_empty = older.is_empty();
        over.iter().for_each(|txid| self.unfollow(txid, subscriber));
        if is_empty {
            self.generations.remove(&subscriber);
        }
    }

    fn remove(&mut self, subscriber: SubscriberId) {
        for txid in self
            .generations
            .remove(&subscriber)
            .into_iter()
            .flatten()
            .flatten()
        {
            self.unfollow(&txid, subscriber);
        }
    }

    fn unfollow(&mut self, txid: &Txid, subscriber: SubscriberId) {
        if let Some(followers) = self.by_txid.get_mut(txid) {
            followers.remove(&subscriber);
            if followers.is_empty() {
                self.by_txid.remove(txid);
            }
        }
    }
}

/// Subscribers by one kind of key, and keys by subscriber.
#[derive(Debug)]
struct Watched<K> {
    subscribers: HashMap<K, BTreeSet<SubscriberId>>,
    keys: HashMap<SubscriberId, HashSet<K>>,
}

impl<K> Default for Watched<K> {
    fn default() -> Self {
        Watched {
            subscribers: HashMap::new(),
            keys: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Watched<K> {
    fn add(&mut self, subscriber: SubscriberId, key: K) {
        self.keys.entry(subscriber).or_default().insert(key.clone());
        self.subscribers.entry(key).or_default().insert(subscriber);
    }

    fn remove(&mut self, subscriber: SubscriberId) {
        for key in self.keys.remove(&subscriber).unwrap_or_default() {
            if let Some(subscribers) = self.subscribers.get_mut(&key) {
                subscribers.remove(&subscriber);
                if subscribers.is_empty() {
                    self.subscribers.remove(&key);
                }
            }
        }
    }

    fn of<Q>(&self, key: &Q) -> impl Iterator<Item = SubscriberId> + '_
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.subscribers.get(key).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::blockdata::constants::genesis_block;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, Network, Transaction, TxIn, TxOut};

    fn script(tag: u8) -> ScriptBuf {
        ScriptBuf::from_bytes(vec![tag; 4])
    }

    fn tx(from: &[OutPoint], to: &[u8]) -> Transaction {
        let input = |previous_output: &OutPoint| TxIn {
            previous_output: *previous_output,
            ..TxIn::default()
        };
        let output = |tag: &u8| TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: script(*tag),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: from.iter().map(input).collect(),
            output: to.iter().map(output).collect(),
        }
    }

    fn outside(n: u32) -> OutPoint {
        OutPoint::new(genesis_block(Network::Regtest).txdata[0].compute_txid(), n)
    }

    fn block(txs: &[Transaction]) -> Block {
        let mut block = genesis_block(Network::Regtest);
        block.txdata.extend_from_slice(txs);
        block
    }

    #[test]
    fn matches_by_outpoint_script_and_txid() {
        let txs = [
            tx(&[outside(1)], &[1]),
            tx(&[outside(2)], &[2]),
            tx(&[outside(3)], &[3]),
        ];
        let mut index = Index::default();
        index.outpoint(7, outside(1));
        index.script(7, script(2));
        index.txid(8, txs[2].compute_txid());
        let found = index.matches(&block(&txs), &HashSet::from([7, 8, 9]));
        assert_eq!(found, BTreeMap::from([(7, vec![1, 2]), (8, vec![3])]));
    }

    #[test]
    fn matches_what_spends_a_match_in_the_same_block_and_so_on() {
        let first = tx(&[outside(1)], &[1, 1]);
        let other = tx(&[outside(2)], &[2]);
        let second = tx(&[OutPoint::new(first.compute_txid(), 1)], &[3]);
        let third = tx(&[OutPoint::new(second.compute_txid(), 0)], &[4]);
        let mut index = Index::default();
        index.outpoint(7, outside(1));
        index.script(8, script(3));
        let found = index.matches(
            &block(&[first, other, second, third]),
            &HashSet::from([7, 8]),
        );
        assert_eq!(found, BTreeMap::from([(7, vec![1, 3, 4]), (8, vec![3, 4])]));
    }

    #[test]
    fn follows_spends_into_later_blocks_until_the_subscriber_could_watch_them() {
        let first = tx(&[outside(1)], &[1]);
        let second = tx(&[OutPoint::new(first.compute_txid(), 0)], &[2]);
        let third = tx(&[OutPoint::new(second.compute_txid(), 0)], &[3]);
        let fourth = tx(&[OutPoint::new(third.compute_txid(), 0)], &[4]);
        let members = HashSet::from([7]);
        let mut index = Index::default();
        index.outpoint(7, outside(1));
        let is_matched = |index: &mut Index, tx: &Transaction| {
            index
                .matches(&block(std::slice::from_ref(tx)), &members)
                .contains_key(&7)
        };
        assert!(is_matched(&mut index, &first));
        index.synced(7);
        assert!(is_matched(&mut index, &second));
        assert!(is_matched(&mut index, &third));
        // A chain of payments is not followed for ever.
        assert!(!is_matched(&mut index, &fourth));
        index.synced(7);
        // `first` is not followed any more, newer matches are.
        assert!(!is_matched(&mut index, &second));
        assert!(is_matched(&mut index, &third));
        index.synced(7);
        index.synced(7);
        assert!(!is_matched(&mut index, &third));
        assert!(index.followed.by_txid.is_empty() && index.followed.generations.is_empty());
    }

    #[test]
    fn matches_for_members_alone() {
        let mut index = Index::default();
        index.outpoint(7, outside(1));
        index.outpoint(8, outside(1));
        let found = index.matches(&block(&[tx(&[outside(1)], &[1])]), &HashSet::from([8]));
        assert_eq!(found, BTreeMap::from([(8, vec![1])]));
    }

    #[test]
    fn forgets_a_subscriber_and_keeps_the_others() {
        let mut index = Index::default();
        index.outpoint(7, outside(1));
        index.outpoint(8, outside(1));
        index.script(7, script(1));
        index.remove(7);
        let found = index.matches(&block(&[tx(&[outside(1)], &[1])]), &HashSet::from([7, 8]));
        assert_eq!(found, BTreeMap::from([(8, vec![1])]));
        assert!(index.scripts.subscribers.is_empty());
    }
}
