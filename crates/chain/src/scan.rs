//! Searching blocks of the past for the coins of a restored wallet.
//!
//! A search goes on by requests: each begins where the one before ended, and ends at the first block with a match, since
//! that block may give the wallet more scripts to look for. No request keeps anything, so that a search can go on after a
//! restart, and only one block is in memory at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction};
use longhand_proto::Code;
use tokio::time::Instant;

use crate::follower::Index;
use crate::{BlockReader, BlockRef, ChainError, WatchList};

/// Blocks that one request searches at most.
pub const BLOCKS_PER_SCAN: u32 = 100;
/// How long one request may take, beyond the block in hand: other wallets wait for their turn.
const SCAN_TIME: Duration = Duration::from_secs(5);
/// How much older than its date the first block may be: block times may be two hours ahead of the clock, are not in order,
/// and an owner's date may be of any time zone.
const DATE_MARGIN_S: u64 = 86_400;
/// The one subscriber of a request's index.
const ONLY: u64 = 0;

/// A step of a search, in the chain that ends with `tip`.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The last block that the wallet's node knows.
    pub tip: BlockRef,
    /// The request.
    pub step: ScanStep,
}

/// The purpose of a [`ScanRequest`].
#[derive(Clone, Debug)]
pub enum ScanStep {
    /// The height at which a search for coins since this time (seconds since 1970) begins.
    FindHeight {
        /// See above.
        unix_s: u64,
    },
    /// The next block that pays to a watched script or spends a watched outpoint.
    FindBlock {
        /// Height of the first block to be searched; above the tip, no block is.
        from: u32,
        /// The hash of the block before it, when it is known.
        parent: Option<BlockHash>,
        /// Scripts, outpoints and transaction ids to look for.
        watch: WatchList,
    },
}

/// The answer to a [`ScanRequest`].
#[derive(Clone, Debug)]
pub enum ScanReply {
    /// For [`ScanStep::FindHeight`].
    Height(u32),
    /// For [`ScanStep::FindBlock`].
    Searched(Searched),
    /// The source's best chain does not have the tip: nothing was searched.
    OtherTip,
    /// It has the tip, and not the block before the first: nothing was searched.
    OtherParent,
}

/// Blocks that were searched.
#[derive(Clone, Debug)]
pub struct Searched {
    /// The last of them; `None` when there was none.
    pub reached: Option<BlockRef>,
    /// The transactions in it that match; none in all blocks before.
    pub found: Option<Found>,
    /// The source's height when the request began.
    pub source_height: u32,
}

/// A block with transactions that match, or spend one that does.
#[derive(Clone, Debug)]
pub struct Found {
    /// The block's header.
    pub header: Header,
    /// With their index in the block, in order.
    pub txs: Vec<(usize, Arc<Transaction>)>,
}

/// Why a block could not be searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The source has deleted the block's content.
    #[error(
        "the host's chain source has pruned block {height}: the host's operator has to use one that has \
         the blocks from there on (Bitcoin Core with prune=0); until then coins of those blocks are missing"
    )]
    Pruned {
        /// The block's height.
        height: u32,
    },
    /// The source failed.
    #[error("block {height} cannot be searched now: {error}")]
    Source {
        /// The block's height.
        height: u32,
        /// The source's error.
        error: ChainError,
    },
}

impl ScanError {
    fn at(height: u32, error: ChainError) -> ScanError {
        match error {
            ChainError::Pruned => ScanError::Pruned { height },
            error => ScanError::Source { height, error },
        }
    }

    /// A stable code, for programs.
    pub fn code(&self) -> Code {
        match self {
            ScanError::Pruned { .. } => Code::BlockPruned,
            ScanError::Source { .. } => Code::BlockUnavailable,
        }
    }

    /// Whether the source as a whole cannot be used now, so that it is soon asked again.
    pub fn is_source_unavailable(&self) -> bool {
        matches!(self, ScanError::Source { error, .. } if error.is_source_unavailable())
    }
}

/// Answers a request from `blocks`.
///
/// # Errors
/// [`ScanError`], with the height of the block that could not be read.
pub async fn scan(blocks: &dyn BlockReader, request: &ScanRequest) -> Result<ScanReply, ScanError> {
    let tip = request.tip;
    let source = blocks.tip().await;
    let source_height = source.map_err(|e| ScanError::at(tip.height, e))?.height;
    let reply = match &request.step {
        ScanStep::FindHeight { unix_s } => {
            let height = find_height(blocks, *unix_s, tip.height).await?;
            height.map(ScanReply::Height)
        }
        ScanStep::FindBlock {
            from,
            parent,
            watch,
        } => {
            let mut search = Search::new(watch.clone(), source_height);
            let searched = search.run(blocks, *from, *parent, tip.height).await?;
            searched.map(ScanReply::Searched)
        }
    };
    // Afterwards, so that every block that was read by its height is an ancestor of the tip.
    let is_best = hash_at(blocks, tip.height).await? == Some(tip.hash);
    Ok(match is_best {
        true => reply.unwrap_or(ScanReply::OtherParent),
        false => ScanReply::OtherTip,
    })
}

/// The hash at a height; `None` above the source's tip.
async fn hash_at(blocks: &dyn BlockReader, height: u32) -> Result<Option<BlockHash>, ScanError> {
    match blocks.hash_at(height).await {
        Ok(hash) => Ok(Some(hash)),
        Err(ChainError::NotFound(_)) => Ok(None),
        Err(error) => Err(ScanError::at(height, error)),
    }
}

/// The first height whose block is not older than a day before `unix_s`; one above `last` when all are. `None` when the
/// source's chain is shorter meanwhile.
async fn find_height(
    blocks: &dyn BlockReader,
    unix_s: u64,
    last: u32,
) -> Result<Option<u32>, ScanError> {
    let since = unix_s.saturating_sub(DATE_MARGIN_S);
    let (mut low, mut high) = (0, last.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(hash) = hash_at(blocks, middle).await? else {
            return Ok(None);
        };
        let header = blocks.header(&hash).await;
        let (header, _) = header.map_err(|error| ScanError::at(middle, error))?;
        match u64::from(header.time) < since {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok(Some(low))
}

/// One request's way through the blocks.
struct Search {
    index: Index,
    members: HashSet<u64>,
    source_height: u32,
    begun: Instant,
}

impl Search {
    fn new(watch: WatchList, source_height: u32) -> Search {
        let mut index = Index::default();
        index.add(ONLY, watch);
        Search {
            index,
            members: HashSet::from([ONLY]),
            source_height,
            begun: Instant::now(),
        }
    }

    /// `None` when a block does not build on the one before.
    async fn run(
        &mut self,
        blocks: &dyn BlockReader,
        from: u32,
        mut parent: Option<BlockHash>,
        last: u32,
    ) -> Result<Option<Searched>, ScanError> {
        let mut reached = None;
        let mut found = None;
        let end = last.min(from.saturating_add(BLOCKS_PER_SCAN - 1));
        for height in from..=end {
            let Some(hash) = hash_at(blocks, height).await? else {
                return Ok(None);
            };
            let block = blocks.block(&hash).await;
            let block = block.map_err(|error| ScanError::at(height, error))?;
            if parent.is_some_and(|parent| parent != block.header.prev_blockhash) {
                return Ok(None);
            }
            reached = Some(BlockRef { height, hash });
            parent = Some(hash);
            found = self.matches(block);
            if found.is_some() || self.begun.elapsed() >= SCAN_TIME {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(Some(Searched {
            reached,
            found,
            source_height: self.source_height,
        }))
    }

    fn matches(&mut self, block: Block) -> Option<Found> {
        let indices = self.index.matches(&block, &self.members).remove(&ONLY)?;
        let header = block.header;
        let txs = block.txdata.into_iter().enumerate();
        let txs = txs.filter(|(index, _)| indices.contains(index));
        Some(Found {
            header,
            txs: txs.map(|(index, tx)| (index, Arc::new(tx))).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
