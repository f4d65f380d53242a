//! Standardness: the rules of Bitcoin Core's policy on the form of a transaction (`IsStandardTx` and others).

use bitcoin::blockdata::script::Instruction;
use bitcoin::consensus::encode::serialize;
use bitcoin::{Amount, FeeRate, Script, Transaction, TxOut, Weight};

/// Maximum weight.
const MAX_STANDARD_WEIGHT: Weight = Weight::from_wu(400_000);
/// Minimum size without the witness (CVE-2017-12842).
const MIN_NONWITNESS_SIZE: usize = 65;
const MAX_SCRIPT_SIG_SIZE: usize = 1_650;
const MAX_DATA_CARRIER_BYTES: usize = 100_000;
/// At most one output below the dust limit, and only in a transaction without fee (ephemeral dust).
const MAX_DUST_OUTPUTS: usize = 1;
/// Fee rate at which an output is dust when its spend costs more than its value.
const DUST_RELAY_FEE: FeeRate = FeeRate::from_sat_per_vb_u32(3);
const MAX_P2WSH_SCRIPT_SIZE: usize = 3_600;
const MAX_P2WSH_STACK_ITEMS: usize = 100;
const MAX_WITNESS_ITEM_SIZE: usize = 80;
/// First byte of a taproot annex (BIP 341).
const ANNEX_TAG: u8 = 0x50;
/// Leaf version of tapscript (BIP 342).
const TAPSCRIPT_LEAF: u8 = 0xc0;

/// Checks the form of a transaction; `Err` has Bitcoin Core's reject reason.
pub(super) fn check_form(tx: &Transaction) -> Result<(), &'static str> {
    if !(1..=3).contains(&tx.version.0) {
        return Err("version");
    }
    if tx.weight() > MAX_STANDARD_WEIGHT {
        return Err("tx-size");
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG_SIZE {
            return Err("scriptsig-size");
        }
        if !input.script_sig.is_push_only() {
            return Err("scriptsig-not-pushonly");
        }
    }
    let carried: usize = tx
        .output
        .iter()
        .filter(|o| o.script_pubkey.is_op_return())
        .map(|o| o.script_pubkey.len())
        .sum();
    if carried > MAX_DATA_CARRIER_BYTES {
        return Err("datacarrier");
    }
    if tx
        .output
        .iter()
        .any(|output| !is_standard_output(&output.script_pubkey))
    {
        return Err("scriptpubkey");
    }
    if dust_outputs(tx).count() > MAX_DUST_OUTPUTS {
        return Err("dust");
    }
    if tx.base_size() < MIN_NONWITNESS_SIZE {
        return Err("tx-size-small");
    }
    Ok(())
}

/// Indices of the outputs that are below the dust limit.
pub(super) fn dust_outputs(tx: &Transaction) -> impl Iterator<Item = u32> + '_ {
    (0u32..)
        .zip(&tx.output)
        .filter(|(_, output)| is_dust(output))
        .map(|(vout, _)| vout)
}

/// Checks the inputs of a transaction against the outputs that they spend, in order; `Err` has Bitcoin Core's reject
/// reason.
pub(super) fn check_inputs(tx: &Transaction, spent: &[TxOut]) -> Result<(), &'static str> {
    for (input, output) in tx.input.iter().zip(spent) {
        let script = &output.script_pubkey;
        if !is_standard_output(script) || is_unknown_witness_program(script) {
            return Err("bad-txns-nonstandard-inputs");
        }
        let redeem_script = match script.is_p2sh() {
            true => Some(last_push(&input.script_sig).unwrap_or_default()),
            false => None,
        };
        let program = redeem_script
            .as_deref()
            .map_or(&**script, Script::from_bytes);
        if !is_standard_witness(program, &input.witness) {
            return Err("bad-witness-nonstandard");
        }
    }
    Ok(())
}

fn is_dust(output: &TxOut) -> bool {
    if output.script_pubkey.is_op_return() {
        return false;
    }
    // Size of an input that spends it: outpoint, sequence, script length, signature and key; the last two count a
    // fourth for witness programs.
    let spend_size: u64 = if output.script_pubkey.is_witness_program() {
        32 + 4 + 1 + 107 / 4 + 4
    } else {
        148
    };
    let size = serialize(output).len() as u64 + spend_size;
    output.value < DUST_RELAY_FEE.fee_vb(size).unwrap_or(Amount::MAX)
}

fn is_standard_output(script: &Script) -> bool {
    script.is_p2pk()
        || script.is_p2pkh()
        || script.is_p2sh()
        || script.is_witness_program()
        || script.is_op_return()
        || is_small_multisig(script)
}

/// Bare multisig of up to three keys.
fn is_small_multisig(script: &Script) -> bool {
    script.is_multisig()
        && script
            .instructions()
            .flatten()
            .filter(|i| matches!(i, Instruction::PushBytes(_)))
            .count()
            <= 3
}

/// Pay to anchor: a keyless output of two bytes, spent with an empty witness.
fn is_p2a(script: &Script) -> bool {
    script.as_bytes() == [0x51, 0x02, 0x4e, 0x73]
}

fn is_unknown_witness_program(script: &Script) -> bool {
    script.is_witness_program()
        && !script.is_p2wpkh()
        && !script.is_p2wsh()
        && !script.is_p2tr()
        && !is_p2a(script)
}

fn is_standard_witness(program: &Script, witness: &bitcoin::Witness) -> bool {
    if witness.is_empty() {
        return true;
    }
    let items: Vec<&[u8]> = witness.iter().collect();
    if !program.is_witness_program() || is_p2a(program) {
        return false;
    }
    if program.is_p2wsh() {
        let Some((script, stack)) = items.split_last() else {
            return false;
        };
        return script.len() <= MAX_P2WSH_SCRIPT_SIZE
            && stack.len() <= MAX_P2WSH_STACK_ITEMS
            && stack.iter().all(|item| item.len() <= MAX_WITNESS_ITEM_SIZE);
    }
    if program.is_p2tr() && items.len() >= 2 {
        if items
            .last()
            .is_some_and(|item| item.first() == Some(&ANNEX_TAG))
        {
            return false;
        }
        let (Some(control), Some(stack)) = (items.last(), items.get(..items.len() - 2)) else {
            return false;
        };
        let is_tapscript = control
            .first()
            .is_some_and(|byte| byte & 0xfe == TAPSCRIPT_LEAF);
        return !is_tapscript || stack.iter().all(|item| item.len() <= MAX_WITNESS_ITEM_SIZE);
    }
    true
}

fn last_push(script: &Script) -> Option<Vec<u8>> {
    match script.instructions().last()?.ok()? {
        Instruction::PushBytes(bytes) => Some(bytes.as_bytes().to_vec()),
        Instruction::Op(_) => None,
    }
}
