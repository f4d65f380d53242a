//! Answers about blocks of the best chain.

use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::{BlockHash, Transaction};
use serde_json::{Value, json};

use super::super::chain::StoredBlock;
use super::json::{hash, number};
use super::{Answer, Body, Refused, View};

/// Blocks in one answer.
const MOST_BLOCKS: u32 = 10;
/// Transactions in one answer.
const MOST_TXS: usize = 25;

impl View<'_> {
    pub(super) fn hash_at(&self, height: u32) -> Answer {
        let hash = self.state.chain.hash_at(height).ok_or_else(not_found)?;
        Ok(Body::Text(hash.to_string()))
    }

    /// Descriptions of the block at a height and of those before it.
    pub(super) fn recent_blocks(&self, start: u32) -> Answer {
        let chain = &self.state.chain;
        chain.hash_at(start).ok_or_else(not_found)?;
        let heights = (start.saturating_sub(MOST_BLOCKS - 1)..=start).rev();
        let blocks = heights.filter_map(|height| chain.block(&chain.hash_at(height)?));
        Ok(Body::Json(
            blocks.map(|stored| self.describe(stored)).collect(),
        ))
    }

    /// `None` when there is no such path below a block's.
    pub(super) fn of_block(&self, text: &str, rest: &[&str]) -> Option<Answer> {
        let found = hash(text).map(|hash: BlockHash| (hash, self.active(&hash)));
        let (hash, found) = match found {
            Ok(found) => found,
            Err(refused) => return Some(Err(refused)),
        };
        if let ["status"] = rest {
            return Some(Ok(Body::Json(self.block_status(&hash, found))));
        }
        let Some(stored) = found else {
            return Some(Err(not_found()));
        };
        let block = &stored.block;
        let txids = || block.txdata.iter().map(Transaction::compute_txid);
        Some(match rest {
            [] => Ok(Body::Json(self.describe(stored))),
            ["header"] => Ok(Body::Text(serialize_hex(&block.header))),
            ["raw"] => Ok(Body::Bytes(serialize(&**block))),
            ["txids"] => Ok(Body::Json(json!(txids().collect::<Vec<_>>()))),
            ["txid", index] => number(index).and_then(|index| {
                let txid = txids().nth(index as usize);
                let txid = txid.ok_or_else(|| Refused::not_found("tx index out of range"))?;
                Ok(Body::Text(txid.to_string()))
            }),
            ["txs"] => self.block_txs(stored, 0),
            ["txs", start] => {
                number(start).and_then(|start| self.block_txs(stored, start as usize))
            }
            _ => return None,
        })
    }

    /// A block of the best chain.
    fn active(&self, hash: &BlockHash) -> Option<&StoredBlock> {
        self.state
            .chain
            .block(hash)
            .filter(|_| self.state.chain.is_active(hash))
    }

    fn block_status(&self, hash: &BlockHash, found: Option<&StoredBlock>) -> Value {
        let chain = &self.state.chain;
        match found {
            None => json!({ "in_best_chain": false, "height": null, "next_best": null }),
            Some(stored) => json!({
                "in_best_chain": chain.is_active(hash),
                "height": stored.height,
                "next_best": chain.hash_at(stored.height + 1),
            }),
        }
    }

    fn block_txs(&self, stored: &StoredBlock, start: usize) -> Answer {
        if !start.is_multiple_of(MOST_TXS) {
            let text = format!("start index must be a multiple of {MOST_TXS}");
            return Err(Refused::bad_request(text));
        }
        let txs = stored.block.txdata.iter().skip(start).take(MOST_TXS);
        Ok(Body::Json(
            txs.map(|tx| self.show(tx, Some(stored))).collect(),
        ))
    }

    fn describe(&self, stored: &StoredBlock) -> Value {
        let (header, hash) = (&stored.block.header, stored.block.block_hash());
        let parent = (stored.height > 0).then_some(header.prev_blockhash);
        json!({
            "id": hash,
            "height": stored.height,
            "version": header.version.to_consensus(),
            "timestamp": header.time,
            "tx_count": stored.block.txdata.len(),
            "size": stored.block.total_size(),
            "weight": stored.block.weight().to_wu(),
            "merkle_root": header.merkle_root,
            "previousblockhash": parent,
            "mediantime": self.state.chain.median_time_past(&hash),
            "nonce": header.nonce,
            "bits": header.bits.to_consensus(),
            "difficulty": header.difficulty_float(),
        })
    }
}

fn not_found() -> Refused {
    Refused::not_found("Block not found")
}
