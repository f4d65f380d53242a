//! Looks up the funding output of an announced channel: the graph takes only channels whose funding output exists and is
//! unspent (BOLT 7).
//!
//! A new graph needs tens of thousands of look-ups, many of them in the same blocks. Those that wait are sorted by block:
//! the transaction ids of a block are fetched once for all its channels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::{Network, OutPoint, TxOut, Txid};
use lightning::routing::utxo::{UtxoFuture, UtxoLookup, UtxoLookupError, UtxoResult};
use lightning::util::wakers::Notifier;
use longhand_chain::{Chain, ChainError, OutputLookup};
use tokio::runtime::Handle;

use crate::store::journal::lock;

/// Blocks that are looked up at once; more wait.
const BLOCKS_AT_ONCE: usize = 16;

/// How long one request may take. LDK holds back other gossip while too many look-ups are open.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the chain source for the funding outputs of announced channels, in tasks of its own.
pub(crate) struct FundingLookup {
    chain_hash: ChainHash,
    chain: Arc<dyn Chain>,
    runtime: Handle,
    queue: Arc<Queue>,
}

impl FundingLookup {
    /// Must be called within the tokio runtime on which the lookups are to run.
    pub fn new(network: Network, chain: Arc<dyn Chain>) -> FundingLookup {
        FundingLookup {
            chain_hash: ChainHash::using_genesis_block(network),
            chain,
            runtime: Handle::current(),
            queue: Arc::default(),
        }
    }
}

impl UtxoLookup for FundingLookup {
    fn get_utxo(
        &self,
        chain_hash: &ChainHash,
        short_channel_id: u64,
        done: Arc<Notifier>,
    ) -> UtxoResult {
        if *chain_hash != self.chain_hash {
            return UtxoResult::Sync(Err(UtxoLookupError::UnknownChain));
        }
        let answer = UtxoFuture::new(done);
        let (height, lookup) = lookup(short_channel_id, answer.clone());
        if self.queue.add(height, lookup) {
            let (outputs, queue) = (self.chain.outputs(), self.queue.clone());
            self.runtime
                .spawn(async move { queue.work(&*outputs).await });
        }
        UtxoResult::Async(answer)
    }
}

/// A look-up that waits, within its block.
struct Lookup {
    /// Of the transaction in the block.
    index: usize,
    /// Of the output in the transaction.
    vout: u32,
    answer: UtxoFuture,
}

/// A short channel id (BOLT 7: block height, transaction index, output index) as a height and a look-up.
fn lookup(short_channel_id: u64, answer: UtxoFuture) -> (u32, Lookup) {
    let height = (short_channel_id >> 40) as u32;
    let index = ((short_channel_id >> 16) & 0xff_ffff) as usize;
    let vout = (short_channel_id & 0xffff) as u32;
    let lookup = Lookup {
        index,
        vout,
        answer,
    };
    (height, lookup)
}

/// The look-ups that wait, by block, and the tasks that work on them.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    is_pruning_logged: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<u32, Vec<Lookup>>,
    tasks: usize,
}

impl Queue {
    /// Adds a look-up; true when another task is to be started for it.
    fn add(&self, height: u32, lookup: Lookup) -> bool {
        let mut state = lock(&self.state);
        state.waiting.entry(height).or_default().push(lookup);
        let starts = state.tasks < BLOCKS_AT_ONCE;
        state.tasks += usize::from(starts);
        starts
    }

    /// The look-ups of the next block; `None` ends the task.
    fn next(&self) -> Option<(u32, Vec<Lookup>)> {
        let mut state = lock(&self.state);
        let next = state.waiting.pop_first();
        state.tasks -= usize::from(next.is_none());
        next
    }

    async fn work(&self, outputs: &dyn OutputLookup) {
        while let Some((height, lookups)) = self.next() {
            let txids = self.in_time(outputs.block_txids(height)).await;
            for Lookup {
                index,
                vout,
                answer,
            } in lookups
            {
                let txid = txids.as_ref().and_then(|txids| txids.get(index));
                let output = self.unspent(outputs, txid, vout).await;
                answer.resolve(output.ok_or(UtxoLookupError::UnknownTx));
            }
        }
    }

    async fn unspent(
        &self,
        outputs: &dyn OutputLookup,
        txid: Option<&Txid>,
        vout: u32,
    ) -> Option<TxOut> {
        let outpoint = OutPoint { txid: *txid?, vout };
        self.in_time(outputs.unspent(&outpoint)).await
    }

    /// The answer of the chain source; `None` when there is none, or none in time.
    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<Option<T>, ChainError>>,
    ) -> Option<T> {
        match tokio::time::timeout(LOOKUP_TIMEOUT, request).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                self.log(&error);
                None
            }
            Err(_) => {
                tracing::debug!("looking up an announced channel took too long");
                None
            }
        }
    }

    fn log(&self, error: &ChainError) {
        if matches!(error, ChainError::Pruned)
            && !self.is_pruning_logged.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "announced channels cannot be verified, and are missing in the graph with all routes over them: {error}"
            );
        } else {
            tracing::debug!("an announced channel could not be looked up: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use bitcoin::hashes::Hash as _;

    use super::*;

    /// Counts what it is asked for.
    #[derive(Default)]
    struct Counting {
        blocks: AtomicUsize,
        outputs: AtomicUsize,
    }

    #[async_trait]
    impl OutputLookup for Counting {
        async fn block_txids(&self, _: u32) -> Result<Option<Vec<Txid>>, ChainError> {
            self.blocks.fetch_add(1, Ordering::Relaxed);
            Ok(Some(vec![Txid::all_zeros(); 3]))
        }

        async fn unspent(&self, _: &OutPoint) -> Result<Option<TxOut>, ChainError> {
            self.outputs.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
    }

    fn short_channel_id(height: u64, index: u64) -> u64 {
        (height << 40) | (index << 16)
    }

    #[tokio::test]
    async fn the_channels_of_a_block_are_looked_up_together() {
        let queue = Queue::default();
        let places = [(700_000, 0), (700_000, 1), (700_001, 0), (700_000, 2)];
        for (height, index) in places {
            let answer = UtxoFuture::new(Arc::new(Notifier::new()));
            let (height, lookup) = lookup(short_channel_id(height, index), answer);
            assert!(queue.add(height, lookup));
        }
        let source = Counting::default();
        queue.work(&source).await;
        assert_eq!(source.blocks.load(Ordering::Relaxed), 2);
        assert_eq!(source.outputs.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn no_more_than_so_many_blocks_are_looked_up_at_once() {
        let queue = Queue::default();
        let started = (0..100).filter(|height| {
            let answer = UtxoFuture::new(Arc::new(Notifier::new()));
            let (height, lookup) = lookup(short_channel_id(*height, 0), answer);
            queue.add(height, lookup)
        });
        assert_eq!(started.count(), BLOCKS_AT_ONCE);
    }
}
