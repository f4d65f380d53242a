//! Compact filters of blocks (BIP 157 and BIP 158): whether a block can concern a few scripts, from some 20 kB instead of the block.
//!
//! A filter has all scripts that a block pays to or spends from, as a set that never leaves out one of them and wrongly has another in one of
//! 784,931 cases. No proof of work covers filters: a [`FilterChain`] is what a source says, and is compared with what another says.

mod chain;

use bitcoin::bip158::{BitStreamReader, FilterHash};
use bitcoin::consensus::{Decodable, encode::VarInt};
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{Block, BlockHash, Script};

pub use self::chain::{Compared, FilterChain, MAX_FILTER_BATCH};

/// The longest filter: that of a block of nothing but outputs is some 300 kB.
pub const MAX_FILTER_BYTES: usize = 1 << 20;
/// One in so many scripts that a block has not is wrongly in its filter (BIP 158's M).
const FALSE_POSITIVE: u64 = 784_931;
/// So many bits of a number are written as they are (BIP 158's P).
const REMAINDER_BITS: u8 = 19;

/// The reason for which a filter or a filter header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Longer than any.
    #[error("a filter of {0} bytes is too long: {MAX_FILTER_BYTES} at most")]
    TooLong(usize),
    /// Bytes that are no filter.
    #[error("the bytes are no filter of a block: ask another source")]
    Malformed,
    /// It is not the filter that the source's filter headers name.
    #[error(
        "the filter of the block at height {0} is not the one of which the filter headers are: ask another source"
    )]
    Hash(u32),
    /// The filter header of this height, or the one before it, is not known.
    #[error("the filter header at height {0} is not known here: fetch filter headers first")]
    Unknown(u32),
    /// More at once than [`MAX_FILTER_BATCH`].
    #[error("{0} filter hashes at once are too many: send at most {MAX_FILTER_BATCH}")]
    TooMany(usize),
    /// They go beyond the tip.
    #[error("filter hashes go beyond the tip at height {0}: fetch headers first")]
    BeyondTip(u32),
    /// Stored bytes that are no chain of filter headers.
    #[error("the stored filter headers are damaged: fetch them again")]
    Stored,
}

/// A filter that was read.
#[derive(Clone, Debug)]
pub struct Filter {
    key: (u64, u64),
    /// What the scripts are mapped to, ascending.
    values: Vec<u64>,
}

impl Filter {
    /// Reads the filter of a block. Bytes that do not have exactly as many scripts as they say are refused.
    ///
    /// # Errors
    /// They are too long, or no filter.
    pub fn parse(block: BlockHash, bytes: &[u8]) -> Result<Filter, FilterError> {
        if bytes.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLong(bytes.len()));
        }
        let values = read_values(bytes).ok_or(FilterError::Malformed)?;
        Ok(Filter {
            key: key(block),
            values,
        })
    }

    /// Whether the block may pay to this script or spend from it; if not, it does not. An empty script and one that begins with
    /// `OP_RETURN` are in no filter.
    pub fn matches(&self, script: &Script) -> bool {
        let (k0, k1) = self.key;
        let hash = siphash24::Hash::hash_to_u64_with_keys(k0, k1, script.as_bytes());
        let Some(range) = range(self.values.len()) else {
            return false;
        };
        let value = (u128::from(hash) * u128::from(range)) >> 64;
        u64::try_from(value).is_ok_and(|value| self.values.binary_search(&value).is_ok())
    }

    /// Whether it has every script that the block pays to, as an honest one does. What the block spends from is not checked, for the
    /// block does not have that.
    pub fn has_outputs_of(&self, block: &Block) -> bool {
        let outputs = block
            .txdata
            .iter()
            .flat_map(|transaction| &transaction.output);
        let scripts = outputs.map(|output| output.script_pubkey.as_script());
        scripts
            .filter(|script| is_filtered(script))
            .all(|script| self.matches(script))
    }

    /// How many scripts it has.
    pub fn count(&self) -> usize {
        self.values.len()
    }
}

/// The hash of a filter, of which the chain of filter headers is made (BIP 157).
pub fn filter_hash(bytes: &[u8]) -> FilterHash {
    FilterHash::hash(bytes)
}

/// Whether filters have this script (BIP 158).
pub(crate) fn is_filtered(script: &Script) -> bool {
    !script.is_empty() && !script.is_op_return()
}

fn key(block: BlockHash) -> (u64, u64) {
    let half = |from: usize| {
        let bytes = block.as_byte_array()[from..].first_chunk();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    (half(0), half(8))
}

/// The values are below this.
fn range(count: usize) -> Option<u64> {
    u64::try_from(count).ok()?.checked_mul(FALSE_POSITIVE)
}

/// A count, then so many differences between values, Golomb-Rice coded, then zero bits up to a whole byte.
fn read_values(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut rest = bytes;
    let VarInt(count) = VarInt::consensus_decode(&mut rest).ok()?;
    let count = usize::try_from(count).ok()?;
    let least_bits = usize::from(REMAINDER_BITS) + 1;
    if count > rest.len().saturating_mul(8) / least_bits {
        return None;
    }
    let range = range(count)?;
    let mut values = Vec::with_capacity(count);
    let (mut value, mut bits) = (0u64, 0usize);
    let mut reader = BitStreamReader::new(&mut rest);
    for _ in 0..count {
        let mut quotient = 0u64;
        while reader.read(1).ok()? == 1 {
            quotient += 1;
        }
        let remainder = reader.read(REMAINDER_BITS).ok()?;
        // A quotient is at most the number of bits, some 2^23.
        value = value.checked_add((quotient << REMAINDER_BITS) + remainder)?;
        bits += usize::try_from(quotient).ok()? + least_bits;
        values.push(value);
    }
    let padding = u8::try_from(bits.next_multiple_of(8) - bits).ok()?;
    let is_whole = reader.read(padding).ok()? == 0 && rest.is_empty();
    (is_whole && values.last().is_none_or(|last| *last < range)).then_some(values)
}
