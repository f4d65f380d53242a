//! A payment as its owner sees it before it is made: read from the invoice, on this machine, without the host.

use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef};
use longhand_base::text::plain;
use longhand_proto::utc;

use crate::input::{InputError, default_max_fee_msat, malformed_invoice};
use crate::uri::PaymentText;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentPreview {
    /// The invoice's amount, or else the owner's, or that of the URI, in msat.
    pub amount_msat: u64,
    /// The most that routing may cost, in msat.
    pub max_fee_msat: u64,
    /// The node that is paid.
    pub payee_node_id: String,
    /// The description in the invoice, without characters that steer a terminal; empty when it has none, or only its hash.
    pub description: String,
    /// The expiry of the invoice, as text; empty when it is beyond every calendar.
    pub expires: String,
}

impl PaymentPreview {
    /// Reads an invoice, alone or in a URI ([`PaymentText`]). The rest is checked when it is paid.
    ///
    /// # Errors
    /// [`InputError::InvoiceMalformed`], [`InputError::UriMalformed`], [`InputError::UriUnknown`],
    /// [`InputError::UriWithoutInvoice`] or [`InputError::AmountMissing`].
    pub fn of(
        text: &str,
        amount_msat: Option<u64>,
        max_fee_msat: Option<u64>,
    ) -> Result<PaymentPreview, InputError> {
        let text = PaymentText::of_invoice(text)?;
        let bolt11 = text.bolt11.ok_or(InputError::UriWithoutInvoice)?;
        let invoice: Bolt11Invoice = bolt11.parse().map_err(malformed_invoice)?;
        let of_uri = text.amount_sat.and_then(|sat| sat.checked_mul(1_000));
        let stated = invoice.amount_milli_satoshis();
        let amount_msat = stated.or(amount_msat).or(of_uri);
        let amount_msat = amount_msat.ok_or(InputError::AmountMissing)?;
        let description = match invoice.description() {
            Bolt11InvoiceDescriptionRef::Direct(text) => plain(&text.as_inner().0),
            Bolt11InvoiceDescriptionRef::Hash(_) => String::new(),
        };
        let fee = || default_max_fee_msat(amount_msat);
        Ok(PaymentPreview {
            amount_msat,
            max_fee_msat: max_fee_msat.unwrap_or_else(fee),
            payee_node_id: invoice.get_payee_pub_key().to_string(),
            description,
            expires: invoice
                .expires_at()
                .map_or(String::new(), |at| utc(at.as_secs())),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_testkit::invoices::InvoiceSpec;

    use super::*;

    #[test]
    fn an_invoice_is_shown_with_its_amount_payee_and_text() {
        let spec = InvoiceSpec::default();
        let invoice: Bolt11Invoice = spec.text().parse().unwrap();
        let preview = PaymentPreview::of(&spec.text(), None, Some(7)).unwrap();
        assert_eq!(Some(preview.amount_msat), invoice.amount_milli_satoshis());
        assert_eq!(preview.max_fee_msat, 7);
        assert_eq!(
            preview.payee_node_id,
            invoice.get_payee_pub_key().to_string()
        );
        assert!(preview.expires.ends_with(" UTC"));
    }

    #[test]
    fn the_text_of_an_invoice_cannot_steer_the_terminal_on_which_it_is_shown() {
        let spec = InvoiceSpec {
            description: "tea\u{1b}[2J\r\n\u{202e}lla\u{2066}".into(),
            ..InvoiceSpec::default()
        };
        let preview = PaymentPreview::of(&spec.text(), None, None).unwrap();
        assert_eq!(preview.description, "tea [2J  lla");
    }

    #[test]
    fn an_amount_that_the_invoice_leaves_open_is_the_uris_or_the_owners() {
        let open = InvoiceSpec {
            amount_msat: None,
            ..InvoiceSpec::default()
        };
        let amount = |text: &str, given| {
            let preview = PaymentPreview::of(text, given, None);
            preview.map(|it| it.amount_msat)
        };
        assert_eq!(amount(&open.text(), None), Err(InputError::AmountMissing));
        assert_eq!(amount(&open.text(), Some(5)), Ok(5));
        let uri = format!("bitcoin:?amount=0.00000001&lightning={}", open.text());
        assert_eq!(amount(&uri, None), Ok(1_000));
    }
}
