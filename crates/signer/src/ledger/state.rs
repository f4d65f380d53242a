//! The state that the records define.

use std::collections::BTreeMap;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, CounterpartyCommitmentSecrets,
    HolderCommitmentTransaction,
};
use lightning::util::ser::Writeable;
use zeroize::Zeroizing;

use super::entry::{self, Change};
use super::record::{self, Entry, LedgerError, LedgerRecord};
use super::secrets;
use crate::commitment::{read, read_parameters};
use crate::intents::{ChannelIntent, OnchainIntent, PaymentIntent};
use crate::payments::{Payment, Released, payment_hash};

/// The state of a phone's signer.
#[derive(Clone)]
pub(crate) struct State {
    node_id: PublicKey,
    network: Network,
    version: u64,
    pub channels: BTreeMap<[u8; 32], Channel>,
    pub payments: BTreeMap<[u8; 32], OwnPayment>,
    pub payment_intents: BTreeMap<[u8; 32], PaymentIntent>,
    pub onchain_intents: BTreeMap<Vec<u8>, OnchainIntent>,
    pub channel_intents: BTreeMap<Vec<u8>, KnownChannelIntent>,
}

/// A channel intent, and when it was added.
#[derive(Clone)]
pub(crate) struct KnownChannelIntent {
    pub intent: ChannelIntent,
    pub created_unix_s: u64,
    /// See [`OnchainIntent::awaits_delivery`]; false for a close.
    pub awaits_delivery: bool,
}

/// An incoming payment and its preimage.
#[derive(Clone)]
pub(crate) struct OwnPayment {
    pub preimage: Zeroizing<[u8; 32]>,
    pub public: Payment,
}

/// The state of one channel. Indices count down from 2^48 - 1, so that a later one is lower.
#[derive(Clone)]
pub(crate) struct Channel {
    pub parameters: ChannelTransactionParameters,
    pub counterparty_node_id: PublicKey,
    /// Holder commitments that are validated and not revoked, latest first: one, or two while a revocation is due.
    pub holder: Vec<HolderCommitment>,
    /// The lowest index whose secret was released; all above it are revoked too.
    pub released: Option<u64>,
    /// The highest index that was signed for broadcast; its secret and all after it stay here.
    pub broadcast: Option<u64>,
    /// Counterparty commitments that are signed and not revoked, latest first: one, or two while a revocation is due.
    pub peer: Vec<PeerCommitment>,
    /// The revocation secrets of the peer.
    pub peer_secrets: CounterpartyCommitmentSecrets,
}

/// A holder commitment on record, with all of the peer's signatures.
#[derive(Clone)]
pub(crate) struct HolderCommitment {
    pub index: u64,
    pub commitment: HolderCommitmentTransaction,
}

/// A counterparty commitment that was signed.
#[derive(Clone)]
pub(crate) struct PeerCommitment {
    pub index: u64,
    pub commitment: CommitmentTransaction,
}

/// The reason for which a change cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Foreign,
    Unreadable(&'static str),
}

impl Channel {
    /// The index of the latest validated holder commitment.
    pub fn holder_index(&self) -> Option<u64> {
        self.holder.first().map(|latest| latest.index)
    }

    /// The holder commitment with this index, if it is validated and not revoked.
    pub fn holder_at(&self, index: u64) -> Option<&HolderCommitmentTransaction> {
        let mut holder = self.holder.iter();
        let found = holder.find(|holder| holder.index == index);
        found.map(|found| &found.commitment)
    }

    /// The index of the latest commitment signed for the peer.
    pub fn peer_index(&self) -> Option<u64> {
        self.peer.first().map(|latest| latest.index)
    }

    /// Whether LDK can encode the parameters again, which it asserts of the channel type.
    fn check_type(&self, commitment: &CommitmentTransaction) -> Result<(), Bad> {
        let same =
            commitment.trust().channel_type_features() == &self.parameters.channel_type_features;
        if same {
            Ok(())
        } else {
            Err(Bad::Unreadable("a commitment of another channel type"))
        }
    }

    /// The lowest index that the peer has revoked; 2^48 when it has revoked none.
    pub fn peer_revoked(&self) -> u64 {
        self.peer_secrets.get_min_seen_secret()
    }
}

impl State {
    pub fn new(node_id: PublicKey, network: Network) -> State {
        State {
            node_id,
            network,
            version: 0,
            channels: BTreeMap::new(),
            payments: BTreeMap::new(),
            payment_intents: BTreeMap::new(),
            onchain_intents: BTreeMap::new(),
            channel_intents: BTreeMap::new(),
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    pub fn clear(&mut self) {
        *self = State::new(self.node_id, self.network);
    }

    pub fn begun(&self) -> Change {
        let network = self.network.to_string();
        Change::Begun(entry::Begun {
            node_id: self.node_id.serialize().to_vec(),
            network,
        })
    }

    pub fn replay<R: AsRef<[u8]>>(
        &mut self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<(), LedgerError> {
        record::replay(self, records)
    }

    /// Applies one change. On an error the state is unchanged.
    pub fn apply(&mut self, change: Change) -> Result<(), Bad> {
        match change {
            Change::Begun(begun) => return self.check_owner(&begun),
            Change::ChannelSetUp(c) => self.channel_set_up(c)?,
            Change::HolderValidated(c) => self.holder_validated(c)?,
            Change::SecretReleased(c) => {
                let channel = self.channel_mut(&c.keys_id)?;
                channel.released = Some(
                    channel
                        .released
                        .map_or(c.index, |lowest| lowest.min(c.index)),
                );
                channel.holder.retain(|holder| holder.index < c.index);
            }
            Change::HolderSigned(c) => {
                let channel = self.channel_mut(&c.keys_id)?;
                channel.broadcast = Some(
                    channel
                        .broadcast
                        .map_or(c.index, |highest| highest.max(c.index)),
                );
            }
            Change::PeerCommitmentSigned(c) => self.peer_commitment_signed(c)?,
            Change::PeerRevoked(c) => {
                let secret = array(&c.secret)?;
                let channel = self.channel_mut(&c.keys_id)?;
                if channel.peer_revoked().checked_sub(1) != Some(c.index) {
                    return Err(Bad::Unreadable("a peer's secret out of turn"));
                }
                channel
                    .peer_secrets
                    .provide_secret(c.index, secret)
                    .map_err(|()| Bad::Unreadable("a peer's secret"))?;
                channel.peer.retain(|peer| peer.index < c.index);
            }
            Change::PeerSecrets(c) => {
                let secrets = read(&c.secrets).ok().filter(secrets::are_whole);
                let secrets = secrets.ok_or(Bad::Unreadable("a peer's secrets"))?;
                self.channel_mut(&c.keys_id)?.peer_secrets = secrets;
            }
            Change::PaymentMade(c) => self.payment_made(c)?,
            Change::InvoiceSigned(c) => {
                let payment = self.payment_mut(&c.payment_hash)?;
                payment.bolt11 = c.bolt11;
                payment.expires_unix_s = c.expires_unix_s;
            }
            Change::PaymentSeen(c) => {
                self.payment_mut(&c.payment_hash)?.seen_unix_s = Some(c.at_unix_s)
            }
            Change::PreimageReleased(c) => {
                let released = Released {
                    received_msat: c.received_msat,
                    at_unix_s: c.at_unix_s,
                };
                self.payment_mut(&c.payment_hash)?.released = Some(released);
            }
            Change::PaymentIntent(c) => self.payment_intent(c)?,
            Change::OnchainIntent(c) => self.onchain_intent(c)?,
            Change::ChannelIntent(c) => self.channel_intent(c)?,
        }
        Ok(())
    }

    /// One record with the whole state.
    pub fn snapshot(&self) -> LedgerRecord {
        let mut changes = vec![self.begun()];
        for (keys_id, channel) in &self.channels {
            channel.changes(keys_id, &mut changes);
        }
        for (payment_hash, payment) in &self.payments {
            payment.changes(payment_hash, &mut changes);
        }
        changes.extend(
            self.payment_intents
                .values()
                .map(|intent| Change::PaymentIntent(intent.into())),
        );
        changes.extend(
            self.onchain_intents
                .values()
                .map(|intent| Change::OnchainIntent(intent.into())),
        );
        changes.extend(
            self.channel_intents
                .values()
                .map(|known| Change::ChannelIntent(known.into())),
        );
        LedgerRecord::new(
            self.version,
            true,
            changes.into_iter().map(Entry::from).collect(),
        )
    }

    fn check_owner(&self, begun: &entry::Begun) -> Result<(), Bad> {
        let ours =
            begun.node_id == self.node_id.serialize() && begun.network == self.network.to_string();
        if ours { Ok(()) } else { Err(Bad::Foreign) }
    }

    fn channel_set_up(&mut self, c: entry::ChannelSetUp) -> Result<(), Bad> {
        let parameters = read_parameters(&c.parameters)
            .map_err(|_| Bad::Unreadable("a channel's parameters"))?;
        if parameters
            .channel_type_features
            .supports_any_optional_bits()
        {
            return Err(Bad::Unreadable("a channel's type"));
        }
        let counterparty_node_id = PublicKey::from_slice(&c.counterparty_node_id)
            .map_err(|_| Bad::Unreadable("a peer's node id"))?;
        let channel = Channel {
            parameters,
            counterparty_node_id,
            holder: Vec::new(),
            released: None,
            broadcast: None,
            peer: Vec::new(),
            peer_secrets: CounterpartyCommitmentSecrets::new(),
        };
        self.channels.insert(array(&c.keys_id)?, channel);
        Ok(())
    }

    fn holder_validated(&mut self, c: entry::HolderValidated) -> Result<(), Bad> {
        let commitment: HolderCommitmentTransaction =
            read(&c.commitment).map_err(|_| Bad::Unreadable("a holder commitment"))?;
        let channel = self.channel_mut(&c.keys_id)?;
        channel.check_type(&commitment)?;
        channel.holder.insert(
            0,
            HolderCommitment {
                index: commitment.commitment_number(),
                commitment,
            },
        );
        Ok(())
    }

    fn peer_commitment_signed(&mut self, c: entry::PeerCommitmentSigned) -> Result<(), Bad> {
        let commitment: CommitmentTransaction =
            read(&c.commitment).map_err(|_| Bad::Unreadable("a counterparty commitment"))?;
        let channel = self.channel_mut(&c.keys_id)?;
        channel.check_type(&commitment)?;
        channel.peer.insert(
            0,
            PeerCommitment {
                index: commitment.commitment_number(),
                commitment,
            },
        );
        Ok(())
    }

    fn payment_made(&mut self, c: entry::PaymentMade) -> Result<(), Bad> {
        let preimage = Zeroizing::new(array(&c.preimage)?);
        let public = Payment {
            payment_hash: payment_hash(&preimage),
            amount_msat: c.amount_msat,
            created_unix_s: c.created_unix_s,
            bolt11: String::new(),
            expires_unix_s: 0,
            seen_unix_s: None,
            released: None,
        };
        self.payments
            .insert(public.payment_hash, OwnPayment { preimage, public });
        Ok(())
    }

    fn payment_intent(&mut self, c: entry::PaymentIntentAdded) -> Result<(), Bad> {
        let intent = PaymentIntent {
            payment_hash: array(&c.payment_hash)?,
            amount_msat: c.amount_msat,
            max_fee_msat: c.max_fee_msat,
            expires_unix_s: c.expires_unix_s,
            created_unix_s: c.created_unix_s,
        };
        self.payment_intents.insert(intent.payment_hash, intent);
        Ok(())
    }

    fn onchain_intent(&mut self, c: entry::OnchainIntentAdded) -> Result<(), Bad> {
        let intent = OnchainIntent {
            id: c.id.clone(),
            address: c.address,
            amount_sat: c.amount_sat,
            max_fee_sat: c.max_fee_sat,
            created_unix_s: c.created_unix_s,
            awaits_delivery: c.awaits_delivery,
            is_abandoned: c.is_abandoned,
            spends: match &c.spends[..] {
                [] => None,
                bytes => Some(
                    bitcoin::consensus::deserialize(bytes)
                        .map_err(|_| Bad::Unreadable("an output that a payment spends"))?,
                ),
            },
        };
        self.onchain_intents.insert(c.id, intent);
        Ok(())
    }

    fn channel_intent(&mut self, c: entry::ChannelIntentAdded) -> Result<(), Bad> {
        let intent = if c.close {
            ChannelIntent::Close {
                channel_id: c.id.clone(),
                force: c.force,
                address: c.address,
            }
        } else {
            let counterparty_node_id = PublicKey::from_slice(&c.counterparty_node_id)
                .map_err(|_| Bad::Unreadable("a peer's node id"))?;
            ChannelIntent::Open {
                id: c.id.clone(),
                counterparty_node_id,
                amount_sat: c.amount_sat,
                announced: c.announced,
            }
        };
        let known = KnownChannelIntent {
            intent,
            created_unix_s: c.created_unix_s,
            awaits_delivery: c.awaits_delivery && !c.close,
        };
        self.channel_intents.insert(c.id, known);
        Ok(())
    }

    fn channel_mut(&mut self, keys_id: &[u8]) -> Result<&mut Channel, Bad> {
        self.channels
            .get_mut(&array(keys_id)?)
            .ok_or(Bad::Unreadable("a change of a channel that is not there"))
    }

    fn payment_mut(&mut self, payment_hash: &[u8]) -> Result<&mut Payment, Bad> {
        let payment = self.payments.get_mut(&array(payment_hash)?);
        payment
            .map(|payment| &mut payment.public)
            .ok_or(Bad::Unreadable("a change of a payment that is not there"))
    }
}

impl Channel {
    /// The changes that make this channel from nothing.
    fn changes(&self, keys_id: &[u8; 32], changes: &mut Vec<Change>) {
        let keys_id = keys_id.to_vec();
        changes.push(Change::ChannelSetUp(entry::ChannelSetUp {
            keys_id: keys_id.clone(),
            parameters: self.parameters.encode(),
            counterparty_node_id: self.counterparty_node_id.serialize().to_vec(),
        }));
        if let Some(index) = self.released {
            changes.push(Change::SecretReleased(entry::ChannelIndex {
                keys_id: keys_id.clone(),
                index,
            }));
        }
        if let Some(index) = self.broadcast {
            changes.push(Change::HolderSigned(entry::ChannelIndex {
                keys_id: keys_id.clone(),
                index,
            }));
        }
        for holder in self.holder.iter().rev() {
            let commitment = holder.commitment.encode();
            changes.push(Change::HolderValidated(entry::HolderValidated {
                keys_id: keys_id.clone(),
                commitment,
            }));
        }
        for peer in self.peer.iter().rev() {
            let commitment = peer.commitment.encode();
            let signed = entry::PeerCommitmentSigned {
                keys_id: keys_id.clone(),
                commitment,
            };
            changes.push(Change::PeerCommitmentSigned(signed));
        }
        let secrets = self.peer_secrets.encode();
        changes.push(Change::PeerSecrets(entry::PeerSecrets { keys_id, secrets }));
    }
}

impl OwnPayment {
    fn changes(&self, payment_hash: &[u8; 32], changes: &mut Vec<Change>) {
        let payment_hash = payment_hash.to_vec();
        let payment = &self.public;
        changes.push(Change::PaymentMade(entry::PaymentMade {
            preimage: self.preimage.to_vec(),
            amount_msat: payment.amount_msat,
            created_unix_s: payment.created_unix_s,
        }));
        if !payment.bolt11.is_empty() {
            changes.push(Change::InvoiceSigned(entry::InvoiceSigned {
                payment_hash: payment_hash.clone(),
                bolt11: payment.bolt11.clone(),
                expires_unix_s: payment.expires_unix_s,
            }));
        }
        if let Some(at_unix_s) = payment.seen_unix_s {
            let seen = entry::PaymentSeen {
                payment_hash: payment_hash.clone(),
                at_unix_s,
            };
            changes.push(Change::PaymentSeen(seen));
        }
        if let Some(Released {
            received_msat,
            at_unix_s,
        }) = payment.released
        {
            let released = entry::PreimageReleased {
                payment_hash,
                received_msat,
                at_unix_s,
            };
            changes.push(Change::PreimageReleased(released));
        }
    }
}

fn array(bytes: &[u8]) -> Result<[u8; 32], Bad> {
    bytes
        .try_into()
        .map_err(|_| Bad::Unreadable("32 bytes that are not 32 bytes"))
}
