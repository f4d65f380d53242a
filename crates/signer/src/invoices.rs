//! Invoices: the host writes them, the phone checks, signs and assembles them (BOLT 11).

use lightning_invoice::Bolt11Invoice;
use longhand_proto::command::UnsignedInvoice;

use crate::engine::{Recorded, Signer};
use crate::rules::{Refused, judge_invoice};
use crate::sign::release_invoice;

/// An invoice that the owner asked the host to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceRequest {
    /// The hash from [`Signer::new_payment`].
    pub payment_hash: [u8; 32],
    /// The amount; 0 = any amount.
    pub amount_msat: u64,
    /// The description for the invoice.
    pub description: String,
    /// Seconds from the invoice's timestamp until it expires.
    pub expiry_s: u32,
}

impl Signer {
    /// The payment secret that the invoice must have (BOLT 11 `s`), for the host that writes it. `None` when no payment was made with this
    /// hash, or the amount is above all bitcoin.
    pub fn payment_secret(&self, asked: &InvoiceRequest) -> Option<[u8; 32]> {
        let payment = self.state.payments.get(&asked.payment_hash)?;
        self.own().payment_secret(payment, asked.expiry_s)
    }

    /// Checks the host's unsigned invoice against the owner's request `asked`, signs it with the node key and assembles it (BOLT 11).
    ///
    /// Refused ([`Rule::InvoiceMismatch`](crate::Rule::InvoiceMismatch)) when anything in it differs from the request: network, amount,
    /// payment hash, payment secret, description, expiry, a timestamp more than an hour from `now_unix_s`, another payee, or an on-chain fallback
    /// address (which would let the host have the money).
    pub fn finish_invoice(
        &mut self,
        unsigned: &UnsignedInvoice,
        asked: &InvoiceRequest,
        now_unix_s: u64,
    ) -> Result<Recorded<Bolt11Invoice>, Refused> {
        let proposal = self.read_invoice(unsigned, asked)?;
        let mut warnings = Vec::new();
        let judged = judge_invoice(&self.view(now_unix_s), proposal, &mut warnings)?;
        let (invoice, change) = release_invoice(judged, now_unix_s);
        self.warned_owner_call(invoice, change, warnings)
    }
}
