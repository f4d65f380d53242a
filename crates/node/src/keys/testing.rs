//! Helpers of the unit tests in `keys/`.
#![allow(clippy::unwrap_used)]

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::sign::{ChannelSigner, KeysManager};
use lightning::util::ser::Writeable;
use longhand_proto::signer::{FundingDepth, NewChannelKeysAnswer};
use longhand_store::Write;

use super::channel_keys::KeysId;
use super::points::FIRST_INDEX;
use crate::store::journal::Journal;

/// The public key of a secret key of equal bytes.
pub(super) fn key(byte: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

/// A journal that has loaded what was written to `journal`, which has no writes afterwards.
pub(super) fn reloaded(journal: &Journal) -> Journal {
    let puts = journal.take().into_iter().filter_map(|write| match write {
        Write::Put(key, value) => Some((key, value)),
        Write::Delete(_) => None,
    });
    Journal::loading(puts.collect())
}

/// The phone's answer with the keys of `keys_id`, made of `seed`.
pub(super) fn new_keys(keys_id: KeysId, seed: u8) -> NewChannelKeysAnswer {
    let secp = Secp256k1::new();
    let signer = KeysManager::new(&[seed; 32], 0, 0, true).derive_channel_keys(&[seed; 32]);
    let point = |below| signer.get_per_commitment_point(FIRST_INDEX - below, &secp);
    NewChannelKeysAnswer {
        channel_keys_id: keys_id.to_vec(),
        public_keys: signer.pubkeys(&secp).encode(),
        points: (0..16)
            .map(|n| point(n).unwrap().serialize().to_vec())
            .collect(),
        funding_depths: vec![
            FundingDepth {
                from_sat: 0,
                blocks: 2,
            },
            FundingDepth {
                from_sat: 1_000,
                blocks: 5,
            },
        ],
    }
}

/// The revocation basepoint secret of keys made of `seed`.
pub(super) fn revocation_secret(seed: u8) -> Vec<u8> {
    let signer = KeysManager::new(&[seed; 32], 0, 0, true).derive_channel_keys(&[seed; 32]);
    signer.revocation_base_key.secret_bytes().to_vec()
}
