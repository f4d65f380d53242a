//! Payments over Lightning.

use std::future::ready;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use tonic::{Code, Status};

use super::{
    Listing, MOST_PER_PAGE, amount_msat, decode, from_bytes, hex, int, refuse, sat, up_to_last,
};
use crate::call::Messages;
use crate::node::{self, Node, Pay, PaymentFailure, PaymentState, Updates, index_of};
use crate::proto::lnrpc::payment::PaymentStatus;
use crate::proto::lnrpc::{
    ListPaymentsRequest, ListPaymentsResponse, Payment, PaymentFailureReason,
};
use crate::proto::routerrpc::{SendPaymentRequest, TrackPaymentRequest};
use crate::status::{bad_input, status};

/// When an app says no time, and the most.
const TIMEOUT_S: u32 = 60;
const MOST_TIMEOUT_S: u32 = 3_600;

pub(super) async fn list(
    node: Arc<dyn Node>,
    asked: ListPaymentsRequest,
) -> Result<ListPaymentsResponse, Status> {
    let listing = Listing {
        offset: asked.index_offset,
        limit: asked.max_payments,
        reversed: asked.reversed,
        from_unix_s: asked.creation_date_start,
        to_unix_s: asked.creation_date_end,
    };
    let page = listing.page(MOST_PER_PAGE);
    let found = node.payments(page, !asked.include_incomplete).await?;
    let mut payments: Vec<Payment> = found.into_iter().take(page.limit).map(message).collect();
    payments.sort_by_key(|it| it.payment_index);
    Ok(ListPaymentsResponse {
        first_index_offset: payments.first().map_or(0, |it| it.payment_index),
        last_index_offset: payments
            .last()
            .map_or(asked.index_offset, |it| it.payment_index),
        payments,
    })
}

pub(super) async fn send(
    node: Arc<dyn Node>,
    asked: SendPaymentRequest,
) -> Result<Messages<Payment>, Status> {
    let shows_all = !asked.no_inflight_updates;
    let pay = checked(&*node, asked).await?;
    let states = node.pay(pay).await?;
    Ok(messages(states, shows_all))
}

/// What an app may leave to the node is not followed: `max_parts` and the like. Limits that it sets are.
async fn checked(node: &dyn Node, asked: SendPaymentRequest) -> Result<Pay, Status> {
    let is_spontaneous = asked.payment_request.is_empty();
    refuse(is_spontaneous, "a payment without an invoice (keysend)")?;
    let has_target = ![&asked.dest, &asked.payment_hash, &asked.payment_addr]
        .iter()
        .all(|it| it.is_empty());
    refuse(
        has_target || !asked.route_hints.is_empty(),
        "dest, payment_hash, payment_addr or route_hints beside an invoice",
    )?;
    refuse(asked.amp, "amp")?;
    refuse(!asked.outgoing_chan_ids.is_empty(), "outgoing_chan_ids")?;
    refuse(!asked.last_hop_pubkey.is_empty(), "last_hop_pubkey")?;
    refuse(asked.cltv_limit != 0, "cltv_limit")?;
    refuse(asked.max_shard_size_msat != 0, "max_shard_size_msat")?;
    refuse(!asked.dest_custom_records.is_empty(), "dest_custom_records")?;
    refuse(
        !asked.first_hop_custom_records.is_empty(),
        "first_hop_custom_records",
    )?;
    let invoice = decode::of_node(node, &asked.payment_request).await?;
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if invoice.would_expire(since_1970) {
        return Err(bad_input("invoice expired: ask the payee for another one"));
    }
    let timeout_s = match u32::try_from(asked.timeout_seconds) {
        Ok(0) => TIMEOUT_S,
        Ok(timeout_s) => timeout_s.min(MOST_TIMEOUT_S),
        Err(_) => return Err(bad_input("timeout_seconds has to be above 0")),
    };
    let asked_msat = amount_msat("amt", asked.amt, asked.amt_msat)?;
    let amount_msat = match (invoice.amount_milli_satoshis(), asked_msat) {
        (None, 0) => {
            let line = "amount must be specified when paying a zero amount invoice";
            return Err(bad_input(line));
        }
        (None, amount) => Some(amount),
        (Some(_), 0) => None,
        (Some(_), _) => {
            let line = "amount must not be specified when paying a non-zero amount invoice";
            return Err(bad_input(line));
        }
    };
    Ok(Pay {
        payment_hash: invoice.payment_hash().0,
        amount_msat,
        max_fee_msat: super::amount_msat("fee_limit", asked.fee_limit_sat, asked.fee_limit_msat)?,
        timeout_s,
        bolt11: asked.payment_request,
    })
}

pub(super) async fn track(
    node: Arc<dyn Node>,
    asked: TrackPaymentRequest,
) -> Result<Messages<Payment>, Status> {
    let hash = from_bytes("payment_hash", &asked.payment_hash)?;
    let states = node.track(hash).await?;
    let states = states.ok_or_else(|| status(Code::NotFound, "payment isn't initiated"))?;
    Ok(messages(states, !asked.no_inflight_updates))
}

fn messages(states: Updates<node::Payment>, shows_all: bool) -> Messages<Payment> {
    let is_last = |it: &node::Payment| it.state != PaymentState::InFlight;
    let states = up_to_last(states, is_last);
    let shown = states.filter_map(move |state| {
        ready(match state {
            Ok(payment) if !shows_all && !is_last(&payment) => None,
            state => Some(state.map(message)),
        })
    });
    shown.boxed()
}

fn message(payment: node::Payment) -> Payment {
    let (status, reason) = match payment.state {
        PaymentState::InFlight => (
            PaymentStatus::InFlight,
            PaymentFailureReason::FailureReasonNone,
        ),
        PaymentState::Succeeded => (
            PaymentStatus::Succeeded,
            PaymentFailureReason::FailureReasonNone,
        ),
        PaymentState::Failed(failure) => (PaymentStatus::Failed, reason(failure)),
    };
    let created_ns = payment.created_unix_s.saturating_mul(1_000_000_000);
    Payment {
        payment_index: index_of(payment.created_unix_s, &payment.payment_hash),
        payment_hash: hex(&payment.payment_hash),
        // As lnd: zeros while it is not known.
        payment_preimage: hex(&payment.preimage.unwrap_or_default()),
        value: sat(payment.amount_msat),
        value_sat: sat(payment.amount_msat),
        value_msat: int(payment.amount_msat),
        fee: sat(payment.fee_msat),
        fee_sat: sat(payment.fee_msat),
        fee_msat: int(payment.fee_msat),
        creation_date: int(payment.created_unix_s),
        creation_time_ns: int(created_ns),
        payment_request: payment.bolt11,
        status: status as i32,
        failure_reason: reason as i32,
        ..Payment::default()
    }
}

fn reason(failure: PaymentFailure) -> PaymentFailureReason {
    match failure {
        PaymentFailure::Timeout => PaymentFailureReason::FailureReasonTimeout,
        PaymentFailure::NoRoute => PaymentFailureReason::FailureReasonNoRoute,
        PaymentFailure::RefusedByPayee => {
            PaymentFailureReason::FailureReasonIncorrectPaymentDetails
        }
        PaymentFailure::InsufficientBalance => {
            PaymentFailureReason::FailureReasonInsufficientBalance
        }
        PaymentFailure::Canceled => PaymentFailureReason::FailureReasonCanceled,
        PaymentFailure::Other => PaymentFailureReason::FailureReasonError,
    }
}
