//! Blocks at regtest's difficulty, of which every second nonce is enough.
#![allow(dead_code, clippy::unwrap_used)]

pub mod source;

use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Txid, Witness, block::Header, transaction,
};
use longhand_spv::{Checkpoint, Extended, Headers, Params, StoredChange};

/// A clock that is after all blocks here.
pub const NOW: u64 = 1_800_000_000;

pub fn genesis() -> Header {
    *Checkpoint::genesis(Network::Regtest).header()
}

pub fn regtest() -> Headers {
    Headers::new(
        Params::of(Network::Regtest),
        Checkpoint::genesis(Network::Regtest),
    )
}

/// A header with proof of work.
pub fn mine(mut header: Header) -> Header {
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

/// The next header, ten minutes later. Another salt is another block.
pub fn next(previous: &Header, salt: u32) -> Header {
    at(previous, salt, previous.time + 600)
}

/// The next header, at this time.
pub fn at(previous: &Header, salt: u32, time: u32) -> Header {
    let mut root = [0; 32];
    root[..4].copy_from_slice(&salt.to_le_bytes());
    mine(Header {
        version: Version::NO_SOFT_FORK_SIGNALLING,
        prev_blockhash: previous.block_hash(),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    })
}

/// So many headers after one.
pub fn chain(previous: &Header, count: usize, salt: u32) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut last = *previous;
    for _ in 0..count {
        last = next(&last, salt);
        headers.push(last);
    }
    headers
}

/// What the caller does with its file.
pub fn apply(file: &mut Vec<u8>, extended: &Extended) {
    let change: &StoredChange = match extended {
        Extended::Appended { change, .. } | Extended::Reorganised { change, .. } => change,
        _ => return,
    };
    file.truncate(usize::try_from(change.keep_bytes).unwrap());
    file.extend(&change.append);
}

/// The transaction that pays the miner of a block.
pub fn coinbase(height: u32, salt: u32) -> Transaction {
    let mut script = vec![4];
    script.extend(height.to_le_bytes());
    script.push(4);
    script.extend(salt.to_le_bytes());
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0; 32]]),
        }],
        output: vec![pay(50, p2wsh(0))],
    }
}

pub fn pay(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut {
        value: Amount::from_sat(sat),
        script_pubkey,
    }
}

/// A script of 34 bytes.
pub fn p2wsh(byte: u8) -> ScriptBuf {
    let mut script = vec![0, 32];
    script.extend([byte; 32]);
    ScriptBuf::from_bytes(script)
}

/// Spends an output to a script.
pub fn spend(previous: OutPoint, script: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: previous,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        }],
        output: vec![pay(1_000, script)],
    }
}

/// An output of a transaction that is nowhere.
pub fn outpoint(byte: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([byte; 32]), u32::from(byte))
}

/// The block after a header, with these transactions beside the miner's.
pub fn block(
    previous: &Header,
    height: u32,
    salt: u32,
    transactions: impl IntoIterator<Item = Transaction>,
) -> Block {
    let mut txdata = vec![coinbase(height, salt)];
    txdata.extend(transactions);
    let mut block = Block {
        header: next(previous, 0),
        txdata,
    };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block.header.nonce = 0;
    block.header = mine(block.header);
    block
}

pub fn hash(header: &Header) -> BlockHash {
    header.block_hash()
}
