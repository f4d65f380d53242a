//! A correct Bitcoin Core, with two chains of a few blocks that share the first ones.

use std::sync::OnceLock;

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Witness,
};
use longhand_chain::BlockRef;
use longhand_chain::fuzzing::NodeAnswer;
use serde_json::{Value, json};

/// Blocks that both chains have, the first one counted.
const SHARED: usize = 2;
/// Heights of the tips.
const TIPS: [usize; 2] = [3, 4];

/// See the module.
pub(super) struct Core {
    best: usize,
}

fn chains() -> &'static [Vec<Block>; 2] {
    static CHAINS: OnceLock<[Vec<Block>; 2]> = OnceLock::new();
    CHAINS.get_or_init(|| {
        let mut shared = vec![bitcoin::constants::genesis_block(Network::Regtest)];
        grow(&mut shared, SHARED, 0);
        [0, 1].map(|chain| {
            let mut blocks = shared.clone();
            grow(&mut blocks, TIPS[chain] + 1, chain as u64);
            blocks
        })
    })
}

/// Adds blocks until there are `length`. Their proof of work is not checked.
fn grow(blocks: &mut Vec<Block>, length: usize, chain: u64) {
    while let Some(last) = blocks.last().filter(|_| blocks.len() < length) {
        let height = blocks.len() as u64;
        let coinbase = transaction(OutPoint::null(), 1_000 * height + chain);
        let spends = OutPoint::new(last.txdata[0].compute_txid(), 0);
        let txdata = vec![coinbase, transaction(spends, height)];
        let mut block = Block {
            header: Header {
                version: bitcoin::block::Version::TWO,
                prev_blockhash: last.block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: 1_800_000_000,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata,
        };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        blocks.push(block);
    }
}

fn transaction(spends: OutPoint, value_sat: u64) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: spends,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(value_sat),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

impl Core {
    pub fn new() -> Core {
        Core { best: 0 }
    }

    /// The other chain is the best one now.
    pub fn reorganise(&mut self) {
        self.best = 1;
    }

    /// A block of the best chain.
    pub fn at(&self, height: usize) -> BlockRef {
        BlockRef {
            height: height as u32,
            hash: self.best()[height].block_hash(),
        }
    }

    pub fn tip(&self) -> BlockRef {
        self.at(self.best().len() - 1)
    }

    pub fn some_hash(&self, which: u32) -> BlockHash {
        let blocks = self.best();
        blocks[which as usize % blocks.len()].block_hash()
    }

    pub fn some_transaction(&self, which: u32) -> Transaction {
        let blocks = self.best();
        let block = &blocks[1 + which as usize % (blocks.len() - 1)];
        block.txdata[1].clone()
    }

    fn best(&self) -> &'static [Block] {
        &chains()[self.best]
    }

    /// The node's answer to a call of the host.
    pub fn answer(&self, method: &str, params: &[Value]) -> NodeAnswer {
        let result = match method {
            "getblockchaininfo" => Some(json!({
                "chain": "regtest",
                "blocks": self.tip().height,
                "bestblockhash": self.tip().hash,
            })),
            "getblockhash" => params[0].as_u64().and_then(|height| {
                let block = self.best().get(usize::try_from(height).ok()?)?;
                Some(json!(block.block_hash()))
            }),
            "getblockheader" => block(&params[0]).map(|(height, block)| match params[1] {
                Value::Bool(true) => json!({ "height": height }),
                _ => json!(serialize_hex(&block.header)),
            }),
            "getblock" => block(&params[0]).map(|(_, block)| match params[1].as_u64() {
                Some(0) => json!(serialize_hex(block)),
                _ => {
                    let txids = block.txdata.iter().map(Transaction::compute_txid);
                    json!({ "tx": txids.collect::<Vec<_>>() })
                }
            }),
            "getindexinfo" => Some(json!({ "basic block filter index": { "synced": true } })),
            "getblockfilter" => block(&params[0])
                .map(|(_, block)| json!({ "filter": "00", "header": block.header.merkle_root })),
            "getmempoolinfo" => Some(json!({ "mempoolminfee": 0.00001 })),
            "estimatesmartfee" => Some(json!({ "feerate": 0.00002, "blocks": 6 })),
            "sendrawtransaction" => Some(json!(self.at(0).hash)),
            "submitpackage" => Some(json!({ "package_msg": "success", "tx-results": {} })),
            "getrawtransaction" => found(&params[0]).map(|tx| json!(serialize_hex(&tx))),
            "gettxout" => Some(json!({ "value": 0.00001, "scriptPubKey": { "hex": "51" } })),
            other => panic!("the host asks {other}"),
        };
        match result {
            Some(result) => NodeAnswer::Result(result),
            None => NodeAnswer::Error {
                code: -5,
                message: "not found".into(),
            },
        }
    }
}

/// A block of either chain.
fn block(hash: &Value) -> Option<(usize, &'static Block)> {
    let all = chains().iter().flat_map(|chain| chain.iter().enumerate());
    let mut all = all.filter(|(_, block)| json!(block.block_hash()) == *hash);
    all.next()
}

fn found(txid: &Value) -> Option<Transaction> {
    let blocks = chains().iter().flatten();
    let mut all = blocks.flat_map(|block| &block.txdata);
    all.find(|tx| json!(tx.compute_txid()) == *txid).cloned()
}
