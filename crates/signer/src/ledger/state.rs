//! The state that the records define.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{BlockHash, Network, OutPoint, Txid};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, CounterpartyCommitmentSecrets,
    HolderCommitmentTransaction,
};
use lightning::ln::types::ChannelId;
use lightning::util::ser::Writeable;
use lightning_invoice::Bolt11Invoice;
use longhand_spv::Headers;
use zeroize::Zeroizing;

use super::entry::{self, Change};
use super::record::{self, Entry, LedgerError, LedgerRecord};
use super::secrets;
use crate::commitment::{FIRST_INDEX, Side, read, read_parameters};
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
    /// What the commitments do not show of the owner's balance.
    pub hidden: Hidden,
    /// Incoming HTLCs that stood in the commitments when their preimage was released: the owner's money.
    pub owed: Htlcs,
    /// The host was given the revocation basepoint secret with the setup.
    pub delegated: bool,
    /// The owner's opening; empty for a peer's, or one of an earlier version.
    pub opening_id: Vec<u8>,
    /// The owner opened it without an announcement (BOLT 7).
    pub is_unannounced: bool,
    /// A cooperative close was signed.
    pub is_closing: bool,
    /// The points of commitments for which justice was signed. No later commitment may have one of them.
    pub punished: BTreeSet<PublicKey>,
    /// The block of its funding transaction, once it was proven.
    pub funding: Option<InBlock>,
    /// The transaction that spends the funding output, once it was proven.
    pub spend: Option<InBlock>,
    /// By outputs of that transaction with HTLCs: those that spend them, once they were proven.
    pub htlc_spends: BTreeMap<OutPoint, InBlock>,
}

/// A deadline ends with a transaction that so many blocks confirm: with fewer, a reorganisation could bring it back while the phone sleeps.
const SETTLED_BLOCKS: u32 = 6;

/// An HTLC with an output in the commitment that closed a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClosedHtlc {
    pub htlc: Htlc,
    pub output: OutPoint,
}

/// A transaction that was proven to be in a block. The block may have left the chain since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InBlock {
    pub txid: Txid,
    pub block: BlockHash,
    pub height: u32,
}

impl InBlock {
    /// How many blocks confirm it, its own included; 0 when its block is not in the chain.
    pub fn confirmations(&self, headers: &Headers) -> u32 {
        match headers.hash(self.height) == Some(self.block) {
            true => headers.confirmations(self.height),
            false => 0,
        }
    }
}

/// What the commitments of the two sides do not show of the owner's balance: HTLCs without outputs, which are in the commitments of one
/// side before they are in those of the other, and balances that are too small for an output. In millisatoshis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// Outgoing HTLCs that are in the peer's commitment, and not in the owner's yet.
    pub unseen_msat: u64,
    /// Outgoing HTLCs that were failed in the owner's commitment, and not in the peer's yet.
    pub returned_msat: u64,
    /// What the owner has gained in the peer's commitment, and not in its own yet.
    pub gained_msat: u64,
    /// The owner's balance in its latest commitment, before fee and anchors, when it has no output.
    pub holder_carried_msat: u64,
    /// The same in the peer's.
    pub peer_carried_msat: u64,
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
    /// The funding output.
    pub fn funding(&self) -> Option<OutPoint> {
        let outpoint = self.parameters.funding_outpoint?;
        Some(outpoint.into_bitcoin_outpoint())
    }

    /// How many blocks confirm the funding, as far as it was proven.
    pub fn confirmations(&self, headers: &Headers) -> u32 {
        let funding = self.funding.as_ref();
        funding.map_or(0, |funding| funding.confirmations(headers))
    }

    /// The transaction of the chain that spends the funding output, as far as it was proven.
    pub fn spend(&self, headers: &Headers) -> Option<&InBlock> {
        let spend = self.spend.as_ref();
        spend.filter(|spend| spend.confirmations(headers) > 0)
    }

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

    /// The HTLCs of all commitments that the peer may still broadcast.
    pub fn peer_htlcs(&self) -> Htlcs {
        let peer = self.peer.iter();
        peer.map(|peer| Htlcs::of(&peer.commitment, Side::Counterparty))
            .fold(Htlcs::default(), |all, htlcs| all.union(&htlcs))
    }

    /// The HTLCs of the commitment with this id, with their outputs; `None` when it is not one that either side may broadcast.
    pub fn closed_htlcs(&self, txid: Txid) -> Option<Vec<ClosedHtlc>> {
        let holder = self.holder.iter();
        let holder = holder.map(|it| (&*it.commitment, Side::Holder));
        let peer = self.peer.iter();
        let peer = peer.map(|it| (&it.commitment, Side::Counterparty));
        let mut all = holder.chain(peer);
        let (commitment, side) = all.find(|(it, _)| it.trust().txid() == txid)?;
        let htlcs = commitment.nondust_htlcs().iter();
        let htlcs = htlcs.filter_map(|htlc| {
            let vout = htlc.transaction_output_index?;
            Some(ClosedHtlc {
                htlc: Htlc::of(htlc, side),
                output: OutPoint { txid, vout },
            })
        });
        Some(htlcs.collect())
    }

    /// The transaction of the chain that spends this output with an HTLC of the channel's close, as far as it was proven.
    pub fn htlc_spend(&self, output: &OutPoint, headers: &Headers) -> Option<&InBlock> {
        let spend = self.htlc_spends.get(output);
        spend.filter(|spend| spend.confirmations(headers) > 0)
    }

    /// The HTLCs of the commitment with this id, if it is one that either side may broadcast.
    pub fn htlcs_of(&self, txid: Txid) -> Htlcs {
        let htlcs = self.closed_htlcs(txid).into_iter().flatten();
        htlcs.map(|it| it.htlc).collect()
    }

    /// The HTLCs that are not settled: once a commitment on record is deep in the chain those of it that nothing deep spends, and none after a
    /// cooperative close; else those of all commitments that either side may broadcast.
    pub fn open_htlcs(&self, headers: &Headers) -> Htlcs {
        let is_deep = |it: &InBlock| it.confirmations(headers) >= SETTLED_BLOCKS;
        let Some(close) = self.spend.filter(is_deep) else {
            return self.standing_htlcs();
        };
        match self.closed_htlcs(close.txid) {
            Some(htlcs) => {
                let is_settled =
                    |it: &ClosedHtlc| self.htlc_spends.get(&it.output).is_some_and(is_deep);
                let open = htlcs.into_iter().filter(|it| !is_settled(it));
                open.map(|it| it.htlc).collect()
            }
            None if self.is_closing => Htlcs::default(),
            None => self.standing_htlcs(),
        }
    }

    /// The channel's id; `None` before its funding is known.
    pub fn id(&self) -> Option<ChannelId> {
        let funding = self.parameters.funding_outpoint?;
        Some(ChannelId::v1_from_funding_outpoint(funding))
    }

    /// The HTLCs of the owner's latest commitment.
    pub fn latest_holder_htlcs(&self) -> Htlcs {
        let latest = self.holder.first();
        latest.map_or_else(Htlcs::default, |it| Htlcs::of(&it.commitment, Side::Holder))
    }

    /// The HTLCs of all commitments that either side may still broadcast.
    pub fn standing_htlcs(&self) -> Htlcs {
        let holder = self.holder.iter();
        holder
            .map(|it| Htlcs::of(&it.commitment, Side::Holder))
            .fold(self.peer_htlcs(), |all, htlcs| all.union(&htlcs))
    }

    /// The HTLCs of the commitment that was signed for the peer last.
    pub fn latest_peer_htlcs(&self) -> Htlcs {
        let latest = self.peer.first();
        latest.map_or_else(Htlcs::default, |it| {
            Htlcs::of(&it.commitment, Side::Counterparty)
        })
    }

    /// Forgets what is owed in HTLCs that no commitment has any more.
    fn forget_settled(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        self.owed = self.owed.common(&self.standing_htlcs());
    }

    /// The commitment with this index that was signed for the peer and is not revoked.
    pub fn peer_at(&self, index: u64) -> Option<&CommitmentTransaction> {
        let mut signed = self.peer.iter();
        let signed = signed.find(|peer| peer.index == index);
        signed.map(|peer| &peer.commitment)
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

    /// Whether the peer has revoked one of its commitments by this secret.
    pub fn has_revoked_by(&self, secret: &SecretKey) -> bool {
        let secret = Some(secret.secret_bytes());
        let mut revoked = self.peer_revoked()..=FIRST_INDEX;
        revoked.any(|index| self.peer_secrets.get_secret(index) == secret)
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

impl Channel {
    /// The changes that make this channel from nothing.
    fn changes(&self, keys_id: &[u8; 32], changes: &mut Vec<Change>) {
        let keys_id = keys_id.to_vec();
        changes.push(Change::ChannelSetUp(entry::ChannelSetUp {
            keys_id: keys_id.clone(),
            parameters: self.parameters.encode(),
            counterparty_node_id: self.counterparty_node_id.serialize().to_vec(),
            delegated: self.delegated,
            opening_id: self.opening_id.clone(),
            is_unannounced: self.is_unannounced,
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
        changes.push(Change::PeerSecrets(entry::PeerSecrets {
            keys_id: keys_id.clone(),
            secrets,
        }));
        if self.hidden != Hidden::default() {
            changes.push(Change::HiddenSums(hidden_sums(&keys_id, &self.hidden)));
        }
        for point in &self.punished {
            changes.push(Change::JusticeSigned(entry::JusticeSigned {
                keys_id: keys_id.clone(),
                point: point.serialize().to_vec(),
            }));
        }
        if let Some(funding) = &self.funding {
            changes.push(Change::FundingProven(in_block(&keys_id, funding)));
        }
        if let Some(spend) = &self.spend {
            changes.push(Change::SpendProven(in_block(&keys_id, spend)));
        }
        for (output, spend) in &self.htlc_spends {
            changes.push(Change::HtlcSpendProven(htlc_spend(&keys_id, output, spend)));
        }
        if self.is_closing {
            changes.push(Change::ClosingSigned(entry::ClosingSigned {
                keys_id: keys_id.clone(),
            }));
        }
        for (htlc, count) in self.owed.iter() {
            changes.push(Change::HtlcOwed(htlc_owed(&keys_id, htlc, count)));
        }
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
