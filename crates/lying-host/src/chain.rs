//! A chain of regtest that is mined here, and what a host shows a phone of it.

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::bip158::{BlockFilter, BlockFilterWriter, FilterHeader};
use bitcoin::blockdata::script::Builder;
use bitcoin::consensus::serialize;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, block, transaction,
};
use lightning::ln::chan_utils::{ChannelTransactionParameters, make_funding_redeemscript};
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ExtendHeaders, ProveTransaction, ShowFilters};
use longhand_spv::Proof;

/// So many seconds are between two blocks.
const SPACING_S: u32 = 600;

/// Blocks from the genesis block on. Two of them with the same name have the same blocks.
#[derive(Clone)]
pub struct Chain {
    blocks: Vec<Block>,
    /// What the coinbase transactions say, so that forks have other blocks.
    name: &'static [u8],
    /// The time of the next blocks, in seconds since 1970; otherwise each is ten minutes after the one before it.
    pub next_unix_s: Option<u32>,
}

impl Chain {
    /// The genesis block alone.
    pub fn new(name: &'static [u8]) -> Chain {
        Chain {
            blocks: vec![genesis_block(Network::Regtest)],
            name,
            next_unix_s: None,
        }
    }

    /// The same blocks up to a height, on which other blocks follow.
    pub fn fork(&self, height: u32, name: &'static [u8]) -> Chain {
        let mut fork = self.clone();
        fork.blocks.truncate(height as usize + 1);
        fork.name = name;
        fork
    }

    /// The height of the tip.
    pub fn height(&self) -> u32 {
        u32::try_from(self.blocks.len() - 1).expect("a short chain")
    }

    /// The block at a height.
    pub fn block(&self, height: u32) -> &Block {
        &self.blocks[height as usize]
    }

    /// Mines a block with these transactions.
    pub fn mine(&mut self, transactions: &[Transaction]) {
        let previous = self.blocks.last().expect("the genesis block");
        let coinbase = coinbase(self.height() + 1, self.name);
        let txdata: Vec<Transaction> = [coinbase].iter().chain(transactions).cloned().collect();
        let mut block = Block {
            header: block::Header {
                version: block::Version::TWO,
                prev_blockhash: previous.block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.next_unix_s.unwrap_or(previous.header.time + SPACING_S),
                bits: previous.header.bits,
                nonce: 0,
            },
            txdata,
        };
        block.header.merkle_root = block.compute_merkle_root().expect("a coinbase");
        while block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce += 1;
        }
        self.blocks.push(block);
    }

    /// Mines so many blocks without transactions.
    pub fn mine_empty(&mut self, blocks: u32) {
        (0..blocks).for_each(|_| self.mine(&[]));
    }

    /// The operation that shows the headers above a height.
    pub fn headers_above(&self, height: u32) -> Op {
        let blocks = &self.blocks[height as usize + 1..];
        let headers = blocks.iter().flat_map(|block| serialize(&block.header));
        Op::ExtendHeaders(ExtendHeaders {
            headers: headers.collect(),
            solutions: Vec::new(),
        })
    }

    /// The filters of the blocks at these heights, and the block of the first.
    pub fn filters(&self, from: u32, to: u32, with_block: bool) -> ShowFilters {
        let filters = (0..=to).map(|height| self.filter(height));
        let filters: Vec<BlockFilter> = filters.collect();
        let (before, shown) = filters.split_at(from as usize);
        let previous = before
            .iter()
            .fold(FilterHeader::all_zeros(), |header, filter| {
                filter.filter_header(&header)
            });
        let hashes = (from..=to).map(|height| serialize(&self.block(height).block_hash()));
        ShowFilters {
            first_height: from,
            previous_header: previous.to_byte_array().to_vec(),
            filters: shown.iter().map(|filter| filter.content.clone()).collect(),
            block_hashes: hashes.collect(),
            block: match with_block {
                true => serialize(self.block(from)),
                false => Vec::new(),
            },
        }
    }

    /// The filter of one block, without the script that its coinbase transaction pays to.
    pub fn filters_without_coinbase(&self, height: u32) -> ShowFilters {
        let block = self.block(height);
        let mut content = Vec::new();
        let mut writer = BlockFilterWriter::new(&mut content, block);
        let others = block.txdata.iter().skip(1);
        for output in others.flat_map(|transaction| &transaction.output) {
            writer.add_element(output.script_pubkey.as_bytes());
        }
        writer.finish().expect("bytes in memory");
        ShowFilters {
            filters: vec![content],
            ..self.filters(height, height, false)
        }
    }

    fn filter(&self, height: u32) -> BlockFilter {
        let transactions = self.blocks.iter().flat_map(|block| &block.txdata);
        let scripts: HashMap<OutPoint, ScriptBuf> = transactions.flat_map(outputs).collect();
        let script = |outpoint: &OutPoint| {
            // Outputs that nobody made here have a script of their own.
            let unknown = || ScriptBuf::from_bytes(vec![0x51]);
            Ok(scripts.get(outpoint).cloned().unwrap_or_else(unknown))
        };
        BlockFilter::new_script_filter(self.block(height), script).expect("every script is there")
    }

    /// Where a transaction is: the height of its block, and its place in it.
    pub fn place(&self, txid: Txid) -> Option<(u32, u32)> {
        (0..).zip(&self.blocks).find_map(|(height, block)| {
            let is_it = |tx: &Transaction| tx.compute_txid() == txid;
            let at = block.txdata.iter().position(is_it)?;
            Some((height, u32::try_from(at).ok()?))
        })
    }

    /// The proof of a transaction in it.
    pub fn proof(&self, txid: Txid) -> Proof {
        let (height, position) = self.place(txid).expect("a mined transaction");
        Proof::prove(self.block(height), position).expect("an honest proof")
    }
}

fn outputs(transaction: &Transaction) -> impl Iterator<Item = (OutPoint, ScriptBuf)> {
    let txid = transaction.compute_txid();
    let outputs = (0..).zip(&transaction.output);
    outputs.map(move |(vout, output)| (OutPoint { txid, vout }, output.script_pubkey.clone()))
}

/// The operation with a proof.
pub fn prove(proof: &Proof) -> Op {
    Op::ProveTransaction(ProveTransaction {
        proof: proof.encode(),
    })
}

/// The transaction that funds the channel with these keys, of this value: its output 0.
pub fn funding_transaction(parameters: &ChannelTransactionParameters) -> Transaction {
    let keys = parameters.counterparty_parameters.as_ref();
    let theirs = keys.expect("a whole channel").pubkeys.funding_pubkey;
    let ours = parameters.holder_pubkeys.funding_pubkey;
    let output = TxOut {
        value: Amount::from_sat(parameters.channel_value_satoshis),
        script_pubkey: make_funding_redeemscript(&ours, &theirs).to_p2wsh(),
    };
    transaction(OutPoint::new(Txid::from_byte_array([6; 32]), 0), output)
}

/// A transaction that spends an output into another.
pub fn transaction(previous_output: OutPoint, output: TxOut) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }],
        output: vec![output],
    }
}

/// The hash of no block.
pub fn no_block() -> BlockHash {
    BlockHash::all_zeros()
}

fn coinbase(height: u32, name: &[u8]) -> Transaction {
    let name = bitcoin::script::PushBytesBuf::try_from(name.to_vec()).expect("a short name");
    let mut coinbase = transaction(
        OutPoint::null(),
        TxOut {
            value: Amount::from_sat(5_000_000_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        },
    );
    coinbase.input[0].script_sig = Builder::new()
        .push_int(height.into())
        .push_slice(name)
        .into_script();
    coinbase
}
