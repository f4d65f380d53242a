//! The keys of one channel as far as a host has them, and their record in the store.

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::ChannelPublicKeys;
use lightning::util::ser::{Readable, Writeable};
use longhand_proto::signer::NewChannelKeysAnswer;
use prost::Message;

use super::points::{FIRST_INDEX, POINTS_AT_ONCE, Points, StoredPoint};

/// LDK's `channel_keys_id`.
pub(crate) type KeysId = [u8; 32];

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
}

impl ChannelKeys {
    /// New keys from the phone, of no channel yet. `None` when they cannot be read, or the revocation secret is not that of
    /// its basepoint.
    pub fn from_answer(answer: &NewChannelKeysAnswer) -> Option<(KeysId, ChannelKeys)> {
        let keys_id = KeysId::try_from(&answer.channel_keys_id[..]).ok()?;
        let public_keys = ChannelPublicKeys::read(&mut &answer.public_keys[..]).ok()?;
        let revocation_basepoint_secret = read_secret(&answer.revocation_basepoint_secret)?;
        if let Some(secret) = &revocation_basepoint_secret {
            let point = PublicKey::from_secret_key(&Secp256k1::signing_only(), secret);
            if point != public_keys.revocation_basepoint.0 {
                return None;
            }
        }
        let points = answer.points.iter().take(POINTS_AT_ONCE as usize);
        let points = points.map(|point| PublicKey::from_slice(point).ok());
        let mut window = Points::default();
        window.add(FIRST_INDEX, points.collect::<Option<Vec<_>>>()?);
        let keys = ChannelKeys {
            public_keys,
            points: window,
            revocation_basepoint_secret,
            user_channel_id: None,
            set_up: false,
        };
        Some((keys_id, keys))
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::new_keys;
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_stored() {
        let (keys_id, mut keys) = ChannelKeys::from_answer(&new_keys([1; 32], 7)).unwrap();
        assert_eq!(keys_id, [1; 32]);
        keys.user_channel_id = Some(5);
        let read = ChannelKeys::decode(&keys.encode()).unwrap();
        assert_eq!(read.public_keys, keys.public_keys);
        assert_eq!(read.points, keys.points);
        assert!(read.revocation_basepoint_secret.is_some());
        assert_eq!(
            read.revocation_basepoint_secret,
            keys.revocation_basepoint_secret
        );
        assert_eq!((read.user_channel_id, read.set_up), (Some(5), false));
    }

    #[test]
    fn keys_that_cannot_be_read_and_a_secret_of_other_keys_are_refused() {
        let good = new_keys([1; 32], 7);
        let is_refused = |change: fn(&mut NewChannelKeysAnswer)| {
            let mut answer = good.clone();
            change(&mut answer);
            ChannelKeys::from_answer(&answer).is_none()
        };
        assert!(!is_refused(|answer| answer
            .revocation_basepoint_secret
            .clear()));
        assert!(is_refused(|answer| answer.channel_keys_id.truncate(31)));
        assert!(is_refused(|answer| answer.public_keys.truncate(100)));
        assert!(is_refused(|answer| answer.points[5][0] = 9));
        assert!(is_refused(
            |answer| answer.revocation_basepoint_secret = vec![9; 32]
        ));
        assert!(is_refused(
            |answer| answer.revocation_basepoint_secret = vec![9; 7]
        ));
    }
}
