//! RPC methods about blocks.

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Block, BlockHash, OutPoint, TxOut};
use serde_json::{Map, Value, json};

use super::super::chain::{ChainState, StoredBlock};
use super::super::state::State;
use super::{Answer, Call, RpcError, code, convert};
use crate::BlockFilter;

pub(super) fn getbestblockhash(call: Call) -> Answer {
    Ok(json!(call.state.chain.tip().hash))
}

pub(super) fn getblockcount(call: Call) -> Answer {
    Ok(json!(call.state.chain.tip().height))
}

pub(super) fn getblockhash(call: Call) -> Answer {
    let height = call.params.integer(0)?;
    block_hash(&call.state.chain, height).map(|hash| json!(hash))
}

/// The active block at a height.
pub(in crate::devnet) fn block_hash(
    chain: &ChainState,
    height: i64,
) -> Result<BlockHash, RpcError> {
    let height = u32::try_from(height).ok();
    let hash = height.and_then(|height| chain.hash_at(height));
    hash.ok_or_else(|| RpcError::new(code::INVALID_PARAMETER, "Block height out of range"))
}

pub(super) fn getblockheader(call: Call) -> Answer {
    let (hash, stored) = find(&call)?;
    if call.params.level(1, 1)? == 0 {
        return Ok(json!(serialize_hex(&stored.block.header)));
    }
    Ok(Value::Object(header(&call.state.chain, &hash, stored)))
}

pub(super) fn getblock(call: Call) -> Answer {
    let (hash, stored) = find(&call)?;
    let verbosity = call.params.level(1, 1)?;
    if verbosity <= 0 {
        return Ok(json!(serialize_hex(&*stored.block)));
    }
    let chain = &call.state.chain;
    let block = &stored.block;
    let mut object = header(chain, &hash, stored);
    object.insert(
        "strippedsize".into(),
        json!(block.txdata.iter().map(|tx| tx.base_size()).sum::<usize>() + 81),
    );
    object.insert("size".into(), json!(block.total_size()));
    object.insert("weight".into(), json!(block.weight().to_wu()));
    let txs: Vec<Value> = match verbosity {
        1 => block
            .txdata
            .iter()
            .map(|tx| json!(tx.compute_txid()))
            .collect(),
        _ => {
            let spent = chain.spent_by(&hash).unwrap_or_default();
            transactions(
                block,
                spent
                    .iter()
                    .map(|(outpoint, coin)| (*outpoint, coin.output.clone()))
                    .collect(),
                verbosity,
            )
        }
    };
    object.insert("tx".into(), Value::Array(txs));
    Ok(Value::Object(object))
}

/// Level 2 shows fees, level 3 also the spent outputs.
fn transactions(
    block: &Block,
    spent: std::collections::HashMap<OutPoint, TxOut>,
    verbosity: i64,
) -> Vec<Value> {
    let show = |tx: &bitcoin::Transaction| {
        let outputs: Option<Vec<TxOut>> = tx
            .input
            .iter()
            .map(|input| spent.get(&input.previous_output).cloned())
            .collect();
        let mut object = convert::transaction(tx, outputs.as_deref());
        if verbosity == 2 {
            let inputs = object.get_mut("vin").and_then(Value::as_array_mut);
            for input in inputs
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
            {
                input.remove("prevout");
            }
        }
        Value::Object(object)
    };
    block.txdata.iter().map(show).collect()
}

pub(super) fn getblockfilter(call: Call) -> Answer {
    let hash: BlockHash = call.params.hash(0, "blockhash")?;
    let name = call.params.optional(1).map(|_| call.params.text(1));
    if name.transpose()?.is_some_and(|name| name != "basic") {
        let message = "Unknown filtertype";
        return Err(RpcError::new(code::INVALID_ADDRESS_OR_KEY, message));
    }
    let BlockFilter { filter, header } = block_filter(call.state, &hash)?;
    Ok(json!({ "filter": filter.to_lower_hex_string(), "header": header.to_string() }))
}

/// The compact filter of an active block. A Bitcoin Core has those of blocks that were active once, too.
pub(in crate::devnet) fn block_filter(
    state: &mut State,
    hash: &BlockHash,
) -> Result<BlockFilter, RpcError> {
    block(&state.chain, hash)?;
    let message = "Filter not found. Block was not connected to active chain.";
    let filter = state.filters.of(&state.chain, hash);
    filter.ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, message))
}

fn find<'a>(call: &'a Call) -> Result<(BlockHash, &'a StoredBlock), RpcError> {
    let hash: BlockHash = call.params.hash(0, "blockhash")?;
    block(&call.state.chain, &hash).map(|stored| (hash, stored))
}

/// A block, active or not.
pub(in crate::devnet) fn block<'a>(
    chain: &'a ChainState,
    hash: &BlockHash,
) -> Result<&'a StoredBlock, RpcError> {
    let stored = chain.block(hash);
    stored.ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Block not found"))
}

/// Blocks from this one to the tip, itself counted; -1 outside of the best chain.
pub(super) fn confirmations(chain: &ChainState, hash: &BlockHash, height: u32) -> i64 {
    if chain.is_active(hash) {
        i64::from(chain.tip().height) - i64::from(height) + 1
    } else {
        -1
    }
}

fn header(chain: &ChainState, hash: &BlockHash, stored: &StoredBlock) -> Map<String, Value> {
    let header = &stored.block.header;
    let mut object = Map::new();
    object.insert("hash".into(), json!(hash));
    object.insert(
        "confirmations".into(),
        json!(confirmations(chain, hash, stored.height)),
    );
    object.insert("height".into(), json!(stored.height));
    object.insert("version".into(), json!(header.version.to_consensus()));
    object.insert(
        "versionHex".into(),
        json!(format!("{:08x}", header.version.to_consensus())),
    );
    object.insert("merkleroot".into(), json!(header.merkle_root));
    object.insert("time".into(), json!(header.time));
    object.insert("mediantime".into(), json!(chain.median_time_past(hash)));
    object.insert("nonce".into(), json!(header.nonce));
    object.insert(
        "bits".into(),
        json!(format!("{:08x}", header.bits.to_consensus())),
    );
    object.insert("target".into(), json!(format!("{:064x}", header.target())));
    object.insert("difficulty".into(), json!(header.difficulty_float()));
    object.insert(
        "chainwork".into(),
        json!(format!("{:064x}", stored.chainwork)),
    );
    object.insert("nTx".into(), json!(stored.block.txdata.len()));
    if stored.height > 0 {
        object.insert("previousblockhash".into(), json!(header.prev_blockhash));
    }
    if let Some(next) = chain
        .hash_at(stored.height + 1)
        .filter(|_| chain.is_active(hash))
    {
        object.insert("nextblockhash".into(), json!(next));
    }
    object
}

pub(super) fn getchaintips(call: Call) -> Answer {
    let chain = &call.state.chain;
    let tip = chain.tip();
    let mut tips =
        vec![json!({ "height": tip.height, "hash": tip.hash, "branchlen": 0, "status": "active" })];
    for (hash, height) in chain.stale_tips() {
        let mut at = hash;
        let mut length = 0;
        while let Some(stored) = chain.block(&at).filter(|_| !chain.is_active(&at)) {
            at = stored.block.header.prev_blockhash;
            length += 1;
        }
        tips.push(
            json!({ "height": height, "hash": hash, "branchlen": length, "status": "valid-fork" }),
        );
    }
    Ok(Value::Array(tips))
}

/// Answers `null` when the block is accepted, else the reject reason (BIP 22).
pub(super) fn submitblock(call: Call) -> Answer {
    let block: Block = deserialize_hex(call.params.text(0)?)
        .map_err(|_| RpcError::new(code::DESERIALIZATION_ERROR, "Block decode failed"))?;
    let hash = block.block_hash();
    if call.state.chain.block(&hash).is_some() {
        return Ok(json!("duplicate"));
    }
    match call.state.take(block) {
        Ok(_) => {
            call.state.chain.sync()?;
            Ok(Value::Null)
        }
        Err(super::super::DevnetError::Block(reason)) => Ok(json!(reason)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn invalidateblock(call: Call) -> Answer {
    let (hash, _) = find(&call)?;
    call.state.invalidate(&hash)?;
    Ok(Value::Null)
}

pub(super) fn reconsiderblock(call: Call) -> Answer {
    let (hash, _) = find(&call)?;
    call.state.reconsider(&hash)?;
    Ok(Value::Null)
}
