//! The follower's events, and the order in which the parts of a node get them.
//!
//! LDK's `Confirm` allows blocks without transactions of the node to be skipped and transactions to be given again, but
//! takes a best block at a lower height for a reorganisation. After a start the parts of a node may have been stored with
//! different blocks: the stream begins at the oldest, all parts get its transactions, and LDK gets best blocks only above
//! its newest. Whether the newest is still in the chain is known when the stream comes to its height; no part gets
//! anything before.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::block::Header;
use lightning::chain::BlockLocator;
use longhand_chain::{BlockRef, ChainEvent, WatchList};

use crate::machine::turn::Turn;

/// LDK gets one in so many blocks at least, so that a node that catches up keeps a part of its way when it dies.
const BLOCKS_SKIPPED: u32 = 100;

/// A block with those of its transactions that concern the node.
#[derive(Clone)]
pub(crate) struct Block {
    pub height: u32,
    pub header: Header,
    /// With their indices in the block.
    pub txs: Vec<(usize, Arc<Transaction>)>,
}

impl Block {
    fn reference(&self) -> BlockRef {
        BlockRef {
            height: self.height,
            hash: self.header.block_hash(),
        }
    }

    pub fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.txs.iter().map(|(_, tx)| &**tx)
    }
}

/// One step of all parts along the chain.
pub(crate) enum Step {
    Connect(Block),
    /// Blocks above this one have left the chain.
    Disconnect(BlockRef),
    /// The stream is at the chain's tip.
    Synced(BlockRef),
}

/// Blocks after the oldest that any part of a node knew when it was loaded, up to the newest.
struct Replay {
    from: BlockRef,
    newest: BlockLocator,
    /// In the order in which they came.
    blocks: Vec<Block>,
}

impl Replay {
    /// Blocks after `fork` are gone, perhaps some with which a part was stored. Which parts is known at the newest block.
    fn disconnect(&mut self, fork: BlockRef) {
        self.blocks.retain(|block| block.height <= fork.height);
        if fork.height <= self.from.height {
            self.from = fork;
        }
    }

    /// Whether a block is not among those that have come.
    fn is_gone(&self, at: BlockRef) -> bool {
        at.height > self.from.height && !self.blocks.iter().any(|it| it.reference() == at)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct ChainFeed {
    /// While it is not known whether LDK's newest block is in the chain.
    replay: Option<Box<Replay>>,
    /// Blocks that the wallet may know already.
    before_wallet: Vec<Block>,
    /// The newest block, while LDK has not got it as its best.
    best_unreported: Option<(Header, u32)>,
    /// LDK's best block may be one that has left the chain.
    has_forked: bool,
}

impl ChainFeed {
    /// Where the node's stream begins, with everything to be watched: see
    /// [`NodeMachine::subscription`](crate::machine::NodeMachine::subscription).
    pub fn subscription(&mut self, turn: &Turn) -> (BlockRef, WatchList) {
        let mut from = turn.ldk.oldest_block();
        let mut watch = turn.ldk.filter.take_initial();
        let mut wallet = turn.wallet();
        if wallet.best_block().height < from.height {
            from = wallet.best_block();
        }
        let of_wallet = wallet.take_new_watches();
        drop(wallet);
        watch.scripts.extend(of_wallet.scripts);
        watch.outpoints.extend(of_wallet.outpoints);
        self.begin(turn, from);
        (from, watch)
    }

    /// A stream begins at `from`. Nothing has to be replayed for a node without transactions in the chain.
    pub fn begin(&mut self, turn: &Turn, from: BlockRef) {
        let newest = turn.ldk.manager.current_best_block();
        let parts = turn.ldk.confirmables();
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

    /// The steps that an event leads to, in order.
    pub fn steps(&mut self, turn: &Turn, event: ChainEvent) -> Vec<Step> {
        match event {
            ChainEvent::Connected {
                height,
                header,
                txs,
            } => self.connected(
                turn,
                Block {
                    height,
                    header,
                    txs,
                },
            ),
            ChainEvent::Disconnected { fork } => match &mut self.replay {
                Some(replay) => {
                    replay.disconnect(fork);
                    Vec::new()
                }
                None => vec![Step::Disconnect(fork)],
            },
            ChainEvent::Synced { tip } => {
                let mut steps = match self.replay.take() {
                    // The chain is shorter than it was.
                    Some(replay) => replay_onto_fork(turn, replay, tip),
                    None => Vec::new(),
                };
                steps.push(Step::Synced(tip));
                steps
            }
        }
    }

    fn connected(&mut self, turn: &Turn, block: Block) -> Vec<Step> {
        let Some(mut replay) = self.replay.take() else {
            return vec![Step::Connect(block)];
        };
        let at = block.reference();
        replay.blocks.push(block);
        if at.height < replay.newest.height {
            self.replay = Some(replay);
            Vec::new()
        } else if at.hash == replay.newest.block_hash {
            unconfirm_gone(turn, &replay);
            replay.blocks.into_iter().map(Step::Connect).collect()
        } else {
            replay_onto_fork(turn, replay, at)
        }
    }

    /// Gives the wallet a block. It would go back to a block below its tip, and show too little until it had caught up. So
    /// such blocks wait for the one at its tip: if that is the wallet's own, the wallet knows them all.
    pub fn connect_wallet(&mut self, turn: &Turn, block: &Block) {
        let tip = turn.wallet().best_block();
        let is_tip = block.reference() == tip;
        let is_below = block.height < tip.height;
        self.before_wallet.push(block.clone());
        if is_tip {
            self.before_wallet.clear();
        } else if !is_below {
            self.flush_wallet(turn);
        }
    }

    fn flush_wallet(&mut self, turn: &Turn) {
        let mut wallet = turn.wallet();
        for block in self.before_wallet.drain(..) {
            let connected = wallet.connect_block(block.height, &block.header, &block.txs);
            if let Err(error) = connected {
                tracing::error!("{error}");
            }
        }
    }

    /// Gives LDK the transactions of a block.
    pub fn confirm(&self, turn: &Turn, block: &Block) {
        let txs = block.txs.iter().map(|(index, tx)| (*index, &**tx));
        let txs: Vec<(usize, &Transaction)> = txs.collect();
        if !txs.is_empty() {
            for part in turn.ldk.confirmables() {
                part.transactions_confirmed(&block.header, &txs, block.height);
            }
        }
    }

    /// A block above the node's height: LDK's best block, if it does not wait for a newer one.
    ///
    /// Of several blocks without transactions of the node, LDK gets the last one alone: with each it pays a quarter more
    /// for a claim whose end is near, and for the blocks of some hours, after a host was away, it would pay all of the
    /// claim before the first was broadcast. A block with a transaction does not wait: a part that is stored with that
    /// transaction must not be ahead of the block at which the stream begins after a start, or no part would learn that
    /// the block is no longer in the chain.
    pub fn new_best(&mut self, turn: &Turn, block: &Block) {
        self.best_unreported = Some((block.header, block.height));
        let reported = turn.ldk.manager.current_best_block().height;
        let waits_long = block.height.saturating_sub(reported) >= BLOCKS_SKIPPED;
        if self.has_forked || !block.txs.is_empty() || waits_long {
            self.report_tip(turn);
        }
    }

    /// Gives LDK the newest block as its best.
    pub fn report_tip(&mut self, turn: &Turn) {
        let Some((header, height)) = self.best_unreported.take() else {
            return;
        };
        for part in turn.ldk.confirmables() {
            part.best_block_updated(&header, height);
        }
        self.has_forked = false;
    }

    /// Blocks above `fork` have left the chain. LDK takes a lower best block for that: the next one is reported at once, before
    /// those that may be higher.
    pub fn disconnect(&mut self, turn: &mut Turn, fork: BlockRef) {
        self.flush_wallet(turn);
        if let Err(error) = turn.wallet().disconnect_to(fork) {
            tracing::error!("{error}");
        }
        for part in turn.ldk.confirmables() {
            for (txid, height, _) in part.get_relevant_txids() {
                if height > fork.height {
                    part.transaction_unconfirmed(&txid);
                }
            }
        }
        turn.height = turn.height.min(fork.height);
        self.best_unreported = None;
        self.has_forked = true;
    }
}

/// Broadcasts again the wallet's unconfirmed transactions and `closes`: the source may have lost one, and a process may end
/// between a commit and the broadcast that it allows. LDK broadcasts its own again with the next block, while it has a use
/// for them.
pub(crate) fn broadcast_again<'a>(turn: &Turn, closes: impl Iterator<Item = &'a Transaction>) {
    let waiting = turn.wallet().waiting_own();
    for tx in waiting.into_iter().chain(closes.cloned()) {
        turn.ldk.broadcaster.push(vec![tx]);
    }
}

/// The newest block is in the chain, but a part of the node may have been stored with one that is not: the node got the
/// reorganisation, and that part was not written since.
fn unconfirm_gone(turn: &Turn, replay: &Replay) {
    for part in turn.ldk.confirmables() {
        for (txid, height, hash) in part.get_relevant_txids() {
            if hash.is_some_and(|hash| replay.is_gone(BlockRef { height, hash })) {
                part.transaction_unconfirmed(&txid);
            }
        }
    }
}

/// The chain was reorganised while the node was not running. `last` is the last block that has come and is in the chain.
fn replay_onto_fork(turn: &Turn, mut replay: Box<Replay>, last: BlockRef) -> Vec<Step> {
    replay.blocks.retain(|block| block.height <= last.height);
    let fork = match last.height < replay.from.height {
        true => last,
        false => find_fork(turn, &replay),
    };
    tracing::info!(
        from = replay.newest.height,
        fork = fork.height,
        "the chain was reorganised before the node was loaded"
    );
    let connect = replay.blocks.into_iter().map(Step::Connect);
    std::iter::once(Step::Disconnect(fork))
        .chain(connect)
        .collect()
}

/// The last block that has come and was known before: by itself, or by a transaction in it. Later blocks that the node
/// knew are others.
fn find_fork(turn: &Turn, replay: &Replay) -> BlockRef {
    let parts = turn.ldk.confirmables().into_iter();
    let txs: Vec<_> = parts.flat_map(|part| part.get_relevant_txids()).collect();
    let is_known = |at: &BlockRef| {
        let mut txs = txs.iter();
        replay.newest.get_hash_at_height(at.height) == Some(at.hash)
            || txs.any(|(_, height, hash)| *height == at.height && *hash == Some(at.hash))
    };
    let mut blocks = replay.blocks.iter().rev().map(Block::reference);
    blocks.find(is_known).unwrap_or(replay.from)
}

#[cfg(test)]
#[path = "tests/chain_feed.rs"]
mod tests;
