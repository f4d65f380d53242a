//! Invoices as a host writes them (BOLT 11): by LDK, and not signed.

use std::time::Duration;

use bitcoin::bech32::Fe32;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::routing::gossip::RoutingFees;
use lightning::routing::router::{RouteHint, RouteHintHop};
use lightning_invoice::{Bolt11Invoice, Currency, Fallback, InvoiceBuilder, PaymentSecret};
use longhand_proto::command::UnsignedInvoice;
use longhand_signer::{InvoiceRequest, Refused};

use crate::scene::{NOW, Phone};

/// The time for which the invoices of the scene can be paid.
pub const EXPIRY_S: u32 = 3600;

/// The fields that a host may put into an invoice.
#[derive(Clone)]
pub struct Draft {
    /// The network.
    pub currency: Currency,
    /// The payment hash.
    pub payment_hash: [u8; 32],
    /// The amount; 0 = any.
    pub amount_msat: u64,
    /// The description.
    pub description: String,
    /// Seconds until it expires.
    pub expiry_s: u32,
    /// Its date, in seconds since 1970.
    pub date: u64,
    /// Another payee.
    pub payee: Option<SecretKey>,
    /// Whether it has an on-chain address.
    pub fallback: bool,
    /// The final expiry delta.
    pub final_delta_blocks: u64,
    /// Another payment secret than the phone's.
    pub secret: Option<[u8; 32]>,
    /// Payment metadata.
    pub metadata: Option<Vec<u8>>,
    /// The last node of a route hint.
    pub hint: Option<PublicKey>,
}

impl Draft {
    /// As the owner asked.
    pub fn of(asked: &InvoiceRequest) -> Draft {
        Draft {
            currency: Currency::Regtest,
            payment_hash: asked.payment_hash,
            amount_msat: asked.amount_msat,
            description: asked.description.clone(),
            expiry_s: asked.expiry_s,
            date: NOW,
            payee: None,
            fallback: false,
            final_delta_blocks: 39,
            secret: None,
            metadata: None,
            hint: None,
        }
    }

    /// The parts of the invoice as a host sends them: written by LDK, signature cut off. `secret` is the phone's payment secret.
    pub fn unsigned(&self, secret: [u8; 32]) -> UnsignedInvoice {
        let secret = self.secret.unwrap_or(secret);
        let mut builder = InvoiceBuilder::new(self.currency.clone())
            .description(self.description.clone())
            .payment_hash(sha256::Hash::from_byte_array(self.payment_hash).into_inner())
            .payment_secret(PaymentSecret(secret))
            .duration_since_epoch(Duration::from_secs(self.date))
            .expiry_time(Duration::from_secs(u64::from(self.expiry_s)))
            .min_final_cltv_expiry_delta(self.final_delta_blocks)
            .basic_mpp();
        if self.amount_msat > 0 {
            builder = builder.amount_milli_satoshis(self.amount_msat);
        }
        if let Some(key) = self.payee {
            builder = builder.payee_pub_key(key.public_key(&Secp256k1::new()));
        }
        if self.fallback {
            builder = builder.fallback(Fallback::PubKeyHash(bitcoin::PubkeyHash::all_zeros()));
        }
        if let Some(src_node_id) = self.hint {
            builder = builder.private_route(RouteHint(vec![RouteHintHop {
                src_node_id,
                short_channel_id: 42,
                fees: RoutingFees {
                    base_msat: 0,
                    proportional_millionths: 0,
                },
                cltv_expiry_delta: 40,
                htlc_minimum_msat: None,
                htlc_maximum_msat: None,
            }]));
        }
        let raw = match &self.metadata {
            Some(metadata) => builder.payment_metadata(metadata.clone()).build_raw(),
            None => builder.build_raw(),
        };
        let key = self
            .payee
            .unwrap_or(SecretKey::from_slice(&[1; 32]).expect("the scene is honest"));
        let signed = raw.expect("the scene is honest").sign::<_, ()>(|hash| {
            let digest = bitcoin::secp256k1::Message::from_digest(*hash.as_ref());
            Ok(Secp256k1::new().sign_ecdsa_recoverable(&digest, &key))
        });
        let text = signed.expect("the scene is honest").to_string();
        let (hrp, data) = text.rsplit_once('1').expect("the scene is honest");
        let data: Vec<u8> = data
            .chars()
            .map(|c| Fe32::from_char(c).expect("the scene is honest").to_u8())
            .collect();
        UnsignedInvoice {
            hrp: hrp.to_string(),
            data: data[..data.len() - 104 - 6].to_vec(),
        }
    }
}

trait IntoInner {
    fn into_inner(self) -> lightning_invoice::PaymentHash;
}
impl IntoInner for sha256::Hash {
    fn into_inner(self) -> lightning_invoice::PaymentHash {
        lightning_invoice::PaymentHash(self.to_byte_array())
    }
}

/// Makes a payment at the phone, and what to ask the host for. Its owner allows invoices without an amount when this is one.
pub fn ask_for(phone: &mut Phone, amount_msat: u64) -> InvoiceRequest {
    if amount_msat == 0 {
        phone.limit("any_amount_sat", "1000000");
    }
    let made = phone
        .signer
        .new_payment(amount_msat, [amount_msat as u8; 32], NOW)
        .expect("the scene is honest");
    phone.keep(&made.records);
    InvoiceRequest {
        payment_hash: made.value,
        amount_msat,
        description: "coffee".into(),
        expiry_s: EXPIRY_S,
    }
}

/// Has the phone sign the host's invoice.
///
/// # Errors
/// The refusal.
pub fn finish(
    phone: &mut Phone,
    draft: &Draft,
    asked: &InvoiceRequest,
) -> Result<Bolt11Invoice, Refused> {
    // Without a payment of the phone's there is no secret, and the phone refuses for that.
    let secret = phone.signer.payment_secret(asked).unwrap_or([7; 32]);
    let unsigned = draft.unsigned(secret);
    let finished = phone.signer.finish_invoice(&unsigned, asked, NOW)?;
    phone.keep(&finished.records);
    Ok(finished.value)
}
