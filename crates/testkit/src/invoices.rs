//! BOLT 11 invoices: somebody else's, to be paid, and the unsigned ones of a node, which its phone signs.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning_invoice::{
    Bolt11Invoice, Currency, InvoiceBuilder, PaymentHash, PaymentSecret, RawBolt11Invoice,
};
use longhand_proto::command::payment::State;
use longhand_proto::command::{CreateInvoice, Payment, UnsignedInvoice};

use crate::clock::unix_s;

/// BOLT 11's `payment_secret` of all these invoices.
pub const PAYMENT_SECRET: [u8; 32] = [7; 32];
const CLTV_EXPIRY_DELTA: u64 = 144;

/// An invoice of somebody else, valid for an hour.
pub struct InvoiceSpec {
    /// The network, as BOLT 11's prefix names it.
    pub currency: Currency,
    /// `None`: any amount.
    pub amount_msat: Option<u64>,
    /// With which the payee claims.
    pub preimage: [u8; 32],
    /// Seconds since it was made.
    pub age_s: u64,
    /// BOLT 11's `d`.
    pub description: String,
}

impl Default for InvoiceSpec {
    fn default() -> InvoiceSpec {
        InvoiceSpec {
            currency: Currency::Regtest,
            amount_msat: Some(5_000_000),
            preimage: [0x33; 32],
            age_s: 0,
            description: "tea".into(),
        }
    }
}

impl InvoiceSpec {
    /// The payment hash.
    pub fn hash(&self) -> [u8; 32] {
        sha256::Hash::hash(&self.preimage).to_byte_array()
    }

    /// The invoice, signed with [`payee_key`].
    ///
    /// # Panics
    /// When BOLT 11 has no such invoice.
    pub fn build(&self) -> Bolt11Invoice {
        let invoice = InvoiceBuilder::new(self.currency.clone())
            .description(self.description.clone())
            .payment_hash(PaymentHash(self.hash()))
            .payment_secret(PaymentSecret(PAYMENT_SECRET))
            .duration_since_epoch(Duration::from_secs(unix_s() - self.age_s))
            .min_final_cltv_expiry_delta(CLTV_EXPIRY_DELTA)
            .basic_mpp();
        let invoice = match self.amount_msat {
            Some(amount_msat) => invoice.amount_milli_satoshis(amount_msat),
            None => invoice,
        };
        let secp = Secp256k1::new();
        let signed = invoice.build_signed(|hash| secp.sign_ecdsa_recoverable(hash, &payee_key()));
        signed.unwrap()
    }

    /// The invoice as text.
    ///
    /// # Panics
    /// Like [`build`](Self::build).
    pub fn text(&self) -> String {
        self.build().to_string()
    }

    /// The payment of this invoice, as the payer's node reports it.
    pub fn payment(&self, state: State) -> Payment {
        let preimage = match state {
            State::Succeeded => self.preimage.to_vec(),
            _ => Vec::new(),
        };
        Payment {
            payment_hash: self.hash().to_vec(),
            outbound: true,
            amount_msat: self.amount_msat.unwrap_or(0),
            fee_msat: 12,
            state: state.into(),
            preimage,
            created_unix_s: unix_s(),
            failure: "no route".into(),
            ..Payment::default()
        }
    }
}

/// The key of the node that [`InvoiceSpec`] pays.
///
/// # Panics
/// Never.
pub fn payee_key() -> SecretKey {
    SecretKey::from_slice(&[0x22; 32]).unwrap()
}

/// The id of the node that [`InvoiceSpec`] pays.
pub fn payee_id() -> PublicKey {
    payee_key().public_key(&Secp256k1::new())
}

/// The invoice that a node makes for its phone's signature.
///
/// # Panics
/// When BOLT 11 has no such invoice.
pub fn unsigned_invoice(create: &CreateInvoice) -> UnsignedInvoice {
    let payment_hash = create.payment_hash.clone().try_into().unwrap();
    let payment_secret = create.payment_secret.clone().try_into().unwrap();
    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description(create.description.clone())
        .payment_hash(PaymentHash(payment_hash))
        .payment_secret(PaymentSecret(payment_secret))
        .duration_since_epoch(Duration::from_secs(unix_s()))
        .expiry_time(Duration::from_secs(create.expiry_s.into()))
        .min_final_cltv_expiry_delta(CLTV_EXPIRY_DELTA)
        .basic_mpp();
    let invoice = match create.amount_msat {
        0 => invoice,
        amount_msat => invoice.amount_milli_satoshis(amount_msat),
    };
    unsigned(&invoice.build_raw().unwrap())
}

/// An invoice without its signature, as a node sends it to its phone.
pub fn unsigned(invoice: &RawBolt11Invoice) -> UnsignedInvoice {
    let (hrp, data) = invoice.to_raw();
    UnsignedInvoice {
        hrp,
        data: data.iter().map(|group| group.to_u8()).collect(),
    }
}
