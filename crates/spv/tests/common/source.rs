//! A source of blocks and of their filters.

use bitcoin::bip158::{BlockFilter, BlockFilterWriter, FilterHash};
use bitcoin::hashes::Hash;
use bitcoin::{Block, OutPoint, bip158::FilterHeader};
use longhand_spv::filter::filter_hash;
use longhand_spv::{FilterAnswer, FilterChain, Headers, SpendWatch};

use super::{NOW, block, genesis, outpoint, p2wsh, spend};

/// A source: blocks from height 1 on, and their filters.
#[derive(Clone, Default)]
pub struct Source {
    pub blocks: Vec<Block>,
    pub filters: Vec<Vec<u8>>,
}

impl Source {
    /// Mines a block that spends these outputs, made by the script of their first byte.
    pub fn mine(&mut self, salt: u32, spends: &[u8]) {
        let previous = self.blocks.last().map_or(genesis(), |block| block.header);
        let height = u32::try_from(self.blocks.len()).unwrap() + 1;
        let transactions = spends.iter().map(|byte| spend(outpoint(*byte), p2wsh(200)));
        let block = block(&previous, height, salt, transactions);
        self.filters.push(honest(&block));
        self.blocks.push(block);
    }

    /// The headers and the filters' hashes of all blocks.
    pub fn tell(&self, headers: &mut Headers, chain: &mut FilterChain) {
        let all: Vec<_> = self.blocks.iter().map(|block| block.header).collect();
        let _ = headers.extend(&all, NOW).unwrap();
        chain.sync(headers);
        let known = chain.next_height() as usize - 1;
        let hashes: Vec<FilterHash> = self
            .filters
            .iter()
            .map(|bytes| filter_hash(bytes))
            .collect();
        chain.extend(headers, &hashes[known..]).unwrap();
    }
}

/// A filter as it is to be: every output that is spent has the script of its number.
pub fn honest(block: &Block) -> Vec<u8> {
    let script = |outpoint: &OutPoint| Ok(p2wsh(u8::try_from(outpoint.vout).unwrap()));
    BlockFilter::new_script_filter(block, script)
        .unwrap()
        .content
}

/// The filter of another block under this one's key: it leaves out what this one has.
pub fn lying(block: &Block) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = BlockFilterWriter::new(&mut out, block);
    writer.add_element(&[7; 34]);
    writer.finish().unwrap();
    out
}

/// Filter headers from block 1 on. What is before it does not matter here.
pub fn after_genesis() -> FilterChain {
    FilterChain::new(1, FilterHeader::all_zeros())
}

/// Looks at everything up to the tip, as a phone does.
pub fn look(watch: &mut SpendWatch, headers: &Headers, chain: &FilterChain, source: &Source) {
    while let Some(height) = watch
        .next_height()
        .filter(|height| *height <= headers.height())
    {
        let at = height as usize - 1;
        let filter = &source.filters[at];
        let answer = watch.filter(headers, chain, height, filter).unwrap();
        if answer == FilterAnswer::BlockNeeded {
            let block = &source.blocks[at];
            watch.block(headers, height, block, Some(filter)).unwrap();
        }
    }
}
