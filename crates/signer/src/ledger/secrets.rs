//! Revocation secrets of a peer: a check that they are stored without a gap (BOLT 3, "Efficient Per-commitment Secret Storage"). LDK
//! panics when one in a gap is looked up.

use lightning::ln::chan_utils::CounterpartyCommitmentSecrets;
use lightning::util::ser::Writeable;

use crate::commitment::FIRST_INDEX;

/// Places for secrets: place `n` has the latest of those whose index ends in `n` zero bits.
const PLACES: usize = 49;
/// A secret and its index, in LDK's encoding.
const PLACE_BYTES: usize = 40;
/// The index in LDK's encoding of a place without a secret.
const EMPTY: u64 = 1 << 48;

/// True when every index from the lowest one up is covered.
pub(super) fn are_whole(secrets: &CounterpartyCommitmentSecrets) -> bool {
    let lowest = secrets.get_min_seen_secret();
    let written = secrets.encode();
    let places = written.chunks_exact(PLACE_BYTES).take(PLACES);
    lowest <= EMPTY
        && (0..).zip(places).all(|(place, written)| {
            let index = written.last_chunk().map(|index| u64::from_be_bytes(*index));
            index == Some(index_at(place, lowest))
        })
}

/// The index in a place when the secrets of all indices from `lowest` up are stored.
fn index_at(place: u32, lowest: u64) -> u64 {
    let Some(first) = 1u64.checked_shl(place).filter(|first| *first < EMPTY) else {
        // The last place is for index 0.
        return if lowest == 0 { 0 } else { EMPTY };
    };
    let steps = lowest.saturating_sub(first).div_ceil(2 * first);
    let index = first + 2 * first * steps;
    if index <= FIRST_INDEX { index } else { EMPTY }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use lightning::ln::chan_utils::build_commitment_secret;
    use lightning::util::ser::Readable;

    use super::*;

    #[test]
    fn what_came_in_order_is_whole_and_anything_else_is_not() {
        let mut secrets = CounterpartyCommitmentSecrets::new();
        assert!(are_whole(&secrets));
        for step in 0..300 {
            let index = FIRST_INDEX - step;
            let secret = build_commitment_secret(&[7; 32], index);
            secrets.provide_secret(index, secret).unwrap();
            assert!(are_whole(&secrets), "after {index}");
        }
        let good = secrets.encode();
        for place in 0..PLACES {
            let mut bytes = good.clone();
            // The last byte of an index.
            bytes[place * PLACE_BYTES + PLACE_BYTES - 1] ^= 4;
            let changed: CounterpartyCommitmentSecrets = Readable::read(&mut &bytes[..]).unwrap();
            assert!(!are_whole(&changed), "place {place}");
        }
    }
}
