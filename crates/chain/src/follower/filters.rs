//! Compact filters of the best chain (BIP 157), for signers that check by them that their channels are not closed.
//!
//! All signers of a host are shown the same filters, mostly at the same time, with a new block or when they wake up: each filter is fetched
//! once, and those that were fetched last are kept in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::BlockHash;
use bitcoin::bip158::FilterHeader;
use bitcoin::block::Header;
use longhand_spv::filter::filter_hash;
use tokio::sync::Semaphore;

use super::headers::{HeaderServer, moved};
use crate::{BlockFilter, BlockReader, BlockRef, ChainError, FiltersReply, FiltersRequest};

/// The most filters of one reply.
const MOST_PER_REPLY: usize = 1_000;
/// The most bytes of the filters of one reply: a dozen blocks of mainnet. On a slow link they are in the way of a channel's operations.
const MOST_BYTES_PER_REPLY: usize = 256 << 10;
/// The most bytes of the filters that are kept: some ten days of mainnet.
const MOST_BYTES_KEPT: usize = 32 << 20;
/// What a filter takes beside its bytes, at most: small ones are bounded by it.
const ENTRY_BYTES: usize = 256;
/// Whole blocks that are read at once.
const BLOCKS_AT_ONCE: usize = 2;

/// See the module.
pub(super) struct FilterServer {
    kept: Mutex<Kept>,
    /// One filter is fetched at a time: those who wait for it then find it kept.
    fetch: tokio::sync::Mutex<()>,
    blocks: Semaphore,
}

/// The filters that were fetched last.
struct Kept {
    most_bytes: usize,
    bytes: usize,
    /// The oldest first.
    order: VecDeque<BlockHash>,
    by_block: HashMap<BlockHash, Arc<BlockFilter>>,
}

impl FilterServer {
    pub fn new() -> FilterServer {
        FilterServer::keeping(MOST_BYTES_KEPT)
    }

    fn keeping(most_bytes: usize) -> FilterServer {
        FilterServer {
            kept: Mutex::new(Kept {
                most_bytes,
                bytes: 0,
                order: VecDeque::new(),
                by_block: HashMap::new(),
            }),
            fetch: tokio::sync::Mutex::default(),
            blocks: Semaphore::new(BLOCKS_AT_ONCE),
        }
    }

    /// The filters of the chain that ends with `tip`.
    pub async fn from(
        &self,
        source: &dyn BlockReader,
        headers: &HeaderServer,
        tip: BlockRef,
        request: &FiltersRequest,
    ) -> Result<FiltersReply, ChainError> {
        let most = if request.with_block {
            1
        } else {
            MOST_PER_REPLY
        };
        let below = below(request.from, tip)?;
        // First of all, since a source without filters is not to be asked for years of headers in vain.
        self.filter(source, &tip.hash).await?;
        // Of one chain, so that all filters are.
        let headers = headers.at(source, tip, below, most + 1).await?;
        let hashes: Vec<BlockHash> = headers.iter().map(Header::block_hash).collect();
        let (below, hashes) = hashes.split_first().ok_or_else(moved)?;
        let (previous, filters) = self.run(source, below, hashes).await?;
        let block = match hashes.first().filter(|_| request.with_block) {
            Some(hash) => {
                let _permit = self.blocks.acquire().await;
                Some(source.block(hash).await?)
            }
            None => None,
        };
        Ok(FiltersReply {
            first_height: request.from,
            previous,
            blocks: hashes[..filters.len()].to_vec(),
            filters,
            block,
            tip,
        })
    }

    /// The filter header of the block `below`, and the filters of those that follow it, as many as one reply has.
    async fn run(
        &self,
        source: &dyn BlockReader,
        below: &BlockHash,
        hashes: &[BlockHash],
    ) -> Result<(FilterHeader, Vec<Vec<u8>>), ChainError> {
        let previous = self.filter(source, below).await?.header;
        let (mut filters, mut bytes) = (Vec::new(), 0);
        let (mut last_block, mut last) = (below, previous);
        for hash in hashes {
            let own = self.filter(source, hash).await?;
            bytes += own.filter.len();
            if bytes > MOST_BYTES_PER_REPLY && !filters.is_empty() {
                break;
            }
            if filter_hash(&own.filter).filter_header(&last) != own.header {
                // Either may be the false one: the next to ask gets what the source says then.
                self.kept().forget([last_block, hash]);
                let what = format!("the compact filter of block {hash} is not that of its header");
                return Err(ChainError::False(what));
            }
            filters.push(own.filter.clone());
            (last_block, last) = (hash, own.header);
        }
        match filters.is_empty() {
            true => Err(moved()),
            false => Ok((previous, filters)),
        }
    }

    async fn filter(
        &self,
        source: &dyn BlockReader,
        hash: &BlockHash,
    ) -> Result<Arc<BlockFilter>, ChainError> {
        if let Some(kept) = self.kept().get(hash) {
            return Ok(kept);
        }
        let _one = self.fetch.lock().await;
        if let Some(kept) = self.kept().get(hash) {
            return Ok(kept);
        }
        let fetched = Arc::new(source.filter(hash).await?);
        self.kept().insert(*hash, fetched.clone());
        Ok(fetched)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The height below the first that is asked for.
fn below(from: u32, tip: BlockRef) -> Result<u32, ChainError> {
    if from > tip.height {
        let what = format!("a block at height {from}: its tip is at {}", tip.height);
        return Err(ChainError::NotFound(what));
    }
    let genesis = || ChainError::NotFound("a block below the first: ask from height 1 on".into());
    from.checked_sub(1).ok_or_else(genesis)
}

impl Kept {
    fn get(&self, hash: &BlockHash) -> Option<Arc<BlockFilter>> {
        self.by_block.get(hash).cloned()
    }

    fn insert(&mut self, hash: BlockHash, filter: Arc<BlockFilter>) {
        self.bytes += size(&filter);
        match self.by_block.insert(hash, filter) {
            Some(before) => self.bytes -= size(&before),
            None => self.order.push_back(hash),
        }
        while self.bytes > self.most_bytes {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.remove(&oldest);
        }
    }

    fn forget(&mut self, hashes: [&BlockHash; 2]) {
        hashes.into_iter().for_each(|hash| self.remove(hash));
        self.order.retain(|hash| !hashes.contains(&hash));
    }

    fn remove(&mut self, hash: &BlockHash) {
        if let Some(removed) = self.by_block.remove(hash) {
            self.bytes -= size(&removed);
        }
    }
}

fn size(filter: &BlockFilter) -> usize {
    filter.filter.len() + ENTRY_BYTES
}

#[cfg(test)]
#[path = "tests/filters.rs"]
mod tests;
