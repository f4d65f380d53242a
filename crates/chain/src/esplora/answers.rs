//! The answers of an Esplora server, read and checked. No I/O.
//!
//! A header, block or transaction is taken only if it is the one that was asked for, whatever the server says. What
//! nothing proves is taken as said: which block is the best, at which height the first block is that is read, that an
//! output is not spent, fee rates.

use std::collections::{BTreeMap, HashSet};

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, deserialize_hex};
use bitcoin::consensus::params::Params;
use bitcoin::{Block, BlockHash, Network, Transaction, TxMerkleNode, Txid, merkle_tree};
use lightning_block_sync::rpc::RpcError;
use longhand_base::text::excerpt;
use serde_json::Value;

use crate::core_relay::code;
use crate::{BlockRef, ChainError};

/// Start of the script that commits to the witnesses of a block (BIP 141), and its least length.
const COMMITMENT_TAG: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const COMMITMENT_LEN: usize = 38;

/// Whether an output is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// By no transaction that the server knows.
    None,
    /// By a transaction that waits in the mempool.
    Unconfirmed,
    /// By a transaction in the best chain: this one, if the server says so.
    Confirmed(Option<Txid>),
}

/// Fee rates in satoshis per 1,000 weight units, by the number of blocks within which a transaction should confirm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeeEstimates(BTreeMap<u16, u32>);

impl FeeEstimates {
    /// The rate for `blocks`: that of the farthest target which is not farther, else that of the nearest one.
    pub fn within(&self, blocks: u16) -> Option<u32> {
        let not_farther = self.0.range(..=blocks).next_back();
        not_farther
            .or_else(|| self.0.first_key_value())
            .map(|(_, rate)| *rate)
    }
}

/// The text of a body, without the space around it.
fn text<'a>(body: &'a [u8], what: &str) -> Result<&'a str, ChainError> {
    let text = std::str::from_utf8(body);
    text.map(str::trim)
        .map_err(|_| unreadable(&format!("{what} is no text")))
}

/// A hash or a number that is the whole body.
pub(super) fn parsed<T: std::str::FromStr>(body: &[u8], what: &str) -> Result<T, ChainError> {
    let text = text(body, what)?;
    text.parse()
        .map_err(|_| unreadable(&format!("{what} {text:?}")))
}

/// A header, as hexadecimal text.
pub(super) fn header(
    body: &[u8],
    expected: &BlockHash,
    network: Network,
) -> Result<Header, ChainError> {
    let header = deserialize_hex(text(body, "a header")?);
    let header = header.map_err(|e| unreadable(&format!("header of {expected}: {e}")))?;
    check_header(&header, expected, network)?;
    Ok(header)
}

/// The header has the hash that was asked for, and its work: as much as it says itself, and no less than any block of
/// the network has.
fn check_header(header: &Header, expected: &BlockHash, network: Network) -> Result<(), ChainError> {
    if header.block_hash() != *expected {
        return Err(untrue(&format!("another block than {expected}")));
    }
    let target = header.target();
    let is_easier = target > Params::new(network).max_attainable_target;
    if is_easier || header.validate_pow(target).is_err() {
        return Err(untrue(&format!("block {expected} has no proof of work")));
    }
    Ok(())
}

/// A block at `height` is as hard to find as the network's rules say for one after `parent`: as that one, or up to four
/// times easier every 2,016 blocks. Test networks, whose rules have exceptions, are left out.
pub(super) fn check_difficulty(
    header: &Header,
    parent: &Header,
    height: u32,
    network: Network,
) -> Result<(), ChainError> {
    let params = Params::new(network);
    if params.allow_min_difficulty_blocks || params.no_pow_retargeting {
        return Ok(());
    }
    let is_right = match u64::from(height) % params.difficulty_adjustment_interval() {
        0 => header.target() <= parent.target().max_transition_threshold(&params),
        _ => header.bits == parent.bits,
    };
    match is_right {
        true => Ok(()),
        false => Err(untrue(&format!(
            "block {} has less work than the network asks for",
            header.block_hash()
        ))),
    }
}

/// A whole block, as bytes: with the transactions and witnesses to which its header commits.
pub(super) fn block(
    body: &[u8],
    expected: &BlockHash,
    network: Network,
) -> Result<Block, ChainError> {
    let block: Block =
        deserialize(body).map_err(|e| unreadable(&format!("block {expected}: {e}")))?;
    check_header(&block.header, expected, network)?;
    let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    check_txids(&txids, &block.header)?;
    // A node of the merkle tree that passes for a transaction is no coinbase.
    let mut coinbases = block.txdata.iter().map(Transaction::is_coinbase);
    if coinbases.next() != Some(true) || coinbases.any(|is_coinbase| is_coinbase) {
        return Err(untrue(&format!("block {expected} without its coinbase")));
    }
    if !has_its_witnesses(&block, network) {
        return Err(untrue(&format!(
            "block {expected} with other witnesses, or without"
        )));
    }
    Ok(block)
}

/// The ids are those of all transactions of the block, in order: they give the header's merkle root. None is there
/// twice, since a list that repeats its end can have the root of the shorter one (CVE-2012-2459).
fn check_txids(txids: &[Txid], header: &Header) -> Result<(), ChainError> {
    let hashes = txids.iter().map(|txid| txid.to_raw_hash());
    let root = merkle_tree::calculate_root(hashes).map(TxMerkleNode::from_raw_hash);
    let distinct: HashSet<&Txid> = txids.iter().collect();
    if root != Some(header.merkle_root) || distinct.len() != txids.len() {
        let hash = header.block_hash();
        return Err(untrue(&format!(
            "other transactions than those of block {hash}"
        )));
    }
    Ok(())
}

/// A block whose witnesses were all taken out looks like one without any; it still commits to them. Blocks before
/// segwit may have that commitment and no witness.
fn has_its_witnesses(block: &Block, network: Network) -> bool {
    let mut inputs = block.txdata.iter().flat_map(|tx| &tx.input);
    let has_some = inputs.any(|input| !input.witness.is_empty());
    let coinbase = block.txdata.first();
    let mut outputs = coinbase.into_iter().flat_map(|tx| &tx.output);
    let commits = outputs.any(|output| {
        let script = output.script_pubkey.as_bytes();
        script.len() >= COMMITMENT_LEN && script.starts_with(&COMMITMENT_TAG)
    });
    match (has_some, commits) {
        (true, _) => block.check_witness_commitment(),
        (false, true) => !is_after_segwit(block, network),
        (false, false) => true,
    }
}

/// Whether a block is at or after the height from which the network checks witnesses. The height is in the coinbase
/// (BIP 34).
fn is_after_segwit(block: &Block, network: Network) -> bool {
    let first = match network {
        Network::Bitcoin => 481_824,
        Network::Testnet => 834_624,
        _ => return true,
    };
    block
        .bip34_block_height()
        .is_ok_and(|height| height >= first)
}

/// The height in the JSON description of a block.
pub(super) fn block_height(body: &[u8], expected: &BlockHash) -> Result<u32, ChainError> {
    let block = json(body, "a block")?;
    if block.get("id").and_then(Value::as_str) != Some(&expected.to_string()) {
        return Err(untrue(&format!(
            "the description of another block than {expected}"
        )));
    }
    number(&block, "height")
}

/// The height of a block in the best chain, from its status; `None` when it is not there.
pub(super) fn status(body: &[u8]) -> Result<Option<u32>, ChainError> {
    let status = json(body, "the status of a block")?;
    match flag(&status, "in_best_chain")? {
        true => number(&status, "height").map(Some),
        false => Ok(None),
    }
}

/// The ids of a block's transactions, in order.
pub(super) fn txids(body: &[u8], header: &Header) -> Result<Vec<Txid>, ChainError> {
    let list = json(body, "a list of transactions")?;
    let no_list = || unreadable("a list of transactions that is none");
    let ids = list.as_array().ok_or_else(no_list)?.iter();
    let ids = ids.map(|id| {
        id.as_str()
            .and_then(|id| id.parse().ok())
            .ok_or_else(no_list)
    });
    let ids = ids.collect::<Result<Vec<Txid>, _>>()?;
    check_txids(&ids, header)?;
    Ok(ids)
}

/// A transaction, as bytes.
pub(super) fn transaction(body: &[u8], expected: &Txid) -> Result<Transaction, ChainError> {
    let tx: Transaction =
        deserialize(body).map_err(|e| unreadable(&format!("transaction {expected}: {e}")))?;
    if tx.compute_txid() != *expected {
        return Err(untrue(&format!("another transaction than {expected}")));
    }
    Ok(tx)
}

/// The block of the best chain that has a transaction, from the status of the transaction.
pub(super) fn confirmation(body: &[u8]) -> Result<Option<BlockRef>, ChainError> {
    let status = json(body, "the status of a transaction")?;
    if !flag(&status, "confirmed")? {
        return Ok(None);
    }
    let hash = status.get("block_hash").and_then(Value::as_str);
    let hash = hash.and_then(|hash| hash.parse().ok());
    Ok(Some(BlockRef {
        height: number(&status, "block_height")?,
        hash: hash.ok_or_else(|| unreadable("no hash block_hash"))?,
    }))
}

/// Whether an output is spent.
pub(super) fn spend(body: &[u8]) -> Result<Spend, ChainError> {
    let spend = json(body, "the spend of an output")?;
    if !flag(&spend, "spent")? {
        return Ok(Spend::None);
    }
    // A server that does not say where it is spent is taken to mean the chain.
    let confirmed = spend.pointer("/status/confirmed").and_then(Value::as_bool);
    Ok(match confirmed {
        Some(false) => Spend::Unconfirmed,
        _ => {
            let txid = spend.get("txid").and_then(Value::as_str);
            Spend::Confirmed(txid.and_then(|txid| txid.parse().ok()))
        }
    })
}

/// Fee rates by target. Esplora gives satoshis per virtual byte, with the three digits that Bitcoin Core has.
pub(super) fn fee_estimates(body: &[u8]) -> Result<FeeEstimates, ChainError> {
    let estimates = json(body, "fee estimates")?;
    let estimates = estimates
        .as_object()
        .ok_or_else(|| unreadable("fee estimates that are none"))?;
    let rate = |(target, rate): (&String, &Value)| {
        let wrong = || unreadable(&format!("the fee rate {rate} for {target:?} blocks"));
        let target: u16 = target.parse().map_err(|_| wrong())?;
        let sat_per_kvb = (rate.as_f64().ok_or_else(wrong)? * 1_000.0).round();
        if !(0.0..=f64::from(u32::MAX)).contains(&sat_per_kvb) {
            return Err(wrong());
        }
        // In range: nothing is cut off.
        Ok((target, (sat_per_kvb as u32).div_ceil(4)))
    };
    estimates
        .iter()
        .map(rate)
        .collect::<Result<_, _>>()
        .map(FeeEstimates)
}

/// Why Bitcoin Core behind the server refuses a transaction: its RPC error is in the text, as JSON.
pub(super) fn refusal(body: &[u8]) -> RpcError {
    let text = String::from_utf8_lossy(body);
    let json = text.find('{').and_then(|at| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        values.next()?.ok()
    });
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let code = json.as_ref().and_then(|json| json.get("code")?.as_i64());
    match (code, message) {
        (Some(code), Some(message)) => RpcError {
            code,
            message: message.into(),
        },
        _ => RpcError {
            code: code::VERIFY_REJECTED,
            message: excerpt(text.trim()),
        },
    }
}

/// JSON of any shape.
pub(super) fn json(body: &[u8], what: &str) -> Result<Value, ChainError> {
    serde_json::from_slice(body).map_err(|_| unreadable(&format!("{what} that is no JSON")))
}

fn number(object: &Value, field: &str) -> Result<u32, ChainError> {
    let value = object.get(field).and_then(Value::as_u64);
    let value = value.and_then(|n| u32::try_from(n).ok());
    value.ok_or_else(|| unreadable(&format!("no number {field}")))
}

fn flag(object: &Value, field: &str) -> Result<bool, ChainError> {
    let value = object.get(field).and_then(Value::as_bool);
    value.ok_or_else(|| unreadable(&format!("no flag {field}")))
}

/// An answer that cannot be read, with as much of it as fits into a line.
fn unreadable(text: &str) -> ChainError {
    ChainError::Malformed(excerpt(text))
}

/// An answer that is not what was asked for.
pub(super) fn untrue(text: &str) -> ChainError {
    ChainError::False(excerpt(text))
}

#[cfg(test)]
mod tests;
