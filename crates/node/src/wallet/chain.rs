//! How the wallet follows the chain, and what it knows of transactions that are not in a block.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::indexer::Indexer;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, TxUpdate};
use bitcoin::block::Header;
use bitcoin::{Block, OutPoint, Transaction, Txid};
use lightning::ln::chan_utils::HTLCClaim;
use longhand_chain::{BlockRef, WatchList};

use super::store::{Changes, load_bdk, take_staged};
use super::{KEYCHAINS, Wallet, WalletError};

/// A spend is final for the wallet when it is this deep; until then its output is watched still.
pub(super) const FINAL_DEPTH: u32 = 144;

/// Blocks.
impl Wallet {
    /// The last block that was connected.
    pub fn best_block(&self) -> BlockRef {
        self.tip
    }

    /// Own outputs whose spending would be news: the unspent ones, and those whose spending is not final.
    pub fn outpoints_to_watch(&self) -> Vec<OutPoint> {
        self.outputs()
            .filter(|(_, output)| match &output.spent_by {
                Some((position, _)) => position
                    .confirmation_height_upper_bound()
                    .is_none_or(|height| self.tip.height < height.saturating_add(FINAL_DEPTH)),
                None => true,
            })
            .map(|(_, output)| output.outpoint)
            .collect()
    }

    /// What is to be watched besides what the last call returned; the first call since the wallet was made or loaded
    /// returns everything.
    pub fn take_new_watches(&mut self) -> WatchList {
        let first = self.watched_scripts == [0; 2];
        let spks = self.bdk.spk_index().inner().all_spks();
        let mut scripts = Vec::new();
        for (known, keychain) in self.watched_scripts.iter_mut().zip(KEYCHAINS) {
            for ((_, index), script) in spks.range((keychain, *known)..=(keychain, u32::MAX)) {
                scripts.push(script.clone());
                *known = index.saturating_add(1);
            }
        }
        let news = mem::take(&mut self.new_outpoints);
        let outpoints = if first {
            self.outpoints_to_watch()
        } else {
            news
        };
        WatchList {
            outpoints,
            scripts,
            txids: Vec::new(),
        }
    }

    /// Connects the next block; `txs` are those of its transactions that may concern the wallet, with their index in
    /// the block and in order. Others than that are ignored.
    ///
    /// A block that is connected again is ignored; a different one at or below the tip's height first disconnects what
    /// it replaces.
    ///
    /// # Errors
    /// [`WalletError::OutOfOrder`] when blocks before this one are missing; nothing is changed.
    pub fn connect_block(
        &mut self,
        height: u32,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError> {
        let block = BlockRef {
            height,
            hash: header.block_hash(),
        };
        if block == self.tip {
            return Ok(());
        }
        let before = BlockRef {
            height: height
                .checked_sub(1)
                .ok_or_else(|| self.out_of_order(height))?,
            hash: header.prev_blockhash,
        };
        if height <= self.tip.height {
            self.disconnect_to(before)?;
        } else if before != self.tip {
            return Err(self.out_of_order(height));
        }
        if txs.iter().any(|(_, tx)| self.concerns(tx)) {
            self.record_block(block, header, txs)?;
        }
        self.move_tip(block);
        Ok(())
    }

    /// Puts a block with transactions of the wallet into BDK's chain.
    fn record_block(
        &mut self,
        at: BlockRef,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError> {
        let txdata: Vec<Transaction> = txs.iter().map(|(_, tx)| tx.as_ref().clone()).collect();
        let block = Block {
            header: *header,
            txdata,
        };
        let last = self.bdk.latest_checkpoint().block_id();
        self.bdk
            .apply_block_connected_to(&block, at.height, last)
            .map_err(|_| self.out_of_order(at.height))?;
        self.record_others(at, header, txs);
        for tx in &block.txdata {
            self.unlock_inputs(tx);
            self.note_outputs(tx);
        }
        Ok(())
    }

    /// BDK takes in what pays or spends from the wallet. A package's parents do not, and what conflicts with them does
    /// not either, and yet it decides about the child. So does what has taken an HTLC of a closed channel, before a
    /// claim that is sent only later.
    fn record_others(&mut self, at: BlockRef, header: &Header, txs: &[(usize, Arc<Transaction>)]) {
        let block_id = BlockId {
            height: at.height,
            hash: at.hash,
        };
        let anchor = ConfirmationBlockTime {
            block_id,
            confirmation_time: header.time.into(),
        };
        let mut update = TxUpdate::default();
        for (_, tx) in txs.iter().filter(|(_, tx)| self.decides(tx)) {
            update.anchors.insert((anchor, tx.compute_txid()));
            update.txs.push(tx.clone());
        }
        self.update_graph(update);
    }

    fn update_graph(&mut self, tx_update: TxUpdate<ConfirmationBlockTime>) {
        // Only an update of the chain can fail.
        let applied = self.bdk.apply_update(Update {
            tx_update,
            ..Update::default()
        });
        debug_assert!(applied.is_ok());
    }

    /// Takes back every block above `fork`. Their transactions wait to be confirmed again.
    ///
    /// # Errors
    /// [`WalletError::Stored`] when the wallet cannot be built again; it is left as it was.
    pub fn disconnect_to(&mut self, fork: BlockRef) -> Result<(), WalletError> {
        if fork == self.tip || fork.height > self.tip.height {
            return Ok(());
        }
        let gone: Vec<u32> = self
            .bdk
            .checkpoints()
            .map(|checkpoint| checkpoint.block_id())
            .take_while(|at| {
                at.height > 0
                    && (at.height > fork.height
                        || (at.height == fork.height && at.hash != fork.hash))
            })
            .map(|at| at.height)
            .collect();
        if !gone.is_empty() {
            self.remove_blocks(&gone)?;
        }
        self.move_tip(fork);
        Ok(())
    }

    /// BDK's chain cannot be shortened: a wallet without these blocks takes this one's place. Reorganisations that
    /// reach a wallet's own transactions are rare enough for that.
    fn remove_blocks(&mut self, heights: &[u32]) -> Result<(), WalletError> {
        let mut whole = self.whole();
        for height in heights {
            whole.local_chain.blocks.remove(height);
        }
        let bdk = load_bdk(whole)?;
        let mut changes = take_staged(&mut self.bdk).unwrap_or_default();
        changes
            .local_chain
            .blocks
            .extend(heights.iter().map(|height| (*height, None)));
        self.staged.merge(Changes {
            bdk: Some(changes),
            ..Changes::default()
        });
        self.bdk = bdk;
        Ok(())
    }

    pub(super) fn move_tip(&mut self, to: BlockRef) {
        self.tip = to;
        self.staged.tip = Some((to.height, to.hash));
    }

    fn out_of_order(&self, height: u32) -> WalletError {
        WalletError::OutOfOrder {
            height,
            tip: self.tip.height,
        }
    }

    /// Whether a transaction pays or spends from the wallet, or decides about one that does.
    fn concerns(&self, tx: &Transaction) -> bool {
        self.bdk.spk_index().is_tx_relevant(tx) || self.decides(tx)
    }

    /// Whether a transaction is known, makes a known one impossible, or may make one impossible that is to come.
    fn decides(&self, tx: &Transaction) -> bool {
        let graph = self.bdk.tx_graph();
        let mut inputs = tx.input.iter();
        graph.get_tx(tx.compute_txid()).is_some()
            || graph.direct_conflicts(tx).next().is_some()
            || inputs.any(|input| HTLCClaim::from_witness(&input.witness).is_some())
    }

    /// What is spent needs no reservation.
    pub(super) fn unlock_inputs(&mut self, tx: &Transaction) {
        for input in &tx.input {
            self.bdk.unlock_outpoint(input.previous_output);
        }
    }

    fn note_outputs(&mut self, tx: &Transaction) {
        let own = self.bdk.spk_index().txouts_in_tx(tx.compute_txid());
        self.new_outpoints
            .extend(own.map(|(_, (outpoint, _))| outpoint));
    }
}

/// Transactions that are not in a block.
impl Wallet {
    /// Takes in what the node has broadcast: a transaction, or a package of parents and their child. Ignored when none
    /// of it concerns the wallet, or all of it counts already. The inputs are no longer reserved: they are spent. It
    /// counts before every transaction that it conflicts with and that is not confirmed.
    ///
    /// The whole package is kept when one of it concerns the wallet, so that a conflict with a parent is seen to undo
    /// the child.
    pub fn insert_package(&mut self, package: Vec<Transaction>, seen_unix_s: u64) {
        let counts = |tx: &Transaction| self.bdk.get_tx(tx.compute_txid()).is_some();
        let news = !package.iter().all(counts);
        if !news || !package.iter().any(|tx| self.concerns(tx)) {
            return;
        }
        let seen = package
            .iter()
            .fold(seen_unix_s, |seen, tx| seen.max(self.first_moment(tx)));
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

    /// The earliest time at which `tx` would count before its conflicts and its own eviction.
    fn first_moment(&self, tx: &Transaction) -> u64 {
        let graph = self.bdk.tx_graph();
        let last_seen = |txid| graph.get_tx_node(txid).and_then(|node| node.last_seen);
        let conflicts = graph
            .direct_conflicts(tx)
            .filter_map(|(_, txid)| last_seen(txid));
        let evicted = graph.get_last_evicted(tx.compute_txid());
        conflicts
            .chain(evicted)
            .map(|at| at.saturating_add(1))
            .max()
            .unwrap_or(0)
    }

    /// Forgets a transaction that will not be confirmed (replaced, abandoned) and those that build on it: what it
    /// spent can be spent again. Nothing happens when it is unknown or confirmed; it counts again when it is seen in
    /// a block or inserted again.
    #[allow(
        dead_code,
        reason = "no source tells yet that it has dropped a transaction"
    )]
    pub fn forget_unconfirmed(&mut self, txid: Txid) {
        let graph = self.bdk.tx_graph();
        let descendants = graph.walk_descendants(txid, |_, txid| Some(txid));
        let evicted: Vec<(Txid, u64)> = std::iter::once(txid)
            .chain(descendants)
            .filter(|txid| self.is_pending(*txid))
            .filter_map(|txid| graph.get_tx_node(txid))
            .map(|node| (node.txid, node.last_seen.unwrap_or(0)))
            .collect();
        self.bdk.apply_evicted_txs(evicted);
    }

    /// Whether a transaction counts, and waits for a block.
    pub fn is_pending(&self, txid: Txid) -> bool {
        self.bdk
            .get_tx(txid)
            .is_some_and(|tx| !tx.chain_position.is_confirmed())
    }

    /// Whether a transaction is known and does not count, since another one has what it spends.
    pub fn is_displaced(&self, txid: Txid) -> bool {
        self.bdk.tx_graph().get_tx(txid).is_some() && self.bdk.get_tx(txid).is_none()
    }

    /// Whether a transaction that counts spends it, in a block or not yet. See [`Wallet::is_spent_in_chain`].
    pub fn is_spent(&self, outpoint: OutPoint) -> bool {
        let mut spends = self.bdk.tx_graph().outspends(outpoint).iter();
        spends.any(|txid| self.bdk.get_tx(*txid).is_some())
    }

    /// Whether a transaction in a block has spent it. Of outputs that are not the wallet's, only claims of HTLCs are known.
    pub fn is_spent_in_chain(&self, outpoint: OutPoint) -> bool {
        let mut spends = self.bdk.tx_graph().outspends(outpoint).iter();
        spends.any(|txid| {
            let tx = self.bdk.get_tx(*txid);
            tx.is_some_and(|tx| tx.chain_position.is_confirmed())
        })
    }

    /// What spends the wallet's coins or pays into it, and waits for a block, parents first: payments, fundings, what pays
    /// for a close or a claim, and sweeps. Nobody else may have them.
    pub fn waiting_own(&self) -> Vec<Transaction> {
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
            // A transaction cannot be its own ancestor, so there are always some.
            let (later, next): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_child);
            ordered.extend(next.iter().map(|tx| tx.as_ref().clone()));
            waiting = if next.is_empty() { Vec::new() } else { later };
        }
        ordered
    }

    /// A transaction that the wallet has kept, confirmed or not.
    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        self.bdk
            .tx_graph()
            .get_tx(txid)
            .map(|tx| tx.as_ref().clone())
    }
}
