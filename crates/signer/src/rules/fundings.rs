//! Fundings of channels, whatever the host says that the transaction is for.

use bitcoin::{Amount, OutPoint, TxOut};

use super::sends::fee_limit_sat;
use super::{Refused, Rule, chain, inputs, refuse_unless};
use crate::commitment::funding_script;
use crate::ledger::{Channel, KnownChannelIntent};
use crate::proposal::OnChain;
use crate::view::View;

pub(super) fn have_their_outputs(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.funds.iter().all(|channel| has_output(it, channel)),
        Rule::FundingOutput,
        "the transaction has not the channel's funding output",
    )
}

pub(super) fn are_validated(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.funds
            .iter()
            .all(|channel| channel.holder_index().is_some()),
        Rule::FundingBeforeValidate,
        "the peer's signatures on the channel's first commitment are not on record yet",
    )
}

/// The channel's commitments depend on the txid.
pub(super) fn have_fixed_txids(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.funds.is_empty() || inputs::fix_the_txid(it),
        Rule::NotOurInput,
        "the channel's funding has an input that is not the phone's, or not proved to be",
    )
}

/// Each channel is one that the owner asked for, and its transactions are such that at most one of them confirms.
pub(super) fn are_asked_for(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    let mut funds = it.funds.iter();
    let ids: Vec<&Vec<u8>> = it.funds.iter().map(|channel| &channel.opening_id).collect();
    let are_distinct = (1..ids.len()).all(|index| !ids[..index].contains(&ids[index]));
    refuse_unless(
        are_distinct && funds.all(|channel| opening(it, channel).is_some()),
        Rule::FundingUnasked,
        "this phone was not asked for this channel, or has signed another funding for it",
    )
}

/// What is left of the inputs comes back to the owner.
pub(super) fn pay_nobody_else(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    let is_funding = |index: &usize| {
        let mut funds = it.funds.iter();
        funds.any(|channel| {
            let outpoint = channel.parameters.funding_outpoint;
            outpoint.is_some_and(|outpoint| usize::from(outpoint.index) == *index)
        })
    };
    refuse_unless(
        it.funds.is_empty() || it.foreign.iter().all(is_funding),
        Rule::FundingUnasked,
        "the funding pays somebody else too",
    )
}

pub(super) fn cost_no_more_than_allowed(view: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    let fee_limit_sat = it.funds.iter().fold(0, |sum: u64, channel| {
        let value = Amount::from_sat(channel.parameters.channel_value_satoshis);
        let max_fee_sat = opening(it, channel).map_or(0, |opening| opening.max_fee_sat());
        sum.saturating_add(fee_limit_sat(view.limits(), max_fee_sat, value, it))
    });
    refuse_unless(
        it.funds.is_empty() || it.fee_sat().is_some_and(|fee_sat| fee_sat <= fee_limit_sat),
        Rule::FundingUnasked,
        "the fee of the funding is above the limit for this opening: give a fee rate to allow more",
    )
}

/// A funding that the phone cannot see confirm is not signed.
pub(super) fn are_on_a_fresh_chain(view: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    match it.funds.is_empty() {
        true => Ok(()),
        false => chain::is_fresh(view),
    }
}

/// The intent that the transaction carries out for a channel.
fn opening<'a>(it: &OnChain<'a>, channel: &Channel) -> Option<&'a KnownChannelIntent> {
    let mut inputs = it.psbt.unsigned_tx.input.iter();
    let mut is_replaced = |spent: &OutPoint| inputs.any(|input| input.previous_output == *spent);
    let of_channel = it.openings.iter().find(|opening| opening.is_of(channel));
    let opening = of_channel.copied()?;
    opening
        .spends
        .as_ref()
        .is_none_or(&mut is_replaced)
        .then_some(opening)
}

fn has_output(it: &OnChain<'_>, channel: &Channel) -> bool {
    let parameters = &channel.parameters;
    let Some((outpoint, script)) = parameters.funding_outpoint.zip(funding_script(parameters))
    else {
        return false;
    };
    let funding = TxOut {
        value: Amount::from_sat(parameters.channel_value_satoshis),
        script_pubkey: script.to_p2wsh(),
    };
    let tx = &it.psbt.unsigned_tx;
    let output = tx.output.get(usize::from(outpoint.index));
    tx.compute_txid() == outpoint.txid && output == Some(&funding)
}
