//! JSON of transactions, scripts and amounts, as in Bitcoin Core's RPC.

use bitcoin::blockdata::script::{Instruction, read_scriptint};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Address, Amount, Network, Script, Transaction, TxOut};
use serde_json::{Map, Value, json};

/// An amount in BTC.
pub(super) fn btc(amount: Amount) -> Value {
    json!(amount.to_btc())
}

/// Satoshis as BTC.
pub(super) fn sat(sat: u64) -> Value {
    btc(Amount::from_sat(sat))
}

/// A fee rate in BTC per 1,000 virtual bytes.
pub(super) fn rate(fee_sat: u64, vsize: u64) -> Value {
    sat((u128::from(fee_sat) * 1_000 / u128::from(vsize.max(1))) as u64)
}

pub(super) fn script_pub_key(script: &Script) -> Value {
    let mut object = Map::new();
    object.insert("asm".into(), json!(asm(script)));
    object.insert("hex".into(), json!(script.to_hex_string()));
    if let Ok(address) = Address::from_script(script, Network::Regtest) {
        object.insert("address".into(), json!(address.to_string()));
    }
    object.insert("type".into(), json!(script_type(script)));
    Value::Object(object)
}

/// Pushes in hex, small ones as numbers, and operations by name.
fn asm(script: &Script) -> String {
    let show = |instruction| match instruction {
        Ok(Instruction::PushBytes(bytes)) if bytes.is_empty() => "0".to_string(),
        Ok(Instruction::PushBytes(bytes)) if bytes.len() <= 4 => {
            match read_scriptint(bytes.as_bytes()) {
                Ok(number) => number.to_string(),
                Err(_) => bytes.as_bytes().to_lower_hex_string(),
            }
        }
        Ok(Instruction::PushBytes(bytes)) => bytes.as_bytes().to_lower_hex_string(),
        Ok(Instruction::Op(op)) => match op.to_u8() {
            0x4f => "-1".to_string(),
            number @ 0x51..=0x60 => (number - 0x50).to_string(),
            _ => op.to_string(),
        },
        Err(_) => "[error]".to_string(),
    };
    script
        .instructions()
        .map(show)
        .collect::<Vec<_>>()
        .join(" ")
}

fn script_type(script: &Script) -> &'static str {
    match script {
        s if s.is_p2pk() => "pubkey",
        s if s.is_p2pkh() => "pubkeyhash",
        s if s.is_p2sh() => "scripthash",
        s if s.is_p2wpkh() => "witness_v0_keyhash",
        s if s.is_p2wsh() => "witness_v0_scripthash",
        s if s.is_p2tr() => "witness_v1_taproot",
        s if s.as_bytes() == [0x51, 0x02, 0x4e, 0x73] => "anchor",
        s if s.is_witness_program() => "witness_unknown",
        s if s.is_op_return() => "nulldata",
        s if s.is_multisig() => "multisig",
        _ => "nonstandard",
    }
}

/// A transaction as in `getrawtransaction` and `getblock`; `spent` are the outputs it spends, when they are to be
/// shown.
pub(super) fn transaction(tx: &Transaction, spent: Option<&[TxOut]>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("txid".into(), json!(tx.compute_txid()));
    object.insert("hash".into(), json!(tx.compute_wtxid()));
    object.insert("version".into(), json!(tx.version.0 as u32));
    object.insert("size".into(), json!(tx.total_size()));
    object.insert("vsize".into(), json!(tx.vsize()));
    object.insert("weight".into(), json!(tx.weight().to_wu()));
    object.insert("locktime".into(), json!(tx.lock_time.to_consensus_u32()));
    let prevout = |index: usize| spent.and_then(|spent| spent.get(index));
    let inputs: Vec<Value> = tx
        .input
        .iter()
        .enumerate()
        .map(|(i, txin)| input(tx, txin, prevout(i)))
        .collect();
    object.insert("vin".into(), Value::Array(inputs));
    let outputs: Vec<Value> = tx
        .output
        .iter()
        .enumerate()
        .map(|(n, out)| output(n, out))
        .collect();
    object.insert("vout".into(), Value::Array(outputs));
    if let Some(spent) = spent.filter(|_| !tx.is_coinbase()) {
        let value_in: Amount = spent.iter().map(|out| out.value).sum();
        let value_out: Amount = tx.output.iter().map(|out| out.value).sum();
        object.insert(
            "fee".into(),
            btc(value_in.checked_sub(value_out).unwrap_or(Amount::ZERO)),
        );
    }
    object.insert("hex".into(), json!(serialize_hex(tx)));
    object
}

fn input(tx: &Transaction, input: &bitcoin::TxIn, prevout: Option<&TxOut>) -> Value {
    let mut object = Map::new();
    if tx.is_coinbase() {
        object.insert("coinbase".into(), json!(input.script_sig.to_hex_string()));
    } else {
        object.insert("txid".into(), json!(input.previous_output.txid));
        object.insert("vout".into(), json!(input.previous_output.vout));
        let script = &input.script_sig;
        object.insert(
            "scriptSig".into(),
            json!({ "asm": asm(script), "hex": script.to_hex_string() }),
        );
        if let Some(out) = prevout {
            let prevout = json!({ "value": btc(out.value), "scriptPubKey": script_pub_key(&out.script_pubkey) });
            object.insert("prevout".into(), prevout);
        }
    }
    if !input.witness.is_empty() {
        let items: Vec<String> = input
            .witness
            .iter()
            .map(|item| item.to_lower_hex_string())
            .collect();
        object.insert("txinwitness".into(), json!(items));
    }
    object.insert("sequence".into(), json!(input.sequence.to_consensus_u32()));
    Value::Object(object)
}

fn output(n: usize, output: &TxOut) -> Value {
    json!({ "value": btc(output.value), "n": n, "scriptPubKey": script_pub_key(&output.script_pubkey) })
}
