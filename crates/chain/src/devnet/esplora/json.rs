//! The shapes that several answers share, and the parts of paths.

use bitcoin::hex::DisplayHex as _;
use bitcoin::{Address, Amount, Network, Script, Transaction, TxIn, TxOut};
use serde_json::{Map, Value, json};

use super::super::chain::StoredBlock;
use super::Refused;

/// A number in a path.
pub(super) fn number(text: &str) -> Result<u32, Refused> {
    text.parse()
        .map_err(|_| Refused::bad_request("Invalid number"))
}

/// A block hash or transaction id in a path.
pub(super) fn hash<T: std::str::FromStr>(text: &str) -> Result<T, Refused> {
    text.parse()
        .map_err(|_| Refused::bad_request("Invalid hash string"))
}

/// Whether a transaction is confirmed, and by which block.
pub(super) fn status(block: Option<&StoredBlock>) -> Value {
    match block {
        None => json!({ "confirmed": false }),
        Some(stored) => json!({
            "confirmed": true,
            "block_height": stored.height,
            "block_hash": stored.block.block_hash(),
            "block_time": stored.block.header.time,
        }),
    }
}

/// A transaction; `spent` are the outputs that it spends, in order.
pub(super) fn transaction(tx: &Transaction, spent: &[TxOut], block: Option<&StoredBlock>) -> Value {
    let inputs = tx.input.iter().enumerate();
    let inputs: Vec<Value> = inputs
        .map(|(n, it)| input(it, tx.is_coinbase(), spent.get(n)))
        .collect();
    let outputs: Vec<Value> = tx
        .output
        .iter()
        .map(|it| Value::Object(output(it)))
        .collect();
    let sum = |outputs: &[TxOut]| outputs.iter().map(|output| output.value).sum::<Amount>();
    let fee = match tx.is_coinbase() {
        true => Amount::ZERO,
        false => sum(spent)
            .checked_sub(sum(&tx.output))
            .unwrap_or(Amount::ZERO),
    };
    json!({
        "txid": tx.compute_txid(),
        "version": tx.version.0,
        "locktime": tx.lock_time.to_consensus_u32(),
        "vin": inputs,
        "vout": outputs,
        "size": tx.total_size(),
        "weight": tx.weight().to_wu(),
        "fee": fee.to_sat(),
        "status": status(block),
    })
}

fn input(input: &TxIn, is_coinbase: bool, spent: Option<&TxOut>) -> Value {
    let mut object = Map::new();
    object.insert("txid".into(), json!(input.previous_output.txid));
    object.insert("vout".into(), json!(input.previous_output.vout));
    object.insert(
        "prevout".into(),
        spent.map_or(Value::Null, |it| Value::Object(output(it))),
    );
    object.insert("scriptsig".into(), json!(input.script_sig.to_hex_string()));
    object.insert(
        "scriptsig_asm".into(),
        json!(input.script_sig.to_asm_string()),
    );
    if !input.witness.is_empty() {
        let items = input.witness.iter().map(|item| item.to_lower_hex_string());
        object.insert("witness".into(), json!(items.collect::<Vec<_>>()));
    }
    object.insert("is_coinbase".into(), json!(is_coinbase));
    object.insert("sequence".into(), json!(input.sequence.to_consensus_u32()));
    Value::Object(object)
}

fn output(output: &TxOut) -> Map<String, Value> {
    let script = &output.script_pubkey;
    let mut object = Map::new();
    object.insert("scriptpubkey".into(), json!(script.to_hex_string()));
    object.insert("scriptpubkey_asm".into(), json!(script.to_asm_string()));
    object.insert("scriptpubkey_type".into(), json!(script_type(script)));
    if let Ok(address) = Address::from_script(script, Network::Regtest) {
        object.insert("scriptpubkey_address".into(), json!(address.to_string()));
    }
    object.insert("value".into(), json!(output.value.to_sat()));
    object
}

fn script_type(script: &Script) -> &'static str {
    match script {
        s if s.is_empty() => "empty",
        s if s.is_op_return() => "op_return",
        s if s.is_p2pk() => "p2pk",
        s if s.is_p2pkh() => "p2pkh",
        s if s.is_p2sh() => "p2sh",
        s if s.is_p2wpkh() => "v0_p2wpkh",
        s if s.is_p2wsh() => "v0_p2wsh",
        s if s.is_p2tr() => "v1_p2tr",
        _ => "unknown",
    }
}
