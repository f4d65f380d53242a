//! Whether outputs are spent, and up to which block that is known.
//!
//! Each followed output is looked for block by block, from the block that made it on: in the block's filter, and where that matches, or
//! whenever a block is at hand, in the block. Blocks are checked against the header. A filter is checked against a
//! [`FilterChain`], and against its block when that is seen; one that leaves something out of a block that is never seen is found by
//! comparing filter headers with a second source, or by asking for some blocks whose filters do not match.

mod codec;

pub use self::codec::StoredWatchError;

use std::collections::BTreeMap;

use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Txid};

use crate::filter::{Filter, FilterChain, FilterError, is_filtered};
use crate::headers::Headers;
use crate::proof::Proven;
use crate::recent::Recent;

/// The most outputs that are followed.
pub const MAX_FOLLOWED: usize = 4096;
/// The longest script of a followed output; those of Lightning have 34 bytes.
pub const MAX_SCRIPT_BYTES: usize = 128;

/// The reason for which a filter, a block or an output is refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Too many are followed.
    #[error("{MAX_FOLLOWED} outputs are followed already: forget some that are spent")]
    TooMany,
    /// A script that no filter has, or too long.
    #[error(
        "an output whose script is empty, begins with OP_RETURN or has more than {MAX_SCRIPT_BYTES} bytes cannot be followed"
    )]
    Script,
    /// The output is followed with another script.
    #[error("the output is followed with another script: forget it first")]
    OtherScript,
    /// The header of this height is not known.
    #[error("the header at height {0} is not known here: fetch headers first")]
    Header(u32),
    /// Nothing is to be looked for there yet.
    #[error("nothing is to be looked for at height {height} now: ask for the next height first")]
    NotNext {
        /// What was handed in.
        height: u32,
        /// The lowest height that is needed; `None` when all is spent.
        next: Option<u32>,
    },
    /// The block is not the one of the header.
    #[error("this is not block {0}: ask for that one")]
    OtherBlock(BlockHash),
    /// The block of a proof is not in the chain any more.
    #[error("block {0} of a proof is not in the chain any more: ask for the proof again")]
    Gone(BlockHash),
    /// Its transactions are not those of the header.
    #[error("the transactions of block {0} are not those of its header: ask another source")]
    Transactions(BlockHash),
    /// The filter is none, or not the source's.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The filter leaves out what its block has.
    #[error(
        "the filter of the block at height {0} leaves out scripts of the block: its source lies, take another"
    )]
    LyingFilter(u32),
}

/// What a filter shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterAnswer {
    /// Nothing that is followed is in the block, if the filter is honest.
    Clear,
    /// The block is needed: hand it in with [`SpendWatch::block`].
    BlockNeeded,
}

/// What is known of a followed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No block up to this height spends it. Below the block that made it when none was seen yet.
    Unspent {
        /// The height.
        up_to: u32,
    },
    /// A block spends it.
    Spent(Spend),
}

/// How an output is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    /// The output.
    pub outpoint: OutPoint,
    /// The transaction that spends it.
    pub by: Txid,
    /// The transaction's place in the block, from 0.
    pub position: u32,
    /// The block's height.
    pub height: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    script: ScriptBuf,
    /// The height of the block that made it.
    from: u32,
    /// The next height to be looked at.
    next: u32,
    spend: Option<Spend>,
}

impl Followed {
    fn is_due(&self, height: u32) -> bool {
        self.spend.is_none() && self.next == height
    }

    fn take_back(&mut self, next: u32) {
        self.next = self.next.min(next);
        self.spend = self.spend.filter(|spend| spend.height < next);
    }
}

/// Outputs that are followed. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpendWatch {
    outputs: BTreeMap<OutPoint, Followed>,
    recent: Recent,
}

impl SpendWatch {
    /// Follows nothing.
    pub fn new() -> SpendWatch {
        SpendWatch::default()
    }

    /// Follows an output from the block at height `from` on, in which it was made. One that is followed already stays as it is, unless it was
    /// made at another height: a reorganisation has moved it, and it is looked for anew.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn follow(
        &mut self,
        outpoint: OutPoint,
        script: ScriptBuf,
        from: u32,
    ) -> Result<(), WatchError> {
        // Nothing of the genesis block can be spent.
        let from = from.max(1);
        if let Some(known) = self.outputs.get_mut(&outpoint) {
            if known.script != script {
                return Err(WatchError::OtherScript);
            }
            if known.from != from {
                (known.from, known.next, known.spend) = (from, from, None);
            }
            return Ok(());
        }
        if !is_filtered(&script) || script.len() > MAX_SCRIPT_BYTES {
            return Err(WatchError::Script);
        }
        if self.outputs.len() >= MAX_FOLLOWED {
            return Err(WatchError::TooMany);
        }
        let followed = Followed {
            script,
            from,
            next: from,
            spend: None,
        };
        self.outputs.insert(outpoint, followed);
        Ok(())
    }

    /// Follows an output no longer.
    pub fn forget(&mut self, outpoint: &OutPoint) {
        self.outputs.remove(outpoint);
    }

    /// What is known of an output; `None` when it is not followed. It is of the chain that the last call of
    /// [`SpendWatch::sync`], [`SpendWatch::filter`] or [`SpendWatch::block`] has seen.
    pub fn status(&self, outpoint: &OutPoint) -> Option<Status> {
        let followed = self.outputs.get(outpoint)?;
        Some(match followed.spend {
            Some(spend) => Status::Spent(spend),
            None => Status::Unspent {
                up_to: followed.next.saturating_sub(1),
            },
        })
    }

    /// The height from which on an output is followed.
    pub fn followed_from(&self, outpoint: &OutPoint) -> Option<u32> {
        self.outputs.get(outpoint).map(|followed| followed.from)
    }

    /// Looks for all that is not spent anew, from the blocks on that made it: the filters so far were not honest.
    pub fn look_again(&mut self) {
        let open = self.outputs.values_mut();
        for followed in open.filter(|one| one.spend.is_none()) {
            followed.next = followed.from;
        }
    }

    /// The outputs that are followed.
    pub fn outpoints(&self) -> impl Iterator<Item = &OutPoint> {
        self.outputs.keys()
    }

    /// The lowest height at which something is to be looked for; the block there may not be mined yet. `None` when all is spent.
    pub fn next_height(&self) -> Option<u32> {
        let open = self.outputs.values().filter(|one| one.spend.is_none());
        open.map(|one| one.next).min()
    }

    /// Takes back what was learned from blocks that are not in the chain any more. To be called after each reorganisation, and when the
    /// program starts; the other calls do it too. `true` when something was taken back. After one deeper than the last 144 blocks that
    /// were looked at all is looked for anew.
    pub fn sync(&mut self, headers: &Headers) -> bool {
        let Err(common) = self.recent.sync(headers) else {
            return false;
        };
        for followed in self.outputs.values_mut() {
            let next = common.map_or(followed.from, |height| height.saturating_add(1));
            followed.take_back(next);
        }
        true
    }

    /// Takes the filter of the block at a height at which something is to be looked for.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn filter(
        &mut self,
        headers: &Headers,
        chain: &FilterChain,
        height: u32,
        filter: &[u8],
    ) -> Result<FilterAnswer, WatchError> {
        self.sync(headers);
        let block = headers.hash(height).ok_or(WatchError::Header(height))?;
        self.check_due(height)?;
        chain.check(height, filter)?;
        let filter = Filter::parse(block, filter)?;
        if self.due(height).any(|one| filter.matches(&one.script)) {
            return Ok(FilterAnswer::BlockNeeded);
        }
        self.seen(height, block);
        Ok(FilterAnswer::Clear)
    }

    /// Takes the whole block at a height at which something is to be looked for, and says which followed outputs it spends. With the
    /// source's filter beside it, one that leaves out something is found; without one a block is enough.
    ///
    /// # Errors
    /// See [`WatchError`]. A block with a lying filter is refused too, so that it cannot be passed over: hand it in without.
    pub fn block(
        &mut self,
        headers: &Headers,
        height: u32,
        block: &Block,
        filter: Option<&[u8]>,
    ) -> Result<Vec<Spend>, WatchError> {
        self.sync(headers);
        let hash = headers.hash(height).ok_or(WatchError::Header(height))?;
        self.check_due(height)?;
        check_block(hash, block)?;
        let spends = self.spends(height, block);
        if let Some(filter) = filter {
            let filter = Filter::parse(hash, filter)?;
            let mut spent = spends
                .iter()
                .filter_map(|one| self.outputs.get(&one.outpoint));
            let has_spent = spent.all(|one| filter.matches(&one.script));
            if !has_spent || !filter.has_outputs_of(block) {
                return Err(WatchError::LyingFilter(height));
            }
        }
        for spend in &spends {
            if let Some(followed) = self.outputs.get_mut(&spend.outpoint) {
                followed.spend = Some(*spend);
            }
        }
        self.seen(height, hash);
        Ok(spends)
    }

    /// Takes a transaction whose place in the chain a [`Proof`](crate::Proof) has shown, and says which followed outputs it spends. What
    /// it spends is not looked for any more, whatever was seen of the blocks before.
    ///
    /// # Errors
    /// Its block is not in the chain any more.
    pub fn proven(&mut self, headers: &Headers, proven: &Proven) -> Result<Vec<Spend>, WatchError> {
        self.sync(headers);
        if headers.hash(proven.height) != Some(proven.block) {
            return Err(WatchError::Gone(proven.block));
        }
        let mut spends = Vec::new();
        for input in &proven.transaction.input {
            let outpoint = input.previous_output;
            let followed = self.outputs.get_mut(&outpoint);
            if let Some(followed) = followed.filter(|one| one.spend.is_none()) {
                let spend = Spend {
                    outpoint,
                    by: proven.txid,
                    position: proven.position,
                    height: proven.height,
                };
                followed.spend = Some(spend);
                // No block of this chain before it spends it.
                followed.next = proven.height.saturating_add(1);
                spends.push(spend);
            }
        }
        if !spends.is_empty() {
            self.recent.push(proven.height, proven.block);
        }
        Ok(spends)
    }

    fn check_due(&self, height: u32) -> Result<(), WatchError> {
        match self.due(height).next() {
            Some(_) => Ok(()),
            None => Err(WatchError::NotNext {
                height,
                next: self.next_height(),
            }),
        }
    }

    fn due(&self, height: u32) -> impl Iterator<Item = &Followed> {
        let outputs = self.outputs.values();
        outputs.filter(move |one| one.is_due(height))
    }

    /// What the block spends of that which is looked for there.
    fn spends(&self, height: u32, block: &Block) -> Vec<Spend> {
        let mut spends = Vec::new();
        for (position, transaction) in (0..).zip(&block.txdata) {
            for input in &transaction.input {
                let outpoint = input.previous_output;
                let followed = self.outputs.get(&outpoint);
                if followed.is_some_and(|one| one.is_due(height)) {
                    spends.push(Spend {
                        outpoint,
                        by: transaction.compute_txid(),
                        position,
                        height,
                    });
                }
            }
        }
        spends
    }

    fn seen(&mut self, height: u32, block: BlockHash) {
        let due = self.outputs.values_mut();
        for followed in due.filter(|one| one.next == height) {
            followed.next = height.saturating_add(1);
        }
        self.recent.push(height, block);
    }
}

/// Whether it is the block with this hash. Its first transaction pays the miner, so that parts of the tree cannot pass for
/// transactions of 64 bytes (CVE-2017-12842).
fn check_block(hash: BlockHash, block: &Block) -> Result<(), WatchError> {
    if block.block_hash() != hash {
        return Err(WatchError::OtherBlock(hash));
    }
    let first = block.txdata.first();
    let is_whole = first.is_some_and(|first| first.is_coinbase()) && block.check_merkle_root();
    is_whole.then_some(()).ok_or(WatchError::Transactions(hash))
}
