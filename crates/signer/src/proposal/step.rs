//! What a commitment changes against the one before it on the same side, as the phone sees it (BOLT 2 and 3).

use std::collections::BTreeSet;

use bitcoin::hashes::{Hash, sha256};
use lightning::ln::chan_utils::CommitmentTransaction;
use longhand_proto::signer as proto;

use crate::balance::Balance;
use crate::commitment::Side;
use crate::engine::Signer;
use crate::htlcs::{Htlc, Htlcs};
use crate::ledger::Channel;
use crate::rules::Refused;

/// The most preimages that are read with one commitment: of all HTLCs that one side may offer (BOLT 2).
const MAX_PREIMAGES: usize = 483;

/// The step from one commitment to the next one of the same side.
pub(crate) struct Step {
    pub side: Side,
    /// The number of the commitment is the first.
    pub is_first: bool,
    pub added: Htlcs,
    pub removed: Htlcs,
    /// Outgoing HTLCs that the peer's commitment no longer has, and the owner's latest one has.
    pub early: Htlcs,
    /// Outgoing HTLCs that the owner's commitment has outputs for, and no commitment of the peer: its dust limit is higher.
    pub small: Htlcs,
    /// Of those, what was failed.
    pub returned_small_msat: u64,
    pub balance: Balance,
    /// The owner's balance before fee and anchors that follows from the commitment before, without HTLCs that have no output.
    pub expected_msat: u64,
    /// HTLCs without outputs that are said to be added.
    pub trimmed: Vec<Trimmed>,
    /// Preimages of outgoing payments that are new to the phone.
    pub preimages: BTreeSet<[u8; 32]>,
}

/// An outgoing HTLC that has no output (BOLT 3, "Trimmed Outputs").
pub(crate) struct Trimmed {
    pub payment_hash: [u8; 32],
    pub amount_msat: u64,
}

/// What the host says of a step, beside the commitment.
pub(super) struct Said<'a> {
    pub preimages: &'a [Vec<u8>],
    pub trimmed: &'a [proto::TrimmedHtlc],
}

impl Step {
    /// Sum of the outgoing HTLCs that are said to be added without outputs.
    pub fn trimmed_msat(&self) -> u64 {
        let trimmed = self.trimmed.iter();
        trimmed.fold(0, |sum: u64, htlc| sum.saturating_add(htlc.amount_msat))
    }

    /// The hashes of the outgoing payments that it adds HTLCs to.
    pub fn paid_hashes(&self) -> BTreeSet<[u8; 32]> {
        let visible = self.added.iter().filter(|(htlc, _)| htlc.is_outgoing);
        let visible = visible.map(|(htlc, _)| htlc.payment_hash);
        let trimmed = self.trimmed.iter().map(|htlc| htlc.payment_hash);
        visible.chain(trimmed).collect()
    }
}

impl Signer {
    /// The step to `next`, the commitment of `side` that follows the latest on record.
    pub(super) fn step(
        &self,
        channel: &Channel,
        side: Side,
        next: &CommitmentTransaction,
        said: &Said<'_>,
    ) -> Result<Step, Refused> {
        let preimages = preimages(said.preimages)?;
        let trimmed = said.trimmed.iter().map(trimmed).collect::<Result<_, _>>()?;
        let is_known = |hash: &[u8; 32]| {
            let intent = self.state.payment_intents.get(hash);
            preimages.iter().any(|(known, _)| known == hash)
                || intent.is_some_and(|intent| intent.preimage.is_some())
        };
        let before = match side {
            Side::Holder => channel.holder.first().map(|latest| &*latest.commitment),
            Side::Counterparty => channel.peer.first().map(|latest| &latest.commitment),
        };
        let parameters = &channel.parameters;
        let old = before.map_or_else(Htlcs::default, |before| Htlcs::of(before, side));
        let new = Htlcs::of(next, side);
        let (added, removed) = (new.without(&old), old.without(&new));
        let before_msat = match before {
            Some(before) => {
                let carried_msat = match side {
                    Side::Holder => channel.hidden.holder_carried_msat,
                    Side::Counterparty => channel.hidden.peer_carried_msat,
                };
                Balance::of(parameters, before, side).before_cost_msat(carried_msat)
            }
            // The funder has the whole channel, and pushes nothing to its peer.
            None if parameters.is_outbound_from_holder => {
                parameters.channel_value_satoshis.saturating_mul(1000)
            }
            None => 0,
        };
        let leaves = added.clone().filter(|htlc| htlc.is_outgoing).sum_msat();
        let returns = |htlc: &Htlc| htlc.is_outgoing && !is_known(&htlc.payment_hash);
        let returned = removed.clone().filter(returns).sum_msat();
        let earned = removed.common(&channel.owed).sum_msat();
        let more_msat = before_msat.saturating_add(returned).saturating_add(earned);
        let is_new = |hash: &[u8; 32]| {
            let intent = self.state.payment_intents.get(hash);
            intent.is_some_and(|intent| intent.preimage.is_none())
        };
        let new_preimages = preimages.iter().filter(|(hash, _)| is_new(hash));
        Ok(Step {
            side,
            is_first: before.is_none(),
            early: match side {
                Side::Holder => Htlcs::default(),
                Side::Counterparty => removed
                    .common(&channel.latest_holder_htlcs())
                    .filter(|htlc| htlc.is_outgoing),
            },
            small: match side {
                Side::Holder => added
                    .without(&channel.peer_htlcs())
                    .filter(|htlc| htlc.is_outgoing),
                Side::Counterparty => Htlcs::default(),
            },
            returned_small_msat: match side {
                Side::Holder => removed
                    .without(&channel.peer_htlcs())
                    .filter(returns)
                    .sum_msat(),
                Side::Counterparty => 0,
            },
            added,
            removed,
            balance: Balance::of(parameters, next, side),
            expected_msat: more_msat.saturating_sub(leaves),
            trimmed,
            preimages: new_preimages.map(|(_, preimage)| *preimage).collect(),
        })
    }
}

/// A payment hash and its preimage.
type Proof = ([u8; 32], [u8; 32]);

fn preimages(preimages: &[Vec<u8>]) -> Result<Vec<Proof>, Refused> {
    if preimages.len() > MAX_PREIMAGES {
        return Err(Refused::malformed("more preimages than there are HTLCs"));
    }
    let read = |bytes: &Vec<u8>| {
        let preimage: [u8; 32] = bytes[..]
            .try_into()
            .map_err(|_| Refused::malformed("a preimage is not 32 bytes"))?;
        Ok((sha256::Hash::hash(&preimage).to_byte_array(), preimage))
    };
    preimages.iter().map(read).collect()
}

fn trimmed(said: &proto::TrimmedHtlc) -> Result<Trimmed, Refused> {
    let payment_hash = said.payment_hash[..].try_into();
    Ok(Trimmed {
        payment_hash: payment_hash
            .map_err(|_| Refused::malformed("a payment hash is not 32 bytes"))?,
        amount_msat: said.amount_msat,
    })
}
