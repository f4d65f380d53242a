//! The owner's balance across commitments: it changes by the HTLCs that come and go, and by fees, and by nothing else.

use super::{Refused, Rule, refuse_unless};
use crate::commitment::Side;
use crate::proposal::{CounterpartyCommitment, HolderCommitment, Step};
use crate::view::View;

/// The amount below which the owner's commitments have no outputs: LDK's.
const OWN_DUST_LIMIT_SAT: u64 = 354;
/// The highest amount below which the peer's commitments may have no outputs: LDK refuses channels with a higher one.
const PEER_DUST_LIMIT_SAT: u64 = 10_000;

pub(super) fn is_kept_by_holder(_: &View<'_>, it: &HolderCommitment<'_>) -> Result<(), Refused> {
    let Some(step) = &it.step else { return Ok(()) };
    is_kept(step, it.channel.trimmed_unseen_msat)
}

pub(super) fn is_kept_by_counterparty(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let Some(step) = &it.step else { return Ok(()) };
    is_kept(step, step.trimmed_msat())
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

/// `trimmed_msat`: what may be missing, in HTLCs without outputs.
fn is_kept(step: &Step, trimmed_msat: u64) -> Result<(), Refused> {
    let missing_msat = missing_msat(step);
    if missing_msat <= trimmed_msat {
        return Ok(());
    }
    let sat = (missing_msat - trimmed_msat).div_ceil(1000);
    Err(Refused::new(
        Rule::Balance,
        format!("{sat} sat of the owner's balance are missing, and no HTLC or fee explains it"),
    ))
}

/// The part of the owner's balance that no visible HTLC explains.
pub(crate) fn missing_msat(step: &Step) -> u64 {
    let dust_limit_sat = match step.side {
        Side::Holder => OWN_DUST_LIMIT_SAT,
        Side::Counterparty => PEER_DUST_LIMIT_SAT,
    };
    step.balance
        .missing_msat(step.expected_msat, dust_limit_sat)
}
