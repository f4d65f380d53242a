//! Records of the ledger: one versioned protobuf message each, with all changes of one call.

use std::fmt;

use prost::Message;
use zeroize::Zeroizing;

use super::State;

/// The format that this version writes and reads.
const FORMAT: u32 = 1;

/// One record of the ledger, encoded. It has secrets (preimages): encrypt it at rest; it is zeroized on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    sequence: u64,
    bytes: Zeroizing<Vec<u8>>,
}

impl LedgerRecord {
    /// The record's number. Records count up from 1 without gaps; a snapshot has the number of the last record that it replaces.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn new(sequence: u64, snapshot: bool, entries: Vec<Entry>) -> LedgerRecord {
        let body = Body {
            format: FORMAT,
            sequence,
            snapshot,
            entries,
        };
        LedgerRecord {
            sequence,
            bytes: Zeroizing::new(body.encode_to_vec()),
        }
    }
}

impl fmt::Debug for LedgerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LedgerRecord({}, {} bytes)",
            self.sequence,
            self.bytes.len()
        )
    }
}

/// The reason for which a ledger cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The bytes are no record.
    #[error(
        "ledger record {0} cannot be read ({1}): restore the ledger from its backup, do not go on without it"
    )]
    Corrupt(u64, String),
    /// A record is missing.
    #[error(
        "ledger record {expected} is missing, {found} comes instead: restore the whole ledger from its backup"
    )]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number of the record.
        found: u64,
    },
    /// The record is of a later version.
    #[error("the ledger was written by a newer version (format {0}): update this program")]
    Newer(u32),
    /// The ledger is of another seed, or another network.
    #[error(
        "the ledger belongs to another seed or network: use the one that was written with this seed"
    )]
    Foreign,
}

/// Applies the records of a ledger, in order, to an empty state.
pub(crate) fn replay<R: AsRef<[u8]>>(
    state: &mut State,
    records: impl IntoIterator<Item = R>,
) -> Result<(), LedgerError> {
    for bytes in records {
        let next = state.version().saturating_add(1);
        let body = Body::decode(bytes.as_ref())
            .map_err(|error| LedgerError::Corrupt(next, error.to_string()))?;
        if body.format > FORMAT {
            return Err(LedgerError::Newer(body.format));
        }
        if body.snapshot {
            if state.version() > body.sequence {
                return Err(LedgerError::Gap {
                    expected: next,
                    found: body.sequence,
                });
            }
            state.clear();
        } else if body.sequence != next {
            return Err(LedgerError::Gap {
                expected: next,
                found: body.sequence,
            });
        }
        let owned = matches!(
            body.entries.first(),
            Some(Entry {
                change: Some(entry::Change::Begun(_))
            })
        );
        if (body.snapshot || next == 1) && !owned {
            let why = "it does not say whose it is".into();
            return Err(LedgerError::Corrupt(body.sequence, why));
        }
        for entry in body.entries {
            let change = entry
                .change
                .ok_or_else(|| LedgerError::Corrupt(body.sequence, "an unknown entry".into()))?;
            state.apply(change).map_err(|why| match why {
                super::state::Bad::Foreign => LedgerError::Foreign,
                super::state::Bad::Unreadable(what) => {
                    LedgerError::Corrupt(body.sequence, what.into())
                }
            })?;
        }
        state.set_version(body.sequence);
    }
    Ok(())
}

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(bool, tag = "3")]
    snapshot: bool,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<Entry>,
}

/// One change of the state.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(
        oneof = "entry::Change",
        tags = "1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 30, 31, 32, 33, 34, 40, 41, 42, 43, 50"
    )]
    pub change: Option<entry::Change>,
}

impl From<entry::Change> for Entry {
    fn from(change: entry::Change) -> Entry {
        Entry {
            change: Some(change),
        }
    }
}

/// The kinds of changes. A tag is never used again for another kind.
pub(crate) mod entry {
    use prost::{Message, Oneof};
    use zeroize::Zeroize;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Change {
        #[prost(message, tag = "1")]
        Begun(Begun),

        #[prost(message, tag = "10")]
        ChannelSetUp(ChannelSetUp),
        #[prost(message, tag = "11")]
        HolderValidated(HolderValidated),
        #[prost(message, tag = "12")]
        SecretReleased(ChannelIndex),
        #[prost(message, tag = "13")]
        HolderSigned(ChannelIndex),
        #[prost(message, tag = "14")]
        PeerCommitmentSigned(PeerCommitmentSigned),
        #[prost(message, tag = "15")]
        PeerRevoked(PeerRevoked),
        /// In snapshots, in place of every `PeerRevoked`.
        #[prost(message, tag = "16")]
        PeerSecrets(PeerSecrets),

        #[prost(message, tag = "17")]
        HiddenSums(HiddenSums),
        #[prost(message, tag = "18")]
        HtlcOwed(HtlcOwed),

        /// A cooperative close was signed: nothing else follows in the channel.
        #[prost(message, tag = "19")]
        ClosingSigned(ClosingSigned),
        #[prost(message, tag = "20")]
        JusticeSigned(JusticeSigned),

        /// The funding transaction is in a block.
        #[prost(message, tag = "21")]
        FundingProven(InBlock),
        /// A transaction that spends the funding output is in a block.
        #[prost(message, tag = "22")]
        SpendProven(InBlock),
        /// A transaction that spends an HTLC of the channel's close is in a block.
        #[prost(message, tag = "23")]
        HtlcSpendProven(HtlcSpend),

        #[prost(message, tag = "30")]
        PaymentMade(PaymentMade),
        #[prost(message, tag = "31")]
        InvoiceSigned(InvoiceSigned),
        /// The first HTLC of a payment was validated.
        #[prost(message, tag = "32")]
        PaymentSeen(PaymentSeen),
        #[prost(message, tag = "33")]
        PreimageReleased(PreimageReleased),
        /// The onion of an HTLC has the invoice's payment secret.
        #[prost(message, tag = "34")]
        OnionRead(OnionRead),

        #[prost(message, tag = "40")]
        PaymentIntent(PaymentIntentAdded),
        #[prost(message, tag = "41")]
        OnchainIntent(OnchainIntentAdded),
        #[prost(message, tag = "42")]
        ChannelIntent(ChannelIntentAdded),
        #[prost(message, tag = "43")]
        Acceleration(AccelerationAsked),

        #[prost(message, tag = "50")]
        LimitsSet(LimitsSet),
    }

    /// The owner wants this transaction to confirm sooner.
    #[derive(Clone, PartialEq, Message)]
    pub struct AccelerationAsked {
        #[prost(bytes = "vec", tag = "1")]
        pub txid: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub max_fee_sat: u64,
    }

    /// The limits that differ from the defaults, in place of those set before.
    #[derive(Clone, PartialEq, Message)]
    pub struct LimitsSet {
        #[prost(message, repeated, tag = "1")]
        pub changed: Vec<Limit>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Limit {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    /// The node and network of the ledger; in the first record and in every snapshot.
    #[derive(Clone, PartialEq, Message)]
    pub struct Begun {
        #[prost(bytes = "vec", tag = "1")]
        pub node_id: Vec<u8>,
        #[prost(string, tag = "2")]
        pub network: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ChannelSetUp {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        /// LDK encoding of `ChannelTransactionParameters`.
        #[prost(bytes = "vec", tag = "2")]
        pub parameters: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub counterparty_node_id: Vec<u8>,
        /// The host was given the revocation basepoint secret with the setup. Earlier versions gave it before, and do not say so.
        #[prost(bool, tag = "4")]
        pub delegated: bool,
        /// The owner's opening; empty for a peer's, and in records of earlier versions.
        #[prost(bytes = "vec", tag = "5")]
        pub opening_id: Vec<u8>,
        /// The owner opened it without an announcement. False in records of earlier versions, which did not ask.
        #[prost(bool, tag = "6")]
        pub is_unannounced: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ClosingSigned {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
    }

    /// A transaction of a channel is in this block. A later one takes the place of an earlier: the chain was reorganised.
    #[derive(Clone, PartialEq, Message)]
    pub struct InBlock {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub txid: Vec<u8>,
        /// The hash of the block, and its height.
        #[prost(bytes = "vec", tag = "3")]
        pub block: Vec<u8>,
        #[prost(uint32, tag = "4")]
        pub height: u32,
    }

    /// A transaction that spends an HTLC's output of the commitment that closed the channel.
    #[derive(Clone, PartialEq, Message)]
    pub struct HtlcSpend {
        #[prost(message, optional, tag = "1")]
        pub proven: Option<InBlock>,
        /// The output (BIP 144 encoding of an outpoint).
        #[prost(bytes = "vec", tag = "2")]
        pub output: Vec<u8>,
    }

    /// A justice signature for a commitment with this per-commitment point.
    #[derive(Clone, PartialEq, Message)]
    pub struct JusticeSigned {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub point: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct HolderValidated {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        /// LDK encoding of `HolderCommitmentTransaction`: with the seed, it suffices to close the channel.
        #[prost(bytes = "vec", tag = "2")]
        pub commitment: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ChannelIndex {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub index: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PeerCommitmentSigned {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        /// LDK encoding of `CommitmentTransaction`.
        #[prost(bytes = "vec", tag = "2")]
        pub commitment: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PeerRevoked {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub index: u64,
        #[prost(bytes = "vec", tag = "3")]
        pub secret: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PeerSecrets {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        /// LDK encoding of `CounterpartyCommitmentSecrets`.
        #[prost(bytes = "vec", tag = "2")]
        pub secrets: Vec<u8>,
    }

    /// What the commitments of the two sides do not show of the owner's balance, see `Hidden` of the state.
    #[derive(Clone, PartialEq, Message)]
    pub struct HiddenSums {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub unseen_msat: u64,
        #[prost(uint64, tag = "3")]
        pub returned_msat: u64,
        #[prost(uint64, tag = "4")]
        pub gained_msat: u64,
        #[prost(uint64, tag = "5")]
        pub holder_carried_msat: u64,
        #[prost(uint64, tag = "6")]
        pub peer_carried_msat: u64,
    }

    /// Incoming HTLCs that stood in the channel's commitments when their preimage was released.
    #[derive(Clone, PartialEq, Message)]
    pub struct HtlcOwed {
        #[prost(bytes = "vec", tag = "1")]
        pub keys_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub payment_hash: Vec<u8>,
        #[prost(uint64, tag = "3")]
        pub amount_msat: u64,
        #[prost(uint32, tag = "4")]
        pub cltv_expiry: u32,
        #[prost(uint64, tag = "5")]
        pub count: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PaymentMade {
        #[prost(bytes = "vec", tag = "1")]
        pub preimage: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub amount_msat: u64,
        #[prost(uint64, tag = "3")]
        pub created_unix_s: u64,
    }

    /// The preimage of an incoming payment: the one secret in a record, the owner's until it is paid for.
    impl Drop for PaymentMade {
        fn drop(&mut self) {
            self.preimage.zeroize();
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct InvoiceSigned {
        #[prost(bytes = "vec", tag = "1")]
        pub payment_hash: Vec<u8>,
        #[prost(string, tag = "2")]
        pub bolt11: String,
        /// The time until which the phone accepts payments for it, by its own clock; not the invoice's expiry.
        #[prost(uint64, tag = "3")]
        pub expires_unix_s: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PaymentSeen {
        #[prost(bytes = "vec", tag = "1")]
        pub payment_hash: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub at_unix_s: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct OnionRead {
        #[prost(bytes = "vec", tag = "1")]
        pub payment_hash: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub keys_id: Vec<u8>,
        /// BOLT 2, `update_add_htlc`.
        #[prost(uint64, tag = "3")]
        pub htlc_id: u64,
        #[prost(uint64, tag = "4")]
        pub amount_msat: u64,
        #[prost(uint32, tag = "5")]
        pub cltv_expiry: u32,
        #[prost(uint64, tag = "6")]
        pub total_msat: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PreimageReleased {
        #[prost(bytes = "vec", tag = "1")]
        pub payment_hash: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub received_msat: u64,
        #[prost(uint64, tag = "3")]
        pub at_unix_s: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PaymentIntentAdded {
        #[prost(bytes = "vec", tag = "1")]
        pub payment_hash: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub amount_msat: u64,
        #[prost(uint64, tag = "3")]
        pub max_fee_msat: u64,
        #[prost(uint64, tag = "4")]
        pub expires_unix_s: u64,
        #[prost(uint64, tag = "5")]
        pub created_unix_s: u64,
        /// In HTLCs that were fulfilled.
        #[prost(uint64, tag = "6")]
        pub spent_msat: u64,
        /// In HTLCs without outputs that were not failed.
        #[prost(uint64, tag = "7")]
        pub trimmed_msat: u64,
        /// The payee's proof; empty = not there yet.
        #[prost(bytes = "vec", tag = "8")]
        pub preimage: Vec<u8>,
        /// The final result was delivered to the owner.
        #[prost(bool, tag = "9")]
        pub is_over: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct OnchainIntentAdded {
        #[prost(bytes = "vec", tag = "1")]
        pub id: Vec<u8>,
        #[prost(string, tag = "2")]
        pub address: String,
        #[prost(uint64, tag = "3")]
        pub amount_sat: u64,
        #[prost(uint64, tag = "4")]
        pub max_fee_sat: u64,
        #[prost(uint64, tag = "5")]
        pub created_unix_s: u64,
        /// Records of earlier versions do not have it; their results count as delivered.
        #[prost(bool, tag = "6")]
        pub awaits_delivery: bool,
        /// An outpoint (BIP 144 encoding) that the signed transaction spends; empty before it is signed.
        #[prost(bytes = "vec", tag = "7")]
        pub spends: Vec<u8>,
        /// The owner has given it up: a transaction that sends everything back may be signed for it.
        #[prost(bool, tag = "8")]
        pub is_abandoned: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ChannelIntentAdded {
        #[prost(bytes = "vec", tag = "1")]
        pub id: Vec<u8>,
        #[prost(bool, tag = "2")]
        pub close: bool,
        #[prost(bytes = "vec", tag = "3")]
        pub counterparty_node_id: Vec<u8>,
        #[prost(uint64, tag = "4")]
        pub amount_sat: u64,
        #[prost(bool, tag = "5")]
        pub force: bool,
        #[prost(uint64, tag = "6")]
        pub created_unix_s: u64,
        #[prost(bool, tag = "7")]
        pub announced: bool,
        /// For an opening. Records of earlier versions do not have it; their results count as delivered.
        #[prost(bool, tag = "8")]
        pub awaits_delivery: bool,
        /// For a close: where the owner's part goes; empty = the owner's wallet.
        #[prost(string, tag = "9")]
        pub address: String,
        /// For an opening: the most that its funding may cost.
        #[prost(uint64, tag = "10")]
        pub max_fee_sat: u64,
        /// For an opening: an outpoint (BIP 144 encoding) that the signed funding spends; empty before it is signed.
        #[prost(bytes = "vec", tag = "11")]
        pub spends: Vec<u8>,
    }
}
