//! The keys of one channel as far as a host has them, and their record in the store.

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::ChannelPublicKeys;
use lightning::util::ser::{Readable, Writeable};
use longhand_proto::signer::{FundingDepth, NewChannelKeysAnswer};
use prost::Message;

use super::points::{FIRST_INDEX, POINTS_AT_ONCE, Points, StoredPoint};

/// LDK's `channel_keys_id`.
pub(crate) type KeysId = [u8; 32];

/// Depths of an answer that are taken.
const DEPTHS: usize = 8;
/// The largest `minimum_depth` that LDK takes of a peer, a day of blocks.
const MOST_DEPTH_BLOCKS: u32 = 144;

/// The public keys of one channel, and the secret that the owner has delegated.
pub(crate) struct ChannelKeys {
    pub public_keys: ChannelPublicKeys,
    pub points: Points,
    /// Punishes a breach; cannot spend the owner's balance.
    pub revocation_basepoint_secret: Option<SecretKey>,
    /// The channel that has these keys; `None` while they are in the pool.
    pub user_channel_id: Option<u128>,
    /// The phone has the channel's parameters.
    pub set_up: bool,
    /// See [`ChannelKeys::funding_depth`]. Empty from a phone of an earlier version.
    funding_depths: Vec<FundingDepth>,
}

impl ChannelKeys {
    /// New keys from the phone, of no channel yet. `None` when they cannot be read.
    pub fn from_answer(answer: &NewChannelKeysAnswer) -> Option<(KeysId, ChannelKeys)> {
        let keys_id = KeysId::try_from(&answer.channel_keys_id[..]).ok()?;
        let public_keys = ChannelPublicKeys::read(&mut &answer.public_keys[..]).ok()?;
        let points = answer.points.iter().take(POINTS_AT_ONCE as usize);
        let points = points.map(|point| PublicKey::from_slice(point).ok());
        let mut window = Points::default();
        window.add(FIRST_INDEX, points.collect::<Option<Vec<_>>>()?);
        let keys = ChannelKeys {
            public_keys,
            points: window,
            revocation_basepoint_secret: None,
            user_channel_id: None,
            set_up: false,
            funding_depths: answer.funding_depths.iter().take(DEPTHS).copied().collect(),
        };
        Some((keys_id, keys))
    }

    /// How many blocks the owner wants to confirm a channel of this size that a peer funds. No fewer than one, and no more than peers take.
    pub fn funding_depth(&self, funding_sat: u64) -> Option<u32> {
        let mut depths = self.funding_depths.iter().rev();
        let depth = depths.find(|depth| depth.from_sat <= funding_sat)?;
        Some(depth.blocks.clamp(1, MOST_DEPTH_BLOCKS))
    }

    /// The phone has the channel's parameters, and gives its revocation basepoint secret, or nothing. Another secret is not kept.
    pub fn set_up(&mut self, secret: &[u8]) {
        let is_of_basepoint = |secret: &SecretKey| {
            let point = PublicKey::from_secret_key(&Secp256k1::signing_only(), secret);
            point == self.public_keys.revocation_basepoint.0
        };
        let secret = SecretKey::from_slice(secret).ok().filter(is_of_basepoint);
        // A phone of an earlier version gave it with the keys.
        self.revocation_basepoint_secret = secret.or(self.revocation_basepoint_secret);
        self.set_up = true;
    }

    pub fn encode(&self) -> Vec<u8> {
        let secret = self.revocation_basepoint_secret;
        let stored = StoredChannelKeys {
            public_keys: self.public_keys.encode(),
            points: self.points.stored(),
            revocation_basepoint_secret: secret
                .map(|secret| secret.secret_bytes().to_vec())
                .unwrap_or_default(),
            user_channel_id: self
                .user_channel_id
                .map(|id| id.to_be_bytes().to_vec())
                .unwrap_or_default(),
            set_up: self.set_up,
            funding_depths: self.funding_depths.clone(),
        };
        stored.encode_to_vec()
    }

    /// `None` when the record cannot be read.
    pub fn decode(bytes: &[u8]) -> Option<ChannelKeys> {
        let stored = StoredChannelKeys::decode(bytes).ok()?;
        Some(ChannelKeys {
            public_keys: ChannelPublicKeys::read(&mut &stored.public_keys[..]).ok()?,
            points: Points::read(&stored.points)?,
            revocation_basepoint_secret: read_secret(&stored.revocation_basepoint_secret)?,
            user_channel_id: match stored.user_channel_id.len() {
                0 => None,
                _ => Some(u128::from_be_bytes(stored.user_channel_id.try_into().ok()?)),
            },
            set_up: stored.set_up,
            funding_depths: stored.funding_depths,
        })
    }
}

/// An optional secret: empty bytes are `Some(None)`, unreadable ones `None`.
fn read_secret(bytes: &[u8]) -> Option<Option<SecretKey>> {
    match bytes.len() {
        0 => Some(None),
        _ => SecretKey::from_slice(bytes).ok().map(Some),
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredChannelKeys {
    #[prost(bytes = "vec", tag = "1")]
    public_keys: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    points: Vec<StoredPoint>,
    #[prost(bytes = "vec", tag = "3")]
    revocation_basepoint_secret: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    user_channel_id: Vec<u8>,
    #[prost(bool, tag = "5")]
    set_up: bool,
    #[prost(message, repeated, tag = "6")]
    funding_depths: Vec<FundingDepth>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{new_keys, revocation_secret};
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_stored() {
        let (keys_id, mut keys) = ChannelKeys::from_answer(&new_keys([1; 32], 7)).unwrap();
        assert_eq!(keys_id, [1; 32]);
        keys.user_channel_id = Some(5);
        keys.set_up(&revocation_secret(7));
        let read = ChannelKeys::decode(&keys.encode()).unwrap();
        assert_eq!(read.public_keys, keys.public_keys);
        assert_eq!(read.points, keys.points);
        assert!(read.revocation_basepoint_secret.is_some());
        assert_eq!(
            read.revocation_basepoint_secret,
            keys.revocation_basepoint_secret
        );
        assert_eq!((read.user_channel_id, read.set_up), (Some(5), true));
        let depths = [0, 999, 1_000].map(|sat| read.funding_depth(sat));
        assert_eq!(depths, [Some(2), Some(2), Some(5)]);
    }

    #[test]
    fn keys_that_cannot_be_read_are_refused() {
        let good = new_keys([1; 32], 7);
        let is_refused = |change: fn(&mut NewChannelKeysAnswer)| {
            let mut answer = good.clone();
            change(&mut answer);
            ChannelKeys::from_answer(&answer).is_none()
        };
        assert!(!is_refused(|_| ()));
        assert!(is_refused(|answer| answer.channel_keys_id.truncate(31)));
        assert!(is_refused(|answer| answer.public_keys.truncate(100)));
        assert!(is_refused(|answer| answer.points[5][0] = 9));
    }

    #[test]
    fn a_secret_that_is_not_that_of_the_basepoint_is_not_kept() {
        for secret in [vec![], vec![9; 7], vec![9; 32], vec![0; 32]] {
            let (_, mut keys) = ChannelKeys::from_answer(&new_keys([1; 32], 7)).unwrap();
            keys.set_up(&secret);
            assert_eq!(
                (keys.revocation_basepoint_secret, keys.set_up),
                (None, true)
            );
        }
    }
}
