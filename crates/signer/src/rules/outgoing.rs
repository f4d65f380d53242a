//! Outgoing payments: an HTLC is offered only for a payment that the owner asked for on this phone.

use super::{Refused, Rule, chain, refuse_unless};
use crate::hidden::PEER_DUST_LIMIT_SAT;
use crate::htlcs::{Htlc, Htlcs};
use crate::intents::PaymentIntent;
use crate::ledger::State;
use crate::proposal::{CounterpartyCommitment, HolderCommitment, KeysId, Step};
use crate::view::View;

/// Every HTLC that the peer may take money from, summed by payment, is within what the owner allowed.
pub(super) fn are_asked_for(
    view: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let Some(step) = &it.step else { return Ok(()) };
    let mut hashes = step.paid_hashes().into_iter();
    hashes.try_for_each(|hash| is_asked_for(view, &it.keys_id, step, &hash))
}

/// The most blocks from now until an outgoing HTLC expires: longer its amount is not to be locked, whatever the peers on its way do. LDK's
/// own bound of a route is 1,008.
const MOST_EXPIRY_BLOCKS: u32 = 2_016;

pub(super) fn expire_within_reach(
    view: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let last = view
        .sight
        .headers
        .height()
        .saturating_add(MOST_EXPIRY_BLOCKS);
    refuse_unless(
        added(it).all(|htlc| htlc.cltv_expiry <= last),
        Rule::PaymentFar,
        "an outgoing HTLC expires too far from the newest block that this phone knows",
    )
}

/// With an old tip neither the expiry nor a payment's end can be judged.
pub(super) fn are_on_a_fresh_chain(
    view: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    match added(it).next() {
        Some(_) => chain::is_fresh(view),
        None => Ok(()),
    }
}

/// The outgoing HTLCs that a step adds.
fn added<'a>(it: &'a CounterpartyCommitment<'_>) -> impl Iterator<Item = &'a Htlc> {
    let step = it.step.iter();
    let added = step.flat_map(|step| step.added.iter().map(|(htlc, _)| htlc));
    added.filter(|htlc| htlc.is_outgoing)
}

/// An outgoing HTLC is in a commitment of the peer first (BOLT 2), where it is compared with what the owner asked for: with an output, or
/// named without one, where the peer's dust limit is higher than the owner's.
pub(super) fn are_offered_to_the_peer(
    view: &View<'_>,
    it: &HolderCommitment<'_>,
) -> Result<(), Refused> {
    let Some(step) = &it.step else { return Ok(()) };
    let was_named = |(htlc, count): (&Htlc, u64)| {
        let intent = view.state.payment_intents.get(&htlc.payment_hash);
        let sum_msat = htlc.amount_msat.saturating_mul(count);
        htlc.amount_msat < PEER_DUST_LIMIT_SAT * 1000
            && intent.is_some_and(|intent| sum_msat <= intent.trimmed_msat)
    };
    refuse_unless(
        step.small.iter().all(was_named),
        Rule::PaymentUnasked,
        "an outgoing HTLC is in the owner's commitment that is in none of the peer's",
    )
}

/// An HTLC without an output is smaller than any dust limit.
pub(super) fn named_are_small(
    _: &View<'_>,
    it: &CounterpartyCommitment<'_>,
) -> Result<(), Refused> {
    let Some(step) = &it.step else { return Ok(()) };
    let mut named = step.trimmed.iter();
    refuse_unless(
        named.all(|htlc| htlc.amount_msat < PEER_DUST_LIMIT_SAT * 1000),
        Rule::Balance,
        "an HTLC is named as one without an output that is too large for it",
    )
}

fn is_asked_for(
    view: &View<'_>,
    keys_id: &KeysId,
    step: &Step,
    hash: &[u8; 32],
) -> Result<(), Refused> {
    if view.state.payments.contains_key(hash) {
        return Err(unasked(
            "an invoice of the owner's would be paid by the owner",
        ));
    }
    let intent = view.state.payment_intents.get(hash);
    let intent = intent.ok_or_else(|| unasked("this phone was not asked for a payment"))?;
    if intent.is_over {
        return Err(unasked("the payment has ended, and the owner knows"));
    }
    let last_unix_s = intent
        .expires_unix_s
        .saturating_add(view.limits().numbers.late_payment_s);
    if view.now_unix_s > last_unix_s {
        return Err(unasked("the invoice of the payment expired long ago"));
    }
    let trimmed = step
        .trimmed
        .iter()
        .filter(|htlc| htlc.payment_hash == *hash);
    let trimmed_msat = trimmed.fold(0, |sum: u64, htlc| sum.saturating_add(htlc.amount_msat));
    let out_msat = taken_msat(view.state, intent, Some((keys_id, step)));
    let out_msat = out_msat.saturating_add(trimmed_msat);
    refuse_unless(
        out_msat <= intent.limit_msat(),
        Rule::PaymentLimit,
        "more would leave for a payment than its amount and fee limit",
    )
}

/// What a payment has taken so far, and what peers may still claim for it in all commitments of all channels, with the commitment that
/// `next` leads to.
pub(crate) fn taken_msat(
    state: &State,
    intent: &PaymentIntent,
    next: Option<(&KeysId, &Step)>,
) -> u64 {
    let is_of_payment = |htlc: &Htlc| htlc.is_outgoing && htlc.payment_hash == intent.payment_hash;
    let before_msat = intent.spent_msat.saturating_add(intent.trimmed_msat);
    let in_flight_msat = state.channels.iter().map(|(keys_id, channel)| {
        let mut here = channel.standing_htlcs();
        if let Some((_, step)) = next.filter(|(id, _)| *id == keys_id) {
            here = here.union(&after(channel.latest_peer_htlcs(), step));
        }
        here.filter(is_of_payment).sum_msat()
    });
    in_flight_msat.fold(before_msat, u64::saturating_add)
}

/// The HTLCs after a step.
fn after(before: Htlcs, step: &Step) -> Htlcs {
    let mut after = before.without(&step.removed);
    step.added
        .iter()
        .for_each(|(htlc, count)| after.add(*htlc, count));
    after
}

fn unasked(why: &str) -> Refused {
    Refused::new(Rule::PaymentUnasked, why)
}
