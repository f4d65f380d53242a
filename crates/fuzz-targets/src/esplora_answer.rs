//! Answers of a broken or lying Esplora server, to questions about one block.
//!
//! The first byte is the kind of question. With an even second byte the rest is the answer; with an odd one the answer is
//! the good one, changed: three bytes each time, where (two bytes) and how.

use bitcoin::block::Version as BlockVersion;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Witness};
use longhand_chain::fuzzing::{EsploraAnswer, QUESTIONS, esplora_answer};
use serde_json::json;

use crate::scratch::changed;

/// What the coinbase commits to beside the witnesses (BIP 141).
const RESERVED: [u8; 32] = [0; 32];
const COMMITMENT_TAG: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// Tries one input.
pub fn run(data: &[u8]) {
    let [kind, mode, rest @ ..] = data else {
        return;
    };
    let asked = block();
    let body = match mode % 2 {
        0 => rest.to_vec(),
        _ => changed(good(*kind, &asked), rest),
    };
    match esplora_answer(*kind, &body, &asked) {
        Ok(EsploraAnswer::Block(block)) => assert_eq!(block, asked),
        Ok(EsploraAnswer::Header(header)) => assert_eq!(header, asked.header),
        Ok(EsploraAnswer::Txids(txids)) => assert_eq!(txids, ids(&asked)),
        Ok(EsploraAnswer::Transaction(tx)) => {
            assert_eq!(Some(&tx.compute_txid()), ids(&asked).last());
        }
        Ok(EsploraAnswer::Unproven) => {}
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

/// The answer of an honest server.
fn good(kind: u8, block: &Block) -> Vec<u8> {
    let hash = block.block_hash();
    match kind % QUESTIONS {
        0 => serialize(block),
        1 => serialize_hex(&block.header).into_bytes(),
        2 => json!(ids(block)).to_string().into_bytes(),
        3 => serialize(&block.txdata[2]),
        4 => json!({ "id": hash, "height": 500 })
            .to_string()
            .into_bytes(),
        5 => json!({ "in_best_chain": true, "height": 500 })
            .to_string()
            .into_bytes(),
        6 => {
            let status = json!({ "confirmed": true, "block_height": 500, "block_hash": hash });
            status.to_string().into_bytes()
        }
        7 => json!({ "spent": true, "status": { "confirmed": false } })
            .to_string()
            .into_bytes(),
        8 => json!({ "2": 87.882, "144": 1.012 })
            .to_string()
            .into_bytes(),
        9 => hash.to_string().into_bytes(),
        _ => {
            let error = json!({ "code": -26, "message": "min relay fee not met" });
            format!("sendrawtransaction RPC error -26: {error}").into_bytes()
        }
    }
}

fn ids(block: &Block) -> Vec<Txid> {
    block.txdata.iter().map(Transaction::compute_txid).collect()
}

/// A block with two spends, whose witnesses it commits to.
fn block() -> Block {
    let mut block = genesis_block(Network::Regtest);
    let coinbase = &mut block.txdata[0];
    coinbase.input[0].witness = Witness::from_slice(&[RESERVED]);
    let spend = |n| {
        let mut tx = coinbase.clone();
        tx.input[0].previous_output = OutPoint::new(Txid::all_zeros(), n);
        tx.input[0].script_sig = ScriptBuf::new();
        tx.input[0].witness = Witness::from_slice(&[[7; 5]]);
        tx
    };
    let spends = [spend(1), spend(2)];
    block.txdata.extend(spends);
    block.header.version = BlockVersion::TWO;
    let root = block.witness_root().expect("transactions");
    let commitment = Block::compute_witness_commitment(&root, &RESERVED);
    let script = [&COMMITMENT_TAG[..], &commitment.to_byte_array()[..]].concat();
    block.txdata[0].output.push(TxOut {
        value: bitcoin::Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    block.header.merkle_root = block.compute_merkle_root().expect("transactions");
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let block = block();
    let all = (0..QUESTIONS).flat_map(|kind| {
        let honest = [&[kind, 0][..], &good(kind, &block)].concat();
        [honest, vec![kind, 1], vec![kind, 1, 90, 0, 1]]
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_an_honest_server_are_taken() {
        let block = block();
        for kind in 0..QUESTIONS {
            esplora_answer(kind, &good(kind, &block), &block).unwrap();
        }
    }
}
