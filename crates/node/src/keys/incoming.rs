//! The incoming HTLCs in the newest commitments of each channel.
//!
//! LDK lists an HTLC that was settled or failed until the peer's `revoke_and_ack`. Our own commitment goes on having it until
//! the peer's next `commitment_signed` (BOLT 2), which the peer may hold back: a forced close is then with that HTLC, and the
//! peer takes it back once it has expired.

use std::collections::{HashMap, HashSet};

use lightning::ln::chan_utils::{CommitmentTransaction, HolderCommitmentTransaction};
use lightning::types::payment::PaymentHash;
use prost::Message;

use super::channel_keys::KeysId;
use crate::hex::{hex, unhex};
use crate::store::journal::Journal;
use crate::store::schema;

/// An incoming HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IncomingHtlc {
    pub payment_hash: PaymentHash,
    /// A height.
    pub cltv_expiry: u32,
}

/// By a channel's keys. Without dust, which no commitment has as an output.
#[derive(Default)]
pub(crate) struct IncomingHtlcs {
    /// In our own newest commitment.
    holder: HashMap<KeysId, Vec<IncomingHtlc>>,
    /// In the newest commitment of the peer that the phone has signed since the start.
    counterparty: HashMap<KeysId, HashSet<PaymentHash>>,
}

impl IncomingHtlcs {
    /// `None` when a record cannot be read.
    pub fn load(journal: &Journal) -> Option<IncomingHtlcs> {
        let read = |(name, bytes): (String, Vec<u8>)| {
            let stored = Stored::decode(&bytes[..]).ok()?;
            let htlcs = stored.htlcs.iter().map(StoredHtlc::read);
            Some((unhex(&name)?, htlcs.collect::<Option<_>>()?))
        };
        let all = journal.loaded(schema::key::INCOMING).into_iter().map(read);
        Some(IncomingHtlcs {
            holder: all.collect::<Option<_>>()?,
            counterparty: HashMap::new(),
        })
    }

    /// The peer has signed this commitment of ours.
    pub fn holder_signed(
        &mut self,
        journal: &Journal,
        keys_id: KeysId,
        commitment: &HolderCommitmentTransaction,
    ) {
        let htlcs = commitment.nondust_htlcs().iter();
        let htlcs = htlcs.filter(|htlc| !htlc.offered).map(|htlc| IncomingHtlc {
            payment_hash: htlc.payment_hash,
            cltv_expiry: htlc.cltv_expiry,
        });
        self.set(journal, keys_id, htlcs.collect());
    }

    /// The phone has signed this commitment of the peer.
    pub fn counterparty_signed(&mut self, keys_id: KeysId, commitment: &CommitmentTransaction) {
        let htlcs = commitment.nondust_htlcs().iter();
        // HTLCs that the peer offers are incoming here.
        let incoming = htlcs.filter(|htlc| htlc.offered);
        let hashes = incoming.map(|htlc| htlc.payment_hash).collect();
        self.counterparty.insert(keys_id, hashes);
    }

    /// Whether the newest commitment of the peer that is signed has an HTLC of this payment.
    pub fn is_in_counterparty(&self, keys_id: &KeysId, hash: &PaymentHash) -> bool {
        let signed = self.counterparty.get(keys_id);
        signed.is_some_and(|hashes| hashes.contains(hash))
    }

    fn set(&mut self, journal: &Journal, keys_id: KeysId, htlcs: Vec<IncomingHtlc>) {
        if htlcs == self.of(&keys_id) {
            return;
        }
        let key = format!("{}{}", schema::key::INCOMING, hex(&keys_id));
        if htlcs.is_empty() {
            journal.delete(key);
            self.holder.remove(&keys_id);
            return;
        }
        let stored = Stored {
            htlcs: htlcs.iter().map(StoredHtlc::of).collect(),
        };
        journal.put(key, stored.encode_to_vec());
        self.holder.insert(keys_id, htlcs);
    }

    /// Those in our own newest commitment of a channel.
    pub fn of(&self, keys_id: &KeysId) -> &[IncomingHtlc] {
        self.holder.get(keys_id).map_or(&[], Vec::as_slice)
    }
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    htlcs: Vec<StoredHtlc>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHtlc {
    #[prost(bytes = "vec", tag = "1")]
    payment_hash: Vec<u8>,
    #[prost(uint32, tag = "2")]
    cltv_expiry: u32,
}

impl StoredHtlc {
    fn of(htlc: &IncomingHtlc) -> StoredHtlc {
        StoredHtlc {
            payment_hash: htlc.payment_hash.0.to_vec(),
            cltv_expiry: htlc.cltv_expiry,
        }
    }

    fn read(&self) -> Option<IncomingHtlc> {
        let payment_hash = <[u8; 32]>::try_from(&self.payment_hash[..]).ok()?;
        Some(IncomingHtlc {
            payment_hash: PaymentHash(payment_hash),
            cltv_expiry: self.cltv_expiry,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_store::Write;

    use super::*;

    const KEYS: KeysId = [1; 32];

    fn htlc() -> IncomingHtlc {
        IncomingHtlc {
            payment_hash: PaymentHash([7; 32]),
            cltv_expiry: 144,
        }
    }

    #[test]
    fn they_are_stored_until_they_are_gone() {
        let journal = Journal::default();
        let mut before = IncomingHtlcs::default();
        before.set(&journal, KEYS, vec![htlc()]);
        before.set(&journal, KEYS, vec![htlc()]);
        let writes = journal.take();
        let [Write::Put(key, value)] = &writes[..] else {
            panic!("written more than once")
        };

        let stored = Journal::loading(vec![(key.clone(), value.clone())]);
        let mut after = IncomingHtlcs::load(&stored).unwrap();
        assert_eq!(after.of(&KEYS), [htlc()]);

        after.set(&stored, KEYS, Vec::new());
        assert_eq!(after.of(&KEYS), []);
        assert!(matches!(&stored.take()[..], [Write::Delete(gone)] if gone == key));
    }
}
