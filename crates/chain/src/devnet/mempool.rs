//! The mempool: transactions that wait for a block, with their parents and children.
//!
//! Only the structure is here: entries, their dependencies, and the order in which they are mined. `policy` decides
//! whether a transaction is accepted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{Block, OutPoint, Transaction, Txid, Wtxid};

/// Weight kept free in a block for its header and coinbase.
const RESERVED_WEIGHT: u64 = 8_000;
/// Signature operations kept free for the coinbase.
const RESERVED_SIGOPS: u64 = 400;
const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
const MAX_BLOCK_SIGOPS: u64 = 80_000;

/// A transaction in the mempool.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) tx: Arc<Transaction>,
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) fee_sat: u64,
    /// Virtual size by weight or by signature operations, whichever is larger.
    pub(super) vsize: u64,
    pub(super) sigop_cost: u64,
    /// Time at which it was added, in seconds since 1970.
    pub(super) time: u64,
    /// Height of the tip at that time.
    pub(super) height: u32,
    /// Transactions in the mempool whose outputs it spends.
    pub(super) parents: BTreeSet<Txid>,
    /// Transactions in the mempool that spend its outputs.
    pub(super) children: BTreeSet<Txid>,
}

/// Sums over a set of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) count: usize,
    pub(super) vsize: u64,
    pub(super) fee_sat: u64,
}

/// The mempool. It is small on a devnet, so that a change that may fail is tried on a clone.
#[derive(Clone, Default)]
pub(super) struct Mempool {
    entries: HashMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    /// Counts every change, for `getrawmempool`.
    pub(super) sequence: u64,
    /// Minimum fee rate, where it is above that for relay; else 0.
    pub(super) min_fee_sat_per_kvb: u64,
}

impl Mempool {
    /// An empty mempool that keeps the counter and the minimum of this one.
    pub(super) fn emptied(&self) -> Mempool {
        Mempool {
            sequence: self.sequence,
            min_fee_sat_per_kvb: self.min_fee_sat_per_kvb,
            ..Mempool::default()
        }
    }

    pub(super) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry that spends an output.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<&Entry> {
        self.spends
            .get(outpoint)
            .and_then(|txid| self.entries.get(txid))
    }

    /// An entry and its ancestors.
    pub(super) fn ancestors(&self, txid: &Txid) -> BTreeSet<Txid> {
        self.closure([*txid], |entry| &entry.parents)
    }

    /// Entries and their descendants.
    pub(super) fn descendants(&self, txids: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.closure(txids, |entry| &entry.children)
    }

    fn closure(
        &self,
        from: impl IntoIterator<Item = Txid>,
        next: impl Fn(&Entry) -> &BTreeSet<Txid>,
    ) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut open: Vec<Txid> = from
            .into_iter()
            .filter(|txid| self.entries.contains_key(txid))
            .collect();
        while let Some(txid) = open.pop() {
            if found.insert(txid) {
                open.extend(self.entries.get(&txid).into_iter().flat_map(&next));
            }
        }
        found
    }

    pub(super) fn totals<'a>(&self, txids: impl IntoIterator<Item = &'a Txid>) -> Totals {
        let entries = txids.into_iter().filter_map(|txid| self.entries.get(txid));
        entries.fold(Totals::default(), |sum, entry| Totals {
            count: sum.count + 1,
            vsize: sum.vsize + entry.vsize,
            fee_sat: sum.fee_sat + entry.fee_sat,
        })
    }

    /// All entries.
    pub(super) fn all(&self) -> Totals {
        self.totals(self.entries.keys())
    }

    /// Adds an entry whose inputs no other entry spends.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        entry.parents = self.parents_of(&entry.tx);
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.insert(entry.txid);
            }
        }
        for input in &entry.tx.input {
            self.spends.insert(input.previous_output, entry.txid);
        }
        self.sequence += 1;
        self.entries.insert(entry.txid, entry);
    }

    /// Transactions in the mempool whose outputs `tx` spends.
    pub(super) fn parents_of(&self, tx: &Transaction) -> BTreeSet<Txid> {
        let spent = tx.input.iter().map(|input| input.previous_output.txid);
        spent
            .filter(|txid| self.entries.contains_key(txid))
            .collect()
    }

    /// Removes entries and their descendants; returns the removed transactions.
    pub(super) fn remove_with_descendants(
        &mut self,
        txids: impl IntoIterator<Item = Txid>,
    ) -> Vec<Arc<Transaction>> {
        let doomed = self.descendants(txids);
        doomed
            .iter()
            .filter_map(|txid| self.remove(txid))
            .map(|entry| entry.tx)
            .collect()
    }

    fn remove(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        for input in &entry.tx.input {
            self.spends.remove(&input.previous_output);
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(txid);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(txid);
            }
        }
        self.sequence += 1;
        Some(entry)
    }

    /// Removes the transactions of a connected block, and those that conflict with it.
    pub(super) fn remove_mined(&mut self, block: &Block) {
        for tx in &block.txdata {
            self.remove(&tx.compute_txid());
            let conflicts: Vec<Txid> = tx
                .input
                .iter()
                .filter_map(|input| self.spends.get(&input.previous_output).copied())
                .collect();
            self.remove_with_descendants(conflicts);
        }
    }

    /// All entries, parents before children, otherwise in the order in which they were added.
    pub(super) fn in_order(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by_cached_key(|entry| {
            (self.ancestors(&entry.txid).len(), entry.time, entry.txid)
        });
        entries
    }

    /// The transactions of the next block, by the fee rate of each with its ancestors.
    pub(super) fn select_for_block(&self) -> Vec<Arc<Transaction>> {
        let mut left = self.clone();
        let mut selected = vec![];
        let (mut weight, mut sigops) = (RESERVED_WEIGHT, RESERVED_SIGOPS);
        while let Some(chunk) = left.best_chunk() {
            let chunk_weight: u64 = chunk.iter().map(|entry| entry.tx.weight().to_wu()).sum();
            let chunk_sigops: u64 = chunk.iter().map(|entry| entry.sigop_cost).sum();
            let Some(last) = chunk.last().map(|entry| entry.txid) else {
                break;
            };
            if weight + chunk_weight > MAX_BLOCK_WEIGHT || sigops + chunk_sigops > MAX_BLOCK_SIGOPS
            {
                // A smaller one may still fit.
                left.remove_with_descendants([last]);
                continue;
            }
            (weight, sigops) = (weight + chunk_weight, sigops + chunk_sigops);
            for entry in chunk {
                left.remove(&entry.txid);
                selected.push(entry.tx);
            }
        }
        selected
    }

    /// The entry with the highest fee rate together with its ancestors: these first, then itself.
    fn best_chunk(&self) -> Option<Vec<Entry>> {
        let rated = self
            .entries
            .keys()
            .map(|txid| (self.totals(&self.ancestors(txid)), txid));
        let (_, best) = rated.max_by(|(a, a_id), (b, b_id)| {
            let rate_a = u128::from(a.fee_sat) * u128::from(b.vsize);
            let rate_b = u128::from(b.fee_sat) * u128::from(a.vsize);
            // With equal rates the one with fewer ancestors goes first.
            rate_a
                .cmp(&rate_b)
                .then(b.count.cmp(&a.count))
                .then(a_id.cmp(b_id))
        })?;
        let mut chunk: Vec<Entry> = self
            .ancestors(best)
            .iter()
            .filter_map(|txid| self.get(txid))
            .cloned()
            .collect();
        chunk.sort_by_cached_key(|entry| self.ancestors(&entry.txid).len());
        Some(chunk)
    }
}
