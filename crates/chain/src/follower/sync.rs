//! Polls the source and moves every subscriber to its tip, block by block.
//!
//! A step fetches the block after a cursor and checks that it builds on that cursor. So nothing is assumed about the
//! source's chain from one request to the next: when it changes meanwhile, a step does not fit, and the fork is
//! searched.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction};
use tokio::time::Instant;

use super::Shared;
use super::recent::Recent;
use crate::{BlockRef, ChainError, ChainEvent, FeeRates};

/// Blocks kept for subscribers whose cursors are close to each other.
const BLOCK_CACHE: usize = 16;
/// Headers kept to find forks without the source: those of two weeks.
const HEADER_CACHE: usize = 2_016;
/// Steps for subscribers that are behind, before the tip is polled again for the others.
const STEPS_PER_ROUND: usize = 100;
/// Age at which fee rates and the state of the source are fetched again.
const REFRESH_AGE: Duration = Duration::from_secs(30);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The follower's task.
pub(super) async fn run(shared: Arc<Shared>, poll_interval: Duration) {
    let mut sync = Sync {
        shared: shared.clone(),
        blocks: Recent::new(BLOCK_CACHE),
        headers: Recent::new(HEADER_CACHE),
        live: None,
        refreshed_at: None,
        waited_for: HashSet::new(),
        is_down_logged: false,
        had_estimate: true,
    };
    let mut backoff = MIN_BACKOFF;
    loop {
        let wait = match sync.round().await {
            Ok(Progress::More) => {
                backoff = MIN_BACKOFF;
                continue;
            }
            Ok(Progress::Done) => {
                backoff = MIN_BACKOFF;
                poll_interval
            }
            Err(error) => {
                sync.set_reachable(Some(&error));
                let wait = backoff;
                backoff = (backoff * 2).min(MAX_BACKOFF);
                wait
            }
        };
        // Either starts the next round; the notification first, so that it is used up and starts no second one.
        tokio::select! {
            biased;
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Result of a round.
enum Progress {
    /// A subscriber is still behind.
    More,
    /// Every subscriber is at the tip, or waits for the source.
    Done,
}

/// Result of a step.
enum Step {
    /// The subscribers are at another block now.
    Moved(BlockRef),
    /// The source does not have the next block yet.
    Wait,
}

struct Sync {
    shared: Arc<Shared>,
    blocks: Recent<BlockHash, Arc<Block>>,
    headers: Recent<BlockHash, Header>,
    /// The tip of the last round, where most subscribers are.
    live: Option<BlockRef>,
    refreshed_at: Option<Instant>,
    /// Cursors that wait for the source, so that each is logged once.
    waited_for: HashSet<BlockHash>,
    /// Whether it was logged that the source is down.
    is_down_logged: bool,
    /// Whether fee rates were estimates the last time, so that a change is logged once.
    had_estimate: bool,
}

impl Sync {
    async fn round(&mut self) -> Result<Progress, ChainError> {
        self.remove_closed();
        let tip = self.shared.source.blocks.tip().await?;
        self.set_reachable(None);
        if self.refreshed_at.is_none() {
            // Before the tip is known: a node that starts with it may pay at once.
            self.refresh(true).await?;
        }
        let is_new = self.shared.tips.borrow().is_none_or(|known| known != tip);
        // Subscribers at the old tip first: they do not wait for those that are behind.
        let live = self.live.replace(tip);
        let mut stuck = HashSet::new();
        let mut at = live.filter(|live| self.cursors().contains(&order(live)));
        while let Some(cursor) = at.filter(|cursor| *cursor != tip) {
            at = self.step_or_stick(cursor, tip, &mut stuck).await?;
        }
        self.report_synced(tip);
        if is_new {
            self.shared.tips.send_replace(Some(tip));
        }
        self.refresh(is_new).await?;
        for _ in 0..STEPS_PER_ROUND {
            // The cursor that is farthest behind moves, with all subscribers at it.
            let Some(cursor) = self.behind(tip, &stuck) else {
                break;
            };
            self.step_or_stick(cursor, tip, &mut stuck).await?;
        }
        self.report_synced(tip);
        Ok(if self.behind(tip, &stuck).is_some() {
            Progress::More
        } else {
            Progress::Done
        })
    }

    async fn step_or_stick(
        &mut self,
        cursor: BlockRef,
        tip: BlockRef,
        stuck: &mut HashSet<BlockHash>,
    ) -> Result<Option<BlockRef>, ChainError> {
        match self.step(cursor, tip).await {
            Ok(Step::Moved(to)) => {
                self.waited_for.remove(&cursor.hash);
                return Ok(Some(to));
            }
            Ok(Step::Wait) => {}
            Err(error) if error.is_source_unavailable() => return Err(error),
            // A block that the source does not have (pruned, say) stops this cursor alone.
            Err(error) => self.log_wait(cursor, &format!("cannot go on from here: {error}")),
        }
        stuck.insert(cursor.hash);
        Ok(None)
    }

    /// Moves all subscribers at `cursor` by one block, or back to the fork.
    async fn step(&mut self, cursor: BlockRef, tip: BlockRef) -> Result<Step, ChainError> {
        if cursor.height < tip.height {
            let height = cursor.height + 1;
            let hash = if height == tip.height {
                tip.hash
            } else {
                self.shared.source.blocks.hash_at(height).await?
            };
            let block = self.block(hash).await?;
            if block.header.prev_blockhash == cursor.hash {
                let next = BlockRef { height, hash };
                self.shared.headers.connected(next, &block.header).await;
                self.connect(cursor, next, &block);
                return Ok(Step::Moved(next));
            }
        }
        match self.find_fork(cursor).await {
            // The cursor is in the best chain: the tip that was seen no longer is.
            Ok(fork) if fork == cursor => Ok(Step::Wait),
            // The source's chain is shorter, and no other block replaces the missing ones.
            Ok(fork) if fork == tip => {
                self.log_wait(
                    cursor,
                    "the chain source is behind what nodes know: waiting for it",
                );
                Ok(Step::Wait)
            }
            Ok(fork) => {
                tracing::info!(
                    from = cursor.height,
                    fork = fork.height,
                    "the chain was reorganised"
                );
                self.disconnect(cursor, fork);
                Ok(Step::Moved(fork))
            }
            Err(ChainError::NotFound(_)) => {
                self.log_wait(
                    cursor,
                    "the chain source does not know a block that a node knows: waiting for it",
                );
                Ok(Step::Wait)
            }
            Err(error) => Err(error),
        }
    }

    /// The last block of the chain that ends with `from` which is in the source's best chain.
    async fn find_fork(&self, from: BlockRef) -> Result<BlockRef, ChainError> {
        let mut at = from;
        loop {
            match self.shared.source.blocks.hash_at(at.height).await {
                Ok(hash) if hash == at.hash => return Ok(at),
                Ok(_) | Err(ChainError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            let header = match self.headers.get(&at.hash) {
                Some(header) => *header,
                None => self.shared.source.blocks.header(&at.hash).await?.0,
            };
            let height = at.height.checked_sub(1);
            let height = height.ok_or_else(|| ChainError::NotFound("the genesis block".into()))?;
            at = BlockRef {
                height,
                hash: header.prev_blockhash,
            };
        }
    }

    async fn block(&mut self, hash: BlockHash) -> Result<Arc<Block>, ChainError> {
        if let Some(block) = self.blocks.get(&hash) {
            return Ok(block.clone());
        }
        let block = Arc::new(self.shared.source.blocks.block(&hash).await?);
        self.headers.insert(hash, block.header);
        self.blocks.insert(hash, block.clone());
        Ok(block)
    }

    fn connect(&self, cursor: BlockRef, next: BlockRef, block: &Block) {
        let mut subscribers = self.shared.subscribers();
        let at_cursor = subscribers
            .by_id
            .iter()
            .filter(|(_, subscriber)| subscriber.cursor == cursor);
        let members: HashSet<_> = at_cursor.map(|(id, _)| *id).collect();
        let mut matches = subscribers.index.matches(block, &members);
        let wanted: BTreeSet<usize> = matches.values().flatten().copied().collect();
        let txs: std::collections::HashMap<usize, Arc<Transaction>> = wanted
            .into_iter()
            .map(|index| (index, Arc::new(block.txdata[index].clone())))
            .collect();
        for id in members {
            let Some(subscriber) = subscribers.by_id.get_mut(&id) else {
                continue;
            };
            let indices = matches.remove(&id).unwrap_or_default();
            let txs = indices
                .into_iter()
                .map(|index| (index, txs[&index].clone()))
                .collect();
            let event = ChainEvent::Connected {
                height: next.height,
                header: block.header,
                txs,
            };
            // A subscriber that is gone is removed in the next round.
            let _ = subscriber.events.send(event);
            subscriber.cursor = next;
        }
    }

    fn disconnect(&self, cursor: BlockRef, fork: BlockRef) {
        for subscriber in self.shared.subscribers().by_id.values_mut() {
            if subscriber.cursor == cursor {
                let _ = subscriber.events.send(ChainEvent::Disconnected { fork });
                subscriber.cursor = fork;
                subscriber.synced_at = None;
            }
        }
    }

    fn report_synced(&self, tip: BlockRef) {
        let mut subscribers = self.shared.subscribers();
        let super::Subscribers { index, by_id, .. } = &mut *subscribers;
        for (id, subscriber) in by_id {
            if subscriber.cursor == tip && subscriber.synced_at != Some(tip) {
                let _ = subscriber.events.send(ChainEvent::Synced { tip });
                subscriber.synced_at = Some(tip);
                index.synced(*id);
            }
        }
    }

    fn cursors(&self) -> BTreeSet<(u32, BlockHash)> {
        self.shared
            .subscribers()
            .by_id
            .values()
            .map(|subscriber| order(&subscriber.cursor))
            .collect()
    }

    /// The lowest cursor that is not at the tip and can move.
    fn behind(&self, tip: BlockRef, stuck: &HashSet<BlockHash>) -> Option<BlockRef> {
        let cursors = self.cursors();
        let mut movable = cursors
            .iter()
            .filter(|(_, hash)| *hash != tip.hash && !stuck.contains(hash));
        movable.next().map(|(height, hash)| BlockRef {
            height: *height,
            hash: *hash,
        })
    }

    fn remove_closed(&self) {
        let mut subscribers = self.shared.subscribers();
        let closed = subscribers
            .by_id
            .iter()
            .filter(|(_, subscriber)| subscriber.events.is_closed());
        let closed: Vec<_> = closed.map(|(id, _)| *id).collect();
        for id in closed {
            subscribers.by_id.remove(&id);
            subscribers.index.remove(id);
        }
    }

    /// Asks for fee rates and the state of the source, with each block and from time to time.
    async fn refresh(&mut self, is_new_block: bool) -> Result<(), ChainError> {
        if !is_new_block
            && self
                .refreshed_at
                .is_some_and(|at| at.elapsed() < REFRESH_AGE)
        {
            return Ok(());
        }
        match self.shared.source.fees.fee_rates().await {
            Ok(fee_rates) => self.set_fee_rates(fee_rates),
            Err(error) if error.is_source_unavailable() => return Err(error),
            // The last estimate stays: blocks matter more.
            Err(error) => tracing::warn!("no fee rates: {error}"),
        }
        match self.shared.source.blocks.health().await {
            Ok(health) => self.shared.status().health = health,
            Err(error) if error.is_source_unavailable() => return Err(error),
            Err(error) => tracing::debug!("the chain source's state is not known: {error}"),
        }
        self.refreshed_at = Some(Instant::now());
        Ok(())
    }

    /// Records an answer, and logs when there is no estimate to use, or one again.
    fn set_fee_rates(&mut self, answer: FeeRates) {
        let now = Instant::now();
        let used = {
            let mut status = self.shared.status();
            status.fees.answered(answer, now);
            status.fees.rates(now)
        };
        let sat_per_kw = used.normal;
        match (self.had_estimate, used.is_estimate) {
            (true, false) => tracing::warn!(
                sat_per_kw,
                "the chain source has no fee estimate: the fallback is used, and payments need a fee rate of their own"
            ),
            (false, true) => {
                tracing::info!(sat_per_kw, "the chain source has a fee estimate again")
            }
            _ => {}
        }
        self.had_estimate = used.is_estimate;
    }

    /// Records whether the source answers, and logs a change.
    fn set_reachable(&mut self, error: Option<&ChainError>) {
        self.shared.status().reachable = error.is_none();
        match error {
            Some(error) if !self.is_down_logged => tracing::warn!("{error}"),
            Some(error) => tracing::debug!("{error}"),
            None if self.is_down_logged => tracing::info!("the chain source answers again"),
            None => {}
        }
        self.is_down_logged = error.is_some();
    }

    fn log_wait(&mut self, cursor: BlockRef, what: &str) {
        if self.waited_for.insert(cursor.hash) {
            tracing::warn!(height = cursor.height, hash = %cursor.hash, "{what}");
        }
    }
}

fn order(block: &BlockRef) -> (u32, BlockHash) {
    (block.height, block.hash)
}
