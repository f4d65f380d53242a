//! What a host knows of the chain: sources of blocks, the one follower, and `devnet`.
//!
//! A [`ChainSource`] is asked for blocks, fee rates and to broadcast. The `follower`
//! polls one source for all nodes of a host, matches each block once against the index
//! of everything that is watched, and hands each node its own [`ChainEvent`]s. With the feature `devnet` there is
//! also an embedded regtest chain.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use tokio::sync::mpsc;

mod bitcoind;
#[cfg(feature = "devnet")]
pub mod devnet;
mod follower;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod relay;

pub use bitcoind::{BitcoindAuth, BitcoindSource};
#[cfg(feature = "devnet")]
pub use devnet::{Devnet, DevnetConfig, DevnetError, DirectSource, PreparedChain};
pub use follower::{Follower, FollowerConfig};

/// A place in the chain.
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
    /// The least that mempools take.
    pub minimum: u32,
}

impl FeeRates {
    /// 1 sat/vB for everything, rounded up (253 sat/kw).
    pub const FLOOR: FeeRates = FeeRates {
        urgent: 253,
        normal: 253,
        background: 253,
        minimum: 253,
    };

    /// Rates from a node's estimates, where it has them: none is below the floor, and a nearer target never
    /// costs less than a farther one.
    pub(crate) fn estimated(
        urgent: Option<u32>,
        normal: Option<u32>,
        background: Option<u32>,
        minimum: u32,
    ) -> FeeRates {
        let minimum = minimum.max(FeeRates::FLOOR.minimum);
        let background = background.unwrap_or(minimum).max(minimum);
        let normal = normal.unwrap_or(background).max(background);
        let urgent = urgent.unwrap_or(normal).max(normal);
        FeeRates {
            urgent,
            normal,
            background,
            minimum,
        }
    }
}

/// Where blocks come from and transactions go.
#[async_trait]
pub trait ChainSource: Send + Sync + 'static {
    /// The best block the source knows.
    async fn tip(&self) -> Result<BlockRef, ChainError>;
    /// Header and height of a block, also of one that is no longer in the best chain.
    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError>;
    /// The hash at a height of the best chain.
    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError>;
    /// A whole block.
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError>;
    /// Current fee rates; the source's floor when it has no estimate.
    async fn fee_rates(&self) -> Result<FeeRates, ChainError>;
    /// Hands over a transaction, or a package of parents followed by one child. A transaction that
    /// is already known or mined is no error.
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError>;
    /// The value and script of an unspent output (mempool not counted); `None` when spent or unknown.
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<bitcoin::TxOut>, ChainError>;
    /// The transaction at a position in a block (for short channel ids).
    async fn transaction_at(
        &self,
        height: u32,
        index: u32,
    ) -> Result<Option<Transaction>, ChainError>;
}

/// What one node learns of the chain, in order.
#[derive(Clone, Debug)]
pub enum ChainEvent {
    /// A block was connected. Every subscriber gets every block.
    Connected {
        /// Height of the block.
        height: u32,
        /// Its header.
        header: Header,
        /// Those of its transactions that this subscriber watches, with their index in the block, in
        /// order; also what spends their outputs within the same block, and in the blocks after it that the
        /// subscriber could not yet have heard of when they were matched.
        txs: Vec<(usize, Arc<Transaction>)>,
    },
    /// Blocks above `fork` have left the chain; the ones that replace them follow.
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

/// One node's place at the follower.
#[derive(Debug)]
pub struct Subscription {
    /// What happens on the chain, from the block after the one subscribed from.
    pub events: mpsc::UnboundedReceiver<ChainEvent>,
    /// Adds to what is watched.
    pub watch: Arc<dyn Watch>,
}

/// Adds to what one subscriber watches; takes effect for all blocks that are matched after the call.
/// Never blocks: it is called from inside LDK.
pub trait Watch: Send + Sync + std::fmt::Debug {
    /// Transactions that spend `outpoint`.
    fn outpoint(&self, outpoint: OutPoint);
    /// Transactions with an output to `script`.
    fn script(&self, script: ScriptBuf);
    /// This transaction.
    fn txid(&self, txid: Txid);
}

/// What a node needs of its host's chain. `Follower` is the production implementation.
#[async_trait]
pub trait Chain: Send + Sync + 'static {
    /// Subscribes from the last block a node knows. When that block has left the chain, the first event is
    /// `Disconnected` with the fork. What must be matched from the first block on goes in `initial`.
    async fn subscribe(
        &self,
        from: BlockRef,
        initial: WatchList,
    ) -> Result<Subscription, ChainError>;
    /// The source's tip as last seen.
    fn tip(&self) -> Option<BlockRef>;
    /// Fee rates as last seen.
    fn fee_rates(&self) -> FeeRates;
    /// Queues a package for broadcast; never blocks. Failures are logged and tried again until the package is
    /// known to the source or can no longer be valid.
    fn broadcast(&self, package: Vec<Transaction>);
    /// The source itself, for what is asked seldom.
    fn source(&self) -> Arc<dyn ChainSource>;
}

/// What is watched from the start of a subscription.
#[derive(Clone, Debug, Default)]
pub struct WatchList {
    /// See [`Watch::outpoint`].
    pub outpoints: Vec<OutPoint>,
    /// See [`Watch::script`].
    pub scripts: Vec<ScriptBuf>,
    /// See [`Watch::txid`].
    pub txids: Vec<Txid>,
}

/// Why a chain source could not answer.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The source cannot be reached now; the follower waits and tries again.
    #[error(
        "the chain source at {url} cannot be reached ({reason}): check that it runs; waiting for it"
    )]
    Unreachable {
        /// Where it should be, without credentials.
        url: String,
        /// What the socket said.
        reason: String,
    },
    /// Wrong user, password or cookie.
    #[error(
        "the chain source refused the credentials: check user and password, or the cookie file"
    )]
    Unauthorized,
    /// It is another network's.
    #[error("the chain source is on {found}, this host is configured for {expected}")]
    WrongNetwork {
        /// As configured.
        expected: String,
        /// As reported.
        found: String,
    },
    /// A transaction was refused by the mempool.
    #[error("the transaction was refused: {0}")]
    Rejected(String),
    /// The block, header or height is unknown there.
    #[error("the chain source does not know {0}")]
    NotFound(String),
    /// It answered something that is not understood.
    #[error("the chain source gave an answer that cannot be read: {0}")]
    Malformed(String),
}

impl ChainError {
    /// Whether the source as a whole cannot be used now, rather than this one question be answered.
    pub fn is_of_the_source(&self) -> bool {
        matches!(
            self,
            ChainError::Unreachable { .. }
                | ChainError::Unauthorized
                | ChainError::WrongNetwork { .. }
        )
    }
}
