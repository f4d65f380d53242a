//! Shared secrets of the node key with the keys of onions (BOLT 4), each fetched from the phone before LDK reads the onion. The phone
//! reads the onion first: it refuses the secrets of one that is not for this node.
//!
//! LDK would `unwrap` an error when it reads an onion, so the gate requests the secrets as soon as the HTLC comes. The answer
//! is stored until the HTLC is removed from its channel, since LDK reads onions again, also after a restart; in a channel that
//! was closed, until its expiry is well past.

use std::collections::{HashMap, HashSet};

use bitcoin::secp256k1::PublicKey;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{PeelOnion, SignerOp};
use prost::Message;

use super::channel_keys::KeysId;
use super::desk::{Desk, OpKey, key_of, node_op};
use crate::hex::{hex, unhex};
use crate::store::journal::Journal;
use crate::store::schema;

/// Blocks after its HTLC's expiry for which an onion is kept.
const KEPT_BLOCKS: u32 = 1008;

/// An incoming HTLC: its channel's id, and its number in it (BOLT 2, `update_add_htlc`).
pub(crate) type HtlcRef = ([u8; 32], u64);

/// The onion of an HTLC that a peer has added.
pub(crate) struct IncomingOnion<'a> {
    pub htlc: HtlcRef,
    /// Those of the channel.
    pub keys_id: KeysId,
    pub onion: &'a PublicKey,
    pub cltv_expiry: u32,
    /// The peer's message, in BOLT 2 encoding after its type.
    pub update_add_htlc: Vec<u8>,
}

/// The HTLCs of open channels, by the channel's id.
pub(crate) type OpenHtlcs = HashMap<[u8; 32], HashSet<u64>>;

/// See the module.
#[derive(Default)]
pub(super) struct OnionSecrets {
    onions: HashMap<OpKey, StoredOnion>,
    /// Of `onions`, by the onion's key.
    secrets: HashMap<PublicKey, [u8; 32]>,
    /// HTLCs that were in their channels: LDK lists one only once the peer has committed to it.
    seen: HashSet<HtlcRef>,
}

impl OnionSecrets {
    /// Reads the stored onions, and requests those that have no answer. `None` when a record cannot be read.
    pub fn load(journal: &Journal, desk: &mut Desk) -> Option<OnionSecrets> {
        let mut all = OnionSecrets::default();
        for (name, bytes) in journal.loaded(schema::key::PEEL) {
            let key = unhex(&name)?;
            let onion = StoredOnion::decode(&bytes[..]).ok()?;
            if onion.is_answered() {
                all.secrets.extend([onion.keyed_secret()?]);
            } else {
                desk.want(key, onion.op());
            }
            all.onions.insert(key, onion);
        }
        Some(all)
    }

    pub fn secret(&self, other: &PublicKey) -> Option<[u8; 32]> {
        self.secrets.get(other).copied()
    }

    /// Requests the secrets that LDK needs to read an onion, and keeps them for its HTLC.
    pub fn request(&mut self, journal: &Journal, desk: &mut Desk, incoming: &IncomingOnion<'_>) {
        let onion = StoredOnion {
            onion_public_key: incoming.onion.serialize().to_vec(),
            cltv_expiry: incoming.cltv_expiry,
            htlcs: vec![StoredHtlc::from(incoming.htlc)],
            keys_id: incoming.keys_id.to_vec(),
            update_add_htlc: incoming.update_add_htlc.clone(),
            ..StoredOnion::default()
        };
        let op = onion.op();
        let key = key_of(&op);
        // The same HTLC may be added again after a disconnect.
        if self.onions.contains_key(&key) {
            return;
        }
        journal.put(path(&key), onion.encode_to_vec());
        self.onions.insert(key, onion);
        desk.want(key, op);
    }

    /// Takes the phone's answer. One that cannot be read is not stored, since the node could not be loaded with it.
    pub fn add(&mut self, journal: &Journal, key: OpKey, secret: &[u8]) {
        let Some(known) = self.onions.get(&key) else {
            return;
        };
        let onion = StoredOnion {
            onion_secret: secret.to_vec(),
            // It is not asked again.
            update_add_htlc: Vec::new(),
            ..known.clone()
        };
        let Some(secret) = onion.keyed_secret() else {
            tracing::error!("the signer gave the secret of an onion that cannot be read");
            return;
        };
        self.secrets.extend([secret]);
        journal.put(path(&key), onion.encode_to_vec());
        self.onions.insert(key, onion);
    }

    /// Removes onions whose HTLCs have expired long before `height`: those of closed channels, and of earlier records.
    pub fn prune(&mut self, journal: &Journal, desk: &mut Desk, height: u32) {
        let is_old = |onion: &StoredOnion| onion.cltv_expiry.saturating_add(KEPT_BLOCKS) < height;
        let old = self.onions.iter().filter(|(_, onion)| is_old(onion));
        let old = old.map(|(key, _)| *key).collect();
        self.remove(journal, desk, old);
    }

    /// Removes onions of which no HTLC is left in its channel: `open` has the HTLCs of the channels that are looked at. One that
    /// a peer has added and not committed to is in none of them, and may still be; after a disconnect it is gone (BOLT 2).
    pub fn retain_open(
        &mut self,
        journal: &Journal,
        desk: &mut Desk,
        open: &OpenHtlcs,
        is_disconnected: bool,
    ) {
        for (channel_id, htlcs) in open {
            self.seen
                .extend(htlcs.iter().map(|htlc| (*channel_id, *htlc)));
        }
        let seen = &mut self.seen;
        let mut is_over = |htlc: HtlcRef| {
            let in_channel = open.get(&htlc.0);
            let is_gone = in_channel.is_some_and(|htlcs| !htlcs.contains(&htlc.1));
            is_gone && (is_disconnected | seen.remove(&htlc))
        };
        let mut unused = Vec::new();
        for (key, onion) in &mut self.onions {
            match onion.retain(|htlc| !is_over(htlc)) {
                Retained::All => {}
                Retained::Some => journal.put(path(key), onion.encode_to_vec()),
                Retained::None => unused.push(*key),
            }
        }
        self.remove(journal, desk, unused);
    }

    fn remove(&mut self, journal: &Journal, desk: &mut Desk, old: Vec<OpKey>) {
        if old.is_empty() {
            return;
        }
        for key in old {
            self.onions.remove(&key);
            desk.withdraw(&key);
            journal.delete(path(&key));
        }
        // Onions may share a key, so a secret is removed only with the last onion that has it.
        let kept = self.onions.values();
        self.secrets = kept.filter_map(StoredOnion::keyed_secret).collect();
    }
}

fn path(key: &OpKey) -> String {
    format!("{}{}", schema::key::PEEL, hex(key))
}

/// An onion and its secret, which is empty until the phone has answered. Earlier records have path keys in tags 2 and 5.
#[derive(Clone, PartialEq, Message)]
struct StoredOnion {
    #[prost(bytes = "vec", tag = "1")]
    onion_public_key: Vec<u8>,
    #[prost(uint32, tag = "3")]
    cltv_expiry: u32,
    #[prost(bytes = "vec", tag = "4")]
    onion_secret: Vec<u8>,
    /// Those that need it: one, in earlier records none or several.
    #[prost(message, repeated, tag = "6")]
    htlcs: Vec<StoredHtlc>,
    /// Of the HTLC's channel.
    #[prost(bytes = "vec", tag = "7")]
    keys_id: Vec<u8>,
    /// The peer's message, until the phone has answered.
    #[prost(bytes = "vec", tag = "8")]
    update_add_htlc: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHtlc {
    #[prost(bytes = "vec", tag = "1")]
    channel_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    htlc_id: u64,
}

impl From<HtlcRef> for StoredHtlc {
    fn from((channel_id, htlc_id): HtlcRef) -> StoredHtlc {
        StoredHtlc {
            channel_id: channel_id.to_vec(),
            htlc_id,
        }
    }
}

/// The HTLCs that still need an onion.
enum Retained {
    All,
    Some,
    None,
}

impl StoredOnion {
    /// Keeps the HTLCs for which this is true, and those whose record cannot be read.
    fn retain(&mut self, mut is_kept: impl FnMut(HtlcRef) -> bool) -> Retained {
        let before = self.htlcs.len();
        self.htlcs.retain(|htlc| {
            let channel_id: Option<[u8; 32]> = htlc.channel_id[..].try_into().ok();
            channel_id.is_none_or(|channel_id| is_kept((channel_id, htlc.htlc_id)))
        });
        match self.htlcs.len() {
            after if after == before => Retained::All,
            0 => Retained::None,
            _ => Retained::Some,
        }
    }

    fn is_answered(&self) -> bool {
        !self.onion_secret.is_empty()
    }

    fn op(&self) -> SignerOp {
        node_op(Op::PeelOnion(PeelOnion {
            channel_keys_id: self.keys_id.clone(),
            update_add_htlc: self.update_add_htlc.clone(),
        }))
    }

    /// The secret, by the onion's key. `None` when there is none, or one cannot be read.
    fn keyed_secret(&self) -> Option<(PublicKey, [u8; 32])> {
        let secret = <[u8; 32]>::try_from(&self.onion_secret[..]).ok()?;
        let key = PublicKey::from_slice(&self.onion_public_key).ok()?;
        Some((key, secret))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{key, reloaded};
    use super::*;

    const CHANNEL: [u8; 32] = [9; 32];

    /// In an HTLC whose number is its expiry.
    fn in_htlc(onion: &PublicKey, cltv_expiry: u32) -> IncomingOnion<'_> {
        IncomingOnion {
            htlc: (CHANNEL, cltv_expiry.into()),
            keys_id: [4; 32],
            onion,
            cltv_expiry,
            update_add_htlc: cltv_expiry.to_be_bytes().to_vec(),
        }
    }

    fn open(htlcs: &[u64]) -> OpenHtlcs {
        HashMap::from([(CHANNEL, htlcs.iter().copied().collect())])
    }

    /// Answers the newest request.
    fn answer_newest(onions: &mut OnionSecrets, journal: &Journal, desk: &mut Desk, secret: &[u8]) {
        let key = key_of(desk.wanted_ops().last().unwrap());
        desk.withdraw(&key);
        onions.add(journal, key, secret);
    }

    #[test]
    fn secrets_are_there_after_the_answer_and_after_a_restart() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), 100));
        assert_eq!(onions.secret(&key(2)), None);
        answer_newest(&mut onions, &journal, &mut desk, &[7; 32]);

        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        for onions in [onions, after] {
            assert_eq!(onions.secret(&key(2)), Some([7; 32]));
        }
        assert!(!desk.peels_pending());
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_stored_and_requested_again_after_a_restart() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), 100));
        answer_newest(&mut onions, &journal, &mut desk, &[7; 7]);
        assert_eq!(onions.secret(&key(2)), None);

        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        assert!(desk.peels_pending());
        assert_eq!(after.secret(&key(2)), None);
    }

    #[test]
    fn an_onion_is_kept_for_as_long_as_its_last_htlc_needs_it() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        for expiry in [100, 3_000] {
            onions.request(&journal, &mut desk, &in_htlc(&key(2), expiry));
            answer_newest(&mut onions, &journal, &mut desk, &[7; 32]);
            onions.request(&journal, &mut desk, &in_htlc(&key(2), expiry));
            assert!(!desk.peels_pending(), "it is known");
        }

        onions.prune(&journal, &mut desk, 2_000);
        assert_eq!(onions.secret(&key(2)), Some([7; 32]));
        onions.prune(&journal, &mut desk, 5_000);
        assert_eq!(onions.secret(&key(2)), None);
        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        assert!(after.onions.is_empty());
    }

    #[test]
    fn an_onion_that_is_over_before_its_answer_is_no_longer_requested() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), 100));
        assert!(desk.peels_pending());
        onions.prune(&journal, &mut desk, 2_000);
        assert!(!desk.peels_pending());
    }

    #[test]
    fn an_onion_goes_with_the_last_htlc_that_its_channel_has() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        for expiry in [1, 2] {
            onions.request(&journal, &mut desk, &in_htlc(&key(2), expiry));
            answer_newest(&mut onions, &journal, &mut desk, &[7; 32]);
        }

        let elsewhere = HashMap::from([([8; 32], HashSet::new())]);
        onions.retain_open(&journal, &mut desk, &elsewhere, true);
        onions.retain_open(&journal, &mut desk, &open(&[2]), true);
        let mut after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        assert_eq!(after.secret(&key(2)), Some([7; 32]));
        for onions in [&mut onions, &mut after] {
            onions.retain_open(&journal, &mut desk, &open(&[]), true);
            assert_eq!(onions.secret(&key(2)), None);
        }
        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        assert!(after.onions.is_empty());
    }

    #[test]
    fn onions_that_are_added_and_never_committed_are_neither_kept_nor_requested() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        for round in 0..3 {
            for n in 0..50 {
                let onion = key(2 + round * 50 + n);
                onions.request(&journal, &mut desk, &in_htlc(&onion, n.into()));
            }
            onions.retain_open(&journal, &mut desk, &open(&[]), true);
        }
        assert!(onions.onions.is_empty() && !desk.peels_pending());
        let stored = reloaded(&journal).loaded(schema::key::PEEL);
        assert!(stored.is_empty(), "{} records", stored.len());
    }

    #[test]
    fn an_onion_that_the_peer_has_not_committed_to_yet_is_kept_while_it_is_connected() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), 1));
        onions.retain_open(&journal, &mut desk, &open(&[]), false);
        assert!(desk.peels_pending(), "a block changes nothing");
        onions.retain_open(&journal, &mut desk, &open(&[1]), false);
        onions.retain_open(&journal, &mut desk, &open(&[]), false);
        assert!(onions.onions.is_empty(), "it was committed, and is over");
    }

    #[test]
    fn an_onion_of_an_earlier_record_is_kept_until_it_has_expired() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), 100));
        onions
            .onions
            .values_mut()
            .for_each(|onion| onion.htlcs.clear());
        onions.retain_open(&journal, &mut desk, &open(&[]), true);
        assert_eq!(onions.onions.len(), 1);
        onions.prune(&journal, &mut desk, 2_000);
        assert!(onions.onions.is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error() {
        for (name, record) in [
            ("peel/00".to_owned(), Vec::new()),
            (path(&[1; 32]), vec![0xff]),
        ] {
            let journal = Journal::loading(vec![(name, record)]);
            assert!(OnionSecrets::load(&journal, &mut Desk::default()).is_none());
        }
    }
}
