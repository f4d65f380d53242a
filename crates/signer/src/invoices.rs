//! Invoices: the host writes them, the phone checks, signs and assembles them (BOLT 11).

use std::str::FromStr;

use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
use bech32::{Fe32, Hrp};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::Message;
use lightning_invoice::{Bolt11Bech32, Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
use longhand_proto::command::UnsignedInvoice;
use longhand_proto::utc;

use crate::engine::{Change, Recorded, Signer};
use crate::ledger::entry;
use crate::rules::{Refused, Rule};

/// The largest difference between an invoice's timestamp and the phone's clock, in seconds.
const CLOCK_SKEW_S: u64 = 3600;

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
    /// Checks the host's unsigned invoice against the owner's request `asked`, signs it with the node key and assembles it (BOLT 11).
    ///
    /// Refused ([`Rule::InvoiceMismatch`]) when anything in it differs from the request: network, amount, payment hash,
    /// description, expiry, a timestamp more than an hour from `now_unix_s`, another payee, or an on-chain fallback
    /// address (which would let the host have the money).
    pub fn finish_invoice(
        &mut self,
        unsigned: &UnsignedInvoice,
        asked: &InvoiceRequest,
        now_unix_s: u64,
    ) -> Result<Recorded<Bolt11Invoice>, Refused> {
        let payment = self.state.payments.get(&asked.payment_hash);
        let payment = payment
            .ok_or_else(|| Refused::new(Rule::PreimageUnknown, "no such payment was made here"))?;
        if payment.public.amount_msat != asked.amount_msat {
            return Err(mismatch("its amount is not that of the payment"));
        }
        if !payment.public.bolt11.is_empty() {
            return Err(Refused::new(
                Rule::Duplicate,
                "this payment has its invoice already: make a new payment",
            ));
        }
        let invoice = self.sign_invoice(unsigned)?;
        self.check_invoice(&invoice, asked, now_unix_s)?;
        let expires_unix_s = expires_unix_s(&invoice, now_unix_s);
        let signed = entry::InvoiceSigned {
            payment_hash: asked.payment_hash.to_vec(),
            bolt11: invoice.to_string(),
            expires_unix_s,
        };
        self.owner_call(invoice, Change::InvoiceSigned(signed))
    }

    /// Signs and assembles the invoice of these parts, unchecked. It leaves the phone only if it passes `check_invoice`.
    fn sign_invoice(&self, unsigned: &UnsignedInvoice) -> Result<Bolt11Invoice, Refused> {
        let hrp = Hrp::parse(&unsigned.hrp).map_err(|_| unreadable())?;
        let groups: Result<Vec<Fe32>, _> = unsigned
            .data
            .iter()
            .map(|group| Fe32::try_from(*group))
            .collect();
        let mut groups = groups.map_err(|_| unreadable())?;

        // BOLT 11: the human-readable part and the data, its bits padded with zeros to whole bytes.
        let mut signed = sha256::Hash::engine();
        signed.input(unsigned.hrp.as_bytes());
        signed.input(&whole_bytes(&groups));
        let digest = Message::from_digest(sha256::Hash::from_engine(signed).to_byte_array());
        let key = self.keys.ldk.get_node_secret_key();
        let (recovery, signature) = self
            .keys
            .secp
            .sign_ecdsa_recoverable(&digest, &key)
            .serialize_compact();
        let recovery = u8::try_from(recovery.to_i32()).map_err(|_| unreadable())?;
        groups.extend(signature.into_iter().chain([recovery]).bytes_to_fes());

        let text: String = groups
            .into_iter()
            .with_checksum::<Bolt11Bech32>(&hrp)
            .chars()
            .collect();
        Bolt11Invoice::from_str(&text).map_err(|_| unreadable())
    }

    fn check_invoice(
        &self,
        invoice: &Bolt11Invoice,
        asked: &InvoiceRequest,
        now_unix_s: u64,
    ) -> Result<(), Refused> {
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(mismatch(what)) };
        let description = match invoice.description() {
            Bolt11InvoiceDescriptionRef::Direct(description) => {
                description.as_inner().0 == asked.description
            }
            Bolt11InvoiceDescriptionRef::Hash(_) => false,
        };
        let amount_msat = (asked.amount_msat > 0).then_some(asked.amount_msat);
        check(
            invoice.currency() == Currency::from(self.keys.network()),
            "it is for another network",
        )?;
        check(
            invoice.amount_milli_satoshis() == amount_msat,
            "its amount is another",
        )?;
        check(
            invoice.payment_hash().0 == asked.payment_hash,
            "its payment hash is another",
        )?;
        check(
            invoice.get_payee_pub_key() == self.keys.node_id(),
            "it pays someone else",
        )?;
        check(description, "its description is another")?;
        check(
            invoice.expiry_time().as_secs() == u64::from(asked.expiry_s),
            "it expires at another time",
        )?;
        let date_unix_s = invoice.duration_since_epoch().as_secs();
        check(
            date_unix_s.abs_diff(now_unix_s) <= CLOCK_SKEW_S,
            &format!(
                "its date is {} by the host's clock, and this phone's clock shows {} (set the one that is wrong)",
                utc(date_unix_s),
                utc(now_unix_s)
            ),
        )?;
        check(invoice.fallbacks().is_empty(), "it has an on-chain address")
    }
}

/// The time until which the phone accepts payments for an invoice that it signs now, in seconds since 1970. The timestamp is the
/// host's, and payments are compared with the phone's clock: a phone whose clock is fast must not treat its invoice as expired early.
fn expires_unix_s(invoice: &Bolt11Invoice, now_unix_s: u64) -> u64 {
    let expiry_s = invoice.expiry_time().as_secs();
    let date_unix_s = invoice.duration_since_epoch().as_secs();
    date_unix_s.max(now_unix_s).saturating_add(expiry_s)
}

/// `groups` of five bits as bytes, padded with zero bits.
fn whole_bytes(groups: &[Fe32]) -> Vec<u8> {
    let missing = match groups.len() * 5 % 8 {
        0 => 0,
        1 | 2 => 2,
        _ => 1,
    };
    groups
        .iter()
        .copied()
        .chain(std::iter::repeat_n(Fe32::Q, missing))
        .fes_to_bytes()
        .collect()
}

fn mismatch(what: &str) -> Refused {
    Refused::new(
        Rule::InvoiceMismatch,
        format!("the host's invoice is not what was asked for: {what}"),
    )
}

fn unreadable() -> Refused {
    mismatch("it cannot be read")
}
