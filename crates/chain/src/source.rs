//! A chain source, in four traits: a source may offer all of them, or some.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::bip158::FilterHeader;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, Transaction, TxOut, Txid};

use crate::{BlockRef, ChainError, FeeRates};

/// Blocks and headers.
#[async_trait]
pub trait BlockReader: Send + Sync + 'static {
    /// The best block the source knows.
    async fn tip(&self) -> Result<BlockRef, ChainError>;
    /// Header and height of a block, also of one that is no longer in the best chain.
    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError>;
    /// The hash at a height of the best chain.
    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError>;
    /// The headers of the best chain at `count` heights from `from` on, in order. `count` is at least 1.
    ///
    /// # Errors
    /// [`ChainError::NotFound`] when the chain ends before.
    async fn headers(&self, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        let last = from.saturating_add(count.saturating_sub(1));
        let mut hash = self.hash_at(last).await?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let (header, _) = self.header(&hash).await?;
            hash = header.prev_blockhash;
            headers.push(header);
        }
        headers.reverse();
        Ok(headers)
    }
    /// A whole block, also one that is no longer in the best chain.
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError>;
    /// The compact filter of a block of the best chain, of [`longhand_spv::filter::MAX_FILTER_BYTES`] at most.
    ///
    /// # Errors
    /// [`ChainError::NoFilters`] from a source that has none, as is the default; [`ChainError::NotFound`] when it has
    /// none of this block, or not yet.
    async fn filter(&self, _hash: &BlockHash) -> Result<BlockFilter, ChainError> {
        Err(ChainError::NoFilters)
    }
    /// The state of the source itself; by default nothing is known of it, and nothing wrong.
    async fn health(&self) -> Result<SourceHealth, ChainError> {
        Ok(SourceHealth::default())
    }
}

/// A compact filter of a block. No proof of work covers it: it is what the source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFilter {
    /// The basic filter (BIP 158): all scripts that the block pays to or spends from.
    pub filter: Vec<u8>,
    /// Its filter header (BIP 157): the hash of the filter's hash and of the filter header of the block before.
    pub header: FilterHeader,
}

/// The state of a source, for its operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// The time in the header of its best block, in seconds since 1970, if it is known.
    pub tip_unix_s: Option<u32>,
    /// It is in its initial block download: its best block is not that of the network.
    pub is_initial_download: bool,
    /// It deletes old blocks.
    pub is_pruned: bool,
    /// It has no compact filters, see [`BlockReader::filter`].
    pub lacks_filters: bool,
}

/// Transactions to the Bitcoin network.
#[async_trait]
pub trait TransactionRelay: Send + Sync + 'static {
    /// Broadcasts a transaction, or a package of parents followed by one child. A transaction that is already known
    /// or mined is no error.
    ///
    /// # Errors
    /// [`ChainError::Rejected`] when the mempool does not take it; the source decides whether that is final.
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError>;
}

/// Fee rates, estimated or fixed.
#[async_trait]
pub trait FeeSource: Send + Sync + 'static {
    /// Current fee rates; without an estimate, the mempool's minimum with [`FeeRates::is_estimate`] false.
    async fn fee_rates(&self) -> Result<FeeRates, ChainError>;
}

/// Outputs of the best chain, for LDK's `UtxoLookup`.
#[async_trait]
pub trait OutputLookup: Send + Sync + 'static {
    /// The ids of the transactions in a block of the best chain, in order, for the positions in short channel ids
    /// (BOLT 7); `None` when there is no such block.
    ///
    /// # Errors
    /// [`ChainError::Pruned`] when the source no longer has the block.
    async fn block_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError>;
    /// The value and script of an unspent output (mempool not counted); `None` when spent or unknown.
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError>;
}

/// A chain source: the four parts, from one place or from several.
///
/// Made `from` an `Arc` of a value that implements all four traits; to take one part from elsewhere, replace its field.
#[derive(Clone)]
pub struct ChainSource {
    /// Blocks and headers.
    pub blocks: Arc<dyn BlockReader>,
    /// Where transactions are broadcast.
    pub relay: Arc<dyn TransactionRelay>,
    /// Fee rates.
    pub fees: Arc<dyn FeeSource>,
    /// Outputs.
    pub outputs: Arc<dyn OutputLookup>,
}

impl<S> From<Arc<S>> for ChainSource
where
    S: BlockReader + TransactionRelay + FeeSource + OutputLookup,
{
    fn from(source: Arc<S>) -> ChainSource {
        ChainSource {
            blocks: source.clone(),
            relay: source.clone(),
            fees: source.clone(),
            outputs: source,
        }
    }
}

/// A URL for logs and errors: without user and password.
pub(crate) fn without_credentials(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_string(),
    }
}
