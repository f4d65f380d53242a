//! The stored form of the graph and the scores: a magic, the SHA-256 of LDK's encoding, and LDK's encoding.
//!
//! LDK's readers trust the counts they read, and would allocate gigabytes for damaged ones; the hash keeps damaged bytes
//! from them.

use bitcoin::hashes::{Hash, sha256};
use lightning::util::ser::Writeable;

/// The first bytes; the last character is the version.
const MAGIC: &[u8; 4] = b"LHC1";
pub(super) const HEADER_LEN: usize = MAGIC.len() + 32;

/// Encodes `content`.
pub(super) fn seal(content: &impl Writeable) -> Vec<u8> {
    let body = content.encode();
    let mut sealed = Vec::with_capacity(HEADER_LEN + body.len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(sha256::Hash::hash(&body).as_byte_array());
    sealed.extend_from_slice(&body);
    sealed
}

/// LDK's encoding out of `sealed`; `None` when it is damaged or of another version.
pub(super) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (hash, body) = sealed.strip_prefix(MAGIC)?.split_at_checked(32)?;
    (sha256::Hash::hash(body).as_byte_array() == hash).then_some(body)
}
