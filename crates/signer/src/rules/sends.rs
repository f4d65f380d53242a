//! Payments on chain: each carries out an intent of the owner.

use bitcoin::Amount;

use super::{Refused, Rule, inputs, refuse_unless};
use crate::intents::OnchainIntent;
use crate::limits::Limits;
use crate::proposal::{OnChain, Send};
use crate::view::View;

/// Of an input's witness: a signature and a key, with their lengths.
const WITNESS_WEIGHT: u64 = 112;
/// The weight for which an intent's fee limit is meant, in weight units.
const LIMIT_WEIGHT: u64 = 10_000;

pub(super) fn have_own_inputs(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.sends.is_none() || inputs::fix_the_txid(it),
        Rule::NotOurInput,
        "the payment has an input that is not the phone's, or not proved to be",
    )
}

pub(super) fn are_asked_for(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.sends.as_ref().is_none_or(|sends| !sends.is_empty()),
        Rule::SendUnasked,
        "this phone was not asked for this payment, or has signed another one for it",
    )
}

pub(super) fn cost_no_more_than_allowed(view: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.sends.is_none() || within_limit(view.limits(), it).is_some(),
        Rule::SendUnasked,
        "the fee is above the limit for this payment: give a fee rate to allow more",
    )
}

/// The first intent whose limit allows the fee.
pub(crate) fn within_limit<'a>(limits: &Limits, it: &'a OnChain<'_>) -> Option<&'a OnchainIntent> {
    let fee_sat = it.fee_sat()?;
    let is_within = |send: &&Send<'_>| {
        fee_sat <= fee_limit_sat(limits, send.intent.max_fee_sat, send.amount, it)
    };
    let send = it.sends.as_ref()?.iter().find(is_within)?;
    Some(send.intent)
}

/// The most that a payment may cost. The intent's limit is for a transaction of [`LIMIT_WEIGHT`], and more in proportion
/// for a heavier one: how many coins it spends is the wallet's choice.
pub(super) fn fee_limit_sat(
    limits: &Limits,
    max_fee_sat: u64,
    amount: Amount,
    it: &OnChain<'_>,
) -> u64 {
    let inputs = it.psbt.inputs.len() as u64;
    let weight = it.psbt.unsigned_tx.weight().to_wu() + WITNESS_WEIGHT * inputs;
    let heavier = max_fee_sat.saturating_mul(weight) / LIMIT_WEIGHT;
    let percent = amount.to_sat() / 100 * limits.numbers.send_fee_percent;
    max_fee_sat.max(heavier).max(percent)
}
