//! Preimages of incoming payments. One that was released is given again, at any height.

use longhand_proto::utc;

use super::{Refused, Rule, refuse_unless};
use crate::payments::Payment;
use crate::proposal::{Committed, Preimage};
use crate::view::View;

/// The highest dust limit in use (P2PKH's): an HTLC below it may be too small for an output in a commitment. Also the most of an
/// invoice for which the host's claim is accepted without proof.
pub(crate) const DUST_MSAT: u64 = 546_000;

pub(super) fn has_an_invoice(_: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    match it.payment.public.bolt11.is_empty() {
        true => Err(no_invoice()),
        false => Ok(()),
    }
}

/// An HTLC that is in no commitment has no date here, and the phone may have been away since it came. So for invoices whose HTLCs are
/// not proved ([`Preimage::dust_msat`]) their date is not either: LDK on an honest host fails late ones back, and a dishonest host could
/// claim that money in any case.
pub(super) fn came_in_time(view: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    let payment = &it.payment.public;
    let is_late = match payment.seen_unix_s {
        Some(seen_unix_s) => seen_unix_s > payment.expires_unix_s,
        None => !may_be_dust(payment) && view.now_unix_s > payment.expires_unix_s,
    };
    if !is_late {
        return Ok(());
    }
    let (expiry, now) = (utc(payment.expires_unix_s), utc(view.now_unix_s));
    Err(Refused::new(
        Rule::PreimageExpired,
        format!(
            "the payment came after its invoice had expired at {expiry}, and this phone's clock shows {now}"
        ),
    ))
}

/// An HTLC counts only with an onion that has the invoice's payment secret: the phone itself has read it.
pub(super) fn are_of_read_onions(_: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    let is_all_read = it.beside.unread_msat == 0 || it.received_msat().is_some();
    refuse_unless(
        is_all_read,
        Rule::PreimageOnion,
        "an HTLC of the payment has an onion that was not read here, or that is not for its invoice",
    )
}

/// An HTLC counts only in a channel that exists: a host could show a phone commitments of one that was never funded, or was closed long
/// ago.
pub(super) fn are_in_proven_channels(_: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    if it.received_msat().is_some() {
        return Ok(());
    }
    if it.beside.closed_msat > 0 {
        let message = "an HTLC of the payment is in a channel that was closed without it";
        return Err(Refused::new(Rule::PreimageUnproven, message));
    }
    match it.beside.unproven_msat {
        0 => Ok(()),
        _ => Err(Refused::for_now(
            Rule::PreimageUnproven,
            "an HTLC of the payment is in a channel that is not proven to be in the chain, or not deep enough there",
        )),
    }
}

/// With a second source the host's silence about a close is not enough: the source has to say, at the newest block, that the channel is open.
/// Without one the host has to show it by filters of its blocks, for a large payment.
pub(super) fn are_in_watched_channels(view: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    let is_watched = it.beside.unwatched_msat == 0 || it.received_msat().is_some();
    let message = match view.sight.source {
        Some(_) => {
            "the owner's second source has not said yet that a channel of the payment is open"
        }
        None => {
            "the host has not shown yet by filters of its blocks that a channel of the payment is open: name a second source, or set filters_from_sat above the payment"
        }
    };
    refuse_unless(is_watched, Rule::PreimageUnwatched, message)
}

/// LDK claims an HTLC while it expires 40 blocks from now or later; after that it fails the HTLC back. With less time the peer could take
/// the HTLC back before the claim confirms.
pub(crate) const CLAIM_BLOCKS: u32 = 40;

pub(super) fn can_be_claimed(_: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    let can_be_claimed = it.beside.late_msat == 0 || it.received_msat().is_some();
    refuse_unless(
        can_be_claimed,
        Rule::PreimageLate,
        "an HTLC of the payment expires too soon to be claimed on chain",
    )
}

/// The amount that is irrevocably committed must be enough for the invoice, and all that the payer sends.
pub(super) fn is_paid(view: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    if it.received_msat().is_some() {
        return Ok(());
    }
    let (rule, why) = match it.committed.msat {
        0 => (
            Rule::PreimageNotCommitted,
            "the payment is not irrevocably committed on both sides",
        ),
        _ => (
            Rule::PreimageUnderpaid,
            "what is irrevocably committed is less than the invoice asks",
        ),
    };
    Err(match may_become_more(view, it) {
        true => Refused::for_now(rule, format!("{why} so far")),
        false => Refused::new(
            rule,
            format!("{why}, and nothing is on its way that could stand in a commitment"),
        ),
    })
}

/// A host on the way of a payment can replace the onion in which the payer's amount is: what it can keep is limited.
pub(super) fn is_small_if_of_any_amount(view: &View<'_>, it: &Preimage<'_>) -> Result<(), Refused> {
    let most_msat = view.limits().numbers.any_amount_sat.saturating_mul(1_000);
    let is_allowed = it.payment.public.amount_msat > 0 || it.committed.msat <= most_msat;
    refuse_unless(
        is_allowed,
        Rule::AnyAmount,
        "the payment is for an invoice without an amount, and above the owner's limit (any_amount_sat)",
    )
}

pub(crate) fn no_invoice() -> Refused {
    Refused::new(
        Rule::PreimageUnknown,
        "no invoice with this payment hash was signed here",
    )
}

/// Whether more of the amount that the host claims may yet be committed. If not, the rest is dust, and waiting would only let the
/// deadline of its HTLCs pass.
///
/// A host asks when the phone has seen the HTLCs in the latest commitments of both sides. So a small HTLC that is not in both is dust;
/// one that is may lack the peer's revocation. A larger one is awaited in any case.
fn may_become_more(view: &View<'_>, it: &Preimage<'_>) -> bool {
    let dust_msat = DUST_MSAT;
    let amounts = it.said.iter().map(|htlc| htlc.amount_msat);
    let larger = amounts.filter(|amount_msat| *amount_msat >= dust_msat);
    let larger_msat = larger.fold(0, u64::saturating_add);
    let (latest, _) = Committed::standing(view.state, view.sight, it.payment, 1, dust_msat);
    it.said.is_empty()
        || larger_msat > it.committed.msat.saturating_sub(it.committed.small_msat)
        || latest.msat > it.committed.msat
}

/// Whether all of the payment may be in HTLCs that are too small for an output in a commitment.
fn may_be_dust(payment: &Payment) -> bool {
    payment.amount_msat > 0 && payment.amount_msat <= DUST_MSAT
}
