//! What is known of the best chain.

use bitcoin::{BlockHash, Work, block::Header};

use super::Headers;
use crate::checkpoint::Checkpoint;
use crate::params::Params;

/// The locator has so many of the last blocks one by one.
const LOCATOR_DENSE: usize = 10;

impl Headers {
    /// The rules of the network.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The block that the headers begin with.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The height of the tip.
    pub fn height(&self) -> u32 {
        let above = u32::try_from(self.best.len() - 1).unwrap_or(u32::MAX);
        self.checkpoint.height().saturating_add(above)
    }

    /// The hash of the tip.
    pub fn tip_hash(&self) -> BlockHash {
        self.tip_hash
    }

    /// The header of the tip.
    pub fn tip(&self) -> &Header {
        self.best.last().unwrap_or(self.checkpoint.header())
    }

    /// The header at a height of the best chain; `None` below the checkpoint and above the tip.
    pub fn header(&self, height: u32) -> Option<&Header> {
        let above = height.checked_sub(self.checkpoint.height())?;
        self.best.get(usize::try_from(above).ok()?)
    }

    /// The hash of the block at a height of the best chain.
    pub fn hash(&self, height: u32) -> Option<BlockHash> {
        if height == self.height() {
            return Some(self.tip_hash);
        }
        let next = self.header(height.checked_add(1)?)?;
        (height >= self.checkpoint.height()).then_some(next.prev_blockhash)
    }

    /// The height of a block of the best chain. Looks through all of them from the tip down: a few milliseconds for ten years.
    pub fn height_of(&self, hash: BlockHash) -> Option<u32> {
        if hash == self.tip_hash {
            return Some(self.height());
        }
        let at = self.best[1..]
            .iter()
            .rposition(|header| header.prev_blockhash == hash)?;
        let above = u32::try_from(at).ok()?;
        self.checkpoint.height().checked_add(above)
    }

    /// How many blocks confirm what is in the block at this height, that block included; 0 above the tip.
    pub fn confirmations(&self, height: u32) -> u32 {
        match self.height().checked_sub(height) {
            Some(above) => above.saturating_add(1),
            None => 0,
        }
    }

    /// The median of the times of the last eleven blocks, in unix seconds. In the first ten blocks after a checkpoint whose earlier times
    /// are not known it is a lower bound.
    pub fn median_time(&self) -> u32 {
        self.line(self.height(), &[]).median_time(self.height())
    }

    /// The work of all headers after the checkpoint. Two sources that do not agree are compared by it: a second `Headers` from the same
    /// checkpoint.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Whether the tip is too old by this clock: somebody keeps back blocks, or none were found for hours. A miner's time may be up to two hours
    /// ahead, so that a tip can look younger than it is by as much.
    pub fn is_stale(&self, now_unix_s: u64) -> bool {
        self.params.stale_after_s().is_some_and(|limit| {
            let until = u64::from(self.tip().time).saturating_add(u64::from(limit));
            now_unix_s > until
        })
    }

    /// Heights and hashes by which a source finds the last block that it shares with this chain, from the tip down: ten one by one, then
    /// further and further apart, the checkpoint last. Some 30 entries.
    pub fn locator(&self) -> Vec<(u32, BlockHash)> {
        let mut locator = Vec::new();
        let (mut height, mut step) = (self.height(), 1u32);
        while height > self.checkpoint.height() {
            locator.extend(self.hash(height).map(|hash| (height, hash)));
            if locator.len() >= LOCATOR_DENSE {
                step = step.saturating_mul(2);
            }
            height = height.saturating_sub(step);
        }
        locator.push((self.checkpoint.height(), self.checkpoint.hash()));
        locator
    }

    /// How many headers of branches with less work are kept.
    pub fn side_headers(&self) -> usize {
        self.side.count()
    }
}
