//! RPC methods about the mempool.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Txid};
use serde_json::{Map, Value, json};

use super::super::mempool::{Entry, Mempool};
use super::super::policy::MIN_RELAY_FEE_SAT_PER_KVB;
use super::params::parse_hash;
use super::{Answer, Call, RpcError, code, convert};

pub(super) fn getrawmempool(call: Call) -> Answer {
    let pool = &call.state.pool;
    let entries = pool.in_order();
    if call.params.level(0, 0)? != 0 {
        return Ok(verbose(pool, entries.into_iter()));
    }
    let txids: Vec<Txid> = entries.into_iter().map(|entry| entry.txid).collect();
    if call.params.level(1, 0)? != 0 {
        return Ok(json!({ "txids": txids, "mempool_sequence": pool.sequence }));
    }
    Ok(json!(txids))
}

fn verbose<'a>(pool: &Mempool, entries: impl Iterator<Item = &'a Entry>) -> Value {
    Value::Object(
        entries
            .map(|entry| (entry.txid.to_string(), show_entry(pool, entry)))
            .collect(),
    )
}

fn show_entry(pool: &Mempool, entry: &Entry) -> Value {
    let ancestors = pool.totals(&pool.ancestors(&entry.txid));
    let descendants = pool.totals(&pool.descendants([entry.txid]));
    json!({
        "vsize": entry.vsize,
        "weight": entry.tx.weight().to_wu(),
        "time": entry.time,
        "height": entry.height,
        "descendantcount": descendants.count,
        "descendantsize": descendants.vsize,
        "ancestorcount": ancestors.count,
        "ancestorsize": ancestors.vsize,
        "wtxid": entry.wtxid,
        "fees": {
            "base": convert::sat(entry.fee_sat),
            "modified": convert::sat(entry.fee_sat),
            "ancestor": convert::sat(ancestors.fee_sat),
            "descendant": convert::sat(descendants.fee_sat),
        },
        "depends": entry.parents,
        "spentby": entry.children,
        "bip125-replaceable": true,
        "unbroadcast": false,
    })
}

fn in_pool<'a>(call: &'a Call) -> Result<&'a Entry, RpcError> {
    let txid: Txid = call.params.hash(0, "txid")?;
    let not_there = || RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Transaction not in mempool");
    call.state.pool.get(&txid).ok_or_else(not_there)
}

pub(super) fn getmempoolentry(call: Call) -> Answer {
    Ok(show_entry(&call.state.pool, in_pool(&call)?))
}

pub(super) fn getmempoolancestors(call: Call) -> Answer {
    let entry = in_pool(&call)?;
    relatives(&call, call.state.pool.ancestors(&entry.txid), entry.txid)
}

pub(super) fn getmempooldescendants(call: Call) -> Answer {
    let entry = in_pool(&call)?;
    relatives(&call, call.state.pool.descendants([entry.txid]), entry.txid)
}

fn relatives(call: &Call, mut txids: BTreeSet<Txid>, of: Txid) -> Answer {
    txids.remove(&of);
    if call.params.level(1, 0)? == 0 {
        return Ok(json!(txids));
    }
    let pool = &call.state.pool;
    Ok(verbose(
        pool,
        txids.iter().filter_map(|txid| pool.get(txid)),
    ))
}

pub(super) fn getmempoolinfo(call: Call) -> Answer {
    let totals = call.state.pool.all();
    let relay_fee = convert::sat(MIN_RELAY_FEE_SAT_PER_KVB);
    Ok(json!({
        "loaded": true,
        "size": totals.count,
        "bytes": totals.vsize,
        "usage": totals.vsize,
        "total_fee": convert::sat(totals.fee_sat),
        "maxmempool": 300_000_000,
        "mempoolminfee": convert::sat(call.state.pool.min_fee_sat_per_kvb.max(MIN_RELAY_FEE_SAT_PER_KVB)),
        "minrelaytxfee": relay_fee,
        "incrementalrelayfee": relay_fee,
        "unbroadcastcount": 0,
        "fullrbf": true,
    }))
}

pub(super) fn gettxspendingprevout(call: Call) -> Answer {
    let show = |output: &Value| {
        let txid = output
            .get("txid")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let txid: Txid = parse_hash(txid, "txid")?;
        let vout = output
            .get("vout")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok());
        let vout = vout.ok_or_else(|| {
            RpcError::new(
                code::INVALID_PARAMETER,
                "Invalid parameter, vout is missing",
            )
        })?;
        let mut object = Map::new();
        object.insert("txid".into(), json!(txid));
        object.insert("vout".into(), json!(vout));
        if let Some(spender) = call.state.pool.spender(&OutPoint::new(txid, vout)) {
            object.insert("spendingtxid".into(), json!(spender.txid));
        }
        Ok(Value::Object(object))
    };
    call.params
        .array(0)?
        .iter()
        .map(show)
        .collect::<Result<Vec<_>, RpcError>>()
        .map(Value::Array)
}
