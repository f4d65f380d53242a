//! The state that the records define.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Network, OutPoint, Txid};
use lightning::ln::chan_utils::{
    CommitmentTransaction, CounterpartyCommitmentSecrets, HolderCommitmentTransaction,
};
use lightning_invoice::Bolt11Invoice;
use zeroize::Zeroizing;

use super::channel::{Channel, Hidden, HolderCommitment, InBlock, PeerCommitment};
use super::entry::{self, Change};
use super::record::{self, Entry, LedgerError, LedgerRecord};
use super::secrets;
use crate::commitment::{read, read_parameters};
use crate::htlcs::{Htlc, Htlcs};
use crate::intents::{Acceleration, ChannelIntent, OnchainIntent, PaymentIntent};
use crate::limits::Limits;
use crate::payments::{Payment, Released, payment_hash};

/// Transactions of [`State::accelerations`].
const MAX_ACCELERATIONS: usize = 64;
/// HTLCs of [`OwnPayment::onions`]: as many as a channel has room for, twice.
const MAX_ONIONS: usize = 966;

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
    /// Transactions that the owner wants to confirm sooner, those named last at the end; the oldest are removed.
    pub accelerations: VecDeque<Acceleration>,
    pub channel_intents: BTreeMap<Vec<u8>, KnownChannelIntent>,
    pub limits: Limits,
}

/// A channel intent, and when it was added.
#[derive(Clone)]
pub(crate) struct KnownChannelIntent {
    pub intent: ChannelIntent,
    pub created_unix_s: u64,
    /// See [`OnchainIntent::awaits_delivery`]; false for a close.
    pub awaits_delivery: bool,
    /// See [`OnchainIntent::spends`]; for the funding of an opening.
    pub spends: Option<OutPoint>,
}

impl KnownChannelIntent {
    /// Whether it is the owner's opening of this channel.
    pub fn is_of(&self, channel: &Channel) -> bool {
        let value_sat = channel.parameters.channel_value_satoshis;
        self.is_opening(&channel.counterparty_node_id, value_sat)
            // A ledger of an earlier version has not kept the id.
            && (channel.opening_id.is_empty() || channel.opening_id == self.intent.id())
    }

    /// Whether it is the owner's opening of a channel of this size with this peer.
    pub fn is_opening(&self, peer: &PublicKey, value_sat: u64) -> bool {
        matches!(
            &self.intent,
            ChannelIntent::Open { counterparty_node_id, amount_sat, .. }
                if counterparty_node_id == peer && *amount_sat == value_sat
        )
    }

    /// Whether it is the owner's opening of a channel with this peer.
    pub fn is_opening_with(&self, peer: &PublicKey) -> bool {
        matches!(
            &self.intent,
            ChannelIntent::Open { counterparty_node_id, .. } if counterparty_node_id == peer
        )
    }

    /// The most that the funding of an opening may cost; 0 = the usual.
    pub fn max_fee_sat(&self) -> u64 {
        match &self.intent {
            ChannelIntent::Open { max_fee_sat, .. } => *max_fee_sat,
            ChannelIntent::Close { .. } => 0,
        }
    }
}

/// An incoming payment and its preimage.
#[derive(Clone)]
pub(crate) struct OwnPayment {
    pub preimage: Zeroizing<[u8; 32]>,
    pub public: Payment,
    /// Of HTLCs whose onions have the invoice's payment secret, by channel and number (BOLT 2). Empty once the preimage is released.
    pub onions: BTreeMap<([u8; 32], u64), ReadOnion>,
}

/// An HTLC, and what its onion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadOnion {
    pub amount_msat: u64,
    pub cltv_expiry: u32,
    /// The amount of all HTLCs of the payment.
    pub total_msat: u64,
}

/// The reason for which a change cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Foreign,
    Unreadable(&'static str),
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
            accelerations: VecDeque::new(),
            channel_intents: BTreeMap::new(),
            limits: Limits::default(),
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
                channel.forget_settled();
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
                channel.forget_settled();
            }
            Change::PeerSecrets(c) => {
                let secrets = read(&c.secrets).ok().filter(secrets::are_whole);
                let secrets = secrets.ok_or(Bad::Unreadable("a peer's secrets"))?;
                self.channel_mut(&c.keys_id)?.peer_secrets = secrets;
            }
            Change::HiddenSums(c) => {
                self.channel_mut(&c.keys_id)?.hidden = Hidden {
                    unseen_msat: c.unseen_msat,
                    returned_msat: c.returned_msat,
                    gained_msat: c.gained_msat,
                    holder_carried_msat: c.holder_carried_msat,
                    peer_carried_msat: c.peer_carried_msat,
                };
            }
            Change::HtlcOwed(c) => {
                let htlc = Htlc {
                    is_outgoing: false,
                    payment_hash: array(&c.payment_hash)?,
                    amount_msat: c.amount_msat,
                    cltv_expiry: c.cltv_expiry,
                };
                self.channel_mut(&c.keys_id)?.owed.add(htlc, c.count);
            }
            Change::ClosingSigned(c) => self.channel_mut(&c.keys_id)?.is_closing = true,
            Change::FundingProven(c) => {
                let proven = read_in_block(&c)?;
                self.channel_mut(&c.keys_id)?.funding = Some(proven);
            }
            Change::SpendProven(c) => {
                let proven = read_in_block(&c)?;
                let channel = self.channel_mut(&c.keys_id)?;
                channel.spend = Some(proven);
                // Those of another close, which has left the chain.
                channel
                    .htlc_spends
                    .retain(|output, _| output.txid == proven.txid);
            }
            Change::HtlcSpendProven(c) => {
                let proven = c.proven.ok_or(Bad::Unreadable("an HTLC's spend"))?;
                let output = outpoint(&c.output)?.ok_or(Bad::Unreadable("an HTLC's output"))?;
                let spend = read_in_block(&proven)?;
                let channel = self.channel_mut(&proven.keys_id)?;
                channel.htlc_spends.insert(output, spend);
            }
            Change::JusticeSigned(c) => {
                let point = PublicKey::from_slice(&c.point)
                    .map_err(|_| Bad::Unreadable("a per-commitment point"))?;
                self.channel_mut(&c.keys_id)?.punished.insert(point);
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
                let payment = self.own_payment_mut(&c.payment_hash)?;
                payment.public.released = Some(released);
                payment.onions.clear();
            }
            Change::OnionRead(c) => self.onion_read(c)?,
            Change::PaymentIntent(c) => self.payment_intent(c)?,
            Change::OnchainIntent(c) => self.onchain_intent(c)?,
            Change::ChannelIntent(c) => self.channel_intent(c)?,
            Change::Acceleration(c) => self.acceleration(c)?,
            Change::LimitsSet(c) => {
                let changed = c.changed.iter().map(|it| (&it.name, &it.value));
                let before = std::mem::replace(&mut self.limits, Limits::from_changed(changed));
                // Rules that `Signer::switch_off` has switched off stay so.
                let off = before.warnings.into_iter().filter(|rule| !rule.may_warn());
                self.limits.warnings.extend(off);
            }
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
        let accelerations = self.accelerations.iter();
        changes.extend(accelerations.map(|it| Change::Acceleration((*it).into())));
        let limits = self.limits.changed().into_iter();
        let changed: Vec<entry::Limit> = limits
            .map(|(name, value)| entry::Limit { name, value })
            .collect();
        if !changed.is_empty() {
            changes.push(Change::LimitsSet(entry::LimitsSet { changed }));
        }
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
            hidden: Hidden::default(),
            owed: Htlcs::default(),
            delegated: c.delegated,
            opening_id: c.opening_id,
            is_unannounced: c.is_unannounced,
            is_closing: false,
            punished: BTreeSet::new(),
            funding: None,
            spend: None,
            htlc_spends: BTreeMap::new(),
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
        let payment = OwnPayment {
            preimage,
            public,
            onions: BTreeMap::new(),
        };
        self.payments.insert(payment.public.payment_hash, payment);
        Ok(())
    }

    fn onion_read(&mut self, c: entry::OnionRead) -> Result<(), Bad> {
        let htlc = (array(&c.keys_id)?, c.htlc_id);
        let read = ReadOnion {
            amount_msat: c.amount_msat,
            cltv_expiry: c.cltv_expiry,
            total_msat: c.total_msat,
        };
        let onions = &mut self.own_payment_mut(&c.payment_hash)?.onions;
        // Whoever knows the invoice can offer HTLCs for it again and again, and have them fail.
        if onions.len() >= MAX_ONIONS && !onions.contains_key(&htlc) {
            onions.pop_first();
        }
        onions.insert(htlc, read);
        Ok(())
    }

    fn payment_intent(&mut self, c: entry::PaymentIntentAdded) -> Result<(), Bad> {
        let intent = PaymentIntent {
            payment_hash: array(&c.payment_hash)?,
            amount_msat: c.amount_msat,
            max_fee_msat: c.max_fee_msat,
            expires_unix_s: c.expires_unix_s,
            created_unix_s: c.created_unix_s,
            spent_msat: c.spent_msat,
            trimmed_msat: c.trimmed_msat,
            preimage: match &c.preimage[..] {
                [] => None,
                bytes => Some(array(bytes)?),
            },
            is_over: c.is_over,
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
            spends: outpoint(&c.spends)?,
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
                max_fee_sat: c.max_fee_sat,
            }
        };
        let known = KnownChannelIntent {
            intent,
            created_unix_s: c.created_unix_s,
            awaits_delivery: c.awaits_delivery && !c.close,
            spends: outpoint(&c.spends)?,
        };
        self.channel_intents.insert(c.id, known);
        Ok(())
    }

    fn acceleration(&mut self, c: entry::AccelerationAsked) -> Result<(), Bad> {
        let txid = Txid::from_byte_array(array(&c.txid)?);
        self.accelerations.retain(|it| it.txid != txid);
        self.accelerations.push_back(Acceleration {
            txid,
            max_fee_sat: c.max_fee_sat,
        });
        if self.accelerations.len() > MAX_ACCELERATIONS {
            self.accelerations.pop_front();
        }
        Ok(())
    }

    fn channel_mut(&mut self, keys_id: &[u8]) -> Result<&mut Channel, Bad> {
        self.channels
            .get_mut(&array(keys_id)?)
            .ok_or(Bad::Unreadable("a change of a channel that is not there"))
    }

    fn payment_mut(&mut self, payment_hash: &[u8]) -> Result<&mut Payment, Bad> {
        let payment = self.own_payment_mut(payment_hash)?;
        Ok(&mut payment.public)
    }

    fn own_payment_mut(&mut self, payment_hash: &[u8]) -> Result<&mut OwnPayment, Bad> {
        let payment = self.payments.get_mut(&array(payment_hash)?);
        payment.ok_or(Bad::Unreadable("a change of a payment that is not there"))
    }
}

impl OwnPayment {
    /// The payment secret of the invoice (BOLT 11 `s`), once it is signed.
    pub fn payment_secret(&self) -> Option<[u8; 32]> {
        let invoice = Bolt11Invoice::from_str(&self.public.bolt11).ok()?;
        Some(invoice.payment_secret().0)
    }

    /// The HTLCs of this channel whose onions have the invoice's payment secret.
    pub fn read_htlcs(&self, keys_id: &[u8; 32]) -> Htlcs {
        let of_channel = self.onions.iter().filter(|((id, _), _)| id == keys_id);
        let htlcs = of_channel.map(|(_, read)| Htlc {
            is_outgoing: false,
            payment_hash: self.public.payment_hash,
            amount_msat: read.amount_msat,
            cltv_expiry: read.cltv_expiry,
        });
        htlcs.collect()
    }

    /// The largest amount that an onion names for all HTLCs of the payment, in millisatoshis.
    pub fn total_msat(&self) -> u64 {
        let totals = self.onions.values().map(|read| read.total_msat);
        totals.max().unwrap_or(0)
    }

    /// What its invoice asks, or what its onions name if that is more, in millisatoshis.
    pub fn larger_msat(&self) -> u64 {
        self.public.amount_msat.max(self.total_msat())
    }

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
        for ((keys_id, htlc_id), read) in &self.onions {
            changes.push(Change::OnionRead(entry::OnionRead {
                payment_hash: payment_hash.clone(),
                keys_id: keys_id.to_vec(),
                htlc_id: *htlc_id,
                amount_msat: read.amount_msat,
                cltv_expiry: read.cltv_expiry,
                total_msat: read.total_msat,
            }));
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

/// A channel's sums.
pub(crate) fn hidden_sums(keys_id: &[u8], hidden: &Hidden) -> entry::HiddenSums {
    entry::HiddenSums {
        keys_id: keys_id.to_vec(),
        unseen_msat: hidden.unseen_msat,
        returned_msat: hidden.returned_msat,
        gained_msat: hidden.gained_msat,
        holder_carried_msat: hidden.holder_carried_msat,
        peer_carried_msat: hidden.peer_carried_msat,
    }
}

/// That a transaction of the channel is in a block.
pub(crate) fn in_block(keys_id: &[u8], proven: &InBlock) -> entry::InBlock {
    entry::InBlock {
        keys_id: keys_id.to_vec(),
        txid: proven.txid.as_byte_array().to_vec(),
        block: proven.block.as_byte_array().to_vec(),
        height: proven.height,
    }
}

/// That this output with an HTLC was proven to be spent.
pub(crate) fn htlc_spend(keys_id: &[u8], output: &OutPoint, proven: &InBlock) -> entry::HtlcSpend {
    entry::HtlcSpend {
        proven: Some(in_block(keys_id, proven)),
        output: serialize(output),
    }
}

/// That `count` HTLCs like this are the owner's money.
pub(crate) fn htlc_owed(keys_id: &[u8], htlc: &Htlc, count: u64) -> entry::HtlcOwed {
    entry::HtlcOwed {
        keys_id: keys_id.to_vec(),
        payment_hash: htlc.payment_hash.to_vec(),
        amount_msat: htlc.amount_msat,
        cltv_expiry: htlc.cltv_expiry,
        count,
    }
}

fn read_in_block(c: &entry::InBlock) -> Result<InBlock, Bad> {
    Ok(InBlock {
        txid: Txid::from_byte_array(array(&c.txid)?),
        block: BlockHash::from_byte_array(array(&c.block)?),
        height: c.height,
    })
}

/// An outpoint, or empty bytes for none.
fn outpoint(bytes: &[u8]) -> Result<Option<OutPoint>, Bad> {
    match bytes {
        [] => Ok(None),
        bytes => bitcoin::consensus::deserialize(bytes)
            .map(Some)
            .map_err(|_| Bad::Unreadable("an output that a payment spends")),
    }
}

fn array(bytes: &[u8]) -> Result<[u8; 32], Bad> {
    bytes
        .try_into()
        .map_err(|_| Bad::Unreadable("32 bytes that are not 32 bytes"))
}
