//! A chain that records transactions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Transaction, Txid};
use longhand_chain::{
    BlockRef, BroadcastAnswer, Chain, ChainError, FeeRates, FiltersReply, FiltersRequest, Follower,
    HeadersReply, HeadersRequest, OutputLookup, Proof, ScanError, ScanReply, ScanRequest,
    Subscription, WatchList,
};
use tokio::sync::oneshot;

/// The chain of one node: it records all transactions that the node broadcasts.
pub struct RecordingChain {
    follower: Arc<Follower>,
    sent: Mutex<Vec<Transaction>>,
    is_cut: AtomicBool,
}

impl RecordingChain {
    /// Records, and passes on to the follower.
    pub fn new(follower: &Arc<Follower>) -> Arc<RecordingChain> {
        RecordingChain::with(follower, false)
    }

    /// Nothing is broadcast: as if the process died between the commit and the broadcast.
    pub fn cut_off(follower: &Arc<Follower>) -> Arc<RecordingChain> {
        RecordingChain::with(follower, true)
    }

    fn with(follower: &Arc<Follower>, is_cut: bool) -> Arc<RecordingChain> {
        Arc::new(RecordingChain {
            follower: follower.clone(),
            sent: Mutex::default(),
            is_cut: is_cut.into(),
        })
    }

    /// From now on transactions are broadcast.
    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }

    /// All transactions so far.
    pub fn sent(&self) -> Vec<Transaction> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl Chain for RecordingChain {
    async fn subscribe(
        &self,
        from: BlockRef,
        initial: WatchList,
    ) -> Result<Subscription, ChainError> {
        self.follower.subscribe(from, initial).await
    }

    fn tip(&self) -> Option<BlockRef> {
        self.follower.tip()
    }

    fn fee_rates(&self) -> FeeRates {
        self.follower.fee_rates()
    }

    fn broadcast(&self, node: PublicKey, package: Vec<Transaction>) {
        self.sent.lock().unwrap().extend(package.clone());
        if !self.is_cut.load(Ordering::SeqCst) {
            self.follower.broadcast(node, package);
        }
    }

    fn broadcast_answer(&self, node: PublicKey, txid: Txid) -> oneshot::Receiver<BroadcastAnswer> {
        if !self.is_cut.load(Ordering::SeqCst) {
            return self.follower.broadcast_answer(node, txid);
        }
        // The owner of a process that dies gets no answer: the test goes on as if there was one.
        let (sender, answer) = oneshot::channel();
        let _ = sender.send(BroadcastAnswer::Accepted);
        answer
    }

    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, ScanError> {
        self.follower.scan(request).await
    }

    async fn headers(&self, request: HeadersRequest) -> Result<HeadersReply, ChainError> {
        self.follower.headers(request).await
    }

    async fn filters(&self, request: FiltersRequest) -> Result<FiltersReply, ChainError> {
        self.follower.filters(request).await
    }

    async fn proof(&self, block: BlockHash, txid: Txid) -> Result<Proof, ChainError> {
        self.follower.proof(block, txid).await
    }

    fn outputs(&self) -> Arc<dyn OutputLookup> {
        self.follower.outputs()
    }
}
