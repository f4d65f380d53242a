//! Invoices and payments.

use bitcoin::hex::DisplayHex;
use longhand_base::text::plain;
use longhand_proto::command as proto;
use serde::{Deserialize, Serialize};

/// A signed invoice, durable on the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// The invoice for the payer.
    pub bolt11: String,
    /// Hex.
    pub payment_hash: String,
    /// 0 = any amount.
    pub amount_msat: u64,
    /// Its expiry, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// A page of the payments: those over Lightning. Nothing that was sent on chain is one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payments {
    /// Newest first.
    pub payments: Vec<Payment>,
    /// For the page after it, hex; empty when there is none.
    #[serde(default)]
    pub next: String,
}

impl From<proto::Payments> for Payments {
    fn from(page: proto::Payments) -> Payments {
        Payments {
            payments: page.payments.into_iter().map(Payment::from).collect(),
            next: page.next.to_lower_hex_string(),
        }
    }
}

/// The owner's invoices that nobody has paid yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvoices {
    /// Newest first.
    pub invoices: Vec<OpenInvoice>,
}

/// One of them. It may have expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvoice {
    /// Hex.
    pub payment_hash: String,
    /// The invoice, as this phone signed it; empty when it did not.
    pub bolt11: String,
    /// 0 = any amount.
    pub amount_msat: u64,
    /// The description in the invoice.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// Its expiry, in seconds since 1970.
    pub expires_unix_s: u64,
}

impl From<proto::OpenInvoice> for OpenInvoice {
    fn from(invoice: proto::OpenInvoice) -> OpenInvoice {
        OpenInvoice {
            payment_hash: invoice.payment_hash.to_lower_hex_string(),
            bolt11: String::new(),
            amount_msat: invoice.amount_msat,
            description: plain(&invoice.description),
            created_unix_s: invoice.created_unix_s,
            expires_unix_s: invoice.expires_unix_s,
        }
    }
}

/// One payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Hex.
    pub payment_hash: String,
    /// Sent, not received.
    pub outbound: bool,
    /// Without fees.
    pub amount_msat: u64,
    /// Paid to those who forwarded it.
    pub fee_msat: u64,
    /// Its state.
    pub state: PaymentState,
    /// Hex, once known: the proof of payment.
    pub preimage: String,
    /// When it was begun, in seconds since 1970.
    pub created_unix_s: u64,
    /// The reason of a failure, for a person.
    pub failure: String,
    /// When it ended, in seconds since 1970; 0 when it has not, or the host did not record it.
    #[serde(default)]
    pub ended_unix_s: u64,
    /// The description of its invoice, without characters that steer a terminal.
    #[serde(default)]
    pub description: String,
    /// The payee of an outgoing payment; empty when the host did not record it.
    #[serde(default)]
    pub payee_node_id: String,
    /// Its invoice; empty when neither host nor phone recorded it.
    #[serde(default)]
    pub bolt11: String,
    /// The expiry of the invoice, in seconds since 1970; 0 when it is not known.
    #[serde(default)]
    pub expires_unix_s: u64,
}

impl From<proto::Payment> for Payment {
    fn from(payment: proto::Payment) -> Payment {
        use proto::payment::State;
        let state = match payment.state() {
            State::Unknown => PaymentState::Unknown,
            State::Pending => PaymentState::Pending,
            State::Succeeded => PaymentState::Succeeded,
            State::Failed => PaymentState::Failed,
        };
        Payment {
            payment_hash: payment.payment_hash.to_lower_hex_string(),
            outbound: payment.outbound,
            amount_msat: payment.amount_msat,
            fee_msat: payment.fee_msat,
            state,
            preimage: payment.preimage.to_lower_hex_string(),
            created_unix_s: payment.created_unix_s,
            failure: plain(&payment.failure),
            ended_unix_s: payment.ended_unix_s,
            description: plain(&payment.description),
            payee_node_id: payment.payee_node_id.to_lower_hex_string(),
            bolt11: plain(&payment.bolt11),
            expires_unix_s: payment.expires_unix_s,
        }
    }
}

/// The state of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// A state that this version does not know.
    Unknown,
    /// It has not ended.
    Pending,
    /// The payee has received it.
    Succeeded,
    /// It failed: the payee has not received it, and will not.
    Failed,
}

impl PaymentState {
    /// The state as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            PaymentState::Unknown => "unknown",
            PaymentState::Pending => "pending",
            PaymentState::Succeeded => "succeeded",
            PaymentState::Failed => "failed",
        }
    }
}
