//! A chain source that answers everything with the same error, and hosts on one.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, Transaction, TxOut, Txid};
use longhand_chain::{
    BlockFilter, BlockReader, BlockRef, ChainError, FeeRates, FeeSource, OutputLookup,
    TransactionRelay,
};
use longhand_host::{Host, HostConfig, HostError};
use longhand_link::Carriers;
use longhand_store::{SqliteStore, Store};

/// Answers every call with this error.
pub struct FailingSource(pub fn() -> ChainError);

impl FailingSource {
    /// Starts a host on it.
    pub async fn start_host(self, config: HostConfig) -> Result<Host, HostError> {
        self.start_host_on(config, &Carriers::default()).await
    }

    /// The same on these carriers.
    pub async fn start_host_on(
        self,
        config: HostConfig,
        carriers: &Carriers,
    ) -> Result<Host, HostError> {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(config.database_file()).unwrap());
        Host::start_with(config, store, Arc::new(self), carriers).await
    }
}

#[async_trait]
impl BlockReader for FailingSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Err((self.0)())
    }
    async fn header(&self, _: &BlockHash) -> Result<(Header, u32), ChainError> {
        Err((self.0)())
    }
    async fn hash_at(&self, _: u32) -> Result<BlockHash, ChainError> {
        Err((self.0)())
    }
    async fn block(&self, _: &BlockHash) -> Result<Block, ChainError> {
        Err((self.0)())
    }
    async fn filter(&self, _: &BlockHash) -> Result<BlockFilter, ChainError> {
        Err((self.0)())
    }
}

#[async_trait]
impl FeeSource for FailingSource {
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        Err((self.0)())
    }
}

#[async_trait]
impl TransactionRelay for FailingSource {
    async fn broadcast(&self, _: &[Transaction]) -> Result<(), ChainError> {
        Err((self.0)())
    }
}

#[async_trait]
impl OutputLookup for FailingSource {
    async fn unspent(&self, _: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        Err((self.0)())
    }
    async fn block_txids(&self, _: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        Err((self.0)())
    }
}
