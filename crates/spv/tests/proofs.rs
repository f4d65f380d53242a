//! What is in a block is proven, and nothing else.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxMerkleNode, consensus};
use common::{NOW, block, chain, genesis, outpoint, p2wsh, regtest, spend};
use longhand_spv::{Headers, Proof, ProofError};

/// A block with so many transactions, and headers up to three blocks after it.
fn scene(transactions: u8) -> (Headers, Block) {
    let others = (1..transactions).map(|at| spend(outpoint(at), p2wsh(at)));
    let block = block(&genesis(), 1, 0, others);
    let mut headers = regtest();
    let _ = headers.extend(&[block.header], NOW).unwrap();
    let _ = headers.extend(&chain(&block.header, 3, 0), NOW).unwrap();
    (headers, block)
}

#[test]
fn every_transaction_of_a_block_is_proven() {
    for count in 1..=17 {
        let (headers, block) = scene(count);
        for (position, transaction) in (0..).zip(&block.txdata) {
            let proof = Proof::prove(&block, position).unwrap();
            let bytes = proof.encode();
            assert!(bytes.len() <= Proof::MAX_BYTES);
            let proof = Proof::decode(&bytes).unwrap();
            let proven = proof.verify(&headers).unwrap();
            assert_eq!(proven.txid, transaction.compute_txid());
            assert_eq!(proven.transaction.output, transaction.output);
            assert_eq!((proven.height, proven.position), (1, position));
            assert_eq!(proven.confirmations, 4);
        }
        let beyond = u32::from(count);
        assert_eq!(
            Proof::prove(&block, beyond),
            Err(ProofError::Position(beyond))
        );
    }
}

#[test]
fn a_proof_that_is_wrong_by_one_bit_is_refused() {
    for count in [1, 2, 3, 7] {
        let (headers, block) = scene(count);
        let bytes = Proof::prove(&block, u32::from(count) - 1).unwrap().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1 << bit;
                let verified = Proof::decode(&wrong).and_then(|proof| proof.verify(&headers));
                assert!(verified.is_err(), "byte {at}, bit {bit} of {count}");
            }
            let cut = Proof::decode(&bytes[..at]);
            assert_eq!(cut, Err(ProofError::Malformed));
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(Proof::decode(&long), Err(ProofError::Malformed));
        assert_eq!(Proof::decode(&[2]), Err(ProofError::Version(2)));
    }
}

#[test]
fn a_block_that_a_reorganisation_took_away_proves_nothing() {
    let (mut headers, block) = scene(3);
    let proof = Proof::prove(&block, 1).unwrap();
    assert!(proof.verify(&headers).is_ok());
    let _ = headers.extend(&chain(&genesis(), 5, 7), NOW).unwrap();
    assert_eq!(
        proof.verify(&headers),
        Err(ProofError::Block(block.block_hash()))
    );
    assert!(
        !proof
            .verify(&headers)
            .unwrap_err()
            .to_string()
            .contains('\n')
    );
}

#[test]
fn a_copy_at_the_end_of_the_tree_has_no_position() {
    let (headers, block) = scene(3);
    let mut proof = Proof::prove(&block, 2).unwrap();
    assert!(proof.verify(&headers).is_ok());
    // The last of three is its own neighbour, at position 3.
    proof.position = 3;
    assert_eq!(
        proof.verify(&headers),
        Err(ProofError::Root(block.block_hash()))
    );
}

#[test]
fn a_witness_is_not_proven() {
    let (headers, block) = scene(2);
    let mut proof = Proof::prove(&block, 1).unwrap();
    assert!(proof.transaction.input[0].witness.is_empty());
    proof.transaction = block.txdata[1].clone();
    assert_eq!(proof.verify(&headers), Err(ProofError::Form));
    assert_eq!(Proof::decode(&proof.encode()), Err(ProofError::Malformed));
}

/// A transaction of 64 bytes whose last 32 are the id of another one, which no block has (CVE-2017-12842).
fn node_of_a_tree(inner: &Transaction) -> Transaction {
    let mut node = spend(OutPoint::null(), ScriptBuf::from_bytes(vec![0; 4]));
    node.input[0].witness.clear();
    node.input[0].previous_output = outpoint(9);
    assert_eq!(node.base_size(), 64);
    let mut bytes = consensus::serialize(&node);
    bytes[32..].copy_from_slice(inner.compute_txid().as_byte_array());
    // What reads as a transaction needs some of these bytes, which a forger grinds; here the node itself is taken.
    consensus::deserialize(&bytes).unwrap_or(node)
}

#[test]
fn a_transaction_that_could_be_a_node_of_the_tree_proves_nothing() {
    let node = node_of_a_tree(&spend(outpoint(1), p2wsh(1)));
    let block = block(&genesis(), 1, 0, [node.clone()]);
    assert_eq!(Proof::prove(&block, 1), Err(ProofError::NodeSize));
    let mut headers = regtest();
    let _ = headers.extend(&[block.header], NOW).unwrap();

    // The block has the node as its second transaction. Its halves pass for two leaves of a deeper tree.
    let bytes = consensus::serialize(&node);
    let left = TxMerkleNode::from_slice(&bytes[..32]).unwrap();
    let honest = Proof {
        block: block.block_hash(),
        transaction: node,
        position: 1,
        branch: vec![block.txdata[0].compute_txid().into()],
        coinbase: common::coinbase(1, 0),
        coinbase_branch: vec![block.txdata[1].compute_txid().into()],
    };
    let mut honest = honest;
    honest.coinbase.input[0].witness.clear();
    assert_eq!(honest.verify(&headers), Err(ProofError::NodeSize));
    let deeper = Proof {
        transaction: spend(outpoint(1), p2wsh(1)),
        position: 3,
        branch: vec![left, block.txdata[0].compute_txid().into()],
        ..honest.clone()
    };
    assert_eq!(
        deeper.verify(&headers),
        Err(ProofError::Depth {
            transaction: 2,
            coinbase: 1
        })
    );
    let as_deep = Proof {
        coinbase_branch: vec![left, honest.coinbase_branch[0]],
        ..deeper
    };
    assert!(as_deep.verify(&headers).is_err());
}

#[test]
fn the_first_transaction_pays_the_miner_and_no_other_does() {
    let (headers, block) = scene(4);
    let proof = Proof::prove(&block, 2).unwrap();
    let other = Proof::prove(&block, 1).unwrap();
    let swapped = Proof {
        coinbase: other.transaction.clone(),
        coinbase_branch: other.branch,
        ..proof.clone()
    };
    assert_eq!(swapped.verify(&headers), Err(ProofError::Coinbase));
    let first = Proof::prove(&block, 0).unwrap();
    let moved = Proof {
        position: 2,
        ..first
    };
    assert_eq!(moved.verify(&headers), Err(ProofError::Coinbase));
    let shallow = Proof {
        branch: proof.branch[..1].to_vec(),
        ..proof.clone()
    };
    assert!(matches!(
        shallow.verify(&headers),
        Err(ProofError::Depth { .. })
    ));
    let deep = Proof {
        branch: vec![proof.branch[0]; 16],
        coinbase_branch: vec![proof.branch[0]; 16],
        ..proof
    };
    assert!(matches!(
        deep.verify(&headers),
        Err(ProofError::Depth { .. })
    ));
}
