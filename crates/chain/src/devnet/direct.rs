//! A devnet as a [`crate::ChainSource`] in this process: answers from its state, at once and without a socket.
//!
//! Its answers are those that a [`crate::BitcoindSource`] gets over the same devnet's RPC, errors included: it calls
//! the same functions, and broadcasts by the same `core_relay`.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Amount, Block, BlockHash, OutPoint, Transaction, TxOut, Txid};
use lightning_block_sync::rpc::RpcError;
use serde_json::Value;

use super::{Shared, rpc};
use crate::core_relay::{self, CoreAnswer, CoreMempool};
use crate::{
    BlockFilter, BlockReader, BlockRef, ChainError, FeeRates, FeeSource, OutputLookup,
    TransactionRelay,
};

/// See [`super::Devnet::direct_source`]. Clones reach the same devnet, which lives as long as one of them.
#[derive(Clone)]
pub struct DirectSource {
    pub(super) shared: Arc<Shared>,
}

impl From<rpc::RpcError> for RpcError {
    fn from(error: rpc::RpcError) -> RpcError {
        let rpc::RpcError { code, message } = error;
        RpcError { code, message }
    }
}

/// The error that a source over RPC would get.
fn explain(error: rpc::RpcError) -> ChainError {
    core_relay::explain(error.into())
}

#[async_trait]
impl BlockReader for DirectSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(self.shared.state().chain.tip())
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        let state = self.shared.state();
        let stored = rpc::block(&state.chain, hash).map_err(explain)?;
        Ok((stored.block.header, stored.height))
    }

    async fn headers(&self, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        let state = self.shared.state();
        let heights = from..from.saturating_add(count);
        let headers = heights.map(|height| {
            let hash = rpc::block_hash(&state.chain, i64::from(height)).map_err(explain)?;
            let stored = rpc::block(&state.chain, &hash).map_err(explain)?;
            Ok(stored.block.header)
        });
        headers.collect()
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        rpc::block_hash(&self.shared.state().chain, i64::from(height)).map_err(explain)
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let state = self.shared.state();
        let stored = rpc::block(&state.chain, hash).map_err(explain)?;
        Ok((*stored.block).clone())
    }

    async fn filter(&self, hash: &BlockHash) -> Result<BlockFilter, ChainError> {
        rpc::block_filter(&mut self.shared.state(), hash).map_err(explain)
    }
}

#[async_trait]
impl FeeSource for DirectSource {
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        let FeeRates {
            urgent,
            normal,
            background,
            minimum,
            is_estimate,
        } = self.shared.state().fee_rates();
        let rate = |sat_per_kw| is_estimate.then_some(sat_per_kw);
        Ok(FeeRates::estimated(
            rate(urgent),
            rate(normal),
            rate(background),
            minimum,
        ))
    }
}

#[async_trait]
impl TransactionRelay for DirectSource {
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
        core_relay::broadcast(self, package).await
    }
}

#[async_trait]
impl OutputLookup for DirectSource {
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        let state = self.shared.state();
        Ok(state.chain.coin(outpoint).map(|coin| coin.output.clone()))
    }

    async fn block_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        let state = self.shared.state();
        let hash = state.chain.hash_at(height);
        let stored = hash.and_then(|hash| state.chain.block(&hash));
        let txids = |block: &Block| block.txdata.iter().map(Transaction::compute_txid).collect();
        Ok(stored.map(|stored| txids(&stored.block)))
    }
}

#[async_trait]
impl CoreMempool for DirectSource {
    async fn send_raw(&self, tx: &Transaction) -> CoreAnswer<()> {
        let tx = Arc::new(tx.clone());
        let limits = rpc::Limits::default();
        let sent = rpc::send(&mut self.shared.state(), &tx, &limits);
        Ok(sent.map(drop).map_err(RpcError::from))
    }

    async fn submit_package(&self, package: &[Transaction]) -> CoreAnswer<Value> {
        let txs: Vec<_> = package.iter().cloned().map(Arc::new).collect();
        let answer = rpc::submit_package(&mut self.shared.state(), &txs, Amount::ZERO);
        Ok(answer.map_err(RpcError::from))
    }

    async fn knows(&self, txid: &Txid) -> Result<bool, ChainError> {
        let state = self.shared.state();
        Ok(state.pool.get(txid).is_some() || state.chain.block_of(txid).is_some())
    }
}
