//! Rules: by each the signer refuses an operation. [`Rule`] lists them.
//!
//! A rule is a pure function of a `View` and a `Proposal`. `judge` has the list of the rules of each kind of proposal, in the order
//! in which they are asked; the first that refuses gives the answer. Only `judge` makes a `Judged`, and only that is signed.

mod balances;
mod bumps;
mod chain;
mod closes;
mod commitments;
mod fundings;
mod gossip;
mod handshakes;
mod inputs;
pub(crate) mod invoices;
mod onions;
pub(crate) mod outgoing;
pub(crate) mod preimages;
pub(crate) mod revocations;
mod sends;
mod setups;
pub(crate) mod spending;

use std::collections::BTreeMap;

use longhand_proto::rule::Retry;
pub use longhand_proto::rule::Rule;
use longhand_proto::signer::Refusal;

pub(crate) use sends::within_limit;

use crate::limits::Limits;
use crate::proposal::{Invoice, Proposal};
use crate::view::View;

/// A proposal that no rule refuses.
pub(crate) struct Judged<P>(P);

impl<P> Judged<P> {
    pub fn into_inner(self) -> P {
        self.0
    }
}

/// Judges an operation of the host. `warned`: what rules would have refused that the owner has set to warn.
pub(crate) fn judge<'a>(
    view: &View<'_>,
    proposal: Proposal<'a>,
    warned: &mut Vec<Refused>,
) -> Result<Judged<Proposal<'a>>, Refused> {
    let mut ask = |judged| unless_it_warns(view.limits(), judged, warned);
    match &proposal {
        Proposal::Setup(it) if it.on_record.is_some() => {
            ask(setups::is_the_same(view, it))?;
        }
        Proposal::Setup(it) => {
            ask(setups::is_of_this_ledger(view, it))?;
            ask(setups::is_whole(view, it))?;
            ask(setups::has_a_known_type(view, it))?;
            ask(setups::has_our_keys(view, it))?;
            ask(setups::has_foreign_counterparty_keys(view, it))?;
            ask(setups::has_a_value(view, it))?;
            ask(setups::is_asked_for(view, it))?;
            ask(setups::has_a_bearable_size(view, it))?;
            ask(setups::has_safe_delays(view, it))?;
            ask(setups::has_bearable_terms(view, it))?;
            ask(setups::has_its_own_funding(view, it))?;
            ask(chain::is_fresh(view))?;
        }
        Proposal::HolderCommitment(it) => {
            ask(commitments::is_open_for_holder(view, it))?;
            ask(commitments::is_next_of_holder(view, it))?;
            ask(commitments::leaves_two(view, it))?;
            ask(commitments::is_the_same_of_holder(view, it))?;
            ask(commitments::is_of_channel_for_holder(view, it))?;
            ask(commitments::has_our_point(view, it))?;
            ask(commitments::is_signed_by_the_peer(view, it))?;
            ask(commitments::has_a_bearable_fee_for_holder(view, it))?;
            ask(balances::begins_empty(it.step.as_ref()))?;
            ask(outgoing::are_offered_to_the_peer(view, it))?;
            ask(balances::costs_no_more_than_allowed(view, it.step.as_ref()))?;
            ask(balances::is_kept_by_holder(view, it))?;
        }
        Proposal::Release(it) => {
            ask(revocations::has_a_successor(view, it))?;
            ask(revocations::is_not_signed_for_broadcast(view, it))?;
        }
        Proposal::CounterpartyCommitment(it) => {
            ask(commitments::is_of_channel_for_counterparty(view, it))?;
            ask(commitments::is_the_same_of_counterparty(view, it))?;
            ask(commitments::is_next_of_counterparty(view, it))?;
            ask(commitments::is_no_third(view, it))?;
            ask(commitments::is_open_for_counterparty(view, it))?;
            ask(commitments::has_a_new_point(view, it))?;
            ask(commitments::has_a_bearable_fee_for_counterparty(view, it))?;
            ask(balances::begins_empty(it.step.as_ref()))?;
            ask(outgoing::named_are_small(view, it))?;
            ask(outgoing::are_asked_for(view, it))?;
            ask(outgoing::are_on_a_fresh_chain(view, it))?;
            ask(outgoing::expire_within_reach(view, it))?;
            ask(balances::keeps_htlcs_of_holder(view, it))?;
            ask(balances::costs_no_more_than_allowed(view, it.step.as_ref()))?;
            ask(balances::is_kept_by_counterparty(view, it))?;
        }
        Proposal::Revocation(it) if it.is_repeated() => {
            ask(revocations::is_the_same(view, it))?;
        }
        Proposal::Revocation(it) => {
            ask(revocations::is_next(view, it))?;
            ask(revocations::leaves_the_peer_a_newer_one(view, it))?;
            ask(revocations::has_the_secret(view, it))?;
        }
        Proposal::Closing(it) => {
            ask(closes::pays_the_owner(view, it))?;
            ask(closes::leaves_no_htlcs(view, it))?;
            ask(closes::pays_the_balance(view, it))?;
        }
        Proposal::Broadcast(it) => {
            ask(closes::is_on_record(view, it))?;
            ask(closes::may_end_now(view, it.channel))?;
        }
        Proposal::HolderHtlc(it) => {
            ask(closes::htlc_is_of_channel(view, it))?;
            ask(closes::htlc_is_on_record(view, it))?;
            ask(closes::htlc_pays_the_owner(view, it))?;
            ask(closes::may_end_now(view, it.channel))?;
        }
        Proposal::CounterpartyHtlc(it) => {
            ask(closes::htlc_is_in_force(view, it))?;
            ask(closes::htlc_has_expired(view, it))?;
            ask(closes::htlc_claim_pays_the_owner(view, it))?;
        }
        Proposal::Justice(it) => {
            ask(closes::is_revoked(view, it))?;
            ask(closes::justice_pays_the_owner(view, it))?;
        }
        Proposal::Sweep(it) => {
            ask(closes::sweep_pays_the_owner(view, it))?;
            ask(closes::sweep_is_of_the_owner(view, it))?;
            ask(closes::sweep_costs_no_more_than_allowed(view, it))?;
        }
        Proposal::OnChain(it) => {
            ask(fundings::have_their_outputs(view, it))?;
            ask(fundings::are_validated(view, it))?;
            ask(inputs::are_consistent(view, it))?;
            ask(inputs::are_signable(view, it))?;
            ask(fundings::have_fixed_txids(view, it))?;
            ask(inputs::are_any(view, it))?;
            ask(fundings::are_asked_for(view, it))?;
            ask(fundings::pay_nobody_else(view, it))?;
            ask(fundings::cost_no_more_than_allowed(view, it))?;
            ask(fundings::are_on_a_fresh_chain(view, it))?;
            ask(bumps::prove_their_inputs(view, it))?;
            ask(bumps::pay_the_owner(view, it))?;
            ask(bumps::are_asked_for(view, it))?;
            ask(bumps::cost_no_more_than_allowed(view, it))?;
            ask(sends::have_own_inputs(view, it))?;
            ask(sends::are_asked_for(view, it))?;
            ask(sends::cost_no_more_than_allowed(view, it))?;
        }
        Proposal::Preimage(it) if it.payment.public.released.is_some() => {}
        Proposal::Preimage(it) => {
            ask(preimages::has_an_invoice(view, it))?;
            ask(preimages::came_in_time(view, it))?;
            ask(preimages::are_of_read_onions(view, it))?;
            ask(preimages::are_in_proven_channels(view, it))?;
            ask(preimages::are_in_watched_channels(view, it))?;
            ask(preimages::can_be_claimed(view, it))?;
            ask(preimages::is_paid(view, it))?;
            ask(preimages::is_small_if_of_any_amount(view, it))?;
            ask(chain::is_fresh(view))?;
        }
        Proposal::Gossip(it) => {
            ask(gossip::is_of_the_network(view, it))?;
            ask(gossip::is_asked_for(view, it))?;
        }
        Proposal::Announcement(it) => {
            ask(gossip::announces_on_the_network(view, it))?;
            ask(gossip::announces_what_the_owner_would(it.channel))?;
        }
        Proposal::Onion(it) => {
            ask(onions::can_be_read(view, it))?;
            ask(onions::are_for_the_last_hop(view, it))?;
            ask(onions::have_their_own_points(view, it))?;
        }
        Proposal::Handshake(it) => {
            ask(handshakes::are_begun_with_their_secret(view, it))?;
            ask(handshakes::are_with_known_peers(view, it))?;
            ask(handshakes::are_not_of_onions(view, it))?;
            ask(handshakes::are_not_too_many(view, it))?;
        }
        Proposal::Proof(it) => {
            ask(chain::is_in_the_chain(view, it))?;
            ask(chain::is_of_the_channel(view, it))?;
        }
        Proposal::NewKeys(_) | Proposal::Points(_) | Proposal::Anchor(_) => {}
    }
    Ok(Judged(proposal))
}

/// Judges an invoice that the host wrote.
pub(crate) fn judge_invoice<'a>(
    view: &View<'_>,
    invoice: Invoice<'a>,
    warned: &mut Vec<Refused>,
) -> Result<Judged<Invoice<'a>>, Refused> {
    let mut ask = |judged| unless_it_warns(view.limits(), judged, warned);
    ask(invoices::is_for_the_payment(view, &invoice))?;
    ask(invoices::is_the_first(view, &invoice))?;
    ask(invoices::has_the_network(view, &invoice))?;
    ask(invoices::has_the_amount(view, &invoice))?;
    ask(invoices::has_the_payment_hash(view, &invoice))?;
    ask(invoices::has_our_secret(view, &invoice))?;
    ask(invoices::has_the_payee(view, &invoice))?;
    ask(invoices::has_the_description(view, &invoice))?;
    ask(invoices::has_the_expiry(view, &invoice))?;
    ask(invoices::has_our_date(view, &invoice))?;
    ask(invoices::has_no_fallback(view, &invoice))?;
    ask(invoices::has_a_usual_final_delta(view, &invoice))?;
    ask(invoices::has_no_metadata(view, &invoice))?;
    ask(invoices::has_hints_of_peers(view, &invoice))?;
    Ok(Judged(invoice))
}

/// What a rule says, unless its owner has set it to warn.
pub(crate) fn unless_it_warns(
    limits: &Limits,
    judged: Result<(), Refused>,
    warned: &mut Vec<Refused>,
) -> Result<(), Refused> {
    match judged {
        Err(refused) if limits.warnings.contains(&refused.rule) => {
            warned.push(refused);
            Ok(())
        }
        judged => judged,
    }
}

fn refuse_unless(holds: bool, rule: Rule, message: &str) -> Result<(), Refused> {
    match holds {
        true => Ok(()),
        false => Err(Refused::new(rule, message)),
    }
}

/// A refusal: the rule, and the reason in one line for a person. Nothing was signed and nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {message}")]
pub struct Refused {
    /// The rule that refused.
    pub rule: Rule,
    /// The operation and the reason. Never a secret.
    pub message: String,
    /// Whether the same operation may be answered later.
    pub retry: bool,
}

impl Refused {
    /// A refusal by `rule`, for good unless it always allows another attempt.
    pub(crate) fn new(rule: Rule, message: impl Into<String>) -> Refused {
        Refused {
            rule,
            message: message.into(),
            retry: rule.retry() == Retry::Always,
        }
    }

    /// A refusal for now by a rule whose refusals are for good otherwise ([`Retry::Sometimes`]).
    pub(crate) fn for_now(rule: Rule, message: impl Into<String>) -> Refused {
        debug_assert_eq!(rule.retry(), Retry::Sometimes, "{rule}");
        Refused {
            rule,
            message: message.into(),
            retry: true,
        }
    }

    /// [`Rule::Malformed`].
    pub(crate) fn malformed(what: impl Into<String>) -> Refused {
        Refused::new(Rule::Malformed, what)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        Refusal {
            rule: refused.rule.name().to_string(),
            message: refused.message,
            retry: refused.retry,
        }
    }
}

/// Counts of refusals by rule since the engine was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Rule, u64>);

impl Refusals {
    /// The count of one rule.
    pub fn of(&self, rule: Rule) -> u64 {
        self.0.get(&rule).copied().unwrap_or(0)
    }

    /// Every rule that has refused, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, u64)> + '_ {
        self.0.iter().map(|(rule, count)| (*rule, *count))
    }

    pub(crate) fn count(&mut self, refused: &Refused) {
        let count = self.0.entry(refused.rule).or_insert(0);
        *count = count.saturating_add(1);
    }
}
