//! Telling a node what happens on the chain.
//!
//! LDK's `Confirm` allows blocks without anything for us to be skipped and transactions to be told
//! again, but takes a best block at a lower height for a reorganisation. After a start the parts
//! of a node may have stopped at different blocks: the stream begins at the oldest, transactions
//! are told to all, and best blocks only once the newest is passed. Whether the newest is still in
//! the chain is seen when the stream comes to its height, and nobody is told anything before.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::block::Header;
use lightning::chain::BlockLocator;
use longhand_chain::{BlockRef, ChainEvent};

use crate::core::Core;
use crate::journal::lock;

/// LDK hears of one in so many blocks at least, so that a node that catches up has something to show for it when it dies.
const BLOCKS_UNTOLD: u32 = 100;

/// A block's height, its header, and those of its transactions that concern the node.
pub(crate) type Connected = (u32, Header, Vec<(usize, Arc<Transaction>)>);

/// Blocks after the oldest that any part of a node knew when it was loaded, up to the newest.
pub(crate) struct Replay {
    from: BlockRef,
    newest: BlockLocator,
    /// In the order in which they came.
    blocks: Vec<Connected>,
}

impl Replay {
    /// Blocks after `fork` are gone, perhaps of those with which a part was stored. Of which parts is seen at the newest.
    fn disconnect(&mut self, fork: BlockRef) {
        self.blocks.retain(|(height, ..)| *height <= fork.height);
        if fork.height <= self.from.height {
            self.from = fork;
        }
    }

    /// Whether a block is not among those that have come.
    fn is_gone(&self, at: BlockRef) -> bool {
        at.height > self.from.height && !self.blocks.iter().any(|it| reference_of(it) == at)
    }
}

fn reference_of((height, header, _): &Connected) -> BlockRef {
    BlockRef {
        height: *height,
        hash: header.block_hash(),
    }
}

impl Core {
    /// A stream begins at `from`. Nothing has to be seen again by a node that has nothing in the chain.
    pub fn begin_replay(&mut self, from: BlockRef) {
        let newest = self.manager.current_best_block();
        let parts = self.confirmables();
        let is_in_chain = || parts.iter().any(|it| !it.get_relevant_txids().is_empty());
        let begins = from.height < newest.height && is_in_chain();
        self.replay = begins.then(|| {
            Box::new(Replay {
                from,
                newest,
                blocks: Vec::new(),
            })
        });
    }

    /// Takes in one event of the follower.
    pub fn on_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::Connected {
                height,
                header,
                txs,
            } => self.connected((height, header, txs)),
            ChainEvent::Disconnected { fork } => match &mut self.replay {
                Some(replay) => replay.disconnect(fork),
                None => self.disconnect(fork),
            },
            ChainEvent::Synced { tip } => {
                // The chain is shorter than it was.
                if let Some(replay) = self.replay.take() {
                    self.replay_anew(replay, tip);
                }
                self.tell_best();
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

    fn connected(&mut self, block: Connected) {
        let Some(mut replay) = self.replay.take() else {
            return self.connect(block);
        };
        let at = reference_of(&block);
        replay.blocks.push(block);
        if at.height < replay.newest.height {
            self.replay = Some(replay);
        } else if at.hash == replay.newest.block_hash {
            self.unconfirm_gone(&replay);
            replay.blocks.into_iter().for_each(|it| self.connect(it));
        } else {
            self.replay_anew(replay, at);
        }
    }

    /// The newest block is in the chain, but a part of the node may have been stored with one that is not: the node heard of
    /// the reorganisation, and that part was not written since.
    fn unconfirm_gone(&self, replay: &Replay) {
        for part in self.confirmables() {
            for (txid, height, hash) in part.get_relevant_txids() {
                if hash.is_some_and(|hash| replay.is_gone(BlockRef { height, hash })) {
                    part.transaction_unconfirmed(&txid);
                }
            }
        }
    }

    /// The chain was reorganised while the node was not there. `last` is the last of what has come that is in the chain.
    fn replay_anew(&mut self, mut replay: Box<Replay>, last: BlockRef) {
        replay.blocks.retain(|(height, ..)| *height <= last.height);
        let fork = match last.height < replay.from.height {
            true => last,
            false => self.fork(&replay),
        };
        tracing::info!(
            from = replay.newest.height,
            fork = fork.height,
            "the chain was reorganised before the node was loaded"
        );
        self.disconnect(fork);
        replay.blocks.into_iter().for_each(|it| self.connect(it));
    }

    /// The last block that has come and was known before: by itself, or by a transaction in it. What was known of later
    /// ones was of others.
    fn fork(&self, replay: &Replay) -> BlockRef {
        let parts = self.confirmables().into_iter();
        let txs: Vec<_> = parts.flat_map(|part| part.get_relevant_txids()).collect();
        let is_known = |at: &BlockRef| {
            let mut txs = txs.iter();
            replay.newest.get_hash_at_height(at.height) == Some(at.hash)
                || txs.any(|(_, height, hash)| *height == at.height && *hash == Some(at.hash))
        };
        let mut blocks = replay.blocks.iter().rev().map(reference_of);
        blocks.find(is_known).unwrap_or(replay.from)
    }

    fn connect(&mut self, (height, header, txs): Connected) {
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
        }
        self.agreed_confirmed(height, txs.iter().map(|(_, tx)| &**tx));
        if passed {
            self.best_untold = Some((header, height));
            let told = self.manager.current_best_block().height;
            let waits_long = height.saturating_sub(told) >= BLOCKS_UNTOLD;
            if self.has_forked || !of_ldk.is_empty() || waits_long {
                self.tell_best();
            }
            self.bumps.block_connected(&**lock(&self.wallet));
            self.height = height;
            // At once: after a reorganisation the chain may be lower when it is next at rest.
            self.give_back_late_claims();
        }
    }

    /// Of several blocks without anything for us LDK hears of the last alone: with each it pays a quarter more for a claim
    /// whose end is near, and of those of some hours together, after a host was away, it would pay all of it before the
    /// first was sent.
    ///
    /// Not of one with a transaction: what is stored with that transaction must not be ahead of where the stream begins after
    /// a start, or nobody would hear that the block is no longer in the chain.
    fn tell_best(&mut self) {
        let Some((header, height)) = self.best_untold.take() else {
            return;
        };
        for part in self.confirmables() {
            part.best_block_updated(&header, height);
        }
        self.has_forked = false;
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
        self.best_untold = None;
        // A best block that is lower tells LDK so: the next one, before those that may be higher.
        self.has_forked = true;
    }
}
