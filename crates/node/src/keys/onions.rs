//! Shared secrets of the node key with the keys of onions (BOLT 4), each fetched from the phone before LDK reads the onion.
//!
//! LDK would `unwrap` an error when it reads an onion, so the gate requests the secrets as soon as the HTLC comes. The answer
//! is stored until the HTLC is removed from its channel, since LDK reads onions again, also after a restart; in a channel that
//! was closed, until its expiry is well past.

use std::collections::{HashMap, HashSet};

use bitcoin::secp256k1::PublicKey;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{PeelOnion, PeelOnionAnswer, SignerOp};
use prost::Message;

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
    pub onion: &'a PublicKey,
    /// BOLT 4, route blinding.
    pub path_key: Option<&'a PublicKey>,
    pub cltv_expiry: u32,
}

/// The HTLCs of open channels, by the channel's id.
pub(crate) type OpenHtlcs = HashMap<[u8; 32], HashSet<u64>>;

/// See the module.
#[derive(Default)]
pub(super) struct OnionSecrets {
    onions: HashMap<OpKey, StoredOnion>,
    /// Of `onions`, by the other side's key: an onion's own, or a path key (BOLT 4, route blinding).
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
                all.secrets.extend(onion.secrets()?);
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
        let path_key = incoming.path_key;
        let onion = StoredOnion {
            onion_public_key: incoming.onion.serialize().to_vec(),
            path_key: path_key.map_or_else(Vec::new, |key| key.serialize().to_vec()),
            cltv_expiry: incoming.cltv_expiry,
            htlcs: vec![StoredHtlc::from(incoming.htlc)],
            ..StoredOnion::default()
        };
        let op = onion.op();
        let key = key_of(&op);
        if let Some(known) = self.onions.get_mut(&key) {
            // The same onion in another HTLC, or added again after a disconnect.
            if known.add(onion) {
                journal.put(path(&key), known.encode_to_vec());
            }
            return;
        }
        journal.put(path(&key), onion.encode_to_vec());
        self.onions.insert(key, onion);
        desk.want(key, op);
    }

    /// Takes the phone's answer. One that cannot be read is not stored, since the node could not be loaded with it.
    pub fn add(&mut self, journal: &Journal, key: OpKey, answer: &PeelOnionAnswer) {
        let Some(known) = self.onions.get(&key) else {
            return;
        };
        let onion = StoredOnion {
            onion_secret: answer.onion_secret.clone(),
            path_secret: answer.path_secret.clone(),
            ..known.clone()
        };
        let Some(secrets) = onion.secrets() else {
            tracing::error!("the signer gave onion secrets that cannot be read");
            return;
        };
        self.secrets.extend(secrets);
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
        let kept = self.onions.values().filter_map(StoredOnion::secrets);
        self.secrets = kept.flatten().collect();
    }
}

fn path(key: &OpKey) -> String {
    format!("{}{}", schema::key::PEEL, hex(key))
}

/// An onion and its secrets; those are empty until the phone has answered.
#[derive(Clone, PartialEq, Message)]
struct StoredOnion {
    #[prost(bytes = "vec", tag = "1")]
    onion_public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    path_key: Vec<u8>,
    #[prost(uint32, tag = "3")]
    cltv_expiry: u32,
    #[prost(bytes = "vec", tag = "4")]
    onion_secret: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    path_secret: Vec<u8>,
    /// Those that need it. Empty in earlier records.
    #[prost(message, repeated, tag = "6")]
    htlcs: Vec<StoredHtlc>,
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
    /// Adds the HTLCs of the same onion. False when that changes nothing.
    fn add(&mut self, same: StoredOnion) -> bool {
        let is_later = self.cltv_expiry < same.cltv_expiry;
        self.cltv_expiry = self.cltv_expiry.max(same.cltv_expiry);
        let mut new = same.htlcs;
        new.retain(|htlc| !self.htlcs.contains(htlc));
        let has_new = !new.is_empty();
        self.htlcs.append(&mut new);
        is_later || has_new
    }

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
            onion_public_key: self.onion_public_key.clone(),
            path_key: self.path_key.clone(),
        }))
    }

    /// The secret of each key that it has. `None` when one cannot be read.
    fn secrets(&self) -> Option<Vec<(PublicKey, [u8; 32])>> {
        let pairs = [
            (&self.onion_public_key, &self.onion_secret),
            (&self.path_key, &self.path_secret),
        ];
        let present = pairs.into_iter().filter(|(key, _)| !key.is_empty());
        let read = |(key, secret): (&Vec<u8>, &Vec<u8>)| {
            let secret = <[u8; 32]>::try_from(&secret[..]).ok()?;
            Some((PublicKey::from_slice(key).ok()?, secret))
        };
        present.map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{key, reloaded};
    use super::*;

    const CHANNEL: [u8; 32] = [9; 32];

    /// In an HTLC whose number is its expiry.
    fn in_htlc<'a>(
        onion: &'a PublicKey,
        path_key: Option<&'a PublicKey>,
        cltv_expiry: u32,
    ) -> IncomingOnion<'a> {
        IncomingOnion {
            htlc: (CHANNEL, cltv_expiry.into()),
            onion,
            path_key,
            cltv_expiry,
        }
    }

    fn open(htlcs: &[u64]) -> OpenHtlcs {
        HashMap::from([(CHANNEL, htlcs.iter().copied().collect())])
    }

    fn answer(onion_secret: &[u8], path_secret: &[u8]) -> PeelOnionAnswer {
        PeelOnionAnswer {
            onion_secret: onion_secret.to_vec(),
            path_secret: path_secret.to_vec(),
        }
    }

    /// Answers the newest request.
    fn answer_newest(
        onions: &mut OnionSecrets,
        journal: &Journal,
        desk: &mut Desk,
        answer: &PeelOnionAnswer,
    ) {
        let key = key_of(desk.wanted_ops().last().unwrap());
        desk.withdraw(&key);
        onions.add(journal, key, answer);
    }

    #[test]
    fn secrets_are_there_after_the_answer_and_after_a_restart() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), Some(&key(3)), 100));
        assert_eq!(onions.secret(&key(2)), None);
        let answer = answer(&[7; 32], &[8; 32]);
        answer_newest(&mut onions, &journal, &mut desk, &answer);

        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        for onions in [onions, after] {
            assert_eq!(onions.secret(&key(2)), Some([7; 32]));
            assert_eq!(onions.secret(&key(3)), Some([8; 32]));
        }
        assert!(!desk.peels_pending());
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_stored_and_requested_again_after_a_restart() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 100));
        let answer = answer(&[7; 7], &[]);
        answer_newest(&mut onions, &journal, &mut desk, &answer);
        assert_eq!(onions.secret(&key(2)), None);

        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        assert!(desk.peels_pending());
        assert_eq!(after.secret(&key(2)), None);
    }

    #[test]
    fn an_onion_is_kept_for_as_long_as_its_last_htlc_needs_it() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 100));
        answer_newest(&mut onions, &journal, &mut desk, &answer(&[7; 32], &[]));
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 3_000));
        assert!(!desk.peels_pending(), "it is known");

        onions.prune(&journal, &mut desk, 2_000);
        assert_eq!(onions.secret(&key(2)), Some([7; 32]));
        onions.prune(&journal, &mut desk, 5_000);
        assert_eq!(onions.secret(&key(2)), None);
        let after = OnionSecrets::load(&reloaded(&journal), &mut desk).unwrap();
        assert!(after.onions.is_empty());
    }

    #[test]
    fn the_secret_of_a_path_key_goes_with_the_last_onion_that_has_it() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        for (onion, expiry) in [(2, 100), (4, 2_000)] {
            onions.request(
                &journal,
                &mut desk,
                &in_htlc(&key(onion), Some(&key(3)), expiry),
            );
            let answer = answer(&[onion; 32], &[8; 32]);
            answer_newest(&mut onions, &journal, &mut desk, &answer);
        }
        onions.prune(&journal, &mut desk, 2_000);
        assert_eq!(onions.secret(&key(2)), None);
        assert_eq!(onions.secret(&key(3)), Some([8; 32]));
        onions.prune(&journal, &mut desk, 4_000);
        assert_eq!(onions.secret(&key(3)), None);
        assert!(onions.secrets.is_empty());
    }

    #[test]
    fn an_onion_that_is_over_before_its_answer_is_no_longer_requested() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 100));
        assert!(desk.peels_pending());
        onions.prune(&journal, &mut desk, 2_000);
        assert!(!desk.peels_pending());
    }

    #[test]
    fn an_onion_goes_with_the_last_htlc_that_its_channel_has() {
        let (journal, mut desk) = (Journal::default(), Desk::default());
        let mut onions = OnionSecrets::default();
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 1));
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 2));
        answer_newest(&mut onions, &journal, &mut desk, &answer(&[7; 32], &[]));

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
                onions.request(&journal, &mut desk, &in_htlc(&onion, None, n.into()));
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
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 1));
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
        onions.request(&journal, &mut desk, &in_htlc(&key(2), None, 100));
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
