//! What a node keeps of its channels' keys, and how it is stored.

use std::collections::BTreeMap;

use bitcoin::secp256k1::constants::PUBLIC_KEY_SIZE;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::chan_utils::ChannelPublicKeys;
use lightning::util::ser::{Readable, Writeable};
use prost::Message;

/// LDK counts commitments down from here (BOLT 3).
pub(crate) const FIRST_INDEX: u64 = (1 << 48) - 1;

/// Per-commitment points asked for at once; one is used up by each commitment.
pub(crate) const POINTS_AT_ONCE: u32 = 16;

/// More points are fetched, along with whatever else is asked, when fewer than this are left.
const POINTS_LEFT_LOW: u64 = 6;

/// Used points kept, for a peer that reestablishes one state behind.
const POINTS_KEPT_BEHIND: u64 = 3;

type SerializedPoint = [u8; PUBLIC_KEY_SIZE];

/// The public side of one channel's keys, and what the owner delegated.
pub(crate) struct ChannelKeys {
    pub public_keys: ChannelPublicKeys,
    /// By index, a window around the one in use. As they are stored: a node holds a hundred of them,
    /// needs few, and each that is read costs a square root.
    points: BTreeMap<u64, SerializedPoint>,
    /// Lets the host punish a breach; cannot spend the owner's balance.
    pub revocation_basepoint_secret: Option<SecretKey>,
    /// The channel these keys were given to; `None` while they are in the pool.
    pub user_channel_id: Option<u128>,
    /// The phone knows the channel's parameters.
    pub set_up: bool,
}

impl ChannelKeys {
    /// Fresh keys from the phone: they are of no channel yet.
    pub fn new(
        public_keys: ChannelPublicKeys,
        points: impl IntoIterator<Item = (u64, PublicKey)>,
        revocation_basepoint_secret: Option<SecretKey>,
    ) -> ChannelKeys {
        ChannelKeys {
            public_keys,
            points: serialized(points).collect(),
            revocation_basepoint_secret,
            user_channel_id: None,
            set_up: false,
        }
    }

    /// A per-commitment point of the window. None also for one that cannot be read: it is asked for again.
    pub fn point(&self, index: u64) -> Option<PublicKey> {
        PublicKey::from_slice(self.points.get(&index)?).ok()
    }

    /// The first index to ask for when the window runs low below `index`.
    pub fn points_to_fetch(&self, index: u64) -> Option<u64> {
        let lowest = self
            .points
            .keys()
            .next()
            .copied()
            .unwrap_or(index.saturating_add(1));
        (index.saturating_sub(lowest) < POINTS_LEFT_LOW && lowest > 0).then(|| lowest - 1)
    }

    /// Adds points and forgets those that no peer can ask for any more.
    pub fn add_points(&mut self, points: impl IntoIterator<Item = (u64, PublicKey)>) {
        self.points.extend(serialized(points));
    }

    /// The point `index` was released: forgets those well behind it.
    pub fn passed(&mut self, index: u64) {
        self.points
            .retain(|at, _| *at <= index.saturating_add(POINTS_KEPT_BEHIND));
    }

    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredChannelKeys {
            public_keys: self.public_keys.encode(),
            points: self
                .points
                .iter()
                .map(|(index, point)| StoredPoint {
                    index: *index,
                    point: point.to_vec(),
                })
                .collect(),
            revocation_basepoint_secret: self
                .revocation_basepoint_secret
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

    pub fn decode(bytes: &[u8]) -> Option<ChannelKeys> {
        let stored = StoredChannelKeys::decode(bytes).ok()?;
        // Collected at once, a map takes half the room that it takes when filled one by one.
        let points = stored.points.iter().map(|stored| {
            let point = SerializedPoint::try_from(&stored.point[..]).ok()?;
            Some((stored.index, point))
        });
        let points: BTreeMap<_, _> = points.collect::<Option<Vec<_>>>()?.into_iter().collect();
        Some(ChannelKeys {
            public_keys: ChannelPublicKeys::read(&mut &stored.public_keys[..]).ok()?,
            points,
            revocation_basepoint_secret: secret(&stored.revocation_basepoint_secret)?,
            user_channel_id: match stored.user_channel_id.len() {
                0 => None,
                _ => Some(u128::from_be_bytes(stored.user_channel_id.try_into().ok()?)),
            },
            set_up: stored.set_up,
        })
    }
}

fn serialized(
    points: impl IntoIterator<Item = (u64, PublicKey)>,
) -> impl Iterator<Item = (u64, SerializedPoint)> {
    points
        .into_iter()
        .map(|(index, point)| (index, point.serialize()))
}

/// An optional secret: empty bytes are none, anything unreadable is an error.
pub(crate) fn secret(bytes: &[u8]) -> Option<Option<SecretKey>> {
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

#[derive(Clone, PartialEq, Message)]
struct StoredPoint {
    #[prost(fixed64, tag = "1")]
    index: u64,
    #[prost(bytes = "vec", tag = "2")]
    point: Vec<u8>,
}

/// What the phone answered about one onion, or that it has not yet (all but the operation empty). Kept
/// until the HTLC's expiry is well past: LDK reads onions again, also after a restart.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredPeel {
    #[prost(bytes = "vec", tag = "1")]
    pub onion_public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub path_key: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub cltv_expiry: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub onion_secret: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub path_secret: Vec<u8>,
}
