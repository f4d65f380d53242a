//! Headers as bytes.
//!
//! ```text
//! head     8   "LHSPV", two zero bytes, version 1
//!          4   height of the checkpoint, little-endian
//!         32   hash of the checkpoint
//! header   4   version      \
//!         32   merkle root   | as in a block, for each block after the checkpoint
//!          4   time          |
//!          4   nonce        /
//! ```
//! The hash of the block before follows from the header before it, and the difficulty from the rules, so that they are left out: 44 bytes a
//! block.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, TxMerkleNode, block::Header, block::Version};

use super::error::StoredError;
use super::line::{Line, total_work};
use super::{HeaderError, Headers, rules};
use crate::checkpoint::Checkpoint;
use crate::params::Params;

/// What one header takes.
pub const STORED_HEADER_BYTES: usize = 44;
const MAGIC: [u8; 7] = *b"LHSPV\0\0";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 44;

/// How the stored bytes change: cut the file after the first `keep_bytes`, then append.
///
/// A program that ends between the two leaves a shorter chain, and one that ends while it appends a last record that is not whole: both
/// are read back ([`Headers::from_stored`]), and what is missing comes with the next batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "without it the stored headers are not those in memory"]
pub struct StoredChange {
    /// So many bytes at the beginning stay as they are.
    pub keep_bytes: u64,
    /// Follows them.
    pub append: Vec<u8>,
}

/// Headers that were read back.
#[derive(Debug)]
pub struct Restored {
    /// The headers.
    pub headers: Headers,
    /// When the last write was cut off, what mends the file.
    pub repair: Option<StoredChange>,
}

pub(super) fn head(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.extend(MAGIC);
    bytes.push(VERSION);
    bytes.extend(checkpoint.height().to_le_bytes());
    bytes.extend(checkpoint.hash().to_byte_array());
    bytes
}

pub(super) fn write(headers: &[Header], bytes: &mut Vec<u8>) {
    bytes.reserve(headers.len().saturating_mul(STORED_HEADER_BYTES));
    for header in headers {
        bytes.extend(header.version.to_consensus().to_le_bytes());
        bytes.extend(header.merkle_root.to_byte_array());
        bytes.extend(header.time.to_le_bytes());
        bytes.extend(header.nonce.to_le_bytes());
    }
}

/// The bytes of so many headers with their head.
pub(super) fn length(count: usize) -> u64 {
    let bytes = HEAD_BYTES.saturating_add(count.saturating_mul(STORED_HEADER_BYTES));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

pub(super) fn read(
    params: Params,
    checkpoint: Checkpoint,
    bytes: &[u8],
) -> Result<Restored, StoredError> {
    let mut headers = Headers::new(params, checkpoint);
    let Some(records) = split_head(&headers.checkpoint, bytes)? else {
        let append = head(&headers.checkpoint);
        return Ok(Restored {
            headers,
            repair: Some(StoredChange {
                keep_bytes: 0,
                append,
            }),
        });
    };
    let records = records.chunks_exact(STORED_HEADER_BYTES);
    let torn = !records.remainder().is_empty();
    headers.best.reserve_exact(records.len());
    for record in records {
        headers.push_stored(record).map_err(StoredError::Damaged)?;
    }
    headers.work = total_work(&headers.best[1..]);
    let repair = torn.then(|| StoredChange {
        keep_bytes: length(headers.best.len() - 1),
        append: Vec::new(),
    });
    Ok(Restored { headers, repair })
}

/// What follows the head; `None` when the head itself was cut off while it was written.
fn split_head<'a>(
    checkpoint: &Checkpoint,
    bytes: &'a [u8],
) -> Result<Option<&'a [u8]>, StoredError> {
    let expected = head(checkpoint);
    if let Some(records) = bytes.strip_prefix(&expected[..]) {
        return Ok(Some(records));
    }
    if expected.starts_with(bytes) {
        return Ok(None);
    }
    match bytes.strip_prefix(&MAGIC) {
        Some([VERSION, ..]) => Err(StoredError::Checkpoint),
        Some([version, ..]) => Err(StoredError::Version(*version)),
        _ => Err(StoredError::Unknown),
    }
}

impl Headers {
    /// Checks a stored header and appends it.
    fn push_stored(&mut self, record: &[u8]) -> Result<(), HeaderError> {
        let height = self.height().checked_add(1).ok_or(HeaderError::Height)?;
        let line = Line {
            checkpoint: &self.checkpoint,
            best: &self.best,
            fork: height - 1,
            side: &[],
        };
        let previous = line.header(height - 1).ok_or(HeaderError::Height)?;
        let (version, rest) = split(record);
        let (merkle_root, rest) = split(rest);
        let (time, rest) = split(rest);
        let (nonce, _) = split(rest);
        let time = u32::from_le_bytes(time);
        let header = Header {
            version: Version::from_consensus(i32::from_le_bytes(version)),
            prev_blockhash: self.tip_hash,
            merkle_root: TxMerkleNode::from_byte_array(merkle_root),
            time,
            bits: line.next_bits(&self.params, height, previous, time),
            nonce: u32::from_le_bytes(nonce),
        };
        let hash: BlockHash = header.block_hash();
        rules::check(&self.params, &line, height, &header, hash, None)?;
        self.best.push(header);
        self.tip_hash = hash;
        Ok(())
    }
}

/// The first bytes of a record, which is long enough.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    match bytes.split_first_chunk() {
        Some((first, rest)) => (*first, rest),
        None => ([0; N], &[]),
    }
}
