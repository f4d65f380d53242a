//! Telling a node what happens on the chain.
//!
//! LDK's `Confirm` allows blocks without anything for us to be skipped and transactions to be told
//! again, but takes a best block at a lower height for a reorganisation. After a start the parts
//! of a node may have stopped at different blocks: the stream begins at the oldest, transactions
//! are told to all, and best blocks only once the newest is passed.

use bitcoin::Transaction;
use longhand_chain::{BlockRef, ChainEvent};

use crate::core::Core;
use crate::journal::lock;

impl Core {
    /// Takes in one event of the follower.
    pub fn on_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::Connected {
                height,
                header,
                txs,
            } => {
                self.connect_wallet(height, &header, &txs);
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
                if passed {
                    // LDK brings those that are still needed again.
                    self.bumps.clear();
                    self.height = height;
                }
            }
            ChainEvent::Disconnected { fork } => self.disconnect(fork),
            ChainEvent::Synced { tip } => {
                if let Some(remote) = self.remote() {
                    remote.prune(tip.height);
                }
                self.chain_monitor.archive_fully_resolved_channel_monitors();
                self.send_again();
                self.drop_lost_claims();
            }
        }
    }

    /// The source may have lost what it was sent, and a process may end between a commit and the broadcast that it
    /// allows. LDK sends its own transactions again, not these.
    fn send_again(&self) {
        let waiting = lock(&self.wallet).waiting_own();
        for tx in waiting {
            self.broadcaster.push(vec![tx]);
        }
    }

    fn connect_wallet(
        &self,
        height: u32,
        header: &bitcoin::block::Header,
        txs: &[(usize, std::sync::Arc<Transaction>)],
    ) {
        let mut wallet = lock(&self.wallet);
        if let Err(error) = wallet.connect_block(height, header, txs) {
            tracing::error!("{error}");
        }
    }

    fn disconnect(&mut self, fork: BlockRef) {
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
        self.height = self.height.min(fork.height);
    }
}
