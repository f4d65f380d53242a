//! Answers of a server that is honest, and of one that is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use bitcoin::absolute::LockTime;
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompactTarget, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use serde_json::json;

use super::*;

const REGTEST: Network = Network::Regtest;
const RESERVED: [u8; 32] = [0; 32];

fn tx(input: OutPoint, witness: Witness) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: input,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness,
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::new(),
        }],
    }
}

/// A transaction with a witness.
fn spend(n: u32) -> Transaction {
    tx(
        OutPoint::new(Txid::all_zeros(), n),
        Witness::from_slice(&[[7; 5]]),
    )
}

fn mine(mut block: Block) -> Block {
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// A block at height 500 with these transactions, which commits to their witnesses.
fn block(spends: Vec<Transaction>) -> Block {
    let mut coinbase = tx(OutPoint::null(), Witness::from_slice(&[RESERVED]));
    coinbase.input[0].script_sig = Builder::new().push_int(500).into_script();
    let mut block = genesis_block(REGTEST);
    block.header.version = bitcoin::block::Version::TWO;
    block.txdata = [vec![coinbase], spends].concat();
    let root = block.witness_root().unwrap();
    let commitment = Block::compute_witness_commitment(&root, &RESERVED);
    let script = [&COMMITMENT_TAG[..], &commitment.to_byte_array()[..]].concat();
    let script_pubkey = ScriptBuf::from_bytes(script);
    block.txdata[0].output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey,
    });
    mine(block)
}

fn read(given: &Block, asked: &BlockHash) -> Result<Block, ChainError> {
    super::block(&serialize(given), asked, REGTEST)
}

/// The reason why a block is not taken for the one of `asked`.
fn refused(given: &Block, asked: &BlockHash) -> String {
    match read(given, asked) {
        Err(ChainError::False(reason)) => reason,
        other => panic!("taken: {other:?}"),
    }
}

#[test]
fn a_block_that_is_what_its_header_says_is_taken() {
    for spends in [vec![], vec![spend(1)], vec![spend(1), spend(2), spend(3)]] {
        let block = block(spends);
        assert_eq!(read(&block, &block.block_hash()).unwrap(), block);
    }
    let genesis = genesis_block(REGTEST);
    assert_eq!(read(&genesis, &genesis.block_hash()).unwrap(), genesis);
}

#[test]
fn another_block_is_not_taken() {
    let (asked, other) = (block(vec![spend(1)]), block(vec![spend(2)]));
    assert!(refused(&other, &asked.block_hash()).starts_with("another block than"));
}

#[test]
fn a_block_with_a_transaction_more_less_or_changed_is_not_taken() {
    let good = block(vec![spend(1), spend(2)]);
    let hash = good.block_hash();
    let changes: [fn(&mut Vec<Transaction>); 6] = [
        |txs| drop(txs.pop()),
        |txs| txs.push(spend(3)),
        |txs| txs.swap(1, 2),
        |txs| txs[1].output[0].value = Amount::from_sat(1_001),
        |txs| txs.clear(),
        // With an odd number, this gives the same merkle root.
        |txs| txs.push(txs[2].clone()),
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad.txdata);
        let reason = refused(&bad, &hash);
        assert!(reason.starts_with("other transactions than"), "{reason}");
    }
}

#[test]
fn no_changed_bit_of_a_block_is_taken() {
    let good = block(vec![spend(1), spend(2)]);
    let hash = good.block_hash();
    let mut bytes = serialize(&good);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = super::block(&bytes, &hash, REGTEST);
        assert!(read.is_err(), "bit {bit} of {}", good.txdata.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_block_without_its_witnesses_is_not_taken() {
    let good = block(vec![spend(1), spend(2)]);
    let hash = good.block_hash();
    let mut all = good.clone();
    all.txdata
        .iter_mut()
        .for_each(|tx| tx.input[0].witness.clear());
    assert!(
        all.check_witness_commitment(),
        "the library alone would take it"
    );
    let mut one = good.clone();
    one.txdata[2].input[0].witness.clear();
    let mut changed = good.clone();
    changed.txdata[1].input[0].witness = Witness::from_slice(&[[8; 5]]);
    let mut coinbase = good;
    coinbase.txdata[0].input[0].witness.clear();
    for bad in [all, one, changed, coinbase] {
        assert!(refused(&bad, &hash).contains("witnesses"));
    }
}

#[test]
fn a_block_from_before_segwit_may_commit_without_witnesses() {
    let mut old = block(vec![]);
    old.txdata[0].input[0].witness.clear();
    assert!(!has_its_witnesses(&old, REGTEST));
    // Its height is 500.
    assert!(has_its_witnesses(&old, Network::Bitcoin));
    old.txdata[0].input[0].script_sig = Builder::new().push_int(481_824).into_script();
    assert!(!has_its_witnesses(&old, Network::Bitcoin));
}

#[test]
fn a_block_without_a_coinbase_is_not_taken() {
    let mut bad = block(vec![spend(1)]);
    bad.txdata.remove(0);
    let bad = mine(bad);
    assert!(refused(&bad, &bad.block_hash()).contains("coinbase"));
}

#[test]
fn a_header_without_its_work_is_not_taken() {
    let mut bad = block(vec![]);
    while bad.header.validate_pow(bad.header.target()).is_ok() {
        bad.header.nonce += 1;
    }
    let hash = bad.block_hash();
    assert!(refused(&bad, &hash).ends_with("has no proof of work"));
    let hex = serialize_hex(&bad.header);
    assert!(matches!(
        header(hex.as_bytes(), &hash, REGTEST),
        Err(ChainError::False(_))
    ));
}

#[test]
fn the_work_of_another_network_is_not_enough() {
    let good = genesis_block(REGTEST).header;
    let (hex, hash) = (serialize_hex(&good), good.block_hash());
    assert_eq!(header(hex.as_bytes(), &hash, REGTEST).unwrap(), good);
    let other = header(hex.as_bytes(), &hash, Network::Bitcoin);
    assert!(matches!(other, Err(ChainError::False(_))), "{other:?}");
    let mut easier = good;
    easier.bits = CompactTarget::from_consensus(0x2100_ffff);
    let hash = easier.block_hash();
    let easier = header(serialize_hex(&easier).as_bytes(), &hash, REGTEST);
    assert!(matches!(easier, Err(ChainError::False(_))), "{easier:?}");
}

#[test]
fn a_block_is_as_hard_to_find_as_the_one_before_but_for_retargets() {
    let mut parent = genesis_block(Network::Bitcoin).header;
    parent.bits = CompactTarget::from_consensus(0x1b04_04cb);
    let is_taken = |bits: u32, height, network| {
        let bits = CompactTarget::from_consensus(bits);
        let header = Header { bits, ..parent };
        check_difficulty(&header, &parent, height, network).is_ok()
    };
    let four_times = 0x1b10_132c;
    for (bits, height, expected) in [
        (0x1b04_04cb, 40_321, true),
        (0x1b04_04cc, 40_321, false),
        (0x1b04_04ca, 40_321, false),
        (0x1d00_ffff, 40_321, false),
        (0x1b04_04ca, 40_320, true),
        (four_times, 40_320, true),
        (four_times + 1, 40_320, false),
        (0x1d00_ffff, 40_320, false),
    ] {
        assert_eq!(
            is_taken(bits, height, Network::Bitcoin),
            expected,
            "{bits:x} at {height}"
        );
        assert_eq!(
            is_taken(bits, height, Network::Signet),
            expected,
            "{bits:x} at {height}"
        );
        assert!(is_taken(bits, height, Network::Testnet4));
        assert!(is_taken(bits, height, REGTEST));
    }
}

#[test]
fn what_is_cut_short_or_too_long_or_another_thing_cannot_be_read() {
    let good = block(vec![spend(1)]);
    let (bytes, hash) = (serialize(&good), good.block_hash());
    let longer = [&bytes[..], &[0]].concat();
    for bad in [
        &bytes[..bytes.len() - 1],
        &bytes[..80],
        &[],
        &longer,
        b"<html>",
    ] {
        let read = super::block(bad, &hash, REGTEST);
        assert!(matches!(read, Err(ChainError::Malformed(_))), "{read:?}");
    }
    for bad in ["", "00", "<html>", &serialize_hex(&good)] {
        let read = header(bad.as_bytes(), &hash, REGTEST);
        assert!(matches!(read, Err(ChainError::Malformed(_))), "{read:?}");
    }
    assert!(parsed::<BlockHash>(b"\xff\xfe", "block hash").is_err());
    let error = parsed::<u32>(b"<html>\n\x1b[2J", "height")
        .unwrap_err()
        .to_string();
    assert!(!error.contains(['\n', '\u{1b}']), "{error}");
}

#[test]
fn a_list_of_transactions_is_that_of_the_header() {
    let good = block(vec![spend(1), spend(2)]);
    let ids: Vec<Txid> = good.txdata.iter().map(Transaction::compute_txid).collect();
    let read = |ids: Value| txids(ids.to_string().as_bytes(), &good.header);
    assert_eq!(read(json!(ids)).unwrap(), ids);
    for bad in [
        json!([ids[0], ids[2], ids[1]]),
        json!([ids[0], ids[1]]),
        json!([ids[0], ids[1], ids[2], ids[2]]),
        json!([]),
    ] {
        assert!(matches!(read(bad), Err(ChainError::False(_))));
    }
    for bad in [json!({}), json!([1]), json!(["00"]), json!(null)] {
        assert!(matches!(read(bad), Err(ChainError::Malformed(_))));
    }
}

#[test]
fn another_transaction_is_not_taken_whatever_its_witness() {
    let asked = spend(1).compute_txid();
    assert_eq!(
        transaction(&serialize(&spend(1)), &asked).unwrap(),
        spend(1)
    );
    let other = transaction(&serialize(&spend(2)), &asked);
    assert!(matches!(other, Err(ChainError::False(_))), "{other:?}");
}

#[test]
fn states_of_blocks_transactions_and_outputs_are_read() {
    let hash = genesis_block(REGTEST).block_hash();
    let bytes = |value: Value| value.to_string().into_bytes();
    let height = |id: Value| block_height(&bytes(json!({ "id": id, "height": 7 })), &hash);
    assert_eq!(height(json!(hash)).unwrap(), 7);
    assert!(matches!(height(json!("00")), Err(ChainError::False(_))));
    assert_eq!(
        status(&bytes(json!({ "in_best_chain": true, "height": 7 }))).unwrap(),
        Some(7)
    );
    assert_eq!(
        status(&bytes(json!({ "in_best_chain": false }))).unwrap(),
        None
    );
    assert!(status(&bytes(json!({ "in_best_chain": true }))).is_err());
    let confirmed = json!({ "confirmed": true, "block_height": 7, "block_hash": hash });
    let at = confirmation(&bytes(confirmed)).unwrap();
    assert_eq!(at, Some(BlockRef { height: 7, hash }));
    assert_eq!(
        confirmation(&bytes(json!({ "confirmed": false }))).unwrap(),
        None
    );
    assert!(confirmation(&bytes(json!({ "confirmed": true }))).is_err());
    for (json, expected) in [
        (json!({ "spent": false }), Spend::None),
        (
            json!({ "spent": true, "status": { "confirmed": false } }),
            Spend::Unconfirmed,
        ),
        (
            json!({ "spent": true, "status": { "confirmed": true } }),
            Spend::Confirmed(None),
        ),
        (json!({ "spent": true }), Spend::Confirmed(None)),
    ] {
        assert_eq!(spend_of(&json), expected, "{json}");
    }
    assert!(super::spend(b"{}").is_err());
}

fn spend_of(json: &Value) -> Spend {
    super::spend(json.to_string().as_bytes()).unwrap()
}

#[test]
fn fee_rates_are_those_of_the_farthest_target_that_is_not_too_far() {
    let body = json!({ "1": 87.882, "3": 40.0, "6": 1.012, "144": 1.0, "1008": 0.1 });
    let estimates = fee_estimates(body.to_string().as_bytes()).unwrap();
    let within = [1, 2, 5, 6, 143, 144, 1_000, 2_000].map(|blocks| estimates.within(blocks));
    assert_eq!(
        within,
        [21_971, 21_971, 10_000, 253, 253, 250, 250, 25].map(Some)
    );
    let only = fee_estimates(br#"{ "25": 3 }"#).unwrap();
    assert_eq!(only.within(2), Some(750));
    assert_eq!(fee_estimates(b"{}").unwrap().within(2), None);
    for bad in [
        "[]",
        "{ \"2\": -1 }",
        "{ \"2\": 1e300 }",
        "{ \"2\": \"3\" }",
        "{ \"soon\": 3 }",
        "{ \"70000\": 3 }",
        "<html>",
    ] {
        assert!(fee_estimates(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_reason_of_bitcoin_core_is_found_in_a_refusal() {
    for (text, code, message) in [
        (
            "sendrawtransaction RPC error -26: {\"code\":-26,\"message\":\"min relay fee not met\"}",
            -26,
            "min relay fee not met",
        ),
        (
            "sendrawtransaction RPC error: {\"code\":-25,\"message\":\"bad-txns-inputs-missingorspent\"} (at 1)",
            -25,
            "bad-txns-inputs-missingorspent",
        ),
        ("Invalid hex string", -26, "Invalid hex string"),
        ("no {object}", -26, "no {object}"),
        ("", -26, ""),
    ] {
        let found = refusal(text.as_bytes());
        assert_eq!((found.code, found.message.as_str()), (code, message));
    }
}
