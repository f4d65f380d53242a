//! Block templates and proof of work, which on regtest takes a few tries.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, transaction,
};

/// The easiest target.
const REGTEST_BITS: u32 = 0x207f_ffff;
const HALVING_INTERVAL: u32 = 150;
/// BIP 9 with nothing signalled.
const VERSION: Version = Version::from_consensus(0x2000_0000);
const WITNESS_RESERVED: [u8; 32] = [0; 32];
/// Prefix of the hash in the output that commits to the witnesses (BIP 141).
const COMMITMENT_TAG: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// A block template.
pub(super) struct Template {
    pub(super) parent: BlockHash,
    /// Height of the new block.
    pub(super) height: u32,
    pub(super) time: u32,
    /// Parents before children; all valid on top of `parent`.
    pub(super) txs: Vec<Arc<Transaction>>,
    pub(super) fees_sat: u64,
    /// Script of the coinbase output.
    pub(super) reward_to: ScriptBuf,
    /// Different for each block, so that no two coinbases are the same, also at the same height in the same second.
    pub(super) extra_nonce: u64,
}

/// The block subsidy at `height`.
pub(super) fn subsidy(height: u32) -> Amount {
    let halvings = height / HALVING_INTERVAL;
    Amount::from_sat(50_0000_0000u64.checked_shr(halvings).unwrap_or(0))
}

/// Builds the block and finds its nonce.
pub(super) fn mine(template: Template) -> Block {
    let mut txdata = vec![coinbase(&template)];
    txdata.extend(template.txs.iter().map(|tx| (**tx).clone()));
    let mut block = Block {
        header: Header {
            version: VERSION,
            prev_blockhash: template.parent,
            merkle_root: TxMerkleNode::all_zeros(),
            time: template.time,
            bits: CompactTarget::from_consensus(REGTEST_BITS),
            nonce: 0,
        },
        txdata,
    };
    if let Some(root) = block.witness_root() {
        let commitment = Block::compute_witness_commitment(&root, &WITNESS_RESERVED);
        let script = [&COMMITMENT_TAG[..], &commitment.to_byte_array()[..]].concat();
        block.txdata[0].output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        });
    }
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

fn coinbase(template: &Template) -> Transaction {
    let script_sig = Builder::new()
        .push_int(i64::from(template.height))
        .push_slice(PushBytesBuf::from(template.extra_nonce.to_le_bytes()))
        .into_script();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[WITNESS_RESERVED]),
        }],
        output: vec![TxOut {
            value: subsidy(template.height) + Amount::from_sat(template.fees_sat),
            script_pubkey: template.reward_to.clone(),
        }],
    }
}
