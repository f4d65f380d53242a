//! The records of payments, in and out, and paying.
//!
//! In memory, and below `pay/` in the store, are those that are pending or have a claim. One that has ended becomes a part of
//! the history (`store/history.rs`); it is read back when an event or a command is about it (`machine/unread.rs`).

use std::collections::HashMap;
use std::time::Duration;

use lightning::events::Event;
use lightning::ln::channelmanager::{OptionalBolt11PaymentParams, PaymentId};
use lightning::ln::outbound_payment::{Bolt11PaymentError, Retry, RetryableSendFailure};
use lightning::routing::router::RouteParametersConfig;
use lightning::routing::scoring::ScoreUpdate;
use lightning::types::payment::PaymentHash;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{
    Command, CreateInvoice, Error, ListPayments, OpenInvoice, Pay, Payment,
};
use longhand_proto::{default_max_fee_msat, utc};
use prost::Message;

use crate::api::NodeError;
use crate::machine::turn::Turn;
use crate::parts::no_route;
use crate::parts::open_invoices::OpenInvoices;
use crate::store::history::{self, Page, Position};
use crate::store::journal::Journal;
use crate::store::schema::{key, payment_key};

/// How long LDK looks for other routes.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Records of the history that are kept in memory after they were used; more are forgotten.
const MOST_READ: usize = 256;
/// The longest invoice that is recorded. Those of wallets are below 2 KiB.
const MOST_INVOICE_BYTES: usize = 4096;

/// See the module.
#[derive(Default)]
pub(crate) struct Payments {
    /// Pending, or with a claim.
    live: HashMap<PaymentHash, Payment>,
    /// Records of the history that were used lately; `None` when there is none.
    read: HashMap<PaymentHash, Option<Payment>>,
    invoices: OpenInvoices,
}

impl Payments {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<Payments, NodeError> {
        let bad = || NodeError::Load("a record of a payment".into());
        let mut live = HashMap::new();
        for (_, bytes) in journal.loaded(key::PAYMENT) {
            let payment = Payment::decode(&bytes[..]).map_err(|_| bad())?;
            let hash = <[u8; 32]>::try_from(&payment.payment_hash[..]).map_err(|_| bad())?;
            live.insert(PaymentHash(hash), payment);
        }
        Ok(Payments {
            live,
            read: HashMap::new(),
            invoices: OpenInvoices::load(journal),
        })
    }

    /// Those in memory, oldest first.
    #[cfg(test)]
    pub fn list(&self) -> Vec<Payment> {
        let read = self.read.values().flatten();
        let mut payments: Vec<Payment> = self.live.values().chain(read).cloned().collect();
        payments.sort_by_key(|payment| payment.created_unix_s);
        payments
    }

    /// The page that an owner asks for.
    ///
    /// # Errors
    /// `CURSOR_MALFORMED`.
    pub fn page(&self, request: &ListPayments) -> Result<Page, Error> {
        let bad = || {
            let message = "this is not the place of a page: take the one that the page before gave";
            Error::new(Code::CursorMalformed, message)
        };
        let before = match request.before.is_empty() {
            true => None,
            false => Some(Position::from_bytes(&request.before).ok_or_else(bad)?),
        };
        let limit = match request.limit {
            0 => history::PAGE,
            limit => limit.min(history::MOST_PER_PAGE),
        };
        let live = self.live.values().cloned().collect();
        Ok(Page {
            before,
            limit,
            live,
        })
    }

    /// One that is pending, or has a claim.
    pub fn live(&self, hash: &PaymentHash) -> Option<&Payment> {
        self.live.get(hash)
    }

    // -- The history.

    /// Whether all that there is to know of a payment is in memory.
    pub fn is_known(&self, hash: &PaymentHash) -> bool {
        self.live.contains_key(hash) || self.read.contains_key(hash)
    }

    /// The records of payments that are not live, as the history has them.
    pub fn read(&mut self, records: impl IntoIterator<Item = (PaymentHash, Option<Payment>)>) {
        self.read.extend(records);
    }

    /// Moves the payments that have ended into the history, with this turn's commit.
    pub fn archive(&mut self, turn: &Turn, has_claim: impl Fn(&PaymentHash) -> bool) {
        let live = self.live.iter();
        let ended = live.filter(|(hash, payment)| !is_pending(payment) && !has_claim(hash));
        let ended: Vec<PaymentHash> = ended.map(|(hash, _)| *hash).collect();
        for hash in ended {
            if let Some(payment) = self.live.remove(&hash) {
                turn.journal.delete(payment_key(&hash));
                history::add(&turn.journal, &payment);
                self.read.insert(hash, Some(payment));
            }
        }
    }

    /// Forgets what can be read again. All turns must be committed: what they have changed is not in the store before.
    pub fn forget_read(&mut self) {
        if self.read.len() > MOST_READ {
            self.read.clear();
        }
    }

    fn get(&self, hash: &PaymentHash) -> Option<&Payment> {
        let read = || self.read.get(hash)?.as_ref();
        self.live.get(hash).or_else(read)
    }

    /// Takes the record of a payment that is to change.
    fn take(&mut self, turn: &Turn, hash: &PaymentHash) -> Option<Payment> {
        let read = self.read.remove(hash).flatten();
        if let Some(payment) = &read {
            history::remove(&turn.journal, payment);
        }
        self.live.remove(hash).or(read)
    }

    // -- Invoices.

    /// An invoice of the owner was made, as it was checked.
    pub fn invoice_made(&mut self, turn: &Turn, request: &CreateInvoice) {
        self.invoices.add(turn, request);
    }

    /// The owner's invoices that nobody has paid yet, newest first.
    pub fn open_invoices(&self, turn: &Turn) -> Vec<OpenInvoice> {
        self.invoices.list(turn.now.unix_s())
    }

    // -- One payment.

    /// The reply to a payment, once it has succeeded or failed.
    pub fn result(&self, hash: &PaymentHash) -> Option<Result<Reply, Error>> {
        let payment = self.get(hash)?;
        (!is_pending(payment)).then(|| Ok(Reply::Payment(payment.clone())))
    }

    /// Whether the preimage is here.
    pub fn has_preimage(&self, hash: &PaymentHash) -> bool {
        let payment = self.get(hash);
        payment.is_some_and(|payment| !payment.preimage.is_empty())
    }

    /// Whether an invoice of this node was paid already: its preimage is here.
    pub fn was_received(&self, hash: &PaymentHash) -> bool {
        let payment = self.get(hash);
        payment.is_some_and(|payment| !payment.outbound && !payment.preimage.is_empty())
    }

    /// Changes the record of a payment, or begins it. The payment must be known, see [`Payments::is_known`].
    pub fn update(
        &mut self,
        turn: &Turn,
        hash: PaymentHash,
        outbound: bool,
        change: impl FnOnce(&mut Payment),
    ) {
        let known = self.take(turn, &hash);
        let mut payment = known.unwrap_or_else(|| self.begin(turn, &hash, outbound));
        let was_pending = is_pending(&payment);
        change(&mut payment);
        if was_pending && !is_pending(&payment) {
            payment.ended_unix_s = turn.now.unix_s();
        }
        if !payment.outbound && payment.state() == State::Succeeded {
            self.invoices.remove(turn, &hash.0);
        }
        turn.journal
            .put(payment_key(&hash), payment.encode_to_vec());
        self.live.insert(hash, payment);
    }

    fn begin(&self, turn: &Turn, hash: &PaymentHash, outbound: bool) -> Payment {
        let invoice = self.invoices.get(&hash.0).filter(|_| !outbound);
        let invoice = invoice.cloned().unwrap_or_default();
        Payment {
            payment_hash: hash.0.to_vec(),
            outbound,
            state: State::Pending.into(),
            created_unix_s: turn.now.unix_s(),
            description: invoice.description,
            expires_unix_s: invoice.expires_unix_s,
            ..Payment::default()
        }
    }

    /// The owner's command: pays a BOLT 11 invoice. A payment that is pending or has succeeded is not made again. Returns
    /// its hash.
    ///
    /// # Errors
    /// A refusal with its code; nothing is changed then.
    pub fn pay(&mut self, turn: &Turn, request: &Pay) -> Result<PaymentHash, Error> {
        let invoice: Bolt11Invoice = request.bolt11.parse().map_err(|_| {
            let message = "this is not a BOLT 11 invoice: check it";
            Error::new(Code::InvoiceMalformed, message)
        })?;
        let hash = invoice.payment_hash();
        match self.get(&hash) {
            Some(known) if known.outbound && known.state() != State::Failed => return Ok(hash),
            Some(known) if !known.outbound => return Err(own_invoice()),
            _ => {}
        }
        check(turn, &invoice, request)?;
        send(turn, &invoice, request)?;
        let amount_msat = invoice.amount_milli_satoshis();
        // The record of an attempt that failed, which may be in the history.
        self.take(turn, &hash);
        self.update(turn, hash, true, |payment| {
            payment.amount_msat = amount_msat.unwrap_or(request.amount_msat);
            describe(payment, &invoice, &request.bolt11);
        });
        Ok(hash)
    }

    /// Another signer is attached: payments that the one before it was asked for are not tried again. HTLCs in flight
    /// end as they may.
    pub fn abandon(&self, turn: &Turn) {
        let live = self.live.iter();
        let outgoing = live.filter(|(_, payment)| payment.outbound && is_pending(payment));
        for (hash, _) in outgoing {
            turn.ldk.manager.abandon_payment(PaymentId(hash.0));
        }
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
                self.update(turn, hash, true, |payment| {
                    payment.state = State::Failed.into();
                    payment.failure = no_route::failure(turn, payment.amount_msat, reason);
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

fn is_pending(payment: &Payment) -> bool {
    payment.state() == State::Pending
}

/// Puts into the record what the invoice says.
fn describe(payment: &mut Payment, invoice: &Bolt11Invoice, bolt11: &str) {
    if let Bolt11InvoiceDescriptionRef::Direct(description) = invoice.description() {
        payment.description = description.as_inner().0.clone();
    }
    payment.payee_node_id = invoice.get_payee_pub_key().serialize().to_vec();
    payment.expires_unix_s = invoice.expires_at().map_or(0, |at| at.as_secs());
    if bolt11.len() <= MOST_INVOICE_BYTES {
        payment.bolt11 = bolt11.to_owned();
    }
}

/// The payment that an event is about, when the event changes its record.
pub(crate) fn hash_of_event(event: &Event) -> Option<PaymentHash> {
    match event {
        Event::PaymentClaimable { payment_hash, .. }
        | Event::PaymentClaimed { payment_hash, .. }
        | Event::PaymentSent { payment_hash, .. } => Some(*payment_hash),
        Event::PaymentFailed {
            payment_id,
            payment_hash,
            ..
        } => Some(payment_hash.unwrap_or(PaymentHash(payment_id.0))),
        _ => None,
    }
}

/// The payment that a command begins or waits for; `None` too when the command is to be refused.
pub(crate) fn hash_of_command(command: &Command) -> Option<PaymentHash> {
    match command.command.as_ref()? {
        Kind::Pay(pay) => {
            let invoice: Bolt11Invoice = pay.bolt11.parse().ok()?;
            Some(invoice.payment_hash())
        }
        Kind::AwaitPayment(wait) => payment_hash(&wait.payment_hash).ok(),
        _ => None,
    }
}

/// A payment hash from its bytes.
///
/// # Errors
/// `PAYMENT_HASH_MALFORMED`.
pub(crate) fn payment_hash(bytes: &[u8]) -> Result<PaymentHash, Error> {
    let bad = |_| {
        Error::new(
            Code::PaymentHashMalformed,
            "a payment hash has 32 bytes: check it",
        )
    };
    <[u8; 32]>::try_from(bytes).map(PaymentHash).map_err(bad)
}

/// The amount that a command pays; `None` when its invoice cannot be read.
pub(crate) fn amount_msat(pay: &Pay) -> Option<u64> {
    let invoice: Bolt11Invoice = pay.bolt11.parse().ok()?;
    Some(invoice.amount_milli_satoshis().unwrap_or(pay.amount_msat))
}

fn own_invoice() -> Error {
    Error::new(
        Code::InvoiceOwn,
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
        return Err(Error::new(Code::WrongNetwork, message));
    }
    if invoice.get_payee_pub_key() == turn.node_id() {
        return Err(own_invoice());
    }
    if invoice.would_expire(turn.now.since_1970) {
        return Err(expired(turn, invoice));
    }
    let amount_msat = match invoice.amount_milli_satoshis() {
        Some(amount_msat) => amount_msat,
        None if request.amount_msat > 0 => request.amount_msat,
        None => {
            let message = "the invoice has no amount: give one";
            return Err(Error::new(Code::AmountMissing, message));
        }
    };
    let channels = turn.channels();
    let spendable = channels.iter().map(|it| it.outbound_capacity_msat);
    let spendable = spendable.fold(0, u64::saturating_add);
    if amount_msat > spendable {
        let message = format!(
            "the channels of this node can send {spendable} msat, and the payment needs {amount_msat} msat: pay less, or open a channel with more"
        );
        return Err(Error::new(Code::InsufficientFunds, message));
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
            Error::new(Code::AmountDiffers, message)
        }
        Bolt11PaymentError::SendingFailed(RetryableSendFailure::PaymentExpired) => {
            expired(turn, invoice)
        }
        Bolt11PaymentError::SendingFailed(RetryableSendFailure::RouteNotFound) => {
            no_route::refusal(turn, invoice, amount_msat, fee_limit_msat)
        }
        Bolt11PaymentError::SendingFailed(failure) => send_failure(&failure),
    })
}

fn expired(turn: &Turn, invoice: &Bolt11Invoice) -> Error {
    let expiry = invoice.expires_at().map_or(0, |at| at.as_secs());
    let (expiry, now) = (utc(expiry), utc(turn.now.unix_s()));
    let message = format!(
        "the invoice expired at {expiry}, and the host's clock shows {now}: ask for a new one"
    );
    Error::new(Code::InvoiceExpired, message)
}

fn send_failure(failure: &RetryableSendFailure) -> Error {
    match failure {
        RetryableSendFailure::PaymentExpired => Error::new(
            Code::InvoiceExpired,
            "the invoice has expired: ask for a new one",
        ),
        RetryableSendFailure::RouteNotFound => {
            Error::new(Code::NoRoute, "no route was found: try later")
        }
        RetryableSendFailure::DuplicatePayment => Error::new(
            Code::AlreadyPaid,
            "this invoice is being paid or was paid already",
        ),
        RetryableSendFailure::OnionPacketSizeExceeded => Error::new(
            Code::InvoiceMalformed,
            "the invoice asks for more than fits into a payment",
        ),
    }
}

#[cfg(test)]
#[path = "tests/payments.rs"]
mod tests;
