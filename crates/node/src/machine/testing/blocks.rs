//! Blocks of the world, and the chain's answers about them.

use std::collections::HashMap;

use bitcoin::bip158::{BlockFilter, FilterHeader};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Transaction, TxIn, TxMerkleNode,
    TxOut, transaction,
};
use longhand_chain::{
    BlockRef, ChainError, FiltersReply, FiltersRequest, HeadersReply, HeadersRequest,
};
use longhand_spv::Proof;

use super::START_UNIX_S;
use crate::parts::funding_proofs::ProofRequest;

/// A block of the world.
pub(crate) type WorldBlock = (Header, Vec<Transaction>);

/// A block on `previous`, with a coinbase transaction before `txs`, and with proof of work.
pub(super) fn mine(previous: BlockRef, txs: Vec<Transaction>) -> WorldBlock {
    let height = previous.height + 1;
    let txdata: Vec<Transaction> = [coinbase(height)].into_iter().chain(txs).collect();
    let header = Header {
        version: Version::TWO,
        prev_blockhash: previous.hash,
        merkle_root: TxMerkleNode::all_zeros(),
        time: u32::try_from(START_UNIX_S).unwrap() + height,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    (block.header, block.txdata)
}

fn coinbase(height: u32) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(height.into()).into_script(),
            ..TxIn::default()
        }],
        output: vec![TxOut {
            value: Amount::from_sat(5_000_000_000),
            script_pubkey: ScriptBuf::new(),
        }],
    }
}

/// The headers that are asked for.
pub(super) fn headers(
    blocks: &[WorldBlock],
    request: &HeadersRequest,
) -> Result<HeadersReply, ChainError> {
    let reference = |height: usize| BlockRef {
        height: u32::try_from(height).unwrap(),
        hash: blocks[height].0.block_hash(),
    };
    let is_known = |it: &&BlockRef| {
        let height = it.height as usize;
        height < blocks.len() && reference(height) == **it
    };
    let after = request.after.iter().find(is_known);
    let after = *after.ok_or_else(|| ChainError::NotFound("block".into()))?;
    let above = blocks[after.height as usize + 1..].iter();
    Ok(HeadersReply {
        after,
        headers: above.map(|(header, _)| *header).collect(),
        solutions: Vec::new(),
        tip: reference(blocks.len() - 1),
    })
}

/// The proof that is asked for.
pub(super) fn proof(blocks: &[WorldBlock], request: &ProofRequest) -> Result<Proof, ChainError> {
    let mut blocks = blocks.iter();
    let found = blocks.find(|(header, _)| header.block_hash() == request.block);
    let block = block(found.ok_or_else(|| ChainError::NotFound("block".into()))?);
    let mut txs = block.txdata.iter();
    let position = txs.position(|tx| tx.compute_txid() == request.txid);
    let position = position.ok_or_else(|| ChainError::NotFound("transaction".into()))?;
    Ok(Proof::prove(&block, u32::try_from(position).unwrap()).unwrap())
}

/// The filters that are asked for, at most a hundred of them.
pub(super) fn filters(
    blocks: &[WorldBlock],
    request: &FiltersRequest,
) -> Result<FiltersReply, ChainError> {
    let outputs: HashMap<OutPoint, ScriptBuf> = blocks
        .iter()
        .flat_map(|(_, txdata)| txdata)
        .flat_map(outputs)
        .collect();
    let mut previous = vec![FilterHeader::all_zeros()];
    let mut filters = Vec::new();
    for block in blocks.iter().map(block) {
        // The world's money comes from outputs that no block has made.
        let unknown = || ScriptBuf::from_bytes(vec![0x51]);
        let script =
            |outpoint: &OutPoint| Ok(outputs.get(outpoint).cloned().unwrap_or_else(unknown));
        let filter = BlockFilter::new_script_filter(&block, script).unwrap();
        previous.push(filter.filter_header(previous.last().unwrap()));
        filters.push(filter.content);
    }
    let hashes: Vec<BlockHash> = blocks
        .iter()
        .map(|(header, _)| header.block_hash())
        .collect();
    let from = request.from as usize;
    let tip = blocks.len() - 1;
    if from > tip {
        return Err(ChainError::NotFound("block".into()));
    }
    let most = if request.with_block { 1 } else { 100 };
    Ok(FiltersReply {
        first_height: request.from,
        previous: previous[from],
        filters: filters[from..].iter().take(most).cloned().collect(),
        blocks: hashes[from..].iter().take(most).copied().collect(),
        block: request.with_block.then(|| block(&blocks[from])),
        tip: BlockRef {
            height: u32::try_from(tip).unwrap(),
            hash: blocks[tip].0.block_hash(),
        },
    })
}

fn outputs(transaction: &Transaction) -> impl Iterator<Item = (OutPoint, ScriptBuf)> {
    let txid = transaction.compute_txid();
    let outputs = (0..).zip(&transaction.output);
    outputs.map(move |(vout, output)| (OutPoint { txid, vout }, output.script_pubkey.clone()))
}

fn block((header, txdata): &WorldBlock) -> Block {
    Block {
        header: *header,
        txdata: txdata.clone(),
    }
}
