//! Compact filters of blocks (BIP 158) and their filter headers (BIP 157), as of a Bitcoin Core with `blockfilterindex`.

use std::collections::HashMap;

use bitcoin::bip158::{self, BlockFilter as ScriptFilter, FilterHeader};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash, OutPoint, Script};

use super::chain::{ChainState, Coin};
use crate::BlockFilter;

/// The filters that were asked for, and those of all blocks below. A filter header depends on the block and its ancestors
/// alone, so that a reorganisation makes none of them wrong.
#[derive(Default)]
pub(super) struct Filters {
    by_block: HashMap<BlockHash, BlockFilter>,
}

impl Filters {
    /// The filter of an active block; `None` for any other, of which it is not known what it spent.
    pub(super) fn of(&mut self, chain: &ChainState, hash: &BlockHash) -> Option<BlockFilter> {
        let height = chain.block(hash).filter(|_| chain.is_active(hash))?.height;
        let mut first = height;
        while first > 0 && !self.has(chain, first) {
            first -= 1;
        }
        // From the highest block that has one already, which is made anew only when it is the genesis block.
        for height in first..=height {
            if !self.has(chain, height) {
                self.make(chain, height)?;
            }
        }
        self.by_block.get(hash).cloned()
    }

    fn has(&self, chain: &ChainState, height: u32) -> bool {
        let hash = chain.hash_at(height);
        hash.is_some_and(|hash| self.by_block.contains_key(&hash))
    }

    /// Makes the filter of the active block at a height, for which that of the block below is there.
    fn make(&mut self, chain: &ChainState, height: u32) -> Option<()> {
        let hash = chain.hash_at(height)?;
        let block = &chain.block(&hash)?.block;
        let previous = match height {
            0 => FilterHeader::all_zeros(),
            _ => self.by_block.get(&block.header.prev_blockhash)?.header,
        };
        let filter = script_filter(block, chain.spent_by(&hash).unwrap_or_default())?;
        let made = BlockFilter {
            header: filter.filter_header(&previous),
            filter: filter.content,
        };
        self.by_block.insert(hash, made);
        Some(())
    }
}

/// The basic filter of a block that spent these outputs.
fn script_filter(block: &Block, spent: &[(OutPoint, Coin)]) -> Option<ScriptFilter> {
    let scripts = spent
        .iter()
        .map(|(outpoint, coin)| (outpoint, coin.output.script_pubkey.as_script()));
    let scripts: HashMap<&OutPoint, &Script> = scripts.collect();
    let find = |outpoint: &OutPoint| {
        let script = scripts.get(outpoint).copied();
        script.ok_or(bip158::Error::UtxoMissing(*outpoint))
    };
    ScriptFilter::new_script_filter(block, find).ok()
}
