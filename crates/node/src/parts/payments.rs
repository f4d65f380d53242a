//! The records of payments, in and out, and paying.

use std::collections::HashMap;
use std::time::Duration;

use lightning::events::Event;
use lightning::ln::channelmanager::{OptionalBolt11PaymentParams, PaymentId};
use lightning::ln::outbound_payment::{Bolt11PaymentError, Retry, RetryableSendFailure};
use lightning::routing::router::RouteParametersConfig;
use lightning::routing::scoring::ScoreUpdate;
use lightning::types::payment::PaymentHash;
use lightning_invoice::{Bolt11Invoice, Currency};
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::payment::State;
use longhand_proto::command::{Error, Pay, Payment};
use longhand_proto::default_max_fee_msat;
use prost::Message;

use crate::api::NodeError;
use crate::errors::{bad_input, command_error};
use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{key, payment_key};

/// How long LDK looks for other routes.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(crate) struct Payments {
    payments: HashMap<PaymentHash, Payment>,
}

impl Payments {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<Payments, NodeError> {
        let bad = || NodeError::Load("a record of a payment".into());
        let mut payments = HashMap::new();
        for (_, bytes) in journal.loaded(key::PAYMENT) {
            let payment = Payment::decode(&bytes[..]).map_err(|_| bad())?;
            let hash = <[u8; 32]>::try_from(&payment.payment_hash[..]).map_err(|_| bad())?;
            payments.insert(PaymentHash(hash), payment);
        }
        Ok(Payments { payments })
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Payment> {
        let mut payments: Vec<Payment> = self.payments.values().cloned().collect();
        payments.sort_by_key(|payment| payment.created_unix_s);
        payments
    }

    /// The reply to a payment, once it has succeeded or failed.
    pub fn result(&self, hash: &PaymentHash) -> Option<Result<Reply, Error>> {
        let payment = self.payments.get(hash)?;
        let has_ended = payment.state() != State::Pending;
        has_ended.then(|| Ok(Reply::Payment(payment.clone())))
    }

    /// Whether the preimage is here.
    pub fn has_preimage(&self, hash: &PaymentHash) -> bool {
        let payment = self.payments.get(hash);
        payment.is_some_and(|payment| !payment.preimage.is_empty())
    }

    /// Whether an invoice of this node was paid already: its preimage is here.
    pub fn was_received(&self, hash: &PaymentHash) -> bool {
        let payment = self.payments.get(hash);
        payment.is_some_and(|payment| !payment.outbound && !payment.preimage.is_empty())
    }

    /// Changes the record of a payment, or begins it.
    pub fn update(
        &mut self,
        turn: &Turn,
        hash: PaymentHash,
        outbound: bool,
        change: impl FnOnce(&mut Payment),
    ) {
        let payment = self.payments.entry(hash).or_insert_with(|| Payment {
            payment_hash: hash.0.to_vec(),
            outbound,
            state: State::Pending.into(),
            created_unix_s: turn.now.unix_s(),
            ..Payment::default()
        });
        change(payment);
        turn.journal
            .put(payment_key(&hash), payment.encode_to_vec());
    }

    /// The owner's command: pays a BOLT 11 invoice. A payment that is pending or has succeeded is not made again. Returns
    /// its hash.
    ///
    /// # Errors
    /// A refusal with its code; nothing is changed then.
    pub fn pay(&mut self, turn: &Turn, request: &Pay) -> Result<PaymentHash, Error> {
        let invoice: Bolt11Invoice = request.bolt11.parse().map_err(|_| {
            let message = "this is not a BOLT 11 invoice: check it";
            bad_input("BAD_INVOICE", message)
        })?;
        let hash = invoice.payment_hash();
        match self.payments.get(&hash) {
            Some(known) if known.outbound && known.state() != State::Failed => return Ok(hash),
            Some(known) if !known.outbound => return Err(own_invoice()),
            _ => {}
        }
        check(turn, &invoice, request)?;
        send(turn, &invoice, request)?;
        let amount_msat = invoice.amount_milli_satoshis();
        self.payments.remove(&hash);
        self.update(turn, hash, true, |payment| {
            payment.amount_msat = amount_msat.unwrap_or(request.amount_msat);
        });
        Ok(hash)
    }

    /// LDK's events of outgoing payments. Those of their paths go into the shared scores.
    pub fn on_event(&mut self, turn: &Turn, event: Event) {
        match event {
            Event::PaymentSent {
                payment_preimage,
                payment_hash,
                fee_paid_msat,
                ..
            } => self.update(turn, payment_hash, true, |payment| {
                payment.state = State::Succeeded.into();
                payment.preimage = payment_preimage.0.to_vec();
                payment.fee_msat = fee_paid_msat.unwrap_or_default();
            }),
            Event::PaymentFailed {
                payment_id,
                payment_hash,
                reason,
            } => {
                let hash = payment_hash.unwrap_or(PaymentHash(payment_id.0));
                let reason = reason.map_or("no reason given".to_owned(), |r| format!("{r:?}"));
                self.update(turn, hash, true, |payment| {
                    payment.state = State::Failed.into();
                    payment.failure = reason;
                });
            }
            Event::PaymentPathSuccessful { path, .. } => turn.graph.update_scores(|scorer| {
                scorer.payment_path_successful(&path, turn.now.since_1970);
            }),
            Event::PaymentPathFailed {
                path,
                short_channel_id: Some(scid),
                ..
            } => turn.graph.update_scores(|scorer| {
                scorer.payment_path_failed(&path, scid, turn.now.since_1970);
            }),
            _ => {}
        }
    }
}

/// A payment hash from its bytes.
///
/// # Errors
/// `BAD_PAYMENT_HASH`.
pub(crate) fn payment_hash(bytes: &[u8]) -> Result<PaymentHash, Error> {
    let bad = |_| bad_input("BAD_PAYMENT_HASH", "a payment hash has 32 bytes: check it");
    <[u8; 32]>::try_from(bytes).map(PaymentHash).map_err(bad)
}

/// The amount that a command pays; `None` when its invoice cannot be read.
pub(crate) fn amount_msat(pay: &Pay) -> Option<u64> {
    let invoice: Bolt11Invoice = pay.bolt11.parse().ok()?;
    Some(invoice.amount_milli_satoshis().unwrap_or(pay.amount_msat))
}

fn own_invoice() -> Error {
    bad_input(
        "OWN_INVOICE",
        "this invoice is this node's own: nothing to pay",
    )
}

/// Refuses a payment that cannot succeed.
fn check(turn: &Turn, invoice: &Bolt11Invoice, request: &Pay) -> Result<(), Error> {
    let network = turn.config.network;
    if invoice.currency() != Currency::from(network) {
        let message = format!(
            "the invoice is for {}, this node is on {network}",
            invoice.network()
        );
        return Err(bad_input("WRONG_NETWORK", message));
    }
    if invoice.get_payee_pub_key() == turn.node_id() {
        return Err(own_invoice());
    }
    if invoice.would_expire(turn.now.since_1970) {
        return Err(expired());
    }
    let amount_msat = match invoice.amount_milli_satoshis() {
        Some(amount_msat) => amount_msat,
        None if request.amount_msat > 0 => request.amount_msat,
        None => {
            let message = "the invoice has no amount: give one";
            return Err(bad_input("AMOUNT_NEEDED", message));
        }
    };
    let channels = turn.channels();
    let spendable = channels.iter().map(|it| it.outbound_capacity_msat);
    let spendable = spendable.fold(0, u64::saturating_add);
    if amount_msat > spendable {
        let message =
            format!("the channels can send {spendable} msat, the payment needs {amount_msat} msat");
        return Err(bad_input("INSUFFICIENT_FUNDS", message));
    }
    Ok(())
}

fn send(turn: &Turn, invoice: &Bolt11Invoice, request: &Pay) -> Result<(), Error> {
    let own_amount = match invoice.amount_milli_satoshis() {
        Some(_) => None,
        None => Some(request.amount_msat),
    };
    let amount_msat = invoice.amount_milli_satoshis();
    let amount_msat = amount_msat.unwrap_or(request.amount_msat);
    let fee_limit_msat = request
        .max_fee_msat
        .unwrap_or_else(|| default_max_fee_msat(amount_msat));
    let parameters = OptionalBolt11PaymentParams {
        route_params_config: RouteParametersConfig::default()
            .with_max_total_routing_fee_msat(fee_limit_msat),
        retry_strategy: Retry::Timeout(RETRY_FOR),
        ..OptionalBolt11PaymentParams::default()
    };
    let id = PaymentId(invoice.payment_hash().0);
    let manager = &turn.ldk.manager;
    let sent = manager.pay_for_bolt11_invoice(invoice, id, own_amount, parameters);
    sent.map_err(|error| match error {
        Bolt11PaymentError::InvalidAmount => {
            let message = "the amount is below the invoice's: give more";
            bad_input("BAD_AMOUNT", message)
        }
        Bolt11PaymentError::SendingFailed(failure) => send_failure(&failure),
    })
}

fn expired() -> Error {
    bad_input(
        "INVOICE_EXPIRED",
        "the invoice has expired: ask for a new one",
    )
}

fn send_failure(failure: &RetryableSendFailure) -> Error {
    match failure {
        RetryableSendFailure::PaymentExpired => expired(),
        RetryableSendFailure::RouteNotFound => command_error(
            "NO_ROUTE",
            Action::Retry,
            "no route to the payee was found within the fee limit: try later or allow more fee",
        ),
        RetryableSendFailure::DuplicatePayment => bad_input(
            "ALREADY_PAID",
            "this invoice is being paid or was paid already",
        ),
        RetryableSendFailure::OnionPacketSizeExceeded => bad_input(
            "BAD_INVOICE",
            "the invoice asks for more than fits into a payment",
        ),
    }
}

#[cfg(test)]
#[path = "tests/payments.rs"]
mod tests;
