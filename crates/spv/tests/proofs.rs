//! What is in a block is proven, and nothing else.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, Transaction, TxMerkleNode, consensus};
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

/// A payment that no block has, and a transaction of 64 bytes that ends with its id: whoever has the second mined could show the first
/// to be below it in the tree (CVE-2017-12842). Of 2 million values of the payment this is one whose id reads as the end of a transaction.
fn forgery() -> (Transaction, Transaction) {
    let mut payment = spend(outpoint(1), p2wsh(1));
    payment.input[0].witness.clear();
    payment.output[0].value = Amount::from_sat(1_872_157);
    let mut node = vec![2, 0, 0, 0, 1];
    node.extend([9; 27]);
    node.extend(payment.compute_txid().as_byte_array());
    let node: Transaction = consensus::deserialize(&node).unwrap();
    assert_eq!(node.base_size(), 64);
    (payment, node)
}

#[test]
fn a_transaction_that_is_a_node_of_the_tree_proves_nothing() {
    let (payment, node) = forgery();
    let block = block(&genesis(), 1, 0, [node.clone()]);
    assert_eq!(Proof::prove(&block, 1), Err(ProofError::NodeSize));
    let mut headers = regtest();
    let _ = headers.extend(&[block.header], NOW).unwrap();

    // The halves of the node are two leaves of a tree that is deeper by one, and the second is the payment.
    let left = TxMerkleNode::from_slice(&consensus::serialize(&node)[..32]).unwrap();
    let [coinbase, second] = [0, 1].map(|at| TxMerkleNode::from(block.txdata[at].compute_txid()));
    let first = Proof::prove(&block, 0).unwrap();
    assert_eq!(first.coinbase_branch, [second]);
    let forged = Proof {
        transaction: payment.clone(),
        position: 3,
        branch: vec![left, coinbase],
        ..first.clone()
    };
    // Its branch does lead to the root.
    let parent = |left: TxMerkleNode, right: TxMerkleNode| {
        let both = [left.to_byte_array(), right.to_byte_array()].concat();
        TxMerkleNode::hash(&both)
    };
    let leaf = TxMerkleNode::from(payment.compute_txid());
    assert_eq!(
        parent(coinbase, parent(left, leaf)),
        block.header.merkle_root
    );
    assert_eq!(
        forged.verify(&headers),
        Err(ProofError::Depth {
            transaction: 2,
            coinbase: 1
        })
    );
    // No coinbase is as deep: what would be its neighbour is not known to anybody.
    let as_deep = Proof {
        coinbase_branch: vec![left, second],
        ..forged
    };
    assert_eq!(
        as_deep.verify(&headers),
        Err(ProofError::Root(block.block_hash()))
    );
    // Nor is the node itself proven.
    let shallow = Proof {
        transaction: node,
        position: 1,
        branch: vec![coinbase],
        ..first
    };
    assert_eq!(shallow.verify(&headers), Err(ProofError::NodeSize));
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
