//! The owner's balance across commitments: it changes by the HTLCs that come and go, and by fees, and by nothing else.

use super::{Refused, Rule, refuse_unless};
use crate::hidden::{Missing, explain};
use crate::ledger::Channel;
use crate::proposal::{CounterpartyCommitment, HolderCommitment, Step};
use crate::view::View;

pub(super) fn is_kept_by_holder(_: &View<'_>, it: &HolderCommitment<'_>) -> Result<(), Refused> {
    is_kept(it.channel, it.step.as_ref())
}

pub(super) fn is_kept_by_counterparty(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    is_kept(it.channel, it.step.as_ref())
}

/// The first commitment of a channel has no HTLCs (BOLT 2, `funding_created`).
pub(super) fn begins_empty(step: Option<&Step>) -> Result<(), Refused> {
    let is_good = |step: &Step| !step.is_first || step.added.is_empty() && step.trimmed.is_empty();
    refuse_unless(
        step.is_none_or(is_good),
        Rule::Balance,
        "the first commitment of a channel has HTLCs",
    )
}

/// An outgoing HTLC leaves the owner's commitment before the peer's (BOLT 2): otherwise the peer could claim it in the one, and have it
/// offered again in the other.
pub(super) fn keeps_htlcs_of_holder(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    refuse_unless(
        it.step.as_ref().is_none_or(|step| step.early.is_empty()),
        Rule::HtlcRemovedEarly,
        "an outgoing HTLC leaves the peer's commitment while the owner's has it",
    )
}

/// The funder pays the fee of every HTLC that the peer adds.
pub(super) fn costs_no_more_than_allowed(
    view: &View<'_>,
    step: Option<&Step>,
) -> Result<(), Refused> {
    let most_sat = view.limits().numbers.own_commitment_fee_sat;
    refuse_unless(
        step.is_none_or(|step| step.balance.cost_sat() <= most_sat),
        Rule::CommitmentFee,
        "the owner would pay more for the commitment than its limit (`own_commitment_fee_sat`)",
    )
}

fn is_kept(channel: &Channel, step: Option<&Step>) -> Result<(), Refused> {
    let Some(step) = step else { return Ok(()) };
    let missing = match explain(&channel.hidden, step) {
        Ok(_) => return Ok(()),
        Err(Missing(msat)) => msat.div_ceil(1000),
    };
    Err(Refused::new(
        Rule::Balance,
        format!("{missing} sat of the owner's balance are missing, and no HTLC or fee explains it"),
    ))
}
