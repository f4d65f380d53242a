//! Branches of the merkle tree of a block: from one transaction up to the root that the header has.

use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Transaction, TxMerkleNode, consensus};

use crate::bytes::{Reader, put_long};

/// The most levels: a block has at most 16,666 transactions of 60 bytes and more.
pub const MAX_DEPTH: usize = 15;
/// The most bytes of a transaction without its witness: those of a block.
pub const MAX_TRANSACTION_BYTES: usize = 1_000_000;
/// A transaction of as many bytes as a node of the tree has could pass for one (CVE-2017-12842).
pub(crate) const NODE_BYTES: usize = 64;

fn parent(left: TxMerkleNode, right: TxMerkleNode) -> TxMerkleNode {
    let mut engine = TxMerkleNode::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    TxMerkleNode::from_raw_hash(sha256d::Hash::from_engine(engine))
}

/// The root above a leaf; `None` when the position is not one of a tree of this depth, or is that of a copy: where a level has an odd
/// number of nodes, its last is its own right neighbour, so that a leaf could be shown at a position after the last one.
pub(crate) fn root(
    leaf: TxMerkleNode,
    position: u32,
    branch: &[TxMerkleNode],
) -> Option<TxMerkleNode> {
    if branch.len() > MAX_DEPTH || position >> branch.len() != 0 {
        return None;
    }
    let mut node = leaf;
    for (level, sibling) in branch.iter().enumerate() {
        let is_right = position >> level & 1 == 1;
        if is_right && *sibling == node {
            return None;
        }
        node = match is_right {
            true => parent(*sibling, node),
            false => parent(node, *sibling),
        };
    }
    Some(node)
}

/// The branch of a position, from the leaf's neighbour up. For the host, which has the block.
pub(crate) fn branch(mut level: Vec<TxMerkleNode>, position: usize) -> Vec<TxMerkleNode> {
    let mut branch = Vec::new();
    let mut at = position;
    while level.len() > 1 {
        let last = level[level.len() - 1];
        branch.push(level.get(at ^ 1).copied().unwrap_or(last));
        at /= 2;
        let pairs = level.chunks(2);
        level = pairs
            .map(|pair| parent(pair[0], *pair.last().unwrap_or(&pair[0])))
            .collect();
    }
    branch
}

/// The leaves of a block.
pub(crate) fn leaves(transactions: &[Transaction]) -> Vec<TxMerkleNode> {
    let ids = transactions.iter().map(Transaction::compute_txid);
    ids.map(TxMerkleNode::from).collect()
}

/// A transaction without its witness, which its id does not cover.
pub(crate) fn without_witness(transaction: &Transaction) -> Transaction {
    let mut stripped = transaction.clone();
    for input in &mut stripped.input {
        input.witness.clear();
    }
    stripped
}

/// Whether it has a witness.
pub(crate) fn has_witness(transaction: &Transaction) -> bool {
    transaction
        .input
        .iter()
        .any(|input| !input.witness.is_empty())
}

pub(crate) fn put_branch(bytes: &mut Vec<u8>, branch: &[TxMerkleNode]) {
    for node in branch {
        bytes.extend(node.as_byte_array());
    }
}

pub(crate) fn read_branch(reader: &mut Reader<'_>, depth: u8) -> Option<Vec<TxMerkleNode>> {
    let depth = usize::from(depth);
    if depth > MAX_DEPTH {
        return None;
    }
    let nodes = (0..depth).map(|_| reader.array().map(TxMerkleNode::from_byte_array));
    nodes.collect()
}

pub(crate) fn put_transaction(bytes: &mut Vec<u8>, transaction: &Transaction) {
    put_long(bytes, &consensus::serialize(transaction));
}

/// `None` for what is no transaction without a witness, or one in another form than that of which its id is made.
pub(crate) fn read_transaction(reader: &mut Reader<'_>) -> Option<Transaction> {
    let bytes = reader.long(MAX_TRANSACTION_BYTES)?;
    let transaction: Transaction = consensus::deserialize(bytes).ok()?;
    let is_plain = !has_witness(&transaction) && consensus::serialize(&transaction) == bytes;
    is_plain.then_some(transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> TxMerkleNode {
        TxMerkleNode::from_byte_array([byte; 32])
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_the_root() {
        for count in 1..=20u8 {
            let leaves: Vec<_> = (0..count).map(node).collect();
            let expected = bitcoin::merkle_tree::calculate_root(leaves.iter().copied());
            for (position, leaf) in (0..).zip(&leaves) {
                let branch = branch(leaves.clone(), usize::from(position as u8));
                assert_eq!(root(*leaf, position, &branch), expected);
                let beyond = position | 1 << branch.len();
                assert_eq!(root(*leaf, beyond, &branch), None);
            }
        }
    }

    #[test]
    fn a_copy_of_the_last_leaf_is_no_leaf() {
        let leaves: Vec<_> = (0..3).map(node).collect();
        let mut copied = leaves.clone();
        copied.push(leaves[2]);
        let branch = branch(copied, 3);
        assert_eq!(branch[0], leaves[2]);
        assert_eq!(root(leaves[2], 3, &branch), None);
        assert!(root(leaves[2], 2, &branch).is_some());
    }
}
