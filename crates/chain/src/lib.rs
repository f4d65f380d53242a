//! The block chain, as a host sees it: chain sources, the one follower, and `devnet`.
//!
//! A [`ChainSource`] has blocks, relays transactions, estimates fee rates and looks up outputs. The [`Follower`]
//! polls one source for all nodes of a host, matches each block once against the index of everything that is
//! watched, and sends each node its own [`ChainEvent`]s. With the feature `devnet` there is also an embedded regtest
//! chain.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::bip158::FilterHeader;
use bitcoin::block::Header;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use tokio::sync::{mpsc, oneshot};

mod bitcoind;
mod core_relay;
#[cfg(feature = "devnet")]
pub mod devnet;
mod error;
mod esplora;
mod follower;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod scan;
mod source;

pub use bitcoind::{BitcoindAuth, BitcoindSource};
#[cfg(feature = "devnet")]
pub use devnet::{Devnet, DevnetConfig, DevnetError, DirectSource, PreparedChain};
pub use error::ChainError;
pub use esplora::{
    EsploraClient, EsploraSource, EsploraUrl, EsploraUrlError, FeeEstimates, ProxyUrl, Spend,
};
pub use follower::{Follower, FollowerConfig};
pub use longhand_spv::Proof;
pub use scan::{
    BLOCKS_PER_SCAN, Found, ScanError, ScanReply, ScanRequest, ScanStep, Searched, scan,
};
pub use source::{
    BlockFilter, BlockReader, ChainSource, FeeSource, OutputLookup, SourceHealth, TransactionRelay,
};

/// A block by height and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Height above the genesis block.
    pub height: u32,
    /// Hash of the block's header.
    pub hash: BlockHash,
}

/// Fee rates in satoshis per 1,000 weight units, by how soon a transaction should confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeRates {
    /// Within 2 blocks.
    pub urgent: u32,
    /// Within 6 blocks.
    pub normal: u32,
    /// Within a day.
    pub background: u32,
    /// The mempool's minimum.
    pub minimum: u32,
    /// False when the source has no estimate: the other rates are then a fallback, with which nothing should be paid
    /// that can wait.
    pub is_estimate: bool,
}

impl FeeRates {
    /// 1 sat/vB for everything, rounded up (253 sat/kw).
    pub const FLOOR: FeeRates = FeeRates {
        urgent: 253,
        normal: 253,
        background: 253,
        minimum: 253,
        is_estimate: true,
    };

    /// 2,500 sat/vB, more than any block has paid for as a whole: a source that reports more is broken.
    pub const MAX_SAT_PER_KW: u32 = 625_000;

    /// The rates of a host without an estimate, none below `minimum`.
    pub(crate) fn fallback(sat_per_kw: u32, minimum: u32) -> FeeRates {
        FeeRates {
            is_estimate: false,
            ..FeeRates::estimated(Some(sat_per_kw), None, Some(sat_per_kw), minimum)
        }
    }

    /// Rates from a source's estimates, where it has them: none is below the floor or above
    /// [`FeeRates::MAX_SAT_PER_KW`], and a nearer target never costs less than a farther one. Without any estimate all
    /// are the minimum, and `is_estimate` is false.
    pub(crate) fn estimated(
        urgent: Option<u32>,
        normal: Option<u32>,
        background: Option<u32>,
        minimum: u32,
    ) -> FeeRates {
        let is_estimate = urgent.or(normal).or(background).is_some();
        let bounded = |rate: u32, least: u32| rate.max(least).min(FeeRates::MAX_SAT_PER_KW);
        let minimum = bounded(minimum, FeeRates::FLOOR.minimum);
        let background = bounded(background.unwrap_or(minimum), minimum);
        let normal = bounded(normal.unwrap_or(background), background);
        let urgent = bounded(urgent.unwrap_or(normal), normal);
        FeeRates {
            urgent,
            normal,
            background,
            minimum,
            is_estimate,
        }
    }
}

/// A change of the chain, for one subscriber; in order.
#[derive(Clone, Debug)]
pub enum ChainEvent {
    /// A block was connected. Every subscriber gets every block.
    Connected {
        /// Height of the block.
        height: u32,
        /// Its header.
        header: Header,
        /// Those of its transactions that this subscriber watches, with their index in the block, in order; also
        /// transactions that spend their outputs within the same block, and in the blocks after it that were matched
        /// before the subscriber received this event.
        txs: Vec<(usize, Arc<Transaction>)>,
    },
    /// Blocks above `fork` are no longer in the best chain; the blocks that replace them follow.
    Disconnected {
        /// The last block that both chains share.
        fork: BlockRef,
    },
    /// The follower is at the source's tip.
    Synced {
        /// That tip.
        tip: BlockRef,
    },
}

/// One subscription at a [`Chain`].
#[derive(Debug)]
pub struct Subscription {
    /// Changes of the chain, from the block after the one subscribed from.
    pub events: mpsc::UnboundedReceiver<ChainEvent>,
    /// Adds outpoints, scripts and transactions to watch.
    pub watch: Arc<dyn Watch>,
}

/// Watches more for one subscriber, in all blocks that are matched after the call. Never blocks: LDK's `Filter` calls
/// it.
pub trait Watch: Send + Sync + std::fmt::Debug {
    /// Transactions that spend `outpoint`.
    fn outpoint(&self, outpoint: OutPoint);
    /// Transactions with an output to `script`.
    fn script(&self, script: ScriptBuf);
    /// This transaction.
    fn txid(&self, txid: Txid);
}

/// The chain, as a node sees it. [`Follower`] is the production implementation.
#[async_trait]
pub trait Chain: Send + Sync + 'static {
    /// Subscribes from the last block that a node knows. When that block is no longer in the best chain, the first
    /// event is `Disconnected` with the fork. `initial` is watched from the first block on.
    async fn subscribe(
        &self,
        from: BlockRef,
        initial: WatchList,
    ) -> Result<Subscription, ChainError>;
    /// The source's tip at the last poll.
    fn tip(&self) -> Option<BlockRef>;
    /// Fee rates by the source's last estimate, as long as that is not too old; then a fallback.
    fn fee_rates(&self) -> FeeRates;
    /// Queues a package of `node` for broadcast; never blocks. It is sent again until the source knows it, its
    /// rejection is final, or a day of blocks has passed; failures are logged. Packages of other nodes do not delay it,
    /// and what one node may have waiting is bounded.
    fn broadcast(&self, node: PublicKey, package: Vec<Transaction>);
    /// The source's answer to the next attempt to broadcast a package of `node` that ends with this transaction; ask before
    /// it is queued. The sender is dropped when no attempt is made.
    fn broadcast_answer(&self, node: PublicKey, txid: Txid) -> oneshot::Receiver<BroadcastAnswer>;
    /// Searches blocks of the past, see [`ScanRequest`]. Waits for the requests of others, since one at a time is answered.
    ///
    /// # Errors
    /// [`ScanError`] when a block cannot be read: pruned, say.
    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, ScanError>;
    /// The headers after a block of the best chain, for a signer that follows it.
    ///
    /// # Errors
    /// [`ChainError::NotFound`] when none of the request's blocks is in the best chain, or the chain was reorganised meanwhile.
    async fn headers(&self, request: HeadersRequest) -> Result<HeadersReply, ChainError>;
    /// The compact filters of blocks of the best chain, for a signer that checks by them that its channels are not closed.
    ///
    /// # Errors
    /// [`ChainError::NoFilters`] from a source without them; [`ChainError::NotFound`] above the tip, more than five years of blocks below it, or
    /// when the chain was reorganised meanwhile; [`ChainError::False`] when the filters are not those of their filter headers.
    async fn filters(&self, request: FiltersRequest) -> Result<FiltersReply, ChainError>;
    /// The proof that a transaction is in a block.
    ///
    /// # Errors
    /// [`ChainError::NotFound`] when it is not; [`ChainError::Pruned`].
    async fn proof(&self, block: BlockHash, txid: Txid) -> Result<Proof, ChainError>;
    /// Looks up outputs, to verify announced channels (BOLT 7).
    fn outputs(&self) -> Arc<dyn OutputLookup>;
}

/// A request for headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadersRequest {
    /// Blocks that are known, from the tip down. The headers begin after the first of them that is in the best chain.
    pub after: Vec<BlockRef>,
    /// With the solution of each block: on a signet (BIP 325).
    pub with_solutions: bool,
}

/// Headers of the best chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadersReply {
    /// The block that the first header follows.
    pub after: BlockRef,
    /// In order, up to the tip or 20,160 of them.
    pub headers: Vec<Header>,
    /// For each header, when they were asked for: [`longhand_spv::SignetProof::encode`].
    pub solutions: Vec<Vec<u8>>,
    /// The tip.
    pub tip: BlockRef,
}

/// A request for compact filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiltersRequest {
    /// The height in the best chain from which on they are asked for; at least 1.
    pub from: u32,
    /// Only that one filter, and the whole block: its filter matched.
    pub with_block: bool,
}

/// Compact filters of the best chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiltersReply {
    /// The height of the first one's block.
    pub first_height: u32,
    /// The filter header of the block below.
    pub previous: FilterHeader,
    /// In order, up to the tip, 1,000 of them or 256 KiB; at least one.
    pub filters: Vec<Vec<u8>>,
    /// The block of each.
    pub blocks: Vec<BlockHash>,
    /// The block, when it was asked for.
    pub block: Option<Block>,
    /// The tip.
    pub tip: BlockRef,
}

/// The source's answer to a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BroadcastAnswer {
    /// It has the transaction.
    Accepted,
    /// It refuses the transaction, for this reason; it is sent again with the next block, unless that is final.
    Refused(String),
}

/// Outpoints, scripts and transactions to watch from the start of a subscription.
#[derive(Clone, Debug, Default)]
pub struct WatchList {
    /// See [`Watch::outpoint`].
    pub outpoints: Vec<OutPoint>,
    /// See [`Watch::script`].
    pub scripts: Vec<ScriptBuf>,
    /// See [`Watch::txid`].
    pub txids: Vec<Txid>,
}

/// Whether this is a build for tests. A program for use refuses to be compiled with it.
pub const IS_FOR_TESTS: bool = cfg!(feature = "fuzzing");
