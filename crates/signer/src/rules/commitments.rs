//! Commitments of both sides (BOLT 3). After these rules LDK's functions, which trust their input and panic on some of it, can sign the
//! commitment and build its transactions.

use std::collections::BTreeSet;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Secp256k1};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction, get_htlc_redeemscript, htlc_success_tx_weight,
    htlc_timeout_tx_weight,
};

use super::{Refused, Rule, refuse_unless};
use crate::commitment::{
    FIRST_INDEX, Side, funding_script, holder_htlc_transaction, htlc_sighash, same, zero_fee_htlcs,
};
use crate::ledger::Channel;
use crate::parallel;
use crate::proposal::{CounterpartyCommitment, HolderCommitment};
use crate::view::View;

/// The lowest fee rate that nodes relay (one satoshi per vbyte), rounded down.
const LEAST_FEERATE_SAT_PER_KW: u64 = 250;

pub(super) fn is_next_of_holder(_: &View<'_>, it: &HolderCommitment<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.is_repeated() || Some(it.index()) == next_index(it.channel.holder_index()),
        Rule::HolderNumber,
        "the holder commitment is not the next one",
    )
}

pub(super) fn is_the_same_of_holder(
    _: &View<'_>,
    it: &HolderCommitment<'_>,
) -> Result<(), Refused> {
    let latest = it.channel.holder.first().filter(|_| it.is_repeated());
    refuse_unless(
        latest.is_none_or(|latest| same(&latest.commitment, &it.commitment)),
        Rule::HolderNumber,
        "another holder commitment with this number is on record",
    )
}

pub(super) fn is_of_channel_for_holder(
    view: &View<'_>,
    it: &HolderCommitment<'_>,
) -> Result<(), Refused> {
    let parameters = &it.channel.parameters;
    is_of_channel(view.own.secp(), parameters, Side::Holder, &it.commitment)
}

pub(super) fn has_our_point(view: &View<'_>, it: &HolderCommitment<'_>) -> Result<(), Refused> {
    let point = view.own.point(&it.keys_id, it.index());
    refuse_unless(
        point == Some(it.commitment.per_commitment_point()),
        Rule::CommitmentMismatch,
        "the per-commitment point is not the owner's",
    )
}

/// The commitment itself, and each of its HTLC transactions.
pub(super) fn is_signed_by_the_peer(
    view: &View<'_>,
    it: &HolderCommitment<'_>,
) -> Result<(), Refused> {
    let (secp, parameters, commitment) = (view.own.secp(), &it.channel.parameters, &it.commitment);
    let (peer, funding) = parameters
        .counterparty_pubkeys()
        .zip(funding_script(parameters))
        .ok_or_else(|| Refused::malformed("the peer's keys are missing"))?;
    let sighash = commitment
        .trust()
        .built_transaction()
        .get_sighash_all(&funding, parameters.channel_value_satoshis);
    secp.verify_ecdsa(&sighash, &commitment.counterparty_sig, &peer.funding_pubkey)
        .map_err(|_| bad_signature("the commitment transaction"))?;
    if commitment.counterparty_htlc_sigs.len() != commitment.nondust_htlcs().len() {
        return Err(bad_signature(
            "an HTLC transaction (there must be one for each HTLC)",
        ));
    }
    let htlcs = commitment.nondust_htlcs().iter();
    let pairs: Vec<_> = htlcs.zip(&commitment.counterparty_htlc_sigs).collect();
    let checked = parallel::try_map(&pairs, |(htlc, signature)| {
        let is_valid = is_htlc_signature(secp, parameters, commitment, htlc, signature);
        is_valid
            .then_some(())
            .ok_or_else(|| bad_signature("an HTLC transaction"))
    });
    checked.map(|_| ())
}

pub(super) fn is_of_channel_for_counterparty(
    view: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let parameters = &it.channel.parameters;
    is_of_channel(
        view.own.secp(),
        parameters,
        Side::Counterparty,
        &it.commitment,
    )
}

pub(super) fn is_the_same_of_counterparty(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    refuse_unless(
        it.on_record()
            .is_none_or(|signed| same(signed, &it.commitment)),
        Rule::CounterpartyNumber,
        "another commitment with this number was signed for the peer",
    )
}

pub(super) fn is_next_of_counterparty(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let is_next = Some(it.index()) == next_index(it.channel.peer_index());
    refuse_unless(
        it.on_record().is_some() || is_next,
        Rule::CounterpartyNumber,
        "the commitment is not the peer's next one",
    )
}

/// The peer holds index + 1; index + 2 must be revoked before it may hold a third.
pub(super) fn is_no_third(_: &View<'_>, it: &CounterpartyCommitment<'_>) -> Result<(), Refused> {
    let before_last = it.index() + 2;
    refuse_unless(
        it.on_record().is_some()
            || before_last > FIRST_INDEX
            || it.channel.peer_revoked() <= before_last,
        Rule::CounterpartyUnrevoked,
        "the peer has not revoked its commitment before the last yet",
    )
}

pub(super) fn is_open_for_holder(_: &View<'_>, it: &HolderCommitment<'_>) -> Result<(), Refused> {
    is_open(it.channel, it.step.is_some())
}

pub(super) fn is_open_for_counterparty(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    is_open(it.channel, it.step.is_some())
}

/// After a close was signed the funding output may be spent at any time, and a further commitment is worth nothing.
fn is_open(channel: &Channel, is_new: bool) -> Result<(), Refused> {
    refuse_unless(
        !is_new || (!channel.is_closing && channel.broadcast.is_none()),
        Rule::ChannelClosing,
        "a close of this channel was signed: nothing else follows in it",
    )
}

/// The owner has one commitment, or two while a revocation is due: an older one could be signed for broadcast.
pub(super) fn leaves_two(_: &View<'_>, it: &HolderCommitment<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.step.is_none() || it.channel.holder.len() < 2,
        Rule::HolderUnrevoked,
        "the owner's commitment before the last is not revoked yet",
    )
}

/// With its secret, and the owner's signature for justice, the HTLCs of such a commitment would be the peer's and the host's.
pub(super) fn has_a_new_point(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let point = it.commitment.per_commitment_point();
    refuse_unless(
        it.step.is_none() || !it.channel.punished.contains(&point),
        Rule::CounterpartyNumber,
        "justice was signed for another commitment with the same per-commitment point",
    )
}

pub(super) fn has_a_bearable_fee_for_holder(
    view: &View<'_>,
    it: &HolderCommitment<'_>,
) -> Result<(), Refused> {
    let is_new = it.step.is_some();
    has_a_bearable_fee(view, is_new, &it.channel.parameters, &it.commitment)
}

pub(super) fn has_a_bearable_fee_for_counterparty(
    view: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let is_new = it.step.is_some();
    has_a_bearable_fee(view, is_new, &it.channel.parameters, &it.commitment)
}

/// The funder pays the fee of every commitment. A fee rate that nobody relays would keep the owner from closing.
fn has_a_bearable_fee(
    view: &View<'_>,
    is_new: bool,
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
) -> Result<(), Refused> {
    let most = match parameters.is_outbound_from_holder {
        true => view.limits().numbers.own_commitment_feerate_sat_per_kw,
        false => view.limits().numbers.peer_commitment_feerate_sat_per_kw,
    };
    let features = &parameters.channel_type_features;
    let least = match features.supports_anchor_zero_fee_commitments() {
        true => 0,
        false => LEAST_FEERATE_SAT_PER_KW,
    };
    let feerate = u64::from(commitment.negotiated_feerate_per_kw());
    refuse_unless(
        !is_new || (least..=most).contains(&feerate),
        Rule::CommitmentFee,
        &format!(
            "the fee rate of the commitment, {feerate} sat per 1,000 weight units, is not between {least} and {most}"
        ),
    )
}

/// Checks that `commitment` is the one that follows from `parameters`, its number, amounts and HTLCs: every output, every key.
fn is_of_channel(
    secp: &Secp256k1<All>,
    parameters: &ChannelTransactionParameters,
    side: Side,
    commitment: &CommitmentTransaction,
) -> Result<(), Refused> {
    if commitment.commitment_number() > FIRST_INDEX {
        return Err(mismatch("its number is out of range"));
    }
    if commitment.trust().channel_type_features() != &parameters.channel_type_features {
        return Err(mismatch("its channel type is not the channel's"));
    }
    has_possible_amounts(parameters, commitment)?;
    let directed = match side {
        Side::Holder => parameters.as_holder_broadcastable(),
        Side::Counterparty => parameters.as_counterparty_broadcastable(),
    };
    commitment
        .verify(&directed, secp)
        .map_err(|()| mismatch("its transaction is not what its parts make"))?;
    has_its_htlc_outputs(commitment)
}

/// Checks that no sum can overflow, and that no HTLC transaction can pay more than its input.
fn has_possible_amounts(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
) -> Result<(), Refused> {
    let balances = u128::from(commitment.to_broadcaster_value_sat())
        + u128::from(commitment.to_countersignatory_value_sat());
    let htlcs: u128 = commitment
        .nondust_htlcs()
        .iter()
        .map(|htlc| u128::from(htlc.amount_msat / 1000))
        .sum();
    if balances + htlcs > u128::from(parameters.channel_value_satoshis) {
        return Err(mismatch("it spends more than the channel holds"));
    }
    if zero_fee_htlcs(&parameters.channel_type_features) {
        return Ok(());
    }
    let feerate = u64::from(commitment.negotiated_feerate_per_kw());
    for htlc in commitment.nondust_htlcs() {
        let weight = match htlc.offered {
            true => htlc_timeout_tx_weight(&parameters.channel_type_features),
            false => htlc_success_tx_weight(&parameters.channel_type_features),
        };
        if feerate * weight / 1000 > htlc.amount_msat / 1000 {
            return Err(mismatch("an HTLC does not pay for its own transaction"));
        }
    }
    Ok(())
}

/// Checks the output index of each HTLC, which LDK's `verify` trusts when it rebuilds the outputs.
fn has_its_htlc_outputs(commitment: &CommitmentTransaction) -> Result<(), Refused> {
    let trusted = commitment.trust();
    let outputs = &trusted.built_transaction().transaction.output;
    let mut taken = BTreeSet::new();
    for htlc in commitment.nondust_htlcs() {
        let index = htlc
            .transaction_output_index
            .ok_or_else(|| mismatch("an HTLC has no output"))?;
        let script =
            get_htlc_redeemscript(htlc, trusted.channel_type_features(), trusted.keys()).to_p2wsh();
        let fits = usize::try_from(index)
            .ok()
            .and_then(|index| outputs.get(index));
        let fits = fits.is_some_and(|out| {
            out.script_pubkey == script && out.value == htlc.to_bitcoin_amount()
        });
        if !fits || !taken.insert(index) {
            return Err(mismatch("an HTLC names an output that is not its own"));
        }
    }
    Ok(())
}

/// Whether `signature` is the peer's on the second-stage transaction of `htlc` (BOLT 3).
fn is_htlc_signature(
    secp: &Secp256k1<All>,
    parameters: &ChannelTransactionParameters,
    commitment: &HolderCommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    signature: &Signature,
) -> bool {
    let transaction = holder_htlc_transaction(parameters, commitment, htlc);
    let keys = commitment.trust().keys();
    let key = keys.countersignatory_htlc_key.to_public_key();
    htlc_sighash(commitment, htlc, &transaction)
        .is_some_and(|sighash| secp.verify_ecdsa(&sighash, signature, &key).is_ok())
}

/// The index that follows `latest`; `None` when there is none left.
fn next_index(latest: Option<u64>) -> Option<u64> {
    match latest {
        None => Some(FIRST_INDEX),
        Some(latest) => latest.checked_sub(1),
    }
}

fn mismatch(what: &str) -> Refused {
    Refused::new(
        Rule::CommitmentMismatch,
        format!("the commitment is not the channel's: {what}"),
    )
}

fn bad_signature(on: &str) -> Refused {
    Refused::new(
        Rule::HolderSignature,
        format!("the peer's signature on {on} is not valid"),
    )
}
