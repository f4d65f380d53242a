//! A regtest for the nodes of one input: it begins with its first block, and mines broadcast transactions on request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use longhand_chain::{
    BlockReader, BlockRef, BroadcastAnswer, Chain, ChainError, ChainEvent, FeeRates, FeeSource,
    FiltersReply, FiltersRequest, HeadersReply, HeadersRequest, OutputLookup, Proof, ScanError,
    ScanReply, ScanRequest, Subscription, TransactionRelay, Watch, WatchList,
};
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// See the module. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(crate) struct SmallChain(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    blocks: Vec<Block>,
    mempool: Vec<Transaction>,
    subscribers: Vec<mpsc::UnboundedSender<ChainEvent>>,
}

impl SmallChain {
    /// Takes those transactions into the mempool that spend nothing twice.
    fn receive(&self, package: Vec<Transaction>) {
        let mut state = self.state();
        for sent in package {
            let spends = |other: &Transaction| {
                let inputs = || other.input.iter().map(|input| input.previous_output);
                let mut ours = sent.input.iter();
                ours.any(|input| inputs().any(|other| other == input.previous_output))
            };
            let mut mined = state.blocks.iter().flat_map(|block| &block.txdata);
            if !mined.any(spends) && !state.mempool.iter().any(spends) {
                state.mempool.push(sent);
            }
        }
    }

    pub fn new() -> SmallChain {
        let first = bitcoin::constants::genesis_block(Network::Regtest);
        SmallChain(Arc::new(Mutex::new(State {
            blocks: vec![first],
            mempool: Vec::new(),
            subscribers: Vec::new(),
        })))
    }

    /// Pays `script` in the next block, from an output that does not exist.
    pub fn pay(&self, script: ScriptBuf, amount_sat: u64) {
        let mut state = self.state();
        let number = state.mempool.len() as u32;
        let tip = state.tip().hash.to_byte_array();
        let from = OutPoint::new(Txid::from_byte_array(tip), number);
        state.mempool.push(transaction(from, script, amount_sat));
    }

    /// Adds a block with all broadcast transactions, and then `empty` empty ones.
    pub fn mine(&self, empty: u32) {
        let mut state = self.state();
        let sent = std::mem::take(&mut state.mempool);
        state.add(sent);
        for _ in 0..empty {
            state.add(Vec::new());
        }
        let tip = state.tip();
        state.report(&ChainEvent::Synced { tip });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tip(&self) -> BlockRef {
        self.at(self.blocks.len() - 1)
    }

    fn at(&self, height: usize) -> BlockRef {
        BlockRef {
            height: height as u32,
            hash: self.blocks[height].block_hash(),
        }
    }

    fn add(&mut self, sent: Vec<Transaction>) {
        let height = self.blocks.len() as u64;
        let coinbase = transaction(OutPoint::null(), ScriptBuf::new(), height);
        let last = &self.blocks[self.blocks.len() - 1];
        let mut block = Block {
            header: Header {
                prev_blockhash: last.block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                ..last.header
            },
            txdata: [vec![coinbase], sent].concat(),
        };
        block.header.merkle_root = block.compute_merkle_root().expect("it has a coinbase");
        while block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce = block.header.nonce.wrapping_add(1);
        }
        let event = connected(height as u32, &block);
        self.blocks.push(block);
        self.report(&event);
    }

    fn report(&mut self, event: &ChainEvent) {
        self.subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    fn block(&self, hash: &BlockHash) -> Result<(u32, &Block), ChainError> {
        let mut all = (0..).zip(&self.blocks);
        let found = all.find(|(_, block)| block.block_hash() == *hash);
        found.ok_or_else(|| ChainError::NotFound(hash.to_string()))
    }
}

fn connected(height: u32, block: &Block) -> ChainEvent {
    let txs = block.txdata.iter().cloned().map(Arc::new);
    ChainEvent::Connected {
        height,
        header: block.header,
        txs: txs.enumerate().skip(1).collect(),
    }
}

fn transaction(from: OutPoint, to: ScriptBuf, amount_sat: u64) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(amount_sat),
            script_pubkey: to,
        }],
    }
}

#[async_trait]
impl Chain for SmallChain {
    async fn subscribe(&self, from: BlockRef, _: WatchList) -> Result<Subscription, ChainError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        let missed = (0..).zip(&state.blocks).skip(from.height as usize + 1);
        for (height, block) in missed {
            let _ = events.send(connected(height, block));
        }
        let _ = events.send(ChainEvent::Synced { tip: state.tip() });
        state.subscribers.push(events);
        Ok(Subscription {
            events: receiver,
            watch: Arc::new(Everything),
        })
    }

    fn tip(&self) -> Option<BlockRef> {
        Some(self.state().tip())
    }

    fn fee_rates(&self) -> FeeRates {
        FeeRates::FLOOR
    }

    fn broadcast(&self, _: PublicKey, package: Vec<Transaction>) {
        self.receive(package);
    }

    fn broadcast_answer(&self, _: PublicKey, _: Txid) -> oneshot::Receiver<BroadcastAnswer> {
        let (sender, answer) = oneshot::channel();
        let _ = sender.send(BroadcastAnswer::Accepted);
        answer
    }

    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, ScanError> {
        longhand_chain::scan(self, &request).await
    }

    async fn filters(&self, _: FiltersRequest) -> Result<FiltersReply, ChainError> {
        Err(ChainError::NoFilters)
    }

    async fn headers(&self, request: HeadersRequest) -> Result<HeadersReply, ChainError> {
        let state = self.state();
        let is_known = |it: &&BlockRef| {
            let height = it.height as usize;
            height < state.blocks.len() && state.at(height) == **it
        };
        let after = request.after.iter().find(is_known);
        let after = *after.ok_or_else(|| ChainError::NotFound("block".into()))?;
        let above = state.blocks[after.height as usize + 1..].iter();
        Ok(HeadersReply {
            after,
            headers: above.map(|block| block.header).collect(),
            solutions: Vec::new(),
            tip: state.tip(),
        })
    }

    async fn proof(&self, block: BlockHash, txid: Txid) -> Result<Proof, ChainError> {
        let state = self.state();
        let (_, block) = state.block(&block)?;
        let mut txs = block.txdata.iter();
        let position = txs.position(|tx| tx.compute_txid() == txid);
        let position = position.ok_or_else(|| ChainError::NotFound(txid.to_string()))?;
        Proof::prove(block, position as u32).map_err(|e| ChainError::Malformed(e.to_string()))
    }

    fn outputs(&self) -> Arc<dyn OutputLookup> {
        Arc::new(self.clone())
    }
}

/// Every subscriber gets all transactions, whatever it watches.
#[derive(Debug)]
struct Everything;

impl Watch for Everything {
    fn outpoint(&self, _: OutPoint) {}
    fn script(&self, _: ScriptBuf) {}
    fn txid(&self, _: Txid) {}
}

#[async_trait]
impl BlockReader for SmallChain {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(self.state().tip())
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        let state = self.state();
        let (height, block) = state.block(hash)?;
        Ok((block.header, height))
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let state = self.state();
        let block = state.blocks.get(height as usize);
        let hash = block.map(Block::block_hash);
        hash.ok_or_else(|| ChainError::NotFound(height.to_string()))
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.state().block(hash).map(|(_, block)| block.clone())
    }
}

#[async_trait]
impl FeeSource for SmallChain {
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        Ok(FeeRates::FLOOR)
    }
}

#[async_trait]
impl TransactionRelay for SmallChain {
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
        self.receive(package.to_vec());
        Ok(())
    }
}

#[async_trait]
impl OutputLookup for SmallChain {
    async fn unspent(&self, _: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        Ok(None)
    }

    async fn block_txids(&self, _: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        Ok(None)
    }
}
