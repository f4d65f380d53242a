//! Why a payment found no route, or failed: a code and plain words for its payer.
//!
//! LDK reports no more than that there is no route. The search is repeated with less asked of it (any fee, channels whose
//! peers are away, a small amount), so that its answer tells what was missing.

use lightning::events::PaymentFailureReason;
use lightning::ln::channel_state::ChannelDetails;
use lightning::routing::router::{PaymentParameters, RouteParameters};
use lightning_invoice::Bolt11Invoice;
use longhand_proto::Code;
use longhand_proto::command::Error;

use crate::machine::turn::Turn;

/// An amount that any channel carries, to find out whether the payee can be reached at all.
const LITTLE_MSAT: u64 = 10_000;

/// The refusal of a payment for which LDK found no route.
pub(crate) fn refusal(
    turn: &Turn,
    invoice: &Bolt11Invoice,
    amount_msat: u64,
    fee_limit_msat: u64,
) -> Error {
    let channels = ready_channels(turn);
    let all: Vec<&ChannelDetails> = channels.iter().collect();
    let usable: Vec<&ChannelDetails> = channels.iter().filter(|it| it.is_usable).collect();
    let fee_msat = |over: &[&ChannelDetails], msat| route_fee_msat(turn, invoice, over, msat);
    match fee_msat(&usable, amount_msat) {
        Some(fee_msat) if fee_msat > fee_limit_msat => {
            let message = format!(
                "the cheapest route that was found costs {fee_msat} msat, and the fee limit is {fee_limit_msat} msat: \
                 allow more, or try later"
            );
            return Error::new(Code::FeeLimit, message);
        }
        Some(_) => return no_route("a route was found only just now: try again"),
        None => {}
    }
    if usable.len() < all.len() && fee_msat(&all, amount_msat).is_some() {
        return peer_away();
    }
    if amount_msat > LITTLE_MSAT && fee_msat(&usable, LITTLE_MSAT).is_some() {
        let message = format!(
            "the payee can be reached, but no route can carry {amount_msat} msat and its fees: pay less, or try later"
        );
        return no_route(message);
    }
    no_route("no route to the payee is known: try later, or ask the payee for another invoice")
}

/// The failure of a payment that LDK has given up, for its record. Begins with a code.
pub(crate) fn failure(
    turn: &Turn,
    amount_msat: u64,
    reason: Option<PaymentFailureReason>,
) -> String {
    use PaymentFailureReason as Reason;
    let error = match reason {
        None => return "no reason given".into(),
        Some(Reason::RouteNotFound | Reason::RetriesExhausted) => {
            let channels = ready_channels(turn);
            match needs_away_peers(&channels, amount_msat) {
                true => peer_away(),
                false => no_route(
                    "every route that was tried failed: a channel on it had too little, a node of it was away, or \
                     another one costs more than the fee limit; try later, pay less, or allow more fee",
                ),
            }
        }
        Some(Reason::RecipientRejected) => Error::new(
            Code::PayeeRefused,
            "the payee refused the payment: ask for a new invoice",
        ),
        Some(Reason::PaymentExpired | Reason::InvoiceRequestExpired) => Error::new(
            Code::InvoiceExpired,
            "the invoice expired before the payment found a way: ask for a new one",
        ),
        Some(Reason::UnknownRequiredFeatures) => Error::new(
            Code::UnknownFeatures,
            "the invoice requires features that this node does not have: ask for another one",
        ),
        Some(
            Reason::UserAbandoned
            | Reason::UnexpectedError
            | Reason::InvoiceRequestRejected
            | Reason::BlindedPathCreationFailed,
        ) => Error::new(
            Code::PaymentFailed,
            "the node gave the payment up: try again",
        ),
    };
    format!("{}: {}", error.code, error.message)
}

fn no_route(message: impl Into<String>) -> Error {
    Error::new(Code::NoRoute, message)
}

fn peer_away() -> Error {
    Error::new(
        Code::PeerAway,
        "the payment needs a channel of this node whose peer is away: try again when the peer is back",
    )
}

/// Channels that can carry payments while their peers are connected.
fn ready_channels(turn: &Turn) -> Vec<ChannelDetails> {
    let mut channels = turn.channels();
    // LDK's router refuses a first hop without a short channel id by a panic.
    channels.retain(|it| it.is_channel_ready && it.get_outbound_payment_scid().is_some());
    channels
}

/// Whether the channels can send this amount, but not without those whose peers are away.
fn needs_away_peers(channels: &[ChannelDetails], amount_msat: u64) -> bool {
    let total =
        |sum: u64, channel: &ChannelDetails| sum.saturating_add(channel.outbound_capacity_msat);
    let usable = channels.iter().filter(|it| it.is_usable).fold(0, total);
    usable < amount_msat && amount_msat <= channels.iter().fold(0, total)
}

/// The fee of the best route over these channels, whatever it costs; `None` when there is none.
fn route_fee_msat(
    turn: &Turn,
    invoice: &Bolt11Invoice,
    first_hops: &[&ChannelDetails],
    amount_msat: u64,
) -> Option<u64> {
    let payment_params = PaymentParameters::from_bolt11_invoice(invoice);
    let params = RouteParameters {
        payment_params,
        final_value_msat: amount_msat,
        max_total_routing_fee_msat: None,
    };
    let in_flight = turn.ldk.manager.compute_inflight_htlcs();
    let (payer, entropy) = (turn.node_id(), turn.ldk.keys.clone());
    let graph = &turn.graph;
    graph.route_fee_msat(&payer, &params, first_hops, in_flight, entropy)
}

#[cfg(test)]
#[path = "tests/no_route.rs"]
mod tests;
