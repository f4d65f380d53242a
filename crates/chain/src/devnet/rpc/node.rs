//! RPC methods about the node, mining, and devnet's own.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Network, ScriptBuf, Txid};
use serde_json::{Map, Value, json};

use super::super::policy::{MIN_RELAY_FEE_SAT_PER_KVB, sat_per_kvb};
use super::convert;
use super::params::{parse_address, parse_transaction};
use super::{Answer, Call, RpcError, code};

/// The Bitcoin Core that devnet's policy and answers resemble.
const VERSION: u32 = 290_000;
const SUBVERSION: &str = "/Satoshi:29.0.0/";
/// A string, as with `-deprecatedrpc=warnings`: newer clients accept a string or a list, older ones only a string.
const NO_WARNINGS: &str = "";
const PROTOCOL_VERSION: u32 = 70_016;
/// Targets, in blocks, for which Bitcoin Core has estimates.
const MAX_CONF_TARGET: i64 = 1_008;
/// The longest interval of the mining timer.
const MAX_TIMER_SECONDS: i64 = 86_400;
/// Limit of blocks in one call.
const MAX_GENERATE: i64 = 100_000;
/// Age of the tip from which a node counts as in initial block download.
const MAX_TIP_AGE_S: u64 = 24 * 60 * 60;

pub(super) fn getblockchaininfo(call: Call) -> Answer {
    let chain = &call.state.chain;
    let tip = chain.tip();
    let stored = chain
        .block(&tip.hash)
        .ok_or_else(|| RpcError::new(code::MISC_ERROR, "no tip"))?;
    let header = &stored.block.header;
    let age = super::super::state::now().saturating_sub(u64::from(header.time));
    Ok(json!({
        "chain": "regtest",
        "blocks": tip.height,
        "headers": tip.height,
        "bestblockhash": tip.hash,
        "bits": format!("{:08x}", header.bits.to_consensus()),
        "target": format!("{:064x}", header.target()),
        "difficulty": header.difficulty_float(),
        "time": header.time,
        "mediantime": chain.median_time_past(&tip.hash),
        "verificationprogress": 1.0,
        "initialblockdownload": age > MAX_TIP_AGE_S,
        "chainwork": format!("{:064x}", stored.chainwork),
        "size_on_disk": 0,
        "pruned": false,
        "warnings": NO_WARNINGS,
    }))
}

pub(super) fn getdeploymentinfo(call: Call) -> Answer {
    let chain = &call.state.chain;
    let hash = match call.params.optional(0) {
        Some(_) => call.params.hash(0, "blockhash")?,
        None => chain.tip().hash,
    };
    let not_found = || RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Block not found");
    let height = chain.block(&hash).ok_or_else(not_found)?.height;
    let buried =
        |since: u32| json!({ "type": "buried", "active": height + 1 >= since, "height": since });
    Ok(json!({
        "hash": hash,
        "height": height,
        "deployments": {
            "bip34": buried(1), "bip66": buried(1), "bip65": buried(1), "csv": buried(1),
            "segwit": buried(0), "taproot": buried(0),
        },
    }))
}

pub(super) fn getnetworkinfo(_: Call) -> Answer {
    let relay_fee = convert::sat(MIN_RELAY_FEE_SAT_PER_KVB);
    Ok(json!({
        "version": VERSION,
        "subversion": SUBVERSION,
        "protocolversion": PROTOCOL_VERSION,
        "localservices": "0000000000000009",
        "localservicesnames": ["NETWORK", "WITNESS"],
        "localrelay": true,
        "timeoffset": 0,
        "networkactive": false,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networks": [],
        "relayfee": relay_fee,
        "incrementalfee": relay_fee,
        "localaddresses": [],
        "warnings": NO_WARNINGS,
    }))
}

pub(super) fn getmininginfo(call: Call) -> Answer {
    let chain = &call.state.chain;
    let tip = chain.tip();
    let stored = chain
        .block(&tip.hash)
        .ok_or_else(|| RpcError::new(code::MISC_ERROR, "no tip"))?;
    let header = &stored.block.header;
    let (bits, target) = (
        format!("{:08x}", header.bits.to_consensus()),
        format!("{:064x}", header.target()),
    );
    let difficulty = header.difficulty_float();
    Ok(json!({
        "blocks": tip.height,
        "bits": bits,
        "difficulty": difficulty,
        "target": target,
        "networkhashps": 0,
        "pooledtx": call.state.pool.len(),
        "blockmintxfee": 0.0,
        "chain": "regtest",
        "next": { "height": tip.height + 1, "bits": bits, "difficulty": difficulty, "target": target },
        "warnings": NO_WARNINGS,
    }))
}

pub(super) fn getindexinfo(call: Call) -> Answer {
    let name = call.params.optional(0);
    let height = call.state.chain.tip().height;
    let indices = ["txindex", "basic block filter index"];
    let asked = indices
        .into_iter()
        .filter(|index| name.is_none_or(|name| name == index));
    let state = |index: &str| {
        let state = json!({ "synced": true, "best_block_height": height });
        (index.to_string(), state)
    };
    Ok(Value::Object(asked.map(state).collect()))
}

pub(super) fn uptime(call: Call) -> Answer {
    Ok(json!(call.shared.started.elapsed().as_secs()))
}

pub(super) fn validateaddress(call: Call) -> Answer {
    let text = call.params.text(0)?;
    let Some(address) = parse_address(text) else {
        return Ok(
            json!({ "isvalid": false, "error_locations": [], "error": "Invalid or unsupported address" }),
        );
    };
    let script = address.script_pubkey();
    let mut object = Map::new();
    object.insert("isvalid".into(), json!(true));
    object.insert("address".into(), json!(address.to_string()));
    object.insert("scriptPubKey".into(), json!(script.to_hex_string()));
    object.insert(
        "isscript".into(),
        json!(script.is_p2sh() || script.is_p2wsh() || script.is_p2tr()),
    );
    object.insert("iswitness".into(), json!(script.is_witness_program()));
    if let (Some(version), Some(program)) = (script.witness_version(), script.as_bytes().get(2..)) {
        object.insert("witness_version".into(), json!(version.to_num()));
        object.insert(
            "witness_program".into(),
            json!(bitcoin::hex::DisplayHex::to_lower_hex_string(program)),
        );
    }
    Ok(Value::Object(object))
}

/// The fee rate set for the target, at first the mempool's minimum: devnet's blocks are never full, so that it is
/// enough for the next one. A new Bitcoin Core has no estimate, and so has devnet when it is set so; then every Lightning
/// node falls back to a rate of its own, and two nodes may not agree on the fee of a close.
pub(super) fn estimatesmartfee(call: Call) -> Answer {
    let target = call.params.integer(0)?;
    if !(1..=MAX_CONF_TARGET).contains(&target) {
        let message = format!("Invalid conf_target, must be between 1 and {MAX_CONF_TARGET}");
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let rates = call.state.fee_rates();
    if !rates.is_estimate {
        let errors = ["Insufficient data or no feerate found"];
        return Ok(json!({ "errors": errors, "blocks": target }));
    }
    let sat_per_kw = match target {
        1..=2 => rates.urgent,
        3..=6 => rates.normal,
        _ => rates.background,
    };
    Ok(json!({ "feerate": convert::sat(sat_per_kvb(sat_per_kw)), "blocks": target }))
}

pub(super) fn generatetoaddress(call: Call) -> Answer {
    let count = call.params.integer(0)?;
    let script = call.params.address(1)?.script_pubkey();
    if count > MAX_GENERATE {
        return Err(RpcError::new(
            code::INVALID_PARAMETER,
            format!("at most {MAX_GENERATE} blocks at once"),
        ));
    }
    Ok(json!(
        call.state
            .mine(u32::try_from(count).unwrap_or(0), &script)?
    ))
}

pub(super) fn generateblock(call: Call) -> Answer {
    let script = output_script(call.params.text(0)?)?;
    let mut txs = vec![];
    for value in call.params.array(1)? {
        let text = value
            .as_str()
            .ok_or_else(|| RpcError::new(code::TYPE_ERROR, "a transaction must be a string"))?;
        let in_pool = text
            .parse::<Txid>()
            .ok()
            .and_then(|txid| call.state.pool.get(&txid));
        match in_pool {
            Some(entry) => txs.push(entry.tx.clone()),
            None if text.len() == 64 => {
                let message = format!("Transaction {text} not in mempool.");
                return Err(RpcError::new(code::INVALID_ADDRESS_OR_KEY, message));
            }
            None => txs.push(Arc::new(parse_transaction(text)?)),
        }
    }
    if call.params.optional(2) == Some(&Value::Bool(false)) {
        return Err(RpcError::new(
            code::INVALID_PARAMETER,
            "devnet always submits the block",
        ));
    }
    Ok(json!({ "hash": call.state.mine_these(txs, &script)? }))
}

/// The output parameter of `generateblock`: an address or, as a descriptor, `raw(hex)` or `addr(address)`.
fn output_script(text: &str) -> Result<ScriptBuf, RpcError> {
    let invalid = || {
        RpcError::new(
            code::INVALID_ADDRESS_OR_KEY,
            "Error: Invalid address or descriptor",
        )
    };
    let text = text.split('#').next().unwrap_or_default();
    let inner = |prefix: &str| {
        text.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(')'))
    };
    if let Some(hex) = inner("raw(") {
        return ScriptBuf::from_hex(hex).map_err(|_| invalid());
    }
    let address = parse_address(inner("addr(").unwrap_or(text)).ok_or_else(invalid)?;
    debug_assert!(
        address
            .as_unchecked()
            .is_valid_for_network(Network::Regtest)
    );
    Ok(address.script_pubkey())
}

pub(super) fn devnet_faucet(call: Call) -> Answer {
    let address = call.params.address(0)?;
    let missing = || RpcError::new(code::TYPE_ERROR, "the amount in BTC is missing");
    let amount = call.params.amount(1)?.ok_or_else(missing)?;
    Ok(json!(call.state.faucet(&address.script_pubkey(), amount)?))
}

pub(super) fn devnet_reorg(call: Call) -> Answer {
    let depth = call.params.integer(0)?;
    let depth = u32::try_from(depth)
        .map_err(|_| RpcError::new(code::INVALID_PARAMETER, "depth out of range"))?;
    Ok(json!(call.state.reorg(depth, vec![])?))
}

pub(super) fn devnet_setminetimer(call: Call) -> Answer {
    let seconds = call.params.required(0)?;
    let seconds = seconds
        .as_f64()
        .filter(|s| (0.0..=MAX_TIMER_SECONDS as f64).contains(s));
    let message = format!("the interval in seconds must be from 0 (off) to {MAX_TIMER_SECONDS}");
    let seconds = seconds.ok_or_else(|| RpcError::new(code::INVALID_PARAMETER, message))?;
    call.shared
        .interval
        .send_replace((seconds > 0.0).then(|| Duration::from_secs_f64(seconds)));
    Ok(Value::Null)
}
