//! The index of the best chain by script, and of the spends of its outputs. It follows the chain when it is asked, by
//! undoing and connecting blocks, so that a devnet without Esplora's REST has no work with it.

use std::collections::{BTreeSet, HashMap};

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::{Block, BlockHash, OutPoint, Script, Txid};

use super::super::chain::ChainState;

/// SHA-256 of an output's script.
pub(super) type ScriptHash = sha256::Hash;

/// See [`ScriptHash`].
pub(super) fn script_hash(script: &Script) -> ScriptHash {
    sha256::Hash::hash(script.as_bytes())
}

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    /// From the first block on.
    blocks: Vec<Indexed>,
    history: HashMap<ScriptHash, Vec<Txid>>,
    spends: HashMap<OutPoint, (Txid, u32)>,
}

/// What a block has added, in order.
struct Indexed {
    hash: BlockHash,
    touched: Vec<ScriptHash>,
    spent: Vec<OutPoint>,
}

impl Index {
    /// Transactions that pay to a script or spend from it, the oldest first.
    pub(super) fn history(&self, script: &ScriptHash) -> &[Txid] {
        self.history.get(script).map_or(&[], Vec::as_slice)
    }

    /// The transaction that spends an output, and the index of its input.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<(Txid, u32)> {
        self.spends.get(outpoint).copied()
    }

    /// Goes to the tip of `chain`.
    pub(super) fn follow(&mut self, chain: &ChainState) {
        while self
            .blocks
            .last()
            .is_some_and(|last| !chain.is_active(&last.hash))
        {
            self.undo();
        }
        while let Some(hash) = u32::try_from(self.blocks.len())
            .ok()
            .and_then(|height| chain.hash_at(height))
        {
            let Some(stored) = chain.block(&hash) else {
                return;
            };
            let spent = chain.spent_by(&hash).unwrap_or_default();
            let spent = spent
                .iter()
                .map(|(outpoint, coin)| (*outpoint, script_hash(&coin.output.script_pubkey)));
            self.connect(hash, &stored.block, &spent.collect());
        }
    }

    fn connect(&mut self, hash: BlockHash, block: &Block, from: &HashMap<OutPoint, ScriptHash>) {
        let mut indexed = Indexed {
            hash,
            touched: vec![],
            spent: vec![],
        };
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            let outputs = tx
                .output
                .iter()
                .map(|output| script_hash(&output.script_pubkey));
            let mut scripts: BTreeSet<ScriptHash> = outputs.collect();
            for (vin, input) in (0..).zip(&tx.input) {
                if let Some(script) = from.get(&input.previous_output) {
                    scripts.insert(*script);
                    self.spends.insert(input.previous_output, (txid, vin));
                    indexed.spent.push(input.previous_output);
                }
            }
            for script in scripts {
                self.history.entry(script).or_default().push(txid);
                indexed.touched.push(script);
            }
        }
        self.blocks.push(indexed);
    }

    fn undo(&mut self) {
        let Some(indexed) = self.blocks.pop() else {
            return;
        };
        for script in indexed.touched {
            if let Some(history) = self.history.get_mut(&script) {
                history.pop();
            }
        }
        for outpoint in indexed.spent {
            self.spends.remove(&outpoint);
        }
    }
}
