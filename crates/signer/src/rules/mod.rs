//! Rules: by each the signer refuses an operation. [`Rule`] lists them.
//!
//! A rule is a pure function of a `View` and a `Proposal`. `judge` has the list of the rules of each kind of proposal, in the order
//! in which they are asked; the first that refuses gives the answer. Only `judge` makes a `Judged`, and only that is signed.

mod closes;
mod commitments;
mod fundings;
mod gossip;
mod inputs;
pub(crate) mod invoices;
pub(crate) mod preimages;
pub(crate) mod revocations;
mod sends;
mod setups;

use std::collections::BTreeMap;

use longhand_proto::rule::Retry;
pub use longhand_proto::rule::Rule;
use longhand_proto::signer::Refusal;

pub(crate) use sends::within_limit;

use crate::proposal::{Invoice, Proposal};
use crate::view::View;

/// A proposal that no rule refuses.
pub(crate) struct Judged<P>(P);

impl<P> Judged<P> {
    pub fn into_inner(self) -> P {
        self.0
    }
}

/// Judges an operation of the host.
pub(crate) fn judge<'a>(
    view: &View<'_>,
    proposal: Proposal<'a>,
) -> Result<Judged<Proposal<'a>>, Refused> {
    match &proposal {
        Proposal::Setup(it) if it.on_record.is_some() => {
            setups::is_the_same(view, it)?;
        }
        Proposal::Setup(it) => {
            setups::is_of_this_ledger(view, it)?;
            setups::is_whole(view, it)?;
            setups::has_a_known_type(view, it)?;
            setups::has_our_keys(view, it)?;
            setups::has_foreign_counterparty_keys(view, it)?;
            setups::has_a_value(view, it)?;
            setups::has_safe_delays(view, it)?;
            setups::has_its_own_funding(view, it)?;
        }
        Proposal::HolderCommitment(it) => {
            commitments::is_next_of_holder(view, it)?;
            commitments::is_the_same_of_holder(view, it)?;
            commitments::is_of_channel_for_holder(view, it)?;
            commitments::has_our_point(view, it)?;
            commitments::is_signed_by_the_peer(view, it)?;
        }
        Proposal::Release(it) => {
            revocations::has_a_successor(view, it)?;
            revocations::is_not_signed_for_broadcast(view, it)?;
        }
        Proposal::CounterpartyCommitment(it) => {
            commitments::is_of_channel_for_counterparty(view, it)?;
            commitments::is_the_same_of_counterparty(view, it)?;
            commitments::is_next_of_counterparty(view, it)?;
            commitments::is_no_third(view, it)?;
        }
        Proposal::Revocation(it) if it.is_repeated() => {
            revocations::is_the_same(view, it)?;
        }
        Proposal::Revocation(it) => {
            revocations::is_next(view, it)?;
            revocations::leaves_the_peer_a_newer_one(view, it)?;
            revocations::has_the_secret(view, it)?;
        }
        Proposal::Closing(it) => {
            closes::pays_the_owner(view, it)?;
        }
        Proposal::Broadcast(it) => {
            closes::is_on_record(view, it)?;
        }
        Proposal::HolderHtlc(it) => {
            closes::htlc_is_of_channel(view, it)?;
            closes::htlc_is_on_record(view, it)?;
            closes::htlc_pays_the_owner(view, it)?;
        }
        Proposal::Justice(it) => {
            closes::is_revoked(view, it)?;
        }
        Proposal::Sweep(it) => {
            closes::sweep_pays_the_owner(view, it)?;
            closes::sweep_is_of_the_owner(view, it)?;
        }
        Proposal::OnChain(it) => {
            fundings::have_their_outputs(view, it)?;
            fundings::are_validated(view, it)?;
            inputs::are_consistent(view, it)?;
            inputs::are_signable(view, it)?;
            fundings::have_fixed_txids(view, it)?;
            inputs::are_any(view, it)?;
            sends::have_own_inputs(view, it)?;
            sends::are_asked_for(view, it)?;
            sends::cost_no_more_than_allowed(view, it)?;
        }
        Proposal::Preimage(it) if it.payment.public.released.is_some() => {}
        Proposal::Preimage(it) => {
            preimages::has_an_invoice(view, it)?;
            preimages::came_in_time(view, it)?;
            preimages::is_paid(view, it)?;
        }
        Proposal::Gossip(it) => {
            gossip::is_of_the_network(view, it)?;
        }
        Proposal::Announcement(it) => {
            gossip::announces_on_the_network(view, it)?;
        }
        Proposal::Ecdh(_)
        | Proposal::Onion(_)
        | Proposal::NewKeys(_)
        | Proposal::Points(_)
        | Proposal::CounterpartyHtlc(_)
        | Proposal::Anchor(_) => {}
    }
    Ok(Judged(proposal))
}

/// Judges an invoice that the host wrote.
pub(crate) fn judge_invoice<'a>(
    view: &View<'_>,
    invoice: Invoice<'a>,
) -> Result<Judged<Invoice<'a>>, Refused> {
    invoices::is_for_the_payment(view, &invoice)?;
    invoices::is_the_first(view, &invoice)?;
    invoices::has_the_network(view, &invoice)?;
    invoices::has_the_amount(view, &invoice)?;
    invoices::has_the_payment_hash(view, &invoice)?;
    invoices::has_the_payee(view, &invoice)?;
    invoices::has_the_description(view, &invoice)?;
    invoices::has_the_expiry(view, &invoice)?;
    invoices::has_our_date(view, &invoice)?;
    invoices::has_no_fallback(view, &invoice)?;
    Ok(Judged(invoice))
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
