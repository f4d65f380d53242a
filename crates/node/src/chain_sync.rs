//! Telling a node what happens on the chain.
//!
//! LDK's `Confirm` allows blocks without anything for us to be skipped and transactions to be told
//! again, but takes a best block at a lower height for a reorganisation. After a start the parts
//! of a node may have stopped at different blocks: the stream begins at the oldest, transactions
//! are told to all, and best blocks only once the newest is passed.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::block::Header;
use longhand_chain::{BlockRef, ChainEvent};

use crate::core::Core;
use crate::journal::lock;

/// A block's height, its header, and those of its transactions that concern the node.
pub(crate) type Connected = (u32, Header, Vec<(usize, Arc<Transaction>)>);

impl Core {
    /// Takes in one event of the follower.
    pub fn on_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::Connected {
                height,
                header,
                txs,
            } => {
                self.connect_wallet((height, header, txs.clone()));
                self.see_closings(txs.iter().map(|(_, tx)| &**tx));
                self.see_spends(txs.iter().map(|(_, tx)| &**tx));
                let of_ldk: Vec<(usize, &Transaction)> =
                    txs.iter().map(|(index, tx)| (*index, &**tx)).collect();
                let passed = height > self.height;
                for part in self.confirmables() {
                    if !of_ldk.is_empty() {
                        part.transactions_confirmed(&header, &of_ldk, height);
                    }
                    if passed {
                        part.best_block_updated(&header, height);
                    }
                }
                self.agreed_confirmed(height, txs.iter().map(|(_, tx)| &**tx));
                if passed {
                    self.bumps.block_connected(&lock(&self.wallet));
                    self.height = height;
                }
            }
            ChainEvent::Disconnected { fork } => self.disconnect(fork),
            ChainEvent::Synced { tip } => {
                if let Some(remote) = self.remote() {
                    remote.prune(tip.height);
                }
                self.chain_monitor.archive_fully_resolved_channel_monitors();
                self.forget_deep_agreed(tip.height);
                self.send_again();
                self.drop_lost_claims();
                self.end_resolved_claims();
            }
        }
    }

    /// The source may have lost what it was sent, and a process may end between a commit and the broadcast that it
    /// allows. LDK sends its own again with the next block, while it has a use for them.
    fn send_again(&self) {
        let waiting = lock(&self.wallet).waiting_own();
        let agreed = self.waiting_agreed().cloned();
        for tx in waiting.into_iter().chain(agreed) {
            self.broadcaster.push(vec![tx]);
        }
    }

    /// The wallet would go back to a block below its tip, and show too little until it had caught up. So such blocks
    /// wait for the one at its tip: if that is the wallet's own, it knows them all.
    fn connect_wallet(&mut self, block: Connected) {
        let tip = lock(&self.wallet).best_block();
        let is_tip = block.0 == tip.height && block.1.block_hash() == tip.hash;
        let is_below = block.0 < tip.height;
        self.replayed.push(block);
        if is_tip {
            self.replayed.clear();
        } else if !is_below {
            self.connect_replayed();
        }
    }

    fn connect_replayed(&mut self) {
        let mut wallet = lock(&self.wallet);
        for (height, header, txs) in self.replayed.drain(..) {
            if let Err(error) = wallet.connect_block(height, &header, &txs) {
                tracing::error!("{error}");
            }
        }
    }

    fn disconnect(&mut self, fork: BlockRef) {
        self.connect_replayed();
        if let Err(error) = lock(&self.wallet).disconnect_to(fork) {
            tracing::error!("{error}");
        }
        for part in self.confirmables() {
            for (txid, height, _) in part.get_relevant_txids() {
                if height > fork.height {
                    part.transaction_unconfirmed(&txid);
                }
            }
        }
        self.agreed_disconnected(fork.height);
        self.height = self.height.min(fork.height);
    }
}
