//! The chain state: all blocks, which of them are active, and the unspent outputs.
//!
//! The consensus library decides. Its decisions are mirrored here, because it does not give out its coins. The mirror
//! follows the library's tip by undoing and applying blocks.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::blockdata::constants::genesis_block;
use bitcoin::{Block, BlockHash, Network, OutPoint, TxOut, Txid, Work};

use super::DevnetError;
use super::kernel::Kernel;
use super::log::{BlockLog, Record};
use crate::BlockRef;

/// An unspent output.
#[derive(Clone, Debug)]
pub(super) struct Coin {
    pub(super) output: TxOut,
    /// Height of the block that created it.
    pub(super) height: u32,
    pub(super) is_coinbase: bool,
}

/// An accepted block, active or not.
#[derive(Clone)]
pub(super) struct StoredBlock {
    pub(super) block: Arc<Block>,
    pub(super) height: u32,
    /// Work of the chain up to this block.
    pub(super) chainwork: Work,
    /// Transactions of the chain up to this block.
    pub(super) chain_txs: u64,
}

/// How the active chain changed; both lists from low to high.
#[derive(Default)]
pub(super) struct TipChange {
    pub(super) disconnected: Vec<Arc<Block>>,
    pub(super) connected: Vec<Arc<Block>>,
}

/// The directory for the library's files, which are not used after a restart.
pub(super) enum Scratch {
    /// Within a data directory.
    Dir(PathBuf),
    /// Removed when dropped.
    Temporary(tempfile::TempDir),
}

impl Scratch {
    fn path(&self) -> &Path {
        match self {
            Scratch::Dir(path) => path,
            Scratch::Temporary(dir) => dir.path(),
        }
    }
}

/// See the module.
pub(super) struct ChainState {
    // Dropped before the library, which would sync its files when it is dropped; without the directory it does not.
    scratch: Scratch,
    /// Started when a block has to be validated.
    kernel: Option<Kernel>,
    /// How often the library was started; each time in a directory of its own.
    generation: u32,
    log: Option<BlockLog>,
    blocks: HashMap<BlockHash, StoredBlock>,
    /// Every block in the order of arrival: of two chains with the same work the first one is active.
    order: Vec<BlockHash>,
    /// Blocks at the start that are trusted without validation, as are those mined here; `None` once the library is
    /// started.
    given: Option<usize>,
    invalid: HashSet<BlockHash>,
    active: Vec<BlockHash>,
    coins: HashMap<OutPoint, Coin>,
    /// The outputs that each active block spent.
    undo: HashMap<BlockHash, Vec<(OutPoint, Coin)>>,
    /// The active block of each transaction.
    txindex: HashMap<Txid, BlockHash>,
}

impl ChainState {
    /// A chain from the records of `log`; the library writes below `scratch`.
    pub(super) fn open(
        scratch: Scratch,
        log: Option<BlockLog>,
        records: Vec<Record>,
    ) -> Result<ChainState, DevnetError> {
        let mut chain = ChainState::begin(scratch, log);
        for record in records {
            match record {
                Record::Block(block) => chain.store(block),
                Record::Invalidate(hash) => {
                    chain.invalid.insert(hash);
                }
                Record::Reconsider(hash) => chain.reconsider_ancestry(&hash),
            }
        }
        chain.rebuild()?;
        Ok(chain)
    }

    /// A chain of trusted blocks, from height 1 on. The library is started, and validates them, with the first block
    /// that is not trusted, see [`ChainState::extend`].
    pub(super) fn trusting(
        scratch: Scratch,
        blocks: impl Iterator<Item = Block>,
    ) -> Result<ChainState, DevnetError> {
        let mut chain = ChainState::begin(scratch, None);
        for block in blocks {
            chain.trust(block)?;
        }
        chain.given = Some(chain.order.len());
        Ok(chain)
    }

    /// Connects a trusted block to the tip.
    fn trust(&mut self, block: Block) -> Result<TipChange, DevnetError> {
        let hash = block.block_hash();
        if block.header.prev_blockhash != self.tip().hash {
            return Err(DevnetError::Block(
                "it does not follow the one before".into(),
            ));
        }
        self.store(block);
        let mut change = TipChange::default();
        if let Some(stored) = self.block(&hash).cloned() {
            self.connect(&stored)?;
            change.connected.push(stored.block);
        }
        Ok(change)
    }

    /// The genesis block alone, without the library.
    fn begin(scratch: Scratch, log: Option<BlockLog>) -> ChainState {
        let genesis = genesis_block(Network::Regtest);
        let hash = genesis.block_hash();
        let stored = StoredBlock {
            chainwork: genesis.header.work(),
            block: Arc::new(genesis),
            height: 0,
            chain_txs: 1,
        };
        ChainState {
            scratch,
            kernel: None,
            generation: 0,
            log,
            blocks: HashMap::from([(hash, stored)]),
            order: vec![],
            given: None,
            invalid: HashSet::new(),
            // Without coins: the genesis block's output can never be spent.
            active: vec![hash],
            coins: HashMap::new(),
            undo: HashMap::new(),
            txindex: HashMap::new(),
        }
    }

    /// The best block.
    pub(super) fn tip(&self) -> BlockRef {
        let height = self.active.len() - 1;
        BlockRef {
            height: height as u32,
            hash: self.active[height],
        }
    }

    /// The active block at a height.
    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(height as usize).copied()
    }

    /// Number of accepted blocks, active or not, without the genesis block.
    pub(super) fn known(&self) -> usize {
        self.order.len()
    }

    /// The best chain, without the genesis block.
    pub(super) fn best_chain(&self) -> impl Iterator<Item = &Arc<Block>> {
        let mined = self.active.iter().skip(1);
        mined.filter_map(|hash| self.block(hash).map(|stored| &stored.block))
    }

    /// A block, active or not.
    pub(super) fn block(&self, hash: &BlockHash) -> Option<&StoredBlock> {
        self.blocks.get(hash)
    }

    /// Whether a block is in the active chain.
    pub(super) fn is_active(&self, hash: &BlockHash) -> bool {
        self.block(hash)
            .is_some_and(|stored| self.hash_at(stored.height) == Some(*hash))
    }

    /// An unspent output of the active chain.
    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// All unspent outputs of the active chain.
    pub(super) fn coins(&self) -> &HashMap<OutPoint, Coin> {
        &self.coins
    }

    /// The active block that has a transaction.
    pub(super) fn block_of(&self, txid: &Txid) -> Option<&StoredBlock> {
        self.block(self.txindex.get(txid)?)
    }

    /// Median time of the eleven blocks that end with `hash` (BIP 113).
    pub(super) fn median_time_past(&self, hash: &BlockHash) -> u32 {
        let mut times = Vec::with_capacity(11);
        let mut next = self.block(hash);
        while let Some(stored) = next.filter(|_| times.len() < 11) {
            times.push(stored.block.header.time);
            next = self.block(&stored.block.header.prev_blockhash);
        }
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// The outputs that an active block's transactions spent.
    pub(super) fn spent_by(&self, hash: &BlockHash) -> Option<&[(OutPoint, Coin)]> {
        self.undo.get(hash).map(Vec::as_slice)
    }

    /// Blocks that no other one builds on, except the tip.
    pub(super) fn stale_tips(&self) -> Vec<(BlockHash, u32)> {
        let parents: HashSet<_> = self
            .blocks
            .values()
            .map(|stored| stored.block.header.prev_blockhash)
            .collect();
        let leaves = self
            .blocks
            .iter()
            .filter(|(hash, _)| !parents.contains(*hash) && !self.is_active(hash));
        leaves
            .map(|(hash, stored)| (*hash, stored.height))
            .collect()
    }

    /// Validates a block with the library, and follows the library to its new tip.
    pub(super) fn process(&mut self, block: Block) -> Result<TipChange, DevnetError> {
        let hash = block.block_hash();
        if self.blocks.contains_key(&hash) {
            return Ok(TipChange::default());
        }
        if !self.blocks.contains_key(&block.header.prev_blockhash) {
            return Err(DevnetError::Block("its parent is unknown".into()));
        }
        if self.kernel.is_none() {
            self.rebuild()?;
        }
        self.kernel()?.process(&block)?;
        let logged = self
            .log
            .as_mut()
            .map_or(Ok(()), |log| log.append(&Record::Block(block.clone())));
        if let Err(error) = logged {
            // The library has a block that is not in the log, and has to be rebuilt without it.
            self.rebuild()?;
            return Err(error);
        }
        self.store(block);
        self.follow_kernel()
    }

    /// As [`ChainState::process`], for a block that was mined here on the tip, of transactions that were validated
    /// before. A chain of trusted blocks trusts it too.
    pub(super) fn extend(&mut self, block: Block) -> Result<TipChange, DevnetError> {
        match self.given {
            Some(_) => self.trust(block),
            None => self.process(block),
        }
    }

    /// Validates all trusted blocks with the library.
    pub(super) fn validate(&mut self) -> Result<(), DevnetError> {
        if self.kernel.is_some() || self.given == Some(self.order.len()) {
            return Ok(());
        }
        let tip = self.tip();
        self.rebuild()?;
        match self.tip() == tip {
            true => Ok(()),
            false => Err(DevnetError::Kernel("it does not take the tip".into())),
        }
    }

    /// Syncs the log to the disk.
    pub(super) fn sync(&self) -> Result<(), DevnetError> {
        self.log.as_ref().map_or(Ok(()), BlockLog::sync)
    }

    /// Marks a block and all its descendants invalid.
    pub(super) fn invalidate(&mut self, hash: &BlockHash) -> Result<TipChange, DevnetError> {
        if self.tip().height == 0 || self.hash_at(0) == Some(*hash) {
            return Err(DevnetError::Invalid(
                "the genesis block cannot be invalidated".into(),
            ));
        }
        self.append(Record::Invalidate(*hash))?;
        self.invalid.insert(*hash);
        self.rebuild()
    }

    /// Undoes [`ChainState::invalidate`] for a block and its ancestors.
    pub(super) fn reconsider(&mut self, hash: &BlockHash) -> Result<TipChange, DevnetError> {
        self.append(Record::Reconsider(*hash))?;
        self.reconsider_ancestry(hash);
        self.rebuild()
    }

    fn append(&mut self, record: Record) -> Result<(), DevnetError> {
        match &mut self.log {
            Some(log) => log.append(&record).and_then(|()| log.sync()),
            None => Ok(()),
        }
    }

    fn kernel(&self) -> Result<&Kernel, DevnetError> {
        self.kernel
            .as_ref()
            .ok_or_else(|| DevnetError::Kernel("it could not be started again".into()))
    }

    fn reconsider_ancestry(&mut self, hash: &BlockHash) {
        let mut next = Some(*hash);
        while let Some(hash) = next {
            self.invalid.remove(&hash);
            next = self
                .block(&hash)
                .map(|stored| stored.block.header.prev_blockhash);
        }
        // And its descendants.
        let descendants: Vec<_> = self
            .invalid
            .iter()
            .filter(|other| self.descends(other, hash))
            .copied()
            .collect();
        descendants.iter().for_each(|hash| {
            self.invalid.remove(hash);
        });
    }

    fn descends(&self, block: &BlockHash, ancestor: &BlockHash) -> bool {
        let mut next = Some(*block);
        while let Some(hash) = next {
            if hash == *ancestor {
                return true;
            }
            next = self
                .block(&hash)
                .map(|stored| stored.block.header.prev_blockhash);
        }
        false
    }

    fn store(&mut self, block: Block) {
        let hash = block.block_hash();
        let Some(parent) = self.blocks.get(&block.header.prev_blockhash) else {
            return;
        };
        let stored = StoredBlock {
            height: parent.height + 1,
            chainwork: parent.chainwork + block.header.work(),
            chain_txs: parent.chain_txs + block.txdata.len() as u64,
            block: Arc::new(block),
        };
        self.order.push(hash);
        self.blocks.insert(hash, stored);
    }

    /// Starts the library anew with all blocks that are not invalid, because it cannot remove a block.
    fn rebuild(&mut self) -> Result<TipChange, DevnetError> {
        let old = self.scratch.path().join(self.generation.to_string());
        self.generation += 1;
        let new = self.scratch.path().join(self.generation.to_string());
        let failed = |e: std::io::Error| {
            DevnetError::Data(format!("{}: {e}", self.scratch.path().display()))
        };
        if old.exists() {
            std::fs::remove_dir_all(&old).map_err(failed)?;
        }
        self.kernel = None;
        self.given = None;
        std::fs::create_dir_all(&new).map_err(failed)?;
        let kernel = Kernel::new(&new)?;
        let mut left_out = HashSet::new();
        for hash in &self.order {
            let Some(stored) = self.blocks.get(hash) else {
                continue;
            };
            if self.invalid.contains(hash) || left_out.contains(&stored.block.header.prev_blockhash)
            {
                left_out.insert(*hash);
            } else {
                kernel.process(&stored.block)?;
            }
        }
        self.kernel = Some(kernel);
        self.follow_kernel()
    }

    fn follow_kernel(&mut self) -> Result<TipChange, DevnetError> {
        let mut branch = vec![];
        let mut hash = self.kernel()?.tip();
        while !self.is_active(&hash) {
            let stored = self
                .block(&hash)
                .ok_or_else(|| DevnetError::Kernel("its tip is unknown".into()))?;
            branch.push(stored.clone());
            hash = stored.block.header.prev_blockhash;
        }
        let fork = self.block(&hash).map_or(0, |stored| stored.height);
        let mut change = TipChange::default();
        while self.tip().height > fork {
            change.disconnected.push(self.disconnect_tip());
        }
        change.disconnected.reverse();
        for stored in branch.into_iter().rev() {
            self.connect(&stored)?;
            change.connected.push(stored.block);
        }
        Ok(change)
    }

    fn connect(&mut self, stored: &StoredBlock) -> Result<(), DevnetError> {
        let hash = stored.block.block_hash();
        let mut spent = vec![];
        for tx in &stored.block.txdata {
            let txid = tx.compute_txid();
            for input in tx.input.iter().filter(|_| !tx.is_coinbase()) {
                let outpoint = input.previous_output;
                let coin = self.coins.remove(&outpoint);
                let coin = coin.ok_or_else(|| {
                    DevnetError::Kernel(format!("it spent the unknown {outpoint}"))
                })?;
                spent.push((outpoint, coin));
            }
            for (vout, output) in tx
                .output
                .iter()
                .enumerate()
                .filter(|(_, o)| !o.script_pubkey.is_op_return())
            {
                let coin = Coin {
                    output: output.clone(),
                    height: stored.height,
                    is_coinbase: tx.is_coinbase(),
                };
                self.coins.insert(OutPoint::new(txid, vout as u32), coin);
            }
            self.txindex.insert(txid, hash);
        }
        self.undo.insert(hash, spent);
        self.active.push(hash);
        Ok(())
    }

    fn disconnect_tip(&mut self) -> Arc<Block> {
        let hash = self.tip().hash;
        let block = self.blocks[&hash].block.clone();
        // First the outputs it spent, then those it created, so that an output created and spent in this block is
        // removed.
        for (outpoint, coin) in self.undo.remove(&hash).unwrap_or_default() {
            self.coins.insert(outpoint, coin);
        }
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            for vout in 0..tx.output.len() {
                self.coins.remove(&OutPoint::new(txid, vout as u32));
            }
            self.txindex.remove(&txid);
        }
        self.active.pop();
        block
    }
}
