//! RPC methods about transactions.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, BlockHash, OutPoint, Transaction, TxOut, Txid};
use serde_json::{Map, Value, json};

use super::super::chain::StoredBlock;
use super::super::mempool::Entry;
use super::super::policy::{self, Mode, Reject, RejectKind};
use super::super::state::{PackageOutcome, PackageResult, State, now};
use super::params::{Params, parse_transaction};
use super::{Answer, Call, RpcError, blocks, code, convert};

/// Default `maxfeerate` of `sendrawtransaction`: 0.10 BTC per 1,000 virtual bytes.
const DEFAULT_MAX_FEE_RATE_SAT: u64 = 10_000_000;
/// Limit of transactions in a package.
const MAX_PACKAGE_COUNT: usize = 25;

pub(super) fn getrawtransaction(call: Call) -> Answer {
    let txid: Txid = call.params.hash(0, "parameter 1")?;
    let verbosity = call.params.level(1, 0)?;
    let state = &*call.state;
    let (tx, stored) = match call.params.optional(2) {
        Some(_) => {
            let hash: BlockHash = call.params.hash(2, "parameter 3")?;
            let not_found = || RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Block hash not found");
            let stored = state.chain.block(&hash).ok_or_else(not_found)?;
            (
                find_in(stored, &txid)
                    .ok_or_else(|| unknown("No such transaction found in the provided block"))?,
                Some(stored),
            )
        }
        None => match (state.pool.get(&txid), state.chain.block_of(&txid)) {
            (Some(entry), _) => (entry.tx.clone(), None),
            (None, Some(stored)) => (
                find_in(stored, &txid)
                    .ok_or_else(|| unknown("No such mempool or blockchain transaction"))?,
                Some(stored),
            ),
            (None, None) => return Err(unknown("No such mempool or blockchain transaction")),
        },
    };
    if verbosity <= 0 {
        return Ok(json!(serialize_hex(&*tx)));
    }
    let spent = if verbosity >= 2 {
        spent_outputs(state, &tx, stored)
    } else {
        None
    };
    let mut object = convert::transaction(&tx, spent.as_deref());
    if let Some(stored) = stored {
        let hash = stored.block.block_hash();
        let confirmations = blocks::confirmations(&state.chain, &hash, stored.height).max(0);
        object.insert("blockhash".into(), json!(hash));
        object.insert("confirmations".into(), json!(confirmations));
        object.insert("time".into(), json!(stored.block.header.time));
        object.insert("blocktime".into(), json!(stored.block.header.time));
        if call.params.optional(2).is_some() {
            object.insert(
                "in_active_chain".into(),
                json!(state.chain.is_active(&hash)),
            );
        }
    }
    Ok(Value::Object(object))
}

fn unknown(what: &str) -> RpcError {
    RpcError::new(
        code::INVALID_ADDRESS_OR_KEY,
        format!("{what}. Use gettransaction for wallet transactions."),
    )
}

fn find_in(stored: &StoredBlock, txid: &Txid) -> Option<Arc<Transaction>> {
    stored
        .block
        .txdata
        .iter()
        .find(|tx| tx.compute_txid() == *txid)
        .map(|tx| Arc::new(tx.clone()))
}

/// The outputs that a transaction spends, in order: `stored` is the block that has it, if it is in one. `None` when one
/// of them is not known, as with a coinbase.
pub(in crate::devnet) fn spent_outputs(
    state: &State,
    tx: &Transaction,
    stored: Option<&StoredBlock>,
) -> Option<Vec<TxOut>> {
    let undo = stored.and_then(|stored| state.chain.spent_by(&stored.block.block_hash()));
    let find = |outpoint: &OutPoint| match undo {
        Some(undo) => undo
            .iter()
            .find(|(spent, _)| spent == outpoint)
            .map(|(_, coin)| coin.output.clone()),
        None => output_of(state, outpoint),
    };
    tx.input
        .iter()
        .map(|input| find(&input.previous_output))
        .collect()
}

/// An output of the mempool or an unspent one of the chain.
fn output_of(state: &State, outpoint: &OutPoint) -> Option<TxOut> {
    let in_pool = state
        .pool
        .get(&outpoint.txid)
        .and_then(|entry| entry.tx.output.get(outpoint.vout as usize));
    in_pool
        .cloned()
        .or_else(|| state.chain.coin(outpoint).map(|coin| coin.output.clone()))
}

pub(super) fn decoderawtransaction(call: Call) -> Answer {
    let mut object = convert::transaction(&call.params.transaction(0)?, None);
    object.remove("hex");
    Ok(Value::Object(object))
}

/// Limits that protect a sender against mistakes.
pub(in crate::devnet) struct Limits {
    /// Fee rate in satoshis per 1,000 virtual bytes; 0 = no limit.
    max_fee_rate_sat: u64,
    /// Amount of one unspendable output.
    max_burn: Amount,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_fee_rate_sat: DEFAULT_MAX_FEE_RATE_SAT,
            max_burn: Amount::ZERO,
        }
    }
}

pub(super) fn sendrawtransaction(call: Call) -> Answer {
    let tx = Arc::new(call.params.transaction(0)?);
    let limits = Limits {
        max_fee_rate_sat: max_fee_rate(&call.params)?,
        max_burn: max_burn(&call.params)?,
    };
    send(call.state, &tx, &limits).map(|txid| json!(txid))
}

/// Adds a transaction to the mempool; one that is there already is no error.
pub(in crate::devnet) fn send(
    state: &mut State,
    tx: &Arc<Transaction>,
    limits: &Limits,
) -> Result<Txid, RpcError> {
    check_burn(tx, limits.max_burn)?;
    let txid = tx.compute_txid();
    if (0..tx.output.len()).any(|vout| {
        state
            .chain
            .coin(&OutPoint::new(txid, vout as u32))
            .is_some()
    }) {
        let message = "Transaction outputs already in utxo set";
        return Err(RpcError::new(code::ALREADY_IN_UTXO_SET, message));
    }
    if state.pool.get(&txid).is_some() {
        return Ok(txid);
    }
    let accepted = state.test(tx).map_err(|reject| rejected(&reject))?;
    if exceeds(
        limits.max_fee_rate_sat,
        accepted.entry.fee_sat,
        accepted.entry.vsize,
    ) {
        let message = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
        return Err(RpcError::new(code::VERIFY_ERROR, message));
    }
    state.submit(tx).map_err(|reject| rejected(&reject))
}

fn rejected(reject: &Reject) -> RpcError {
    let code = match reject.kind {
        RejectKind::MissingInputs => code::VERIFY_ERROR,
        RejectKind::Fee | RejectKind::Unfixable => code::VERIFY_REJECTED,
    };
    RpcError::new(code, reject.message())
}

/// Fee rate in satoshis per 1,000 virtual bytes; 0 = no limit.
fn max_fee_rate(params: &Params) -> Result<u64, RpcError> {
    Ok(params
        .amount(1)?
        .map_or(DEFAULT_MAX_FEE_RATE_SAT, Amount::to_sat))
}

fn exceeds(max_rate_sat: u64, fee_sat: u64, vsize: u64) -> bool {
    max_rate_sat > 0 && u128::from(fee_sat) * 1_000 > u128::from(max_rate_sat) * u128::from(vsize)
}

/// Refuses an amount in an unspendable output, which is most likely a mistake.
fn check_burn(tx: &Transaction, most: Amount) -> Result<(), RpcError> {
    if tx
        .output
        .iter()
        .any(|output| output.script_pubkey.is_op_return() && output.value > most)
    {
        let message = "Unspendable output exceeds maximum configured by user (maxburnamount)";
        return Err(RpcError::new(code::VERIFY_ERROR, message));
    }
    Ok(())
}

fn max_burn(params: &Params) -> Result<Amount, RpcError> {
    Ok(params.amount(2)?.unwrap_or(Amount::ZERO))
}

fn raw_transactions(params: &Params) -> Result<Vec<Arc<Transaction>>, RpcError> {
    let raw = params.array(0)?;
    check_count(raw.len())?;
    let parse = |value: &Value| {
        let hex = value
            .as_str()
            .ok_or_else(|| RpcError::new(code::TYPE_ERROR, "a transaction must be a string"))?;
        let invalid = |_| {
            let message =
                format!("TX decode failed: {hex} Make sure the tx has at least one input.");
            RpcError::new(code::DESERIALIZATION_ERROR, message)
        };
        parse_transaction(hex).map(Arc::new).map_err(invalid)
    };
    raw.iter().map(parse).collect()
}

fn check_count(count: usize) -> Result<(), RpcError> {
    if count == 0 || count > MAX_PACKAGE_COUNT {
        let message = format!("Array must contain between 1 and {MAX_PACKAGE_COUNT} transactions.");
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    Ok(())
}

pub(super) fn testmempoolaccept(call: Call) -> Answer {
    let txs = raw_transactions(&call.params)?;
    let max_rate = max_fee_rate(&call.params)?;
    let mut pool = call.state.pool.clone();
    let mut results = vec![];
    for tx in &txs {
        let mut result = Map::new();
        result.insert("txid".into(), json!(tx.compute_txid()));
        result.insert("wtxid".into(), json!(tx.compute_wtxid()));
        let tested = policy::accept(&call.state.chain, &pool, tx, Mode::Single, now());
        match tested {
            Ok(accepted) if exceeds(max_rate, accepted.entry.fee_sat, accepted.entry.vsize) => {
                result.insert("allowed".into(), json!(false));
                result.insert("reject-reason".into(), json!("max-fee-exceeded"));
            }
            Ok(accepted) => {
                let entry = accepted.entry.clone();
                result.insert("allowed".into(), json!(true));
                result.insert("vsize".into(), json!(entry.vsize));
                let fees = fees(&entry, entry.fee_sat, entry.vsize, &[entry.wtxid]);
                result.insert("fees".into(), fees);
                policy::apply(&mut pool, accepted);
            }
            Err(reject) => {
                result.insert("allowed".into(), json!(false));
                // Bitcoin Core's name for it in this method.
                let reason = match reject.kind {
                    RejectKind::MissingInputs => "missing-inputs",
                    RejectKind::Fee | RejectKind::Unfixable => reject.reason.as_str(),
                };
                result.insert("reject-reason".into(), json!(reason));
                result.insert("reject-details".into(), json!(reject.message()));
            }
        }
        results.push(Value::Object(result));
    }
    Ok(Value::Array(results))
}

fn fees(
    entry: &Entry,
    effective_fee_sat: u64,
    effective_vsize: u64,
    includes: &[bitcoin::Wtxid],
) -> Value {
    json!({
        "base": convert::sat(entry.fee_sat),
        "effective-feerate": convert::rate(effective_fee_sat, effective_vsize),
        "effective-includes": includes,
    })
}

pub(super) fn submitpackage(call: Call) -> Answer {
    let txs = raw_transactions(&call.params)?;
    submit_package(call.state, &txs, max_burn(&call.params)?)
}

/// Adds parents followed by their child to the mempool; the answer has a result for each.
pub(in crate::devnet) fn submit_package(
    state: &mut State,
    txs: &[Arc<Transaction>],
    max_burn: Amount,
) -> Answer {
    check_count(txs.len())?;
    for tx in txs {
        check_burn(tx, max_burn)?;
    }
    if let Err(message) = check_package(txs) {
        return Err(RpcError::new(code::VERIFY_REJECTED, message));
    }
    Ok(outcome(state.submit_package(txs)))
}

/// Checks that parents stand before their one child, without duplicates or conflicts.
fn check_package(txs: &[Arc<Transaction>]) -> Result<(), &'static str> {
    let txids: Vec<Txid> = txs.iter().map(|tx| tx.compute_txid()).collect();
    if txids.iter().collect::<BTreeSet<_>>().len() < txids.len() {
        return Err("package-contains-duplicates");
    }
    for (index, tx) in txs.iter().enumerate() {
        if tx
            .input
            .iter()
            .any(|input| txids[index..].contains(&input.previous_output.txid))
        {
            return Err("package-not-sorted");
        }
    }
    let mut spent = BTreeSet::new();
    if !txs
        .iter()
        .flat_map(|tx| &tx.input)
        .all(|input| spent.insert(input.previous_output))
    {
        return Err("conflict-in-package");
    }
    let Some((child, parents)) = txs.split_last() else {
        return Ok(());
    };
    let spends = |parent: &Txid| {
        child
            .input
            .iter()
            .any(|input| input.previous_output.txid == *parent)
    };
    if !txids[..parents.len()].iter().all(spends) {
        return Err(
            "package topology disallowed. not child-with-parents or parents depend on each other.",
        );
    }
    Ok(())
}

fn outcome(outcome: PackageOutcome) -> Value {
    let show = |(wtxid, (txid, result)): (&bitcoin::Wtxid, &(Txid, PackageResult))| {
        let mut object = Map::new();
        object.insert("txid".into(), json!(txid));
        match result {
            PackageResult::Accepted {
                entry,
                effective_fee_sat,
                effective_vsize,
                effective_includes,
            } => {
                object.insert("vsize".into(), json!(entry.vsize));
                let fees = fees(
                    entry,
                    *effective_fee_sat,
                    *effective_vsize,
                    effective_includes,
                );
                object.insert("fees".into(), fees);
            }
            PackageResult::Known(entry) => {
                if entry.wtxid != *wtxid {
                    object.insert("other-wtxid".into(), json!(entry.wtxid));
                }
                object.insert("vsize".into(), json!(entry.vsize));
                object.insert(
                    "fees".into(),
                    json!({ "base": convert::sat(entry.fee_sat) }),
                );
            }
            PackageResult::Rejected(reject) => {
                object.insert("error".into(), json!(reject.message()));
            }
        }
        (wtxid.to_string(), Value::Object(object))
    };
    json!({
        "package_msg": outcome.failure.as_deref().unwrap_or("success"),
        "tx-results": outcome.results.iter().map(show).collect::<Map<_, _>>(),
        "replaced-transactions": outcome.replaced,
    })
}

pub(super) fn gettxout(call: Call) -> Answer {
    let txid: Txid = call.params.hash(0, "txid")?;
    let n = call.params.integer(1)?;
    let Ok(vout) = u32::try_from(n) else {
        return Ok(Value::Null);
    };
    let with_pool = call.params.level(2, 1)? != 0;
    let outpoint = OutPoint::new(txid, vout);
    let (chain, pool) = (&call.state.chain, &call.state.pool);
    if with_pool && pool.spender(&outpoint).is_some() {
        return Ok(Value::Null);
    }
    let in_pool = pool
        .get(&txid)
        .filter(|_| with_pool)
        .and_then(|entry| entry.tx.output.get(vout as usize));
    let tip = chain.tip();
    let (output, confirmations, is_coinbase) = match (in_pool, chain.coin(&outpoint)) {
        (Some(output), _) => (output, 0, false),
        (None, Some(coin)) => (&coin.output, tip.height - coin.height + 1, coin.is_coinbase),
        (None, None) => return Ok(Value::Null),
    };
    Ok(json!({
        "bestblock": tip.hash,
        "confirmations": confirmations,
        "value": convert::btc(output.value),
        "scriptPubKey": convert::script_pub_key(&output.script_pubkey),
        "coinbase": is_coinbase,
    }))
}
