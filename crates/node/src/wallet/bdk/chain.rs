//! Blocks: connecting and disconnecting them, and what to watch in them.

use std::mem;
use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, TxUpdate};
use bitcoin::block::Header;
use bitcoin::{Block, OutPoint, Transaction};
use longhand_chain::{BlockRef, WatchList};

use super::{BdkWallet, Changes, KEYCHAINS, WalletError, load_bdk, take_staged};
use crate::wallet::WalletChain;

/// A spend is final for the wallet when it is this deep; until then its output is watched.
const FINAL_DEPTH: u32 = 144;

impl WalletChain for BdkWallet {
    fn best_block(&self) -> BlockRef {
        self.tip
    }

    fn take_new_watches(&mut self) -> WatchList {
        let first = self.watched_scripts == [0; 2];
        let spks = self.bdk.spk_index().inner().all_spks();
        let mut scripts = Vec::new();
        for (known, keychain) in self.watched_scripts.iter_mut().zip(KEYCHAINS) {
            for ((_, index), script) in spks.range((keychain, *known)..=(keychain, u32::MAX)) {
                scripts.push(script.clone());
                *known = index.saturating_add(1);
            }
        }
        let new_outpoints = mem::take(&mut self.new_outpoints);
        let outpoints = if first {
            self.outpoints_to_watch()
        } else {
            new_outpoints
        };
        WatchList {
            outpoints,
            scripts,
            txids: Vec::new(),
        }
    }

    fn connect_block(
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

    fn watches(&self) -> WatchList {
        let spks = self.bdk.spk_index().inner().all_spks();
        WatchList {
            outpoints: self.outpoints_to_watch(),
            scripts: spks.values().cloned().collect(),
            txids: Vec::new(),
        }
    }

    fn insert_block(
        &mut self,
        height: u32,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError> {
        let at = BlockRef {
            height,
            hash: header.block_hash(),
        };
        if height > self.tip.height || (height == self.tip.height && at != self.tip) {
            return Err(self.out_of_order(height));
        }
        // Nothing of the genesis block can be spent.
        if height == 0 || !txs.iter().any(|(_, tx)| self.concerns(tx)) {
            return Ok(());
        }
        self.insert_checkpoint(at)?;
        for (_, tx) in txs {
            // One after the other, since a transaction may spend one before it.
            if self.concerns(tx) {
                self.anchor(at, header, vec![tx.clone()]);
                self.unlock_inputs(tx);
                self.note_outputs(tx);
            }
        }
        Ok(())
    }

    fn first_block(&self) -> Option<u32> {
        let anchors = self.bdk.tx_graph().all_anchors().values().flatten();
        anchors.map(|anchor| anchor.block_id.height).min()
    }

    fn hold_coins(&mut self, up_to: Option<u32>) {
        self.held_up_to = up_to;
    }

    fn disconnect_to(&mut self, fork: BlockRef) -> Result<(), WalletError> {
        if fork == self.tip || fork.height > self.tip.height {
            return Ok(());
        }
        let disconnected: Vec<u32> = self
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
        if !disconnected.is_empty() {
            self.remove_blocks(&disconnected)?;
        }
        self.move_tip(fork);
        Ok(())
    }
}

impl BdkWallet {
    /// Own outputs that are unspent, or whose spend is not final.
    fn outpoints_to_watch(&self) -> Vec<OutPoint> {
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

    /// Records transactions of a block that BDK ignores, since they neither pay to the wallet nor spend from it: a parent of
    /// a package or what conflicts with it, which decides about the child, and a spend of an HTLC of a closed channel,
    /// which decides about a claim that is broadcast later.
    fn record_others(&mut self, at: BlockRef, header: &Header, txs: &[(usize, Arc<Transaction>)]) {
        let others = txs.iter().map(|(_, tx)| tx);
        let others = others.filter(|tx| self.decides(tx)).cloned().collect();
        self.anchor(at, header, others);
    }

    /// Adds transactions as confirmed in this block of BDK's chain.
    fn anchor(&mut self, at: BlockRef, header: &Header, txs: Vec<Arc<Transaction>>) {
        let anchor = ConfirmationBlockTime {
            block_id: block_id(at),
            confirmation_time: header.time.into(),
        };
        let mut update = TxUpdate::default();
        for tx in txs {
            update.anchors.insert((anchor, tx.compute_txid()));
            update.txs.push(tx);
        }
        self.update_graph(update);
    }

    /// Puts a block below others into BDK's chain. For one that replaces another, BDK would remove all above it.
    fn insert_checkpoint(&mut self, at: BlockRef) -> Result<(), WalletError> {
        let known = self.bdk.latest_checkpoint().get(at.height);
        if known.is_some_and(|known| known.hash() != at.hash) {
            self.remove_blocks(&[at.height])?;
        }
        let chain = Some(self.bdk.latest_checkpoint().insert(block_id(at)));
        let inserted = self.bdk.apply_update(Update {
            chain,
            ..Update::default()
        });
        inserted.map_err(|error| WalletError::Stored(error.to_string()))
    }

    /// Replaces BDK's wallet by one without these blocks, since BDK's chain cannot be shortened. It costs a load, but
    /// reorganisations of blocks with the wallet's own transactions are rare.
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
}

fn block_id(at: BlockRef) -> BlockId {
    BlockId {
        height: at.height,
        hash: at.hash,
    }
}
