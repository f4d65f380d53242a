//! What commitments do not show: how a step changes the sums of a channel's HTLCs without outputs, and its balances without outputs.
//!
//! An outgoing HTLC is added to the peer's commitment first, and to the owner's after it; one that failed leaves the owner's first (BOLT
//! 2). So the owner's commitment may lack only what the peer's has lacked before, and the peer's may hide only what has come back in the
//! owner's.

use crate::balance::Balance;
use crate::commitment::Side;
use crate::ledger::Hidden;
use crate::proposal::Step;

/// The amount below which the owner's commitments have no outputs: LDK's.
pub(crate) const OWN_DUST_LIMIT_SAT: u64 = 354;
/// The highest amount below which the peer's commitments may have no outputs: LDK refuses channels with a higher one.
pub(crate) const PEER_DUST_LIMIT_SAT: u64 = 10_000;

/// A step that can be explained.
pub(crate) struct Explained {
    /// The sums after it.
    pub hidden: Hidden,
    /// What has come back of HTLCs that were named before.
    pub given_back_msat: u64,
}

/// The part of the owner's balance that is missing without an explanation, in millisatoshis.
pub(crate) struct Missing(pub u64);

/// Explains a step by HTLCs without outputs.
pub(crate) fn explain(hidden: &Hidden, step: &Step) -> Result<Explained, Missing> {
    match step.side {
        Side::Holder => explain_holder(*hidden, step),
        Side::Counterparty => explain_peer(*hidden, step),
    }
}

fn explain_holder(mut hidden: Hidden, step: &Step) -> Result<Explained, Missing> {
    let balance = &step.balance;
    let missing_msat = balance.missing_msat(step.expected_msat, OWN_DUST_LIMIT_SAT);
    let lacks_msat = missing_msat.saturating_add(step.small.sum_msat());
    let left_msat = hidden.unseen_msat.checked_sub(lacks_msat);
    hidden.unseen_msat =
        left_msat.ok_or_else(|| Missing(lacks_msat.saturating_sub(hidden.unseen_msat)))?;
    let gained_msat = balance.gained_msat(step.expected_msat);
    let known_msat = gained_msat.min(hidden.gained_msat);
    hidden.gained_msat -= known_msat;
    let returned_msat = (gained_msat - known_msat).saturating_add(step.returned_small_msat);
    hidden.returned_msat = hidden.returned_msat.saturating_add(returned_msat);
    hidden.holder_carried_msat = carried_msat(balance, step.expected_msat);
    Ok(Explained {
        hidden,
        given_back_msat: 0,
    })
}

fn explain_peer(mut hidden: Hidden, step: &Step) -> Result<Explained, Missing> {
    let (balance, named_msat) = (&step.balance, step.trimmed_msat());
    let missing_msat = balance.missing_msat(step.expected_msat, PEER_DUST_LIMIT_SAT);
    if missing_msat > named_msat {
        return Err(Missing(missing_msat - named_msat));
    }
    // An HTLC that is added and one that comes back in the same step hide each other.
    let covered_msat = (named_msat - missing_msat).min(hidden.returned_msat);
    let lacked_msat = match (balance.is_shown(), missing_msat) {
        (false, _) => named_msat,
        (true, 0) => covered_msat,
        // Commitments show whole satoshis.
        (true, missing) => missing.saturating_add(999).saturating_add(covered_msat),
    };
    let unseen_msat = hidden
        .unseen_msat
        .saturating_add(lacked_msat.min(named_msat));
    let gained_msat = balance.gained_msat(step.expected_msat);
    let back_msat = gained_msat.min(hidden.returned_msat - covered_msat);
    hidden.unseen_msat = unseen_msat;
    hidden.returned_msat -= covered_msat + back_msat;
    hidden.gained_msat = hidden.gained_msat.saturating_add(gained_msat - back_msat);
    hidden.peer_carried_msat = carried_msat(balance, step.expected_msat.saturating_sub(named_msat));
    Ok(Explained {
        hidden,
        given_back_msat: covered_msat + back_msat,
    })
}

/// A balance that has no output goes on from where it was.
fn carried_msat(balance: &Balance, expected_msat: u64) -> u64 {
    match balance.is_shown() {
        true => 0,
        false => expected_msat,
    }
}
