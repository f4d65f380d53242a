//! Transactions that the wallet knows, confirmed or not.

use std::collections::HashSet;
use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::indexer::Indexer;
use bdk_wallet::chain::{ConfirmationBlockTime, TxUpdate};
use bitcoin::{OutPoint, Transaction, Txid};
use lightning::ln::chan_utils::HTLCClaim;

use super::BdkWallet;
use crate::wallet::WalletTransactions;

impl WalletTransactions for BdkWallet {
    fn insert_package(&mut self, package: Vec<Transaction>, seen_unix_s: u64) {
        let counts = |tx: &Transaction| self.bdk.get_tx(tx.compute_txid()).is_some();
        let all_count = package.iter().all(counts);
        if all_count || !package.iter().any(|tx| self.concerns(tx)) {
            return;
        }
        let seen = package.iter().fold(seen_unix_s, |seen, tx| {
            seen.max(self.earliest_last_seen(tx))
        });
        for tx in &package {
            self.unlock_inputs(tx);
        }
        let txs: Vec<Arc<Transaction>> = package.into_iter().map(Arc::new).collect();
        let mut update = TxUpdate::<ConfirmationBlockTime>::default();
        update.seen_ats = txs.iter().map(|tx| (tx.compute_txid(), seen)).collect();
        update.txs = txs.clone();
        self.update_graph(update);
        for tx in &txs {
            self.note_outputs(tx);
        }
    }

    fn transaction(&self, txid: Txid) -> Option<Transaction> {
        self.bdk
            .tx_graph()
            .get_tx(txid)
            .map(|tx| tx.as_ref().clone())
    }

    fn is_pending(&self, txid: Txid) -> bool {
        self.bdk
            .get_tx(txid)
            .is_some_and(|tx| !tx.chain_position.is_confirmed())
    }

    fn is_displaced(&self, txid: Txid) -> bool {
        self.bdk.tx_graph().get_tx(txid).is_some() && self.bdk.get_tx(txid).is_none()
    }

    fn is_spent(&self, outpoint: OutPoint) -> bool {
        let mut spends = self.bdk.tx_graph().outspends(outpoint).iter();
        spends.any(|txid| self.bdk.get_tx(*txid).is_some())
    }

    fn is_spent_in_chain(&self, outpoint: OutPoint) -> bool {
        let mut spends = self.bdk.tx_graph().outspends(outpoint).iter();
        spends.any(|txid| {
            let tx = self.bdk.get_tx(*txid);
            tx.is_some_and(|tx| tx.chain_position.is_confirmed())
        })
    }

    fn waiting_own(&self) -> Vec<Transaction> {
        let index = self.bdk.spk_index();
        let mut waiting: Vec<Arc<Transaction>> = self
            .bdk
            .transactions()
            .filter(|tx| !tx.chain_position.is_confirmed() && index.is_tx_relevant(&tx.tx_node.tx))
            .map(|tx| tx.tx_node.tx)
            .collect();
        let mut ordered = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let txids: HashSet<Txid> = waiting.iter().map(|tx| tx.compute_txid()).collect();
            let is_child = |tx: &Arc<Transaction>| {
                let mut parents = tx.input.iter().map(|input| input.previous_output.txid);
                parents.any(|parent| txids.contains(&parent))
            };
            // A transaction cannot be its own ancestor, so `next` is never empty.
            let (later, next): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_child);
            ordered.extend(next.iter().map(|tx| tx.as_ref().clone()));
            waiting = if next.is_empty() { Vec::new() } else { later };
        }
        ordered
    }
}

impl BdkWallet {
    pub(super) fn update_graph(&mut self, tx_update: TxUpdate<ConfirmationBlockTime>) {
        // Only an update of the chain can fail.
        let applied = self.bdk.apply_update(Update {
            tx_update,
            ..Update::default()
        });
        debug_assert!(applied.is_ok());
    }

    /// Whether a transaction pays to the wallet or spends from it, or decides whether one that does can be confirmed.
    pub(super) fn concerns(&self, tx: &Transaction) -> bool {
        self.bdk.spk_index().is_tx_relevant(tx) || self.decides(tx)
    }

    /// Whether a transaction is known, conflicts with a known one, or may conflict with a claim that is broadcast later: it
    /// spends an HTLC.
    pub(super) fn decides(&self, tx: &Transaction) -> bool {
        let graph = self.bdk.tx_graph();
        let mut inputs = tx.input.iter();
        graph.get_tx(tx.compute_txid()).is_some()
            || graph.direct_conflicts(tx).next().is_some()
            || inputs.any(|input| HTLCClaim::from_witness(&input.witness).is_some())
    }

    /// Ends the reservation of coins that `tx` spends.
    pub(super) fn unlock_inputs(&mut self, tx: &Transaction) {
        for input in &tx.input {
            self.bdk.unlock_outpoint(input.previous_output);
        }
    }

    /// Own outputs of a transaction in BDK's graph are to be watched.
    pub(super) fn note_outputs(&mut self, tx: &Transaction) {
        let own = self.bdk.spk_index().txouts_in_tx(tx.compute_txid());
        self.new_outpoints
            .extend(own.map(|(_, (outpoint, _))| outpoint));
    }

    /// The earliest `last_seen` with which BDK counts `tx` before its conflicts, in seconds since 1970.
    fn earliest_last_seen(&self, tx: &Transaction) -> u64 {
        let graph = self.bdk.tx_graph();
        let last_seen = |txid| graph.get_tx_node(txid).and_then(|node| node.last_seen);
        graph
            .direct_conflicts(tx)
            .filter_map(|(_, txid)| last_seen(txid))
            .map(|at| at.saturating_add(1))
            .max()
            .unwrap_or(0)
    }
}
