//! The host's chain source.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, Transaction, TxOut, Txid};
use longhand_chain::devnet::DirectSource;
use longhand_chain::{
    BlockFilter, BlockReader, BlockRef, ChainError, Devnet, FeeRates, FeeSource, OutputLookup,
    TransactionRelay,
};

use super::{Life, lock};
use crate::world::plan::{How, Interruption, Kind, Plan};

/// One process's source.
pub struct SimSource {
    devnet: Arc<Devnet>,
    chain: DirectSource,
    life: Arc<Life>,
    plan: Plan,
    /// All transactions that were ever broadcast.
    sent: Arc<Mutex<HashSet<Txid>>>,
    /// How often the tip has changed.
    tips: Arc<AtomicU32>,
    /// The last answers.
    tip: Mutex<Option<BlockRef>>,
    fee_rates: Mutex<Option<FeeRates>>,
}

impl SimSource {
    pub fn new(
        devnet: Arc<Devnet>,
        life: Arc<Life>,
        plan: Plan,
        sent: Arc<Mutex<HashSet<Txid>>>,
        tips: Arc<AtomicU32>,
    ) -> SimSource {
        let chain = devnet.direct_source();
        SimSource {
            devnet,
            chain,
            life,
            plan,
            sent,
            tips,
            tip: Mutex::default(),
            fee_rates: Mutex::default(),
        }
    }

    /// One question, which is a step.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        if self.life.has_ended() {
            return Err(away("the process has ended"));
        }
        self.plan.trace(Kind::ChainCall, ());
        let interruption = self.plan.step(Kind::ChainCall);
        self.answer(interruption, question).await
    }

    /// One question that is polled: a step only when the answer differs from `last`, since days have thousands.
    async fn poll<T: Copy + PartialEq, A: Future<Output = Result<T, ChainError>>>(
        &self,
        last: &Mutex<Option<T>>,
        question: impl Fn() -> A,
    ) -> Result<T, ChainError> {
        let now = question().await.ok();
        let asked = if *lock(last) == now {
            let lasting = self.plan.lasting(Kind::ChainCall);
            self.answer(lasting, question()).await
        } else {
            self.ask(question()).await
        };
        if let Ok(answer) = asked {
            *lock(last) = Some(answer);
        }
        asked
    }

    async fn answer<T>(
        &self,
        interruption: Option<Interruption>,
        question: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        if self.life.has_ended() {
            return Err(away("the process has ended"));
        }
        let Some(interruption) = interruption else {
            return question.await;
        };
        match interruption.how {
            How::Late => {
                // The answer is from the time of the question.
                let answer = question.await;
                tokio::time::sleep(interruption.length.time()).await;
                answer
            }
            How::Unheard => {
                question.await?;
                Err(away("the answer was lost"))
            }
            How::Reorg1 => self.reorg(1, question).await,
            How::Reorg2 => self.reorg(2, question).await,
            _ => Err(away("it is away")),
        }
    }

    /// Replaces the last blocks. Their transactions are mined again, and have as many confirmations as before.
    async fn reorg<T>(
        &self,
        depth: u32,
        question: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let replaced = self.devnet.reorg(depth, Vec::new());
        let mined = replaced.and_then(|_| self.devnet.mine_to_wallet(depth));
        mined.map_err(|error| ChainError::Malformed(error.to_string()))?;
        question.await
    }
}

fn away(reason: &str) -> ChainError {
    ChainError::Unreachable {
        url: "simulated".into(),
        reason: reason.into(),
    }
}

#[async_trait]
impl BlockReader for SimSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        let before = *lock(&self.tip);
        let tip = self.poll(&self.tip, || self.chain.tip()).await?;
        if before != Some(tip) {
            self.tips.fetch_add(1, Ordering::Relaxed);
        }
        Ok(tip)
    }
    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        self.ask(self.chain.header(hash)).await
    }
    async fn headers(&self, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        self.ask(self.chain.headers(from, count)).await
    }
    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        self.ask(self.chain.hash_at(height)).await
    }
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.ask(self.chain.block(hash)).await
    }

    async fn filter(&self, hash: &BlockHash) -> Result<BlockFilter, ChainError> {
        self.ask(self.chain.filter(hash)).await
    }
}

#[async_trait]
impl FeeSource for SimSource {
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        self.poll(&self.fee_rates, || self.chain.fee_rates()).await
    }
}

#[async_trait]
impl TransactionRelay for SimSource {
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
        let txids = package.iter().map(Transaction::compute_txid);
        lock(&self.sent).extend(txids);
        self.ask(self.chain.broadcast(package)).await
    }
}

#[async_trait]
impl OutputLookup for SimSource {
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        self.ask(self.chain.unspent(outpoint)).await
    }
    async fn block_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        self.ask(self.chain.block_txids(height)).await
    }
}
