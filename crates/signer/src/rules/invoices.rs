//! Invoices that the host wrote (BOLT 11): nothing in one may differ from the owner's request.

use lightning::routing::router::RouteHint;
use lightning_invoice::{Bolt11InvoiceDescriptionRef, Currency};
use longhand_proto::utc;

use super::{Refused, Rule, refuse_unless};
use crate::proposal::Invoice;
use crate::view::{Close, View};

/// Of nodes in use; LDK's is 39, lnd's up to 80 and more after a rise of its own.
const FINAL_DELTA_BLOCKS: std::ops::RangeInclusive<u64> = 18..=144;
/// More than any node writes.
const MOST_HINTS: usize = 20;

pub(super) fn is_for_the_payment(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let is_same = it.payment.public.amount_msat == it.asked.amount_msat;
    mismatch_unless(is_same, "its amount is not that of the payment")
}

pub(super) fn is_the_first(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.payment.public.bolt11.is_empty(),
        Rule::Duplicate,
        "this payment has its invoice already: make a new payment",
    )
}

pub(super) fn has_the_network(view: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let is_same = it.invoice.currency() == Currency::from(view.own.network());
    mismatch_unless(is_same, "it is for another network")
}

pub(super) fn has_the_amount(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let asked_msat = it.asked.amount_msat;
    let amount_msat = (asked_msat > 0).then_some(asked_msat);
    let is_same = it.invoice.amount_milli_satoshis() == amount_msat;
    mismatch_unless(is_same, "its amount is another")
}

pub(super) fn has_the_payment_hash(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let is_same = it.invoice.payment_hash().0 == it.asked.payment_hash;
    mismatch_unless(is_same, "its payment hash is another")
}

/// The secret that the phone demands of the payment's onions.
pub(super) fn has_our_secret(view: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let ours = view.own.payment_secret(it.payment, it.asked.expiry_s);
    let is_same = ours == Some(it.invoice.payment_secret().0);
    mismatch_unless(is_same, "its payment secret is another")
}

pub(super) fn has_the_payee(view: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let is_owner = it.invoice.get_payee_pub_key() == view.own.node_id();
    mismatch_unless(is_owner, "it pays someone else")
}

pub(super) fn has_the_description(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let is_same = match it.invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(direct) => direct.as_inner().0 == it.asked.description,
        Bolt11InvoiceDescriptionRef::Hash(_) => false,
    };
    mismatch_unless(is_same, "its description is another")
}

pub(super) fn has_the_expiry(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let is_same = it.invoice.expiry_time().as_secs() == u64::from(it.asked.expiry_s);
    mismatch_unless(is_same, "it expires at another time")
}

pub(super) fn has_our_date(view: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let date_unix_s = it.invoice.duration_since_epoch().as_secs();
    let message = format!(
        "its date is {} by the host's clock, and this phone's clock shows {} (set the one that is wrong)",
        utc(date_unix_s),
        utc(view.now_unix_s)
    );
    let skew_s = date_unix_s.abs_diff(view.now_unix_s);
    mismatch_unless(skew_s <= view.limits().numbers.invoice_skew_s, &message)
}

/// An on-chain address would let the host have the money.
pub(super) fn has_no_fallback(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let has_none = it.invoice.fallbacks().is_empty();
    mismatch_unless(has_none, "it has an on-chain address")
}

/// The payee's last HTLC must be claimable in time, and must not lock the payer's money for longer than nodes ask for.
pub(super) fn has_a_usual_final_delta(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let delta_blocks = it.invoice.min_final_cltv_expiry_delta();
    let is_usual = FINAL_DELTA_BLOCKS.contains(&delta_blocks);
    mismatch_unless(is_usual, "its final expiry delta is none that nodes use")
}

/// Data that the payer sends back: the host could mark its payers with it.
pub(super) fn has_no_metadata(_: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let has_none = it.invoice.payment_metadata().is_none();
    mismatch_unless(has_none, "it has payment metadata")
}

/// A route hint leads to the owner from a peer of one of the owner's channels that is in the chain: from another node the payment would
/// never come, or to the host's account, and over a channel that is not there it would not count.
pub(super) fn has_hints_of_peers(view: &View<'_>, it: &Invoice<'_>) -> Result<(), Refused> {
    let routes = it.invoice.route_hints();
    let is_of_peer = |route: &RouteHint| {
        let last = route.0.last();
        last.is_some_and(|hop| {
            let mut channels = view.state.channels.values();
            channels.any(|channel| {
                channel.counterparty_node_id == hop.src_node_id
                    && channel.confirmations(view.sight.headers) > 0
                    && view.sight.close(channel) == Close::Unknown
            })
        })
    };
    let are_few = routes.len() <= MOST_HINTS;
    refuse_unless(
        are_few && routes.iter().all(is_of_peer),
        Rule::InvoiceHint,
        "the host's invoice has a route hint from a node with which the owner has no channel in the chain",
    )
}

pub(crate) fn mismatch(what: &str) -> Refused {
    Refused::new(
        Rule::InvoiceMismatch,
        format!("the host's invoice is not what was asked for: {what}"),
    )
}

fn mismatch_unless(holds: bool, what: &str) -> Result<(), Refused> {
    match holds {
        true => Ok(()),
        false => Err(mismatch(what)),
    }
}
