//! Parts of long lists.

/// The part of a list that is asked for. Both lists are ordered by [`index_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Those with a higher index; 0 = all.
    pub above: u64,
    /// Those with a lower index; [`u64::MAX`] = all.
    pub below: u64,
    /// Which end of this range is wanted when it has more than `limit`, and the order of the answer.
    pub newest_first: bool,
    /// The most of the answer, at most [`crate::MOST_PER_PAGE`]. Fewer do not mean that there are no more.
    pub limit: usize,
}

/// Bits of an index that come from the hash: with the seconds of some centuries it stays below 2^53, which JavaScript needs.
const HASH_BITS: u32 = 20;

/// The index of an invoice or payment, in place of lnd's counter: the time when it was made, then the first 20 bits of its hash. No
/// counter has to be stored, and a page begins at a known place of a history that is ordered by time and hash. Two of the same
/// second that begin with the same 20 bits have the same index, and can be divided by the border between two pages: then one of
/// them is not shown.
pub fn index_of(created_unix_s: u64, payment_hash: &[u8; 32]) -> u64 {
    let [a, b, c, ..] = *payment_hash;
    let bits = u32::from_be_bytes([0, a, b, c]) >> (24 - HASH_BITS);
    let seconds = created_unix_s.min(u64::MAX >> HASH_BITS);
    (seconds << HASH_BITS) | u64::from(bits)
}

/// The first place, in a history ordered by time and hash, whose index is not below `index`.
pub fn position_of(index: u64) -> (u64, [u8; 32]) {
    let mut hash = [0; 32];
    let bits = (index & ((1 << HASH_BITS) - 1)) << (64 - HASH_BITS);
    hash[..8].copy_from_slice(&bits.to_be_bytes());
    (index >> HASH_BITS, hash)
}
