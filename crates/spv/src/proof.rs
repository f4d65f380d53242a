//! A proof that a transaction is in a block.
//!
//! Beside the transaction's branch it has the coinbase transaction with its own. Both are of the same depth, which shows how deep the tree
//! is: without that an inner node of 64 bytes could pass for a transaction, or a transaction for an inner node (CVE-2017-12842).

use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Transaction, TxMerkleNode, Txid};

use crate::bytes::Reader;
use crate::headers::Headers;
use crate::merkle::{self, MAX_DEPTH, MAX_TRANSACTION_BYTES, NODE_BYTES};

/// The reason for which a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Bytes that are no proof.
    #[error("the bytes are no proof of a transaction: ask for it again")]
    Malformed,
    /// Of another version.
    #[error("the proof is of version {0}, which this program does not know: update")]
    Version(u8),
    /// The block has no transaction there.
    #[error("the block has no transaction at position {0}")]
    Position(u32),
    /// Its block is not in the best chain that is known.
    #[error(
        "block {0} is not in the chain that is known here: fetch headers, then ask for the proof again"
    )]
    Block(BlockHash),
    /// The branches are of different or too many levels.
    #[error(
        "the branches of a proof have the same number of levels, {MAX_DEPTH} at most, and these have {transaction} and {coinbase}: it is forged"
    )]
    Depth {
        /// The transaction's.
        transaction: usize,
        /// The coinbase's.
        coinbase: usize,
    },
    /// A transaction is of 64 bytes, which a node of the tree has too (CVE-2017-12842).
    #[error(
        "a transaction of 64 bytes proves nothing, for it can be a part of the block's tree: it is forged"
    )]
    NodeSize,
    /// A transaction has a witness, which no branch covers, or is too long.
    #[error(
        "the proof's transactions are to have no witness, and at most {MAX_TRANSACTION_BYTES} bytes: ask for it again"
    )]
    Form,
    /// The coinbase is none, or the transaction is one elsewhere than at position 0.
    #[error(
        "the first transaction of the block is not the one that pays its miner, or another is: the proof is forged"
    )]
    Coinbase,
    /// The branches do not lead to the header's root.
    #[error("the transaction is not in block {0}: the proof is forged")]
    Root(BlockHash),
}

/// A transaction, and why it is in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The block.
    pub block: BlockHash,
    /// The transaction without its witness.
    pub transaction: Transaction,
    /// Its place among the block's transactions, from 0.
    pub position: u32,
    /// The nodes beside its way to the root, the lowest first.
    pub branch: Vec<TxMerkleNode>,
    /// The block's first transaction without its witness.
    pub coinbase: Transaction,
    /// The nodes beside its way to the root, the lowest first.
    pub coinbase_branch: Vec<TxMerkleNode>,
}

/// What a proof has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The id of the transaction.
    pub txid: Txid,
    /// The transaction without its witness.
    pub transaction: Transaction,
    /// Its block.
    pub block: BlockHash,
    /// The block's height.
    pub height: u32,
    /// Its place among the block's transactions, from 0.
    pub position: u32,
    /// How many blocks confirm it now, its own included: at least 1.
    pub confirmations: u32,
}

const VERSION: u8 = 1;

impl Proof {
    /// The most bytes that it takes.
    pub const MAX_BYTES: usize =
        1 + 32 + 4 + 1 + 2 * 32 * MAX_DEPTH + 2 * (4 + MAX_TRANSACTION_BYTES);

    /// Makes one from the whole block, for those who have it.
    ///
    /// # Errors
    /// The block has no transaction there, or one of 64 bytes.
    pub fn prove(block: &Block, position: u32) -> Result<Proof, ProofError> {
        let at = usize::try_from(position).map_err(|_| ProofError::Position(position))?;
        let transaction = block.txdata.get(at).ok_or(ProofError::Position(position))?;
        let coinbase = block.txdata.first().ok_or(ProofError::Position(0))?;
        let leaves = merkle::leaves(&block.txdata);
        let proof = Proof {
            block: block.block_hash(),
            transaction: merkle::without_witness(transaction),
            position,
            branch: merkle::branch(leaves.clone(), at),
            coinbase: merkle::without_witness(coinbase),
            coinbase_branch: merkle::branch(leaves, 0),
        };
        proof.check(block.header.merkle_root)?;
        Ok(proof)
    }

    /// What it shows, when its block is in the best chain. A reorganisation may take that back.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(&self, headers: &Headers) -> Result<Proven, ProofError> {
        let unknown = ProofError::Block(self.block);
        let height = headers.height_of(self.block).ok_or(unknown)?;
        let header = headers.header(height).ok_or(unknown)?;
        self.check(header.merkle_root)?;
        Ok(Proven {
            txid: self.transaction.compute_txid(),
            transaction: self.transaction.clone(),
            block: self.block,
            height,
            position: self.position,
            confirmations: headers.confirmations(height),
        })
    }

    fn check(&self, merkle_root: TxMerkleNode) -> Result<(), ProofError> {
        let (depth, coinbase_depth) = (self.branch.len(), self.coinbase_branch.len());
        if depth != coinbase_depth || depth > MAX_DEPTH {
            return Err(ProofError::Depth {
                transaction: depth,
                coinbase: coinbase_depth,
            });
        }
        for transaction in [&self.transaction, &self.coinbase] {
            check_form(transaction)?;
        }
        let is_first = self.position == 0;
        if !self.coinbase.is_coinbase() || self.transaction.is_coinbase() != is_first {
            return Err(ProofError::Coinbase);
        }
        let leaf = |transaction: &Transaction| TxMerkleNode::from(transaction.compute_txid());
        let root = merkle::root(leaf(&self.transaction), self.position, &self.branch);
        let coinbase_root = merkle::root(leaf(&self.coinbase), 0, &self.coinbase_branch);
        match root == Some(merkle_root) && coinbase_root == Some(merkle_root) {
            true => Ok(()),
            false => Err(ProofError::Root(self.block)),
        }
    }

    /// As bytes: version 1 (1 byte), block hash (32), position (4), levels (1), the transaction's branch (32 each), the coinbase's branch
    /// (32 each), the transaction, the coinbase, each after its length (4). Numbers are little-endian, hashes as in a block, transactions
    /// as on the wire without witness.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.block.to_byte_array());
        bytes.extend(self.position.to_le_bytes());
        bytes.push(u8::try_from(self.branch.len()).unwrap_or(u8::MAX));
        merkle::put_branch(&mut bytes, &self.branch);
        merkle::put_branch(&mut bytes, &self.coinbase_branch);
        merkle::put_transaction(&mut bytes, &self.transaction);
        merkle::put_transaction(&mut bytes, &self.coinbase);
        bytes
    }

    /// Reads [`Proof::encode`]'s bytes.
    ///
    /// # Errors
    /// They are of another version, or no proof.
    pub fn decode(bytes: &[u8]) -> Result<Proof, ProofError> {
        let mut reader = Reader::new(bytes);
        match reader.u8() {
            Some(VERSION) => {}
            Some(version) => return Err(ProofError::Version(version)),
            None => return Err(ProofError::Malformed),
        }
        let proof = Proof::read(&mut reader).ok_or(ProofError::Malformed)?;
        match reader.is_empty() {
            true => Ok(proof),
            false => Err(ProofError::Malformed),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Proof> {
        let block = BlockHash::from_byte_array(reader.array()?);
        let position = reader.u32()?;
        let depth = reader.u8()?;
        let branch = merkle::read_branch(reader, depth)?;
        let coinbase_branch = merkle::read_branch(reader, depth)?;
        Some(Proof {
            block,
            transaction: merkle::read_transaction(reader)?,
            position,
            branch,
            coinbase: merkle::read_transaction(reader)?,
            coinbase_branch,
        })
    }
}

fn check_form(transaction: &Transaction) -> Result<(), ProofError> {
    let bytes = transaction.base_size();
    if bytes == NODE_BYTES {
        return Err(ProofError::NodeSize);
    }
    // One without inputs is written like one with a witness.
    let is_plain = !transaction.input.is_empty() && !merkle::has_witness(transaction);
    match is_plain && bytes <= MAX_TRANSACTION_BYTES {
        true => Ok(()),
        false => Err(ProofError::Form),
    }
}
