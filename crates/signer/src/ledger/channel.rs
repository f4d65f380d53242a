//! One channel of the ledger: its parameters, its commitments that are in force, and what the chain has of it.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{BlockHash, OutPoint, Txid};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, CounterpartyCommitmentSecrets,
    HolderCommitmentTransaction,
};
use lightning::ln::types::ChannelId;
use lightning::util::ser::Writeable;
use longhand_spv::Headers;

use super::entry::{self, Change};
use super::state::{Bad, hidden_sums, htlc_owed, htlc_spend, in_block};
use crate::commitment::{FIRST_INDEX, Side};
use crate::htlcs::{Htlc, Htlcs};

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
    pub(super) fn forget_settled(&mut self) {
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
    pub(super) fn check_type(&self, commitment: &CommitmentTransaction) -> Result<(), Bad> {
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

    /// The changes that make this channel from nothing.
    pub(super) fn changes(&self, keys_id: &[u8; 32], changes: &mut Vec<Change>) {
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
