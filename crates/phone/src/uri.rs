//! The texts by which wallets show where to pay: an invoice or an address alone, `lightning:` with an invoice, and
//! `bitcoin:` with an address, an amount and an invoice (BIP 21), in capitals too, as QR codes have them.

use bitcoin::{Amount, Denomination};
use percent_encoding::percent_decode_str;

use crate::input::InputError;

/// The longest text that is read.
const MAX_BYTES: usize = 16 * 1024;

/// What a text says about a payment; its parts are not checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentText {
    /// A BOLT 11 invoice.
    pub bolt11: Option<String>,
    /// An on-chain address.
    pub address: Option<String>,
    /// The amount of a BIP 21 URI.
    pub amount_sat: Option<u64>,
}

impl PaymentText {
    /// Reads a text from which an invoice is to be paid. Without a scheme it is the invoice.
    ///
    /// # Errors
    /// [`InputError::UriMalformed`], [`InputError::UriUnknown`].
    pub fn of_invoice(text: &str) -> Result<PaymentText, InputError> {
        let alone = |text: &str| PaymentText {
            bolt11: Some(text.to_owned()),
            ..PaymentText::default()
        };
        Ok(read(text)?.unwrap_or_else(|| alone(text.trim())))
    }

    /// Reads a text from which an address is to be paid. Without a scheme it is the address.
    ///
    /// # Errors
    /// Like [`of_invoice`](Self::of_invoice).
    pub fn of_address(text: &str) -> Result<PaymentText, InputError> {
        let alone = |text: &str| PaymentText {
            address: Some(text.to_owned()),
            ..PaymentText::default()
        };
        Ok(read(text)?.unwrap_or_else(|| alone(text.trim())))
    }
}

/// Reads a URI; `None` when the text has no scheme.
fn read(text: &str) -> Result<Option<PaymentText>, InputError> {
    let text = text.trim();
    if text.len() > MAX_BYTES {
        return Err(InputError::UriMalformed("it is too long"));
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Ok(None);
    };
    // Some wallets write a URI as if it had an authority.
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    match scheme.to_ascii_lowercase().as_str() {
        "lightning" => Ok(Some(PaymentText {
            bolt11: Some(rest.trim_end_matches('/').to_owned()),
            ..PaymentText::default()
        })),
        "bitcoin" => bip21(rest).map(Some),
        _ => Err(InputError::UriMalformed(
            "it begins neither with bitcoin: nor with lightning:",
        )),
    }
}

fn bip21(rest: &str) -> Result<PaymentText, InputError> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let address = address.trim_end_matches('/');
    let mut read = PaymentText {
        address: (!address.is_empty()).then(|| address.to_owned()),
        ..PaymentText::default()
    };
    for parameter in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| InputError::UriMalformed("a parameter is not UTF-8"))?;
        match name.to_ascii_lowercase().as_str() {
            "amount" => {
                let amount = Amount::from_str_in(&value, Denomination::Bitcoin)
                    .map_err(|_| InputError::UriMalformed("its amount is no number of bitcoin"))?;
                let earlier = read.amount_sat.replace(amount.to_sat());
                if earlier.is_some_and(|earlier| earlier != amount.to_sat()) {
                    return Err(InputError::UriMalformed("it has two amounts"));
                }
            }
            "lightning" if !value.is_empty() => read.bolt11 = Some(value.into_owned()),
            // BIP 21: a URI with a parameter that is required and unknown is not to be paid.
            required if required.starts_with("req-") => return Err(InputError::UriUnknown),
            _ => {}
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_proto::Code;

    use super::*;

    fn both(bolt11: &str, address: &str, amount_sat: u64) -> PaymentText {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PaymentText {
            bolt11: some(bolt11),
            address: some(address),
            amount_sat: (amount_sat > 0).then_some(amount_sat),
        }
    }

    #[test]
    fn every_shape_that_wallets_show_is_read() {
        let cases = [
            (" lnbcrt1x\n", both("lnbcrt1x", "", 0)),
            ("lightning:lnbcrt1x", both("lnbcrt1x", "", 0)),
            ("lightning://lnbcrt1x", both("lnbcrt1x", "", 0)),
            ("LIGHTNING:LNBCRT1X", both("LNBCRT1X", "", 0)),
            ("Lightning://LNBCRT1X/", both("LNBCRT1X", "", 0)),
            (
                "bitcoin:bcrt1q?amount=0.005&lightning=lnbcrt1x",
                both("lnbcrt1x", "bcrt1q", 500_000),
            ),
            (
                "BITCOIN:BCRT1Q?AMOUNT=1&LIGHTNING=LNBCRT1X&label=a%20b",
                both("LNBCRT1X", "BCRT1Q", 100_000_000),
            ),
            ("bitcoin:?lightning=lnbcrt1x", both("lnbcrt1x", "", 0)),
            (
                "bitcoin://bcrt1q?message=tea&other=1",
                both("", "bcrt1q", 0),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(PaymentText::of_invoice(text).unwrap(), expected, "{text}");
        }
        let alone = PaymentText::of_address(" bcrt1q ").unwrap();
        assert_eq!(alone, both("", "bcrt1q", 0));
    }

    #[test]
    fn a_uri_that_cannot_be_obeyed_is_refused() {
        let cases = [
            ("bitcoin:bcrt1q?req-token=1", Code::UriUnknown),
            ("bitcoin:bcrt1q?amount=1,5", Code::UriMalformed),
            ("bitcoin:bcrt1q?amount=-1", Code::UriMalformed),
            ("bitcoin:bcrt1q?amount=1&amount=2", Code::UriMalformed),
            ("bitcoin:bcrt1q?label=%ff", Code::UriMalformed),
            ("https://example.com", Code::UriMalformed),
        ];
        for (text, code) in cases {
            let refused = PaymentText::of_address(text).unwrap_err();
            assert_eq!(refused.code(), code, "{text}");
        }
        let long = format!("lightning:{}", "a".repeat(MAX_BYTES));
        assert!(PaymentText::of_invoice(&long).is_err());
    }
}
